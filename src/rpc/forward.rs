//! A stub of an object on another thread whose class has a typed interface: calls cross as messages, and so
//! do the references in them.

use std::rc::Rc;

use capnp::any_pointer;
use capnp::capability::{FromClientHook, Promise, Request};
use capnp::private::capability::{ClientHook, ParamsHook, ResultsHook};
use capnp::{Error as Exception, MessageSize};

use super::connection::Ticket;
use crate::stub::new_call;
use crate::stubborn_capnp::stub;

/// Hands every call to `onward` inside `call`, in order. To its users it is settled, whatever `onward` is:
/// no call ever takes another way.
pub struct Forward(Rc<Inner>);

struct Inner {
    onward: Box<dyn ClientHook>,
    _ticket: Option<Ticket>,
}

impl Forward {
    /// Makes the capability of a stub whose calls go to `onward`.
    pub fn client(onward: stub::Client, ticket: Option<Ticket>) -> stub::Client {
        let inner = Inner { onward: onward.into_client_hook(), _ticket: ticket };
        stub::Client::new(Box::new(Self(Rc::new(inner))))
    }
}

impl ClientHook for Forward {
    fn add_ref(&self) -> Box<dyn ClientHook> {
        Box::new(Self(self.0.clone()))
    }

    fn new_call(
        &self,
        interface: u64,
        method: u16,
        size_hint: Option<MessageSize>,
    ) -> Request<any_pointer::Owned, any_pointer::Owned> {
        new_call(self.add_ref(), interface, method, size_hint)
    }

    fn call(
        &self,
        interface: u64,
        method: u16,
        params: Box<dyn ParamsHook>,
        results: Box<dyn ResultsHook>,
    ) -> Promise<(), Exception> {
        self.0.onward.call(interface, method, params, results)
    }

    fn get_brand(&self) -> usize {
        0
    }

    fn get_ptr(&self) -> usize {
        Rc::as_ptr(&self.0) as usize
    }

    fn get_resolved(&self) -> Option<Box<dyn ClientHook>> {
        None
    }

    fn when_more_resolved(&self) -> Option<Promise<Box<dyn ClientHook>, Exception>> {
        None
    }

    fn when_resolved(&self) -> Promise<(), Exception> {
        Promise::ok(())
    }
}
