//! A capability whose methods run inside `call`, as far as they go without waiting.
//!
//! **Invariant:** a method that does not wait, and calls `set_pipeline`, has its results before the next
//! message is handled: what is pipelined on them is never queued.

use std::marker::PhantomData;
use std::rc::Rc;

use capnp::Error as Exception;
use capnp::capability::{FromServer, Params, Promise, Results, Server};
use capnp::private::capability::{ParamsHook, ResultsHook};
use futures::FutureExt;

use crate::vat::{Callee, Caller, settled};

/// Serves `S` as the capability `C`.
pub struct Prompt<C: FromServer<S>, S> {
    dispatch: C::Dispatch,
    client: PhantomData<C>,
}

impl<C: FromServer<S> + 'static, S: 'static> Prompt<C, S> {
    /// Makes the capability.
    pub fn client(server: Rc<S>) -> C {
        settled(Self { dispatch: C::from_server(server), client: PhantomData })
    }
}

impl<C: FromServer<S> + 'static, S: 'static> Callee for Prompt<C, S> {
    fn call(
        &self,
        caller: Caller,
        interface: u64,
        method: u16,
        params: Box<dyn ParamsHook>,
        results: Box<dyn ResultsHook>,
    ) -> Promise<(), Exception> {
        let (params, results) = (Params::new(params), Results::new(results));
        let dispatch = self.dispatch.clone();
        let mut answer = dispatch.dispatch_call(interface, method, params, results).promise;
        match (&mut answer).now_or_never() {
            Some(Ok(())) => Promise::ok(()),
            Some(Err(error)) => Promise::err(error),
            None => Promise::from_future(caller.until_left(answer)),
        }
    }
}
