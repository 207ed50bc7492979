//! A connection to a server, for every thread of a program.

use std::fmt;
use std::sync::Arc;

use futures::channel::oneshot;

use super::call::Call;
use super::namespace::Namespace;
use super::owner;
use super::shared::{Lease, Parcel, Shared};
use crate::{self as local, Address, Error, Limits, NamespaceInfo, Result};

/// A connection to a server, for every thread of a program.
///
/// Connecting starts the thread that owns the connection. It ends by itself, after what was posted was
/// sent and answered, when the client, its namespaces, its stubs, the calls on them and the bodies they
/// gave are all dropped.
#[derive(Clone)]
pub struct Client {
    lease: Arc<Lease>,
}

impl Client {
    /// Connects to `address` (`HOST:PORT` or `unix:PATH`), with default limits.
    ///
    /// # Errors
    /// *invalid request* for what is not an address; *disconnected* where nobody answers there.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the connection and ends its thread.
    pub async fn connect(address: &str) -> Result<Self> {
        Self::connect_with(&address.parse()?, Limits::default()).await
    }

    /// Connects to `address`, with these limits.
    ///
    /// # Errors
    /// *disconnected* where nobody answers there within the peer timeout; *failed* where no thread can be
    /// started.
    ///
    /// # Cancel safety
    /// As [`connect`](Self::connect).
    pub async fn connect_with(address: &Address, limits: Limits) -> Result<Self> {
        let (close, closed) = oneshot::channel();
        let shared = Arc::new(Shared::new(limits, closed));
        let (connected, connecting) = oneshot::channel();
        owner::start(address.clone(), shared.clone(), close, connected)?;
        let client = Self { lease: Arc::new(Lease(shared)) };
        connecting.await.unwrap_or_else(|_| Err(client.lease.0.gone()))?;
        Ok(client)
    }

    /// Returns the namespace called `name`, at once.
    ///
    /// Where the server has none of that name, calls on its stubs fail with *no such namespace*.
    pub fn namespace(&self, name: &str) -> Namespace {
        Namespace::new(self.lease.clone(), name)
    }

    /// Lists the server's namespaces, ordered by name.
    ///
    /// # Errors
    /// Where the server can't be reached.
    ///
    /// # Cancel safety
    /// Dropping the future drops the question.
    pub async fn namespaces(&self) -> Result<Vec<NamespaceInfo>> {
        self.run(async |client: local::Client| client.namespaces().await).await
    }

    /// Waits until the connection is lost, and returns why.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn closed(&self) -> Error {
        self.lease.0.closed().await
    }

    /// Returns why the connection is lost, as far as is known at this moment.
    pub fn lost(&self) -> Option<Error> {
        self.lease.0.lost().cloned()
    }

    /// Runs `run` on the thread that owns the connection, where typed interfaces are at home.
    ///
    /// The closure crosses threads; its future stays on that one, and must not block it: every call of
    /// this connection goes through it. See [`Stub::run`](super::Stub::run) for typed calls in order with
    /// fetches.
    ///
    /// # Errors
    /// What `run` returns; *failed* where it panicked; *disconnected* where the thread has ended;
    /// *overloaded* where too many calls are unanswered.
    ///
    /// # Cancel safety
    /// Dropping the call drops the closure's future.
    pub fn run<T, F>(&self, run: F) -> Call<T>
    where
        T: Send + 'static,
        F: AsyncFnOnce(local::Client) -> Result<T> + Send + 'static,
    {
        self.lease.0.call(|reply| {
            Parcel::Run(Box::new(|owner| {
                let client = owner.client.clone();
                reply.answer_with(async move { run(client).await });
            }))
        })
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("lost", &self.lease.0.lost()).finish_non_exhaustive()
    }
}
