//! A store in memory: what `--in-memory` runs on, and what tests run on.
//!
//! Made by [`Memory::new`], every batch is durable at once, as far as memory can be. Made by
//! [`Memory::held`], nothing is durable before the test says so, and what is not durable can be forgotten.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::{Bound, ControlFlow};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::engine::{
    Batch, Change, Done, Engine, Lease, Order, Session, Store, Submitted, Ticket, Visit, fenced,
    session_failed,
};
use super::row::{Key, KeyRange, Space};
use crate::error::{Error, Result};

/// A store in memory.
#[derive(Clone, Default)]
pub struct Memory {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Default)]
struct Shared {
    rows: Rows,
    spaces: Vec<[u8; 16]>,
    epochs: HashMap<u16, u64>,
    closed: bool,
    /// Present where commits are held: the rows that are durable, and the batches that are not.
    held: Option<Held>,
}

type Rows = BTreeMap<Key, Bytes>;

#[derive(Default)]
struct Held {
    durable: Rows,
    waiting: VecDeque<Waiting>,
}

struct Waiting {
    session: Arc<Session>,
    ticket: Ticket,
    changes: Vec<Change>,
    bytes: usize,
    outlet: Arc<Outlet>,
}

/// Where a thread hears of its batches.
struct Outlet {
    done: Mutex<Vec<Done>>,
    wake: Arc<dyn Fn() + Send + Sync>,
}

impl Outlet {
    fn tell(&self, done: Done) {
        lock(&self.done).push(done);
        (self.wake)();
    }
}

impl Memory {
    /// Makes an empty store whose batches are durable at once.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes an empty store whose batches wait for [`commit`](Self::commit) or [`fail`](Self::fail).
    pub fn held() -> Self {
        let store = Self::new();
        lock(&store.shared).held = Some(Held::default());
        store
    }

    /// Returns how many batches wait.
    pub fn waiting(&self) -> usize {
        lock(&self.shared).held.as_ref().map_or(0, |held| held.waiting.len())
    }

    /// Makes the oldest `count` waiting batches durable.
    pub fn commit(&self, count: usize) {
        for _ in 0..count {
            let mut shared = lock(&self.shared);
            let Some(held) = &mut shared.held else { return };
            let Some(waiting) = held.waiting.pop_front() else { return };
            apply(&mut held.durable, &waiting.changes);
            drop(shared);
            waiting.tell(Ok(()));
        }
    }

    /// Makes the oldest waiting batch, and all of its session, fail with `error`.
    pub fn fail(&self, error: &Error) {
        let mut shared = lock(&self.shared);
        let Some(held) = &mut shared.held else { return };
        let Some(session) = held.waiting.front().map(|waiting| waiting.session.clone()) else {
            return;
        };
        let failed = shared.remove_waiting(|waiting| Arc::ptr_eq(&waiting.session, &session));
        drop(shared);
        failed.into_iter().for_each(|waiting| waiting.tell(Err(error.clone())));
    }

    /// Returns a store with what was durable here, as the next start would find it after a crash.
    pub fn after_crash(&self) -> Self {
        let shared = lock(&self.shared);
        let rows = shared.held.as_ref().map_or(&shared.rows, |held| &held.durable).clone();
        let held = shared.held.as_ref().map(|_| Held { durable: rows.clone(), ..Held::default() });
        let (spaces, epochs) = (shared.spaces.clone(), shared.epochs.clone());
        let shared = Shared { rows, spaces, epochs, held, ..Shared::default() };
        Self { shared: Arc::new(Mutex::new(shared)) }
    }
}

impl Shared {
    /// Takes the waiting batches that `fails` picks out of the store; their sessions have failed.
    fn remove_waiting(&mut self, fails: impl Fn(&Waiting) -> bool) -> VecDeque<Waiting> {
        let Some(held) = &mut self.held else { return VecDeque::new() };
        let (failed, kept): (VecDeque<_>, _) =
            std::mem::take(&mut held.waiting).into_iter().partition(fails);
        held.waiting = kept;
        failed.iter().for_each(|waiting| waiting.session.fail());
        let mut rows = held.durable.clone();
        held.waiting.iter().for_each(|waiting| apply(&mut rows, &waiting.changes));
        self.rows = rows;
        failed
    }
}

impl Waiting {
    fn tell(self, outcome: Result<()>) {
        let Self { session, ticket, outlet, .. } = self;
        outlet.tell(Done { session: session.number, ticket, outcome });
    }
}

impl Engine for Memory {
    fn describe(&self) -> String {
        "in memory".to_owned()
    }

    fn space(&self, fingerprint: [u8; 16], _name: &str) -> Result<Space> {
        let mut shared = lock(&self.shared);
        let known = shared.spaces.iter().position(|known| *known == fingerprint);
        let number = known.unwrap_or_else(|| {
            shared.spaces.push(fingerprint);
            shared.spaces.len() - 1
        });
        u32::try_from(number).map(Space).map_err(|_| Error::failed("too many namespaces"))
    }

    fn acquire(&self, shards: &[u16]) -> Result<Vec<Lease>> {
        let mut shared = lock(&self.shared);
        let take = |shard: &u16| {
            let epoch = shared.epochs.entry(*shard).or_default();
            *epoch += 1;
            Lease { shard: *shard, epoch: *epoch }
        };
        let leases = shards.iter().map(take).collect();
        let fenced = shared.remove_waiting(|waiting| shards.contains(&waiting.session.lease.shard));
        let epochs = shared.epochs.clone();
        drop(shared);
        for waiting in fenced {
            let lease = waiting.session.lease;
            let epoch = epochs.get(&lease.shard).copied().unwrap_or_default();
            waiting.tell(Err(super::engine::fenced(lease, epoch)));
        }
        Ok(leases)
    }

    fn store(&self, wake: Arc<dyn Fn() + Send + Sync>) -> Result<Box<dyn Store>> {
        let outlet = Arc::new(Outlet { done: Mutex::default(), wake });
        Ok(Box::new(MemoryStore { shared: self.shared.clone(), outlet }))
    }

    fn close(&self) {
        let waiting = self.waiting();
        self.commit(waiting);
        lock(&self.shared).closed = true;
    }
}

/// One thread's way to a store in memory.
struct MemoryStore {
    shared: Arc<Mutex<Shared>>,
    outlet: Arc<Outlet>,
}

impl MemoryStore {
    /// Returns why a batch can't be written.
    fn refusal(shared: &Shared, session: &Session) -> Option<Error> {
        let Lease { shard, epoch } = session.lease;
        let now = shared.epochs.get(&shard).copied().unwrap_or_default();
        if shared.closed {
            return Some(Error::failed("the store is closed"));
        }
        if session.has_failed() {
            return Some(session_failed());
        }
        (epoch != now).then(|| fenced(session.lease, now))
    }
}

impl Store for MemoryStore {
    fn get(&self, key: &Key) -> Result<Option<Bytes>> {
        Ok(lock(&self.shared).rows.get(key).cloned())
    }

    fn scan(&self, range: &KeyRange, order: Order, visit: Visit<'_>) -> Result<()> {
        let mut range = range.clone();
        loop {
            // `visit` may read again, so the rows are not locked meanwhile.
            let rows = some_in_range(&lock(&self.shared).rows, &range, order, ROWS_AT_ONCE);
            let Some((last, _)) = rows.last() else { return Ok(()) };
            let after = Bound::Excluded(last.bytes().to_vec());
            match order {
                Order::Ascending => range.from = after,
                Order::Descending => range.to = after,
            }
            for (key, value) in rows {
                if visit(&key, value) == ControlFlow::Break(()) {
                    return Ok(());
                }
            }
        }
    }

    fn submit(&self, session: &Arc<Session>, batch: Batch) -> Submitted {
        let ticket = session.next_ticket();
        let mut shared = lock(&self.shared);
        if let Some(error) = Self::refusal(&shared, session) {
            session.fail();
            drop(shared);
            self.outlet.tell(Done { session: session.number, ticket, outcome: Err(error) });
            return Submitted::Pending(ticket);
        }
        apply(&mut shared.rows, batch.changes());
        let Some(held) = &mut shared.held else { return Submitted::Durable(ticket) };
        let (session, outlet) = (session.clone(), self.outlet.clone());
        let (bytes, changes) = (batch.bytes(), batch.into_changes());
        held.waiting.push_back(Waiting { session, ticket, changes, bytes, outlet });
        Submitted::Pending(ticket)
    }

    fn take_done(&self, done: &mut Vec<Done>) {
        done.append(&mut lock(&self.outlet.done));
    }

    fn backlog_bytes(&self) -> usize {
        let shared = lock(&self.shared);
        let waiting = shared.held.iter().flat_map(|held| &held.waiting);
        let own = waiting.filter(|waiting| Arc::ptr_eq(&waiting.outlet, &self.outlet));
        own.map(|waiting| waiting.bytes).sum()
    }
}

fn apply(rows: &mut Rows, changes: &[Change]) {
    for change in changes {
        match change {
            Change::Put(key, value) => drop(rows.insert(key.clone(), value.clone())),
            Change::Delete(key) => drop(rows.remove(key)),
            Change::Clear(range) => {
                for (key, _) in in_range(rows, range) {
                    rows.remove(&key);
                }
            }
        }
    }
}

fn in_range(rows: &Rows, range: &KeyRange) -> Vec<(Key, Bytes)> {
    some_in_range(rows, range, Order::Ascending, usize::MAX)
}

/// Returns the first `limit` rows of a range, in an order.
fn some_in_range(rows: &Rows, range: &KeyRange, order: Order, limit: usize) -> Vec<(Key, Bytes)> {
    if range.is_empty() {
        return Vec::new();
    }
    let rows = rows.range(range.bounds());
    let copy = |(key, value): (&Key, &Bytes)| (key.clone(), value.clone());
    match order {
        Order::Ascending => rows.take(limit).map(copy).collect(),
        Order::Descending => rows.rev().take(limit).map(copy).collect(),
    }
}

/// Rows that a scan takes while the store is locked.
const ROWS_AT_ONCE: usize = 256;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
