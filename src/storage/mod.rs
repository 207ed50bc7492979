//! Where objects keep what must last: rows in a store, and what an object sees of them.
//!
//! **Invariant:** nothing above `engine` knows which store there is.

pub mod engine;
pub mod memory;
pub mod overlay;
pub mod row;
pub mod sqlite;

#[cfg(test)]
mod suite;
