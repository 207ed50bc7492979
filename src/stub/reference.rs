//! A reference to one object.

use std::any::Any;
use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use capnp::capability::{FromClientHook, Promise};
use futures::FutureExt;
use futures::future::{LocalBoxFuture, Shared};

use super::client::{Link, lost};
use super::sockets::Asking;
use super::wire;
use crate::body::Body;
use crate::error::{Error, Kind, Result};
use crate::gate::{Outbox, leaving};
use crate::id::ObjectId;
use crate::limits::Limits;
use crate::message::{self, IntoRequest, Request, Response};
use crate::redirect;
use crate::socket::WebSocket;
use crate::stubborn_capnp::{outcome, stub};
use crate::vat::Traffic;

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
    /// What the bodies of requests leave by, where an object sends them.
    outbox: Option<Rc<Outbox>>,
    broken: RefCell<Option<Error>>,
    watch: RefCell<Option<Shared<LocalBoxFuture<'static, Option<Error>>>>>,
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

/// A WebSocket that is being opened. The request was sent when it was made.
#[must_use = "the request is sent, but its WebSocket is lost"]
pub struct Opening(LocalBoxFuture<'static, Result<(Response, WebSocket)>>);

impl Future for Opening {
    type Output = Result<(Response, WebSocket)>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(context)
    }
}

impl Stub {
    /// Makes a stub of a capability. `link` is the connection it came over, if any.
    pub(crate) fn new(
        client: stub::Client,
        link: Option<Rc<Link>>,
        limits: Rc<Limits>,
        outbox: Option<Rc<Outbox>>,
    ) -> Self {
        let (broken, watch) = Default::default();
        Self { inner: Rc::new(Inner { client, link, limits, outbox, broken, watch }) }
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
            Ok((answer, asking)) => {
                let inner = self.inner.clone();
                Fetch(async move { inner.settle(answer.await, asking) }.boxed_local())
            }
            Err(error) => Fetch(std::future::ready(Err(error)).boxed_local()),
        }
    }

    /// Opens a WebSocket to the object: sends a request as [`fetch`](Self::fetch) does, with the header
    /// `upgrade: websocket`, and returns the answer of status 101 with this end of the WebSocket.
    ///
    /// (So does `fetch` of a request that has the header: its response then has the end,
    /// [`take_web_socket`](crate::ResponseExt::take_web_socket).)
    ///
    /// ```
    /// # async fn example(stub: stubborn::Stub) -> stubborn::Result<()> {
    /// let (_, socket) = stub.web_socket("http://do/").await?;
    /// socket.send("hello").await?;
    /// while let Ok(message) = socket.receive().await {
    ///     println!("{message:?}");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As `fetch`; *failed*, naming the status, where the object answers without opening a WebSocket.
    ///
    /// # Cancel safety
    /// As `fetch`.
    pub fn web_socket(&self, request: impl IntoRequest) -> Opening {
        let asked = request.into_request().map(|mut request| {
            message::ask_web_socket(&mut request);
            self.fetch(request)
        });
        let opening = async move { message::opened(asked?.await?) };
        Opening(opening.boxed_local())
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
        loop {
            let watch = {
                let mut slot = self.inner.watch.borrow_mut();
                // The watch holds neither the stub nor the connection: who drops those ends it.
                let new = || {
                    let traffic = self.inner.link.as_ref().map(|link| link.traffic());
                    watch(self.inner.client.clone(), traffic).boxed_local().shared()
                };
                slot.get_or_insert_with(new).clone()
            };
            if let Some(error) = watch.await {
                return self.inner.break_with(error);
            }
            // The server had too much to do to listen: ask again, a little later.
            self.inner.watch.borrow_mut().take();
            tokio::time::sleep(ASK_AGAIN_AFTER).await;
        }
    }

    /// Asks what the stub refers to. It does not wake the object.
    ///
    /// # Errors
    /// Where the server can't be reached, or the stub can't refer to anything.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn identity(&self) -> Result<Referent> {
        let answer = self.inner.client.identity_request().send().promise.await;
        let answer = answer.map_err(|exception| classify(exception, self.inner.lost()))?;
        let answer = answer.get()?;
        Ok(Referent {
            namespace: answer.get_namespace()?.to_string()?,
            id: ObjectId::try_from(answer.get_id()?)?,
            name: if answer.has_name() { Some(answer.get_name()?.to_string()?) } else { None },
        })
    }

    /// Returns why the stub is broken, as far as is known at this moment.
    pub fn broken_reason(&self) -> Option<Error> {
        self.inner.broken_reason()
    }
}

impl Inner {
    /// Sends a request now; what it returns waits for the answer.
    fn send(&self, request: Request) -> Result<(Promise<Outcome, capnp::Error>, Option<Asking>)> {
        if let Some(error) = self.broken_reason() {
            return Err(error.with_delivered(false));
        }
        message::validate(&request, &self.limits)?;
        let request = match &self.outbox {
            Some(outbox) if request.body().known().is_none() => {
                let window = self.limits.stream_window_bytes;
                request.map(|body| held_back(body, window, outbox.clone()))
            }
            _ => request,
        };
        let mut call = self.client.fetch_request();
        let asking = message::is_upgrade(&request).then(|| Asking::new(&self.limits));
        let asking = asking.map(|(asking, web_socket)| {
            call.get().set_web_socket(web_socket);
            asking
        });
        wire::write_request(call.get(), request, &self.limits);
        Ok((call.send().promise, asking))
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

    fn settle(&self, answer: Answer, asking: Option<Asking>) -> Result<Response> {
        let error = match answer {
            Ok(outcome) => {
                let keep = self.link.clone().map(|link| link as Rc<dyn Any>);
                match wire::read_outcome(outcome.get()?, asking, &self.limits, keep) {
                    Err(error) if error.reset => error,
                    outcome => return outcome,
                }
            }
            Err(exception) => match classify(exception, self.lost()) {
                error if error.kind == Kind::Disconnected => error,
                error => return Err(error),
            },
        };
        Err(self.break_with(error.clone()).with_delivered(error.delivered))
    }

    fn lost(&self) -> Option<Error> {
        self.link.as_ref()?.lost()
    }
}

/// Has the chunks of a body leave when what was written before they were made is durable.
fn held_back(body: Body, window: usize, outbox: Rc<Outbox>) -> Body {
    let (far_end, task) = leaving(body, window, outbox);
    tokio::task::spawn_local(task);
    far_end
}

/// What a stub refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Referent {
    /// The namespace's name.
    pub namespace: String,
    /// The object's id.
    pub id: ObjectId,
    /// The name that the stub was asked for by, if it was.
    pub name: Option<String>,
}

/// How long to wait before asking a server again that had too much to do.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// An exception is never the object's answer: the call was shed, or the object was lost.
fn classify(exception: capnp::Error, lost: Option<Error>) -> Error {
    if let Some(lost) = lost {
        return lost.with_delivered(true);
    }
    let error = Error::from(exception);
    match error.kind {
        Kind::Overloaded | Kind::Unimplemented => error,
        _ => Error::disconnected(error.message).with_delivered(true),
    }
}

/// Waits until a stub breaks; none where the server would not listen.
async fn watch(client: stub::Client, traffic: Option<Rc<Traffic>>) -> Option<Error> {
    let asked = client.broken_request().send().promise;
    let told = async {
        let answer = match asked.await {
            Ok(answer) => answer,
            Err(exception) => {
                let lost = traffic.as_ref().and_then(|traffic| traffic.failure()).map(lost);
                let error = classify(exception, lost);
                return (error.kind == Kind::Disconnected).then_some(error);
            }
        };
        Some(match answer.get().and_then(|answer| answer.get_error()) {
            Ok(error) => wire::read_error(error).unwrap_or_else(|error| error),
            Err(error) => error.into(),
        })
    };
    let ended = async {
        match &traffic {
            Some(traffic) => lost(traffic.closed().await),
            None => std::future::pending().await,
        }
    };
    tokio::select! { biased; error = told => error, error = ended => Some(error) }
}

type Outcome = capnp::capability::Response<outcome::Owned>;

type Answer = Result<Outcome, capnp::Error>;

impl std::fmt::Debug for Stub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stub").field("broken", &self.inner.broken.borrow()).finish_non_exhaustive()
    }
}
