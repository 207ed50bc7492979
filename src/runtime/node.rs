//! The shards of this process, and the way to them from outside.

use std::rc::Rc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use futures::channel::oneshot;
use tokio::runtime::{Builder, LocalOptions};

use super::inbox::Inbox;
use super::namespaces::{NamespaceConfig, Namespaces};
use super::placement::Placement;
use super::shard::{Common, Doors, Parcel, Shard, or_end};
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::storage::engine::Engine;
use crate::storage::object::Rules;
use crate::storage::row::VIRTUAL_SHARDS;
use crate::storage::sql;

/// The shards of this process. Dropping it stops them at once; [`drain`](Self::drain) comes before an orderly end.
pub struct Node {
    common: Arc<Common>,
    /// Each with what is closed when it ends.
    threads: Vec<(JoinHandle<()>, Mutex<Receiver<()>>)>,
}

/// Where a node stores its objects, and what it goes by.
pub struct StorageConfig {
    /// The store.
    pub engine: Arc<dyn Engine>,
    /// What time it is.
    pub clock: Clock,
    /// How far objects can go back; none: not at all.
    pub history: Option<Duration>,
}

/// How long a thread that is to end may take.
const END_TIMEOUT: Duration = Duration::from_secs(2);

/// Parcels that may wait for one shard.
const INBOX_PARCELS_MAX: usize = 1 << 16;

impl Node {
    /// Takes over the store and starts `shards` threads.
    ///
    /// # Errors
    /// *failed* where the store can't be used, or a thread can't be started.
    pub fn start(
        namespaces: Namespaces,
        limits: Limits,
        shards: usize,
        doors: Box<dyn Doors>,
        storage: StorageConfig,
    ) -> Result<Self> {
        let placement = Placement::new(shards);
        let inboxes = (0..placement.shards()).map(|_| Inbox::new(INBOX_PARCELS_MAX)).collect();
        let run_id = uuid::Uuid::new_v4().to_string();
        let StorageConfig { engine, clock, history } = storage;
        let space = |one: &NamespaceConfig| engine.space(one.ids().fingerprint(), one.name());
        let spaces = namespaces.all().iter().map(space).collect::<Result<_>>()?;
        let leases = engine.acquire(&(0..VIRTUAL_SHARDS).collect::<Vec<_>>())?;
        let transaction_bytes_max = limits.transaction_bytes_max;
        let backlog_bytes_max = limits.storage_backlog_bytes_max;
        let sql = sql::limits::Limits {
            transaction_bytes_max: transaction_bytes_max as u64,
            ..sql::limits::Limits::default()
        };
        let rules =
            Rules { clock, retention: history, transaction_bytes_max, backlog_bytes_max, sql };
        let common = Common {
            namespaces,
            limits,
            placement,
            inboxes,
            doors,
            run_id,
            engine,
            rules,
            leases,
            spaces,
        };
        let common = Arc::new(common);
        let mut node = Self { common, threads: Vec::new() };
        for index in 0..placement.shards() {
            let thread = start_thread(index, node.common.clone())?;
            node.threads.push((thread.0, Mutex::new(thread.1)));
        }
        Ok(node)
    }

    /// Returns how many shards there are.
    pub fn shards(&self) -> usize {
        self.threads.len()
    }

    /// Waits until everything that was written is durable, and lets go of the store. Blocks.
    pub fn close_store(&self) {
        self.common.engine.close();
    }

    /// Returns where objects are stored, in a few words.
    pub fn storage(&self) -> String {
        self.common.engine.describe()
    }

    /// Runs `run` on shard `to`, after what was sent there before.
    pub fn run_on(&self, to: usize, run: impl FnOnce(&Rc<Shard>) + Send + 'static) {
        if let Some(inbox) = self.common.inboxes.get(to) {
            inbox.post(Parcel::Run(Box::new(run)));
        }
    }

    /// Takes no more events, waits for those under way up to the drain timeout, and ends every object in
    /// order. The threads run on, for the answers that are on their way.
    pub async fn drain(&self) {
        let drained: Vec<_> = (0..self.shards())
            .map(|index| {
                let (done, drained) = oneshot::channel();
                self.run_on(index, |shard| {
                    let shard = shard.clone();
                    tokio::task::spawn_local(async move {
                        shard.drain().await;
                        let _ = done.send(());
                    });
                });
                drained
            })
            .collect();
        // An object that does not let go of its thread must not hold up the others' end.
        let limits = &self.common.limits;
        let patience = limits.drain_timeout + limits.shutdown_hook_timeout;
        let _ = tokio::time::timeout(patience, futures::future::join_all(drained)).await;
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.common.inboxes.iter().for_each(|inbox| inbox.post(Parcel::End));
        for (thread, ended) in self.threads.drain(..) {
            // A thread that an object does not let go of is left behind.
            let ended = ended.into_inner().unwrap_or_else(PoisonError::into_inner);
            if ended.recv_timeout(END_TIMEOUT) != Err(RecvTimeoutError::Timeout) {
                // One that panicked has said so itself.
                let _ = thread.join();
            }
        }
        self.common.engine.close();
    }
}

#[expect(clippy::disallowed_methods, reason = "shards are the threads of this program")]
fn start_thread(index: usize, common: Arc<Common>) -> Result<(JoinHandle<()>, Receiver<()>)> {
    let (ending, ended) = sync_channel(0);
    let (ready, is_ready) = sync_channel(1);
    let runtime =
        move || Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
    let thread = std::thread::Builder::new().name(format!("shard-{index}")).spawn(move || {
        // Dropped, and so heard, however the thread ends.
        let _ending: SyncSender<()> = ending;
        let runtime = runtime().expect("a runtime needs only file descriptors");
        runtime.block_on(async {
            let shard = match Shard::new(index, common) {
                Ok(shard) => shard,
                Err(error) => return drop(ready.send(Err(error))),
            };
            let _ = ready.send(Ok(()));
            or_end("the run", shard.run()).await;
        });
    })?;
    is_ready.recv().unwrap_or_else(|_| Err(Error::failed("a thread ended when it began")))?;
    Ok((thread, ended))
}
