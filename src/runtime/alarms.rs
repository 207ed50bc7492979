//! The alarms of one shard's objects: which are next, and ringing them.
//!
//! The row in an object's own record is the truth. This only knows when to look: an object that is rung and finds
//! nothing due does nothing.
//!
//! **Invariant:** one alarm of an object rings at a time, and none early. At most a bounded number of all are on
//! their way into their objects at once, and at most a bounded number wait to be tried again.
//! **Invariant:** an alarm that could not be handled, because its object was reset or not reached, rings again.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashMap};
use std::ops::{Bound, ControlFlow};
use std::rc::{Rc, Weak};
use std::time::Duration;

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
use crate::storage::object::has_rows_after;
use crate::storage::record::{Alarm, Record};
use crate::storage::row::{Key, KeyRange, ObjectKey};

/// Alarms of a shard in memory.
const WINDOW: usize = 8_192;
/// Alarms of a shard that are on their way into their objects at a time. How long a handler takes is its own
/// business: it holds up nobody else's alarm.
const ENTERING_MAX: usize = 256;
/// Alarms of a shard that wait to be tried again before no further ones ring.
const RETRIES_WAITING_MAX: usize = 8_192;
/// After how long an alarm is tried again for which there was no room.
const NO_ROOM_DELAY_MS: u64 = 1_000;
/// How long to wait at most before looking at the wall clock again: it may have been set.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(10);

/// The alarms of one shard's objects.
pub struct Alarms {
    window: RefCell<Window<ObjectKey>>,
    /// Those that ring, and when they are due again where that is known.
    ringing: RefCell<HashMap<ObjectKey, Option<u64>>>,
    /// Tries that ended with the object's reset, and when the next one is.
    resets: RefCell<HashMap<ObjectKey, (Tries, u64)>>,
    /// Those of `resets` that wait, by time. Where they are stored they were due long ago: the window would never
    /// load them again.
    retries: RefCell<BTreeSet<(u64, ObjectKey)>>,
    /// How many are on their way into their objects.
    entering: Cell<usize>,
    changed: Notify,
}

impl Default for Alarms {
    fn default() -> Self {
        let (ringing, resets, retries, entering) = Default::default();
        let window = RefCell::new(Window::new(WINDOW));
        Self { window, ringing, resets, retries, entering, changed: Notify::new() }
    }
}

impl Alarms {
    /// Notes that the alarm of an object was set, or cleared.
    pub fn set(&self, object: ObjectKey, due_ms: Option<u64>) {
        if let Some(again) = self.ringing.borrow_mut().get_mut(&object) {
            *again = due_ms;
            return;
        }
        let next = self.next_due();
        self.forget_resets(&object);
        self.window.borrow_mut().set(object, due_ms);
        if self.next_due() != next {
            self.changed.notify_one();
        }
    }

    /// Has an alarm whose object was reset ring again.
    fn retry(&self, object: ObjectKey, tries: Tries, at_ms: u64) {
        self.forget_resets(&object);
        self.resets.borrow_mut().insert(object, (tries, at_ms));
        self.retries.borrow_mut().insert((at_ms, object));
    }

    fn forget_resets(&self, object: &ObjectKey) {
        if let Some((_, at_ms)) = self.resets.borrow_mut().remove(object) {
            self.retries.borrow_mut().remove(&(at_ms, *object));
        }
    }

    /// Returns the tries of an alarm that ended with its object's reset.
    fn reset_tries(&self, object: &ObjectKey) -> Tries {
        self.resets.borrow().get(object).map(|(tries, _)| *tries).unwrap_or_default()
    }

    fn next_due(&self) -> Option<u64> {
        let retry = self.retries.borrow().first().map(|(at_ms, _)| *at_ms);
        let is_full = self.resets.borrow().len() >= RETRIES_WAITING_MAX;
        let next = if is_full { None } else { self.window.borrow().next_due() };
        next.into_iter().chain(retry).min()
    }

    /// Takes the earliest that is due at `now`.
    fn take_due(&self, now: u64) -> Option<ObjectKey> {
        let due = self.next_due().filter(|due| *due <= now)?;
        let mut retries = self.retries.borrow_mut();
        if retries.first().is_some_and(|(at_ms, _)| *at_ms == due) {
            return retries.pop_first().map(|(_, object)| object);
        }
        drop(retries);
        self.window.borrow_mut().take_due(now).map(|(_, object)| object)
    }
}

/// The place of an alarm among those that are on their way into their objects. Dropped, it is free for the next.
pub struct Slot(Weak<Shard>);

impl Slot {
    fn take(shard: &Rc<Shard>) -> Self {
        let entering = &shard.alarms().entering;
        entering.set(entering.get() + 1);
        Self(Rc::downgrade(shard))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let Some(shard) = self.0.upgrade() else { return };
        let alarms = shard.alarms();
        let entering = alarms.entering.get();
        alarms.entering.set(entering - 1);
        if entering == ENTERING_MAX {
            alarms.changed.notify_one();
        }
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
            let is_known = |object: &ObjectKey| {
                let rings = alarms.ringing.borrow().contains_key(object);
                rings || alarms.resets.borrow().contains_key(object)
            };
            loaded.extend(ours.filter(|(_, object)| !is_known(object)));
            if loaded.len() < max { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        alarms.window.borrow_mut().loaded(loaded);
    }
}

/// Rings what is due, as far as so many may be on their way at a time.
fn ring_due(shard: &Rc<Shard>, ringings: &mut Ringings) {
    let alarms = shard.alarms();
    let now = shard.storages().rules().clock.unix_ms();
    while alarms.entering.get() < ENTERING_MAX && shard.refusal().is_none() {
        let Some(object) = alarms.take_due(now) else { return };
        alarms.ringing.borrow_mut().insert(object, None);
        let tries = alarms.reset_tries(&object);
        let (reply, told) = oneshot::channel();
        match shard.key_of(&object) {
            Some(key) => {
                let container = shard.registry().container(key, shard);
                let slot = Some(Slot::take(shard));
                container.push(Event::Alarm { tries, reply, slot }, None);
                if container.phase() == Phase::Absent {
                    // There was no room for it.
                    shard.registry().forget_unused(&container);
                }
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
    let rings = shard.alarms().entering.get() < ENTERING_MAX && shard.refusal().is_none();
    let due = shard.alarms().next_due().filter(|_| rings);
    let delay = due.map(|due| Duration::from_millis(due.saturating_sub(now)));
    delay.map_or(LOOK_AGAIN_AFTER, |delay| delay.clamp(Duration::from_millis(1), LOOK_AGAIN_AFTER))
}

impl Shard {
    /// Notes that an alarm was handled, or why it was not.
    fn rang(self: &Rc<Self>, object: ObjectKey, outcome: Result<()>) {
        let alarms = self.alarms();
        let again = alarms.ringing.borrow_mut().remove(&object).flatten();
        let Err(error) = outcome else {
            // What it is due at next its storage has told meanwhile.
            return alarms.set(object, again);
        };
        let tries = alarms.reset_tries(&object);
        let now = self.storages().rules().clock.unix_ms();
        if error.kind == Kind::Overloaded && !error.delivered {
            // It was not tried.
            tracing::debug!(object = %object.id, %error, "an alarm waits for room");
            return alarms.retry(object, tries, now.saturating_add(NO_ROOM_DELAY_MS));
        }
        let is_theirs = error.remote || error.kind == Kind::Timeout;
        let failure = if is_theirs { Failure::Counted } else { Failure::Uncounted };
        tracing::warn!(object = %object.id, %error, "an alarm was not handled");
        let stored = self.stored_alarm(&object);
        if let Ok(stored) = stored
            && stored.is_none_or(|stored| stored.due_ms > now)
        {
            // It was cleared, or set anew, before the object was reset.
            return alarms.set(object, stored.map(|stored| stored.due_ms));
        }
        let known = stored.ok().flatten().map(|stored| stored.tries()).unwrap_or_default();
        let tries = if tries.counted + tries.backoff < known.counted + known.backoff {
            known
        } else {
            tries
        };
        match tries.after(failure, self.entropy().number()) {
            Some((tries, delay)) => {
                let delay = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
                alarms.retry(object, tries, now.saturating_add(delay).saturating_add(1));
            }
            None => {
                alarms.forget_resets(&object);
                self.give_up(object);
            }
        }
    }

    /// Reads when the alarm of an object is due, whose change to it may have failed.
    pub(super) fn read_alarm(&self, object: ObjectKey) {
        match self.stored_alarm(&object) {
            // It waits for its turn already.
            Ok(_) if self.alarms().resets.borrow().contains_key(&object) => {}
            Ok(stored) => self.alarms().set(object, stored.map(|stored| stored.due_ms)),
            Err(error) => tracing::error!(object = %object.id, %error, "its alarm can't be read"),
        }
    }

    fn stored_alarm(&self, object: &ObjectKey) -> Result<Option<Alarm>> {
        Ok(self.record(object)?.and_then(|record| record.alarm))
    }

    /// Clears the alarm of an object whose handler, or constructor, has failed too often.
    fn give_up(self: &Rc<Self>, object: ObjectKey) {
        tracing::error!(object = %object.id, "an alarm failed {} times: given up", RETRIES_MAX + 1);
        let container = self.key_of(&object).and_then(|key| self.registry().known(&key));
        let cleared = match container {
            // In memory again, it clears the alarm itself.
            Some(container) if container.phase() != Phase::Absent => {
                let tries = Tries { counted: RETRIES_MAX + 1, ..Tries::default() };
                let (reply, told) = oneshot::channel();
                container.push(Event::Alarm { tries, reply, slot: None }, None);
                // An event that nobody waits for would be dropped.
                tokio::task::spawn_local(told.map(drop));
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
        record.has_data = has_rows_after(&**self.storages().store(), &object, &batch)?;
        let key = Key::object(&object);
        batch.push(match record.is_needed(self.storages().rules().retention.is_some()) {
            true => Change::Put(key, record.encode()?),
            false => Change::Delete(key),
        });
        self.storages().write_absent(self.new_activation_number(), object, batch)
    }

    /// Returns the record that is stored of an object.
    pub(super) fn record(&self, object: &ObjectKey) -> Result<Option<Record>> {
        let stored = self.storages().store().get(&Key::object(object))?;
        stored.map(|bytes| Record::decode(object, &bytes)).transpose()
    }
}
