//! What an object calls: its calls leave by its outbox, behind the writes that it made before them.
//!
//! Every reference that an object gets (from its environment, in the parameters of a call, in the results of one)
//! is led through here. On the way out again, as a parameter or a result of the object's own, it is the plain
//! reference once more.
//!
//! **Invariant:** a call is put in line when it is made; calls of one object leave in the order in which they
//! were made, and none before the writes that came before it are durable.

use std::cell::RefCell;
use std::rc::Rc;

use capnp::any_pointer;
use capnp::capability::{Promise, RemotePromise, Request, Response};
use capnp::private::capability::{
    ClientHook, ParamsHook, PipelineHook, PipelineOp, RequestHook, ResponseHook, ResultsHook,
};
use capnp::traits::{Imbue, ImbueMut};
use capnp::{Error, MessageSize};
use futures::FutureExt;
use futures::channel::oneshot;

use crate::gate::{Outbox, Verdict};
use crate::vat::{Callee, Caller, settled};

/// Returns `reference` as the object of `outbox` is to have it.
pub fn behind(outbox: &Rc<Outbox>, reference: Box<dyn ClientHook>) -> Box<dyn ClientHook> {
    Box::new(Behind { outbox: outbox.clone(), reference })
}

/// Parameters whose references are led through an outbox.
pub struct IncomingParams(Copied);

impl IncomingParams {
    /// Returns `params` as the object of `outbox` is to have them.
    pub fn of(outbox: &Rc<Outbox>, params: Box<dyn ParamsHook>) -> Box<dyn ParamsHook> {
        let copied = params.get().and_then(|from| Copied::of(outbox, from));
        match copied {
            Ok(Some(copied)) => Box::new(Self(copied)),
            // What is wrong with them is found by who reads them.
            _ => params,
        }
    }
}

impl ParamsHook for IncomingParams {
    fn get(&self) -> capnp::Result<any_pointer::Reader<'_>> {
        self.0.get()
    }
}

/// A copy of content that has references in it, each led through an outbox.
struct Copied {
    message: capnp::message::Builder<capnp::message::HeapAllocator>,
    references: Vec<Option<Box<dyn ClientHook>>>,
}

impl Copied {
    /// Copies `from`; none where it has no references.
    fn of(outbox: &Rc<Outbox>, from: any_pointer::Reader<'_>) -> capnp::Result<Option<Self>> {
        if from.target_size()?.cap_count == 0 {
            return Ok(None);
        }
        let mut copied =
            Self { message: capnp::message::Builder::new_default(), references: vec![] };
        let mut root: any_pointer::Builder<'_> = copied.message.get_root()?;
        root.imbue_mut(&mut copied.references);
        root.set_as(from)?;
        for reference in copied.references.iter_mut().flatten() {
            *reference = behind(outbox, reference.add_ref());
        }
        Ok(Some(copied))
    }

    fn get(&self) -> capnp::Result<any_pointer::Reader<'_>> {
        let mut root: any_pointer::Reader<'_> = self.message.get_root_as_reader()?;
        root.imbue(&self.references);
        Ok(root)
    }
}

impl ResponseHook for Copied {
    fn get(&self) -> capnp::Result<any_pointer::Reader<'_>> {
        Copied::get(self)
    }
}

/// A reference whose calls leave by an outbox.
struct Behind {
    outbox: Rc<Outbox>,
    reference: Box<dyn ClientHook>,
}

impl ClientHook for Behind {
    fn add_ref(&self) -> Box<dyn ClientHook> {
        behind(&self.outbox, self.reference.add_ref())
    }

    fn new_call(
        &self,
        interface: u64,
        method: u16,
        size_hint: Option<MessageSize>,
    ) -> Request<any_pointer::Owned, any_pointer::Owned> {
        let request = self.reference.new_call(interface, method, size_hint).hook;
        Request::new(Box::new(Outgoing { outbox: self.outbox.clone(), request }))
    }

    fn call(
        &self,
        interface: u64,
        method: u16,
        params: Box<dyn ParamsHook>,
        results: Box<dyn ResultsHook>,
    ) -> Promise<(), Error> {
        let reference = self.reference.add_ref();
        leave(&self.outbox, move || reference.call(interface, method, params, results))
    }

    fn get_brand(&self) -> usize {
        0
    }

    fn get_ptr(&self) -> usize {
        self.reference.get_ptr()
    }

    /// Whoever hands the reference on hands on the plain one.
    fn get_resolved(&self) -> Option<Box<dyn ClientHook>> {
        Some(self.reference.add_ref())
    }

    fn when_more_resolved(&self) -> Option<Promise<Box<dyn ClientHook>, Error>> {
        Some(Promise::ok(self.reference.add_ref()))
    }

    fn when_resolved(&self) -> Promise<(), Error> {
        self.reference.when_resolved()
    }
}

/// Makes a call when it may leave, and returns its outcome.
fn leave(
    outbox: &Rc<Outbox>,
    call: impl FnOnce() -> Promise<(), Error> + 'static,
) -> Promise<(), Error> {
    if outbox.is_open() {
        return call();
    }
    let (told, made) = oneshot::channel();
    outbox.send(move |verdict| {
        // Whoever made the call may have gone; the call is made all the same.
        let _ = told.send(verdict.map_err(refused).map(|()| call()));
    });
    Promise::from_future(async move { made.await.unwrap_or_else(|_| Err(dropped()))?.await })
}

fn refused(reason: &crate::error::Error) -> Error {
    reason.clone().into()
}

fn dropped() -> Error {
    Error::disconnected("the object is gone".into())
}

/// A call that is being written.
struct Outgoing {
    outbox: Rc<Outbox>,
    request: Box<dyn RequestHook>,
}

impl RequestHook for Outgoing {
    fn get(&mut self) -> any_pointer::Builder<'_> {
        self.request.get()
    }

    fn get_brand(&self) -> usize {
        0
    }

    fn send(self: Box<Self>) -> RemotePromise<any_pointer::Owned> {
        let Self { outbox, request } = *self;
        let sent = Rc::new(RefCell::new(Sent::Held));
        let (told, made) = oneshot::channel();
        let slot = sent.clone();
        outbox.send(move |verdict: Verdict<'_>| match verdict {
            Ok(()) => {
                let RemotePromise { promise, pipeline } = request.send();
                *slot.borrow_mut() = Sent::Made(pipeline);
                let _ = told.send(Ok(promise));
            }
            Err(reason) => {
                *slot.borrow_mut() = Sent::Refused(refused(reason));
                let _ = told.send(Err(refused(reason)));
            }
        });
        let pipeline = Pipelined { outbox: outbox.clone(), sent };
        let promise = async move {
            let promise = made.await.unwrap_or_else(|_| Err(dropped()))?;
            let response = promise.await?;
            Ok(match Copied::of(&outbox, response.get()?)? {
                Some(copied) => Response::new(Box::new(copied)),
                None => response,
            })
        };
        RemotePromise {
            promise: Promise::from_future(promise),
            pipeline: any_pointer::Pipeline::new(Box::new(pipeline)),
        }
    }

    fn send_streaming(self: Box<Self>) -> Promise<(), Error> {
        let Self { outbox, request } = *self;
        leave(&outbox, move || request.send_streaming())
    }

    fn tail_send(self: Box<Self>) -> Option<(u32, Promise<(), Error>, Box<dyn PipelineHook>)> {
        None
    }
}

/// What became of a call that was made.
enum Sent {
    Held,
    Made(any_pointer::Pipeline),
    Refused(Error),
}

/// The results of a call that may not have left yet.
struct Pipelined {
    outbox: Rc<Outbox>,
    sent: Rc<RefCell<Sent>>,
}

impl PipelineHook for Pipelined {
    fn add_ref(&self) -> Box<dyn PipelineHook> {
        Box::new(Self { outbox: self.outbox.clone(), sent: self.sent.clone() })
    }

    fn get_pipelined_cap(&self, ops: &[PipelineOp]) -> Box<dyn ClientHook> {
        if let Sent::Made(pipeline) = &*self.sent.borrow() {
            return behind(&self.outbox, at(pipeline, ops));
        }
        let fields = ops.iter().filter_map(|op| match op {
            PipelineOp::GetPointerField(field) => Some(*field),
            PipelineOp::Noop => None,
        });
        let later = Later { sent: self.sent.clone(), fields: fields.collect() };
        let client: capnp::capability::Client = settled(later);
        behind(&self.outbox, client.hook)
    }
}

fn at(pipeline: &any_pointer::Pipeline, ops: &[PipelineOp]) -> Box<dyn ClientHook> {
    let mut at = pipeline.noop();
    for op in ops {
        if let PipelineOp::GetPointerField(field) = op {
            at = at.get_pointer_field(*field);
        }
    }
    at.as_cap()
}

/// A reference in the results of a call that had not left when it was asked for. Calls on it leave behind that
/// call, so when one comes here that call has been made.
struct Later {
    sent: Rc<RefCell<Sent>>,
    fields: Vec<u16>,
}

impl Callee for Later {
    fn call(
        &self,
        caller: Caller,
        interface: u64,
        method: u16,
        params: Box<dyn ParamsHook>,
        results: Box<dyn ResultsHook>,
    ) -> Promise<(), Error> {
        let reference = match &*self.sent.borrow() {
            Sent::Made(pipeline) => {
                let ops: Vec<_> =
                    self.fields.iter().copied().map(PipelineOp::GetPointerField).collect();
                at(pipeline, &ops)
            }
            Sent::Refused(error) => return Promise::err(error.clone()),
            Sent::Held => return Promise::err(dropped()),
        };
        let answer = reference.call(interface, method, params, results);
        Promise::from_future(caller.until_left(answer).map(|outcome| outcome))
    }
}
