//! Looks at all of a store: every page, every row, and whether what is said twice is the same.
//!
//! **Invariant:** it writes nothing, and goes on after what is damaged, where the files can be opened at all.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension as _};

use super::fault::{self, Context as _};
use super::file::{self, PAGE_BYTES};
use super::read_only::open_set;
use super::reader::file_of;
use super::sum;
use crate::error::Result;
use crate::storage::record::Record;
use crate::storage::row::{Key, ObjectKey, Space, Table};

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
    look(&open_set(directory, file::open_read_only)?)
}

/// Says what is damaged, as an error, where something is.
pub(super) fn whole(set: &[(PathBuf, Connection)]) -> Result<()> {
    let found = look(set)?;
    let Some(Damage { file, offset, what }) = found.first() else { return Ok(()) };
    let at = offset.map_or(String::new(), |offset| format!(" (offset {offset})"));
    let more = match found.len() - 1 {
        0 => String::new(),
        more => format!(", and {more} more"),
    };
    Err(fault::damaged(file, format_args!("{what}{at}{more}")))
}

fn look(set: &[(PathBuf, Connection)]) -> Result<Vec<Damage>> {
    let (mut found, mut spaces) = (Vec::new(), BTreeMap::new());
    for (index, (path, connection)) in set.iter().enumerate() {
        // What is in several tables has to be of one moment.
        let begun = connection.execute_batch("BEGIN").about(path);
        found.extend(Notes::of(path).end(begun));
        found.extend(pages(connection, path));
        for table in Table::ALL {
            found.extend(rows(connection, path, table, |shard| file_of(shard, set.len()) == index));
        }
        found.extend(records(connection, path, &mut spaces));
        found.extend(alarms(connection, path));
        // Where it fails there is nothing to give up.
        drop(connection.execute_batch("ROLLBACK"));
    }
    // Last: a namespace has its number before it has objects.
    if let Some((path, connection)) = set.first() {
        found.extend(unknown(connection, path, &spaces));
    }
    Ok(found)
}

/// Looks at the records of objects: each can be read, and its alarm is among those that will ring. Notes an object of
/// each namespace.
fn records(
    connection: &Connection,
    path: &Path,
    spaces: &mut BTreeMap<Space, ObjectKey>,
) -> Vec<Damage> {
    let mut notes = Notes::of(path);
    let read = sound_rows(connection, path, Table::Object, &mut |key, value| {
        let Some(object) = key.object_key() else { return Ok(true) };
        spaces.entry(object.space).or_insert(object);
        let wrong = match Record::decode(&object, value) {
            Err(error) => error.message,
            Ok(Record { alarm: Some(alarm), .. }) => {
                let alarm = Key::alarm(alarm.due_ms, &object);
                if value_of(connection, path, &alarm)?.is_some() {
                    return Ok(true);
                }
                format!("row {alarm:?} is missing: the alarm of object {} will not ring", object.id)
            }
            Ok(_) => return Ok(true),
        };
        Ok(notes.add(wrong))
    });
    notes.end(read)
}

/// Looks whether each row of the table of alarms is of an object that has this alarm.
fn alarms(connection: &Connection, path: &Path) -> Vec<Damage> {
    let mut notes = Notes::of(path);
    let read = sound_rows(connection, path, Table::Alarm, &mut |key, _| {
        let Some(object) = key.object_key() else { return Ok(true) };
        let record = value_of(connection, path, &Key::object(&object))?;
        // A record that can't be read is told of elsewhere.
        let record = record.map(|record| Record::decode(&object, &record)).transpose();
        let Ok(record) = record else { return Ok(true) };
        let due_ms = record.and_then(|record| record.alarm).map(|alarm| alarm.due_ms);
        let is_its_own = due_ms.is_some() && due_ms == key.due_ms();
        Ok(is_its_own || notes.add(format!("row {key:?} is of an object that has no such alarm")))
    });
    notes.end(read)
}

/// Looks whether the namespaces of objects are known.
fn unknown(
    connection: &Connection,
    path: &Path,
    spaces: &BTreeMap<Space, ObjectKey>,
) -> Vec<Damage> {
    let mut notes = Notes::of(path);
    let mut read = || -> Result<()> {
        let sql = "SELECT EXISTS (SELECT 1 FROM space WHERE number = ?1)";
        for (space, object) in spaces {
            let known: bool = connection.query_row(sql, [space.0], |row| row.get(0)).about(path)?;
            if !known
                && !notes.add(format!("object {object:?} is of a namespace that is not there"))
            {
                break;
            }
        }
        Ok(())
    };
    let read = read();
    notes.end(read)
}

/// Visits the rows of a table whose checksums are right, until `visit` returns false.
fn sound_rows(
    connection: &Connection,
    path: &Path,
    table: Table,
    visit: &mut dyn FnMut(&Key, &[u8]) -> Result<bool>,
) -> Result<()> {
    let sql = format!("SELECT key, value, sum FROM \"{}\" ORDER BY key", table.name());
    let mut statement = connection.prepare(&sql).about(path)?;
    let mut rows = statement.query([]).about(path)?;
    while let Some(row) = rows.next().about(path)? {
        let read = || Ok((row.get_ref(0)?.as_blob()?, row.get_ref(1)?.as_blob()?, row.get(2)?));
        let (bytes, value, sum): (&[u8], &[u8], i64) = read().about(path)?;
        let key = Key::from_stored(table, bytes);
        if sum::of_row(&key, value) == sum && !visit(&key, value)? {
            break;
        }
    }
    Ok(())
}

/// Returns the value of a row, whatever its checksum.
fn value_of(connection: &Connection, path: &Path, key: &Key) -> Result<Option<Vec<u8>>> {
    let sql = format!("SELECT value FROM \"{}\" WHERE key = ?1", key.table().name());
    let mut statement = connection.prepare_cached(&sql).about(path)?;
    statement.query_row([key.bytes()], |row| row.get(0)).optional().about(path)
}

/// What was found in a table, as far as there is room.
struct Notes<'a> {
    path: &'a Path,
    found: Vec<Damage>,
}

impl<'a> Notes<'a> {
    fn of(path: &'a Path) -> Self {
        Self { path, found: Vec::new() }
    }

    /// Notes something; returns whether there is room for more.
    fn add(&mut self, what: String) -> bool {
        self.found.push(Damage { file: self.path.to_owned(), offset: None, what });
        self.found.len() < FINDINGS_MAX
    }

    /// Returns what was found, and how reading ended where it did so early.
    fn end(mut self, read: Result<()>) -> Vec<Damage> {
        if let Err(error) = read {
            self.add(error.message);
        }
        self.found
    }
}

/// Has SQLite look at every page.
fn pages(connection: &Connection, path: &Path) -> Vec<Damage> {
    // What it has said before it met something that it can't go on from is worth the most.
    let mut lines = Vec::new();
    let mut read = || -> rusqlite::Result<()> {
        let mut statement = connection.prepare("PRAGMA integrity_check(100)")?;
        let said = statement.query_map([], |row| row.get::<_, String>(0))?;
        said.into_iter().try_for_each(|line| line.map(|line| lines.push(line)))
    };
    let failed = read().err().map(|error| failed(path, &error));
    let lines = lines.iter().flat_map(|line| line.lines());
    let bad = lines.filter(|line| *line != "ok" && !line.starts_with("***"));
    let damage = |line: &str| {
        let page = page_of(line).and_then(|page| page.checked_sub(1));
        let offset = page.map(|page| page * u64::from(PAGE_BYTES));
        Damage { file: path.to_owned(), offset, what: said(line) }
    };
    bad.map(damage).chain(failed).collect()
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
    let mut notes = Notes::of(path);
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
            if !notes.add(format!("row {key:?} {wrong}")) {
                break;
            }
        }
        Ok(())
    };
    if let Err(error) = read() {
        notes.found.push(failed(path, &error));
    }
    notes.found
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
