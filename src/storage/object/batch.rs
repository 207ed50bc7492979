//! From what waits to a batch: the rows, and what the record, the alarm and the history need beside them.

use std::collections::HashSet;
use std::ops::ControlFlow;

use bytes::Bytes;

use super::{ObjectStorage, State};
use crate::error::Result;
use crate::storage::engine::{Batch, Change, Order, Store};
use crate::storage::pending::Layer;
use crate::storage::record::{Alarm, Marks, Record};
use crate::storage::row::{Key, KeyRange, ObjectKey, Table};

impl ObjectStorage {
    /// Turns what waits into a batch; returns the alarm beside it, if it changed.
    pub(super) fn batch(&self, state: &mut State) -> Result<(Batch, Option<Option<u64>>)> {
        let object = self.session.object;
        let mut batch = Batch::default();
        let before = state.record.marks();
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
            self.clear_rows(Table::Value, state, &mut batch)?;
            self.clear_rows(Table::Page, state, &mut batch)?;
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
        if let Some(alarm) = alarm {
            state.alarm_replaced = state.ringing.is_some();
            self.replace_alarm(state, alarm, &mut batch);
        }
        if put_any || state.record.alarm.is_some() {
            state.record.has_data = true;
        } else if may_be_empty || (before.alarm.is_some() && state.record.alarm.is_none()) {
            state.record.has_data = has_rows_after(&*self.store, &object, &batch)?;
        }
        self.write_record(state, before, &mut batch)?;
        // Set to what it was, it is told too: it may be what has just rung.
        Ok((batch, alarm.map(|alarm| alarm.map(|alarm| alarm.due_ms))))
    }

    fn clear_rows(&self, table: Table, state: &mut State, batch: &mut Batch) -> Result<()> {
        let range = KeyRange::object(table, &self.session.object);
        if state.history.is_kept() {
            let State { history, record, .. } = state;
            let mut rows = Vec::new();
            self.store.scan(&range, Order::Ascending, &mut |key, value| {
                rows.push((key.clone(), value));
                ControlFlow::Continue(())
            })?;
            for (row, was) in rows {
                history.save_as(&row, || Ok(Some(was)), record, &*self.store, batch)?;
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

    fn write_record(&self, state: &mut State, before: Marks, batch: &mut Batch) -> Result<()> {
        let key = Key::object(&self.session.object);
        let record = &state.record;
        let is_needed = record.is_needed(state.history.is_kept());
        if !is_needed {
            if state.is_recorded {
                batch.push(Change::Delete(key));
            }
            state.record = Record::default();
        } else if !state.is_recorded || state.record_changed || record.marks() != before {
            batch.push(Change::Put(key, record.encode()?));
        }
        state.is_recorded = is_needed;
        state.record_changed = false;
        Ok(())
    }
}

/// Returns whether `object` has any value or page once `batch` is written, which puts none.
///
/// # Errors
/// Where the store can't be read.
pub fn has_rows_after(store: &dyn Store, object: &ObjectKey, batch: &Batch) -> Result<bool> {
    let (mut gone, mut cleared) = (HashSet::new(), Vec::new());
    for change in batch.changes() {
        match change {
            Change::Delete(key) => drop(gone.insert(key)),
            Change::Clear(range) => cleared.push(range),
            Change::Put(..) => {}
        }
    }
    let mut left = false;
    for table in [Table::Value, Table::Page] {
        let range = KeyRange::object(table, object);
        if cleared.contains(&&range) {
            continue;
        }
        store.scan(&range, Order::Ascending, &mut |key, _| {
            left = !gone.contains(key) && !cleared.iter().any(|range| range.contains(key));
            if left { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        if left {
            break;
        }
    }
    Ok(left)
}
