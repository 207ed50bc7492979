//! Has something done on the thread that it belongs to, and waits for the answer.
//!
//! **Invariant:** whoever waits hears that the server has stopped, where nobody answers any more.

use std::rc::Rc;

use futures::channel::oneshot;

use super::registry::Key;
use super::shard::Shard;
use crate::error::{Error, Result};

/// Has `ask` run on the thread of the object of `key`.
pub(super) async fn ask<T: Send + 'static>(
    shard: &Rc<Shard>,
    key: Key,
    ask: impl FnOnce(&Rc<Shard>) -> Result<T> + Send + 'static,
) -> Result<T> {
    let (reply, answer) = oneshot::channel();
    shard.run_on(shard.placement().shard(&key.id), move |shard| drop(reply.send(ask(shard))));
    answer.await.map_err(|_| stopped())?
}

/// Has `ask` run on all threads at once.
pub(super) async fn ask_all<T: Send + 'static>(
    shard: &Rc<Shard>,
    ask: impl Fn(&Rc<Shard>) -> T + Clone + Send + 'static,
) -> Result<Vec<T>> {
    let asked = (0..shard.placement().shards()).map(|index| {
        let ((reply, answer), ask) = (oneshot::channel(), ask.clone());
        shard.run_on(index, move |shard| drop(reply.send(ask(shard))));
        answer
    });
    futures::future::try_join_all(asked.collect::<Vec<_>>()).await.map_err(|_| stopped())
}

fn stopped() -> Error {
    Error::disconnected("the server has stopped")
}
