//! What a thread has submitted and is not durable yet, so that it reads its own writes.
//!
//! **Invariant:** a row that [`Overlay::find`] answers for is what the submitted batches, in their order, made
//! of it; of every other row the store below is the truth.
//! **Invariant:** what leaves because it is durable changes no answer, where the store below has it already.
//! **Invariant:** it knows no engine, reads nothing and waits for nothing.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use super::engine::{Batch, Change, Order, Ticket};
use super::row::{Key, KeyRange, ObjectKey};

/// The batches of one thread that are not durable.
#[derive(Default)]
pub struct Overlay {
    /// Which batch comes next; they are numbered over all sessions.
    next: u64,
    bytes: usize,
    /// What waits, by session and ticket.
    batches: HashMap<(u64, Ticket), Pending>,
    /// The last change of each row that is newer than every clear of it.
    rows: BTreeMap<Key, Written>,
    /// The ranges that were cleared, by the object that they are all of.
    clears: HashMap<Option<ObjectKey>, Vec<Cleared>>,
}

struct Pending {
    number: u64,
    batch: Arc<Batch>,
}

struct Written {
    number: u64,
    value: Option<Bytes>,
}

struct Cleared {
    number: u64,
    range: KeyRange,
}

/// What the overlay knows of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// It is there, with this content.
    There(Bytes),
    /// It is not there.
    Gone,
    /// Nothing: the store below knows.
    Below,
}

/// Some rows of a range, in an order: no value where a row is gone.
#[derive(Debug, Default)]
pub struct Rows {
    /// The rows.
    pub rows: Vec<(Key, Option<Bytes>)>,
    /// Whether there may be more of the range behind the last.
    pub more: bool,
}

/// Rows of a range, as they are read.
#[derive(Debug)]
pub struct Merged {
    /// The rows.
    pub rows: Vec<(Key, Bytes)>,
    /// Where to go on; nowhere where that was all.
    pub rest: Option<KeyRange>,
}

impl Overlay {
    /// Adds what `session` submitted under `ticket`. It is read at once.
    pub fn add(&mut self, session: u64, ticket: Ticket, batch: Arc<Batch>) {
        let number = self.next;
        self.next += 1;
        self.bytes += batch.bytes();
        self.index(number, &batch);
        self.batches.insert((session, ticket), Pending { number, batch });
    }

    /// Removes a batch that the store below has now.
    pub fn durable(&mut self, session: u64, ticket: Ticket) {
        let Some(Pending { number, batch }) = self.batches.remove(&(session, ticket)) else {
            return;
        };
        self.bytes -= batch.bytes();
        for change in batch.changes() {
            match change {
                Change::Put(key, _) | Change::Delete(key) => {
                    if self.rows.get(key).is_some_and(|written| written.number == number) {
                        self.rows.remove(key);
                    }
                }
                Change::Clear(range) => self.remove_clears(range.object_key(), number),
            }
        }
    }

    /// Removes all batches of the sessions that `failed` picks out. What they hid is seen again.
    pub fn forget(&mut self, failed: impl Fn(u64) -> bool) {
        let before = self.batches.len();
        self.batches.retain(|(session, _), _| !failed(*session));
        if self.batches.len() == before {
            return;
        }
        self.rows.clear();
        self.clears.clear();
        let mut kept: Vec<_> =
            self.batches.values().map(|one| (one.number, one.batch.clone())).collect();
        kept.sort_unstable_by_key(|(number, _)| *number);
        self.bytes = kept.iter().map(|(_, batch)| batch.bytes()).sum();
        kept.iter().for_each(|(number, batch)| self.index(*number, batch));
    }

    /// Returns about how many bytes wait.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns what it knows of a row.
    pub fn find(&self, key: &Key) -> Found {
        match self.rows.get(key) {
            Some(Written { value: Some(value), .. }) => Found::There(value.clone()),
            Some(_) => Found::Gone,
            None if self.is_cleared(key) => Found::Gone,
            None => Found::Below,
        }
    }

    /// Returns whether the row of the store below is not to be seen, because its range was cleared.
    pub fn is_cleared(&self, key: &Key) -> bool {
        let of = |object| self.clears.get(&object);
        let covers = |clears: &Vec<Cleared>| clears.iter().any(|one| one.range.contains(key));
        !self.clears.is_empty()
            && (of(None).is_some_and(covers)
                || key.object_key().is_some_and(|object| of(Some(object)).is_some_and(covers)))
    }

    /// Returns at most `limit` rows of a range that it knows of.
    pub fn read(&self, range: &KeyRange, order: Order, limit: usize) -> Rows {
        if self.rows.is_empty() || range.is_empty() {
            return Rows::default();
        }
        let rows = self.rows.range(range.bounds());
        let copy = |(key, written): (&Key, &Written)| (key.clone(), written.value.clone());
        let rows: Vec<_> = match order {
            Order::Ascending => rows.take(limit).map(copy).collect(),
            Order::Descending => rows.rev().take(limit).map(copy).collect(),
        };
        Rows { more: rows.len() == limit, rows }
    }

    fn index(&mut self, number: u64, batch: &Batch) {
        for change in batch.changes() {
            let (key, value) = match change {
                Change::Put(key, value) => (key, Some(value.clone())),
                Change::Delete(key) => (key, None),
                Change::Clear(range) => {
                    self.clear(number, range);
                    continue;
                }
            };
            self.rows.insert(key.clone(), Written { number, value });
        }
    }

    fn clear(&mut self, number: u64, range: &KeyRange) {
        if range.is_empty() {
            return;
        }
        let hidden: Vec<Key> =
            self.rows.range(range.bounds()).map(|(key, _)| key.clone()).collect();
        hidden.iter().for_each(|key| drop(self.rows.remove(key)));
        let cleared = Cleared { number, range: range.clone() };
        self.clears.entry(range.object_key()).or_default().push(cleared);
    }

    fn remove_clears(&mut self, object: Option<ObjectKey>, number: u64) {
        let Some(clears) = self.clears.get_mut(&object) else { return };
        clears.retain(|one| one.number != number);
        if clears.is_empty() {
            self.clears.remove(&object);
        }
    }
}

/// Merges what is below with what lies above it, as far as all of them reach.
pub fn merge(
    overlay: &Overlay,
    below: Vec<Rows>,
    above: Rows,
    range: &KeyRange,
    order: Order,
) -> Merged {
    let before = |a: &Key, b: &Key| match order {
        Order::Ascending => a < b,
        Order::Descending => a > b,
    };
    let ends = below.iter().chain([&above]).filter(|rows| rows.more);
    let ends = ends.filter_map(|rows| rows.rows.last().map(|(key, _)| key));
    let reach = ends.reduce(|a, b| if before(b, a) { b } else { a }).cloned();
    let within = |key: &Key| reach.as_ref().is_none_or(|reach| !before(reach, key));

    let mut merged = BTreeMap::new();
    for (key, value) in below.into_iter().flat_map(|rows| rows.rows) {
        if within(&key) && !overlay.is_cleared(&key) {
            merged.insert(key, value);
        }
    }
    for (key, value) in above.rows {
        if within(&key) {
            merged.insert(key, value);
        }
    }
    let rows = merged.into_iter().filter_map(|(key, value)| value.map(|value| (key, value)));
    let mut rows: Vec<_> = rows.collect();
    if order == Order::Descending {
        rows.reverse();
    }
    let rest = reach.map(|reach| after(range, order, &reach));
    Merged { rows, rest }
}

/// Returns what is left of `range` behind `last`.
fn after(range: &KeyRange, order: Order, last: &Key) -> KeyRange {
    let bound = Bound::Excluded(last.bytes().to_vec());
    match order {
        Order::Ascending => KeyRange { from: bound, ..range.clone() },
        Order::Descending => KeyRange { to: bound, ..range.clone() },
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;
    use crate::storage::suite::arbitrary::{self, Model};

    #[derive(Clone, Debug)]
    enum Step {
        Submit { session: u64, changes: Vec<Change> },
        Durable,
        Fail { session: u64 },
        Scan { range: KeyRange, order: Order, chunk: usize },
    }

    fn step() -> impl Strategy<Value = Step> {
        // Two sessions are of one object, as when it was put out of memory and came back.
        let submit = (0..4_u64).prop_flat_map(|session| {
            let changes = arbitrary::changes(arbitrary::object(session / 2));
            changes.prop_map(move |changes| Step::Submit { session, changes })
        });
        let scan = (arbitrary::range(), arbitrary::order(), 1..5_usize);
        prop_oneof![
            4 => submit,
            3 => Just(Step::Durable),
            1 => (0..4_u64).prop_map(|session| Step::Fail { session }),
            4 => scan.prop_map(|(range, order, chunk)| Step::Scan { range, order, chunk }),
        ]
    }

    /// What is below, and what waits, in order.
    #[derive(Default)]
    struct World {
        overlay: Overlay,
        below: Model,
        waiting: VecDeque<(u64, Ticket, Batch)>,
        tickets: Ticket,
    }

    impl World {
        fn truth(&self) -> Model {
            let mut truth = self.below.clone();
            self.waiting.iter().for_each(|(_, _, batch)| truth.apply(batch.changes()));
            truth
        }

        fn scan(&self, range: &KeyRange, order: Order, chunk: usize) -> Vec<(Key, Bytes)> {
            let (mut found, mut rest) = (Vec::new(), Some(range.clone()));
            while let Some(range) = rest {
                let rows = self.below.scan(&range, order);
                let more = rows.len() > chunk;
                let rows = rows.into_iter().take(chunk).map(|(key, value)| (key, Some(value)));
                let below = Rows { rows: rows.collect(), more };
                let above = self.overlay.read(&range, order, chunk);
                let merged = merge(&self.overlay, vec![below], above, &range, order);
                found.extend(merged.rows);
                rest = merged.rest;
            }
            found
        }

        fn take(&mut self, step: Step) {
            match step {
                Step::Submit { session, changes } => {
                    self.tickets += 1;
                    let mut batch = Batch::default();
                    changes.into_iter().for_each(|change| batch.push(change));
                    self.overlay.add(session, self.tickets, Arc::new(batch.clone()));
                    self.waiting.push_back((session, self.tickets, batch));
                }
                Step::Durable => {
                    let Some((session, ticket, batch)) = self.waiting.pop_front() else { return };
                    self.below.apply(batch.changes());
                    self.overlay.durable(session, ticket);
                }
                Step::Fail { session } => {
                    self.waiting.retain(|(other, _, _)| *other != session);
                    self.overlay.forget(|other| other == session);
                }
                Step::Scan { range, order, chunk } => {
                    assert_eq!(
                        self.scan(&range, order, chunk),
                        self.truth().scan(&range, order),
                        "{range:?} {order:?}"
                    );
                }
            }
        }
    }

    proptest! {
        #![proptest_config(arbitrary::config(256))]

        #[test]
        fn what_is_read_is_what_is_below_and_what_waits(steps in prop::collection::vec(step(), 1..60)) {
            let mut world = World::default();
            for step in steps {
                world.take(step);
                let truth = world.truth();
                for key in arbitrary::keys() {
                    let found = match world.overlay.find(&key) {
                        Found::There(value) => Some(value),
                        Found::Gone => None,
                        Found::Below => world.below.get(&key),
                    };
                    prop_assert_eq!(found, truth.get(&key), "{:?}", key);
                }
                let waits: usize = world.waiting.iter().map(|(_, _, batch)| batch.bytes()).sum();
                prop_assert_eq!(world.overlay.bytes(), waits);
            }
            while !world.waiting.is_empty() {
                world.take(Step::Durable);
            }
            prop_assert!(world.overlay.rows.is_empty() && world.overlay.clears.is_empty());
        }
    }
}
