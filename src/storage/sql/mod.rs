//! An object's own SQL database: SQLite, whose pages are rows of the store.
//!
//! A [`Database`](database::Database) lives as long as its object is in memory. SQLite reads and writes pages
//! through a file system of ours (`file`): what it writes stays in memory until the layer above takes it with
//! [`take_dirty`](database::Database::take_dirty) and puts it into its batch, beside the object's other rows. So
//! SQL is in the same transactions, and as durable, as everything else that the object stores.
//!
//! **Invariant:** pages leave here only as they are after a whole statement, or a whole outermost savepoint.
//! **Invariant (broken for good):** after its pages could not be read, or made no sense, a database fails
//! everything with the same error, and gives no pages away.
//! **Invariant:** an SQL error changes nothing but what the failed statement has done, which is undone.

pub mod bindings;
pub mod database;
mod decode;
mod explain;
mod file;
mod guard;
pub mod limits;
mod math;
pub mod pages;
pub mod row;
mod split;
pub mod value;

#[cfg(test)]
mod tests;
