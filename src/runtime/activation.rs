//! One object in memory: its construction, its events in order, its end.
//!
//! **Invariant:** events enter in the order of the queue: the handler of one is polled before the next is
//! taken. Nothing an activation says is sent after it broke.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use futures::FutureExt;
use futures::StreamExt;
use futures::future::LocalBoxFuture;
use futures::stream::FuturesUnordered;

use super::container::{Container, Inside, Phase, Waiting};
use super::event::Event;
use super::running::{Ended, Running, panic_message, theirs};
use super::shard::Shard;
use crate::error::{Error, Result};
use crate::object::{Env, Instance, Signal, State, typed_failure};

/// Events that may enter before other tasks of the thread get their turn.
const EVENTS_PER_TURN: usize = 128;

/// The task of one object in memory.
pub struct Activation {
    container: Rc<Container>,
    shard: Rc<Shard>,
    stage: Stage,
    running: FuturesUnordered<Running>,
}

enum Stage {
    Constructing(LocalBoxFuture<'static, Result<Rc<dyn Instance>>>),
    Live(Rc<dyn Instance>),
    Stopping(LocalBoxFuture<'static, ()>),
    Gone,
}

impl Activation {
    /// Begins to make the object of `container`.
    pub fn new(container: Rc<Container>, shard: Rc<Shard>) -> Self {
        container.set_phase(Phase::Busy);
        let stage = construct(&container, &shard);
        Self { container, shard, stage, running: FuturesUnordered::new() }
    }
}

impl Future for Activation {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.container.set_waker(context.waker());
        let mut budget = EVENTS_PER_TURN;
        loop {
            if let Some(reason) = self.container.broken() {
                self.tear_down(&reason);
                return Poll::Ready(());
            }
            if budget == 0 {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            match self.turn(context, &mut budget) {
                Turn::Again => {}
                Turn::Wait => return Poll::Pending,
                Turn::End => return Poll::Ready(()),
            }
        }
    }
}

/// What a turn came to.
enum Turn {
    Again,
    Wait,
    End,
}

impl Activation {
    fn turn(&mut self, context: &mut Context<'_>, budget: &mut usize) -> Turn {
        match &mut self.stage {
            Stage::Constructing(future) => {
                let polled = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context)));
                match polled {
                    Ok(Poll::Pending) => return Turn::Wait,
                    Ok(Poll::Ready(Ok(instance))) => self.stage = Stage::Live(instance),
                    Ok(Poll::Ready(Err(error))) => self.container.break_with(error),
                    Err(payload) => self.panicked(panic_message(&*payload)),
                }
                Turn::Again
            }
            Stage::Live(instance) => {
                let instance = instance.clone();
                self.serve(&instance, context, budget)
            }
            Stage::Stopping(future) => {
                let polled = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context)));
                match polled {
                    Ok(Poll::Pending) => Turn::Wait,
                    Ok(Poll::Ready(())) => self.stopped(),
                    Err(payload) => {
                        self.panicked(panic_message(&*payload));
                        Turn::Again
                    }
                }
            }
            Stage::Gone => Turn::End,
        }
    }

    /// Lets events in, runs what is inside, and notices when nothing is left.
    fn serve(
        &mut self,
        instance: &Rc<dyn Instance>,
        context: &mut Context<'_>,
        budget: &mut usize,
    ) -> Turn {
        let mut moved = false;
        // What is inside goes first, and leaves half of the turn to what wants to enter: neither starves.
        let for_events = *budget / 2;
        while *budget > for_events
            && !self.container.is_broken()
            && let Poll::Ready(Some(ended)) = self.running.poll_next_unpin(context)
        {
            moved = true;
            *budget -= 1;
            self.ended(ended);
        }
        while *budget > 0
            && !self.container.is_broken()
            && let Some(waiting) = self.container.pop()
        {
            moved = true;
            *budget -= 1;
            self.enter(waiting, instance, context);
        }
        if !self.container.is_broken() {
            for task in self.container.take_tasks() {
                moved = true;
                self.start(Running::task(task), context);
            }
        }
        if moved {
            self.container.set_phase(Phase::Busy);
            // Whoever asked it to leave for being idle was wrong by now; a server that stops asks again.
            self.container.take_stop();
            return Turn::Again;
        }
        if !self.running.is_empty() || self.container.has_waiting() {
            return Turn::Wait;
        }
        if self.container.take_stop() || self.shard.refusal().is_some() {
            let hook = instance.clone().before_shutdown();
            let patience = self.shard.limits().shutdown_hook_timeout;
            let bounded = async move { tokio::time::timeout(patience, hook).await.unwrap_or(()) };
            self.stage = Stage::Stopping(bounded.boxed_local());
            return Turn::Again;
        }
        if self.container.phase() == Phase::Busy {
            self.container.set_phase(Phase::Idle);
        }
        Turn::Wait
    }

    /// Enters the handler of one event, and polls it once.
    fn enter(&mut self, waiting: Waiting, instance: &Rc<dyn Instance>, context: &mut Context<'_>) {
        let Waiting { event, lane, .. } = waiting;
        if event.is_abandoned() {
            return;
        }
        match event {
            Event::Fetch { mut request, reply } => {
                let signal = Signal::default();
                request.extensions_mut().insert(signal.clone());
                let method = request.method().clone();
                let entered = catch_unwind(AssertUnwindSafe(|| instance.clone().fetch(request)));
                match entered {
                    Ok(handler) => {
                        let limits = self.shard.limits().clone();
                        let container = self.container.clone();
                        let running =
                            Running::fetch(handler, reply, signal, method, limits, container);
                        self.start(running, context);
                    }
                    Err(payload) => {
                        self.panicked(panic_message(&*payload));
                        reply.send(Err(self.reason()));
                    }
                }
            }
            Event::Typed { call, reply } => {
                let Some(dispatch) = instance.dispatch() else {
                    let text = "the object serves no typed interface";
                    let _ = reply.send(typed_failure(Error::unimplemented(text)));
                    return;
                };
                let entered =
                    catch_unwind(AssertUnwindSafe(|| call.enter(dispatch, self.shard.limits())));
                match entered {
                    Ok((handler, streaming)) => {
                        let holds = streaming.then(|| {
                            self.container.hold(&lane);
                            lane
                        });
                        self.start(
                            Running::typed(handler, reply, holds, self.container.clone()),
                            context,
                        );
                    }
                    Err(payload) => {
                        self.panicked(panic_message(&*payload));
                        let _ = reply.send(typed_failure(self.reason()));
                    }
                }
            }
        }
    }

    /// Polls `running` once, in order; keeps it where it is not done.
    fn start(&mut self, mut running: Running, context: &mut Context<'_>) {
        match running.poll_unpin(context) {
            Poll::Ready(Ended::Panicked(message)) => {
                self.panicked(message);
                running.fail(&self.reason());
            }
            Poll::Ready(ended) => self.ended(ended),
            Poll::Pending => self.running.push(running),
        }
    }

    fn ended(&mut self, ended: Ended) {
        match ended {
            Ended::Done => {}
            Ended::Released(lane) => self.container.release(&lane),
            Ended::Panicked(message) => self.panicked(message),
        }
    }

    fn panicked(&self, message: String) {
        self.container.break_with(theirs(Error::failed(message)));
    }

    fn reason(&self) -> Error {
        self.container.broken().unwrap_or_else(|| Error::failed("the object was reset"))
    }

    /// The object has left memory in order. What came meanwhile starts it again.
    fn stopped(&mut self) -> Turn {
        self.stage = Stage::Gone;
        self.container.end_activation();
        if self.container.has_waiting() {
            self.container.set_phase(Phase::Busy);
            self.stage = construct(&self.container, &self.shard);
            return Turn::Again;
        }
        self.shard.deactivated(&self.container);
        Turn::End
    }

    /// Answers all with `reason`, and drops the object and everything inside it.
    fn tear_down(&mut self, reason: &Error) {
        let running = std::mem::take(&mut self.running);
        let stage = std::mem::replace(&mut self.stage, Stage::Gone);
        self.container.fail_waiting();
        // An author's `Drop` may panic as any other code of an author's.
        for running in running {
            let _ = catch_unwind(AssertUnwindSafe(|| running.fail(reason)));
        }
        let _ = catch_unwind(AssertUnwindSafe(|| drop(stage)));
        let _ = catch_unwind(AssertUnwindSafe(|| self.container.end_activation()));
        self.container.set_phase(Phase::Absent);
        self.shard.deactivated(&self.container);
    }
}

/// Begins a construction: a critical section with a bound.
fn construct(container: &Rc<Container>, shard: &Rc<Shard>) -> Stage {
    container.begin_activation(shard.new_activation_number());
    shard.look_after(container);
    let namespace = shard.namespaces().at(container.key().namespace);
    let timeout = shard.limits().critical_section_timeout;
    let control = Inside {
        container: Rc::downgrade(container),
        identity: container.identity(namespace.name()),
        critical_section_timeout: timeout,
    };
    let state = State::new(Rc::new(control));
    let env = Env::new(shard.directory());
    let class = namespace.class().clone();
    let construction = async move {
        match tokio::time::timeout(timeout, class.construct(state, env)).await {
            Ok(outcome) => outcome.map_err(theirs),
            Err(_) => Err(Error::timeout(format!("the constructor took over {timeout:?}"))),
        }
    };
    Stage::Constructing(construction.boxed_local())
}
