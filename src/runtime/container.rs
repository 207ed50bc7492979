//! The place of one object in its shard: what waits for it, and whether it is broken.
//!
//! **Invariant:** a broken container never recovers; a later `get` finds a new one in the registry.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::{Rc, Weak};
use std::task::Waker;
use std::time::Duration;

use futures::channel::oneshot;
use futures::future::LocalBoxFuture;
use tokio::time::Instant;

use super::event::Event;
use super::interior::Interior;
use super::lane::{Lane, OwnLine};
use super::registry::Key;
use super::shard::Shard;
use super::sockets::ObjectSockets;
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::gate::{Outbox, Section};
use crate::object::{Accepted, Control, Identity, Line};
use crate::socket::{Text, WebSocket};
use crate::storage::object::{ObjectStorage, Surroundings};

/// The longest name that is kept. A longer one still leads to its object.
pub const NAME_BYTES_KEPT: usize = 1024;

/// An event that waits for its object, and the stub it came by.
pub struct Waiting {
    pub event: Event,
    /// None for what came by no stub.
    pub lane: Option<Rc<Lane>>,
    pub since: Instant,
    pub bytes: usize,
}

/// The events of one stub that wait for a streaming call on it.
struct Hold {
    lane: Rc<Lane>,
    waiting: VecDeque<Waiting>,
}

/// The place of one object.
pub struct Container {
    key: Key,
    shard: Weak<Shard>,
    name: RefCell<Option<Rc<str>>>,
    broken: RefCell<Option<Error>>,
    watchers: RefCell<Vec<oneshot::Sender<Error>>>,
    queue: RefCell<VecDeque<Waiting>>,
    holds: RefCell<Vec<Hold>>,
    queued: Cell<Queued>,
    tasks: RefCell<Vec<LocalBoxFuture<'static, ()>>>,
    /// The present activation's.
    interior: RefCell<Option<Rc<Interior>>>,
    /// The activation's, while there is one.
    waker: RefCell<Option<Waker>>,
    phase: Cell<Phase>,
    stop_wanted: Cell<bool>,
    /// Whether the activation has its turn: what is written meanwhile it hands to the store at the turn's end.
    in_turn: Cell<bool>,
    /// Whether anything was written in this turn since the activation looked.
    written: Cell<bool>,
    /// Whether the activation has nothing to do but to wait until what it wrote is durable.
    resting: Cell<bool>,
    last_active: Cell<Instant>,
    sockets: ObjectSockets,
}

/// What waits for one object, held-back events included.
#[derive(Clone, Copy, Default)]
struct Queued {
    events: usize,
    bytes: usize,
}

/// Whether there is an activation, and what it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Not in memory.
    Absent,
    /// Events, handlers or tasks are under way.
    Busy,
    /// In memory, with nothing to do.
    Idle,
}

impl Container {
    pub fn new(key: Key, shard: &Rc<Shard>) -> Rc<Self> {
        Rc::new(Self {
            key,
            shard: Rc::downgrade(shard),
            name: RefCell::default(),
            broken: RefCell::default(),
            watchers: RefCell::default(),
            queue: RefCell::default(),
            holds: RefCell::default(),
            queued: Cell::default(),
            tasks: RefCell::default(),
            interior: RefCell::default(),
            waker: RefCell::default(),
            phase: Cell::new(Phase::Absent),
            stop_wanted: Cell::new(false),
            in_turn: Cell::new(false),
            written: Cell::new(false),
            resting: Cell::new(false),
            last_active: Cell::new(Instant::now()),
            sockets: ObjectSockets::default(),
        })
    }

    pub fn key(&self) -> Key {
        self.key
    }

    pub fn name(&self) -> Option<Rc<str>> {
        self.name.borrow().clone()
    }

    /// Learns the name by which the object is reached, the first time.
    pub fn learn_name(&self, name: &str) {
        if name.len() > NAME_BYTES_KEPT || self.name.borrow().is_some() {
            return;
        }
        *self.name.borrow_mut() = Some(name.into());
        self.keep_name();
    }

    /// Has the name stored, where it is known and the object is in memory; or learns the one that is stored.
    pub fn keep_name(&self) {
        let interior = self.interior();
        let Some(storage) = interior.as_ref().and_then(|interior| interior.storage()) else {
            return;
        };
        match (storage.name(), self.name()) {
            (Some(stored), None) => *self.name.borrow_mut() = Some(stored.into()),
            (None, Some(name)) => {
                storage.keep_name(&name);
                self.wake();
            }
            _ => {}
        }
    }

    /// Returns the present activation's interior.
    pub fn interior(&self) -> Option<Rc<Interior>> {
        self.interior.borrow().clone()
    }

    /// Returns the thread that it is on; none once that has ended.
    pub fn shard(&self) -> Option<Rc<Shard>> {
        self.shard.upgrade()
    }

    /// Returns its hibernatable WebSockets.
    pub fn sockets(&self) -> &ObjectSockets {
        &self.sockets
    }

    pub fn is_broken(&self) -> bool {
        self.broken.borrow().is_some()
    }

    pub fn broken(&self) -> Option<Error> {
        self.broken.borrow().clone()
    }

    pub fn phase(&self) -> Phase {
        self.phase.get()
    }

    pub fn set_phase(&self, phase: Phase) {
        // When a busy object was last active nobody asks.
        if self.phase.replace(phase) != phase || phase != Phase::Busy {
            self.last_active.set(Instant::now());
        }
    }

    pub fn last_active(&self) -> Instant {
        self.last_active.get()
    }

    /// Appends an event for the object and starts it where it is not in memory; an event too many fails.
    pub fn push(self: &Rc<Self>, event: Event, lane: Option<&Rc<Lane>>) {
        let Some(shard) = self.shard.upgrade() else {
            return event.fail(Error::disconnected("the server has stopped"));
        };
        if let Some(error) = shard.refusal() {
            return event.fail(error);
        }
        let limits = shard.limits();
        let (held, bytes) = (self.queued.get(), event.bytes());
        let (events_max, bytes_max) =
            (limits.object_queue_events_max, limits.object_queue_bytes_max);
        if held.events >= events_max || held.bytes + bytes > bytes_max {
            let Queued { events, bytes } = held;
            return event.fail(Error::overloaded(format!(
                "{events} events of {bytes} bytes wait for the object, of at most {events_max} \
                 and {bytes_max}"
            )));
        }
        let is_absent = self.phase.get() == Phase::Absent;
        let full =
            is_absent.then(|| shard.no_room()).flatten().or_else(|| shard.storage_is_behind());
        if let Some(error) = full {
            return event.fail(error);
        }
        self.queued.set(Queued { events: held.events + 1, bytes: held.bytes + bytes });
        let waiting = Waiting { event, lane: lane.cloned(), since: Instant::now(), bytes };
        self.queue.borrow_mut().push_back(waiting);
        if self.phase.get() == Phase::Absent {
            shard.activate(self);
        }
        self.wake();
    }

    /// Appends an event that no bound of the queue counts, being bounded by what it belongs to.
    pub fn put_in_line(self: &Rc<Self>, event: Event, shard: &Rc<Shard>) {
        let waiting = Waiting { event, lane: None, since: Instant::now(), bytes: 0 };
        self.queue.borrow_mut().push_back(waiting);
        if self.phase.get() == Phase::Absent {
            shard.activate(self);
        }
        self.wake();
    }

    /// Takes the next event that may enter, where the gate lets one in.
    pub fn pop(&self) -> Option<Waiting> {
        if !self.interior.borrow().as_ref()?.entrance.is_open() {
            return None;
        }
        loop {
            let waiting = self.queue.borrow_mut().pop_front()?;
            let mut holds = self.holds.borrow_mut();
            let lane = waiting.lane.as_ref();
            let is_of = |hold: &&mut Hold| lane.is_some_and(|lane| Rc::ptr_eq(&hold.lane, lane));
            match holds.iter_mut().find(is_of) {
                Some(hold) => hold.waiting.push_back(waiting),
                None => {
                    self.forget(&waiting);
                    return Some(waiting);
                }
            }
        }
    }

    /// Begins to hold back the events of `lane`, behind a streaming call.
    pub fn hold(&self, lane: &Rc<Lane>) {
        let hold = Hold { lane: lane.clone(), waiting: VecDeque::new() };
        self.holds.borrow_mut().push(hold);
    }

    /// Ends holding back: what was held comes before what waits.
    pub fn release(&self, lane: &Rc<Lane>) {
        let mut holds = self.holds.borrow_mut();
        let Some(index) = holds.iter().position(|hold| Rc::ptr_eq(&hold.lane, lane)) else {
            return;
        };
        let hold = holds.swap_remove(index);
        let mut queue = self.queue.borrow_mut();
        hold.waiting.into_iter().rev().for_each(|waiting| queue.push_front(waiting));
    }

    fn forget(&self, waiting: &Waiting) {
        if !waiting.event.is_counted() {
            return;
        }
        let bytes = waiting.bytes;
        let queued = self.queued.get();
        self.queued.set(Queued { events: queued.events - 1, bytes: queued.bytes - bytes });
    }

    pub fn has_waiting(&self) -> bool {
        !self.queue.borrow().is_empty()
    }

    /// Has `task` run among the handlers.
    pub fn start_task(&self, task: LocalBoxFuture<'static, ()>) {
        self.tasks.borrow_mut().push(task);
        self.wake();
    }

    pub fn has_tasks(&self) -> bool {
        !self.tasks.borrow().is_empty()
    }

    /// Fails the events that have waited longer than `age_max` at `now`, those too that a streaming call holds back.
    pub fn expire(&self, now: Instant, age_max: Duration) {
        let is_old = |waiting: &Waiting| {
            waiting.event.is_counted() && now.duration_since(waiting.since) > age_max
        };
        let mut old = take_where(&mut self.queue.borrow_mut(), is_old);
        for hold in &mut *self.holds.borrow_mut() {
            old.append(&mut take_where(&mut hold.waiting, is_old));
        }
        for waiting in old {
            self.forget(&waiting);
            waiting.event.fail(Error::overloaded(format!(
                "the event waited for the object for over {age_max:?}"
            )));
        }
    }

    /// Returns the tasks that handlers left behind since the last call.
    pub fn take_tasks(&self) -> Vec<LocalBoxFuture<'static, ()>> {
        std::mem::take(&mut self.tasks.borrow_mut())
    }

    /// Breaks the object for good: the first reason counts. Its activation ends at its next turn.
    pub fn break_with(&self, reason: Error) {
        let reason = reason.with_reset(true).with_delivered(true);
        if self.broken.borrow().is_some() {
            return;
        }
        *self.broken.borrow_mut() = Some(reason.clone());
        if let Some(shard) = self.shard.upgrade() {
            shard.registry().remove(self);
            shard.journal().reset(self, &reason);
        }
        for watcher in self.watchers.take() {
            let _ = watcher.send(reason.clone());
        }
        if let Some(interior) = self.interior() {
            // From here on nothing is stored and nothing leaves.
            if let Some(storage) = interior.storage() {
                storage.break_with(&reason);
            }
            interior.outbox.break_with(&reason);
        }
        self.drop_sockets();
        if self.phase.get() == Phase::Absent {
            self.fail_waiting();
        }
        self.wake();
    }

    /// Fails what waits, because the object is broken.
    pub fn fail_waiting(&self) {
        let Some(reason) = self.broken() else { return };
        let held = self.holds.take().into_iter().flat_map(|hold| hold.waiting);
        let waiting: Vec<Waiting> = held.chain(self.queue.take()).collect();
        self.queued.set(Queued::default());
        for waiting in waiting {
            waiting.event.fail(reason.clone().with_delivered(false));
        }
    }

    /// Has `watcher` told when the object breaks.
    pub fn watch(&self, watcher: oneshot::Sender<Error>) {
        match self.broken() {
            Some(reason) => drop(watcher.send(reason)),
            None => {
                add_watcher(&mut self.watchers.borrow_mut(), watcher);
            }
        }
    }

    /// Asks the activation to end in an orderly way once nothing is under way.
    pub fn stop(&self) {
        self.stop_wanted.set(true);
        self.wake();
    }

    pub fn take_stop(&self) -> bool {
        self.stop_wanted.take()
    }

    /// Ends the activation: what is left of it acts on nothing any more.
    pub fn end_activation(&self) {
        let interior = self.interior.take();
        self.set_phase(Phase::Absent);
        if let (Some(interior), Some(shard)) = (&interior, self.shard.upgrade()) {
            shard.storages().close(interior.number);
        }
        // Last, as the author's code in them may panic.
        drop(self.take_tasks());
    }

    /// Returns the number of the present activation; 0 where there is none.
    pub fn activation(&self) -> u64 {
        self.interior.borrow().as_ref().map_or(0, |interior| interior.number)
    }

    /// Begins another activation.
    pub fn begin_activation(&self, interior: Rc<Interior>) {
        *self.interior.borrow_mut() = Some(interior);
    }

    pub fn set_waker(&self, waker: &Waker) {
        let mut slot = self.waker.borrow_mut();
        if slot.as_ref().is_none_or(|known| !known.will_wake(waker)) {
            *slot = Some(waker.clone());
        }
    }

    /// Begins, or ends, a turn of the activation.
    pub fn set_in_turn(&self, in_turn: bool) {
        self.in_turn.set(in_turn);
        if in_turn {
            self.resting.set(false);
        }
    }

    /// Returns whether anything was written in this turn since the last call.
    pub fn take_written(&self) -> bool {
        self.written.take()
    }

    /// Notes that the activation has nothing to do but to wait until what it wrote is durable.
    pub fn rest(&self) {
        self.resting.set(true);
    }

    /// Notes that what the activation wrote is durable: it gets a turn where everything that it said and wrote has
    /// gone its way, and where it has anything to do then but to be idle.
    pub fn settled(&self, is_stopping: bool) {
        if !self.interior.borrow().as_ref().is_some_and(|interior| interior.is_settled()) {
            return;
        }
        match self.resting.take() && !self.stop_wanted.get() && !is_stopping {
            true => self.set_phase(Phase::Idle),
            false => self.wake(),
        }
    }

    /// Gives the activation a turn.
    pub fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }
}

/// Takes those out of `queue` of which `is_taken` holds.
fn take_where(
    queue: &mut VecDeque<Waiting>,
    is_taken: impl Fn(&Waiting) -> bool,
) -> VecDeque<Waiting> {
    if !queue.iter().any(&is_taken) {
        return VecDeque::new();
    }
    let (taken, left) = std::mem::take(queue).into_iter().partition(is_taken);
    *queue = left;
    taken
}

/// Adds a watcher; those who gave up leave when the list would have to grow.
pub fn add_watcher(watchers: &mut Vec<oneshot::Sender<Error>>, watcher: oneshot::Sender<Error>) {
    if watchers.len() == watchers.capacity() {
        watchers.retain(|watcher| !watcher.is_canceled());
    }
    watchers.push(watcher);
}

/// An object's own view of its container. It does not keep the container alive.
pub struct Inside {
    pub container: Weak<Container>,
    pub interior: Rc<Interior>,
    pub identity: Identity,
    pub clock: Clock,
    pub critical_section_timeout: Duration,
}

impl Inside {
    /// Returns the container, while this activation is the present one.
    fn current(&self) -> Option<Rc<Container>> {
        let container = self.container.upgrade()?;
        (container.activation() == self.interior.number).then_some(container)
    }
}

impl Control for Inside {
    fn identity(&self) -> Identity {
        let name = self.container.upgrade().and_then(|container| container.name());
        Identity { name, ..self.identity.clone() }
    }

    fn reset(&self, reason: Error) {
        if let Some(container) = self.current() {
            container.break_with(reason);
        }
    }

    fn begin_section(&self) -> Option<Section> {
        self.interior.entrance.begin()
    }

    fn storage(&self) -> Result<Rc<ObjectStorage>> {
        let gone = || Error::disconnected("the object has left memory");
        if self.current().is_none() {
            return Err(gone());
        }
        self.interior.storage().cloned().ok_or_else(gone)
    }

    fn outbox(&self) -> Rc<Outbox> {
        self.interior.outbox.clone()
    }

    fn line(&self) -> Result<Rc<dyn Line>> {
        let line = self.current().and_then(|container| OwnLine::of(&container));
        line.ok_or_else(|| Error::disconnected("the object has left memory"))
    }

    fn wait_until(&self, task: LocalBoxFuture<'static, ()>) {
        if let Some(container) = self.current() {
            container.start_task(task);
        }
    }

    fn accept(&self, end: WebSocket, tags: Box<[Rc<str>]>) -> Result<Rc<Accepted>> {
        let current = self.current().and_then(|container| Some((container.shard()?, container)));
        match current {
            Some((shard, container)) if !container.is_broken() => {
                container.accept(&shard, end, tags)
            }
            _ => Err(Error::disconnected("the object has left memory")),
        }
    }

    fn sockets(&self, tag: Option<&str>) -> Vec<Rc<Accepted>> {
        self.current().map(|container| container.sockets().open(tag)).unwrap_or_default()
    }

    fn set_auto_response(&self, pair: Option<(Text, Text)>) {
        if let Some(container) = self.current() {
            container.sockets().set_auto_response(pair);
        }
    }

    fn auto_response(&self) -> Option<(Text, Text)> {
        self.current()?.sockets().auto_response()
    }

    fn now_ms(&self) -> u64 {
        self.clock.unix_ms()
    }

    fn critical_section_timeout(&self) -> Duration {
        self.critical_section_timeout
    }
}

impl Container {
    /// Returns what the object is called, for a new activation of it.
    pub fn identity(&self, namespace: &str) -> Identity {
        Identity {
            namespace: namespace.into(),
            id: self.key.id,
            name: self.name(),
            activation: self.activation(),
        }
    }
}

/// What the storage of an activation tells.
pub struct Around {
    pub container: Weak<Container>,
    pub shard: Weak<Shard>,
}

impl Surroundings for Around {
    fn written(&self) {
        let Some(container) = self.container.upgrade() else { return };
        match container.in_turn.get() {
            true => container.written.set(true),
            false => container.wake(),
        }
    }

    fn alarm_changed(&self, due_ms: Option<u64>) {
        if let (Some(container), Some(shard)) = (self.container.upgrade(), self.shard.upgrade()) {
            shard.alarms().set(shard.object_key(container.key), due_ms);
        }
    }
}
