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

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::ops::{Bound, ControlFlow};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::channel::oneshot;

use super::engine::{Batch, Change, Done, Order, Session, Store, Submitted, Ticket};
use super::history::History;
use super::pending::{Layer, Pending, Span};
use super::record::{Alarm, Record};
use super::row::{Key, KeyRange, ObjectKey, Table};
use super::sql;
use super::sql::database::Database;
use super::sql::pages::Pages;
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::gate::Outbox;
use crate::schedule::{Failure, RETRIES_MAX, Tries};

/// What the storage of every object of a thread goes by.
#[derive(Clone, Debug)]
pub struct Rules {
    /// What time it is.
    pub clock: Clock,
    /// How long it is possible to go back; none: not at all.
    pub retention: Option<Duration>,
    /// Bytes of one transaction.
    pub transaction_bytes_max: usize,
    /// The bounds of SQL databases.
    pub sql: sql::limits::Limits,
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

/// An alarm that rings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ringing {
    /// What it was set to, in milliseconds since 1970.
    pub scheduled_ms: u64,
    /// How often its handler has failed.
    pub retries: u32,
    /// How often it was tried.
    pub tries: Tries,
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

/// The pages of an object, as its store has them.
struct StoredPages {
    store: Rc<dyn Store>,
    object: ObjectKey,
    hidden: Rc<Cell<bool>>,
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

    /// Returns the session's number.
    pub fn session(&self) -> u64 {
        self.session.number
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
    /// Why the storage is broken; *failed* where the transaction is too large.
    pub fn set(&self, key: &[u8], value: Option<Bytes>, confirm: Confirm) -> Result<()> {
        let length = value.as_ref().map_or(0, Bytes::len) + key.len();
        self.change(confirm, length, |state| state.pending.top().set(key.to_vec(), value))
    }

    /// Has nothing be stored any more, the alarm included.
    ///
    /// # Errors
    /// Why the storage is broken; *failed* inside a transaction.
    pub fn clear(&self, confirm: Confirm) -> Result<()> {
        if self.usable()?.pending.depth() > 0 {
            return Err(Error::failed("everything can't be deleted inside a transaction"));
        }
        let pages = self.stored_pages()?;
        self.change(confirm, 0, |state| {
            state.pending.top().clear();
            // What it had is gone; used again, it begins anew.
            state.sql = None;
            self.pages_hidden.set(true);
            state.pages.extend(pages.into_iter().map(|number| (number, None)));
        })
    }

    /// Visits the values whose keys lie in `span`, in order, until `visit` breaks.
    ///
    /// # Errors
    /// Why the storage is broken; where the store can't be read.
    pub fn visit(
        &self,
        span: &Span,
        order: Order,
        visit: &mut dyn FnMut(&[u8], Bytes) -> ControlFlow<()>,
    ) -> Result<()> {
        let (waiting, is_cleared) = {
            let state = self.usable()?;
            (state.pending.within(span, order), state.pending.is_cleared())
        };
        let mut merge =
            Merge { waiting: waiting.into_iter().peekable(), order, visit, ended: false };
        if !is_cleared && !span.is_empty() {
            let bound = |bound: &Bound<Vec<u8>>| bound.clone();
            let (from, to) = (bound(&span.from), bound(&span.to));
            let range = KeyRange::within(
                Table::Value,
                &self.session.object,
                from.as_ref().map(Vec::as_slice),
                to.as_ref().map(Vec::as_slice),
            );
            self.store.scan(&range, order, &mut |key, value| merge.stored(key, value))?;
        }
        merge.rest();
        Ok(())
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

    /// Uses the SQL database, which is opened where it was not used before.
    ///
    /// # Errors
    /// The error of `work`; why the storage, or the database, is broken.
    pub fn with_sql<T>(
        &self,
        confirm: Confirm,
        work: impl FnOnce(&Database) -> Result<T>,
    ) -> Result<T> {
        let sql = self.sql()?;
        let was_dirty = sql.is_dirty();
        let worked = self.of_sql(&sql, work(&sql))?;
        // Inside a transaction it is known at its end.
        if sql.is_dirty() && self.usable()?.pending.depth() == 0 {
            if confirm == Confirm::Yes {
                self.outbox.lock(self.session.submitted() + 1);
            }
            if !was_dirty {
                self.surroundings.written();
            }
        }
        Ok(worked)
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
    fn of_sql<T>(&self, sql: &Database, outcome: Result<T>) -> Result<T> {
        if let Some(failure) = sql.page_failure() {
            self.break_with(&failure);
            self.surroundings.written();
            return Err(failure);
        }
        outcome
    }

    /// Returns what the alarm is set to; none while it rings, unless it was set meanwhile.
    ///
    /// # Errors
    /// Why the storage is broken.
    pub fn alarm(&self) -> Result<Option<u64>> {
        let state = self.usable()?;
        let alarm = match state.pending.alarm() {
            Some(alarm) => alarm,
            None if state.ringing.is_some() && !state.alarm_replaced => None,
            None => state.record.alarm,
        };
        Ok(alarm.map(|alarm| alarm.scheduled_ms))
    }

    /// Sets the alarm, or clears it. Clearing does not undo that it rings.
    ///
    /// # Errors
    /// Why the storage is broken.
    pub fn set_alarm(&self, scheduled_ms: Option<u64>, confirm: Confirm) -> Result<()> {
        let is_set = self.alarm()?.is_some();
        if scheduled_ms.is_none() && !is_set {
            return Ok(());
        }
        self.change(confirm, 0, |state| {
            state.pending.top().alarm = Some(scheduled_ms.map(Alarm::at));
        })
    }

    /// Begins to ring, if the alarm is due. `tries` are those that the store does not know of.
    ///
    /// # Errors
    /// Why the storage is broken.
    pub fn ring(&self, tries: Tries) -> Result<Option<Ringing>> {
        let now = self.rules.clock.unix_ms();
        let mut state = self.usable_mut()?;
        let alarm = match state.pending.alarm() {
            Some(_) => None,
            None => state.record.alarm.filter(|alarm| alarm.due_ms <= now),
        };
        let Some(alarm) = alarm.filter(|_| state.ringing.is_none()) else { return Ok(None) };
        if tries.counted > RETRIES_MAX {
            drop(state);
            self.set_alarm(None, Confirm::Yes)?;
            return Ok(None);
        }
        let known = alarm.tries();
        let is_known = known.counted + known.backoff >= tries.counted + tries.backoff;
        let tries = if is_known { known } else { tries };
        let ringing = Ringing { scheduled_ms: alarm.scheduled_ms, retries: tries.counted, tries };
        state.ringing = Some(ringing);
        state.alarm_replaced = false;
        Ok(Some(ringing))
    }

    /// Ends to ring. A failure has it tried again later, unless it was set meanwhile or failed too often.
    ///
    /// # Errors
    /// Why the storage is broken.
    pub fn rang(&self, outcome: Result<(), Failure>, random: u64) -> Result<()> {
        let now = self.rules.clock.unix_ms();
        let again = {
            let mut state = self.usable_mut()?;
            let Some(ringing) = state.ringing.take() else { return Ok(()) };
            if state.alarm_replaced || state.pending.alarm().is_some() {
                return Ok(());
            }
            let tried = Alarm::tried(ringing.scheduled_ms, ringing.tries);
            outcome.err().and_then(|failure| tried.after(failure, now, random))
        };
        self.change(Confirm::Yes, 0, |state| state.pending.top().alarm = Some(again))
    }

    /// Waits until everything that was written so far is durable.
    ///
    /// # Errors
    /// Why it never will be.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub fn synced(&self) -> impl Future<Output = Result<()>> + use<> {
        let (told, outcome) = oneshot::channel();
        if let Err(error) = self.flush() {
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

    /// Returns a bookmark of this moment: everything written so far is before it.
    ///
    /// # Errors
    /// Why the storage is broken; *failed* inside a transaction, or where nothing is kept.
    pub fn bookmark(&self) -> Result<u64> {
        self.going_back_is_possible()?;
        self.flush()?;
        let mut state = self.usable_mut()?;
        state.history.close();
        Ok(state.record.period)
    }

    /// Returns the bookmark of the moment `at_ms`, to within ten seconds.
    ///
    /// # Errors
    /// *failed* where that is further back than is kept, or to come.
    pub fn bookmark_at(&self, at_ms: u64) -> Result<u64> {
        self.going_back_is_possible()?;
        let now = self.rules.clock.unix_ms();
        let oldest = self.usable()?.history.oldest(now).unwrap_or(now);
        if at_ms < oldest || at_ms > now {
            return Err(Error::failed(format!(
                "{at_ms} ms is not between {oldest} and {now}, the times that can be gone back to"
            )));
        }
        Ok(at_ms)
    }

    /// Has the object's next start go back to `bookmark`. Returns the bookmark that undoes it.
    ///
    /// # Errors
    /// As [`bookmark`](Self::bookmark), and where the bookmark is older than is kept.
    pub fn restore(&self, bookmark: u64) -> Result<u64> {
        let undo = self.bookmark()?;
        let now = self.rules.clock.unix_ms();
        let oldest = self.usable()?.history.oldest(now).unwrap_or(now);
        // A period is as old as its end: what was kept in it can be gone back to.
        if bookmark > undo.max(now) || (bookmark < oldest && bookmark != undo) {
            return Err(Error::failed(format!(
                "bookmark {bookmark:016x} is not between {oldest:016x} and {undo:016x}, those that can \
                 be gone back to"
            )));
        }
        self.change(Confirm::Yes, 0, |state| {
            state.record.restore = Some(bookmark);
            state.record_changed = true;
        })?;
        Ok(undo)
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
        let (batch, alarm) = self.batch(&mut state)?;
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
    fn usable(&self) -> Result<std::cell::Ref<'_, State>> {
        let state = self.state.borrow();
        match &state.broken {
            Some(error) => Err(error.clone()),
            None => Ok(state),
        }
    }

    fn usable_mut(&self) -> Result<std::cell::RefMut<'_, State>> {
        drop(self.usable()?);
        Ok(self.state.borrow_mut())
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

    fn stored_pages(&self) -> Result<Vec<u32>> {
        let mut pages = Vec::new();
        let range = KeyRange::object(Table::Page, &self.session.object);
        self.store.scan(&range, Order::Ascending, &mut |key, _| {
            let number = key.after_object().first_chunk().copied().map(u32::from_be_bytes);
            pages.extend(number);
            ControlFlow::Continue(())
        })?;
        Ok(pages)
    }

    fn going_back_is_possible(&self) -> Result<()> {
        let state = self.usable()?;
        if !state.history.is_kept() {
            return Err(Error::failed("no history is kept: set `storage.history` to a time"));
        }
        if state.pending.depth() > 0 {
            return Err(Error::failed("a bookmark can't be made inside a transaction"));
        }
        Ok(())
    }

    /// Makes the object what it was at `bookmark`.
    fn go_back(&self, bookmark: u64) -> Result<()> {
        let rows = {
            let state = self.state.borrow();
            state.history.back_to(bookmark, &state.record, &*self.store)?
        };
        {
            let mut state = self.state.borrow_mut();
            state.record.restore = None;
            state.record_changed = true;
            for (row, was) in rows {
                let rest = row.after_object();
                match row.table() {
                    Table::Page => {
                        let number = rest.first_chunk().copied().map(u32::from_be_bytes);
                        state.pages.extend(number.map(|number| (number, was)));
                    }
                    _ => state.pending.top().set(rest.to_vec(), was),
                }
            }
        }
        self.outbox.lock(self.session.submitted() + 1);
        self.flush()
    }

    /// Turns what waits into a batch; returns the alarm beside it, if it changed.
    fn batch(&self, state: &mut State) -> Result<(Batch, Option<Option<u64>>)> {
        let object = self.session.object;
        let mut batch = Batch::default();
        let before = state.record.clone();
        let now = self.rules.clock.unix_ms();
        state.history.enter(&mut state.record, now, &mut batch);
        let layer = state.pending.take();
        let mut pages = std::mem::take(&mut state.pages);
        pages.extend(state.sql.iter().flat_map(|sql| sql.take_dirty()));
        let may_be_empty = layer.cleared
            || layer.values.values().any(Option::is_none)
            || pages.iter().any(|(_, page)| page.is_none());
        let Layer { values, cleared, alarm, .. } = layer;
        if cleared {
            self.clear_values(state, &mut batch)?;
        }
        let put_any =
            values.values().any(Option::is_some) || pages.iter().any(|(_, page)| page.is_some());
        let rows = values.into_iter().map(|(key, value)| (Key::value(&object, &key), value));
        let pages = pages.into_iter().map(|(number, page)| (Key::page(&object, number), page));
        for (row, content) in rows.chain(pages) {
            state.history.save(&row, &state.record, &*self.store, &mut batch)?;
            batch.push(match content {
                Some(content) => Change::Put(row, content),
                None => Change::Delete(row),
            });
        }
        let changed = alarm.filter(|alarm| *alarm != before.alarm || state.ringing.is_some());
        if let Some(alarm) = alarm {
            state.alarm_replaced = state.ringing.is_some();
            self.replace_alarm(state, alarm, &mut batch);
        }
        if put_any || state.record.alarm.is_some() {
            state.record.has_data = true;
        } else if may_be_empty || (before.alarm.is_some() && state.record.alarm.is_none()) {
            state.record.has_data = self.has_rows_after(&batch)?;
        }
        self.write_record(state, &before, &mut batch)?;
        Ok((batch, changed.map(|alarm| alarm.map(|alarm| alarm.due_ms))))
    }

    fn clear_values(&self, state: &mut State, batch: &mut Batch) -> Result<()> {
        let range = KeyRange::object(Table::Value, &self.session.object);
        if state.history.is_kept() {
            let mut rows = Vec::new();
            self.store.scan(&range, Order::Ascending, &mut |key, _| {
                rows.push(key.clone());
                ControlFlow::Continue(())
            })?;
            for row in rows {
                state.history.save(&row, &state.record, &*self.store, batch)?;
            }
        }
        batch.push(Change::Clear(range));
        Ok(())
    }

    fn replace_alarm(&self, state: &mut State, alarm: Option<Alarm>, batch: &mut Batch) {
        let object = &self.session.object;
        if let Some(old) = state.record.alarm {
            batch.push(Change::Delete(Key::alarm(old.due_ms, object)));
        }
        if let Some(new) = alarm {
            batch.push(Change::Put(Key::alarm(new.due_ms, object), Bytes::new()));
        }
        state.record.alarm = alarm;
    }

    /// Returns whether the object has any value or page once `batch` is written.
    fn has_rows_after(&self, batch: &Batch) -> Result<bool> {
        let mut left = false;
        for table in [Table::Value, Table::Page] {
            let range = KeyRange::object(table, &self.session.object);
            let goes = |key: &Key| {
                batch.changes().iter().rev().find_map(|change| match change {
                    Change::Put(of, _) => (of == key).then_some(false),
                    Change::Delete(of) => (of == key).then_some(true),
                    Change::Clear(range) => range.contains(key).then_some(true),
                })
            };
            self.store.scan(&range, Order::Ascending, &mut |key, _| {
                left = !goes(key).unwrap_or(false);
                if left { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })?;
            if left {
                break;
            }
        }
        Ok(left)
    }

    fn write_record(&self, state: &mut State, before: &Record, batch: &mut Batch) -> Result<()> {
        let key = Key::object(&self.session.object);
        let record = &state.record;
        let is_needed = record.has_data
            || record.name.is_some()
            || record.restore.is_some()
            || state.history.is_kept();
        if !is_needed {
            if state.is_recorded {
                batch.push(Change::Delete(key));
            }
            state.record = Record::default();
        } else if !state.is_recorded || state.record_changed || record != before {
            batch.push(Change::Put(key, record.encode()?));
        }
        state.is_recorded = is_needed;
        state.record_changed = false;
        Ok(())
    }
}

/// Merges what waits with what is stored, in order.
struct Merge<'a> {
    waiting: std::iter::Peekable<std::vec::IntoIter<(Vec<u8>, Option<Bytes>)>>,
    order: Order,
    visit: &'a mut dyn FnMut(&[u8], Bytes) -> ControlFlow<()>,
    ended: bool,
}

impl Merge<'_> {
    fn stored(&mut self, key: &Key, value: Bytes) -> ControlFlow<()> {
        let key = key.after_object();
        while let Some((next, _)) = self.waiting.peek() {
            let comes_first = match self.order {
                Order::Ascending => next.as_slice() <= key,
                Order::Descending => next.as_slice() >= key,
            };
            if !comes_first {
                break;
            }
            let is_same = next.as_slice() == key;
            self.one_waiting()?;
            if is_same {
                return ControlFlow::Continue(());
            }
        }
        self.show(key, value)
    }

    fn rest(&mut self) {
        while !self.ended && self.waiting.peek().is_some() {
            let _ = self.one_waiting();
        }
    }

    fn one_waiting(&mut self) -> ControlFlow<()> {
        match self.waiting.next() {
            Some((key, Some(value))) => self.show(&key, value),
            _ => ControlFlow::Continue(()),
        }
    }

    fn show(&mut self, key: &[u8], value: Bytes) -> ControlFlow<()> {
        let flow = (self.visit)(key, value);
        self.ended = flow.is_break();
        flow
    }
}
