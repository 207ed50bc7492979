//! The hibernatable WebSockets of an object, as its author holds them.
//!
//! **Invariant:** what an author sends leaves by the object's outbox, in order with all else that it says.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::task::{Poll, Waker};

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};
use crate::gate::Outbox;
use crate::limits::Limits;
use crate::socket::{self, CloseFrame, Ending, Message, Taken, Text, WebSocket};
use crate::storage::value;

/// The most hibernatable WebSockets that one object may have.
pub const SOCKETS_MAX: usize = 32_768;
/// The most tags of one WebSocket.
pub const TAGS_MAX: usize = 10;
/// The longest tag, in characters.
pub const TAG_CHARS_MAX: usize = 256;
/// The largest attachment, serialized.
pub const ATTACHMENT_BYTES_MAX: usize = 16 << 10;
/// The longest text of an automatic answer, and of what it answers.
pub const AUTO_RESPONSE_BYTES_MAX: usize = 2 << 10;

/// One WebSocket that an object accepted with [`State::accept_web_socket`](crate::State::accept_web_socket). It stays
/// open while the object is out of memory. Cheap to clone.
#[derive(Clone)]
pub struct Socket {
    accepted: Rc<Accepted>,
    outbox: Rc<Outbox>,
}

impl Socket {
    /// Makes that of one activation, which speaks by `outbox`.
    pub(crate) fn new(accepted: Rc<Accepted>, outbox: Rc<Outbox>) -> Self {
        Self { accepted, outbox }
    }

    /// Returns its number, which no other WebSocket of the object has, or had in this run of the server.
    pub fn id(&self) -> u64 {
        self.accepted.id
    }

    /// Returns the tags it was accepted with.
    pub fn tags(&self) -> impl Iterator<Item = &str> {
        self.accepted.tags.iter().map(|tag| &**tag)
    }

    /// Returns whether messages can still be sent: neither side has closed it, as far as is known.
    pub fn is_open(&self) -> bool {
        self.accepted.is_open()
    }

    /// Sends a message: it leaves when what the object wrote before is durable.
    ///
    /// # Errors
    /// *disconnected* where the WebSocket is closed, *invalid request* for a message of over 32 MiB, and
    /// *overloaded* where 4 MiB wait for a peer that does not read. Then nothing is sent.
    pub fn send(&self, message: impl Into<Message>) -> Result<()> {
        let message = message.into();
        if self.accepted.closing.get() || self.accepted.ended.get() {
            return Err(socket::gone());
        }
        let bytes = message.len();
        self.accepted.with(|end| end.writer().announce(bytes))?;
        let accepted = self.accepted.clone();
        self.outbox.send(move |verdict| {
            let left = accepted.with(|end| {
                end.writer().unannounce(bytes);
                if verdict.is_ok() { end.writer().push(message) } else { Ok(()) }
            });
            // Where it was closed meanwhile, nobody is left to read it.
            drop(left);
        });
        Ok(())
    }

    /// Returns how many bytes were sent and not taken by the peer's side.
    pub fn buffered_bytes(&self) -> usize {
        self.accepted.with(|end| Ok(end.writer().waiting_bytes())).unwrap_or(0)
    }

    /// Closes it, behind what was sent. Closing it again changes nothing.
    ///
    /// # Errors
    /// *invalid request* for a code that is neither 1000 nor within 3000 and 4999, or a reason of over 123 bytes.
    pub fn close(&self, code: u16, reason: &str) -> Result<()> {
        let frame = CloseFrame::new(code, reason)?;
        if !self.accepted.closing.replace(true) {
            self.end(Ending::Closed(frame));
        }
        Ok(())
    }

    /// Ends its direction when what was written before is durable.
    fn end(&self, ending: Ending) {
        let accepted = self.accepted.clone();
        self.outbox.send(move |verdict| {
            if verdict.is_ok() {
                // Where it is gone, it is closed.
                let _ = accepted.with(|end| {
                    end.writer().end(ending);
                    Ok(())
                });
            }
        });
    }

    /// Answers how the peer ended it, where the author has not.
    pub(crate) fn answer(&self, theirs: &Ending) {
        if !self.accepted.closing.replace(true) {
            let answer = match theirs {
                Ending::Closed(frame) | Ending::Broken(frame) => Ending::Closed(frame.clone()),
                Ending::Lost => Ending::Lost,
            };
            self.end(answer);
        }
    }

    /// Returns what was attached to it; none where nothing was.
    ///
    /// # Errors
    /// *failed* where it is no `T`.
    pub fn attachment<T: DeserializeOwned>(&self) -> Result<Option<T>> {
        let attached = self.accepted.attachment.borrow().clone();
        attached.map(|bytes| value::decode(&bytes)).transpose()
    }

    /// Attaches a value of at most 16 KiB, which survives hibernation. (It lives and dies with the WebSocket:
    /// what must last belongs in storage.)
    ///
    /// # Errors
    /// *invalid request* where it is too large or can't be serialized. Then what was attached before stays.
    pub fn set_attachment<T: Serialize + ?Sized>(&self, value: &T) -> Result<()> {
        let encoded =
            value::encode(value).map_err(|error| Error::invalid_request(error.message))?;
        let (bytes, max) = (encoded.len(), ATTACHMENT_BYTES_MAX);
        if bytes > max {
            return Err(Error::invalid_request(format!(
                "an attachment of {bytes} bytes, of at most {max}"
            )));
        }
        // The encoder's buffer may have room for more than it holds.
        *self.accepted.attachment.borrow_mut() = Some(Bytes::copy_from_slice(&encoded));
        Ok(())
    }

    /// Returns when it was last answered automatically, in milliseconds since 1970.
    pub fn auto_response_timestamp(&self) -> Option<u64> {
        self.accepted.auto_responded_ms.get()
    }
}

impl PartialEq for Socket {
    fn eq(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.accepted, &other.accepted)
    }
}

impl Eq for Socket {}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket").field("id", &self.accepted.id).finish_non_exhaustive()
    }
}

/// A hibernatable WebSocket, as it outlives the activations of its object.
pub struct Accepted {
    id: u64,
    tags: Box<[Rc<str>]>,
    attachment: RefCell<Option<Bytes>>,
    auto_responded_ms: Cell<Option<u64>>,
    end: RefCell<Option<WebSocket>>,
    /// The object has closed it.
    closing: Cell<bool>,
    /// The object is told that the peer has ended it.
    ended: Cell<bool>,
    /// An event of it is in line, or inside the object.
    busy: Cell<bool>,
    /// Whom to wake when there is something to take.
    waker: Waker,
}

impl Accepted {
    /// Makes it of the object's end.
    pub(crate) fn new(
        id: u64,
        end: WebSocket,
        tags: Box<[Rc<str>]>,
        waker: Waker,
        limits: &Limits,
    ) -> Rc<Self> {
        let message_bytes_max = limits.socket_message_bytes_max;
        end.writer().bound(message_bytes_max, limits.socket_queue_bytes_max);
        end.reader().bound(message_bytes_max, limits.stream_window_bytes);
        end.writer().set_gated();
        Rc::new(Self {
            id,
            tags,
            attachment: RefCell::default(),
            auto_responded_ms: Cell::new(None),
            end: RefCell::new(Some(end)),
            closing: Cell::new(false),
            ended: Cell::new(false),
            busy: Cell::new(false),
            waker,
        })
    }

    /// Returns its number.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Returns its tags.
    pub(crate) fn tags(&self) -> &[Rc<str>] {
        &self.tags
    }

    /// Returns the bytes that wait for its peer, and those of what is attached.
    pub(crate) fn held_bytes(&self) -> (usize, usize) {
        let waiting = self.with(|end| Ok(end.writer().waiting_bytes())).unwrap_or(0);
        (waiting, self.attachment.borrow().as_ref().map_or(0, Bytes::len))
    }

    pub(crate) fn is_open(&self) -> bool {
        let open = self.with(|end| Ok(!end.writer().is_ended()));
        !self.closing.get() && !self.ended.get() && open.unwrap_or(false)
    }

    /// Notes whether an event of it is under way; returns whether one was.
    pub(crate) fn set_busy(&self, busy: bool) -> bool {
        self.busy.replace(busy)
    }

    /// Returns whether there is something to take; where not, its waker is woken when there is.
    pub(crate) fn is_ready(&self) -> bool {
        let ready = self.with(|end| Ok(end.reader().poll_ready(&self.waker)));
        matches!(ready, Ok(Poll::Ready(())))
    }

    /// Takes the next message where it is `request`; returns whether it was.
    pub(crate) fn take_text(&self, request: &str) -> bool {
        self.with(|end| Ok(end.reader().take_text(request))).unwrap_or(false)
    }

    /// Sends `response` without the object, behind what the object has said where it is in memory.
    ///
    /// A peer gets no more answers than it has room for, those included that wait in the outbox.
    pub(crate) fn auto_respond(
        self: &Rc<Self>,
        response: Text,
        now_ms: u64,
        outbox: Option<&Outbox>,
    ) {
        let bytes = response.len();
        if self.with(|end| end.writer().announce(bytes)).is_err() {
            return;
        }
        let accepted = self.clone();
        let leave = move |leaves: bool| {
            let pushed = accepted.with(|end| {
                end.writer().unannounce(bytes);
                if leaves { end.writer().push(Message::Text(response)) } else { Ok(()) }
            });
            // Where it was closed meanwhile, nobody is left to read it.
            if leaves && pushed.is_ok() {
                accepted.auto_responded_ms.set(Some(now_ms));
            }
        };
        match outbox {
            Some(outbox) => outbox.send(move |verdict| leave(verdict.is_ok())),
            None => leave(true),
        }
    }

    /// Takes what is next.
    pub(crate) fn take(&self) -> Option<Taken> {
        let taken = self.with(|end| Ok(end.reader().try_take())).ok().flatten();
        self.ended.set(matches!(taken, Some(Taken::Ended(_))));
        taken
    }

    /// Says that it goes away.
    pub(crate) fn go_away(&self, reason: &str) {
        let frame = CloseFrame::ours(CloseFrame::GOING_AWAY, reason);
        let _ = self.with(|end| {
            end.writer().end(Ending::Closed(frame));
            Ok(())
        });
    }

    /// Drops the object's end: where it was not closed, the peer sees a lost link.
    pub(crate) fn drop_end(&self) {
        let end = self.end.take();
        drop(end);
    }

    fn with<T>(&self, look: impl FnOnce(&WebSocket) -> Result<T>) -> Result<T> {
        match &*self.end.borrow() {
            Some(end) => look(end),
            None => Err(socket::gone()),
        }
    }
}

/// Checks the tags of a WebSocket.
pub(crate) fn checked_tags(tags: &[&str]) -> Result<Box<[Rc<str>]>> {
    let count = tags.len();
    if count > TAGS_MAX {
        return Err(Error::invalid_request(format!("{count} tags, of at most {TAGS_MAX}")));
    }
    if let Some(tag) = tags.iter().find(|tag| tag.chars().count() > TAG_CHARS_MAX) {
        let chars = tag.chars().count();
        let text = format!("a tag of {chars} characters, of at most {TAG_CHARS_MAX}");
        return Err(Error::invalid_request(text));
    }
    let mut distinct: Vec<Rc<str>> = Vec::with_capacity(count);
    for tag in tags {
        if !distinct.iter().any(|known| &**known == *tag) {
            distinct.push((*tag).into());
        }
    }
    Ok(distinct.into())
}

/// Checks what is answered automatically.
pub(crate) fn checked_auto_response(request: &str, response: &str) -> Result<(Text, Text)> {
    for text in [request, response] {
        let (bytes, max) = (text.len(), AUTO_RESPONSE_BYTES_MAX);
        if bytes > max {
            return Err(Error::invalid_request(format!(
                "an automatic answer, or what it answers, of {bytes} bytes, of at most {max}"
            )));
        }
    }
    Ok((request.into(), response.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// They piled up without bound while what the object had written was not durable.
    #[test]
    fn automatic_answers_wait_for_the_outbox_only_as_far_as_the_peer_has_room() {
        let limits = Limits { socket_queue_bytes_max: 10_000, ..Limits::default() };
        let (far, near) = WebSocket::pair_within(&limits);
        let accepted = Accepted::new(1, near, Box::default(), Waker::noop().clone(), &limits);
        let outbox = Outbox::default();
        outbox.lock(1);
        let answer = Text::from("pong ".repeat(20).as_str());
        for now_ms in 1..=1_000 {
            accepted.auto_respond(answer.clone(), now_ms, Some(&outbox));
        }
        let held = outbox.held();
        assert!((10..=100).contains(&held), "{held}");
        assert_eq!(accepted.auto_responded_ms.get(), None);
        outbox.durable(1);
        assert_eq!(accepted.auto_responded_ms.get(), Some(held as u64));
        let mut taken = 0;
        while far.reader().try_take().is_some() {
            taken += 1;
        }
        assert_eq!(taken, held);
        accepted.auto_respond(answer, 7, None);
        assert!(far.reader().try_take().is_some());
    }
}
