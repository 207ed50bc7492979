//! The network under capnp-rpc: one connection's bytes, bounds and deadlines.
//!
//! capnp-rpc brings order, pipelining and breakage; a [`Network`] brings what its own two-party network
//! lacks: replies of one turn leave in one write, large messages are never copied, and a peer can take
//! neither memory nor time without bound.
//!
//! **Invariant:** capnp-rpc sees only calls that were admitted; every other call is answered here.
//! **Invariant:** a connection dies once, with one reason, which its [`Traffic`] keeps.
//! **Invariant:** nothing here knows about objects, namespaces or the contract.

mod account;
mod flow;
mod frame;
mod gate;
mod input;
mod link;
mod network;
mod output;
pub mod socket;
mod traffic;
mod watch;
mod writer;

#[cfg(test)]
mod tests;

pub use account::Account;
pub use network::Network;
pub use traffic::Traffic;
