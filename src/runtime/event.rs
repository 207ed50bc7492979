//! Everything that can reach an object, as one closed type.
//!
//! **Invariant:** every event is answered exactly once: by its object, or by whoever drops it with a reason.

use std::rc::Rc;
use std::task::{Context, Poll};

use futures::channel::oneshot;

use super::alarms::Slot;
use super::shard::{Parcel, Shard};
use crate::error::{Error, Result};
use crate::message::{Request, Response};
use crate::object::{Accepted, TypedCall, TypedOutcome, typed_failure};
use crate::schedule::Tries;

/// Who waits for the answer of a fetch, on whichever thread.
pub type Answer = oneshot::Sender<Result<Response>>;

/// Where the answer of a fetch goes.
pub struct Reply {
    answer: Answer,
    /// The thread of whoever waits, where it is another: answers travel there together.
    away: Option<(Rc<Shard>, usize)>,
}

impl Reply {
    /// Makes the reply to somebody on this thread.
    pub fn here(answer: Answer) -> Self {
        Self { answer, away: None }
    }

    /// Makes the reply to somebody on shard `to`, as sent from `shard`.
    pub fn away(answer: Answer, shard: Rc<Shard>, to: usize) -> Self {
        Self { answer, away: Some((shard, to)) }
    }

    /// Answers. Nobody may be left to hear it.
    pub fn send(self, outcome: Result<Response>) {
        match self.away {
            None => drop(self.answer.send(outcome)),
            Some((shard, to)) => shard.post(to, Parcel::Answer { answer: self.answer, outcome }),
        }
    }

    /// Returns whether nobody waits for the answer any more.
    pub fn is_canceled(&self) -> bool {
        self.answer.is_canceled()
    }

    /// Is ready when nobody waits for the answer any more.
    pub fn poll_canceled(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.answer.poll_canceled(context)
    }
}

/// Where the completion of a typed call goes. Its results were written where they belong.
pub type TypedReply = oneshot::Sender<TypedOutcome>;

/// Where it goes that an alarm was handled, or why it was not.
pub type AlarmReply = oneshot::Sender<Result<()>>;

/// Something that reaches an object.
pub enum Event {
    /// A request, to be answered with a response.
    Fetch {
        /// The request, valid. Boxed, because it moves a dozen times on its way.
        request: Box<Request>,
        /// Where the response goes.
        reply: Reply,
    },
    /// A method of the author's own interface.
    Typed {
        /// The call.
        call: TypedCall,
        /// Where its completion goes.
        reply: TypedReply,
    },
    /// The object's alarm is due.
    Alarm {
        /// Tries that ended with the object's reset: its storage does not know of them.
        tries: Tries,
        /// Where it goes that it was handled.
        reply: AlarmReply,
        /// Its place among those on their way, until it enters.
        slot: Option<Slot>,
    },
    /// A WebSocket has something to take: a message, or its end. Nobody waits for an answer.
    Socket {
        /// The WebSocket. What it has stays there until the event enters.
        accepted: Rc<Accepted>,
    },
}

impl Event {
    /// Answers it with `error`. `delivered` is the error's own.
    pub fn fail(self, error: Error) {
        match self {
            Self::Fetch { reply, .. } => reply.send(Err(error)),
            Self::Typed { reply, .. } => drop(reply.send(typed_failure(error))),
            Self::Alarm { reply, .. } => drop(reply.send(Err(error))),
            // Only a broken object fails one, and with it goes the WebSocket.
            Self::Socket { .. } => {}
        }
    }

    /// Returns whether nobody waits for the answer any more.
    pub fn is_abandoned(&self) -> bool {
        match self {
            Self::Fetch { reply, .. } => reply.is_canceled(),
            Self::Typed { reply, .. } => reply.is_canceled(),
            Self::Alarm { reply, .. } => reply.is_canceled(),
            Self::Socket { .. } => false,
        }
    }

    /// Returns whether it counts among the events that may wait for an object. Those of WebSockets do not:
    /// each has at most one.
    pub fn is_counted(&self) -> bool {
        !matches!(self, Self::Socket { .. })
    }

    /// Returns about how many bytes it holds while it waits.
    pub fn bytes(&self) -> usize {
        const OVERHEAD: usize = 512;
        let held = match self {
            Self::Fetch { request, .. } => request.body().known().map_or(0, bytes::Bytes::len),
            Self::Typed { call, .. } => call.bytes(),
            Self::Alarm { .. } | Self::Socket { .. } => 0,
        };
        OVERHEAD + held
    }
}
