//! WebSockets as values: messages, close frames, and the two ends of one inside this process.
//!
//! **Invariant:** an end is `Send`: the two ends may live on different threads.
//! **Invariant:** nothing here does I/O, knows objects, or reads a clock.

mod close;
mod direction;
mod end;
mod message;
mod slot;

pub use close::{CloseFrame, Closed, REASON_BYTES_MAX};
pub use direction::{Ending, Taken};
pub(crate) use end::gone;
pub use end::{Reader, WebSocket, Writer};
pub use message::{Message, Text};
pub use slot::{attach, detach, is_attached};
