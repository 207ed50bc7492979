//! The client for programs of many threads: order, cancelling, breaking, ending.

#![cfg(test)]

#[path = "send/objects.rs"]
mod objects;

use std::cell::RefCell;
use std::pin::pin;
use std::sync::{Arc, mpsc};
use std::task::{Context, Wake, Waker};

use futures::FutureExt;
use futures::future::join_all;
use stubborn::Server;
use stubborn::demo_capnp::{listener, probe};
use stubborn_client::send::{Call, Client, Fetch, Namespace, Stub};
use stubborn_client::{Body, Error, Kind, Limits, Retry, Target, http};
use tokio::sync::oneshot;

fn assert_send_sync<T: Send + Sync + Clone + 'static>() {}
fn assert_send<T: Send + 'static>(value: T) -> T {
    value
}

#[test]
fn every_handle_is_send_and_sync_and_every_call_is_send() {
    assert_send_sync::<Client>();
    assert_send_sync::<Namespace>();
    assert_send_sync::<Stub>();
    fn of_call<T: Send + 'static>() {}
    of_call::<Fetch>();
    of_call::<Call<u8>>();
}

async fn connected() -> (Server, Client) {
    connected_with(Limits::default()).await
}

async fn connected_with(limits: Limits) -> (Server, Client) {
    let server = objects::server().await;
    let client = Client::connect_with(&server.addresses()[0], limits).await.unwrap();
    (server, client)
}

async fn text(fetch: Fetch) -> String {
    fetch.await.unwrap().into_body().text().await.unwrap()
}

/// Holds up the client's thread until it is released.
fn hold(client: &Client) -> (mpsc::SyncSender<()>, Call<()>) {
    let (release, held) = mpsc::sync_channel::<()>(1);
    let holding = client.run(async move |_| {
        held.recv().unwrap();
        Ok(())
    });
    (release, holding)
}

async fn log(stub: &Stub) -> Vec<u64> {
    let log = text(stub.fetch("http://do/log")).await;
    log.split_whitespace().map(|n| n.parse().unwrap()).collect()
}

fn append(stub: &Stub, n: u64) -> Fetch {
    stub.fetch(format!("http://do/log?n={n}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_of_several_tasks_arrive_in_the_order_in_which_they_were_made() {
    let (_server, client) = connected().await;
    for run in 0..20 {
        let stub = client.namespace("PROBE").get_by_name(&format!("order {run}"));
        let mut tasks = Vec::new();
        let (first, mut turn) = oneshot::channel();
        first.send(()).unwrap();
        // Each task makes its calls after the one before it has, and awaits them whenever it likes.
        for task in 0..20 {
            let (done, after) = oneshot::channel();
            let (stub, turn) = (stub.clone(), std::mem::replace(&mut turn, after));
            tasks.push(tokio::spawn(async move {
                turn.await.unwrap();
                let calls: Vec<_> = (0..20).map(|n| append(&stub, task * 20 + n)).collect();
                done.send(()).ok();
                for call in calls.into_iter().rev() {
                    call.await.unwrap();
                }
            }));
        }
        join_all(tasks).await.into_iter().for_each(|task| task.unwrap());
        assert_eq!(log(&stub).await, Vec::from_iter(0..400));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_dropped_lets_the_others_keep_their_order() {
    let (_server, client) = connected().await;
    for run in 0..20 {
        let stub = client.namespace("PROBE").get_by_name(&format!("cancelled {run}"));
        let mut kept = Vec::new();
        for n in 0..500 {
            let call = append(&stub, n);
            if n % 5 != 3 {
                kept.push(call);
            }
        }
        join_all(kept).await.into_iter().for_each(|call| drop(call.unwrap()));
        let log = log(&stub).await;
        assert!(log.is_sorted_by(|a, b| a < b), "{log:?}");
        let kept: Vec<u64> = log.into_iter().filter(|n| n % 5 != 3).collect();
        assert_eq!(kept, Vec::from_iter((0..500).filter(|n| n % 5 != 3)));
    }
}

#[tokio::test]
async fn a_call_that_is_dropped_before_it_was_sent_is_never_sent() {
    let (_server, client) = connected().await;
    let stub = client.namespace("PROBE").get_by_name("unsent");
    let (release, holding) = hold(&client);
    drop(append(&stub, 1));
    let kept = append(&stub, 2);
    release.send(()).unwrap();
    holding.await.unwrap();
    kept.await.unwrap();
    assert_eq!(log(&stub).await, [2]);
}

#[tokio::test]
async fn fetches_and_typed_calls_of_one_stub_keep_their_order_together() {
    let (_server, client) = connected().await;
    let stub = client.namespace("PROBE").get_by_name("mixed");
    let (mut fetches, mut typed) = (Vec::new(), Vec::new());
    for n in 0..200 {
        if n % 2 == 0 {
            fetches.push(append(&stub, n));
        } else {
            typed.push(stub.run(async move |stub| {
                let mut call = stub.cast::<probe::Client>().log_request();
                call.get().set_n(n);
                Ok(call.send().promise.await?.get()?.get_position())
            }));
        }
    }
    let positions: Vec<u64> = join_all(typed).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(positions, Vec::from_iter((0..200).filter(|n| n % 2 == 1)));
    join_all(fetches).await.into_iter().for_each(|call| drop(call.unwrap()));
    assert_eq!(log(&stub).await, Vec::from_iter(0..200));
}

#[tokio::test]
async fn a_closure_on_the_owners_thread_passes_capabilities_both_ways() {
    let (_server, client) = connected().await;
    let heard = client.run(async |local| {
        struct Listener(std::rc::Rc<RefCell<Vec<u64>>>);
        impl listener::Server for Listener {
            async fn heard(
                self: std::rc::Rc<Self>,
                params: listener::HeardParams,
                _results: listener::HeardResults,
            ) -> capnp::Result<()> {
                self.0.borrow_mut().push(params.get()?.get_n());
                Ok(())
            }
        }
        let heard = std::rc::Rc::new(RefCell::new(Vec::new()));
        let stub = local.namespace("PROBE").get_by_name("listener");
        let probe: probe::Client = stub.cast();
        let mut echo = probe.echo_request();
        echo.get().set_listener(capnp_rpc::new_client(Listener(heard.clone())));
        let echoed = echo.send().pipeline.get_listener();
        let mut notify = probe.notify_request();
        notify.get().set_listener(echoed);
        notify.get().set_count(3);
        notify.send().promise.await?;
        Ok(heard.take())
    });
    assert_eq!(heard.await.unwrap(), [0, 1, 2]);
}

#[tokio::test]
async fn a_closure_that_panics_fails_its_caller_alone() {
    let (_server, client) = connected().await;
    for yields in [false, true] {
        let error = client.run(async move |_| {
            if yields {
                tokio::task::yield_now().await;
            }
            if true { panic!("oh {yields}") } else { Ok(()) }
        });
        let error = error.await.unwrap_err();
        assert_eq!(error.message, format!("the closure panicked: oh {yields}"));
    }
    assert_eq!(client.namespaces().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_broken_stub_stays_broken_and_keeps_its_first_reason() {
    let (server, client) = connected().await;
    let namespace = client.namespace("PROBE");
    let stub = namespace.get_by_name("broken");
    assert_eq!(text(stub.fetch("http://do/count")).await, "1");
    let watching = tokio::spawn({
        let stub = stub.clone();
        async move { stub.broken().await }
    });
    let error = stub.fetch("http://do/abort?reason=enough").await.unwrap_err();
    assert!(error.reset && error.remote && error.message.contains("enough"), "{error:?}");
    assert_eq!(watching.await.unwrap(), stub.broken_reason().unwrap());
    let later = append(&stub, 1).now_or_never().expect("it fails at once").unwrap_err();
    assert!(later.reset && !later.delivered && later.message == error.message, "{later:?}");

    // A new stub works, until the connection goes; the old one keeps its own reason.
    let fresh = namespace.get_by_name("broken");
    assert_eq!(text(fresh.fetch("http://do/count")).await, "1");
    drop(server);
    let lost = client.closed().await;
    assert_eq!(lost.kind, Kind::Disconnected);
    assert_eq!(fresh.broken().await, lost);
    assert_eq!(stub.broken().await.message, error.message);
    assert_eq!(append(&fresh, 1).await.unwrap_err(), lost);
}

#[tokio::test]
async fn a_handlers_error_comes_with_its_flags_and_breaks_nothing() {
    let (_server, client) = connected().await;
    let stub = client.namespace("PROBE").get_by_name("throws");
    let error = stub.fetch("http://do/throw?message=boom").await.unwrap_err();
    assert_eq!((error.kind, error.message.as_str()), (Kind::Failed, "boom"));
    assert!(error.remote && error.delivered && !error.retryable && !error.reset, "{error:?}");
    assert!(stub.broken_reason().is_none());
    assert!(stub.broken().now_or_never().is_none());
    let error = stub.fetch("/relative").now_or_never().expect("it fails at once").unwrap_err();
    assert_eq!(error.kind, Kind::InvalidRequest);
    append(&stub, 1).await.unwrap();
}

#[tokio::test]
async fn calls_in_flight_fail_when_the_server_goes() {
    let (server, client) = connected().await;
    let stub = client.namespace("PROBE").get_by_name("gone");
    append(&stub, 1).await.unwrap();
    let waiting: Vec<_> = (0..64).map(|_| stub.fetch("http://do/never")).collect();
    append(&stub, 2).await.unwrap();
    drop(server);
    for call in waiting {
        let error = call.await.unwrap_err();
        assert_eq!(error.kind, Kind::Disconnected, "{error:?}");
        assert!(!error.remote && error.retryable && error.delivered, "{error:?}");
    }
    let later = append(&stub, 3).now_or_never().expect("it fails at once").unwrap_err();
    assert!(later.kind == Kind::Disconnected && !later.delivered, "{later:?}");
    let error = Client::connect("127.0.0.1:1").await.unwrap_err();
    assert_eq!(error.kind, Kind::Disconnected);
}

#[tokio::test]
async fn a_call_too_many_fails_overloaded_at_once_and_the_others_are_answered() {
    let limits = Limits { connection_calls_max: 8, ..Limits::default() };
    let (_server, client) = connected_with(limits).await;
    let stub = client.namespace("PROBE").get_by_name("full");
    let (release, holding) = hold(&client);
    let calls: Vec<_> = (0..7).map(|n| append(&stub, n)).collect();
    let error = append(&stub, 7).now_or_never().expect("it fails at once").unwrap_err();
    assert!(error.kind == Kind::Overloaded && error.overloaded && !error.delivered, "{error:?}");
    release.send(()).unwrap();
    holding.await.unwrap();
    join_all(calls).await.into_iter().for_each(|call| drop(call.unwrap()));
    assert_eq!(log(&stub).await, Vec::from_iter(0..7));
}

#[tokio::test]
async fn ids_and_listings_are_those_of_the_local_client() {
    let (_server, client) = connected().await;
    let namespace = client.namespace("PROBE");
    let id = namespace.id_from_name("ann").await.unwrap();
    assert_eq!(namespace.id_from_string(&id.to_string()).await.unwrap(), id);
    assert_ne!(namespace.new_unique_id().await.unwrap(), id);
    let error = namespace.id_from_string(&"0".repeat(64)).await.unwrap_err();
    assert_eq!(error.kind, Kind::WrongNamespace);
    let error = namespace.get_existing(id).fetch("http://do/").await.unwrap_err();
    assert_eq!(error.kind, Kind::NoSuchObject);
    append(&namespace.get_by_name("ann"), 1).await.unwrap();
    assert_eq!(log(&namespace.get(id)).await, [1]);
    let page = namespace.list(10, None).await.unwrap();
    assert_eq!(page.objects.iter().map(|object| object.id).collect::<Vec<_>>(), [id]);
    assert_eq!(namespace.about().await.unwrap().name, "PROBE");
    let error = client.namespace("NONE").get(id).fetch("http://do/").await.unwrap_err();
    assert_eq!(error.kind, Kind::NoSuchNamespace);
}

#[tokio::test]
async fn a_retry_gets_a_new_stub_and_works_in_a_spawned_task() {
    let (_server, client) = connected().await;
    let policy = Retry { idempotent: true, delay_base: Default::default(), ..Retry::default() };
    let namespace = client.namespace("PROBE");
    let mut attempts = 0;
    let target = Target::Name("retry".into());
    let outcome = assert_send(async move {
        namespace
            .retry(&target, &policy, |stub| {
                attempts += 1;
                async move {
                    let url =
                        if attempts < 3 { "http://do/abort?reason=x" } else { "http://do/count" };
                    let outcome = stub.fetch(url).await;
                    Ok((attempts, outcome.map_err(|error| error.with_retryable(true))?))
                }
            })
            .await
    });
    let (attempts, response) = tokio::spawn(outcome).await.unwrap().unwrap();
    assert_eq!((attempts, response.status().as_u16()), (3, 200));
}

#[tokio::test]
async fn bodies_stream_both_ways_and_outlive_every_handle() {
    let (_server, client) = connected().await;
    let stub = client.namespace("PROBE").get_by_name("bodies");
    let size = 3 << 20;
    let (mut writer, body) = Body::pipe(64 << 10);
    let request = http::Request::post("http://do/echo").body(body).unwrap();
    let fetch = stub.fetch(request);
    let writing = tokio::spawn(async move {
        for _ in 0..size / 1024 {
            writer.write(vec![7; 1024].into()).await.unwrap();
        }
        writer.finish();
    });
    let response = fetch.await.unwrap();
    drop((stub, client));
    assert_eq!(response.into_body().bytes().await.unwrap().len(), size);
    writing.await.unwrap();
}

thread_local! {
    static AT_THE_END: RefCell<Option<oneshot::Sender<()>>> = const { RefCell::new(None) };
}

/// Returns what is dropped when the client's thread ends.
async fn end_of_thread(client: &Client) -> oneshot::Receiver<()> {
    let (sender, end) = oneshot::channel();
    let set = client.run(async move |_| {
        AT_THE_END.set(Some(sender));
        Ok(())
    });
    set.await.unwrap();
    end
}

#[tokio::test]
async fn the_last_handle_dropped_ends_the_thread_after_what_was_posted() {
    let (server, client) = connected().await;
    let mut end = end_of_thread(&client).await;
    let stub = client.namespace("PROBE").get_by_name("last");
    drop(client);
    let calls: Vec<_> = (0..100).map(|n| append(&stub, n)).collect();
    assert!(end.try_recv().is_err_and(|state| state == oneshot::error::TryRecvError::Empty));
    drop(stub);
    join_all(calls).await.into_iter().for_each(|call| drop(call.unwrap()));
    assert!(end.await.is_err(), "the thread ended");
    let again = Client::connect(&server.addresses()[0].to_string()).await.unwrap();
    assert_eq!(log(&again.namespace("PROBE").get_by_name("last")).await, Vec::from_iter(0..100));
}

#[tokio::test]
async fn a_connection_that_is_given_up_while_connecting_ends_its_thread() {
    // A listener that never accepts: TCP connects, and nobody answers the drop.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let client = Client::connect(&address).await.unwrap();
    let end = end_of_thread(&client).await;
    drop(client);
    assert!(end.await.is_err());
    assert!(Client::connect(&address).now_or_never().is_none_or(|client| client.is_ok()));
}

#[tokio::test]
async fn a_panic_of_the_owner_fails_calls_as_disconnected() {
    struct Panics;
    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            panic!("a waker of the caller's panics");
        }
    }
    let (_server, client) = connected().await;
    let stub = client.namespace("PROBE").get_by_name("panic");
    let end = end_of_thread(&client).await;
    let sent = stub.fetch("http://do/never");
    append(&stub, 1).await.unwrap();
    let (release, holding) = hold(&client);
    {
        let mut bad = pin!(client.run(async |_| Ok(())));
        let waker = Waker::from(Arc::new(Panics));
        assert!(bad.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        release.send(()).unwrap();
        holding.await.unwrap();
        assert!(end.await.is_err(), "the thread ended");
    }
    let error = sent.await.unwrap_err();
    assert!(error.kind == Kind::Disconnected && error.delivered, "{error:?}");
    let error = append(&stub, 2).await.unwrap_err();
    assert!(error.kind == Kind::Disconnected && !error.delivered, "{error:?}");
    assert_eq!(client.closed().await.kind, Kind::Disconnected);
    assert_eq!(stub.broken().await.kind, Kind::Disconnected);
}

#[tokio::test]
async fn a_request_body_that_panics_fails_its_own_call_alone() {
    let (_server, client) = connected().await;
    let stub = client.namespace("PROBE").get_by_name("panicking body");
    for polls in [1, 2] {
        let body = Body::from_stream(futures::stream::once(async move {
            for _ in 1..polls {
                tokio::task::yield_now().await;
            }
            assert!(polls == 0, "a body panics");
            Ok::<_, Error>(Default::default())
        }));
        let request = http::Request::post("http://do/text").body(body).unwrap();
        let error = stub.fetch(request).await.unwrap_err();
        assert!(error.message.contains("panicked"), "{error:?}");
        append(&stub, polls).await.unwrap();
    }
}

#[tokio::test]
async fn a_panic_inside_the_connection_fails_the_calls_under_way() {
    struct Panics;
    impl listener::Server for Panics {
        async fn heard(
            self: std::rc::Rc<Self>,
            _params: listener::HeardParams,
            _results: listener::HeardResults,
        ) -> capnp::Result<()> {
            panic!("a capability of the caller's panics");
        }
    }
    let (_server, client) = connected().await;
    let stub = client.namespace("PROBE").get_by_name("panicking listener");
    let waiting = stub.fetch("http://do/never");
    let notifying = stub.run(async |stub| {
        let mut notify = stub.cast::<probe::Client>().notify_request();
        notify.get().set_listener(capnp_rpc::new_client(Panics));
        notify.get().set_count(1);
        notify.send().promise.await?;
        Ok(())
    });
    for outcome in [waiting.await.map(drop), notifying.await] {
        assert_eq!(outcome.unwrap_err().kind, Kind::Disconnected);
    }
    assert_eq!(stub.broken().await.kind, Kind::Disconnected);
}
