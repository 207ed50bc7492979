//! What lets events into an object, and what the object says out of it: machines that do no I/O.
//!
//! **Invariant:** nothing here reads a clock, starts a task or waits: who asks is told, and acts.

mod input;
mod outbox;
mod output;

pub use input::{InputGate, Owner, SectionId};
pub use outbox::{Outbox, Verdict};
pub use output::{OutputGate, Sent};
