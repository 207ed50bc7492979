//! What every handle of one connection and the thread that owns it share.
//!
//! **Invariant:** what waits for the owner is bounded: calls by their permits, closes by the stubs and namespaces
//! that are open, watches by the stubs. The connection's first reason of death is the only one kept.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use futures::FutureExt;
use futures::channel::oneshot;
use futures::future::Shared as SharedFuture;

use super::call::Call;
use super::owner::Owner;
use super::queue::Queue;
use super::stub::Reference;
use crate::{Error, Limits, Request, Response, Result};

/// Something for the owner to do.
#[expect(clippy::large_enum_variant, reason = "nearly all that ever waits are requests")]
pub(super) enum Parcel {
    /// A request for an object.
    Fetch { stub: Arc<Reference>, request: Request, reply: Reply<Response> },
    /// Anything else.
    Run(Box<dyn FnOnce(&mut Owner) + Send>),
    /// A stub was dropped.
    CloseStub(u64),
    /// A namespace was dropped.
    CloseNamespace(u64),
}

/// Where an answer goes, and the permit to wait for it.
pub(super) struct Reply<T> {
    pub(super) sender: oneshot::Sender<Result<T>>,
    pub(super) permit: Permit,
}

/// What every handle of one connection and the thread that owns it share.
pub(super) struct Shared {
    pub(super) limits: Limits,
    queue: Queue<Parcel>,
    unanswered: AtomicUsize,
    lost: OnceLock<Error>,
    closed: SharedFuture<oneshot::Receiver<()>>,
    keys: AtomicU64,
}

impl Shared {
    /// Makes what is shared. `closed` is ready, or dropped, once the connection is lost.
    pub(super) fn new(limits: Limits, closed: oneshot::Receiver<()>) -> Self {
        let (unanswered, lost, keys) = Default::default();
        Self { limits, queue: Queue::new(), unanswered, lost, closed: closed.shared(), keys }
    }

    pub(super) fn queue(&self) -> &Queue<Parcel> {
        &self.queue
    }

    /// Returns a number that no other stub or namespace of this connection has.
    pub(super) fn key(&self) -> u64 {
        self.keys.fetch_add(1, Ordering::Relaxed)
    }

    /// Posts the parcel that `parcel` makes of the place where its answer goes.
    pub(super) fn call<T>(self: &Arc<Self>, parcel: impl FnOnce(Reply<T>) -> Parcel) -> Call<T> {
        let permit = match Permit::take(self) {
            Ok(permit) => permit,
            Err(error) => return Call::failed(error),
        };
        let (sender, receiver) = oneshot::channel();
        match self.queue.post(parcel(Reply { sender, permit })) {
            Ok(()) => Call::waiting(receiver, self.clone()),
            Err(_) => Call::failed(self.gone()),
        }
    }

    /// Posts something that is not a call. Where the owner has ended it has no effect any more.
    pub(super) fn tell(&self, parcel: Parcel) {
        self.queue.post(parcel).unwrap_or_else(Parcel::refuse);
    }

    /// Returns why the connection is lost, once it is.
    pub(super) fn lost(&self) -> Option<&Error> {
        self.lost.get()
    }

    /// Waits until the connection is lost, and returns why.
    pub(super) async fn closed(&self) -> Error {
        self.closed.clone().await.ok();
        self.gone()
    }

    /// Notes why the connection is lost, and returns the first reason.
    pub(super) fn lose(&self, error: Error) -> Error {
        self.lost.get_or_init(|| error).clone()
    }

    /// Returns why the connection is lost when its thread has ended.
    pub(super) fn gone(&self) -> Error {
        self.lose(Error::disconnected("the thread that owned the connection has ended"))
    }

    /// Says that the owner has ended, and fails what still waits for it.
    pub(super) fn end(&self) {
        self.gone();
        self.queue.end().into_iter().for_each(Parcel::refuse);
    }
}

impl Parcel {
    /// Answers what can't come to the owner any more: it surely was not sent.
    fn refuse(self) {
        match self {
            Self::Fetch { stub, reply, .. } => drop(reply.sender.send(Err(stub.shared().gone()))),
            Self::Run(_) | Self::CloseStub(_) | Self::CloseNamespace(_) => {}
        }
    }
}

/// The right to one unanswered call.
pub(super) struct Permit(Arc<Shared>);

impl Permit {
    fn take(shared: &Arc<Shared>) -> Result<Self> {
        let max = shared.limits.connection_calls_max;
        // Held from here on: what was counted too many is given back by the drop.
        let permit = Self(shared.clone());
        if shared.unanswered.fetch_add(1, Ordering::Relaxed) >= max {
            return Err(Error::overloaded(format!("{max} calls of the connection are unanswered")));
        }
        Ok(permit)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.unanswered.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Held by every handle: the last one dropped ends the thread.
pub(super) struct Lease(pub(super) Arc<Shared>);

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.queue.close();
    }
}
