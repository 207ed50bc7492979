//! Typed calls: methods of an author's own Cap'n Proto interface, on their way to the object.
//!
//! They are methods of the object itself, or of a part of it that has a capability of its own.

mod copied;
mod outgoing;
mod part;
mod results;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::rc::Rc;

use capnp::MessageSize;
use capnp::any_pointer;
use capnp::capability::{DispatchCallResult, Params, Results, Server};
use capnp::private::capability::{ParamsHook, ResultsHook};
use futures::FutureExt;
use futures::future::LocalBoxFuture;

pub use outgoing::behind;
pub use part::Line;

use self::outgoing::incoming;
use self::part::Part;
use self::results::{Early, Held, HeldResults};
use crate::error::Error;
use crate::gate::Outbox;
use crate::limits::Limits;

/// The dispatcher that the generated code has for one object.
pub struct Dispatch(Box<Dispatcher>);

type Dispatcher =
    dyn Fn(u64, u16, Params<any_pointer::Owned>, Results<any_pointer::Owned>) -> DispatchCallResult;

impl Dispatch {
    /// Makes the dispatcher of `object` for the interface of the client type `C`.
    pub(crate) fn new<C: Interface<T>, T: 'static>(object: Rc<T>) -> Self {
        let dispatch = C::from_server(object);
        Self(Box::new(move |interface, method, params, results| {
            dispatch.clone().dispatch_call(interface, method, params, results)
        }))
    }
}

/// How a typed call ended; its results were written where they belong.
pub type TypedOutcome = Result<(), capnp::Error>;

/// What a typed call ends with that fails for `error`.
pub fn typed_failure(error: Error) -> TypedOutcome {
    Err(error.into())
}

/// The interface, as a client type `C` of the generated code, that an object of type `T` serves.
pub use capnp::capability::FromServer as Interface;

/// A call of a typed method that has not been delivered yet.
pub struct TypedCall {
    interface: u64,
    method: u16,
    params: Box<dyn ParamsHook>,
    results: Box<dyn ResultsHook>,
    /// How large its parameters are; or what is wrong with them.
    size: capnp::Result<MessageSize>,
    /// Whose method it is; none for the object's own.
    part: Option<Rc<Part>>,
}

/// A method that has entered.
pub struct Entered {
    /// Its completion.
    pub handler: LocalBoxFuture<'static, TypedOutcome>,
    /// Whether it is a streaming method, which holds back the calls behind it on the same stub.
    pub is_streaming: bool,
}

impl TypedCall {
    /// Makes a call of a method of the object itself: its interface's id, its ordinal, what it was called with, and
    /// where its results go.
    pub fn new(
        interface: u64,
        method: u16,
        params: Box<dyn ParamsHook>,
        results: Box<dyn ResultsHook>,
    ) -> Self {
        let size = params.get().and_then(|params| params.target_size());
        Self { interface, method, params, results, size, part: None }
    }

    /// Returns how many bytes its parameters have.
    pub(crate) fn bytes(&self) -> usize {
        let words = self.size.as_ref().map_or(0, |size| size.word_count);
        usize::try_from(words).unwrap_or(usize::MAX / 16) * 8
    }

    /// Enters the author's handler, in activation number `activation`, whose object dispatches to `own`.
    ///
    /// # Errors
    /// *unimplemented*, *disconnected*: where there is no such handler. What is wrong with its parameters, wherever
    /// in them: they may have references that can't be led through `outbox` then.
    pub(crate) fn enter(
        self,
        own: Option<&Dispatch>,
        activation: u64,
        limits: &Limits,
        outbox: &Rc<Outbox>,
    ) -> crate::Result<Entered> {
        let Self { interface, method, params, results, size, part } = self;
        let dispatch = match &part {
            Some(part) => part.dispatch(activation)?,
            None => {
                own.ok_or_else(|| Error::unimplemented("the object serves no typed interface"))?
            }
        };
        let params = incoming(outbox, params, size?.cap_count)?;
        let slot = Rc::new(RefCell::new(None));
        let early = Early::default();
        let held = Some(Held::new(results, early.clone(), limits, outbox.clone()));
        let held = HeldResults { held, slot: slot.clone() };
        let results = Results::new(Box::new(held));
        let answer = (dispatch.0)(interface, method, Params::new(params), results);
        let is_streaming = answer.is_streaming;
        let completion = async move {
            early.beside(answer.promise).await?;
            let held = slot.borrow_mut().take();
            match held {
                Some(held) => held.settle().await,
                // A streaming method has no results, and leaves them where they are.
                None if is_streaming => Ok(()),
                None => Err(capnp::Error::failed("the handler kept its results".into())),
            }
        };
        Ok(Entered { handler: completion.boxed_local(), is_streaming })
    }
}
