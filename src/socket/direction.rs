//! One direction of a WebSocket: a bounded queue of messages, then one end.
//!
//! **Invariant:** the reader takes every message that was pushed, in order, then the one end, which repeats.
//! **Invariant:** nothing foreign runs under the lock: wakers are woken and dropped after it.

use std::collections::VecDeque;
use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use super::close::{CloseFrame, Closed};
use super::message::Message;
use crate::error::{Error, Result};

/// How one direction ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Ending {
    /// By a close frame.
    Closed(CloseFrame),
    /// Without one: the link was lost.
    Lost,
    /// The sender broke a rule: this is what it is told.
    Broken(CloseFrame),
}

impl Ending {
    /// Returns what its reader is told.
    pub fn closed(&self) -> Closed {
        let (code, reason, was_clean) = match self {
            Self::Closed(frame) => (frame.code(), frame.reason(), true),
            Self::Broken(frame) => (frame.code(), frame.reason(), false),
            Self::Lost => (CloseFrame::LOST, "", false),
        };
        Closed { code, reason: reason.into(), was_clean }
    }
}

/// What a reader takes.
#[derive(Clone, Debug, PartialEq)]
pub enum Taken {
    /// The next message.
    Message(Message),
    /// There are no more.
    Ended(Ending),
}

/// One direction of a WebSocket.
pub(super) struct Direction {
    state: Mutex<State>,
}

struct State {
    queue: VecDeque<Message>,
    bytes: usize,
    /// Bytes that a writer has announced and not pushed.
    announced: usize,
    message_bytes_max: usize,
    queue_bytes_max: usize,
    ending: Option<Ending>,
    reader_gone: bool,
    /// Its writer sees to it that nothing leaves an object too early.
    gated: bool,
    reader: Option<Waker>,
    writers: Vec<Waker>,
}

impl Direction {
    pub(super) fn new(message_bytes_max: usize, queue_bytes_max: usize) -> Self {
        let state = State {
            queue: VecDeque::new(),
            bytes: 0,
            announced: 0,
            message_bytes_max,
            queue_bytes_max,
            ending: None,
            reader_gone: false,
            gated: false,
            reader: None,
            writers: Vec::new(),
        };
        Self { state: Mutex::new(state) }
    }

    /// Nothing panics under the lock, so a poisoned one still holds a good state.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn bound(&self, message_bytes_max: usize, queue_bytes_max: usize) {
        let mut state = self.lock();
        state.message_bytes_max = message_bytes_max;
        state.queue_bytes_max = queue_bytes_max;
    }

    pub(super) fn set_gated(&self) {
        self.lock().gated = true;
    }

    pub(super) fn is_gated(&self) -> bool {
        self.lock().gated
    }

    /// Returns why a message of `bytes` can't be sent; none where it can.
    pub(super) fn refusal(&self, bytes: usize) -> Option<Error> {
        self.lock().refusal(bytes)
    }

    /// Appends a message, however much waits.
    pub(super) fn push(&self, message: Message) -> Result<()> {
        let waker = {
            let mut state = self.lock();
            if let Some(error) = state.refusal(message.len()) {
                return Err(error);
            }
            state.bytes += cost(message.len());
            state.queue.push_back(message);
            state.reader.take()
        };
        waker.into_iter().for_each(Waker::wake);
        Ok(())
    }

    /// Announces a message of `bytes`, where there is room for it.
    pub(super) fn announce(&self, bytes: usize) -> Result<()> {
        let mut state = self.lock();
        if let Some(error) = state.refusal(bytes) {
            return Err(error);
        }
        let waiting = state.bytes + state.announced;
        if waiting > 0 && waiting + cost(bytes) > state.queue_bytes_max {
            let max = state.queue_bytes_max;
            return Err(Error::overloaded(format!(
                "{waiting} bytes wait for the peer of the WebSocket, of at most {max}"
            )));
        }
        state.announced += cost(bytes);
        Ok(())
    }

    /// Takes back what was announced; what is then pushed counts itself.
    pub(super) fn unannounce(&self, bytes: usize) {
        let mut state = self.lock();
        state.announced = state.announced.saturating_sub(cost(bytes));
    }

    /// Returns how many bytes wait, and are announced.
    pub(super) fn waiting_bytes(&self) -> usize {
        let state = self.lock();
        state.bytes + state.announced
    }

    /// Is ready when there is room for more, or nobody takes anything any more.
    pub(super) fn poll_room(&self, context: &Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        if state.bytes < state.queue_bytes_max || state.is_over() {
            return Poll::Ready(());
        }
        state.wait(context)
    }

    /// Is ready when nothing more is sent, or nobody takes anything any more.
    pub(super) fn poll_over(&self, context: &Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        if state.is_over() {
            return Poll::Ready(());
        }
        state.wait(context)
    }

    /// Ends it; the first end counts.
    pub(super) fn end(&self, ending: Ending) {
        let (reader, writers) = {
            let mut state = self.lock();
            if state.ending.is_some() {
                return;
            }
            state.ending = Some(ending);
            (state.reader.take(), mem::take(&mut state.writers))
        };
        reader.into_iter().chain(writers).for_each(Waker::wake);
    }

    pub(super) fn is_ended(&self) -> bool {
        self.lock().ending.is_some()
    }

    /// Takes the next message, or the end.
    pub(super) fn poll_take(&self, context: &Context<'_>) -> Poll<Taken> {
        let taken = {
            let mut state = self.lock();
            match state.take() {
                Some(taken) => taken,
                None => {
                    let stale = state.reader.replace(context.waker().clone());
                    drop(state);
                    drop(stale);
                    return Poll::Pending;
                }
            }
        };
        let (taken, writers) = taken;
        writers.into_iter().for_each(Waker::wake);
        Poll::Ready(taken)
    }

    /// Is ready when there is something to take.
    pub(super) fn poll_ready(&self, waker: &Waker) -> Poll<()> {
        let mut state = self.lock();
        if !state.queue.is_empty() || state.ending.is_some() {
            return Poll::Ready(());
        }
        let stale = state.reader.replace(waker.clone());
        drop(state);
        drop(stale);
        Poll::Pending
    }

    /// Takes the next message where it is text, and this one.
    pub(super) fn take_text(&self, text: &str) -> bool {
        let taken = {
            let mut state = self.lock();
            if state.queue.front().and_then(Message::as_text) != Some(text) {
                return false;
            }
            state.take()
        };
        taken.into_iter().flat_map(|(_, writers)| writers).for_each(Waker::wake);
        true
    }

    /// Nobody takes anything any more.
    pub(super) fn leave(&self) {
        let (queue, reader, writers) = {
            let mut state = self.lock();
            state.reader_gone = true;
            state.bytes = 0;
            (mem::take(&mut state.queue), state.reader.take(), mem::take(&mut state.writers))
        };
        writers.into_iter().for_each(Waker::wake);
        drop((queue, reader));
    }
}

impl State {
    fn is_over(&self) -> bool {
        self.reader_gone || self.ending.is_some()
    }

    fn refusal(&self, bytes: usize) -> Option<Error> {
        if self.is_over() {
            let error = Error::disconnected("the WebSocket is closed");
            return Some(error.with_retryable(false));
        }
        let max = self.message_bytes_max;
        (bytes > max).then(|| {
            Error::invalid_request(format!("a message of {bytes} bytes, of at most {max}"))
        })
    }

    /// Takes the next message, or the end, and who waits for room.
    fn take(&mut self) -> Option<(Taken, Vec<Waker>)> {
        let Some(message) = self.queue.pop_front() else {
            let ending = self.ending.clone()?;
            return Some((Taken::Ended(ending), Vec::new()));
        };
        self.bytes = self.bytes.saturating_sub(cost(message.len()));
        if self.queue.is_empty() {
            // An idle socket keeps no memory of the messages that it once had.
            self.queue = VecDeque::new();
        }
        let has_room = self.bytes < self.queue_bytes_max;
        let writers = if has_room { mem::take(&mut self.writers) } else { Vec::new() };
        Some((Taken::Message(message), writers))
    }

    fn wait(&mut self, context: &Context<'_>) -> Poll<()> {
        if !self.writers.iter().any(|known| known.will_wake(context.waker())) {
            self.writers.push(context.waker().clone());
        }
        Poll::Pending
    }
}

/// What a message costs that waits: also one without content.
fn cost(bytes: usize) -> usize {
    const OVERHEAD: usize = 64;
    bytes + OVERHEAD
}
