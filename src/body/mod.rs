//! The body of a request or a response: bytes in memory, or a stream of them.
//!
//! **Invariant:** a body that was cut short ends in an error, never silently, and a body whose length is
//! known yields exactly that many bytes or an error.
//! **Invariant:** everything here is `Send`, needs no task and no runtime, and knows nothing of objects,
//! connections or the contract.

mod pipe;
mod streamed;
mod value;

pub use pipe::BodyWriter;
pub use value::Body;
