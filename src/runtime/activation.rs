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
use tokio::time::Sleep;

use super::container::{Container, Inside, Phase, Waiting};
use super::event::{AlarmReply, Event, Reply, TypedReply};
use super::interior::Interior;
use super::journal::{Entry, EventKind};
use super::lane::Lane;
use super::running::{Answering, Ended, Running, panic_message, theirs};
use super::shard::Shard;
use crate::error::{Error, Result};
use crate::gate::NOBODY;
use crate::message::Request;
use crate::object::{
    Accepted, AlarmInfo, Entered, Env, Instance, Signal, Socket, State, TypedCall, typed_failure,
};
use crate::schedule::Tries;
use crate::socket::{Ending, Taken};

/// Events that may enter before other tasks of the thread get their turn.
const EVENTS_PER_TURN: usize = 128;

/// The task of one object in memory.
pub struct Activation {
    container: Rc<Container>,
    shard: Rc<Shard>,
    interior: Rc<Interior>,
    stage: Stage,
    running: FuturesUnordered<Running>,
    /// How many handlers and tasks there were: each has a number, to tell whose code runs.
    owners: u64,
    /// The event that enters, until its handler has it.
    entry: Option<Entry>,
}

enum Stage {
    Constructing(LocalBoxFuture<'static, Result<Rc<dyn Instance>>>),
    Live(Rc<dyn Instance>),
    Stopping(Hook),
    /// It has nothing more to do than to wait until what it wrote is durable.
    Settling,
    Gone,
}

/// The object's hook for its end, and how long that has.
struct Hook {
    /// None once it has ended.
    future: Option<LocalBoxFuture<'static, ()>>,
    bound: Pin<Box<Sleep>>,
}

/// What polling a hook came to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Hooked {
    Runs,
    Ended,
    /// Its time is over.
    Late,
}

impl Hook {
    fn poll(&mut self, context: &mut Context<'_>) -> Hooked {
        if self.bound.is_elapsed() || self.bound.as_mut().poll(context).is_ready() {
            self.future = None;
            return Hooked::Late;
        }
        if let Some(future) = &mut self.future
            && future.as_mut().poll(context).is_pending()
        {
            return Hooked::Runs;
        }
        self.future = None;
        Hooked::Ended
    }
}

impl Activation {
    /// Begins to make the object of `container`.
    pub fn new(container: Rc<Container>, shard: Rc<Shard>) -> Self {
        container.set_phase(Phase::Busy);
        let (interior, stage) = construct(&container, &shard);
        let running = FuturesUnordered::new();
        Self { container, shard, interior, stage, running, owners: 0, entry: None }
    }
}

impl Future for Activation {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.container.set_waker(context.waker());
        self.container.set_in_turn(true);
        let polled = self.turns(context);
        self.container.set_in_turn(false);
        polled
    }
}

impl Activation {
    /// Takes turns until there is nothing to do, or others are to have theirs.
    fn turns(&mut self, context: &mut Context<'_>) -> Poll<()> {
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
                // What was written behind the turn's end is handed over by another.
                Turn::Wait if self.container.take_written() => {}
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
                let entrance = &self.interior.entrance;
                let poll = || entrance.run_as(NOBODY, || future.as_mut().poll(context));
                let polled = catch_unwind(AssertUnwindSafe(poll));
                self.flush();
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
            Stage::Stopping(hook) => match catch_unwind(AssertUnwindSafe(|| hook.poll(context))) {
                Ok(hooked) => self.stop(hooked, context, budget),
                Err(payload) => {
                    self.panicked(panic_message(&*payload));
                    Turn::Again
                }
            },
            Stage::Settling => {
                self.flush();
                if self.container.is_broken() {
                    Turn::Again
                } else if self.interior.is_settled() {
                    self.stopped()
                } else {
                    Turn::Wait
                }
            }
            Stage::Gone => Turn::End,
        }
    }

    /// Hands what was written since the last time to the store.
    fn flush(&self) {
        self.container.take_written();
        if let Some(storage) = self.interior.storage()
            && !self.container.is_broken()
            && let Err(error) = storage.flush()
        {
            self.container.break_with(error);
        }
    }

    /// Lets events in, runs what is inside, and notices when nothing is left.
    fn serve(
        &mut self,
        instance: &Rc<dyn Instance>,
        context: &mut Context<'_>,
        budget: &mut usize,
    ) -> Turn {
        // What is inside goes first, and leaves half of the turn to what wants to enter: neither starves.
        let for_events = *budget / 2;
        let mut moved = self.go_on(context, budget, for_events);
        let handlers_max = self.shard.limits().object_handlers_max;
        while *budget > 0
            && !self.container.is_broken()
            && self.running.len() < handlers_max
            && let Some(waiting) = self.container.pop()
        {
            moved = true;
            *budget -= 1;
            self.enter(waiting, instance, context);
        }
        moved |= self.start_tasks(context);
        self.flush();
        if moved {
            self.container.set_phase(Phase::Busy);
            // Whoever asked it to leave for being idle was wrong by now; a server that stops asks again.
            self.container.take_stop();
            let is_empty = self.running.is_empty() && !self.container.has_tasks();
            if !is_empty || self.container.has_waiting() || self.container.is_broken() {
                return Turn::Again;
            }
        }
        if self.container.has_waiting() {
            // What waits though nothing moves is kept out by a critical section.
            self.interior.entrance.wait(context.waker());
        }
        if self.container.is_broken() {
            return Turn::Again;
        }
        let is_at_work =
            !self.running.is_empty() || self.container.has_waiting() || !self.interior.is_settled();
        if is_at_work && !self.shard.is_hurried() {
            if self.running.is_empty() && !self.container.has_waiting() {
                self.container.rest();
            }
            return Turn::Wait;
        }
        if self.container.take_stop() || self.shard.refusal().is_some() {
            let future = Some(instance.clone().before_shutdown());
            let patience = self.shard.limits().shutdown_hook_timeout;
            let bound = Box::pin(tokio::time::sleep(patience));
            self.stage = Stage::Stopping(Hook { future, bound });
            return Turn::Again;
        }
        if self.container.phase() == Phase::Busy {
            self.container.set_phase(Phase::Idle);
        }
        Turn::Wait
    }

    /// Lets what is inside go on, down to a budget of `left`; returns whether anything ended.
    fn go_on(&mut self, context: &mut Context<'_>, budget: &mut usize, left: usize) -> bool {
        let mut moved = false;
        while *budget > left
            && !self.container.is_broken()
            && let Poll::Ready(Some(ended)) = self.running.poll_next_unpin(context)
        {
            moved = true;
            *budget -= 1;
            self.ended(ended);
        }
        moved
    }

    /// Starts the tasks that were left behind; returns whether there were any.
    fn start_tasks(&mut self, context: &mut Context<'_>) -> bool {
        let mut moved = false;
        if !self.container.is_broken() {
            for task in self.container.take_tasks() {
                moved = true;
                let running = Running::task(task, self.answering());
                self.start(running, context);
            }
        }
        moved
    }

    /// Lets what is inside go on beside the hook, the tasks that the hook begins too. Nothing enters any more.
    fn stop(&mut self, hooked: Hooked, context: &mut Context<'_>, budget: &mut usize) -> Turn {
        let moved = self.go_on(context, budget, 0) | self.start_tasks(context);
        // What they wait for may wait for what was written.
        self.flush();
        if moved || self.container.is_broken() {
            return Turn::Again;
        }
        let is_over = match hooked {
            Hooked::Runs => false,
            Hooked::Ended => self.running.is_empty(),
            // Handlers that go on while the server stops have what time that has; tasks of the hook have none.
            Hooked::Late => self.running.is_empty() || !self.shard.is_hurried(),
        };
        if !is_over {
            return Turn::Wait;
        }
        let left = std::mem::take(&mut self.running);
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(left))) {
            self.panicked(panic_message(&*payload));
        }
        self.stage = Stage::Settling;
        Turn::Again
    }

    /// Enters the handler of one event, and polls it once.
    fn enter(&mut self, waiting: Waiting, instance: &Rc<dyn Instance>, context: &mut Context<'_>) {
        let Waiting { event, lane, since, .. } = waiting;
        if event.is_abandoned() {
            return;
        }
        let kind = match event {
            Event::Fetch { .. } => EventKind::Fetch,
            Event::Typed { .. } => EventKind::Typed,
            Event::Alarm { .. } => EventKind::Alarm,
            Event::Socket { .. } => EventKind::Socket,
        };
        let key = self.container.key();
        self.entry = Some(Entry::new(self.shard.journal(), key, kind, since));
        match event {
            Event::Fetch { request, reply } => self.enter_fetch(request, reply, instance, context),
            Event::Typed { call, reply } => self.enter_typed(call, reply, lane, instance, context),
            Event::Alarm { tries, reply, slot } => {
                drop(slot);
                self.enter_alarm(tries, reply, instance, context);
            }
            Event::Socket { accepted } => self.enter_socket(accepted, instance, context),
        }
        // Where its handler did not begin, it has failed.
        self.entry = None;
    }

    /// Makes what a new handler or task needs, so that its code is known as its own.
    fn answering(&mut self) -> Answering {
        self.owners += 1;
        let (interior, container) = (self.interior.clone(), self.container.clone());
        let (limits, entry) = (self.shard.limits().clone(), self.entry.take());
        Answering { owner: self.owners, interior, container, limits, entry }
    }

    fn enter_fetch(
        &mut self,
        mut request: Box<Request>,
        reply: Reply,
        instance: &Rc<dyn Instance>,
        context: &mut Context<'_>,
    ) {
        let signal = Signal::default();
        request.extensions_mut().insert(signal.clone());
        let method = request.method().clone();
        let answering = self.answering();
        match catch_unwind(AssertUnwindSafe(|| instance.clone().fetch(request))) {
            Ok(handler) => {
                self.start(Running::fetch(handler, reply, signal, method, answering), context);
            }
            Err(payload) => {
                self.panicked(panic_message(&*payload));
                reply.send(Err(self.reason()));
            }
        }
    }

    fn enter_typed(
        &mut self,
        call: TypedCall,
        reply: TypedReply,
        lane: Option<Rc<Lane>>,
        instance: &Rc<dyn Instance>,
        context: &mut Context<'_>,
    ) {
        let answering = self.answering();
        let Interior { number, entrance, outbox, .. } = &*answering.interior.clone();
        let (own, limits) = (instance.dispatch(), self.shard.limits());
        let enter =
            || entrance.run_as(answering.owner, || call.enter(own, *number, limits, outbox));
        match catch_unwind(AssertUnwindSafe(enter)) {
            Ok(Ok(Entered { handler, is_streaming })) => {
                let holds = lane.filter(|_| is_streaming);
                holds.iter().for_each(|lane| self.container.hold(lane));
                self.start(Running::typed(handler, reply, holds, answering), context);
            }
            Ok(Err(error)) => drop(reply.send(typed_failure(error))),
            Err(payload) => {
                self.panicked(panic_message(&*payload));
                let _ = reply.send(typed_failure(self.reason()));
            }
        }
    }

    fn enter_alarm(
        &mut self,
        tries: Tries,
        reply: AlarmReply,
        instance: &Rc<dyn Instance>,
        context: &mut Context<'_>,
    ) {
        let Some(storage) = self.interior.storage().cloned() else { return };
        let ringing = match storage.ring(tries) {
            Ok(Some(ringing)) => ringing,
            // It was cleared, or set to later, or given up meanwhile.
            Ok(None) => {
                self.entry.take().into_iter().for_each(Entry::pass);
                return drop(reply.send(Ok(())));
            }
            Err(error) => return drop(reply.send(Err(error))),
        };
        let handler = || instance.clone().alarm(AlarmInfo::of(&ringing));
        match catch_unwind(AssertUnwindSafe(handler)) {
            Ok(handler) => {
                let random = self.shard.entropy().number();
                let answering = self.answering();
                self.start(Running::alarm(handler, reply, storage, random, answering), context);
            }
            Err(payload) => {
                self.panicked(panic_message(&*payload));
                let _ = reply.send(Err(self.reason()));
            }
        }
    }

    fn enter_socket(
        &mut self,
        accepted: Rc<Accepted>,
        instance: &Rc<dyn Instance>,
        context: &mut Context<'_>,
    ) {
        let Some(taken) = accepted.take() else {
            self.entry.take().into_iter().for_each(Entry::pass);
            return self.container.heard(&accepted);
        };
        let ending = match &taken {
            Taken::Message(_) => None,
            Taken::Ended(ending) => Some(ending.clone()),
        };
        let socket = Socket::new(accepted.clone(), self.interior.outbox.clone());
        match catch_unwind(AssertUnwindSafe(|| instance.clone().web_socket(socket, taken))) {
            Ok(handler) => {
                let answering = self.answering();
                self.start(Running::socket(handler, accepted, ending, answering), context);
            }
            Err(payload) => self.panicked(panic_message(&*payload)),
        }
    }

    /// An event of a WebSocket was handled. One that has ended is answered and goes, behind what it was
    /// sent.
    fn heard(&self, accepted: Rc<Accepted>, ending: Option<Ending>) {
        let Some(ending) = ending else { return self.container.heard(&accepted) };
        let outbox = &self.interior.outbox;
        Socket::new(accepted.clone(), outbox.clone()).answer(&ending);
        let container = Rc::downgrade(&self.container);
        outbox.send(move |_| {
            if let Some(container) = container.upgrade() {
                container.forget_socket(&accepted);
            }
        });
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
            Ended::Heard(accepted, ending) => self.heard(accepted, ending),
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
        // An author's `Drop` may panic as any other code of an author's.
        let _ = catch_unwind(AssertUnwindSafe(|| self.container.end_activation()));
        if self.container.has_waiting() {
            self.container.set_phase(Phase::Busy);
            (self.interior, self.stage) = construct(&self.container, &self.shard);
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
        for running in running {
            let _ = catch_unwind(AssertUnwindSafe(|| running.fail(reason)));
        }
        let _ = catch_unwind(AssertUnwindSafe(|| drop(stage)));
        let _ = catch_unwind(AssertUnwindSafe(|| self.container.end_activation()));
        self.container.set_phase(Phase::Absent);
        self.shard.deactivated(&self.container);
    }
}

/// Begins a construction: a critical section with a bound. Before it, the object's storage is opened.
fn construct(container: &Rc<Container>, shard: &Rc<Shard>) -> (Rc<Interior>, Stage) {
    let interior = Interior::new(shard.new_activation_number());
    container.begin_activation(interior.clone());
    shard.look_after(container);
    let namespace = shard.namespaces().at(container.key().namespace);
    let timeout = shard.limits().critical_section_timeout;
    let control = Inside {
        container: Rc::downgrade(container),
        interior: interior.clone(),
        identity: container.identity(namespace.name()),
        clock: shard.storages().rules().clock,
        critical_section_timeout: timeout,
    };
    let state = State::new(Rc::new(control));
    let env = Env::new(shard.directory(), interior.outbox.clone());
    let class = namespace.class().clone();
    let (opening, container, shard) = (interior.clone(), container.clone(), shard.clone());
    let construction = async move {
        let storage = shard.storages().open(&shard, &container, &opening).await?;
        opening.set_storage(storage);
        container.keep_name();
        // A call under way holds the container, not its object.
        drop((container, shard));
        match tokio::time::timeout(timeout, class.construct(state, env)).await {
            Ok(outcome) => outcome.map_err(theirs),
            Err(_) => Err(Error::timeout(format!("the constructor took over {timeout:?}"))),
        }
    };
    (interior, Stage::Constructing(construction.boxed_local()))
}
