//! The ends of a WebSocket inside this process.
//!
//! **Invariant:** an end that is dropped before it was closed is a lost link to the other: never a clean close.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use futures::Stream;

use super::close::{CloseFrame, Closed};
use super::direction::{Direction, Ending, Taken};
use super::message::Message;
use crate::error::{Error, Result};
use crate::limits::Limits;

/// One end of a WebSocket: sends to the other end, and receives what that sends.
///
/// Dropping it before [`close`](Self::close) is a lost link: the other end is told of code 1006.
///
/// ```
/// # use stubborn::socket::WebSocket;
/// # async fn example() -> stubborn::Result<()> {
/// let (near, far) = WebSocket::pair();
/// near.send("hello").await?;
/// near.close(4001, "that was all")?;
/// assert_eq!(far.receive().await.unwrap().as_text(), Some("hello"));
/// assert_eq!(far.receive().await.unwrap_err().code, 4001);
/// # Ok(())
/// # }
/// # futures::executor::block_on(example())?;
/// # Ok::<(), stubborn::Error>(())
/// ```
#[must_use = "a WebSocket that is dropped is lost to the other end"]
pub struct WebSocket {
    writer: Writer,
    reader: Reader,
}

impl WebSocket {
    /// Makes the two ends of a WebSocket.
    pub fn pair() -> (Self, Self) {
        Self::pair_within(&Limits::default())
    }

    /// Makes the two ends of a WebSocket within these limits.
    pub fn pair_within(limits: &Limits) -> (Self, Self) {
        let (message_bytes, window) = (limits.socket_message_bytes_max, limits.stream_window_bytes);
        let (there, back) = (half(message_bytes, window), half(message_bytes, window));
        (Self { writer: there.0, reader: back.1 }, Self { writer: back.0, reader: there.1 })
    }

    /// Sends a message, waiting while too much waits for the other end.
    ///
    /// # Errors
    /// *disconnected* where the WebSocket is closed; *invalid request* for a message of over 32 MiB.
    ///
    /// # Cancel safety
    /// A future that is dropped before it was ready has sent nothing.
    pub fn send(
        &self,
        message: impl Into<Message>,
    ) -> impl Future<Output = Result<()>> + Send + '_ {
        self.writer.send(message.into())
    }

    /// Waits for the next message. When the other end closes, this one answers with a close of its own.
    ///
    /// One receives at a time: of two that wait, only the later is woken.
    ///
    /// # Errors
    /// How the WebSocket was closed, once it is and every message was received; from then on always.
    ///
    /// # Cancel safety
    /// Dropping the future loses no message.
    pub fn receive(
        &self,
    ) -> impl Future<Output = std::result::Result<Message, Closed>> + Send + '_ {
        poll_fn(|context| self.poll_receive(context))
    }

    /// As [`receive`](Self::receive), for who polls.
    pub fn poll_receive(
        &self,
        context: &mut Context<'_>,
    ) -> Poll<std::result::Result<Message, Closed>> {
        self.reader.poll_take(context).map(|taken| match taken {
            Taken::Message(message) => Ok(message),
            Taken::Ended(ending) => {
                self.writer.answer(&ending);
                Err(ending.closed())
            }
        })
    }

    /// Closes it: nothing more can be sent, and what the other end sent before its own close can still be
    /// received. Closing it again changes nothing.
    ///
    /// # Errors
    /// *invalid request* for a code that is neither 1000 nor within 3000 and 4999, or a reason of over 123 bytes.
    pub fn close(&self, code: u16, reason: &str) -> Result<()> {
        self.writer.end(Ending::Closed(CloseFrame::new(code, reason)?));
        Ok(())
    }

    /// Takes it apart, for who moves its two directions one by one.
    pub fn split(self) -> (Writer, Reader) {
        (self.writer, self.reader)
    }

    /// Returns its sending half.
    pub fn writer(&self) -> &Writer {
        &self.writer
    }

    /// Returns its receiving half.
    pub fn reader(&self) -> &Reader {
        &self.reader
    }
}

impl Stream for WebSocket {
    type Item = Message;

    /// Yields messages until it is closed; [`receive`](WebSocket::receive) then tells how.
    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Message>> {
        self.poll_receive(context).map(std::result::Result::ok)
    }
}

impl fmt::Debug for WebSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebSocket").field("closed", &self.writer.is_ended()).finish_non_exhaustive()
    }
}

fn half(message_bytes_max: usize, queue_bytes_max: usize) -> (Writer, Reader) {
    let direction = Arc::new(Direction::new(message_bytes_max, queue_bytes_max));
    (Writer(direction.clone()), Reader(direction))
}

/// The half of an end that sends. Dropped before its end it is a lost link.
pub struct Writer(Arc<Direction>);

impl Writer {
    /// Sends a message, waiting while too much waits for the reader.
    ///
    /// # Errors
    /// As [`WebSocket::send`].
    ///
    /// # Cancel safety
    /// A future that is dropped before it was ready has sent nothing.
    pub async fn send(&self, message: Message) -> Result<()> {
        // What can't be sent at all need not wait.
        match self.0.refusal(message.len()) {
            Some(error) => Err(error),
            None => {
                self.room().await;
                self.push(message)
            }
        }
    }

    /// Sends a message, however much waits: who pushes sees to it that that is bounded.
    ///
    /// # Errors
    /// As [`WebSocket::send`].
    pub fn push(&self, message: Message) -> Result<()> {
        self.0.push(message)
    }

    /// Returns a future that waits for room, and does not keep the writer.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub fn room(&self) -> impl Future<Output = ()> + Send + use<> {
        let direction = self.0.clone();
        poll_fn(move |context| direction.poll_room(context))
    }

    /// Is ready when there is room, or nobody takes anything any more.
    pub fn poll_room(&self, context: &Context<'_>) -> Poll<()> {
        self.0.poll_room(context)
    }

    /// Returns a future that waits until nothing more can be sent, and does not keep the writer.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub fn over(&self) -> impl Future<Output = ()> + Send + use<> {
        let direction = self.0.clone();
        poll_fn(move |context| direction.poll_over(context))
    }

    /// Is ready when nothing more can be sent.
    pub fn poll_over(&self, context: &Context<'_>) -> Poll<()> {
        self.0.poll_over(context)
    }

    /// Announces a message of `bytes`, to be pushed after [`unannounce`](Self::unannounce).
    ///
    /// # Errors
    /// As [`WebSocket::send`]; *overloaded* where too much waits.
    pub fn announce(&self, bytes: usize) -> Result<()> {
        self.0.announce(bytes)
    }

    /// Takes back what was announced: what is then pushed counts itself.
    pub fn unannounce(&self, bytes: usize) {
        self.0.unannounce(bytes);
    }

    /// Returns how many bytes wait for the reader.
    pub fn waiting_bytes(&self) -> usize {
        self.0.waiting_bytes()
    }

    /// Ends it; the first end counts.
    pub fn end(&self, ending: Ending) {
        self.0.end(ending);
    }

    /// Answers the end of the other direction with the same.
    pub fn answer(&self, theirs: &Ending) {
        match theirs {
            Ending::Closed(frame) | Ending::Broken(frame) => {
                self.end(Ending::Closed(frame.clone()));
            }
            Ending::Lost => self.end(Ending::Lost),
        }
    }

    /// Returns whether it has ended.
    pub fn is_ended(&self) -> bool {
        self.0.is_ended()
    }

    /// Sets how much a message may have, and how much may wait.
    pub fn bound(&self, message_bytes_max: usize, queue_bytes_max: usize) {
        self.0.bound(message_bytes_max, queue_bytes_max);
    }

    /// Notes that what it sends may leave its object.
    pub fn set_gated(&self) {
        self.0.set_gated();
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.0.end(Ending::Lost);
    }
}

/// The half of an end that receives. Dropping it tells the writer.
pub struct Reader(Arc<Direction>);

impl Reader {
    /// Waits for the next message, or the end.
    ///
    /// # Cancel safety
    /// Dropping the future loses no message.
    pub fn take(&self) -> impl Future<Output = Taken> + Send + '_ {
        poll_fn(|context| self.poll_take(context))
    }

    /// Takes the next message, or the end. Only the waker of the latest call is woken.
    pub fn poll_take(&self, context: &Context<'_>) -> Poll<Taken> {
        self.0.poll_take(context)
    }

    /// Takes what is there; none where nothing is.
    pub fn try_take(&self) -> Option<Taken> {
        match self.0.poll_take(&Context::from_waker(Waker::noop())) {
            Poll::Ready(taken) => Some(taken),
            Poll::Pending => None,
        }
    }

    /// Is ready when there is something to take.
    pub fn poll_ready(&self, waker: &Waker) -> Poll<()> {
        self.0.poll_ready(waker)
    }

    /// Takes the next message where it is text, and this one.
    pub fn take_text(&self, text: &str) -> bool {
        self.0.take_text(text)
    }

    /// Sets how much a message may have, and how much may wait.
    pub fn bound(&self, message_bytes_max: usize, queue_bytes_max: usize) {
        self.0.bound(message_bytes_max, queue_bytes_max);
    }

    /// Returns whether what it receives may leave its object.
    pub fn is_gated(&self) -> bool {
        self.0.is_gated()
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.0.leave();
    }
}

/// Returns why nothing can be sent any more.
pub fn gone() -> Error {
    Error::disconnected("the WebSocket is closed").with_retryable(false)
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use futures::executor::block_on;

    use super::*;

    #[test]
    fn an_end_that_is_dropped_is_lost_to_the_other_behind_what_it_sent() {
        let (near, far) = WebSocket::pair();
        block_on(near.send("last")).unwrap();
        drop(near);
        assert_eq!(block_on(far.receive()).unwrap().as_text(), Some("last"));
        for _ in 0..2 {
            let closed = block_on(far.receive()).unwrap_err();
            assert_eq!((closed.code, closed.was_clean), (1006, false));
        }
        assert!(block_on(far.send("late")).is_err());
    }

    #[test]
    fn a_close_is_answered_and_ends_each_direction_once() {
        let (near, far) = WebSocket::pair();
        near.close(4000, "first").unwrap();
        near.close(4001, "second").unwrap();
        block_on(far.send("still open this way")).unwrap();
        assert_eq!(block_on(far.receive()).unwrap_err().code, 4000);
        assert!(block_on(far.send("late")).is_err());
        assert!(block_on(near.receive()).is_ok());
        assert_eq!(block_on(near.receive()).unwrap_err().code, 4000);
    }

    #[test]
    fn a_sender_waits_while_a_window_waits_and_one_large_message_passes_alone() {
        let limits = Limits { stream_window_bytes: 1000, ..Limits::default() };
        let (near, far) = WebSocket::pair_within(&limits);
        block_on(near.send(vec![0; 5000])).unwrap();
        assert!(near.send("x").now_or_never().is_none());
        block_on(far.receive()).unwrap();
        block_on(near.send("x")).unwrap();
        let mut waiting = 1;
        // Messages without content count, too.
        while near.send("").now_or_never().is_some() {
            waiting += 1;
        }
        assert!((10..20).contains(&waiting), "{waiting}");
        drop(far);
        assert!(block_on(near.send("x")).is_err());
    }

    #[test]
    fn a_message_has_at_most_its_limit() {
        let limits = Limits { socket_message_bytes_max: 10, ..Limits::default() };
        let (near, _far) = WebSocket::pair_within(&limits);
        assert!(block_on(near.send(vec![0; 10])).is_ok());
        assert!(block_on(near.send(vec![0; 11])).unwrap_err().message.contains("11 bytes"));
    }
}
