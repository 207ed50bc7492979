//! What of a page is whose: SQLite's bytes, the id of the file, the checksum.
//!
//! **Invariant:** what is looked at here was on a disk: any bytes are an answer.

use std::fmt;

use super::damage::Wrong;
use super::hash;

/// What a page keeps for its file's id and its checksum, at its end. It is byte 20 of a file's first page.
pub const RESERVED_BYTES: i32 = RESERVED as i32;

const RESERVED: u8 = 16;
/// The byte of a file that says how many bytes of each page SQLite leaves alone.
const RESERVED_AT: usize = 20;
const SUM_BYTES: usize = 8;
/// What has to be read of a file to know how large its pages are.
pub(super) const HEAD_BYTES: usize = 100;

/// What a file's pages carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// There are none yet, and nobody has said.
    Empty,
    /// Nothing.
    Plain,
    /// Checksums, and this id.
    Summed(u64),
}

impl Kind {
    /// Reads what the pragma says.
    pub(super) fn parse(word: &[u8]) -> Option<Self> {
        let word = str::from_utf8(word).ok()?;
        match word {
            "plain" => Some(Self::Plain),
            _ if word.len() != 16 || !word.bytes().all(|byte| byte.is_ascii_hexdigit()) => None,
            _ => u64::from_str_radix(word, 16).ok().map(Self::Summed),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("empty"),
            Self::Plain => f.write_str("plain"),
            Self::Summed(id) => write!(f, "{id:016x}"),
        }
    }
}

/// Returns whether SQLite reads or writes pages of so many bytes. What else it reads is in the head of a file.
pub(super) fn is_page(count: usize) -> bool {
    count >= 512 && count.is_power_of_two()
}

/// Returns how large the pages of a file are, from its head; none where that makes no sense.
pub(super) fn size(head: &[u8]) -> Option<usize> {
    let (high, low) = (*head.get(16)?, *head.get(17)?);
    let size = match u16::from_be_bytes([high, low]) {
        1 => 1 << 16,
        size => usize::from(size),
    };
    is_page(size).then_some(size)
}

/// Returns what the pages of a file carry, from its first: whole, torn or damaged, as it may be.
pub(super) fn kind(first: &mut [u8]) -> Kind {
    let says = says_reserved(first);
    let id = parts(first).map(|(_, id, _)| id);
    if says {
        return Kind::Summed(id.unwrap_or_default());
    }
    // If it was the byte that is damaged, the rest tells.
    if let Some(byte) = first.get_mut(RESERVED_AT) {
        *byte = RESERVED;
    }
    match id {
        Some(id) if check(first, 0, id).is_ok() => Kind::Summed(id),
        _ => Kind::Plain,
    }
}

/// Returns whether a first page says that its file's pages have room for checksums.
pub(super) fn says_reserved(first: &[u8]) -> bool {
    first.get(RESERVED_AT) == Some(&RESERVED)
}

/// Puts the id of its file and its checksum into a page.
pub(super) fn stamp(page: &mut [u8], offset: u64, id: u64) {
    let Some((rest, sum)) = page.split_last_chunk_mut::<SUM_BYTES>() else { return };
    if let Some(own) = rest.last_chunk_mut() {
        *own = id.to_le_bytes();
    }
    *sum = hash::of(rest, offset).to_le_bytes();
}

/// Checks that a page is the one that was written at that offset of the file with that id.
pub(super) fn check(page: &[u8], offset: u64, id: u64) -> Result<(), Wrong> {
    match parts(page) {
        Some((rest, _, sum)) if hash::of(rest, offset) != sum => Err(Wrong::Sum),
        Some((_, own, _)) if own != id => Err(Wrong::File),
        Some(_) => Ok(()),
        None => Err(Wrong::Sum),
    }
}

/// Returns the id in a page that is as it was written; none where it is not.
pub(super) fn id(page: &[u8], offset: u64) -> Option<u64> {
    let (rest, id, sum) = parts(page)?;
    (hash::of(rest, offset) == sum).then_some(id)
}

/// Takes a page apart: what the sum is of, the id in it, the sum.
fn parts(page: &[u8]) -> Option<(&[u8], u64, u64)> {
    let (rest, sum) = page.split_last_chunk::<SUM_BYTES>()?;
    let id = rest.last_chunk()?;
    Some((rest, u64::from_le_bytes(*id), u64::from_le_bytes(*sum)))
}
