//! Moves the messages of a WebSocket across a connection, with flow control.
//!
//! Each side serves the direction that it receives, and sends the other into the capability that its peer serves.
//!
//! **Invariant:** a message is in line when the call that brings it is made: messages keep their order.
//! **Invariant:** a direction whose capability is dropped before `close` is a lost link.

use std::cell::{Cell, RefCell};

use bytes::Bytes;
use capnp::capability::Promise;
use capnp::private::capability::{ParamsHook, ResultsHook};
use capnp::traits::HasTypeId;

use super::parts::Parts;
use super::transfer::Keep;
use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::message::Response;
use crate::socket::{self, CloseFrame, Ending, Message, Reader, Taken, WebSocket, Writer};
use crate::stubborn_capnp::web_socket;
use crate::vat::{Callee, Caller, settled};

/// Serves `writer` as the capability that a peer sends to.
pub fn serve(writer: Writer, limits: &Limits) -> web_socket::Client {
    let message_bytes_max = limits.socket_message_bytes_max;
    let parts = RefCell::new(Parts::new(limits.server_queued_bytes_max));
    settled(Sink { writer, message_bytes_max, parts, failed: Cell::new(false) })
}

/// Sends what comes from `reader` to the peer, until it ends. It keeps `keep` until the other direction, `back`, is
/// over too.
pub fn send(
    reader: Reader,
    to: web_socket::Client,
    part_bytes_max: usize,
    back: impl Future<Output = ()> + 'static,
    keep: Keep,
) {
    tokio::task::spawn_local(async move {
        // An error is the peer's, which is gone, or takes no more.
        let _ = relay(reader, to, part_bytes_max).await;
        if keep.is_some() {
            back.await;
        }
        drop(keep);
    });
}

/// Opens what an object answered to a request: returns where its caller, who gave `to`, is to send.
///
/// # Errors
/// Where the answer opens a WebSocket, and the caller gave nothing to send to.
pub fn open(
    response: &mut Response,
    to: Option<web_socket::Client>,
    limits: &Limits,
) -> Result<Option<web_socket::Client>> {
    let Some(end) = socket::detach(response.extensions_mut()) else { return Ok(None) };
    let Some(to) = to else {
        let text = "the object opened a WebSocket, and the request has none";
        return Err(Error::invalid_request(text).with_delivered(true));
    };
    let (writer, reader) = end.split();
    send(reader, to, part_bytes_max(limits), std::future::ready(()), None);
    Ok(Some(serve(writer, limits)))
}

/// The ends that a caller makes for a request that asks for a WebSocket.
pub struct Asking {
    /// The caller's own.
    end: WebSocket,
    reader: Reader,
    over: std::pin::Pin<Box<dyn Future<Output = ()>>>,
    part_bytes_max: usize,
}

impl Asking {
    /// Makes them, and the capability that the request is to have.
    pub fn new(limits: &Limits) -> (Self, web_socket::Client) {
        let (end, far) = WebSocket::pair_within(limits);
        let (writer, reader) = far.split();
        let over = Box::pin(writer.over());
        let asking = Self { end, reader, over, part_bytes_max: part_bytes_max(limits) };
        (asking, serve(writer, limits))
    }

    /// Gives `response` the caller's end, whose messages go to `to`.
    pub fn opened(self, response: &mut Response, to: web_socket::Client, keep: Keep) {
        let Self { end, reader, over, part_bytes_max } = self;
        send(reader, to, part_bytes_max, over, keep);
        socket::attach(response.extensions_mut(), end);
    }
}

/// The most bytes of a message that go in one call.
fn part_bytes_max(limits: &Limits) -> usize {
    limits.stream_window_bytes.min(limits.message_bytes_max / 2).max(CHARACTER_BYTES_MAX)
}

async fn relay(reader: Reader, to: web_socket::Client, part_max: usize) -> capnp::Result<()> {
    loop {
        match reader.take().await {
            Taken::Message(Message::Text(text)) => {
                let rest =
                    send_parts(&to, text.as_bytes(), |at| text.floor_char_boundary(at), part_max);
                let rest = rest.await?;
                let mut call = to.send_text_request();
                call.get().set_text(text.get(rest..).unwrap_or_default());
                call.send().await?;
            }
            Taken::Message(Message::Binary(bytes)) => {
                let rest = send_parts(&to, &bytes, |at| at, part_max).await?;
                let mut call = to.send_binary_request();
                call.get().set_bytes(bytes.get(rest..).unwrap_or_default());
                call.send().await?;
            }
            Taken::Ended(Ending::Closed(frame) | Ending::Broken(frame)) => {
                let mut call = to.close_request();
                call.get().set_code(frame.code());
                call.get().set_reason(frame.reason());
                call.send().promise.await?;
                return Ok(());
            }
            Taken::Ended(Ending::Lost) => return Ok(()),
        }
    }
}

/// Sends the beginning of a large message; returns how much that was.
async fn send_parts(
    to: &web_socket::Client,
    bytes: &[u8],
    boundary: impl Fn(usize) -> usize,
    part_max: usize,
) -> capnp::Result<usize> {
    let mut at = 0;
    while bytes.len() - at > part_max {
        let end = boundary(at + part_max);
        let mut call = to.send_part_request();
        call.get().set_bytes(bytes.get(at..end).unwrap_or_default());
        call.send().await?;
        at = end;
    }
    Ok(at)
}

/// What a peer sends to.
struct Sink {
    writer: Writer,
    message_bytes_max: usize,
    /// The beginning of a message.
    parts: RefCell<Parts>,
    failed: Cell<bool>,
}

impl Sink {
    /// Takes one call: what it brings is in line when this returns.
    fn take(&self, method: u16, params: &dyn ParamsHook) -> Result<()> {
        let params = params.get()?;
        match method {
            SEND_TEXT => {
                let params: web_socket::send_text_params::Reader<'_> = params.get_as()?;
                let whole = self.whole(params.get_text()?.as_bytes())?;
                let text = String::from_utf8(whole)
                    .map_err(|_| self.end(CloseFrame::NOT_UTF8, "the text is not UTF-8"))?;
                self.writer.push(Message::text(text))
            }
            SEND_BINARY => {
                let params: web_socket::send_binary_params::Reader<'_> = params.get_as()?;
                let whole = self.whole(params.get_bytes()?)?;
                self.writer.push(Message::Binary(Bytes::from(whole)))
            }
            SEND_PART => {
                let params: web_socket::send_part_params::Reader<'_> = params.get_as()?;
                let part = params.get_bytes()?;
                self.check_length(part.len())?;
                let is_taken = self.parts.borrow_mut().add(part);
                let full = || self.end(CloseFrame::TRY_AGAIN_LATER, "too much is on its way here");
                is_taken.then_some(()).ok_or_else(full)
            }
            _ => {
                let params: web_socket::close_params::Reader<'_> = params.get_as()?;
                let reason = String::from_utf8_lossy(params.get_reason()?.as_bytes()).into_owned();
                let frame = CloseFrame::received(params.get_code(), &reason)?;
                if self.writer.is_ended() {
                    return Err(socket::gone());
                }
                self.writer.end(Ending::Closed(frame));
                Ok(())
            }
        }
    }

    /// Returns the message that ends with `last`.
    fn whole(&self, last: &[u8]) -> Result<Vec<u8>> {
        self.check_length(last.len())?;
        let mut whole = self.parts.borrow_mut().take();
        whole.extend_from_slice(last);
        Ok(whole)
    }

    fn check_length(&self, more: usize) -> Result<()> {
        let (bytes, max) = (self.parts.borrow().len() + more, self.message_bytes_max);
        if self.failed.get() || self.writer.is_ended() {
            return Err(socket::gone());
        }
        if bytes > max {
            let text = format!("a message of over {max} bytes");
            return Err(self.end(CloseFrame::TOO_LARGE, &text));
        }
        Ok(())
    }

    /// Ends the direction, because the peer broke a rule.
    fn end(&self, code: u16, text: &str) -> Error {
        self.failed.set(true);
        self.parts.borrow_mut().take();
        let error = Error::invalid_request(format!("{text} (code {code})"));
        self.writer.end(Ending::Broken(CloseFrame::ours(code, text)));
        error
    }
}

impl Callee for Sink {
    fn call(
        &self,
        caller: Caller,
        interface: u64,
        method: u16,
        params: Box<dyn ParamsHook>,
        _results: Box<dyn ResultsHook>,
    ) -> Promise<(), capnp::Error> {
        if interface != web_socket::Client::TYPE_ID || method > SEND_PART {
            let text = format!("WebSocket has no method {method}");
            return Promise::err(capnp::Error::unimplemented(text));
        }
        let taken = self.take(method, &*params);
        drop(params);
        if let Err(error) = taken {
            return Promise::err(error.into());
        }
        let room = self.writer.room();
        Promise::from_future(caller.until_left(async move {
            // Its sender goes on when there is room for more.
            room.await;
            Ok(())
        }))
    }
}

/// A part has room for any character, so that none is cut.
const CHARACTER_BYTES_MAX: usize = 4;

const SEND_TEXT: u16 = 0;
const SEND_BINARY: u16 = 1;
const SEND_PART: u16 = 3;
