//! One thread and its objects.
//!
//! **Invariant:** nothing outside this thread touches what is here; other threads post parcels.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures::FutureExt;
use futures::channel::oneshot;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::activation::Activation;
use super::alarms::{self, Alarms};
use super::container::{Container, Phase};
use super::event::{Answer, Event, Reply};
use super::inbox::Inbox;
use super::journal::Journal;
use super::lane::{Address, Lane};
use super::namespaces::Namespaces;
use super::placement::Placement;
use super::registry::{Key, Listed, Registry};
use super::sockets::{self, Sockets};
use super::storages::Storages;
use super::wheel::Wheel;
use crate::entropy::Entropy;
use crate::error::{Error, Result};
use crate::id::ObjectId;
use crate::limits::Limits;
use crate::message::{Request, Response};
use crate::object::Directory;
use crate::storage::engine::{Engine, Lease, Order};
use crate::storage::object::Rules;
use crate::storage::record::Record;
use crate::storage::row::{KeyRange, ObjectKey, Space};

/// What a shard offers to its objects and connections, made by the layer that speaks to the outside.
pub trait Doors: Send + Sync {
    /// Makes the directory in which the shard's objects find namespaces.
    fn directory(&self, shard: &Rc<Shard>) -> Rc<dyn Directory>;
}

/// Something to do on another thread.
pub type Errand = Box<dyn FnOnce(&Rc<Shard>) + Send>;

/// Names the end of a stub that lives on another thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LaneKey {
    from: usize,
    number: u64,
}

/// What one thread sends to another.
pub enum Parcel {
    /// A request for an object. `address` comes with the first.
    Fetch { lane: LaneKey, address: Option<Box<Address>>, request: Box<Request>, answer: Answer },
    /// The answer to one, on its way back.
    Answer { answer: Answer, outcome: Result<Response> },
    /// Somebody who wants to know when a stub breaks.
    Watch { lane: LaneKey, address: Option<Box<Address>>, watcher: oneshot::Sender<Error> },
    /// A stub was dropped.
    Close { lane: LaneKey },
    /// Anything else, which is rare.
    Run(Errand),
    /// The thread is to end.
    End,
}

/// An activation that is looked at now and then.
struct Seen {
    container: Weak<Container>,
    activation: u64,
}

/// What all shards of a node know.
pub struct Common {
    /// The namespaces.
    pub namespaces: Namespaces,
    /// The bounds.
    pub limits: Limits,
    /// Where ids live.
    pub placement: Placement,
    /// The way to each shard.
    pub inboxes: Vec<Inbox<Parcel>>,
    /// What surrounds objects.
    pub doors: Box<dyn Doors>,
    /// Tells this run of the node from any other.
    pub run_id: String,
    /// Where objects are stored.
    pub engine: Arc<dyn Engine>,
    /// What storage goes by.
    pub rules: Rules,
    /// The right to write, for each virtual shard.
    pub leases: Vec<Lease>,
    /// The number of each namespace in the store.
    pub spaces: Vec<Space>,
}

/// One thread and its objects.
pub struct Shard {
    index: usize,
    common: Arc<Common>,
    limits: Rc<Limits>,
    registry: Registry,
    storages: Storages,
    alarms: Alarms,
    sockets: Sockets,
    journal: Rc<Journal>,
    lanes: RefCell<HashMap<LaneKey, Rc<Lane>>>,
    lane_count: Cell<u64>,
    /// What was sent to each shard this turn.
    outgoing: RefCell<Vec<VecDeque<Parcel>>>,
    postman: RefCell<Option<Waker>>,
    activation_count: Cell<u64>,
    wheel: RefCell<Wheel<Seen>>,
    directory: OnceCell<Rc<dyn Directory>>,
    entropy: Entropy,
    /// Objects in memory.
    active: Cell<usize>,
    deactivated: Notify,
    stopping: Cell<bool>,
    /// Half of the time that objects have to stop is over.
    hurried: Cell<bool>,
}

impl Shard {
    /// # Errors
    /// *failed* where the store can't be read.
    pub(super) fn new(index: usize, common: Arc<Common>) -> Result<Rc<Self>> {
        let wake = Arc::new(Notify::new());
        let waking = wake.clone();
        let store = common.engine.store(Arc::new(move || waking.notify_one()))?;
        let storages = Storages::new(store, wake, common.rules.clone(), common.leases.clone());
        let outgoing = common.inboxes.iter().map(|_| VecDeque::new()).collect();
        let shard = Rc::new(Self {
            index,
            limits: Rc::new(common.limits.clone()),
            journal: Journal::new(common.rules.clock, common.namespaces.all().len()),
            common,
            registry: Registry::default(),
            storages,
            alarms: Alarms::default(),
            sockets: Sockets::default(),
            lanes: RefCell::default(),
            lane_count: Cell::new(0),
            outgoing: RefCell::new(outgoing),
            postman: RefCell::default(),
            activation_count: Cell::new(0),
            wheel: RefCell::default(),
            directory: OnceCell::new(),
            entropy: Entropy::system(),
            active: Cell::new(0),
            deactivated: Notify::new(),
            stopping: Cell::new(false),
            hurried: Cell::new(false),
        });
        let directory = shard.common.doors.directory(&shard);
        let _ = shard.directory.set(directory);
        Ok(shard)
    }

    /// Serves parcels until the thread is to end.
    pub(super) async fn run(self: &Rc<Self>) {
        let shard = Rc::downgrade(self);
        let postman = poll_fn(move |context| match shard.upgrade() {
            Some(shard) => shard.poll_post(context),
            None => Poll::Ready(()),
        });
        let told = Storages::keep_told(Rc::downgrade(self), self.storages.waker());
        let tasks = [
            tokio::task::spawn_local(or_end("the sweeper", sweep(Rc::downgrade(self)))),
            tokio::task::spawn_local(or_end("the postman", postman)),
            tokio::task::spawn_local(or_end("the storages", told)),
            tokio::task::spawn_local(or_end("the alarms", alarms::ring(Rc::downgrade(self)))),
            tokio::task::spawn_local(or_end("the sockets", sockets::listen(Rc::downgrade(self)))),
        ];
        let mut batch = VecDeque::new();
        'serve: loop {
            self.inbox(self.index).drain_into(&mut batch).await;
            for parcel in batch.drain(..) {
                if matches!(parcel, Parcel::End) {
                    break 'serve;
                }
                self.unpack(parcel);
            }
        }
        tasks.iter().for_each(|task| task.abort());
    }

    fn unpack(self: &Rc<Self>, parcel: Parcel) {
        match parcel {
            Parcel::Fetch { lane, address, request, answer } => {
                let reply = Reply::away(answer, self.clone(), lane.from);
                let event = Event::Fetch { request, reply };
                match self.lane(lane, address) {
                    Some(lane) => lane.send(event),
                    None => event.fail(Error::failed("a request came for a stub never opened")),
                }
            }
            // Whoever waited may have gone meanwhile.
            Parcel::Answer { answer, outcome } => drop(answer.send(outcome)),
            Parcel::Watch { lane, address, watcher } => {
                if let Some(lane) = self.lane(lane, address) {
                    lane.watch(watcher);
                }
            }
            Parcel::Close { lane } => drop(self.lanes.borrow_mut().remove(&lane)),
            Parcel::Run(run) => {
                // Whoever waits for it hears that nobody answers.
                if catch_unwind(AssertUnwindSafe(|| run(self))).is_err() {
                    tracing::error!("an errand to a thread panicked, which is a bug");
                }
            }
            Parcel::End => {}
        }
    }

    fn lane(self: &Rc<Self>, key: LaneKey, address: Option<Box<Address>>) -> Option<Rc<Lane>> {
        let mut lanes = self.lanes.borrow_mut();
        if let Some(address) = address {
            lanes.entry(key).or_insert_with(|| Lane::new(self.clone(), *address));
        }
        lanes.get(&key).cloned()
    }

    /// Returns its number among the shards of the node.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Returns the bounds.
    pub fn limits(&self) -> &Rc<Limits> {
        &self.limits
    }

    /// Returns where ids live.
    pub fn placement(&self) -> Placement {
        self.common.placement
    }

    /// Returns the namespaces.
    pub fn namespaces(&self) -> &Namespaces {
        &self.common.namespaces
    }

    /// Returns what tells this run of the node from any other.
    pub fn run_id(&self) -> &String {
        &self.common.run_id
    }

    /// Returns the source of randomness.
    pub fn entropy(&self) -> &Entropy {
        &self.entropy
    }

    /// Returns the objects of this thread.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Returns the storages of its objects.
    pub fn storages(&self) -> &Storages {
        &self.storages
    }

    /// Returns the alarms of its objects.
    pub fn alarms(&self) -> &Alarms {
        &self.alarms
    }

    /// Returns the WebSockets of its objects.
    pub fn sockets(&self) -> &Sockets {
        &self.sockets
    }

    /// Returns what it remembers of what happened.
    pub fn journal(&self) -> &Rc<Journal> {
        &self.journal
    }

    /// Returns what the object of `key` is called in the store.
    pub fn object_key(&self, key: Key) -> ObjectKey {
        let space = self.common.spaces.get(key.namespace).copied();
        ObjectKey { space: space.expect("every namespace has a number"), id: key.id }
    }

    /// Returns the key of an object of the store; none where its namespace is not served.
    pub(super) fn key_of(&self, object: &ObjectKey) -> Option<Key> {
        let namespace = self.common.spaces.iter().position(|space| *space == object.space)?;
        Some(Key { namespace, id: object.id })
    }

    /// Returns whether the object's alarms ring here.
    pub(super) fn rings(&self, object: &ObjectKey) -> bool {
        self.placement().shard(&object.id) == self.index && self.key_of(object).is_some()
    }

    /// Returns up to `limit` objects of a namespace of which something is stored, wherever they live, ordered by id,
    /// after `after`. What other threads have written and is not durable yet may lack.
    ///
    /// # Errors
    /// *failed* where the store can't be read, or is damaged.
    pub fn list_stored(
        &self,
        namespace: usize,
        after: Option<ObjectId>,
        limit: usize,
    ) -> Result<Vec<Listed>> {
        let space = self.object_key(Key { namespace, id: ObjectId::from_bytes([0; 32]) }).space;
        let (mut listed, mut failure) = (Vec::new(), None);
        let range = KeyRange::objects(space, after);
        self.storages.store().scan(&range, Order::Ascending, &mut |key, value| {
            let Some(object) = key.object_key() else { return ControlFlow::Continue(()) };
            match Record::decode(&object, &value) {
                Ok(Record { name, has_data, .. }) => {
                    let one =
                        Listed { id: object.id, name, has_stored_data: has_data, in_memory: false };
                    listed.push(one);
                }
                Err(error) => failure = Some(error),
            }
            let is_over = listed.len() >= limit || failure.is_some();
            if is_over { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        failure.map_or(Ok(listed), Err)
    }

    /// Returns why no event is taken, where the store is too far behind.
    pub(super) fn storage_is_behind(&self) -> Option<Error> {
        let (bytes, max) =
            (self.storages.store().backlog_bytes(), self.limits.storage_backlog_bytes_max);
        (bytes > max).then(|| {
            Error::overloaded(format!("{bytes} bytes wait to be stored, of at most {max}"))
        })
    }

    /// Runs `run` on shard `to`, after what was sent there before.
    pub fn run_on(&self, to: usize, run: impl FnOnce(&Rc<Self>) + Send + 'static) {
        self.post(to, Parcel::Run(Box::new(run)));
    }

    /// Returns whether shard `to` takes another call.
    pub(super) fn has_room(&self, to: usize) -> bool {
        let on_their_way = self.outgoing.borrow().get(to).map_or(0, VecDeque::len);
        !self.inbox(to).is_full(on_their_way)
    }

    /// Sends a parcel to shard `to`, after what was sent there before, at the end of this turn.
    pub(super) fn post(&self, to: usize, parcel: Parcel) {
        if let Some(outgoing) = self.outgoing.borrow_mut().get_mut(to) {
            outgoing.push_back(parcel);
        }
        if let Some(waker) = self.postman.take() {
            waker.wake();
        }
    }

    /// Hands what was sent this turn to the other shards, a batch each, and waits for more.
    fn poll_post(&self, context: &Context<'_>) -> Poll<()> {
        for (to, outgoing) in self.outgoing.borrow_mut().iter_mut().enumerate() {
            if !outgoing.is_empty() {
                self.inbox(to).post_all(outgoing);
            }
        }
        *self.postman.borrow_mut() = Some(context.waker().clone());
        Poll::Pending
    }

    pub(super) fn inbox(&self, of: usize) -> &Inbox<Parcel> {
        self.common.inboxes.get(of).expect("placement yields shards that exist")
    }

    pub(super) fn new_lane_key(&self) -> LaneKey {
        self.lane_count.set(self.lane_count.get() + 1);
        LaneKey { from: self.index, number: self.lane_count.get() }
    }

    /// Numbers the activations of this thread, from 1.
    pub(super) fn new_activation_number(&self) -> u64 {
        self.activation_count.set(self.activation_count.get() + 1);
        self.activation_count.get()
    }

    pub(super) fn directory(&self) -> Rc<dyn Directory> {
        self.directory.get().expect("set before any object runs").clone()
    }

    /// Returns why no new event is taken, where none is.
    pub(super) fn refusal(&self) -> Option<Error> {
        self.stopping.get().then(|| Error::disconnected("the server is shutting down"))
    }

    /// Returns whether objects are to stop although something is under way inside them.
    pub(super) fn is_hurried(&self) -> bool {
        self.hurried.get()
    }

    /// Returns why no further object can come into memory, where none can.
    pub(super) fn no_room(&self) -> Option<Error> {
        let max = self.limits.objects_max / self.placement().shards();
        let full = self.active.get() >= max.max(1);
        full.then(|| {
            Error::overloaded(format!(
                "{max} objects are in memory on this thread, the most it may hold"
            ))
        })
    }

    /// Brings the object of `container` into memory.
    pub(super) fn activate(self: &Rc<Self>, container: &Rc<Container>) {
        self.active.set(self.active.get() + 1);
        self.journal.came(container.key());
        tokio::task::spawn_local(Activation::new(container.clone(), self.clone()));
    }

    /// Looks at a new activation now and then from here on.
    pub(super) fn look_after(&self, container: &Rc<Container>) {
        let seen = Seen { container: Rc::downgrade(container), activation: container.activation() };
        self.wheel.borrow_mut().add(Instant::now() + self.patience(), seen);
    }

    pub(super) fn deactivated(&self, container: &Rc<Container>) {
        self.active.set(self.active.get() - 1);
        self.journal.left(container.key());
        self.registry.forget_unused(container);
        self.deactivated.notify_waiters();
    }

    /// How often an object in memory is looked at.
    fn patience(&self) -> Duration {
        let idle = self.limits.evict_after.min(self.limits.hibernate_after);
        idle.min(self.limits.object_queue_age_max)
    }

    /// Looks at one object in memory: old events fail, an idle object is asked to leave.
    fn look_at(&self, seen: Seen, now: Instant) {
        let Some(container) = seen.container.upgrade() else { return };
        if container.phase() == Phase::Absent || container.activation() != seen.activation {
            return;
        }
        container.expire(now, self.limits.object_queue_age_max);
        let idle = now.duration_since(container.last_active());
        let mut due = now + self.patience();
        if container.phase() == Phase::Idle {
            let may_hibernate = !container.sockets().is_empty();
            let evict_after = self.limits.evict_after;
            let leaves_after = if may_hibernate {
                evict_after.min(self.limits.hibernate_after)
            } else {
                evict_after
            };
            match leaves_after.checked_sub(idle) {
                Some(rest) if !rest.is_zero() => due = due.min(now + rest),
                _ => container.stop(),
            }
        }
        self.wheel.borrow_mut().add(due, seen);
    }

    /// Takes no more events, waits for those under way up to the drain timeout, then ends every object in
    /// order; then every stub that is left breaks.
    pub(super) async fn drain(&self) {
        self.stopping.set(true);
        let stopped = async {
            loop {
                let deactivated = self.deactivated.notified();
                self.registry.all().iter().for_each(|container| container.stop());
                if self.active.get() == 0 {
                    return;
                }
                deactivated.await;
            }
        };
        // What is under way in an object has half of the time; then its hook runs beside it.
        let hurry = async {
            tokio::time::sleep(self.limits.drain_timeout / 2).await;
            self.hurried.set(true);
            self.registry.all().iter().for_each(|container| container.stop());
            std::future::pending::<()>().await;
        };
        let (stopped, hurry) = (pin!(stopped), pin!(hurry));
        let stopped = futures::future::select(stopped, hurry);
        // Where the time is over, the objects that are left break with their stubs.
        let _ = tokio::time::timeout(self.limits.drain_timeout, stopped).await;
        for container in self.registry.all() {
            container.close_sockets("the server is shutting down");
            container.break_with(Error::disconnected("the server has shut down"));
        }
    }
}

/// Runs what every object of a thread depends on. A panic in it would leave them waiting for ever, so it ends the
/// process: what was told to be durable is, and the next start serves.
pub(super) async fn or_end<T>(what: &str, task: impl Future<Output = T>) -> T {
    match AssertUnwindSafe(task).catch_unwind().await {
        Ok(ended) => ended,
        Err(_) => {
            tracing::error!("{what} of a thread panicked, which is a bug: the process ends");
            std::process::abort()
        }
    }
}

/// The one timer of a shard's objects.
async fn sweep(shard: Weak<Shard>) {
    let Some(period) = shard.upgrade().map(|shard| shard.patience() / 8) else { return };
    let period = period.clamp(Duration::from_millis(1), Duration::from_secs(1));
    loop {
        tokio::time::sleep(period).await;
        let Some(shard) = shard.upgrade() else { return };
        let now = Instant::now();
        let due = shard.wheel.borrow_mut().take_due(now);
        due.into_iter().for_each(|seen| shard.look_at(seen, now));
    }
}
