//! The results of a typed call, on their way out.
//!
//! **Invariant:** no result leaves with a reference that a peer gave unresolved and that is unresolved still.
//! Returning such a one while it resolves is the one race in which capnp-rpc loses E-order; results wait
//! for it to settle instead.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::time::Duration;

use capnp::any_pointer;
use capnp::capability::Promise;
use capnp::private::capability::{ClientHook, PipelineHook, PipelineOp, RequestHook, ResultsHook};
use capnp::traits::{Imbue, ImbueMut};
use futures::FutureExt;
use futures::future::{LocalBoxFuture, MaybeDone, maybe_done};

use super::copied::Copied;
use super::outgoing::{at, plain};
use crate::gate::Outbox;
use crate::limits::Limits;

/// Results that have not left yet.
pub struct Held {
    message: capnp::message::Builder<capnp::message::HeapAllocator>,
    references: Vec<Option<Box<dyn ClientHook>>>,
    onward: Rc<RefCell<Box<dyn ResultsHook>>>,
    /// Whether they were copied onward, so that calls on them may be made before the handler returns. Copied
    /// again, capnp would panic over the references that it would have to clear.
    handed_out: bool,
    early: Early,
    outbox: Rc<Outbox>,
    bytes_max: usize,
    patience: Duration,
}

impl Held {
    /// Makes those that are handed to `onward`, by `outbox`.
    pub fn new(
        onward: Box<dyn ResultsHook>,
        early: Early,
        limits: &Limits,
        outbox: Rc<Outbox>,
    ) -> Self {
        /// What a message holds beside its results.
        const ENVELOPE_BYTES: usize = 4 << 10;
        let bytes_max = limits.message_bytes_max.saturating_sub(ENVELOPE_BYTES);
        let allocator = capnp::message::HeapAllocator::new().first_segment_words(32);
        let message = capnp::message::Builder::new(allocator);
        let patience = limits.settle_timeout;
        let (references, onward) = (Vec::new(), Rc::new(RefCell::new(onward)));
        Self { message, references, onward, handed_out: false, early, outbox, bytes_max, patience }
    }

    fn check_size(&self) -> capnp::Result<()> {
        let (bytes, max) = (self.message.size_in_words() * 8, self.bytes_max);
        if bytes > max {
            let text = format!("results of {bytes} bytes, of at most {max}");
            return Err(capnp::Error::failed(text));
        }
        Ok(())
    }

    fn content(&self) -> capnp::Result<any_pointer::Reader<'_>> {
        let mut root: any_pointer::Reader<'_> = self.message.get_root_as_reader()?;
        root.imbue(&self.references);
        Ok(root)
    }

    fn copy_onward(&mut self) -> capnp::Result<()> {
        self.check_size()?;
        for reference in self.references.iter_mut().flatten() {
            if let Some(plain) = plain(&**reference) {
                *reference = plain;
            }
        }
        self.onward.borrow_mut().get()?.set_as(self.content()?)
    }

    /// Has calls on the results be made once what was written before is durable, and every reference in them is
    /// settled. What is written to the results later is lost.
    fn hand_out(&mut self) -> capnp::Result<()> {
        if self.handed_out {
            return Ok(());
        }
        let (onward, outbox) = (self.onward.clone(), self.outbox.clone());
        if self.references.iter().flatten().all(|reference| is_settled(&**reference)) {
            self.copy_onward()?;
            set_pipeline(onward, &outbox);
        } else {
            self.check_size()?;
            let (mut copied, patience) = (Copied::of(self.content()?, plain)?, self.patience);
            self.early.begin(async move {
                settle(copied.references_mut(), patience).await?;
                onward.borrow_mut().get()?.set_as(copied.get()?)?;
                set_pipeline(onward, &outbox);
                Ok(())
            });
        }
        self.handed_out = true;
        Ok(())
    }

    /// Waits until every reference in the results is settled, then hands the results on.
    pub async fn settle(mut self) -> capnp::Result<()> {
        if self.handed_out {
            return self.early.done().await;
        }
        settle(self.references.iter_mut().flatten(), self.patience).await?;
        self.copy_onward()
    }
}

/// The handing out of results whose references had to settle first.
#[derive(Clone, Default)]
pub struct Early(Rc<RefCell<Option<Handing>>>);

type Handing = MaybeDone<LocalBoxFuture<'static, capnp::Result<()>>>;

impl Early {
    fn begin(&self, handing: impl Future<Output = capnp::Result<()>> + 'static) {
        *self.0.borrow_mut() = Some(maybe_done(handing.boxed_local()));
    }

    /// Runs `handler`, and beside it what it began to hand out.
    pub async fn beside<T>(&self, handler: impl Future<Output = T>) -> T {
        let mut handler = pin!(handler);
        poll_fn(|context| {
            let polled = handler.as_mut().poll(context);
            if polled.is_pending()
                && let Some(handing) = &mut *self.0.borrow_mut()
            {
                // How it went is asked for when the handler has ended.
                let _ = handing.poll_unpin(context);
            }
            polled
        })
        .await
    }

    async fn done(&self) -> capnp::Result<()> {
        let Some(mut handing) = self.0.take() else { return Ok(()) };
        (&mut handing).await;
        Pin::new(&mut handing).take_output().unwrap_or(Ok(()))
    }
}

/// Has calls on what was copied onward be made, once what was written before is durable.
fn set_pipeline(onward: Rc<RefCell<Box<dyn ResultsHook>>>, outbox: &Outbox) {
    outbox.send(move |verdict| {
        if verdict.is_ok() {
            // Where it can't be, the calls are made when the handler returns.
            let _ = onward.borrow_mut().set_pipeline();
        }
    });
}

/// Waits until every one of `references` is settled.
async fn settle(
    references: impl Iterator<Item = &mut Box<dyn ClientHook>>,
    patience: Duration,
) -> capnp::Result<()> {
    let deadline = tokio::time::Instant::now() + patience;
    for reference in references {
        let settled = resolved(reference.add_ref());
        let Ok(settled) = tokio::time::timeout_at(deadline, settled).await else {
            return Err(capnp::Error::failed(format!(
                "a reference in the results was unresolved for {patience:?}"
            )));
        };
        *reference = plain(&*settled).unwrap_or(settled);
    }
    Ok(())
}

fn is_settled(reference: &dyn ClientHook) -> bool {
    match reference.get_resolved() {
        Some(next) => is_settled(&*next),
        None => reference.when_more_resolved().is_none(),
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
pub struct HeldResults {
    /// Present until dropped.
    pub held: Option<Held>,
    /// Where they are handed in.
    pub slot: Rc<RefCell<Option<Held>>>,
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
        self.held.as_mut().map_or(Ok(()), Held::hand_out)
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
        at(&self.0, ops)
    }
}
