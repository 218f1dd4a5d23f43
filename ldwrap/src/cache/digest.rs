//! Digests of content, as the Remote Execution API has them.

use sha2::{Digest as _, Sha256};
use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// What identifies a blob: SHA-256 and length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest {
    /// SHA-256.
    pub hash: [u8; 32],
    /// Length in bytes.
    pub size: u64,
}

impl Digest {
    /// Of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self {
            hash: Sha256::digest(bytes).into(),
            size: bytes.len() as u64,
        }
    }

    /// Of a file's content.
    pub fn of_file(path: &Path) -> io::Result<Self> {
        Self::of_open(&File::open(path)?)
    }

    /// Of an open file's content from its beginning; where the file is read next stays as it is.
    pub fn of_open(file: &File) -> io::Result<Self> {
        let mut hash = Sha256::new();
        let mut size = 0;
        for_each_chunk(file, |chunk| {
            hash.update(chunk);
            size += chunk.len() as u64;
            Ok(())
        })?;
        Ok(Self {
            hash: hash.finalize().into(),
            size,
        })
    }

    /// Reads what [`Digest`] is displayed as, `HASH/SIZE`; `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (hash, size) = text.split_once('/')?;
        let (hash, size) = (unhex(hash)?, size.parse().ok()?);
        Some(Self { hash, size })
    }

    /// The hash in hexadecimal.
    #[must_use]
    pub fn hex(&self) -> String {
        // By hand: a job's messages have hundreds of these.
        let digits = self.hash.iter().flat_map(|b| [b >> 4, b & 15]);
        let digit = |nibble: u8| char::from(b"0123456789abcdef"[usize::from(nibble)]);
        digits.map(digit).collect()
    }
}

impl fmt::Display for Digest {
    /// `HASH/SIZE`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.hex(), self.size)
    }
}

/// Calls `f` with a file's content from its beginning, in chunks: a compiler's library may be larger than
/// what a link is to take of the memory. By position, since whoever else has the file open may be at
/// another.
pub(super) fn for_each_chunk(
    file: &File,
    mut f: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    const SIZE: usize = 1 << 17;
    let mut chunk = vec![0; SIZE];
    let mut at = 0;
    loop {
        match file.read_at(&mut chunk, at) {
            Ok(0) => return Ok(()),
            Ok(n) => {
                f(chunk.get(..n).unwrap_or_default())?;
                at += n as u64;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

/// Reads [`Digest::hex`]; `None` for anything else.
pub(crate) fn unhex(text: &str) -> Option<[u8; 32]> {
    let mut hash = [0; 32];
    let text = text.as_bytes();
    if text.len() != 64 {
        return None;
    }
    for (byte, pair) in hash.iter_mut().zip(text.chunks_exact(2)) {
        let nibble = |c: u8| match c {
            b'0'..=b'9' => Some(c - b'0'),
            b'a'..=b'f' => Some(c - b'a' + 10),
            _ => None,
        };
        *byte = nibble(*pair.first()?)? << 4 | nibble(*pair.last()?)?;
    }
    Some(hash)
}
