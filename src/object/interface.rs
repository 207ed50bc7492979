//! Typed calls: methods of an author's own Cap'n Proto interface, on their way to the object.
//!
//! **Invariant:** no result leaves with a reference that a peer gave unresolved and that is unresolved still.
//! Returning such a one while it resolves is the one race in which capnp-rpc loses E-order; results wait
//! for it to settle instead.

mod outgoing;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use capnp::any_pointer;
use capnp::capability::{
    DispatchCallResult, FromClientHook, FromServer, Params, Promise, Results, Server,
};
use capnp::private::capability::{
    ClientHook, ParamsHook, PipelineHook, PipelineOp, RequestHook, ResultsHook,
};
use capnp::traits::{Imbue, ImbueMut};
use futures::FutureExt;
use futures::future::LocalBoxFuture;

pub use outgoing::behind;

use self::outgoing::IncomingParams;
use crate::error::Error;
use crate::gate::Outbox;
use crate::limits::Limits;
use crate::object::State;
use crate::stub::ordered;

/// The dispatcher that the generated code has for one object.
pub struct Dispatch(Box<Dispatcher>);

type Dispatcher =
    dyn Fn(u64, u16, Params<any_pointer::Owned>, Results<any_pointer::Owned>) -> DispatchCallResult;

impl Dispatch {
    /// Makes the dispatcher of `object` for the interface of the client type `C`.
    pub(crate) fn new<C: Interface<T>, T: 'static>(object: Rc<T>) -> Self {
        let dispatch = C::from_server(object);
        Self(Box::new(move |interface, method, params, results| {
            dispatch.clone().dispatch_call(interface, method, params, results)
        }))
    }
}

impl State {
    /// Makes a capability of `server` that others may call, as [`stubborn::capability`](crate::capability) does, and
    /// that is a part of the object: its methods wait while a critical section of another event runs, what they
    /// answer leaves when what the object wrote before is durable, a panic in one resets the object, and a reset
    /// ends it. The object stays in memory as long as anybody holds the capability.
    pub fn capability<C, S>(&self, server: S) -> C
    where
        C: FromServer<S> + FromClientHook,
        S: 'static,
    {
        let (capability, serving) = ordered(server, self.outbox());
        self.wait_until(serving);
        capability
    }
}

/// How a typed call ended; its results were written where they belong.
pub type TypedOutcome = Result<(), capnp::Error>;

/// What a typed call ends with that fails for `error`.
pub fn typed_failure(error: Error) -> TypedOutcome {
    Err(error.into())
}

/// The interface, as a client type `C` of the generated code, that an object of type `T` serves.
pub use capnp::capability::FromServer as Interface;

/// A call of a typed method that has not been delivered yet.
pub struct TypedCall {
    /// The interface's id.
    pub interface: u64,
    /// The method's ordinal.
    pub method: u16,
    /// What it was called with.
    pub params: Box<dyn ParamsHook>,
    /// Where its results go.
    pub results: Box<dyn ResultsHook>,
}

impl TypedCall {
    /// Returns how many bytes its parameters have.
    pub(crate) fn bytes(&self) -> usize {
        let size = self.params.get().and_then(|params| params.target_size());
        size.map_or(0, |size| usize::try_from(size.word_count).unwrap_or(usize::MAX / 16) * 8)
    }

    /// Enters the author's handler. Returns its completion, and whether it is a streaming method, which
    /// holds back the calls behind it on the same stub.
    pub(crate) fn enter(
        self,
        dispatch: &Dispatch,
        limits: &Limits,
        outbox: &Rc<Outbox>,
    ) -> (LocalBoxFuture<'static, TypedOutcome>, bool) {
        let Self { interface, method, params, results } = self;
        let params = IncomingParams::of(outbox, params);
        let slot = Rc::new(RefCell::new(None));
        let held = HeldResults { held: Some(Held::new(results, limits)), slot: slot.clone() };
        let results = Results::new(Box::new(held));
        let answer = (dispatch.0)(interface, method, Params::new(params), results);
        let completion = async move {
            answer.promise.await?;
            let held = slot.borrow_mut().take();
            match held {
                Some(held) => held.settle().await,
                // A streaming method has no results, and leaves them where they are.
                None if answer.is_streaming => Ok(()),
                None => Err(capnp::Error::failed("the handler kept its results".into())),
            }
        };
        (completion.boxed_local(), answer.is_streaming)
    }
}

/// Results that have not left yet.
struct Held {
    message: capnp::message::Builder<capnp::message::HeapAllocator>,
    references: Vec<Option<Box<dyn ClientHook>>>,
    onward: Box<dyn ResultsHook>,
    bytes_max: usize,
    patience: Duration,
}

impl Held {
    fn new(onward: Box<dyn ResultsHook>, limits: &Limits) -> Self {
        /// What a message holds beside its results.
        const ENVELOPE_BYTES: usize = 4 << 10;
        let bytes_max = limits.message_bytes_max.saturating_sub(ENVELOPE_BYTES);
        let allocator = capnp::message::HeapAllocator::new().first_segment_words(32);
        let message = capnp::message::Builder::new(allocator);
        let patience = limits.settle_timeout;
        Self { message, references: Vec::new(), onward, bytes_max, patience }
    }

    fn copy_onward(&mut self) -> capnp::Result<()> {
        let (bytes, max) = (self.message.size_in_words() * 8, self.bytes_max);
        if bytes > max {
            let text = format!("results of {bytes} bytes, of at most {max}");
            return Err(capnp::Error::failed(text));
        }
        let mut root: any_pointer::Reader<'_> = self.message.get_root_as_reader()?;
        root.imbue(&self.references);
        self.onward.get()?.set_as(root)
    }

    /// Waits until every reference in the results is settled, then hands the results on.
    async fn settle(mut self) -> capnp::Result<()> {
        let patience = self.patience;
        let deadline = tokio::time::Instant::now() + patience;
        for reference in self.references.iter_mut().flatten() {
            let settled = resolved(reference.add_ref());
            let Ok(settled) = tokio::time::timeout_at(deadline, settled).await else {
                return Err(capnp::Error::failed(format!(
                    "a reference in the results was unresolved for {patience:?}"
                )));
            };
            *reference = settled;
        }
        self.copy_onward()
    }
}

/// Follows a promise to what it resolved to. A broken one is returned as it is: its calls fail.
async fn resolved(mut reference: Box<dyn ClientHook>) -> Box<dyn ClientHook> {
    loop {
        if let Some(next) = reference.get_resolved() {
            reference = next;
            continue;
        }
        let Some(promise) = reference.when_more_resolved() else { return reference };
        match promise.await {
            Ok(next) => reference = next,
            Err(_) => return reference,
        }
    }
}

/// The results that the handler fills; dropping them is handing them in.
struct HeldResults {
    /// Present until dropped.
    held: Option<Held>,
    slot: Rc<RefCell<Option<Held>>>,
}

impl Drop for HeldResults {
    fn drop(&mut self) {
        *self.slot.borrow_mut() = self.held.take();
    }
}

impl ResultsHook for HeldResults {
    fn get(&mut self) -> capnp::Result<any_pointer::Builder<'_>> {
        let Some(held) = &mut self.held else {
            return Err(capnp::Error::failed("the results were handed in".into()));
        };
        let mut root: any_pointer::Builder<'_> = held.message.get_root()?;
        root.imbue_mut(&mut held.references);
        Ok(root)
    }

    fn set_pipeline(&mut self) -> capnp::Result<()> {
        let Some(held) = &mut self.held else { return Ok(()) };
        held.copy_onward()?;
        held.onward.set_pipeline()
    }

    fn allow_cancellation(&self) {}

    fn tail_call(self: Box<Self>, request: Box<dyn RequestHook>) -> Promise<(), capnp::Error> {
        let (promise, _) = self.direct_tail_call(request);
        promise
    }

    /// Forwards by an ordinary call: the results pass through here like any others.
    fn direct_tail_call(
        mut self: Box<Self>,
        request: Box<dyn RequestHook>,
    ) -> (Promise<(), capnp::Error>, Box<dyn PipelineHook>) {
        let sent = request.send();
        let pipeline = Pipelined(Rc::new(sent.pipeline));
        let forwarded = async move {
            let answer = sent.promise.await?;
            self.get()?.set_as(answer.get()?)
        };
        (Promise::from_future(forwarded), Box::new(pipeline))
    }
}

struct Pipelined(Rc<any_pointer::Pipeline>);

impl PipelineHook for Pipelined {
    fn add_ref(&self) -> Box<dyn PipelineHook> {
        Box::new(Self(self.0.clone()))
    }

    fn get_pipelined_cap(&self, ops: &[PipelineOp]) -> Box<dyn ClientHook> {
        let mut at = self.0.noop();
        for op in ops {
            if let PipelineOp::GetPointerField(field) = op {
                at = at.get_pointer_field(*field);
            }
        }
        at.as_cap()
    }
}
