//! Bytes from the peer, cut into messages.
//!
//! Small messages are read in bulk and copied out; the body of a large one is read straight into the
//! memory in which it stays.
//!
//! **Invariant:** memory is allocated for bytes that arrived: at most about double of what did, or as
//! much as the message before had, if that was large.
//! **Invariant:** while nothing is coming, no more than [`IDLE_BYTES`] are held.

use std::io;
use std::pin::pin;
use std::task::{Context, Poll};

use bytes::BufMut;
use capnp::Error;
use tokio::io::{AsyncRead, AsyncReadExt};

use super::frame::{Stored, Table};

/// What a bulk read takes at least, and what may be kept while nothing comes.
const IDLE_BYTES: usize = 4 << 10;
/// What a bulk read takes at most.
const BULK_BYTES_MAX: usize = 64 << 10;
/// The largest body that waits for its end among other messages.
const SMALL_BODY_BYTES_MAX: usize = 4 << 10;
/// The most that is allocated for a body because the one before had it.
const EXPECTED_BYTES_MAX: usize = 2 << 20;

/// The bytes from the peer.
pub(super) struct Input<R> {
    reader: R,
    bytes_max: usize,
    buffer: Vec<u8>,
    /// How much of the buffer is consumed.
    start: usize,
    /// How much the next bulk read takes: it follows what the last ones found.
    bulk_bytes: usize,
    partial: Option<Partial>,
    /// The size of the last large body.
    expected_bytes: usize,
}

/// A large message whose body is being read.
struct Partial {
    table: Table,
    body: Vec<u8>,
}

/// What a read found.
pub(super) enum Read {
    Some,
    End,
}

impl<R: AsyncRead + Unpin> Input<R> {
    pub(super) fn new(reader: R, bytes_max: usize) -> Self {
        Self {
            reader,
            bytes_max,
            buffer: Vec::new(),
            start: 0,
            bulk_bytes: IDLE_BYTES,
            partial: None,
            expected_bytes: 0,
        }
    }

    /// Takes the next message if all of it has arrived.
    pub(super) fn take_message(&mut self) -> Result<Option<Stored>, Error> {
        if let Some(partial) = self.partial.take_if(|partial| partial.missing_bytes() == 0) {
            self.expected_bytes = partial.body.len().min(EXPECTED_BYTES_MAX);
            return Ok(Some(Stored::new(partial.table, partial.body)));
        }
        let waiting = self.buffer.get(self.start..).unwrap_or_default();
        if self.partial.is_some() || waiting.is_empty() {
            return Ok(None);
        }
        let Some(table) = Table::parse(waiting, self.bytes_max)? else { return Ok(None) };
        let arrived = waiting.get(table.header_bytes..).unwrap_or_default();
        if let Some(body) = arrived.get(..table.body_bytes) {
            let body = body.to_vec();
            self.start += table.header_bytes + table.body_bytes;
            return Ok(Some(Stored::new(table, body)));
        }
        if table.body_bytes > SMALL_BODY_BYTES_MAX {
            let mut partial = Partial { table, body: Vec::new() };
            partial.grow(arrived.len() * 2, self.expected_bytes);
            partial.body.extend_from_slice(arrived);
            self.partial = Some(partial);
            self.start = self.buffer.len();
            self.bulk_bytes = IDLE_BYTES;
        }
        Ok(None)
    }

    /// Reads what there is, once.
    pub(super) fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Read>> {
        let read = match &mut self.partial {
            Some(partial) => {
                partial.grow(partial.body.len() * 2, self.expected_bytes);
                let missing = partial.missing_bytes();
                poll_read(&mut self.reader, &mut partial.body, missing, context)
            }
            None => self.poll_bulk(context),
        };
        if read.is_pending() && self.is_empty() && self.buffer.capacity() > IDLE_BYTES {
            self.buffer = Vec::new();
            self.start = 0;
        }
        read.map_ok(|count| if count == 0 { Read::End } else { Read::Some })
    }

    /// Returns whether a part of a message waits for its rest.
    pub(super) fn has_begun(&self) -> bool {
        self.partial.is_some() || !self.is_empty()
    }

    fn is_empty(&self) -> bool {
        self.start == self.buffer.len()
    }

    fn poll_bulk(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.buffer.drain(..self.start);
        self.start = 0;
        // What waits here is the beginning of a small message, so that this ends.
        let room = self.buffer.capacity() - self.buffer.len();
        if room < self.bulk_bytes / 2 {
            self.buffer.reserve_exact(self.bulk_bytes);
        }
        let room = self.buffer.capacity() - self.buffer.len();
        let read = poll_read(&mut self.reader, &mut self.buffer, room, context);
        if let Poll::Ready(Ok(count)) = read {
            if count == room {
                self.bulk_bytes = (self.bulk_bytes * 2).min(BULK_BYTES_MAX);
            } else if count < self.bulk_bytes / 4 {
                self.bulk_bytes = (self.bulk_bytes / 2).max(IDLE_BYTES);
            }
        }
        read
    }

    #[cfg(test)]
    pub(super) fn allocated_bytes(&self) -> usize {
        self.buffer.capacity() + self.partial.as_ref().map_or(0, |partial| partial.body.capacity())
    }
}

impl Partial {
    fn missing_bytes(&self) -> usize {
        self.table.body_bytes - self.body.len()
    }

    /// Makes room up to a size of `wanted` or `expected`, but never beyond the message.
    fn grow(&mut self, wanted: usize, expected: usize) {
        if self.body.len() < self.body.capacity() {
            return;
        }
        let size = wanted.max(expected).max(SMALL_BODY_BYTES_MAX).min(self.table.body_bytes);
        self.body.reserve_exact(size.saturating_sub(self.body.len()));
    }
}

/// Reads once, at most `bytes_max`, into the free room of `buffer`, which is never filled with zeros.
fn poll_read<R: AsyncRead + Unpin>(
    reader: &mut R,
    buffer: &mut Vec<u8>,
    bytes_max: usize,
    context: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    let mut room = buffer.limit(bytes_max);
    pin!(reader.read_buf(&mut room)).poll(context)
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use tokio::io::AsyncWriteExt;

    use super::*;

    /// Reads what there is of `bytes`, and returns the messages and what is allocated after.
    async fn take(bytes: &[u8], bytes_max: usize) -> (Vec<Stored>, usize) {
        let (mut near, far) = tokio::io::duplex(bytes.len().max(1));
        near.write_all(bytes).await.unwrap();
        let mut input = Input::new(far, bytes_max);
        let mut context = Context::from_waker(Waker::noop());
        let mut messages = Vec::new();
        loop {
            while let Some(message) = input.take_message().unwrap() {
                messages.push(message);
            }
            if input.poll_read(&mut context).is_pending() {
                return (messages, input.allocated_bytes());
            }
        }
    }

    #[tokio::test]
    async fn a_size_that_is_only_claimed_allocates_nothing() {
        let words: u32 = (64 << 20) / 8;
        let mut bytes = [[0; 4], words.to_le_bytes()].concat();
        let (_, allocated) = take(&bytes, 64 << 20).await;
        assert!(allocated <= 3 * IDLE_BYTES, "{allocated}");
        bytes.resize(100_000, 0);
        let (_, allocated) = take(&bytes, 64 << 20).await;
        assert!(allocated <= 220_000, "{allocated}");
    }

    #[tokio::test]
    async fn many_segments_are_kept_apart_and_idle_input_is_small() {
        use capnp::message::ReaderSegments;
        let mut bytes = 511_u32.to_le_bytes().to_vec();
        (0..512_u32).for_each(|index| bytes.extend((index % 3).to_le_bytes()));
        bytes.extend([0; 4]);
        (0..512_usize).for_each(|index| bytes.extend(vec![index as u8; index % 3 * 8]));
        let (messages, allocated) = take(&bytes.repeat(20), 1 << 20).await;
        assert_eq!(messages.len(), 20);
        for message in messages {
            assert_eq!(message.len(), 512);
            for index in 0..512_usize {
                let expected = vec![index as u8; index % 3 * 8];
                assert_eq!(message.get_segment(index as u32), Some(&expected[..]));
            }
            assert_eq!(message.get_segment(512), None);
        }
        assert!(allocated <= IDLE_BYTES, "{allocated}");
    }
}
