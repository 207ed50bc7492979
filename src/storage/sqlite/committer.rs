//! The thread that writes one file.
//!
//! **Invariant:** a batch is told to be durable after the transaction that holds it was synced, and only then.
//! **Invariant:** whose lease is current is decided here, in the same order in which batches are written.
//! **Invariant:** a batch that was told to have failed is not found by a later start, unless the disk itself
//! has failed for good (see [`Committer::seal`]).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rusqlite::wal::CheckpointMode;
use rusqlite::{Connection, OptionalExtension as _};

use super::checkpoint::{LOG_PAGES, LOG_PAGES_MAX, Requests};
use super::fault::{self, Context as _};
use super::file;
use super::queue::{self, Control, Group, Queue, Submission};
use super::rows;
use crate::error::{Error, Result};
use crate::storage::engine::{Lease, fenced, session_failed};
use crate::storage::row::{Space, VIRTUAL_SHARDS};

/// Writes one file.
pub(super) struct Committer {
    index: usize,
    path: PathBuf,
    connection: Connection,
    queue: Arc<Queue>,
    checkpoints: Arc<Requests>,
    /// The epochs of all virtual shards, as the file has them.
    epochs: Vec<u64>,
    /// How many pages the log has, as SQLite says after each commit.
    log_pages: Arc<AtomicU32>,
    /// How many it had when a checkpoint was last asked for.
    asked_at: u32,
    /// How many failed transactions were sealed.
    seals: u64,
}

impl Committer {
    /// Makes the committer of an open file.
    pub fn new(
        index: usize,
        path: PathBuf,
        mut connection: Connection,
        queue: Arc<Queue>,
        checkpoints: Arc<Requests>,
    ) -> Result<Self> {
        let epochs = read_epochs(&connection, &path)?;
        let log_pages = Arc::new(AtomicU32::new(0));
        watch_log(&mut connection, &log_pages).about(&path)?;
        let (asked_at, seals) = Default::default();
        Ok(Self { index, path, connection, queue, checkpoints, epochs, log_pages, asked_at, seals })
    }

    /// Writes what comes until the queue is closed and empty; then tidies the file.
    pub fn run(mut self) {
        let ended = Ended(self.queue.clone());
        while let Some(group) = self.queue.take() {
            match group {
                Group::Batches(batches) => self.commit(batches),
                Group::Control(control) => self.control(control),
            }
            self.tend_log();
        }
        drop(ended);
        let Self { connection, path, .. } = self;
        let settled = file::settle(&connection, &path);
        if let Err(error) = settled.and_then(|()| file::close(connection, &path)) {
            tracing::warn!(%error, "the store was closed, but not tidied; the next start does it");
        }
    }

    /// Writes batches as one transaction, and tells what became of each.
    fn commit(&mut self, mut group: Vec<Submission>) {
        for submission in &mut group {
            if let Some(error) = self.refusal(submission) {
                submission.refuse(error);
            }
        }
        let mut written = group.iter().filter(|submission| !submission.is_refused());
        let alone = written.clone().count() == 1;
        let outcome = if written.clone().all(|submission| submission.batch.is_empty()) {
            Ok(())
        } else {
            let mut changes = written.by_ref().flat_map(|submission| submission.batch.changes());
            self.transaction(|connection| {
                changes.try_for_each(|change| rows::write(connection, change))
            })
        };
        if let Err(error) = outcome {
            if fault::is_of_a_statement(&error) && !alone {
                // One of them can't be written: the others must not suffer from it.
                group.into_iter().for_each(|submission| self.commit(vec![submission]));
                return;
            }
            let error = fault::of_sqlite(&self.path, &error);
            let written = group.iter_mut().filter(|submission| !submission.is_refused());
            written.for_each(|submission| submission.refuse(error.clone()));
        }
        queue::tell(group);
    }

    /// Returns why a batch is not written.
    fn refusal(&self, submission: &Submission) -> Option<Error> {
        if submission.is_refused() {
            return None;
        }
        if submission.session.has_failed() {
            return Some(session_failed());
        }
        let lease = submission.session.lease;
        let epoch = self.epoch(lease.shard);
        (epoch != lease.epoch).then(|| fenced(lease, epoch))
    }

    /// Does something in a transaction, and has it synced.
    fn transaction<T>(
        &mut self,
        act: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        let run = |sql| self.connection.prepare_cached(sql)?.execute([]).map(drop);
        let result = run("BEGIN IMMEDIATE").and_then(|()| act(&self.connection));
        match result {
            Ok(result) => match run("COMMIT") {
                Ok(()) => Ok(result),
                Err(error) => {
                    self.roll_back();
                    self.seal();
                    Err(error)
                }
            },
            Err(error) => {
                self.roll_back();
                Err(error)
            }
        }
    }

    fn roll_back(&mut self) {
        if !self.connection.is_autocommit()
            && let Err(error) = self.connection.execute_batch("ROLLBACK")
        {
            tracing::error!(file = %self.path.display(), %error, "a transaction could not be rolled back");
            // The connection is of no use. Its log is not touched by closing it, as others have it open.
            match self.reopen() {
                Ok(connection) => self.connection = connection,
                Err(error) => {
                    tracing::error!(%error, "nothing can be written until this is mended")
                }
            }
        }
    }

    fn reopen(&self) -> Result<Connection> {
        let mut connection = file::open_writer(&self.path)?;
        watch_log(&mut connection, &self.log_pages).about(&self.path)?;
        Ok(connection)
    }

    /// Makes sure that a transaction whose commit failed is not found by the next start.
    ///
    /// Where the sync is what failed, the log may hold the whole transaction: SQLite does not count it, but
    /// recovery after a crash would. The next transaction overwrites it, as it begins where the last one that
    /// counts ended, and each frame's checksum covers all before it, so that no rest of the old one passes. A
    /// transaction is therefore written at once, before anybody is told of the failure. If it can't be synced
    /// either, it still has taken the place of the old one for whoever reads the log through the kernel: a crash
    /// of the process leaves nothing behind, and only a power cut while the disk fails might.
    ///
    /// Writing the log again after a failed sync is safe, whatever the kernel has dropped: every byte behind the
    /// last transaction that counts is written anew, and what is before it was synced before.
    fn seal(&mut self) {
        self.seals += 1;
        let seals = self.seals.to_be_bytes();
        let write = || {
            self.connection.execute_batch("BEGIN IMMEDIATE")?;
            self.connection.execute("REPLACE INTO meta VALUES ('seals', ?1)", [seals])?;
            self.connection.execute_batch("COMMIT")
        };
        if let Err(error) = write() {
            tracing::error!(file = %self.path.display(), %error, "a failed commit could not be sealed");
            self.roll_back();
        }
    }

    fn control(&mut self, control: Control) {
        // Whoever asked has gone away if it does not hear the answer.
        match control {
            Control::Acquire { shards, reply } => drop(reply.send(self.acquire(&shards))),
            Control::Space { fingerprint, name, reply } => {
                drop(reply.send(self.space(fingerprint, &name)));
            }
        }
    }

    fn acquire(&mut self, shards: &[u16]) -> Result<Vec<Lease>> {
        let mut epochs = self.epochs.clone();
        let mut leases = Vec::with_capacity(shards.len());
        for shard in shards {
            let epoch = epochs
                .get_mut(usize::from(*shard))
                .ok_or_else(|| Error::failed(format!("there is no virtual shard {shard}")))?;
            *epoch += 1;
            leases.push(Lease { shard: *shard, epoch: *epoch });
        }
        let write = |connection: &Connection| {
            let sql = "REPLACE INTO shard (shard, epoch) VALUES (?1, ?2)";
            let mut statement = connection.prepare_cached(sql)?;
            for Lease { shard, epoch } in &leases {
                statement.execute((shard, epoch.cast_signed()))?;
            }
            Ok(())
        };
        self.transaction(write).map_err(|error| fault::of_sqlite(&self.path, &error))?;
        self.epochs = epochs;
        Ok(leases)
    }

    fn space(&mut self, fingerprint: [u8; 16], name: &str) -> Result<Space> {
        let write = |connection: &Connection| {
            let known = "SELECT number FROM space WHERE fingerprint = ?1";
            let known: Option<u32> =
                connection.query_row(known, [fingerprint], |row| row.get(0)).optional()?;
            let next = "SELECT coalesce(max(number) + 1, 0) FROM space";
            let number = match known {
                Some(number) => number,
                None => connection.query_row(next, [], |row| row.get(0))?,
            };
            let put = "REPLACE INTO space (number, fingerprint, name) VALUES (?1, ?2, ?3)";
            connection.execute(put, (number, fingerprint, name))?;
            Ok(Space(number))
        };
        self.transaction(write).map_err(|error| fault::of_sqlite(&self.path, &error))
    }

    fn epoch(&self, shard: u16) -> u64 {
        self.epochs.get(usize::from(shard)).copied().unwrap_or_default()
    }

    /// Has a long log brought into the file, and begins a very long one anew.
    fn tend_log(&mut self) {
        let pages = self.log_pages.load(Ordering::Relaxed);
        if pages < self.asked_at {
            self.asked_at = 0; // the log has begun anew
        }
        if pages - self.asked_at < LOG_PAGES || self.checkpoints.is_busy(self.index) {
            return;
        }
        if pages >= LOG_PAGES_MAX && self.asked_at > 0 {
            // What is left to do is what was written since the last checkpoint began. Readers of old states
            // make it fail, without a wait: then it is tried again when the log has grown.
            let done = self.connection.busy_timeout(std::time::Duration::ZERO).and_then(|()| {
                self.connection.wal_checkpoint_v2(None::<&str>, CheckpointMode::RESTART)
            });
            if let Err(error) = done {
                tracing::debug!(file = %self.path.display(), pages, %error, "the log stays long");
            }
            if let Err(error) = self.connection.busy_timeout(file::BUSY_TIMEOUT) {
                tracing::debug!(%error, "the time to wait for others could not be set");
            }
        }
        self.checkpoints.want(self.index);
        self.asked_at = pages;
    }
}

/// Has SQLite note after each commit how long the log is.
fn watch_log(connection: &mut Connection, log_pages: &Arc<AtomicU32>) -> rusqlite::Result<()> {
    let log_pages = log_pages.clone();
    connection.wal_hook(Some(move |_: &mut _, pages: std::ffi::c_int| {
        log_pages.store(u32::try_from(pages).unwrap_or_default(), Ordering::Relaxed);
        Ok(())
    }))
}

fn read_epochs(connection: &Connection, path: &Path) -> Result<Vec<u64>> {
    let mut epochs = vec![0; usize::from(VIRTUAL_SHARDS)];
    let mut statement = connection.prepare("SELECT shard, epoch FROM shard").about(path)?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).about(path)?;
    for row in rows {
        let (shard, epoch): (i64, i64) = row.about(path)?;
        let slot = usize::try_from(shard).ok().and_then(|shard| epochs.get_mut(shard));
        let slot = slot.zip(u64::try_from(epoch).ok());
        let Some((slot, epoch)) = slot else {
            let what =
                format_args!("its table of virtual shards has number {shard}, epoch {epoch}");
            return Err(fault::damaged(path, what));
        };
        *slot = epoch;
    }
    Ok(epochs)
}

/// Ends a queue when its thread ends, however it does.
struct Ended(Arc<Queue>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.end();
    }
}
