//! A connection to a server, as its user holds it.

use std::rc::Rc;
use std::time::Duration;

use capnp_rpc::RpcSystem;
use capnp_rpc::rpc_twoparty_capnp::Side;
use futures::FutureExt;
use futures::channel::oneshot;
use futures::future::Shared;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::address::Address;
use super::namespace::{Namespace, NamespaceInfo};
use super::reference::Stub;
use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::stubborn_capnp::{server, stub};
use crate::vat::{self, Network, Traffic};

/// A connection to a server.
///
/// It belongs to one thread, as everything of Cap'n Proto does: use it inside a
/// [`tokio::runtime::LocalRuntime`] or a [`tokio::task::LocalSet`]. The connection closes when the client,
/// its namespaces, its stubs and the bodies they gave are all dropped.
#[derive(Clone)]
pub struct Client {
    server: server::Client,
    link: Rc<Link>,
    limits: Rc<Limits>,
}

impl Client {
    /// Connects to `address` (`HOST:PORT` or `unix:PATH`), with default limits.
    ///
    /// # Errors
    /// *invalid request* for what is not an address; *disconnected* where nobody answers there.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the connection.
    pub async fn connect(address: &str) -> Result<Self> {
        Self::connect_with(&address.parse()?, Limits::default()).await
    }

    /// Connects to `address`, with these limits.
    ///
    /// # Errors
    /// *disconnected* where nobody answers there within the peer timeout.
    pub async fn connect_with(address: &Address, limits: Limits) -> Result<Self> {
        let unreachable =
            |why: String| Error::disconnected(format!("can't reach a server at {address}: {why}"));
        let connected = tokio::time::timeout(limits.peer_timeout, async {
            match address {
                Address::Tcp(address) => {
                    let stream = TcpStream::connect(address).await?;
                    vat::socket::configure(&stream, limits.peer_timeout)?;
                    let (reader, writer) = stream.into_split();
                    Ok(Self::over(reader, writer, limits.clone()))
                }
                Address::Unix(path) => {
                    let (reader, writer) = UnixStream::connect(path).await?.into_split();
                    Ok(Self::over(reader, writer, limits.clone()))
                }
            }
        });
        match connected.await {
            Ok(Ok(client)) => Ok(client),
            Ok(Err(error)) => Err(unreachable(std::io::Error::to_string(&error))),
            Err(_) => Err(unreachable(format!("no answer within {:?}", limits.peer_timeout))),
        }
    }

    /// Speaks the contract over a stream of bytes that is open already.
    pub fn over<R, W>(reader: R, writer: W, limits: Limits) -> Self
    where
        R: AsyncRead + Unpin + 'static,
        W: AsyncWrite + Unpin + 'static,
    {
        let heartbeat = Some(limits.peer_timeout);
        Self::with_heartbeat(reader, writer, limits, heartbeat)
    }

    /// Speaks the contract over a stream whose other end can't vanish, being of this process.
    #[cfg(feature = "server")]
    pub(crate) fn within<R, W>(reader: R, writer: W, limits: Limits) -> Self
    where
        R: AsyncRead + Unpin + 'static,
        W: AsyncWrite + Unpin + 'static,
    {
        Self::with_heartbeat(reader, writer, limits, None)
    }

    fn with_heartbeat<R, W>(
        reader: R,
        writer: W,
        limits: Limits,
        heartbeat: Option<Duration>,
    ) -> Self
    where
        R: AsyncRead + Unpin + 'static,
        W: AsyncWrite + Unpin + 'static,
    {
        let limits = Rc::new(limits);
        let (network, traffic) = Network::new(reader, writer, Side::Client, limits.clone(), None);
        let mut system = RpcSystem::new(Box::new(network), None);
        let server: server::Client = system.bootstrap(Side::Server);
        let disconnector = system.get_disconnector();
        let (driven, ended) = oneshot::channel();
        let (open, left) = oneshot::channel();
        let link = Rc::new(Link { traffic: traffic.clone(), _open: open, ended: ended.shared() });
        // It ends when the link is dropped or lost. Its outcome is in the traffic's failure.
        tokio::task::spawn_local(async move {
            let leaving = async move {
                let _: Result<(), oneshot::Canceled> = left.await;
                disconnector.await.ok();
            };
            let _ = futures::future::join(system, leaving.boxed_local()).await.0;
            driven.send(()).ok();
        });
        if let Some(patience) = heartbeat {
            tokio::task::spawn_local(listen_for_life(traffic, server.clone(), patience));
        }
        Self { server, link, limits }
    }

    /// Returns the namespace called `name`, at once.
    ///
    /// Where the server has none of that name, calls on its stubs fail with *no such namespace*.
    pub fn namespace(&self, name: &str) -> Namespace {
        let mut call = self.server.namespace_request();
        call.get().set_name(name);
        let client = call.send().pipeline.get_namespace();
        Namespace::remote(client, self.link.clone(), self.limits.clone())
    }

    /// Makes a [`Stub`] of a stub that came over this connection as a capability: in a result, or with a call
    /// of the server's.
    pub fn stub(&self, capability: stub::Client) -> Stub {
        Stub::new(capability, Some(self.link.clone()), self.limits.clone(), None)
    }

    /// Lists the server's namespaces, ordered by name.
    ///
    /// # Errors
    /// Where the server can't be reached.
    pub async fn namespaces(&self) -> Result<Vec<NamespaceInfo>> {
        let answer = self.server.list_namespaces_request().send().promise.await?;
        answer.get()?.get_namespaces()?.iter().map(NamespaceInfo::read).collect()
    }

    /// Returns whether the connection is open, as far as is known at this moment.
    pub fn is_open(&self) -> bool {
        self.link.lost().is_none()
    }

    /// Waits until the connection is lost, and returns why.
    pub async fn closed(&self) -> Error {
        self.link.closed().await
    }

    /// Returns a future that waits until the connection has ended, and does not keep it open.
    ///
    /// It ends when it is lost, or when everything that keeps it open is dropped: this client, its
    /// namespaces, its stubs, the calls on them and the bodies they gave. What was sent has then left.
    ///
    /// # Errors
    /// *disconnected* where code of the user's own panicked inside the connection: a capability that the
    /// server called. Nothing drives the connection any more, and calls under way are never answered.
    pub fn ended(&self) -> impl Future<Output = Result<()>> + use<> {
        self.link
            .ended
            .clone()
            .map(|ended| ended.map_err(|_| Error::disconnected("a panic ended the connection")))
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("lost", &self.link.lost()).finish_non_exhaustive()
    }
}

/// What a client, its namespaces and its stubs share: the connection, and whether it is lost.
pub struct Link {
    traffic: Rc<Traffic>,
    /// Tells the task that drives the connection when it is dropped.
    _open: oneshot::Sender<()>,
    /// Ready once nothing drives the connection any more.
    ended: Shared<oneshot::Receiver<()>>,
}

impl Link {
    /// Returns why the connection is lost, once it is.
    pub(crate) fn lost(&self) -> Option<Error> {
        self.traffic.failure().map(lost)
    }

    /// Returns what tells whether the connection lives, without keeping it open.
    pub(crate) fn traffic(&self) -> Rc<Traffic> {
        self.traffic.clone()
    }

    /// Waits until the connection is lost, and returns why.
    pub(crate) async fn closed(&self) -> Error {
        lost(self.traffic.closed().await)
    }
}

/// Whatever ended a connection, the object could not be reached.
pub(crate) fn lost(reason: capnp::Error) -> Error {
    Error::disconnected(reason.extra)
}

/// Asks for a sign of life where the server has been silent, and fails the connection where none comes
/// within `patience` of the last one.
///
/// The kernel's keepalive notices a machine that vanished; this notices a server that hangs and a box
/// between that swallows everything.
async fn listen_for_life(traffic: Rc<Traffic>, server: server::Client, patience: Duration) {
    loop {
        let last = traffic.last_received();
        tokio::select! {
            _ = traffic.closed() => return,
            () = tokio::time::sleep_until(last + patience / 3) => {}
        }
        if traffic.last_received() > last {
            continue;
        }
        let answer = server.about_request().send().promise;
        tokio::select! {
            _ = traffic.closed() => return,
            _ = tokio::time::timeout_at(last + patience, answer) => {}
        }
        if traffic.last_received() == last {
            let text = format!("the server was silent for {patience:?}");
            return traffic.abort(capnp::Error::disconnected(text));
        }
    }
}
