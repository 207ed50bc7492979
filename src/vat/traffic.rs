//! What one connection is doing, as its owner may see it.
//!
//! **Invariant:** the first reason of death is the only one that is kept.

use std::cell::{Cell, OnceCell};
use std::rc::Weak;

use capnp::{Error, ErrorKind};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::link::Link;

/// What one connection is doing.
pub struct Traffic {
    pub(super) calls: Cell<usize>,
    pub(super) queued_bytes: Cell<usize>,
    pub(super) own_calls: Cell<usize>,
    pub(super) output_bytes: Cell<usize>,
    pub(super) last_received: Cell<Instant>,
    pub(super) greeted: Cell<bool>,
    failure: OnceCell<Error>,
    died: Notify,
    link: OnceCell<Weak<Link>>,
}

impl Traffic {
    pub(super) fn new() -> Self {
        Self {
            calls: Cell::new(0),
            queued_bytes: Cell::new(0),
            own_calls: Cell::new(0),
            output_bytes: Cell::new(0),
            last_received: Cell::new(Instant::now()),
            greeted: Cell::new(false),
            failure: OnceCell::new(),
            died: Notify::new(),
            link: OnceCell::new(),
        }
    }

    /// Returns how many calls of the peer are unanswered.
    pub fn calls_in_flight(&self) -> usize {
        self.calls.get()
    }

    /// Returns how many bytes the unanswered calls of the peer have.
    pub fn queued_bytes(&self) -> usize {
        self.queued_bytes.get()
    }

    /// Returns how many of our own calls the peer has not answered.
    pub fn own_calls_in_flight(&self) -> usize {
        self.own_calls.get()
    }

    /// Returns how many bytes wait to be written to the peer.
    pub fn output_bytes(&self) -> usize {
        self.output_bytes.get()
    }

    /// Returns when bytes were last received; before the first ones, when the connection began.
    pub fn last_received(&self) -> Instant {
        self.last_received.get()
    }

    /// Returns the first reason for which the connection died; none while it lives.
    pub fn failure(&self) -> Option<Error> {
        self.failure.get().cloned()
    }

    /// Waits until the connection is dead in either direction, and returns the first reason.
    ///
    /// # Cancel safety
    /// Dropping the future does nothing.
    pub async fn closed(&self) -> Error {
        loop {
            let died = self.died.notified();
            if let Some(failure) = self.failure.get() {
                return failure.clone();
            }
            died.await;
        }
    }

    /// Returns whether what waits to be written is likely all for now: the last answer that was owed. (A call
    /// waits for the end of the turn: one that is cancelled at once is never looked at.)
    pub(super) fn is_lone(&self) -> bool {
        self.calls.get() == 0 && self.own_calls.get() == 0
    }

    /// Returns for how long nothing was received.
    pub fn silence(&self) -> std::time::Duration {
        self.last_received.get().elapsed()
    }

    /// Ends the connection for `reason`, which counts if it is the first. What waits is lost.
    pub fn abort(&self, reason: Error) {
        if let Some(link) = self.link.get().and_then(Weak::upgrade) {
            link.fail(reason);
            link.finish();
        }
    }

    pub(super) fn bind(&self, link: Weak<Link>) {
        let _ = self.link.set(link);
    }

    pub(super) fn has_failed(&self) -> bool {
        self.failure.get().is_some()
    }

    /// Keeps `error` as the reason of death if it is the first one, and returns that one.
    pub(super) fn fail(&self, error: Error) -> Error {
        let first = self.failure.get_or_init(|| plain(error)).clone();
        self.died.notify_waiters();
        first
    }
}

/// Reduces the many kinds of decoding errors to *failed*: to a caller they all are a peer that errs.
fn plain(error: Error) -> Error {
    match error.kind {
        ErrorKind::Failed
        | ErrorKind::Overloaded
        | ErrorKind::Disconnected
        | ErrorKind::Unimplemented => error,
        _ => Error::failed(error.to_string()),
    }
}
