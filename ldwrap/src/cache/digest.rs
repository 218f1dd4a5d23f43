//! What content is known by.

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

    /// Of a file's content. In pieces: a compiler's library may be larger than what a link is to take of
    /// the memory.
    pub fn of_file(path: &Path) -> io::Result<Self> {
        Self::of_open(&File::open(path)?)
    }

    /// Of an open file's content from its beginning; where the file is read next stays as it is.
    pub fn of_open(file: &File) -> io::Result<Self> {
        const PIECE: usize = 1 << 18;
        let mut piece = vec![0; PIECE];
        let mut hash = Sha256::new();
        let mut size = 0u64;
        loop {
            match file.read_at(&mut piece, size) {
                Ok(0) => break,
                Ok(n) => {
                    hash.update(piece.get(..n).unwrap_or_default());
                    size += n as u64;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(Self {
            hash: hash.finalize().into(),
            size,
        })
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

/// A hash in hexadecimal.
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
