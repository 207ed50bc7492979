//! SQLite's codes for what can fail in a file system.
//!
//! **Invariant:** a [`Code`] is never `SQLITE_OK`.

use std::ffi::c_int;
use std::fmt;

use libsqlite3_sys as ffi;

/// Why a file system, or a file, failed: one of SQLite's result codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code(c_int);

impl Code {
    /// Another connection is in the way.
    pub const BUSY: Self = Self(ffi::SQLITE_BUSY);
    /// There is no such file, or it can't be opened.
    pub const CANTOPEN: Self = Self(ffi::SQLITE_CANTOPEN);
    /// What the file holds makes no sense.
    pub const CORRUPT: Self = Self(ffi::SQLITE_CORRUPT);
    /// There is no more room.
    pub const FULL: Self = Self(ffi::SQLITE_FULL);
    /// An I/O error of no special kind.
    pub const IOERR: Self = Self(ffi::SQLITE_IOERR);
    /// A file that was to be removed isn't there.
    pub const IOERR_DELETE_NOENT: Self = Self(ffi::SQLITE_IOERR_DELETE_NOENT);
    /// The size could not be told.
    pub const IOERR_FSTAT: Self = Self(ffi::SQLITE_IOERR_FSTAT);
    /// What was written could not be made durable.
    pub const IOERR_FSYNC: Self = Self(ffi::SQLITE_IOERR_FSYNC);
    /// A read failed.
    pub const IOERR_READ: Self = Self(ffi::SQLITE_IOERR_READ);
    /// The size could not be changed.
    pub const IOERR_TRUNCATE: Self = Self(ffi::SQLITE_IOERR_TRUNCATE);
    /// A write failed.
    pub const IOERR_WRITE: Self = Self(ffi::SQLITE_IOERR_WRITE);
    /// The file can't be written.
    pub const READONLY: Self = Self(ffi::SQLITE_READONLY);

    /// Takes one of SQLite's codes, extended or not. `SQLITE_OK` is no failure: it becomes
    /// [`IOERR`](Self::IOERR).
    pub fn from_raw(code: i32) -> Self {
        if code == ffi::SQLITE_OK { Self::IOERR } else { Self(code) }
    }

    /// Returns SQLite's number.
    pub fn raw(self) -> i32 {
        self.0
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (sqlite code {})", ffi::code_to_str(self.0), self.0)
    }
}

impl std::error::Error for Code {}

#[test]
fn a_code_is_a_failure() {
    assert_eq!(Code::from_raw(0), Code::IOERR);
    assert_eq!(Code::from_raw(Code::FULL.raw()), Code::FULL);
    assert!(Code::FULL.to_string().contains("13"));
}
