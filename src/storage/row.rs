//! The rows that everything is stored in: which table, which object, which key.
//!
//! **Invariant:** a key's bytes order as the thing that it names does, so that a range of keys is a range of
//! bytes. `docs/storage-format.md` describes them; a change there is a new format.

use std::fmt;
use std::ops::Bound;

use crate::id::ObjectId;

/// Virtual shards: the unit in which objects are placed and owned. Their number never changes.
pub const VIRTUAL_SHARDS: u16 = 1024;

/// Returns the virtual shard of `id`. Ids are uniform: their first bytes are a hash or random.
pub fn virtual_shard(id: &ObjectId) -> u16 {
    let [high, low, ..] = *id.as_bytes();
    u16::from_be_bytes([high, low]) % VIRTUAL_SHARDS
}

/// The number that a store gives to a namespace, for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Space(pub u32);

/// One object, as rows name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// Its namespace.
    pub space: Space,
    /// Its id.
    pub id: ObjectId,
}

impl ObjectKey {
    /// The length of its bytes.
    pub const LEN: usize = 4 + ObjectId::LEN;

    /// Returns the virtual shard that it belongs to.
    pub fn shard(&self) -> u16 {
        virtual_shard(&self.id)
    }

    fn to_bytes(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(Self::LEN + 16);
        bytes.extend_from_slice(&self.space.0.to_be_bytes());
        bytes.extend_from_slice(self.id.as_bytes());
        bytes
    }

    /// Reads the object at the beginning of `bytes`, and returns what is behind it; none where there are too
    /// few bytes.
    pub fn split(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (space, rest) = bytes.split_first_chunk()?;
        let (id, rest) = rest.split_first_chunk()?;
        let space = Space(u32::from_be_bytes(*space));
        Some((Self { space, id: ObjectId::from_bytes(*id) }, rest))
    }
}

/// The tables of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// What there is to know of an object: its name, its alarm, whether it has data. Key: object.
    Object,
    /// Key-value data. Key: object, then the author's key.
    Value,
    /// The pages of an object's SQL database. Key: object, then the page's number.
    Page,
    /// When alarms are due, in order. Key: unix milliseconds, then object. The row of the object is the truth.
    Alarm,
    /// What rows were before they changed. Key: object, then the period, then the row.
    History,
}

impl Table {
    /// All tables.
    pub const ALL: [Self; 5] = [Self::Object, Self::Value, Self::Page, Self::Alarm, Self::History];

    /// Returns its name, as files and messages have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Object => "object",
            Self::Value => "value",
            Self::Page => "page",
            Self::Alarm => "alarm",
            Self::History => "history",
        }
    }
}

/// The key of one row.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    table: Table,
    bytes: Box<[u8]>,
}

impl Key {
    /// The row of an object.
    pub fn object(object: &ObjectKey) -> Self {
        Self::of(Table::Object, object.to_bytes())
    }

    /// A value of an object.
    pub fn value(object: &ObjectKey, key: &[u8]) -> Self {
        Self::below(Table::Value, object, key)
    }

    /// A page of an object's SQL database. Pages are numbered from 0.
    pub fn page(object: &ObjectKey, number: u32) -> Self {
        Self::below(Table::Page, object, &number.to_be_bytes())
    }

    /// An alarm of an object, due at `due_ms`.
    pub fn alarm(due_ms: u64, object: &ObjectKey) -> Self {
        let mut bytes = due_ms.to_be_bytes().to_vec();
        bytes.extend_from_slice(&object.to_bytes());
        Self::of(Table::Alarm, bytes)
    }

    /// What `row`, a value or a page of `object`, was before it changed in `period`.
    pub fn history(object: &ObjectKey, period: u64, row: &Self) -> Self {
        let mut rest = period.to_be_bytes().to_vec();
        rest.push(if row.table == Table::Page { 1 } else { 0 });
        rest.extend_from_slice(row.after_object());
        Self::below(Table::History, object, &rest)
    }

    fn below(table: Table, object: &ObjectKey, rest: &[u8]) -> Self {
        let mut bytes = object.to_bytes();
        bytes.extend_from_slice(rest);
        Self::of(table, bytes)
    }

    fn of(table: Table, bytes: Vec<u8>) -> Self {
        Self { table, bytes: bytes.into() }
    }

    /// Makes a key of what a store gave back, as it is.
    pub fn from_stored(table: Table, bytes: &[u8]) -> Self {
        Self { table, bytes: bytes.into() }
    }

    /// Returns its table.
    pub fn table(&self) -> Table {
        self.table
    }

    /// Returns its bytes within the table.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns the object that it is of; none where the bytes are damaged.
    pub fn object_key(&self) -> Option<ObjectKey> {
        let bytes = match self.table {
            Table::Alarm => self.bytes.get(8..)?,
            _ => &self.bytes[..],
        };
        ObjectKey::split(bytes).map(|(object, _)| object)
    }

    /// Returns what follows the object: an author's key, a page's number, a period and a row.
    pub fn after_object(&self) -> &[u8] {
        match self.table {
            Table::Object | Table::Alarm => &[],
            _ => self.bytes.get(ObjectKey::LEN..).unwrap_or_default(),
        }
    }

    /// Returns when the alarm that it names is due; none for another row.
    pub fn due_ms(&self) -> Option<u64> {
        let due = self.bytes.first_chunk().filter(|_| self.table == Table::Alarm)?;
        Some(u64::from_be_bytes(*due))
    }

    /// Returns the period and the row that a row of the history is about; none where it is none, or damaged.
    pub fn of_history(&self) -> Option<(u64, Self)> {
        let object = self.object_key().filter(|_| self.table == Table::History)?;
        let (period, rest) = self.after_object().split_first_chunk()?;
        let (kind, rest) = rest.split_first()?;
        let table = match kind {
            0 => Table::Value,
            1 => Table::Page,
            _ => return None,
        };
        Some((u64::from_be_bytes(*period), Self::below(table, &object, rest)))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.table.name(), self.bytes.escape_ascii())
    }
}

/// A range of keys of one table, by their bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRange {
    /// The table.
    pub table: Table,
    /// Where it begins.
    pub from: Bound<Vec<u8>>,
    /// Where it ends.
    pub to: Bound<Vec<u8>>,
}

impl KeyRange {
    /// All rows of `object` in `table`, which is not that of alarms.
    pub fn object(table: Table, object: &ObjectKey) -> Self {
        Self::prefix(table, &object.to_bytes())
    }

    /// The rows of `object` in `table` whose part after the object lies between `from` and `to`.
    pub fn within(table: Table, object: &ObjectKey, from: Bound<&[u8]>, to: Bound<&[u8]>) -> Self {
        let whole = Self::object(table, object);
        let below = |rest: &[u8]| [&object.to_bytes(), rest].concat();
        let from = match from {
            Bound::Unbounded => whole.from,
            bound => bound.map(below),
        };
        let to = match to {
            Bound::Unbounded => whole.to,
            bound => bound.map(below),
        };
        Self { table, from, to }
    }

    /// The rows of all objects of a namespace, after the object `after` if there is one.
    pub fn objects(space: Space, after: Option<ObjectId>) -> Self {
        let whole = Self::prefix(Table::Object, &space.0.to_be_bytes());
        let after = after.map(|id| Bound::Excluded(ObjectKey { space, id }.to_bytes()));
        Self { from: after.unwrap_or(whole.from), ..whole }
    }

    /// The alarms after `after`, or all, that are due at `to_ms` or before.
    pub fn alarms(after: Option<&Key>, to_ms: u64) -> Self {
        let from = match after {
            Some(key) => Bound::Excluded(key.bytes().to_vec()),
            None => Bound::Unbounded,
        };
        let to = match to_ms.checked_add(1) {
            Some(end) => Bound::Excluded(end.to_be_bytes().to_vec()),
            None => Bound::Unbounded,
        };
        Self { table: Table::Alarm, from, to }
    }

    /// All rows whose key begins with `prefix`.
    fn prefix(table: Table, prefix: &[u8]) -> Self {
        let to = match successor(prefix) {
            Some(end) => Bound::Excluded(end),
            None => Bound::Unbounded,
        };
        Self { table, from: Bound::Included(prefix.to_vec()), to }
    }

    /// Returns whether `key` lies in it.
    pub fn contains(&self, key: &Key) -> bool {
        let after = match &self.from {
            Bound::Included(from) => key.bytes() >= from.as_slice(),
            Bound::Excluded(from) => key.bytes() > from.as_slice(),
            Bound::Unbounded => true,
        };
        let before = match &self.to {
            Bound::Included(to) => key.bytes() <= to.as_slice(),
            Bound::Excluded(to) => key.bytes() < to.as_slice(),
            Bound::Unbounded => true,
        };
        key.table() == self.table && after && before
    }

    /// Returns whether it can contain no key, because it ends where it begins or before.
    pub fn is_empty(&self) -> bool {
        let (Bound::Included(from) | Bound::Excluded(from)) = &self.from else { return false };
        match &self.to {
            Bound::Included(to) => {
                from > to || (from == to && self.from != Bound::Included(to.clone()))
            }
            Bound::Excluded(to) => from >= to,
            Bound::Unbounded => false,
        }
    }

    /// Returns its bounds among the keys of all tables.
    pub fn bounds(&self) -> (Bound<Key>, Bound<Key>) {
        let key = |bytes: &Vec<u8>| Key::from_stored(self.table, bytes);
        let from = match &self.from {
            Bound::Unbounded => Bound::Included(Key::from_stored(self.table, &[])),
            bound => bound.as_ref().map(key),
        };
        let to = match &self.to {
            Bound::Unbounded => match Table::ALL.into_iter().find(|table| *table > self.table) {
                Some(next) => Bound::Excluded(Key::from_stored(next, &[])),
                None => Bound::Unbounded,
            },
            bound => bound.as_ref().map(key),
        };
        (from, to)
    }

    /// Returns the object that all of its rows are of, where its bounds say that they are all of one.
    pub fn object_key(&self) -> Option<ObjectKey> {
        let (Bound::Included(from) | Bound::Excluded(from)) = &self.from else { return None };
        let (object, _) = ObjectKey::split(from).filter(|_| self.table != Table::Alarm)?;
        let prefix = object.to_bytes();
        let ends_within = match &self.to {
            Bound::Included(to) => to.starts_with(&prefix),
            Bound::Excluded(to) => {
                to.starts_with(&prefix) || Some(to) == successor(&prefix).as_ref()
            }
            Bound::Unbounded => successor(&prefix).is_none(),
        };
        ends_within.then_some(object)
    }
}

/// Returns the first bytes behind all that begin with `prefix`; none where there are no such bytes.
pub fn successor(prefix: &[u8]) -> Option<Vec<u8>> {
    let keep = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut end = prefix.get(..=keep)?.to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    Some(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The range after an object began like one of that object, and was read as one.
    #[test]
    fn a_range_over_many_objects_is_of_none() {
        let id = ObjectId::from_bytes([7; 32]);
        let object = ObjectKey { space: Space(3), id };
        assert_eq!(KeyRange::object(Table::Value, &object).object_key(), Some(object));
        let within =
            KeyRange::within(Table::Value, &object, Bound::Excluded(b"a"), Bound::Included(b"b"));
        assert_eq!(within.object_key(), Some(object));
        assert_eq!(KeyRange::objects(Space(3), Some(id)).object_key(), None);
        assert_eq!(KeyRange::objects(Space(3), None).object_key(), None);
        assert_eq!(KeyRange::alarms(None, 9).object_key(), None);
    }
}
