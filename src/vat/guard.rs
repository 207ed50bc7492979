//! A local capability whose calls end when their callers leave.
//!
//! **Invariant:** a call enters the guarded capability within `call`: the guard changes no order.

use std::rc::Rc;

use capnp::any_pointer;
use capnp::capability::{FromClientHook, Promise, Request};
use capnp::private::capability::{ClientHook, ParamsHook, ResultsHook};
use capnp::{Error, MessageSize};

use super::call::{Caller, cancelled};

/// Returns `client` so that a connection can cancel calls on it, and be rid of them: a cancelled call's
/// future is dropped, as ever, and then answered.
///
/// A capability that is served over a connection without it works, but each call on it that is cancelled
/// while it runs costs the connection an entry for good.
pub fn guard<C: FromClientHook>(client: C) -> C {
    C::new(Box::new(Guard(Rc::new(client.into_client_hook()))))
}

struct Guard(Rc<Box<dyn ClientHook>>);

impl ClientHook for Guard {
    fn add_ref(&self) -> Box<dyn ClientHook> {
        Box::new(Self(Rc::clone(&self.0)))
    }

    /// Who is in this vat cancels by dropping the promise, and needs no guard.
    fn new_call(
        &self,
        interface: u64,
        method: u16,
        size_hint: Option<MessageSize>,
    ) -> Request<any_pointer::Owned, any_pointer::Owned> {
        self.0.new_call(interface, method, size_hint)
    }

    fn call(
        &self,
        interface: u64,
        method: u16,
        params: Box<dyn ParamsHook>,
        results: Box<dyn ResultsHook>,
    ) -> Promise<(), Error> {
        let caller = Caller::of(&*params);
        if caller.has_left() {
            return Promise::err(cancelled());
        }
        Promise::from_future(caller.until_left(self.0.call(interface, method, params, results)))
    }

    fn get_brand(&self) -> usize {
        0
    }

    /// Its own: a connection that exports both must not take one for the other.
    fn get_ptr(&self) -> usize {
        Rc::as_ptr(&self.0).addr()
    }

    /// None, whatever is guarded: nobody is to go round the guard.
    fn get_resolved(&self) -> Option<Box<dyn ClientHook>> {
        None
    }

    fn when_more_resolved(&self) -> Option<Promise<Box<dyn ClientHook>, Error>> {
        None
    }

    fn when_resolved(&self) -> Promise<(), Error> {
        Promise::ok(())
    }
}
