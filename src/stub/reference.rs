//! A reference to one object.

use std::any::Any;
use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use capnp::capability::{FromClientHook, Promise};
use futures::FutureExt;
use futures::future::{LocalBoxFuture, Shared};

use super::client::Link;
use super::wire;
use crate::error::{Error, Kind, Result};
use crate::limits::Limits;
use crate::message::{self, IntoRequest, Request, Response};
use crate::redirect;
use crate::stubborn_capnp::{outcome, stub};

/// A reference to one object.
///
/// Calls made on a stub, or on its clones, are delivered to the object in the order in which they were
/// made, [`fetch`](Self::fetch) and the methods of its typed interface ([`cast`](Self::cast)) alike. There is no
/// order between two stubs.
///
/// A stub breaks when its connection is lost or its object is reset. Then every call in flight and every
/// later one fails with that first reason; get a new stub from the namespace. Dropping a stub ends
/// nothing else.
#[derive(Clone)]
pub struct Stub {
    inner: Rc<Inner>,
}

struct Inner {
    client: stub::Client,
    link: Option<Rc<Link>>,
    limits: Rc<Limits>,
    broken: RefCell<Option<Error>>,
    watch: RefCell<Option<Shared<LocalBoxFuture<'static, Error>>>>,
}

/// A fetch under way. It was sent when it was made; awaiting it only waits for the response.
///
/// Dropping it does not stop a handler that has begun.
#[must_use = "the request is sent, but its response is lost"]
pub struct Fetch(LocalBoxFuture<'static, Result<Response>>);

impl Future for Fetch {
    type Output = Result<Response>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(context)
    }
}

impl Stub {
    /// Makes a stub of a capability. `link` is the connection it came over, if any.
    pub(crate) fn new(client: stub::Client, link: Option<Rc<Link>>, limits: Rc<Limits>) -> Self {
        let (broken, watch) = Default::default();
        Self { inner: Rc::new(Inner { client, link, limits, broken, watch }) }
    }

    /// Sends a request to the object: a url, or an [`http::Request`].
    ///
    /// The request is sent before this returns; the returned future yields the response once its head
    /// is known. Redirects are returned, not followed.
    ///
    /// # Errors
    /// *invalid request* where the request can't be sent as it is; the error that the object's handler
    /// returned (`remote`); or why the object could not be reached (not `remote`).
    ///
    /// # Cancel safety
    /// Dropping the future takes the call back if it has not reached the object's code, and changes
    /// nothing if it has: the handler runs on.
    pub fn fetch(&self, request: impl IntoRequest) -> Fetch {
        match request.into_request().and_then(|request| self.inner.send(request)) {
            Ok(answer) => {
                let inner = self.inner.clone();
                Fetch(async move { inner.settle(answer.await) }.boxed_local())
            }
            Err(error) => Fetch(std::future::ready(Err(error)).boxed_local()),
        }
    }

    /// Sends a request as [`fetch`](Self::fetch) does, and does with redirects as `mode` says.
    ///
    /// A followed redirect goes to this same object, as a call of its own behind those made meanwhile; at
    /// most 20 are followed.
    ///
    /// # Errors
    /// As `fetch`; *failed* for one redirect too many, or where a streamed body would have to be sent again.
    ///
    /// # Cancel safety
    /// As `fetch`; the redirects that were not followed yet are not.
    pub fn fetch_with(&self, request: impl IntoRequest, mode: redirect::Mode) -> Fetch {
        let request = match request.into_request() {
            Ok(request) => request,
            Err(error) => return Fetch(std::future::ready(Err(error)).boxed_local()),
        };
        let mut sent = redirect::Sent::of(&request);
        let first = self.fetch(request);
        let stub = self.clone();
        let following = async move {
            let mut response = first.await?;
            let mut hops = 0;
            while let Some(request) = redirect::next(&sent, &response, mode, hops)? {
                hops += 1;
                sent = redirect::Sent::of(&request);
                response = stub.fetch(request).await?;
            }
            Ok(response)
        };
        Fetch(following.boxed_local())
    }

    /// Returns the same reference as a typed interface, which extends the contract's `Stub`.
    ///
    /// Calls through both keep their order. An object whose class does not serve the interface answers
    /// its methods with *unimplemented*.
    pub fn cast<C: FromClientHook>(&self) -> C {
        self.inner.client.clone().cast_to()
    }

    /// Waits until the stub breaks, and returns why. It neither wakes the object nor keeps it in memory.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn broken(&self) -> Error {
        if let Some(error) = self.broken_reason() {
            return error;
        }
        let watch = {
            let mut slot = self.inner.watch.borrow_mut();
            slot.get_or_insert_with(|| self.inner.clone().watch().boxed_local().shared()).clone()
        };
        watch.await
    }

    /// Returns why the stub is broken, as far as is known at this moment.
    pub fn broken_reason(&self) -> Option<Error> {
        self.inner.broken_reason()
    }
}

impl Inner {
    /// Sends a request now; what it returns waits for the answer.
    fn send(
        &self,
        request: Request,
    ) -> Result<Promise<capnp::capability::Response<outcome::Owned>, capnp::Error>> {
        if let Some(error) = self.broken_reason() {
            return Err(error.with_delivered(false));
        }
        message::validate(&request, &self.limits)?;
        let mut call = self.client.fetch_request();
        wire::write_request(call.get(), request, &self.limits);
        Ok(call.send().promise)
    }

    fn broken_reason(&self) -> Option<Error> {
        if let Some(error) = &*self.broken.borrow() {
            return Some(error.clone());
        }
        let lost = self.link.as_ref()?.lost()?;
        Some(self.break_with(lost))
    }

    /// Keeps the first reason, and returns it.
    fn break_with(&self, error: Error) -> Error {
        self.broken.borrow_mut().get_or_insert(error).clone()
    }

    fn settle(&self, answer: Answer) -> Result<Response> {
        let error = match answer {
            Ok(outcome) => {
                let keep = self.link.clone().map(|link| link as Rc<dyn Any>);
                match wire::read_outcome(outcome.get()?, &self.limits, keep) {
                    Err(error) if error.reset => error,
                    outcome => return outcome,
                }
            }
            Err(exception) => match self.classify(exception) {
                error if error.kind == Kind::Disconnected => error,
                error => return Err(error),
            },
        };
        Err(self.break_with(error.clone()).with_delivered(error.delivered))
    }

    /// An exception is never the object's answer: the call was shed, or the object was lost.
    fn classify(&self, exception: capnp::Error) -> Error {
        if let Some(lost) = self.link.as_ref().and_then(|link| link.lost()) {
            return lost.with_delivered(true);
        }
        let error = Error::from(exception);
        match error.kind {
            Kind::Overloaded | Kind::Unimplemented => error,
            _ => Error::disconnected(error.message).with_delivered(true),
        }
    }

    async fn watch(self: Rc<Self>) -> Error {
        let asked = self.client.broken_request().send().promise;
        let told = async {
            match asked.await {
                Ok(answer) => match answer.get().and_then(|answer| answer.get_error()) {
                    Ok(error) => wire::read_error(error).unwrap_or_else(|error| error),
                    Err(error) => error.into(),
                },
                Err(exception) => match self.classify(exception) {
                    error if error.kind == Kind::Disconnected => error,
                    _ => std::future::pending().await,
                },
            }
        };
        let lost = async {
            match &self.link {
                Some(link) => link.closed().await,
                None => std::future::pending().await,
            }
        };
        let error = tokio::select! { biased; error = told => error, error = lost => error };
        self.break_with(error)
    }
}

type Answer = Result<capnp::capability::Response<outcome::Owned>, capnp::Error>;

impl std::fmt::Debug for Stub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stub").field("broken", &self.inner.broken.borrow()).finish_non_exhaustive()
    }
}
