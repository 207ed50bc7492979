//! Listens on addresses, accepts connections and spreads them over the shards, for whichever door serves them.
//!
//! **Invariant:** a connection counts against `connections_max` from its acceptance until its door drops its
//! place, whatever it speaks.

use std::io;
use std::net::IpAddr;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::runtime::{Node, Shard};
use crate::stub::Address;
use crate::vat::socket;

/// What serves the connections of a listener.
pub trait Door: Send + Sync {
    /// Serves `stream` on the thread of `shard`, and drops `place` once it has ended.
    fn serve(&self, shard: &Rc<Shard>, stream: Stream, place: Place);

    /// Returns how long the system waits for a peer that takes nothing of what was sent to it.
    fn peer_timeout(&self, limits: &Limits) -> Duration {
        limits.peer_timeout
    }
}

/// A connection that was accepted.
#[derive(Debug)]
pub enum Stream {
    /// Over TCP.
    Tcp(TcpStream),
    /// Over a Unix socket.
    Unix(UnixStream),
}

impl Stream {
    /// Returns the address of the machine at the other end, where it has one.
    pub fn peer(&self) -> Option<IpAddr> {
        match self {
            Self::Tcp(stream) => stream.peer_addr().ok().map(|address| address.ip().to_canonical()),
            Self::Unix(_) => None,
        }
    }

    /// Has the peer see a reset and no orderly end, once the stream is dropped.
    pub fn reset_on_drop(&self) {
        if let Self::Tcp(stream) = self {
            // What is refused here was closed already.
            let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
        }
    }
}

/// Does the same to either kind of stream.
macro_rules! either {
    ($self:ident, $stream:ident => $result:expr) => {
        match $self.get_mut() {
            Self::Tcp($stream) => $result,
            Self::Unix($stream) => $result,
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        either!(self, stream => Pin::new(stream).poll_read(context, buffer))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        either!(self, stream => Pin::new(stream).poll_write(context, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        either!(self, stream => Pin::new(stream).poll_write_vectored(context, slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => Pin::new(stream).poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => Pin::new(stream).poll_shutdown(context))
    }
}

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
    connections: Connections,
    door: Arc<dyn Door>,
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
#[derive(Debug)]
pub struct Place {
    /// Cancelled when the connection is to end, once its calls are answered.
    pub farewell: CancellationToken,
    open: Arc<AtomicUsize>,
    _tracked: TaskTrackerToken,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A stream between two threads: registered with neither's event loop.
enum Parked {
    Tcp(std::net::TcpStream),
    Unix(std::os::unix::net::UnixStream),
}

impl Parked {
    fn register(self) -> io::Result<Stream> {
        match self {
            Self::Tcp(stream) => TcpStream::from_std(stream).map(Stream::Tcp),
            Self::Unix(stream) => UnixStream::from_std(stream).map(Stream::Unix),
        }
    }
}

impl Listener {
    /// Makes a listener whose connections `door` serves on the shards of `node`. `connections` is shared by all
    /// of a server.
    pub fn new(
        bound: Bound,
        node: Arc<Node>,
        limits: Limits,
        connections: Connections,
        door: Arc<dyn Door>,
    ) -> Self {
        Self { bound, node, limits, connections, door, next_shard: AtomicUsize::new(0) }
    }

    /// Accepts connections for ever.
    pub async fn run(self) {
        loop {
            let accepted = match &self.bound.socket {
                Socket::Tcp(socket) => socket.accept().await.map(|(stream, _)| self.tcp(stream)),
                Socket::Unix { socket, .. } => {
                    let park = |stream: UnixStream| stream.into_std().map(Parked::Unix);
                    socket.accept().await.map(|(stream, _)| park(stream))
                }
            };
            match accepted {
                Ok(Ok(stream)) => self.hand_over(stream),
                Err(error) | Ok(Err(error)) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    // Out of file descriptors, most likely: accepting again at once would spin.
                    if error.raw_os_error().is_some() {
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                }
            }
        }
    }

    fn tcp(&self, stream: TcpStream) -> io::Result<Parked> {
        socket::configure(&stream, self.limits.peer_timeout)?;
        #[cfg(target_os = "linux")]
        socket2::SockRef::from(&stream)
            .set_tcp_user_timeout(Some(self.door.peer_timeout(&self.limits)))?;
        stream.into_std().map(Parked::Tcp)
    }

    /// Has a shard serve a connection, each in turn.
    fn hand_over(&self, stream: Parked) {
        let Some(place) = self.place() else { return };
        let door = self.door.clone();
        let shard = self.next_shard.fetch_add(1, Ordering::Relaxed) % self.node.shards();
        self.node.run_on(shard, move |shard| match stream.register() {
            Ok(stream) => door.serve(shard, stream, place),
            Err(error) => tracing::warn!(%error, "a connection could not be registered"),
        });
    }

    fn place(&self) -> Option<Place> {
        let Connections { open, tracker, farewell } = &self.connections;
        let (farewell, tracked) = (farewell.clone(), tracker.token());
        let place = Place { farewell, open: open.clone(), _tracked: tracked };
        let open = open.fetch_add(1, Ordering::Relaxed);
        if open < self.limits.connections_max {
            return Some(place);
        }
        tracing::warn!(open, "too many connections: one more was closed");
        None
    }
}
