//! What links cost when they were done last, and what their arguments and inputs were, by their outputs.
//!
//! A file of one line for each, and nothing is lost with it: a link that is not known is taken to be an
//! ordinary one.

use crate::sys::write_whole;
use sha2::{Digest as _, Sha256};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The file's format: changes with the meaning of its numbers.
const FORMAT: &str = "3";

/// What a link cost: memory in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    /// lld's resident memory at its peak.
    pub peak: u64,
    /// lld's resident memory when the first backend was to begin.
    pub base: u64,
    /// What one backend added to that, at most.
    pub backend: u64,
}

/// What is remembered of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkRecord {
    /// What it cost when it was compiled last.
    pub cost: Cost,
    /// Of its arguments and inputs when it was done last.
    pub fingerprint: Fingerprint,
    /// How many modules it had.
    pub modules: usize,
}

/// A hash of a link's arguments and of its inputs' sizes and times, as make knows them. Links of one
/// fingerprint need not be the same, but most likely are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint(u64);

impl Fingerprint {
    /// Of arguments, and of the inputs among them.
    pub fn new<'a>(args: &[OsString], inputs: impl Iterator<Item = &'a OsStr>) -> Self {
        let mut hasher = Sha256::new();
        for arg in args {
            hasher.update((arg.len() as u64).to_le_bytes());
            hasher.update(arg.as_encoded_bytes());
        }
        for input in inputs {
            if let Ok(m) = fs::metadata(input) {
                for number in [m.ino(), m.size(), m.mtime() as u64, m.mtime_nsec() as u64] {
                    hasher.update(number.to_le_bytes());
                }
            }
        }
        let digest = hasher.finalize();
        Self(digest.iter().take(8).fold(0, |n, &b| n << 8 | u64::from(b)))
    }

    /// As a record has it.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 8] {
        self.0.to_le_bytes()
    }
}

/// The record of one output's links.
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

    /// The file for the orders in which the modules of the last link imported.
    #[must_use]
    pub fn import_orders(&self) -> PathBuf {
        self.0.with_extension("orders")
    }

    /// What the last link left, if anything.
    #[must_use]
    pub fn read(&self) -> Option<LinkRecord> {
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
        let cost = Cost {
            peak: number()?,
            base: number()?,
            backend: number()?,
        };
        let fingerprint = Fingerprint(number()?);
        let modules = usize::try_from(number()?).ok()?;
        Some(LinkRecord {
            cost,
            fingerprint,
            modules,
        })
    }

    /// Records a link: its fingerprint and modules, and what it cost if it compiled anything (else the old cost
    /// stays). Writes nothing where that is about as before, or no cost is known.
    pub fn write(
        &self,
        cost: Option<Cost>,
        fingerprint: Fingerprint,
        modules: usize,
    ) -> io::Result<()> {
        let old = self.read();
        let Some(cost) = cost.or(old.map(|old| old.cost)) else {
            return Ok(());
        };
        let close = |new: u64, old: u64| new.abs_diff(old) <= old / 10;
        if old.is_some_and(|old| {
            close(cost.peak, old.cost.peak)
                && close(cost.base, old.cost.base)
                && close(cost.backend, old.cost.backend)
                && fingerprint == old.fingerprint
                && modules == old.modules
        }) {
            return Ok(());
        }
        let Cost {
            peak,
            base,
            backend,
        } = cost;
        let text = format!(
            "{FORMAT} {peak} {base} {backend} {} {modules}\n",
            fingerprint.0
        );
        write_whole(&self.0, &text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_tell_links_apart() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.o");
        let of = |args: &[&str]| {
            let args: Vec<OsString> = args.iter().map(OsString::from).collect();
            Fingerprint::new(
                &args,
                [file.as_os_str(), OsStr::new("not there")].into_iter(),
            )
        };
        let none = of(&["a.o"]);
        fs::write(&file, "1").unwrap();
        let one = of(&["a.o"]);
        assert!(one == of(&["a.o"]) && one != none && one != of(&["a", ".o"]));
        fs::write(&file, "12").unwrap();
        assert_ne!(one, of(&["a.o"]));
    }

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
        let fingerprint = Fingerprint(7);
        let read = || history.read().map(|before| before.cost);
        history.write(None, fingerprint, 9).unwrap();
        assert_eq!(read(), None);
        history.write(Some(cost), fingerprint, 9).unwrap();
        let modules = 9;
        let record = |cost, fingerprint| {
            Some(LinkRecord {
                cost,
                fingerprint,
                modules,
            })
        };
        assert_eq!(history.read(), record(cost, fingerprint));
        assert_eq!(History::new(dir.path(), Path::new("b")).read(), None);
        // About the same.
        let close = Cost { peak: 1050, ..cost };
        history.write(Some(close), fingerprint, 9).unwrap();
        assert_eq!(read(), Some(cost));
        cost.peak = 2000;
        history.write(Some(cost), fingerprint, 9).unwrap();
        assert_eq!(read(), Some(cost));
        let fingerprint = Fingerprint(u64::MAX);
        history.write(None, fingerprint, 9).unwrap();
        assert_eq!(history.read(), record(cost, fingerprint));
        for damaged in ["", "3 2", "3 1 2 3 4", "2 1 2 3 4 5", "3 -1 2 3 4 5", "\0"] {
            fs::write(&history.0, damaged).unwrap();
            assert_eq!(history.read(), None, "{damaged}");
        }
    }
}
