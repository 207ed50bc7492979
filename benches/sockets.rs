//! `cargo bench --bench sockets`: what hibernated WebSockets cost, and how long one takes to wake its object.
//!
//! Through the HTTP door, and over one connection of Cap'n Proto. The clients are another process, so that the memory
//! that is measured is the server's.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a measurement ends where anything fails, and reads the real time"
)]

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use stubborn::{
    Client, Closed, DurableObject, Env, Limits, Message, Request, RequestExt as _, Response,
    Result, Server, Socket, State, WebSocket, respond,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The allocator of the program `stubborn`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How many wake-ups are measured.
const WAKES: usize = 200;
const HIBERNATE_AFTER: Duration = Duration::from_millis(20);

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let runtime = tokio::runtime::LocalRuntime::new()?;
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["clients", way, address, count] => {
            runtime.block_on(clients(way, address, count.parse().unwrap()))
        }
        ["server", way, count] => runtime.block_on(measure(way, count.parse().unwrap())),
        _ => {
            // A process each, so that none uses again what another has freed.
            for way in ["http", "rpc"] {
                let count = words.first().copied().unwrap_or("10000");
                let mut server = Command::new(std::env::current_exe()?);
                assert!(server.args(["server", way, count]).status()?.success());
            }
            Ok(())
        }
    }
}

async fn measure(way: &str, count: usize) -> Result<()> {
    let limits = Limits {
        hibernate_after: HIBERNATE_AFTER,
        connections_max: count + 100,
        connection_calls_max: count + 100,
        ..Limits::default()
    };
    let server = Server::builder().namespace::<Echo>("ECHO").expose("ECHO").limits(limits);
    let server = server.threads(std::num::NonZeroUsize::MIN).listen("127.0.0.1:0")?;
    let server = server.http("127.0.0.1:0")?.start().await?;
    let addresses = if way == "http" { server.http_addresses() } else { server.addresses() };
    let address = addresses.first().unwrap().to_string();
    let client = Client::connect(&server.addresses().first().unwrap().to_string()).await?;
    let stub = client.namespace("ECHO").get_by_name("all");
    stub.fetch("http://do/number").await?;
    let before = resident_bytes();
    let mut child = Command::new(std::env::current_exe()?)
        .args(["clients", way, &address, &count.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    // Connections are accepted on this thread, which must not block.
    let waiting = tokio::task::spawn_blocking(move || (lines.next(), lines));
    let (line, lines) = waiting.await.unwrap();
    assert_eq!(line.transpose()?.as_deref(), Some("open"));
    tokio::time::sleep(HIBERNATE_AFTER * 10).await;
    let each = resident_bytes().saturating_sub(before) / count;
    println!(
        "{way}: {count} hibernated sockets of one object: {each} bytes each (resident memory)"
    );
    child.stdin.take().unwrap().write_all(b"go\n")?;
    let waiting = tokio::task::spawn_blocking(|| lines.collect::<std::io::Result<Vec<_>>>());
    for line in waiting.await.unwrap()? {
        println!("{way}: {line}");
    }
    server.stop().await;
    Ok(())
}

/// Opens `count` sockets, and measures how long answers take of the object that hibernates before each.
async fn clients(way: &str, address: &str, count: usize) -> Result<()> {
    let mut wired = Vec::new();
    let mut called = Vec::new();
    match way {
        "http" => {
            for _ in 0..count {
                wired.push(dial(address).await?);
            }
        }
        _ => {
            let client = Client::connect(address).await?;
            let stub = client.namespace("ECHO").get_by_name("all");
            for _ in 0..count {
                called.push(stub.web_socket("http://do/").await?.1);
            }
        }
    }
    println!("open");
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    let mut times = Vec::new();
    let mut activations = std::collections::HashSet::new();
    for n in 0..WAKES {
        tokio::time::sleep(HIBERNATE_AFTER * 3).await;
        let begun = Instant::now();
        let at = n * 7919 % count;
        let answer = match way {
            "http" => ask(&mut wired[at]).await?,
            _ => {
                called[at].send("x").await?;
                called[at].receive().await.unwrap().as_bytes().to_vec()
            }
        };
        times.push(begun.elapsed());
        activations.insert(answer);
    }
    times.sort();
    let (median, p99) = (times[WAKES / 2], times[WAKES * 99 / 100]);
    println!("{} wake-ups in {WAKES} messages: median {median:?}, p99 {p99:?}", activations.len());
    Ok(())
}

async fn dial(address: &str) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let request = "GET /ECHO/all/ HTTP/1.1\r\nhost: localhost\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(request.as_bytes()).await?;
    read_head(&mut stream).await?;
    Ok(stream)
}

async fn ask(stream: &mut TcpStream) -> Result<Vec<u8>> {
    stream.write_all(&[0x81, 0x81, 0, 0, 0, 0, b'x']).await?;
    let mut head = [0; 2];
    stream.read_exact(&mut head).await?;
    let mut text = vec![0; head[1].into()];
    stream.read_exact(&mut text).await?;
    Ok(text)
}

/// Reads up to the empty line, byte by byte: what follows is not this function's.
async fn read_head(stream: &mut TcpStream) -> Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    Ok(())
}

fn resident_bytes() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

/// Answers each message with the number of its activation.
struct Echo(State);

impl DurableObject for Echo {
    async fn new(state: State, _: Env) -> Result<Self> {
        Ok(Self(state))
    }

    async fn fetch(&self, request: Request) -> Result<Response> {
        if !request.is_upgrade() {
            return Ok(respond::text(self.0.activation().to_string()));
        }
        let (client, server) = WebSocket::pair();
        self.0.accept_web_socket(server, &[])?;
        Ok(respond::upgrade(client))
    }

    async fn web_socket_message(&self, socket: &Socket, _: Message) -> Result<()> {
        socket.send(self.0.activation().to_string())
    }

    async fn web_socket_close(&self, _: &Socket, _: Closed) -> Result<()> {
        Ok(())
    }
}
