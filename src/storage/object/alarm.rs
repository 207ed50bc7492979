//! The alarm of an object: set, cleared, rung.

use super::{Confirm, ObjectStorage};
use crate::error::Result;
use crate::schedule::{Failure, RETRIES_MAX, Tries};
use crate::storage::record::Alarm;

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

impl ObjectStorage {
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
    /// Why the storage is broken; *overloaded* where too much waits to become durable.
    pub fn set_alarm(&self, scheduled_ms: Option<u64>, confirm: Confirm) -> Result<()> {
        let is_set = self.alarm()?.is_some();
        if scheduled_ms.is_none() && !is_set {
            return Ok(());
        }
        self.has_room()?;
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
        let Some(alarm) = alarm.filter(|_| state.ringing.is_none()) else {
            let is_known = state.ringing.is_some() || state.pending.alarm().is_some();
            let later = state.record.alarm.filter(|_| !is_known);
            drop(state);
            if let Some(later) = later {
                // Whoever rang did not know when it is due.
                self.surroundings.alarm_changed(Some(later.due_ms));
            }
            return Ok(None);
        };
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
}
