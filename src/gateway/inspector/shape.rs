//! What is answered, as JSON has it.
//!
//! **Invariant:** a text that others wrote is cut where it is long.

use serde::Serialize;

use crate::gateway::params::to_hex;
use crate::runtime::{
    Details, Happened, Listed, OpenSocket, Recent, Rows, Table, Tally, Trouble, Values,
};
use crate::storage::readable;
use crate::storage::sql::value::Value;

#[derive(Serialize)]
pub(super) struct Server {
    pub(super) version: &'static str,
    pub(super) threads: usize,
    /// Whether statements may change what is stored.
    pub(super) writes: bool,
    /// Where each bucket of latencies ends, in microseconds.
    pub(super) bounds_us: Vec<u64>,
    pub(super) namespaces: Vec<Namespace>,
}

#[derive(Serialize)]
pub(super) struct Namespace {
    pub(super) name: String,
    pub(super) class: String,
    pub(super) exposed: bool,
    pub(super) in_memory: u64,
}

#[derive(Serialize)]
pub(super) struct Live {
    pub(super) at_ms: u64,
    pub(super) namespaces: Vec<Counted>,
}

#[derive(Serialize)]
pub(super) struct Counted {
    name: String,
    in_memory: u64,
    fetches: u64,
    typed: u64,
    alarms: u64,
    sockets: u64,
    errors: u64,
    resets: u64,
    latencies: Vec<u64>,
}

impl Counted {
    pub(super) fn new(name: &str, tally: Tally) -> Self {
        let Tally { in_memory, fetches, typed, alarms, sockets, errors, resets, mut latencies } =
            tally;
        let used = latencies.iter().rposition(|count| *count > 0).map_or(0, |last| last + 1);
        latencies.truncate(used);
        let name = name.to_owned();
        Self { name, in_memory, fetches, typed, alarms, sockets, errors, resets, latencies }
    }
}

#[derive(Serialize)]
pub(super) struct Objects {
    pub(super) objects: Vec<Object>,
    pub(super) cursor: Option<String>,
}

#[derive(Serialize)]
pub(super) struct Object {
    pub(super) id: String,
    pub(super) name: Option<String>,
    pub(super) in_memory: bool,
    pub(super) has_stored_data: bool,
}

impl From<Listed> for Object {
    fn from(listed: Listed) -> Self {
        let Listed { id, name, has_stored_data, in_memory } = listed;
        Self { id: id.to_string(), name, in_memory, has_stored_data }
    }
}

#[derive(Serialize)]
pub(super) struct Whole {
    #[serde(flatten)]
    object: Object,
    is_recorded: bool,
    alarm: Option<Alarm>,
    keys: u64,
    bytes: u64,
    counted_all: bool,
    sql_bytes: u64,
    tables: Vec<Named>,
    /// Why there are no tables, where they can't be read.
    tables_error: Option<String>,
    sockets_count: usize,
    /// The first of them.
    sockets: Vec<OneSocket>,
}

#[derive(Serialize)]
struct OneSocket {
    number: u64,
    tags: Vec<String>,
    waiting_bytes: usize,
    attachment_bytes: usize,
}

impl From<OpenSocket> for OneSocket {
    fn from(open: OpenSocket) -> Self {
        let OpenSocket { number, tags, waiting_bytes, attachment_bytes } = open;
        Self { number, tags, waiting_bytes, attachment_bytes }
    }
}

#[derive(Serialize)]
struct Alarm {
    scheduled_ms: u64,
    due_ms: u64,
    failures: u32,
}

#[derive(Serialize)]
struct Named {
    name: String,
    sql: String,
}

impl Whole {
    pub(super) fn new(id: String, details: Details) -> Self {
        let Details { name, in_memory, is_recorded, has_stored_data, alarm, .. } = details;
        let alarm = alarm.map(|alarm| Alarm {
            scheduled_ms: alarm.scheduled_ms,
            due_ms: alarm.due_ms,
            failures: alarm.tries().counted,
        });
        let (tables, tables_error) = match details.tables {
            Ok(tables) => (tables, None),
            Err(error) => (Vec::new(), Some(error.message)),
        };
        let named = |Table { name, sql }| Named { name, sql: cut(sql).0 };
        Self {
            object: Object { id, name, in_memory, has_stored_data },
            is_recorded,
            alarm,
            keys: details.stored.keys,
            bytes: details.stored.bytes,
            counted_all: details.stored.is_all,
            sql_bytes: details.sql_bytes,
            tables: tables.into_iter().map(named).collect(),
            tables_error,
            sockets_count: details.sockets_count,
            sockets: details.sockets.into_iter().map(OneSocket::from).collect(),
        }
    }
}

#[derive(Serialize)]
pub(super) struct Page {
    values: Vec<Entry>,
    cursor: Option<String>,
}

#[derive(Serialize)]
struct Entry {
    key: String,
    bytes: usize,
    value: String,
    /// Whether the value is longer than that.
    cut: bool,
}

impl From<Values> for Page {
    fn from(page: Values) -> Self {
        let last = page.values.last().filter(|_| page.more);
        let cursor = last.map(|(key, _)| to_hex(key));
        let entries = page.values.iter().map(|(key, stored)| {
            let (value, cut) = cut(readable::shown(stored));
            let key = String::from_utf8_lossy(key).into_owned();
            Entry { key, bytes: stored.len(), value, cut }
        });
        Self { values: entries.collect(), cursor }
    }
}

#[derive(Serialize)]
pub(super) struct Answer {
    columns: Vec<String>,
    rows: Vec<Vec<Option<Cell>>>,
    more: bool,
}

/// A value of SQL. A number is a text too: JavaScript has no whole numbers of 64 bits.
#[derive(Serialize)]
struct Cell {
    #[serde(rename = "type")]
    kind: &'static str,
    text: String,
    cut: bool,
}

impl From<Rows> for Answer {
    fn from(rows: Rows) -> Self {
        let Rows { columns, rows, more } = rows;
        let cells = |row: Vec<Value>| row.into_iter().map(cell).collect();
        Self { columns, rows: rows.into_iter().map(cells).collect(), more }
    }
}

fn cell(value: Value) -> Option<Cell> {
    let kind = value.type_name();
    let text = match value {
        Value::Null => return None,
        Value::Integer(number) => number.to_string(),
        Value::Real(number) => number.to_string(),
        Value::Text(text) => text,
        Value::Blob(bytes) => readable::bytes(&bytes),
    };
    let (text, cut) = cut(text);
    Some(Cell { kind, text, cut })
}

#[derive(Serialize)]
pub(super) struct Events {
    pub(super) events: Vec<Event>,
    pub(super) recent: Vec<Ended>,
}

/// An event that ended, well or not.
#[derive(Serialize)]
pub(super) struct Ended {
    at_ms: u64,
    namespace: String,
    id: String,
    name: Option<String>,
    kind: &'static str,
    took_us: u64,
    failed: bool,
}

impl Ended {
    pub(super) fn new(namespace: &str, happened: Happened) -> Self {
        let Happened { at_ms, event, name } = happened;
        let Recent { key, kind, took, failed, .. } = event;
        let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let (namespace, id) = (namespace.to_owned(), key.id.to_string());
        let name = name.map(|name| cut(name).0);
        Self { at_ms, namespace, id, name, kind: kind.as_str(), took_us, failed }
    }
}

#[derive(Serialize)]
pub(super) struct Event {
    at_ms: u64,
    namespace: String,
    id: String,
    name: Option<String>,
    kind: &'static str,
    message: String,
}

impl Event {
    pub(super) fn new(namespace: &str, trouble: Trouble) -> Self {
        let Trouble { at_ms, key, name, kind, message } = trouble;
        let (namespace, id) = (namespace.to_owned(), key.id.to_string());
        Self { at_ms, namespace, id, name, kind: kind.as_str(), message }
    }
}

/// Cuts a long text; tells whether it was long.
fn cut(mut text: String) -> (String, bool) {
    let end = text.floor_char_boundary(TEXT_BYTES_MAX);
    let is_long = end < text.len();
    text.truncate(end);
    (text, is_long)
}

/// Bytes that are shown of one text.
const TEXT_BYTES_MAX: usize = 16 << 10;
