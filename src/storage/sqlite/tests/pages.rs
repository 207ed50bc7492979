//! The checksums of a store's pages: what has them, and what is done about one that does not match.

use std::fs;
use std::ops::Bound;
use std::path::Path;

use rusqlite::Connection;

use crate::storage::engine::{Engine as _, Order};
use crate::storage::row::{Key, KeyRange, Table};
use crate::storage::sqlite::{ReadOnly, Sqlite, backup, restore, verify};
use crate::storage::suite::arbitrary::object;
use crate::storage::suite::world::{Kind, Scratch, World, all_durable, put};

const PAGE: usize = 8192;

fn key(of: u64, number: u16) -> Key {
    Key::value(&object(of), &number.to_be_bytes())
}

/// Makes a closed store of one file, with 200 rows for each of two objects.
fn store() -> World {
    let world = World::new(Kind::Disk(1));
    let thread = world.thread();
    for of in [0, 1] {
        let session = world.session(of, object(of));
        for number in 0..200 {
            thread.submit(&session, vec![put(key(of, number), vec![number as u8; 900])]);
        }
    }
    all_durable(&thread.finish());
    drop(thread);
    world.engine.close();
    world
}

fn file(directory: &Path) -> std::path::PathBuf {
    directory.join("store-00.db")
}

/// Flips a bit in the page that has a row in its middle, and returns where the page begins.
fn spoil(directory: &Path, key: &Key) -> usize {
    let mut bytes = fs::read(file(directory)).unwrap();
    let found = |page: &[u8]| page.windows(key.bytes().len()).any(|part| part == key.bytes());
    // Pages that hold rows, and no other pages.
    let page = bytes.chunks(PAGE).position(|page| page[0] == 10 && found(page)).unwrap();
    bytes[page * PAGE + PAGE / 2] ^= 4;
    fs::write(file(directory), bytes).unwrap();
    page * PAGE
}

fn all(store: &dyn crate::storage::engine::Store) -> crate::error::Result<usize> {
    let mut rows = 0;
    let (from, to) = (Bound::Unbounded, Bound::Unbounded);
    let range = KeyRange { table: Table::Value, from, to };
    store.scan(&range, Order::Ascending, &mut |_, _| {
        rows += 1;
        std::ops::ControlFlow::Continue(())
    })?;
    Ok(rows)
}

#[test]
fn a_spoiled_page_fails_those_who_need_it_and_nobody_else() {
    let world = store();
    let offset = spoil(world.scratch.as_ref().unwrap().path(), &key(0, 100));
    let world = world.reopen();
    let thread = world.thread();
    let says = |message: &str| {
        let page = format!("the page at offset {offset} does not match its checksum");
        assert!(message.contains("store-00.db is damaged") && message.contains(&page), "{message}");
    };
    says(&thread.store.get(&key(0, 100)).unwrap_err().message);
    says(&all(&*thread.store).unwrap_err().message);
    assert_eq!(thread.get(&key(1, 100)).unwrap(), vec![100; 900]);
    // Batches that are written together: one needs the page, the others don't.
    let sessions = [0, 1].map(|of| world.session(2 + of, object(of)));
    for _ in 0..20 {
        thread.submit(&sessions[1], vec![put(key(1, 100), vec![1; 900])]);
    }
    thread.submit(&sessions[0], vec![put(key(0, 100), vec![1; 900])]);
    for _ in 0..20 {
        thread.submit(&sessions[1], vec![put(key(1, 100), vec![2; 900])]);
    }
    for done in thread.finish() {
        match (done.session, done.outcome) {
            (2, outcome) => says(&outcome.unwrap_err().message),
            (_, outcome) => outcome.unwrap(),
        }
    }
    assert_eq!(thread.get(&key(1, 100)).unwrap(), vec![2; 900]);
}

#[test]
fn a_copy_has_checksums_and_none_is_made_of_a_spoiled_page() {
    let world = store();
    let directory = world.scratch.as_ref().unwrap().path().to_owned();
    let (copy, restored, failed) = (Scratch::new(), Scratch::new(), Scratch::new());
    backup(&directory, copy.path(), &mut |_, _| {}).unwrap();
    restore(copy.path(), restored.path(), &mut |_, _| {}).unwrap();
    for directory in [&directory, copy.path(), restored.path()] {
        assert_eq!(fs::read(file(directory)).unwrap()[20], 16);
        assert_eq!(all(&ReadOnly::open(directory).unwrap()), Ok(400));
        let offset = spoil(directory, &key(1, 7));
        let page = format!("the page at offset {offset} does not match its checksum");
        let error = backup(directory, failed.path(), &mut |_, _| {}).unwrap_err().message;
        assert!(error.contains("store-00.db is damaged") && error.contains(&page), "{error}");
        let error = restore(directory, &failed.path().join("x"), &mut |_, _| {}).unwrap_err();
        let offset = format!("offset {offset}");
        let says = ["store-00.db is damaged", "does not match its checksum", &offset];
        assert!(says.iter().all(|words| error.message.contains(words)), "{error}");
        assert!(ReadOnly::open(failed.path()).is_err());
        fs::remove_dir_all(failed.path()).unwrap();
    }
}

/// A power cut tears what is written at that moment; where that is the file, the log has it all.
#[test]
fn pages_that_a_crash_has_torn_come_from_the_log() {
    let world = World::new(Kind::Disk(1));
    let thread = world.thread();
    let session = world.session(1, object(0));
    for number in 0..200 {
        thread.submit(&session, vec![put(key(0, number), vec![number as u8; 900])]);
    }
    all_durable(&thread.finish());
    let copy = world.scratch.as_ref().unwrap().copy();
    let log = fs::read(copy.path().join("store-00.db-wal")).unwrap();
    let mut bytes = fs::read(file(copy.path())).unwrap();
    let mut torn = 0;
    for frame in log[32..].chunks_exact(PAGE + 24) {
        let number = u32::from_be_bytes(*frame.first_chunk().unwrap()) as usize;
        bytes.resize(bytes.len().max(number * PAGE), 0);
        // Some of its sectors were written.
        for sector in (0..16).filter(|sector| sector * 7 % 5 < 3) {
            let from = sector * 512;
            let to = (number - 1) * PAGE + from;
            bytes[to..to + 512].copy_from_slice(&frame[24 + from..][..512]);
        }
        torn += 1;
    }
    assert!(torn > 20, "{torn}");
    fs::write(file(copy.path()), bytes).unwrap();
    let engine = Sqlite::open(copy.path()).unwrap();
    let store = engine.store(std::sync::Arc::new(|| {})).unwrap();
    assert_eq!(all(&*store), Ok(200));
    drop(store);
    engine.close();
    assert_eq!(verify(copy.path()), Ok(Vec::new()));
}

/// Two files of a store differ in the pages that they have at one place, however alike these are.
#[test]
fn a_page_of_another_file_is_not_taken_for_ones_own() {
    let scratch = Scratch::new();
    drop(Sqlite::open_with(scratch.path(), 2).unwrap());
    let other = fs::read(scratch.path().join("store-01.db")).unwrap();
    let mut bytes = fs::read(file(scratch.path())).unwrap();
    let page = bytes.len() / PAGE - 1;
    let own = &mut bytes[page * PAGE..][..PAGE];
    let other = &other[page * PAGE..][..PAGE];
    assert_eq!(own[..PAGE - 16], other[..PAGE - 16]);
    own.copy_from_slice(other);
    fs::write(file(scratch.path()), bytes).unwrap();
    let damage = verify(scratch.path()).unwrap();
    let says = format!("the page at offset {} is of another file", page * PAGE);
    assert!(damage.iter().any(|one| one.what.contains(&says)), "{damage:?}");
}

#[test]
fn a_spoiled_log_is_named_and_stays_out_of_the_file() {
    let world = World::new(Kind::Disk(1));
    let thread = world.thread();
    let session = world.session(1, object(0));
    thread.submit(&session, vec![put(key(0, 1), vec![5; 900])]);
    all_durable(&thread.finish());
    // Its locks are on the file, so the log can be opened and closed.
    let log = world.scratch.as_ref().unwrap().path().join("store-00.db-wal");
    let whole = fs::read(&log).unwrap();
    let frame = PAGE + 24;
    let offset = 32 + (whole.len() - 32) / frame * frame - PAGE;
    let mut spoiled = whole.clone();
    spoiled[offset + PAGE - 100] ^= 1;
    fs::write(&log, &spoiled).unwrap();
    let error = world.thread().store.get(&key(0, 1)).unwrap_err().message;
    let page = format!("the page at offset {offset} does not match its checksum");
    assert!(error.contains("store-00.db-wal is damaged") && error.contains(&page), "{error}");
    fs::write(&log, &whole).unwrap();
    assert_eq!(world.thread().get(&key(0, 1)).unwrap(), vec![5; 900]);
}

/// Files from before there were checksums.
#[test]
fn a_file_without_checksums_is_served_and_copied_as_it_is() {
    let world = store();
    let directory = world.scratch.as_ref().unwrap().path().to_owned();
    let old = directory.join("old.db");
    {
        let plain = Connection::open(&old).unwrap();
        let sql = format!(
            "PRAGMA page_size = {PAGE}; PRAGMA application_id = {}; PRAGMA user_version = 1;
             PRAGMA journal_mode = WAL; ATTACH '{}' AS new",
            super::super::meta::APPLICATION_ID,
            file(&directory).display()
        );
        plain.execute_batch(&sql).unwrap();
        let mut tables =
            plain.prepare("SELECT name, sql FROM new.sqlite_schema WHERE sql NOT NULL").unwrap();
        let tables = tables.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        let tables: Vec<(String, String)> = tables.map(Result::unwrap).collect();
        for (name, sql) in tables {
            let fill = format!("{sql}; INSERT INTO main.{name} SELECT * FROM new.{name}");
            plain.execute_batch(&fill).unwrap();
        }
    }
    fs::rename(&old, file(&directory)).unwrap();
    let world = world.reopen();
    let thread = world.thread();
    let session = world.session(9, object(1));
    thread.submit(&session, vec![put(key(1, 300), vec![3; 9000])]);
    all_durable(&thread.finish());
    assert_eq!(all(&*thread.store), Ok(401));
    let copy = Scratch::new();
    backup(&directory, copy.path(), &mut |_, _| {}).unwrap();
    drop(thread);
    world.engine.close();
    for directory in [&directory, copy.path()] {
        assert_eq!(fs::read(file(directory)).unwrap()[20], 0);
        assert_eq!(verify(directory), Ok(Vec::new()));
        assert_eq!(all(&ReadOnly::open(directory).unwrap()), Ok(401));
    }
}
