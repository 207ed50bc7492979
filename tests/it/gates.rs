//! Nothing leaves an object before what it wrote is durable, and nothing enters while it must not: through a real
//! server, on a store whose commits the test makes, or makes fail.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use stubborn::demo_capnp::probe;
use stubborn::runtime::Placement;
use stubborn::storage::memory::Memory;
use stubborn::{Class, Client, Error, Limits, Result, Server, Stub};

use crate::support::keeper::{KEEPER, Keeper};
use crate::support::run;
use crate::support::server::listener;

/// A server of keepers on two threads, whose commits are held.
pub(crate) struct World {
    pub(crate) store: Memory,
    pub(crate) client: Client,
    server: Server,
}

/// The writer, and another object on its thread and on the other one.
pub(crate) struct Cast {
    pub(crate) writer: Stub,
    pub(crate) near: (String, Stub),
    pub(crate) far: (String, Stub),
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(Memory::held(), Limits::default()).await
    }

    pub(crate) async fn with(store: Memory, limits: Limits) -> Self {
        let server = Server::builder()
            .class(KEEPER, Class::typed::<Keeper, probe::Client>(), KEEPER)
            .threads(NonZeroUsize::new(2).unwrap())
            .store(Arc::new(store.clone()))
            .limits(limits)
            .listen("127.0.0.1:0")
            .unwrap();
        let server = server.start().await.unwrap();
        let client = Client::connect(&server.addresses()[0].to_string()).await.unwrap();
        Self { store, client, server }
    }

    pub(crate) fn stub(&self, name: &str) -> Stub {
        self.client.namespace(KEEPER).get_by_name(name)
    }

    /// Waits until `count` batches wait.
    pub(crate) async fn waiting(&self, count: usize) {
        let reached = async {
            while self.store.waiting() < count {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, reached).await.expect("so many batches are written");
        assert_eq!(self.store.waiting(), count);
    }

    /// Has an object start, and its name be durable.
    pub(crate) async fn warm(&self, name: &str) -> Stub {
        let stub = self.stub(name);
        stub.say("").await.unwrap();
        self.waiting(1).await;
        self.store.commit(1);
        stub
    }

    pub(crate) async fn cast(&self) -> Cast {
        let writer = self.warm("writer").await;
        let home = Placement::new(2).shard(&self.id("writer").await);
        let (mut near, mut far) = (None, None);
        for n in 0.. {
            let name = format!("other-{n}");
            let slot = match Placement::new(2).shard(&self.id(&name).await) == home {
                true => &mut near,
                false => &mut far,
            };
            if slot.is_none() {
                *slot = Some((name.clone(), self.warm(&name).await));
            }
            if near.is_some() && far.is_some() {
                break;
            }
        }
        Cast { writer, near: near.unwrap(), far: far.unwrap() }
    }

    async fn id(&self, name: &str) -> stubborn::ObjectId {
        self.client.namespace(KEEPER).id_from_name(name).await.unwrap()
    }

    /// Makes the oldest waiting batch fail.
    fn fail(&self) {
        self.store.fail(&Error::failed("the disk is on fire"));
    }
}

impl Cast {
    /// Lets everything that can move do so, through the writer's thread and the other one; returns what the
    /// other objects heard meanwhile.
    pub(crate) async fn heard(&self) -> String {
        let mut heard = String::new();
        for _ in 0..20 {
            heard = self.near.1.say("heard").await.unwrap();
            heard += &self.far.1.say("heard").await.unwrap();
        }
        heard
    }

    pub(crate) fn named(&self, path: &str) -> String {
        path.replace("NEAR", &self.near.0).replace("FAR", &self.far.0)
    }
}

pub(crate) trait Say {
    /// Has an object do what `path` says. It is sent at once.
    fn say(&self, path: &str) -> impl Future<Output = Result<String>> + 'static + use<Self>;
}

impl Say for Stub {
    fn say(&self, path: &str) -> impl Future<Output = Result<String>> + 'static + use<> {
        let answer = self.fetch(format!("http://do/{path}"));
        async move { answer.await?.into_body().text().await }
    }
}

/// Asserts that an error tells of the disk, and that the object was reset.
#[track_caller]
fn is_of_the_disk(error: &Error) {
    assert!(error.message.contains("the disk is on fire"), "{error:?}");
    assert!(error.reset && !error.remote, "{error:?}");
}

const PATIENCE: Duration = Duration::from_secs(20);

/// What the writer does, each time after a write, and what comes of it once that is durable.
const LEAVING: [(&str, std::result::Result<&str, &str>); 14] = [
    ("put.k.1/get.k", Ok("1")),
    ("put.k.1/yield/yield/get.k", Ok("1")),
    ("put.k.1/fail", Err("failed as asked")),
    ("put.k.1/yield/fail", Err("failed as asked")),
    ("put.k.1/delete.k/get.k", Ok("none")),
    ("half-sql", Ok("")),
    ("alarm.100000000", Ok("")),
    ("txn.1/put.k.1/get.k", Ok("1")),
    ("block.2/put.k.1/sync/get.k", Ok(" 1")),
    ("put.k.1/call.NEAR.x", Ok("x")),
    ("put.k.1/call.FAR.x", Ok("x")),
    ("put.k.1/log.NEAR.7", Ok("")),
    ("put.k.1/log.FAR.7", Ok("")),
    ("put.k.1/tell.NEAR.1/tell.FAR.1/log.NEAR.2/answers", Ok("")),
];

/// The second of two statements failed, the first had happened, and the answer left before it was durable.
#[test]
fn what_leaves_after_a_write_leaves_when_the_write_is_durable() {
    run(async {
        for (path, expected) in LEAVING {
            let world = World::new().await;
            let cast = world.cast().await;
            let path = cast.named(path);
            let mut answer = Box::pin(cast.writer.say(&path));
            world.waiting(1).await;
            assert_eq!(cast.heard().await, "", "{path}");
            assert!((&mut answer).now_or_never().is_none(), "{path} did not wait");
            world.store.commit(1);
            let outcome = answer.await.map_err(|error| error.message);
            let outcome = outcome.as_ref().map(String::as_str).map_err(String::as_str);
            assert_eq!(outcome.map(str::trim), expected.map(str::trim), "{path}");
            assert!(cast.writer.broken_reason().is_none());
        }
    });
}

#[test]
fn what_waits_for_a_write_that_fails_never_leaves_and_the_object_is_reset() {
    run(async {
        for (path, _) in LEAVING {
            let world = World::new().await;
            let cast = world.cast().await;
            let path = cast.named(path);
            let before = cast.writer.say("activation").await.unwrap();
            let answer = cast.writer.say(&path);
            world.waiting(1).await;
            let behind = cast.writer.say("get.k");
            cast.heard().await;
            world.fail();
            is_of_the_disk(&answer.await.unwrap_err());
            is_of_the_disk(&behind.await.unwrap_err());
            is_of_the_disk(&cast.writer.say("get.k").await.unwrap_err());
            is_of_the_disk(&cast.writer.broken().await);
            assert_eq!(cast.heard().await, "", "{path}");
            let again = world.stub("writer");
            assert_eq!(again.say("get.k").await.unwrap(), "none", "{path}");
            assert_ne!(again.say("activation").await.unwrap(), before);
            let answer = again.say("put.k.2/get.k");
            world.waiting(1).await;
            world.store.commit(1);
            assert_eq!(answer.await.unwrap(), "2");
        }
    });
}

#[test]
fn each_chunk_of_a_body_and_its_end_wait_for_the_writes_before_them() {
    run(async {
        for fails in [false, true] {
            let world = World::new().await;
            let cast = world.cast().await;
            let path = "stream/chunk.a/wait.one/put.k.1/chunk.b/wait.two/put.k.2";
            let answer = cast.writer.fetch(format!("http://do/{path}")).await.unwrap();
            let mut body = answer.into_body();
            assert_eq!(body.chunk().await.unwrap().unwrap(), "a");
            cast.writer.say("open.one").await.unwrap();
            world.waiting(1).await;
            cast.heard().await;
            assert!(body.chunk().now_or_never().is_none());
            if fails {
                world.fail();
                assert!(body.chunk().await.unwrap().is_err());
                continue;
            }
            world.store.commit(1);
            assert_eq!(body.chunk().await.unwrap().unwrap(), "b");
            cast.writer.say("open.two").await.unwrap();
            world.waiting(1).await;
            cast.heard().await;
            assert!(body.chunk().now_or_never().is_none(), "its end waits too");
            world.store.commit(1);
            assert!(body.chunk().await.is_none());
        }
    });
}

#[test]
fn an_outgoing_body_waits_chunk_by_chunk() {
    run(async {
        for to in ["NEAR", "FAR"] {
            for fails in [false, true] {
                let world = World::new().await;
                let cast = world.cast().await;
                let answer = cast.writer.say(&cast.named(&format!("upload.{to}")));
                while cast.heard().await != "a" {}
                cast.writer.say("open.go").await.unwrap();
                world.waiting(1).await;
                assert_eq!(cast.heard().await, "a");
                if fails {
                    world.fail();
                    is_of_the_disk(&answer.await.unwrap_err());
                    assert_eq!(cast.heard().await, "a");
                } else {
                    world.store.commit(1);
                    assert_eq!(answer.await.unwrap(), "a,b");
                }
            }
        }
    });
}

#[test]
fn typed_results_errors_and_callbacks_wait() {
    run(async {
        for fails in [false, true] {
            for case in ["log", "fail", "notify", "resolved"] {
                let world = World::new().await;
                let cast = world.cast().await;
                let typed: probe::Client = cast.writer.cast();
                let (own, heard) = listener();
                let mut answer = match case {
                    "log" => {
                        let mut call = typed.log_request();
                        call.get().set_n(100);
                        let answer = call.send().promise;
                        async move { answer.await?.get().map(|results| results.get_position()) }
                            .boxed_local()
                    }
                    "fail" => {
                        let mut call = typed.fail_request();
                        call.get().set_message("asked to");
                        call.send().promise.map(|outcome| outcome.map(|_| 0)).boxed_local()
                    }
                    _ => {
                        let mut call = typed.notify_request();
                        call.get().set_listener(own);
                        call.get().set_count(if case == "notify" { 5 } else { 6 });
                        call.send().promise.map(|outcome| outcome.map(|_| 100)).boxed_local()
                    }
                };
                world.waiting(1).await;
                cast.heard().await;
                assert!((&mut answer).now_or_never().is_none() && heard.borrow().is_empty());
                if fails {
                    world.fail();
                    let error = Error::from(answer.await.unwrap_err());
                    assert!(error.message.contains("the disk is on fire"), "{case}: {error:?}");
                    cast.heard().await;
                    assert!(heard.borrow().is_empty());
                    assert_eq!(world.stub("writer").say("get.k").await.unwrap(), "none");
                    continue;
                }
                world.store.commit(1);
                match case {
                    "fail" => assert!(answer.await.unwrap_err().extra.contains("asked to")),
                    _ => assert_eq!(answer.await.unwrap(), 100),
                }
                let expected = match case {
                    "notify" => vec![5],
                    "resolved" => vec![6],
                    _ => vec![],
                };
                assert_eq!(*heard.borrow(), expected);
            }
        }
    });
}

/// A handler that handed out its results early handed them out before its write was durable.
#[test]
fn a_call_on_results_that_were_handed_out_early_waits() {
    run(async {
        for fails in [false, true] {
            let world = World::new().await;
            let cast = world.cast().await;
            let typed: probe::Client = cast.writer.cast();
            let (own, heard) = listener();
            let mut echo = typed.echo_request();
            echo.get().set_listener(own);
            let echoed = echo.send();
            let mut call = echoed.pipeline.get_listener().heard_request();
            call.get().set_n(7);
            let call = call.send().promise;
            world.waiting(1).await;
            cast.heard().await;
            assert!(heard.borrow().is_empty(), "the call came before the write was durable");
            if fails {
                world.fail();
                assert!(call.await.is_err() && echoed.promise.await.is_err());
                assert!(heard.borrow().is_empty());
            } else {
                world.store.commit(1);
                cast.writer.say("open.go").await.unwrap();
                call.await.unwrap();
                assert_eq!(*heard.borrow(), [7]);
                assert!(echoed.promise.await.unwrap().get().unwrap().has_listener());
            }
        }
    });
}

#[test]
fn unconfirmed_writes_hold_nothing_and_sync_waits_for_them() {
    run(async {
        let world = World::new().await;
        let cast = world.cast().await;
        assert_eq!(cast.writer.say("quiet.k.1/get.k").await.unwrap(), "1");
        let path = cast.named("quiet.k.2/call.FAR.x");
        assert_eq!(cast.writer.say(&path).await.unwrap(), "x");
        world.waiting(2).await;
        let mut synced = Box::pin(cast.writer.say("sync"));
        cast.heard().await;
        assert!((&mut synced).now_or_never().is_none());
        world.store.commit(2);
        synced.await.unwrap();
        // Lost all the same, it resets the object.
        cast.writer.say("quiet.k.3").await.unwrap();
        world.waiting(1).await;
        world.fail();
        is_of_the_disk(&cast.writer.broken().await);
        assert_eq!(world.stub("writer").say("get.k").await.unwrap(), "2");
    });
}

#[test]
fn writes_without_a_wait_between_them_are_one_batch_and_with_one_are_several() {
    run(async {
        let world = World::new().await;
        let cast = world.cast().await;
        let batches = |path: &'static str, count| {
            let (world, writer) = (&world, &cast.writer);
            async move {
                let answer = writer.say(path);
                world.waiting(count).await;
                world.store.commit(count);
                answer.await.unwrap();
                assert_eq!(world.store.waiting(), 0, "{path}");
            }
        };
        batches("put.a.1/put.b.2/delete.a/put.c.3/alarm.100000000/half-sql", 1).await;
        batches("txn.2/put.a.1/put.b.2", 1).await;
        batches("put.a.1/yield/put.b.2", 2).await;
        // Nothing that was written before a transaction is part of it.
        batches("put.a.1/txn.1/put.b.2", 2).await;
        // A transaction that failed leaves nothing.
        assert_eq!(
            cast.writer.say("txn.2.caught/put.a.9/fail/get.a").await.unwrap(),
            "failed as asked 1"
        );
        assert_eq!(world.store.waiting(), 0);
    });
}

#[test]
fn answers_leave_in_the_order_in_which_they_were_given() {
    run(async {
        let world = World::new().await;
        let cast = world.cast().await;
        let first = cast.writer.say("put.k.1/get.k");
        world.waiting(1).await;
        // Reads only, and says what is not durable yet.
        let mut second = Box::pin(cast.writer.say("get.k"));
        let third = cast.writer.say("put.k.3/get.k");
        world.waiting(2).await;
        cast.heard().await;
        assert!((&mut second).now_or_never().is_none());
        world.store.commit(1);
        assert_eq!((first.await.unwrap(), second.await.unwrap()), ("1".into(), "1".into()));
        let mut third = Box::pin(third);
        cast.heard().await;
        assert!((&mut third).now_or_never().is_none());
        world.store.commit(1);
        assert_eq!(third.await.unwrap(), "3");
    });
}

#[test]
fn a_new_instance_waits_until_the_batches_of_the_one_before_are_settled() {
    run(async {
        for fails in [false, true] {
            let world = World::new().await;
            let cast = world.cast().await;
            let first = cast.writer.say("put.k.1/sync");
            world.waiting(1).await;
            // Enters where it does not wait for the section: it is another thread's call that aborts.
            drop(first);
            let aborted = cast.writer.say("abort");
            let mut again = Box::pin(world.stub("writer").say("get.k"));
            cast.heard().await;
            assert!((&mut again).now_or_never().is_none());
            if fails {
                world.fail();
                is_of_the_disk(&aborted.await.unwrap_err());
            } else {
                world.store.commit(1);
                assert!(aborted.await.unwrap_err().message.contains("aborted as asked"));
            }
            let _ = again.await;
            let value = world.stub("writer").say("get.k").await.unwrap();
            assert_eq!(value, if fails { "none" } else { "1" });
        }
        let world = World::new().await;
        let cast = world.cast().await;
        // Written, on its way, and reset at its next step.
        let aborted = cast.writer.say("put.k.1/yield/abort/forever");
        aborted.await.unwrap_err();
        assert_eq!(world.store.waiting(), 1);
        let mut again = Box::pin(world.stub("writer").say("get.k"));
        cast.heard().await;
        assert!((&mut again).now_or_never().is_none(), "it saw what may vanish");
        world.fail();
        assert_eq!(again.await.unwrap(), "none");
    });
}

#[test]
fn an_idle_object_stays_until_its_writes_are_durable() {
    run(async {
        let limits = Limits { evict_after: Duration::from_millis(30), ..Limits::default() };
        let world = World::with(Memory::held(), limits).await;
        let stub = world.warm("writer").await;
        let other = world.warm("other").await;
        let activation = stub.say("quiet.k.1/activation").await.unwrap();
        world.waiting(1).await;
        // Twice as long as it takes another object, which wrote nothing, to leave.
        let mut last = other.say("activation").await.unwrap();
        for _ in 0..2 {
            last = left_since(&other, &last).await;
        }
        assert_eq!(stub.say("activation").await.unwrap(), activation);
        world.store.commit(1);
        assert_ne!(left_since(&stub, &activation).await, activation);
        assert_eq!(stub.say("get.k").await.unwrap(), "1");
    });
}

/// Waits until an object was evicted since `activation`, and returns its new one.
pub(crate) async fn left_since(stub: &Stub, activation: &str) -> String {
    let mut pause = Duration::from_millis(40);
    loop {
        // Asking keeps it in memory, so this asks less and less often.
        let _ = tokio::time::timeout(pause, std::future::pending::<()>()).await;
        let now = stub.say("activation").await.unwrap();
        if now != activation {
            return now;
        }
        pause *= 2;
        assert!(pause < PATIENCE, "it never leaves");
    }
}

/// What its hook wrote was not handed to the store while the hook waited, and so it waited for ever.
#[test]
fn a_hook_that_writes_and_then_calls_another_object_is_not_stuck() {
    run(async {
        let limits = Limits { drain_timeout: PATIENCE, ..Limits::default() };
        let limits = Limits { shutdown_hook_timeout: PATIENCE, ..limits };
        let limits = Limits { evict_after: Duration::from_millis(30), ..limits };
        let world = World::with(Memory::new(), limits).await;
        let stub = world.stub("writer");
        let activation = stub.say("on-shutdown.put:k:1+call:other:x/activation").await.unwrap();
        let begun = tokio::time::Instant::now();
        left_since(&stub, &activation).await;
        assert!(begun.elapsed() < PATIENCE / 2, "{:?}", begun.elapsed());
        assert_eq!(stub.say("get.k").await.unwrap(), "1");
        world.server.stop().await;
    });
}

#[test]
fn sections_of_two_handlers_run_one_after_the_other() {
    run(async {
        let world = World::with(Memory::new(), Limits::default()).await;
        let stub = world.stub("gate");
        let first = stub.say("hear.in/wait.go/block.3/hear.a1/yield/hear.a2");
        let second = stub.say("hear.in/wait.go/block.3/hear.b1/yield/hear.b2");
        let third = stub.say("hear.in/wait.go/hear.c");
        stub.say("open.go").await.unwrap();
        let _ = (first.await.unwrap(), second.await.unwrap(), third.await.unwrap());
        let heard = stub.say("heard").await.unwrap();
        assert!(heard.contains("a1,a2") && heard.contains("b1,b2"), "{heard}");
    });
}

/// Each way to keep others out, around the steps that follow it.
const EXCLUDING: [&str; 3] = ["block", "txn", "block.3/txn"];

#[test]
fn nobody_enters_or_goes_on_during_a_section() {
    run(async {
        for way in EXCLUDING {
            let world = World::with(Memory::new(), Limits::default()).await;
            let (stub, other) = (world.stub("gate"), world.stub("other"));
            // It is inside, and would go on when the section makes the flag.
            let inside = stub.say("hear.in/wait.go/hear.inside");
            let way = way.replace("block.3", "block.9");
            let section = stub.say(&format!(
                "{way}.8/hear.1/open.go/yield/call.other.x/yield/yield/hear.2/yield"
            ));
            let later = stub.say("hear.later");
            section.await.unwrap();
            let _ = (inside.await.unwrap(), later.await.unwrap());
            let heard = stub.say("heard").await.unwrap();
            assert!(heard.starts_with("in,1,2,"), "{way}: {heard}");
            assert_eq!(other.say("heard").await.unwrap(), "x");
        }
    });
}

#[test]
fn sync_keeps_events_out() {
    run(async {
        let world = World::new().await;
        let cast = world.cast().await;
        let inside = cast.writer.say("hear.in/wait.go/hear.inside");
        let syncing = cast.writer.say("open.go/put.k.1/sync/hear.synced");
        let later = cast.writer.say("hear.later");
        world.waiting(1).await;
        cast.heard().await;
        world.store.commit(1);
        let _ = (syncing.await.unwrap(), inside.await.unwrap(), later.await.unwrap());
        let heard = cast.writer.say("heard").await.unwrap();
        assert!(heard.starts_with("in,synced,"), "{heard}");
    });
}

#[test]
fn sections_nest_and_an_inner_transaction_may_fail_alone() {
    run(async {
        let world = World::with(Memory::new(), Limits::default()).await;
        let stub = world.stub("gate");
        let said = stub.say("block.4/put.a.1/block.2/put.b.2/sync/get.a/get.b").await.unwrap();
        assert_eq!(said.trim(), "1 2");
        let path = "txn.7/put.a.3/txn.3.caught/put.b.4/delete.a/fail/get.a/get.b/sync/get.a/get.b";
        assert_eq!(stub.say(path).await.unwrap(), "failed as asked 3 2 3 2");
        let path = "txn.5.caught/put.a.5/txn.1/put.b.6/get.b/fail/get.a/get.b";
        assert_eq!(stub.say(path).await.unwrap(), "failed as asked 3 2");
        assert!(stub.broken_reason().is_none());
    });
}

#[test]
fn a_transaction_that_is_dropped_leaves_nothing_and_lets_events_in() {
    run(async {
        let world = World::with(Memory::new(), Limits::default()).await;
        let stub = world.stub("gate");
        let said = stub.say("put.k.0/cut.2/put.k.1/forever/get.k").await.unwrap();
        assert_eq!(said, "0");
        assert_eq!(stub.say("get.k").await.unwrap(), "0");
    });
}

#[test]
fn a_section_that_fails_or_takes_too_long_resets_the_object() {
    run(async {
        let critical_section_timeout = Duration::from_millis(300);
        let limits = Limits { critical_section_timeout, ..Limits::default() };
        let world = World::with(Memory::new(), limits).await;
        let cases = [
            ("put.k.0/sync/block.3/put.k.1/yield/fail", "failed as asked", "1"),
            ("put.k.0/sync/block.2/put.k.1/fail", "failed as asked", "0"),
            ("put.k.0/sync/block.2/put.k.1/forever", "a critical section took over 300ms", "1"),
            ("put.k.0/sync/block.3/txn.2/put.k.1/forever", "took over 300ms", "0"),
            ("put.k.0/sync/txn.2/put.k.1/forever", "a transaction took over 300ms", "0"),
            ("put.k.0/sync/txn.2/put.k.1/wait.go", "a transaction took over 300ms", "0"),
            ("put.k.0/sync/txn.2/block.1/fail", "failed as asked", "0"),
        ];
        for (n, (path, reason, left)) in cases.into_iter().enumerate() {
            let name = format!("gate-{n}");
            let stub = world.stub(&name);
            let error = stub.say(path).await.unwrap_err();
            assert!(error.reset && error.message.contains(reason), "{path}: {error:?}");
            let again = world.stub(&name).say("get.k").await.unwrap();
            assert_eq!(again, left, "{path}");
        }
    });
}
