//! A stub that loses its object is broken for good, says why, and a new one works.

use std::time::Duration;

use futures::FutureExt;
use stubborn::demo_capnp::probe;
use stubborn::runtime::Placement;
use stubborn::{Client, Error, Kind, Limits, Server, Stub};

use crate::support::network::{Network, Weather};
use crate::support::run;
use crate::support::server::{self, PLAIN, TYPED};

/// What takes the object from the stub.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    ServerStops,
    ConnectionCut,
    BlackHole,
    Abort,
    Panic,
    ConstructorError,
    ConstructorPanic,
    CriticalSectionError,
}

/// How the way from connection to object is built.
const WAYS: [(&str, usize); 4] = [(PLAIN, 0), (PLAIN, 1), (TYPED, 0), (TYPED, 1)];

const CAUSES: [Cause; 8] = [
    Cause::ServerStops,
    Cause::ConnectionCut,
    Cause::BlackHole,
    Cause::Abort,
    Cause::Panic,
    Cause::ConstructorError,
    Cause::ConstructorPanic,
    Cause::CriticalSectionError,
];

impl Cause {
    fn object(self) -> &'static str {
        match self {
            Self::ConstructorError => "bad",
            Self::ConstructorPanic => "panicking",
            _ => "quick",
        }
    }

    fn loses_connection(self) -> bool {
        matches!(self, Self::ServerStops | Self::ConnectionCut | Self::BlackHole)
    }

    /// What every error of the broken stub says.
    fn message(self) -> &'static str {
        match self {
            Self::ServerStops | Self::ConnectionCut => "",
            Self::BlackHole => "silent",
            Self::Abort => "aborted as asked",
            Self::Panic => "panicked as asked",
            Self::ConstructorError => "the constructor failed as asked",
            Self::ConstructorPanic => "the constructor panicked as asked",
            Self::CriticalSectionError => "the critical section failed as asked",
        }
    }
}

struct Scene {
    server: Option<Server>,
    network: Network,
    client: Client,
    stub: Stub,
    namespace: &'static str,
    name: String,
}

async fn scene(cause: Cause, namespace: &'static str, shard: usize) -> Scene {
    let (server, address) = server::start(2, Limits::default()).await;
    // Less than the smallest delay means a new piece at once: the network only carries, until it breaks.
    let network = Network::to(&address, Weather::Far(Duration::ZERO)).await;
    let peer_timeout = Duration::from_millis(600);
    let limits = Limits { peer_timeout, ..Limits::default() };
    let client = Client::connect_with(&network.address().parse().unwrap(), limits).await.unwrap();
    let mut name = String::new();
    for n in 0.. {
        name = format!("{}-{n}", cause.object());
        let id = client.namespace(namespace).id_from_name(&name).await.unwrap();
        if Placement::new(2).shard(&id) == shard {
            break;
        }
    }
    let stub = client.namespace(namespace).get_by_name(&name);
    Scene { server: Some(server), network, client, stub, namespace, name }
}

/// Makes a call that is in flight when the cause strikes, strikes, and returns that call's error.
async fn strike(scene: &mut Scene, cause: Cause) -> Error {
    let construct_fails = matches!(cause, Cause::ConstructorError | Cause::ConstructorPanic);
    if construct_fails {
        return scene.stub.fetch("http://do/whoami").await.unwrap_err();
    }
    scene.stub.fetch("http://do/whoami").await.unwrap();
    let in_flight = scene.stub.fetch("http://do/forever");
    match cause {
        Cause::ServerStops => {
            // The call has reached the object once another has been answered behind it.
            scene.stub.fetch("http://do/whoami").await.unwrap();
            drop(scene.server.take());
        }
        Cause::ConnectionCut => scene.network.change(Weather::Cut),
        Cause::BlackHole => scene.network.change(Weather::Swallow),
        Cause::Abort => drop(scene.stub.fetch("http://do/abort").await.unwrap_err()),
        Cause::Panic => drop(scene.stub.fetch("http://do/panic").await.unwrap_err()),
        _ => drop(scene.stub.fetch("http://do/critical?ms=5&fail=1").await.unwrap_err()),
    }
    in_flight.await.unwrap_err()
}

async fn check(cause: Cause, namespace: &'static str, shard: usize) {
    let mut scene = scene(cause, namespace, shard).await;
    let told = scene.stub.clone();
    let told = tokio::task::spawn_local(async move { told.broken().await });
    let at = format!("{cause:?} {namespace} on shard {shard}");

    let in_flight = strike(&mut scene, cause).await;
    let lost = cause.loses_connection();
    let expected_kind = if lost { Kind::Disconnected } else { Kind::Failed };
    assert_eq!(in_flight.kind, expected_kind, "{at}: {in_flight:?}");
    assert_eq!(in_flight.remote, !lost, "{at}: {in_flight:?}");
    assert_eq!(in_flight.reset, !lost, "{at}: {in_flight:?}");
    assert_eq!(in_flight.retryable, lost, "{at}: {in_flight:?}");
    assert!(!in_flight.overloaded, "{at}: {in_flight:?}");
    let constructor = matches!(cause, Cause::ConstructorError | Cause::ConstructorPanic);
    assert_eq!(in_flight.delivered, !constructor, "{at}: {in_flight:?}");
    assert!(in_flight.message.contains(cause.message()), "{at}: {in_flight:?}");

    for _ in 0..2 {
        let later = scene.stub.fetch("http://do/whoami").await.unwrap_err();
        assert_eq!(later, in_flight.clone().with_delivered(false), "{at}: the first reason stays");
    }
    let told = told.await.unwrap();
    assert_eq!(told.kind, expected_kind, "{at}: {told:?}");
    if namespace == TYPED {
        let typed: probe::Client = scene.stub.cast();
        let error = typed.log_request().send().promise.await.err().unwrap();
        assert!(error.extra.contains(cause.message()), "{at}: {error:?}");
    }

    let again = match (lost, &scene.server) {
        (false, _) => scene.client.clone(),
        (true, Some(server)) => Client::connect(&server.addresses()[0].to_string()).await.unwrap(),
        (true, None) => {
            let refused = Client::connect(scene.network.address()).await;
            let stub = refused.map(|client| client.namespace(namespace).get_by_name("x"));
            let error = match stub {
                Ok(stub) => stub.fetch("http://do/").await.unwrap_err(),
                Err(error) => error,
            };
            assert_eq!(error.kind, Kind::Disconnected, "{at}: {error:?}");
            return;
        }
    };
    let fresh = again.namespace(scene.namespace).get_by_name(&scene.name);
    match constructor {
        true => {
            let error = fresh.fetch("http://do/whoami").await.unwrap_err();
            assert!(error.remote && error.reset, "{at}: it runs again, and fails again: {error:?}");
        }
        false => drop(fresh.fetch("http://do/whoami").await.unwrap()),
    }
    let other = again.namespace(scene.namespace).get_by_name("another");
    other.fetch("http://do/whoami").await.unwrap();
    assert!(other.broken().now_or_never().is_none(), "{at}: others are not broken");
}

#[test]
fn a_stub_that_loses_its_object_says_why_for_ever_and_a_new_one_works() {
    for cause in CAUSES {
        for (namespace, shard) in WAYS {
            run(check(cause, namespace, shard));
        }
    }
}

#[test]
fn a_stub_that_was_never_used_is_not_broken_by_a_reset() {
    run(async {
        let (_server, client) = server::connected(2).await;
        for n in 0..4 {
            let namespace = client.namespace(PLAIN);
            let used = namespace.get_by_name(&format!("quick-{n}"));
            let unused = namespace.get_by_name(&format!("quick-{n}"));
            used.fetch("http://do/abort").await.unwrap_err();
            unused.fetch("http://do/whoami").await.unwrap();
            assert!(used.fetch("http://do/whoami").await.is_err());
        }
    });
}

#[test]
fn a_reset_breaks_every_stub_of_the_object_and_drops_what_waited() {
    run(async {
        let (_server, client) = server::connected(2).await;
        for n in 0..4 {
            let namespace = client.namespace(PLAIN);
            let stubs: Vec<_> =
                (0..5).map(|_| namespace.get_by_name(&format!("quick-{n}"))).collect();
            for stub in &stubs {
                stub.fetch("http://do/whoami").await.unwrap();
            }
            let held = stubs[0].fetch("http://do/critical?ms=20&fail=1");
            let waiting: Vec<_> =
                stubs.iter().map(|stub| stub.fetch("http://do/note?n=1")).collect();
            assert!(held.await.unwrap_err().delivered);
            for (index, call) in waiting.into_iter().enumerate() {
                // Stubs other than the first have an order of their own: a call may have entered before.
                if let Err(error) = call.await {
                    assert!(error.reset, "{error:?}");
                    assert!(!error.delivered || index > 0, "{error:?}");
                }
            }
            for stub in &stubs {
                let error = stub.broken().await;
                assert!(error.message.contains("critical section failed"), "{error:?}");
            }
        }
    });
}

#[test]
fn a_handler_s_error_does_not_break_its_stub() {
    run(async {
        let (_server, client) = server::connected(2).await;
        for namespace in [PLAIN, TYPED] {
            let stub = client.namespace(namespace).get_by_name("quick");
            stub.fetch("http://do/note?n=1").await.unwrap();
            stub.fetch("http://do/throw?message=x").await.unwrap_err();
            let log = stub.fetch("http://do/log").await.unwrap().into_body().text().await.unwrap();
            assert_eq!(log, "1");
            assert!(stub.broken().now_or_never().is_none());
        }
    });
}

#[test]
fn a_server_survives_the_panics_of_its_objects() {
    run(async {
        let (_server, client) = server::connected(1).await;
        let namespace = client.namespace(PLAIN);
        let steady = namespace.get_by_name("steady");
        let answer = steady.fetch("http://do/sleep?ms=50");
        for _ in 0..50 {
            let error = namespace.get_by_name("x").fetch("http://do/panic").await.unwrap_err();
            assert!(error.remote && error.reset, "{error:?}");
        }
        answer.await.unwrap();
    });
}

#[test]
fn an_error_before_any_connection_names_the_address() {
    run(async {
        let error = Client::connect("127.0.0.1:1").await.unwrap_err();
        assert_eq!(error.kind, Kind::Disconnected);
        assert!(error.message.contains("127.0.0.1:1") && !error.delivered, "{error:?}");
        assert_eq!(Client::connect("nonsense").await.unwrap_err().kind, Kind::InvalidRequest);
    });
}

#[test]
fn a_panic_after_a_wait_is_told_to_its_caller_as_what_it_is() {
    run(async {
        let (_server, client) = server::connected(2).await;
        for n in 0..4 {
            let stub = client.namespace(PLAIN).get_by_name(&format!("quick-{n}"));
            let error = stub.fetch("http://do/panic-later").await.unwrap_err();
            assert!(error.remote && error.reset && error.delivered, "{error:?}");
            assert!(error.message.contains("panicked as asked") && !error.retryable, "{error:?}");
            assert!(stub.broken_reason().is_some());
        }
    });
}

#[test]
fn a_reset_answers_what_a_streaming_call_holds_back() {
    run(async {
        let (_server, client) = server::connected(1).await;
        let stub = client.namespace(TYPED).get_by_name("quick");
        let typed: probe::Client = stub.cast();
        let mut never = typed.note_request();
        never.get().set_n(u64::MAX);
        never.send().await.unwrap();
        let held = stub.fetch("http://do/whoami");
        let other = client.namespace(TYPED).get_by_name("quick");
        other.fetch("http://do/abort").await.unwrap_err();
        let error = held.await.unwrap_err();
        assert!(error.reset && !error.delivered, "{error:?}");
    });
}

#[test]
fn waiting_for_a_break_does_not_keep_the_connection_open() {
    run(async {
        let (_server, client) = server::connected(1).await;
        let ended = client.ended();
        let stub = client.namespace(PLAIN).get_by_name("quick");
        stub.fetch("http://do/whoami").await.unwrap();
        assert!(stub.broken().now_or_never().is_none());
        drop((stub, client));
        ended.await.unwrap();
    });
}

#[test]
fn a_stub_says_what_it_refers_to_without_waking_it() {
    run(async {
        let (_server, client) = server::connected(2).await;
        for (namespace, _) in WAYS {
            let namespace = client.namespace(namespace);
            let referent = namespace.get_by_name("bad").identity().await.unwrap();
            assert_eq!(referent.name.as_deref(), Some("bad"));
            assert_eq!(referent.id, namespace.id_from_name("bad").await.unwrap());
        }
        assert!(client.namespace("NOPE").get_by_name("x").identity().await.is_err());
    });
}

#[test]
fn a_call_on_a_reference_that_is_dropped_at_once_arrives() {
    run(async {
        let (own, heard) = server::listener();
        let mut call = own.heard_request();
        call.get().set_n(7);
        let answer = call.send().promise;
        drop(own);
        answer.await.unwrap();
        assert_eq!(*heard.borrow(), [7]);
    });
}
