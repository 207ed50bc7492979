//! Files that are not as they were written: an error that names the file, or the right answer.

use std::collections::BTreeMap;
use std::fs;
use std::ops::{Bound, ControlFlow};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;

use super::from_outside;
use crate::entropy::Entropy;
use crate::error::Result;
use crate::storage::engine::{Engine as _, Order, Store};
use crate::storage::record::{Alarm, Record};
use crate::storage::row::{Key, KeyRange, ObjectKey, Space, Table};
use crate::storage::sqlite::meta::Meta;
use crate::storage::sqlite::{ReadOnly, Sqlite, restore, sum, verify};
use crate::storage::suite::arbitrary::{config, object};
use crate::storage::suite::world::{Kind, Scratch, World, all_durable, put};

type Rows = BTreeMap<Key, Bytes>;

/// Makes a closed store of one file, with rows of all tables, small and large.
fn store() -> (Scratch, Rows) {
    let mut world = World::new(Kind::Disk(1));
    let thread = world.thread();
    for number in 0..2 {
        assert_eq!(world.engine.space([number; 16], "room"), Ok(Space(number.into())));
    }
    let mut rows = Rows::new();
    for number in 0..3 {
        let object = object(number);
        let session = world.session(number, object);
        for n in 0..24_u32 {
            let value = vec![u8::try_from(n).unwrap(); usize::try_from(n * 397 % 5000).unwrap()];
            rows.insert(Key::value(&object, format!("key{n}").as_bytes()), value.clone().into());
            rows.insert(Key::page(&object, n), vec![9; 1024].into());
        }
        rows.insert(Key::alarm(number, &object), Bytes::new());
        let record = Record { alarm: Some(Alarm::at(number)), ..Record::default() };
        rows.insert(Key::object(&object), record.encode().unwrap());
        let own = rows.iter().filter(|(key, _)| key.object_key() == Some(object));
        thread.submit(&session, own.map(|(key, value)| put(key.clone(), value.clone())).collect());
    }
    all_durable(&thread.finish());
    drop(thread);
    world.engine.close();
    (world.scratch.take().unwrap(), rows)
}

/// Reads every row, one by one and in order, both ways.
fn read_all(store: &dyn Store, rows: &Rows) -> Result<Vec<Rows>> {
    let mut answers = Vec::new();
    let mut found = Rows::new();
    for key in rows.keys() {
        found.extend(store.get(key)?.map(|value| (key.clone(), value)));
    }
    answers.push(found);
    for order in [Order::Ascending, Order::Descending] {
        let mut found = Rows::new();
        for table in Table::ALL {
            let range = KeyRange { table, from: Bound::Unbounded, to: Bound::Unbounded };
            store.scan(&range, order, &mut |key, value| {
                found.insert(key.clone(), value);
                ControlFlow::Continue(())
            })?;
        }
        answers.push(found);
    }
    Ok(answers)
}

/// What a damaged store did.
#[derive(Debug, Default)]
struct Seen {
    errors: usize,
    right: usize,
}

impl Seen {
    fn check(&mut self, what: &str, rows: &Rows, answers: Result<Vec<Rows>>) {
        match answers {
            Err(error) => {
                let message = error.message;
                let names = message.contains("store-00.db") && message.contains("offset");
                // Who wrote the file can't be told from what a flip made of the number of its format.
                assert!(names || message.contains("newer version"), "{what}: {message}");
                self.errors += 1;
            }
            Ok(answers) => {
                assert!(answers.iter().all(|found| found == rows), "{what}: the rows are others");
                self.right += 1;
            }
        }
    }
}

fn look(directory: &Path, rows: &Rows) -> Result<Vec<Rows>> {
    read_all(&ReadOnly::open(directory)?, rows)
}

fn serve(directory: &Path, rows: &Rows) -> Result<Vec<Rows>> {
    let engine = Sqlite::open(directory)?;
    read_all(&*engine.store(Arc::new(|| {}))?, rows)
}

#[test]
fn a_flipped_byte_is_an_error_that_says_where_or_does_not_matter() {
    let (scratch, rows) = store();
    let file = scratch.path().join("store-00.db");
    let whole = fs::read(&file).unwrap();
    let (entropy, mut seen) = (Entropy::seeded(7), Seen::default());
    for round in 0..150_usize {
        let random = usize::try_from(entropy.number() >> 1).unwrap();
        // The head of the file and those of its pages hold what everything else hangs on.
        let offset = match round % 3 {
            0 => random % whole.len(),
            1 => random % (whole.len() / 8192) * 8192 + random / 8192 % 64,
            _ => random % 200,
        };
        let mut damaged = whole.clone();
        damaged[offset] ^= u8::try_from(1 + random % 255).unwrap();
        fs::write(&file, &damaged).unwrap();
        let what = format!("{round}: byte {offset} of {}", whole.len());
        let answers =
            if round % 4 == 0 { serve(scratch.path(), &rows) } else { look(scratch.path(), &rows) };
        seen.check(&what, &rows, answers);
        fs::remove_dir_all(scratch.path()).unwrap();
        fs::create_dir(scratch.path()).unwrap();
    }
    eprintln!("{seen:?}");
    assert!(seen.errors > 100, "{seen:?}");
}

#[test]
fn a_file_that_was_cut_short_is_noticed_when_it_is_opened() {
    let (scratch, rows) = store();
    let file = scratch.path().join("store-00.db");
    let whole = fs::read(&file).unwrap();
    for length in (0..whole.len()).step_by(whole.len() / 23).chain([1, 99, 100, 8191, 8192]) {
        fs::write(&file, &whole[..length]).unwrap();
        let error = serve(scratch.path(), &rows).expect_err("it is noticed").message;
        assert!(error.contains("store-00.db is damaged"), "{length}: {error}");
        assert!(error.contains("offset"), "{length}: {error}");
    }
    fs::write(&file, &whole).unwrap();
    assert!(serve(scratch.path(), &rows).is_ok());
}

#[test]
fn the_full_check_says_where() {
    let (scratch, _) = store();
    assert_eq!(verify(scratch.path()), Ok(Vec::new()));
    let file = scratch.path().join("store-00.db");
    let mut bytes = fs::read(&file).unwrap();
    let pages = bytes.len() / 8192;
    // A byte in the middle of a page that holds rows.
    let page = (2..pages).find(|page| [2, 10].contains(&bytes[page * 8192])).unwrap();
    bytes[page * 8192 + 4000] ^= 1;
    fs::write(&file, bytes).unwrap();
    let damage = verify(scratch.path()).unwrap();
    let offset = u64::try_from(page * 8192).unwrap();
    let named = damage.iter().find(|one| one.offset == Some(offset));
    let named = named.unwrap_or_else(|| panic!("{offset}: {damage:?}"));
    assert!(named.what.contains("does not match its checksum"), "{damage:?}");
    assert!(damage.iter().all(|one| one.file == file));
}

/// Changes a store with another program.
fn tamper(scratch: &Scratch, sql: &str, params: impl rusqlite::Params) {
    let file = from_outside(&scratch.path().join("store-00.db"));
    assert!(file.execute(sql, params).unwrap() > 0, "{sql}");
}

#[test]
fn a_damaged_alarm_hides_no_other() {
    let (scratch, rows) = store();
    let damaged = Key::alarm(1, &object(1));
    tamper(&scratch, "UPDATE alarm SET sum = sum + 1 WHERE key = ?1", [damaged.bytes()]);
    let engine = Sqlite::open(scratch.path()).unwrap();
    let (store, mut found) = (engine.store(Arc::new(|| {})).unwrap(), Vec::new());
    let mut visit = |key: &Key, _| {
        found.push(key.clone());
        ControlFlow::Continue(())
    };
    store.scan(&KeyRange::alarms(None, u64::MAX), Order::Ascending, &mut visit).unwrap();
    let whole = rows.keys().filter(|key| key.table() == Table::Alarm && **key != damaged);
    assert_eq!(found, whole.cloned().collect::<Vec<_>>());
}

#[test]
fn what_is_said_twice_is_the_same_or_it_is_told() {
    let (alarm, record) = (Key::alarm(1, &object(1)), Key::object(&object(1)));
    let put = "REPLACE INTO object VALUES (?1, ?2, ?3)";
    let told = |words: &str, tamper: &dyn Fn(&Scratch)| {
        let (scratch, _) = store();
        tamper(&scratch);
        let damage = verify(scratch.path()).unwrap();
        let found = damage.iter().any(|one| one.what.contains(words));
        assert!(found, "{words}: {damage:?}");
        // What is to be restored is looked at as closely.
        let to = Scratch::new();
        let error = restore(scratch.path(), to.path(), &mut |_, _| {}).unwrap_err();
        assert!(error.message.contains("store-00.db is damaged"), "{error}");
        assert!(!to.path().exists());
    };
    told("will not ring", &|scratch| {
        tamper(scratch, "DELETE FROM alarm WHERE key = ?1", [alarm.bytes()]);
    });
    told("has no such alarm", &|scratch| {
        let record_bytes = Record::default().encode().unwrap();
        let sum = sum::of_row(&record, &record_bytes);
        tamper(scratch, put, (record.bytes(), &record_bytes[..], sum));
    });
    told("the record of object", &|scratch| {
        tamper(scratch, put, (record.bytes(), b"\xc1", sum::of_row(&record, b"\xc1")));
    });
    told("a namespace that is not there", &|scratch| {
        tamper(scratch, "DELETE FROM space WHERE number = 1", ());
    });
    told("does not match its checksum", &|scratch| {
        tamper(scratch, "UPDATE page SET value = zeroblob(1024) WHERE key < ?1", [[1_u8]]);
    });
}

proptest! {
    #![proptest_config(config(2000))]

    #[test]
    fn any_bytes_are_a_key_or_none(bytes in prop::collection::vec(any::<u8>(), 0..120)) {
        for table in Table::ALL {
            let key = Key::from_stored(table, &bytes);
            let _ = (key.after_object(), key.due_ms(), format!("{key:?}"));
            if let Some((period, row)) = key.of_history() {
                let object = key.object_key().unwrap();
                prop_assert_eq!(Key::history(&object, period, &row), key.clone());
            }
            if let Some(object) = key.object_key() {
                prop_assert!(KeyRange::object(Table::Value, &object).object_key() == Some(object));
            }
            let from = Bound::Included(bytes.clone());
            let range = KeyRange { table, from: from.clone(), to: from };
            let _ = (range.object_key(), range.is_empty());
            prop_assert!(range.contains(&key));
        }
        let whole = bytes.len() >= ObjectKey::LEN;
        prop_assert_eq!(ObjectKey::split(&bytes).is_some(), whole);
    }

    #[test]
    fn any_rows_are_a_files_meta_or_an_error(
        rows in prop::collection::vec(
            (prop::sample::select(vec!["format", "files", "index", "store", "x"]),
             prop::collection::vec(any::<u8>(), 0..20)),
            0..8,
        ),
    ) {
        let rows: Vec<_> = rows.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        if let Ok(meta) = Meta::decode(&rows) {
            prop_assert!(meta.index < meta.files && meta.files <= 16);
        }
    }
}
