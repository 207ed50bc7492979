//! What takes its time, does not end, or breaks as it ends, inside one object: it costs that object alone.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::LocalBoxFuture;
use stubborn::demo_capnp::probe;
use stubborn::storage::memory::Memory;
use stubborn::{
    Class, Client, DurableObject, Env, Kind, Limits, Request, Response, Result, Server, State,
    Stub, respond,
};

use crate::support::keeper::{KEEPER, Keeper};
use crate::support::run;
use crate::support::server::{self, TYPED};

const FRAGILE: &str = "FRAGILE";

struct World {
    server: Server,
    client: Client,
}

impl World {
    async fn on(store: Memory, limits: Limits) -> Self {
        let server = Server::builder()
            .class(KEEPER, Class::typed::<Keeper, probe::Client>(), KEEPER)
            .namespace::<Fragile>(FRAGILE)
            .threads(NonZeroUsize::new(1).unwrap())
            .store(Arc::new(store))
            .limits(limits)
            .listen("127.0.0.1:0")
            .unwrap();
        let server = server.start().await.unwrap();
        let client = Client::connect(&server.addresses()[0].to_string()).await.unwrap();
        Self { server, client }
    }

    fn stub(&self, name: &str) -> Stub {
        self.client.namespace(KEEPER).get_by_name(name)
    }

    fn fragile(&self) -> Stub {
        self.client.namespace(FRAGILE).get_by_name("a")
    }
}

async fn say(stub: &Stub, path: &str) -> Result<String> {
    let said = async { stub.fetch(format!("http://do/{path}")).await?.into_body().text().await };
    tokio::time::timeout(PATIENCE, said).await.expect("it is answered")
}

/// Makes a call that is inside the object when this returns.
async fn inside(stub: &Stub, path: &str) -> LocalBoxFuture<'static, Result<Response>> {
    let mut call = stub.fetch(format!("http://do/{path}")).boxed_local();
    assert!((&mut call).now_or_never().is_none());
    say(stub, "").await.unwrap();
    call
}

/// Lets `ms` pass, in which an object may leave memory.
async fn pass(ms: u64) {
    let _ = tokio::time::timeout(Duration::from_millis(ms), std::future::pending::<()>()).await;
}

const PATIENCE: Duration = Duration::from_secs(20);

fn evicting() -> Limits {
    Limits { evict_after: Duration::from_millis(50), ..Limits::default() }
}

/// They were dropped, unpolled.
#[test]
fn tasks_that_the_last_hook_begins_run() {
    run(async {
        let world = World::on(Memory::new(), evicting()).await;
        let stub = world.stub("a");
        // The hook waits for the first, and not for the second.
        let hook = "beside:2+yield+open:x+beside:3+yield+yield+put:k:1+wait:x+put:l:2";
        let first = say(&stub, &format!("on-shutdown.{hook}/activation")).await.unwrap();
        pass(500).await;
        let said = say(&stub, "get.k/get.l/activation").await.unwrap();
        let next: u64 = first.parse::<u64>().unwrap() + 1;
        assert_eq!(said, format!("1 2 {next}"));
    });
}

#[test]
fn a_task_of_the_last_hook_that_does_not_end_has_the_hooks_time() {
    run(async {
        let shutdown_hook_timeout = Duration::from_millis(100);
        let world = World::on(Memory::new(), Limits { shutdown_hook_timeout, ..evicting() }).await;
        let stub = world.stub("a");
        let first = say(&stub, "on-shutdown.beside:1+forever/activation").await.unwrap();
        pass(500).await;
        assert_ne!(say(&stub, "activation").await.unwrap(), first);
    });
}

/// It never ran where a handler or a task outlasted the drain.
#[test]
fn when_the_server_stops_the_hook_runs_beside_what_does_not_end() {
    run(async {
        let store = Memory::new();
        let drain_timeout = Duration::from_secs(1);
        let world = World::on(store.clone(), Limits { drain_timeout, ..Limits::default() }).await;
        for (name, how) in [("handler", "forever"), ("task", "beside.1/forever")] {
            let stub = world.stub(name);
            say(&stub, "on-shutdown.put:k:1").await.unwrap();
            drop(inside(&stub, how).await);
        }
        world.server.stop().await;
        let world = World::on(store.after_crash(), Limits::default()).await;
        for name in ["handler", "task"] {
            assert_eq!(say(&world.stub(name), "get.k").await.unwrap(), "1", "{name}");
        }
    });
}

/// Those behind a streaming call waited for ever.
#[test]
fn calls_that_a_streaming_call_holds_back_grow_old_too() {
    run(async {
        let object_queue_age_max = Duration::from_millis(200);
        let (_server, address) =
            server::start(1, Limits { object_queue_age_max, ..Limits::default() }).await;
        let client = Client::connect(&address).await.unwrap();
        let stub = client.namespace(TYPED).get_by_name("a");
        let typed: probe::Client = stub.cast();
        let mut endless = typed.note_request();
        endless.get().set_n(u64::MAX);
        let endless = endless.send();
        let behind = typed.log_request().send();
        let outcome = tokio::time::timeout(PATIENCE, behind.promise).await.expect("it is failed");
        let error = stubborn::Error::from(outcome.map(drop).unwrap_err());
        assert_eq!(error.kind, Kind::Overloaded, "{error:?}");
        drop(endless);
    });
}

/// Handlers whose callers had gone were without bound.
#[test]
fn so_many_handlers_are_inside_an_object_and_no_more() {
    run(async {
        let limits = Limits {
            object_handlers_max: 3,
            object_queue_age_max: Duration::from_millis(300),
            ..Limits::default()
        };
        let world = World::on(Memory::new(), limits).await;
        let stub = world.stub("a");
        for _ in 0..2 {
            // Its caller goes once it is inside.
            drop(inside(&stub, "forever").await);
        }
        assert_eq!(say(&stub, "hear.x/heard").await.unwrap(), "x");
        let mut third = stub.fetch("http://do/forever").boxed_local();
        assert!((&mut third).now_or_never().is_none());
        // What waits outside grows old.
        let error = say(&stub, "heard").await.unwrap_err();
        assert_eq!((error.kind, error.remote), (Kind::Overloaded, false), "{error:?}");
        assert!(stub.broken_reason().is_none());
    });
}

/// An object whose parts panic when they are dropped.
struct Fragile(State);

struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("panicked when dropped, as asked");
    }
}

impl Drop for Fragile {
    fn drop(&mut self) {
        drop(Bomb);
    }
}

impl DurableObject for Fragile {
    async fn new(state: State, _env: Env) -> Result<Self> {
        Ok(Self(state))
    }

    async fn fetch(&self, request: Request) -> Result<Response> {
        match request.uri().path() {
            "/task" => self.0.wait_until(async {
                let _bomb = Bomb;
                std::future::pending::<()>().await;
            }),
            "/left" => {
                // Never polled: the object is gone by then.
                let bomb = Bomb;
                self.0.storage().put("k", "1")?;
                self.0.wait_until(async move {
                    let _bomb = bomb;
                    std::future::pending::<()>().await;
                });
                self.0.abort("aborted as asked");
            }
            "/abort" => self.0.abort("aborted as asked"),
            _ => {}
        }
        Ok(respond::text(self.0.activation().to_string()))
    }
}

/// A panic in there left the place of the object in memory, and every later event waiting.
#[test]
fn an_object_that_panics_when_it_is_dropped_starts_again() {
    run(async {
        let world = World::on(Memory::new(), evicting()).await;
        let mut known = say(&world.fragile(), "").await.unwrap();
        pass(400).await;
        for path in ["", "task", "left"] {
            let _ = say(&world.fragile(), path).await;
            let _ = say(&world.fragile(), "abort").await;
            let next = say(&world.fragile(), "").await.unwrap();
            assert_ne!(next, known, "{path}");
            known = next;
        }
    });
}
