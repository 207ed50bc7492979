//! A store of any kind with threads on it, as the cases see it.

use std::cell::{Cell, RefCell};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use bytes::Bytes;

use crate::error::Result;
use crate::storage::engine::{
    Batch, Change, Done, Engine, Lease, Order, Session, Store, Submitted, Ticket,
};
use crate::storage::memory::Memory;
use crate::storage::row::{Key, KeyRange, ObjectKey};
use crate::storage::sqlite::Sqlite;

/// Which store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// In memory, durable at once.
    Memory,
    /// In memory, durable when the test says so.
    Held,
    /// On disk, in so many files.
    Disk(u32),
}

impl Kind {
    pub(crate) const ALL: [Self; 4] = [Self::Memory, Self::Held, Self::Disk(1), Self::Disk(3)];
}

/// A directory of a test, which goes with it.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    /// Names one that is not there yet.
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("stubborn-store-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        drop(std::fs::remove_dir_all(&path));
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Copies what a disk would hold if the process was killed now: the files, then their logs.
    pub(crate) fn copy(&self) -> Self {
        let copy = Self::new();
        // A process of its own reads them, as closing a file here would take away SQLite's locks on it.
        let script = "mkdir -p $2 && cp $1/*.db $2/ && for log in $1/*.db-wal; do \
                      if [ -e $log ]; then cp $log $2/; fi; done";
        let done = Command::new("sh").args(["-c", script, "sh"]).arg(&self.0).arg(&copy.0).status();
        assert!(done.unwrap().success(), "{} can be copied", self.0.display());
        copy
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// A store of some kind.
pub(crate) struct World {
    pub(crate) kind: Kind,
    pub(crate) engine: Arc<dyn Engine>,
    memory: Option<Memory>,
    pub(crate) scratch: Option<Scratch>,
}

impl World {
    pub(crate) fn new(kind: Kind) -> Self {
        match kind {
            Kind::Memory => Self::in_memory(kind, Memory::new()),
            Kind::Held => Self::in_memory(kind, Memory::held()),
            Kind::Disk(_) => Self::on_disk(kind, Scratch::new()),
        }
    }

    fn in_memory(kind: Kind, memory: Memory) -> Self {
        let engine = Arc::new(memory.clone());
        Self { kind, engine, memory: Some(memory), scratch: None }
    }

    fn on_disk(kind: Kind, scratch: Scratch) -> Self {
        let Kind::Disk(files) = kind else { unreachable!("only stores on disk have a directory") };
        let engine = Sqlite::open_with(scratch.path(), files).unwrap();
        Self { kind, engine: Arc::new(engine), memory: None, scratch: Some(scratch) }
    }

    /// Returns the store as the next start finds it after a crash now.
    pub(crate) fn crash(&self) -> Self {
        match (&self.memory, &self.scratch) {
            (Some(memory), _) => Self::in_memory(self.kind, memory.after_crash()),
            (_, Some(scratch)) => Self::on_disk(self.kind, scratch.copy()),
            _ => unreachable!("a store is in memory or on disk"),
        }
    }

    /// Closes the store and opens it again. The threads' ways to it are gone by then.
    pub(crate) fn reopen(mut self) -> Self {
        self.engine.close();
        match self.scratch.take() {
            Some(scratch) => {
                let kind = self.kind;
                drop(self);
                Self::on_disk(kind, scratch)
            }
            None => self.crash(),
        }
    }

    /// Opens a thread's way.
    pub(crate) fn thread(&self) -> Thread {
        let woken = Arc::new((Mutex::new(0_u64), Condvar::new()));
        let (lock, condvar) = (woken.clone(), woken.clone());
        let wake = move || {
            *lock.0.lock().unwrap() += 1;
            condvar.1.notify_all();
        };
        let store = self.engine.store(Arc::new(wake)).unwrap();
        let (pending, done) = Default::default();
        Thread { store, memory: self.memory.clone(), woken, pending, done }
    }

    pub(crate) fn lease(&self, shard: u16) -> Lease {
        self.engine.acquire(&[shard]).unwrap()[0]
    }

    /// Makes a session under a new lease.
    pub(crate) fn session(&self, number: u64, object: ObjectKey) -> Arc<Session> {
        Session::new(number, object, self.lease(object.shard()))
    }
}

/// A thread's way to a store.
pub(crate) struct Thread {
    pub(crate) store: Box<dyn Store>,
    memory: Option<Memory>,
    woken: Arc<(Mutex<u64>, Condvar)>,
    pending: Cell<usize>,
    done: RefCell<Vec<Done>>,
}

impl Thread {
    pub(crate) fn submit(&self, session: &Arc<Session>, changes: Vec<Change>) -> Ticket {
        let mut batch = Batch::default();
        changes.into_iter().for_each(|change| batch.push(change));
        match self.store.submit(session, batch) {
            Submitted::Durable(ticket) => {
                let done = Done { session: session.number, ticket, outcome: Ok(()) };
                self.done.borrow_mut().push(done);
                ticket
            }
            Submitted::Pending(ticket) => {
                self.pending.set(self.pending.get() + 1);
                ticket
            }
        }
    }

    /// Waits until all that was submitted is told of, and returns what became of it, in the order told.
    pub(crate) fn finish(&self) -> Vec<Done> {
        loop {
            if let Some(memory) = &self.memory {
                memory.commit(memory.waiting());
            }
            self.look();
            if self.pending.get() == 0 {
                assert_eq!(self.store.backlog_bytes(), 0, "nothing waits");
                return self.done.take();
            }
            let woken = self.woken.0.lock().unwrap();
            let (woken, waited) =
                self.woken.1.wait_timeout_while(woken, WAIT, |woken| *woken == 0).unwrap();
            assert!(!waited.timed_out(), "{} batches are told of", self.pending.get());
            drop(woken);
        }
    }

    /// Takes what is told by now.
    pub(crate) fn look(&self) {
        *self.woken.0.lock().unwrap() = 0;
        let mut done = self.done.borrow_mut();
        let before = done.len();
        self.store.take_done(&mut done);
        self.pending.set(self.pending.get() - (done.len() - before));
    }

    pub(crate) fn told(&self) -> Vec<Done> {
        self.done.borrow().clone()
    }

    pub(crate) fn get(&self, key: &Key) -> Option<Bytes> {
        self.store.get(key).unwrap()
    }

    pub(crate) fn scan(&self, range: &KeyRange, order: Order) -> Vec<(Key, Bytes)> {
        self.try_scan(range, order).unwrap()
    }

    pub(crate) fn try_scan(&self, range: &KeyRange, order: Order) -> Result<Vec<(Key, Bytes)>> {
        let mut rows = Vec::new();
        self.store.scan(range, order, &mut |key, value| {
            rows.push((key.clone(), value));
            ControlFlow::Continue(())
        })?;
        Ok(rows)
    }
}

/// Longer than anything takes that does not hang.
const WAIT: Duration = Duration::from_secs(30);

/// Asserts that all batches are durable.
pub(crate) fn all_durable(done: &[Done]) {
    let failed: Vec<_> = done.iter().filter(|done| done.outcome.is_err()).collect();
    assert!(failed.is_empty(), "all are durable: {failed:?}");
}

pub(crate) fn put(key: Key, value: impl Into<Bytes>) -> Change {
    Change::Put(key, value.into())
}
