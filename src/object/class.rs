//! A class of objects as the runtime holds it: the author's type behind a table of functions.

use std::rc::Rc;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::LocalBoxFuture;

use crate::error::{Error, Result};
use crate::message::{Request, Response};
use crate::object::{AlarmInfo, Dispatch, DurableObject, Env, Interface, Socket, State};
use crate::socket::{Ending, Taken};

/// A class of objects: how to make one, and whether it serves a typed interface.
#[derive(Clone)]
pub struct Class {
    name: &'static str,
    typed: bool,
    construct: Arc<dyn Fn(State, Env) -> Construction + Send + Sync>,
}

type Construction = LocalBoxFuture<'static, Result<Rc<dyn Instance>>>;

impl Class {
    /// Makes the class of `T`'s objects, which serve `fetch`.
    pub fn new<T: DurableObject>() -> Self {
        Self::with_dispatch::<T>(false, |_| None)
    }

    /// Makes the class of `T`'s objects, which serve `fetch` and the Cap'n Proto interface of the client type
    /// `C`. The interface extends the contract's `Stub`; `T` implements the `Server` traits of both.
    pub fn typed<T: DurableObject, C: Interface<T> + 'static>() -> Self {
        Self::with_dispatch::<T>(true, |object| Some(Dispatch::new::<C, T>(object)))
    }

    fn with_dispatch<T: DurableObject>(
        typed: bool,
        dispatch: fn(Rc<T>) -> Option<Dispatch>,
    ) -> Self {
        let construct = move |state: State, env: Env| -> Construction {
            async move {
                let object = Rc::new(T::new(state, env).await?);
                let dispatch = dispatch(object.clone());
                Ok(Rc::new(Hosted { object, dispatch }) as Rc<dyn Instance>)
            }
            .boxed_local()
        };
        Self { name: std::any::type_name::<T>(), typed, construct: Arc::new(construct) }
    }

    /// Returns the name of the author's type.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Returns whether its objects serve a typed interface beside `fetch`.
    pub fn is_typed(&self) -> bool {
        self.typed
    }

    /// Starts to make an object.
    pub(crate) fn construct(&self, state: State, env: Env) -> Construction {
        (self.construct)(state, env)
    }
}

impl std::fmt::Debug for Class {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Class").field("name", &self.name).field("typed", &self.typed).finish()
    }
}

/// An object whose type is forgotten.
pub trait Instance {
    /// Begins to answer a request.
    fn fetch(self: Rc<Self>, request: Box<Request>) -> LocalBoxFuture<'static, Result<Response>>;

    /// Returns the dispatcher of its typed interface, where it serves one.
    fn dispatch(&self) -> Option<&Dispatch>;

    /// Begins to handle its alarm.
    fn alarm(self: Rc<Self>, alarm: AlarmInfo) -> LocalBoxFuture<'static, Result<()>>;

    /// Begins to handle what a WebSocket has: a message, or its end.
    fn web_socket(
        self: Rc<Self>,
        socket: Socket,
        taken: Taken,
    ) -> LocalBoxFuture<'static, Result<()>>;

    /// Begins its orderly end.
    fn before_shutdown(self: Rc<Self>) -> LocalBoxFuture<'static, ()>;
}

struct Hosted<T> {
    object: Rc<T>,
    dispatch: Option<Dispatch>,
}

impl<T: DurableObject> Instance for Hosted<T> {
    fn fetch(self: Rc<Self>, request: Box<Request>) -> LocalBoxFuture<'static, Result<Response>> {
        async move { self.object.fetch(*request).await }.boxed_local()
    }

    fn dispatch(&self) -> Option<&Dispatch> {
        self.dispatch.as_ref()
    }

    fn alarm(self: Rc<Self>, alarm: AlarmInfo) -> LocalBoxFuture<'static, Result<()>> {
        async move { self.object.alarm(alarm).await }.boxed_local()
    }

    fn web_socket(
        self: Rc<Self>,
        socket: Socket,
        taken: Taken,
    ) -> LocalBoxFuture<'static, Result<()>> {
        let object = self;
        match taken {
            Taken::Message(message) => {
                async move { object.object.web_socket_message(&socket, message).await }
                    .boxed_local()
            }
            Taken::Ended(Ending::Broken(frame)) => {
                let error = Error::invalid_request(format!(
                    "the peer of the WebSocket broke a rule (code {}): {}",
                    frame.code(),
                    frame.reason()
                ));
                async move { object.object.web_socket_error(&socket, error).await }.boxed_local()
            }
            Taken::Ended(ending) => {
                let closed = ending.closed();
                async move { object.object.web_socket_close(&socket, closed).await }.boxed_local()
            }
        }
    }

    fn before_shutdown(self: Rc<Self>) -> LocalBoxFuture<'static, ()> {
        async move { self.object.before_shutdown().await }.boxed_local()
    }
}
