//! One event inside its object: the author's handler, and what follows from it.
//!
//! **Invariant:** a panic of the author's code ends here. `remote` is set here, and by `object::state` where an object resets itself.
//! **Invariant:** what a handler returns after it reset its object is dropped: the reason is the answer.

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::LocalBoxFuture;

use super::container::Container;
use super::event::{Reply, TypedReply};
use super::lane::Lane;
use crate::body::Body;
use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::message::{self, Response};
use crate::object::{Signal, TypedOutcome, typed_failure};

/// How an event left its object.
pub enum Ended {
    /// Answered, or nobody waits for an answer.
    Done,
    /// A streaming call ended: what was held back on its stub may enter.
    Released(Rc<Lane>),
    /// The author's code panicked with this message.
    Panicked(String),
}

/// One event inside its object.
pub struct Running(Step);

enum Step {
    Fetch(Fetch),
    Typed(Typed),
    /// A task that a handler left behind, or the pump of a response's body.
    Task(LocalBoxFuture<'static, ()>),
}

struct Fetch {
    handler: LocalBoxFuture<'static, Result<Response>>,
    reply: Option<Reply>,
    signal: Signal,
    method: http::Method,
    limits: Rc<Limits>,
    container: Rc<Container>,
}

struct Typed {
    handler: LocalBoxFuture<'static, TypedOutcome>,
    reply: Option<TypedReply>,
    holds: Option<Rc<Lane>>,
    container: Rc<Container>,
}

impl Running {
    pub fn fetch(
        handler: LocalBoxFuture<'static, Result<Response>>,
        reply: Reply,
        signal: Signal,
        method: http::Method,
        limits: Rc<Limits>,
        container: Rc<Container>,
    ) -> Self {
        let reply = Some(reply);
        Self(Step::Fetch(Fetch { handler, reply, signal, method, limits, container }))
    }

    /// `holds` is the stub whose later calls wait for this one.
    pub fn typed(
        handler: LocalBoxFuture<'static, TypedOutcome>,
        reply: TypedReply,
        holds: Option<Rc<Lane>>,
        container: Rc<Container>,
    ) -> Self {
        Self(Step::Typed(Typed { handler, reply: Some(reply), holds, container }))
    }

    pub fn task(task: LocalBoxFuture<'static, ()>) -> Self {
        Self(Step::Task(task))
    }

    /// Answers it with `reason`, because its object is broken.
    pub fn fail(self, reason: &Error) {
        match self.0 {
            Step::Fetch(Fetch { reply: Some(reply), .. }) => reply.send(Err(reason.clone())),
            Step::Typed(Typed { reply: Some(reply), .. }) => {
                drop(reply.send(typed_failure(reason.clone())));
            }
            _ => {}
        }
    }
}

impl Future for Running {
    type Output = Ended;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Ended> {
        match catch_unwind(AssertUnwindSafe(|| self.step(context))) {
            Ok(polled) => polled,
            Err(payload) => Poll::Ready(self.panicked(panic_message(&*payload))),
        }
    }
}

impl Running {
    /// Resets the object and answers with the reason, before whoever polls this drops it.
    fn panicked(&mut self, message: String) -> Ended {
        match &mut self.0 {
            Step::Fetch(Fetch { reply, container, .. }) => {
                container.break_with(theirs(Error::failed(message.as_str())));
                if let (Some(reply), Some(reason)) = (reply.take(), container.broken()) {
                    reply.send(Err(reason));
                }
            }
            Step::Typed(Typed { reply, container, .. }) => {
                container.break_with(theirs(Error::failed(message.as_str())));
                if let (Some(reply), Some(reason)) = (reply.take(), container.broken()) {
                    let _ = reply.send(typed_failure(reason));
                }
            }
            Step::Task(_) => {}
        }
        Ended::Panicked(message)
    }

    fn step(&mut self, context: &mut Context<'_>) -> Poll<Ended> {
        loop {
            let next = match &mut self.0 {
                Step::Fetch(fetch) => ready!(fetch.poll(context)),
                Step::Typed(typed) => return typed.poll(context),
                Step::Task(task) => {
                    ready!(task.as_mut().poll(context));
                    return Poll::Ready(Ended::Done);
                }
            };
            match next {
                Some(pump) => self.0 = Step::Task(pump),
                None => return Poll::Ready(Ended::Done),
            }
        }
    }
}

impl Fetch {
    /// Answers; yields the pump of the response's body where it is not at hand.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<LocalBoxFuture<'static, ()>>> {
        let Poll::Ready(outcome) = self.handler.as_mut().poll(context) else {
            watch_caller(&mut self.reply, &self.signal, context);
            return Poll::Pending;
        };
        if let Some(reason) = self.container.broken() {
            if let Some(reply) = self.reply.take() {
                reply.send(Err(reason));
            }
            return Poll::Ready(None);
        }
        let outcome = outcome.map_err(theirs).and_then(|response| {
            let response = message::normalize(response, &self.method);
            message::validate_response(&response, &self.limits).map_err(theirs)?;
            Ok(response)
        });
        let (outcome, pump) = match outcome {
            Ok(response) if response.body().known().is_none() => {
                let (head, body) = response.into_parts();
                let (piped, pump) = pump(body, self.limits.stream_window_bytes);
                (Ok(Response::from_parts(head, piped)), Some(pump))
            }
            outcome => (outcome, None),
        };
        if let Some(reply) = self.reply.take() {
            // Nobody waiting means nobody reads the body: the pump ends at its first write.
            reply.send(outcome);
        }
        Poll::Ready(pump)
    }
}

impl Typed {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Ended> {
        let outcome = ready!(self.handler.as_mut().poll(context));
        let outcome = match self.container.broken() {
            Some(reason) => typed_failure(reason),
            None => outcome,
        };
        if let Some(reply) = self.reply.take() {
            let _ = reply.send(outcome);
        }
        Poll::Ready(match self.holds.take() {
            Some(lane) => Ended::Released(lane),
            None => Ended::Done,
        })
    }
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

/// Returns the far end of `body`, and the task that moves its bytes there, on the object's own thread.
///
/// When the object is reset the task is dropped, and the reader sees a body cut short.
fn pump(mut body: Body, window: usize) -> (Body, LocalBoxFuture<'static, ()>) {
    let length = body.length();
    let (mut writer, far_end) = Body::pipe(window);
    let far_end = Body::prefixed(Bytes::new(), far_end, length);
    let task = async move {
        // Nothing waits in memory for a reader who has not begun to read.
        writer.wanted().await;
        loop {
            let chunk = tokio::select! { biased;
                () = writer.closed() => return,
                chunk = body.chunk() => chunk,
            };
            match chunk {
                Some(Ok(chunk)) => {
                    if writer.write(chunk).await.is_err() {
                        return;
                    }
                }
                Some(Err(error)) => return writer.fail(error),
                None => return writer.finish(),
            }
        }
    };
    (far_end, task.boxed_local())
}

/// Returns what a panic said.
pub fn panic_message(payload: &(dyn Any + Send)) -> String {
    let text = payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    format!("the object panicked: {}", text.unwrap_or("no message"))
}
