//! A server: namespaces, the node that runs their objects, and the doors to it.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::task::AbortOnDropHandle;

use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::gateway::{GatewayDoor, GatewaySettings, Reach};
use crate::limits::Limits;
use crate::listen::{Bound, Connections, Door, Listener};
use crate::object::{Class, DurableObject};
use crate::rpc::{RpcDoor, RpcDoors};
use crate::runtime::{NamespaceConfig, Namespaces, Node, StorageConfig};
use crate::storage::engine::Engine;
use crate::storage::memory::Memory;
use crate::storage::sqlite::Sqlite;
use crate::stub::Address;
use crate::vat::Account;

/// Says what a server is to host, and how.
///
/// ```no_run
/// # use stubborn::{DurableObject, Env, Request, Response, Result, Server, State, respond};
/// # struct Hello;
/// # impl DurableObject for Hello {
/// #     async fn new(_: State, _: Env) -> Result<Self> { Ok(Self) }
/// # }
/// # async fn example() -> Result<()> {
/// Server::builder().namespace::<Hello>("HELLO").listen("127.0.0.1:7400")?.run().await
/// # }
/// ```
#[derive(Default)]
#[must_use = "a builder starts nothing until `run` or `start`"]
pub struct ServerBuilder {
    namespaces: Vec<NamespaceConfig>,
    addresses: Vec<Address>,
    http_addresses: Vec<Address>,
    exposed: Vec<String>,
    gateway: GatewaySettings,
    threads: Option<NonZeroUsize>,
    limits: Limits,
    engine: Option<Arc<dyn Engine>>,
    data: Option<PathBuf>,
    clock: Option<Clock>,
    history: Option<Duration>,
}

impl ServerBuilder {
    /// Adds a namespace whose objects are `T`s. Its ids are derived from its name.
    pub fn namespace<T: DurableObject>(self, name: &str) -> Self {
        self.class(name, Class::new::<T>(), name)
    }

    /// Adds a namespace of a class. Its ids are derived from `unique_key`: who knows it can make ids.
    pub fn class(mut self, name: &str, class: Class, unique_key: &str) -> Self {
        self.namespaces.push(NamespaceConfig::new(name, class, unique_key));
        self
    }

    /// Adds an address to listen on: `HOST:PORT` (port 0 takes a free one) or `unix:PATH`.
    ///
    /// # Errors
    /// *invalid request* for what is not an address.
    pub fn listen(mut self, address: &str) -> Result<Self> {
        self.addresses.push(address.parse()?);
        Ok(self)
    }

    /// Adds an address to serve HTTP on: `HOST:PORT` (port 0 takes a free one) or `unix:PATH`.
    ///
    /// Only namespaces that are [`expose`](Self::expose)d are served there.
    ///
    /// # Errors
    /// *invalid request* for what is not an address.
    pub fn http(mut self, address: &str) -> Result<Self> {
        self.http_addresses.push(address.parse()?);
        Ok(self)
    }

    /// Serves the objects of a namespace over HTTP, to whoever reaches an address of [`http`](Self::http).
    pub fn expose(mut self, namespace: &str) -> Self {
        self.exposed.push(namespace.to_owned());
        self
    }

    /// Says how HTTP is served.
    pub fn gateway(mut self, settings: GatewaySettings) -> Self {
        self.gateway = settings;
        self
    }

    /// Sets the number of threads that run objects. The default is one for each core.
    pub fn threads(mut self, threads: NonZeroUsize) -> Self {
        self.threads = Some(threads);
        self
    }

    /// Sets where objects are stored. The default is in memory: what they store is gone with the server.
    pub fn store(mut self, engine: Arc<dyn Engine>) -> Self {
        self.engine = Some(engine);
        self
    }

    /// Stores objects in a folder, which is made where it is not there. One server at a time uses it.
    pub fn data(mut self, folder: impl Into<PathBuf>) -> Self {
        self.data = Some(folder.into());
        self
    }

    /// Sets how long it is kept what was stored before, so that objects can go back. The default is nothing.
    pub fn history(mut self, history: Option<Duration>) -> Self {
        self.history = history;
        self
    }

    /// Sets the clock that alarms go by. The default is the machine's.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Sets the bounds.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Starts the server. It serves from now on, until it is stopped or dropped.
    ///
    /// # Errors
    /// *failed* where an address can't be listened on, or the data folder can't be used (another server uses it,
    /// a newer version wrote it, it is damaged); *invalid request* for namespaces of one name, or one key, and for
    /// limits that leave no room to work ([`Limits::check`]).
    ///
    /// # Cancel safety
    /// Dropping the future starts nothing.
    pub async fn start(self) -> Result<Server> {
        self.limits.check()?;
        let namespaces = Namespaces::new(self.namespaces)?;
        let gateway = GatewayDoor::new(&namespaces, &self.exposed, self.gateway)?;
        let bound = bind(&self.addresses).await?;
        let http_bound = bind(&self.http_addresses).await.map_err(of_http)?;
        // Opened only once nothing else stands in the way.
        let engine = match (self.engine, self.data) {
            (Some(engine), _) => engine,
            (None, Some(folder)) => Arc::new(Sqlite::open(&folder)?),
            (None, None) => Arc::new(Memory::new()),
        };
        let threads = self.threads.or_else(|| std::thread::available_parallelism().ok());
        let threads = threads.map_or(1, NonZeroUsize::get);
        let storage = StorageConfig {
            engine,
            clock: self.clock.unwrap_or(Clock::system()),
            history: self.history,
        };
        let doors = Box::new(RpcDoors);
        let node = Node::start(namespaces, self.limits.clone(), threads, doors, storage)?;
        let node = Arc::new(node);
        let account = Arc::new(Account::new(self.limits.server_queued_bytes_max));
        let addresses = bound.iter().map(|bound| bound.address().clone()).collect();
        let http_addresses = http_bound.iter().map(|bound| bound.address().clone()).collect();
        let rpc: Arc<dyn Door> = Arc::new(RpcDoor::new(account));
        let rpc = bound.into_iter().map(|bound| (bound, rpc.clone()));
        let http = http_bound.into_iter().map(|bound| {
            let reach = if bound.address().is_private() { Reach::Local } else { Reach::Wide };
            let door: Arc<dyn Door> = Arc::new(gateway.reached(reach));
            (bound, door)
        });
        let connections = Connections::default();
        let listen = |(bound, door)| {
            let (node, limits) = (node.clone(), self.limits.clone());
            let listener = Listener::new(bound, node, limits, connections.clone(), door);
            AbortOnDropHandle::new(tokio::spawn(listener.run()))
        };
        let listeners = rpc.chain(http).map(listen).collect();
        let drain_timeout = self.limits.drain_timeout;
        Ok(Server { node, addresses, http_addresses, listeners, connections, drain_timeout })
    }

    /// Runs the server until the process is asked to stop (SIGTERM, or ctrl-c), then stops it in order.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    ///
    /// # Cancel safety
    /// Dropping the future stops the server at once.
    pub async fn run(self) -> Result<()> {
        // Watched from the start: a request that comes at once is not lost.
        let stop_requested = stop_requested()?;
        let server = self.start().await?;
        stop_requested.await;
        server.stop().await;
        Ok(())
    }
}

/// Binds all, or none.
async fn bind(addresses: &[Address]) -> Result<Vec<Bound>> {
    let mut bound = Vec::new();
    for address in addresses {
        bound.push(Bound::bind(address).await?);
    }
    Ok(bound)
}

/// Tells how to serve HTTP elsewhere.
fn of_http(mut error: Error) -> Error {
    error.message.push_str("; --http ADDR serves HTTP elsewhere, --http none nowhere");
    error
}

/// A server that runs. Dropping it stops it at once: calls under way fail as *disconnected*.
#[must_use = "dropping a server stops it"]
pub struct Server {
    node: Arc<Node>,
    addresses: Vec<Address>,
    http_addresses: Vec<Address>,
    listeners: Vec<AbortOnDropHandle<()>>,
    connections: Connections,
    drain_timeout: Duration,
}

impl Server {
    /// Begins to say what a server is to host.
    pub fn builder() -> ServerBuilder {
        ServerBuilder::default()
    }

    /// Returns where it listens, with the ports it got, in the order in which they were asked for.
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// Returns where objects are stored, in a few words.
    pub fn storage(&self) -> String {
        self.node.storage()
    }

    /// Returns where it serves HTTP, likewise.
    pub fn http_addresses(&self) -> &[Address] {
        &self.http_addresses
    }

    /// Returns how many threads run objects.
    pub fn threads(&self) -> usize {
        self.node.shards()
    }

    /// Stops in order: accepts nothing more, waits for the calls under way (up to the drain timeout), ends
    /// every object, then closes the connections once their answers are written (up to as long again).
    ///
    /// # Cancel safety
    /// Dropping the future stops at once.
    pub async fn stop(mut self) {
        self.listeners.clear();
        self.node.drain().await;
        // The objects have answered; a peer that does not take its answers goes without.
        let _ = tokio::time::timeout(self.drain_timeout, self.connections.end()).await;
        // Whoever still holds the node on its way out must not hold the store: another server may want it.
        let node = self.node.clone();
        let _ = tokio::task::spawn_blocking(move || node.close_store()).await;
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { addresses, .. } = self;
        f.debug_struct("Server").field("addresses", addresses).finish_non_exhaustive()
    }
}

/// Watches from now on for a request to stop, SIGTERM or ctrl-c. What it returns waits for the first.
///
/// # Errors
/// *failed* where the signals can't be watched.
pub fn stop_requested() -> Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
