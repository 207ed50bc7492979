//! The classes of the demonstration, as an author would write them: a server without a configuration
//! serves these.
//!
//! **Invariant:** they use what every author has, and nothing of the runtime's.

mod alarms;
mod chat;
mod classes;
mod counter;
mod kv;
mod probe;
mod query;
mod reflect;
mod room;
mod sql;
mod stored;
mod streams;
#[cfg(test)]
mod tests;
mod typed;

pub use classes::{DEMO, DemoClass, expose, namespaces};
pub use counter::Counter;
pub use kv::Kv;
pub use probe::Probe;
pub use room::Room;
