//! The server's end of a stub.

use std::rc::Rc;

use capnp::Error as Exception;
use capnp::capability::Promise;
use capnp::private::capability::{ParamsHook, ResultsHook};
use capnp::traits::HasTypeId;
use futures::channel::oneshot;

use super::connection::Ticket;
use crate::error::Error;
use crate::limits::Limits;
use crate::object::TypedCall;
use crate::runtime::{Event, Lane, RemoteLane, Reply};
use crate::stub::{Referent, wire};
use crate::stubborn_capnp::{outcome, stub};
use crate::vat::{Callee, Caller, settled};

/// The way from a stub to its object. It is chosen when the stub is made and never changes, so that the
/// order of calls can't fork.
pub enum Route {
    /// The object lives on this thread.
    Local(Rc<Lane>),
    /// The object lives on another thread, and its class has no typed interface: owned values cross.
    Remote(RemoteLane),
    /// There is no such object in this namespace.
    Refused(Error),
}

/// The server's end of a stub.
pub struct StubHook {
    route: Route,
    referent: Referent,
    limits: Rc<Limits>,
    _ticket: Option<Ticket>,
}

impl StubHook {
    /// Makes the capability of a stub.
    pub fn client(
        route: Route,
        referent: Referent,
        limits: Rc<Limits>,
        ticket: Option<Ticket>,
    ) -> stub::Client {
        settled(Self { route, referent, limits, _ticket: ticket })
    }

    fn fetch(
        &self,
        caller: Caller,
        params: Box<dyn ParamsHook>,
        mut results: Box<dyn ResultsHook>,
    ) -> Promise<(), Exception> {
        let limits = self.limits.clone();
        let mut peer = None;
        let request = params
            .get()
            .and_then(|params| params.get_as())
            .map_err(Error::from)
            .and_then(|params| {
                peer = wire::read_web_socket(params);
                wire::read_request(params, &limits, None)
            })
            .map(Box::new);
        drop(params);
        let (waiting, answer) = oneshot::channel();
        match (request, &self.route) {
            (Err(error), _) => drop(waiting.send(Err(error))),
            (Ok(_), Route::Refused(error)) => drop(waiting.send(Err(error.clone()))),
            (Ok(request), Route::Local(lane)) => {
                lane.send(Event::Fetch { request, reply: Reply::here(waiting) });
            }
            (Ok(request), Route::Remote(lane)) => lane.fetch(request, waiting),
        }
        Promise::from_future(caller.until_left(async move {
            let outcome = answer.await.unwrap_or_else(|_| Err(dropped()));
            let to: outcome::Builder<'_> = results.get()?.init_as();
            wire::write_outcome(to, outcome, peer, &limits);
            Ok(())
        }))
    }

    /// The results are the handler's: a call that is cancelled while it runs ends when the handler does.
    fn typed(&self, caller: Caller, call: TypedCall) -> Promise<(), Exception> {
        let (reply, answer) = oneshot::channel();
        match &self.route {
            Route::Local(lane) => lane.send(Event::Typed { call, reply }),
            Route::Refused(error) => return Promise::err(error.clone().into()),
            Route::Remote(_) => {
                let text = "the object's class serves no typed interface".to_owned();
                return Promise::err(Exception::unimplemented(text));
            }
        }
        Promise::from_future(
            caller
                .until_left(async move { answer.await.unwrap_or_else(|_| Err(dropped().into())) }),
        )
    }

    fn identity(&self, mut results: Box<dyn ResultsHook>) -> Result<(), Exception> {
        if let Route::Refused(error) = &self.route {
            return Err(error.clone().into());
        }
        let mut to: stub::identity_results::Builder<'_> = results.get()?.init_as();
        to.set_namespace(self.referent.namespace.as_str());
        to.set_id(self.referent.id.as_bytes());
        if let Some(name) = &self.referent.name {
            to.set_name(name.as_str());
        }
        Ok(())
    }

    fn broken(&self, caller: Caller, mut results: Box<dyn ResultsHook>) -> Promise<(), Exception> {
        let (watcher, told) = oneshot::channel();
        match &self.route {
            Route::Local(lane) => lane.watch(watcher),
            Route::Remote(lane) => lane.watch(watcher),
            Route::Refused(error) => drop(watcher.send(error.clone())),
        }
        Promise::from_future(caller.until_left(async move {
            let reason = told.await.map_err(|_| Exception::from(dropped()))?;
            let to: stub::broken_results::Builder<'_> = results.get()?.init_as();
            wire::write_error(to.init_error(), &reason);
            Ok(())
        }))
    }
}

/// Why nobody answered: only a thread that has ended drops events unanswered.
fn dropped() -> Error {
    Error::disconnected("the server has stopped").with_delivered(true)
}

impl Callee for StubHook {
    fn call(
        &self,
        caller: Caller,
        interface: u64,
        method: u16,
        params: Box<dyn ParamsHook>,
        results: Box<dyn ResultsHook>,
    ) -> Promise<(), Exception> {
        if interface != stub::Client::TYPE_ID {
            return self.typed(caller, TypedCall::new(interface, method, params, results));
        }
        match method {
            0 => self.fetch(caller, params, results),
            1 => match self.identity(results) {
                Ok(()) => Promise::ok(()),
                Err(error) => Promise::err(error),
            },
            2 => self.broken(caller, results),
            _ => Promise::err(Exception::unimplemented(format!("Stub has no method {method}"))),
        }
    }
}
