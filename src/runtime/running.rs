//! One event inside its object: the author's handler, and what follows from it.
//!
//! **Invariant:** a panic of the author's code ends here. `remote` is set here, and by `object::state` where an object
//! resets itself.
//! **Invariant:** what a handler returns after it reset its object is dropped: the reason is the answer.
//! **Invariant:** every answer, chunk and end of a body passes the outbox.

use std::any::Any;
use std::fmt::Display;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use futures::FutureExt;
use futures::future::LocalBoxFuture;
use http::StatusCode;

use super::container::Container;
use super::event::{AlarmReply, Reply, TypedReply};
use super::interior::Interior;
use super::journal::Entry;
use super::lane::Lane;
use crate::error::{Error, Result};
use crate::gate::{Outbox, Owner, leaving, leaving_socket};
use crate::limits::Limits;
use crate::message::{self, Response};
use crate::object::{Accepted, Signal, TypedOutcome, typed_failure};
use crate::schedule::Failure;
use crate::socket::{self, Ending};
use crate::storage::object::ObjectStorage;

/// How an event left its object.
pub enum Ended {
    /// Answered, or nobody waits for an answer.
    Done,
    /// A streaming call ended: what was held back on its stub may enter.
    Released(Rc<Lane>),
    /// An event of a WebSocket was handled; how the WebSocket ended, where it did.
    Heard(Rc<Accepted>, Option<Ending>),
    /// The author's code panicked with this message.
    Panicked(String),
}

/// One event, or task, inside its object.
pub struct Running {
    step: Step,
    answering: Answering,
}

/// What a handler runs in, and by which number its code is known there.
pub struct Answering {
    pub owner: Owner,
    pub interior: Rc<Interior>,
    pub container: Rc<Container>,
    pub limits: Rc<Limits>,
    /// The event that it handles; none for a task.
    pub entry: Option<Entry>,
}

impl Answering {
    /// Notes how the handler ended.
    fn note<E: Display>(&self, failure: Option<&E>) {
        let failure = failure.map(|failure| failure as &dyn Display);
        self.entry.iter().for_each(|entry| entry.end(&self.container, failure));
    }
}

enum Step {
    Fetch(Fetch),
    Typed(Typed),
    Alarm(Alarm),
    Socket(Heard),
    /// A task that a handler left behind, or the pump of a response's body.
    Task(LocalBoxFuture<'static, ()>),
}

struct Fetch {
    handler: LocalBoxFuture<'static, Result<Response>>,
    reply: Option<Reply>,
    signal: Signal,
    method: http::Method,
}

struct Typed {
    handler: LocalBoxFuture<'static, TypedOutcome>,
    reply: Option<TypedReply>,
    holds: Option<Rc<Lane>>,
}

struct Alarm {
    handler: LocalBoxFuture<'static, Result<()>>,
    reply: Option<AlarmReply>,
    storage: Rc<ObjectStorage>,
    random: u64,
}

struct Heard {
    handler: LocalBoxFuture<'static, Result<()>>,
    accepted: Rc<Accepted>,
    ending: Option<Ending>,
}

impl Running {
    pub fn fetch(
        handler: LocalBoxFuture<'static, Result<Response>>,
        reply: Reply,
        signal: Signal,
        method: http::Method,
        answering: Answering,
    ) -> Self {
        let reply = Some(reply);
        Self { step: Step::Fetch(Fetch { handler, reply, signal, method }), answering }
    }

    /// `holds` is the stub whose later calls wait for this one.
    pub fn typed(
        handler: LocalBoxFuture<'static, TypedOutcome>,
        reply: TypedReply,
        holds: Option<Rc<Lane>>,
        answering: Answering,
    ) -> Self {
        Self { step: Step::Typed(Typed { handler, reply: Some(reply), holds }), answering }
    }

    /// `random` decides when a failure is followed by another try.
    pub fn alarm(
        handler: LocalBoxFuture<'static, Result<()>>,
        reply: AlarmReply,
        storage: Rc<ObjectStorage>,
        random: u64,
        answering: Answering,
    ) -> Self {
        let max = answering.limits.alarm_timeout;
        let bounded = async move {
            let late = |_| Err(Error::timeout(format!("the alarm's handler took over {max:?}")));
            tokio::time::timeout(max, handler).await.unwrap_or_else(late)
        };
        let (handler, reply) = (bounded.boxed_local(), Some(reply));
        Self { step: Step::Alarm(Alarm { handler, reply, storage, random }), answering }
    }

    /// `ending` is what the event tells of, where that is the WebSocket's end.
    pub fn socket(
        handler: LocalBoxFuture<'static, Result<()>>,
        accepted: Rc<Accepted>,
        ending: Option<Ending>,
        answering: Answering,
    ) -> Self {
        Self { step: Step::Socket(Heard { handler, accepted, ending }), answering }
    }

    pub fn task(task: LocalBoxFuture<'static, ()>, answering: Answering) -> Self {
        Self { step: Step::Task(task), answering }
    }

    /// Answers it with `reason`, because its object is broken.
    pub fn fail(mut self, reason: &Error) {
        self.step.fail(reason);
    }
}

impl Future for Running {
    type Output = Ended;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Ended> {
        let entrance = self.answering.interior.entrance.clone();
        let owner = self.answering.owner;
        if !entrance.admits(owner) {
            entrance.wait_as(owner, context.waker());
            return Poll::Pending;
        }
        let step = || entrance.run_as(owner, || self.step(context));
        match catch_unwind(AssertUnwindSafe(step)) {
            Ok(polled) => polled,
            Err(payload) => Poll::Ready(self.panicked(panic_message(&*payload))),
        }
    }
}

impl Running {
    /// Resets the object and answers with the reason, before whoever polls this drops it.
    fn panicked(&mut self, message: String) -> Ended {
        if !matches!(self.step, Step::Task(_)) {
            let container = &self.answering.container;
            container.break_with(theirs(Error::failed(message.as_str())));
            if let Some(reason) = container.broken() {
                self.step.fail(&reason);
            }
        }
        Ended::Panicked(message)
    }

    fn step(&mut self, context: &mut Context<'_>) -> Poll<Ended> {
        let answering = &self.answering;
        loop {
            let next = match &mut self.step {
                Step::Fetch(fetch) => ready!(fetch.poll(answering, context)),
                Step::Typed(typed) => return typed.poll(answering, context),
                Step::Alarm(alarm) => return alarm.poll(answering, context),
                Step::Socket(heard) => return heard.poll(answering, context),
                Step::Task(task) => {
                    ready!(task.as_mut().poll(context));
                    return Poll::Ready(Ended::Done);
                }
            };
            match next {
                Some(pump) => self.step = Step::Task(pump),
                None => return Poll::Ready(Ended::Done),
            }
        }
    }
}

impl Step {
    fn fail(&mut self, reason: &Error) {
        match self {
            Self::Fetch(Fetch { reply, .. }) => {
                reply.take().into_iter().for_each(|reply| reply.send(Err(reason.clone())));
            }
            Self::Typed(Typed { reply, .. }) => {
                let reply = reply.take().into_iter();
                reply.for_each(|reply| drop(reply.send(typed_failure(reason.clone()))));
            }
            Self::Alarm(Alarm { reply, .. }) => {
                let reply = reply.take().into_iter();
                reply.for_each(|reply| drop(reply.send(Err(reason.clone()))));
            }
            Self::Socket(_) | Self::Task(_) => {}
        }
    }
}

impl Fetch {
    /// Answers, once what was written before is durable; yields the pump of the response's body where it is
    /// not at hand.
    fn poll(
        &mut self,
        answering: &Answering,
        context: &mut Context<'_>,
    ) -> Poll<Option<LocalBoxFuture<'static, ()>>> {
        let Poll::Ready(outcome) = self.handler.as_mut().poll(context) else {
            watch_caller(&mut self.reply, &self.signal, context);
            return Poll::Pending;
        };
        if let Some(reason) = answering.container.broken() {
            if let Some(reply) = self.reply.take() {
                reply.send(Err(reason));
            }
            return Poll::Ready(None);
        }
        let limits = &answering.limits;
        let outcome = outcome.map_err(theirs).and_then(|response| {
            let response = message::normalize(response, &self.method);
            message::validate_response(&response, limits).map_err(theirs)?;
            has_its_web_socket(response)
        });
        answering.note(outcome.as_ref().err());
        let outbox = &answering.interior.outbox;
        let (outcome, pump) = match outcome {
            Ok(mut response) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                let pump = web_socket_leaves(&mut response, limits, outbox);
                (Ok(response), pump)
            }
            Ok(response) if response.body().known().is_none() => {
                let (head, body) = response.into_parts();
                let (piped, pump) = leaving(body, limits.stream_window_bytes, outbox.clone());
                (Ok(Response::from_parts(head, piped)), Some(pump.boxed_local()))
            }
            outcome => (outcome, None),
        };
        if let Some(reply) = self.reply.take() {
            // Nobody waiting means nobody reads the body: the pump ends at its first write.
            outbox.send(move |verdict| match verdict {
                Ok(()) => reply.send(outcome),
                Err(reason) => reply.send(Err(reason.clone())),
            });
        }
        Poll::Ready(pump)
    }
}

impl Typed {
    fn poll(&mut self, answering: &Answering, context: &mut Context<'_>) -> Poll<Ended> {
        let outcome = ready!(self.handler.as_mut().poll(context));
        let outcome = match answering.container.broken() {
            Some(reason) => typed_failure(reason),
            None => {
                answering.note(outcome.as_ref().err());
                outcome
            }
        };
        if let Some(reply) = self.reply.take() {
            answering.interior.outbox.send(move |verdict| {
                let outcome =
                    verdict.map_or_else(|reason| typed_failure(reason.clone()), |()| outcome);
                let _ = reply.send(outcome);
            });
        }
        Poll::Ready(match self.holds.take() {
            Some(lane) => Ended::Released(lane),
            None => Ended::Done,
        })
    }
}

impl Alarm {
    /// Tells the object's storage how it ended, and whoever rang it once that is durable.
    fn poll(&mut self, answering: &Answering, context: &mut Context<'_>) -> Poll<Ended> {
        let outcome = ready!(self.handler.as_mut().poll(context));
        if let Some(reason) = answering.container.broken() {
            // Whose failure it was decides whether it counts.
            if let Some(reply) = self.reply.take() {
                let _ = reply.send(Err(reason));
            }
            return Poll::Ready(Ended::Done);
        }
        answering.note(outcome.as_ref().err());
        let outcome = outcome.map_err(|error| {
            tracing::warn!(object = %answering.container.key().id, %error, "an alarm failed");
            Failure::Counted
        });
        if let Err(error) = self.storage.rang(outcome, self.random) {
            answering.container.break_with(error);
        }
        if let Some(reply) = self.reply.take() {
            answering.interior.outbox.send(move |verdict| {
                let _ = reply.send(verdict.map_err(Clone::clone));
            });
        }
        Poll::Ready(Ended::Done)
    }
}

impl Heard {
    fn poll(&mut self, answering: &Answering, context: &mut Context<'_>) -> Poll<Ended> {
        let outcome = ready!(self.handler.as_mut().poll(context));
        answering.note(outcome.as_ref().err());
        if let Err(error) = outcome
            && !answering.container.is_broken()
        {
            let object = answering.container.key().id;
            tracing::warn!(%object, %error, "an event of a WebSocket failed");
        }
        Poll::Ready(Ended::Heard(self.accepted.clone(), self.ending.take()))
    }
}

/// Checks that a response opens a WebSocket exactly where its status says so.
fn has_its_web_socket(response: Response) -> Result<Response> {
    let opens = socket::is_attached(response.extensions());
    match (response.status(), opens) {
        (StatusCode::SWITCHING_PROTOCOLS, false) => {
            Err(theirs(Error::failed("a response of status 101 has no WebSocket")))
        }
        (status, true) if status != StatusCode::SWITCHING_PROTOCOLS => {
            Err(theirs(Error::failed(format!("a response of status {status} has a WebSocket"))))
        }
        _ => Ok(response),
    }
}

/// Sees to it that what comes out of the response's WebSocket passes the outbox. That of a hibernatable one does
/// already; any other is pumped, which keeps the object in memory.
fn web_socket_leaves(
    response: &mut Response,
    limits: &Limits,
    outbox: &Rc<Outbox>,
) -> Option<LocalBoxFuture<'static, ()>> {
    let end = socket::detach(response.extensions_mut())?;
    if end.reader().is_gated() {
        socket::attach(response.extensions_mut(), end);
        return None;
    }
    let (far, pump) = leaving_socket(end, limits, outbox.clone());
    socket::attach(response.extensions_mut(), far);
    Some(pump.boxed_local())
}

/// Marks an error as raised by the object's own code. What another object's error said of *that*
/// object's fate does not hold for this one.
pub fn theirs(error: Error) -> Error {
    error.with_remote(true).with_reset(false).with_delivered(true)
}

/// Raises the signal where the caller has gone, and holds nothing more for it.
fn watch_caller(reply: &mut Option<Reply>, signal: &Signal, context: &mut Context<'_>) {
    if let Some(waiting) = reply
        && waiting.poll_canceled(context).is_ready()
    {
        *reply = None;
        signal.raise();
    }
}

/// Returns what a panic said.
pub fn panic_message(payload: &(dyn Any + Send)) -> String {
    let text = payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    format!("the object panicked: {}", text.unwrap_or("no message"))
}
