//! What a store knows of an object beside its data.
//!
//! **Invariant:** a record that is damaged is an error that names the object, never another record.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::row::ObjectKey;
use super::value;
use crate::error::{Error, Result};
use crate::schedule::{Failure, Tries};

/// What a store knows of an object beside its data. Times are milliseconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The name by which it was first reached.
    pub name: Option<String>,
    /// Whether anything of its own is stored: a value, a page, an alarm.
    pub has_data: bool,
    /// Its alarm. The table of alarms has a row for it, made in the same batch.
    pub alarm: Option<Alarm>,
    /// The period in which the object was first written.
    pub since: u64,
    /// The period in which it was last written. Periods only grow.
    pub period: u64,
    /// The bookmark that its next start goes back to.
    pub restore: Option<u64>,
    /// The last period that was written while no history was kept: what was before it can't be gone back to.
    #[serde(default)]
    pub unkept: u64,
}

/// What of a record changes with the object's data. Its name does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marks {
    /// Its alarm.
    pub alarm: Option<Alarm>,
    has_data: bool,
    since: u64,
    period: u64,
    restore: Option<u64>,
    unkept: u64,
}

/// An alarm that will ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alarm {
    /// What it was set to.
    pub scheduled_ms: u64,
    /// When it rings: when it was set to, or when it is tried again.
    pub due_ms: u64,
    /// Failures of its handler.
    counted: u32,
    backoff: u32,
    uncounted: bool,
}

impl Alarm {
    /// Makes one that was not tried yet.
    pub fn at(scheduled_ms: u64) -> Self {
        let due_ms = scheduled_ms;
        Self { scheduled_ms, due_ms, counted: 0, backoff: 0, uncounted: false }
    }

    /// Makes one that was tried already.
    pub fn tried(scheduled_ms: u64, tries: Tries) -> Self {
        let Tries { counted, backoff, uncounted } = tries;
        Self { counted, backoff, uncounted, ..Self::at(scheduled_ms) }
    }

    /// Returns how often it was tried.
    pub fn tries(&self) -> Tries {
        let Self { counted, backoff, uncounted, .. } = *self;
        Tries { counted, backoff, uncounted }
    }

    /// Returns it as it is after one more failure, at `now_ms`; none where it is given up.
    pub fn after(self, failure: Failure, now_ms: u64, random: u64) -> Option<Self> {
        let (tries, delay) = self.tries().after(failure, random)?;
        let Tries { counted, backoff, uncounted } = tries;
        // Rounded up: never early.
        let delay = (delay + Duration::from_micros(999)).as_millis().try_into().unwrap_or(u64::MAX);
        let due_ms = now_ms.saturating_add(delay);
        Some(Self { scheduled_ms: self.scheduled_ms, due_ms, counted, backoff, uncounted })
    }
}

impl Record {
    /// Returns what changes with the object's data.
    pub fn marks(&self) -> Marks {
        let Self { name: _, has_data, alarm, since, period, restore, unkept } = *self;
        Marks { alarm, has_data, since, period, restore, unkept }
    }

    /// Returns whether it has anything to say; where not, there is none in the store. `is_history_kept` is whether
    /// the object's history is: it goes by the record's periods.
    pub fn is_needed(&self, is_history_kept: bool) -> bool {
        self.has_data || self.name.is_some() || self.restore.is_some() || is_history_kept
    }

    /// Encodes it for the store.
    ///
    /// # Errors
    /// Never, as far as is known.
    pub fn encode(&self) -> Result<Bytes> {
        // Without the names of the fields: there are as many records as objects. New fields go last, with
        // `serde(default)`.
        let encoded = rmp_serde::to_vec(self).map(Bytes::from);
        encoded.map_err(|error| Error::failed(format!("a record can't be encoded: {error}")))
    }

    /// Decodes the record of `object`.
    ///
    /// # Errors
    /// *failed* where the bytes are no record.
    pub fn decode(object: &ObjectKey, bytes: &[u8]) -> Result<Self> {
        value::decode(bytes).map_err(|error| {
            Error::failed(format!("the record of object {} is damaged: {error}", object.id))
        })
    }
}
