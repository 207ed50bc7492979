//! The pipe: one writer, one reader, and between them at most a window of bytes.
//!
//! **Invariant:** what waits in a pipe is at most its window, or one chunk; and at most as many chunks as
//! keep their bookkeeping below the window too.
//! **Invariant:** the reader sees every chunk that the writer was told is written, in order, then exactly
//! one end: clean if the writer finished, an error if it failed or vanished.
//! **Invariant:** nothing foreign runs under the lock: wakers are woken and dropped after it.

use std::collections::VecDeque;
use std::fmt;
use std::future::{Future, poll_fn};
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use crate::error::{Error, Result};

/// Writes a body that somebody else reads; see [`Body::pipe`](crate::body::Body::pipe).
///
/// Dropping it without [`finish`](Self::finish) gives the reader an error of kind *truncated*, after
/// what was written: a body that was cut short is never taken for a whole one.
#[must_use = "a body whose writer is dropped is cut short"]
pub struct BodyWriter {
    shared: Arc<Shared>,
    written: u64,
    ended: bool,
}

impl BodyWriter {
    /// Writes `chunk`, waiting while the window is full.
    ///
    /// A chunk larger than the whole window is taken once the pipe is empty. An empty chunk is taken at
    /// once and not passed on.
    ///
    /// # Errors
    /// Kind *disconnected*, not retryable, when the reader has dropped the body: stop producing.
    ///
    /// # Cancel safety
    /// A future dropped before it was ready has written nothing: `chunk` is lost as a whole. Clone it
    /// first (that copies no bytes), or use [`poll_write`](Self::poll_write), to write it later.
    pub fn write(&mut self, mut chunk: Bytes) -> impl Future<Output = Result<()>> + Send + '_ {
        poll_fn(move |cx| self.poll_write(cx, &mut chunk))
    }

    /// Moves `chunk` into the pipe, leaving it empty, or waits for room, leaving it as it is.
    ///
    /// Only the waker of the latest call is woken.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn poll_write(&mut self, cx: &mut Context<'_>, chunk: &mut Bytes) -> Poll<Result<()>> {
        let bytes = chunk.len();
        let (poll, waker) = {
            let mut state = self.shared.lock();
            match state.accept(chunk)? {
                Accepted::Taken(reader) => (Poll::Ready(Ok(())), reader),
                Accepted::Full => {
                    let stale = state.room_waiter.replace((bytes, cx.waker().clone()));
                    (Poll::Pending, stale.map(|(_, waker)| waker))
                }
            }
        };
        if poll.is_ready() {
            self.note_written(bytes, waker);
        }
        poll
    }

    /// Writes `chunk` if there is room for it now, and otherwise gives it back.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn try_write(&mut self, mut chunk: Bytes) -> Result<Option<Bytes>> {
        let bytes = chunk.len();
        let accepted = self.shared.lock().accept(&mut chunk)?;
        match accepted {
            Accepted::Taken(reader) => {
                self.note_written(bytes, reader);
                Ok(None)
            }
            Accepted::Full => Ok(Some(chunk)),
        }
    }

    /// Ends the body: its reader gets what was written, then the end.
    pub fn finish(mut self) {
        self.end(End::Clean);
    }

    /// Ends the body with `error`: its reader gets what was written, then `error`.
    pub fn fail(mut self, error: Error) {
        self.end(End::Failed(error));
    }

    /// Waits until the reader has dropped the body, so that a producer can stop early.
    ///
    /// # Cancel safety
    /// Dropping the future does nothing.
    pub fn closed(&mut self) -> impl Future<Output = ()> + Send + '_ {
        poll_fn(move |cx| self.poll_closed(cx))
    }

    /// Is ready when the reader has dropped the body. Only the waker of the latest call is woken.
    pub fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let stale = {
            let mut state = self.shared.lock();
            if state.reader_gone {
                return Poll::Ready(());
            }
            state.closed_waiter.replace(cx.waker().clone())
        };
        drop(stale);
        Poll::Pending
    }

    /// Waits until the reader has asked for a first chunk, or has dropped the body: until then nobody needs
    /// what a producer makes, and nothing has to wait in memory.
    ///
    /// # Cancel safety
    /// Dropping the future does nothing.
    pub fn wanted(&mut self) -> impl Future<Output = ()> + Send + '_ {
        poll_fn(move |cx| {
            let stale = {
                let mut state = self.shared.lock();
                if state.wanted || state.reader_gone {
                    return Poll::Ready(());
                }
                state.wanted_waiter.replace(cx.waker().clone())
            };
            drop(stale);
            Poll::Pending
        })
    }

    /// Returns whether the reader has dropped the body.
    pub fn is_closed(&self) -> bool {
        self.shared.lock().reader_gone
    }

    fn note_written(&mut self, bytes: usize, reader: Option<Waker>) {
        self.written = self.written.saturating_add(bytes as u64);
        wake(reader);
    }

    fn end(&mut self, end: End) {
        self.ended = true;
        let reader = {
            let mut state = self.shared.lock();
            state.end = Some(end);
            state.reader_waiter.take()
        };
        wake(reader);
    }
}

impl Drop for BodyWriter {
    fn drop(&mut self) {
        if !self.ended {
            let message = format!("body was cut short after {} bytes", self.written);
            self.end(End::Failed(Error::truncated(message)));
        }
    }
}

impl fmt::Debug for BodyWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BodyWriter").field("written", &self.written).finish_non_exhaustive()
    }
}

/// Makes a pipe with a window of `window_bytes`.
pub(super) fn pipe(window_bytes: usize) -> (BodyWriter, PipeReader) {
    let state = State {
        window_bytes,
        queue: VecDeque::new(),
        queued_bytes: 0,
        end: None,
        reader_gone: false,
        reader_waiter: None,
        room_waiter: None,
        closed_waiter: None,
        wanted: false,
        wanted_waiter: None,
    };
    let shared = Arc::new(Shared { state: Mutex::new(state) });
    let reader = PipeReader { shared: Arc::clone(&shared) };
    (BodyWriter { shared, written: 0, ended: false }, reader)
}

/// The reading end of a pipe. Dropping it tells the writer.
pub(super) struct PipeReader {
    shared: Arc<Shared>,
}

impl PipeReader {
    /// Takes the next chunk, which is never empty, or the end; the end repeats.
    pub(super) fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes>>> {
        let (chunk, writer) = {
            let mut state = self.shared.lock();
            state.wanted = true;
            if let Some(chunk) = state.take() {
                (chunk, state.writer_with_room())
            } else {
                return match &state.end {
                    Some(End::Clean) => Poll::Ready(None),
                    Some(End::Failed(error)) => Poll::Ready(Some(Err(error.clone()))),
                    None => {
                        let stale = state.reader_waiter.replace(cx.waker().clone());
                        let producer = state.wanted_waiter.take();
                        drop(state);
                        wake(producer);
                        drop(stale);
                        Poll::Pending
                    }
                };
            }
        };
        wake(writer);
        Poll::Ready(Some(Ok(chunk)))
    }

    /// Returns whether the clean end is all that is left.
    pub(super) fn is_ended(&self) -> bool {
        let state = self.shared.lock();
        state.queue.is_empty() && matches!(state.end, Some(End::Clean))
    }
}

impl Drop for PipeReader {
    fn drop(&mut self) {
        let (room, closed, wanted, reader, queue) = {
            let mut state = self.shared.lock();
            state.reader_gone = true;
            state.queued_bytes = 0;
            let queue = mem::take(&mut state.queue);
            let room = state.room_waiter.take().map(|(_, waker)| waker);
            let (closed, wanted) = (state.closed_waiter.take(), state.wanted_waiter.take());
            (room, closed, wanted, state.reader_waiter.take(), queue)
        };
        wake(room);
        wake(closed);
        wake(wanted);
        drop((reader, queue));
    }
}

struct Shared {
    state: Mutex<State>,
}

impl Shared {
    /// Nothing panics under the lock, so a poisoned one still holds a good state.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct State {
    window_bytes: usize,
    queue: VecDeque<Bytes>,
    queued_bytes: usize,
    end: Option<End>,
    reader_gone: bool,
    reader_waiter: Option<Waker>,
    /// The writer, and how many bytes it wants to write.
    room_waiter: Option<(usize, Waker)>,
    closed_waiter: Option<Waker>,
    /// The reader has asked for a chunk.
    wanted: bool,
    wanted_waiter: Option<Waker>,
}

enum End {
    Clean,
    Failed(Error),
}

enum Accepted {
    Taken(Option<Waker>),
    Full,
}

impl State {
    /// Moves `chunk` into the queue if there is room for it, and says who waits for it.
    fn accept(&mut self, chunk: &mut Bytes) -> Result<Accepted> {
        if self.reader_gone {
            // Nothing failed that another try could mend: the reader wants no more.
            let error = Error::disconnected("the reader of the body is gone");
            return Err(error.with_retryable(false));
        }
        if chunk.is_empty() {
            return Ok(Accepted::Taken(None));
        }
        if !self.has_room(chunk.len()) {
            return Ok(Accepted::Full);
        }
        self.queued_bytes += chunk.len();
        self.queue.push_back(mem::take(chunk));
        debug_assert!(self.queued_bytes <= self.window_bytes || self.queue.len() == 1);
        Ok(Accepted::Taken(self.reader_waiter.take()))
    }

    fn has_room(&self, bytes: usize) -> bool {
        let chunks_max = (self.window_bytes / CHUNK_OVERHEAD_BYTES).max(CHUNKS_MIN);
        self.queue.is_empty()
            || (self.queued_bytes.saturating_add(bytes) <= self.window_bytes
                && self.queue.len() < chunks_max)
    }

    fn take(&mut self) -> Option<Bytes> {
        let chunk = self.queue.pop_front()?;
        debug_assert!(self.queued_bytes >= chunk.len());
        self.queued_bytes = self.queued_bytes.saturating_sub(chunk.len());
        Some(chunk)
    }

    /// Returns the waiting writer if its chunk now fits: it is not woken for nothing.
    fn writer_with_room(&mut self) -> Option<Waker> {
        let (bytes, _) = self.room_waiter.as_ref()?;
        if !self.has_room(*bytes) {
            return None;
        }
        self.room_waiter.take().map(|(_, waker)| waker)
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// What a queued chunk costs beside its bytes, so that many small ones are bounded too.
const CHUNK_OVERHEAD_BYTES: usize = 64;

/// How many chunks fit even into the smallest window, if their bytes do.
const CHUNKS_MIN: usize = 16;

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;
    use std::thread;

    use futures::executor::block_on;
    use futures::task::noop_waker_ref;

    use super::*;
    use crate::error::Kind;

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    impl Wakes {
        fn count(&self) -> usize {
            self.0.load(Ordering::SeqCst)
        }
    }

    fn read(reader: &mut PipeReader) -> Poll<Option<Result<Bytes>>> {
        reader.poll_chunk(&mut Context::from_waker(noop_waker_ref()))
    }

    fn bytes(count: usize) -> Bytes {
        vec![b'x'; count].into()
    }

    fn chunk(text: &'static str) -> Poll<Option<Result<Bytes>>> {
        Poll::Ready(Some(Ok(Bytes::from(text))))
    }

    fn xorshift(state: &mut u64) -> u64 {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        *state
    }

    #[test]
    fn both_ends_may_move_to_other_threads() {
        fn assert_send<T: Send>(_: &T) {}
        let (mut writer, reader) = pipe(8);
        assert_send(&writer.write(Bytes::new()));
        assert_send(&writer.closed());
        assert_send(&writer);
        assert_send(&reader);
    }

    #[test]
    fn chunks_arrive_in_order_and_then_the_end_for_ever() {
        let (mut writer, mut reader) = pipe(8);
        assert_eq!(read(&mut reader), Poll::Pending);
        block_on(writer.write("a".into())).unwrap();
        block_on(writer.write(Bytes::new())).unwrap();
        block_on(writer.write("bc".into())).unwrap();
        writer.finish();
        assert!(!reader.is_ended());
        assert_eq!(read(&mut reader), chunk("a"));
        assert_eq!(read(&mut reader), chunk("bc"));
        assert!(reader.is_ended());
        assert_eq!(read(&mut reader), Poll::Ready(None));
        assert_eq!(read(&mut reader), Poll::Ready(None));
    }

    /// Each case: the window, what is written, and which of it is taken before anything is read.
    #[test]
    fn the_window_is_never_exceeded_but_by_a_single_chunk() {
        for (window, sizes, taken) in [
            (4, &[1, 2, 1, 1][..], &[true, true, true, false][..]),
            (4, &[4, 1], &[true, false]),
            (4, &[5, 1], &[true, false]),
            (4, &[3, 2, 1], &[true, false, true]),
            (4, &[1, 9], &[true, false]),
            (0, &[1, 1], &[true, false]),
            (usize::MAX, &[9, 9], &[true, true]),
            (4, &[4, 0], &[true, true]),
        ] {
            let (mut writer, reader) = pipe(window);
            for (size, taken) in sizes.iter().zip(taken) {
                let left = writer.try_write(bytes(*size)).unwrap();
                assert_eq!(left, (!taken).then(|| bytes(*size)), "{window} {sizes:?}");
            }
            drop(reader);
        }
    }

    #[test]
    fn small_chunks_do_not_cost_more_than_the_window() {
        let (mut writer, mut reader) = pipe(64 << 10);
        let mut taken = 0;
        while writer.try_write(bytes(1)).unwrap().is_none() {
            taken += 1;
        }
        assert_eq!(taken, 1 << 10);
        assert!(read(&mut reader).is_ready());
        assert!(writer.try_write(bytes(1)).unwrap().is_none());
    }

    #[test]
    fn a_slow_reader_slows_the_writer_and_wakes_it_once_there_is_room() {
        let wakes = Arc::new(Wakes::default());
        let waker = Arc::clone(&wakes).into();
        let cx = &mut Context::from_waker(&waker);
        let (mut writer, mut reader) = pipe(4);
        for _ in 0..4 {
            assert!(writer.try_write(bytes(1)).unwrap().is_none());
        }
        let mut waiting = bytes(2);
        assert!(writer.poll_write(cx, &mut waiting).is_pending());
        assert!(writer.poll_closed(cx).is_pending());
        assert!(read(&mut reader).is_ready());
        assert_eq!(wakes.count(), 0, "one byte of room is not two");
        assert!(writer.poll_write(cx, &mut waiting).is_pending());
        assert!(read(&mut reader).is_ready());
        assert_eq!(wakes.count(), 1);
        assert_eq!(writer.poll_write(cx, &mut waiting), Poll::Ready(Ok(())));
        assert!(waiting.is_empty());
        // A chunk larger than the window waits for an empty pipe.
        let mut large = bytes(9);
        assert!(writer.poll_write(cx, &mut large).is_pending());
        for _ in 0..3 {
            assert_eq!(wakes.count(), 1);
            assert!(read(&mut reader).is_ready());
        }
        assert_eq!(wakes.count(), 2);
        assert!(writer.poll_write(cx, &mut large).is_ready());
    }

    #[test]
    fn a_waiting_reader_is_woken_by_a_chunk_and_by_every_end() {
        type Act = fn(BodyWriter);
        let acts: [(Act, Poll<Option<Result<Bytes>>>); 4] = [
            (|mut writer| assert_eq!(writer.try_write("a".into()), Ok(None)), chunk("a")),
            (BodyWriter::finish, Poll::Ready(None)),
            (|writer| writer.fail("no".into()), Poll::Ready(Some(Err("no".into())))),
            (drop, Poll::Ready(Some(Err(Error::truncated("body was cut short after 0 bytes"))))),
        ];
        for (act, outcome) in acts {
            let wakes = Arc::new(Wakes::default());
            let waker = Arc::clone(&wakes).into();
            let (writer, mut reader) = pipe(8);
            assert!(reader.poll_chunk(&mut Context::from_waker(&waker)).is_pending());
            act(writer);
            assert!(wakes.count() >= 1);
            assert_eq!(read(&mut reader), outcome);
        }
    }

    #[test]
    fn a_writer_that_vanishes_or_fails_is_an_error_after_what_it_wrote() {
        let (mut writer, mut reader) = pipe(8);
        block_on(writer.write("abc".into())).unwrap();
        drop(writer);
        assert_eq!(read(&mut reader), chunk("abc"));
        let cut = Error::truncated("body was cut short after 3 bytes");
        assert_eq!(read(&mut reader), Poll::Ready(Some(Err(cut))));

        let (mut writer, mut reader) = pipe(8);
        block_on(writer.write("abc".into())).unwrap();
        let error = Error::overloaded("later").with_remote(true).with_delivered(true);
        writer.fail(error.clone());
        assert_eq!(read(&mut reader), chunk("abc"));
        assert_eq!(read(&mut reader), Poll::Ready(Some(Err(error))));
    }

    #[test]
    fn a_write_that_was_cancelled_has_written_nothing() {
        let (mut writer, mut reader) = pipe(2);
        block_on(writer.write("ab".into())).unwrap();
        {
            let mut write = Box::pin(writer.write("cd".into()));
            let cx = &mut Context::from_waker(noop_waker_ref());
            assert!(write.as_mut().poll(cx).is_pending());
        }
        assert_eq!(read(&mut reader), chunk("ab"));
        assert_eq!(read(&mut reader), Poll::Pending);
        block_on(writer.write("ef".into())).unwrap();
        assert_eq!(read(&mut reader), chunk("ef"));
    }

    #[test]
    fn a_reader_that_goes_fails_the_writer_at_every_stage() {
        let gone = Error::disconnected("the reader of the body is gone").with_retryable(false);
        // Before the first chunk.
        let (mut writer, reader) = pipe(2);
        assert!(!writer.is_closed());
        drop(reader);
        assert!(writer.is_closed());
        assert_eq!(block_on(writer.write("a".into())), Err(gone.clone()));
        assert_eq!(block_on(writer.write(Bytes::new())), Err(gone.clone()));
        assert_eq!(writer.try_write("a".into()), Err(gone.clone()));
        block_on(writer.closed());
        writer.finish();
        // With chunks queued, a write and `closed` waiting: both are woken, the chunks are freed.
        let wakes = Arc::new(Wakes::default());
        let waker = Arc::clone(&wakes).into();
        let cx = &mut Context::from_waker(&waker);
        let (mut writer, reader) = pipe(2);
        let queued = Bytes::from(vec![1, 2]);
        block_on(writer.write(queued.clone())).unwrap();
        let mut waiting = bytes(1);
        assert!(writer.poll_closed(cx).is_pending());
        assert!(writer.poll_write(cx, &mut waiting).is_pending());
        drop(reader);
        assert_eq!(wakes.count(), 2);
        assert!(queued.is_unique());
        assert_eq!(writer.poll_write(cx, &mut waiting), Poll::Ready(Err(gone)));
        assert_eq!(waiting.len(), 1, "the chunk was not lost");
        assert!(writer.poll_closed(cx).is_ready());
        drop(writer);
        // After the end, with the end unread.
        let (writer, reader) = pipe(2);
        writer.finish();
        drop(reader);
    }

    #[test]
    fn a_producer_learns_when_its_body_is_first_wanted() {
        let (mut writer, mut reader) = pipe(8);
        let mut wanted = Box::pin(async move { writer.wanted().await });
        let mut context = Context::from_waker(noop_waker_ref());
        assert!(wanted.as_mut().poll(&mut context).is_pending());
        assert!(reader.poll_chunk(&mut context).is_pending());
        assert!(wanted.as_mut().poll(&mut context).is_ready());
        let (mut writer, reader) = pipe(8);
        drop(reader);
        block_on(writer.wanted());
    }

    #[test]
    fn a_producer_on_another_thread_learns_that_the_reader_went() {
        let (mut writer, reader) = pipe(8);
        #[expect(clippy::disallowed_methods, reason = "the other end is on another thread")]
        let producer = thread::spawn(move || block_on(writer.closed()));
        drop(reader);
        producer.join().unwrap();
    }

    /// A waker whose last clone ends the other end of the pipe, as a task that is dropped does.
    struct Owner {
        _writer: Mutex<BodyWriter>,
    }

    impl Wake for Owner {
        fn wake(self: Arc<Self>) {}
    }

    #[test]
    fn a_waker_that_owns_the_other_end_may_be_dropped_by_the_pipe() {
        let (writer, mut reader) = pipe(8);
        let owner = Arc::new(Owner { _writer: Mutex::new(writer) }).into();
        assert!(reader.poll_chunk(&mut Context::from_waker(&owner)).is_pending());
        drop(owner);
        // Replaces the waker, which drops the writer, which ends the pipe.
        assert_eq!(read(&mut reader), Poll::Pending);
        assert!(
            matches!(read(&mut reader), Poll::Ready(Some(Err(e))) if e.kind == Kind::Truncated)
        );
    }

    #[test]
    fn every_byte_crosses_threads_in_order_within_the_window() {
        for (seed, window) in [(1, 1), (2, 7), (3, 64), (4, 4096), (5, 16 << 10)] {
            let (mut writer, mut reader) = pipe(window);
            #[expect(clippy::disallowed_methods, reason = "the other end is on another thread")]
            let producer = thread::spawn(move || {
                let mut random = seed;
                let mut next = 0_u8;
                for _ in 0..500 {
                    let size = xorshift(&mut random) as usize % (window + window / 4 + 2);
                    let chunk: Vec<u8> = (0..size).map(|i| next.wrapping_add(i as u8)).collect();
                    next = next.wrapping_add(size as u8);
                    block_on(writer.write(chunk.into())).unwrap();
                    let state = writer.shared.lock();
                    assert!(state.queued_bytes <= window || state.queue.len() == 1);
                    let queued: usize = state.queue.iter().map(Bytes::len).sum();
                    assert_eq!(state.queued_bytes, queued);
                }
                let written = writer.written;
                writer.finish();
                written
            });
            let mut next = 0_u8;
            let mut total = 0;
            while let Some(chunk) = block_on(poll_fn(|cx| reader.poll_chunk(cx))) {
                for byte in chunk.unwrap() {
                    assert_eq!(byte, next, "seed {seed}");
                    next = next.wrapping_add(1);
                    total += 1;
                }
            }
            assert_eq!(producer.join().unwrap(), total, "seed {seed}");
        }
    }
}
