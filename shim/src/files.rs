//! Files looked at by position: opened without waiting, read without a cursor.

use std::fs::File;
use std::io;
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
