//! Random rows, changes and ranges, few enough to meet each other, and the simplest store there is.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;
use proptest::prelude::*;
use proptest::sample::select;

use crate::id::ObjectId;
use crate::storage::engine::{Change, Order};
use crate::storage::row::{Key, KeyRange, ObjectKey, Space, Table};

/// What a property test runs. A failure prints its input; `PROPTEST_RNG_SEED` repeats a run.
pub(crate) fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

/// The simplest store there is.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Model(BTreeMap<Key, Bytes>);

impl Model {
    pub(crate) fn get(&self, key: &Key) -> Option<Bytes> {
        self.0.get(key).cloned()
    }

    pub(crate) fn apply(&mut self, changes: &[Change]) {
        for change in changes {
            match change {
                Change::Put(key, value) => drop(self.0.insert(key.clone(), value.clone())),
                Change::Delete(key) => drop(self.0.remove(key)),
                Change::Clear(range) => self.0.retain(|key, _| !range.contains(key)),
            }
        }
    }

    pub(crate) fn scan(&self, range: &KeyRange, order: Order) -> Vec<(Key, Bytes)> {
        let rows = self.0.iter().filter(|(key, _)| range.contains(key));
        let mut rows: Vec<_> = rows.map(|(key, value)| (key.clone(), value.clone())).collect();
        if order == Order::Descending {
            rows.reverse();
        }
        rows
    }
}

/// One of three objects: of two namespaces, and of odd and even virtual shards.
pub(crate) fn object(number: u64) -> ObjectKey {
    let (space, first) = match number % 3 {
        0 => (0, 0),
        1 => (0, 1),
        _ => (1, 255),
    };
    ObjectKey { space: Space(space), id: ObjectId::from_bytes([first; 32]) }
}

/// All keys that occur.
pub(crate) fn keys() -> Vec<Key> {
    (0..3).flat_map(|number| keys_of(object(number))).collect()
}

fn keys_of(object: ObjectKey) -> Vec<Key> {
    let mut keys = vec![Key::object(&object)];
    keys.extend(RESTS.iter().map(|rest| Key::value(&object, rest)));
    keys.extend([0, 1, 256, u32::MAX].map(|number| Key::page(&object, number)));
    keys.extend([0, 7, u64::MAX].map(|due| Key::alarm(due, &object)));
    keys.push(Key::history(&object, 3, &Key::value(&object, b"a")));
    keys
}

/// Changes of one object.
pub(crate) fn changes(object: ObjectKey) -> impl Strategy<Value = Vec<Change>> {
    let put = (select(keys_of(object)), any::<u16>());
    let put = put.prop_map(|(key, value)| Change::Put(key, value.to_string().into()));
    let change = prop_oneof![
        6 => put,
        2 => select(keys_of(object)).prop_map(Change::Delete),
        1 => within(object).prop_map(Change::Clear),
    ];
    prop::collection::vec(change, 0..6)
}

/// Ranges of all kinds.
pub(crate) fn range() -> impl Strategy<Value = KeyRange> {
    let after = prop::option::of((0..3_u64).prop_map(|number| object(number).id));
    let objects = (0..2_u32, after);
    let alarm = (select(vec![0, 7, u64::MAX]), 0..3_u64);
    let alarm = alarm.prop_map(|(due, number)| Key::alarm(due, &object(number)));
    let alarms = (prop::option::of(alarm), select(vec![0, 6, 7, u64::MAX]));
    prop_oneof![
        4 => (0..3_u64).prop_flat_map(|number| within(object(number))),
        1 => objects.prop_map(|(space, after)| KeyRange::objects(Space(space), after)),
        1 => alarms.prop_map(|(after, to_ms)| KeyRange::alarms(after.as_ref(), to_ms)),
        1 => select(Table::ALL.to_vec()).prop_map(|table| {
            KeyRange { table, from: Bound::Unbounded, to: Bound::Unbounded }
        }),
    ]
}

fn within(object: ObjectKey) -> impl Strategy<Value = KeyRange> {
    let table =
        select(vec![Table::Object, Table::Value, Table::Value, Table::Page, Table::History]);
    (table, bound(), bound()).prop_map(move |(table, from, to)| {
        KeyRange::within(
            table,
            &object,
            from.as_ref().map(|from| &from[..]),
            to.as_ref().map(|to| &to[..]),
        )
    })
}

fn bound() -> impl Strategy<Value = Bound<Vec<u8>>> {
    let rest = select(RESTS.to_vec()).prop_map(<[u8]>::to_vec);
    prop_oneof![
        Just(Bound::Unbounded),
        rest.clone().prop_map(Bound::Included),
        rest.prop_map(Bound::Excluded),
    ]
}

pub(crate) fn order() -> impl Strategy<Value = Order> {
    select(vec![Order::Ascending, Order::Descending])
}

/// What follows the object in keys: neighbours, and those that are easily taken for the end of something.
const RESTS: &[&[u8]] =
    &[b"", b"\0", b"\0\0", b"a", b"a\0", b"a\0\0", b"ab", b"b", b"\xff", b"\xff\0", b"\xff\xff"];
