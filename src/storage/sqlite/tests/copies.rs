//! Backups of a store that is written, restored ones, and looking at one from outside.

use std::fs;
use std::ops::Bound;

use crate::storage::engine::{Batch, Engine as _, Order, Store as _};
use crate::storage::record::Record;
use crate::storage::row::{Key, KeyRange, Space, Table};
use crate::storage::sqlite::directory::Lock;
use crate::storage::sqlite::{ReadOnly, Sqlite, backup, restore, verify};
use crate::storage::suite::arbitrary::object;
use crate::storage::suite::world::{Kind, Scratch, World, all_durable, put};

#[test]
fn a_backup_of_a_store_that_is_written_is_one_moment_of_it() {
    let world = World::new(Kind::Disk(2));
    let directory = world.scratch.as_ref().unwrap().path().to_owned();
    let (object, thread) = (object(0), world.thread());
    let session = world.session(1, object);
    world.engine.space([5; 16], "room").unwrap();
    let key = |rest: &str| Key::value(&object, rest.as_bytes());
    let write = |number: u64| {
        let (value, log) = (number.to_string(), key(&format!("log{number:04}")));
        let changes =
            vec![put(key("a"), value.clone()), put(log, vec![1; 3000]), put(key("b"), value)];
        thread.submit(&session, changes);
    };
    (1..=200).for_each(write);
    all_durable(&thread.finish());
    let (to, again) = (Scratch::new(), Scratch::new());
    let (mut calls, mut last) = (0, (0, 0));
    backup(&directory, to.path(), &mut |done, all| {
        // The store goes on meanwhile.
        write(201 + calls);
        calls += 1;
        assert!(done >= last.0 && done <= all);
        last = (done, all);
    })
    .unwrap();
    assert!(calls > 0 && last.0 == last.1, "{last:?}");
    all_durable(&thread.finish());
    assert!(thread.get(&key("a")).unwrap() > "200");

    assert_eq!(verify(to.path()), Ok(Vec::new()));
    let mut progress = 0;
    restore(to.path(), again.path(), &mut |done, _| progress = done).unwrap();
    assert_eq!(progress, last.1);
    for copy in [to, again] {
        let engine = Sqlite::open(copy.path()).unwrap();
        assert_eq!(engine.space([5; 16], "room"), world.engine.space([5; 16], "room"));
        assert!(engine.acquire(&[object.shard()]).unwrap()[0].epoch > session.lease.epoch);
        let store = engine.store(std::sync::Arc::new(|| {})).unwrap();
        let number = store.get(&key("a")).unwrap().unwrap();
        assert!(number >= "200", "{number:?}");
        assert_eq!(store.get(&key("b")), Ok(Some(number.clone())));
        let (from, to) = (Bound::Included(&b"log"[..]), Bound::Excluded(&b"loh"[..]));
        let (log, mut rows) = (KeyRange::within(Table::Value, &object, from, to), 0);
        let mut count = |_: &Key, _| {
            rows += 1;
            std::ops::ControlFlow::Continue(())
        };
        store.scan(&log, Order::Ascending, &mut count).unwrap();
        assert_eq!(rows.to_string(), number);
    }
}

#[test]
fn a_copy_writes_over_nothing() {
    let world = World::new(Kind::Disk(1));
    let directory = world.scratch.as_ref().unwrap().path().to_owned();
    let to = Scratch::new();
    fs::create_dir(to.path()).unwrap();
    fs::write(to.path().join("mine"), "x").unwrap();
    let error = backup(&directory, to.path(), &mut |_, _| {}).unwrap_err();
    assert!(error.message.contains("is not empty (it holds mine)"), "{error}");
    fs::remove_file(to.path().join("mine")).unwrap();
    backup(&directory, to.path(), &mut |_, _| {}).unwrap();
    assert!(backup(&directory, to.path(), &mut |_, _| {}).is_err());
    assert!(restore(to.path(), &directory, &mut |_, _| {}).is_err());
}

#[test]
fn a_copy_that_was_cut_short_is_made_again_and_two_at_once_are_not() {
    let world = World::new(Kind::Disk(2));
    let directory = world.scratch.as_ref().unwrap().path().to_owned();
    let scratch = Scratch::new();
    let to = scratch.path().join("some/where/below");
    fs::create_dir_all(&to).unwrap();
    fs::write(to.join("store-01.db.part"), "half").unwrap();
    let lock = Lock::take(&to).unwrap();
    let error = backup(&directory, &to, &mut |_, _| {}).unwrap_err();
    assert!(error.message.contains("is in use"), "{error}");
    drop(lock);
    // One that fails at its end leaves nothing that stands in the way of the next.
    let mut place = |_, _| fs::write(to.join("store-01.db"), "mine").unwrap();
    let error = backup(&directory, &to, &mut place).unwrap_err();
    assert!(error.message.contains("can't rename"), "{error}");
    assert_eq!(fs::read(to.join("store-01.db")).unwrap(), b"mine");
    assert!(!to.join("store-01.db.part").exists() && !to.join("store-00.db.part").exists());
    fs::remove_file(to.join("store-01.db")).unwrap();
    backup(&directory, &to, &mut |_, _| {}).unwrap();
    assert_eq!(verify(&to), Ok(Vec::new()));
}

#[test]
fn a_namespace_that_came_during_a_backup_is_in_it_if_its_objects_are() {
    let world = World::new(Kind::Disk(2));
    let directory = world.scratch.as_ref().unwrap().path().to_owned();
    let (to, thread, mut calls) = (Scratch::new(), world.thread(), 0);
    let object = object(1);
    assert_eq!(object.shard() % 2, 1, "not in the first file");
    let session = world.session(1, object);
    backup(&directory, to.path(), &mut |_, _| {
        calls += 1;
        // Before the first file is copied that is copied.
        if calls == 1 {
            let space = world.engine.space([9; 16], "new").unwrap();
            assert_eq!(space, object.space);
            let record = Record::default().encode().unwrap();
            thread.submit(&session, vec![put(Key::object(&object), record)]);
            all_durable(&thread.finish());
        }
    })
    .unwrap();
    let look = ReadOnly::open(to.path()).unwrap();
    assert!(look.get(&Key::object(&object)).unwrap().is_some());
    assert_eq!(look.spaces().unwrap().len(), 1);
}

#[test]
fn a_damaged_backup_is_not_restored() {
    let world = World::new(Kind::Disk(1));
    let session = world.session(1, object(0));
    let thread = world.thread();
    for number in 0..200_u16 {
        let key = Key::value(&object(0), &number.to_be_bytes());
        thread.submit(&session, vec![put(key, vec![7; 900])]);
    }
    all_durable(&thread.finish());
    let (to, again) = (Scratch::new(), Scratch::new());
    let directory = world.scratch.as_ref().unwrap().path();
    backup(directory, to.path(), &mut |_, _| {}).unwrap();
    let file = to.path().join("store-00.db");
    let mut bytes = fs::read(&file).unwrap();
    bytes.truncate(bytes.len() - 8192);
    fs::write(&file, bytes).unwrap();
    let error = restore(to.path(), again.path(), &mut |_, _| {}).unwrap_err();
    assert!(error.message.contains("store-00.db is damaged"), "{error}");
    assert!(!again.path().exists());
}

#[test]
fn a_served_store_is_looked_at_and_not_touched() {
    let world = World::new(Kind::Disk(2));
    let directory = world.scratch.as_ref().unwrap().path().to_owned();
    let (object, thread) = (object(0), world.thread());
    world.engine.space([5; 16], "room").unwrap();
    world.engine.space([6; 16], "lobby").unwrap();
    let session = world.session(1, object);
    let key = Key::value(&object, b"a");
    let look = ReadOnly::open(&directory).unwrap();
    assert_eq!(look.get(&key), Ok(None));
    thread.submit(&session, vec![put(key.clone(), "1")]);
    all_durable(&thread.finish());
    assert_eq!(look.get(&key), Ok(Some("1".into())));
    let spaces = look.spaces().unwrap();
    let spaces: Vec<_> =
        spaces.iter().map(|one| (one.space, one.fingerprint, one.name.as_str())).collect();
    assert_eq!(spaces, [(Space(0), [5; 16], "room"), (Space(1), [6; 16], "lobby")]);

    // What is held is as it was, whatever the server writes.
    let held = ReadOnly::open(&directory).unwrap();
    held.hold(&object).unwrap();
    thread.submit(&session, vec![put(key.clone(), "1b")]);
    all_durable(&thread.finish());
    assert_eq!(held.get(&key), Ok(Some("1".into())));
    drop(held);
    thread.submit(&session, vec![put(key.clone(), "1")]);
    all_durable(&thread.finish());

    let mut batch = Batch::default();
    batch.push(put(key.clone(), "2"));
    let other = world.session(2, object);
    look.submit(&other, batch);
    let mut done = Vec::new();
    look.take_done(&mut done);
    assert!(done[0].outcome.is_err() && other.has_failed());
    assert_eq!(look.get(&key), Ok(Some("1".into())));

    // Nor does it mind a store that nobody serves.
    drop((thread, look));
    world.engine.close();
    assert_eq!(ReadOnly::open(&directory).unwrap().get(&key), Ok(Some("1".into())));
    let empty = Scratch::new();
    fs::create_dir(empty.path()).unwrap();
    let error = ReadOnly::open(empty.path()).map(drop).unwrap_err();
    assert!(error.message.contains("holds no store"), "{error}");
}
