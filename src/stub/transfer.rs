//! Moves the bytes of a body across a connection, with flow control.
//!
//! The side that has a body serves a `BodySource`; the side that reads it asks that source to pump into
//! a `ByteStream` of its own. The reader's pipe has a bounded window, a full pipe holds back the writes, and
//! so a slow reader slows the writer.
//!
//! **Invariant:** a body that was not ended by its source reads as *truncated*, whatever was lost.

use std::any::Any;
use std::cell::RefCell;
use std::future::poll_fn;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::FutureExt;

use crate::body::{Body, BodyWriter};
use crate::byte_stream_capnp::byte_stream;
use crate::error::{Error, Result};
use crate::stubborn_capnp::body_source;
use crate::vat;

/// Takes what `body` has at hand, up to `max` bytes; the rest, where there may be more.
pub fn split(mut body: Body, max: usize) -> (Bytes, Option<Body>) {
    if let Some(known) = body.known() {
        if known.len() <= max {
            return (known.clone(), None);
        }
        let mut prefix = known.clone();
        let rest = prefix.split_off(max);
        return (prefix, Some(Body::from_bytes(rest)));
    }
    // What has to be produced yet is left until it is asked for.
    let mut prefix = body.take_prefix();
    if prefix.len() <= max {
        return (prefix, Some(body));
    }
    let rest = prefix.split_off(max);
    (prefix, Some(Body::prefixed(rest, body, None)))
}

/// Returns a body that ends with `error`.
fn failed(error: Error) -> Body {
    let (writer, body) = Body::pipe(0);
    writer.fail(error);
    body
}

/// Serves `body` as a source. Dropping the client drops the body.
pub fn source(body: Body, chunk_bytes_max: usize) -> body_source::Client {
    let source = Source { body: RefCell::new(Some(body)), chunk_bytes_max };
    vat::guard(capnp_rpc::new_client(source))
}

/// What a body in transit keeps alive: the connection that its bytes come over.
pub type Keep = Option<Rc<dyn Any>>;

/// Returns the body that `source` has. It is asked for when the body is first read; at most `window` bytes
/// are read ahead. Dropping the body stops the source.
pub fn pull(source: capnp::Result<body_source::Client>, window: usize, keep: Keep) -> Body {
    let (mut writer, body) = Body::pipe(window);
    let source = match source {
        Ok(source) => source,
        Err(error) => return failed(error.into()),
    };
    tokio::task::spawn_local(async move {
        writer.wanted().await;
        if !writer.is_closed() {
            pump(source, Rc::new(Sink { writer: RefCell::new(Some(writer)) })).await;
        }
        drop(keep);
    });
    body
}

/// Asks `source` to fill `sink`, until it has, fails, or nobody reads any more.
async fn pump(source: body_source::Client, sink: Rc<Sink>) {
    let mut request = source.pump_to_request();
    request.get().set_sink(vat::guard(capnp_rpc::new_client_from_rc(sink.clone())));
    let call = request.send();
    let closed = poll_fn(|context| sink.poll_closed(context));
    let outcome = tokio::select! { biased;
        outcome = call.promise => outcome,
        () = closed => return,
    };
    // `take` leaves nothing where `end` came: then the body is whole.
    let Some(writer) = sink.writer.borrow_mut().take() else { return };
    if let Err(error) = outcome {
        writer.fail(Error::truncated(Error::from(error).message));
    }
}

struct Source {
    body: RefCell<Option<Body>>,
    chunk_bytes_max: usize,
}

impl body_source::Server for Source {
    async fn pump_to(
        self: Rc<Self>,
        params: body_source::PumpToParams,
        _results: body_source::PumpToResults,
    ) -> Result<(), capnp::Error> {
        let sink = params.get()?.get_sink()?;
        let body = self.body.borrow_mut().take();
        let Some(mut body) = body else {
            return Err(capnp::Error::failed("a body can be pumped once".into()));
        };
        while let Some(chunk) = next_chunk(&mut body).await {
            let mut chunk = chunk.map_err(capnp::Error::from)?;
            while !chunk.is_empty() {
                let piece = chunk.split_to(chunk.len().min(self.chunk_bytes_max));
                let mut write = sink.write_request();
                write.get().set_bytes(&piece);
                write.send().await?;
            }
        }
        sink.end_request().send().promise.await?;
        Ok(())
    }
}

/// Yields the next chunk. A panic of the body's producer fails the body: left alone it would end the task
/// that drives the whole connection.
async fn next_chunk(body: &mut Body) -> Option<Result<Bytes>> {
    let chunk = AssertUnwindSafe(body.chunk()).catch_unwind().await;
    chunk.unwrap_or_else(|_| Some(Err(Error::failed("the producer of the body panicked"))))
}

struct Sink {
    /// Taken while a write waits; gone for good once the body ended.
    writer: RefCell<Option<BodyWriter>>,
}

impl Sink {
    /// Ready once nobody reads any more. While a write waits, that write notices instead.
    fn poll_closed(&self, context: &mut Context<'_>) -> Poll<()> {
        match &mut *self.writer.borrow_mut() {
            Some(writer) => writer.poll_closed(context),
            None => Poll::Pending,
        }
    }
}

impl byte_stream::Server for Sink {
    async fn write(self: Rc<Self>, params: byte_stream::WriteParams) -> Result<(), capnp::Error> {
        let bytes = Bytes::copy_from_slice(params.get()?.get_bytes()?);
        drop(params);
        let writer = self.writer.borrow_mut().take();
        let Some(mut writer) = writer else {
            return Err(capnp::Error::failed("the body has ended".into()));
        };
        let written = writer.write(bytes).await;
        *self.writer.borrow_mut() = Some(writer);
        written.map_err(capnp::Error::from)
    }

    async fn end(
        self: Rc<Self>,
        _params: byte_stream::EndParams,
        _results: byte_stream::EndResults,
    ) -> Result<(), capnp::Error> {
        match self.writer.borrow_mut().take() {
            Some(writer) => writer.finish(),
            None => return Err(capnp::Error::failed("the body has ended".into())),
        }
        Ok(())
    }
}
