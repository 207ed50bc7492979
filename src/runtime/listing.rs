//! Lists the objects of a namespace across all shards, for every door that shows them.
//!
//! **Invariant:** a page is ordered by id, and the next one begins after its last: objects that are there all
//! the while are listed exactly once.

use std::rc::Rc;

use futures::channel::oneshot;

use super::registry::Listed;
use super::shard::Shard;
use crate::error::{Error, Result};
use crate::id::ObjectId;

/// Asks every shard for its objects of a namespace, after `after`, and merges them. One more than `limit`
/// tells that there is more.
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
) -> Result<Vec<Listed>> {
    let asked: Vec<_> = (0..shard.placement().shards())
        .map(|index| {
            let (reply, answer) = oneshot::channel();
            shard.run_on(index, move |shard| {
                let _ = reply.send(shard.list(namespace, after, limit + 1));
            });
            answer
        })
        .collect();
    let mut objects = Vec::new();
    for answer in asked {
        let stopped = |_| Error::disconnected("the server has stopped");
        objects.append(&mut answer.await.map_err(stopped)??);
    }
    objects.sort_unstable_by_key(|object| object.id);
    objects.truncate(limit + 1);
    Ok(objects)
}
