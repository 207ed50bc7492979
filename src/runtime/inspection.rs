//! Looks into objects and their shards, for people: what is stored, what is counted, what went wrong.
//!
//! **Invariant:** nothing is changed, but by who asks for a change: no object comes into memory for it, and what a
//! statement writes else is dropped.
//! **Invariant:** an object is looked at on its own thread, whose other objects wait meanwhile; so everything here
//! has a bound.

use std::ops::{Bound, ControlFlow};
use std::rc::Rc;

use bytes::Bytes;
use futures::channel::oneshot;

use super::container::Phase;
use super::errand::{ask, ask_all};
use super::interior::Interior;
use super::journal::{Recent, Tally, Trouble};
use super::registry::Key;
use super::shard::Shard;
use crate::error::{Error, Result};
use crate::object::Accepted;
use crate::storage::StoredPages;
use crate::storage::engine::Order;
use crate::storage::object::Confirm;
use crate::storage::record::Alarm;
use crate::storage::row::{self, KeyRange, ObjectKey, successor};
use crate::storage::sql::database::Database;
use crate::storage::sql::limits::Limits;
use crate::storage::sql::pages::{PAGE_BYTES, Pages};
use crate::storage::sql::row::Row;
use crate::storage::sql::value::Value;

/// What there is to know of one object.
#[derive(Clone, Debug)]
pub struct Details {
    /// Its name, where it was reached by one.
    pub name: Option<String>,
    /// Whether it is in memory.
    pub in_memory: bool,
    /// Whether the store knows it.
    pub is_recorded: bool,
    /// Whether anything of its own is stored.
    pub has_stored_data: bool,
    /// Its alarm.
    pub alarm: Option<Alarm>,
    /// Its keys, as far as they were counted.
    pub stored: Stored,
    /// Bytes of its SQL database.
    pub sql_bytes: u64,
    /// What is in that; or why it can't be read.
    pub tables: Result<Vec<Table>>,
    /// How many hibernatable WebSockets are open.
    pub sockets_count: usize,
    /// The first of them, in the order in which they were accepted.
    pub sockets: Vec<OpenSocket>,
}

/// A hibernatable WebSocket that is open.
#[derive(Clone, Debug)]
pub struct OpenSocket {
    /// Its number, which no other of its thread has.
    pub number: u64,
    /// Its tags.
    pub tags: Vec<String>,
    /// Bytes that wait for its peer.
    pub waiting_bytes: usize,
    /// Bytes of what the object has attached to it.
    pub attachment_bytes: usize,
}

/// Keys and values that were counted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stored {
    /// How many.
    pub keys: u64,
    /// The bytes of both.
    pub bytes: u64,
    /// Whether these are all.
    pub is_all: bool,
}

/// A table, or view, of an SQL database.
#[derive(Clone, Debug)]
pub struct Table {
    /// Its name.
    pub name: String,
    /// The statement that made it.
    pub sql: String,
}

/// A page of keys and values, as they are stored.
#[derive(Clone, Debug, Default)]
pub struct Values {
    /// The keys and values, in order.
    pub values: Vec<(Vec<u8>, Bytes)>,
    /// Whether there are more.
    pub more: bool,
}

/// The first rows of a statement.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    /// The names of the columns; none where there is no row.
    pub columns: Vec<String>,
    /// The rows.
    pub rows: Vec<Vec<Value>>,
    /// Whether there are more.
    pub more: bool,
}

/// Asks every shard for its counts of each namespace, and adds them up.
///
/// # Errors
/// *disconnected* where the server stops.
///
/// # Cancel safety
/// Dropping the future changes nothing. So with all of these.
pub async fn live(shard: &Rc<Shard>) -> Result<Vec<Tally>> {
    let namespaces = shard.namespaces().all().len();
    let count = move |shard: &Rc<Shard>| -> Vec<Tally> {
        (0..namespaces).map(|namespace| shard.journal().tally(namespace)).collect()
    };
    let mut all = vec![Tally::default(); namespaces];
    for counted in ask_all(shard, count).await? {
        all.iter_mut().zip(&counted).for_each(|(sum, more)| sum.add(more));
    }
    Ok(all)
}

/// Of which objects something is told.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted {
    /// Those of one namespace; none: of all.
    pub namespace: Option<usize>,
    /// One; none: all of these.
    pub object: Option<Key>,
}

impl Wanted {
    fn has(&self, key: &Key) -> bool {
        self.namespace.is_none_or(|namespace| namespace == key.namespace)
            && self.object.is_none_or(|object| object == *key)
    }
}

/// Asks every shard for its last troubles, and merges them: the latest first.
///
/// # Errors
/// *disconnected* where the server stops.
pub async fn troubles(shard: &Rc<Shard>, wanted: Wanted, limit: usize) -> Result<Vec<Trouble>> {
    let ask = move |shard: &Rc<Shard>| shard.journal().troubles(limit, |key: &Key| wanted.has(key));
    Ok(latest(ask_all(shard, ask).await?, limit, |trouble| trouble.at_ms))
}

/// An event that ended lately.
#[derive(Clone, Debug)]
pub struct Happened {
    /// When it ended, in milliseconds since 1970.
    pub at_ms: u64,
    /// What it was, of which object, how long it took, and how it ended.
    pub event: Recent,
    /// The object's name, where it is known.
    pub name: Option<String>,
}

/// Asks every shard for its last events, and merges them: the latest first.
///
/// # Errors
/// *disconnected* where the server stops.
pub async fn recent(shard: &Rc<Shard>, wanted: Wanted, limit: usize) -> Result<Vec<Happened>> {
    let ask = move |shard: &Rc<Shard>| -> Vec<Happened> {
        let now_ms = shard.storages().rules().clock.unix_ms();
        let happened = |event: Recent| {
            let ago = event.since.elapsed().saturating_sub(event.took);
            let name = shard.registry().known(&event.key).and_then(|known| known.name());
            let at_ms = now_ms.saturating_sub(u64::try_from(ago.as_millis()).unwrap_or(u64::MAX));
            Happened { at_ms, event, name: name.map(|name| name.to_string()) }
        };
        let events = shard.journal().recent(limit, |key: &Key| wanted.has(key));
        events.into_iter().map(happened).collect()
    };
    Ok(latest(ask_all(shard, ask).await?, limit, |happened| happened.at_ms))
}

/// Returns the latest of what all shards tell, the last one first.
fn latest<T: Clone>(told: Vec<Vec<T>>, limit: usize, at_ms: impl Fn(&T) -> u64) -> Vec<T> {
    let mut all = told.concat();
    all.sort_by_key(|one| std::cmp::Reverse(at_ms(one)));
    all.truncate(limit);
    all
}

/// Looks at one object.
///
/// # Errors
/// *disconnected* where the server stops; *failed* where the store can't be read.
pub async fn look(shard: &Rc<Shard>, key: Key) -> Result<Details> {
    ask(shard, key, move |shard| shard.details(key)).await
}

/// Returns up to `limit` keys of an object that begin with `prefix`, after `after`, and their values. A page ends
/// early where it is large.
///
/// # Errors
/// As [`look`].
pub async fn values(
    shard: &Rc<Shard>,
    key: Key,
    prefix: Vec<u8>,
    after: Option<Vec<u8>>,
    limit: usize,
) -> Result<Values> {
    ask(shard, key, move |shard| shard.values(key, &prefix, after.as_deref(), limit)).await
}

/// Runs statements on the database of an object and returns the first rows of the last one, which only reads.
/// What those before it change is dropped.
///
/// # Errors
/// As [`look`]; what SQL says of the statements.
pub async fn rows(shard: &Rc<Shard>, key: Key, sql: String, limit: usize) -> Result<Rows> {
    ask(shard, key, move |shard| {
        let object = shard.object_key(key);
        query(&shard.scratch(object)?, &sql, limit)
    })
    .await
}

/// Runs statements on the database of an object that is in memory, as a task of that object: by its gates, and not
/// inside a critical section or a transaction of others. Returns the first rows of the last one once everything is
/// durable. All of them happen, or none.
///
/// # Errors
/// *failed* where the object is not in memory; what SQL says of the statements; why the storage is broken;
/// *disconnected* where the object is reset meanwhile, or the server stops.
///
/// # Cancel safety
/// Dropping the future leaves open whether they happen.
pub async fn change(shard: &Rc<Shard>, key: Key, sql: String, limit: usize) -> Result<Rows> {
    let (reply, answer) = oneshot::channel();
    shard.run_on(shard.placement().shard(&key.id), move |shard| {
        let container = shard.registry().known(&key);
        let Some((interior, container)) =
            container.and_then(|container| Some((container.interior()?, container)))
        else {
            let absent = "the object is not in memory: what it stores is changed where it is";
            return drop(reply.send(Err(Error::failed(absent))));
        };
        container.start_task(Box::pin(async move {
            let outcome = match change_stored(&interior, &sql, limit) {
                Ok((rows, synced)) => synced.await.map(|()| rows),
                Err(error) => Err(error),
            };
            // Whoever asked may have gone.
            let _ = reply.send(outcome);
        }));
    });
    let gone = |_| Error::disconnected("the object was reset, or the server has stopped");
    answer.await.map_err(gone)?
}

/// Runs statements in a transaction; returns rows, and when everything is durable.
fn change_stored(
    interior: &Interior,
    sql: &str,
    limit: usize,
) -> Result<(Rows, impl Future<Output = Result<()>> + use<>)> {
    let storage = interior.storage().ok_or_else(|| Error::failed("the object has no storage"))?;
    storage.begin()?;
    let cursor = match storage.with_sql(Confirm::Yes, |database| database.exec(sql, ())) {
        Ok(cursor) => cursor,
        Err(error) => {
            storage.roll_back();
            return Err(error);
        }
    };
    storage.commit()?;
    let columns = cursor.column_names().to_vec();
    let mut rows: Vec<_> = cursor.take(limit + 1).map(Row::into_values).collect();
    let more = rows.len() > limit;
    rows.truncate(limit);
    Ok((Rows { columns, rows, more }, storage.synced()))
}

impl Shard {
    fn details(&self, key: Key) -> Result<Details> {
        let object = self.object_key(key);
        let record = self.record(&object)?;
        let container = self.registry().known(&key);
        let name = container.as_ref().and_then(|container| container.name());
        let is_recorded = record.is_some();
        let record = record.unwrap_or_default();
        let pages = StoredPages::new(self.storages().store().clone(), object).count()?;
        let tables = match pages {
            0 => Ok(Vec::new()),
            _ => self.scratch(object).and_then(|database| tables(&database)),
        };
        let open = container.as_ref().map(|container| container.sockets().open(None));
        let open = open.unwrap_or_default();
        Ok(Details {
            sockets_count: open.len(),
            sockets: open.iter().take(SOCKETS_MAX).map(|accepted| open_socket(accepted)).collect(),
            name: record.name.or_else(|| name.map(|name| name.to_string())),
            in_memory: container.is_some_and(|container| container.phase() != Phase::Absent),
            is_recorded,
            has_stored_data: record.has_data,
            alarm: record.alarm,
            stored: self.count(&object)?,
            sql_bytes: u64::from(pages) * PAGE_BYTES as u64,
            tables,
        })
    }

    fn count(&self, object: &ObjectKey) -> Result<Stored> {
        let mut stored = Stored { is_all: true, ..Stored::default() };
        let range = KeyRange::object(row::Table::Value, object);
        self.storages().store().scan(&range, Order::Ascending, &mut |key, value| {
            if stored.keys >= KEYS_COUNTED_MAX || stored.bytes >= BYTES_COUNTED_MAX {
                stored.is_all = false;
                return ControlFlow::Break(());
            }
            stored.keys += 1;
            stored.bytes += (key.after_object().len() + value.len()) as u64;
            ControlFlow::Continue(())
        })?;
        Ok(stored)
    }

    fn values(
        &self,
        key: Key,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Values> {
        let object = self.object_key(key);
        let from = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let end = successor(prefix);
        let to = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let range = KeyRange::within(row::Table::Value, &object, from, to);
        let (mut page, mut bytes) = (Values::default(), 0);
        self.storages().store().scan(&range, Order::Ascending, &mut |key, value| {
            if page.values.len() >= limit || bytes >= PAGE_OF_VALUES_BYTES {
                page.more = true;
                return ControlFlow::Break(());
            }
            bytes += value.len();
            page.values.push((key.after_object().to_vec(), value));
            ControlFlow::Continue(())
        })?;
        Ok(page)
    }

    /// Opens a database with the pages of an object, whose changes nobody takes.
    fn scratch(&self, object: ObjectKey) -> Result<Database> {
        let pages = StoredPages::new(self.storages().store().clone(), object);
        let bytes = u64::from(pages.count()?) * PAGE_BYTES as u64;
        let limits = Limits {
            database_bytes_max: bytes + SCRATCH_BYTES_MAX,
            steps_max: STEPS_MAX,
            ..Limits::default()
        };
        Database::open(Rc::new(pages), limits)
    }
}

fn open_socket(accepted: &Accepted) -> OpenSocket {
    let (waiting_bytes, attachment_bytes) = accepted.held_bytes();
    let tags = accepted.tags().iter().map(ToString::to_string).collect();
    OpenSocket { number: accepted.id(), tags, waiting_bytes, attachment_bytes }
}

fn tables(database: &Database) -> Result<Vec<Table>> {
    const TABLES: &str = "SELECT name, coalesce(sql, '') FROM sqlite_schema \
        WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY name";
    let answer = query(database, TABLES, TABLES_MAX)?;
    let table = |row: Vec<Value>| match <[Value; 2]>::try_from(row) {
        Ok([Value::Text(name), Value::Text(sql)]) => Some(Table { name, sql }),
        _ => None,
    };
    Ok(answer.rows.into_iter().filter_map(table).collect())
}

fn query(database: &Database, sql: &str, limit: usize) -> Result<Rows> {
    let (mut answer, mut bytes) = (Rows::default(), 0);
    let read = database.each(sql, (), |row| {
        if answer.rows.len() >= limit || bytes >= ANSWER_BYTES_MAX {
            answer.more = true;
            return Ok(ControlFlow::Break(()));
        }
        if answer.rows.is_empty() {
            answer.columns = row.column_names().to_vec();
        }
        let values = row.into_values();
        bytes += values.iter().map(length).sum::<usize>();
        answer.rows.push(values);
        Ok(ControlFlow::Continue(()))
    });
    read.map(|()| answer)
}

fn length(value: &Value) -> usize {
    match value {
        Value::Text(text) => text.len(),
        Value::Blob(bytes) => bytes.len(),
        _ => size_of::<Value>(),
    }
}

/// Where counting ends.
const KEYS_COUNTED_MAX: u64 = 10_000;
const BYTES_COUNTED_MAX: u64 = 32 << 20;
/// Where a page of values ends: with the value that reaches it.
const PAGE_OF_VALUES_BYTES: usize = 4 << 20;
/// WebSockets that are named.
const SOCKETS_MAX: usize = 100;
/// Tables that are named.
const TABLES_MAX: usize = 500;
/// Where an answer ends: with the row that reaches it.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// What statements may write before it is dropped.
const SCRATCH_BYTES_MAX: u64 = 16 << 20;
/// Steps of one statement: a fraction of a second.
const STEPS_MAX: u64 = 5_000_000;
