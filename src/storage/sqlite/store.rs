//! The way of one thread to a store on disk.
//!
//! **Invariant:** what a thread submitted leaves its overlay only when its own connections read it.
//! **Invariant:** the outcomes of a session's batches are told in the order of their tickets, refused ones
//! included: all go through the queue of the object's file.

use std::cell::RefCell;
use std::sync::Arc;

use bytes::Bytes;

use super::file;
use super::queue::{Outlet, Submission, Work, closed, tell};
use super::reader::Reader;
use super::server::Files;
use crate::error::{Error, Result};
use crate::storage::engine::{Batch, Change, Done, Order, Session, Store, Submitted, Visit};
use crate::storage::overlay::Overlay;
use crate::storage::row::{Key, KeyRange};

/// The way of one thread to a store on disk.
pub(super) struct SqliteStore {
    /// Closed before the files, which have what must be closed last.
    reader: Reader,
    files: Arc<Files>,
    outlet: Arc<Outlet>,
    overlay: RefCell<Overlay>,
}

impl SqliteStore {
    /// Makes the way of a thread that hears of its batches through `outlet`.
    pub fn new(files: Arc<Files>, outlet: Arc<Outlet>) -> Self {
        let paths = files.all().iter().map(|file| file.path.clone()).collect();
        let reader = Reader::new(paths, file::open_reader);
        Self { reader, files, outlet, overlay: RefCell::default() }
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        let files = self.files.all();
        self.reader.tidy(|index| files.get(index).is_some_and(|file| file.health.check().is_ok()));
    }
}

impl Store for SqliteStore {
    fn get(&self, key: &Key) -> Result<Option<Bytes>> {
        if let Some(object) = key.object_key() {
            self.files.check(Some(object))?;
        }
        self.reader.find(&self.overlay, key)
    }

    fn scan(&self, range: &KeyRange, order: Order, visit: Visit<'_>) -> Result<()> {
        self.files.check(range.object_key())?;
        self.reader.scan(&self.overlay, range, order, visit)
    }

    fn submit(&self, session: &Arc<Session>, batch: Batch) -> Submitted {
        let ticket = session.next_ticket();
        let batch = Arc::new(batch);
        let mut submission =
            Submission::new(session.clone(), ticket, batch.clone(), self.outlet.clone());
        // One that is refused here waits for its turn all the same, as earlier ones are told of first.
        if let Some(error) = refusal(session, &batch) {
            submission.refuse(error);
        }
        let is_hopeless = session.has_failed();
        if !is_hopeless {
            self.overlay.borrow_mut().add(session.number, ticket, batch);
        }
        let file = self.files.all().get(self.files.index_of(session.object.shard()));
        let pushed = match file {
            Some(file) => file.queue.push(Work::Batch(submission)),
            None => Err(Work::Batch(submission)),
        };
        if let Err(Work::Batch(mut submission)) = pushed {
            submission.refuse(closed());
            tell(vec![submission]);
        }
        Submitted::Pending(ticket)
    }

    fn take_done(&self, done: &mut Vec<Done>) {
        let new = self.outlet.take();
        let mut overlay = self.overlay.borrow_mut();
        let mut failed = Vec::new();
        for one in &new {
            match one.outcome {
                Ok(()) => overlay.durable(one.session, one.ticket),
                Err(_) => failed.push(one.session),
            }
        }
        if !failed.is_empty() {
            failed.sort_unstable();
            failed.dedup();
            overlay.forget(|session| failed.binary_search(&session).is_ok());
        }
        done.extend(new);
    }

    fn backlog_bytes(&self) -> usize {
        self.overlay.borrow().bytes()
    }
}

/// Returns why no store can write a batch, whatever its state.
fn refusal(session: &Session, batch: &Batch) -> Option<Error> {
    let object = session.object;
    if session.lease.shard != object.shard() {
        let (has, needs) = (session.lease.shard, object.shard());
        let message = format!("a lease of virtual shard {has} does not cover objects of {needs}");
        return Some(Error::failed(message));
    }
    batch.changes().iter().find_map(|change| {
        let (of, bytes) = match change {
            Change::Put(key, value) => (key.object_key(), key.bytes().len() + value.len()),
            Change::Delete(key) => (key.object_key(), key.bytes().len()),
            Change::Clear(range) if range.is_empty() => (Some(object), 0),
            Change::Clear(range) => (range.object_key(), 0),
        };
        if of != Some(object) {
            let id = object.id;
            return Some(Error::failed(format!("a batch of object {id} changes rows of others")));
        }
        (bytes > ROW_BYTES_MAX).then(|| {
            Error::failed(format!("a row of {bytes} bytes is too large: at most {ROW_BYTES_MAX}"))
        })
    })
}

/// What a row may have: SQLite holds a little less than a gigabyte.
const ROW_BYTES_MAX: usize = 512 << 20;
