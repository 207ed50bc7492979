//! The thread that writes one file.
//!
//! **Invariant:** a batch is told to be durable after the transaction that holds it was synced, and only then.
//! **Invariant:** whose lease is current is decided here, in the same order in which batches are written.
//! **Invariant:** a batch that was told to have failed is not found by a later start, unless the disk itself
//! has failed for good (see [`Committer::seal`]).

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rusqlite::wal::CheckpointMode;
use rusqlite::{Connection, OptionalExtension as _};

use super::checkpoint::{LOG_PAGES, LOG_PAGES_LONG, Requests};
use super::fault::{self, Context as _};
use super::file;
use super::health::Health;
use super::pace::Pace;
use super::queue::{self, Control, Group, Queue, Submission};
use super::rows;
use crate::clock::Clock;
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
    health: Arc<Health>,
    /// The epochs of all virtual shards, as the file has them.
    epochs: Vec<u64>,
    /// Changes when another process has written the file; none where the epochs have to be read again anyway.
    version: Option<u32>,
    /// How many pages the log has, as SQLite says after each commit.
    log_pages: Arc<AtomicU32>,
    /// How many it had when a checkpoint was last asked for.
    asked_at: u32,
    /// How many failed transactions were sealed.
    seals: u64,
    /// Whether it waits for more before it writes.
    pace: Pace,
}

/// Why a transaction was not written.
enum Failure {
    /// The batch at this place can't be written. Others may be.
    Batch(usize, Error),
    /// Nothing can be written.
    All(Error),
}

impl Committer {
    /// Makes the committer of an open file.
    pub fn new(
        index: usize,
        mut connection: Connection,
        queue: Arc<Queue>,
        checkpoints: Arc<Requests>,
        health: Arc<Health>,
    ) -> Result<Self> {
        let path = health.path().to_owned();
        // What is written in between is read again.
        let version = Some(version(&connection).about(&path)?);
        let epochs = read_epochs(&connection, &path)?;
        let log_pages = Arc::new(AtomicU32::new(0));
        watch_log(&mut connection, &log_pages).about(&path)?;
        let (asked_at, seals, pace) = Default::default();
        Ok(Self {
            index,
            path,
            connection,
            queue,
            checkpoints,
            health,
            epochs,
            version,
            log_pages,
            asked_at,
            seals,
            pace,
        })
    }

    /// Writes what comes until the queue is closed and empty; then tidies the file.
    pub fn run(mut self) {
        let ended = Ended(self.queue.clone());
        let mut works = VecDeque::new();
        while self.queue.take(&mut works, &mut self.pace) {
            while let Some(group) = Group::of(&mut works) {
                match group {
                    Group::Batches(batches) => self.commit(batches),
                    Group::Control(control) => self.control(control),
                }
                self.tend_log();
            }
        }
        drop(ended);
        // A file that is lost keeps its log, for the next start.
        let settled = self.health.check().and_then(|()| {
            let settled = file::settle(&self.connection, &self.path);
            // Whoever closes the file later must not try it again.
            settled.inspect_err(|error| self.health.lose(error))
        });
        if let Err(error) = settled.and_then(|()| file::close(self.connection, &self.path)) {
            tracing::warn!(%error, "the store was closed, but not tidied; the next start does it");
        }
    }

    /// Writes batches, and tells what became of each.
    fn commit(&mut self, mut group: Vec<Submission>) {
        self.refuse_some(&mut group);
        self.write(&mut group);
        self.pace.written(group.len());
        queue::tell(group);
    }

    /// Refuses what must not be written: batches of sessions that have failed or have lost their lease.
    fn refuse_some(&self, group: &mut [Submission]) {
        for submission in group {
            if let Some(error) = self.refusal(submission) {
                submission.refuse(error);
            }
        }
    }

    /// Returns why a batch must not be written.
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

    /// Writes all that is not refused, as one transaction. What can't be written is refused, and must not make the
    /// others fail: they are written without it.
    fn write(&mut self, mut group: &mut [Submission]) {
        for _ in 0..ROUNDS_MAX {
            match self.write_at_once(group) {
                Ok(()) => return,
                Err(Failure::Batch(index, error)) => {
                    if let Some(submission) = group.get_mut(index) {
                        submission.refuse(error);
                    }
                    self.refuse_some(group);
                }
                Err(Failure::All(error)) => return refuse_all(group, &error),
            }
        }
        // The more can't be written, the less is saved by writing the others together.
        while let Some((first, rest)) = group.split_first_mut() {
            self.refuse_some(std::slice::from_mut(first));
            match self.write_at_once(std::slice::from_mut(first)) {
                Ok(()) => {}
                Err(Failure::Batch(_, error)) => first.refuse(error),
                Err(Failure::All(error)) => {
                    first.refuse(error.clone());
                    return refuse_all(rest, &error);
                }
            }
            group = rest;
        }
    }

    /// Writes all that is not refused, or nothing.
    fn write_at_once(&mut self, group: &mut [Submission]) -> Result<(), Failure> {
        let is_to_write = |one: &&Submission| !one.is_refused() && !one.batch.is_empty();
        if !group.iter().any(|one| is_to_write(&one)) {
            return Ok(());
        }
        self.transaction(|this, has_moved| {
            if has_moved {
                this.refuse_some(group);
            }
            let mut writer = rows::Writer::new(&this.connection);
            for (index, submission) in group.iter().enumerate() {
                let mut changes = submission.changes().filter(|_| is_to_write(&submission));
                if let Err(error) = changes.try_for_each(|(change, sum)| writer.write(change, sum))
                {
                    let told = fault::of_sqlite(&this.path, &error);
                    return Err(match fault::is_of_a_batch(&error) {
                        true => Failure::Batch(index, told),
                        false => Failure::All(told),
                    });
                }
            }
            Ok(())
        })
    }

    /// Ends a transaction, and notes how long that took.
    fn sync(&mut self) -> Result<()> {
        let clock = Clock::system();
        let begun = clock.now();
        let committed = self.say("COMMIT");
        self.pace.synced(clock.now() - begun);
        committed
    }

    /// Does something in a transaction, and has it synced. `act` hears whether another process has written the file
    /// since the last: then the epochs are new.
    fn transaction<T>(
        &mut self,
        act: impl FnOnce(&mut Self, bool) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let begun = self.begin().map_err(Failure::All);
        let result = begun.and_then(|has_moved| act(self, has_moved));
        let result = match result {
            Ok(result) => match self.sync() {
                Ok(()) => return Ok(result),
                Err(error) => Err(Failure::All(error)),
            },
            Err(failure) => {
                self.roll_back();
                return Err(failure);
            }
        };
        self.roll_back();
        self.seal();
        result
    }

    /// Begins a transaction; returns whether the epochs were read again.
    fn begin(&mut self) -> Result<bool> {
        self.health.check()?;
        self.say("BEGIN IMMEDIATE")?;
        let version = Some(version(&self.connection).about(&self.path)?);
        let has_moved = version != self.version;
        if has_moved {
            self.epochs = read_epochs(&self.connection, &self.path)?;
            self.version = version;
        }
        Ok(has_moved)
    }

    fn say(&self, sql: &str) -> Result<()> {
        let said = self.connection.prepare_cached(sql).and_then(|mut known| known.execute([]));
        said.map(drop).about(&self.path)
    }

    fn roll_back(&mut self) {
        if !self.connection.is_autocommit()
            && let Err(error) = self.connection.execute_batch("ROLLBACK")
        {
            tracing::error!(file = %self.path.display(), %error, "a transaction could not be rolled back");
            // The connection is of no use. Its log is not touched by closing it.
            match self.reopen() {
                Ok(connection) => (self.connection, self.version) = (connection, None),
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
        let acquired = self.transaction(|this, _| {
            let mut epochs = this.epochs.clone();
            let leases = raise(&mut epochs, shards).map_err(Failure::All)?;
            let write = || {
                let sql = "REPLACE INTO shard (shard, epoch) VALUES (?1, ?2)";
                let mut statement = this.connection.prepare_cached(sql)?;
                for Lease { shard, epoch } in &leases {
                    statement.execute((shard, epoch.cast_signed()))?;
                }
                Ok(())
            };
            write().about(&this.path).map_err(Failure::All)?;
            Ok((leases, epochs))
        });
        let (leases, epochs) = acquired.map_err(Failure::into_error)?;
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
        let act =
            |this: &mut Self, _| write(&this.connection).about(&this.path).map_err(Failure::All);
        self.transaction(act).map_err(Failure::into_error)
    }

    fn epoch(&self, shard: u16) -> u64 {
        self.epochs.get(usize::from(shard)).copied().unwrap_or_default()
    }

    /// Has a log that has grown brought into its file, and begins a long one anew.
    fn tend_log(&mut self) {
        let pages = self.log_pages.load(Ordering::Relaxed);
        if pages < self.asked_at {
            self.asked_at = 0; // the log has begun anew
        }
        if pages - self.asked_at >= LOG_PAGES && !self.checkpoints.is_busy(self.index) {
            self.checkpoints.want(self.index);
            self.asked_at = pages;
        } else if self.asked_at >= LOG_PAGES_LONG && self.checkpoints.take_done(self.index) {
            self.begin_log();
        }
    }

    /// Begins the log anew. What is left to bring into the file, and to sync there, is what was written since the
    /// last checkpoint began. Readers of old states make it fail, without a wait: it is tried again after the next.
    fn begin_log(&mut self) {
        let wait = |time| {
            if let Err(error) = self.connection.busy_timeout(time) {
                tracing::debug!(%error, "the time to wait for others could not be set");
            }
        };
        wait(Duration::ZERO);
        self.health.checkpoint(&self.connection, CheckpointMode::RESTART);
        wait(file::BUSY_TIMEOUT);
    }
}

impl Failure {
    fn into_error(self) -> Error {
        let (Self::Batch(_, error) | Self::All(error)) = self;
        error
    }
}

fn refuse_all(group: &mut [Submission], error: &Error) {
    let left = group.iter_mut().filter(|submission| !submission.is_refused());
    left.for_each(|submission| submission.refuse(error.clone()));
}

/// Raises the epochs of virtual shards, and returns the leases under the new ones.
fn raise(epochs: &mut [u64], shards: &[u16]) -> Result<Vec<Lease>> {
    let raise = |shard: &u16| {
        let epoch = epochs
            .get_mut(usize::from(*shard))
            .ok_or_else(|| Error::failed(format!("there is no virtual shard {shard}")))?;
        *epoch += 1;
        Ok(Lease { shard: *shard, epoch: *epoch })
    };
    shards.iter().map(raise).collect()
}

/// Returns a number that changes when another connection has written the file.
fn version(connection: &Connection) -> rusqlite::Result<u32> {
    connection.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0))
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

/// How often a transaction is tried anew without what could not be written.
const ROUNDS_MAX: usize = 8;
