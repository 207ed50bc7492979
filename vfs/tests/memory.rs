//! SQLite over files in memory: sound ones, and ones that fail or panic.

// So that lints know all of this for tests, helpers included.
#![cfg(test)]

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use rusqlite::{Connection, OpenFlags, params};
use stubborn_vfs::{Code, File, Kind, Open, RegisterError, Vfs, register};

/// Files in memory. What a test wants to go wrong, goes wrong at a read or a write from `fuse` on.
#[derive(Clone, Default)]
struct Disk {
    files: Arc<Mutex<HashMap<String, Vec<u8>>>>,
    fuse: Arc<AtomicUsize>,
    fault: Fault,
}

#[derive(Clone, Copy, Default, PartialEq)]
enum Fault {
    #[default]
    None,
    Fails,
    Full,
    Panics,
}

struct DiskFile {
    disk: Disk,
    name: String,
    delete_on_close: bool,
}

impl Disk {
    fn faulty(fault: Fault) -> Self {
        let fuse = Arc::new(AtomicUsize::new(usize::MAX));
        Self { fault, fuse, ..Self::default() }
    }

    fn light(&self, calls: usize) {
        self.fuse.store(calls, Ordering::SeqCst);
    }

    fn burn(&self, code: Code) -> Result<(), Code> {
        let left = self.fuse.load(Ordering::SeqCst);
        if self.fault == Fault::None || left > 0 {
            self.fuse.store(left.saturating_sub(1), Ordering::SeqCst);
            return Ok(());
        }
        match self.fault {
            Fault::Panics => panic!("a file that panics"),
            Fault::Full => Err(Code::FULL),
            _ => Err(code),
        }
    }

    fn open(&self, name: &str) -> Connection {
        Connection::open_with_flags_and_vfs("db", OpenFlags::default(), name).unwrap()
    }
}

impl Vfs for Disk {
    type File = DiskFile;

    fn open(&self, request: &Open<'_>) -> Result<DiskFile, Code> {
        static UNNAMED: AtomicUsize = AtomicUsize::new(0);
        let name = request.name.map(str::to_owned).unwrap_or_else(|| {
            assert_eq!(request.kind, Kind::Temporary);
            format!("unnamed {}", UNNAMED.fetch_add(1, Ordering::SeqCst))
        });
        let mut files = self.files.lock().unwrap();
        if !files.contains_key(&name) && !request.create {
            return Err(Code::CANTOPEN);
        }
        files.entry(name.clone()).or_default();
        Ok(DiskFile { disk: self.clone(), name, delete_on_close: request.delete_on_close })
    }

    fn delete(&self, name: &str) -> Result<(), Code> {
        let removed = self.files.lock().unwrap().remove(name);
        removed.map(drop).ok_or(Code::IOERR_DELETE_NOENT)
    }

    fn exists(&self, name: &str) -> Result<bool, Code> {
        Ok(self.files.lock().unwrap().contains_key(name))
    }
}

impl DiskFile {
    fn with<T>(&self, act: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        act(self.disk.files.lock().unwrap().entry(self.name.clone()).or_default())
    }
}

impl File for DiskFile {
    fn read(&mut self, offset: u64, buffer: &mut [u8]) -> Result<usize, Code> {
        assert!(buffer.iter().all(|byte| *byte == 0), "what is not read must be zeros");
        self.disk.burn(Code::IOERR_READ)?;
        self.with(|bytes| {
            let from = (offset as usize).min(bytes.len());
            let count = buffer.len().min(bytes.len() - from);
            buffer[..count].copy_from_slice(&bytes[from..from + count]);
            Ok(count)
        })
    }

    fn write(&mut self, offset: u64, new: &[u8]) -> Result<(), Code> {
        self.disk.burn(Code::IOERR_WRITE)?;
        self.with(|bytes| {
            let (from, to) = (offset as usize, offset as usize + new.len());
            bytes.resize(bytes.len().max(to), 0);
            bytes[from..to].copy_from_slice(new);
            Ok(())
        })
    }

    fn truncate(&mut self, bytes: u64) -> Result<(), Code> {
        self.with(|content| content.resize(bytes as usize, 0));
        Ok(())
    }

    fn size(&mut self) -> Result<u64, Code> {
        Ok(self.with(|bytes| bytes.len() as u64))
    }
}

impl Drop for DiskFile {
    fn drop(&mut self) {
        if self.delete_on_close {
            self.disk.files.lock().unwrap().remove(&self.name);
        }
    }
}

/// Numbers that look random, and are the same every time.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) % bound
    }
}

fn scribble(connection: &Connection, numbers: &mut Numbers, statements: usize) {
    for _ in 0..statements {
        let (key, size) = (numbers.below(300) as i64, numbers.below(9000) as i64);
        let outcome = match numbers.below(10) {
            0 => connection.execute("DELETE FROM t WHERE k % 7 = ?1 % 7", [key]),
            1 => connection.execute("UPDATE t SET v = zeroblob(?2) WHERE k > ?1", [key, size / 20]),
            2 => connection.execute_batch("BEGIN; DELETE FROM t; ROLLBACK").map(|()| 0),
            3 => connection.execute_batch("VACUUM").map(|()| 0),
            _ => connection
                .execute("INSERT OR REPLACE INTO t VALUES (?1, randomblob(?2))", [key, size]),
        };
        outcome.unwrap();
    }
}

fn check(connection: &Connection) {
    let sound: String =
        connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(sound, "ok");
}

fn create(connection: &Connection, pragmas: &str) {
    connection.execute_batch(pragmas).unwrap();
    let table = "CREATE TABLE t (k INTEGER PRIMARY KEY, v BLOB); CREATE INDEX i ON t (v)";
    connection.execute_batch(table).unwrap();
}

#[test]
fn a_database_stays_whole_in_every_journal_mode() {
    for (number, mode) in ["DELETE", "TRUNCATE", "PERSIST", "MEMORY"].into_iter().enumerate() {
        let (disk, name) = (Disk::default(), format!("whole {mode}"));
        register(&name, disk.clone()).unwrap();
        let mut numbers = Numbers(number as u64);
        let connection = disk.open(&name);
        create(&connection, &format!("PRAGMA journal_mode = {mode}; PRAGMA cache_size = 10"));
        scribble(&connection, &mut numbers, 300);
        check(&connection);
        let count = |connection: &Connection| -> (i64, i64) {
            let sum = "SELECT count(*), sum(k * length(v)) FROM t";
            connection.query_row(sum, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap()
        };
        let before = count(&connection);
        drop(connection);
        let connection = disk.open(&name);
        assert_eq!(count(&connection), before, "{mode}");
        check(&connection);
    }
}

#[test]
fn a_file_that_fails_fails_the_statement_and_no_more() {
    let disk = Disk::faulty(Fault::Fails);
    register("fails", disk.clone()).unwrap();
    let connection = disk.open("fails");
    // With a journal in memory, a rollback that fails as well would be the end of the database.
    create(&connection, "PRAGMA journal_mode = DELETE; PRAGMA cache_size = 10");
    let mut numbers = Numbers(7);
    scribble(&connection, &mut numbers, 100);
    let mut failed = 0;
    for fuse in 0..60 {
        disk.light(fuse);
        failed += usize::from(connection.execute("UPDATE t SET v = randomblob(900)", []).is_err());
        disk.light(usize::MAX);
        check(&connection);
    }
    assert!(failed > 10, "{failed}");
    scribble(&connection, &mut numbers, 50);
    check(&connection);
}

#[test]
fn a_full_file_says_so() {
    let disk = Disk::faulty(Fault::Full);
    register("full", disk.clone()).unwrap();
    let connection = disk.open("full");
    create(&connection, "PRAGMA journal_mode = MEMORY");
    disk.light(0);
    let error = connection.execute("INSERT INTO t VALUES (1, 'x')", []).unwrap_err();
    assert_eq!(error.sqlite_error_code(), Some(rusqlite::ErrorCode::DiskFull));
}

#[test]
fn a_panic_ends_at_the_file_which_stays_broken() {
    let disk = Disk::faulty(Fault::Panics);
    register("panics", disk.clone()).unwrap();
    let connection = disk.open("panics");
    create(&connection, "PRAGMA journal_mode = MEMORY");
    disk.light(0);
    let insert = |connection: &Connection| connection.execute("INSERT INTO t VALUES (1, 'x')", []);
    let error = insert(&connection).unwrap_err();
    assert_eq!(error.sqlite_error_code(), Some(rusqlite::ErrorCode::SystemIoFailure));
    disk.light(usize::MAX);
    assert!(insert(&connection).is_err());
    drop(connection);
    assert_eq!(insert(&disk.open("panics")).unwrap(), 1);
}

#[test]
fn a_write_ahead_log_is_refused() {
    let disk = Disk::default();
    register("no log", disk.clone()).unwrap();
    for locking in ["NORMAL", "EXCLUSIVE"] {
        let connection = disk.open("no log");
        connection.execute_batch(&format!("PRAGMA locking_mode = {locking}")).unwrap();
        let mode: Result<String, _> =
            connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0));
        // An exclusive connection opens the log only when it needs it.
        let written = connection.execute_batch("CREATE TABLE t (k)");
        assert!(mode.as_deref() != Ok("wal") || written.is_err(), "{locking}: {mode:?}");
        assert!(!disk.exists("db-wal").unwrap());
    }
}

#[test]
fn temporary_files_come_and_go() {
    let disk = Disk::default();
    register("temporary", disk.clone()).unwrap();
    let connection = disk.open("temporary");
    connection.execute_batch("PRAGMA temp_store = FILE; PRAGMA cache_size = 5").unwrap();
    connection.execute_batch("CREATE TEMP TABLE t (v BLOB)").unwrap();
    for _ in 0..500 {
        connection.execute("INSERT INTO t VALUES (randomblob(?1))", params![5000]).unwrap();
    }
    let unnamed = |disk: &Disk| {
        disk.files.lock().unwrap().keys().filter(|name| name.starts_with("unnamed")).count()
    };
    assert!(unnamed(&disk) > 0);
    drop(connection);
    assert_eq!(unnamed(&disk), 0);
}

#[test]
fn randomness_and_time_are_those_of_the_default() {
    let disk = Disk::default();
    register("time", disk.clone()).unwrap();
    let text = |connection: &Connection, sql: &str| -> String {
        connection.query_row(sql, [], |row| row.get(0)).unwrap()
    };
    let connection = disk.open("time");
    assert!(text(&connection, "SELECT date('now')").as_str() > "2020-01-01");
    let random = "SELECT hex(randomblob(16))";
    assert_ne!(text(&connection, random), text(&connection, random));
}

#[test]
fn names_are_registered_once_and_are_short() {
    register("once", Disk::default()).unwrap();
    assert_eq!(register("once", Disk::default()), Err(RegisterError::Taken));
    assert_eq!(register("a\0b", Disk::default()), Err(RegisterError::Name));
    let long = "x".repeat(600);
    assert!(Connection::open_with_flags_and_vfs(long, OpenFlags::default(), "once").is_err());
    let absent =
        Connection::open_with_flags_and_vfs("absent", OpenFlags::SQLITE_OPEN_READ_WRITE, "once");
    assert!(absent.is_err());
}
