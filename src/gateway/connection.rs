//! One connection: told apart by its first bytes, then HTTP/1.1 or HTTP/2 until it ends.
//!
//! **Invariant:** what is buffered for a peer, in either direction, is bounded by the limits.
//! **Invariant:** an answer that ends in an error ends in a reset of its connection or stream.

use std::pin::{Pin, pin};
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use futures::FutureExt;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::framing::Framing;
use super::service::Visit;
use super::stream::Watched;
use super::upgrade;
use super::watch::{Overdue, Watch};
use crate::limits::Limits;
use crate::listen::{Place, Stream};

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
            serve_one(stream, visit, &watch, &limits, &place).await;
        }
        Ok(Ok((first, Protocol::Two))) => {
            let stream = Watched::new(stream, first, Framing::opaque(), watch.clone());
            serve_two(stream, visit, &watch, &limits, &place).await;
        }
        Ok(Err(error)) => tracing::debug!(%error, "a connection ended before its first request"),
        Err(_) => tracing::debug!("a connection sent no request"),
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

async fn serve_one(stream: Watched, visit: Visit, watch: &Watch, limits: &Limits, place: &Place) {
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
    let (stream, read) = (parts.io.into_inner(), parts.read_buf);
    if let (Ended::Served(Ok(())), Some(end)) = (&ended, upgraded.take()) {
        // In a box: most connections never need the room.
        let served = upgrade::serve(end, stream, read, limits).boxed_local();
        tokio::select! {
            () = served => {}
            () = place.farewell.cancelled() => {}
        }
        return;
    }
    let mut stream = stream.into_inner();
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
}

async fn serve_two(stream: Watched, visit: Visit, watch: &Watch, limits: &Limits, place: &Place) {
    let window = u32::try_from(limits.stream_window_bytes).unwrap_or(WINDOW_BYTES_MAX);
    let window = window.clamp(WINDOW_BYTES_MIN, WINDOW_BYTES_MAX);
    let header_bytes = u32::try_from(limits.header_bytes_max).unwrap_or(u32::MAX);
    let mut builder = http2::Builder::new(OnThisThread);
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

/// Runs the streams of a connection on its own thread.
#[derive(Clone, Copy, Debug)]
struct OnThisThread;

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for OnThisThread {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
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
/// As many headers as hyper takes without allocating for them.
const HEADERS_OF_HYPER: usize = 100;
/// hyper buffers at least this much.
const BUFFER_BYTES_MIN: usize = 8 << 10;
/// The windows that HTTP/2 knows.
const WINDOW_BYTES_MIN: u32 = 65_535;
const WINDOW_BYTES_MAX: u32 = (1 << 31) - 1;
