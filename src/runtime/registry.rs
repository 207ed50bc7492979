//! The objects of one shard.
//!
//! **Invariant:** at most one container of a key is here, and only a container makes an activation.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::rc::Rc;

use super::container::{Container, Phase};
use super::shard::Shard;
use crate::id::ObjectId;

/// What an object is found by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The namespace's number.
    pub namespace: usize,
    /// The object's id.
    pub id: ObjectId,
}

/// One object of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its id.
    pub id: ObjectId,
    /// Its name, where it was reached by one.
    pub name: Option<String>,
    /// Whether anything of its own is stored.
    pub has_stored_data: bool,
    /// Whether it is in memory.
    pub in_memory: bool,
}

/// The objects of one shard, by namespace and id.
#[derive(Default)]
pub struct Registry {
    containers: RefCell<BTreeMap<Key, Rc<Container>>>,
}

impl Registry {
    /// Returns the container of `key`; makes one where there is none.
    pub fn container(&self, key: Key, shard: &Rc<Shard>) -> Rc<Container> {
        let mut containers = self.containers.borrow_mut();
        containers.entry(key).or_insert_with(|| Container::new(key, shard)).clone()
    }

    /// Returns the container of `key`, where there is one.
    pub fn known(&self, key: &Key) -> Option<Rc<Container>> {
        self.containers.borrow().get(key).cloned()
    }

    /// Returns whether the object of `key` is in memory, or hibernates.
    pub fn contains(&self, key: &Key) -> bool {
        let containers = self.containers.borrow();
        containers.get(key).is_some_and(is_alive)
    }

    /// Removes `container`, if it is the one that its key leads to.
    pub fn remove(&self, container: &Container) {
        let mut containers = self.containers.borrow_mut();
        let key = container.key();
        if containers.get(&key).is_some_and(|known| std::ptr::eq(Rc::as_ptr(known), container)) {
            containers.remove(&key);
        }
    }

    /// Removes `container` where no stub is bound to it, and no WebSocket is open.
    pub fn forget_unused(&self, container: &Rc<Container>) {
        // One reference is the registry's, one the caller's.
        if Rc::strong_count(container) <= 2
            && !container.has_waiting()
            && container.sockets().is_empty()
        {
            self.remove(container);
        }
    }

    /// Returns up to `limit` objects of a namespace that are in memory or hibernate, ordered by id, after
    /// `after`.
    pub fn list(&self, namespace: usize, after: Option<ObjectId>, limit: usize) -> Vec<Listed> {
        let first = Key { namespace, id: ObjectId::from_bytes([0; 32]) };
        let from = match after {
            Some(id) => Bound::Excluded(Key { namespace, id }),
            None => Bound::Included(first),
        };
        let to = Bound::Excluded(Key { namespace: namespace + 1, ..first });
        let containers = self.containers.borrow();
        let present = containers.range((from, to)).filter(|(_, entry)| is_alive(entry));
        let listed = present.map(|(key, container)| Listed {
            id: key.id,
            name: container.name().map(|name| name.to_string()),
            has_stored_data: false,
            in_memory: true,
        });
        listed.take(limit).collect()
    }

    /// Returns all containers at this moment.
    pub fn all(&self) -> Vec<Rc<Container>> {
        self.containers.borrow().values().cloned().collect()
    }
}

/// Returns whether the object is in memory, or hibernates.
fn is_alive(container: &Rc<Container>) -> bool {
    container.phase() != Phase::Absent || !container.sockets().is_empty()
}
