//! A store on disk: a directory of one SQLite file, or a few, which the threads of a process share.
//!
//! Each file has one thread that writes it: it takes all batches that wait, writes them as one transaction and
//! syncs once for all of them. Readers have connections of their own. `docs/storage-format.md` describes the
//! files.
//!
//! **Invariant:** one process serves a directory at a time: it holds the lock.
//! **Invariant:** only the thread of a file writes to it, so its batches, and the changes of who owns what,
//! have one order.
//! **Invariant:** nothing outside knows that it is SQLite.

mod checkpoint;
mod committer;
mod copy;
mod directory;
mod fault;
mod file;
mod health;
mod meta;
mod pace;
mod queue;
mod read_only;
mod reader;
mod rows;
mod server;
mod store;
mod sum;
mod verify;

pub use copy::{backup, restore};
pub use file::PAGE_BYTES;
pub use read_only::{ReadOnly, SpaceName};
pub use server::Sqlite;
pub use verify::{Damage, verify};

#[cfg(test)]
mod tests;
