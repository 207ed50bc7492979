//! What SQLite calls on the file system whose databases may carry checksums.
//!
//! **Invariant:** whatever is neither a database nor a log is the default file system's, and nothing of ours.

use std::ffi::{CString, c_char, c_int, c_void};
use std::ptr;
use std::sync::OnceLock;

use libsqlite3_sys as ffi;

use super::file::{self, Handle};
use crate::{RegisterError, install};

/// Returns the name of the file system, for whoever opens connections. Registers it the first time, for good.
///
/// # Errors
/// Where another has its name, or SQLite refuses.
pub fn file_system() -> Result<&'static str, RegisterError> {
    static REGISTERED: OnceLock<Result<(), RegisterError>> = OnceLock::new();
    REGISTERED.get_or_init(|| install(NAME, table)).map(|()| NAME)
}

const NAME: &str = "stubborn-sums";

/// Makes the table that SQLite is given. It leaks the name.
fn table(name: CString, default: *mut ffi::sqlite3_vfs) -> ffi::sqlite3_vfs {
    // SAFETY: SQLite's default is there for good.
    let (version, bytes, name_bytes_max) =
        unsafe { ((*default).iVersion, (*default).szOsFile, (*default).mxPathname) };
    ffi::sqlite3_vfs {
        iVersion: version.min(2),
        szOsFile: size_of::<Handle>() as c_int + bytes,
        mxPathname: name_bytes_max,
        pNext: ptr::null_mut(),
        zName: name.into_raw(),
        pAppData: default.cast(),
        xOpen: Some(open),
        xDelete: Some(delete),
        xAccess: Some(access),
        xFullPathname: Some(full_name),
        xDlOpen: Some(library_open),
        xDlError: Some(library_error),
        xDlSym: Some(library_symbol),
        xDlClose: Some(library_close),
        xRandomness: Some(randomness),
        xSleep: Some(sleep),
        xCurrentTime: Some(current_time),
        xGetLastError: Some(last_error),
        xCurrentTimeInt64: Some(current_time_ms),
        xSetSystemCall: None,
        xGetSystemCall: None,
        xNextSystemCall: None,
    }
}

unsafe extern "C" fn open(
    vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    handle: *mut ffi::sqlite3_file,
    flags: c_int,
    flags_out: *mut c_int,
) -> c_int {
    // SAFETY: SQLite passes the table that it was given, which has the default's; room for a file of ours and,
    // behind it, one of the default's, of which either may be used; and a name that the default gets as it is,
    // since what is around it belongs to it.
    unsafe {
        let default = (*vfs).pAppData.cast::<ffi::sqlite3_vfs>();
        let Some(call) = (*default).xOpen else { return ffi::SQLITE_CANTOPEN };
        let is_log = flags & ffi::SQLITE_OPEN_WAL != 0;
        if flags & ffi::SQLITE_OPEN_MAIN_DB == 0 && !is_log {
            return call(default, name, handle, flags, flags_out);
        }
        let file = file::behind(handle);
        (*handle).pMethods = ptr::null();
        (*file).pMethods = ptr::null();
        let code = call(default, name, file, flags, flags_out);
        let methods = (*file).pMethods;
        if methods.is_null() {
            return if code == ffi::SQLITE_OK { ffi::SQLITE_CANTOPEN } else { code };
        }
        // One without shared memory would promise what it can't do.
        if code != ffi::SQLITE_OK || (*methods).iVersion < 2 {
            (*methods).xClose.map(|close| close(file));
            return if code == ffi::SQLITE_OK { ffi::SQLITE_CANTOPEN } else { code };
        }
        if is_log {
            file::place_log(handle, name);
            return ffi::SQLITE_OK;
        }
        file::place(handle, name)
    }
}

/// Makes a function that is the default file system's.
macro_rules! forward {
    ($name:ident, $function:ident($($argument:ident: $type:ty),*) -> $result:ty, $missing:expr) => {
        unsafe extern "C" fn $name(vfs: *mut ffi::sqlite3_vfs $(, $argument: $type)*) -> $result {
            // SAFETY: SQLite passes the table that it was given, which has the default's; the arguments are right
            // for that.
            unsafe {
                let default = (*vfs).pAppData.cast::<ffi::sqlite3_vfs>();
                match (*default).$function {
                    Some(call) => call(default $(, $argument)*),
                    None => $missing,
                }
            }
        }
    };
}

type Symbol = Option<unsafe extern "C" fn(*mut ffi::sqlite3_vfs, *mut c_void, *const c_char)>;

forward!(delete, xDelete(name: *const c_char, sync_folder: c_int) -> c_int, ffi::SQLITE_IOERR_DELETE);
forward!(
    access,
    xAccess(name: *const c_char, flags: c_int, found: *mut c_int) -> c_int,
    ffi::SQLITE_IOERR_ACCESS
);
forward!(
    full_name,
    xFullPathname(name: *const c_char, room: c_int, out: *mut c_char) -> c_int,
    ffi::SQLITE_CANTOPEN
);
forward!(library_open, xDlOpen(name: *const c_char) -> *mut c_void, ptr::null_mut());
forward!(library_error, xDlError(room: c_int, out: *mut c_char) -> (), ());
forward!(library_symbol, xDlSym(library: *mut c_void, name: *const c_char) -> Symbol, None);
forward!(library_close, xDlClose(library: *mut c_void) -> (), ());
forward!(randomness, xRandomness(count: c_int, out: *mut c_char) -> c_int, 0);
forward!(sleep, xSleep(microseconds: c_int) -> c_int, 0);
forward!(current_time, xCurrentTime(out: *mut f64) -> c_int, ffi::SQLITE_ERROR);
forward!(last_error, xGetLastError(room: c_int, out: *mut c_char) -> c_int, 0);
// SQLite calls it only where the table, and so the default's, is of version 2.
forward!(current_time_ms, xCurrentTimeInt64(out: *mut i64) -> c_int, ffi::SQLITE_ERROR);
