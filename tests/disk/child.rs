//! The process that owns the store: it writes numbered batches and says what was told of them.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use stubborn::ObjectId;
use stubborn::storage::engine::{Batch, Change, Engine as _, Order, Session, Store};
use stubborn::storage::row::{Key, KeyRange, ObjectKey, Space, Table};
use stubborn::storage::sqlite::Sqlite;

pub(crate) const MODE: &str = "STUBBORN_TEST_DISK_MODE";
pub(crate) const DATA: &str = "STUBBORN_TEST_DISK_DATA";

fn object() -> ObjectKey {
    ObjectKey { space: Space(0), id: ObjectId::from_bytes([1; 32]) }
}

fn last() -> Key {
    Key::value(&object(), b"last")
}

/// Not a test where nothing asks for it: the other process of the tests.
#[test]
#[expect(clippy::disallowed_methods, reason = "the process that runs it says so this way")]
fn owns_the_store() {
    let (Ok(mode), Ok(data)) = (std::env::var(MODE), std::env::var(DATA)) else { return };
    let engine = Sqlite::open_with(Path::new(&data), 2).unwrap();
    let (sender, woken) = sync_channel(1);
    let store = engine
        .store(Arc::new(move || {
            // A wake that waits already is enough.
            let _ = sender.try_send(());
        }))
        .unwrap();
    println!();
    for number in 1.. {
        let lease = engine.acquire(&[object().shard()]);
        let Ok(lease) = lease else { continue }; // the disk does not work yet
        if number > 1 {
            println!("again from {}", number_of(&*store));
        }
        let session = Session::new(number, object(), lease[0]);
        if mode == "hasty" {
            write_hastily(&*store, &session);
        } else {
            write_until_failure(&*store, &session, &woken);
        }
    }
}

/// Writes one batch after the other, and says of each that it is durable when it was told so.
fn write_until_failure(store: &dyn Store, session: &Arc<Session>, woken: &Receiver<()>) {
    let mut number = number_of(store);
    loop {
        number += 1;
        store.submit(session, batch(number));
        let mut done = Vec::new();
        while done.is_empty() {
            if woken.recv_timeout(Duration::from_millis(200)).is_err() {
                println!("still reads {}", number_of(store));
            }
            store.take_done(&mut done);
        }
        match &done[0].outcome {
            Ok(()) => println!("durable {number}"),
            Err(error) => {
                println!("failed {error}");
                return;
            }
        }
    }
}

/// Says that batches are durable when they are only submitted.
fn write_hastily(store: &dyn Store, session: &Arc<Session>) {
    let mut number = number_of(store);
    loop {
        number += 1;
        store.submit(session, batch(number));
        println!("durable {number}");
    }
}

/// The last batch's number, twice, and a row for each: the values are larger than a page.
fn batch(number: u64) -> Batch {
    let mut batch = Batch::default();
    let row = Key::value(&object(), &number.to_be_bytes());
    let filler = vec![
        u8::try_from(number % 251).unwrap();
        1 + usize::try_from(number * 7919 % 20_000).unwrap()
    ];
    batch.push(Change::Put(last(), number.to_string().into()));
    batch.push(Change::Put(row, filler.into()));
    batch
}

fn number_of(store: &dyn Store) -> u64 {
    let value = store.get(&last()).unwrap();
    value.map_or(0, |value| str::from_utf8(&value).unwrap().parse().unwrap())
}

/// Returns the number of the last batch in a directory.
pub(crate) fn written(directory: &Path) -> u64 {
    let engine = Sqlite::open(directory).unwrap();
    let store = engine.store(Arc::new(|| {})).unwrap();
    number_of(&*store)
}

/// Returns how many rows of batches are in a directory, each the next of the one before.
pub(crate) fn rows_of(directory: &Path) -> u64 {
    let engine = Sqlite::open(directory).unwrap();
    let store = engine.store(Arc::new(|| {})).unwrap();
    let mut rows = 0;
    let range = KeyRange::object(Table::Value, &object());
    let mut visit = |key: &Key, value: bytes::Bytes| {
        if *key != last() {
            rows += 1;
            assert_eq!(key.after_object(), u64::to_be_bytes(rows));
            assert!(batch(rows).changes().contains(&Change::Put(key.clone(), value)));
        }
        ControlFlow::Continue(())
    };
    store.scan(&range, Order::Ascending, &mut visit).unwrap();
    rows
}
