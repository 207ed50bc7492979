//! What an object's rows were before they changed, so that it can go back.
//!
//! Time is cut into *periods*, each named by the moment at which it began. The first change of a row in a period
//! keeps what the row was; later ones in the same period keep nothing, so a row that changes all the time costs
//! one row of history a period. To go back to a moment is to give every row what it was before the first
//! period that began later.
//!
//! **Invariant:** the periods of an object only grow, whatever the clock does.
//! **Invariant:** a row's history is written in the batch that changes the row.
//! **Invariant:** what was written while no history was kept is never gone back behind.

use std::collections::{BTreeMap, HashSet};
use std::ops::{Bound, ControlFlow};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::engine::{Batch, Change, Order, Store};
use super::record::Record;
use super::row::{Key, KeyRange, ObjectKey, Table};
use crate::error::{Error, Result};

/// How long a period lasts. A moment can be gone back to with this precision; a bookmark, exactly.
const PERIOD: Duration = Duration::from_secs(10);
/// Rows that are remembered as kept. Of others the store is asked.
const SAVED_MAX: usize = 1024;

/// The present period of one object in memory.
#[derive(Debug)]
pub struct History {
    object: ObjectKey,
    retention: Option<Duration>,
    period: Option<u64>,
    saved: HashSet<Key>,
    /// Whether some that are kept are not remembered any more.
    forgot: bool,
}

impl History {
    /// Makes the history of `object`, which is kept for `retention`; none: nothing is kept.
    pub fn new(object: ObjectKey, retention: Option<Duration>) -> Self {
        Self { object, retention, period: None, saved: HashSet::new(), forgot: false }
    }

    /// Returns whether anything is kept.
    pub fn is_kept(&self) -> bool {
        self.retention.is_some()
    }

    /// Ends the present period: what is written from now on can be told from what was.
    pub fn close(&mut self) {
        self.period = None;
        self.saved.clear();
        self.forgot = false;
    }

    /// Enters the period of `now_ms`, and forgets in `batch` what is too old, or everything where nothing is kept.
    pub fn enter(&mut self, record: &mut Record, now_ms: u64, batch: &mut Batch) {
        if self.period.is_some_and(|period| now_ms < period.saturating_add(whole_ms(PERIOD))) {
            return;
        }
        self.close();
        let period = now_ms.max(record.period.saturating_add(1));
        self.period = Some(period);
        if record.since == 0 {
            record.since = period;
        }
        let last = std::mem::replace(&mut record.period, period);
        if !self.is_kept() {
            // Once for all, where it was kept until now: it would be of no use, and never go.
            if record.unkept != last {
                let range = KeyRange::object(Table::History, &self.object);
                batch.push(Change::Clear(range));
            }
            record.unkept = period;
            return;
        }
        // What the next start goes back to is needed until then.
        let oldest = self.oldest(now_ms).map(|oldest| oldest.min(record.restore.unwrap_or(oldest)));
        let Some(oldest) = oldest.filter(|oldest| record.since < *oldest) else { return };
        let old = oldest.to_be_bytes();
        let to = Bound::Excluded(&old[..]);
        let range = KeyRange::within(Table::History, &self.object, Bound::Unbounded, to);
        batch.push(Change::Clear(range));
    }

    /// Keeps in `batch` what `row` is, where it is about to change for the first time in this period.
    ///
    /// # Errors
    /// Where the store can't be read.
    pub fn save(
        &mut self,
        row: &Key,
        record: &Record,
        store: &dyn Store,
        batch: &mut Batch,
    ) -> Result<()> {
        self.save_as(row, || store.get(row), record, store, batch)
    }

    /// Keeps in `batch` that `row` is what `was` returns, likewise.
    ///
    /// # Errors
    /// Where the store can't be read.
    pub fn save_as(
        &mut self,
        row: &Key,
        was: impl FnOnce() -> Result<Option<Bytes>>,
        record: &Record,
        store: &dyn Store,
        batch: &mut Batch,
    ) -> Result<()> {
        let Some(period) = self.period.filter(|_| self.is_kept()) else { return Ok(()) };
        // Before its first period there was nothing.
        if record.since == period || self.saved.contains(row) {
            return Ok(());
        }
        let kept = Key::history(&self.object, period, row);
        if !self.forgot || store.get(&kept)?.is_none() {
            batch.push(Change::Put(kept, encode(was()?)));
        }
        if self.saved.len() >= SAVED_MAX {
            self.saved.clear();
            self.forgot = true;
        }
        self.saved.insert(row.clone());
        Ok(())
    }

    /// Returns what must change so that the object is as it was at `bookmark`.
    ///
    /// # Errors
    /// Where the store can't be read, or is damaged.
    pub fn back_to(
        &self,
        bookmark: u64,
        record: &Record,
        store: &dyn Store,
    ) -> Result<BTreeMap<Key, Option<Bytes>>> {
        let mut rows = BTreeMap::new();
        let mut damaged = None;
        if bookmark < record.since {
            for table in [Table::Value, Table::Page] {
                let range = KeyRange::object(table, &self.object);
                store.scan(&range, Order::Ascending, &mut |key, _| {
                    rows.insert(key.clone(), None);
                    ControlFlow::Continue(())
                })?;
            }
            return Ok(rows);
        }
        let after = bookmark.saturating_add(1).to_be_bytes();
        let from = Bound::Included(&after[..]);
        let range = KeyRange::within(Table::History, &self.object, from, Bound::Unbounded);
        store.scan(&range, Order::Ascending, &mut |key, value| match (
            key.of_history(),
            decode(value),
        ) {
            (Some((_, row)), Some(was)) => {
                rows.entry(row).or_insert(was);
                ControlFlow::Continue(())
            }
            _ => {
                damaged = Some(format!("the history row {key:?} is damaged"));
                ControlFlow::Break(())
            }
        })?;
        damaged.map_or(Ok(rows), |damage| Err(Error::failed(damage)))
    }

    /// Returns the oldest moment that can be gone back to at `now_ms`; none where there is none.
    pub fn oldest(&self, now_ms: u64) -> Option<u64> {
        self.retention.map(|retention| now_ms.saturating_sub(whole_ms(retention)))
    }
}

fn whole_ms(duration: Duration) -> u64 {
    duration.as_millis().try_into().unwrap_or(u64::MAX)
}

/// What a row was: a byte that says whether it was there, then its content.
fn encode(was: Option<Bytes>) -> Bytes {
    match was {
        None => Bytes::from_static(&[0]),
        Some(content) => {
            let mut encoded = BytesMut::with_capacity(1 + content.len());
            encoded.put_u8(1);
            encoded.put(content);
            encoded.freeze()
        }
    }
}

fn decode(mut kept: Bytes) -> Option<Option<Bytes>> {
    if kept.is_empty() {
        return None;
    }
    match (kept.get_u8(), kept.is_empty()) {
        (0, true) => Some(None),
        (1, _) => Some(Some(kept)),
        _ => None,
    }
}
