//! A connection to a server, as its user holds it.

use std::cell::RefCell;
use std::rc::Rc;

use capnp_rpc::RpcSystem;
use capnp_rpc::rpc_twoparty_capnp::Side;
use futures::FutureExt;
use futures::channel::oneshot;
use futures::future::Shared;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::address::Address;
use super::namespace::{Namespace, NamespaceInfo};
use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::stubborn_capnp::server;
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
        let limits = Rc::new(limits);
        let (network, traffic) = Network::new(reader, writer, Side::Client, limits.clone(), None);
        let mut system = RpcSystem::new(Box::new(network), None);
        let server: server::Client = system.bootstrap(Side::Server);
        let disconnector = system.get_disconnector();
        let disconnector = RefCell::new(Some(disconnector));
        let (driven, ended) = oneshot::channel();
        let link = Rc::new(Link { traffic, disconnector, ended: ended.shared() });
        // It ends when the link is dropped or lost. Its outcome is in the traffic's failure.
        tokio::task::spawn_local(async move {
            system.await.ok();
            driven.send(()).ok();
        });
        tokio::task::spawn_local(heartbeat(Rc::downgrade(&link), server.clone(), limits.clone()));
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
    disconnector: RefCell<Option<capnp_rpc::Disconnector<Side>>>,
    /// Ready once nothing drives the connection any more.
    ended: Shared<oneshot::Receiver<()>>,
}

impl Link {
    /// Returns why the connection is lost, once it is.
    pub(crate) fn lost(&self) -> Option<Error> {
        self.traffic.failure().map(lost)
    }

    /// Waits until the connection is lost, and returns why.
    pub(crate) async fn closed(&self) -> Error {
        lost(self.traffic.closed().await)
    }
}

/// Whatever ended a connection, the object could not be reached.
fn lost(reason: capnp::Error) -> Error {
    Error::disconnected(reason.extra)
}

impl Drop for Link {
    fn drop(&mut self) {
        // Outside a runtime the connection's task is gone already.
        if let Some(disconnector) = self.disconnector.take()
            && tokio::runtime::Handle::try_current().is_ok()
        {
            tokio::task::spawn_local(async move { disconnector.await.ok() });
        }
    }
}

/// Asks for a sign of life where the server has been silent, and fails the connection where none comes.
///
/// The kernel's keepalive notices a machine that vanished; this notices a server that hangs and a box
/// between that swallows everything.
async fn heartbeat(link: std::rc::Weak<Link>, server: server::Client, limits: Rc<Limits>) {
    let server = {
        // The task must not keep the connection open: it holds the server only while it asks.
        let weak = link.clone();
        move || weak.upgrade().map(|_| server.clone())
    };
    loop {
        tokio::time::sleep(limits.peer_timeout / 3).await;
        let Some(traffic) = link.upgrade().map(|link| link.traffic.clone()) else { return };
        if traffic.failure().is_some() {
            return;
        }
        if traffic.silence() < limits.peer_timeout / 3 {
            continue;
        }
        let Some(server) = server() else { return };
        let answer = server.about_request().send().promise;
        let patience = limits.peer_timeout - limits.peer_timeout / 3;
        if tokio::time::timeout(patience, answer).await.is_err()
            && traffic.silence() >= limits.peer_timeout
        {
            let silence = limits.peer_timeout;
            let text = format!("the server was silent for {silence:?}");
            traffic.abort(capnp::Error::disconnected(text));
            return;
        }
    }
}
