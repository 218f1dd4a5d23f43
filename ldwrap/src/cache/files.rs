//! Digests of a link's files, each computed once, and remembered from link to link.
//!
//! Most inputs of a link were inputs of the one before, and reading them all again would be most of the
//! work of a link whose objects are all cached. A file is known by device, inode, size and times, as
//! make, ninja and git know it. One that has changed just now might do so again within the clock's tick,
//! so it is not recorded yet.
//!
//! The record is one file of entries of one size, each with a checksum. Links append to it; a file with
//! anything else in it is removed.

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

/// Bytes of an entry: identity, digest, size, checksum.
const ENTRY_SIZE: usize = 16 + 32 + 8 + 8;
/// A larger file (bytes) is removed: a quarter of a million entries.
const MAX_SIZE: u64 = 16 << 20;
/// A file that has changed within this time is not recorded.
const UNSETTLED: Duration = Duration::from_secs(2);

/// A file that has changed within this time may change again without another time on it: the kernel's
/// clock for files ticks every 4 ms or 10 ms.
pub const TICK: Duration = Duration::from_millis(20);
/// The same where times are told in whole seconds.
const COARSE_TICK: Duration = Duration::from_secs(2);

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

    /// Whether the path still leads to this very file, unchanged.
    #[must_use]
    pub fn is_still(&self, path: &Path) -> bool {
        Self::of_path(path).is_ok_and(|now| now == *self)
    }

    /// As a record has it.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 56] {
        let mut bytes = [0; 56];
        let times = self.times.map(|time| time as u64);
        for (to, word) in bytes
            .chunks_exact_mut(8)
            .zip(self.numbers.iter().chain(&times))
        {
            to.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// The same, read.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 56]) -> Self {
        let mut words = bytes.chunks_exact(8).map(|word| {
            let word = word.first_chunk().copied().unwrap_or_default();
            u64::from_le_bytes(word)
        });
        let mut word = || words.next().unwrap_or_default();
        Self {
            numbers: [word(), word(), word()],
            times: [word() as i64, word() as i64, word() as i64, word() as i64],
        }
    }

    /// How long ago it changed last; none where the clock says that it will.
    #[must_use]
    pub fn age(&self) -> Option<Duration> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let now = now.ok()?;
        let [mtime, mnsec, ctime, cnsec] = self.times;
        let since = |seconds, nanos| {
            let then = Duration::new(u64::try_from(seconds).ok()?, u32::try_from(nanos).ok()?);
            now.checked_sub(then)
        };
        let changed = since(ctime, cnsec)?;
        // A time in the future has been set by hand: then the other one tells.
        Some(since(mtime, mnsec).map_or(changed, |written| written.min(changed)))
    }

    /// Whether its file system seems to tell times in whole seconds only.
    #[must_use]
    pub fn is_coarse(&self) -> bool {
        self.times[1] == 0 && self.times[3] == 0
    }

    /// How long after a change the file may change again without another time on it.
    #[must_use]
    pub fn tick(&self) -> Duration {
        if self.is_coarse() { COARSE_TICK } else { TICK }
    }

    fn hash(&self) -> IdentityHash {
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

/// A file, and what it was when it was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenFile {
    /// The path that leads to it, absolute.
    pub path: PathBuf,
    /// What it was.
    pub identity: Identity,
}

impl SeenFile {
    /// The file as it is now; to be called before it is read.
    pub fn now(path: &Path) -> io::Result<Self> {
        Ok(Self {
            path: std::path::absolute(path)?,
            identity: Identity::of_path(path)?,
        })
    }

    /// Whether it is still the same.
    #[must_use]
    pub fn is_unchanged(&self) -> bool {
        self.identity.is_still(&self.path)
    }
}

/// An identity as the file has it.
type IdentityHash = [u8; 16];

/// Digests of files. Two threads may compute one at once, to the same result.
#[derive(Debug, Default)]
pub struct FileDigests {
    known: Mutex<HashMap<PathBuf, Digest>>,
    file: Option<PathBuf>,
    recorded: HashMap<IdentityHash, Digest>,
    unsaved: Mutex<Vec<u8>>,
}

impl FileDigests {
    /// With those that this file has, which need not exist.
    #[must_use]
    pub fn recorded_in(file: PathBuf) -> Self {
        let bytes = fs::read(&file).unwrap_or_default();
        let recorded = parse_records(&bytes).unwrap_or_else(|| {
            log::info!("{} is damaged, or full, and removed", file.display());
            let _ = fs::remove_file(&file);
            HashMap::new()
        });
        Self {
            file: Some(file),
            recorded,
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
        let digest = match self.recorded.get(&Identity::of(&before).hash()) {
            Some(digest) if digest.size == before.size() => *digest,
            _ => {
                let digest = Digest::of_file(path).map_err(named)?;
                self.record_if_settled(path, &before, &digest);
                digest
            }
        };
        lock(&self.known).insert(path.to_owned(), digest);
        Ok(digest)
    }

    fn record_if_settled(&self, path: &Path, before: &Metadata, digest: &Digest) {
        let after = fs::metadata(path).map(|m| Identity::of(&m)).ok();
        let before = Identity::of(before);
        let settled = before.age().is_some_and(|age| age > UNSETTLED);
        if self.file.is_some() && after == Some(before) && settled {
            lock(&self.unsaved).extend(record(&before.hash(), digest));
        }
    }

    /// Appends the digests that were computed to the file.
    pub fn save(&self) -> io::Result<()> {
        let unsaved = std::mem::take(&mut *lock(&self.unsaved));
        let Some(path) = self.file.as_ref().filter(|_| !unsaved.is_empty()) else {
            return Ok(());
        };
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir)?;
        }
        let mut file = File::options()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(path)?;
        // One call: records of links that end at once do not mix.
        file.write_all(&unsaved)
    }
}

fn record(identity: &IdentityHash, digest: &Digest) -> Vec<u8> {
    let mut bytes = identity.to_vec();
    bytes.extend(digest.hash);
    bytes.extend(digest.size.to_le_bytes());
    let sum = Md5::digest(&bytes);
    bytes.extend_from_slice(&sum[..8]);
    bytes
}

/// Reads records; nothing if there is anything else, or too much of it.
fn parse_records(bytes: &[u8]) -> Option<HashMap<IdentityHash, Digest>> {
    if bytes.len() as u64 > MAX_SIZE {
        return None;
    }
    let records = bytes.chunks_exact(ENTRY_SIZE);
    let whole = records.remainder().is_empty();
    let one = |bytes: &[u8]| {
        let identity = bytes[..16].try_into().ok()?;
        let digest = Digest {
            hash: bytes[16..48].try_into().ok()?,
            size: u64::from_le_bytes(bytes[48..56].try_into().ok()?),
        };
        (record(&identity, &digest) == bytes).then_some((identity, digest))
    };
    whole.then(|| records.map(one).collect())?
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
        let (file, record_file) = (dir.path().join("file"), dir.path().join("new/record"));
        fs::write(&file, "one").unwrap();
        age(&file);
        let digest = |files: &FileDigests| files.digest(&file).unwrap();
        let first = FileDigests::recorded_in(record_file.clone());
        assert_eq!(digest(&first), Digest::of(b"one"));
        first.save().unwrap();
        assert!(!record_file.exists(), "changed just now");
        std::thread::sleep(UNSETTLED + Duration::from_millis(1100));
        let second = FileDigests::recorded_in(record_file.clone());
        digest(&second);
        second.save().unwrap();
        assert_eq!(fs::metadata(&record_file).unwrap().len(), ENTRY_SIZE as u64);
        let third = FileDigests::recorded_in(record_file.clone());
        assert_eq!(third.recorded.len(), 1);
        assert_eq!(digest(&third), Digest::of(b"one"));
        third.save().unwrap();
        assert_eq!(fs::metadata(&record_file).unwrap().len(), ENTRY_SIZE as u64);
        // Same size, another content.
        fs::write(&file, "two").unwrap();
        let fourth = FileDigests::recorded_in(record_file);
        assert_eq!(digest(&fourth), Digest::of(b"two"));
    }

    #[test]
    fn a_damaged_record_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let record_file = dir.path().join("record");
        let good = record(&[7; 16], &Digest::of(b"x"));
        assert_eq!(parse_records(&good).unwrap().len(), 1);
        assert_eq!(parse_records(&[]).unwrap().len(), 0);
        for at in 0..ENTRY_SIZE {
            let mut bad = [good.clone(), good.clone()].concat();
            bad[at] ^= 4;
            assert!(parse_records(&bad).is_none(), "{at}");
            fs::write(&record_file, &bad[..ENTRY_SIZE + at]).unwrap();
            assert!(
                FileDigests::recorded_in(record_file.clone())
                    .recorded
                    .is_empty()
            );
            assert!(!record_file.exists());
        }
    }
}
