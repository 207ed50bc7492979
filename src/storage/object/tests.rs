//! The storage of an object against a model, on a store that holds, fails and forgets commits.

mod bounds;
mod history;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use futures::FutureExt;

use super::*;
use crate::entropy::Entropy;
use crate::id::ObjectId;
use crate::schedule::{Failure, Tries};
use crate::storage::engine::{Batch, Engine, Order, Visit};
use crate::storage::memory::Memory;
use crate::storage::row::{KeyRange, ObjectKey, Space};
use crate::storage::{Span, value};

const OBJECT: ObjectKey = ObjectKey { space: Space(0), id: ObjectId::from_bytes([7; 32]) };

/// One activation after the other of one object.
struct World {
    engine: Memory,
    clock: Clock,
    retention: Option<Duration>,
    backlog_bytes_max: usize,
    sessions: u64,
}

/// One activation.
struct Live {
    storage: Rc<ObjectStorage>,
    outbox: Rc<Outbox>,
    store: Rc<dyn Store>,
    alarms: Rc<RefCell<Vec<Option<u64>>>>,
}

struct Heard(Rc<RefCell<Vec<Option<u64>>>>);

impl Surroundings for Heard {
    fn written(&self) {}

    fn alarm_changed(&self, due_ms: Option<u64>) {
        self.0.borrow_mut().push(due_ms);
    }
}

impl World {
    fn new(engine: Memory) -> Self {
        let retention = Some(Duration::from_secs(3600));
        let (clock, backlog_bytes_max) = (Clock::starting_at(1_000_000), 256 << 20);
        Self { engine, clock, retention, backlog_bytes_max, sessions: 0 }
    }

    fn start(&mut self) -> Live {
        self.sessions += 1;
        let lease = self.engine.acquire(&[OBJECT.shard()]).unwrap()[0];
        let store: Rc<dyn Store> = Rc::from(self.engine.store(Arc::new(|| ())).unwrap());
        let session = Session::new(self.sessions, OBJECT, lease);
        let outbox = Rc::new(Outbox::default());
        let rules = Rules {
            clock: self.clock,
            retention: self.retention,
            transaction_bytes_max: 64 << 20,
            backlog_bytes_max: self.backlog_bytes_max,
            sql: limits::Limits::default(),
        };
        let alarms: Rc<RefCell<Vec<Option<u64>>>> = Rc::default();
        let around = Box::new(Heard(alarms.clone()));
        let (storage_store, gate) = (store.clone(), outbox.clone());
        let storage =
            ObjectStorage::open(storage_store, session, gate, Rc::new(rules), around).unwrap();
        Live { storage, outbox, store, alarms }
    }
}

impl Live {
    fn put(&self, key: &str, value: u64) {
        let value = value::encode(&value).unwrap();
        self.storage.set(key.as_bytes(), Some(value), Confirm::Yes).unwrap();
    }

    fn get(&self, key: &str) -> Option<u64> {
        self.storage.get(key.as_bytes()).unwrap().map(|stored| value::decode(&stored).unwrap())
    }

    fn keys(&self) -> Vec<String> {
        let mut keys = Vec::new();
        let span = Span { from: std::ops::Bound::Unbounded, to: std::ops::Bound::Unbounded };
        let mut visit = |key: &[u8], _: Bytes| {
            keys.push(String::from_utf8(key.to_vec()).unwrap());
            std::ops::ControlFlow::Continue(())
        };
        self.storage.visit(&span, Order::Ascending, &mut visit).unwrap();
        keys
    }

    fn sql(&self, text: &str) -> Vec<Vec<crate::storage::sql::value::Value>> {
        let mut cursor = self.storage.with_sql(Confirm::Yes, |sql| sql.exec(text, ())).unwrap();
        cursor.to_vec().into_iter().map(|row| row.values().to_vec()).collect()
    }

    /// Ends a turn, and hears what became of batches.
    fn turn(&self) -> Option<Error> {
        self.storage.flush().unwrap();
        self.hear()
    }

    fn hear(&self) -> Option<Error> {
        let mut done = Vec::new();
        self.store.take_done(&mut done);
        done.into_iter().filter_map(|done| self.storage.done(done)).next_back()
    }

    fn record(&self) -> Option<Record> {
        let stored = self.store.get(&Key::object(&OBJECT)).unwrap()?;
        Some(Record::decode(&OBJECT, &stored).unwrap())
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_written_is_read_at_once_and_said_only_when_durable() {
    let mut world = World::new(Memory::held());
    let live = world.start();
    live.put("a", 1);
    assert_eq!((live.get("a"), live.outbox.is_open()), (Some(1), false));
    assert_eq!(live.turn(), None);
    assert_eq!((world.engine.waiting(), live.outbox.is_open()), (1, false));
    world.engine.commit(1);
    live.hear();
    assert!(live.outbox.is_open() && live.storage.is_durable());
}

#[tokio::test(start_paused = true)]
async fn writes_of_one_turn_are_one_batch() {
    let mut world = World::new(Memory::held());
    let live = world.start();
    live.put("a", 1);
    live.put("b", 2);
    live.sql("CREATE TABLE t (x); INSERT INTO t VALUES (3)");
    live.storage.set_alarm(Some(5_000_000), Confirm::Yes).unwrap();
    live.turn();
    assert_eq!(world.engine.waiting(), 1);
    let crashed = World { engine: world.engine.after_crash(), ..World::new(Memory::new()) };
    let mut crashed = crashed;
    assert!(crashed.start().keys().is_empty());
    world.engine.commit(1);
    let mut crashed = World { engine: world.engine.after_crash(), ..World::new(Memory::new()) };
    let again = crashed.start();
    assert_eq!(again.keys(), ["a", "b"]);
    assert_eq!(again.sql("SELECT x FROM t"), [[3.into()]]);
    assert_eq!(again.storage.alarm(), Ok(Some(5_000_000)));
}

#[tokio::test(start_paused = true)]
async fn an_unconfirmed_write_holds_nothing_and_is_stored_all_the_same() {
    let mut world = World::new(Memory::held());
    let live = world.start();
    live.storage.set(b"a", Some(value::encode(&1).unwrap()), Confirm::No).unwrap();
    assert!(live.outbox.is_open());
    live.turn();
    assert!(live.outbox.is_open() && !live.storage.is_durable());
    let synced = live.storage.synced();
    world.engine.commit(1);
    live.hear();
    assert_eq!(synced.now_or_never(), Some(Ok(())));
    assert_eq!(world.start().get("a"), Some(1));
}

#[tokio::test(start_paused = true)]
async fn after_a_failed_commit_everything_fails_with_the_reason_and_nothing_is_left() {
    let mut world = World::new(Memory::held());
    let live = world.start();
    live.put("a", 1);
    live.turn();
    live.put("b", 2);
    live.turn();
    let synced = live.storage.synced();
    let error = Error::failed("the disk is full");
    world.engine.fail(&error);
    assert!(live.hear().is_some());
    assert_eq!(live.storage.get(b"a"), Err(error.clone()));
    assert_eq!(synced.now_or_never(), Some(Err(error)));
    assert!(world.start().keys().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_transaction_takes_sql_and_values_back_together() {
    let mut world = World::new(Memory::new());
    let live = world.start();
    live.sql("CREATE TABLE t (x)");
    live.put("a", 1);
    live.storage.begin().unwrap();
    live.put("a", 2);
    live.sql("INSERT INTO t VALUES (1)");
    live.storage.begin().unwrap();
    live.sql("INSERT INTO t VALUES (2)");
    live.storage.roll_back();
    assert_eq!(live.sql("SELECT x FROM t"), [[1.into()]]);
    live.storage.roll_back();
    assert!(live.sql("SELECT x FROM t").is_empty());
    assert_eq!(live.get("a"), Some(1));
    live.storage.begin().unwrap();
    live.sql("INSERT INTO t VALUES (3)");
    live.storage.commit().unwrap();
    live.turn();
    assert_eq!(world.start().sql("SELECT x FROM t"), [[3.into()]]);
}

#[tokio::test(start_paused = true)]
async fn a_database_first_used_inside_a_transaction_is_rolled_back_with_it() {
    let mut world = World::new(Memory::new());
    let live = world.start();
    live.storage.begin().unwrap();
    live.storage.begin().unwrap();
    live.sql("CREATE TABLE t (x)");
    live.storage.commit().unwrap();
    live.storage.roll_back();
    assert!(live.sql("SELECT name FROM sqlite_schema").is_empty());
    live.turn();
    assert!(live.store.get(&Key::page(&OBJECT, 0)).unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn deleting_everything_takes_values_pages_and_the_alarm_and_what_follows_counts() {
    let mut world = World::new(Memory::new());
    world.retention = None;
    let live = world.start();
    live.put("a", 1);
    live.sql("CREATE TABLE old (x)");
    live.storage.set_alarm(Some(5_000_000), Confirm::Yes).unwrap();
    live.turn();
    assert!(live.record().unwrap().has_data);
    live.storage.clear(Confirm::Yes).unwrap();
    assert!(live.keys().is_empty());
    assert_eq!(live.storage.alarm(), Ok(None));
    live.sql("CREATE TABLE new (y)");
    live.put("b", 2);
    live.turn();
    let again = world.start();
    assert_eq!(again.keys(), ["b"]);
    assert_eq!(again.sql("SELECT name FROM sqlite_schema"), [["new".into()]]);
    again.storage.clear(Confirm::Yes).unwrap();
    again.turn();
    assert_eq!(again.record(), None);
    assert!(live.alarms.borrow().ends_with(&[Some(5_000_000), None]));
}

#[tokio::test(start_paused = true)]
async fn whether_data_is_stored_follows_what_is_there() {
    let mut world = World::new(Memory::new());
    let live = world.start();
    live.storage.keep_name("lobby");
    live.turn();
    let has_data = |live: &Live| live.record().unwrap().has_data;
    assert!(!has_data(&live));
    live.put("a", 1);
    live.turn();
    assert!(has_data(&live));
    live.storage.set(b"a", None, Confirm::Yes).unwrap();
    live.turn();
    assert!(!has_data(&live));
    live.storage.set_alarm(Some(1), Confirm::Yes).unwrap();
    live.turn();
    assert!(has_data(&live));
    live.storage.set_alarm(None, Confirm::Yes).unwrap();
    live.turn();
    assert!(!has_data(&live));
    assert_eq!(live.record().unwrap().name.as_deref(), Some("lobby"));
}

#[tokio::test(start_paused = true)]
async fn an_alarm_rings_when_due_is_not_set_meanwhile_and_is_over_when_handled() {
    let mut world = World::new(Memory::new());
    let live = world.start();
    live.storage.set_alarm(Some(1_000_500), Confirm::Yes).unwrap();
    live.turn();
    assert_eq!(live.storage.ring(Tries::default()), Ok(None));
    tokio::time::advance(Duration::from_millis(500)).await;
    let ringing = live.storage.ring(Tries::default()).unwrap().unwrap();
    assert_eq!((ringing.scheduled_ms, ringing.retries), (1_000_500, 0));
    assert_eq!(live.storage.alarm(), Ok(None));
    assert_eq!(live.storage.ring(Tries::default()), Ok(None));
    live.storage.set_alarm(None, Confirm::Yes).unwrap();
    live.storage.rang(Ok(()), 0).unwrap();
    live.turn();
    assert_eq!(live.record().unwrap().alarm, None);
    // The second is for who rang too early.
    assert_eq!(*live.alarms.borrow(), [Some(1_000_500), Some(1_000_500), None]);
}

#[tokio::test(start_paused = true)]
async fn an_alarm_set_while_it_rings_replaces_the_retry_even_for_the_same_time() {
    for scheduled in [1_000_000, 9_000_000] {
        let mut world = World::new(Memory::new());
        let live = world.start();
        live.storage.set_alarm(Some(1_000_000), Confirm::Yes).unwrap();
        live.turn();
        live.storage.ring(Tries::default()).unwrap().unwrap();
        live.storage.set_alarm(Some(scheduled), Confirm::Yes).unwrap();
        assert_eq!(live.storage.alarm(), Ok(Some(scheduled)));
        live.turn();
        live.storage.rang(Err(Failure::Counted), 0).unwrap();
        live.turn();
        assert_eq!(live.record().unwrap().alarm, Some(super::super::record::Alarm::at(scheduled)));
        assert_eq!(live.alarms.borrow().last(), Some(&Some(scheduled)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_failing_alarm_is_tried_on_schedule_across_restarts_and_then_given_up() {
    let mut world = World::new(Memory::new());
    let mut live = world.start();
    live.storage.set_alarm(Some(1_000_000), Confirm::Yes).unwrap();
    live.turn();
    for (retries, delay_s) in [2, 4, 8, 16, 32, 64].into_iter().enumerate() {
        let ringing = live.storage.ring(Tries::default()).unwrap().unwrap();
        assert_eq!((ringing.scheduled_ms, ringing.retries as usize), (1_000_000, retries));
        live.storage.rang(Err(Failure::Counted), 0).unwrap();
        live.turn();
        assert_eq!(live.storage.alarm(), Ok(Some(1_000_000)));
        live = world.start();
        tokio::time::advance(Duration::from_millis(delay_s * 1000 - 1)).await;
        assert_eq!(live.storage.ring(Tries::default()), Ok(None), "after {retries}");
        tokio::time::advance(Duration::from_millis(1)).await;
    }
    live.storage.ring(Tries::default()).unwrap().unwrap();
    live.storage.rang(Err(Failure::Counted), 0).unwrap();
    live.turn();
    assert_eq!((live.storage.alarm(), live.record().unwrap().alarm), (Ok(None), None));
}

#[tokio::test(start_paused = true)]
async fn an_object_goes_back_to_a_bookmark_and_the_undo_brings_it_forward_again() {
    let mut world = World::new(Memory::new());
    let live = world.start();
    live.put("a", 1);
    live.put("gone", 1);
    live.sql("CREATE TABLE t (x); INSERT INTO t VALUES (1)");
    live.turn();
    let bookmark = live.storage.bookmark().unwrap();
    live.put("a", 2);
    live.put("new", 2);
    live.storage.set(b"gone", None, Confirm::Yes).unwrap();
    live.sql("INSERT INTO t VALUES (2)");
    live.turn();
    live.put("a", 3);
    live.turn();
    let undo = live.storage.restore(bookmark).unwrap();
    live.turn();
    let back = world.start();
    assert_eq!((back.keys(), back.get("a")), (vec!["a".into(), "gone".into()], Some(1)));
    assert_eq!(back.sql("SELECT x FROM t"), [[1.into()]]);
    back.storage.restore(undo).unwrap();
    back.turn();
    let forward = world.start();
    assert_eq!((forward.keys(), forward.get("a")), (vec!["a".into(), "new".into()], Some(3)));
    assert_eq!(forward.sql("SELECT x FROM t"), [[1.into()], [2.into()]]);
    // It goes back once, not at every start.
    assert_eq!(world.start().get("a"), Some(3));
}

#[tokio::test(start_paused = true)]
async fn an_object_goes_back_to_times_as_far_as_history_is_kept_and_no_further() {
    let mut world = World::new(Memory::new());
    let live = world.start();
    let moment = Duration::from_secs(60);
    for value in 1..=100 {
        live.put("a", value);
        live.turn();
        tokio::time::advance(moment).await;
    }
    let now = world.clock.unix_ms();
    for minutes in [1, 5, 59] {
        let live = world.start();
        let bookmark = live.storage.bookmark_at(now - minutes * 60_000 + 30_000).unwrap();
        let undo = live.storage.restore(bookmark).unwrap();
        live.turn();
        let back = world.start();
        assert_eq!(back.get("a"), Some(101 - minutes), "{minutes} minutes ago");
        back.storage.restore(undo).unwrap();
        back.turn();
        assert_eq!(world.start().get("a"), Some(100));
    }
    let live = world.start();
    let error = live.storage.bookmark_at(now - 61 * 60_000).unwrap_err();
    assert!(error.message.contains("is not between"), "{error}");
    assert!(live.storage.restore(1_000_000).is_err());
    assert!(live.storage.bookmark_at(now + 1).is_err());
    world.retention = None;
    assert!(world.start().storage.bookmark().unwrap_err().message.contains("storage.history"));
}

/// What an object should hold, played beside it.
#[derive(Clone, Default)]
struct Model {
    values: BTreeMap<String, u64>,
    rows: u64,
}

#[tokio::test(start_paused = true)]
async fn whatever_an_object_does_it_holds_what_the_model_holds_also_after_crashes() {
    for seed in 0..40 {
        play(seed).await;
    }
}

async fn play(seed: u64) {
    let random = Entropy::seeded(seed);
    let below = |bound: u64| random.number() % bound;
    let mut world = World::new(Memory::held());
    let mut live = world.start();
    // What is durable, what each batch under way leads to, what is open.
    let (mut durable, mut now) = (Model::default(), Model::default());
    let mut waiting: Vec<Model> = Vec::new();
    let mut open: Vec<Model> = Vec::new();
    let mut has_table = false;
    for step in 0..300 {
        let key = format!("k{}", below(12));
        match below(20) {
            0..=6 => {
                let value = below(1000);
                live.put(&key, value);
                now.values.insert(key, value);
            }
            7..=8 => {
                live.storage.set(key.as_bytes(), None, Confirm::Yes).unwrap();
                now.values.remove(&key);
            }
            9 if has_table => {
                live.sql("INSERT INTO t DEFAULT VALUES");
                now.rows += 1;
            }
            9 if open.is_empty() && waiting.is_empty() => {
                live.sql("CREATE TABLE IF NOT EXISTS t (x INTEGER PRIMARY KEY)");
                has_table = true;
            }
            10 if open.is_empty() => {
                live.storage.clear(Confirm::Yes).unwrap();
                (now, has_table) = (Model::default(), false);
            }
            11 => {
                let is_outermost = open.is_empty();
                live.storage.begin().unwrap();
                if is_outermost && world.engine.waiting() > waiting.len() {
                    waiting.push(now.clone());
                }
                open.push(now.clone());
            }
            12 if !open.is_empty() => {
                live.storage.commit().unwrap();
                open.pop();
            }
            13 if !open.is_empty() => {
                live.storage.roll_back();
                now = open.pop().unwrap();
            }
            14..=16 => {
                assert_eq!(live.turn(), None);
                if world.engine.waiting() > waiting.len() {
                    waiting.push(now.clone());
                }
            }
            17 if !waiting.is_empty() => {
                world.engine.commit(1);
                assert_eq!(live.hear(), None);
                durable = waiting.remove(0);
            }
            18 => tokio::time::advance(Duration::from_secs(below(20))).await,
            19 if open.is_empty() && below(4) == 0 => {
                if below(2) == 0 && !waiting.is_empty() {
                    world.engine.fail(&Error::failed("asked to"));
                    assert!(live.hear().is_some());
                }
                world.engine = world.engine.after_crash();
                live = world.start();
                (now, waiting) = (durable.clone(), Vec::new());
                has_table = !live.sql("SELECT 1 FROM sqlite_schema").is_empty();
            }
            _ => {}
        }
        let held: Vec<_> = now.values.keys().cloned().collect();
        assert_eq!(live.keys(), held, "seed {seed}, step {step}");
        for (key, value) in &now.values {
            assert_eq!(live.get(key), Some(*value), "seed {seed}, step {step}");
        }
        if has_table {
            let rows = live.sql("SELECT count(*) FROM t");
            let count = i64::try_from(now.rows).unwrap();
            assert_eq!(rows, [[count.into()]], "seed {seed}, step {step}");
        }
    }
}

/// It was told to nobody, and rang at the next start of the server only.
#[tokio::test(start_paused = true)]
async fn an_alarm_set_to_the_time_that_has_just_rung_is_told() {
    let mut world = World::new(Memory::new());
    let live = world.start();
    live.storage.set_alarm(Some(1), Confirm::Yes).unwrap();
    live.turn();
    live.storage.ring(Tries::default()).unwrap().unwrap();
    live.alarms.borrow_mut().clear();
    live.storage.rang(Ok(()), 0).unwrap();
    // In the same turn, by another event.
    live.storage.set_alarm(Some(1), Confirm::Yes).unwrap();
    live.turn();
    assert_eq!(*live.alarms.borrow(), [Some(1)]);
}

/// Whoever rang took it for over.
#[tokio::test(start_paused = true)]
async fn who_rings_too_early_is_told_when_the_alarm_is_due() {
    let mut world = World::new(Memory::new());
    let live = world.start();
    let at = world.clock.unix_ms() + 5_000;
    live.storage.set_alarm(Some(at), Confirm::Yes).unwrap();
    live.turn();
    live.alarms.borrow_mut().clear();
    assert_eq!(live.storage.ring(Tries::default()).unwrap(), None);
    assert_eq!(*live.alarms.borrow(), [Some(at)]);
}

/// A store that can't be scanned once it was told so.
struct Unreadable(Rc<dyn Store>, Cell<bool>);

impl Store for Unreadable {
    fn get(&self, key: &Key) -> Result<Option<Bytes>> {
        self.0.get(key)
    }

    fn scan(&self, range: &KeyRange, order: Order, visit: Visit<'_>) -> Result<()> {
        if self.1.get() {
            return Err(Error::failed("the disk can't be read"));
        }
        self.0.scan(range, order, visit)
    }

    fn submit(&self, session: &Arc<Session>, batch: Batch) -> Submitted {
        self.0.submit(session, batch)
    }

    fn take_done(&self, done: &mut Vec<Done>) {
        self.0.take_done(done);
    }

    fn backlog_bytes(&self) -> usize {
        self.0.backlog_bytes()
    }
}

/// They were lost, and the object went on: a later batch let out what had waited for them.
#[test]
fn writes_that_cannot_become_a_batch_break_the_storage() {
    let engine = Memory::new();
    let lease = engine.acquire(&[OBJECT.shard()]).unwrap()[0];
    let inner: Rc<dyn Store> = Rc::from(engine.store(Arc::new(|| ())).unwrap());
    let store = Rc::new(Unreadable(inner, Cell::new(false)));
    let rules = Rules {
        clock: Clock::starting_at(1_000_000),
        retention: None,
        transaction_bytes_max: 64 << 20,
        backlog_bytes_max: 256 << 20,
        sql: limits::Limits::default(),
    };
    let (session, outbox) = (Session::new(1, OBJECT, lease), Rc::new(Outbox::default()));
    let around = Box::new(Heard(Rc::default()));
    let storage =
        ObjectStorage::open(store.clone(), session, outbox.clone(), Rc::new(rules), around)
            .unwrap();
    storage.set(b"a", Some(Bytes::from_static(b"1")), Confirm::Yes).unwrap();
    storage.flush().unwrap();
    store.1.set(true);
    // Whether anything is left has to be read.
    storage.set(b"a", None, Confirm::Yes).unwrap();
    let text = "the disk can't be read";
    assert_eq!(storage.flush().unwrap_err().message, text);
    store.1.set(false);
    let later = storage.set(b"b", Some(Bytes::from_static(b"2")), Confirm::Yes);
    assert_eq!(later.unwrap_err().message, text);
    assert_eq!(storage.flush().unwrap_err().message, text);
    assert!(!outbox.is_open(), "what waited for the lost write does not leave");
}
