//! What an object has written and not handed to its store yet: one implicit transaction, and those inside it.
//!
//! **Invariant:** reads see the innermost transaction first; rolling one back leaves what was there before it
//! began.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Bound;

use bytes::Bytes;

use super::engine::Order;
use super::record::Alarm;

/// Writes that wait, a layer for each open transaction. The lowest is the implicit one.
#[derive(Debug, Default)]
pub struct Pending {
    lowest: Layer,
    nested: Vec<Layer>,
}

/// The writes of one transaction.
#[derive(Debug, Default)]
pub struct Layer {
    /// What keys hold from now on; none: nothing.
    pub values: BTreeMap<Vec<u8>, Option<Bytes>>,
    /// Whether everything that was stored before goes first.
    pub cleared: bool,
    /// The alarm from now on, if it was set or cleared.
    pub alarm: Option<Option<Alarm>>,
    /// Whether what is said later must wait for these writes.
    pub confirmed: bool,
    bytes: usize,
}

/// The range of keys of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// Where it begins.
    pub from: Bound<Vec<u8>>,
    /// Where it ends.
    pub to: Bound<Vec<u8>>,
}

impl Pending {
    /// Returns how many transactions are open inside the implicit one.
    pub fn depth(&self) -> usize {
        self.nested.len()
    }

    /// Returns whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.nested.is_empty() && self.lowest.is_empty()
    }

    /// Returns about how many bytes wait.
    pub fn bytes(&self) -> usize {
        self.layers().map(|layer| layer.bytes).sum()
    }

    fn layers(&self) -> impl DoubleEndedIterator<Item = &Layer> {
        std::iter::once(&self.lowest).chain(&self.nested)
    }

    /// Returns the innermost transaction.
    pub fn top(&mut self) -> &mut Layer {
        self.nested.last_mut().unwrap_or(&mut self.lowest)
    }

    /// Begins a transaction inside the present one.
    pub fn begin(&mut self) {
        self.nested.push(Layer::default());
    }

    /// Makes the writes of the innermost transaction those of the one around it.
    pub fn commit(&mut self) {
        let Some(layer) = self.nested.pop() else { return };
        self.top().absorb(layer);
    }

    /// Forgets the writes of the innermost transaction.
    pub fn roll_back(&mut self) {
        self.nested.pop();
    }

    /// Takes the writes of the implicit transaction.
    pub fn take(&mut self) -> Layer {
        debug_assert!(self.nested.is_empty(), "a transaction is handed over as a whole");
        std::mem::take(&mut self.lowest)
    }

    /// Returns what `key` holds, as far as it is decided here: `Some(None)` where it holds nothing.
    pub fn get(&self, key: &[u8]) -> Option<Option<Bytes>> {
        for layer in self.layers().rev() {
            if let Some(value) = layer.values.get(key) {
                return Some(value.clone());
            }
            if layer.cleared {
                return Some(None);
            }
        }
        None
    }

    /// Returns whether what the store holds counts for nothing.
    pub fn is_cleared(&self) -> bool {
        self.layers().any(|layer| layer.cleared)
    }

    /// Returns the alarm, if it was changed here.
    pub fn alarm(&self) -> Option<Option<Alarm>> {
        self.layers().rev().find_map(|layer| layer.alarm)
    }

    /// Returns what is decided here of the keys of `span`, in order.
    pub fn within(&self, span: &Span, order: Order) -> Vec<(Vec<u8>, Option<Bytes>)> {
        if span.is_empty() {
            return Vec::new();
        }
        let mut merged = BTreeMap::new();
        for layer in self.layers() {
            if layer.cleared {
                merged.clear();
            }
            let values = layer.values.range((span.from.clone(), span.to.clone()));
            merged.extend(values.map(|(key, value)| (key.clone(), value.clone())));
        }
        match order {
            Order::Ascending => merged.into_iter().collect(),
            Order::Descending => merged.into_iter().rev().collect(),
        }
    }
}

impl Layer {
    fn is_empty(&self) -> bool {
        self.values.is_empty() && !self.cleared && self.alarm.is_none()
    }

    /// Has `key` hold `value`, or nothing.
    pub fn set(&mut self, key: Vec<u8>, value: Option<Bytes>) {
        /// What a write costs beside its bytes.
        const OVERHEAD_BYTES: usize = 128;
        let length = |value: &Option<Bytes>| value.as_ref().map_or(0, Bytes::len);
        self.bytes += length(&value);
        match self.values.entry(key) {
            Entry::Occupied(mut entry) => {
                self.bytes -= length(entry.get());
                entry.insert(value);
            }
            Entry::Vacant(entry) => {
                self.bytes += OVERHEAD_BYTES + entry.key().len();
                entry.insert(value);
            }
        }
    }

    /// Has everything go, the alarm included.
    pub fn clear(&mut self) {
        let confirmed = self.confirmed;
        *self = Self { cleared: true, alarm: Some(None), confirmed, ..Self::default() };
    }

    fn absorb(&mut self, later: Self) {
        if later.cleared {
            self.clear();
        }
        for (key, value) in later.values {
            self.set(key, value);
        }
        self.alarm = later.alarm.or(self.alarm);
        self.confirmed |= later.confirmed;
    }
}

impl Span {
    /// Returns whether it can contain no key.
    pub fn is_empty(&self) -> bool {
        match (&self.from, &self.to) {
            (Bound::Included(from), Bound::Included(to)) => from > to,
            (
                Bound::Included(from) | Bound::Excluded(from),
                Bound::Included(to) | Bound::Excluded(to),
            ) => from >= to,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> Option<Bytes> {
        Some(Bytes::copy_from_slice(text.as_bytes()))
    }

    fn all(pending: &Pending) -> Vec<(Vec<u8>, Option<Bytes>)> {
        let span = Span { from: Bound::Unbounded, to: Bound::Unbounded };
        pending.within(&span, Order::Ascending)
    }

    #[test]
    fn what_was_written_last_is_read_and_the_rest_is_left_to_the_store() {
        let mut pending = Pending::default();
        assert!(pending.is_empty());
        pending.top().set(b"a".to_vec(), value("1"));
        pending.top().set(b"b".to_vec(), None);
        assert_eq!(pending.get(b"a"), Some(value("1")));
        assert_eq!(pending.get(b"b"), Some(None));
        assert_eq!(pending.get(b"c"), None);
    }

    #[test]
    fn a_transaction_that_is_rolled_back_leaves_nothing_and_one_that_commits_leaves_all() {
        let mut pending = Pending::default();
        pending.top().set(b"a".to_vec(), value("1"));
        pending.begin();
        pending.top().set(b"a".to_vec(), value("2"));
        pending.top().alarm = Some(Some(Alarm::at(7)));
        pending.begin();
        pending.top().clear();
        pending.top().set(b"c".to_vec(), value("3"));
        assert_eq!((pending.get(b"a"), pending.get(b"z")), (Some(None), Some(None)));
        assert_eq!(pending.alarm(), Some(None));
        pending.roll_back();
        assert_eq!((pending.get(b"a"), pending.get(b"c")), (Some(value("2")), None));
        assert_eq!(pending.alarm(), Some(Some(Alarm::at(7))));
        pending.commit();
        assert_eq!(all(&pending), [(b"a".to_vec(), value("2"))]);
        assert_eq!(pending.depth(), 0);
        assert_eq!(pending.alarm(), Some(Some(Alarm::at(7))));
    }

    #[test]
    fn clearing_hides_what_was_written_before_and_not_what_comes_after() {
        let mut pending = Pending::default();
        pending.top().set(b"a".to_vec(), value("1"));
        pending.top().clear();
        pending.top().set(b"b".to_vec(), value("2"));
        assert!(pending.is_cleared());
        assert_eq!(all(&pending), [(b"b".to_vec(), value("2"))]);
        pending.begin();
        pending.top().clear();
        assert!(all(&pending).is_empty());
        pending.commit();
        assert_eq!((pending.get(b"b"), pending.is_cleared()), (Some(None), true));
    }

    #[test]
    fn bytes_are_those_of_what_is_there() {
        let mut pending = Pending::default();
        pending.top().set(b"a".to_vec(), value("12345"));
        let one = pending.bytes();
        pending.top().set(b"a".to_vec(), value("1"));
        assert_eq!(pending.bytes(), one - 4);
        pending.top().clear();
        assert_eq!(pending.bytes(), 0);
    }
}
