//! Watches one connection for time: heads that don't end, silence, peers that neither send nor read.
//!
//! **Invariant:** a connection has one timer, which is set again only when it has run out.

use std::cell::Cell;
use std::rc::Rc;

use tokio::time::Instant;

use crate::limits::Limits;

/// What a connection does at the moment.
#[derive(Debug)]
pub(super) struct Watch {
    /// Requests whose answer is not written yet.
    calls: Cell<usize>,
    idle_since: Cell<Instant>,
    /// Since when a head is awaited or incomplete.
    head_since: Cell<Option<Instant>>,
    /// Since when the rest of a body is awaited.
    starved_since: Cell<Option<Instant>>,
    /// Since when the peer takes nothing of what waits for it.
    stuck_since: Cell<Option<Instant>>,
}

/// Why a connection is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Overdue {
    /// A head did not come to its end.
    Head,
    /// Nothing is under way.
    Idle,
    /// The peer neither sends what it announced nor reads what it asked for.
    Stall,
}

impl Watch {
    /// Watches a connection that begins now: its first head is awaited.
    pub(super) fn new() -> Rc<Self> {
        let now = Instant::now();
        Rc::new(Self {
            calls: Cell::new(0),
            idle_since: Cell::new(now),
            head_since: Cell::new(Some(now)),
            starved_since: Cell::default(),
            stuck_since: Cell::default(),
        })
    }

    /// Counts a call until what it returns is dropped.
    pub(super) fn begin(self: &Rc<Self>) -> Call {
        self.calls.set(self.calls.get() + 1);
        Call(self.clone())
    }

    /// Returns whether no call is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.calls.get() == 0
    }

    /// Counts silence from now.
    pub(super) fn begin_to_wait(&self) {
        self.idle_since.set(Instant::now());
    }

    /// Notes whether a head is incomplete, after something has come.
    pub(super) fn heard(&self, in_head: bool) {
        self.starved_since.set(None);
        match (in_head, self.head_since.get()) {
            (true, None) => self.head_since.set(Some(Instant::now())),
            (false, Some(_)) => self.head_since.set(None),
            _ => {}
        }
    }

    /// Notes that more of a body is awaited.
    pub(super) fn starved(&self) {
        if self.starved_since.get().is_none() {
            self.starved_since.set(Some(Instant::now()));
        }
    }

    /// Notes that the peer took something.
    pub(super) fn moved(&self) {
        self.stuck_since.set(None);
    }

    /// Notes that the peer takes nothing.
    pub(super) fn stuck(&self) {
        if self.stuck_since.get().is_none() {
            self.stuck_since.set(Some(Instant::now()));
        }
    }

    /// Waits until the connection is over.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub(super) async fn overdue(&self, limits: &Limits) -> Overdue {
        loop {
            match self.look(Instant::now(), limits) {
                Ok(next) => tokio::time::sleep_until(next).await,
                Err(overdue) => return overdue,
            }
        }
    }

    /// Returns when to look next.
    fn look(&self, now: Instant, limits: &Limits) -> Result<Instant, Overdue> {
        // Whatever begins after this look is not due before.
        let shortest = limits.http_header_timeout.min(limits.http_stall_timeout);
        let mut next = now + shortest.min(limits.http_idle_timeout);
        let idle = self.is_idle();
        let head = self.head_since.get().filter(|_| idle);
        let silence = Some(self.idle_since.get()).filter(|_| idle && head.is_none());
        for (since, patience, overdue) in [
            (head, limits.http_header_timeout, Overdue::Head),
            (silence, limits.http_idle_timeout, Overdue::Idle),
            (self.starved_since.get(), limits.http_stall_timeout, Overdue::Stall),
            (self.stuck_since.get(), limits.http_stall_timeout, Overdue::Stall),
        ] {
            let Some(due) = since.map(|since| since + patience) else { continue };
            if due <= now {
                return Err(overdue);
            }
            next = next.min(due);
        }
        Ok(next)
    }
}

/// A call that is under way, until it is dropped.
#[derive(Debug)]
pub(super) struct Call(Rc<Watch>);

impl Drop for Call {
    fn drop(&mut self) {
        let watch = &self.0;
        watch.calls.set(watch.calls.get() - 1);
        if watch.is_idle() {
            let now = Instant::now();
            watch.idle_since.set(now);
            // A head that came in part while this call ran has its time from here.
            watch.head_since.set(watch.head_since.get().map(|_| now));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn limits() -> Limits {
        Limits {
            http_header_timeout: Duration::from_secs(10),
            http_idle_timeout: Duration::from_secs(60),
            http_stall_timeout: Duration::from_secs(30),
            ..Limits::default()
        }
    }

    async fn overdue_after(watch: &Watch, seconds: u64) -> Overdue {
        let start = Instant::now();
        let overdue = watch.overdue(&limits()).await;
        assert_eq!((Instant::now() - start).as_secs(), seconds, "{overdue:?}");
        overdue
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_does_not_end_is_overdue_and_so_is_silence() {
        let watch = Watch::new();
        assert_eq!(overdue_after(&watch, 10).await, Overdue::Head);
        watch.heard(false);
        drop(watch.begin());
        assert_eq!(overdue_after(&watch, 60).await, Overdue::Idle);
        let call = watch.begin();
        watch.heard(true);
        tokio::time::advance(Duration::from_secs(3600)).await;
        drop(call);
        assert_eq!(overdue_after(&watch, 10).await, Overdue::Head, "counted from the call's end");
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_may_take_for_ever_but_not_for_want_of_the_peer() {
        let watch = Watch::new();
        watch.heard(false);
        let _call = watch.begin();
        let limits = limits();
        let patient = tokio::time::timeout(Duration::from_secs(3600), watch.overdue(&limits));
        assert!(patient.await.is_err());
        for stall in [Watch::starved, Watch::stuck] {
            stall(&watch);
            tokio::time::advance(Duration::from_secs(20)).await;
            stall(&watch);
            assert_eq!(overdue_after(&watch, 10).await, Overdue::Stall);
            watch.heard(false);
            watch.moved();
        }
    }
}
