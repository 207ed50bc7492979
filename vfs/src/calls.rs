//! What SQLite calls on a file system: the functions behind `sqlite3_vfs`.
//!
//! **Invariant:** each table of functions points at a [`System`] of the same type, for good.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use libsqlite3_sys as ffi;

use crate::file::{self, Handle};
use crate::{Code, Kind, Open, Vfs};

/// What a registered file system is, beside its functions.
struct System<V> {
    vfs: V,
    /// SQLite's own, for what is not about files.
    default: *mut ffi::sqlite3_vfs,
}

/// Makes the table that SQLite is given. It leaks the name and the data.
pub(crate) fn table<V: Vfs>(
    name: CString,
    default: *mut ffi::sqlite3_vfs,
    vfs: V,
) -> ffi::sqlite3_vfs {
    let system = Box::leak(Box::new(System { vfs, default }));
    ffi::sqlite3_vfs {
        iVersion: 2,
        szOsFile: size_of::<Handle<V::File>>() as c_int,
        mxPathname: NAME_BYTES_MAX,
        pNext: ptr::null_mut(),
        zName: name.into_raw(),
        pAppData: ptr::from_mut(system).cast(),
        xOpen: Some(open::<V>),
        xDelete: Some(delete::<V>),
        xAccess: Some(access::<V>),
        xFullPathname: Some(full_name),
        xDlOpen: Some(library_open),
        xDlError: Some(library_error),
        xDlSym: Some(library_symbol),
        xDlClose: Some(library_close),
        xRandomness: Some(randomness::<V>),
        xSleep: Some(sleep::<V>),
        xCurrentTime: Some(current_time::<V>),
        xGetLastError: Some(last_error),
        xCurrentTimeInt64: Some(current_time_ms::<V>),
        xSetSystemCall: None,
        xGetSystemCall: None,
        xNextSystemCall: None,
    }
}

/// How long a name may be, with its zero byte. SQLite allocates that much for each connection.
const NAME_BYTES_MAX: c_int = 512;

/// Runs `act` so that a panic becomes a value.
pub(crate) fn caught<T>(act: impl FnOnce() -> T) -> Option<T> {
    // What a panic left half done is not seen again: a file stays closed to every later call, and a file
    // system is behind a shared reference.
    catch_unwind(AssertUnwindSafe(act)).ok()
}

/// Turns an outcome, or a panic, into what SQLite expects.
pub(crate) fn result(outcome: Option<Result<(), Code>>, panicked: Code) -> c_int {
    match outcome {
        Some(Ok(())) => ffi::SQLITE_OK,
        Some(Err(code)) => code.raw(),
        None => panicked.raw(),
    }
}

/// Returns what `vfs` points at.
///
/// # Safety
/// `vfs` is a table that [`table`] has made for `V`.
unsafe fn system<'a, V>(vfs: *mut ffi::sqlite3_vfs) -> &'a System<V> {
    // SAFETY: the table points at a leaked `System<V>`, of which there are only shared references.
    unsafe { &*(*vfs).pAppData.cast::<System<V>>() }
}

/// Returns the name at `name`: none where it is not UTF-8.
///
/// # Safety
/// `name` ends with a zero byte and outlives the result.
unsafe fn text<'a>(name: *const c_char) -> Option<&'a str> {
    // SAFETY: as above.
    unsafe { CStr::from_ptr(name) }.to_str().ok()
}

unsafe extern "C" fn open<V: Vfs>(
    vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    handle: *mut ffi::sqlite3_file,
    flags: c_int,
    flags_out: *mut c_int,
) -> c_int {
    // SAFETY: SQLite gives `szOsFile` bytes, aligned for a pointer; nothing is closed before this says so.
    unsafe { (*handle).pMethods = ptr::null() };
    // SAFETY: SQLite passes the table that it was given.
    let system = unsafe { system::<V>(vfs) };
    let name = if name.is_null() {
        None
    } else {
        // SAFETY: SQLite's names end with a zero byte and live as long as the file.
        match unsafe { text(name) } {
            Some(name) => Some(name),
            None => return ffi::SQLITE_CANTOPEN,
        }
    };
    let Some(kind) = kind(flags) else { return ffi::SQLITE_CANTOPEN };
    let has = |flag| flags & flag != 0;
    let request = Open {
        name,
        kind,
        create: has(ffi::SQLITE_OPEN_CREATE),
        exclusive: has(ffi::SQLITE_OPEN_EXCLUSIVE),
        read_only: has(ffi::SQLITE_OPEN_READONLY),
        delete_on_close: has(ffi::SQLITE_OPEN_DELETEONCLOSE),
    };
    let outcome = caught(|| system.vfs.open(&request)).map(|opened| {
        opened.map(|opened| {
            // SAFETY: as for `pMethods`: there is room for a handle, which `close` takes apart.
            unsafe { file::place(handle, opened) };
            if !flags_out.is_null() {
                // SAFETY: SQLite points it at a number of its own.
                unsafe { *flags_out = flags };
            }
        })
    });
    result(outcome, Code::CANTOPEN)
}

/// Returns what a file is for; none for what is not served: a write-ahead log.
fn kind(flags: c_int) -> Option<Kind> {
    const TEMPORARY: c_int = ffi::SQLITE_OPEN_TEMP_DB
        | ffi::SQLITE_OPEN_TRANSIENT_DB
        | ffi::SQLITE_OPEN_TEMP_JOURNAL
        | ffi::SQLITE_OPEN_SUBJOURNAL;
    let has = |flag| flags & flag != 0;
    match () {
        () if has(ffi::SQLITE_OPEN_MAIN_DB) => Some(Kind::Main),
        () if has(ffi::SQLITE_OPEN_MAIN_JOURNAL) => Some(Kind::Journal),
        () if has(ffi::SQLITE_OPEN_SUPER_JOURNAL) => Some(Kind::SuperJournal),
        () if has(TEMPORARY) => Some(Kind::Temporary),
        () => None,
    }
}

unsafe extern "C" fn delete<V: Vfs>(
    vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    _sync_folder: c_int,
) -> c_int {
    // SAFETY: SQLite passes the table that it was given, and a name that ends with a zero byte.
    let (system, name) = unsafe { (system::<V>(vfs), text(name)) };
    let Some(name) = name else { return ffi::SQLITE_IOERR_DELETE_NOENT };
    result(caught(|| system.vfs.delete(name)), Code::IOERR)
}

unsafe extern "C" fn access<V: Vfs>(
    vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    _flags: c_int,
    found: *mut c_int,
) -> c_int {
    // SAFETY: SQLite passes the table that it was given, and a name that ends with a zero byte.
    let (system, name) = unsafe { (system::<V>(vfs), text(name)) };
    let outcome = caught(|| name.map_or(Ok(false), |name| system.vfs.exists(name)));
    let outcome = outcome.map(|outcome| {
        // SAFETY: SQLite points it at a number of its own.
        outcome.map(|exists| unsafe { *found = c_int::from(exists) })
    });
    result(outcome, Code::IOERR)
}

/// A name is what it is: there are no folders to resolve.
unsafe extern "C" fn full_name(
    _vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    room: c_int,
    out: *mut c_char,
) -> c_int {
    // SAFETY: SQLite's names end with a zero byte.
    let bytes = unsafe { CStr::from_ptr(name) }.to_bytes_with_nul();
    if usize::try_from(room).is_ok_and(|room| bytes.len() <= room) {
        // SAFETY: `out` has `room` bytes of SQLite's own, apart from `name`.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr().cast(), out, bytes.len()) };
        ffi::SQLITE_OK
    } else {
        ffi::SQLITE_CANTOPEN
    }
}

unsafe extern "C" fn library_open(_: *mut ffi::sqlite3_vfs, _: *const c_char) -> *mut c_void {
    ptr::null_mut()
}

unsafe extern "C" fn library_error(_: *mut ffi::sqlite3_vfs, room: c_int, out: *mut c_char) {
    if room > 0 {
        // SAFETY: `out` has `room` bytes of SQLite's own.
        unsafe { *out = 0 };
    }
}

unsafe extern "C" fn library_symbol(
    _: *mut ffi::sqlite3_vfs,
    _: *mut c_void,
    _: *const c_char,
) -> Option<unsafe extern "C" fn(*mut ffi::sqlite3_vfs, *mut c_void, *const c_char)> {
    None
}

unsafe extern "C" fn library_close(_: *mut ffi::sqlite3_vfs, _: *mut c_void) {}

unsafe extern "C" fn randomness<V: Vfs>(
    vfs: *mut ffi::sqlite3_vfs,
    count: c_int,
    out: *mut c_char,
) -> c_int {
    // SAFETY: SQLite passes the table that it was given; the default's is called as SQLite would.
    unsafe {
        let default = system::<V>(vfs).default;
        (*default).xRandomness.map_or(0, |call| call(default, count, out))
    }
}

unsafe extern "C" fn sleep<V: Vfs>(vfs: *mut ffi::sqlite3_vfs, microseconds: c_int) -> c_int {
    // SAFETY: as in `randomness`.
    unsafe {
        let default = system::<V>(vfs).default;
        (*default).xSleep.map_or(0, |call| call(default, microseconds))
    }
}

unsafe extern "C" fn current_time<V: Vfs>(vfs: *mut ffi::sqlite3_vfs, out: *mut f64) -> c_int {
    // SAFETY: as in `randomness`.
    unsafe {
        let default = system::<V>(vfs).default;
        (*default).xCurrentTime.map_or(ffi::SQLITE_ERROR, |call| call(default, out))
    }
}

unsafe extern "C" fn current_time_ms<V: Vfs>(
    vfs: *mut ffi::sqlite3_vfs,
    out: *mut ffi::sqlite3_int64,
) -> c_int {
    // SAFETY: as in `randomness`. The field is there from version 2 of the table on.
    unsafe {
        let default = system::<V>(vfs).default;
        let call = (*default).xCurrentTimeInt64.filter(|_| (*default).iVersion >= 2);
        if let Some(call) = call {
            return call(default, out);
        }
        let mut days = 0.0;
        let code = current_time::<V>(vfs, &raw mut days);
        *out = (days * MS_PER_DAY) as ffi::sqlite3_int64;
        code
    }
}

const MS_PER_DAY: f64 = 86_400_000.0;

unsafe extern "C" fn last_error(_: *mut ffi::sqlite3_vfs, _: c_int, _: *mut c_char) -> c_int {
    0
}
