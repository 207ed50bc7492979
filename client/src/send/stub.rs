//! A reference to one object, for every thread of a program.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use futures::FutureExt;
use futures::channel::oneshot;
use futures::future::{BoxFuture, Shared as SharedFuture};

use super::call::{Call, Fetch};
use super::namespace::Place;
use super::owner::Owner;
use super::shared::{Parcel, Shared};
use crate::{self as local, Error, IntoRequest, Response, Result, Target, WebSocket, message};

/// A reference to one object, for every thread of a program.
///
/// Calls made on a stub, or on its clones, are delivered to the object in the order in which they were
/// made: from one thread, or from several of which one made its call after it knew of the other's. There
/// is no order between two stubs.
///
/// A stub breaks when its connection is lost or its object is reset. Then every call in flight and every
/// later one fails with that first reason; get a new stub from the namespace. Dropping a stub ends
/// nothing else.
#[derive(Clone)]
pub struct Stub {
    reference: Arc<Reference>,
}

/// What every clone of a stub shares.
pub(super) struct Reference {
    place: Arc<Place>,
    key: u64,
    target: Target,
    /// Whether the owner may have its local end.
    used: AtomicBool,
    broken: Arc<OnceLock<Error>>,
    watch: OnceLock<SharedFuture<oneshot::Receiver<Error>>>,
}

impl Reference {
    pub(super) fn shared(&self) -> &Arc<Shared> {
        self.place.shared()
    }

    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    pub(super) fn key(&self) -> u64 {
        self.key
    }

    pub(super) fn target(&self) -> &Target {
        &self.target
    }

    /// Keeps the first reason, and returns it.
    pub(super) fn break_with(&self, error: Error) -> Error {
        self.broken.get_or_init(|| error).clone()
    }

    fn note_use(&self) {
        self.place.note_use();
        self.used.store(true, Ordering::Relaxed);
    }
}

impl Drop for Reference {
    fn drop(&mut self) {
        if *self.used.get_mut() {
            self.shared().tell(Parcel::CloseStub(self.key));
        }
    }
}

impl Stub {
    pub(super) fn new(place: Arc<Place>, target: Target) -> Self {
        let (key, used) = (place.shared().key(), AtomicBool::new(false));
        let (broken, watch) = Default::default();
        Self { reference: Arc::new(Reference { place, key, target, used, broken, watch }) }
    }

    /// Sends a request to the object: a url, or an [`http::Request`](crate::Request).
    ///
    /// The request is posted to the connection's thread before this returns; the returned future yields
    /// the response once its head is known. Redirects are returned, not followed.
    ///
    /// # Errors
    /// *invalid request* where the request can't be sent as it is; *overloaded* where too many calls of
    /// the connection are unanswered; the error that the object's handler returned (`remote`); or why the
    /// object could not be reached (not `remote`).
    ///
    /// # Cancel safety
    /// Dropping the future takes the call back if it has not reached the object's code, and changes
    /// nothing if it has: the handler runs on.
    pub fn fetch(&self, request: impl IntoRequest) -> Fetch {
        if let Some(error) = self.broken_reason() {
            return Call::failed(error.with_delivered(false));
        }
        let shared = self.reference.shared();
        let request = request.into_request().and_then(|request| {
            message::validate(&request, &shared.limits)?;
            Ok(request)
        });
        let request = match request {
            Ok(request) => request,
            Err(error) => return Call::failed(error),
        };
        self.reference.note_use();
        let stub = self.reference.clone();
        shared.call(|reply| Parcel::Fetch { stub, request, reply })
    }

    /// Opens a WebSocket to the object, as [`Stub::web_socket`](crate::Stub::web_socket) does. Its end may change
    /// threads, and keeps the connection open.
    ///
    /// # Errors
    /// As [`fetch`](Self::fetch); *failed*, naming the status, where the object answers without opening a
    /// WebSocket.
    ///
    /// # Cancel safety
    /// As [`fetch`](Self::fetch).
    pub fn web_socket(
        &self,
        request: impl IntoRequest,
    ) -> BoxFuture<'static, Result<(Response, WebSocket)>> {
        let asked = request.into_request().map(|mut request| {
            message::ask_web_socket(&mut request);
            self.fetch(request)
        });
        async move { message::opened(asked?.await?) }.boxed()
    }

    /// Runs `run` on the thread that owns the connection, with the local end of this stub: for calls of
    /// the object's typed interface, by [`Stub::cast`](crate::Stub::cast).
    ///
    /// What `run` calls before it first waits is in order with the fetches on this stub.
    ///
    /// # Errors
    /// As [`Client::run`](super::Client::run).
    ///
    /// # Cancel safety
    /// Dropping the call drops the closure's future.
    pub fn run<T, F>(&self, run: F) -> Call<T>
    where
        T: Send + 'static,
        F: AsyncFnOnce(local::Stub) -> Result<T> + Send + 'static,
    {
        let reference = self.reference.clone();
        reference.note_use();
        self.reference.shared().call(|reply| {
            Parcel::Run(Box::new(move |owner| {
                let stub = owner.stub(&reference);
                reply.answer_with(async move { run(stub).await });
            }))
        })
    }

    /// Waits until the stub breaks, and returns why. It neither wakes the object nor keeps it in memory.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn broken(&self) -> Error {
        if let Some(error) = self.broken_reason() {
            return error;
        }
        let watch = self.reference.watch.get_or_init(|| self.watch()).clone();
        let error = watch.await.unwrap_or_else(|_| self.reference.shared().gone());
        self.reference.break_with(error)
    }

    /// Returns why the stub is broken, as far as is known at this moment.
    pub fn broken_reason(&self) -> Option<Error> {
        if let Some(error) = self.reference.broken.get() {
            return Some(error.clone());
        }
        let lost = self.reference.shared().lost()?;
        Some(self.reference.break_with(lost.clone()))
    }

    /// Asks the owner to tell when the stub breaks. It holds nothing of this stub.
    fn watch(&self) -> SharedFuture<oneshot::Receiver<Error>> {
        let (mut teller, told) = oneshot::channel();
        let reference = self.reference.clone();
        reference.note_use();
        let run = move |owner: &mut Owner| {
            let (stub, broken) = (owner.stub(&reference), reference.broken.clone());
            tokio::task::spawn_local(async move {
                let error = tokio::select! { biased;
                    error = stub.broken() => error,
                    () = teller.cancellation() => return,
                };
                drop(teller.send(broken.get_or_init(|| error).clone()));
            });
        };
        self.reference.shared().tell(Parcel::Run(Box::new(run)));
        told.shared()
    }
}

impl fmt::Debug for Stub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stub").field("broken", &self.reference.broken.get()).finish_non_exhaustive()
    }
}
