//! What a connection guarantees, over pipes in memory and with paused time.
//!
//! **Invariant:** no test waits for real time or opens a port.

mod admission;
mod calls;
mod cancel;
mod deadlines;
mod hostile;
mod support;
