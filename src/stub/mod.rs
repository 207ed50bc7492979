//! References to objects, as their users hold them: client, namespace, stub.
//!
//! **Invariant:** a stub that has failed with a reason that breaks it fails with that reason for ever.

mod address;
mod client;
mod namespace;
mod ordered;
mod parts;
mod reference;
mod retry;
pub mod sockets;
pub mod transfer;
pub mod wire;

pub use address::Address;
pub use client::{Client, Link};
pub use namespace::{Namespace, NamespaceInfo, ObjectInfo, Page, Target};
pub use ordered::capability;
pub use reference::{Fetch, Opening, Referent, Stub};
pub use retry::Retry;
