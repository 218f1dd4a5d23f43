//! An archive's file, read at positions through a small window.
//!
//! One read gets a header and the first bytes of what follows. Where headers lie close together, one read
//! gets many. So neither small members nor large ones cost more than one read each.

use std::fs::File;
use std::io;

use crate::files::read_full;

/// A read where nothing is known about the distance of headers.
const SMALL_READ: usize = 256;
/// A read where headers lie close together.
const LARGE_READ: usize = 32 << 10;
/// Headers that are closer than this (bytes) lie close together.
const CLOSE: u64 = 4 << 10;

/// A file, and a part of it that was read.
#[derive(Debug)]
pub(super) struct Window {
    file: File,
    /// The part's bytes; behind `len`, what an earlier and longer part has left.
    bytes: Vec<u8>,
    /// Where the part begins in the file.
    at: u64,
    len: usize,
}

impl Window {
    pub(super) fn new(file: File) -> Window {
        Window {
            file,
            bytes: Vec::new(),
            at: 0,
            len: 0,
        }
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// The `N` bytes at `at`, and moves the window there if they are not in it. `None` where the file
    /// ends before.
    pub(super) fn array<const N: usize>(&mut self, at: u64) -> io::Result<Option<[u8; N]>> {
        if self.get(at, N).is_none() {
            let close = at
                .checked_sub(self.at)
                .is_some_and(|step| step < CLOSE && self.len > 0);
            let want = if close { LARGE_READ } else { SMALL_READ };
            if self.bytes.len() < want {
                self.bytes.resize(want, 0);
            }
            self.len = 0;
            let into = self.bytes.get_mut(..want).unwrap_or_default();
            let got = read_full(&self.file, into, at)?;
            self.at = at;
            self.len = got;
        }
        Ok(self.get(at, N).and_then(|bytes| bytes.try_into().ok()))
    }

    /// Reads the first of the `size` bytes at `at` into `buf`, and says how many: as many as there are, up
    /// to `buf`'s length. Leaves the window where it is.
    pub(super) fn read(&self, at: u64, size: u64, buf: &mut [u8]) -> io::Result<usize> {
        let len = usize::try_from(size).map_or(buf.len(), |size| size.min(buf.len()));
        let buf = buf.get_mut(..len).unwrap_or_default();
        match self.get(at, len) {
            Some(bytes) => {
                buf.copy_from_slice(bytes);
                Ok(len)
            }
            None => read_full(&self.file, buf, at),
        }
    }

    /// The `len` bytes at `at`, if the window holds them all.
    fn get(&self, at: u64, len: usize) -> Option<&[u8]> {
        let start = usize::try_from(at.checked_sub(self.at)?).ok()?;
        let end = start.checked_add(len)?;
        self.bytes.get(..self.len)?.get(start..end)
    }
}
