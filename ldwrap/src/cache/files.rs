//! Digests of a link's files, each computed once, and remembered from link to link.
//!
//! Most inputs of a link were inputs of the one before, and reading them all again would be most of the
//! work of a link whose objects are all cached. A file is known by device, inode, size and times, as
//! make, ninja and git know it. One that has changed just now might do so again within the clock's tick,
//! so it is not remembered yet.
//!
//! The memory is one file of records of one size, each with a checksum. Links append to it; anything odd
//! about it, and it is begun anew.

use super::digest::Digest;
use crate::sys::sync::lock;
use md5::{Digest as _, Md5};
use std::collections::HashMap;
use std::fs::{self, File, Metadata};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

/// Bytes of a record: identity, digest, size, checksum.
const RECORD: usize = 16 + 32 + 8 + 8;
/// The memory is begun anew when it is larger (bytes): a quarter of a million files.
const LIMIT: u64 = 16 << 20;
/// A file that has changed within this time is not remembered.
const FRESH: Duration = Duration::from_secs(2);

/// What tells that a file is the same and unchanged, as make, ninja and git know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    numbers: [u64; 3],
    times: [i64; 4],
}

impl Identity {
    /// Of a file.
    #[must_use]
    pub fn of(m: &Metadata) -> Self {
        Self {
            numbers: [m.dev(), m.ino(), m.size()],
            times: [m.mtime(), m.mtime_nsec(), m.ctime(), m.ctime_nsec()],
        }
    }

    /// Of the file that a path leads to.
    pub fn of_path(path: &Path) -> io::Result<Self> {
        fs::metadata(path).map(|m| Self::of(&m))
    }

    /// How long ago it changed last; none where the clock says that it will.
    #[must_use]
    pub fn age(&self) -> Option<Duration> {
        let [mtime, mnsec, ctime, cnsec] = self.times;
        let (seconds, nanos) = (ctime, cnsec).max((mtime, mnsec));
        let changed = Duration::new(u64::try_from(seconds).ok()?, u32::try_from(nanos).ok()?);
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        now.ok()?.checked_sub(changed)
    }

    /// Whether its file system seems to tell times in whole seconds only.
    #[must_use]
    pub fn is_coarse(&self) -> bool {
        self.times[1] == 0 && self.times[3] == 0
    }

    fn hash(&self) -> Hash {
        let mut hash = Md5::new();
        for n in self.numbers {
            hash.update(n.to_le_bytes());
        }
        for n in self.times {
            hash.update(n.to_le_bytes());
        }
        hash.finalize().into()
    }
}

/// An identity in the memory.
type Hash = [u8; 16];

/// Digests of files. Two threads may compute one at once, to the same result.
#[derive(Debug, Default)]
pub struct Files {
    known: Mutex<HashMap<PathBuf, Digest>>,
    memory: Option<PathBuf>,
    old: HashMap<Hash, Digest>,
    new: Mutex<Vec<u8>>,
}

impl Files {
    /// With a memory in this file, which need not exist.
    #[must_use]
    pub fn remembering(memory: PathBuf) -> Self {
        let bytes = fs::read(&memory).unwrap_or_default();
        let old = recall(&bytes).unwrap_or_else(|| {
            log::info!("{} is damaged, or full, and begun anew", memory.display());
            let _ = fs::remove_file(&memory);
            HashMap::new()
        });
        Self {
            memory: Some(memory),
            old,
            ..Self::default()
        }
    }

    /// The digest of a file.
    pub fn digest(&self, path: &Path) -> io::Result<Digest> {
        if let Some(digest) = lock(&self.known).get(path) {
            return Ok(*digest);
        }
        let named = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", path.display()));
        let before = fs::metadata(path).map_err(named)?;
        let digest = match self.old.get(&Identity::of(&before).hash()) {
            Some(digest) if digest.size == before.size() => *digest,
            _ => {
                let digest = Digest::of_file(path).map_err(named)?;
                self.remember(path, &before, &digest);
                digest
            }
        };
        lock(&self.known).insert(path.to_owned(), digest);
        Ok(digest)
    }

    fn remember(&self, path: &Path, before: &Metadata, digest: &Digest) {
        let after = fs::metadata(path).map(|m| Identity::of(&m)).ok();
        let before = Identity::of(before);
        let settled = before.age().is_some_and(|age| age > FRESH);
        if self.memory.is_some() && after == Some(before) && settled {
            lock(&self.new).extend(record(&before.hash(), digest));
        }
    }

    /// Writes down what was learnt.
    pub fn settle(&self) -> io::Result<()> {
        let new = std::mem::take(&mut *lock(&self.new));
        let Some(memory) = self.memory.as_ref().filter(|_| !new.is_empty()) else {
            return Ok(());
        };
        if let Some(dir) = memory.parent() {
            fs::create_dir_all(dir)?;
        }
        let mut file = File::options()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(memory)?;
        // One call: records of links that end at once do not mix.
        file.write_all(&new)
    }
}

fn record(identity: &Hash, digest: &Digest) -> Vec<u8> {
    let mut bytes = identity.to_vec();
    bytes.extend(digest.hash);
    bytes.extend(digest.size.to_le_bytes());
    let sum = Md5::digest(&bytes);
    bytes.extend_from_slice(&sum[..8]);
    bytes
}

/// Reads records; nothing if there is anything else, or too much of it.
fn recall(bytes: &[u8]) -> Option<HashMap<Hash, Digest>> {
    if bytes.len() as u64 > LIMIT {
        return None;
    }
    let (records, rest) = bytes.as_chunks::<RECORD>();
    let one = |bytes: &[u8; RECORD]| {
        let identity = bytes[..16].try_into().ok()?;
        let digest = Digest {
            hash: bytes[16..48].try_into().ok()?,
            size: u64::from_le_bytes(bytes[48..56].try_into().ok()?),
        };
        (record(&identity, &digest) == bytes).then_some((identity, digest))
    };
    rest.is_empty().then(|| records.iter().map(one).collect())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::FileTimes;

    fn age(file: &Path) {
        // The change time cannot be set: a file is old only once it is.
        let then = SystemTime::now() - Duration::from_secs(100);
        let times = FileTimes::new().set_modified(then);
        let file = File::options().write(true).open(file).unwrap();
        file.set_times(times).unwrap();
    }

    #[test]
    fn a_digest_is_remembered_until_the_file_changes() {
        let dir = tempfile::tempdir().unwrap();
        let (file, memory) = (dir.path().join("file"), dir.path().join("new/memory"));
        fs::write(&file, "one").unwrap();
        age(&file);
        let digest = |files: &Files| files.digest(&file).unwrap();
        let first = Files::remembering(memory.clone());
        assert_eq!(digest(&first), Digest::of(b"one"));
        first.settle().unwrap();
        assert!(!memory.exists(), "changed just now");
        std::thread::sleep(FRESH + Duration::from_millis(1100));
        let second = Files::remembering(memory.clone());
        digest(&second);
        second.settle().unwrap();
        assert_eq!(fs::metadata(&memory).unwrap().len(), RECORD as u64);
        let third = Files::remembering(memory.clone());
        assert_eq!(third.old.len(), 1);
        assert_eq!(digest(&third), Digest::of(b"one"));
        third.settle().unwrap();
        assert_eq!(fs::metadata(&memory).unwrap().len(), RECORD as u64);
        // Same size, another content.
        fs::write(&file, "two").unwrap();
        let fourth = Files::remembering(memory);
        assert_eq!(digest(&fourth), Digest::of(b"two"));
    }

    #[test]
    fn a_damaged_memory_is_begun_anew() {
        let dir = tempfile::tempdir().unwrap();
        let memory = dir.path().join("memory");
        let good = record(&[7; 16], &Digest::of(b"x"));
        assert_eq!(recall(&good).unwrap().len(), 1);
        assert_eq!(recall(&[]).unwrap().len(), 0);
        for at in 0..RECORD {
            let mut bad = [good.clone(), good.clone()].concat();
            bad[at] ^= 4;
            assert!(recall(&bad).is_none(), "{at}");
            fs::write(&memory, &bad[..RECORD + at]).unwrap();
            assert!(Files::remembering(memory.clone()).old.is_empty());
            assert!(!memory.exists());
        }
    }
}
