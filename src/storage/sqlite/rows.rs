//! Rows in a file: how one is found, how a range of them is read, how a change is written.
//!
//! **Invariant:** a row leaves here only if its checksum is right. One that is not fails the read; in the table of
//! alarms, of which the records of objects are the truth, it is told of in the log and left out.
//! **Invariant:** no statement is left open: one would hold on to an old state of the file.

use std::ops::Bound;
use std::path::Path;

use bytes::Bytes;
use rusqlite::{CachedStatement, Connection, OptionalExtension as _, Row};

use super::fault::{self, Context as _};
use super::sum;
use crate::error::{Error, Result};
use crate::storage::engine::{Change, Order};
use crate::storage::overlay::Rows;
use crate::storage::row::{Key, KeyRange, Table};

/// Finds a row.
pub(super) fn find(connection: &Connection, file: &Path, key: &Key) -> Result<Option<Bytes>> {
    let mut statement = connection.prepare_cached(of_table(key.table()).find).about(file)?;
    let read = |row: &Row<'_>| Ok((copied(row, 0)?, row.get(1)?));
    let found: Option<(Bytes, i64)> =
        statement.query_row([key.bytes()], read).optional().about(file)?;
    found.map(|(value, sum)| checked(file, key, value, sum)).transpose()
}

/// Reads at most `limit` rows of a range, or some fewer where they are large.
pub(super) fn read(
    connection: &Connection,
    file: &Path,
    range: &KeyRange,
    order: Order,
    limit: usize,
) -> Result<Rows> {
    if range.is_empty() {
        return Ok(Rows::default());
    }
    let statements = of_table(range.table);
    let (from, to) = bounds(range);
    let sql = match (order, &to) {
        (Order::Ascending, Some(_)) => statements.up,
        (Order::Ascending, None) => statements.up_all,
        (Order::Descending, Some(_)) => statements.down,
        (Order::Descending, None) => statements.down_all,
    };
    let mut statement = connection.prepare_cached(sql).about(file)?;
    let mut found = match &to {
        Some(to) => statement.query([&from, to]),
        None => statement.query([&from]),
    }
    .about(file)?;
    let (mut rows, mut bytes) = (Vec::new(), 0);
    while let Some(row) = found.next().about(file)? {
        let (key, value, sum) = parts(row).about(file)?;
        let key = Key::from_stored(range.table, &key);
        bytes += key.bytes().len() + value.len();
        match checked(file, &key, value, sum) {
            Ok(value) => rows.push((key, Some(value))),
            // Only an index: what it says of one object must not hide what it says of all that come later.
            Err(error) if range.table == Table::Alarm => {
                tracing::error!("{}; the alarm of this object may not ring", error.message);
                continue;
            }
            Err(error) => return Err(error),
        }
        if rows.len() >= limit || bytes >= CHUNK_BYTES {
            return Ok(Rows { rows, more: true });
        }
    }
    Ok(Rows { rows, more: false })
}

/// Writes changes, one after the other. It keeps what it has said to SQLite until it is dropped, which is before the
/// transaction ends.
pub(super) struct Writer<'a> {
    connection: &'a Connection,
    /// Few at a time: a search is faster than a map.
    kept: Vec<(&'static str, CachedStatement<'a>)>,
}

impl<'a> Writer<'a> {
    /// Makes one for the transaction that a connection has open.
    pub fn new(connection: &'a Connection) -> Self {
        Self { connection, kept: Vec::new() }
    }

    /// Writes a change. `sum` is the checksum of the row that it puts.
    pub fn write(&mut self, change: &Change, sum: i64) -> rusqlite::Result<()> {
        match change {
            Change::Put(key, value) => {
                let put = self.statement(of_table(key.table()).put)?;
                put.execute((key.bytes(), value.as_ref(), sum))?;
            }
            Change::Delete(key) => {
                self.statement(of_table(key.table()).delete)?.execute([key.bytes()])?;
            }
            Change::Clear(range) if range.is_empty() => {}
            Change::Clear(range) => {
                let statements = of_table(range.table);
                let (from, to) = bounds(range);
                match &to {
                    Some(to) => self.statement(statements.clear)?.execute([&from, to])?,
                    None => self.statement(statements.clear_all)?.execute([&from])?,
                };
            }
        }
        Ok(())
    }

    fn statement(&mut self, sql: &'static str) -> rusqlite::Result<&mut CachedStatement<'a>> {
        let is_it = |known: &'static str| std::ptr::eq(known, sql);
        if !self.kept.iter().any(|(known, _)| is_it(known)) {
            self.kept.push((sql, self.connection.prepare_cached(sql)?));
        }
        let mut kept = self.kept.iter_mut().filter(|(known, _)| is_it(known));
        kept.next().map(|(_, statement)| statement).ok_or(rusqlite::Error::InvalidQuery)
    }
}

/// Returns the first key of a range and the first key behind it; none where nothing is behind it.
fn bounds(range: &KeyRange) -> (Vec<u8>, Option<Vec<u8>>) {
    // No bytes lie between a key and the key with a zero behind it.
    let next = |key: &[u8]| [key, &[0]].concat();
    let from = match &range.from {
        Bound::Included(from) => from.clone(),
        Bound::Excluded(from) => next(from),
        Bound::Unbounded => Vec::new(),
    };
    let to = match &range.to {
        Bound::Included(to) => Some(next(to)),
        Bound::Excluded(to) => Some(to.clone()),
        Bound::Unbounded => None,
    };
    (from, to)
}

fn parts(row: &Row<'_>) -> rusqlite::Result<(Bytes, Bytes, i64)> {
    Ok((copied(row, 0)?, copied(row, 1)?, row.get(2)?))
}

fn copied(row: &Row<'_>, column: usize) -> rusqlite::Result<Bytes> {
    Ok(Bytes::copy_from_slice(row.get_ref(column)?.as_blob()?))
}

fn checked(file: &Path, key: &Key, value: Bytes, sum: i64) -> Result<Bytes> {
    if sum::of_row(key, &value) == sum { Ok(value) } else { Err(mismatch(file, key)) }
}

fn mismatch(file: &Path, key: &Key) -> Error {
    fault::damaged(file, format_args!("row {key:?} does not match its checksum"))
}

/// What is said to SQLite about one table.
struct Statements {
    find: &'static str,
    put: &'static str,
    delete: &'static str,
    clear: &'static str,
    clear_all: &'static str,
    up: &'static str,
    up_all: &'static str,
    down: &'static str,
    down_all: &'static str,
}

macro_rules! statements {
    ($table:literal) => {
        Statements {
            find: concat!("SELECT value, sum FROM \"", $table, "\" WHERE key = ?1"),
            put: concat!("REPLACE INTO \"", $table, "\" (key, value, sum) VALUES (?1, ?2, ?3)"),
            delete: concat!("DELETE FROM \"", $table, "\" WHERE key = ?1"),
            clear: concat!("DELETE FROM \"", $table, "\" WHERE key >= ?1 AND key < ?2"),
            clear_all: concat!("DELETE FROM \"", $table, "\" WHERE key >= ?1"),
            up: concat!(
                "SELECT key, value, sum FROM \"",
                $table,
                "\" WHERE key >= ?1 AND key < ?2 ORDER BY key"
            ),
            up_all: concat!(
                "SELECT key, value, sum FROM \"",
                $table,
                "\" WHERE key >= ?1 ORDER BY key"
            ),
            down: concat!(
                "SELECT key, value, sum FROM \"",
                $table,
                "\" WHERE key >= ?1 AND key < ?2 ORDER BY key DESC"
            ),
            down_all: concat!(
                "SELECT key, value, sum FROM \"",
                $table,
                "\" WHERE key >= ?1 ORDER BY key DESC"
            ),
        }
    };
}

fn of_table(table: Table) -> &'static Statements {
    static OBJECT: Statements = statements!("object");
    static VALUE: Statements = statements!("value");
    static PAGE: Statements = statements!("page");
    static ALARM: Statements = statements!("alarm");
    static HISTORY: Statements = statements!("history");
    match table {
        Table::Object => &OBJECT,
        Table::Value => &VALUE,
        Table::Page => &PAGE,
        Table::Alarm => &ALARM,
        Table::History => &HISTORY,
    }
}

/// How many bytes of rows are read at once, about.
const CHUNK_BYTES: usize = 1 << 20;
