//! A stub of an object on another thread whose class has a typed interface: calls cross as messages, and so
//! do the references in them.

use capnp::Error as Exception;
use capnp::capability::{FromClientHook, Promise};
use capnp::private::capability::{ClientHook, ParamsHook, ResultsHook};
use capnp::traits::HasTypeId;

use super::connection::Ticket;
use crate::stubborn_capnp::{body, outcome, response, stub};
use crate::vat::{Callee, Caller, guard, settled};

/// The number of the method `fetch`.
const FETCH: u16 = 0;

/// Hands every call to `onward` inside `call`, in order. To its users it is settled, whatever `onward` is:
/// no call ever takes another way.
pub struct Forward {
    onward: Box<dyn ClientHook>,
    _ticket: Option<Ticket>,
}

impl Forward {
    /// Makes the capability of a stub whose calls go to `onward`.
    pub fn client(onward: stub::Client, ticket: Option<Ticket>) -> stub::Client {
        settled(Self { onward: onward.into_client_hook(), _ticket: ticket })
    }

    /// Forwards a fetch. The bodies and WebSockets that pass are guarded, because either
    /// side may stop reading one.
    fn fetch(
        &self,
        params: &dyn ParamsHook,
        mut results: Box<dyn ResultsHook>,
    ) -> Promise<(), Exception> {
        let onward = stub::Client::new(self.onward.add_ref());
        let mut call = onward.fetch_request();
        let written = params.get().and_then(|params| {
            call.set(params.get_as()?)?;
            if call.get().has_web_socket() {
                let web_socket = call.get().get_web_socket()?;
                call.get().set_web_socket(guard(web_socket));
            }
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
                outcome::Response(response) => guard_response(response?),
                outcome::Error(_) => Ok(()),
            }
        })
    }
}

/// Guards what a response has to be called.
fn guard_response(mut response: response::Builder<'_>) -> Result<(), Exception> {
    if response.has_web_socket() {
        let web_socket = response.reborrow().get_web_socket()?;
        response.set_web_socket(guard(web_socket));
    }
    if response.has_body() { guard_rest(response.get_body()?) } else { Ok(()) }
}

/// Guards the source of a body on its way through this vat.
fn guard_rest(mut body: body::Builder<'_>) -> Result<(), Exception> {
    if body.has_rest() {
        let rest = body.reborrow().get_rest()?;
        body.set_rest(guard(rest));
    }
    Ok(())
}

impl Callee for Forward {
    fn call(
        &self,
        caller: Caller,
        interface: u64,
        method: u16,
        params: Box<dyn ParamsHook>,
        results: Box<dyn ResultsHook>,
    ) -> Promise<(), Exception> {
        // To drop the call onward is to cancel it there.
        let answer = match (interface, method) {
            (stub::Client::TYPE_ID, FETCH) => self.fetch(&*params, results),
            _ => self.onward.call(interface, method, params, results),
        };
        Promise::from_future(caller.until_left(answer))
    }
}
