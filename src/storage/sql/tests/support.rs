//! What the tests share: pages in a map, which can fail, and pages as rows of a store.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;

use super::super::database::Database;
use super::super::limits::Limits;
use super::super::pages::Pages;
use crate::error::{Error, Result};
use crate::storage::engine::{Batch, Change, Engine, Session, Store};
use crate::storage::memory::Memory;
use crate::storage::row::{Key, ObjectKey, Space};

/// Pages in a map.
#[derive(Default)]
pub(super) struct Map {
    pub(super) pages: RefCell<BTreeMap<u32, Bytes>>,
    /// How many reads are left before one fails.
    pub(super) reads_left: Cell<Option<u32>>,
    pub(super) reads: Cell<u32>,
}

impl Pages for Map {
    fn page(&self, number: u32) -> Result<Option<Bytes>> {
        self.reads.set(self.reads.get() + 1);
        match self.reads_left.get() {
            Some(0) => return Err(Error::failed("the disk is on fire")),
            Some(left) => self.reads_left.set(Some(left - 1)),
            None => {}
        }
        Ok(self.pages.borrow().get(&number).cloned())
    }

    fn count(&self) -> Result<u32> {
        Ok(self.pages.borrow().len() as u32)
    }
}

impl Map {
    pub(super) fn open(self: &Rc<Self>) -> Database {
        self.open_with(Limits::default())
    }

    pub(super) fn open_with(self: &Rc<Self>, limits: Limits) -> Database {
        Database::open(self.clone(), limits).unwrap()
    }

    /// Takes what has changed, as the layer above does.
    pub(super) fn take(&self, database: &Database) -> usize {
        let changes = database.take_dirty();
        let count = changes.len();
        let pages = &mut *self.pages.borrow_mut();
        for (number, page) in changes {
            match page {
                Some(page) => drop(pages.insert(number, page)),
                None => drop(pages.remove(&number)),
            }
        }
        assert!(!database.is_dirty());
        let last = pages.keys().next_back().map_or(0, |last| last + 1);
        assert_eq!(pages.len() as u32, last, "a gap among the pages");
        count
    }
}

/// Pages as rows of a store in memory.
pub(super) struct Rows {
    store: Box<dyn Store>,
    session: Arc<Session>,
    count: Cell<u32>,
}

impl Rows {
    pub(super) fn new(engine: &Memory, count: u32) -> Rc<Self> {
        let object = ObjectKey { space: Space(1), id: crate::ObjectId::from_bytes([7; 32]) };
        let lease = engine.acquire(&[object.shard()]).unwrap()[0];
        let session = Session::new(1, object, lease);
        let store = engine.store(Arc::new(|| ())).unwrap();
        Rc::new(Self { store, session, count: Cell::new(count) })
    }

    pub(super) fn take(&self, database: &Database) -> u32 {
        let mut batch = Batch::default();
        for (number, page) in database.take_dirty() {
            let key = Key::page(&self.session.object, number);
            batch.push(page.map_or(Change::Delete(key.clone()), |page| Change::Put(key, page)));
        }
        self.store.submit(&self.session, batch);
        self.count.set((database.size_bytes() / 4096) as u32);
        self.count.get()
    }
}

impl Pages for Rows {
    fn page(&self, number: u32) -> Result<Option<Bytes>> {
        self.store.get(&Key::page(&self.session.object, number))
    }

    fn count(&self) -> Result<u32> {
        Ok(self.count.get())
    }
}

pub(super) fn empty() -> (Rc<Map>, Database) {
    let pages = Rc::new(Map::default());
    let database = pages.open();
    (pages, database)
}

/// Runs statements that must not fail.
pub(super) fn run(database: &Database, sql: &str) {
    drop(database.exec(sql, ()).unwrap());
}

/// Returns the values of all rows, as SQLite prints them.
pub(super) fn rows(database: &Database, sql: &str) -> Vec<String> {
    use super::super::value::Value;
    let text = |value: &Value| match value {
        Value::Null => "null".to_owned(),
        Value::Integer(number) => number.to_string(),
        Value::Real(number) => format!("{number:?}"),
        Value::Text(text) => text.clone(),
        Value::Blob(bytes) => format!("{bytes:?}"),
    };
    let cursor = database.exec(sql, ()).unwrap();
    cursor.map(|row| row.values().iter().map(text).collect::<Vec<_>>().join("|")).collect()
}

/// Returns the message of the error that `sql` must raise.
pub(super) fn error(database: &Database, sql: &str) -> String {
    match database.exec(sql, ()) {
        Ok(cursor) => panic!("{sql} is no error: {cursor:?}"),
        Err(error) => error.message,
    }
}

pub(super) fn assert_whole(database: &Database) {
    assert_eq!(rows(database, "PRAGMA integrity_check"), ["ok"]);
}
