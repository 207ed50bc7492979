//! What waits to be written into one file, and where its senders hear of it.
//!
//! **Invariant:** what is taken out was put in in this order.
//! **Invariant:** a batch that was put in is told of exactly once, whatever becomes of the thread that takes it.
//! **Invariant:** nothing here bounds its size: those who let calls in do, by [`Store::backlog_bytes`]; what runs
//! already may add to it.
//!
//! [`Store::backlog_bytes`]: crate::storage::engine::Store::backlog_bytes

use std::collections::VecDeque;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::pace::{Gather, Pace};
use super::sum;
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::storage::engine::{Batch, Change, Done, Lease, Session, Ticket};
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
        let is_first = waiting.works.len() == 1;
        // Who wakes up needs the lock.
        drop(waiting);
        // Only an empty queue has somebody waiting for it.
        if is_first {
            self.filled.notify_one();
        }
        Ok(())
    }

    /// Waits until there is something to write, and a moment for more where that is worth it; moves all of it into
    /// `works`, which is empty. Returns false when the queue is closed and empty.
    pub fn take(&self, works: &mut VecDeque<Work>, pace: &mut Pace) -> bool {
        let mut waiting = self.lock();
        let gather = pace.gather(!waiting.works.is_empty());
        loop {
            if !waiting.works.is_empty() {
                if let Some(gather) = gather {
                    waiting = self.gather(waiting, gather, pace);
                }
                // Who puts in never waits for the moving of what is there, and neither grows a queue twice.
                std::mem::swap(&mut waiting.works, works);
                return true;
            }
            if waiting.closing {
                waiting.ended = true;
                return false;
            }
            waiting = self.filled.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits for more than what there is, while more comes.
    fn gather<'a>(
        &self,
        mut waiting: MutexGuard<'a, Waiting>,
        gather: Gather,
        pace: &mut Pace,
    ) -> MutexGuard<'a, Waiting> {
        let clock = Clock::system();
        let begun = clock.now();
        let mut known = waiting.works.len();
        // Those who were answered take a moment until the first of them is back.
        let mut patience = gather.first;
        while known < GROUP_BATCHES_MAX && !waiting.closing {
            if clock.now() - begun >= gather.most {
                pace.gave_up();
                break;
            }
            let woken = self.filled.wait_timeout(waiting, gather.quiet);
            (waiting, _) = woken.unwrap_or_else(PoisonError::into_inner);
            if waiting.works.len() > known {
                (known, patience) = (waiting.works.len(), 1);
                continue;
            }
            patience -= 1;
            if patience == 0 {
                break;
            }
        }
        waiting
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

impl Group {
    /// Takes what is written next; none where there is nothing.
    pub fn of(works: &mut VecDeque<Work>) -> Option<Self> {
        let (mut group, mut bytes) = (Vec::new(), 0);
        while group.len() < GROUP_BATCHES_MAX && bytes < GROUP_BYTES_MAX {
            let batch = match works.pop_front() {
                Some(Work::Batch(batch)) => batch,
                Some(Work::Control(control)) if group.is_empty() => {
                    return Some(Self::Control(control));
                }
                Some(control) => {
                    works.push_front(control);
                    break;
                }
                None => break,
            };
            if group.is_empty() {
                group.reserve(GROUP_BATCHES_MAX.min(works.len() + 1));
            }
            bytes += batch.batch.bytes();
            group.push(batch);
        }
        (!group.is_empty()).then_some(Self::Batches(group))
    }
}

/// A batch on its way to a file.
pub(super) struct Submission {
    pub session: Arc<Session>,
    pub ticket: Ticket,
    pub batch: Arc<Batch>,
    pub outlet: Arc<Outlet>,
    /// The checksums of the rows that the changes put, one for each change.
    sums: Box<[i64]>,
    /// Why it is not written.
    refusal: Option<Error>,
    told: bool,
}

impl Submission {
    /// Makes one that is to be written. Checksums are made here, on the object's own thread, and not on the one that
    /// all wait for.
    pub fn new(
        session: Arc<Session>,
        ticket: Ticket,
        batch: Arc<Batch>,
        outlet: Arc<Outlet>,
    ) -> Self {
        let sum = |change: &Change| match change {
            Change::Put(key, value) => sum::of_row(key, value),
            Change::Delete(_) | Change::Clear(_) => 0,
        };
        let sums = batch.changes().iter().map(sum).collect();
        Self { session, ticket, batch, outlet, sums, refusal: None, told: false }
    }

    /// Returns the changes, each with the checksum of the row that it puts.
    pub fn changes(&self) -> impl Iterator<Item = (&Change, i64)> {
        self.batch.changes().iter().zip(self.sums.iter().copied())
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
