//! What one shard remembers of what happened to its objects: counts, how long events took, the last troubles.
//!
//! **Invariant:** counting allocates nothing and looks at the clock once an event. Of events a bounded number of the
//! last ones are kept, and of troubles, whose text has a bounded length.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt::Display;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

use super::container::Container;
use super::registry::Key;
use crate::clock::Clock;

/// What a shard remembers.
pub struct Journal {
    clock: Clock,
    /// One for each namespace.
    counts: Vec<Counts>,
    troubles: RefCell<VecDeque<Trouble>>,
    recent: RefCell<VecDeque<Recent>>,
}

/// An event that ended lately.
#[derive(Clone, Copy, Debug)]
pub struct Recent {
    /// Of which object.
    pub key: Key,
    /// What it was.
    pub kind: EventKind,
    /// When it came.
    pub since: Instant,
    /// How long it took, waiting included.
    pub took: Duration,
    /// Whether it failed, or was cut short.
    pub failed: bool,
}

/// What is counted of the objects of one namespace on one shard.
struct Counts {
    in_memory: Cell<u64>,
    fetches: Cell<u64>,
    typed: Cell<u64>,
    alarms: Cell<u64>,
    sockets: Cell<u64>,
    errors: Cell<u64>,
    resets: Cell<u64>,
    latencies: [Cell<u64>; BUCKETS],
}

/// The counts of one namespace since the server began, but for what is in memory now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Objects in memory.
    pub in_memory: u64,
    /// Fetches that ended.
    pub fetches: u64,
    /// Typed calls that ended.
    pub typed: u64,
    /// Alarms that were handled, or failed.
    pub alarms: u64,
    /// Events of WebSockets that were handled, or failed.
    pub sockets: u64,
    /// How many of these failed, or were cut short by their object's reset.
    pub errors: u64,
    /// Objects that were reset.
    pub resets: u64,
    /// How many of these took so long, waiting included: see [`latency_bounds_us`].
    pub latencies: Vec<u64>,
}

/// Something that went wrong with an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// With which object.
    pub key: Key,
    /// Its name, where it is known.
    pub name: Option<String>,
    /// What failed, or that it was reset.
    pub kind: EventKind,
    /// What was said of it; the beginning, where that is long.
    pub message: String,
}

/// What happens to an object: its events, and its reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// A fetch.
    Fetch,
    /// A typed call.
    Typed,
    /// An alarm.
    Alarm,
    /// An event of a WebSocket.
    Socket,
    /// A reset, which is always a trouble.
    Reset,
}

impl EventKind {
    /// Returns its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fetch => "fetch",
            Self::Typed => "typed call",
            Self::Alarm => "alarm",
            Self::Socket => "WebSocket",
            Self::Reset => "reset",
        }
    }
}

impl Journal {
    /// Makes that of a shard of a node with so many namespaces.
    pub fn new(clock: Clock, namespaces: usize) -> Rc<Self> {
        let counts = (0..namespaces).map(|_| Counts::default()).collect();
        let recent = RefCell::new(VecDeque::with_capacity(RECENT_MAX));
        Rc::new(Self { clock, counts, troubles: RefCell::default(), recent })
    }

    /// Notes that an object came into memory.
    pub fn came(&self, key: Key) {
        self.with(key, |counts| add(&counts.in_memory));
    }

    /// Notes that an object left memory.
    pub fn left(&self, key: Key) {
        self.with(key, |counts| counts.in_memory.set(counts.in_memory.get().saturating_sub(1)));
    }

    /// Notes that an object was reset, and why.
    pub fn reset(&self, container: &Container, reason: &dyn Display) {
        self.with(container.key(), |counts| add(&counts.resets));
        self.note(container, EventKind::Reset, reason);
    }

    /// Returns the counts of a namespace.
    pub fn tally(&self, namespace: usize) -> Tally {
        let Some(counts) = self.counts.get(namespace) else { return Tally::default() };
        Tally {
            in_memory: counts.in_memory.get(),
            fetches: counts.fetches.get(),
            typed: counts.typed.get(),
            alarms: counts.alarms.get(),
            sockets: counts.sockets.get(),
            errors: counts.errors.get(),
            resets: counts.resets.get(),
            latencies: counts.latencies.iter().map(Cell::get).collect(),
        }
    }

    /// Returns up to `limit` of the last troubles of those objects that `wanted` says, the latest first.
    pub fn troubles(&self, limit: usize, wanted: impl Fn(&Key) -> bool) -> Vec<Trouble> {
        let troubles = self.troubles.borrow();
        let wanted = troubles.iter().rev().filter(|trouble| wanted(&trouble.key));
        wanted.take(limit).cloned().collect()
    }

    /// Returns up to `limit` of the last events of those objects that `wanted` says, the latest first.
    pub fn recent(&self, limit: usize, wanted: impl Fn(&Key) -> bool) -> Vec<Recent> {
        let recent = self.recent.borrow();
        recent.iter().rev().filter(|one| wanted(&one.key)).take(limit).copied().collect()
    }

    fn remember(&self, one: Recent) {
        let mut recent = self.recent.borrow_mut();
        if recent.len() >= RECENT_MAX {
            recent.pop_front();
        }
        recent.push_back(one);
    }

    fn note(&self, container: &Container, kind: EventKind, reason: &dyn Display) {
        let mut message = reason.to_string();
        message.truncate(message.floor_char_boundary(MESSAGE_BYTES_MAX));
        let name = container.name().map(|name| {
            let end = name.floor_char_boundary(MESSAGE_BYTES_MAX);
            name.get(..end).unwrap_or_default().to_owned()
        });
        let at_ms = self.clock.unix_ms();
        let mut troubles = self.troubles.borrow_mut();
        if troubles.len() >= TROUBLES_MAX {
            troubles.pop_front();
        }
        troubles.push_back(Trouble { at_ms, key: container.key(), name, kind, message });
    }

    fn with(&self, key: Key, count: impl FnOnce(&Counts)) {
        if let Some(counts) = self.counts.get(key.namespace) {
            count(counts);
        }
    }
}

/// One event inside its object, from when it came until its handler ends. Dropped before, it was cut short.
pub struct Entry {
    journal: Rc<Journal>,
    key: Key,
    kind: EventKind,
    since: Instant,
    ended: Cell<bool>,
}

impl Entry {
    /// Notes that an event of an object enters, which came at `since`.
    pub fn new(journal: &Rc<Journal>, key: Key, kind: EventKind, since: Instant) -> Self {
        Self { journal: journal.clone(), key, kind, since, ended: Cell::new(false) }
    }

    /// Notes how it ended.
    pub fn end(&self, container: &Container, failure: Option<&dyn Display>) {
        self.count(failure.is_some());
        if let Some(failure) = failure {
            self.journal.note(container, self.kind, failure);
        }
    }

    /// Notes that there was nothing to do.
    pub fn pass(self) {
        self.ended.set(true);
    }

    fn count(&self, failed: bool) {
        if self.ended.replace(true) {
            return;
        }
        let Self { key, kind, since, .. } = *self;
        let took = since.elapsed();
        self.journal.remember(Recent { key, kind, since, took, failed });
        self.journal.with(self.key, |counts| {
            add(match self.kind {
                EventKind::Fetch | EventKind::Reset => &counts.fetches,
                EventKind::Typed => &counts.typed,
                EventKind::Alarm => &counts.alarms,
                EventKind::Socket => &counts.sockets,
            });
            if failed {
                add(&counts.errors);
            }
            counts.latencies.get(bucket(took)).into_iter().for_each(add);
        });
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        // Its object was reset, which is noted as such.
        self.count(true);
    }
}

impl Default for Counts {
    fn default() -> Self {
        let (in_memory, fetches, typed, alarms, sockets, errors, resets) = Default::default();
        let latencies = std::array::from_fn(|_| Cell::new(0));
        Self { in_memory, fetches, typed, alarms, sockets, errors, resets, latencies }
    }
}

impl Tally {
    /// Adds what another shard has counted.
    pub fn add(&mut self, other: &Self) {
        self.in_memory += other.in_memory;
        self.fetches += other.fetches;
        self.typed += other.typed;
        self.alarms += other.alarms;
        self.sockets += other.sockets;
        self.errors += other.errors;
        self.resets += other.resets;
        self.latencies.resize(BUCKETS, 0);
        for (sum, more) in self.latencies.iter_mut().zip(&other.latencies) {
            *sum += more;
        }
    }
}

fn add(count: &Cell<u64>) {
    count.set(count.get() + 1);
}

/// Returns the bucket of a latency: four for each doubling, from a microsecond.
fn bucket(latency: Duration) -> usize {
    let us = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX).max(1);
    let octave = us.ilog2();
    let within = (us << 2 >> octave) & 3;
    (octave as usize * 4 + within as usize).min(BUCKETS - 1)
}

/// Returns where each bucket of latencies ends, in microseconds; the last one has no end.
pub fn latency_bounds_us() -> Vec<u64> {
    // An end is where the next one begins, rounded up as buckets of less than a microsecond are empty.
    let end = |bucket: usize| {
        let (octave, within) = ((bucket + 1) / 4, (bucket + 1) % 4);
        ((4 + within as u64) << octave).div_ceil(4)
    };
    (0..BUCKETS).map(end).collect()
}

/// Up to about two minutes.
const BUCKETS: usize = 27 * 4;
/// Troubles that one shard remembers.
const TROUBLES_MAX: usize = 256;
/// Events that one shard remembers.
const RECENT_MAX: usize = 256;
/// Bytes of what was said of one.
const MESSAGE_BYTES_MAX: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_latency_lies_in_the_bucket_that_ends_behind_it() {
        let bounds = latency_bounds_us();
        assert_eq!(bounds.len(), BUCKETS);
        for us in (0..10_000).chain([50_000, 1_000_000, 99_999_999]) {
            let at = bucket(Duration::from_micros(us));
            assert!(us.max(1) < bounds[at], "{us} in {at}, which ends at {}", bounds[at]);
            assert!(at == 0 || us >= bounds[at - 1], "{us} in {at}, after {}", bounds[at - 1]);
        }
        assert_eq!(bucket(Duration::MAX), BUCKETS - 1);
    }
}
