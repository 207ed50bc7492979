//! Whether what a log holds still reaches its file.
//!
//! A kernel that could not write pages says so once to whoever syncs, and forgets them: a later sync succeeds
//! although they are gone. So after a sync of a file has failed, nothing but its log has what was written, and the
//! log is not touched again by this process. The next start reads all of it, writes the pages anew and syncs them.
//!
//! **Invariant:** once a checkpoint of a file has failed, this process makes no other, and neither writes to the
//! file nor reads from it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rusqlite::wal::CheckpointMode;
use rusqlite::{Connection, ErrorCode};

use super::fault::of_io;
use crate::error::{Error, Result};

/// A file of an open store, as far as it can be trusted.
pub(super) struct Health {
    path: PathBuf,
    /// The file itself, to sync it. Open as long as any connection is: closing it would take away their locks.
    file: File,
    /// Why the file can't be used any more.
    lost: OnceLock<Error>,
}

impl Health {
    /// Opens the file, before any connection to it. Drop it after all of them.
    pub fn open(path: &Path) -> Result<Arc<Self>> {
        let file = File::open(path).map_err(of_io("open", path))?;
        Ok(Arc::new(Self { path: path.to_owned(), file, lost: OnceLock::new() }))
    }

    /// Returns where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Checks that the file can be used.
    ///
    /// # Errors
    /// *failed* once a checkpoint has failed; the message says what to do.
    pub fn check(&self) -> Result<()> {
        self.lost.get().map_or(Ok(()), |error| Err(error.clone()))
    }

    /// Brings what the log holds into the file, as far as `mode` goes beside those who read and write; returns whether
    /// that was done. Where it can be tried again, nothing has happened.
    pub fn checkpoint(&self, connection: &Connection, mode: CheckpointMode) -> bool {
        if self.check().is_err() {
            return false;
        }
        match connection.wal_checkpoint_v2(None::<&str>, mode) {
            Ok(_) => true,
            Err(error) if is_harmless(&error) => {
                tracing::info!(file = %self.path.display(), %error, "the log stays as it is for now");
                false
            }
            Err(error) => {
                self.lose(&error);
                false
            }
        }
    }

    /// Syncs the file, which a passive checkpoint beside a writer does not; returns whether that was done.
    pub fn sync(&self) -> bool {
        if self.check().is_err() {
            return false;
        }
        match self.file.sync_data() {
            Ok(()) => true,
            Err(error) => {
                self.lose(&error);
                false
            }
        }
    }

    /// Notes that the file can't be used any more.
    pub fn lose(&self, error: &dyn std::fmt::Display) {
        let path = self.path.display();
        let error = Error::failed(format!(
            "I/O error on {path}: its log could not be brought into it ({error}), and only the log has all that \
             was written; check the disk and the kernel's log, then restart the server, and whatever else has \
             the file open"
        ));
        tracing::error!(file = %path, "{}", error.message);
        // The first reason stays.
        drop(self.lost.set(error));
    }
}

/// Returns whether a checkpoint that failed has left everything as it was: others were in the way, or a page was
/// refused at once, as there is no room for it. It can be tried again.
fn is_harmless(error: &rusqlite::Error) -> bool {
    use ErrorCode::{DatabaseBusy, DatabaseLocked, DiskFull, OutOfMemory};
    let code = error.sqlite_error_code();
    code.is_some_and(|code| matches!(code, DatabaseBusy | DatabaseLocked | DiskFull | OutOfMemory))
}
