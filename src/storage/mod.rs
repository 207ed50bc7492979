//! Where objects keep what must last: rows in a store, and what an object sees of them.
//!
//! **Invariant:** nothing above `engine` knows which store there is.

pub mod engine;
mod history;
pub mod memory;
pub mod object;
mod pending;
pub mod record;
pub mod row;
pub mod sql;
pub mod value;

pub use pending::Span;
