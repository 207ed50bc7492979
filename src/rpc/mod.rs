//! The Cap'n Proto door: serves the contract to connections and to the node's own objects.
//!
//! **Invariant:** a call is put in line for its object inside [`ClientHook::call`], before anything is
//! awaited. capnp-rpc's own local clients begin a call when its promise is first polled, which a cancelled
//! neighbour can reorder; the hooks here do not.
//! **Invariant:** what leads to a stub is answered inside [`ClientHook::call`] too, so that no call waits for
//! a stub inside of capnp-rpc.
//! **Invariant:** every capability here asks for its [`Caller`](crate::vat::Caller): a call that the peer
//! cancels leaves nothing behind.
//!
//! [`ClientHook::call`]: capnp::private::capability::ClientHook::call

mod bootstrap;
mod connection;
mod directory;
mod forward;
mod hook;
mod namespace;
mod pair;
mod prompt;

pub use connection::RpcDoor;
pub use directory::RpcDoors;
