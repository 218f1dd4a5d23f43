//! What links cost when they were done before, by their outputs.
//!
//! A file each of one line, and nothing is lost with it: a link that is not known is taken to be an
//! ordinary one.

use sha2::{Digest as _, Sha256};
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// The meaning of the numbers.
const FORMAT: &str = "1";

/// What a link cost: memory in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    /// lld's resident memory at its peak.
    pub peak: u64,
    /// The same, when the first backend was to begin.
    pub base: u64,
    /// What one backend added, at most.
    pub backend: u64,
}

/// Where costs are remembered.
#[derive(Debug)]
pub struct History(PathBuf);

impl History {
    /// Of one output, in a cache directory.
    #[must_use]
    pub fn new(cache: &Path, output: &Path) -> Self {
        let output = std::path::absolute(output).unwrap_or_else(|_| output.to_owned());
        let digest = Sha256::digest(output.as_os_str().as_encoded_bytes());
        let name: String = digest[..16].iter().map(|b| format!("{b:02x}")).collect();
        Self(cache.join("links").join(name))
    }

    /// What it cost last, if that is known.
    #[must_use]
    pub fn read(&self) -> Option<Cost> {
        // No FIFO is waited for.
        if !self.0.symlink_metadata().ok()?.is_file() {
            return None;
        }
        let text = fs::read_to_string(&self.0).ok()?;
        let mut words = text.split_ascii_whitespace();
        if words.next() != Some(FORMAT) {
            return None;
        }
        let mut number = || words.next()?.parse().ok();
        Some(Cost {
            peak: number()?,
            base: number()?,
            backend: number()?,
        })
    }

    /// Remembers what it cost, unless that is about as before.
    pub fn write(&self, cost: Cost) -> io::Result<()> {
        let close = |new: u64, old: u64| new.abs_diff(old) <= old / 10;
        if self.read().is_some_and(|old| {
            close(cost.peak, old.peak)
                && close(cost.base, old.base)
                && close(cost.backend, old.backend)
        }) {
            return Ok(());
        }
        let dir = self.0.parent().ok_or(io::ErrorKind::NotFound)?;
        fs::create_dir_all(dir)?;
        let mut file = tempfile::NamedTempFile::new_in(dir)?;
        writeln!(
            file,
            "{FORMAT} {} {} {}",
            cost.peak, cost.base, cost.backend
        )?;
        file.persist(&self.0)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_are_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let history = History::new(dir.path(), Path::new("a.out"));
        assert_eq!(history.read(), None);
        let mut cost = Cost {
            peak: 1000,
            base: 500,
            backend: 100,
        };
        history.write(cost).unwrap();
        assert_eq!(history.read(), Some(cost));
        assert_eq!(History::new(dir.path(), Path::new("b")).read(), None);
        // About the same.
        history.write(Cost { peak: 1050, ..cost }).unwrap();
        assert_eq!(history.read(), Some(cost));
        cost.peak = 2000;
        history.write(cost).unwrap();
        assert_eq!(history.read(), Some(cost));
        for damaged in ["", "1 2", "2 1 2 3", "1 -1 2 3", "\0"] {
            fs::write(&history.0, damaged).unwrap();
            assert_eq!(history.read(), None, "{damaged}");
        }
    }
}
