//! Flow control of one streaming capability: a window of unacknowledged bytes.
//!
//! **Invariant:** a message is sent within `send`, whatever the window: its place among other calls is
//! decided there. The window only decides when the next one is asked for.
//! **Invariant:** once a message failed, every later `send` returns that error.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use capnp::Error;
use capnp::capability::Promise;
use capnp_rpc::{FlowController, OutgoingMessage};
use futures::StreamExt;
use futures::channel::oneshot;
use futures::future::{FutureExt, LocalBoxFuture};
use futures::stream::FuturesUnordered;

/// Makes a controller, and what drives it.
pub(super) fn window(bytes_max: usize) -> (Box<dyn FlowController>, Promise<(), Error>) {
    let window = Rc::new(RefCell::new(Window { bytes_max, ..Window::default() }));
    let acknowledgements =
        Acknowledgements { window: Rc::clone(&window), running: FuturesUnordered::new() };
    (Box::new(Controller { window }), Promise::from_future(acknowledgements))
}

/// What was sent and not acknowledged.
#[derive(Default)]
struct Window {
    bytes_max: usize,
    bytes: usize,
    messages: usize,
    /// The largest message; the window is wider by it, lest a message larger than the window stop all.
    largest: usize,
    failure: Option<Error>,
    /// Acknowledgements not yet waited for.
    sent: VecDeque<(usize, Promise<(), Error>)>,
    blocked: Vec<oneshot::Sender<()>>,
    draining: Vec<oneshot::Sender<()>>,
    is_dropped: bool,
    driver: Option<Waker>,
}

struct Controller {
    window: Rc<RefCell<Window>>,
}

/// Waits for all acknowledgements at once.
struct Acknowledgements {
    window: Rc<RefCell<Window>>,
    running: FuturesUnordered<LocalBoxFuture<'static, (usize, Result<(), Error>)>>,
}

impl Window {
    fn has_room(&self) -> bool {
        self.failure.is_some() || self.bytes < self.bytes_max.saturating_add(self.largest)
    }

    fn note_acknowledged(&mut self, bytes: usize, outcome: Result<(), Error>) {
        self.bytes -= bytes;
        self.messages -= 1;
        if let Err(error) = outcome {
            self.failure.get_or_insert(error);
        }
        if self.has_room() {
            wake(&mut self.blocked);
        }
        if self.messages == 0 {
            wake(&mut self.draining);
        }
    }

    fn wake_driver(&mut self) {
        if let Some(driver) = self.driver.take() {
            driver.wake();
        }
    }

    fn outcome(&self) -> Result<(), Error> {
        self.failure.clone().map_or(Ok(()), Err)
    }
}

impl Controller {
    /// Returns a promise of the outcome after `waiter` was called.
    fn after(&self, waiter: oneshot::Receiver<()>) -> Promise<(), Error> {
        let window = Rc::clone(&self.window);
        Promise::from_future(async move {
            match waiter.await {
                Ok(()) => window.borrow().outcome(),
                Err(_) => Err(Error::disconnected("the connection was dropped".into())),
            }
        })
    }
}

impl FlowController for Controller {
    fn send(
        &mut self,
        message: Box<dyn OutgoingMessage>,
        acknowledgement: Promise<(), Error>,
    ) -> Promise<(), Error> {
        let bytes = message.size_in_words().saturating_mul(super::frame::WORD_BYTES);
        drop(message.send());
        let mut window = self.window.borrow_mut();
        window.largest = window.largest.max(bytes);
        window.bytes += bytes;
        window.messages += 1;
        window.sent.push_back((bytes, acknowledgement));
        window.wake_driver();
        if window.has_room() {
            return window.outcome().map_or_else(Promise::err, Promise::ok);
        }
        let (sender, waiter) = oneshot::channel();
        window.blocked.push(sender);
        self.after(waiter)
    }

    fn wait_all_acked(&mut self) -> Promise<(), Error> {
        let mut window = self.window.borrow_mut();
        if window.messages == 0 {
            return Promise::ok(());
        }
        let (sender, waiter) = oneshot::channel();
        window.draining.push(sender);
        Promise::from_future(waiter.map(|waited| {
            waited.map_err(|_| Error::disconnected("the connection was dropped".into()))
        }))
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        let mut window = self.window.borrow_mut();
        window.is_dropped = true;
        window.wake_driver();
    }
}

impl Future for Acknowledgements {
    type Output = Result<(), Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            let sent = self.window.borrow_mut().sent.pop_front();
            let Some((bytes, acknowledgement)) = sent else { break };
            self.running.push(acknowledgement.map(move |outcome| (bytes, outcome)).boxed_local());
        }
        // A message that fails fails its stream, not the connection.
        while let Poll::Ready(Some((bytes, outcome))) = self.running.poll_next_unpin(context) {
            self.window.borrow_mut().note_acknowledged(bytes, outcome);
        }
        let mut window = self.window.borrow_mut();
        if window.is_dropped && window.messages == 0 {
            return Poll::Ready(Ok(()));
        }
        window.driver = Some(context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Acknowledgements {
    fn drop(&mut self) {
        let mut window = self.window.borrow_mut();
        window.blocked.clear();
        window.draining.clear();
    }
}

fn wake(waiters: &mut Vec<oneshot::Sender<()>>) {
    for waiter in waiters.drain(..) {
        // Who no longer waits need not know.
        let _ = waiter.send(());
    }
}
