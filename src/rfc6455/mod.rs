//! WebSockets as RFC 6455 has them on a stream of bytes.
//!
//! **Invariant:** nothing here knows HTTP servers, Cap'n Proto or objects: an end of a WebSocket comes in, and is
//! driven over a stream that somebody else upgraded.

mod handshake;
mod partial;
mod pump;

pub use handshake::{accept_key, asks, is_token_of};
pub use partial::Budget;
pub use pump::pump;
