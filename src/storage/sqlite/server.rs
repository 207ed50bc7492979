//! The store of a process that serves a directory.
//!
//! **Invariant:** an object's rows are all in one file, which its virtual shard decides.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use super::checkpoint::{self, Requests};
use super::committer::Committer;
use super::directory::{self, Lock};
use super::file;
use super::health::Health;
use super::meta::{self, Meta};
use super::queue::{Control, Outlet, Queue, Work, closed};
use super::reader::file_of;
use super::store::SqliteStore;
use crate::error::{Error, Result};
use crate::storage::engine::{Engine, Lease, Store};
use crate::storage::row::{ObjectKey, Space};

/// A store on disk, which this process serves.
pub struct Sqlite {
    directory: PathBuf,
    files: Arc<Files>,
    checkpoints: Arc<Requests>,
    running: Mutex<Option<Running>>,
}

/// The files of an open store, for all threads.
pub(super) struct Files {
    files: Vec<Served>,
}

/// One file of an open store.
pub(super) struct Served {
    pub path: PathBuf,
    pub queue: Arc<Queue>,
    pub health: Arc<Health>,
}

/// What closing has to end.
struct Running {
    /// The one that checkpoints, then those that write.
    threads: Vec<JoinHandle<()>>,
    lock: Lock,
}

impl Sqlite {
    /// Opens the store in a directory, and makes one where there is none. No other process may serve it.
    ///
    /// # Errors
    /// *failed* where another process serves the directory, where it holds other things, or where the store is
    /// damaged, incomplete or of a newer format; the message says which file.
    pub fn open(directory: &Path) -> Result<Self> {
        Self::open_with(directory, FILES)
    }

    /// As [`open`](Self::open); a new store gets so many files, at most 16.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_with(directory: &Path, files: u32) -> Result<Self> {
        directory::prepare(directory)?;
        let lock = Lock::take(directory)?;
        directory::finish_creation(directory)?;
        if directory::files(directory)?.is_empty() {
            directory::create(directory, files)?;
        }
        let paths = directory::files(directory)?;
        paths.iter().try_for_each(|path| file::inspect(path))?;
        let (mut opened, mut metas) = (Vec::new(), Vec::new());
        for path in &paths {
            let health = Health::open(path)?;
            let connection = file::open_writer(path)?;
            metas.push(Meta::read(&connection, path)?);
            // In this order, so that where this fails the connection is the first to go.
            opened.push((connection, health));
        }
        meta::check_set(directory, &metas)?;

        let checkpoints = Arc::new(Requests::default());
        let (mut served, mut committers, mut readers) = (Vec::new(), Vec::new(), Vec::new());
        for (index, (path, (connection, health))) in paths.into_iter().zip(opened).enumerate() {
            file::settle(&connection, &path)?;
            let queue = Arc::new(Queue::default());
            let (queued, asked) = (queue.clone(), checkpoints.clone());
            committers.push(Committer::new(index, connection, queued, asked, health.clone())?);
            readers.push((file::open_writer(&path)?, health.clone()));
            served.push(Served { path, queue, health });
        }
        let running = Running { threads: Vec::new(), lock };
        // From here on it is closed where something fails.
        let store = Self {
            directory: directory.to_owned(),
            files: Arc::new(Files { files: served }),
            checkpoints: checkpoints.clone(),
            running: Mutex::new(Some(running)),
        };
        store.start("checkpoint", move || checkpoint::run(&checkpoints, &readers))?;
        for (index, committer) in committers.into_iter().enumerate() {
            store.start(&format!("store-{index:02}"), move || committer.run())?;
        }
        Ok(store)
    }

    /// Starts a thread, which [`close`](Engine::close) ends.
    fn start(&self, name: &str, run: impl FnOnce() + Send + 'static) -> Result<()> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(running) = &mut *running else { return Err(closed()) };
        running.threads.push(thread(name, run)?);
        Ok(())
    }

    /// Has the thread of a file do something, and waits for its answer.
    fn ask<T>(
        &self,
        file: &Served,
        control: impl FnOnce(SyncSender<Result<T>>) -> Control,
    ) -> Result<T> {
        let (reply, answer) = sync_channel(1);
        file.queue.push(Work::Control(control(reply))).map_err(|_| closed())?;
        answer.recv().unwrap_or_else(|_| {
            Err(Error::failed(format!(
                "the thread that writes {} has stopped",
                file.path.display()
            )))
        })
    }
}

impl Files {
    /// Returns all of them.
    pub fn all(&self) -> &[Served] {
        &self.files
    }

    /// Returns the file that has the objects of a virtual shard.
    pub fn index_of(&self, shard: u16) -> usize {
        file_of(shard, self.files.len())
    }

    /// Checks that the files that have the rows of `object`, or of any, can be used.
    pub fn check(&self, object: Option<ObjectKey>) -> Result<()> {
        let of = object.map(|object| self.index_of(object.shard()));
        let files =
            self.files.iter().enumerate().filter(|(index, _)| of.is_none_or(|of| of == *index));
        files.map(|(_, file)| file.health.check()).find(Result::is_err).unwrap_or(Ok(()))
    }
}

impl Engine for Sqlite {
    fn describe(&self) -> String {
        format!("in {}", self.directory.display())
    }

    fn space(&self, fingerprint: [u8; 16], name: &str) -> Result<Space> {
        let first = self.files.all().first().ok_or_else(closed)?;
        let name = name.to_owned();
        self.ask(first, |reply| Control::Space { fingerprint, name, reply })
    }

    fn acquire(&self, shards: &[u16]) -> Result<Vec<Lease>> {
        let mut leases: Vec<Option<Lease>> = vec![None; shards.len()];
        for (index, file) in self.files.all().iter().enumerate() {
            let own = |shard: &u16| self.files.index_of(*shard) == index;
            let wanted: Vec<u16> = shards.iter().copied().filter(own).collect();
            if wanted.is_empty() {
                continue;
            }
            let taken = self.ask(file, |reply| Control::Acquire { shards: wanted, reply })?;
            let slots = leases.iter_mut().zip(shards).filter(|(_, shard)| own(shard));
            slots.zip(taken).for_each(|((slot, _), lease)| *slot = Some(lease));
        }
        Ok(leases.into_iter().flatten().collect())
    }

    fn store(&self, wake: Arc<dyn Fn() + Send + Sync>) -> Result<Box<dyn Store>> {
        Ok(Box::new(SqliteStore::new(self.files.clone(), Outlet::new(wake))))
    }

    fn close(&self) {
        self.checkpoints.stop();
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Running { threads, lock }) = running else { return };
        let mut threads = threads.into_iter();
        // First, so that the threads that write are the last to close their files.
        threads.next().into_iter().for_each(ended);
        self.files.all().iter().for_each(|file| file.queue.close());
        threads.for_each(ended);
        drop(lock);
    }
}

impl Drop for Sqlite {
    fn drop(&mut self) {
        self.close();
    }
}

/// Waits for a thread. One that has panicked has told why, and failed all that it was to write.
fn ended(handle: JoinHandle<()>) {
    if handle.join().is_err() {
        tracing::error!("a thread of the store has panicked");
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a sync blocks, and so needs a thread of its own; no object ever runs on it"
)]
fn thread(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    let builder = std::thread::Builder::new().name(name.to_owned());
    builder.spawn(run).map_err(|error| Error::failed(format!("can't start thread {name}: {error}")))
}

/// How many files a new store gets where nothing says otherwise. One sync for all who write is as good as two that
/// overlap or better, wherever many write at once: `docs/storage-format.md` has the figures. Several are for machines
/// where one thread that writes is what all wait for.
const FILES: u32 = 1;
