//! Accepts connections and spreads them over the shards.

use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::connection;
use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::runtime::Node;
use crate::stub::Address;
use crate::vat::{Account, socket};

/// Where a listener listens, once it does.
#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    Unix { socket: UnixListener, _file: Remove },
}

/// Removes the file of a Unix socket when dropped.
#[derive(Debug)]
struct Remove(PathBuf);

impl Drop for Remove {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A bound address that is not served yet.
#[derive(Debug)]
pub struct Bound {
    socket: Socket,
    address: Address,
}

impl Bound {
    /// Binds `address`. Port 0 takes a free one.
    ///
    /// # Errors
    /// *failed*, naming the address and why: most often that another server has it.
    pub async fn bind(address: &Address) -> Result<Self> {
        let failed = |error: io::Error| {
            let hint = match error.kind() {
                io::ErrorKind::AddrInUse => "; is another server running there?",
                _ => "",
            };
            Error::failed(format!("can't listen on {address}: {error}{hint}"))
        };
        match address {
            Address::Tcp(text) => {
                let socket = TcpListener::bind(text).await.map_err(failed)?;
                let address = Address::Tcp(socket.local_addr().map_err(failed)?.to_string());
                Ok(Self { socket: Socket::Tcp(socket), address })
            }
            Address::Unix(path) => {
                remove_stale(path).await.map_err(failed)?;
                let socket = UnixListener::bind(path).map_err(failed)?;
                let socket = Socket::Unix { socket, _file: Remove(path.clone()) };
                Ok(Self { socket, address: address.clone() })
            }
        }
    }

    /// Returns where it listens, with the port it got.
    pub fn address(&self) -> &Address {
        &self.address
    }
}

/// Removes the file of a socket that nobody listens on any more.
async fn remove_stale(path: &Path) -> io::Result<()> {
    let Ok(metadata) = std::fs::symlink_metadata(path) else { return Ok(()) };
    if !metadata.file_type().is_socket() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "the file is not a socket"));
    }
    match UnixStream::connect(path).await {
        Ok(_) => Err(io::ErrorKind::AddrInUse.into()),
        Err(_) => std::fs::remove_file(path),
    }
}

/// Accepts connections. Dropping it stops accepting; connections live on.
pub struct Listener {
    bound: Bound,
    node: Arc<Node>,
    limits: Limits,
    account: Arc<Account>,
    connections: Connections,
    next_shard: AtomicUsize,
}

/// The connections of a server.
#[derive(Clone, Debug, Default)]
pub struct Connections {
    open: Arc<AtomicUsize>,
    tracker: TaskTracker,
    farewell: CancellationToken,
}

impl Connections {
    /// Lets each connection end once its calls are answered, and waits until they have.
    pub async fn end(&self) {
        self.tracker.close();
        self.farewell.cancel();
        self.tracker.wait().await;
    }
}

/// One connection of those that may be open at a time.
struct Place {
    open: Arc<AtomicUsize>,
    _tracked: TaskTrackerToken,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Listener {
    /// Makes a listener whose connections `node` serves. `account` and `connections` are shared by all of a server.
    pub fn new(
        bound: Bound,
        node: Arc<Node>,
        limits: Limits,
        account: Arc<Account>,
        connections: Connections,
    ) -> Self {
        Self { bound, node, limits, account, connections, next_shard: AtomicUsize::new(0) }
    }

    /// Accepts connections for ever.
    pub async fn run(self) {
        loop {
            let accepted = match &self.bound.socket {
                Socket::Tcp(socket) => socket.accept().await.map(|(stream, _)| self.tcp(stream)),
                Socket::Unix { socket, .. } => {
                    socket.accept().await.map(|(stream, _)| self.unix(stream))
                }
            };
            if let Err(error) | Ok(Err(error)) = accepted {
                tracing::warn!(%error, "a connection could not be accepted");
                // Out of file descriptors, most likely: accepting again at once would spin.
                if error.raw_os_error().is_some() {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    fn tcp(&self, stream: TcpStream) -> io::Result<()> {
        let Some(place) = self.place() else { return Ok(()) };
        socket::configure(&stream, self.limits.peer_timeout)?;
        let (stream, account) = (stream.into_std()?, self.account.clone());
        let farewell = self.connections.farewell.clone();
        self.node.run_on(self.shard(), move |shard| match TcpStream::from_std(stream) {
            Ok(stream) => {
                let (reader, writer) = stream.into_split();
                connection::serve(shard, reader, writer, account, farewell, place);
            }
            Err(error) => tracing::warn!(%error, "a connection could not be registered"),
        });
        Ok(())
    }

    fn unix(&self, stream: UnixStream) -> io::Result<()> {
        let Some(place) = self.place() else { return Ok(()) };
        let (stream, account) = (stream.into_std()?, self.account.clone());
        let farewell = self.connections.farewell.clone();
        self.node.run_on(self.shard(), move |shard| match UnixStream::from_std(stream) {
            Ok(stream) => {
                let (reader, writer) = stream.into_split();
                connection::serve(shard, reader, writer, account, farewell, place);
            }
            Err(error) => tracing::warn!(%error, "a connection could not be registered"),
        });
        Ok(())
    }

    fn shard(&self) -> usize {
        self.next_shard.fetch_add(1, Ordering::Relaxed) % self.node.shards()
    }

    fn place(&self) -> Option<Place> {
        let Connections { open, tracker, .. } = &self.connections;
        let place = Place { open: open.clone(), _tracked: tracker.token() };
        let open = open.fetch_add(1, Ordering::Relaxed);
        if open < self.limits.connections_max {
            return Some(place);
        }
        tracing::warn!(open, "too many connections: one more was closed");
        None
    }
}
