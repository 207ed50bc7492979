//! Brings what the logs hold into the files, behind the back of those who write.
//!
//! **Invariant:** it never holds up a commit: it only ever does what SQLite calls a passive checkpoint.
//!
//! A passive checkpoint leaves the log as long as it is while others go on writing. Beyond [`LOG_PAGES_MAX`] the
//! thread that writes finishes what is left of it and begins the log anew; by then little is left.

use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use rusqlite::Connection;
use rusqlite::wal::CheckpointMode;

/// A log of so many pages is brought into its file: 16 MiB.
pub(super) const LOG_PAGES: u32 = 2048;
/// A log of so many pages is begun anew as soon as can be: 64 MiB.
pub(super) const LOG_PAGES_MAX: u32 = 8192;

/// What the threads of the files ask of the one that checkpoints.
#[derive(Default)]
pub(super) struct Requests {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// The files to do, each once.
    wanted: Vec<usize>,
    /// The file at work.
    busy: Option<usize>,
    stop: bool,
}

impl Requests {
    /// Asks for a checkpoint of a file.
    pub fn want(&self, file: usize) {
        let mut state = self.lock();
        if !state.wanted.contains(&file) {
            state.wanted.push(file);
            self.changed.notify_one();
        }
    }

    /// Returns whether a checkpoint of a file is asked for or under way.
    pub fn is_busy(&self, file: usize) -> bool {
        let state = self.lock();
        state.busy == Some(file) || state.wanted.contains(&file)
    }

    /// Has the thread end.
    pub fn stop(&self) {
        self.lock().stop = true;
        self.changed.notify_one();
    }

    fn take(&self) -> Option<usize> {
        let mut state = self.lock();
        state.busy = None;
        loop {
            if state.stop {
                return None;
            }
            if let Some(file) = state.wanted.pop() {
                state.busy = Some(file);
                return Some(file);
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Does what is asked for until it is told to stop.
pub(super) fn run(requests: &Arc<Requests>, files: &[(PathBuf, Connection)]) {
    while let Some(index) = requests.take() {
        let Some((path, connection)) = files.get(index) else { continue };
        // A checkpoint that fails has changed nothing that counts: the log stays, and with it every row.
        if let Err(error) = connection.wal_checkpoint_v2(None::<&str>, CheckpointMode::PASSIVE) {
            tracing::warn!(file = %path.display(), %error, "the log could not be brought into the file");
        }
    }
}
