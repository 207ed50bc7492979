//! The deadlines of one connection, on one timer.
//!
//! Nothing touches the timer per message: a deadline that begins later than the timer fires is looked at
//! when it fires, and then sets it again.
//!
//! **Invariant:** the timer is never set later than the earliest deadline that is running.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use capnp::Error;
use tokio::time::{Instant, Sleep};

use super::traffic::Traffic;
use crate::limits::Limits;

/// When each deadline of a connection began.
pub(super) struct Watch {
    opened: Instant,
    /// A message has begun and not ended.
    begun: Cell<Option<Instant>>,
    /// The peer takes nothing of what waits.
    stalled: Cell<Option<Instant>>,
    closing: Cell<Option<Instant>>,
    /// Bytes went either way.
    active: Cell<Instant>,
    timer: RefCell<Option<Pin<Box<Sleep>>>>,
}

/// What a deadline that has passed means.
pub(super) enum Expired {
    /// The connection is of no use any more; what waits may still be written.
    Silent(Error),
    /// The peer takes nothing: what waits is lost.
    Stalled(Error),
}

impl Watch {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self {
            opened: now,
            begun: Cell::new(None),
            stalled: Cell::new(None),
            closing: Cell::new(None),
            active: Cell::new(now),
            timer: RefCell::new(None),
        }
    }

    /// Notes that bytes went either way.
    pub(super) fn note_activity(&self, now: Instant) {
        self.active.set(now);
    }

    /// Notes that a begun message waits for its rest; returns whether the timer has to be set for it.
    pub(super) fn note_begun(&self, limits: &Limits) -> bool {
        if self.begun.get().is_some() {
            return false;
        }
        let now = Instant::now();
        self.begun.set(Some(now));
        let deadline = after(now, limits.message_timeout);
        self.timer.borrow().as_ref().is_none_or(|timer| timer.deadline() > deadline)
    }

    /// Notes that no message is incomplete.
    pub(super) fn note_complete(&self) {
        self.begun.set(None);
    }

    /// Notes that the peer takes nothing.
    pub(super) fn note_stalled(&self) {
        begin(&self.stalled);
    }

    /// Notes that the peer took some of what waits.
    pub(super) fn note_progress(&self) {
        self.stalled.set(None);
    }

    /// Notes that what waits is the last.
    pub(super) fn note_closing(&self) {
        begin(&self.closing);
    }

    /// Waits until a deadline has passed; stays pending while none is running.
    pub(super) fn poll(
        &self,
        limits: &Limits,
        traffic: &Traffic,
        context: &mut Context<'_>,
    ) -> Poll<Expired> {
        let mut timer = self.timer.borrow_mut();
        loop {
            let Some(wanted) = self.next(limits, traffic) else {
                // A timer that is set stays: to keep it costs less than to set it again soon.
                return match timer.as_mut().map(|timer| timer.as_mut().poll(context)) {
                    Some(Poll::Ready(())) => {
                        *timer = None;
                        Poll::Pending
                    }
                    _ => Poll::Pending,
                };
            };
            let sleep = match timer.as_mut() {
                Some(sleep) if sleep.deadline() <= wanted => sleep,
                Some(sleep) => {
                    sleep.as_mut().reset(wanted);
                    sleep
                }
                None => timer.insert(Box::pin(tokio::time::sleep_until(wanted))),
            };
            if sleep.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
            *timer = None;
            if let Some(expired) = self.expired(Instant::now(), limits, traffic) {
                return Poll::Ready(expired);
            }
        }
    }

    /// Returns the time at which to look again.
    fn next(&self, limits: &Limits, traffic: &Traffic) -> Option<Instant> {
        let lives = !traffic.has_failed();
        let handshake =
            (lives && !traffic.greeted.get()).then(|| after(self.opened, limits.handshake_timeout));
        let message =
            self.begun.get().filter(|_| lives).map(|begun| after(begun, limits.message_timeout));
        let stalled = self.stalled.get().map(|since| after(since, limits.peer_timeout));
        let closing = self.closing.get().map(|since| after(since, limits.peer_timeout));
        let idle = limits.idle_timeout.filter(|_| lives).map(|timeout| {
            let since = if is_quiet(traffic) { self.active.get() } else { Instant::now() };
            after(since, timeout)
        });
        [handshake, message, stalled, closing, idle].into_iter().flatten().min()
    }

    fn expired(&self, now: Instant, limits: &Limits, traffic: &Traffic) -> Option<Expired> {
        let over = |since: Instant, timeout: Duration| now >= after(since, timeout);
        let waiting = traffic.output_bytes.get();
        let peer_timeout = limits.peer_timeout;
        if self.stalled.get().is_some_and(|since| over(since, peer_timeout)) {
            let text = format!("the peer took none of {waiting} bytes for {peer_timeout:?}");
            return Some(Expired::Stalled(Error::disconnected(text)));
        }
        if self.closing.get().is_some_and(|since| over(since, peer_timeout)) {
            let text =
                format!("the peer did not take the last {waiting} bytes in {peer_timeout:?}");
            return Some(Expired::Stalled(Error::disconnected(text)));
        }
        if traffic.has_failed() {
            return None;
        }
        let text = if !traffic.greeted.get() && over(self.opened, limits.handshake_timeout) {
            format!("no whole message arrived within {:?} of connecting", limits.handshake_timeout)
        } else if self.begun.get().is_some_and(|since| over(since, limits.message_timeout)) {
            format!("a message that began did not end within {:?}", limits.message_timeout)
        } else {
            let timeout = limits
                .idle_timeout
                .filter(|timeout| is_quiet(traffic) && over(self.active.get(), *timeout))?;
            format!("nothing was sent, received or in flight for {timeout:?}")
        };
        Some(Expired::Silent(Error::disconnected(text)))
    }
}

/// Returns whether nothing is in flight in either direction and nothing waits.
fn is_quiet(traffic: &Traffic) -> bool {
    traffic.calls.get() == 0 && traffic.own_calls.get() == 0 && traffic.output_bytes.get() == 0
}

fn begin(since: &Cell<Option<Instant>>) {
    if since.get().is_none() {
        since.set(Some(Instant::now()));
    }
}

/// Adds without overflow: a timeout too large to express is one that never passes.
fn after(since: Instant, timeout: Duration) -> Instant {
    since.checked_add(timeout).unwrap_or_else(|| since + Duration::from_secs(1 << 30))
}
