//! Where objects keep what must last: rows in a store, and what an object sees of them.
//!
//! `engine` says what a store must do; `memory` and `sqlite` are stores. `object` is the storage of one object on
//! any of them, with its `history`, its writes that are `pending` and its database in `sql`.
//!
//! **Invariant:** nothing above `engine` knows which store there is.

pub mod engine;
mod history;
pub mod memory;
pub mod object;
pub mod overlay;
mod pending;
pub mod readable;
pub mod record;
pub mod row;
pub mod sql;
pub mod sqlite;
#[cfg(test)]
mod suite;
pub mod value;

pub use object::StoredPages;
pub use pending::Span;
