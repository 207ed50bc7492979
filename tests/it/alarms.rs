//! Alarms ring at their time or after it, at least once, whatever becomes of their object: through a real server.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use stubborn::clock::Clock;
use stubborn::demo_capnp::probe;
use stubborn::storage::engine::Engine;
use stubborn::storage::memory::Memory;
use stubborn::storage::sqlite::Sqlite;
use stubborn::{Class, Client, Error, Limits, Result, Server, Stub};

use crate::support::keeper::{KEEPER, Keeper, heal};
use crate::support::run;

struct World {
    server: Server,
    client: Client,
}

impl World {
    async fn on(store: Arc<dyn Engine>) -> Self {
        Self::at(store, Clock::system(), 2).await
    }

    async fn at(store: Arc<dyn Engine>, clock: Clock, threads: usize) -> Self {
        Self::with(store, clock, threads, Limits::default()).await
    }

    async fn with(store: Arc<dyn Engine>, clock: Clock, threads: usize, limits: Limits) -> Self {
        let server = Server::builder()
            .class(KEEPER, Class::typed::<Keeper, probe::Client>(), KEEPER)
            .threads(NonZeroUsize::new(threads).unwrap())
            .store(store)
            .clock(clock)
            .limits(limits)
            .listen("127.0.0.1:0")
            .unwrap();
        let server = server.start().await.unwrap();
        let client = Client::connect(&server.addresses()[0].to_string()).await.unwrap();
        Self { server, client }
    }

    async fn new() -> Self {
        Self::on(Arc::new(Memory::new())).await
    }

    fn stub(&self, name: &str) -> Stub {
        self.client.namespace(KEEPER).get_by_name(name)
    }

    async fn say(&self, name: &str, path: &str) -> Result<String> {
        say(&self.stub(name), path).await
    }

    /// Waits until the alarm of an object has rung `count` times, and returns what was noted of each.
    async fn fired(&self, name: &str, count: usize) -> Vec<Fired> {
        let reached = async {
            loop {
                // The object may be reset meanwhile.
                let fired = self.say(name, "fired").await.unwrap_or_default();
                let fired: Vec<_> = fired.split_whitespace().map(Fired::parse).collect();
                if fired.len() >= count {
                    return fired;
                }
            }
        };
        let fired = tokio::time::timeout(PATIENCE, reached).await.expect("it rings");
        assert_eq!(fired.len(), count, "{fired:?}");
        fired.iter().for_each(|one| assert!(one.at >= one.scheduled, "{one:?}"));
        fired
    }
}

async fn say(stub: &Stub, path: &str) -> Result<String> {
    stub.fetch(format!("http://do/{path}")).await?.into_body().text().await
}

/// Lets `ms` pass, in which something is not to happen.
async fn pass(ms: u64) {
    let _ = tokio::time::timeout(Duration::from_millis(ms), std::future::pending::<()>()).await;
}

fn now() -> u64 {
    Clock::system().unix_ms()
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Fired {
    scheduled: u64,
    at: u64,
    retries: u32,
    is_retry: bool,
    name: String,
}

impl Fired {
    fn parse(text: &str) -> Self {
        let fields: Vec<_> = text.split(',').collect();
        let [scheduled, at, retries, is_retry, name] = fields[..] else { panic!("{text}") };
        Self {
            scheduled: scheduled.parse().unwrap(),
            at: at.parse().unwrap(),
            retries: retries.parse().unwrap(),
            is_retry: is_retry == "true",
            name: name.to_owned(),
        }
    }
}

const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn an_alarm_rings_once_at_its_time_and_knows_what_it_was_set_to() {
    run(async {
        let world = World::new().await;
        let at = now() + 200;
        world.say("a", &format!("alarm-at.{at}")).await.unwrap();
        world.say("past", "alarm-at.1").await.unwrap();
        let fired = world.fired("a", 1).await;
        let Fired { scheduled, at: rang, retries, is_retry, name } = fired[0].clone();
        assert_eq!((scheduled, retries, is_retry, name.as_str()), (at, 0, false, "a"));
        assert!(rang < at + 5_000, "{} ms late", rang - at);
        assert_eq!(world.fired("past", 1).await[0].scheduled, 1);
        pass(100).await;
        world.fired("a", 1).await;
        assert_eq!(world.say("a", "get-alarm").await.unwrap(), "none");
    });
}

#[test]
fn inside_the_handler_the_alarm_is_not_set_until_it_is_set_anew() {
    run(async {
        let world = World::new().await;
        let path =
            "script.0.get-alarm+unalarm+alarm-at:7+get-alarm/script.1.get-alarm+unalarm/alarm.1";
        world.say("a", path).await.unwrap();
        let fired = world.fired("a", 2).await;
        assert_eq!((fired[1].scheduled, fired[1].is_retry), (7, false));
        // The last handler saw none, and deleting what rings did nothing.
        assert_eq!(world.say("a", "get.seen-alarm/get-alarm").await.unwrap(), "none none");
    });
}

#[test]
fn an_alarm_that_was_deleted_or_moved_does_not_ring_then() {
    run(async {
        let world = World::new().await;
        world.say("deleted", "alarm.150/yield/unalarm/get-alarm").await.unwrap();
        world.say("undone", "txn.2.caught/alarm.150/fail").await.unwrap();
        let at = now() + 400;
        world.say("moved", &format!("alarm.150/yield/alarm-at.{at}")).await.unwrap();
        assert_eq!(world.fired("moved", 1).await[0].scheduled, at);
        world.fired("deleted", 0).await;
        world.fired("undone", 0).await;
    });
}

#[test]
fn alarms_survive_restarts_and_know_their_objects_names() {
    run(async {
        let folder = std::env::temp_dir().join(format!("stubborn-alarms-{}", std::process::id()));
        let memory = Memory::new();
        for in_memory in [true, false] {
            let engine = |memory: Memory| -> Arc<dyn Engine> {
                match in_memory {
                    true => Arc::new(memory),
                    false => Arc::new(Sqlite::open(&folder).unwrap()),
                }
            };
            let world = World::on(engine(memory.clone())).await;
            let at = now() + 1_000;
            world.say("kept", &format!("alarm-at.{at}")).await.unwrap();
            let World { server, client } = world;
            drop(client);
            server.stop().await;
            assert!(now() < at, "it is stopped before the alarm rings");
            pass(at.saturating_sub(now()) + 50).await;
            let world = World::on(engine(memory.after_crash())).await;
            let fired = world.fired("kept", 1).await;
            assert_eq!((fired[0].scheduled, fired[0].name.as_str()), (at, "kept"));
        }
        std::fs::remove_dir_all(&folder).unwrap();
    });
}

/// How a first try fails.
const FAILING: [&str; 5] =
    ["fail", "sync+panic", "sync+abort", "sync+abort+forever", "sync+block:1+fail"];

/// A handler that reset its object and then returned counted as one that never ran.
#[test]
fn a_handler_that_fails_is_tried_again_after_two_seconds() {
    run(async {
        let world = World::new().await;
        for (n, how) in FAILING.iter().enumerate() {
            let path = format!("script.0.{how}/alarm.1");
            world.say(&format!("failing-{n}"), &path).await.unwrap();
        }
        for (n, how) in FAILING.iter().enumerate() {
            let fired = world.fired(&format!("failing-{n}"), 2).await;
            let waited = fired[1].at - fired[0].at;
            assert!((2_000..8_000).contains(&waited), "{how}: {waited} ms");
            assert_eq!((fired[1].retries, fired[1].is_retry), (1, true), "{how}");
            assert_eq!(fired[0].scheduled, fired[1].scheduled, "{how}");
        }
    });
}

/// It rang two seconds later, found nothing due, and was forgotten until the next start of the server.
#[test]
fn an_alarm_that_was_set_anew_by_a_handler_that_then_failed_rings() {
    run(async {
        let world = World::new().await;
        let at = now() + 3_500;
        for (name, how) in [("panics", "panic"), ("aborts", "abort"), ("fails", "fail")] {
            let path = format!("script.0.alarm-at:{at}+sync+{how}/alarm.1");
            world.say(name, &path).await.unwrap();
        }
        for name in ["panics", "aborts", "fails"] {
            let fired = world.fired(name, 2).await;
            assert_eq!((fired[1].scheduled, fired[1].retries), (at, 0), "{name}: {fired:?}");
        }
    });
}

/// What memory knew of the alarm was what had failed to be stored.
#[test]
fn an_alarm_whose_deletion_could_not_be_stored_rings() {
    run(async {
        let store = Memory::held();
        let world = World::on(Arc::new(store.clone())).await;
        let waiting = async |count: usize| {
            while store.waiting() < count {
                tokio::task::yield_now().await;
            }
        };
        for (n, change) in ["unalarm", "alarm.100000000"].into_iter().enumerate() {
            let (name, at) = (format!("a-{n}"), now() + 500);
            let stub = world.stub(&name);
            // Its name is a batch of its own.
            say(&stub, "").await.unwrap();
            waiting(1).await;
            store.commit(1);
            let path = format!("alarm-at.{at}");
            let set = say(&stub, &path);
            let (_, set) = tokio::join!(
                async {
                    waiting(1).await;
                    store.commit(1);
                },
                set
            );
            set.unwrap();
            let changed = say(&stub, change);
            let (_, changed) = tokio::join!(
                async {
                    waiting(1).await;
                    store.fail(&Error::failed("the disk is on fire"));
                },
                changed
            );
            assert!(changed.unwrap_err().reset);
            // The handler's note is a batch.
            waiting(1).await;
            store.commit(1);
            assert_eq!(world.fired(&name, 1).await[0].scheduled, at, "{change}");
            // That it is over is in it or is another.
            store.commit(store.waiting());
        }
    });
}

#[test]
fn a_constructor_that_fails_does_not_lose_the_alarm() {
    run(async {
        let store = Memory::new();
        let world = World::on(Arc::new(store.clone())).await;
        let at = now() + 300;
        let name = "constructed-late";
        world.say(name, &format!("alarm-at.{at}/construct-fails")).await.unwrap();
        world.say(name, "sync/abort").await.unwrap_err();
        let error = world.say(name, "get-alarm").await.unwrap_err();
        assert!(error.message.contains("the constructor failed as asked"), "{error:?}");
        // It has rung, for nobody, by then.
        pass(at.saturating_sub(now()) + 500).await;
        heal(name);
        let fired = world.fired(name, 1).await;
        assert_eq!((fired[0].scheduled, fired[0].is_retry), (at, true), "{fired:?}");
        assert!(fired[0].at >= at + 2_000, "{fired:?}");
    });
}

/// After 256 of them no alarm of their thread rang until one of them had ended.
#[test]
fn alarms_ring_though_hundreds_of_handlers_do_not_end() {
    run(async {
        let world = World::at(Arc::new(Memory::new()), Clock::system(), 1).await;
        let names: Vec<_> = (0..300).map(|n| format!("endless-{n}")).collect();
        let set = names.iter().map(|name| world.say(name, "script.0.sync+forever/alarm.1"));
        join_all(set).await.into_iter().for_each(|set| drop(set.unwrap()));
        for name in &names {
            world.fired(name, 1).await;
        }
        world.say("last", "alarm.1").await.unwrap();
        world.fired("last", 1).await;
    });
}

/// It counted as a failed try, and waited longer each time.
#[test]
fn an_alarm_for_which_there_is_no_room_in_memory_rings_when_there_is() {
    run(async {
        let limits =
            Limits { objects_max: 1, evict_after: Duration::from_millis(100), ..Limits::default() };
        let world = World::with(Arc::new(Memory::new()), Clock::system(), 1, limits).await;
        let at = now() + 1_000;
        world.say("a", &format!("alarm-at.{at}")).await.unwrap();
        let busy = world.stub("busy");
        while say(&busy, "").await.is_err() {
            pass(20).await;
        }
        let waits = say(&busy, "wait.go");
        let goes = async {
            pass(at.saturating_sub(now()) + 2_500).await;
            say(&busy, "open.go").await.unwrap();
            now()
        };
        let (waited, gone) = futures::join!(waits, goes);
        waited.unwrap();
        let fired = world.fired("a", 1).await;
        assert_eq!((fired[0].retries, fired[0].is_retry), (0, false), "{fired:?}");
        assert!(fired[0].at >= gone && fired[0].at < gone + 2_000, "{fired:?} {gone}");
    });
}

/// One whose object was reset was forgotten, where there were more than fit into memory.
#[test]
fn thousands_of_alarms_due_at_once_ring_once_each() {
    run(async {
        const COUNT: u64 = 10_000;
        let store = Memory::new();
        let (at, due) = (now(), |n: u64| now_at(n));
        // Set an hour ago, as that server sees it.
        let clock = Clock::starting_at(at - HOUR_MS);
        let world = World::at(Arc::new(store.clone()), clock, 1).await;
        for batch in (0..COUNT).collect::<Vec<_>>().chunks(500) {
            let set = batch.iter().map(|n| {
                let script = if n % 1_000 == 7 { "script.0.sync+panic/" } else { "" };
                let path = format!("{script}alarm-at.{}", at - due(*n));
                let world = &world;
                async move { world.say(&format!("many-{n}"), &path).await.unwrap() }
            });
            join_all(set).await;
        }
        let world = World::at(Arc::new(store.after_crash()), Clock::system(), 1).await;
        let begun = now();
        let mut rang = Vec::new();
        for batch in (0..COUNT).collect::<Vec<_>>().chunks(500) {
            let fired = batch.iter().map(|n| {
                let world = &world;
                let count = if n % 1_000 == 7 { 2 } else { 1 };
                async move { (*n, world.fired(&format!("many-{n}"), count).await) }
            });
            for (n, fired) in join_all(fired).await {
                assert_eq!(fired[0].scheduled, at - due(n));
                rang.push(fired[0].clone());
            }
        }
        let latest = rang.iter().map(|fired| fired.at).max().unwrap();
        println!("{COUNT} alarms that were due at the start rang within {} ms", latest - begun);
        // Within what rings at a time, those that were due first rang first.
        let second = rang.iter().filter(|fired| fired.scheduled != at - 2_000);
        let first = rang.iter().filter(|fired| fired.scheduled == at - 2_000);
        let median = |fired: Vec<u64>| fired[fired.len() / 2];
        let times = |fired: &mut dyn Iterator<Item = &Fired>| {
            let mut times: Vec<u64> = fired.map(|fired| fired.at).collect();
            times.sort_unstable();
            times
        };
        let (first, second) = (times(&mut { first }), times(&mut { second }));
        assert!(median(first) <= median(second));
    });
}

/// How long before the others an alarm was due.
fn now_at(n: u64) -> u64 {
    if n.is_multiple_of(10) { 2_000 } else { 1_000 }
}

const HOUR_MS: u64 = 3_600_000;
