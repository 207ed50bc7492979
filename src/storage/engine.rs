//! What a store of rows must do, whatever it is made of.
//!
//! An [`Engine`] is one store, shared by the threads of a process. Each thread has a [`Store`] of its own: its
//! way to the rows of its objects. Each object in memory writes through a [`Session`].
//!
//! **Invariant (order):** the batches of one session become durable in the order of their tickets, each as a
//! whole; a crash at any moment keeps a prefix of them.
//! **Invariant (read your writes):** what was submitted on a store is what that store reads, at once.
//! **Invariant (truth):** a batch is told to be durable only when it is; when it is unknown whether a batch is
//! durable, it has failed.
//! **Invariant (broken for good):** after a batch of a session has failed, every later one fails, and none of
//! them leaves anything behind.
//! **Invariant (owner):** a session whose lease was taken over writes nothing any more: its batches fail.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;

use super::row::{Key, KeyRange, ObjectKey, Space};
use crate::error::{Error, Result};

/// One store, shared by the threads of a process.
pub trait Engine: Send + Sync + 'static {
    /// Says what it is, in a few words, for people: `in memory`, or where it is.
    fn describe(&self) -> String;

    /// Returns the number of the namespace with this fingerprint; the first time, gives it one, for good.
    ///
    /// Durable when it returns. `name` is kept beside it for people and tools; a later one replaces it.
    ///
    /// # Errors
    /// *failed* where the store can't be written.
    fn space(&self, fingerprint: [u8; 16], name: &str) -> Result<Space>;

    /// Takes over virtual shards: their epochs go up. Durable when it returns.
    ///
    /// When this returns, nothing more is written under an earlier lease of these, by whichever process.
    ///
    /// # Errors
    /// *failed* where the store can't be written.
    fn acquire(&self, shards: &[u16]) -> Result<Vec<Lease>>;

    /// Opens the way of one thread. `wake` is called, on any thread, when [`Store::take_done`] has something
    /// new; it must not block.
    ///
    /// # Errors
    /// *failed* where the store can't be read.
    fn store(&self, wake: Arc<dyn Fn() + Send + Sync>) -> Result<Box<dyn Store>>;

    /// Waits until all that was submitted is durable or has failed, and closes the store. What is submitted
    /// later fails. Blocks; does nothing the second time.
    fn close(&self);
}

/// The right to write the objects of a virtual shard, until another takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The virtual shard.
    pub shard: u16,
    /// Which owner of the shard this is: each has a higher number than all before.
    pub epoch: u64,
}

/// The way of one thread to a store. Nothing here waits for a disk to sync.
///
/// A store keeps what was submitted in memory until it is durable, so `backlog_bytes` is what a caller bounds.
pub trait Store {
    /// Returns a row; none where there is no such row.
    ///
    /// # Errors
    /// *failed* where the store can't be read or is damaged; the message names the file.
    fn get(&self, key: &Key) -> Result<Option<Bytes>>;

    /// Visits the rows of a range in the order of their keys, or backwards, until `visit` breaks.
    ///
    /// Rows of objects of other threads may lag behind what their own threads read, by what is not durable yet.
    ///
    /// # Errors
    /// As [`get`](Self::get), after which nothing more is visited.
    fn scan(&self, range: &KeyRange, order: Order, visit: Visit<'_>) -> Result<()>;

    /// Has all rows of `batch` written, as one. Visible here at once; durable, or failed, when
    /// [`take_done`](Self::take_done) yields its ticket; or durable already, where that is what this returns.
    ///
    /// The batch writes rows of the session's own object only (and its alarms).
    fn submit(&self, session: &Arc<Session>, batch: Batch) -> Submitted;

    /// Moves into `done` what became of batches since the last call, in the order of each session's tickets.
    fn take_done(&self, done: &mut Vec<Done>);

    /// Returns about how many bytes were submitted here and are not durable yet.
    fn backlog_bytes(&self) -> usize;
}

/// Looks at one row of a scan, and says whether to go on.
pub type Visit<'a> = &'a mut dyn FnMut(&Key, Bytes) -> ControlFlow<()>;

/// Which way a scan goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// From the lowest key up.
    Ascending,
    /// From the highest key down.
    Descending,
}

/// One object in memory, as the store knows it: which object, under which lease, and what it has submitted.
#[derive(Debug)]
pub struct Session {
    /// Tells it from all others of its thread.
    pub number: u64,
    /// The object that it writes.
    pub object: ObjectKey,
    /// The lease that it writes under.
    pub lease: Lease,
    submitted: AtomicU64,
    failed: AtomicBool,
}

impl Session {
    /// Makes the session of `object`. `number` is the caller's, and comes back in [`Done`].
    pub fn new(number: u64, object: ObjectKey, lease: Lease) -> Arc<Self> {
        let (submitted, failed) = Default::default();
        Arc::new(Self { number, object, lease, submitted, failed })
    }

    /// Returns the ticket of the last batch that was submitted; 0 before the first.
    pub fn submitted(&self) -> Ticket {
        self.submitted.load(Ordering::Relaxed)
    }

    /// Gives the next batch its ticket. For engines; only the session's own thread calls it.
    pub fn next_ticket(&self) -> Ticket {
        self.submitted.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Returns whether a batch of it has failed.
    pub fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    /// Notes that a batch of it has failed: no later one may be written. For engines.
    pub fn fail(&self) {
        self.failed.store(true, Ordering::Release);
    }
}

/// The number of a batch within its session, from 1.
pub type Ticket = u64;

/// What became of a batch at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Submitted {
    /// It is durable already.
    Durable(Ticket),
    /// [`Store::take_done`] will tell.
    Pending(Ticket),
}

/// What became of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    /// The session's number.
    pub session: u64,
    /// The batch.
    pub ticket: Ticket,
    /// Durable, or why not. After an error nothing of this session is written any more.
    pub outcome: Result<()>,
}

/// Changes that are made as one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    changes: Vec<Change>,
    bytes: usize,
}

/// One change of a batch. Later ones see what earlier ones did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The row is there, with this content.
    Put(Key, Bytes),
    /// The row is not there.
    Delete(Key),
    /// No row of the range is there.
    Clear(KeyRange),
}

impl Batch {
    /// Appends a change.
    pub fn push(&mut self, change: Change) {
        /// What a change costs beside its bytes.
        const OVERHEAD_BYTES: usize = 64;
        self.bytes += OVERHEAD_BYTES
            + match &change {
                Change::Put(key, value) => key.bytes().len() + value.len(),
                Change::Delete(key) => key.bytes().len(),
                Change::Clear(_) => 0,
            };
        self.changes.push(change);
    }

    /// Returns the changes, in order.
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// Returns the changes.
    pub fn into_changes(self) -> Vec<Change> {
        self.changes
    }

    /// Returns whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Returns about how many bytes it has.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

/// Why a batch is refused whose session has failed before.
pub fn session_failed() -> Error {
    Error::failed("an earlier write of the object has failed").with_retryable(true)
}

/// Why a batch is refused whose lease was taken over.
pub fn fenced(lease: Lease, epoch: u64) -> Error {
    let Lease { shard, epoch: held } = lease;
    Error::disconnected(format!(
        "virtual shard {shard} has another owner: epoch {epoch}, where {held} was held"
    ))
}
