//! The alarms of one shard's objects: which are next, and ringing them.
//!
//! The row in an object's own record is the truth. This only knows when to look: an object that is rung and finds
//! nothing due does nothing.
//!
//! **Invariant:** one alarm of an object rings at a time, at most a bounded number of all at once, and none early.
//! **Invariant:** an alarm that could not be handled, because its object was reset or not reached, rings again.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::{Bound, ControlFlow};
use std::rc::{Rc, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures::channel::oneshot;
use futures::future::LocalBoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use tokio::sync::Notify;

use super::container::Phase;
use super::event::Event;
use super::shard::Shard;
use crate::error::{Error, Kind, Result};
use crate::schedule::{Failure, Horizon, RETRIES_MAX, Tries, Window};
use crate::storage::engine::{Batch, Change, Order};
use crate::storage::record::Record;
use crate::storage::row::{Key, KeyRange, ObjectKey, Table};

/// Alarms of a shard in memory.
const WINDOW: usize = 8_192;
/// Alarms of a shard that ring at a time.
const RINGING_MAX: usize = 256;
/// How long to wait at most before looking at the wall clock again: it may have been set.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(10);

/// The alarms of one shard's objects.
pub struct Alarms {
    window: RefCell<Window<ObjectKey>>,
    /// Those that ring, and when they are due again where that is known.
    ringing: RefCell<HashMap<ObjectKey, Option<u64>>>,
    /// Tries that ended with the object's reset.
    resets: RefCell<HashMap<ObjectKey, Tries>>,
    changed: Notify,
}

impl Default for Alarms {
    fn default() -> Self {
        let (ringing, resets) = Default::default();
        let window = RefCell::new(Window::new(WINDOW));
        Self { window, ringing, resets, changed: Notify::new() }
    }
}

impl Alarms {
    /// Notes that the alarm of an object was set, or cleared.
    pub fn set(&self, object: ObjectKey, due_ms: Option<u64>) {
        if let Some(again) = self.ringing.borrow_mut().get_mut(&object) {
            *again = due_ms;
            return;
        }
        let mut window = self.window.borrow_mut();
        let next = window.next_due();
        window.set(object, due_ms);
        if window.next_due() != next {
            self.changed.notify_one();
        }
    }

    /// Returns how many alarms are in memory.
    pub fn in_memory(&self) -> usize {
        self.window.borrow().len() + self.ringing.borrow().len()
    }
}

/// A ringing under way: which object, and what came of it.
type Ringings = FuturesUnordered<LocalBoxFuture<'static, (ObjectKey, Result<()>)>>;

/// Rings the alarms of a shard, for ever.
pub async fn ring(shard: Weak<Shard>) {
    let mut ringings = Ringings::new();
    loop {
        let delay = {
            let Some(shard) = shard.upgrade() else { return };
            if let Err(error) = load(&shard) {
                tracing::error!(%error, "alarms can't be read; trying again");
            }
            ring_due(&shard, &mut ringings);
            delay(&shard)
        };
        let Some(changed) = shard.upgrade() else { return };
        tokio::select! {
            () = changed.alarms().changed.notified() => {}
            () = tokio::time::sleep(delay) => {}
            Some((object, outcome)) = ringings.next() => changed.rang(object, outcome),
        }
    }
}

/// Loads the next alarms from the store, where none are known.
fn load(shard: &Rc<Shard>) -> Result<()> {
    let alarms = shard.alarms();
    loop {
        let (horizon, max) = {
            let window = alarms.window.borrow();
            let Some(horizon) = window.to_load() else { return Ok(()) };
            (horizon, window.load_max())
        };
        let mut range = KeyRange::alarms(None, u64::MAX);
        if let Horizon::Before(due, object) = horizon {
            range.from = Bound::Included(Key::alarm(due, &object).bytes().to_vec());
        }
        let mut loaded = Vec::new();
        shard.storages().store().scan(&range, Order::Ascending, &mut |key, _| {
            let known = key.due_ms().zip(key.object_key());
            let ours = known.filter(|(_, object)| shard.rings(object));
            let idle = ours.filter(|(_, object)| !alarms.ringing.borrow().contains_key(object));
            loaded.extend(idle);
            if loaded.len() < max { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        alarms.window.borrow_mut().loaded(loaded);
    }
}

/// Rings what is due, as far as so many may ring at a time.
fn ring_due(shard: &Rc<Shard>, ringings: &mut Ringings) {
    let alarms = shard.alarms();
    let now = shard.storages().rules().clock.unix_ms();
    while ringings.len() < RINGING_MAX && shard.refusal().is_none() {
        let Some((_, object)) = alarms.window.borrow_mut().take_due(now) else { return };
        alarms.ringing.borrow_mut().insert(object, None);
        let tries = alarms.resets.borrow().get(&object).copied().unwrap_or_default();
        let (reply, told) = oneshot::channel();
        match shard.key_of(&object) {
            Some(key) => {
                shard.registry().container(key, shard).push(Event::Alarm { tries, reply }, None)
            }
            None => drop(reply),
        }
        let gone = || Err(Error::disconnected("the object is gone"));
        let rung = async move { (object, told.await.unwrap_or_else(|_| gone())) };
        ringings.push(rung.boxed_local());
    }
}

/// Returns how long nothing is due, as far as is known.
fn delay(shard: &Shard) -> Duration {
    let now = shard.storages().rules().clock.unix_ms();
    let is_full = shard.alarms().ringing.borrow().len() >= RINGING_MAX;
    let due = shard.alarms().window.borrow().next_due().filter(|_| !is_full);
    let delay = due.map(|due| Duration::from_millis(due.saturating_sub(now)));
    delay.map_or(LOOK_AGAIN_AFTER, |delay| delay.clamp(Duration::from_millis(1), LOOK_AGAIN_AFTER))
}

impl Shard {
    /// Notes that an alarm was handled, or why it was not.
    fn rang(self: &Rc<Self>, object: ObjectKey, outcome: Result<()>) {
        let alarms = self.alarms();
        let again = alarms.ringing.borrow_mut().remove(&object).flatten();
        let Err(error) = outcome else {
            alarms.resets.borrow_mut().remove(&object);
            // What it is due at next its storage has told meanwhile.
            return alarms.set(object, again);
        };
        let tries = alarms.resets.borrow().get(&object).copied().unwrap_or_default();
        let is_theirs = error.remote || error.kind == Kind::Timeout;
        let failure = if is_theirs { Failure::Counted } else { Failure::Uncounted };
        let now = self.storages().rules().clock.unix_ms();
        tracing::warn!(object = %object.id, %error, "an alarm was not handled");
        let known = self.stored_tries(&object);
        let tries = if tries.counted + tries.backoff < known.counted + known.backoff {
            known
        } else {
            tries
        };
        match tries.after(failure, self.entropy().number()) {
            Some((tries, delay)) => {
                alarms.resets.borrow_mut().insert(object, tries);
                let delay = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
                alarms.set(object, Some(now.saturating_add(delay).saturating_add(1)));
            }
            None => {
                alarms.resets.borrow_mut().remove(&object);
                self.give_up(object);
            }
        }
    }

    fn stored_tries(&self, object: &ObjectKey) -> Tries {
        let record = self.record(object).ok().flatten();
        record.and_then(|record| record.alarm).map(|alarm| alarm.tries()).unwrap_or_default()
    }

    /// Clears the alarm of an object whose handler, or constructor, has failed too often.
    fn give_up(self: &Rc<Self>, object: ObjectKey) {
        tracing::error!(object = %object.id, "an alarm failed {} times: given up", RETRIES_MAX + 1);
        let container = self.key_of(&object).map(|key| self.registry().container(key, self));
        let cleared = match container {
            // In memory again, it clears the alarm itself.
            Some(container) if container.phase() != Phase::Absent => {
                let tries = Tries { counted: RETRIES_MAX + 1, ..Tries::default() };
                let (reply, _) = oneshot::channel();
                container.push(Event::Alarm { tries, reply }, None);
                Ok(())
            }
            _ => self.clear_alarm(object),
        };
        if let Err(error) = cleared {
            tracing::error!(object = %object.id, %error, "the alarm can't be cleared");
        }
    }

    fn clear_alarm(&self, object: ObjectKey) -> Result<()> {
        let Some(mut record) = self.record(&object)? else { return Ok(()) };
        let Some(alarm) = record.alarm.take() else { return Ok(()) };
        let mut batch = Batch::default();
        batch.push(Change::Delete(Key::alarm(alarm.due_ms, &object)));
        let mut has_rows = false;
        for table in [Table::Value, Table::Page] {
            let range = KeyRange::object(table, &object);
            let visit = &mut |_: &Key, _: Bytes| {
                has_rows = true;
                ControlFlow::Break(())
            };
            self.storages().store().scan(&range, Order::Ascending, visit)?;
        }
        record.has_data = has_rows;
        batch.push(Change::Put(Key::object(&object), record.encode()?));
        self.storages().write_absent(self.new_activation_number(), object, batch)
    }

    /// Returns the record that is stored of an object.
    pub(super) fn record(&self, object: &ObjectKey) -> Result<Option<Record>> {
        let stored = self.storages().store().get(&Key::object(object))?;
        stored.map(|bytes| Record::decode(object, &bytes)).transpose()
    }
}
