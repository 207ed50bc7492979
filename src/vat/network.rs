//! What capnp-rpc sees: a network of one connection.
//!
//! **Invariant:** a message is queued within `send`, so that order is decided where calls are made.
//! **Invariant:** a finish that was held is handed over before anything else from the peer.
//! **Invariant:** a promise to receive ends when the connection is dead, with the first reason.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use capnp::capability::Promise;
use capnp::message::{Builder, HeapAllocator, Reader, ReaderOptions};
use capnp::{Error, ErrorKind, any_pointer};
use capnp_rpc::rpc_capnp::message;
use capnp_rpc::rpc_twoparty_capnp::Side;
use capnp_rpc::{Connection, FlowController, IncomingMessage, OutgoingMessage, VatNetwork};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use super::account::Account;
use super::call::Call;
use super::flow;
use super::frame::{self, Message, Stored, WORD_BYTES};
use super::gate::{Refusal, Verdict, exception_type};
use super::input::{Input, Read};
use super::link::Link;
use super::traffic::Traffic;
use super::writer;
use crate::limits::Limits;

/// What capnp-rpc asks for where it knows nothing about a call.
const UNKNOWN_SIZE_WORDS: u32 = 1024;
/// The first segment of a message of which nothing is known.
const FIRST_SEGMENT_WORDS: u32 = 64;
/// How often a message may be read: by capnp-rpc some three times, the rest by the handler.
const READS_MAX: usize = 8;
/// Words that may be read beyond that, for small messages.
const READ_WORDS_EXTRA: usize = 4096;
/// What one connection may have handled before others of its thread get their turn: messages, of which each
/// `TURN_COST_BYTES` count as one more.
const TURN_COST_MAX: usize = 128;
const TURN_COST_BYTES: usize = 8 << 10;
/// The bytes that are still handled after the connection failed: they may tell the peer's reason.
const LAST_BYTES_MAX: usize = 64 << 10;

/// The network of one connection, under one `RpcSystem`.
pub struct Network {
    link: Rc<Link>,
    side: Side,
    connect: Box<dyn Fn() -> Box<dyn Connection<Side>>>,
}

impl Network {
    /// Takes a connection into use, and returns its network and what it is doing.
    ///
    /// `side` is our own. Of the two sides only the server stops reading from a peer that does not read:
    /// if both did, each could wait for the other. `account` is what the connections of a server share.
    ///
    /// # Panics
    /// Outside of a tokio `LocalSet` or `LocalRuntime`: the connection's writer is a local task.
    pub fn new<R, W>(
        reader: R,
        writer: W,
        side: Side,
        limits: Rc<Limits>,
        account: Option<Arc<Account>>,
    ) -> (Self, Rc<Traffic>)
    where
        R: AsyncRead + Unpin + 'static,
        W: AsyncWrite + Unpin + 'static,
    {
        let link = Rc::new(Link::new(limits, account));
        let traffic = Rc::clone(&link.traffic);
        traffic.bind(Rc::downgrade(&link));
        tokio::task::spawn_local(writer::run(Rc::clone(&link), writer));
        let input = Input::new(reader, link.limits.message_bytes_max);
        let receiver = Rc::new(Receiver {
            link: Rc::clone(&link),
            side,
            input: RefCell::new(Some(input)),
            handles: Cell::new(0),
            last_bytes: Cell::new(LAST_BYTES_MAX),
            turn: Cell::new(0),
        });
        let connect =
            Box::new(move || Box::new(Handle::new(&receiver)) as Box<dyn Connection<Side>>);
        (Self { link, side, connect }, traffic)
    }
}

impl VatNetwork<Side> for Network {
    fn connect(&mut self, host: Side) -> Option<Box<dyn Connection<Side>>> {
        (host != self.side).then(|| (self.connect)())
    }

    fn accept(&mut self) -> Promise<Box<dyn Connection<Side>>, Error> {
        Promise::ok((self.connect)())
    }

    fn drive_until_shutdown(&mut self) -> Promise<(), Error> {
        let link = Rc::clone(&self.link);
        Promise::from_future(async move {
            link.over().await;
            match link.traffic.failure() {
                Some(error) if error.kind == ErrorKind::Failed => Err(error),
                _ => Ok(()),
            }
        })
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.link.release();
    }
}

/// The receiving half, which every handle of the connection shares.
struct Receiver<R> {
    link: Rc<Link>,
    side: Side,
    /// None once capnp-rpc let go of the connection.
    input: RefCell<Option<Input<R>>>,
    handles: Cell<usize>,
    last_bytes: Cell<usize>,
    /// What was handled since the connection last let others have the thread.
    turn: Cell<usize>,
}

type Received = Option<Box<dyn IncomingMessage>>;

impl<R: AsyncRead + Unpin> Receiver<R> {
    fn poll_receive(&self, context: &mut Context<'_>) -> Poll<Result<Received, Error>> {
        loop {
            if let Some(message) = self.take_message().transpose() {
                return Poll::Ready(message.map(Some).map_err(|error| self.link.fail(error)));
            }
            if self.turn.get() >= TURN_COST_MAX {
                // Others of this thread have waited long enough.
                self.turn.set(0);
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            if self.must_stop() {
                return Poll::Ready(Err(self.failure()));
            }
            self.link.register_reader(context);
            if self.is_paused() {
                self.link.watch.note_complete();
                return if self.link.traffic.has_failed() {
                    Poll::Ready(Err(self.failure()))
                } else {
                    Poll::Pending
                };
            }
            let Some(Poll::Ready(read)) =
                self.input.borrow_mut().as_mut().map(|input| input.poll_read(context))
            else {
                return self.wait();
            };
            match read {
                Ok(Read::Some) => {
                    let now = Instant::now();
                    self.link.traffic.last_received.set(now);
                    self.link.watch.note_activity(now);
                }
                Ok(Read::End) => return Poll::Ready(Err(self.link.fail(self.end()))),
                Err(error) => {
                    let text = format!("reading from the peer failed: {error}");
                    return Poll::Ready(Err(self.link.fail(Error::disconnected(text))));
                }
            }
        }
    }

    /// Takes the next message that is for capnp-rpc, of those that have arrived.
    fn take_message(&self) -> Result<Received, Error> {
        loop {
            if self.must_stop() || self.turn.get() >= TURN_COST_MAX {
                return Ok(None);
            }
            let due = self.link.gate.borrow_mut().take_due();
            if let Some(finish) = due {
                return Ok(Some(Box::new(Own(finish.into_reader()))));
            }
            if self.is_paused() {
                return Ok(None);
            }
            let taken = match self.input.borrow_mut().as_mut() {
                Some(input) => input.take_message()?,
                None => None,
            };
            let Some(stored) = taken else { return Ok(None) };
            self.turn.set(self.turn.get() + 1 + stored.bytes() / TURN_COST_BYTES);
            self.link.watch.note_complete();
            self.link.traffic.greeted.set(true);
            if self.link.traffic.has_failed() {
                self.last_bytes.set(self.last_bytes.get().saturating_sub(stored.bytes()));
            }
            if let Some(message) = self.judge(stored)? {
                return Ok(Some(message));
            }
        }
    }

    fn judge(&self, stored: Stored) -> Result<Received, Error> {
        let bytes = stored.bytes();
        let words = bytes / WORD_BYTES;
        let mut options = ReaderOptions::new();
        options
            .traversal_limit_in_words(Some(words.saturating_mul(READS_MAX) + READ_WORDS_EXTRA))
            .nesting_limit(self.link.limits.nesting_max);
        let message = Reader::new(stored, options);
        let root = message.get_root::<message::Reader<'_>>()?;
        let verdict = self.link.gate.borrow_mut().judge(root, bytes)?;
        match verdict {
            Verdict::Pass => Ok(Some(Box::new(Incoming { message, call: None }))),
            Verdict::Admit(call) => Ok(Some(Box::new(Incoming { message, call: Some(call) }))),
            Verdict::Swallow => Ok(None),
            Verdict::Refuse(refusal) => {
                self.answer(&refusal)?;
                Ok(None)
            }
            Verdict::Fail { answer_id, error } => {
                let mut failed = frame::small_message();
                let mut answer = failed.init_root::<message::Builder<'_>>().init_return();
                answer.set_answer_id(answer_id);
                set_exception(answer, &error);
                Ok(Some(Box::new(Own(failed.into_reader()))))
            }
        }
    }

    /// Answers a call in place of capnp-rpc.
    ///
    /// The capabilities that came with it are released one by one: the flag of a return that would
    /// release them all is ignored by the clients of capnp-rpc.
    fn answer(&self, refusal: &Refusal) -> Result<(), Error> {
        for id in &refusal.releases {
            let mut message = outgoing(&self.link, 0);
            let mut release = message.get_body()?.init_as::<message::Builder<'_>>().init_release();
            release.set_id(*id);
            release.set_reference_count(1);
            drop(message.send());
        }
        let mut message = outgoing(&self.link, 0);
        let mut answer = message.get_body()?.init_as::<message::Builder<'_>>().init_return();
        answer.set_answer_id(refusal.question_id);
        answer.set_release_param_caps(false);
        answer.set_no_finish_needed(true);
        set_exception(answer, &refusal.error);
        drop(message.send());
        Ok(())
    }

    /// Returns what to do while nothing comes.
    fn wait(&self) -> Poll<Result<Received, Error>> {
        self.turn.set(0);
        if self.link.traffic.has_failed() {
            return Poll::Ready(Err(self.failure()));
        }
        let has_begun = self.input.borrow().as_ref().is_some_and(Input::has_begun);
        if has_begun && self.link.watch.note_begun(&self.link.limits) {
            self.link.wake_writer();
        }
        Poll::Pending
    }

    /// Returns whether nothing more is handled, not even what has arrived.
    fn must_stop(&self) -> bool {
        self.link.is_deaf() || self.last_bytes.get() == 0
    }

    fn is_paused(&self) -> bool {
        self.side == Side::Server && self.link.must_pause()
    }

    fn failure(&self) -> Error {
        self.link.fail(Error::disconnected("the connection was dropped".into()))
    }

    fn end(&self) -> Error {
        let has_begun = self.input.borrow().as_ref().is_some_and(Input::has_begun);
        Error::disconnected(if has_begun {
            "the peer closed the connection in the middle of a message".into()
        } else {
            "the peer closed the connection".into()
        })
    }
}

/// The connection as capnp-rpc holds it; when the last handle is dropped, the connection is over.
struct Handle<R> {
    receiver: Rc<Receiver<R>>,
}

impl<R> Handle<R> {
    fn new(receiver: &Rc<Receiver<R>>) -> Self {
        receiver.handles.set(receiver.handles.get() + 1);
        Self { receiver: Rc::clone(receiver) }
    }
}

impl<R> Drop for Handle<R> {
    fn drop(&mut self) {
        let handles = self.receiver.handles.get() - 1;
        self.receiver.handles.set(handles);
        if handles == 0 {
            self.receiver.link.release();
            *self.receiver.input.borrow_mut() = None;
        }
    }
}

impl<R: AsyncRead + Unpin + 'static> Connection<Side> for Handle<R> {
    fn get_peer_vat_id(&self) -> Side {
        match self.receiver.side {
            Side::Server => Side::Client,
            Side::Client => Side::Server,
        }
    }

    fn new_outgoing_message(&mut self, first_segment_words: u32) -> Box<dyn OutgoingMessage> {
        outgoing(&self.receiver.link, first_segment_words)
    }

    fn receive_incoming_message(&mut self) -> Promise<Received, Error> {
        match self.receiver.take_message() {
            Ok(Some(message)) => Promise::ok(Some(message)),
            Ok(None) => {
                let receiver = Rc::clone(&self.receiver);
                Promise::from_future(poll_fn(move |context| receiver.poll_receive(context)))
            }
            Err(error) => Promise::err(self.receiver.link.fail(error)),
        }
    }

    fn new_stream(&mut self) -> (Box<dyn FlowController>, Promise<(), Error>) {
        flow::window(self.receiver.link.limits.stream_window_bytes)
    }

    fn shutdown(&mut self, result: Result<(), Error>) -> Promise<(), Error> {
        let link = Rc::clone(&self.receiver.link);
        let closed = || Error::disconnected("the connection was shut down".into());
        link.close(result.err().unwrap_or_else(closed));
        Promise::from_future(async move {
            link.finished().await;
            Ok(())
        })
    }
}

/// A message from the peer.
struct Incoming {
    message: Reader<Stored>,
    /// Where it is a call that expects an answer.
    call: Option<Rc<Call>>,
}

impl IncomingMessage for Incoming {
    fn get_body(&self) -> Result<any_pointer::Reader<'_>, Error> {
        if let Some(call) = &self.call {
            call.note_read()?;
        }
        self.message.get_root()
    }
}

/// A message in the peer's place.
struct Own(Reader<Message>);

impl IncomingMessage for Own {
    fn get_body(&self) -> Result<any_pointer::Reader<'_>, Error> {
        self.0.get_root()
    }
}

/// A message to the peer that is being built.
struct Outgoing {
    link: Rc<Link>,
    message: Message,
}

impl OutgoingMessage for Outgoing {
    fn get_body(&mut self) -> Result<any_pointer::Builder<'_>, Error> {
        self.message.get_root()
    }

    fn get_body_as_reader(&self) -> Result<any_pointer::Reader<'_>, Error> {
        self.message.get_root_as_reader()
    }

    fn send(self: Box<Self>) -> (Promise<(), Error>, Rc<Message>) {
        let message = Rc::new(self.message);
        self.link.send(&message);
        (Promise::ok(()), message)
    }

    fn take(self: Box<Self>) -> Message {
        self.message
    }

    fn size_in_words(&self) -> usize {
        self.message.size_in_words()
    }
}

fn outgoing(link: &Rc<Link>, first_segment_words: u32) -> Box<dyn OutgoingMessage> {
    let words = match first_segment_words {
        0 | UNKNOWN_SIZE_WORDS => FIRST_SEGMENT_WORDS,
        words => words,
    };
    let message = Builder::new(HeapAllocator::new().first_segment_words(words));
    Box::new(Outgoing { link: Rc::clone(link), message })
}

fn set_exception(answer: capnp_rpc::rpc_capnp::return_::Builder<'_>, error: &Error) {
    let mut exception = answer.init_exception();
    exception.set_type(exception_type(error));
    exception.set_reason(error.extra.as_str());
}
