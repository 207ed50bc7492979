//! A disk that hangs, fills up or fails while the server runs.

use std::time::Duration;

use futures::FutureExt;
use futures::future::LocalBoxFuture;
use stubborn::demo_capnp::probe;
use stubborn::runtime::Placement;
use stubborn::{Client, Result, Stub};

use crate::process::{Disk, Folder, Process};
use crate::support;
use crate::support::keeper::KEEPER;

const PATIENCE: Duration = Duration::from_secs(60);

/// What a write is followed by, and what comes of it.
const LEAVING: [(&str, &str); 7] = [
    ("put.k.1/get.k", "1"),
    ("put.k.1/yield/get.k", "1"),
    ("put.k.1/call.NEAR.x", "x"),
    ("put.k.1/call.FAR.x", "x"),
    ("put.k.1/log.NEAR.7", ""),
    ("put.k.1/log.FAR.7", ""),
    ("txn.1/put.k.1/get.k", "1"),
];

pub(crate) fn all() {
    support::run(async {
        let folder = Folder::new("faults");
        let server = Process::start(&folder, Disk::Honest, 0);
        let client = server.connect().await;
        hang(&folder, &client).await;
        for (fault, words) in [("enospc", "the disk is full"), ("eio", "I/O error")] {
            fail(&folder, &client, fault, words).await;
        }
        let (folder, server) = (folder, server);
        drop(server);
        let server = Process::start(&folder, Disk::Honest, 0);
        let client = server.connect().await;
        for fault in ["enospc", "eio"] {
            for n in 0..LEAVING.len() {
                let value = say(&get(&client, &format!("{fault}-{n}")), "get.k").await.unwrap();
                assert_eq!(value, "3", "{fault}");
            }
        }
        println!("    after kill -9 everything acknowledged is there, and nothing else");
    });
}

fn get(client: &Client, name: &str) -> Stub {
    client.namespace(KEEPER).get_by_name(name)
}

fn say(stub: &Stub, path: &str) -> LocalBoxFuture<'static, Result<String>> {
    let answer = stub.fetch(format!("http://do/{path}"));
    async move { answer.await?.into_body().text().await }.boxed_local()
}

/// Another object on each thread, that only listens.
struct Others {
    names: Vec<String>,
    stubs: Vec<Stub>,
}

impl Others {
    async fn of(client: &Client, writer: &str, prefix: &str) -> Self {
        let namespace = client.namespace(KEEPER);
        let home = Placement::new(2).shard(&namespace.id_from_name(writer).await.unwrap());
        let (mut names, mut stubs) = (Vec::new(), Vec::new());
        for shard in [home, 1 - home] {
            for n in 0.. {
                let name = format!("{prefix}-{n}");
                let id = namespace.id_from_name(&name).await.unwrap();
                if Placement::new(2).shard(&id) == shard && !names.contains(&name) {
                    let stub = namespace.get_by_name(&name);
                    say(&stub, "put.here.1").await.unwrap();
                    names.push(name);
                    stubs.push(stub);
                    break;
                }
            }
        }
        Self { names, stubs }
    }

    /// Asks them, many times, what they heard; they answer whatever the disk does.
    async fn heard(&self) -> String {
        let mut heard = String::new();
        let asked = async {
            for _ in 0..50 {
                heard.clear();
                for stub in &self.stubs {
                    heard += &say(stub, "heard").await.unwrap();
                }
            }
        };
        tokio::time::timeout(PATIENCE, asked).await.expect("who does not write is answered");
        heard
    }

    fn named(&self, path: &str) -> String {
        path.replace("NEAR", &self.names[0]).replace("FAR", &self.names[1])
    }
}

async fn hang(folder: &Folder, client: &Client) {
    for (n, (path, expected)) in LEAVING.into_iter().enumerate() {
        let writer = format!("hang-{n}");
        let stub = get(client, &writer);
        say(&stub, "put.k.0").await.unwrap();
        let others = Others::of(client, &writer, &format!("hang-other-{n}")).await;
        let streaming = get(client, &format!("hang-body-{n}"));
        say(&streaming, "put.k.0").await.unwrap();
        let url = "http://do/stream/chunk.a/wait.go/put.k.1/chunk.b";
        let mut body = streaming.fetch(url).await.unwrap().into_body();
        assert_eq!(body.chunk().await.unwrap().unwrap(), "a");
        folder.disk_does("hang");
        say(&streaming, "open.go").await.ok();
        let mut answer = say(&stub, &others.named(path));
        let typed: probe::Client = get(client, &writer).cast();
        let mut log = typed.log_request();
        log.get().set_n(100 + n as u64);
        let mut log = log.send().promise;
        assert_eq!(others.heard().await, "", "{path}");
        assert!((&mut answer).now_or_never().is_none() && (&mut log).now_or_never().is_none());
        assert!(body.chunk().now_or_never().is_none(), "a chunk left");
        folder.disk_does("");
        assert_eq!(answer.await.unwrap().trim(), expected, "{path}");
        assert_eq!(log.await.unwrap().get().unwrap().get_position(), 100 + n as u64);
        assert_eq!(body.chunk().await.unwrap().unwrap(), "b");
    }
    println!("    hang: nothing left in {} ways", LEAVING.len());
}

async fn fail(folder: &Folder, client: &Client, fault: &str, words: &str) {
    for (n, (path, _)) in LEAVING.into_iter().enumerate() {
        let writer = format!("{fault}-{n}");
        let stub = get(client, &writer);
        say(&stub, "put.k.0").await.unwrap();
        let others = Others::of(client, &writer, &format!("{fault}-other-{n}")).await;
        folder.disk_does(fault);
        let error = say(&stub, &others.named(path)).await.unwrap_err();
        assert!(error.reset && !error.remote && error.message.contains(words), "{error:?}");
        let broken = tokio::time::timeout(PATIENCE, stub.broken()).await.expect("it breaks");
        assert!(broken.message.contains(words), "{broken:?}");
        assert_eq!(others.heard().await, "", "{path}");
        folder.disk_does("");
        let again = get(client, &writer);
        assert_eq!(say(&again, "get.k").await.unwrap(), "0", "{path}");
        say(&again, "put.k.3").await.unwrap();
    }
    println!("    {fault}: nothing left in {} ways, and all worked again after it", LEAVING.len());
}
