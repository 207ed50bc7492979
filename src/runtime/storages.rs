//! The storages of one shard's objects: opens them, hears what became of their batches, closes them.
//!
//! **Invariant:** an object's storage is opened only when every batch of its earlier activations is durable or
//! has failed: what it reads first can't vanish.

use std::cell::RefCell;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::{Rc, Weak};
use std::sync::Arc;

use tokio::sync::Notify;

use super::container::{Around, Container};
use super::interior::Interior;
use super::shard::Shard;
use crate::error::{Error, Result};
use crate::storage::engine::{Batch, Done, Lease, Session, Store};
use crate::storage::object::{ObjectStorage, Rules};
use crate::storage::row::ObjectKey;

/// The storages of one shard's objects.
pub struct Storages {
    store: Rc<dyn Store>,
    wake: Arc<Notify>,
    rules: Rc<Rules>,
    leases: Vec<Lease>,
    open: RefCell<HashMap<u64, Entry>>,
    /// Batches on their way of activations that have ended.
    unsettled: RefCell<HashMap<ObjectKey, usize>>,
    settled: Notify,
}

struct Entry {
    session: Arc<Session>,
    told: u64,
    /// None once the activation has ended.
    live: Option<(Rc<ObjectStorage>, Weak<Container>)>,
}

impl Storages {
    /// Makes those of a shard. `leases` are of all virtual shards, in order.
    pub fn new(store: Box<dyn Store>, wake: Arc<Notify>, rules: Rules, leases: Vec<Lease>) -> Self {
        let (open, unsettled) = Default::default();
        let (store, rules, settled) = (Rc::from(store), Rc::new(rules), Notify::new());
        Self { store, wake, rules, leases, open, unsettled, settled }
    }

    /// Returns the shard's way to the store.
    pub fn store(&self) -> &Rc<dyn Store> {
        &self.store
    }

    /// Returns what they go by.
    pub fn rules(&self) -> &Rc<Rules> {
        &self.rules
    }

    /// Opens the storage of the activation of `container`.
    ///
    /// # Errors
    /// Where the store can't be read, or is damaged.
    pub async fn open(
        &self,
        shard: &Rc<Shard>,
        container: &Rc<Container>,
        interior: &Interior,
    ) -> Result<Rc<ObjectStorage>> {
        let object = shard.object_key(container.key());
        loop {
            let settled = self.settled.notified();
            if !self.unsettled.borrow().contains_key(&object) {
                break;
            }
            settled.await;
        }
        let session = self.session(interior.number, object)?;
        let around = Around { container: Rc::downgrade(container), shard: Rc::downgrade(shard) };
        let (store, outbox) = (self.store.clone(), interior.outbox.clone());
        let entry = Entry { session: session.clone(), told: 0, live: None };
        self.open.borrow_mut().insert(interior.number, entry);
        let rules = self.rules.clone();
        let storage = ObjectStorage::open(store, session, outbox, rules, Box::new(around))?;
        if let Some(entry) = self.open.borrow_mut().get_mut(&interior.number) {
            entry.live = Some((storage.clone(), Rc::downgrade(container)));
        }
        Ok(storage)
    }

    fn session(&self, number: u64, object: ObjectKey) -> Result<Arc<Session>> {
        let lease = self.leases.get(usize::from(object.shard())).copied();
        let lease = lease.ok_or_else(|| Error::disconnected("the object's shard is not held"))?;
        Ok(Session::new(number, object, lease))
    }

    /// Writes rows of an object that is not in memory. Nobody waits for it.
    ///
    /// # Errors
    /// Where the object's shard is not held.
    pub fn write_absent(&self, number: u64, object: ObjectKey, batch: Batch) -> Result<()> {
        let session = self.session(number, object)?;
        self.open
            .borrow_mut()
            .insert(number, Entry { session: session.clone(), told: 0, live: None });
        let submitted = self.store.submit(&session, batch);
        self.settle_at_once(number, &submitted);
        self.close(number);
        Ok(())
    }

    fn settle_at_once(&self, number: u64, submitted: &crate::storage::engine::Submitted) {
        if let crate::storage::engine::Submitted::Durable(ticket) = submitted
            && let Some(entry) = self.open.borrow_mut().get_mut(&number)
        {
            entry.told = *ticket;
        }
    }

    /// Closes the storage of an activation that has ended.
    pub fn close(&self, number: u64) {
        let mut open = self.open.borrow_mut();
        let Some(entry) = open.get_mut(&number) else { return };
        // Of batches that were durable at once nothing is told: the storage knows.
        let durable = entry.live.take().map_or(0, |(storage, _)| storage.durable());
        if durable.max(entry.told) >= entry.session.submitted() {
            open.remove(&number);
        } else {
            *self.unsettled.borrow_mut().entry(entry.session.object).or_default() += 1;
        }
    }

    /// Waits for what became of batches, and tells it, for ever.
    pub async fn keep_told(shard: Weak<Shard>, wake: Arc<Notify>) {
        let mut done = Vec::new();
        loop {
            wake.notified().await;
            let Some(shard) = shard.upgrade() else { return };
            let storages = shard.storages();
            storages.store.take_done(&mut done);
            for done in done.drain(..) {
                let session = done.session;
                // What leaves an object now is others' code.
                match catch_unwind(AssertUnwindSafe(|| storages.tell(done))) {
                    Ok(Some(failed)) => shard.read_alarm(failed),
                    Ok(None) => {}
                    Err(_) => storages.give_up(session),
                }
            }
        }
    }

    /// Returns what the store wakes.
    pub fn waker(&self) -> Arc<Notify> {
        self.wake.clone()
    }

    /// Tells what became of a batch; returns the object where it has failed.
    fn tell(&self, done: Done) -> Option<ObjectKey> {
        let (live, failed) = {
            let mut open = self.open.borrow_mut();
            let entry = open.get_mut(&done.session)?;
            let failed = done.outcome.is_err().then_some(entry.session.object);
            entry.told = done.ticket;
            let live = match &entry.live {
                Some((storage, container)) => Some((storage.clone(), container.clone())),
                None => {
                    if entry.told >= entry.session.submitted() {
                        let object = entry.session.object;
                        open.remove(&done.session);
                        self.one_settled(object);
                    }
                    None
                }
            };
            (live, failed)
        };
        let Some((storage, container)) = live else { return failed };
        let failure = storage.done(done);
        let Some(container) = container.upgrade() else { return failed };
        if let Some(error) = failure {
            let text = format!("what the object wrote could not be stored: {}", error.message);
            container.break_with(Error { message: text, ..error });
        }
        let is_stopping = container.shard().is_none_or(|shard| shard.refusal().is_some());
        container.settled(is_stopping);
        failed
    }

    /// Breaks the object of a session of which a part may have left and another not.
    fn give_up(&self, session: u64) {
        let container = {
            let open = self.open.borrow();
            open.get(&session).and_then(|entry| entry.live.as_ref()?.1.upgrade())
        };
        if let Some(container) = container {
            container.break_with(Error::failed("what left the object caused a panic"));
        }
    }

    fn one_settled(&self, object: ObjectKey) {
        let mut unsettled = self.unsettled.borrow_mut();
        if let Some(count) = unsettled.get_mut(&object) {
            *count -= 1;
            if *count == 0 {
                unsettled.remove(&object);
                self.settled.notify_waiters();
            }
        }
    }
}
