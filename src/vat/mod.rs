//! The network under capnp-rpc: one connection's bytes, bounds and deadlines.
//!
//! capnp-rpc brings order, pipelining and breakage; a [`Network`] brings what its own two-party network
//! lacks: replies of one turn leave in one write, large messages are never copied, and a peer can take
//! neither memory nor time without bound.
//!
//! **Invariant:** capnp-rpc sees only calls that were admitted; every other call is answered here.
//! **Invariant:** a call that the peer cancels is answered all the same, where whoever answers it asked for
//! its [`Caller`], or is behind a [`guard`]: then neither side keeps anything of it.
//! **Invariant:** a connection dies once, with one reason, which its [`Traffic`] keeps.
//! **Invariant:** nothing here knows about objects, namespaces or the contract.

mod account;
mod call;
mod flow;
mod frame;
mod gate;
mod guard;
mod input;
mod link;
mod network;
mod output;
mod settled;
pub mod socket;
mod traffic;
mod watch;
mod writer;

#[cfg(test)]
mod tests;

pub use account::Account;
pub use call::Caller;
pub use guard::guard;
pub use network::Network;
pub use settled::{Callee, settled};
pub use traffic::Traffic;
