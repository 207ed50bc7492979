//! `PROBE`: its alarm, and what it remembers of how it rang.
//!
//! **Invariant:** what a handler is told is stored also where it then fails, as asked, or resets the object.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::query::{Query, Refused};
use crate::error::{Error, Result};
use crate::message::{Response, response as respond};
use crate::object::{AlarmInfo, List, State};

/// The alarm of a probe.
#[derive(Debug)]
pub struct Alarms {
    state: State,
    rang: Notify,
}

/// What the next runs of the handler are to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Plan {
    /// So many fail.
    fail: u32,
    /// The next one resets the object.
    abort: bool,
    /// The next one sets the alarm anew.
    again_ms: Option<i64>,
}

/// One run of the handler.
#[derive(Debug, Serialize, Deserialize)]
struct Fired {
    scheduled_ms: u64,
    fired_ms: u64,
    retry_count: u32,
    is_retry: bool,
}

impl Alarms {
    /// Makes the alarm of the object whose state this is.
    pub fn new(state: State) -> Self {
        Self { state, rang: Notify::new() }
    }

    /// Sets the alarm `?in_ms=` from now, or clears it, where that is asked for; answers what it is set to as
    /// JSON.
    ///
    /// # Errors
    /// Those of the query and the storage.
    pub fn set(&self, query: &Query) -> Result<Response, Refused> {
        let storage = self.state.storage();
        let plan = Plan {
            fail: query.number("fail")?.unwrap_or(0),
            abort: query.flag("abort"),
            again_ms: query.number("again_ms")?,
        };
        if let Some(in_ms) = query.number("in_ms")? {
            storage.set_alarm(self.due(in_ms))?;
            storage.put(PLAN, &plan)?;
        } else if query.flag("clear") {
            storage.delete_alarm()?;
        } else if plan != Plan::default() {
            return Err(Refused::Query("what the alarm is to do needs ?in_ms=".to_owned()));
        }
        Ok(respond::json(&storage.get_alarm()?)?)
    }

    fn due(&self, in_ms: i64) -> u64 {
        self.state.now_ms().saturating_add_signed(in_ms)
    }

    /// Notes that the alarm rings, then does what was planned.
    ///
    /// # Errors
    /// Where it was planned.
    pub async fn ring(&self, alarm: AlarmInfo) -> Result<()> {
        let storage = self.state.storage();
        let AlarmInfo { scheduled_ms, retry_count, is_retry } = alarm;
        let fired = Fired { scheduled_ms, fired_ms: self.state.now_ms(), retry_count, is_retry };
        let number = self.count()? + 1;
        storage.put(&key(number), &fired)?;
        if let Some(oldest) = number.checked_sub(FIRED_MAX) {
            storage.delete(&key(oldest))?;
        }
        let plan: Plan = storage.get(PLAN)?.unwrap_or_default();
        let left = Plan { fail: plan.fail.saturating_sub(1), ..Plan::default() };
        storage.put(PLAN, &left)?;
        self.rang.notify_waiters();
        if let Some(in_ms) = plan.again_ms {
            storage.set_alarm(self.due(in_ms))?;
        }
        if plan.abort {
            // A reset drops what is not on its way yet: it would ring so for ever.
            storage.sync().await?;
            self.state.abort("the alarm was asked to");
        }
        match plan.fail {
            0 => Ok(()),
            left => Err(Error::failed(format!("the alarm was asked to fail {left} times"))),
        }
    }

    /// Answers how the alarm rang, as JSON: the last thousand times, the latest last. Waits before until it has
    /// rung `?wait=` times, for `?ms=` at most.
    ///
    /// # Errors
    /// Those of the query and the storage.
    pub async fn fired(&self, query: &Query) -> Result<Response, Refused> {
        let wanted = query.number("wait")?.unwrap_or(0);
        let patience = Duration::from_millis(query.number("ms")?.unwrap_or(30_000));
        let waited = tokio::time::timeout(patience, self.rung(wanted)).await;
        // What there is then is the answer too.
        waited.unwrap_or(Ok(()))?;
        let fired = self.state.storage().list::<Fired>(&List::prefix(FIRED))?;
        let fired: Vec<_> = fired.into_iter().map(|(_, fired)| fired).collect();
        Ok(respond::json(&fired)?)
    }

    async fn rung(&self, wanted: u64) -> Result<()> {
        loop {
            let rang = self.rang.notified();
            if self.count()? >= wanted {
                return Ok(());
            }
            rang.await;
        }
    }

    /// Returns how often the alarm rang.
    fn count(&self) -> Result<u64> {
        let last = self.state.storage().keys(&List::prefix(FIRED).reverse().limit(1))?;
        let number = last.first().and_then(|key| key.strip_prefix(FIRED)?.parse().ok());
        Ok(number.unwrap_or(0))
    }
}

/// Returns the key of a run of the handler.
fn key(number: u64) -> String {
    format!("{FIRED}{number:020}")
}

const PLAN: &str = "~alarm";
const FIRED: &str = "~fired/";
/// Runs of the handler that are remembered.
const FIRED_MAX: u64 = 1_000;
