//! Databases with checksums in their pages: whole ones, and ones that a disk has spoiled.

// So that lints know all of this for tests, helpers included.
#![cfg(test)]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rusqlite::backup::Backup;
use rusqlite::{Connection, FileControl, OpenFlags, ffi};
use stubborn_vfs::sums::{Damage, RESERVED_BYTES, Wrong, file_system, take_damage};

/// Small pages, so that there are many of them.
const PAGE: usize = 512;

/// A directory of a test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("sums-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path.canonicalize().unwrap())
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Leaves nothing but a database.
    fn holds(&self, bytes: &[u8]) -> PathBuf {
        for entry in fs::read_dir(&self.0).unwrap() {
            fs::remove_file(entry.unwrap().path()).unwrap();
        }
        fs::write(self.file("db"), bytes).unwrap();
        self.file("db")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

fn open(path: &Path) -> Connection {
    let flags = OpenFlags::default();
    Connection::open_with_flags_and_vfs(path, flags, file_system().unwrap()).unwrap()
}

fn kind(connection: &Connection) -> String {
    connection.pragma_query_value(None, "page_sums", |row| row.get(0)).unwrap()
}

/// Makes a file with checksums; `mode` is its journal's.
fn new(path: &Path, id: &str, mode: &str) -> Connection {
    let connection = open(path);
    assert_eq!(kind(&connection), "empty");
    let mut bytes = RESERVED_BYTES;
    connection.file_control(None::<&str>, FileControl::ReserveBytes(&mut bytes)).unwrap();
    let sql = format!(
        "PRAGMA page_size = {PAGE}; PRAGMA page_sums = '{id}'; PRAGMA cache_size = 12;
         PRAGMA journal_mode = {mode}; CREATE TABLE t (k INTEGER PRIMARY KEY, v BLOB NOT NULL);
         CREATE INDEX i ON t (v);"
    );
    connection.execute_batch(&sql).unwrap();
    connection
}

type Rows = Vec<(i64, Vec<u8>)>;

/// Rows small and large, with gaps where rows were.
fn fill(connection: &Connection) -> Rows {
    let sql = "INSERT OR REPLACE INTO t VALUES (?1, ?2)";
    for k in 0..40_i64 {
        connection.execute(sql, (k, value(k))).unwrap();
    }
    connection.execute("DELETE FROM t WHERE k % 3 = 0", []).unwrap();
    (0..40).filter(|k| k % 3 != 0).map(|k| (k, value(k))).collect()
}

fn value(k: i64) -> Vec<u8> {
    let length = usize::try_from(k * 97 % 1200).unwrap();
    (0..length).map(|n| (n as i64 * 31 + k) as u8).collect()
}

/// Reads all rows, through the table and through the index.
fn rows(connection: &Connection) -> rusqlite::Result<Rows> {
    let read = |sql| {
        let mut statement = connection.prepare(sql)?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        rows.collect::<rusqlite::Result<Rows>>()
    };
    let mut by_index = read("SELECT k, v FROM t INDEXED BY i ORDER BY v")?;
    by_index.sort();
    let by_key = read("SELECT k, v FROM t ORDER BY k")?;
    if by_index == by_key { Ok(by_key) } else { Ok(Rows::new()) }
}

/// Makes a closed database, and returns its bytes and its rows.
fn closed(folder: &Folder, id: &str) -> (Vec<u8>, Rows) {
    let path = folder.holds(&[]);
    fs::remove_file(&path).unwrap();
    let connection = new(&path, id, "wal");
    let rows = fill(&connection);
    connection.close().unwrap();
    (fs::read(path).unwrap(), rows)
}

/// Looks at a spoiled file: it has the right rows, or there is an error. Returns the damage.
fn look(path: &Path, truth: &Rows, what: &str) -> Option<Damage> {
    take_damage();
    match rows(&open(path)) {
        Ok(rows) => {
            assert!(rows == *truth, "{what}: the rows are others, unnoticed");
            None
        }
        Err(error) => {
            let code = error.sqlite_error().expect("an error of SQLite").extended_code;
            let damage = take_damage();
            assert_eq!(code == ffi::SQLITE_IOERR_DATA, damage.is_some(), "{what}: {error}");
            let not_ours = code == ffi::SQLITE_NOTADB || code == ffi::SQLITE_CORRUPT;
            assert!(damage.is_some() || not_ours, "{what}: {error}");
            let none = Damage { file: String::new(), offset: 0, wrong: Wrong::Sum };
            Some(damage.unwrap_or(none))
        }
    }
}

const ID: &str = "0123456789abcdef";

#[test]
fn a_flip_of_any_bit_is_noticed_or_does_not_matter() {
    let folder = Folder::new();
    let (whole, truth) = closed(&folder, ID);
    assert!(whole.len() > 40 * PAGE && truth.len() == 26);
    // Of each page: how many flips were noticed, and how many were not.
    let mut seen = vec![(0, 0); whole.len() / PAGE];
    // All bits of the head, on which everything hangs; and from there on one of every 13th byte.
    let head = (0..100).flat_map(|offset| (0..8).map(move |bit| (offset, bit)));
    let others = (100..whole.len()).step_by(13).map(|offset| (offset, offset % 8));
    for (offset, bit) in head.chain(others) {
        let mut spoiled = whole.clone();
        spoiled[offset] ^= 1 << bit;
        let path = folder.holds(&spoiled);
        let what = format!("bit {bit} of byte {offset}");
        match look(&path, &truth, &what) {
            Some(damage) => {
                seen[offset / PAGE].0 += 1;
                assert_eq!(damage.offset, (offset / PAGE * PAGE) as u64, "{what}");
                assert!(damage.file.is_empty() || damage.file == path.to_str().unwrap());
            }
            None => seen[offset / PAGE].1 += 1,
        }
    }
    // What is not noticed is of pages that hold nothing any more: a third of the rows was deleted.
    assert!(seen.iter().all(|(noticed, not)| *noticed == 0 || *not == 0), "{seen:?}");
    assert!(seen.iter().filter(|(noticed, _)| *noticed > 0).count() > seen.len() / 2, "{seen:?}");
}

#[test]
fn pages_that_lie_elsewhere_are_noticed() {
    let (folder, other) = (Folder::new(), Folder::new());
    let (whole, truth) = closed(&folder, ID);
    let pages = whole.len() / PAGE;
    let mut noticed = 0;
    for (one, two) in (1..pages).map(|one| (one, 1 + one * 5 % (pages - 1))) {
        let mut spoiled = whole.clone();
        spoiled[one * PAGE..][..PAGE].copy_from_slice(&whole[two * PAGE..][..PAGE]);
        spoiled[two * PAGE..][..PAGE].copy_from_slice(&whole[one * PAGE..][..PAGE]);
        let damage = look(&folder.holds(&spoiled), &truth, &format!("{one} and {two}"));
        let Some(Damage { offset, wrong, .. }) = damage else { continue };
        let places = [one, two].map(|page| (page * PAGE) as u64);
        assert!(places.contains(&offset) && wrong == Wrong::Sum, "{one} and {two}: {offset}");
        noticed += 1;
    }
    assert!(noticed > pages / 2, "{noticed} of {pages}");
    // Nor can it be a page of another file that would be right there.
    let (same, _) = closed(&other, "00000000000000ff");
    let mut spoiled = whole.clone();
    spoiled[PAGE..2 * PAGE].copy_from_slice(&same[PAGE..2 * PAGE]);
    assert_eq!(spoiled[PAGE..2 * PAGE - 16], whole[PAGE..2 * PAGE - 16]);
    let damage = look(&folder.holds(&spoiled), &truth, "of another file").unwrap();
    assert_eq!((damage.offset, damage.wrong), (PAGE as u64, Wrong::File));
}

#[test]
fn a_file_that_was_cut_short_or_blanked_is_noticed() {
    let folder = Folder::new();
    let (whole, truth) = closed(&folder, ID);
    let mut blanks = Vec::new();
    // A file without a whole page is an empty database, for SQLite.
    for length in (PAGE..whole.len()).step_by(PAGE / 2) {
        let what = format!("{length} bytes");
        match look(&folder.holds(&whole[..length]), &truth, &what) {
            Some(damage) => assert!(damage.offset <= length as u64, "{what}: {damage:?}"),
            None => assert!(length > whole.len() - PAGE, "{what} are not missed"),
        }
        let mut blank = whole.clone();
        blank[length..].fill(0);
        blanks.push(look(&folder.holds(&blank), &truth, &what));
    }
    // At the end there may be pages that hold nothing any more.
    assert!(blanks.iter().take(blanks.len() / 2).all(Option::is_some), "{blanks:?}");
}

#[test]
fn files_that_others_made_are_read_and_written_as_they_are() {
    let folder = Folder::new();
    for mode in ["wal", "delete"] {
        let path = folder.holds(&[]);
        let plain = Connection::open(&path).unwrap();
        let sql = format!(
            "PRAGMA journal_mode = {mode}; CREATE TABLE t (k INTEGER PRIMARY KEY, v BLOB NOT NULL);
             CREATE INDEX i ON t (v);"
        );
        plain.execute_batch(&sql).unwrap();
        let truth = fill(&plain);
        plain.close().unwrap();
        let connection = open(&path);
        assert_eq!(kind(&connection), "plain");
        assert_eq!(rows(&connection).unwrap(), truth);
        assert!(connection.execute_batch(&format!("PRAGMA page_sums = '{ID}'")).is_err());
        connection.execute("DELETE FROM t", []).unwrap();
        assert_eq!(fill(&connection), truth);
        connection.close().unwrap();
        assert_eq!(rows(&Connection::open(&path).unwrap()).unwrap(), truth);
        // So are new ones, of which nobody has said anything.
        let path = folder.holds(&[]);
        let connection = open(&path);
        connection.execute_batch(&sql).unwrap();
        assert_eq!((fill(&connection), kind(&connection)), (truth, "plain".to_owned()));
    }
}

#[test]
fn every_way_of_writing_leaves_pages_that_are_right() {
    let folder = Folder::new();
    for mode in ["wal", "delete", "truncate", "memory", "off"] {
        let path = folder.holds(&[]);
        let connection = new(&path, ID, mode);
        let truth = fill(&connection);
        if mode != "off" {
            // More than the cache holds, so that pages go out early; and all back.
            connection.execute_batch("BEGIN").unwrap();
            for k in 100..400_i64 {
                connection.execute("INSERT INTO t VALUES (?1, ?2)", (k, value(k))).unwrap();
            }
            connection.execute_batch("UPDATE t SET v = CAST(v || v AS BLOB); ROLLBACK").unwrap();
        }
        assert_eq!(rows(&connection).unwrap(), truth, "{mode}");
        // The same, kept and taken back later; some of it is taken back at once.
        connection.execute_batch("BEGIN").unwrap();
        for k in 100..400_i64 {
            connection.execute("INSERT INTO t VALUES (?1, ?2)", (k, value(k))).unwrap();
            if k % 60 == 0 && mode != "off" {
                let sql = "SAVEPOINT s; UPDATE t SET v = CAST(v || x'07' AS BLOB); DELETE FROM t WHERE k > 90; ROLLBACK TO s; RELEASE s";
                connection.execute_batch(sql).unwrap();
            }
        }
        connection
            .execute_batch("UPDATE t SET v = CAST(v || x'01' AS BLOB) WHERE k > 90; COMMIT")
            .unwrap();
        assert!(rows(&connection).unwrap().len() > 300);
        assert_eq!(rows(&open(&path)).unwrap(), rows(&connection).unwrap());
        connection.execute_batch("DELETE FROM t WHERE k > 90").unwrap();
        assert_eq!(rows(&connection).unwrap(), truth, "{mode}");
        connection.execute_batch("VACUUM").unwrap();
        connection.close().unwrap();
        let connection = open(&path);
        assert_eq!((kind(&connection).as_str(), rows(&connection).unwrap()), (ID, truth), "{mode}");
        for vfs in [file_system().unwrap(), "unix"] {
            let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
            let other = Connection::open_with_flags_and_vfs(&path, flags, vfs).unwrap();
            let check: String =
                other.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
            assert_eq!(check, "ok", "{mode}, read through {vfs}");
        }
    }
}

#[test]
fn readers_and_checkpoints_go_on_beside_a_writer() {
    let folder = Folder::new();
    let path = folder.file("db");
    let writer = new(&path, ID, "wal");
    writer.execute_batch("PRAGMA wal_autocheckpoint = 0; PRAGMA synchronous = OFF").unwrap();
    fill(&writer);
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (path, done) = (&path, &done);
        for sql in ["PRAGMA wal_checkpoint(PASSIVE)", "SELECT count(v) FROM t"] {
            scope.spawn(move || {
                let connection = open(path);
                connection.busy_timeout(Duration::from_secs(5)).unwrap();
                while !done.load(Ordering::Relaxed) {
                    let read = connection.query_row(sql, [], |row| row.get::<_, i64>(0));
                    read.unwrap_or_else(|error| panic!("{sql}: {error}"));
                    rows(&connection).unwrap();
                }
            });
        }
        for round in 0..300_i64 {
            let sql = "INSERT OR REPLACE INTO t VALUES (?1, ?2)";
            writer.execute(sql, (round % 50, value(round * 7))).unwrap();
        }
        done.store(true, Ordering::Relaxed);
    });
}

/// A power cut while a log is brought into its file tears pages of the file; the log has them all.
#[test]
fn pages_that_a_crash_has_torn_come_from_the_log() {
    let folder = Folder::new();
    let path = folder.file("db");
    let writer = new(&path, ID, "wal");
    writer.execute_batch("PRAGMA wal_checkpoint(TRUNCATE); PRAGMA wal_autocheckpoint = 0").unwrap();
    let truth = fill(&writer);
    writer.execute_batch("PRAGMA wal_checkpoint(PASSIVE)").unwrap();
    let (log, mut torn) = (
        fs::read(path.with_extension("").with_file_name("db-wal")).unwrap(),
        fs::read(&path).unwrap(),
    );
    writer.close().unwrap();
    for (number, page) in torn.chunks_mut(PAGE).enumerate() {
        // The head of the file is the same in all of its states, and not every page was being written.
        let (first, second) = page.split_at_mut(PAGE / 2);
        match number % 4 {
            1 => first.fill(0xa5),
            3 => {}
            _ => second.fill(0x5a),
        }
    }
    let path = folder.holds(&torn);
    fs::write(folder.file("db-wal"), &log).unwrap();
    let connection = open(&path);
    assert_eq!(rows(&connection).unwrap(), truth);
    connection.close().unwrap();
    assert!(!folder.file("db-wal").exists());
    assert_eq!(rows(&open(&path)).unwrap(), truth);
}

/// What is read from a log, and what a log brings into its file.
#[test]
fn a_flip_in_a_log_is_noticed_or_does_not_matter() {
    let folder = Folder::new();
    let path = folder.file("db");
    let log = folder.file("db-wal");
    let writer = new(&path, ID, "wal");
    writer.execute_batch("PRAGMA wal_checkpoint(TRUNCATE); PRAGMA wal_autocheckpoint = 0").unwrap();
    let truth = fill(&writer);
    let (whole, before) = (fs::read(&log).unwrap(), fs::read(&path).unwrap());
    let (mut noticed, mut not) = (0, 0);
    for offset in (32..whole.len()).step_by(97) {
        let mut spoiled = whole.clone();
        spoiled[offset] ^= 1 << (offset % 8);
        fs::write(&log, &spoiled).unwrap();
        let reader = open(&path);
        let what = format!("byte {offset} of the log");
        match rows(&reader) {
            Ok(rows) => {
                assert!(rows == truth, "{what}: the rows are others");
                not += 1;
            }
            Err(error) => {
                assert_eq!(error.sqlite_error().unwrap().extended_code, ffi::SQLITE_IOERR_DATA);
                let damage = take_damage().unwrap();
                let near = damage.offset.abs_diff(offset as u64) <= 2 * PAGE as u64;
                assert!(near && damage.file == log.to_str().unwrap(), "{what}: {damage:?}");
                noticed += 1;
            }
        }
    }
    assert!(noticed > 20 && not > 20, "{noticed} noticed, {not} not");
    // None of it gets into the file.
    let mut spoiled = whole.clone();
    spoiled[whole.len() - PAGE / 2] ^= 1;
    fs::write(&log, &spoiled).unwrap();
    assert!(writer.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())).is_err());
    assert_eq!(take_damage().unwrap().offset, (whole.len() - PAGE) as u64);
    fs::write(&log, &whole).unwrap();
    writer.close().unwrap();
    assert_eq!(rows(&open(&path)).unwrap(), truth);
    assert!(fs::read(&path).unwrap() != before);
}

#[test]
fn a_copy_is_of_the_kind_of_what_was_copied() {
    let folder = Folder::new();
    for kind_of_copy in [ID, "plain"] {
        let path = folder.holds(&[]);
        fs::remove_file(&path).unwrap();
        let source = if kind_of_copy == ID {
            new(&path, ID, "wal")
        } else {
            let plain = open(&path);
            plain.execute_batch("CREATE TABLE t (k INTEGER PRIMARY KEY, v BLOB NOT NULL); CREATE INDEX i ON t (v)").unwrap();
            plain
        };
        let truth = fill(&source);
        let mut target = open(&folder.file("copy"));
        // Pages go out before the first one does.
        let sql = format!(
            "PRAGMA cache_size = 5; PRAGMA journal_mode = OFF; PRAGMA page_sums = '{kind_of_copy}'"
        );
        target.execute_batch(&sql).unwrap();
        if kind_of_copy == ID {
            let mut bytes = RESERVED_BYTES;
            target.file_control(None::<&str>, FileControl::ReserveBytes(&mut bytes)).unwrap();
        }
        let backup = Backup::new(&source, &mut target).unwrap();
        backup.run_to_completion(3, Duration::ZERO, None).unwrap();
        drop(backup);
        target.close().unwrap();
        let copy = open(&folder.file("copy"));
        assert_eq!((kind(&copy).as_str(), rows(&copy).unwrap()), (kind_of_copy, truth));
    }
}

#[test]
fn no_page_is_written_before_it_is_known_what_it_carries() {
    let folder = Folder::new();
    let connection = open(&folder.file("db"));
    let mut bytes = RESERVED_BYTES;
    connection.file_control(None::<&str>, FileControl::ReserveBytes(&mut bytes)).unwrap();
    assert!(connection.execute_batch("CREATE TABLE t (a)").is_err());
    assert!(connection.execute_batch("PRAGMA page_sums = '0123'").is_err());
    assert_eq!(kind(&connection), "empty");
    connection.execute_batch(&format!("PRAGMA page_sums = '{ID}'; CREATE TABLE t (a)")).unwrap();
    assert!(connection.execute_batch("PRAGMA page_sums = plain").is_err());
    assert_eq!(kind(&connection), ID);
}
