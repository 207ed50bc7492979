//! How messages lie on the wire: a table of segments, then the segments.
//!
//! **Invariant:** what a table claims is compared with its limit before anything is allocated for it.
//! **Invariant:** the segments of a [`Stored`] message begin at word boundaries.

use capnp::message::{Builder, HeapAllocator, ReaderSegments};
use capnp::{Error, Word};

/// A message on its way to the peer.
pub(super) type Message = Builder<HeapAllocator>;

/// The bytes of one word.
pub(super) const WORD_BYTES: usize = 8;

/// The most segments that a message may have.
const SEGMENTS_MAX: usize = 512;

/// The table in front of a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) header_bytes: usize,
    pub(super) body_bytes: usize,
    /// Where each segment ends within the body. Empty: the body is one segment, as it nearly always is.
    ends: Vec<usize>,
}

impl Table {
    /// Reads the table at the beginning of `bytes`; none if it is not complete.
    pub(super) fn parse(bytes: &[u8], bytes_max: usize) -> Result<Option<Self>, Error> {
        let Some((count, mut sizes)) = split_number(bytes) else { return Ok(None) };
        let count = count.saturating_add(1);
        if count > SEGMENTS_MAX {
            return Err(Error::failed(format!(
                "a message of {count} segments exceeds the limit of {SEGMENTS_MAX}"
            )));
        }
        let header_bytes = header_bytes(count);
        if bytes.len() < header_bytes {
            return Ok(None);
        }
        let mut body_bytes = 0_usize;
        let mut ends = if count == 1 { Vec::new() } else { Vec::with_capacity(count) };
        for _ in 0..count {
            let Some((words, rest)) = split_number(sizes) else { return Ok(None) };
            sizes = rest;
            body_bytes = body_bytes.saturating_add(words.saturating_mul(WORD_BYTES));
            if count > 1 {
                ends.push(body_bytes);
            }
        }
        if body_bytes > bytes_max {
            return Err(Error::failed(format!(
                "a message of {body_bytes} bytes exceeds the limit of {bytes_max} bytes"
            )));
        }
        if body_bytes == 0 {
            return Err(Error::failed("a message of 0 bytes has no root".into()));
        }
        Ok(Some(Self { header_bytes, body_bytes, ends }))
    }
}

/// A message received from the peer, in memory of its own.
pub(super) struct Stored {
    body: Body,
    ends: Vec<usize>,
}

/// Allocators align what they give to words, though nothing promises it for bytes.
enum Body {
    Aligned(Vec<u8>),
    Copied(Vec<Word>),
}

impl Stored {
    /// Keeps `body`, whose segments `table` tells.
    pub(super) fn new(table: Table, body: Vec<u8>) -> Self {
        debug_assert_eq!(table.body_bytes, body.len(), "a body is kept when it is complete");
        let body = if body.as_ptr().addr().is_multiple_of(WORD_BYTES) {
            Body::Aligned(body)
        } else {
            Body::Copied(aligned(&body))
        };
        Self { body, ends: table.ends }
    }

    /// Returns the bytes of all segments.
    pub(super) fn bytes(&self) -> usize {
        self.body().len()
    }

    fn body(&self) -> &[u8] {
        match &self.body {
            Body::Aligned(bytes) => bytes,
            Body::Copied(words) => Word::words_to_bytes(words),
        }
    }
}

impl ReaderSegments for Stored {
    fn get_segment(&self, index: u32) -> Option<&[u8]> {
        if self.ends.is_empty() {
            return (index == 0).then(|| self.body());
        }
        let index = usize::try_from(index).ok()?;
        let start = match index.checked_sub(1) {
            None => 0,
            Some(previous) => *self.ends.get(previous)?,
        };
        self.body().get(start..*self.ends.get(index)?)
    }

    fn len(&self) -> usize {
        self.ends.len().max(1)
    }
}

/// Makes a message for a few words.
pub(super) fn small_message() -> Message {
    const WORDS: u32 = 16;
    Builder::new(HeapAllocator::new().first_segment_words(WORDS))
}

/// Appends the table of a message with these segments to `output`.
pub(super) fn write_table(segments: &[&[u8]], output: &mut Vec<u8>) {
    let count = u32::try_from(segments.len()).expect("a message has less than 2^32 segments");
    output.extend_from_slice(&count.saturating_sub(1).to_le_bytes());
    for segment in segments {
        let words = u32::try_from(segment.len() / WORD_BYTES).expect("a segment has < 2^32 words");
        output.extend_from_slice(&words.to_le_bytes());
    }
    if count.is_multiple_of(2) {
        output.extend_from_slice(&[0; 4]);
    }
}

/// Returns the size of the table of a message of `count` segments.
pub(super) fn header_bytes(count: usize) -> usize {
    (4 + 4 * count).next_multiple_of(WORD_BYTES)
}

fn split_number(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (number, rest) = bytes.split_first_chunk::<4>()?;
    Some((usize::try_from(u32::from_le_bytes(*number)).ok()?, rest))
}

fn aligned(bytes: &[u8]) -> Vec<Word> {
    let mut words = Word::allocate_zeroed_vec(bytes.len() / WORD_BYTES);
    Word::words_to_bytes_mut(&mut words).copy_from_slice(bytes);
    words
}
