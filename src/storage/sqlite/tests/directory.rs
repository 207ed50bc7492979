//! Who may open a directory, and what has to be in it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use rusqlite::Connection;

use super::from_outside;
use crate::storage::engine::Engine as _;
use crate::storage::row::VIRTUAL_SHARDS;
use crate::storage::sqlite::directory::{Lock, new_file};
use crate::storage::sqlite::{ReadOnly, Sqlite};
use crate::storage::suite::world::Scratch;

fn made(files: u32) -> Scratch {
    let scratch = Scratch::new();
    Sqlite::open_with(scratch.path(), files).unwrap().close();
    scratch
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Opens a directory in vain, and returns why.
fn refused(directory: &Path, words: &[&str]) {
    let error = Sqlite::open(directory).map(drop).expect_err("it is refused").message;
    for word in words {
        assert!(error.contains(word), "{error:?} says {word:?}");
    }
}

#[test]
fn a_clean_stop_leaves_the_files_alone_and_nobody_else_may_read_them() {
    let scratch = made(2);
    assert_eq!(names(scratch.path()), ["lock", "store-00.db", "store-01.db"]);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(scratch.path()), 0o700);
    for name in names(scratch.path()) {
        assert_eq!(mode(&scratch.path().join(&name)), 0o600, "{name}");
    }
    let engine = Sqlite::open(scratch.path()).unwrap();
    engine.acquire(&[1]).unwrap();
    for name in names(scratch.path()) {
        assert_eq!(mode(&scratch.path().join(&name)), 0o600, "{name} while it is open");
    }
}

#[test]
fn a_second_server_is_told_who_holds_the_directory() {
    let scratch = Scratch::new();
    let engine = Sqlite::open(scratch.path()).unwrap();
    let (path, pid) = (scratch.path().to_string_lossy(), std::process::id().to_string());
    refused(scratch.path(), &[&path, &pid, "in use"]);
    engine.close();
    let again = Sqlite::open(scratch.path()).unwrap();
    drop(again);
    drop(Lock::take(scratch.path()).unwrap());
}

#[test]
fn a_store_of_a_newer_version_is_left_alone() {
    let scratch = made(2);
    let file = scratch.path().join("store-01.db");
    let newer = from_outside(&file);
    newer.pragma_update(None, "user_version", 2).unwrap();
    newer.close().unwrap();
    let words = ["store-01.db", "newer version of stubborn: format 2, this one knows 1"];
    refused(scratch.path(), &words);
    let error = ReadOnly::open(scratch.path()).map(drop).unwrap_err().message;
    assert!(words.iter().all(|word| error.contains(word)), "{error}");
}

#[test]
fn a_directory_with_other_things_in_it_is_left_alone() {
    let scratch = Scratch::new();
    fs::create_dir(scratch.path()).unwrap();
    fs::write(scratch.path().join("notes.txt"), "mine").unwrap();
    refused(scratch.path(), &["holds no store but other things (notes.txt)"]);
    assert_eq!(names(scratch.path()), ["notes.txt"]);
    // Nor is a file that only has the name of one.
    let scratch = Scratch::new();
    fs::create_dir(scratch.path()).unwrap();
    fs::write(scratch.path().join("store-00.db"), vec![7; 10_000]).unwrap();
    refused(scratch.path(), &["store-00.db is not a file of a store"]);
    let other = Connection::open(scratch.path().join("store-01.db")).unwrap();
    other.execute_batch("CREATE TABLE a (b)").unwrap();
    fs::rename(scratch.path().join("store-01.db"), scratch.path().join("store-00.db")).unwrap();
    refused(scratch.path(), &["store-00.db"]);
}

#[test]
fn a_missing_file_is_missed() {
    for missing in ["store-00.db", "store-01.db", "store-02.db"] {
        let scratch = made(3);
        fs::remove_file(scratch.path().join(missing)).unwrap();
        refused(scratch.path(), &[missing, "is missing"]);
        assert!(ReadOnly::open(scratch.path()).is_err());
    }
}

#[test]
fn files_of_different_stores_do_not_mix() {
    let (one, other) = (made(2), made(2));
    let path = |scratch: &Scratch, name| scratch.path().join(name);
    fs::copy(path(&other, "store-01.db"), path(&one, "store-01.db")).unwrap();
    refused(one.path(), &["store-01.db", "another store"]);
    fs::copy(path(&one, "store-00.db"), path(&one, "store-01.db")).unwrap();
    refused(one.path(), &["store-01.db", "file 0 of 2"]);
    fs::copy(path(&other, "store-01.db"), path(&other, "store-02.db")).unwrap();
    refused(other.path(), &["store-02.db"]);
}

#[test]
fn what_cannot_be_written_is_named() {
    let scratch = Scratch::new();
    fs::write(scratch.path(), "a file").unwrap();
    refused(&scratch.path().join("below"), &["can't create", "below"]);
    fs::remove_file(scratch.path()).unwrap();
    let scratch = made(1);
    fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o500)).unwrap();
    fs::set_permissions(scratch.path().join("lock"), fs::Permissions::from_mode(0o400)).unwrap();
    // Who may do everything may do this as well.
    if fs::OpenOptions::new().write(true).open(scratch.path().join("lock")).is_err() {
        refused(scratch.path(), &["can't write", "lock", "check who may write there"]);
    }
    fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o700)).unwrap();
}

#[test]
fn a_creation_that_was_cut_short_is_undone_or_completed() {
    // Before any file had its name: there was no store yet.
    let scratch = Scratch::new();
    fs::create_dir(scratch.path()).unwrap();
    new_file(&scratch.path().join("store-00.db.new")).unwrap();
    new_file(&scratch.path().join("store-00.db.new-wal")).unwrap();
    Sqlite::open_with(scratch.path(), 2).unwrap().close();
    assert_eq!(names(scratch.path()), ["lock", "store-00.db", "store-01.db"]);
    // After the first had: the others are complete.
    let at = |name| scratch.path().join(name);
    fs::rename(at("store-01.db"), at("store-01.db.new")).unwrap();
    Sqlite::open(scratch.path()).unwrap().close();
    assert_eq!(names(scratch.path()), ["lock", "store-00.db", "store-01.db"]);
}

#[test]
fn all_virtual_shards_are_acquired_at_once() {
    let scratch = Scratch::new();
    let engine = Sqlite::open_with(scratch.path(), 3).unwrap();
    let shards: Vec<u16> = (0..VIRTUAL_SHARDS).rev().collect();
    for epoch in 1..=3 {
        let leases = engine.acquire(&shards).unwrap();
        assert!(leases.iter().map(|lease| lease.shard).eq(shards.iter().copied()));
        assert!(leases.iter().all(|lease| lease.epoch == epoch));
    }
    assert!(engine.acquire(&[VIRTUAL_SHARDS]).is_err());
    engine.close();
    assert!(engine.acquire(&[1]).is_err());
    assert!(engine.space([1; 16], "late").is_err());
    assert!(engine.store(Arc::new(|| {})).is_ok());
}
