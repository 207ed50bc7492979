//! One connection: told apart by its first bytes, then HTTP/1.1 or HTTP/2 until it ends.
//!
//! **Invariant:** what is buffered for a peer, in either direction, is bounded by the limits.
//! **Invariant:** an answer that ends in an error ends in a reset of its connection or stream.

use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::FutureExt;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::framing::Framing;
use super::service::Visit;
use super::stall::Streams;
use super::stream::Watched;
use super::upgrade;
use super::watch::{Overdue, Watch};
use crate::limits::Limits;
use crate::listen::{Place, Stream};
use crate::rfc6455::Budget;
use crate::socket::WebSocket;

/// Serves a connection until it ends.
pub(super) async fn serve(mut stream: Stream, visit: Visit, watch: Rc<Watch>, place: Place) {
    let limits = visit.limits().clone();
    let told = tokio::select! {
        told = tokio::time::timeout(limits.http_header_timeout, tell_apart(&mut stream)) => told,
        () = place.farewell.cancelled() => return,
    };
    match told {
        Ok(Ok((first, Protocol::One))) => {
            let stream = Watched::new(stream, first, Framing::new(), watch.clone());
            let budget = visit.budget();
            let opened = serve_one(stream, visit, &watch, &limits, &place).await;
            if let Some(opened) = opened {
                // A task of its own: what HTTP needed is freed, however long the WebSocket lives.
                tokio::task::spawn_local(serve_web_socket(opened, budget, limits, place));
            }
        }
        Ok(Ok((first, Protocol::Two))) => {
            let stream = Watched::new(stream, first, Framing::opaque(), watch.clone());
            serve_two(stream, visit, &watch, &limits, &place).await;
        }
        Ok(Err(error)) => tracing::debug!(%error, "a connection ended before its first request"),
        Err(_) => tracing::debug!("a connection sent no request"),
    }
}

/// A connection that became a WebSocket's.
struct Opened {
    end: WebSocket,
    stream: Stream,
    /// What was read behind the request.
    read: Bytes,
}

/// Serves a WebSocket until it ends. When the server stops, its objects have closed theirs: what they said last is
/// written, and the peer has a while to answer.
async fn serve_web_socket(opened: Opened, budget: Arc<Budget>, limits: Rc<Limits>, place: Place) {
    let Opened { end, stream, read } = opened;
    // In a box: to say farewell takes no more room than that.
    let mut served = upgrade::serve(end, stream, read, &limits, &budget).boxed_local();
    tokio::select! {
        () = &mut served => {}
        () = place.farewell.cancelled() => {
            let patience = limits.drain_timeout.min(FAREWELL);
            let _ = tokio::time::timeout(patience, served).await;
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    One,
    Two,
}

/// What every connection of HTTP/2 begins with, and none of HTTP/1.1.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Reads as much as tells the protocol. Returns what was read.
async fn tell_apart(stream: &mut Stream) -> std::io::Result<(Bytes, Protocol)> {
    let mut first = BytesMut::with_capacity(4 << 10);
    loop {
        if stream.read_buf(&mut first).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        if first.starts_with(PREFACE) {
            return Ok((first.freeze(), Protocol::Two));
        }
        if !PREFACE.starts_with(&first) {
            return Ok((first.freeze(), Protocol::One));
        }
    }
}

/// Serves requests until the connection ends, or becomes what it returns.
async fn serve_one(
    stream: Watched,
    visit: Visit,
    watch: &Watch,
    limits: &Limits,
    place: &Place,
) -> Option<Opened> {
    let mut builder = http1::Builder::new();
    builder.header_read_timeout(None).max_buf_size(buffer_bytes(limits));
    if limits.headers_max != HEADERS_OF_HYPER {
        builder.max_headers(limits.headers_max);
    }
    let upgraded = visit.upgraded();
    let mut connection = builder.serve_connection(TokioIo::new(stream), visit);
    let ended =
        drive(&mut connection, |connection| connection.graceful_shutdown(), watch, limits, place);
    let ended = ended.await;
    let parts = connection.into_parts();
    let (mut stream, behind) = parts.io.into_inner().into_parts();
    if let (Ended::Served(Ok(())), Some(end)) = (&ended, upgraded.take()) {
        let read = [parts.read_buf, behind].concat().into();
        return Some(Opened { end, stream, read });
    }
    match ended {
        Ended::Served(Ok(())) => {}
        Ended::Served(Err(error)) => {
            tracing::debug!(%error, "a connection ended");
            if error.is_user() {
                // A body was cut short. To a peer that counts on the end of the connection an orderly
                // one would be the body's end.
                stream.reset_on_drop();
            }
        }
        Ended::Overdue(Overdue::Head) if watch.is_idle() => {
            // Whoever does not take even this goes without.
            let _ = tokio::time::timeout(GRACE, stream.write_all(TIMEOUT)).await;
        }
        Ended::Overdue(_) => stream.reset_on_drop(),
    }
    None
}

async fn serve_two(stream: Watched, visit: Visit, watch: &Watch, limits: &Limits, place: &Place) {
    let window = u32::try_from(limits.stream_window_bytes).unwrap_or(WINDOW_BYTES_MAX);
    let window = window.clamp(WINDOW_BYTES_MIN, WINDOW_BYTES_MAX);
    let header_bytes = u32::try_from(limits.header_bytes_max).unwrap_or(u32::MAX);
    let mut builder = http2::Builder::new(Streams::new(limits.http_stall_timeout, visit.stream()));
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(u32::try_from(limits.http_streams_max).unwrap_or(u32::MAX))
        .initial_stream_window_size(window)
        .initial_connection_window_size(window.saturating_mul(4).min(WINDOW_BYTES_MAX))
        .max_send_buf_size(limits.stream_window_bytes)
        .max_header_list_size(header_bytes)
        .keep_alive_interval(limits.peer_timeout)
        .keep_alive_timeout(limits.peer_timeout);
    let mut connection = builder.serve_connection(TokioIo::new(stream), visit);
    let ended =
        drive(&mut connection, |connection| connection.graceful_shutdown(), watch, limits, place);
    if let Ended::Served(Err(error)) = ended.await {
        tracing::debug!(%error, "a connection ended");
    }
}

/// How a connection ended.
enum Ended {
    Served(hyper::Result<()>),
    Overdue(Overdue),
}

/// Serves until the connection ends by itself or its time is over. One that nothing is asked of, and one that
/// the server lets go, is told to end, and ends once its answers are written.
async fn drive<C>(
    connection: &mut C,
    end: impl Fn(Pin<&mut C>),
    watch: &Watch,
    limits: &Limits,
    place: &Place,
) -> Ended
where
    C: Future<Output = hyper::Result<()>> + Unpin,
{
    let mut farewell = pin!(place.farewell.cancelled());
    let mut overdue = pin!(watch.overdue(limits));
    let (mut told_to_end, mut let_go) = (false, false);
    loop {
        tokio::select! { biased;
            served = &mut *connection => return Ended::Served(served),
            why = &mut overdue => {
                if why != Overdue::Idle || told_to_end {
                    return Ended::Overdue(why);
                }
                tracing::debug!("a connection was idle for too long");
                told_to_end = true;
                end(Pin::new(connection));
                watch.begin_to_wait();
                overdue.set(watch.overdue(limits));
            }
            () = &mut farewell, if !let_go => {
                (let_go, told_to_end) = (true, true);
                end(Pin::new(connection));
            }
        }
    }
}

/// Returns how much of a connection may wait, in either direction: at least one whole head.
fn buffer_bytes(limits: &Limits) -> usize {
    /// What a head holds beside names, values and the url: separators.
    const SEPARATORS: usize = 4;
    let lines = limits.headers_max.saturating_mul(SEPARATORS).saturating_add(BUFFER_BYTES_MIN);
    lines.saturating_add(limits.header_bytes_max).saturating_add(limits.url_bytes_max)
}

/// The answer to a head that did not come to its end.
const TIMEOUT: &[u8] =
    b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
/// How long that answer may take.
const GRACE: std::time::Duration = std::time::Duration::from_secs(1);
/// How long a WebSocket may take to end once the server stops.
const FAREWELL: std::time::Duration = std::time::Duration::from_secs(5);
/// As many headers as hyper takes without allocating for them.
const HEADERS_OF_HYPER: usize = 100;
/// hyper buffers at least this much.
const BUFFER_BYTES_MIN: usize = 8 << 10;
/// The windows that HTTP/2 knows.
const WINDOW_BYTES_MIN: u32 = 65_535;
const WINDOW_BYTES_MAX: u32 = (1 << 31) - 1;
