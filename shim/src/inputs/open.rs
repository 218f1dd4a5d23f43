//! How inputs are opened: not waiting for the writer of a FIFO, and taking nothing from it.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::error::{InputError, InputFault, fail};
use crate::files;

/// Opens an input that is a plain file.
pub(super) fn open(path: &Path) -> Result<File, InputError> {
    // Opening a FIFO lets its writer go on, which may then be gone before lld opens it. A stat for each of
    // ten thousand objects would take noticeable time, so files of the usual names are opened without.
    let usual = [&b".o"[..], b".a", b".so", b".rlib"];
    let name = path.as_os_str().as_bytes();
    if !usual.iter().any(|end| name.ends_with(end))
        && std::fs::metadata(path).is_ok_and(|m| !m.is_file())
    {
        return fail(path, InputFault::Unsupported("it is no plain file"));
    }
    files::open_readable(path).or_else(|e| fail(path, InputFault::Io(e)))
}

/// Opens a file that may not exist. What exists and can't be opened is an error, as in lld, which
/// asks for existence first and opens later.
pub(super) fn open_existing(path: &Path) -> Result<Option<File>, InputError> {
    match files::open_readable(path) {
        Ok(file) => Ok(Some(file)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => {
            let exists = CString::new(path.as_os_str().as_bytes())
                // SAFETY: the argument is a string that ends in NUL and lives through the call.
                .is_ok_and(|path| unsafe { libc::access(path.as_ptr(), libc::F_OK) } == 0);
            if exists {
                fail(path, InputFault::Io(e))
            } else {
                Ok(None)
            }
        }
    }
}

/// The error of a file that opens and can't be read: a directory, or a FIFO. A FIFO stays open past our
/// `exec`, since opening it may have let its writer go on, and a writer without a reader is killed.
pub(super) fn unreadable<T>(path: &Path, file: File, e: io::Error) -> Result<T, InputError> {
    if e.raw_os_error() == Some(libc::ESPIPE) {
        // SAFETY: the descriptor is open, and stays so; the call changes a flag of it.
        unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFD, 0) };
        std::mem::forget(file);
    }
    fail(path, InputFault::Io(e))
}
