//! A part of an object that has a capability of its own: what its object says of itself holds for it too.
//!
//! **Invariant:** a call on it is put in line among the object's events when it is made, and enters as one of them:
//! nothing of the object's gates, order or bounds passes it by.
//! **Invariant:** it goes with the activation that made it, whoever holds the capability.

use std::rc::{Rc, Weak};

use capnp::Error as Exception;
use capnp::capability::{FromClientHook, Promise};
use capnp::private::capability::{ParamsHook, ResultsHook};
use futures::channel::oneshot;

use super::outgoing::behind;
use super::{Dispatch, Interface, TypedCall, TypedOutcome};
use crate::error::{Error, Result};
use crate::object::State;
use crate::vat::{Callee, Caller, settled};

/// The line of one capability to the object that it belongs to.
pub trait Line {
    /// Puts a call in line, among the object's events.
    fn call(&self, call: TypedCall, reply: oneshot::Sender<TypedOutcome>);

    /// Returns why there is no object any more.
    fn gone(&self) -> Error;
}

/// What a capability of an object's leads to.
pub struct Part {
    dispatch: Dispatch,
    /// The activation that it is a part of.
    activation: u64,
}

impl Part {
    /// Returns its dispatcher, for activation number `activation`.
    ///
    /// # Errors
    /// *disconnected* where that is another one.
    pub fn dispatch(&self, activation: u64) -> Result<&Dispatch> {
        match self.activation == activation {
            true => Ok(&self.dispatch),
            false => Err(left()),
        }
    }
}

impl State {
    /// Makes a capability of `server` that others may call: pass it in a typed call, to be called back.
    ///
    /// It is a part of the object. Each call on it is an event of the object, as a call on a stub is: it enters in the
    /// order in which it was made, while no critical section runs; it waits in the object's bounded queue; the
    /// method runs to its end even when its caller is gone; what it says leaves when what the object wrote before
    /// is durable; a panic in it resets the object. So whatever waits inside of a section, or in the constructor,
    /// for a call on it to be answered waits in vain.
    ///
    /// The object stays in memory as long as anybody holds the capability. A reset ends `server`, and calls fail
    /// with its reason.
    ///
    /// (What [`stubborn::capability`](crate::capability) makes is no part of any object: inside of one, its methods run
    /// during sections of others, and what they answer waits for no write.)
    pub fn capability<C, S>(&self, server: S) -> C
    where
        C: Interface<S> + FromClientHook,
        S: 'static,
    {
        let control = self.control();
        let line = match control.line() {
            Ok(line) => line,
            Err(error) => return C::new(capnp_rpc::new_broken_cap(error.into()).hook),
        };
        let dispatch = Dispatch::new::<C, S>(Rc::new(server));
        let part = Rc::new(Part { dispatch, activation: self.activation() });
        let (held, gone) = oneshot::channel::<()>();
        let callable = Callable { part: Rc::downgrade(&part), line, _held: held };
        self.wait_until(async move {
            // Nothing is ever sent: it ends when nobody holds the capability.
            let _ = gone.await;
            drop(part);
        });
        let capability: capnp::capability::Client = settled(callable);
        C::new(behind(&control.outbox(), capability.hook))
    }
}

/// Why a part that has ended does not answer.
fn left() -> Error {
    Error::disconnected("the object has left memory")
}

/// The capability of a part.
struct Callable {
    part: Weak<Part>,
    line: Rc<dyn Line>,
    /// Tells the object that somebody holds it.
    _held: oneshot::Sender<()>,
}

impl Callee for Callable {
    fn call(
        &self,
        caller: Caller,
        interface: u64,
        method: u16,
        params: Box<dyn ParamsHook>,
        results: Box<dyn ResultsHook>,
    ) -> Promise<(), Exception> {
        let Some(part) = self.part.upgrade() else { return Promise::err(self.line.gone().into()) };
        let call =
            TypedCall { part: Some(part), ..TypedCall::new(interface, method, params, results) };
        let (reply, answer) = oneshot::channel();
        self.line.call(call, reply);
        let gone = self.line.clone();
        let answered = async move { answer.await.unwrap_or_else(|_| Err(gone.gone().into())) };
        Promise::from_future(caller.until_left(answered))
    }
}
