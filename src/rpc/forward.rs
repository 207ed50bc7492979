//! A stub of an object on another thread whose class has a typed interface: calls cross as messages, and so
//! do the references in them.

use std::rc::Rc;

use capnp::any_pointer;
use capnp::capability::{FromClientHook, Promise, Request};
use capnp::private::capability::{ClientHook, ParamsHook, ResultsHook};
use capnp::traits::HasTypeId;
use capnp::{Error as Exception, MessageSize};

use super::connection::Ticket;
use crate::stub::new_call;
use crate::stubborn_capnp::{body, outcome, response, stub};
use crate::vat::{Caller, cancelled, guard};

/// The number of the method `fetch`.
const FETCH: u16 = 0;

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

impl Inner {
    /// Forwards a fetch. The bodies that pass are guarded, because either side may stop reading one.
    fn fetch(
        &self,
        params: &dyn ParamsHook,
        mut results: Box<dyn ResultsHook>,
    ) -> Promise<(), Exception> {
        let onward = stub::Client::new(self.onward.add_ref());
        let mut call = onward.fetch_request();
        let written = params.get().and_then(|params| {
            call.set(params.get_as()?)?;
            match call.get().has_body() {
                true => guard_rest(call.get().get_body()?),
                false => Ok(()),
            }
        });
        if let Err(error) = written {
            return Promise::err(error);
        }
        let answer = call.send().promise;
        Promise::from_future(async move {
            let answer = answer.await?;
            let mut to = results.get()?;
            to.set_as(answer.get()?)?;
            let outcome: outcome::Builder<'_> = to.get_as()?;
            match outcome.which()? {
                outcome::Response(response) if response.as_ref().is_ok_and(has_body) => {
                    guard_rest(response?.get_body()?)
                }
                _ => Ok(()),
            }
        })
    }
}

fn has_body(response: &response::Builder<'_>) -> bool {
    response.has_body()
}

/// Guards the source of a body on its way through this vat.
fn guard_rest(mut body: body::Builder<'_>) -> Result<(), Exception> {
    if body.has_rest() {
        let rest = body.reborrow().get_rest()?;
        body.set_rest(guard(rest));
    }
    Ok(())
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
        let caller = Caller::of(&*params);
        if caller.has_left() {
            return Promise::err(cancelled());
        }
        // To drop the call onward is to cancel it there.
        let answer = match (interface, method) {
            (stub::Client::TYPE_ID, FETCH) => self.0.fetch(&*params, results),
            _ => self.0.onward.call(interface, method, params, results),
        };
        Promise::from_future(caller.until_left(answer))
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
