//! A safe way to give SQLite a file system of your own.
//!
//! Implement [`Vfs`] and [`File`], call [`register`] once, and open connections that name it.
//!
//! **Invariant:** no panic unwinds into SQLite: the call fails with an I/O error, and every later call on that
//! file does too.
//! **Invariant:** a [`File`] is entered by one call at a time.
//! **Invariant:** in a [`Vfs`] there is no shared memory, and a write-ahead log can't be opened: a database in WAL
//! mode is refused.
//!
//! [`sums`] is another file system, ready for use: SQLite's own, with a checksum in each page.
//!
//! What is unsafe here stands in `calls`, `file` and `sums`; who uses this crate needs none of it.
//!
//! ```
//! use stubborn_vfs::{Code, File, Open, Vfs, register};
//!
//! struct Zeros;
//! impl File for Zeros {
//!     fn read(&mut self, _: u64, _: &mut [u8]) -> Result<usize, Code> { Ok(0) }
//!     fn write(&mut self, _: u64, _: &[u8]) -> Result<(), Code> { Err(Code::FULL) }
//!     fn truncate(&mut self, _: u64) -> Result<(), Code> { Ok(()) }
//!     fn size(&mut self) -> Result<u64, Code> { Ok(0) }
//! }
//! struct Empty;
//! impl Vfs for Empty {
//!     type File = Zeros;
//!     fn open(&self, _: &Open<'_>) -> Result<Zeros, Code> { Ok(Zeros) }
//! }
//! assert!(register("empty", Empty).is_ok());
//! assert!(register("empty", Empty).is_err());
//! ```

#![expect(unsafe_code, reason = "SQLite's interface is C")]

mod calls;
mod code;
mod file;
pub mod sums;

use std::ffi::{CString, c_int};
use std::fmt;
use std::sync::{Mutex, PoisonError};

use libsqlite3_sys as ffi;

pub use code::Code;

/// A file system.
///
/// SQLite calls it from every thread that has a connection on it.
pub trait Vfs: Send + Sync + 'static {
    /// Its files.
    type File: File;

    /// Opens a file, or makes it where `request` says so.
    ///
    /// # Errors
    /// What SQLite then fails with; [`Code::CANTOPEN`] where there is no such file.
    fn open(&self, request: &Open<'_>) -> Result<Self::File, Code>;

    /// Removes a file. SQLite removes journals only. By default there is none.
    ///
    /// # Errors
    /// [`Code::IOERR_DELETE_NOENT`] where there is no such file.
    fn delete(&self, name: &str) -> Result<(), Code> {
        let _ = name;
        Err(Code::IOERR_DELETE_NOENT)
    }

    /// Returns whether there is a file of that name. SQLite looks for journals that a crash left behind. By
    /// default there is none.
    ///
    /// # Errors
    /// What SQLite then fails with.
    fn exists(&self, name: &str) -> Result<bool, Code> {
        let _ = name;
        Ok(false)
    }
}

/// An open file. It is closed by being dropped.
///
/// It is [`Send`] because a connection is: whoever moves a connection moves its files.
///
/// A file must not use the connection that it belongs to. SQLite is not made for that, and may crash: it is in
/// the middle of a statement when it calls here.
pub trait File: Send + 'static {
    /// Reads from `offset` on, and returns how many bytes there were. The rest of `buffer` must be left as it
    /// is: zeros.
    ///
    /// # Errors
    /// What the statement then fails with.
    fn read(&mut self, offset: u64, buffer: &mut [u8]) -> Result<usize, Code>;

    /// Writes all of `bytes` at `offset`, making the file longer where need be.
    ///
    /// # Errors
    /// What the statement then fails with: [`Code::FULL`], for example.
    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Code>;

    /// Makes the file that many bytes long.
    ///
    /// # Errors
    /// What the statement then fails with.
    fn truncate(&mut self, bytes: u64) -> Result<(), Code>;

    /// Returns how many bytes the file has.
    ///
    /// # Errors
    /// What the statement then fails with.
    fn size(&mut self) -> Result<u64, Code>;

    /// Makes durable what was written. Does nothing by default.
    ///
    /// # Errors
    /// What the statement then fails with.
    fn sync(&mut self) -> Result<(), Code> {
        Ok(())
    }

    /// Takes the lock up to `level`. Does nothing by default, which is right where no other connection opens
    /// the same file.
    ///
    /// # Errors
    /// [`Code::BUSY`] where another connection is in the way.
    fn lock(&mut self, level: Lock) -> Result<(), Code> {
        let _ = level;
        Ok(())
    }

    /// Lets the lock down to `level`. Does nothing by default.
    ///
    /// # Errors
    /// What the statement then fails with.
    fn unlock(&mut self, level: Lock) -> Result<(), Code> {
        let _ = level;
        Ok(())
    }

    /// Returns whether any connection has the lock at [`Lock::Reserved`] or above. False by default.
    ///
    /// # Errors
    /// What the statement then fails with.
    fn is_reserved(&mut self) -> Result<bool, Code> {
        Ok(false)
    }
}

/// A file that SQLite asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Open<'a> {
    /// Its name, as the connection was opened with; none for a temporary file.
    pub name: Option<&'a str>,
    /// What it is for.
    pub kind: Kind,
    /// Whether it is made where it isn't there.
    pub create: bool,
    /// Whether it must not be there yet.
    pub exclusive: bool,
    /// Whether it will not be written.
    pub read_only: bool,
    /// Whether it goes away when it is closed.
    pub delete_on_close: bool,
}

/// What a file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// A database.
    Main,
    /// The rollback journal of a database.
    Journal,
    /// The journal of a transaction over several databases.
    SuperJournal,
    /// Something temporary: a database, a journal, a sorter's.
    Temporary,
}

/// How much of the file a connection has, from none to all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lock {
    /// Nothing.
    None,
    /// Reads it.
    Shared,
    /// Reads it, and will write.
    Reserved,
    /// Waits for the readers to leave.
    Pending,
    /// Writes it.
    Exclusive,
}

/// Registers `vfs` under `name`, for the process and for good: it is never dropped.
///
/// Randomness, sleep and the time come from the file system that is SQLite's default at this moment.
///
/// # Errors
/// Where the name has a zero byte or is taken, or SQLite refuses.
pub fn register<V: Vfs>(name: &str, vfs: V) -> Result<(), RegisterError> {
    install(name, |name, default| calls::table(name, default, vfs))
}

/// Registers the table that `make` returns, given its name and the table of SQLite's default.
fn install(
    name: &str,
    make: impl FnOnce(CString, *mut ffi::sqlite3_vfs) -> ffi::sqlite3_vfs,
) -> Result<(), RegisterError> {
    static REGISTERING: Mutex<()> = Mutex::new(());
    let _one_at_a_time = REGISTERING.lock().unwrap_or_else(PoisonError::into_inner);
    let name = CString::new(name).map_err(|_| RegisterError::Name)?;
    // SAFETY: the name ends with a zero byte; SQLite initializes itself.
    if !unsafe { ffi::sqlite3_vfs_find(name.as_ptr()) }.is_null() {
        return Err(RegisterError::Taken);
    }
    // SAFETY: a null name asks for the default.
    let default = unsafe { ffi::sqlite3_vfs_find(std::ptr::null()) };
    if default.is_null() {
        return Err(RegisterError::Sqlite(Code::IOERR));
    }
    let leaked = Box::leak(Box::new(make(name, default)));
    // SAFETY: the table, its name and its data live for good, and its functions keep SQLite's contract.
    match unsafe { ffi::sqlite3_vfs_register(leaked, NOT_DEFAULT) } {
        ffi::SQLITE_OK => Ok(()),
        code => Err(RegisterError::Sqlite(Code::from_raw(code))),
    }
}

const NOT_DEFAULT: c_int = 0;

/// Why a file system was not registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RegisterError {
    /// The name has a zero byte.
    Name,
    /// There is a file system of that name.
    Taken,
    /// SQLite refuses.
    Sqlite(Code),
}

impl fmt::Display for RegisterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name => f.write_str("the name of a file system has a zero byte"),
            Self::Taken => f.write_str("a file system of that name is registered already"),
            Self::Sqlite(code) => write!(f, "sqlite does not take the file system: {code}"),
        }
    }
}

impl std::error::Error for RegisterError {}
