//! The thread that owns a connection.
//!
//! **Invariant:** parcels are carried out in the order in which they were posted: a request is sent, and a
//! closure entered, before the next parcel is looked at.

use std::any::Any;
use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use futures::FutureExt;
use futures::channel::oneshot;
use tokio::runtime::{Builder, LocalOptions};

use super::namespace::Place;
use super::shared::{Parcel, Reply, Shared};
use super::stub::Reference;
use crate::{Address, Client, Error, Namespace, Request, Response, Result, Stub};

/// The connection, and the local end of every stub and namespace that was used.
pub(super) struct Owner {
    pub(super) client: Client,
    namespaces: HashMap<u64, Namespace>,
    stubs: HashMap<u64, Stub>,
}

/// Starts the thread. It connects, says so, and runs until the queue is closed.
pub(super) fn start(
    address: Address,
    shared: Arc<Shared>,
    closed: oneshot::Sender<()>,
    connected: oneshot::Sender<Result<()>>,
) -> Result<()> {
    let body = move || {
        // Dropped last, and by a panic too: whoever still waits then gets an answer.
        let mut ending = Ending { shared, closed: Some(closed) };
        let runtime =
            Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
        match runtime {
            Ok(runtime) => runtime.block_on(serve(address, &mut ending, connected)),
            Err(error) => drop(connected.send(Err(error.into()))),
        }
    };
    let thread = std::thread::Builder::new().name("stubborn-client".into());
    #[expect(
        clippy::disallowed_methods,
        reason = "a connection has one thread, and no shard is here"
    )]
    thread.spawn(body)?;
    Ok(())
}

/// What the thread's end does, whatever ends it.
struct Ending {
    shared: Arc<Shared>,
    /// Present until the connection is lost.
    closed: Option<oneshot::Sender<()>>,
}

impl Ending {
    fn lose(&mut self, error: Error) {
        self.shared.lose(error);
        self.closed.take();
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.shared.end();
    }
}

async fn serve(address: Address, ending: &mut Ending, mut connected: oneshot::Sender<Result<()>>) {
    let connecting = Client::connect_with(&address, ending.shared.limits.clone());
    let client = tokio::select! { biased;
        () = connected.cancellation() => return,
        client = connecting => client,
    };
    let client = match client {
        Ok(client) => client,
        Err(error) => return drop(connected.send(Err(error))),
    };
    let ended = client.ended();
    if connected.send(Ok(())).is_err() || drive(client, ending).await.is_ok() {
        // Calls under way, bodies that are being read and closures that run keep the connection open.
        ended.await.ok();
    }
}

/// Carries out parcels until there are none to come.
///
/// # Errors
/// Where nothing drives the connection any more: the calls under way would wait for ever.
async fn drive(client: Client, ending: &mut Ending) -> Result<()> {
    let mut ended = pin!(client.ended());
    let mut driven = true;
    let watched = client.clone();
    let mut closed = pin!(watched.closed());
    let mut owner = Owner { client, namespaces: HashMap::new(), stubs: HashMap::new() };
    let mut batch = VecDeque::new();
    loop {
        tokio::select! { biased;
            error = &mut closed, if ending.closed.is_some() => {
                ending.lose(error);
                continue;
            }
            outcome = &mut ended, if driven => {
                outcome?;
                driven = false;
                continue;
            }
            () = ending.shared.queue().drain_into(&mut batch) => {}
        }
        if batch.is_empty() {
            return Ok(());
        }
        for parcel in batch.drain(..) {
            owner.carry_out(parcel);
        }
        requeue().await;
    }
}

impl Owner {
    fn carry_out(&mut self, parcel: Parcel) {
        match parcel {
            Parcel::Fetch { stub, request, reply } => self.fetch(stub, request, reply),
            Parcel::Run(run) => run(self),
            Parcel::CloseStub(key) => drop(self.stubs.remove(&key)),
            Parcel::CloseNamespace(key) => drop(self.namespaces.remove(&key)),
        }
    }

    fn fetch(&mut self, reference: Arc<Reference>, request: Request, mut reply: Reply<Response>) {
        if reply.sender.is_canceled() {
            return;
        }
        let stub = self.stub(&reference);
        // It polls the request's body, which is the caller's code.
        let answer = match catch_unwind(AssertUnwindSafe(|| stub.fetch(request))) {
            Ok(answer) => answer,
            Err(payload) => return reply.give(panicked("the request's body", payload)),
        };
        tokio::task::spawn_local(async move {
            let outcome = tokio::select! { biased;
                outcome = answer => outcome,
                () = reply.sender.cancellation() => return,
            };
            if outcome.is_err()
                && let Some(reason) = stub.broken_reason()
            {
                reference.break_with(reason);
            }
            reply.give(outcome);
        });
    }

    /// Returns the local end of a stub.
    pub(super) fn stub(&mut self, reference: &Reference) -> Stub {
        if let Some(stub) = self.stubs.get(&reference.key()) {
            return stub.clone();
        }
        let stub = self.namespace(reference.place()).stub(reference.target());
        self.stubs.insert(reference.key(), stub.clone());
        stub
    }

    /// Returns the local end of a namespace.
    pub(super) fn namespace(&mut self, place: &Place) -> Namespace {
        let make = || self.client.namespace(place.name());
        self.namespaces.entry(place.key()).or_insert_with(make).clone()
    }
}

impl<T: 'static> Reply<T> {
    fn give(self, outcome: Result<T>) {
        // First: whoever hears of the answer may make another call.
        drop(self.permit);
        drop(self.sender.send(outcome));
    }

    /// Begins `task` at once, and answers with what it returns. It is dropped where nobody waits.
    pub(super) fn answer_with(mut self, task: impl Future<Output = Result<T>> + 'static) {
        if self.sender.is_canceled() {
            return;
        }
        let mut task = Box::pin(AssertUnwindSafe(task).catch_unwind());
        // What it calls before it first waits is thereby in order with the other parcels.
        if let Some(outcome) = task.as_mut().now_or_never() {
            return self.give(outcome.unwrap_or_else(in_closure));
        }
        tokio::task::spawn_local(async move {
            let outcome = tokio::select! { biased;
                outcome = task => outcome.unwrap_or_else(in_closure),
                () = self.sender.cancellation() => return,
            };
            self.give(outcome);
        });
    }
}

fn in_closure<T>(payload: Box<dyn Any + Send>) -> Result<T> {
    panicked("the closure", payload)
}

fn panicked<T>(what: &str, payload: Box<dyn Any + Send>) -> Result<T> {
    let message = match payload.downcast::<String>() {
        Ok(message) => *message,
        Err(payload) => payload.downcast::<&str>().map_or("".into(), |message| (*message).into()),
    };
    Err(Error::failed(format!("{what} panicked: {message}")))
}

/// Lets every other task that is ready run once, so that a queue which never runs dry starves none.
async fn requeue() {
    let mut is_first = true;
    poll_fn(|context| {
        if std::mem::take(&mut is_first) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(())
    })
    .await;
}
