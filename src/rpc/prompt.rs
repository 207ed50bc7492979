//! A capability whose methods run inside `call`, as far as they go without waiting.
//!
//! **Invariant:** a method that does not wait, and calls `set_pipeline`, has its results before the next
//! message is handled: what is pipelined on them is never queued.

use std::marker::PhantomData;
use std::rc::Rc;

use capnp::any_pointer;
use capnp::capability::{FromServer, Params, Promise, Request, Results, Server};
use capnp::private::capability::{ClientHook, ParamsHook, ResultsHook};
use capnp::{Error as Exception, MessageSize};
use futures::FutureExt;

use crate::stub::new_call;
use crate::vat::{Caller, cancelled};

/// Serves `S` as the capability `C`.
pub struct Prompt<C: FromServer<S>, S> {
    dispatch: C::Dispatch,
    client: PhantomData<C>,
}

impl<C: FromServer<S> + 'static, S: 'static> Prompt<C, S> {
    /// Makes the capability.
    pub fn client(server: Rc<S>) -> C {
        C::new(Box::new(Self::new(C::from_server(server))))
    }

    fn new(dispatch: C::Dispatch) -> Self {
        Self { dispatch, client: PhantomData }
    }
}

impl<C: FromServer<S> + 'static, S: 'static> ClientHook for Prompt<C, S> {
    fn add_ref(&self) -> Box<dyn ClientHook> {
        Box::new(Self::new(self.dispatch.clone()))
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
        let caller = Caller::of(&*params);
        if caller.has_left() {
            return Promise::err(cancelled());
        }
        let (params, results) = (Params::new(params), Results::new(results));
        let dispatch = self.dispatch.clone();
        let mut answer = dispatch.dispatch_call(interface, method, params, results).promise;
        match (&mut answer).now_or_never() {
            Some(Ok(())) => Promise::ok(()),
            Some(Err(error)) => Promise::err(error),
            None => Promise::from_future(caller.until_left(answer)),
        }
    }

    fn get_brand(&self) -> usize {
        0
    }

    fn get_ptr(&self) -> usize {
        self.dispatch.as_ptr()
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
