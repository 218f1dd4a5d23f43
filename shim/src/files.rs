//! Files looked at by position: opened without waiting, read without a cursor; and lines appended to files.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

/// Reads until `buf` is full or the file ends.
pub(crate) fn read_full(file: &File, buf: &mut [u8], at: u64) -> io::Result<usize> {
    let mut got = 0;
    while let Some(rest) = buf.get_mut(got..).filter(|rest| !rest.is_empty()) {
        let offset = at.saturating_add(got as u64);
        match file.read_at(rest, offset) {
            Ok(0) => break,
            // A read that ends early has met the end of a regular file; asking again would cost
            // each file that is shorter than the buffer a system call.
            Ok(n) if n < rest.len() => return Ok(got + n),
            Ok(n) => got += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(got)
}

/// Opens a file to look at it, without ever waiting for the other end of a FIFO.
pub(crate) fn open_readable(path: &Path) -> io::Result<File> {
    File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
}

/// Appends lines, if the file may become so large (`ulimit -f`): otherwise a signal would end this process, and lld would never
/// be run.
pub(crate) fn append_within_limit(mut file: &File, lines: &[u8]) -> io::Result<()> {
    let mut limit = libc::rlimit {
        rlim_cur: libc::RLIM_INFINITY,
        rlim_max: libc::RLIM_INFINITY,
    };
    // SAFETY: it fills in a local struct.
    unsafe { libc::getrlimit(libc::RLIMIT_FSIZE, &raw mut limit) };
    let metadata = file.metadata()?;
    let length = metadata.len().saturating_add(lines.len() as u64);
    if metadata.is_file() && length > limit.rlim_cur {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    file.write_all(lines)
}
