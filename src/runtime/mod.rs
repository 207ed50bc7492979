//! Runs objects: places ids on shards, holds at most one activation of an id, delivers events in order.

mod activation;
mod alarms;
mod container;
mod errand;
mod event;
mod inbox;
mod inspection;
mod interior;
mod journal;
mod lane;
mod listing;
mod namespaces;
mod node;
mod placement;
mod registry;
mod running;
mod shard;
mod sockets;
mod storages;
mod wheel;

pub use container::NAME_BYTES_KEPT;
pub use event::{AlarmReply, Answer, Event, Reply, TypedReply};
pub use inspection::{
    Details, Happened, OpenSocket, Rows, Stored, Table, Values, Wanted, change, live, look, recent,
    rows, troubles, values,
};
pub use journal::{EventKind, Recent, Tally, Trouble, latency_bounds_us};
pub use lane::{Address, Lane, RemoteLane};
pub use listing::{Page, gather};
pub use namespaces::{NamespaceConfig, Namespaces};
pub use node::{Node, StorageConfig};
pub use placement::Placement;
pub use registry::{Key, Listed};
pub use shard::{Doors, Shard};
