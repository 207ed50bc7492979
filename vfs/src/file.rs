//! What SQLite calls on an open file: the functions behind `sqlite3_io_methods`.
//!
//! **Invariant:** a handle whose methods are set holds a file of the methods' type, until it is closed.
//! **Invariant:** there is at most one exclusive reference to the file: it is at work while there is one. A call
//! that panics leaves it broken for good.

use std::cell::{Cell, UnsafeCell};
use std::ffi::{c_int, c_void};
use std::marker::PhantomData;
use std::{ptr, slice};

use libsqlite3_sys as ffi;

use crate::calls::{caught, result};
use crate::{Code, File, Lock};

/// What SQLite allocates for a file.
#[repr(C)]
pub(crate) struct Handle<F> {
    base: ffi::sqlite3_file,
    /// From a box: SQLite would align it for a pointer only.
    slot: *mut Slot<F>,
}

struct Slot<F> {
    state: Cell<State>,
    file: UnsafeCell<F>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Idle,
    AtWork,
    Broken,
}

/// Puts `file` into a handle.
///
/// # Safety
/// `handle` has room for a [`Handle`], and holds no file.
pub(crate) unsafe fn place<F: File>(handle: *mut ffi::sqlite3_file, file: F) {
    let slot = Box::new(Slot { state: Cell::new(State::Idle), file: UnsafeCell::new(file) });
    let base = ffi::sqlite3_file { pMethods: Methods::<F>::TABLE };
    // SAFETY: as the caller says.
    unsafe { ptr::write(handle.cast(), Handle { base, slot: Box::into_raw(slot) }) };
}

struct Methods<F>(PhantomData<F>);

impl<F: File> Methods<F> {
    /// Version 1: there are no methods for shared memory or for mapping.
    const TABLE: &'static ffi::sqlite3_io_methods = &ffi::sqlite3_io_methods {
        iVersion: 1,
        xClose: Some(close::<F>),
        xRead: Some(read::<F>),
        xWrite: Some(write::<F>),
        xTruncate: Some(truncate::<F>),
        xSync: Some(sync::<F>),
        xFileSize: Some(size::<F>),
        xLock: Some(lock::<F>),
        xUnlock: Some(unlock::<F>),
        xCheckReservedLock: Some(is_reserved::<F>),
        xFileControl: Some(control),
        xSectorSize: Some(sector_size),
        xDeviceCharacteristics: Some(characteristics),
        xShmMap: None,
        xShmLock: None,
        xShmBarrier: None,
        xShmUnmap: None,
        xFetch: None,
        xUnfetch: None,
    };
}

/// Runs `act` on the file of `handle`; fails with `failure` where it panics, has panicked, or is at work.
///
/// # Safety
/// `handle` holds an `F`, and no other thread uses it meanwhile: SQLite uses a connection on one at a time.
unsafe fn with<F: File>(
    handle: *mut ffi::sqlite3_file,
    failure: Code,
    act: impl FnOnce(&mut F) -> Result<(), Code>,
) -> c_int {
    // SAFETY: the handle holds a file, and the slot lives until it is closed, which leaves it alone while it is
    // at work.
    let slot = unsafe { &*(*handle.cast::<Handle<F>>()).slot };
    if slot.state.get() != State::Idle {
        return failure.raw();
    }
    slot.state.set(State::AtWork);
    // SAFETY: it was idle, so this is the only reference; it ends before the file is idle again.
    let file = unsafe { &mut *slot.file.get() };
    let outcome = caught(|| act(file));
    slot.state.set(if outcome.is_some() { State::Idle } else { State::Broken });
    result(outcome, failure)
}

unsafe extern "C" fn close<F: File>(handle: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: the handle holds a file, which SQLite closes once and no longer uses.
    let slot = unsafe {
        let handle = &mut *handle.cast::<Handle<F>>();
        handle.base.pMethods = ptr::null();
        handle.slot
    };
    // SAFETY: the slot is freed below, and nowhere else.
    if unsafe { &*slot }.state.get() == State::AtWork {
        // A file that closes itself is still in use: it is never freed.
        return ffi::SQLITE_IOERR_CLOSE;
    }
    // SAFETY: it came from a box, and nothing refers to it any more.
    let slot = unsafe { Box::from_raw(slot) };
    result(caught(|| drop(slot)).map(Ok), Code::IOERR)
}

unsafe extern "C" fn read<F: File>(
    handle: *mut ffi::sqlite3_file,
    buffer: *mut c_void,
    count: c_int,
    offset: ffi::sqlite3_int64,
) -> c_int {
    let (Ok(count), Ok(offset)) = (usize::try_from(count), u64::try_from(offset)) else {
        return ffi::SQLITE_IOERR_READ;
    };
    // SAFETY: SQLite gives `count` bytes of its own. They are zeroed first, as they may never have been written,
    // and as what a short read leaves must be zeros.
    let buffer = unsafe {
        ptr::write_bytes(buffer.cast::<u8>(), 0, count);
        slice::from_raw_parts_mut(buffer.cast::<u8>(), count)
    };
    let act = |file: &mut F| match file.read(offset, buffer)? {
        got if got < count => Err(Code::from_raw(ffi::SQLITE_IOERR_SHORT_READ)),
        _ => Ok(()),
    };
    // SAFETY: SQLite passes an open file of these methods.
    unsafe { with(handle, Code::IOERR_READ, act) }
}

unsafe extern "C" fn write<F: File>(
    handle: *mut ffi::sqlite3_file,
    bytes: *const c_void,
    count: c_int,
    offset: ffi::sqlite3_int64,
) -> c_int {
    let (Ok(count), Ok(offset)) = (usize::try_from(count), u64::try_from(offset)) else {
        return ffi::SQLITE_IOERR_WRITE;
    };
    // SAFETY: SQLite gives `count` bytes that it doesn't change meanwhile.
    let bytes = unsafe { slice::from_raw_parts(bytes.cast::<u8>(), count) };
    // SAFETY: SQLite passes an open file of these methods.
    unsafe { with(handle, Code::IOERR_WRITE, |file: &mut F| file.write(offset, bytes)) }
}

unsafe extern "C" fn truncate<F: File>(
    handle: *mut ffi::sqlite3_file,
    bytes: ffi::sqlite3_int64,
) -> c_int {
    let Ok(bytes) = u64::try_from(bytes) else { return ffi::SQLITE_IOERR_TRUNCATE };
    // SAFETY: SQLite passes an open file of these methods.
    unsafe { with(handle, Code::IOERR_TRUNCATE, |file: &mut F| file.truncate(bytes)) }
}

unsafe extern "C" fn sync<F: File>(handle: *mut ffi::sqlite3_file, _flags: c_int) -> c_int {
    // SAFETY: SQLite passes an open file of these methods.
    unsafe { with(handle, Code::IOERR_FSYNC, |file: &mut F| file.sync()) }
}

unsafe extern "C" fn size<F: File>(
    handle: *mut ffi::sqlite3_file,
    out: *mut ffi::sqlite3_int64,
) -> c_int {
    let act = |file: &mut F| {
        let size = ffi::sqlite3_int64::try_from(file.size()?).map_err(|_| Code::IOERR_FSTAT)?;
        // SAFETY: SQLite points it at a number of its own.
        unsafe { *out = size };
        Ok(())
    };
    // SAFETY: SQLite passes an open file of these methods.
    unsafe { with(handle, Code::IOERR_FSTAT, act) }
}

unsafe extern "C" fn lock<F: File>(handle: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    // SAFETY: SQLite passes an open file of these methods.
    unsafe { with(handle, Code::IOERR, |file: &mut F| file.lock(lock_level(level))) }
}

unsafe extern "C" fn unlock<F: File>(handle: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    // SAFETY: SQLite passes an open file of these methods.
    unsafe { with(handle, Code::IOERR, |file: &mut F| file.unlock(lock_level(level))) }
}

fn lock_level(level: c_int) -> Lock {
    match level {
        ffi::SQLITE_LOCK_NONE => Lock::None,
        ffi::SQLITE_LOCK_SHARED => Lock::Shared,
        ffi::SQLITE_LOCK_RESERVED => Lock::Reserved,
        ffi::SQLITE_LOCK_PENDING => Lock::Pending,
        _ => Lock::Exclusive,
    }
}

unsafe extern "C" fn is_reserved<F: File>(
    handle: *mut ffi::sqlite3_file,
    out: *mut c_int,
) -> c_int {
    let act = |file: &mut F| {
        let reserved = c_int::from(file.is_reserved()?);
        // SAFETY: SQLite points it at a number of its own.
        unsafe { *out = reserved };
        Ok(())
    };
    // SAFETY: SQLite passes an open file of these methods.
    unsafe { with(handle, Code::IOERR, act) }
}

/// Knows no control: SQLite does what it does by default.
unsafe extern "C" fn control(_: *mut ffi::sqlite3_file, _: c_int, _: *mut c_void) -> c_int {
    ffi::SQLITE_NOTFOUND
}

unsafe extern "C" fn sector_size(_: *mut ffi::sqlite3_file) -> c_int {
    4096
}

/// A write leaves what is beside it alone, so SQLite journals no neighbours of a page.
unsafe extern "C" fn characteristics(_: *mut ffi::sqlite3_file) -> c_int {
    ffi::SQLITE_IOCAP_POWERSAFE_OVERWRITE
}
