//! What SQLite calls on an open log: its own checksums, looked at whenever a page is read.
//!
//! SQLite checks the frames of a log once, when it recovers after a crash. The checksum of a frame goes on from that
//! of the frame before, so one frame can be checked with what lies right before it.
//!
//! **Invariant:** a page of a frame that does not match its checksum is never handed to SQLite: it would be read,
//! or brought into the file and get a right checksum there.
//!
//! A transaction that is larger than its cache writes frames again before it commits, and their checksums at the end.
//! Its own connection, which alone reads those, does not check them from then on until the log begins anew.

use std::ffi::{c_int, c_void};
use std::slice;

use libsqlite3_sys as ffi;

use super::damage::{self, Damage, Wrong};
use super::file::{Handle, name, raw_read, raw_write};
use super::page::is_page;

/// What is known of a log that a connection has open.
#[derive(Clone, Copy)]
pub(super) struct Log {
    /// Where the head of a frame was written, if that was the last write.
    head_at: Option<u64>,
    /// From where on frames were written again, so that they may not match their checksums.
    loose_at: u64,
    /// Whether the words that its checksums are of are big-endian, once that is known: the machine's way.
    big: Option<bool>,
}

impl Log {
    /// What is known of one that was just opened.
    pub(super) const NEW: Self = Self { head_at: None, loose_at: u64::MAX, big: None };

    /// Notes a write.
    fn written(&mut self, count: usize, offset: u64) {
        let head_at = self.head_at.take();
        if count == FRAME_HEAD {
            self.head_at = Some(offset);
        } else if offset == 0 {
            *self = Self::NEW;
        } else if is_page(count) && head_at.map(|at| at + FRAME_HEAD as u64) != Some(offset) {
            self.loose_at = self.loose_at.min(offset);
        }
    }
}

/// The bytes before the first frame.
const LOG_HEAD: usize = 32;
/// The bytes of a frame before its page.
const FRAME_HEAD: usize = 24;

pub(super) unsafe extern "C" fn read(
    handle: *mut ffi::sqlite3_file,
    buffer: *mut c_void,
    count: c_int,
    offset: i64,
) -> c_int {
    // SAFETY: SQLite passes an open handle of these methods, and `count` bytes of its own.
    let code = unsafe { raw_read(handle, buffer, count, offset) };
    let (Ok(length), Ok(at)) = (usize::try_from(count), u64::try_from(offset)) else { return code };
    // SAFETY: the handle is open.
    let loose_at = unsafe { (*handle.cast::<Handle>()).log.loose_at };
    if !is_page(length) || at >= loose_at {
        return code;
    }
    let wrong = match code {
        ffi::SQLITE_IOERR_SHORT_READ => Wrong::End,
        ffi::SQLITE_OK => {
            // SAFETY: the read has filled all of them.
            let page = unsafe { slice::from_raw_parts(buffer.cast::<u8>(), length) };
            // SAFETY: the handle is open.
            match unsafe { matches(handle, page, at) } {
                Ok(true) => return code,
                Ok(false) => Wrong::Sum,
                Err(code) => return code,
            }
        }
        _ => return code,
    };
    // SAFETY: the handle is open.
    let file = unsafe { name(handle) };
    damage::note(Damage { file, offset: at, wrong });
    ffi::SQLITE_IOERR_DATA
}

pub(super) unsafe extern "C" fn write(
    handle: *mut ffi::sqlite3_file,
    bytes: *const c_void,
    count: c_int,
    offset: i64,
) -> c_int {
    if let (Ok(count), Ok(offset)) = (usize::try_from(count), u64::try_from(offset)) {
        // SAFETY: the handle is open, and nothing else refers to it.
        unsafe { (*handle.cast::<Handle>()).log.written(count, offset) };
    }
    // SAFETY: SQLite passes an open handle of these methods, and `count` bytes.
    unsafe { raw_write(handle, bytes, count, offset) }
}

/// Returns whether the page that was read at `at` matches the checksum of its frame.
///
/// What lies before it does not change meanwhile: SQLite reads no frame that may be written.
///
/// # Safety
/// `handle` is open.
unsafe fn matches(handle: *mut ffi::sqlite3_file, page: &[u8], at: u64) -> Result<bool, c_int> {
    let read = |buffer: &mut [u8], offset: u64| {
        let (count, offset) = (buffer.len() as c_int, offset.cast_signed());
        // SAFETY: as the caller says; there is room for `count` bytes.
        match unsafe { raw_read(handle, buffer.as_mut_ptr().cast(), count, offset) } {
            ffi::SQLITE_OK => Ok(()),
            code => Err(code),
        }
    };
    let frame = (FRAME_HEAD + page.len()) as u64;
    let head_at = at.checked_sub(FRAME_HEAD as u64);
    let is_frame = |at: &u64| at.checked_sub(LOG_HEAD as u64).is_some_and(|at| at % frame == 0);
    let Some(head_at) = head_at.filter(is_frame) else { return Ok(true) }; // not a frame's page
    // SAFETY: as the caller says; nothing else refers to what is known of it.
    let known = unsafe { &mut (*handle.cast::<Handle>()).log.big };
    let big = match *known {
        Some(big) => big,
        None => {
            let mut magic = [0; 4];
            read(&mut magic, 0)?;
            *known.insert(magic[3] & 1 == 1)
        }
    };
    let mut head = [0; FRAME_HEAD];
    read(&mut head, head_at)?;
    // The checksum before is the last eight bytes of a head: the log's own, or that of a frame.
    let before_at = if head_at == LOG_HEAD as u64 {
        head_at - 8
    } else {
        head_at - frame + FRAME_HEAD as u64 - 8
    };
    let mut before = [0; 8];
    read(&mut before, before_at)?;
    let [own @ .., _, _, _, _, _, _, _, _] = &head;
    let [first, ..] = own.as_chunks::<8>().0 else { return Ok(true) };
    let (before, page) = (pair(before, u32::from_be_bytes), page.as_chunks().0);
    // Each in its own code: a call for each word would take ten times as long.
    let sum = if big {
        let word = u32::from_be_bytes;
        add(add(before, &[*first], word), page, word)
    } else {
        let word = u32::from_le_bytes;
        add(add(before, &[*first], word), page, word)
    };
    Ok(head.last_chunk().is_some_and(|last| pair(*last, u32::from_be_bytes) == sum))
}

/// Goes on with SQLite's checksum of a log.
fn add(
    (mut a, mut b): (u32, u32),
    bytes: &[[u8; 8]],
    word: impl Fn([u8; 4]) -> u32 + Copy,
) -> (u32, u32) {
    for eight in bytes {
        let (x, y) = pair(*eight, word);
        a = a.wrapping_add(x).wrapping_add(b);
        b = b.wrapping_add(y).wrapping_add(a);
    }
    (a, b)
}

fn pair([a, b, c, d, e, f, g, h]: [u8; 8], word: impl Fn([u8; 4]) -> u32) -> (u32, u32) {
    (word([a, b, c, d]), word([e, f, g, h]))
}
