//! What SQLite and the operating system report, as errors that name the file and say what to do.
//!
//! **Invariant:** no error of theirs leaves the store without the file it is about.

use std::io;
use std::path::Path;

use rusqlite::{ErrorCode, ffi};
use stubborn_vfs::sums::{Damage, take_damage};

use crate::error::Error;

/// Returns what `error` means for a file of a store.
pub(super) fn of_sqlite(file: &Path, error: &rusqlite::Error) -> Error {
    let name = file.display();
    if is_of_a_page(error) {
        return match page(error) {
            Some(page) => damaged(file_of(&page, file), &page),
            None => damaged(file, "a page does not match its checksum"),
        };
    }
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => Error::failed(format!(
            "the disk is full: {name} can't grow; free space there, then try again"
        ))
        .with_retryable(true),
        Some(ErrorCode::SystemIoFailure) => Error::failed(format!(
            "I/O error on {name} ({error}); check the disk and the kernel's log, then try again"
        ))
        .with_retryable(true),
        Some(ErrorCode::DatabaseCorrupt) => match file.metadata() {
            // It has less pages than it says that it has, or SQLite has no words for what is wrong.
            Ok(found) => damaged(file, format_args!("{error} (it ends at offset {})", found.len())),
            Err(_) => damaged(file, error),
        },
        Some(ErrorCode::NotADatabase) => damaged(file, format_args!("{error} (offset 0)")),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Error::failed(format!(
            "{name} is locked by another program; try again when that is done"
        ))
        .with_retryable(true),
        Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied | ErrorCode::ReadOnly) => {
            Error::failed(format!(
                "{name} can't be opened or written ({error}); check its permissions, and those of its directory"
            ))
        }
        Some(ErrorCode::OutOfMemory) => {
            Error::failed(format!("there is not enough memory for {name}")).with_retryable(true)
        }
        _ => Error::failed(format!("{name}: {error}")),
    }
}

/// Returns which page it was, where one is not as it was written. Ask once, on the thread that read it.
pub(super) fn page(error: &rusqlite::Error) -> Option<Damage> {
    take_damage().filter(|_| is_of_a_page(error))
}

/// Returns which file a page is of: `file` itself, or its log; where it is copied, it may be the copy as well.
pub(super) fn file_of<'a>(page: &'a Damage, file: &'a Path) -> &'a Path {
    let found = Path::new(&page.file);
    if found.file_name() == file.file_name() { file } else { found }
}

fn is_of_a_page(error: &rusqlite::Error) -> bool {
    error.sqlite_error().is_some_and(|error| error.extended_code == ffi::SQLITE_IOERR_DATA)
}

/// Returns whether a change failed for what it is or for the pages that it is about, so that others may do better;
/// and not for the state of the file or the disk as a whole.
pub(super) fn is_of_a_batch(error: &rusqlite::Error) -> bool {
    use ErrorCode::{
        CannotOpen, DatabaseBusy, DatabaseLocked, DiskFull, FileLockingProtocolFailed,
        NotADatabase, OutOfMemory, PermissionDenied, ReadOnly, SystemIoFailure,
    };
    let Some(known) = error.sqlite_error() else { return true };
    match known.code {
        SystemIoFailure => matches!(
            known.extended_code,
            ffi::SQLITE_IOERR_READ
                | ffi::SQLITE_IOERR_SHORT_READ
                | ffi::SQLITE_IOERR_DATA
                | ffi::SQLITE_IOERR_CORRUPTFS
        ),
        CannotOpen
        | DatabaseBusy
        | DatabaseLocked
        | DiskFull
        | FileLockingProtocolFailed
        | NotADatabase
        | OutOfMemory
        | PermissionDenied
        | ReadOnly => false,
        _ => true,
    }
}

/// Says that a file holds what can't be there.
pub(super) fn damaged(file: &Path, what: impl std::fmt::Display) -> Error {
    let name = file.display();
    Error::failed(format!(
        "{name} is damaged: {what}; `stubborn verify` shows how much, a backup brings it back"
    ))
}

/// Returns what an error of the operating system means for `path`; `doing` completes "can't …".
pub(super) fn of_io<'a>(doing: &'a str, path: &'a Path) -> impl FnOnce(io::Error) -> Error + 'a {
    move |error| {
        let path = path.display();
        let advice = match error.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                ": check who may write there"
            }
            io::ErrorKind::StorageFull => ": free space there",
            _ => "",
        };
        Error::failed(format!("can't {doing} {path}: {error}{advice}"))
    }
}

/// Attaches the file to a result of SQLite.
pub(super) trait Context<T> {
    /// Makes the error one about `file`.
    fn about(self, file: &Path) -> crate::error::Result<T>;
}

impl<T> Context<T> for rusqlite::Result<T> {
    fn about(self, file: &Path) -> crate::error::Result<T> {
        self.map_err(|error| of_sqlite(file, &error))
    }
}
