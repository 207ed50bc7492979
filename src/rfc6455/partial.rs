//! What has come of messages that are not whole: how much of it is held, and for how long.
//!
//! **Invariant:** of what peers sent and no object can have yet, no more is held than the budget; a read beyond it
//! ends its WebSocket.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use crate::socket::CloseFrame;

/// How many bytes all WebSockets may hold of messages that are not whole.
#[derive(Debug)]
pub struct Budget {
    held: AtomicUsize,
    max: usize,
}

impl Budget {
    /// Makes one of so many bytes.
    pub fn new(max: usize) -> Self {
        Self { held: AtomicUsize::new(0), max }
    }
}

/// What one WebSocket holds.
pub(super) struct Partial<'a> {
    budget: &'a Budget,
    charged: usize,
    /// Bytes that were read since the last message, or what of it is left to come.
    read: Rc<Cell<usize>>,
    patience: Duration,
    sleep: Option<Pin<Box<Sleep>>>,
    /// How many times `STEP_BYTES` have come.
    steps: usize,
}

impl<'a> Partial<'a> {
    /// Begins with nothing; what then comes has `patience` to come whole, for each `STEP_BYTES`.
    pub(super) fn new(budget: &'a Budget, patience: Duration) -> Self {
        Self { budget, charged: 0, read: Rc::default(), patience, sleep: None, steps: 0 }
    }

    /// Returns `io`, of which what is read is counted.
    pub(super) fn count<S>(&self, io: S) -> Counted<S> {
        Counted { io, read: self.read.clone() }
    }

    /// Notes that a message has come whole.
    pub(super) fn clear(&mut self) {
        self.read.set(0);
        self.sleep = None;
        self.charge(0);
    }

    /// Notes that a control frame of so many bytes has come, perhaps between the parts of a message.
    pub(super) fn passed(&mut self, bytes: usize) {
        /// What a client's control frame has beside that.
        const HEAD_BYTES: usize = 6;
        self.read.set(self.read.get().saturating_sub(bytes + HEAD_BYTES));
    }

    /// Is ready, with what to tell the peer, once too much is held or for too long. So much as `free` is nothing: it
    /// is held for every WebSocket.
    pub(super) fn poll_late(&mut self, context: &mut Context<'_>, free: usize) -> Poll<CloseFrame> {
        let bytes = self.read.get();
        if bytes <= free {
            self.sleep = None;
            self.charge(0);
            return Poll::Pending;
        }
        if !self.charge(bytes) {
            return Poll::Ready(CloseFrame::ours(
                CloseFrame::TRY_AGAIN_LATER,
                "too much is on its way here",
            ));
        }
        let steps = bytes / STEP_BYTES;
        if steps != self.steps {
            (self.steps, self.sleep) = (steps, None);
        }
        let patience = self.patience;
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
        ready!(sleep.as_mut().poll(context));
        Poll::Ready(CloseFrame::ours(POLICY, "the message took too long to come"))
    }

    /// Holds so many bytes, whatever was held before; returns whether there was room.
    fn charge(&mut self, bytes: usize) -> bool {
        let held = &self.budget.held;
        if bytes <= self.charged {
            held.fetch_sub(self.charged - bytes, Ordering::Relaxed);
            self.charged = bytes;
            return true;
        }
        let more = bytes - self.charged;
        self.charged = bytes;
        held.fetch_add(more, Ordering::Relaxed) + more <= self.budget.max
    }
}

impl Drop for Partial<'_> {
    fn drop(&mut self) {
        self.charge(0);
    }
}

/// A stream of which what is read is counted.
pub(super) struct Counted<S> {
    io: S,
    read: Rc<Cell<usize>>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(context, buffer))?;
        self.read.set(self.read.get() + buffer.filled().len() - before);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

/// So much of a message has the whole time: a large one over a slow line takes longer.
const STEP_BYTES: usize = 1 << 20;
/// The close code of RFC 6455 for what a peer must not do.
const POLICY: u16 = 1008;
