//! The files that lld reads, and whether they are still as it found them.

use crate::cache::files::Identity;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// What lld has read, by the names that it used.
#[derive(Debug, Default)]
pub struct InputsRead {
    files: HashMap<Vec<u8>, Identity>,
    /// Whether something cannot be told to be unchanged.
    unsteady: bool,
}

impl InputsRead {
    /// How many files.
    #[must_use]
    pub fn count(&self) -> usize {
        self.files.len()
    }

    /// Each, as it was.
    #[must_use]
    pub fn files(&self) -> &HashMap<Vec<u8>, Identity> {
        &self.files
    }

    /// A file whose state is known.
    pub fn add(&mut self, path: &[u8], identity: Identity) {
        self.files.entry(path.to_vec()).or_insert(identity);
    }

    /// A file that lld is about to open; what it is then, if it is a plain file and was not noted before, and whether
    /// another time will tell when it changes. Waits a little if it has just been changed.
    pub fn note(&mut self, path: &[u8]) -> Option<(Identity, bool)> {
        if self.files.contains_key(path) {
            return None;
        }
        // Another file to us than to lld.
        let of_process = [&b"/proc/self/"[..], b"/dev/fd/", b"/dev/stdin"];
        if of_process.iter().any(|dir| path.starts_with(dir)) {
            self.unsteady = true;
            return None;
        }
        let at = Path::new(OsStr::from_bytes(path));
        let mut metadata = at.metadata().ok()?;
        // What is no plain file is read into memory, once.
        if !metadata.is_file() || path.starts_with(b"/proc/") || path.starts_with(b"/sys/") {
            return None;
        }
        let mut identity = Identity::of(&metadata);
        let mut steady = false;
        for _ in 0..3 {
            let tick = identity.tick();
            match identity.age() {
                Some(age) if age >= tick => {
                    steady = true;
                    break;
                }
                Some(age) if !identity.is_coarse() => std::thread::sleep(tick - age),
                _ => break,
            }
            metadata = at.metadata().ok()?;
            identity = Identity::of(&metadata);
        }
        self.unsteady |= !steady;
        self.files.insert(path.to_vec(), identity);
        Some((identity, steady))
    }

    /// Whether all are as they were; once they are not, never again.
    pub fn are_unchanged(&mut self) -> bool {
        let unchanged = |(path, identity): (&Vec<u8>, &Identity)| {
            identity.is_still(Path::new(OsStr::from_bytes(path)))
        };
        if !self.unsteady && !self.files.iter().all(unchanged) {
            log::info!("an input has changed meanwhile: nothing more is kept");
            self.unsteady = true;
        }
        !self.unsteady
    }
}
