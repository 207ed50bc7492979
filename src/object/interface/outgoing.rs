//! What an object calls: its calls leave by its outbox, behind the writes that it made before them.
//!
//! Every reference that an object gets (from its environment, in the parameters of a call, in the results of one)
//! is led through here. On the way out again, as a parameter or a result of the object's own, it is the plain
//! reference once more; to the object itself it never shows that one.
//!
//! **Invariant:** a call is put in line when it is made; calls of one object leave in the order in which they
//! were made, and none before the writes that came before it are durable.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use capnp::any_pointer;
use capnp::capability::{Promise, RemotePromise, Request, Response};
use capnp::private::capability::{
    ClientHook, ParamsHook, PipelineHook, PipelineOp, RequestHook, ResultsHook,
};
use capnp::{Error, MessageSize};
use futures::channel::oneshot;

use super::copied::Copied;
use crate::gate::{Outbox, Verdict};
use crate::vat::{Callee, Caller, settled};

thread_local! {
    /// Whether a reference is asked for the plain one that it leads to. True only inside of `plain`: the traits of
    /// capnp leave no other way to it.
    static PLAIN_WANTED: Cell<bool> = const { Cell::new(false) };
}

/// Its address is the brand of references that are led through an outbox.
static BRAND: u8 = 0;

/// Returns `reference` as the object of `outbox` is to have it.
pub fn behind(outbox: &Rc<Outbox>, reference: Box<dyn ClientHook>) -> Box<dyn ClientHook> {
    // One that another object handed on undisguised goes by this outbox alone.
    let reference = plain(&*reference).unwrap_or(reference);
    Box::new(Behind { outbox: outbox.clone(), reference })
}

/// Returns the plain reference, where `reference` is one that is led through an outbox, or has resolved to one.
pub fn plain(reference: &dyn ClientHook) -> Option<Box<dyn ClientHook>> {
    let (mut found, mut resolved) = (None, None);
    loop {
        let at = resolved.as_deref().unwrap_or(reference);
        let is_led = is_led(at);
        PLAIN_WANTED.set(is_led);
        let next = at.get_resolved();
        PLAIN_WANTED.set(false);
        let Some(next) = next else { return found };
        if is_led {
            found = Some(next.add_ref());
        }
        resolved = Some(next);
    }
}

fn is_led(reference: &dyn ClientHook) -> bool {
    reference.get_brand() == brand()
}

fn brand() -> usize {
    std::ptr::from_ref(&BRAND).addr()
}

/// Returns parameters of so many references as the object of `outbox` is to have them.
///
/// # Errors
/// Where something is wrong with them: then nobody knows which references they have.
pub fn incoming(
    outbox: &Rc<Outbox>,
    params: Box<dyn ParamsHook>,
    references: u32,
) -> capnp::Result<Box<dyn ParamsHook>> {
    if references == 0 {
        return Ok(params);
    }
    let lead = |reference: &dyn ClientHook| Some(behind(outbox, reference.add_ref()));
    Ok(Box::new(Copied::of(params.get()?, lead)?))
}

/// Parameters with the plain references in them.
struct Plain {
    copied: Copied,
    original: Box<dyn ParamsHook>,
}

impl Plain {
    fn of(original: Box<dyn ParamsHook>) -> capnp::Result<Box<dyn ParamsHook>> {
        if original.get()?.target_size()?.cap_count == 0 {
            return Ok(original);
        }
        let copied = Copied::of(original.get()?, plain)?;
        Ok(Box::new(Self { copied, original }))
    }
}

impl ParamsHook for Plain {
    fn get(&self) -> capnp::Result<any_pointer::Reader<'_>> {
        // Whoever made the call is found by looking at what it was made with.
        self.original.get()?;
        self.copied.get()
    }
}

/// A reference whose calls leave by an outbox.
struct Behind {
    outbox: Rc<Outbox>,
    reference: Box<dyn ClientHook>,
}

impl ClientHook for Behind {
    fn add_ref(&self) -> Box<dyn ClientHook> {
        Box::new(Self { outbox: self.outbox.clone(), reference: self.reference.add_ref() })
    }

    fn new_call(
        &self,
        interface: u64,
        method: u16,
        size_hint: Option<MessageSize>,
    ) -> Request<any_pointer::Owned, any_pointer::Owned> {
        let request = self.reference.new_call(interface, method, size_hint).hook;
        let (outbox, reference) = (self.outbox.clone(), self.reference.add_ref());
        Request::new(Box::new(Outgoing { outbox, reference, interface, method, request }))
    }

    fn call(
        &self,
        interface: u64,
        method: u16,
        params: Box<dyn ParamsHook>,
        results: Box<dyn ResultsHook>,
    ) -> Promise<(), Error> {
        let params = match Plain::of(params) {
            Ok(params) => params,
            Err(error) => return Promise::err(error),
        };
        let reference = self.reference.add_ref();
        leave(&self.outbox, move || reference.call(interface, method, params, results))
    }

    fn get_brand(&self) -> usize {
        brand()
    }

    fn get_ptr(&self) -> usize {
        self.reference.get_ptr()
    }

    /// What the reference has resolved to is led through the outbox too. Only `plain` is given the plain one.
    fn get_resolved(&self) -> Option<Box<dyn ClientHook>> {
        if PLAIN_WANTED.take() {
            return Some(self.reference.add_ref());
        }
        Some(behind(&self.outbox, self.reference.get_resolved()?))
    }

    fn when_more_resolved(&self) -> Option<Promise<Box<dyn ClientHook>, Error>> {
        let (outbox, resolved) = (self.outbox.clone(), self.reference.when_more_resolved()?);
        let led = async move { Ok(behind(&outbox, resolved.await?)) };
        Some(Promise::from_future(led))
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
    /// What is called, and by which method.
    reference: Box<dyn ClientHook>,
    interface: u64,
    method: u16,
    request: Box<dyn RequestHook>,
}

impl Outgoing {
    /// Returns what is to leave: the call, with the plain references as its parameters. They have to be written
    /// anew, as capnp gives no way to exchange them in a request.
    fn leaving(self) -> capnp::Result<(Rc<Outbox>, Box<dyn RequestHook>)> {
        let Self { outbox, reference, interface, method, mut request } = self;
        let size = request.get().into_reader().target_size()?;
        if size.cap_count == 0 {
            return Ok((outbox, request));
        }
        let is_exchanged = Cell::new(false);
        let exchange = |reference: &dyn ClientHook| {
            let plain = plain(reference)?;
            is_exchanged.set(true);
            Some(plain)
        };
        let copied = Copied::of(request.get().into_reader(), exchange)?;
        if is_exchanged.get() {
            request = reference.new_call(interface, method, Some(size)).hook;
            request.get().set_as(copied.get()?)?;
        }
        Ok((outbox, request))
    }
}

impl RequestHook for Outgoing {
    fn get(&mut self) -> any_pointer::Builder<'_> {
        self.request.get()
    }

    fn get_brand(&self) -> usize {
        0
    }

    fn send(self: Box<Self>) -> RemotePromise<any_pointer::Owned> {
        let outbox = self.outbox.clone();
        let (outbox, request) = match self.leaving() {
            Ok(leaving) => leaving,
            Err(error) => {
                let sent = Rc::new(RefCell::new(Sent::Refused(error.clone())));
                let pipeline = any_pointer::Pipeline::new(Box::new(Pipelined { outbox, sent }));
                return RemotePromise { promise: Promise::err(error), pipeline };
            }
        };
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
            let results: any_pointer::Reader<'_> = response.get()?;
            if results.target_size()?.cap_count == 0 {
                return Ok(response);
            }
            let lead = |reference: &dyn ClientHook| Some(behind(&outbox, reference.add_ref()));
            Ok(Response::new(Box::new(Copied::of(results, lead)?)))
        };
        RemotePromise {
            promise: Promise::from_future(promise),
            pipeline: any_pointer::Pipeline::new(Box::new(pipeline)),
        }
    }

    fn send_streaming(self: Box<Self>) -> Promise<(), Error> {
        match self.leaving() {
            Ok((outbox, request)) => leave(&outbox, move || request.send_streaming()),
            Err(error) => Promise::err(error),
        }
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
        let later = Later { sent: self.sent.clone(), ops: ops.to_vec() };
        let client: capnp::capability::Client = settled(later);
        behind(&self.outbox, client.hook)
    }
}

/// Returns what is at a place in the results of a call.
pub fn at(pipeline: &any_pointer::Pipeline, ops: &[PipelineOp]) -> Box<dyn ClientHook> {
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
    ops: Vec<PipelineOp>,
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
            Sent::Made(pipeline) => at(pipeline, &self.ops),
            Sent::Refused(error) => return Promise::err(error.clone()),
            Sent::Held => return Promise::err(dropped()),
        };
        let answer = reference.call(interface, method, params, results);
        Promise::from_future(caller.until_left(answer))
    }
}
