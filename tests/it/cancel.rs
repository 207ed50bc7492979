//! Calls that are given up leave nothing behind on their connection.
//!
//! The server ends a connection on which more cancelled calls than eight times `connection_calls_max` were
//! never answered, so a connection that survives many more of them keeps none.

use std::cell::Cell;
use std::rc::Rc;

use bytes::Bytes;
use futures::FutureExt;
use stubborn::demo_capnp::probe;
use stubborn::stubborn_capnp::stub;
use stubborn::{Body, Client, Limits, Stub};

use crate::support::run;
use crate::support::server::{self, PLAIN, TYPED};

const CALLS_MAX: usize = 32;
/// The rounds on one connection, in each of which that many calls are given up: more than are remembered.
const ROUNDS: usize = 60;
const CALLS_PER_ROUND: usize = 10;
/// The same where one call is given up in each round.
const SINGLE_ROUNDS: usize = 300;

/// Runs `round` many times on stubs of both kinds of classes, whose objects live on both threads.
async fn check(rounds: usize, round: impl AsyncFn(&Stub)) {
    let limits = Limits { connection_calls_max: CALLS_MAX, ..Limits::default() };
    let (_server, address) = server::start(2, limits).await;
    for namespace in [PLAIN, TYPED] {
        // Connections alternate between the threads; of three names both get some.
        for name in ["a", "b", "c"] {
            println!("{namespace} {name}");
            let client = Client::connect(&address).await.unwrap();
            let stub = client.namespace(namespace).get_by_name(name);
            for _ in 0..rounds {
                round(&stub).await;
                // Answered after everything before it was, cancelled or not.
                assert_eq!(stub.fetch("http://do/whoami").await.unwrap().status(), 200);
            }
        }
    }
}

#[test]
fn fetches_given_up_before_and_while_they_run_leave_nothing() {
    run(check(ROUNDS, async |stub| {
        let running: Vec<_> =
            (0..CALLS_PER_ROUND).map(|_| stub.fetch("http://do/forever")).collect();
        stub.fetch("http://do/whoami").await.unwrap();
        drop(running);
        for _ in 0..CALLS_PER_ROUND {
            drop(stub.fetch("http://do/forever"));
        }
    }));
}

#[test]
fn typed_calls_given_up_leave_nothing() {
    run(check(ROUNDS, async |stub| {
        for n in 0..CALLS_PER_ROUND {
            let mut request = stub.cast::<probe::Client>().log_request();
            request.get().set_n(n as u64);
            drop(request.send());
        }
    }));
}

#[test]
fn stubs_that_are_asked_for_and_dropped_leave_nothing() {
    let limits = Limits { connection_calls_max: CALLS_MAX, ..Limits::default() };
    run(async {
        let (_server, address) = server::start(2, limits).await;
        let client = Client::connect(&address).await.unwrap();
        let namespace = client.namespace(PLAIN);
        for n in 0..ROUNDS {
            for m in 0..CALLS_PER_ROUND {
                drop(client.namespace(TYPED).get_by_name(&format!("{n} {m}")));
                // The stub is gone before its call is answered.
                drop(namespace.get_by_name("a").fetch("http://do/whoami"));
            }
            namespace.about().await.unwrap();
        }
    });
}

#[test]
fn watchers_given_up_leave_nothing() {
    run(check(ROUNDS, async |stub| {
        let typed: stub::Client = stub.cast();
        let watching: Vec<_> =
            (0..CALLS_PER_ROUND).map(|_| typed.broken_request().send()).collect();
        stub.fetch("http://do/whoami").await.unwrap();
        drop(watching);
    }));
}

#[test]
fn bodies_that_nobody_reads_to_the_end_leave_nothing_and_stop_their_producer() {
    run(check(SINGLE_ROUNDS, async |stub| {
        let response = stub.fetch("http://do/stream?bytes=3000000&chunk=100000").await.unwrap();
        let mut body = response.into_body();
        body.chunk().await.unwrap().unwrap();
        drop(body);

        let (mut writer, body) = Body::pipe(64 << 10);
        let stopped = Rc::new(Cell::new(false));
        let told = stopped.clone();
        let produced = async move {
            while writer.write(Bytes::from_static(&[0; 64 << 10])).await.is_ok() {}
            told.set(true);
        }
        .shared();
        assert!(produced.clone().now_or_never().is_none());
        // The object does not look at the body, and so drops it.
        let request = http::Request::post("http://do/note?n=1").body(body).unwrap();
        stub.fetch(request).await.unwrap();
        produced.await;
        assert!(stopped.get());
    }));
}
