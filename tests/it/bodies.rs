//! Bodies that stream: a slow reader slows the writer, and one that was cut short is never taken for whole.

use std::num::NonZeroUsize;

use bytes::Bytes;
use futures::FutureExt;
use stubborn::demo_capnp::probe;
use stubborn::runtime::Placement;
use stubborn::{Body, Class, Client, Kind, Limits, Server, Stub};

use crate::support::run;
use crate::support::target::{Aim, TARGET};

const TYPED_TARGET: &str = "TYPED_TARGET";
/// How the way from the connection, which is on thread 0, to the object is built.
const WAYS: [(&str, usize); 4] = [(TARGET, 0), (TARGET, 1), (TYPED_TARGET, 0), (TYPED_TARGET, 1)];
const CHUNK: usize = 50_000;

/// What may be between a writer and a reader who does not read: the pipe at either end of each connection,
/// a window of writes on their way over it and the part that travels with the request; between threads there
/// may be a second connection.
fn ahead_max(limits: &Limits) -> usize {
    let hops = 2;
    let pipes = limits.stream_window_bytes * (2 * hops + 2);
    pipes + hops * limits.inline_body_bytes_max + 16 * CHUNK
}

async fn start() -> (Server, Client) {
    let server = Server::builder()
        .namespace::<Aim>(TARGET)
        .class(TYPED_TARGET, Class::typed::<Aim, probe::Client>(), TYPED_TARGET)
        .threads(NonZeroUsize::new(2).unwrap())
        .listen("127.0.0.1:0")
        .unwrap()
        .start()
        .await
        .unwrap();
    let client = Client::connect(&server.addresses()[0].to_string()).await.unwrap();
    (server, client)
}

async fn stub_on(client: &Client, namespace: &str, shard: usize) -> Stub {
    let namespace = client.namespace(namespace);
    for n in 0.. {
        let name = format!("body-{n}");
        let id = namespace.id_from_name(&name).await.unwrap();
        if Placement::new(2).shard(&id) == shard {
            return namespace.get_by_name(&name);
        }
    }
    unreachable!("ids are spread evenly")
}

/// Lets everything that can move do so: calls go to and fro behind it.
async fn settle(stub: &Stub) {
    for _ in 0..100 {
        stub.fetch("http://do/hi").await.unwrap();
    }
}

/// Runs `check` for the stub of every way.
fn every_way(check: impl AsyncFn(&Stub, &str)) {
    run(async {
        let (_server, client) = start().await;
        for (namespace, shard) in WAYS {
            let stub = stub_on(&client, namespace, shard).await;
            check(&stub, &format!("{namespace} on thread {shard}")).await;
        }
    });
}

/// Writes until the writer has to wait although everything has settled; returns how much was taken.
async fn fill(writer: &mut stubborn::BodyWriter, stub: &Stub) -> usize {
    let chunk = Bytes::from(vec![7; CHUNK]);
    let mut taken = 0;
    loop {
        if writer.write(chunk.clone()).now_or_never().is_some_and(|written| written.is_ok()) {
            taken += CHUNK;
            continue;
        }
        settle(stub).await;
        match writer.write(chunk.clone()).now_or_never() {
            Some(written) => written.unwrap(),
            None => return taken,
        }
        taken += CHUNK;
    }
}

#[test]
fn an_object_that_does_not_read_stops_the_writer() {
    every_way(async |stub, way| {
        let (mut writer, body) = Body::pipe(64 << 10);
        let kept = stub.fetch(http::Request::post("http://do/keep").body(body).unwrap());
        assert_eq!(kept.await.unwrap().status(), 200);
        let taken = fill(&mut writer, stub).await;
        assert!(taken <= ahead_max(&Limits::default()), "{way}: {taken} bytes were taken");
    });
}

#[test]
fn a_caller_who_does_not_read_stops_the_object() {
    every_way(async |stub, way| {
        // The caller's own body comes back: what was written and not read is between the two.
        let (mut writer, body) = Body::pipe(64 << 10);
        let echo = stub.fetch(http::Request::post("http://do/echo").body(body).unwrap());
        let mut back = echo.await.unwrap().into_body();
        let mut taken = fill(&mut writer, stub).await;
        let most = 2 * ahead_max(&Limits::default());
        assert!(taken <= most, "{way}: {taken} bytes were taken");
        let mut read = 0;
        for _ in 0..20 {
            read += back.chunk().await.unwrap().unwrap().len();
            taken += fill(&mut writer, stub).await;
            assert!(taken - read <= most, "{way}: {taken} taken, {read} read");
        }
    });
}

#[test]
fn a_request_body_cut_short_is_an_error_to_the_object() {
    every_way(async |stub, way| {
        for written in [0, 1, 40] {
            let (mut writer, body) = Body::pipe(64 << 10);
            let counted = stub.fetch(http::Request::post("http://do/count").body(body).unwrap());
            for _ in 0..written {
                writer.write(vec![7; CHUNK].into()).await.unwrap();
            }
            drop(writer);
            let error = counted.await.unwrap_err();
            assert_eq!(error.kind, Kind::Truncated, "{way}: {error:?}");
        }
    });
}

#[test]
fn a_response_body_cut_short_is_an_error_to_the_caller() {
    every_way(async |stub, way| {
        for written in [0, 1, 40] {
            let (mut writer, body) = Body::pipe(64 << 10);
            let echo = stub.fetch(http::Request::post("http://do/echo").body(body).unwrap());
            let mut back = echo.await.unwrap().into_body();
            let write = async {
                for _ in 0..written {
                    writer.write(vec![7; CHUNK].into()).await.unwrap();
                }
                drop(writer);
            };
            let read = async {
                let mut bytes = 0;
                loop {
                    match back.chunk().await {
                        Some(Ok(chunk)) => bytes += chunk.len(),
                        other => return (bytes, other),
                    }
                }
            };
            let ((), (bytes, end)) = futures::join!(write, read);
            assert!(bytes <= written * CHUNK);
            let error =
                end.unwrap_or_else(|| panic!("{way}: a clean end after {bytes}")).unwrap_err();
            assert_eq!(error.kind, Kind::Truncated, "{way}: {error:?}");
        }
    });
}

#[test]
fn a_body_of_a_connection_that_is_lost_is_an_error_both_ways() {
    run(async {
        for (namespace, shard) in WAYS {
            let (server, client) = start().await;
            let stub = stub_on(&client, namespace, shard).await;
            let (mut writer, body) = Body::pipe(64 << 10);
            let counted = stub.fetch(http::Request::post("http://do/count").body(body).unwrap());
            let url = "http://do/stream?bytes=1000000000000&chunk=1000";
            let mut back = stub.fetch(url).await.unwrap().into_body();
            writer.write(vec![7; CHUNK].into()).await.unwrap();
            back.chunk().await.unwrap().unwrap();
            tokio::task::spawn_blocking(move || drop(server)).await.unwrap();
            assert_eq!(counted.await.unwrap_err().kind, Kind::Disconnected);
            let end = loop {
                match back.chunk().await {
                    Some(Ok(_)) => {}
                    other => break other,
                }
            };
            assert_eq!(end.unwrap().unwrap_err().kind, Kind::Truncated);
            while writer.write(vec![7; CHUNK].into()).await.is_ok() {}
        }
    });
}
