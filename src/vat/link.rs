//! What the reader, the writer and the clock of one connection share.
//!
//! **Invariant:** whoever ends the connection wakes all three.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use capnp::Error;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::account::Account;
use super::frame::Message;
use super::gate::Gate;
use super::output::{Batch, Output};
use super::traffic::Traffic;
use super::watch::{Expired, Watch};
use crate::limits::Limits;

/// How many times `connection_output_bytes_max` may wait for a peer, answers of earlier calls included.
const OUTPUT_OVERRUN: usize = 256;

/// The state of one connection.
pub(super) struct Link {
    pub(super) limits: Rc<Limits>,
    pub(super) traffic: Rc<Traffic>,
    pub(super) gate: RefCell<Gate>,
    pub(super) watch: Watch,
    account: Option<Arc<Account>>,
    output: RefCell<Output>,
    stage: Cell<Stage>,
    /// The writer ended although nobody closed the connection.
    is_broken: Cell<bool>,
    /// capnp-rpc let go of the connection.
    released: Cell<bool>,
    /// The writer ended, or capnp-rpc let go.
    changed: Notify,
    reader: RefCell<Option<Waker>>,
    reader_paused: Cell<bool>,
    writer: RefCell<Option<Waker>>,
    writer_rests: Cell<bool>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Open,
    /// What waits is the last that is written.
    Closing,
    /// Nothing is written any more.
    Closed,
}

impl Link {
    pub(super) fn new(limits: Rc<Limits>, account: Option<Arc<Account>>) -> Self {
        let traffic = Rc::new(Traffic::new());
        let gate = Gate::new(Rc::clone(&limits), Rc::clone(&traffic), account.clone());
        Self {
            limits,
            traffic,
            gate: RefCell::new(gate),
            watch: Watch::new(),
            account,
            output: RefCell::new(Output::default()),
            stage: Cell::new(Stage::Open),
            is_broken: Cell::new(false),
            released: Cell::new(false),
            changed: Notify::new(),
            reader: RefCell::new(None),
            reader_paused: Cell::new(false),
            writer: RefCell::new(None),
            writer_rests: Cell::new(false),
        }
    }

    /// Queues `message` now: the order of the calls of this function is the order of the wire.
    pub(super) fn send(&self, message: &Rc<Message>) {
        let root = message.get_root_as_reader().ok();
        if self.stage.get() != Stage::Closed {
            let substitute = root.and_then(|root| self.gate.borrow().substitute(root));
            let message = substitute.as_ref().unwrap_or(message);
            let bytes = self.output.borrow_mut().push(message);
            self.set_output_bytes(self.traffic.output_bytes.get() + bytes);
            if self.writer_rests.take() {
                self.wake_writer();
            }
            self.end_if_overrun();
        }
        // Counted after queued, so that a connection in use is quiet at no moment.
        if let Some(root) = root {
            self.gate.borrow_mut().note_sent(root);
        }
        if self.gate.borrow().has_due() {
            self.wake_reader();
        }
    }

    /// Notes how many bytes wait for the peer; all connections of a server share what may wait in all.
    fn set_output_bytes(&self, bytes: usize) {
        let before = self.traffic.output_bytes.replace(bytes);
        let Some(account) = &self.account else { return };
        match bytes.checked_sub(before) {
            Some(more) => account.add(more),
            None => account.release(before - bytes),
        }
    }

    /// Ends a connection whose peer leaves far more unread than is waited for before nothing more is read
    /// from it: those answers were all asked for before.
    fn end_if_overrun(&self) {
        let max = self.limits.connection_output_bytes_max.saturating_mul(OUTPUT_OVERRUN);
        let waiting = self.traffic.output_bytes.get();
        if waiting > max {
            let text = format!("{waiting} bytes wait for the peer to read them, of at most {max}");
            self.fail(Error::disconnected(text));
            self.finish();
        }
    }

    /// Keeps `error` if it is the first reason of death, and returns that one.
    pub(super) fn fail(&self, error: Error) -> Error {
        let first = self.traffic.fail(error);
        self.wake_reader();
        self.wake_writer();
        first
    }

    /// Lets the writer end once it has written what waits.
    pub(super) fn close(&self, reason: Error) {
        if self.stage.get() == Stage::Open {
            self.stage.set(Stage::Closing);
            self.watch.note_closing();
        }
        self.fail(reason);
    }

    /// Notes that capnp-rpc is through with the connection.
    pub(super) fn release(&self) {
        self.close(Error::disconnected("the connection was dropped".into()));
        self.gate.borrow_mut().clear();
        self.released.set(true);
        self.changed.notify_waiters();
    }

    /// Notes that the writer ended: what waits is lost.
    pub(super) fn finish(&self) {
        if self.stage.replace(Stage::Closed) == Stage::Open {
            self.is_broken.set(true);
        }
        *self.output.borrow_mut() = Output::default();
        self.set_output_bytes(0);
        self.changed.notify_waiters();
        self.wake_reader();
    }

    /// Returns whether nothing more is taken from the peer. Where only the writer broke, what the peer
    /// sent before may tell why.
    pub(super) fn is_deaf(&self) -> bool {
        self.traffic.has_failed() && !self.is_broken.get()
    }

    /// Waits until the writer has ended.
    pub(super) async fn finished(&self) {
        self.until(|link| link.stage.get() == Stage::Closed).await;
    }

    /// Waits until the writer has ended and capnp-rpc has let go.
    pub(super) async fn over(&self) {
        self.until(|link| link.stage.get() == Stage::Closed && link.released.get()).await;
    }

    /// Waits until there is something to write; ready with `false` when there never will be.
    pub(super) fn poll_output(&self) -> Poll<bool> {
        if self.traffic.output_bytes.get() > 0 {
            return Poll::Ready(true);
        }
        if self.stage.get() != Stage::Open {
            return Poll::Ready(false);
        }
        self.writer_rests.set(true);
        Poll::Pending
    }

    pub(super) fn take_output(&self) -> Batch {
        self.output.borrow_mut().take()
    }

    /// Counts off what was written.
    pub(super) fn note_written(&self, bytes: usize) {
        let waiting = self.traffic.output_bytes.get().saturating_sub(bytes);
        self.set_output_bytes(waiting);
        self.watch.note_progress();
        self.watch.note_activity(Instant::now());
        if waiting <= self.limits.connection_output_bytes_max && self.reader_paused.take() {
            self.wake_reader();
        }
    }

    /// Returns whether the peer takes its answers too slowly for more to be read from it; the reader is
    /// then woken when that has changed.
    pub(super) fn must_pause(&self) -> bool {
        let is_flooded = self.traffic.output_bytes.get() > self.limits.connection_output_bytes_max;
        self.reader_paused.set(is_flooded);
        is_flooded
    }

    /// Waits until a deadline has passed.
    pub(super) fn poll_expired(&self, context: &mut Context<'_>) -> Poll<Expired> {
        self.watch.poll(&self.limits, &self.traffic, context)
    }

    pub(super) fn register_reader(&self, context: &Context<'_>) {
        register(&self.reader, context);
    }

    pub(super) fn register_writer(&self, context: &Context<'_>) {
        register(&self.writer, context);
    }

    pub(super) fn wake_writer(&self) {
        if let Some(waker) = self.writer.borrow().as_ref() {
            waker.wake_by_ref();
        }
    }

    fn wake_reader(&self) {
        let waker = self.reader.borrow_mut().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    async fn until(&self, is_so: impl Fn(&Self) -> bool) {
        loop {
            let changed = self.changed.notified();
            if is_so(self) {
                return;
            }
            changed.await;
        }
    }
}

fn register(slot: &RefCell<Option<Waker>>, context: &Context<'_>) {
    let mut slot = slot.borrow_mut();
    if !slot.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
        *slot = Some(context.waker().clone());
    }
}
