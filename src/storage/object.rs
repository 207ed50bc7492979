//! The storage of one object in memory: its values, its alarm, its history, on whatever store there is.
//!
//! Writes wait in memory until the object's turn ends; then they become one batch, and with it durable or not as
//! one. What the object says meanwhile waits in its outbox.
//!
//! **Invariant:** what was written is read back at once, durable or not.
//! **Invariant:** the outbox is locked before a confirmed write returns, so nothing that is said later leaves
//! before the write is durable.
//! **Invariant:** a batch has what the object's record, its alarm's row and its history need to fit its data.
//! **Invariant:** once a batch has failed, everything fails with the reason.

mod alarm;
mod batch;
mod bookmarks;
mod listing;
mod sql;
#[cfg(test)]
mod tests;

use std::cell::{Cell, Ref, RefCell, RefMut};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::channel::oneshot;

pub use self::alarm::Ringing;
pub use self::batch::has_rows_after;
pub use self::sql::StoredPages;
use super::engine::{Done, Session, Store, Submitted, Ticket};
use super::history::History;
use super::pending::Pending;
use super::record::Record;
use super::row::Key;
use super::sql::database::Database;
use super::sql::limits;
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::gate::Outbox;

/// What the storage of every object of a thread goes by.
#[derive(Clone, Debug)]
pub struct Rules {
    /// What time it is.
    pub clock: Clock,
    /// How long it is possible to go back; none: not at all.
    pub retention: Option<Duration>,
    /// Bytes of one transaction.
    pub transaction_bytes_max: usize,
    /// Bytes that may wait to become durable on one thread. What is inside an object already may write up to
    /// twice as much.
    pub backlog_bytes_max: usize,
    /// The bounds of SQL databases.
    pub sql: limits::Limits,
}

/// What surrounds the storage of an object.
pub trait Surroundings {
    /// Something was written: the object is to be given a turn, at whose end it calls
    /// [`flush`](ObjectStorage::flush).
    fn written(&self);

    /// The alarm will ring at `due_ms`, or not at all.
    fn alarm_changed(&self, due_ms: Option<u64>);
}

/// Whether what is said later waits for a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confirm {
    /// It does.
    Yes,
    /// It does not: the write may be lost after its result was seen.
    No,
}

/// The storage of one object in memory.
pub struct ObjectStorage {
    store: Rc<dyn Store>,
    session: Arc<Session>,
    outbox: Rc<Outbox>,
    rules: Rc<Rules>,
    surroundings: Box<dyn Surroundings>,
    /// Whether the stored pages count for nothing, because they are about to go.
    pages_hidden: Rc<Cell<bool>>,
    state: RefCell<State>,
}

impl State {
    fn has_changes(&self) -> bool {
        !self.pending.is_empty()
            || self.record_changed
            || !self.pages.is_empty()
            || self.sql.as_ref().is_some_and(|sql| sql.is_dirty())
    }
}

struct State {
    /// As the store has it, once what was submitted is durable.
    record: Record,
    is_recorded: bool,
    /// Whether the record must be written though no row is.
    record_changed: bool,
    pending: Pending,
    /// Pages that wait to be written, beside those of `sql`.
    pages: Vec<(u32, Option<Bytes>)>,
    /// The SQL database, once it was used.
    sql: Option<Rc<Database>>,
    history: History,
    ringing: Option<Ringing>,
    /// Whether the alarm was set or cleared since it rings.
    alarm_replaced: bool,
    durable: Ticket,
    syncs: VecDeque<(Ticket, oneshot::Sender<Result<()>>)>,
    broken: Option<Error>,
}

impl ObjectStorage {
    /// Opens the storage of the session's object. Where it was told to go back, it does.
    ///
    /// # Errors
    /// Where the store can't be read, or is damaged.
    pub fn open(
        store: Rc<dyn Store>,
        session: Arc<Session>,
        outbox: Rc<Outbox>,
        rules: Rc<Rules>,
        surroundings: Box<dyn Surroundings>,
    ) -> Result<Rc<Self>> {
        let object = session.object;
        let recorded = store.get(&Key::object(&object))?;
        let is_recorded = recorded.is_some();
        let record = recorded.map(|bytes| Record::decode(&object, &bytes)).transpose()?;
        let history = History::new(object, rules.retention);
        let state = State {
            record: record.unwrap_or_default(),
            is_recorded,
            record_changed: false,
            pending: Pending::default(),
            pages: Vec::new(),
            sql: None,
            history,
            ringing: None,
            alarm_replaced: false,
            durable: 0,
            syncs: VecDeque::new(),
            broken: None,
        };
        let (state, pages_hidden) = (RefCell::new(state), Rc::default());
        let storage =
            Rc::new(Self { store, session, outbox, rules, surroundings, pages_hidden, state });
        let bookmark = storage.state.borrow().record.restore;
        if let Some(bookmark) = bookmark {
            storage.go_back(bookmark)?;
        }
        Ok(storage)
    }

    /// Returns the name that is stored.
    pub fn name(&self) -> Option<String> {
        self.state.borrow().record.name.clone()
    }

    /// Stores the name, if none is stored. Nothing waits for it to be durable.
    pub fn keep_name(&self, name: &str) {
        let mut state = self.state.borrow_mut();
        if state.record.name.is_none() {
            state.record.name = Some(name.to_owned());
            state.record_changed = true;
        }
    }

    /// Returns what `key` holds.
    ///
    /// # Errors
    /// Why the storage is broken; where the store can't be read.
    pub fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        let known = {
            let state = self.usable()?;
            state.pending.get(key)
        };
        match known {
            Some(value) => Ok(value),
            None => self.store.get(&Key::value(&self.session.object, key)),
        }
    }

    /// Has `key` hold `value`, or nothing.
    ///
    /// # Errors
    /// Why the storage is broken; *failed* where the transaction is too large; *overloaded* where too much waits
    /// to become durable.
    pub fn set(&self, key: &[u8], value: Option<Bytes>, confirm: Confirm) -> Result<()> {
        self.has_room()?;
        let length = value.as_ref().map_or(0, Bytes::len) + key.len();
        self.change(confirm, length, |state| state.pending.top().set(key.to_vec(), value))
    }

    /// Has nothing be stored any more, the alarm included.
    ///
    /// # Errors
    /// Why the storage is broken; *failed* inside a transaction or a statement; *overloaded* as for [`set`](Self::set).
    pub fn clear(&self, confirm: Confirm) -> Result<()> {
        let (depth, is_read) = {
            let state = self.usable()?;
            (state.pending.depth(), state.sql.as_ref().is_some_and(|sql| sql.is_running()))
        };
        if depth > 0 {
            return Err(Error::failed("everything can't be deleted inside a transaction"));
        }
        if is_read {
            return Err(Error::failed("everything can't be deleted while a statement runs"));
        }
        self.has_room()?;
        self.change(confirm, 0, |state| {
            state.pending.top().clear();
            // What it had is gone; used again, it begins anew.
            state.sql = None;
            self.pages_hidden.set(true);
        })
    }

    /// Begins a transaction inside the present one.
    ///
    /// # Errors
    /// Why the storage is broken.
    pub fn begin(&self) -> Result<()> {
        let sql = self.usable()?.sql.clone();
        if let Some(sql) = sql {
            self.of_sql(&sql, sql.savepoint())?;
        }
        self.usable_mut()?.pending.begin();
        Ok(())
    }

    /// Ends the innermost transaction: its writes count.
    ///
    /// # Errors
    /// Why the storage is broken; why SQLite can't commit. Then the transaction is still open.
    pub fn commit(&self) -> Result<()> {
        let sql = self.usable()?.sql.clone();
        if let Some(sql) = &sql {
            self.of_sql(sql, sql.release())?;
        }
        let mut state = self.usable_mut()?;
        state.pending.commit();
        if state.pending.depth() == 0 {
            // Whether its pages were confirmed is not known any more.
            if state.pending.top().confirmed || sql.is_some_and(|sql| sql.is_dirty()) {
                self.outbox.lock(self.session.submitted() + 1);
            }
            drop(state);
            self.surroundings.written();
        }
        Ok(())
    }

    /// Ends the innermost transaction: its writes never were.
    pub fn roll_back(&self) {
        let sql = self.state.borrow().sql.clone();
        if let Some(sql) = sql
            && let Err(error) = sql.rollback()
        {
            // Neither the old state nor the new one: the object can't go on.
            self.break_with(&error);
        }
        let mut state = self.state.borrow_mut();
        state.pending.roll_back();
        if state.pending.depth() == 0 {
            drop(state);
            self.surroundings.written();
        }
    }

    /// Waits until everything that was written so far is durable.
    ///
    /// # Errors
    /// Why it never will be; *failed* inside a transaction, which has to end first.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub fn synced(&self) -> impl Future<Output = Result<()>> + use<> {
        let (told, outcome) = oneshot::channel();
        if self.state.borrow().pending.depth() > 0 {
            let text = "what a transaction writes is not stored before it ends: sync behind it";
            let _ = told.send(Err(Error::failed(text)));
        } else if let Err(error) = self.flush() {
            let _ = told.send(Err(error));
        } else {
            let mut state = self.state.borrow_mut();
            let ticket = self.session.submitted();
            match &state.broken {
                Some(error) => drop(told.send(Err(error.clone()))),
                None if state.durable >= ticket => drop(told.send(Ok(()))),
                None => state.syncs.push_back((ticket, told)),
            }
        }
        async move { outcome.await.unwrap_or_else(|_| Err(Error::disconnected("the object is gone"))) }
    }

    /// Returns whether everything that was written is durable.
    pub fn is_durable(&self) -> bool {
        let state = self.state.borrow();
        !state.has_changes() && state.durable >= self.session.submitted()
    }

    /// Returns the last batch that is durable, with all before it.
    pub fn durable(&self) -> Ticket {
        self.state.borrow().durable
    }

    /// Hands what was written to the store, unless a transaction is open.
    ///
    /// # Errors
    /// Why the storage is broken; where the store can't be read.
    pub fn flush(&self) -> Result<()> {
        let mut state = self.usable_mut()?;
        if !state.has_changes() || state.pending.depth() > 0 {
            return Ok(());
        }
        let (batch, alarm) = match self.batch(&mut state) {
            Ok(made) => made,
            Err(error) => {
                // What was to be written is lost, so the object can't go on.
                drop(state);
                self.break_with(&error);
                self.surroundings.written();
                return Err(error);
            }
        };
        let submitted = self.store.submit(&self.session, batch);
        self.pages_hidden.set(false);
        if let Submitted::Durable(ticket) = submitted {
            state.durable = ticket;
        }
        drop(state);
        if let Some(due) = alarm {
            self.surroundings.alarm_changed(due);
        }
        if let Submitted::Durable(ticket) = submitted {
            self.outbox.durable(ticket);
        }
        Ok(())
    }

    /// Notes what became of a batch. Returns why the object is to be reset, where it failed.
    pub fn done(&self, done: Done) -> Option<Error> {
        let Done { ticket, outcome, .. } = done;
        match outcome {
            Ok(()) => {
                let told: Vec<_> = {
                    let mut state = self.state.borrow_mut();
                    state.durable = ticket;
                    let ready = state.syncs.partition_point(|(until, _)| *until <= ticket);
                    state.syncs.drain(..ready).map(|(_, told)| told).collect()
                };
                self.outbox.durable(ticket);
                for told in told {
                    // Whoever waited may have gone.
                    let _ = told.send(Ok(()));
                }
                None
            }
            Err(error) => {
                self.break_with(&error);
                Some(error)
            }
        }
    }

    /// Ends the storage: whatever is asked of it from now on fails with `error`, and what was not handed to the
    /// store never is.
    pub fn break_with(&self, error: &Error) {
        let mut state = self.state.borrow_mut();
        state.broken.get_or_insert_with(|| error.clone());
        state.pending = Pending::default();
        state.pages.clear();
        state.sql = None;
        state.record_changed = false;
        for (_, told) in std::mem::take(&mut state.syncs) {
            let _ = told.send(Err(error.clone()));
        }
    }
}

impl ObjectStorage {
    fn usable(&self) -> Result<Ref<'_, State>> {
        let state = self.state.borrow();
        match &state.broken {
            Some(error) => Err(error.clone()),
            None => Ok(state),
        }
    }

    fn usable_mut(&self) -> Result<RefMut<'_, State>> {
        drop(self.usable()?);
        Ok(self.state.borrow_mut())
    }

    /// Refuses a write of the object's own where the store is too far behind: events are refused long before, but
    /// what is inside already may go on for ever.
    fn has_room(&self) -> Result<()> {
        let (bytes, max) = (self.store.backlog_bytes(), self.rules.backlog_bytes_max);
        if bytes <= max.saturating_mul(2) {
            return Ok(());
        }
        let text = format!("{bytes} bytes wait to be stored, of at most twice {max}");
        Err(Error::overloaded(text))
    }

    /// Makes a change of `bytes` more, and has what is said later wait for it.
    fn change(
        &self,
        confirm: Confirm,
        bytes: usize,
        change: impl FnOnce(&mut State),
    ) -> Result<()> {
        let is_first = {
            let mut state = self.usable_mut()?;
            let (waiting, max) = (state.pending.bytes(), self.rules.transaction_bytes_max);
            if waiting + bytes > max {
                return Err(Error::failed(format!(
                    "a transaction of over {max} bytes: {waiting} wait already"
                )));
            }
            let is_first = state.pending.is_empty() && !state.record_changed;
            change(&mut state);
            if confirm == Confirm::Yes {
                state.pending.top().confirmed = true;
                if state.pending.depth() == 0 {
                    self.outbox.lock(self.session.submitted() + 1);
                }
            }
            is_first
        };
        if is_first {
            self.surroundings.written();
        }
        Ok(())
    }
}
