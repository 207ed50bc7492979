//! Lists the objects of a namespace across all shards, for every door that shows them.
//!
//! **Invariant:** a page is ordered by id, and the next one begins after its last: objects that are there all
//! the while are listed exactly once.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::rc::Rc;

use super::errand::ask_all;
use super::registry::Listed;
use super::shard::Shard;
use crate::error::Result;
use crate::id::ObjectId;

/// Objects in the order of their ids.
#[derive(Debug)]
pub struct Page {
    /// At most as many as were asked for.
    pub objects: Vec<Listed>,
    /// Behind which the next page begins; none where this is the last.
    pub next: Option<ObjectId>,
}

/// Lists the objects of a namespace, stored or in memory on any shard, after `after`.
///
/// # Errors
/// *disconnected* where the server stops; *failed* where the store can't be read.
///
/// # Cancel safety
/// Dropping the future changes nothing.
pub async fn gather(
    shard: &Rc<Shard>,
    namespace: usize,
    limit: usize,
    after: Option<ObjectId>,
) -> Result<Page> {
    let list = move |shard: &Rc<Shard>| shard.registry().list(namespace, after, limit + 1);
    let in_memory = ask_all(shard, list).await?.into_iter().flatten();
    let mut objects: BTreeMap<_, _> = in_memory.map(|object| (object.id, object)).collect();
    // Read last: what is stored and no longer in memory by then is durable, and seen from every thread.
    for stored in shard.list_stored(namespace, after, limit + 1)? {
        match objects.entry(stored.id) {
            Entry::Vacant(entry) => drop(entry.insert(stored)),
            Entry::Occupied(mut entry) => {
                let known = entry.get_mut();
                known.has_stored_data = stored.has_stored_data;
                known.name = stored.name.or(known.name.take());
            }
        }
    }
    let more = objects.len() > limit;
    let objects: Vec<_> = objects.into_values().take(limit).collect();
    let next = objects.last().filter(|_| more).map(|last| last.id);
    Ok(Page { objects, next })
}
