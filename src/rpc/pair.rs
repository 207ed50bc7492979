//! Connections between the shards of a node, for stubs whose calls may carry references.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use super::connection;
use crate::limits::Limits;
use crate::runtime::Shard;
use crate::stub::{Client, Target};
use crate::stubborn_capnp::stub;

/// One connection to each other shard, made when first needed and kept.
#[derive(Default)]
pub struct Pairs {
    clients: RefCell<HashMap<usize, Client>>,
}

/// Bytes in transit between two shards.
const DUPLEX_BYTES: usize = 256 << 10;

impl Pairs {
    /// Returns the stub of `target` in `namespace`, which lives on shard `to`, at once.
    pub fn stub(
        &self,
        shard: &Rc<Shard>,
        to: usize,
        namespace: &str,
        target: &Target,
    ) -> stub::Client {
        let mut clients = self.clients.borrow_mut();
        // Whatever ended a connection between threads, the next stub gets another.
        clients.retain(|_, client| client.is_open());
        let client = clients.entry(to).or_insert_with(|| {
            let (near, far) = tokio::io::duplex(DUPLEX_BYTES);
            let limits = limits_between_shards(shard.limits());
            let far_limits = limits.clone();
            shard.run_on(to, move |shard| {
                let (reader, writer) = tokio::io::split(far);
                connection::serve_shard(shard, reader, writer, far_limits);
            });
            let (reader, writer) = tokio::io::split(near);
            Client::within(reader, writer, limits)
        });
        client.namespace(namespace).stub(target).cast()
    }
}

/// What crosses was admitted by a connection already, and both ends are this process: nothing is refused
/// here for its number, and nobody vanishes.
fn limits_between_shards(limits: &Limits) -> Limits {
    const NEVER: Duration = Duration::from_secs(365 * 24 * 3600);
    Limits {
        message_bytes_max: limits.message_bytes_max.saturating_mul(2),
        connection_calls_max: usize::MAX,
        connection_queued_bytes_max: usize::MAX,
        connection_output_bytes_max: usize::MAX,
        connection_stubs_max: usize::MAX,
        handshake_timeout: NEVER,
        message_timeout: NEVER,
        idle_timeout: None,
        peer_timeout: NEVER,
        ..limits.clone()
    }
}
