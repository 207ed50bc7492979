//! Brings what the logs hold into the files, behind the back of those who write.
//!
//! **Invariant:** it never holds up a commit: it only ever does what SQLite calls a passive checkpoint.
//!
//! A passive checkpoint leaves the log as long as it is while others go on writing. The thread that writes begins a
//! long log anew right after one was done: then all but what was written meanwhile is in the file, and synced.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use rusqlite::Connection;
use rusqlite::wal::CheckpointMode;

use super::health::Health;

/// A log of so many pages is brought into its file: 16 MiB.
pub(super) const LOG_PAGES: u32 = 2048;
/// A log that has so many pages when a checkpoint is asked for is begun anew after it: 32 MiB. What a log may take on
/// the disk in the end is twice that (`LOG_BYTES_KEPT` in `file.rs`), as long as nobody who reads holds on to it.
pub(super) const LOG_PAGES_LONG: u32 = 4096;

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
    /// The files whose last checkpoint was done, and whose writers do not know it yet.
    done: Vec<usize>,
    stop: bool,
}

impl Requests {
    /// Asks for a checkpoint of a file.
    pub fn want(&self, file: usize) {
        let mut state = self.lock();
        if !state.wanted.contains(&file) {
            // What was done before is long ago.
            state.done.retain(|done| *done != file);
            state.wanted.push(file);
            self.changed.notify_one();
        }
    }

    /// Returns whether a checkpoint of a file is asked for or under way.
    pub fn is_busy(&self, file: usize) -> bool {
        let state = self.lock();
        state.busy == Some(file) || state.wanted.contains(&file)
    }

    /// Returns whether the checkpoint of a file that was asked for last is done; once.
    pub fn take_done(&self, file: usize) -> bool {
        let mut state = self.lock();
        let before = state.done.len();
        state.done.retain(|done| *done != file);
        state.done.len() < before
    }

    fn done(&self, file: usize) {
        let mut state = self.lock();
        if !state.done.contains(&file) {
            state.done.push(file);
        }
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
pub(super) fn run(requests: &Arc<Requests>, files: &[(Connection, Arc<Health>)]) {
    while let Some(index) = requests.take() {
        let Some((connection, health)) = files.get(index) else { continue };
        // Only who syncs can be told that pages did not reach the disk, and SQLite does not where somebody writes
        // meanwhile. Then the writer would wait for all of it, when it begins the log anew.
        if health.checkpoint(connection, CheckpointMode::PASSIVE) && health.sync() {
            requests.done(index);
        }
    }
}
