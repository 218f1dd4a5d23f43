//! The files that lld reads, and whether they are still as it found them.

use crate::cache::files::Identity;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

/// A file that has changed within this time may change again without another time on it: the kernel's
/// clock for files ticks every 4 ms or 10 ms.
const TICK: Duration = Duration::from_millis(20);
/// The same where times are told in whole seconds.
const COARSE_TICK: Duration = Duration::from_secs(2);

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

    /// A file whose state is known.
    pub fn add(&mut self, path: &[u8], identity: Identity) {
        self.files.entry(path.to_vec()).or_insert(identity);
    }

    /// A file that lld is about to open. Waits a little if it has just been changed.
    pub fn note(&mut self, path: Vec<u8>) {
        if self.files.contains_key(&path) {
            return;
        }
        // Another file to us than to lld.
        let of_process = [&b"/proc/self/"[..], b"/dev/fd/", b"/dev/stdin"];
        if of_process.iter().any(|dir| path.starts_with(dir)) {
            self.unsteady = true;
            return;
        }
        let at = Path::new(OsStr::from_bytes(&path));
        let Ok(mut metadata) = at.metadata() else {
            return;
        };
        // What is no plain file is read into memory, once.
        if !metadata.is_file() || path.starts_with(b"/proc/") || path.starts_with(b"/sys/") {
            return;
        }
        let mut identity = Identity::of(&metadata);
        for _ in 0..3 {
            let tick = if identity.is_coarse() {
                COARSE_TICK
            } else {
                TICK
            };
            match identity.age() {
                Some(age) if age >= tick => break,
                Some(age) if !identity.is_coarse() => std::thread::sleep(tick - age),
                _ => self.unsteady = true,
            }
            let Ok(now) = at.metadata() else {
                return;
            };
            metadata = now;
            identity = Identity::of(&metadata);
        }
        self.files.insert(path, identity);
    }

    /// Whether all are as they were; once they are not, never again.
    pub fn are_unchanged(&mut self) -> bool {
        let unchanged = |(path, identity): (&Vec<u8>, &Identity)| {
            Identity::of_path(Path::new(OsStr::from_bytes(path))).is_ok_and(|now| now == *identity)
        };
        if !self.unsteady && !self.files.iter().all(unchanged) {
            log::info!("an input has changed meanwhile: nothing more is kept");
            self.unsteady = true;
        }
        !self.unsteady
    }
}
