//! One file of a store: how it is made, how it is looked at before SQLite sees it, and how it is opened.
//!
//! **Invariant:** a file that is not whole, not ours or newer than this code is an error that names it.
//! **Invariant:** all connections to a file go through the file system that checks its pages.
//! **Invariant:** nothing here reads a file past SQLite while a connection of this process has it open: closing
//! it would take away the locks of that connection.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::wal::CheckpointMode;
use rusqlite::{Connection, FileControl, OpenFlags};
use stubborn_vfs::sums;

use super::fault::{self, Context as _, of_io};
use super::meta::{self, APPLICATION_ID, FORMAT, Meta};
use crate::error::{Error, Result};
use crate::storage::row::Table;

/// The size of a page, in bytes.
pub const PAGE_BYTES: u32 = 8192;

/// Makes the tables of a new file, which exists and is empty.
pub(super) fn create(path: &Path, meta: &Meta) -> Result<()> {
    let connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    carry(&connection, path, &meta.page_id())?;
    let mut sql = format!(
        "PRAGMA page_size = {PAGE_BYTES};
         PRAGMA application_id = {APPLICATION_ID};
         PRAGMA user_version = {FORMAT};
         PRAGMA journal_mode = WAL;
         BEGIN;
         CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
         CREATE TABLE space (number INTEGER PRIMARY KEY, fingerprint BLOB NOT NULL UNIQUE, name TEXT NOT NULL);
         CREATE TABLE shard (shard INTEGER PRIMARY KEY, epoch INTEGER NOT NULL);"
    );
    for table in Table::ALL {
        let name = table.name();
        sql += &format!(
            "CREATE TABLE \"{name}\" (key BLOB PRIMARY KEY, value BLOB NOT NULL, sum INTEGER NOT NULL) WITHOUT ROWID;"
        );
    }
    connection.execute_batch(&sql).about(path)?;
    for (key, value) in meta.rows() {
        connection.execute("INSERT INTO meta VALUES (?1, ?2)", (key, value)).about(path)?;
    }
    connection.execute_batch("COMMIT").about(path)?;
    // Its name is given to the file alone: nothing may be left in the log.
    if !settle_if_alone(&connection, path)? {
        let path = path.display();
        return Err(Error::failed(format!("{path} is locked by another program; try again")));
    }
    close(connection, path)
}

/// Has the pages of a new file carry checksums, with an id that tells them from those of other files.
fn carry(connection: &Connection, path: &Path, id: &str) -> Result<()> {
    let mut bytes = sums::RESERVED_BYTES;
    let reserve = FileControl::ReserveBytes(&mut bytes);
    connection.file_control(None::<&str>, reserve).about(path)?;
    connection.execute_batch(&format!("PRAGMA page_sums = '{id}'")).about(path)
}

/// Looks at the head of a file that no connection of this process has open.
pub(super) fn inspect(path: &Path) -> Result<()> {
    let mut head = [0; HEAD_BYTES];
    check_first_page(path)?;
    let mut file = File::open(path).map_err(of_io("open", path))?;
    file.read_exact(&mut head).map_err(of_io("read", path))?;
    check_head(path, &head)
}

fn check_first_page(path: &Path) -> Result<()> {
    let bytes = path.metadata().map_err(of_io("read", path))?.len();
    if bytes < u64::from(PAGE_BYTES) {
        let what = format_args!("it ends at offset {bytes}, in its first page");
        return Err(fault::damaged(path, what));
    }
    Ok(())
}

/// Checks the first bytes of a file.
fn check_head(path: &Path, head: &[u8; HEAD_BYTES]) -> Result<()> {
    let at = |offset: usize| {
        let bytes = head.get(offset..).and_then(|rest| rest.first_chunk());
        bytes.copied().map(u32::from_be_bytes).unwrap_or_default()
    };
    if !head.starts_with(b"SQLite format 3\0") || at(68) != APPLICATION_ID {
        return Err(Error::failed(format!(
            "{} is not a file of a store, or its first page is damaged at offset 0: restore a backup",
            path.display()
        )));
    }
    check_format(path, at(60))?;
    let page_bytes = at(16) >> 16;
    if page_bytes != PAGE_BYTES {
        return Err(fault::damaged(
            path,
            format_args!("its pages have {page_bytes} bytes, says offset 16, and not {PAGE_BYTES}"),
        ));
    }
    let reserved = head.get(20).copied().unwrap_or_default();
    if ![0, sums::RESERVED_BYTES].contains(&i32::from(reserved)) {
        let what = format_args!("its pages keep {reserved} bytes for checksums, says offset 20");
        return Err(fault::damaged(path, what));
    }
    Ok(())
}

fn check_format(path: &Path, format: u32) -> Result<()> {
    match format {
        FORMAT => Ok(()),
        newer if newer > FORMAT => Err(meta::newer(path, newer)),
        other => Err(fault::damaged(path, format_args!("it says that it is of format {other}"))),
    }
}

/// Opens a file for the one thread that writes it.
pub(super) fn open_writer(path: &Path) -> Result<Connection> {
    let connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let sql = format!(
        "PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 0; PRAGMA cache_size = -65536;
         PRAGMA journal_size_limit = {LOG_BYTES_KEPT};"
    );
    connection.execute_batch(&sql).about(path)?;
    check(&connection, path)?;
    check_mode(&connection, path)?;
    Ok(connection)
}

/// Opens a file for one thread that reads it, of the process that serves it.
///
/// It might write, so that whoever closes the file last can leave it tidy; no statement may.
pub(super) fn open_reader(path: &Path) -> Result<Connection> {
    let connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    connection.execute_batch("PRAGMA query_only = ON; PRAGMA cache_size = -8192;").about(path)?;
    Ok(connection)
}

/// Opens a file that another process may serve.
pub(super) fn open_read_only(path: &Path) -> Result<Connection> {
    check_first_page(path)?;
    let connection = connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    connection.execute_batch("PRAGMA query_only = ON").about(path)?;
    check(&connection, path)?;
    check_mode(&connection, path)?;
    Ok(connection)
}

/// Opens a file of a backup: no process writes it, and it may lie where nobody can.
pub(super) fn open_backup(path: &Path) -> Result<Connection> {
    if log_bytes(path) > 0 {
        return open_read_only(path); // a server has run on it, and did not end
    }
    inspect(path)?;
    let escaped: String = path
        .as_os_str()
        .as_encoded_bytes()
        .iter()
        .map(|byte| match byte {
            b'/' | b'.' | b'-' | b'_' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => {
                char::from(*byte).to_string()
            }
            other => format!("%{other:02x}"),
        })
        .collect();
    let uri = PathBuf::from(format!("file:{escaped}?immutable=1"));
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    let connection = connect(&uri, flags)?;
    check(&connection, path)?;
    check_length(&connection, path)?;
    Ok(connection)
}

/// Opens a new file that a store's file is copied into. Who copies syncs it, once.
///
/// Its pages carry checksums where those of the other one do.
pub(super) fn open_copy(path: &Path, of: &Connection) -> Result<Connection> {
    let connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let kind: String = pragma(of, path, "page_sums")?;
    if kind == "plain" {
        connection.execute_batch("PRAGMA page_sums = plain").about(path)?;
    } else {
        carry(&connection, path, &kind)?;
    }
    let sql = "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;";
    connection.execute_batch(sql).about(path)?;
    Ok(connection)
}

/// Closes a connection whose log is settled, or that has none, and takes away an empty log where nobody else has it.
pub(super) fn close(connection: Connection, path: &Path) -> Result<()> {
    leave_log(&connection, false).about(path)?;
    connection.close().map_err(|(_, error)| fault::of_sqlite(path, &error))
}

/// Brings what the log holds into the file and checks that the file is as long as it says. Nobody else writes.
pub(super) fn settle(connection: &Connection, path: &Path) -> Result<()> {
    // Another process may be reading, and then the log stays.
    settle_if_alone(connection, path).map(drop)
}

/// As [`settle`]; returns whether the log is settled, which another process that reads can prevent.
fn settle_if_alone(connection: &Connection, path: &Path) -> Result<bool> {
    match connection.wal_checkpoint_v2(None::<&str>, CheckpointMode::TRUNCATE) {
        Ok(_) => check_length(connection, path).map(|()| true),
        Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy) => {
            // Pages that are not in the file may be in the log.
            if log_bytes(path) == 0 {
                check_length(connection, path)?;
            }
            Ok(false)
        }
        Err(error) => Err(fault::of_sqlite(path, &error)),
    }
}

fn log_bytes(path: &Path) -> u64 {
    path.with_extension("db-wal").metadata().map_or(0, |log| log.len())
}

/// Says whether closing a connection leaves the log as it is. Otherwise whoever closes a file last brings the log into
/// it, and says nothing when that fails.
fn leave_log(connection: &Connection, leave: bool) -> rusqlite::Result<()> {
    let setting = DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE;
    connection.set_db_config(setting, leave).map(drop)
}

fn check_length(connection: &Connection, path: &Path) -> Result<()> {
    let pages: u32 = pragma(connection, path, "page_count")?;
    let bytes = path.metadata().map_err(of_io("read", path))?.len();
    let whole = u64::from(pages) * u64::from(PAGE_BYTES);
    if bytes < whole {
        let what = format_args!("it ends at offset {bytes}, but says that it has {whole} bytes");
        return Err(fault::damaged(path, what));
    }
    Ok(())
}

/// Checks that a file is kept in the way that lets readers and the writer go on beside each other.
fn check_mode(connection: &Connection, path: &Path) -> Result<()> {
    let mode: String = pragma(connection, path, "journal_mode")?;
    if mode != "wal" {
        return Err(fault::damaged(
            path,
            format_args!("it is in journal mode {mode}, and not in wal"),
        ));
    }
    Ok(())
}

/// Checks that an open file is one of a store and has its tables.
fn check(connection: &Connection, path: &Path) -> Result<()> {
    let id: u32 = pragma(connection, path, "application_id")?;
    if id != APPLICATION_ID {
        let path = path.display();
        return Err(Error::failed(format!(
            "{path} is not a file of a store: choose another directory"
        )));
    }
    check_format(path, pragma(connection, path, "user_version")?)?;
    let mut statement =
        connection.prepare("SELECT name FROM sqlite_schema WHERE type = 'table'").about(path)?;
    let names = statement.query_map([], |row| row.get(0)).about(path)?;
    let names: Vec<String> = names.collect::<Result<_, _>>().about(path)?;
    let mut wanted = ["meta", "space", "shard"].into_iter().chain(Table::ALL.map(Table::name));
    match wanted.find(|name| !names.iter().any(|known| known == name)) {
        Some(missing) => Err(fault::damaged(path, format_args!("it has no table {missing}"))),
        None => Ok(()),
    }
}

fn pragma<T: rusqlite::types::FromSql>(
    connection: &Connection,
    path: &Path,
    name: &str,
) -> Result<T> {
    connection.pragma_query_value(None, name, |row| row.get(0)).about(path)
}

fn connect(path: &Path, flags: OpenFlags) -> Result<Connection> {
    let flags = flags | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let system = sums::file_system().map_err(|error| Error::failed(error.to_string()))?;
    let connection = Connection::open_with_flags_and_vfs(path, flags, system).about(path)?;
    connection.busy_timeout(BUSY_TIMEOUT).about(path)?;
    leave_log(&connection, true).about(path)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
    let sql = "PRAGMA cell_size_check = ON; PRAGMA temp_store = MEMORY; PRAGMA mmap_size = 0;";
    connection.execute_batch(sql).about(path)?;
    Ok(connection)
}

/// The head of a file, as SQLite has it.
const HEAD_BYTES: usize = 100;
/// How long to wait for another process: one that copies the store, or closes it.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// A log that is begun anew is cut to so many bytes.
const LOG_BYTES_KEPT: u64 = 64 << 20;
/// All statements on all tables.
const STATEMENTS_KEPT: usize = 64;
