//! The output gate as the rooms around an object share it: what leaves is something to be done.
//!
//! **Invariant:** everything that leaves an object goes through its one outbox, so all of it keeps one order.

use std::cell::RefCell;
use std::future::Future;

use futures::channel::oneshot;

use super::output::{OutputGate, Sent};
use crate::error::{Error, Result};

/// What is done when something may leave; or, with the reason, when it never will.
type Leaving = Box<dyn FnOnce(Verdict<'_>)>;

/// Whether something leaves, or why it never will.
pub type Verdict<'a> = std::result::Result<(), &'a Error>;

/// What one object in memory has said and has not let out yet.
#[derive(Default)]
pub struct Outbox {
    gate: RefCell<OutputGate<Leaving>>,
}

impl Outbox {
    /// Has everything that is sent from now on wait for write `number`.
    pub fn lock(&self, number: u64) {
        self.gate.borrow_mut().lock(number);
    }

    /// Returns whether what is sent now leaves at once.
    pub fn is_open(&self) -> bool {
        self.gate.borrow().is_open()
    }

    /// Returns how much is held.
    pub fn held(&self) -> usize {
        self.gate.borrow().held()
    }

    /// Does `leave` once the writes so far are durable: now, where they are.
    pub fn send(&self, leave: impl FnOnce(Verdict<'_>) + 'static) {
        if self.is_open() {
            return leave(Ok(()));
        }
        let sent = self.gate.borrow_mut().send(Box::new(leave));
        match sent {
            Sent::Leaves(leave) => leave(Ok(())),
            Sent::Held => {}
            Sent::Refused(leave, error) => leave(Err(&error)),
        }
    }

    /// Waits until the writes so far are durable.
    ///
    /// # Errors
    /// Why they never will be.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub fn opened(&self) -> impl Future<Output = Result<()>> + 'static + use<> {
        let (told, verdict) = oneshot::channel();
        self.send(move |verdict| {
            // Whoever waited may have gone.
            let _ = told.send(verdict.map_err(Clone::clone));
        });
        async move { verdict.await.unwrap_or_else(|_| Err(Error::disconnected("the object is gone"))) }
    }

    /// Notes that every write up to `number` is durable, and lets out what waited for it.
    pub fn durable(&self, number: u64) {
        self.gate.borrow_mut().durable(number);
        loop {
            // What leaves may send more.
            let leaving = self.gate.borrow_mut().take_leaving();
            match leaving {
                Some(leave) => leave(Ok(())),
                None => return,
            }
        }
    }

    /// Breaks the gate for good: what was held, and all that is sent later, never leaves.
    pub fn break_with(&self, error: &Error) {
        let held = self.gate.borrow_mut().break_with(error);
        held.into_iter().for_each(|leave| leave(Err(error)));
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use futures::FutureExt;

    use super::*;

    #[test]
    fn what_leaves_may_send_more_and_that_leaves_behind_it() {
        let outbox = Rc::new(Outbox::default());
        let heard = Rc::new(RefCell::new(Vec::new()));
        outbox.lock(1);
        let (inner, note) = (outbox.clone(), heard.clone());
        outbox.send(move |verdict| {
            assert!(verdict.is_ok());
            note.borrow_mut().push(1);
            inner.send(move |_| note.borrow_mut().push(3));
        });
        let note = heard.clone();
        outbox.send(move |_| note.borrow_mut().push(2));
        outbox.durable(1);
        assert_eq!(*heard.borrow(), [1, 2, 3]);
        assert!(outbox.is_open());
    }

    #[test]
    fn who_waits_for_the_gate_hears_that_it_opened_or_broke() {
        let outbox = Outbox::default();
        assert_eq!(outbox.opened().now_or_never(), Some(Ok(())));
        outbox.lock(1);
        let mut first = Box::pin(outbox.opened());
        assert_eq!((&mut first).now_or_never(), None);
        outbox.durable(1);
        assert_eq!(first.now_or_never(), Some(Ok(())));
        outbox.lock(2);
        let second = outbox.opened();
        outbox.break_with(&Error::failed("the disk is gone"));
        assert_eq!(second.now_or_never(), Some(Err(Error::failed("the disk is gone"))));
        assert_eq!(outbox.opened().now_or_never(), Some(Err(Error::failed("the disk is gone"))));
    }
}
