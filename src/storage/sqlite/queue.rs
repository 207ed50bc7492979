//! What waits to be written into one file, and where its senders hear of it.
//!
//! **Invariant:** what is taken out was put in in this order.
//! **Invariant:** a batch that was put in is told of exactly once, whatever becomes of the thread that takes it.
//! **Invariant:** its size is bounded by those who put in: they watch [`Store::backlog_bytes`].
//!
//! [`Store::backlog_bytes`]: crate::storage::engine::Store::backlog_bytes

use std::collections::VecDeque;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::error::{Error, Result};
use crate::storage::engine::{Batch, Done, Lease, Session, Ticket};
use crate::storage::row::Space;

/// What waits to be written into one file.
#[derive(Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    filled: Condvar,
}

#[derive(Default)]
struct Waiting {
    works: VecDeque<Work>,
    /// Nothing new is written any more.
    closing: bool,
    /// Nobody takes anything out any more.
    ended: bool,
}

/// One thing to write.
pub(super) enum Work {
    /// The batch of an object.
    Batch(Submission),
    /// Something of the store itself.
    Control(Control),
}

/// Something of the store itself to write. `reply` has room for the answer.
pub(super) enum Control {
    /// New epochs of virtual shards.
    Acquire { shards: Vec<u16>, reply: SyncSender<Result<Vec<Lease>>> },
    /// The number of a namespace.
    Space { fingerprint: [u8; 16], name: String, reply: SyncSender<Result<Space>> },
}

/// What is written in one transaction.
pub(super) enum Group {
    /// Batches, in order.
    Batches(Vec<Submission>),
    /// Something of the store itself.
    Control(Control),
}

impl Queue {
    /// Puts something in; gives it back if nobody takes anything out any more.
    pub fn push(&self, mut work: Work) -> Result<(), Work> {
        let mut waiting = self.lock();
        match &mut work {
            _ if waiting.ended => return Err(work),
            Work::Control(_) if waiting.closing => return Err(work),
            Work::Batch(batch) if waiting.closing => batch.refuse(closed()),
            _ => {}
        }
        waiting.works.push_back(work);
        // Only an empty queue has somebody waiting for it.
        if waiting.works.len() == 1 {
            self.filled.notify_one();
        }
        Ok(())
    }

    /// Waits for what is to be written next; none when the queue is closed and empty.
    pub fn take(&self) -> Option<Group> {
        let mut waiting = self.lock();
        loop {
            if let Some(group) = waiting.group() {
                return Some(group);
            }
            if waiting.closing {
                waiting.ended = true;
                return None;
            }
            waiting = self.filled.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Refuses what is put in from now on. What waits is still written.
    pub fn close(&self) {
        self.lock().closing = true;
        self.filled.notify_one();
    }

    /// Gives up: nobody takes anything out any more. What waits fails.
    pub fn end(&self) {
        let mut waiting = self.lock();
        (waiting.closing, waiting.ended) = (true, true);
        let works = std::mem::take(&mut waiting.works);
        drop(waiting);
        drop(works);
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn group(&mut self) -> Option<Group> {
        if matches!(self.works.front(), Some(Work::Control(_))) {
            let Some(Work::Control(control)) = self.works.pop_front() else { return None };
            return Some(Group::Control(control));
        }
        let (mut group, mut bytes) = (Vec::new(), 0);
        while group.len() < GROUP_BATCHES_MAX && bytes < GROUP_BYTES_MAX {
            let batch = match self.works.pop_front() {
                Some(Work::Batch(batch)) => batch,
                Some(other) => {
                    self.works.push_front(other);
                    break;
                }
                None => break,
            };
            bytes += batch.batch.bytes();
            group.push(batch);
        }
        (!group.is_empty()).then_some(Group::Batches(group))
    }
}

/// A batch on its way to a file.
pub(super) struct Submission {
    pub session: Arc<Session>,
    pub ticket: Ticket,
    pub batch: Arc<Batch>,
    pub outlet: Arc<Outlet>,
    /// Why it is not written.
    refusal: Option<Error>,
    told: bool,
}

impl Submission {
    /// Makes one that is to be written.
    pub fn new(
        session: Arc<Session>,
        ticket: Ticket,
        batch: Arc<Batch>,
        outlet: Arc<Outlet>,
    ) -> Self {
        Self { session, ticket, batch, outlet, refusal: None, told: false }
    }

    /// Makes it, and all of its session after it, fail. The first reason stays.
    pub fn refuse(&mut self, error: Error) {
        self.session.fail();
        self.refusal.get_or_insert(error);
    }

    /// Returns whether it is not to be written.
    pub fn is_refused(&self) -> bool {
        self.refusal.is_some()
    }

    fn done(&mut self) -> Done {
        self.told = true;
        let outcome = self.refusal.take().map_or(Ok(()), Err);
        Done { session: self.session.number, ticket: self.ticket, outcome }
    }
}

impl Drop for Submission {
    /// What was not told of was not written, as far as anybody knows.
    fn drop(&mut self) {
        if !self.told {
            self.refuse(Error::failed("the thread that writes the store has stopped"));
            let done = self.done();
            self.outlet.tell([done]);
        }
    }
}

/// Tells every thread what became of its batches, and wakes each once.
pub(super) fn tell(group: Vec<Submission>) {
    let mut told: Vec<(Arc<Outlet>, Vec<Done>)> = Vec::new();
    for mut submission in group {
        let done = submission.done();
        match told.iter_mut().find(|(outlet, _)| Arc::ptr_eq(outlet, &submission.outlet)) {
            Some((_, dones)) => dones.push(done),
            None => told.push((submission.outlet.clone(), vec![done])),
        }
    }
    for (outlet, done) in told {
        outlet.tell(done);
    }
}

/// Where a thread hears of its batches.
pub(super) struct Outlet {
    done: Mutex<Vec<Done>>,
    wake: Arc<dyn Fn() + Send + Sync>,
}

impl Outlet {
    /// Makes one that calls `wake` when there is something new.
    pub fn new(wake: Arc<dyn Fn() + Send + Sync>) -> Arc<Self> {
        Arc::new(Self { done: Mutex::default(), wake })
    }

    /// Takes what there is.
    pub fn take(&self) -> Vec<Done> {
        std::mem::take(&mut *self.lock())
    }

    fn tell(&self, done: impl IntoIterator<Item = Done>) {
        self.lock().extend(done);
        (self.wake)();
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Done>> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why nothing is written any more.
pub(super) fn closed() -> Error {
    Error::failed("the store is closed")
}

/// One transaction takes about as much: larger ones only make those wait that come later.
const GROUP_BATCHES_MAX: usize = 8192;
const GROUP_BYTES_MAX: usize = 16 << 20;
