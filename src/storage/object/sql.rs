//! The SQL database of an object: opened when first used, its pages in the object's batches.

use std::cell::Cell;
use std::ops::ControlFlow;
use std::rc::Rc;

use bytes::Bytes;

use super::{Confirm, ObjectStorage};
use crate::error::Result;
use crate::storage::engine::{Order, Store};
use crate::storage::row::{Key, KeyRange, ObjectKey, Table};
use crate::storage::sql::database::Database;
use crate::storage::sql::pages::Pages;

/// The pages of an object, as its store has them.
pub struct StoredPages {
    store: Rc<dyn Store>,
    object: ObjectKey,
    /// Whether they count for nothing, because they are about to go.
    hidden: Rc<Cell<bool>>,
}

impl StoredPages {
    /// Makes the pages of `object`.
    pub fn new(store: Rc<dyn Store>, object: ObjectKey) -> Self {
        Self { store, object, hidden: Rc::default() }
    }
}

impl Pages for StoredPages {
    fn page(&self, number: u32) -> Result<Option<Bytes>> {
        if self.hidden.get() {
            return Ok(None);
        }
        self.store.get(&Key::page(&self.object, number))
    }

    fn count(&self) -> Result<u32> {
        let mut count = 0;
        if !self.hidden.get() {
            let range = KeyRange::object(Table::Page, &self.object);
            self.store.scan(&range, Order::Descending, &mut |key, _| {
                let last = key.after_object().first_chunk().copied().map(u32::from_be_bytes);
                count = last.map_or(0, |last| last.saturating_add(1));
                ControlFlow::Break(())
            })?;
        }
        Ok(count)
    }
}

impl ObjectStorage {
    /// Uses the SQL database, which is opened where it was not used before.
    ///
    /// # Errors
    /// The error of `work`; why the storage, or the database, is broken; *overloaded* where too much waits to become
    /// durable.
    pub fn with_sql<T>(
        &self,
        confirm: Confirm,
        work: impl FnOnce(&Database) -> Result<T>,
    ) -> Result<T> {
        self.has_room()?;
        let sql = self.sql()?;
        let was_dirty = sql.is_dirty();
        // Of several statements, those before one that failed have happened.
        let worked = self.of_sql(&sql, work(&sql));
        // Inside a transaction it is known at its end.
        if sql.is_dirty() && self.usable()?.pending.depth() == 0 {
            if confirm == Confirm::Yes {
                self.outbox.lock(self.session.submitted() + 1);
            }
            if !was_dirty {
                self.surroundings.written();
            }
        }
        worked
    }

    fn sql(&self) -> Result<Rc<Database>> {
        let depth = {
            let state = self.usable()?;
            if let Some(sql) = &state.sql {
                return Ok(sql.clone());
            }
            state.pending.depth()
        };
        let (store, object) = (self.store.clone(), self.session.object);
        let pages = StoredPages { store, object, hidden: self.pages_hidden.clone() };
        let opened = Database::open(Rc::new(pages), self.rules.sql).inspect_err(|error| {
            self.break_with(error);
            self.surroundings.written();
        })?;
        for _ in 0..depth {
            opened.savepoint()?;
        }
        let opened = Rc::new(opened);
        self.usable_mut()?.sql = Some(opened.clone());
        Ok(opened)
    }

    /// Returns what came of using the database; where that failed because its pages can't be read, so does
    /// everything.
    pub(super) fn of_sql<T>(&self, sql: &Database, outcome: Result<T>) -> Result<T> {
        if let Some(failure) = sql.page_failure() {
            self.break_with(&failure);
            self.surroundings.written();
            return Err(failure);
        }
        outcome
    }
}
