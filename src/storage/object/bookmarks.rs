//! Going back: bookmarks, and what the next start makes of them.

use super::{Confirm, ObjectStorage};
use crate::error::{Error, Result};
use crate::storage::row::Table;

impl ObjectStorage {
    /// Returns a bookmark of this moment: everything written so far is before it, and becomes durable as one.
    ///
    /// # Errors
    /// Why the storage is broken; *failed* inside a transaction, or where nothing is kept.
    pub fn bookmark(&self) -> Result<u64> {
        self.going_back_is_possible()?;
        self.flush()?;
        let now = self.rules.clock.unix_ms();
        let mut state = self.usable_mut()?;
        state.history.close();
        if state.record.period < now {
            // So that the next period is a later one, wherever the clock is by then.
            state.record.period = now;
            state.record_changed = state.is_recorded;
        }
        let bookmark = state.record.period;
        drop(state);
        self.surroundings.written();
        Ok(bookmark)
    }

    /// Returns the oldest bookmark that can be gone back to.
    fn oldest(&self) -> Result<u64> {
        let now = self.rules.clock.unix_ms();
        let state = self.usable()?;
        Ok(state.history.oldest(now).unwrap_or(now).max(state.record.unkept))
    }

    /// Returns the bookmark of the moment `at_ms`, to within ten seconds.
    ///
    /// # Errors
    /// *failed* where that is further back than is kept, or to come.
    pub fn bookmark_at(&self, at_ms: u64) -> Result<u64> {
        self.going_back_is_possible()?;
        let now = self.rules.clock.unix_ms();
        let oldest = self.oldest()?;
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
        let oldest = self.oldest()?;
        if bookmark > undo || bookmark < oldest {
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
    pub(super) fn go_back(&self, bookmark: u64) -> Result<()> {
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
}
