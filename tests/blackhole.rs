//! A peer that vanishes without a word, as the kernel sees it: both ends notice, within the peer timeout.
//!
//! The server and its client run in network namespaces of their own, joined by a pair of virtual devices. To
//! make them vanish, each is given a wrong hardware address for the other: packets leave, and nobody takes
//! them. Where namespaces are not permitted this says so; the proxy of `tests/it/breakage.rs` remains.

// So that lints know all of this for tests, helpers included.
#![cfg(test)]

#[expect(dead_code, reason = "shared with tests/it, which uses all of it")]
#[path = "it/support/mod.rs"]
mod support;

use std::io::{BufRead, BufReader, Write};
use std::num::NonZeroUsize;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use stubborn::{Body, Client, Kind, Limits, Server, Stub};
use support::target::{Aim, TARGET};
use tokio::time::{Instant, timeout};

const CLIENT: &str = "10.73.1.1";
const SERVER: &str = "10.73.1.2";
const PEER_TIMEOUT: Duration = Duration::from_secs(3);
/// Keepalive counts in seconds, and this machine may be busy.
const PATIENCE: Duration = Duration::from_secs(10);
/// The connections that are to be lost: one idle, one that awaits a reply, and one with data under way in
/// each direction.
const CONNECTIONS: usize = 4;

#[expect(clippy::disallowed_methods, reason = "a test without a harness reads its own arguments")]
fn main() {
    let role = std::env::args().nth(1).unwrap_or_default();
    match role.as_str() {
        "client" => client(),
        "server" => support::run(server()),
        "--list" => {}
        wanted if !"blackhole".contains(wanted) && !wanted.starts_with('-') => {}
        _ => outside(),
    }
}

/// Runs the client in a network of its own, where the system permits it.
fn outside() {
    let unshare = |arguments: &[&str]| Command::new("unshare").arg("-rn").args(arguments).status();
    let permitted = unshare(&["ip", "link", "add", "near", "type", "veth", "peer", "name", "far"]);
    if !permitted.is_ok_and(|status| status.success()) {
        println!("not run: network namespaces (or `ip`) are not to be had here");
        return;
    }
    let program = std::env::current_exe().unwrap();
    let status = unshare(&[program.to_str().unwrap(), "client"]).unwrap();
    assert!(status.success(), "{status}");
}

fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status().unwrap();
    assert!(status.success(), "ip {arguments}");
}

/// The server's process, and what is said between it and us beside the network.
struct Far {
    child: Child,
    tell: ChildStdin,
    told: BufReader<ChildStdout>,
}

impl Far {
    fn start() -> Self {
        let mut command = Command::new("unshare");
        command.arg("-n").arg(std::env::current_exe().unwrap()).arg("server");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let tell = child.stdin.take().unwrap();
        let told = BufReader::new(child.stdout.take().unwrap());
        Self { child, tell, told }
    }

    fn hear(&mut self) -> String {
        let mut line = String::new();
        self.told.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    fn say(&mut self, line: &str) {
        writeln!(self.tell, "{line}").unwrap();
    }
}

impl Drop for Far {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn client() {
    let mut far = Far::start();
    assert_eq!(far.hear(), "separate");
    ip("link set lo up");
    ip(&format!("link add near type veth peer name far netns {}", far.child.id()));
    ip(&format!("addr add {CLIENT}/24 dev near"));
    ip("link set near up");
    far.say("joined");
    let address = far.hear();
    support::run(async {
        let scene = scene(&address).await;
        // The server goes deaf first: what it sent before has arrived.
        far.say("vanish");
        assert_eq!(far.hear(), "vanished");
        ip(&format!("neigh replace {SERVER} lladdr 02:00:00:00:00:99 dev near nud permanent"));
        let begun = Instant::now();
        for (what, stub, call) in scene {
            let lost =
                timeout(PATIENCE, call).await.unwrap_or_else(|_| panic!("{what}: not noticed"));
            assert_eq!(lost, Kind::Disconnected, "{what}");
            let told = timeout(PATIENCE, stub.broken()).await.expect("`broken` is told too");
            assert_eq!(told.kind, Kind::Disconnected, "{what}: {told:?}");
            let later = stub.fetch("http://do/hi").await.unwrap_err();
            assert_eq!(later.kind, Kind::Disconnected, "{what}: {later:?}");
            println!("client, {what:<16} {:>5.2} s", begun.elapsed().as_secs_f64());
        }
    });
    println!("server, {CONNECTIONS} connections   {} s", far.hear());
}

type Lost = std::pin::Pin<Box<dyn Future<Output = Kind>>>;

/// Connects in each state; returns what ends when the connection does.
async fn scene(address: &str) -> Vec<(&'static str, Stub, Lost)> {
    let limits = Limits { peer_timeout: PEER_TIMEOUT, ..Limits::default() };
    let mut scene: Vec<(_, _, Lost)> = Vec::new();
    for what in ["idle", "awaits a reply", "downloads", "uploads"] {
        let client = Client::connect_with(&address.parse().unwrap(), limits.clone()).await.unwrap();
        let stub = client.namespace(TARGET).get_by_name(what);
        stub.fetch("http://do/hi").await.unwrap();
        let watched = stub.clone();
        let call: Lost = match what {
            "idle" => Box::pin(async move { watched.broken().await.kind }),
            "awaits a reply" => {
                let answer = stub.fetch("http://do/forever");
                Box::pin(async move { answer.await.unwrap_err().kind })
            }
            "downloads" => {
                let endless = "http://do/stream?bytes=1000000000000&chunk=65536";
                let mut body = stub.fetch(endless).await.unwrap().into_body();
                body.chunk().await.unwrap().unwrap();
                tokio::task::spawn_local(
                    async move { while let Some(Ok(_)) = body.chunk().await {} },
                );
                Box::pin(async move { watched.broken().await.kind })
            }
            _ => {
                let (mut writer, body) = Body::pipe(65536);
                let answer = stub.fetch(http::Request::post("http://do/count").body(body).unwrap());
                writer.write(vec![7; 65536].into()).await.unwrap();
                tokio::task::spawn_local(async move {
                    while writer.write(vec![7; 65536].into()).await.is_ok() {}
                });
                Box::pin(async move { answer.await.unwrap_err().kind })
            }
        };
        scene.push((what, stub, call));
    }
    scene
}

/// Serves; tells how long it took after the client vanished until every connection had a free place.
async fn server() {
    println!("separate");
    assert_eq!(hear(), "joined");
    ip("link set lo up");
    ip(&format!("addr add {SERVER}/24 dev far"));
    ip("link set far up");
    let limits =
        Limits { peer_timeout: PEER_TIMEOUT, connections_max: CONNECTIONS, ..Limits::default() };
    let server = Server::builder()
        .namespace::<Aim>(TARGET)
        .threads(NonZeroUsize::new(2).unwrap())
        .limits(limits)
        .listen(&format!("{SERVER}:0"))
        .unwrap()
        .listen("127.0.0.1:0")
        .unwrap();
    let server = server.start().await.unwrap();
    println!("{}", server.addresses()[0]);
    let told = tokio::task::spawn_blocking(hear);
    assert_eq!(told.await.unwrap(), "vanish");
    let local = server.addresses()[1].to_string();
    assert!(place(&local).await.is_none(), "every place is taken");
    ip(&format!("neigh replace {CLIENT} lladdr 02:00:00:00:00:99 dev far nud permanent"));
    println!("vanished");
    let begun = Instant::now();
    let mut places = Vec::new();
    let freed = async {
        while places.len() < CONNECTIONS {
            places.extend(place(&local).await);
        }
    };
    timeout(PATIENCE, freed).await.expect("the server notices that its peers have vanished");
    println!("{:.2}", begun.elapsed().as_secs_f64());
    // The client ends this process.
    std::future::pending::<()>().await;
}

/// Waits for a line from the client, beside the network.
fn hear() -> String {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    line.trim().to_owned()
}

/// Takes a place among the server's connections, if one is free.
async fn place(address: &str) -> Option<Client> {
    let client = Client::connect(address).await.ok()?;
    client.namespaces().await.ok().map(|_| client)
}
