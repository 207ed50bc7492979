//! The guarantees of a store, one by one.

use std::ops::{Bound, ControlFlow};

use super::arbitrary::object;
use super::world::{Kind, World, all_durable, put};
use crate::error::Kind as ErrorKind;
use crate::id::ObjectId;
use crate::storage::engine::{Change, Order, Session};
use crate::storage::row::{Key, KeyRange, ObjectKey, Space, Table, VIRTUAL_SHARDS};

fn each(case: impl Fn(World)) {
    for kind in Kind::ALL {
        eprintln!("on {kind:?}");
        case(World::new(kind));
    }
}

#[test]
fn what_was_submitted_is_read_at_once_and_after_it_is_durable() {
    each(|world| {
        let (thread, object) = (world.thread(), object(0));
        let session = world.session(1, object);
        let (a, b) = (Key::value(&object, b"a"), Key::value(&object, b"b"));
        assert_eq!(thread.get(&a), None);
        assert_eq!(thread.submit(&session, vec![put(a.clone(), "1"), put(b.clone(), "2")]), 1);
        assert_eq!(thread.get(&a), Some("1".into()));
        assert_eq!(thread.submit(&session, vec![Change::Delete(b.clone())]), 2);
        assert_eq!(thread.get(&b), None);
        let done = thread.finish();
        all_durable(&done);
        assert_eq!(done.iter().map(|done| done.ticket).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(thread.get(&a), Some("1".into()));
        assert_eq!(thread.get(&b), None);
        drop(thread);
        let thread = world.reopen();
        assert_eq!(thread.thread().get(&a), Some("1".into()));
    });
}

#[test]
fn a_clear_and_a_put_in_one_batch_happen_in_their_order() {
    each(|world| {
        let (thread, object) = (world.thread(), object(0));
        let session = world.session(1, object);
        let key = |rest: &[u8]| Key::value(&object, rest);
        let all = KeyRange::object(Table::Value, &object);
        thread.submit(&session, vec![put(key(b"a"), "old"), put(key(b"b"), "old")]);
        thread.finish();
        let clear = Change::Clear(all.clone());
        thread.submit(&session, vec![put(key(b"c"), "lost"), clear, put(key(b"b"), "new")]);
        for _ in 0..2 {
            assert_eq!(thread.scan(&all, Order::Ascending), [(key(b"b"), "new".into())]);
            assert_eq!(thread.get(&key(b"a")), None);
            assert_eq!(thread.get(&key(b"c")), None);
            thread.finish();
        }
    });
}

#[test]
fn a_scan_goes_both_ways_in_the_order_of_bytes() {
    each(|world| {
        let (thread, object) = (world.thread(), object(1));
        let session = world.session(1, object);
        let key = |number: u16| Key::value(&object, &number.to_be_bytes());
        // More than is read at once; every third waits still.
        let rows = |third: u16| (0..1000).filter(move |number| (number % 3 == 0) == (third == 0));
        thread
            .submit(&session, rows(1).map(|number| put(key(number), number.to_string())).collect());
        thread.finish();
        thread
            .submit(&session, rows(0).map(|number| put(key(number), number.to_string())).collect());
        let range = KeyRange::within(
            Table::Value,
            &object,
            Bound::Excluded(&10_u16.to_be_bytes()),
            Bound::Included(&900_u16.to_be_bytes()),
        );
        for _ in 0..2 {
            let mut wanted: Vec<_> =
                (11..=900).map(|number: u16| (key(number), number.to_string().into())).collect();
            assert_eq!(thread.scan(&range, Order::Ascending), wanted);
            wanted.reverse();
            assert_eq!(thread.scan(&range, Order::Descending), wanted);
            thread.finish();
        }
    });
}

#[test]
fn a_visitor_may_read_and_may_stop() {
    each(|world| {
        let (thread, object) = (world.thread(), object(2));
        let session = world.session(1, object);
        let key = |number: u16| Key::value(&object, &number.to_be_bytes());
        thread.submit(&session, (0..600).map(|number| put(key(number), "x")).collect());
        let range = KeyRange::object(Table::Value, &object);
        let mut seen = 0;
        let mut visit = |_: &Key, _| {
            seen += 1;
            assert_eq!(thread.get(&key(599)), Some("x".into()));
            let mut inner = 0;
            let mut count = |_: &Key, _| {
                inner += 1;
                if inner < 3 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            };
            thread.store.scan(&range, Order::Descending, &mut count).unwrap();
            assert_eq!(inner, 3);
            if seen < 300 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        };
        thread.store.scan(&range, Order::Ascending, &mut visit).unwrap();
        assert_eq!(seen, 300);
        thread.finish();
    });
}

#[test]
fn a_scan_over_objects_or_alarms_crosses_all_shards_in_order() {
    each(|world| {
        let thread = world.thread();
        let ids: Vec<_> = (0..90_u8).map(|n| ObjectId::from_bytes([n; 32])).collect();
        let leases = world.engine.acquire(&(0..VIRTUAL_SHARDS).collect::<Vec<_>>()).unwrap();
        for (number, id) in ids.iter().enumerate() {
            let object = ObjectKey { space: Space(number as u32 % 2), id: *id };
            let session = Session::new(number as u64, object, leases[usize::from(object.shard())]);
            let due = 1000 - number as u64;
            thread.submit(
                &session,
                vec![put(Key::object(&object), "o"), put(Key::alarm(due, &object), "a")],
            );
            if number == 50 {
                all_durable(&thread.finish());
            }
        }
        for _ in 0..2 {
            let range = KeyRange::objects(Space(1), Some(ids[3]));
            let rows = thread.scan(&range, Order::Ascending);
            let found: Vec<_> = rows.iter().map(|(key, _)| key.object_key().unwrap().id).collect();
            let wanted: Vec<_> = ids.iter().copied().skip(5).step_by(2).collect();
            assert_eq!(found, wanted);

            let alarms = thread.scan(&KeyRange::alarms(None, 930), Order::Ascending);
            let due: Vec<_> = alarms.iter().map(|(key, _)| key.due_ms().unwrap()).collect();
            assert_eq!(due, (911..=930).collect::<Vec<_>>());
            let after = &alarms[4].0;
            let rest = thread.scan(&KeyRange::alarms(Some(after), 930), Order::Descending);
            assert_eq!(rest.len(), 15);
            assert!(rest.iter().rev().eq(&alarms[5..]));
            all_durable(&thread.finish());
        }
    });
}

#[test]
fn a_crash_keeps_a_prefix_of_whole_batches() {
    each(|world| {
        let (thread, object) = (world.thread(), object(0));
        let session = world.session(1, object);
        let key = |rest: &str| Key::value(&object, rest.as_bytes());
        for number in 1..=400_u64 {
            let log = key(&format!("log{number:03}"));
            let value = number.to_string();
            let changes = [put(key("a"), value.clone()), put(log, "x"), put(key("b"), value)];
            thread.submit(&session, changes.into());
            if number % 57 == 0 {
                thread.look();
                let told = thread.told().last().map_or(0, |done| done.ticket);
                let after = world.crash().thread_after(&object);
                assert!(after >= told, "{told} were told to be durable, {after} are there");
            }
        }
        all_durable(&thread.finish());
        assert_eq!(world.crash().thread_after(&object), 400);
    });
}

impl World {
    /// Checks that the batches of the case above are a prefix, and returns its length.
    fn thread_after(self, object: &ObjectKey) -> u64 {
        let thread = self.thread();
        let key = |rest: &str| Key::value(object, rest.as_bytes());
        let number = |key: Key| match thread.get(&key) {
            Some(value) => str::from_utf8(&value).unwrap().parse().unwrap(),
            None => 0,
        };
        let (a, b) = (number(key("a")), number(key("b")));
        assert_eq!(a, b, "a batch is there as a whole");
        let log = (Bound::Included(&b"log"[..]), Bound::Excluded(&b"loh"[..]));
        let log = KeyRange::within(Table::Value, object, log.0, log.1);
        assert_eq!(thread.scan(&log, Order::Ascending).len() as u64, a, "all before it are there");
        a
    }
}

#[test]
fn a_lease_that_was_taken_over_writes_nothing_any_more() {
    each(|world| {
        let (thread, object) = (world.thread(), object(0));
        let old = world.session(1, object);
        let (a, b) = (Key::value(&object, b"a"), Key::value(&object, b"b"));
        for number in 0..100 {
            thread.submit(&old, vec![put(a.clone(), number.to_string())]);
        }
        let new = world.session(2, object);
        assert_eq!(new.lease.epoch, old.lease.epoch + 1);
        let ticket = thread.submit(&old, vec![put(b.clone(), "late")]);
        let done = thread.finish();
        let late = done.iter().find(|done| done.ticket == ticket).unwrap();
        assert!(late.outcome.is_err(), "{late:?}");
        let mut errors = done.iter().filter_map(|done| done.outcome.clone().err());
        let error = errors.next().unwrap();
        assert_eq!(error.kind, ErrorKind::Disconnected, "{error}");
        assert_eq!(thread.get(&b), None);
        // What was there when the lease was taken over is there for good: nothing comes later.
        let durable = done.iter().filter(|done| done.outcome.is_ok()).count();
        let first_failed = done.iter().position(|done| done.outcome.is_err()).unwrap();
        assert_eq!(first_failed, durable, "those that failed come after those that are durable");
        let last = durable.checked_sub(1).map(|last| last.to_string().into());
        assert_eq!(thread.get(&a), last);

        thread.submit(&new, vec![put(b.clone(), "new")]);
        all_durable(&thread.finish());
        let world = world.crash();
        assert_eq!(world.thread().get(&a), last);
        assert_eq!(world.thread().get(&b), Some("new".into()));
        assert_eq!(world.lease(object.shard()).epoch, new.lease.epoch + 1, "epochs only go up");
    });
}

#[test]
fn a_session_that_failed_stays_failed_and_leaves_its_neighbours_alone() {
    each(|world| {
        let (thread, object) = (world.thread(), object(0));
        let (bad, good) = (
            world.session(1, object),
            Session::new(2, ObjectKey { space: Space(9), ..object }, world.lease(object.shard())),
        );
        // The lease of `bad` is the older one of the same virtual shard.
        let mine = Key::value(&object, b"a");
        let other = Key::value(&good.object, b"a");
        for number in 0..50 {
            thread.submit(&bad, vec![put(mine.clone(), "bad")]);
            thread.submit(&good, vec![put(other.clone(), number.to_string())]);
        }
        let done = thread.finish();
        assert_eq!(done.len(), 100);
        for done in &done {
            assert_eq!(done.outcome.is_err(), done.session == 1, "{done:?}");
        }
        for session in [1, 2] {
            let tickets =
                done.iter().filter(|done| done.session == session).map(|done| done.ticket);
            assert!(tickets.eq(1..=50), "in the order of tickets");
        }
        assert!(bad.has_failed() && !good.has_failed());
        assert_eq!(thread.get(&mine), None);
        assert_eq!(thread.get(&other), Some("49".into()));
        assert_eq!(world.crash().thread().get(&mine), None);
    });
}

#[test]
fn a_namespace_has_its_number_for_good() {
    each(|world| {
        let space = |world: &World, first, name| world.engine.space([first; 16], name).unwrap();
        let (a, b) = (space(&world, 1, "a"), space(&world, 2, "b"));
        assert_ne!(a, b);
        assert_eq!(space(&world, 1, "renamed"), a);
        let world = world.crash();
        assert_eq!(space(&world, 2, "b"), b);
        assert_eq!(space(&world, 1, "a"), a);
        assert!(![a, b].contains(&space(&world, 3, "c")));
    });
}

#[test]
fn a_closed_store_has_written_all_and_takes_no_more() {
    each(|world| {
        let (thread, object) = (world.thread(), object(0));
        let session = world.session(1, object);
        let key = |number: u16| Key::value(&object, &number.to_be_bytes());
        for number in 0..500 {
            thread.submit(&session, vec![put(key(number), "x")]);
        }
        world.engine.close();
        world.engine.close();
        let ticket = thread.submit(&session, vec![put(key(1000), "x")]);
        let done = thread.finish();
        assert!(done.iter().map(|done| done.ticket).eq(1..=501));
        for done in done {
            assert_eq!(done.outcome.is_err(), done.ticket == ticket, "{done:?}");
        }
        assert!(session.has_failed());
        drop(thread);
        let world = world.reopen();
        let rows = KeyRange::object(Table::Value, &object);
        assert_eq!(world.thread().scan(&rows, Order::Ascending).len(), 500);
    });
}

#[test]
fn an_empty_batch_is_told_of_like_any_other() {
    each(|world| {
        let thread = world.thread();
        let session = world.session(1, object(0));
        assert_eq!(thread.submit(&session, Vec::new()), 1);
        all_durable(&thread.finish());
        assert_eq!(session.submitted(), 1);
    });
}
