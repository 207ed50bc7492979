//! What SQLite calls on an open database whose pages may carry checksums, and what is the same for its log.
//!
//! **Invariant:** a handle of these methods has an open file of the default file system right behind it, until
//! it is closed.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::{ptr, slice};

use libsqlite3_sys as ffi;

use super::damage::{self, Damage, Wrong};
use super::log::{self, Log};
use super::page::{self, HEAD_BYTES, Kind};

/// What SQLite allocates for a database, before what the default file system wants for its own.
#[repr(C)]
pub(super) struct Handle {
    base: ffi::sqlite3_file,
    /// SQLite's, which lives as long as the file does; null for a file without one.
    name: *const c_char,
    kind: Kind,
    pub(super) log: Log,
}

/// Returns where the default file system has its part of a handle.
///
/// # Safety
/// `handle` has room for a [`Handle`] and what is behind it.
pub(super) unsafe fn behind(handle: *mut ffi::sqlite3_file) -> *mut ffi::sqlite3_file {
    // SAFETY: as the caller says. A handle's size is a multiple of its alignment, which is a pointer's: what is
    // behind it is aligned as SQLite aligns files.
    unsafe { handle.cast::<Handle>().add(1).cast() }
}

/// Makes a handle of a log that the default file system has opened behind it.
///
/// # Safety
/// As for [`place`].
pub(super) unsafe fn place_log(handle: *mut ffi::sqlite3_file, name: *const c_char) {
    let base = ffi::sqlite3_file { pMethods: &raw const LOG_METHODS };
    // SAFETY: as the caller says.
    unsafe { ptr::write(handle.cast(), Handle { base, name, kind: Kind::Plain, log: Log::NEW }) };
}

/// Makes a handle of a database that the default file system has opened behind it.
///
/// # Safety
/// `handle` has room for a [`Handle`], behind it is an open file, and `name` is SQLite's or null.
pub(super) unsafe fn place(handle: *mut ffi::sqlite3_file, name: *const c_char) -> c_int {
    let base = ffi::sqlite3_file { pMethods: &TABLE };
    // SAFETY: as the caller says.
    unsafe {
        ptr::write(handle.cast(), Handle { base, name, kind: Kind::Empty, log: Log::NEW });
        match kind_of(handle) {
            Ok(kind) => (*handle.cast::<Handle>()).kind = kind,
            Err(code) => {
                close(handle);
                return code;
            }
        }
    }
    ffi::SQLITE_OK
}

static TABLE: ffi::sqlite3_io_methods = METHODS;

/// There is no mapping of files, which would hand out pages that nobody has looked at.
const METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    iVersion: 2,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(is_reserved),
    xFileControl: Some(control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(characteristics),
    xShmMap: Some(shared_map),
    xShmLock: Some(shared_lock),
    xShmBarrier: Some(shared_barrier),
    xShmUnmap: Some(shared_unmap),
    xFetch: None,
    xUnfetch: None,
};

/// Nobody asks a log for shared memory.
static LOG_METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    iVersion: 1,
    xRead: Some(log::read),
    xWrite: Some(log::write),
    xFileControl: Some(raw_control),
    xDeviceCharacteristics: Some(raw_characteristics),
    ..METHODS
};

/// Makes a method that is the default file system's.
macro_rules! forward {
    ($name:ident, $method:ident($($argument:ident: $type:ty),*) -> $result:ty, $missing:expr) => {
        pub(super) unsafe extern "C" fn $name(
            handle: *mut ffi::sqlite3_file $(, $argument: $type)*
        ) -> $result {
            // SAFETY: SQLite passes an open handle of these methods, so there is an open file behind it, and
            // arguments that are right for one.
            unsafe {
                let file = behind(handle);
                match (*(*file).pMethods).$method {
                    Some(call) => call(file $(, $argument)*),
                    None => $missing,
                }
            }
        }
    };
}

forward!(raw_close, xClose() -> c_int, ffi::SQLITE_OK);
forward!(raw_read, xRead(buffer: *mut c_void, count: c_int, offset: i64) -> c_int, ffi::SQLITE_IOERR_READ);
forward!(raw_write, xWrite(bytes: *const c_void, count: c_int, offset: i64) -> c_int, ffi::SQLITE_IOERR_WRITE);
forward!(truncate, xTruncate(bytes: i64) -> c_int, ffi::SQLITE_IOERR_TRUNCATE);
forward!(sync, xSync(flags: c_int) -> c_int, ffi::SQLITE_IOERR_FSYNC);
forward!(size, xFileSize(out: *mut i64) -> c_int, ffi::SQLITE_IOERR_FSTAT);
forward!(lock, xLock(level: c_int) -> c_int, ffi::SQLITE_IOERR_LOCK);
forward!(unlock, xUnlock(level: c_int) -> c_int, ffi::SQLITE_IOERR_UNLOCK);
forward!(is_reserved, xCheckReservedLock(out: *mut c_int) -> c_int, ffi::SQLITE_IOERR_CHECKRESERVEDLOCK);
forward!(raw_control, xFileControl(op: c_int, argument: *mut c_void) -> c_int, ffi::SQLITE_NOTFOUND);
forward!(sector_size, xSectorSize() -> c_int, 4096);
forward!(raw_characteristics, xDeviceCharacteristics() -> c_int, 0);
forward!(
    shared_map,
    xShmMap(number: c_int, bytes: c_int, extend: c_int, out: *mut *mut c_void) -> c_int,
    ffi::SQLITE_IOERR_SHMMAP
);
forward!(shared_lock, xShmLock(first: c_int, count: c_int, flags: c_int) -> c_int, ffi::SQLITE_IOERR_SHMLOCK);
forward!(shared_barrier, xShmBarrier() -> (), ());
forward!(shared_unmap, xShmUnmap(delete: c_int) -> c_int, ffi::SQLITE_OK);

unsafe extern "C" fn close(handle: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: SQLite closes an open handle of these methods, once.
    unsafe {
        let code = raw_close(handle);
        (*handle).pMethods = ptr::null();
        code
    }
}

/// A page lies in the file only if the log has no newer one: what a crash has torn is never read here.
unsafe extern "C" fn read(
    handle: *mut ffi::sqlite3_file,
    buffer: *mut c_void,
    count: c_int,
    offset: i64,
) -> c_int {
    // SAFETY: SQLite passes an open handle of these methods, and `count` bytes of its own.
    let code = unsafe { raw_read(handle, buffer, count, offset) };
    let is_short = code == ffi::SQLITE_IOERR_SHORT_READ;
    let (Ok(length), Ok(at)) = (usize::try_from(count), u64::try_from(offset)) else { return code };
    if !page::is_page(length) || !(is_short || code == ffi::SQLITE_OK) {
        return code;
    }
    // SAFETY: the handle is open.
    let id = match unsafe { settled(handle) } {
        Ok(Kind::Summed(id)) => id,
        Ok(Kind::Empty | Kind::Plain) => return code,
        Err(code) => return code,
    };
    let outcome = if is_short {
        Err(Wrong::End)
    } else {
        // SAFETY: the read has filled all of them.
        let page = unsafe { slice::from_raw_parts(buffer.cast::<u8>(), length) };
        page::check(page, at, id)
    };
    let Err(wrong) = outcome else { return code };
    // SAFETY: the handle is open.
    let file = unsafe { name(handle) };
    damage::note(Damage { file, offset: at, wrong });
    ffi::SQLITE_IOERR_DATA
}

unsafe extern "C" fn write(
    handle: *mut ffi::sqlite3_file,
    bytes: *const c_void,
    count: c_int,
    offset: i64,
) -> c_int {
    let plain = |bytes| {
        // SAFETY: SQLite passes an open handle of these methods; there are `count` bytes.
        unsafe { raw_write(handle, bytes, count, offset) }
    };
    let (Ok(length), Ok(at)) = (usize::try_from(count), u64::try_from(offset)) else {
        return ffi::SQLITE_IOERR_WRITE;
    };
    if !page::is_page(length) {
        return plain(bytes);
    }
    // SAFETY: SQLite gives `count` bytes that it doesn't change meanwhile.
    let page = unsafe { slice::from_raw_parts(bytes.cast::<u8>(), length) };
    // SAFETY: the handle is open.
    let kind = match unsafe { settled(handle) } {
        Ok(kind) => kind,
        Err(code) => return code,
    };
    let says_reserved = at == 0 && page::says_reserved(page);
    match kind {
        Kind::Plain if !says_reserved => plain(bytes),
        Kind::Empty if at == 0 && !says_reserved => {
            // SAFETY: the handle is open, and nothing else refers to it.
            unsafe { (*handle.cast::<Handle>()).kind = Kind::Plain };
            plain(bytes)
        }
        Kind::Summed(id) if at != 0 || says_reserved => {
            // SQLite's own bytes stay as they are: it may have told others of them already.
            let mut page = page.to_vec();
            page::stamp(&mut page, at, id);
            plain(page.as_ptr().cast())
        }
        // It would go from one kind to the other, or nobody has said which it is.
        Kind::Empty | Kind::Plain | Kind::Summed(_) => ffi::SQLITE_IOERR_WRITE,
    }
}

/// Without the promise that parts of a page can be read: they could not be checked.
unsafe extern "C" fn characteristics(handle: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: SQLite passes an open handle of these methods.
    unsafe { raw_characteristics(handle) & !ffi::SQLITE_IOCAP_SUBPAGE_READ }
}

unsafe extern "C" fn control(
    handle: *mut ffi::sqlite3_file,
    op: c_int,
    argument: *mut c_void,
) -> c_int {
    if op == ffi::SQLITE_FCNTL_PRAGMA {
        let words = argument.cast::<*mut c_char>();
        // SAFETY: this control comes with the place of an answer, a name, and a value or null. The strings end
        // with a zero byte; the answer is freed by SQLite.
        unsafe {
            if CStr::from_ptr(*words.add(1)) == PRAGMA {
                let value = *words.add(2);
                let value = (!value.is_null()).then(|| CStr::from_ptr(value));
                let (code, answer) = pragma(handle, value);
                *words = ffi::sqlite3_mprintf(c"%s".as_ptr(), answer.as_ptr());
                return code;
            }
        }
    }
    // SAFETY: SQLite passes an open handle of these methods, and what belongs to the control.
    unsafe { raw_control(handle, op, argument) }
}

const PRAGMA: &CStr = c"page_sums";

/// Tells or is told what the pages of a file carry; returns a code, and an answer in words.
///
/// # Safety
/// `handle` is open.
unsafe fn pragma(handle: *mut ffi::sqlite3_file, value: Option<&CStr>) -> (c_int, CString) {
    // SAFETY: as the caller says.
    let mut kind = match unsafe { settled(handle) } {
        Ok(kind) => kind,
        Err(code) => return (code, c"the file can't be read".into()),
    };
    if let Some(value) = value {
        let Some(wanted) = Kind::parse(value.to_bytes()) else {
            return (ffi::SQLITE_ERROR, c"no such kind of pages".into());
        };
        if kind != Kind::Empty && kind != wanted {
            return (ffi::SQLITE_ERROR, c"the file has pages of another kind".into());
        }
        kind = wanted;
        // SAFETY: the handle is open, and nothing else refers to it.
        unsafe { (*handle.cast::<Handle>()).kind = kind };
    }
    // What says a kind has no zero bytes.
    (ffi::SQLITE_OK, CString::new(kind.to_string()).unwrap_or_default())
}

/// Returns what the pages of an open file carry; looks again where there were none.
///
/// # Safety
/// `handle` is open.
unsafe fn settled(handle: *mut ffi::sqlite3_file) -> Result<Kind, c_int> {
    // SAFETY: as the caller says; nothing else refers to the handle meanwhile, as SQLite uses a connection on one
    // thread at a time.
    unsafe {
        let own = handle.cast::<Handle>();
        if (*own).kind == Kind::Empty {
            (*own).kind = kind_of(handle)?;
        }
        Ok((*own).kind)
    }
}

/// Looks at the first page of an open file.
///
/// It may be torn, where a crash has left it to the log, or be written at this moment. What its head says is the
/// same in all states of one file; the id is taken from pages behind it, where it is not whole.
///
/// # Safety
/// `handle` is open.
unsafe fn kind_of(handle: *mut ffi::sqlite3_file) -> Result<Kind, c_int> {
    let read = |buffer: &mut [u8], page: usize| {
        let count = buffer.len() as c_int; // at most 65,536, as is the number of the page
        // SAFETY: as the caller says; there is room for `count` bytes.
        let code = unsafe {
            raw_read(handle, buffer.as_mut_ptr().cast(), count, i64::from(count) * page as i64)
        };
        match code {
            ffi::SQLITE_OK => Ok(true),
            ffi::SQLITE_IOERR_SHORT_READ => Ok(false),
            code => Err(code),
        }
    };
    let mut head = [0; HEAD_BYTES];
    if !read(&mut head, 0)? {
        let mut bytes = 0;
        // SAFETY: as the caller says.
        return match unsafe { size(handle, &raw mut bytes) } {
            ffi::SQLITE_OK if bytes == 0 => Ok(Kind::Empty),
            ffi::SQLITE_OK => Ok(Kind::Plain),
            code => Err(code),
        };
    }
    let Some(bytes) = page::size(&head) else { return Ok(Kind::Plain) };
    let mut page = vec![0; bytes];
    read(&mut page, 0)?; // what is missing stays zero, and is missed when SQLite reads it
    let kind = page::kind(&mut page);
    if matches!(kind, Kind::Summed(_)) && page::id(&page, 0).is_none() {
        for number in 1..=NEIGHBOURS {
            let whole = read(&mut page, number)?;
            if let Some(id) = page::id(&page, (number * bytes) as u64).filter(|_| whole) {
                return Ok(Kind::Summed(id));
            }
        }
    }
    Ok(kind)
}

/// How many pages behind the first are asked for the id of their file.
const NEIGHBOURS: usize = 8;

/// Returns the name of an open file.
///
/// # Safety
/// `handle` is open.
pub(super) unsafe fn name(handle: *mut ffi::sqlite3_file) -> String {
    // SAFETY: as the caller says; the name ends with a zero byte and lives as long as the file.
    unsafe {
        let name = (*handle.cast::<Handle>()).name;
        if name.is_null() {
            return String::new();
        }
        CStr::from_ptr(name).to_string_lossy().into_owned()
    }
}
