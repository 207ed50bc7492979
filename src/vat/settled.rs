//! A capability that is what it is: no promise, and every call enters it inside `call`.
//!
//! **Invariant:** nobody is ever led round it: calls made on it keep their order, whatever it does with them.

use std::rc::Rc;

use capnp::any_pointer;
use capnp::capability::{FromClientHook, Promise, Request};
use capnp::private::capability::{ClientHook, ParamsHook, ResultsHook};
use capnp::{Error, MessageSize};
use futures::FutureExt;

use super::call::{Caller, cancelled};

/// Takes the calls made on one capability.
pub trait Callee: 'static {
    /// Takes a call of `caller`, who has not left yet. Whatever decides its order happens before this returns.
    fn call(
        &self,
        caller: Caller,
        interface: u64,
        method: u16,
        params: Box<dyn ParamsHook>,
        results: Box<dyn ResultsHook>,
    ) -> Promise<(), Error>;
}

/// Makes the capability whose calls `callee` takes; it is dropped with the last reference.
pub fn settled<C: FromClientHook>(callee: impl Callee) -> C {
    C::new(Box::new(Settled(Rc::new(callee))))
}

struct Settled<T>(Rc<T>);

impl<T: Callee> ClientHook for Settled<T> {
    fn add_ref(&self) -> Box<dyn ClientHook> {
        Box::new(Self(Rc::clone(&self.0)))
    }

    /// Makes a request as who is in the same vat needs one. The library's own local request fits, and is to
    /// be had through a promise client that has resolved.
    fn new_call(
        &self,
        interface: u64,
        method: u16,
        size_hint: Option<MessageSize>,
    ) -> Request<any_pointer::Owned, any_pointer::Owned> {
        let resolved = std::future::ready(Ok(capnp::capability::Client::new(self.add_ref())));
        let client: capnp::capability::Client = capnp_rpc::new_future_client(resolved);
        let drive = client.as_client_hook().when_more_resolved();
        drive.and_then(FutureExt::now_or_never);
        client.hook.new_call(interface, method, size_hint)
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
        self.0.call(caller, interface, method, params, results)
    }

    fn get_brand(&self) -> usize {
        0
    }

    fn get_ptr(&self) -> usize {
        Rc::as_ptr(&self.0).addr()
    }

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
