//! Messages to the peer, in the order in which they were sent.
//!
//! **Invariant:** a segment of [`LARGE_BYTES`] or more is written from where it was built.
//! **Invariant:** an empty queue holds no memory.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;

use super::frame::{self, Message};

/// The size from which a copy costs more than a slice of its own.
const LARGE_BYTES: usize = 16 << 10;
/// The most that is allocated for a batch because the one before had it.
const EXPECTED_BYTES_MAX: usize = 32 << 10;
/// The slices of one write.
const SLICES: usize = 32;

/// The messages that wait to be written.
#[derive(Default)]
pub(super) struct Output {
    chunks: VecDeque<Chunk>,
    /// The small ones after the last chunk.
    tail: Vec<u8>,
    /// The size of the last batch's tail.
    expected_bytes: usize,
}

/// Bytes in the order of the wire.
enum Chunk {
    Bytes(Vec<u8>),
    Segment { message: Rc<Message>, index: usize },
}

/// What one turn of the writer takes off the queue.
#[derive(Default)]
pub(super) struct Batch {
    chunks: VecDeque<Chunk>,
    /// How much of the first chunk is written.
    offset: usize,
}

impl Output {
    /// Appends `message` and returns its size in bytes.
    pub(super) fn push(&mut self, message: &Rc<Message>) -> usize {
        let segments = message.get_segments_for_output();
        let is_large = |segment: &&&[u8]| segment.len() >= LARGE_BYTES;
        let header = frame::header_bytes(segments.len());
        let body: usize = segments.iter().map(|segment| segment.len()).sum();
        let apart: usize = segments.iter().filter(is_large).map(|segment| segment.len()).sum();
        if self.tail.capacity() == 0 {
            self.tail.reserve_exact(self.expected_bytes.max(header + body - apart));
        }
        frame::write_table(&segments, &mut self.tail);
        for (index, segment) in segments.iter().enumerate() {
            if is_large(&segment) {
                self.close_tail();
                self.chunks.push_back(Chunk::Segment { message: Rc::clone(message), index });
            } else {
                self.tail.extend_from_slice(segment);
            }
        }
        header + body
    }

    /// Takes everything.
    pub(super) fn take(&mut self) -> Batch {
        self.expected_bytes = self.tail.len().min(EXPECTED_BYTES_MAX);
        self.close_tail();
        Batch { chunks: std::mem::take(&mut self.chunks), offset: 0 }
    }

    fn close_tail(&mut self) {
        if !self.tail.is_empty() {
            self.chunks.push_back(Chunk::Bytes(std::mem::take(&mut self.tail)));
        }
    }
}

impl Batch {
    pub(super) fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Writes once, and returns how much was written.
    pub(super) fn poll_write<W: AsyncWrite + Unpin>(
        &mut self,
        writer: &mut W,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let mut slices = [IoSlice::new(&[]); SLICES];
        let mut count = 0;
        let mut offset = self.offset;
        for (slot, chunk) in slices.iter_mut().zip(&self.chunks) {
            *slot = IoSlice::new(chunk.bytes().get(offset..).unwrap_or_default());
            offset = 0;
            count += 1;
        }
        let slices = slices.get(..count).unwrap_or_default();
        let writer = Pin::new(writer);
        let written = match slices {
            [only] => ready!(writer.poll_write(context, only))?,
            _ => ready!(writer.poll_write_vectored(context, slices))?,
        };
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.advance(written);
        Poll::Ready(Ok(written))
    }

    fn advance(&mut self, written: usize) {
        self.offset += written;
        while let Some(size) = self.chunks.front().map(|chunk| chunk.bytes().len()) {
            if self.offset < size {
                return;
            }
            self.offset -= size;
            self.chunks.pop_front();
        }
        debug_assert_eq!(self.offset, 0, "no more is written than there is");
    }
}

impl Chunk {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Segment { message, index } => {
                message.get_segments_for_output().get(*index).copied().unwrap_or_default()
            }
        }
    }
}
