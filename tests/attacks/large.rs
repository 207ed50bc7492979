//! A body of 1 GiB each way, in bounded memory of both processes.

use bytes::Bytes;
use stubborn::runtime::Placement;
use stubborn::{Body, Client, Stub};
use tokio::time::Instant;

use crate::process::{Process, THREADS, TYPED_TARGET, forget_peak, peak_kib, resident_kib};
use crate::support::target::TARGET;

const BYTES: usize = 1 << 30;
const CHUNK: usize = 256 << 10;
/// How much more memory either process may need.
const GROWTH_MIB_MAX: u64 = 64;

/// Sends and receives 1 GiB by every way; returns complaints.
pub(crate) async fn run() -> Vec<String> {
    let server = Process::start();
    let client = Client::connect(&server.address).await.unwrap();
    println!(
        "{:<34} {:>12} {:>12} {:>10}",
        "1 GiB body (memory in MiB)", "server peak", "client peak", "MiB/s"
    );
    let mut over = Vec::new();
    // The only connection is on thread 0.
    for (way, namespace, shard) in [
        ("same thread", TARGET, 0),
        ("other thread", TARGET, 1),
        ("other thread, typed", TYPED_TARGET, 1),
    ] {
        let stub = stub_on(&client, namespace, shard).await;
        for upload in [true, false] {
            let processes = [server.id(), std::process::id()];
            let before = processes.map(resident_kib);
            processes.into_iter().for_each(forget_peak);
            let begun = Instant::now();
            match upload {
                true => send(&stub).await,
                false => receive(&stub).await,
            }
            let speed = (BYTES >> 20) as f64 / begun.elapsed().as_secs_f64();
            let peak = processes.map(peak_kib);
            let what = format!("{} {way}", if upload { "to" } else { "from" });
            let mib = |kib: u64| kib as f64 / 1024.0;
            println!("{what:<34} {:>12.1} {:>12.1} {speed:>10.0}", mib(peak[0]), mib(peak[1]));
            for (whose, (before, peak)) in ["server", "client"].iter().zip(before.iter().zip(peak))
            {
                let grown = peak.saturating_sub(*before) / 1024;
                if grown >= GROWTH_MIB_MAX {
                    over.push(format!("1 GiB {what}: the {whose} grew by {grown} MiB"));
                }
            }
        }
    }
    over
}

async fn stub_on(client: &Client, namespace: &str, shard: usize) -> Stub {
    let namespace = client.namespace(namespace);
    for n in 0.. {
        let name = format!("large-{n}");
        let id = namespace.id_from_name(&name).await.unwrap();
        if Placement::new(THREADS).shard(&id) == shard {
            return namespace.get_by_name(&name);
        }
    }
    unreachable!("ids are spread evenly")
}

async fn send(stub: &Stub) {
    let (mut writer, body) = Body::pipe(CHUNK);
    let call = stub.fetch(http::Request::post("http://do/count").body(body).unwrap());
    let chunk = Bytes::from(vec![7; CHUNK]);
    let write = async {
        for _ in 0..BYTES / CHUNK {
            writer.write(chunk.clone()).await.unwrap();
        }
        writer.finish();
    };
    let (answer, ()) = futures::join!(call, write);
    let counted = answer.unwrap().into_body().text().await.unwrap();
    assert_eq!(counted, BYTES.to_string());
}

async fn receive(stub: &Stub) {
    let url = format!("http://do/stream?bytes={BYTES}&chunk={CHUNK}");
    let mut body = stub.fetch(url).await.unwrap().into_body();
    let mut bytes = 0;
    while let Some(chunk) = body.chunk().await {
        bytes += chunk.unwrap().len();
    }
    assert_eq!(bytes, BYTES);
}
