//! A capability of one's own that keeps E-order.
//!
//! capnp-rpc's own local clients begin a call when its promise is first polled, so calls that are awaited
//! in another order, or cancelled, overtake each other. This one puts a call in line when it is made.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker, ready};

use capnp::Error as Exception;
use capnp::capability::{FromClientHook, FromServer, Params, Promise, Results, Server};
use capnp::private::capability::{ParamsHook, ResultsHook};
use futures::channel::oneshot;
use futures::future::LocalBoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};

use crate::vat::{Callee, Caller, settled};

/// Makes a capability of `server` that others may call: pass it in a typed call, to be called back.
///
/// Calls on it enter `server` in the order in which they were made; one that its caller drops is dropped in
/// `server` too, wherever it waits at that moment. The capability must be used inside a
/// [`tokio::runtime::LocalRuntime`] or a [`tokio::task::LocalSet`]; `server` is dropped when nobody holds the
/// capability any more.
///
/// **Not for use inside an object**: neither of the object's gates knows of `server`. Its methods run while a
/// critical section or a transaction of the object does, so that what they write may be lost with it; what they
/// answer, and what they call, waits for no write; a reset does not end it. An object makes its capabilities with
/// `State::capability`. (The same holds for the clients that `capnp_rpc` makes.)
pub fn capability<C, S>(server: S) -> C
where
    C: FromServer<S> + FromClientHook,
    S: 'static,
{
    let dispatch = C::from_server(Rc::new(server));
    let line = Rc::new(Line::default());
    let queue = Rc::downgrade(&line);
    let enter = move |call: Call| {
        let Call { interface, method, params, results, done } = call;
        let (params, results) = (Params::new(params), Results::new(results));
        let entered = dispatch.clone().dispatch_call(interface, method, params, results);
        (entered.promise, entered.is_streaming, done)
    };
    tokio::task::spawn_local(serve(queue, enter));
    settled(Ordered(line))
}

/// The calls in line for one server.
#[derive(Default)]
struct Line {
    calls: RefCell<VecDeque<Call>>,
    waker: RefCell<Option<Waker>>,
}

impl Line {
    fn wake(&self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// Wakes the task when the last capability goes, so that it can end.
impl Drop for Line {
    fn drop(&mut self) {
        self.wake();
    }
}

struct Call {
    interface: u64,
    method: u16,
    params: Box<dyn ParamsHook>,
    results: Box<dyn ResultsHook>,
    done: oneshot::Sender<Result<(), Exception>>,
}

struct Ordered(Rc<Line>);

type Entered = (Promise<(), Exception>, bool, oneshot::Sender<Result<(), Exception>>);

/// What has entered the server and is not finished.
#[derive(Default)]
struct Inside {
    running: FuturesUnordered<LocalBoxFuture<'static, ()>>,
    /// A streaming call, which holds back those behind it.
    streaming: Option<LocalBoxFuture<'static, ()>>,
}

/// Enters calls in line, each polled once before the next.
async fn serve(line: Weak<Line>, enter: impl Fn(Call) -> Entered) {
    let mut inside = Inside::default();
    while let Some(call) = poll_fn(|context| inside.poll_next(&line, context)).await {
        if call.done.is_canceled() {
            continue;
        }
        // A method may panic before it has a future, too; its caller then hears that the call was dropped.
        let Ok((promise, streaming, done)) = catch_unwind(AssertUnwindSafe(|| enter(call))) else {
            continue;
        };
        let mut finished = until_dropped(promise, done).boxed_local();
        if (&mut finished).now_or_never().is_some() {
            continue;
        }
        match streaming {
            true => inside.streaming = Some(finished),
            false => inside.running.push(finished),
        }
    }
    inside.running.collect::<()>().await;
}

/// Runs a call until it has ended, or nobody waits for it any more: then it is dropped.
async fn until_dropped(
    mut promise: Promise<(), Exception>,
    mut done: oneshot::Sender<Result<(), Exception>>,
) {
    // A panic fails its call. Left alone it would end the task that drives the connection.
    let panicked = |_| Poll::Ready(Err(Exception::failed("the capability panicked".into())));
    let outcome = poll_fn(|context| {
        let polled = catch_unwind(AssertUnwindSafe(|| promise.poll_unpin(context)));
        match polled.unwrap_or_else(panicked) {
            Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
            Poll::Pending => done.poll_canceled(context).map(|()| None),
        }
    });
    if let Some(outcome) = outcome.await {
        // Whoever no longer waits need not know.
        let _ = done.send(outcome);
    }
}

impl Inside {
    /// Returns the next call that may enter, running what is inside; none when nobody can call any more.
    fn poll_next(&mut self, line: &Weak<Line>, context: &mut Context<'_>) -> Poll<Option<Call>> {
        while let Poll::Ready(Some(())) = self.running.poll_next_unpin(context) {}
        if let Some(streaming) = &mut self.streaming {
            ready!(streaming.poll_unpin(context));
            self.streaming = None;
        }
        let Some(line) = line.upgrade() else { return Poll::Ready(None) };
        if let Some(call) = line.calls.borrow_mut().pop_front() {
            return Poll::Ready(Some(call));
        }
        *line.waker.borrow_mut() = Some(context.waker().clone());
        Poll::Pending
    }
}

impl Callee for Ordered {
    fn call(
        &self,
        caller: Caller,
        interface: u64,
        method: u16,
        params: Box<dyn ParamsHook>,
        results: Box<dyn ResultsHook>,
    ) -> Promise<(), Exception> {
        let (done, outcome) = oneshot::channel();
        self.0.calls.borrow_mut().push_back(Call { interface, method, params, results, done });
        self.0.wake();
        // A call under way holds the line, as it would hold a server.
        let line = self.0.clone();
        Promise::from_future(caller.until_left(async move {
            let outcome = outcome.await;
            drop(line);
            outcome.unwrap_or_else(|_| Err(Exception::failed("the call was dropped".into())))
        }))
    }
}
