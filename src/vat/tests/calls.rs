//! Calls between two systems of capnp-rpc, through the network.
//!
//! **Invariant:** both ends are ours; what other peers do is tested elsewhere.

use std::cell::Cell;
use std::rc::Rc;

use capnp::ErrorKind;
use futures::FutureExt;
use futures::future::join_all;

use super::support::{Counting, Ear, NEVER, connect, log, pair, run, serve, settle};
use crate::demo_capnp::probe;
use crate::limits::Limits;

async fn check_echo(client: &probe::Client, bytes: usize) {
    let body: Vec<u8> = (0..bytes).map(|index| (index % 251) as u8).collect();
    let mut request = client
        .client
        .new_call::<crate::stubborn_capnp::request::Owned, crate::stubborn_capnp::outcome::Owned>(
            <crate::stubborn_capnp::stub::Client as capnp::traits::HasTypeId>::TYPE_ID,
            0,
            None,
        );
    request.get().init_body().set_prefix(&body);
    let response = request.send().promise.await.unwrap();
    let Ok(crate::stubborn_capnp::outcome::Response(Ok(response))) =
        response.get().unwrap().which()
    else {
        panic!("not a response");
    };
    assert!(response.get_body().unwrap().get_prefix().unwrap() == body, "{bytes} bytes differ");
}

#[test]
fn bodies_of_every_size_come_back_as_they_were() {
    run(async {
        let pair = pair(Limits::default());
        for bytes in [0, 1, 7, 8, 100, 400, 512, 1000, 4000, 4096, 4097, 16_000, 16_384, 65_536] {
            check_echo(&pair.client, bytes).await;
        }
        check_echo(&pair.client, 1 << 20).await;
        // And many at a time, so that small ones and parts of large ones share reads and writes.
        let sizes = (0..200).map(|index| (index * index * 7) % 90_000);
        join_all(sizes.map(|bytes| check_echo(&pair.client, bytes))).await;
        settle().await;
        assert_eq!(pair.server_traffic.calls_in_flight(), 0);
        assert_eq!(pair.server_traffic.queued_bytes(), 0);
        assert_eq!(pair.client_traffic.own_calls_in_flight(), 0);
        assert_eq!(pair.server_traffic.output_bytes(), 0);
        assert!(pair.client_traffic.failure().is_none());
    });
}

#[test]
fn answers_of_one_turn_leave_in_one_write() {
    run(async {
        let (near, far) = tokio::io::duplex(1 << 20);
        let writes = Rc::new(Cell::new(0));
        serve(Counting { stream: far, writes: Rc::clone(&writes) }, Limits::default(), None);
        let (client, _) = connect(near, Limits::default());
        log(&client, 0).await.unwrap();
        settle().await;
        writes.set(0);
        // They fit the client's batch, so that they arrive together.
        join_all((0..20).map(|n| log(&client, n))).await;
        assert_eq!(writes.get(), 1);
    });
}

#[test]
fn streamed_calls_keep_their_place_and_wait_for_the_window() {
    run(async {
        let pair = pair(Limits::default());
        for n in 0..100 {
            let mut request = pair.client.note_request();
            request.get().set_n(n);
            request.send().await.unwrap();
        }
        log(&pair.client, 100).await.unwrap();
        assert_eq!(*pair.subject.log.borrow(), (0..=100).collect::<Vec<_>>());

        let mut accepted = 0;
        loop {
            let mut request = pair.client.note_request();
            request.get().set_n(NEVER);
            let sent = request.send();
            settle().await;
            let Some(outcome) = sent.now_or_never() else { break };
            outcome.unwrap();
            accepted += 1;
        }
        let window = Limits::default().stream_window_bytes;
        assert!((window / 200..window / 50).contains(&accepted), "{accepted} were accepted");
    });
}

#[test]
fn capabilities_pass_both_ways() {
    run(async {
        let pair = pair(Limits::default());
        let ear = Ear::default();
        let heard = Rc::clone(&ear.heard);
        let mut request = pair.client.notify_request();
        request.get().set_listener(capnp_rpc::new_client(ear));
        request.get().set_count(50);
        request.send().promise.await.unwrap();
        assert_eq!(heard.get(), 50);
        settle().await;
        assert_eq!(pair.client_traffic.calls_in_flight(), 0);
        assert_eq!(pair.server_traffic.own_calls_in_flight(), 0);
    });
}

#[test]
fn a_connection_shut_down_flushes_what_was_sent_and_frees_what_was_reserved() {
    run(async {
        let (near, far) = tokio::io::duplex(1 << 10);
        let account = std::sync::Arc::new(crate::vat::Account::new(1 << 20));
        let (server, subject) =
            serve(far, Limits::default(), Some(std::sync::Arc::clone(&account)));
        let (reader, writer) = tokio::io::split(near);
        let (network, traffic) = crate::vat::Network::new(
            reader,
            writer,
            capnp_rpc::rpc_twoparty_capnp::Side::Client,
            Rc::new(Limits::default()),
            None,
        );
        let mut system = capnp_rpc::RpcSystem::new(Box::new(network), None);
        let client: probe::Client = system.bootstrap(capnp_rpc::rpc_twoparty_capnp::Side::Server);
        let disconnector = system.get_disconnector();
        let system = tokio::task::spawn_local(system);
        let calls = join_all((0..100).map(|_| log(&client, NEVER))).shared();
        assert!(calls.clone().now_or_never().is_none());
        settle().await;
        assert!(account.reserved() > 0);
        disconnector.await.unwrap();
        system.await.unwrap().unwrap();
        settle().await;
        assert_eq!(subject.log.borrow().len(), 100, "all calls arrived before the end");
        for outcome in calls.await {
            assert_eq!(outcome.unwrap_err().kind, ErrorKind::Disconnected);
        }
        assert_eq!(account.reserved(), 0);
        assert_eq!(server.closed().await.kind, ErrorKind::Disconnected);
        assert!(traffic.closed().await.extra.contains("requested"), "{:?}", traffic.failure());
    });
}
