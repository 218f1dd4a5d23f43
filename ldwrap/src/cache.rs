//! The local cache: objects by the digest of the Action that makes them ([`crate::action`]).
//!
//! Two files an entry, as on a server: `ac/xx/KEY` says which object, by its digest, and `cas/xx/HASH`
//! is it. Each is written under another name and renamed, so it is there whole or not at all, however
//! many links share the directory and however they end. An object is hashed each time it is read:
//! what is damaged is a miss, and is removed.
//!
//! The size is bounded by least recent use (a hit sets the object's time). What the objects come to is
//! kept as a number in a file, added to once a link, so that only a link that takes the cache over its
//! bound looks at all of it. The number may be wrong after a kill; each pruning puts it right.

use crate::action::Digest;
use nix::fcntl::{Flock, FlockArg};
use std::fs::{self, File, FileTimes, Permissions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

/// How large it may grow if the user does not say, in bytes.
pub const DEFAULT_SIZE: u64 = 10 << 30;
/// What pruning leaves, in hundredths of the bound: the next link is not to prune again.
const AFTER_PRUNING: u64 = 90;
/// A temporary file of a link that was killed is removed after this time.
const STALE: Duration = Duration::from_secs(3600);

/// A cache directory.
#[derive(Debug)]
pub struct Cache {
    dir: PathBuf,
    /// In bytes; 0 is none.
    limit: u64,
    added: AtomicU64,
}

/// What is in it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Actions whose objects are known.
    pub actions: u64,
    /// Objects.
    pub objects: u64,
    /// Bytes of objects.
    pub bytes: u64,
}

impl Cache {
    /// In `dir`, which is made, for its owner only, when first written to; `limit` is in bytes, 0 for
    /// none.
    #[must_use]
    pub fn new(dir: &Path, limit: u64) -> Self {
        Self {
            dir: dir.join("objects"),
            limit,
            added: AtomicU64::new(0),
        }
    }

    fn action(&self, key: &Digest) -> PathBuf {
        self.entry("ac", &key.to_string().replace('/', "-"))
    }

    fn object(&self, digest: &Digest) -> PathBuf {
        self.entry("cas", &digest.to_string().replace('/', "-"))
    }

    fn entry(&self, kind: &str, name: &str) -> PathBuf {
        let first = name.get(..2).unwrap_or_default();
        self.dir.join(kind).join(first).join(name)
    }

    /// Puts the object of an action at `to`, a new file; false if there is none.
    pub fn get(&self, key: &Digest, to: &Path) -> bool {
        let action = self.action(key);
        let Ok(text) = fs::read_to_string(&action) else {
            return false;
        };
        let Some(digest) = Digest::parse(text.trim_end()) else {
            discard(&action, "it names no object");
            return false;
        };
        let object = self.object(&digest);
        match hand_out(&object, &digest, to) {
            Ok(()) => true,
            Err(e) => {
                let _ = fs::remove_file(to);
                if e.kind() == io::ErrorKind::InvalidData {
                    discard(&object, "it is damaged");
                }
                if matches!(
                    e.kind(),
                    io::ErrorKind::InvalidData | io::ErrorKind::NotFound
                ) {
                    discard(&action, "its object is gone");
                }
                false
            }
        }
    }

    /// Keeps an object.
    pub fn put(&self, key: &Digest, object: &Path) -> io::Result<()> {
        let digest = Digest::of_file(object)?;
        let to = self.object(&digest);
        if !fs::metadata(&to).is_ok_and(|m| m.len() == digest.size) {
            self.write(&to, |temporary| {
                io::copy(&mut File::open(object)?, temporary).map(drop)
            })?;
            self.added.fetch_add(digest.size, Ordering::Relaxed);
        }
        self.write(&self.action(key), |temporary| {
            writeln!(temporary, "{digest}")
        })
    }

    fn write(&self, to: &Path, fill: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
        let dir = to.parent().unwrap_or(&self.dir);
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)?;
        let mut temporary = tempfile::Builder::new().prefix(".new-").tempfile_in(dir)?;
        fill(temporary.as_file_mut())?;
        temporary
            .as_file()
            .set_permissions(Permissions::from_mode(0o600))?;
        temporary.persist(to)?;
        Ok(())
    }

    /// To be called when a link has ended: adds what it has put there to the count, and prunes if
    /// that is too much now.
    pub fn settle(&self) -> io::Result<()> {
        let added = self.added.swap(0, Ordering::Relaxed);
        if added == 0 {
            return Ok(());
        }
        let total = self.count(|total| total.saturating_add(added))?;
        if self.limit > 0 && total > self.limit {
            self.prune(self.limit / 100 * AFTER_PRUNING)?;
        }
        Ok(())
    }

    /// Changes the count, under a lock.
    fn count(&self, change: impl FnOnce(u64) -> u64) -> io::Result<u64> {
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(self.dir.join("size"))?;
        let mut file = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, e)| e)?;
        let mut text = String::new();
        // What is no number is none: the next pruning counts.
        let _ = file.read_to_string(&mut text);
        let total = change(text.trim().parse().unwrap_or(0));
        file.rewind()?;
        file.set_len(0)?;
        write!(file, "{total}")?;
        Ok(total)
    }

    /// Removes the objects that were not used for longest until at most `keep` bytes are left, and
    /// the entries that name objects that are gone. Says what is left and what was removed.
    pub fn prune(&self, keep: u64) -> io::Result<(Stats, Stats)> {
        let (mut left, mut removed) = (Stats::default(), Stats::default());
        let mut objects = Vec::new();
        self.each("cas", |path, m| {
            objects.push((
                m.modified().unwrap_or(SystemTime::UNIX_EPOCH),
                m.len(),
                path,
            ));
        })?;
        // The newest first.
        objects.sort_unstable_by(|a, b| b.cmp(a));
        for (_, size, path) in objects {
            let stats = if left.bytes + size <= keep {
                &mut left
            } else if remove(&path)? {
                &mut removed
            } else {
                continue;
            };
            stats.objects += 1;
            stats.bytes += size;
        }
        let mut actions = Vec::new();
        self.each("ac", |path, _| actions.push(path))?;
        for path in actions {
            let text = fs::read_to_string(&path).unwrap_or_default();
            let object = Digest::parse(text.trim_end()).map(|d| self.object(&d));
            if object.is_some_and(|o| o.exists()) {
                left.actions += 1;
            } else if remove(&path)? {
                removed.actions += 1;
            }
        }
        if self.dir.exists() {
            self.count(|_| left.bytes)?;
        }
        Ok((left, removed))
    }

    /// What is in it, by looking at all of it.
    pub fn stats(&self) -> io::Result<Stats> {
        let mut stats = Stats::default();
        self.each("cas", |_, m| {
            stats.objects += 1;
            stats.bytes += m.len();
        })?;
        self.each("ac", |_, _| stats.actions += 1)?;
        Ok(stats)
    }

    /// Calls `f` for each entry of a kind, and removes what killed links left of theirs.
    fn each(&self, kind: &str, mut f: impl FnMut(PathBuf, &fs::Metadata)) -> io::Result<()> {
        let list = |dir: &Path| match fs::read_dir(dir) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            entries => entries?.collect::<io::Result<Vec<_>>>(),
        };
        for sub in list(&self.dir.join(kind))? {
            for entry in list(&sub.path())? {
                // Gone meanwhile: another link prunes as well.
                let Ok(metadata) = entry.metadata() else {
                    continue;
                };
                if entry.file_name().as_encoded_bytes().starts_with(b".new-") {
                    let age = metadata.modified().ok().and_then(|t| t.elapsed().ok());
                    if age.is_some_and(|age| age > STALE) {
                        remove(&entry.path())?;
                    }
                } else {
                    f(entry.path(), &metadata);
                }
            }
        }
        Ok(())
    }
}

/// Gives out an object whose content is as its digest says.
fn hand_out(object: &Path, digest: &Digest, to: &Path) -> io::Result<()> {
    let file = File::open(object)?;
    if Digest::of_file(object)? != *digest {
        return Err(io::ErrorKind::InvalidData.into());
    }
    // For pruning.
    let _ = file.set_times(FileTimes::new().set_modified(SystemTime::now()));
    // Entries are never written to, so both names may be one file.
    match fs::hard_link(object, to) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Err(e),
        Err(_) => fs::copy(object, to).map(drop),
    }
}

fn discard(entry: &Path, why: &str) {
    log::info!("cache entry {} is removed: {why}", entry.display());
    let _ = fs::remove_file(entry);
}

/// Removes a file; false if it was gone already.
fn remove(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Case {
        dir: tempfile::TempDir,
        cache: Cache,
    }

    fn key(n: u8) -> Digest {
        Digest::of(&[n])
    }

    impl Case {
        fn new(limit: u64) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let cache = Cache::new(dir.path(), limit);
            Self { dir, cache }
        }
        fn put(&self, n: u8, content: &[u8]) {
            let object = self.dir.path().join("object");
            fs::write(&object, content).unwrap();
            self.cache.put(&key(n), &object).unwrap();
        }
        fn get(&self, n: u8) -> Option<Vec<u8>> {
            let to = self.dir.path().join("out");
            let _ = fs::remove_file(&to);
            let found = self.cache.get(&key(n), &to);
            assert_eq!(found, to.exists());
            found.then(|| fs::read(&to).unwrap())
        }
        fn only(&self, kind: &str) -> PathBuf {
            let mut found = Vec::new();
            self.cache.each(kind, |p, _| found.push(p)).unwrap();
            assert_eq!(found.len(), 1);
            found.remove(0)
        }
    }

    #[test]
    fn what_is_put_in_comes_out() {
        let c = Case::new(0);
        assert_eq!(c.get(1), None);
        c.put(1, b"object");
        c.put(2, b"object");
        c.put(3, b"");
        assert_eq!(c.get(1).as_deref(), Some(&b"object"[..]));
        assert_eq!(c.get(2).as_deref(), Some(&b"object"[..]));
        assert_eq!(c.get(3).as_deref(), Some(&b""[..]));
        assert_eq!(c.get(4), None);
        let stats = c.cache.stats().unwrap();
        assert_eq!((stats.actions, stats.objects, stats.bytes), (3, 2, 6));
        let mode = fs::metadata(c.dir.path().join("objects")).unwrap();
        assert_eq!(mode.permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn damage_is_a_miss_and_goes() {
        for (kind, content) in [
            ("cas", &b"damaged"[..]),
            ("cas", b"objec"),
            ("cas", b""),
            ("ac", b"nonsense"),
            ("ac", b""),
            ("ac", b"\xff\xfe"),
        ] {
            let c = Case::new(0);
            c.put(1, b"object");
            fs::write(c.only(kind), content).unwrap();
            assert_eq!(c.get(1), None, "{kind} {content:?}");
            c.put(1, b"object");
            assert_eq!(
                c.get(1).as_deref(),
                Some(&b"object"[..]),
                "{kind} {content:?}"
            );
        }
        let c = Case::new(0);
        c.put(1, b"object");
        fs::remove_file(c.only("cas")).unwrap();
        assert_eq!(c.get(1), None);
        assert_eq!(c.cache.stats().unwrap(), Stats::default());
    }

    #[test]
    fn the_least_recently_used_go_first() {
        let c = Case::new(1000);
        for n in 0..10 {
            c.put(n, &[n; 100]);
            let at = SystemTime::now() - Duration::from_secs(1000 - u64::from(n));
            let object = c.cache.object(&Digest::of(&[n; 100]));
            let times = FileTimes::new().set_modified(at);
            File::open(object).unwrap().set_times(times).unwrap();
        }
        c.cache.settle().unwrap();
        assert_eq!(c.cache.stats().unwrap().objects, 10);
        // Used now, though it is the oldest.
        assert!(c.get(0).is_some());
        c.put(10, &[10; 100]);
        c.cache.settle().unwrap();
        let stats = c.cache.stats().unwrap();
        assert_eq!((stats.objects, stats.actions, stats.bytes), (9, 9, 900));
        assert!(c.get(0).is_some() && c.get(10).is_some());
        assert!(c.get(1).is_none() && c.get(2).is_none());
        // The count is right again.
        assert_eq!(c.cache.count(|n| n).unwrap(), 900);
    }

    #[test]
    fn pruning_puts_a_wrong_count_right_and_clears_up() {
        let c = Case::new(1000);
        c.put(1, b"object");
        fs::write(c.dir.path().join("objects/size"), "99999").unwrap();
        let dir = c.only("cas").parent().unwrap().to_owned();
        fs::write(dir.join(".new-young"), "").unwrap();
        fs::write(dir.join(".new-old"), "").unwrap();
        let long_ago = FileTimes::new().set_modified(SystemTime::UNIX_EPOCH);
        File::options()
            .write(true)
            .open(dir.join(".new-old"))
            .unwrap()
            .set_times(long_ago)
            .unwrap();
        c.cache.settle().unwrap();
        assert_eq!(c.cache.count(|n| n).unwrap(), 6);
        assert!(dir.join(".new-young").exists() && !dir.join(".new-old").exists());
        let (left, removed) = c.cache.prune(0).unwrap();
        assert_eq!((left.objects, removed.objects, removed.actions), (0, 1, 1));
    }
}
