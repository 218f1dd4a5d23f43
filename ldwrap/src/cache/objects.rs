//! The local cache: objects by the digest of all that shapes them.
//!
//! An entry is two names: `k/KEY`, a symbolic link whose text says which object, by its digest, size
//! and checksum, and how long it took to compile; and `o/DIGEST`, the object. A link of such length is one inode and no block, so that
//! finding an entry is one call and no file to be read. Each name is there whole or not at all, however
//! many links share the directory and however they end.
//!
//! An object is known by SHA-256 of its content, cut to what the link has room for. When it is used, which
//! is to cost next to nothing, a faster checksum tells whether it is damaged: then it is a miss, and is
//! removed. (That is no protection from somebody who can write to the directory: it is its owner's.)
//!
//! Beyond its bound the cache drops the least recently used objects (a hit sets the object's time). Their
//! total size is kept in a file, updated once a link, so that only a link that takes the cache over its
//! bound looks at all of it. The number may be wrong after a kill; each pruning puts it right.

use super::digest::for_each_chunk;
use crate::sys::scratch::remove as remove_tree;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, Flock, FlockArg};
use sha2::{Digest as _, Sha256};
use std::fs::{self, File, FileTimes, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};
use xxhash_rust::xxh3::Xxh3;

/// What pruning leaves, in percent of the bound: the next link is not to prune again.
const PRUNED_PERCENT: u64 = 90;
/// A temporary file of a link that was killed is removed after this time.
const TEMPORARY_EXPIRES: Duration = Duration::from_secs(3600);
/// An object's time is not set again within this time: each setting is a write to the disk.
const USE_RESOLUTION: Duration = Duration::from_secs(600);
/// What another key of an object counts for in the total size until the cache is pruned (bytes): a symbolic link.
const KEY_SIZE: u64 = 256;
/// How many keys are kept for each object when the cache is pruned, on average.
const KEYS_PER_OBJECT: u64 = 8;
/// How long a link waits for others that change the total size, which takes each microseconds.
const LOCK_PATIENCE: Duration = Duration::from_millis(500);

/// A digest of all that shapes an object.
pub type Key = [u8; 32];

/// A cache directory.
#[derive(Debug)]
pub struct Cache {
    dir: PathBuf,
    /// In bytes; 0 is none.
    limit: u64,
    /// Bytes of objects that this link has added.
    added: AtomicU64,
}

/// An object of the cache.
#[derive(Debug)]
pub struct CachedObject {
    /// Open for reading from its beginning.
    pub file: File,
    /// Its size in bytes.
    pub bytes: u64,
    /// How long it took to compile, if that was known.
    pub took: Option<Duration>,
}

/// What is in a cache.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Keys whose objects are known.
    pub keys: u64,
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

    fn key_path(&self, key: &Key) -> PathBuf {
        self.path("k", &URL_SAFE_NO_PAD.encode(key))
    }

    fn object_path(&self, object: &StoredObject) -> PathBuf {
        self.path("o", &object.name())
    }

    /// One directory of each kind: file systems find a name among many, and making directories takes a first link
    /// longer than objects do.
    fn path(&self, kind: &str, name: &str) -> PathBuf {
        self.dir.join(kind).join(name)
    }

    /// The object of a key; `None` if there is none that is intact.
    #[must_use]
    pub fn find(&self, key: &Key) -> Option<CachedObject> {
        self.find_object(key).map(|(object, _)| object)
    }

    fn find_object(&self, key: &Key) -> Option<(CachedObject, PathBuf)> {
        let name = self.key_path(key);
        let text = fs::read_link(&name).ok()?;
        let Some(object) = text.to_str().and_then(StoredObject::parse) else {
            discard(&name, "it names no object");
            return None;
        };
        let path = self.object_path(&object);
        match object.open(&path) {
            Ok(file) => {
                let (bytes, took) = (object.size, object.took);
                Some((CachedObject { file, bytes, took }, path))
            }
            Err(e) => {
                let damaged = e.kind() == io::ErrorKind::InvalidData;
                if damaged {
                    discard(&path, "it is damaged");
                }
                if damaged || e.kind() == io::ErrorKind::NotFound {
                    discard(&name, "its object is gone");
                }
                None
            }
        }
    }

    /// Puts the object of a key at `to`, a new file; `None` if there is none.
    pub fn get(&self, key: &Key, to: &Path) -> Option<CachedObject> {
        let (object, path) = self.find_object(key)?;
        // Entries are never written to, so both names may be one file.
        let given = fs::hard_link(&path, to).or_else(|_| fs::copy(&path, to).map(drop));
        if given.is_err() {
            let _ = fs::remove_file(to);
        }
        given.ok().map(|()| object)
    }

    /// Keeps the content of an open file as the object of a key; `took` is how long it took to compile, if that is
    /// known.
    pub fn put(&self, key: &Key, content: &File, took: Option<Duration>) -> io::Result<()> {
        let object = StoredObject {
            took,
            ..StoredObject::of(content)?
        };
        let path = self.object_path(&object);
        let is_new = !fs::metadata(&path).is_ok_and(|m| m.len() == object.size);
        if is_new {
            write_new(&path, content)?;
            self.added.fetch_add(object.size, Ordering::Relaxed);
        }
        let name = self.key_path(key);
        match in_parent(&name, |_| symlink(object.text(), &name)) {
            // Another link was first, with an object that is as good.
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            done => {
                let added = if is_new { 0 } else { KEY_SIZE };
                self.added.fetch_add(added, Ordering::Relaxed);
                done
            }
        }
    }

    /// Removes a key; its object stays until there is no room for it.
    pub fn forget(&self, key: &Key) {
        let _ = fs::remove_file(self.key_path(key));
    }

    /// To be called when a link has ended: adds what it has put there to the total size, and prunes if
    /// that is beyond the bound now.
    pub fn finish_link(&self) -> io::Result<()> {
        let added = self.added.swap(0, Ordering::Relaxed);
        if added == 0 {
            return Ok(());
        }
        let total = self.update_size(|total| total.saturating_add(added))?;
        if self.limit > 0 && total > self.limit {
            self.prune(self.limit / 100 * PRUNED_PERCENT)?;
        }
        Ok(())
    }

    /// Changes the file that has the total size, under a lock; gives the new size.
    fn update_size(&self, change: impl FnOnce(u64) -> u64) -> io::Result<u64> {
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(self.dir.join("size"))?;
        let mut file = lock_soon(file)?;
        let mut text = String::new();
        // What is no number counts as none: the next pruning puts it right.
        let _ = file.read_to_string(&mut text);
        let total = change(text.trim().parse().unwrap_or(0));
        file.rewind()?;
        file.set_len(0)?;
        write!(file, "{total}")?;
        Ok(total)
    }

    /// Removes the least recently used objects until at most `keep` bytes are left, and the keys of
    /// objects that are gone. Gives what is left and what was removed.
    pub fn prune(&self, keep: u64) -> io::Result<(Stats, Stats)> {
        let (mut left, mut removed) = (Stats::default(), Stats::default());
        let mut objects = Vec::new();
        self.for_each_entry("o", |path, m| {
            objects.push((
                m.modified().unwrap_or(SystemTime::UNIX_EPOCH),
                m.len(),
                path,
            ));
        })?;
        // The newest first. From the first that finds no room on, all go: what is older than one that
        // goes was used less recently.
        objects.sort_unstable_by(|a, b| b.cmp(a));
        let mut full = false;
        for (_, size, path) in objects {
            full = full || left.bytes + size > keep;
            let stats = if !full {
                &mut left
            } else if remove(&path)? {
                &mut removed
            } else {
                continue;
            };
            stats.objects += 1;
            stats.bytes += size;
        }
        let mut keys = Vec::new();
        self.for_each_entry("k", |path, m| {
            keys.push((m.modified().unwrap_or(SystemTime::UNIX_EPOCH), path));
        })?;
        // An edit that changes no code leaves another key of each object that it could have changed.
        keys.sort_unstable_by(|a, b| b.cmp(a));
        let most_keys = left.objects * KEYS_PER_OBJECT;
        for (_, path) in keys {
            let object = fs::read_link(&path).ok();
            let object = object.and_then(|text| text.to_str().and_then(StoredObject::parse));
            let is_there = object.is_some_and(|o| self.object_path(&o).exists());
            if is_there && left.keys < most_keys {
                left.keys += 1;
            } else if remove(&path)? {
                removed.keys += 1;
            }
        }
        if self.dir.exists() {
            self.update_size(|_| left.bytes)?;
        }
        Ok((left, removed))
    }

    /// What is in it, by looking at all of it.
    pub fn stats(&self) -> io::Result<Stats> {
        let mut stats = Stats::default();
        self.for_each_entry("o", |_, m| {
            stats.objects += 1;
            stats.bytes += m.len();
        })?;
        self.for_each_entry("k", |_, _| stats.keys += 1)?;
        Ok(stats)
    }

    /// Calls `f` for each entry of a kind, and removes temporary files of links that were killed.
    fn for_each_entry(
        &self,
        kind: &str,
        mut f: impl FnMut(PathBuf, &fs::Metadata),
    ) -> io::Result<()> {
        let list = |dir: &Path| match fs::read_dir(dir) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            entries => entries?.collect::<io::Result<Vec<_>>>(),
        };
        for entry in list(&self.dir.join(kind))? {
            // Gone meanwhile: another link prunes as well. Of a symbolic link, its own.
            let Ok(metadata) = entry.metadata() else {
                continue;
            };
            if metadata.is_dir() {
                // No entry, and in the way of pruning: entries were once spread over such directories.
                remove_tree(&entry.path())?;
            } else if entry.file_name().as_encoded_bytes().starts_with(b".new-") {
                let age = metadata.modified().ok().and_then(|t| t.elapsed().ok());
                if age.is_some_and(|age| age > TEMPORARY_EXPIRES) {
                    remove(&entry.path())?;
                }
            } else {
                f(entry.path(), &metadata);
            }
        }
        Ok(())
    }
}

/// An object, as the symbolic link of a key describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct StoredObject {
    digest: [u8; 24],
    size: u64,
    checksum: u64,
    /// To the millisecond.
    took: Option<Duration>,
}

impl StoredObject {
    /// Of a file's content.
    fn of(file: &File) -> io::Result<Self> {
        let (mut digest, mut checksum, mut size) = (Sha256::new(), Xxh3::new(), 0);
        for_each_chunk(file, |chunk| {
            digest.update(chunk);
            checksum.update(chunk);
            size += chunk.len() as u64;
            Ok(())
        })?;
        let mut cut = [0; 24];
        cut.copy_from_slice(&digest.finalize()[..24]);
        Ok(Self {
            digest: cut,
            size,
            checksum: checksum.digest(),
            took: None,
        })
    }

    fn name(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.digest)
    }

    /// What the symbolic link says, in 59 characters or less up to 4 GiB and a quarter of an hour.
    fn text(&self) -> String {
        let checksum = URL_SAFE_NO_PAD.encode(self.checksum.to_be_bytes());
        let text = format!("{}.{:x}.{checksum}", self.name(), self.size);
        match self.took {
            Some(took) => format!("{text}.{:x}", took.as_millis()),
            None => text,
        }
    }

    /// Reads [`StoredObject::text`].
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.');
        let bytes = |text: &str| URL_SAFE_NO_PAD.decode(text).ok();
        let digest = bytes(parts.next()?)?.try_into().ok()?;
        let size = u64::from_str_radix(parts.next()?, 16).ok()?;
        let checksum = bytes(parts.next()?)?.try_into().ok()?;
        let took = match parts.next() {
            None => None,
            Some(ms) => Some(Duration::from_millis(u64::from_str_radix(ms, 16).ok()?)),
        };
        parts.next().is_none().then_some(Self {
            digest,
            size,
            checksum: u64::from_be_bytes(checksum),
            took,
        })
    }

    /// Opens it at this path, if its content is as it should be, and notes its use.
    fn open(&self, path: &Path) -> io::Result<File> {
        let file = OpenOptions::new()
            .read(true)
            // Never to wait for the other end of a FIFO.
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(path)?;
        let metadata = file.metadata()?;
        let mut checksum = Xxh3::new();
        let intact = metadata.is_file() && metadata.len() == self.size && {
            for_each_chunk(&file, |chunk| {
                checksum.update(chunk);
                Ok(())
            })?;
            checksum.digest() == self.checksum
        };
        if !intact {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let age = metadata.modified().ok().and_then(|t| t.elapsed().ok());
        if age.is_none_or(|age| age > USE_RESOLUTION) {
            let _ = file.set_times(FileTimes::new().set_modified(SystemTime::now()));
        }
        Ok(file)
    }
}

/// Makes something in a directory of the cache; the directory first if it is not there.
fn in_parent<T>(path: &Path, make: impl Fn(&Path) -> io::Result<T>) -> io::Result<T> {
    let dir = path.parent().ok_or(io::ErrorKind::NotFound)?;
    match make(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let mut builder = fs::DirBuilder::new();
            builder.recursive(true).mode(0o700).create(dir)?;
            make(dir)
        }
        done => done,
    }
}

/// Writes an object. It has no name until it is whole, where the file system can do that; a link that is
/// killed meanwhile leaves nothing.
fn write_new(to: &Path, content: &File) -> io::Result<()> {
    let nameless = in_parent(to, |dir| {
        let mut options = OpenOptions::new();
        options
            .write(true)
            .custom_flags(libc::O_TMPFILE)
            .mode(0o600);
        options.open(dir)
    });
    if let Ok(file) = nameless {
        copy(content, &file)?;
        let link = format!("/proc/self/fd/{}", file.as_raw_fd());
        let linked = nix::unistd::linkat(
            nix::fcntl::AT_FDCWD,
            link.as_str(),
            nix::fcntl::AT_FDCWD,
            to,
            AtFlags::AT_SYMLINK_FOLLOW,
        );
        match linked {
            Ok(()) => return Ok(()),
            // There is one, of another size and so damaged, or of another link and good. It is replaced.
            Err(nix::errno::Errno::EEXIST) => {}
            Err(e) => log::debug!("{}: {e}", to.display()),
        }
    }
    let temporary = in_parent(to, |dir| {
        tempfile::Builder::new().prefix(".new-").tempfile_in(dir)
    })?;
    copy(content, temporary.as_file())?;
    temporary.persist(to)?;
    Ok(())
}

fn copy(content: &File, mut to: &File) -> io::Result<()> {
    for_each_chunk(content, |chunk| to.write_all(chunk))
}

fn discard(entry: &Path, why: &str) {
    log::info!("cache entry {} is removed: {why}", entry.display());
    let _ = fs::remove_file(entry);
}

/// Locks a file, which others hold for a moment only. A link does not wait for one that was stopped meanwhile: what it
/// has added counts when the cache is pruned next.
fn lock_soon(mut file: File) -> io::Result<Flock<File>> {
    let until = Instant::now() + LOCK_PATIENCE;
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(locked) => return Ok(locked),
            Err((unlocked, Errno::EWOULDBLOCK)) if Instant::now() < until => file = unlocked,
            Err((_, e)) => return Err(e.into()),
        }
        std::thread::sleep(Duration::from_millis(5));
    }
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
mod tests;
