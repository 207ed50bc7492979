//! What lets events into an object, and what the object says out of it: machines that do no I/O.
//!
//! `input` and `output` decide; `entrance` and `outbox` are the thin shells by which others share them.
//!
//! **Invariant:** nothing here reads a clock, starts a task or does I/O.

mod body;
mod entrance;
mod input;
mod outbox;
mod output;
mod socket;

pub use body::leaving;
pub use entrance::{Entrance, NOBODY, Section};
pub use input::{InputGate, Owner, SectionId};
pub use outbox::{Outbox, Verdict};
pub use output::{OutputGate, Sent};
pub use socket::leaving_socket;
