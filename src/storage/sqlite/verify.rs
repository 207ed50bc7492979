//! Looks at all of a store: every page, every row.
//!
//! **Invariant:** it writes nothing, and goes on after what is damaged.

use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::fault::{self, Context as _};
use super::file::{self, PAGE_BYTES};
use super::read_only::open_set;
use super::reader::file_of;
use super::sum;
use crate::error::Result;
use crate::storage::row::{Key, ObjectKey, Table};

/// Something in a store that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The file.
    pub file: PathBuf,
    /// Where in the file, as far as that is known: where the page begins.
    pub offset: Option<u64>,
    /// What is wrong, for people.
    pub what: String,
}

/// Reads all of a store, served or not, and returns what is damaged: at most 100 findings of a kind in a file.
/// Takes as long as it takes to read the files.
///
/// # Errors
/// *failed* where the store can't be opened at all; the message says why.
pub fn verify(directory: &Path) -> Result<Vec<Damage>> {
    let set = open_set(directory, file::open_read_only)?;
    let files = set.len();
    let mut found = Vec::new();
    for (index, (path, connection)) in set.iter().enumerate() {
        found.extend(pages(connection, path));
        for table in Table::ALL {
            found.extend(rows(connection, path, table, |shard| file_of(shard, files) == index));
        }
    }
    Ok(found)
}

/// Has SQLite look at every page.
fn pages(connection: &Connection, path: &Path) -> Vec<Damage> {
    let read = || {
        let mut statement = connection.prepare("PRAGMA integrity_check(100)")?;
        let lines = statement.query_map([], |row| row.get::<_, String>(0))?;
        lines.collect::<rusqlite::Result<Vec<_>>>()
    };
    let lines = match read() {
        Ok(lines) => lines,
        Err(error) => return vec![failed(path, &error)],
    };
    let lines = lines.iter().flat_map(|line| line.lines());
    let bad = lines.filter(|line| *line != "ok" && !line.starts_with("***"));
    let damage = |line: &str| {
        let page = page_of(line).and_then(|page| page.checked_sub(1));
        let offset = page.map(|page| page * u64::from(PAGE_BYTES));
        Damage { file: path.to_owned(), offset, what: said(line) }
    };
    bad.map(damage).collect()
}

/// Puts a line of SQLite's report into words, where it has but a number.
fn said(line: &str) -> String {
    let code = format!("error code={}", rusqlite::ffi::SQLITE_IOERR_DATA);
    line.replace(&code, "it does not match its checksum")
}

/// Returns the page that a line of SQLite's report is about.
fn page_of(line: &str) -> Option<u64> {
    let mut words = line.split([' ', ':']);
    words.find(|word| word.eq_ignore_ascii_case("page"))?;
    words.next()?.parse().ok()
}

/// Looks at every row of a table: its checksum, its key, and whether its object belongs here.
fn rows(
    connection: &Connection,
    path: &Path,
    table: Table,
    is_here: impl Fn(u16) -> bool,
) -> Vec<Damage> {
    let mut found = Vec::new();
    let mut note = |what: String| {
        let full = found.len() >= FINDINGS_MAX;
        if !full {
            found.push(Damage { file: path.to_owned(), offset: None, what });
        }
        !full
    };
    let mut read = || -> rusqlite::Result<()> {
        let sql = format!("SELECT key, value, sum FROM \"{}\" ORDER BY key", table.name());
        let mut statement = connection.prepare(&sql)?;
        let mut rows = statement.query([])?;
        let mut last: Option<Vec<u8>> = None;
        while let Some(row) = rows.next()? {
            let (bytes, value) = (row.get_ref(0)?.as_blob()?, row.get_ref(1)?.as_blob()?);
            let sum: i64 = row.get(2)?;
            let key = Key::from_stored(table, bytes);
            let in_order = last.as_deref().is_none_or(|last| last < bytes);
            last = Some(bytes.to_vec());
            let wrong = if sum::of_row(&key, value) != sum {
                "does not match its checksum"
            } else if !in_order {
                "is not in its place"
            } else if !is_whole(&key) {
                "has a key that names nothing"
            } else if !key.object_key().is_some_and(|object| is_here(object.shard())) {
                "is of an object that belongs into another file"
            } else {
                continue;
            };
            if !note(format!("row {key:?} {wrong}")) {
                break;
            }
        }
        Ok(())
    };
    if let Err(error) = read() {
        found.push(failed(path, &error));
    }
    found
}

/// Returns what it means that something could not be read.
fn failed(path: &Path, error: &rusqlite::Error) -> Damage {
    match fault::page(error) {
        Some(page) => Damage {
            file: fault::file_of(&page, path).to_owned(),
            offset: Some(page.offset),
            what: page.to_string(),
        },
        None => {
            let what = fault::of_sqlite(path, error).message;
            Damage { file: path.to_owned(), offset: None, what }
        }
    }
}

/// Returns whether a key is one that could have been written.
fn is_whole(key: &Key) -> bool {
    let length = key.bytes().len();
    match key.table() {
        Table::Object => length == ObjectKey::LEN,
        Table::Value => length >= ObjectKey::LEN,
        Table::Page => length == ObjectKey::LEN + 4,
        Table::Alarm => length == 8 + ObjectKey::LEN,
        Table::History => match key.of_history() {
            Some((_, row)) => row.table() == Table::Value || is_whole(&row),
            None => false,
        },
    }
}

/// How many findings of a table are told.
const FINDINGS_MAX: usize = 100;

/// Says what is damaged, as an error, where something is.
pub(super) fn quick(connection: &Connection, path: &Path) -> Result<()> {
    let line: String =
        connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).about(path)?;
    if line == "ok" {
        return Ok(());
    }
    let offset = page_of(&line).and_then(|page| page.checked_sub(1));
    Err(match offset {
        Some(page) => {
            let offset = page * u64::from(PAGE_BYTES);
            fault::damaged(path, format_args!("{} (offset {offset})", said(&line)))
        }
        None => fault::damaged(path, said(&line)),
    })
}
