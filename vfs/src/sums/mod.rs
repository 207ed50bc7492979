//! SQLite's own files, each page with a checksum: what a disk gives back is what was written, or an error.
//!
//! Open connections that name [`file_system`]. It is the default file system of the process, in between: names,
//! locks and shared memory are the default's. Only pages are looked at: one that is written into a database gets the
//! id of its file and a checksum in its last [`RESERVED_BYTES`]; one that is read without them fails with
//! `SQLITE_IOERR_DATA`, and [`take_damage`] tells which it was. One that is read from a write-ahead log is compared
//! with the checksum that SQLite gave it there.
//!
//! A file has checksums from its first page on, or never. For one that has none yet, reserve the bytes
//! (`SQLITE_FCNTL_RESERVE_BYTES`) and say `PRAGMA page_sums = '0123456789abcdef'`, its id, before the first
//! write. That pragma without a value returns the id of a file; `plain` where its pages have no checksums, which
//! other programs made; `empty` where it has no pages. `plain` may be said of an empty file, too: it is for one
//! that another is copied into.
//!
//! **Invariant:** a page of a file with checksums that is not as it was written, lies where it was not written,
//! is of another file, or is not there as a whole, is never handed to SQLite.
//! **Invariant:** a page gets its checksum as it goes into the file, so a log holds what SQLite wrote there.
//! **Invariant:** a file never goes from one kind to the other.
//!
//! Other programs may read such files, and must not write them: pages that they write have no checksum.

mod damage;
mod file;
mod hash;
mod log;
mod page;
mod system;

pub use damage::{Damage, Wrong, take_damage};
pub use page::RESERVED_BYTES;
pub use system::file_system;
