//! A capability that an object makes of itself is a part of it, and a reference that an object hands on is the plain
//! one: through a real server.

use std::time::Duration;

use capnp::capability::Promise;
use stubborn::demo_capnp::probe;
use stubborn::storage::memory::Memory;
use stubborn::{Error, Limits, Stub};

use crate::gates::{Say, World, left_since};
use crate::support::run;
use crate::support::server::{self, listener};

async fn world() -> World {
    World::with(Memory::new(), Limits::default()).await
}

/// Asks an object for a capability of its own, which runs the object's scripts.
async fn voice(stub: &Stub) -> listener::Client {
    let typed: probe::Client = stub.cast();
    typed.echo_request().send().promise.await.unwrap().get().unwrap().get_listener().unwrap()
}

/// Has a capability hear `n`. It is sent at once.
fn say(voice: &listener::Client, n: u64) -> Promise<(), capnp::Error> {
    let mut call = voice.heard_request();
    call.get().set_n(n);
    let answer = call.send().promise;
    Promise::from_future(async move { answer.await.map(drop) })
}

/// Has an object hand a reference to be kept.
async fn keep(stub: &Stub, reference: listener::Client) {
    let typed: probe::Client = stub.cast();
    let mut call = typed.notify_request();
    call.get().set_listener(reference);
    call.send().promise.await.unwrap();
}

/// The second of two calls on one capability entered the transaction of the first, was answered, and was rolled back
/// with it.
#[test]
fn a_call_on_a_capability_enters_no_section_of_another_call_on_it() {
    run(async {
        for around in ["txn:6", "block:7!txn:6:caught"] {
            let world = world().await;
            let stub = world.stub("part");
            let first = format!("{around}!put:k:1!hear:in!call:other:x!yield!hear:out!fail");
            stub.say(&format!("script.1.{first}")).await.unwrap();
            stub.say("script.2.put:k:2!hear:second").await.unwrap();
            let voice = voice(&stub).await;
            let (first, second) = (say(&voice, 1), say(&voice, 2));
            second.await.unwrap();
            let _ = first.await;
            assert_eq!(stub.say("get.k/heard").await.unwrap(), "2 in,out,second", "{around}");
        }
    });
}

#[test]
fn a_call_on_a_capability_waits_while_the_object_waits_until_its_writes_are_durable() {
    run(async {
        let world = World::new().await;
        let cast = world.cast().await;
        let writer = &cast.writer;
        let scripts = writer.say("script.1.put:k:1!sync!hear:synced/script.2.hear:second");
        world.waiting(1).await;
        world.store.commit(1);
        scripts.await.unwrap();
        let voice = voice(writer).await;
        let (first, second) = (say(&voice, 1), say(&voice, 2));
        world.waiting(1).await;
        assert_eq!(cast.heard().await, "");
        world.store.commit(1);
        let _ = (first.await.unwrap(), second.await.unwrap());
        assert_eq!(writer.say("heard").await.unwrap(), "synced,second");
    });
}

#[test]
fn calls_on_a_capability_enter_in_one_order_with_those_on_the_stub() {
    run(async {
        let world = world().await;
        let stub = world.stub("part");
        stub.say("script.1.hear:v1!yield!hear:v2/script.2.hear:v3").await.unwrap();
        let voice = voice(&stub).await;
        let section = stub.say("block.5/hear.s1/yield/call.other.x/yield/hear.s2");
        let (first, third) = (say(&voice, 2), stub.say("hear.s3"));
        let (fourth, fifth) = (say(&voice, 2), stub.say("hear.s4"));
        let _ = (fifth.await.unwrap(), fourth.await.unwrap(), third.await.unwrap());
        let _ = (first.await.unwrap(), section.await.unwrap());
        assert_eq!(stub.say("heard").await.unwrap(), "s1,s2,v3,s3,v3,s4");
    });
}

/// The panic was the call's failure alone, and the object went on.
#[test]
fn a_panic_in_a_method_of_a_capability_resets_the_object() {
    run(async {
        for script in ["panic", "yield!panic"] {
            let world = world().await;
            let stub = world.stub("part");
            stub.say(&format!("script.1.{script}/script.2.hear:x")).await.unwrap();
            let (voice, idle) = (voice(&stub).await, voice(&stub).await);
            let (first, behind) = (say(&voice, 1), say(&voice, 2));
            for outcome in [first.await, stub.broken().await.into_outcome(), say(&idle, 2).await] {
                let error = Error::from(outcome.unwrap_err());
                assert!(error.message.contains("panicked as asked"), "{script}: {error:?}");
            }
            let _ = behind.await;
            let again = world.stub("part");
            assert_eq!(again.say("heard").await.unwrap(), "");
            assert!(say(&voice, 2).await.is_err(), "a capability belongs to one instance");
            assert_eq!(again.say("heard").await.unwrap(), "");
        }
    });
}

trait IntoOutcome {
    fn into_outcome(self) -> Result<(), capnp::Error>;
}

impl IntoOutcome for Error {
    fn into_outcome(self) -> Result<(), capnp::Error> {
        Err(self.into())
    }
}

/// It stayed a call of the first object's: it failed with that, or waited for what that wrote.
#[test]
fn a_reference_that_an_object_hands_on_is_not_bound_to_it() {
    run(async {
        let world = World::new().await;
        let cast = world.cast().await;
        for (giver, (to, stub)) in [("giver-1", &cast.near), ("giver-2", &cast.far)] {
            let writer = world.warm(giver).await;
            let (own, heard) = server::listener();
            keep(&writer, own).await;
            writer.say(&format!("give.{to}")).await.unwrap();
            // What the giver wrote is held; who has the reference now wrote nothing.
            let writing = writer.say("put.k.1");
            world.waiting(1).await;
            stub.say("call-kept.1").await.unwrap();
            world.store.commit(1);
            writing.await.unwrap();
            writer.say("abort").await.unwrap_err();
            stub.say("call-kept.2").await.unwrap();
            assert_eq!(*heard.borrow(), [1, 2]);
            // And back, to another instance.
            let again = world.stub(giver);
            stub.say(&format!("give.{giver}")).await.unwrap();
            again.say("call-kept.3").await.unwrap();
            again.say("abort").await.unwrap_err();
            assert_eq!(*heard.borrow(), [1, 2, 3]);
        }
    });
}

#[test]
fn an_object_stays_in_memory_while_somebody_holds_a_capability_of_it() {
    run(async {
        let limits = Limits { evict_after: Duration::from_millis(30), ..Limits::default() };
        let world = World::with(Memory::new(), limits).await;
        let (stub, other) = (world.stub("part"), world.stub("other"));
        let voice = voice(&stub).await;
        let activation = stub.say("activation").await.unwrap();
        let mut last = other.say("activation").await.unwrap();
        for _ in 0..2 {
            last = left_since(&other, &last).await;
        }
        assert_eq!(stub.say("activation").await.unwrap(), activation);
        drop(voice);
        left_since(&stub, &activation).await;
    });
}
