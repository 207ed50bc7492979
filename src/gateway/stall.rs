//! Gives up on the streams of HTTP/2 whose client neither sends what it announced nor takes what it asked for.
//!
//! **Invariant:** only the stream that stalls ends: others of its connection may be of other clients of a proxy.
//! **Invariant:** what waits for an object has all the time that the object takes.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};

use crate::error::{Error, Result};

/// How far the answer of one stream is.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Since when more of the answer could be taken than is.
    untaken_since: Cell<Option<Instant>>,
}

impl Progress {
    /// Notes that a part of the answer waits to be taken.
    pub(super) fn wait(&self) {
        self.untaken_since.set(Some(Instant::now()));
    }

    /// Notes that everything was taken that there is.
    pub(super) fn taken(&self) {
        self.untaken_since.set(None);
    }
}

/// Runs the streams of a connection on its own thread, each until it stalls.
#[derive(Clone, Debug)]
pub(super) struct Streams {
    patience: Duration,
    current: Current,
}

/// The stream that is looked at.
pub(super) type Current = Rc<RefCell<Option<Rc<Progress>>>>;

impl Streams {
    /// Makes what runs streams that may stall for `patience`, and shows in `current` which one runs.
    pub(super) fn new(patience: Duration, current: Current) -> Self {
        Self { patience, current }
    }
}

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for Streams {
    fn execute(&self, future: F) {
        let Self { patience, current } = self.clone();
        let (mut future, mut sleep) = (Box::pin(future), None::<Pin<Box<Sleep>>>);
        let progress = Rc::new(Progress::default());
        tokio::task::spawn_local(std::future::poll_fn(move |context| {
            current.replace(Some(progress.clone()));
            let polled = future.as_mut().poll(context);
            current.take();
            if polled.is_ready() {
                return Poll::Ready(());
            }
            let Some(since) = progress.untaken_since.get() else { return Poll::Pending };
            let due = since + patience;
            let timer = sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
            if timer.deadline() != due {
                timer.as_mut().reset(due);
            }
            ready!(timer.as_mut().poll(context));
            tracing::debug!("a stream was given up: its client takes nothing of its answer");
            Poll::Ready(())
        }));
    }
}

/// The body of a request, which its reader awaits for so long only.
pub(super) struct Patient {
    body: Incoming,
    patience: Duration,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Patient {
    /// Makes a body of which something has to come within `patience` while its reader waits.
    pub(super) fn new(body: Incoming, patience: Duration) -> Self {
        Self { body, patience, sleep: None }
    }
}

impl http_body::Body for Patient {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            self.sleep = None;
            return Poll::Ready(frame.map(|frame| frame.map_err(|error| cut(&error))));
        }
        let patience = self.patience;
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
        ready!(sleep.as_mut().poll(context));
        let told = format!("nothing of the request's body came within {patience:?}");
        Poll::Ready(Some(Err(Error::truncated(told))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Says that a request's body did not come to its end.
pub(super) fn cut(error: &hyper::Error) -> Error {
    Error::truncated(format!("the request was cut short: {error}"))
}
