//! A private directory for one link, gone when the link ends, however it ends.

use crate::sys::keep;
use nix::fcntl::{Flock, FlockArg};
use std::fs::{DirEntry, File, Metadata, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Levels below the index directory, so that `..` in module identifiers stays inside the scratch
/// directory (docs/lld.md, "The index run").
const DEPTH: usize = 48;
/// How the directory's name begins.
const PREFIX: &str = "ldwrap-";
/// A directory in which nothing was made for this time has been made completely.
const SETTLED: Duration = Duration::from_secs(10);
/// Name of a level: none that an input's directory has.
const LEVEL: &str = ".ldwrap";

/// The scratch directory (0700, unpredictable name, in `TMPDIR`).
#[derive(Debug)]
pub struct Scratch {
    dir: RemovedOnDrop,
    index: PathBuf,
}

impl Scratch {
    /// Makes the directory, with all that the phases expect in it. It stays where a link is kept ([`keep`]).
    /// What a killed link has left of its own is removed.
    pub fn new() -> io::Result<Self> {
        match keep::dir() {
            None => {
                let parent = temporary_files()?;
                sweep(&parent);
                Self::new_in(&parent)
            }
            Some(kept) => {
                let mut scratch = Self::new_in(kept)?;
                scratch.dir.stays = true;
                Ok(scratch)
            }
        }
    }

    /// As [`Scratch::new`], in another directory than `TMPDIR`.
    pub fn new_in(parent: &Path) -> io::Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix(PREFIX)
            .permissions(Permissions::from_mode(0o700))
            .tempdir_in(parent)?;
        let dir = RemovedOnDrop {
            lock: lock(dir.path()),
            path: dir.keep(),
            stays: false,
        };
        let mut index = dir.path().join("i");
        for _ in 0..DEPTH {
            index.push(LEVEL);
        }
        for made in [
            &index,
            &dir.path().join("m"),
            &dir.path().join("b"),
            &dir.path().join("r"),
        ] {
            std::fs::create_dir_all(made)?;
        }
        Ok(Self { dir, index })
    }

    /// Where the index phase writes shards: this, then the module's identifier.
    #[must_use]
    pub fn index(&self) -> &Path {
        &self.index
    }

    /// The top of the levels: all that the index phase writes is below.
    #[must_use]
    pub fn index_root(&self) -> PathBuf {
        self.dir.path().join("i")
    }

    /// The identifier, relative, whose shard is at `path` (without its suffix).
    #[must_use]
    pub fn identifier_of(&self, path: &Path) -> PathBuf {
        if let Ok(below) = path.strip_prefix(&self.index) {
            return below.to_owned();
        }
        // Above: as many `..` as it takes.
        let mut relative = PathBuf::new();
        for ancestor in self.index.ancestors() {
            if let Ok(below) = path.strip_prefix(ancestor) {
                return relative.join(below);
            }
            relative.push("..");
        }
        relative
    }

    /// The list of modules that the index phase writes.
    #[must_use]
    pub fn list(&self) -> PathBuf {
        self.dir.path().join("list")
    }

    /// Where members of archives are unpacked.
    #[must_use]
    pub fn members(&self) -> PathBuf {
        self.dir.path().join("m")
    }

    /// The private directory of one backend.
    #[must_use]
    pub fn backend(&self, number: usize) -> PathBuf {
        self.dir.path().join("b").join(number.to_string())
    }

    /// The object of a backend that was not compiled here.
    #[must_use]
    pub fn received(&self, number: usize) -> PathBuf {
        self.dir.path().join("r").join(number.to_string())
    }

    /// Its path.
    #[must_use]
    pub fn root(&self) -> &Path {
        self.dir.path()
    }

    /// Makes a child leave its temporary files, such as those of LLVM's crash handler, in here.
    pub fn confine(&self, command: &mut Command) {
        command
            .env("TMPDIR", self.dir.path())
            .env("LLVM_DISABLE_SYMBOLIZATION", "1");
    }

    /// A file of this name at the top.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// How many `..` an identifier may have.
    #[must_use]
    pub const fn max_parents() -> usize {
        DEPTH
    }
}

/// A directory that goes when this does, unless it is to stay.
#[derive(Debug)]
struct RemovedOnDrop {
    #[expect(dead_code, reason = "held as long as the directory is used")]
    lock: Option<Flock<File>>,
    path: PathBuf,
    stays: bool,
}

impl RemovedOnDrop {
    fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for RemovedOnDrop {
    fn drop(&mut self) {
        if !self.stays {
            if let Err(e) = remove(&self.path) {
                log::warn!("cannot remove {}: {e}", self.path.display());
            }
        }
    }
}

/// `TMPDIR` or `/tmp`, as an absolute path: commands run in other directories than ours. An empty name is none.
pub fn temporary_files() -> io::Result<PathBuf> {
    let dir = std::env::temp_dir();
    match dir.as_os_str().is_empty() {
        true => Ok("/tmp".into()),
        false => std::path::absolute(dir),
    }
}

/// Locks a directory, which says that somebody uses it; the kernel gives the lock back however we end.
fn lock(dir: &Path) -> Option<Flock<File>> {
    let mut options = File::options();
    options
        .read(true)
        .custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW);
    Flock::lock(options.open(dir).ok()?, FlockArg::LockExclusiveNonblock).ok()
}

/// Removes scratch directories of this user that nobody uses any more.
fn sweep(parent: &Path) {
    let entries = std::fs::read_dir(parent).into_iter().flatten().flatten();
    for path in entries.filter(is_settled_scratch).map(|entry| entry.path()) {
        if let Some(_unused) = lock(&path) {
            if let Err(e) = remove(&path) {
                log::info!("cannot remove {}: {e}", path.display());
            }
        }
    }
}

/// Whether an entry is a scratch directory of this user: not one that is just being made, nor another directory of
/// such a name.
fn is_settled_scratch(entry: &DirEntry) -> bool {
    let is_settled = |metadata: Metadata| {
        metadata.is_dir()
            && metadata.uid() == nix::unistd::geteuid().as_raw()
            && metadata.modified().ok().and_then(|t| t.elapsed().ok()) > Some(SETTLED)
    };
    entry.file_name().as_bytes().starts_with(PREFIX.as_bytes())
        && entry.metadata().is_ok_and(is_settled)
        && entry.path().join("i").join(LEVEL).is_dir()
}

/// Removes a directory and all below it, following no links.
///
/// Not `remove_dir_all`: that holds a descriptor for each level, and there are many levels and
/// sometimes few descriptors (`ulimit -n`).
pub fn remove(dir: &Path) -> io::Result<()> {
    // Another thread may be at it too, when a signal ends us.
    let gone_is_fine = |result: io::Result<()>| match result {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    };
    let mut levels = vec![dir.to_owned()];
    let mut at = 0;
    while let Some(dir) = levels.get(at).cloned() {
        at += 1;
        let entries = match std::fs::read_dir(&dir) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            if entry.file_type().is_ok_and(|t| t.is_dir()) {
                levels.push(entry.path());
            } else {
                gone_is_fine(std::fs::remove_file(entry.path()))?;
            }
        }
    }
    levels
        .iter()
        .rev()
        .try_for_each(|dir| gone_is_fine(std::fs::remove_dir(dir)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_and_links_are_not_followed() {
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("kept"), "").unwrap();
        let scratch = Scratch::new().unwrap();
        let root = scratch.root().to_owned();
        assert_eq!(
            std::fs::metadata(&root).unwrap().permissions().mode() & 0o777,
            0o700
        );
        std::os::unix::fs::symlink(outside.path(), scratch.index().join("link")).unwrap();
        std::fs::write(scratch.members().join("file"), "").unwrap();
        drop(scratch);
        assert!(!root.exists());
        assert!(outside.path().join("kept").exists());
    }

    #[test]
    fn what_a_killed_link_has_left_is_removed() {
        let parent = tempfile::tempdir().unwrap();
        let used = Scratch::new_in(parent.path()).unwrap();
        let mut killed = Scratch::new_in(parent.path()).unwrap();
        killed.dir.stays = true;
        let left = killed.root().to_owned();
        drop(killed);
        let other = parent.path().join("ldwrap-100000");
        std::fs::create_dir(&other).unwrap();
        sweep(parent.path());
        assert!(left.exists());
        for dir in [used.root(), &left, &other] {
            let long_ago = std::time::SystemTime::now() - SETTLED * 2;
            File::open(dir).unwrap().set_modified(long_ago).unwrap();
        }
        sweep(parent.path());
        assert!(!left.exists() && used.root().exists() && other.exists());
    }

    #[test]
    fn an_identifier_is_found_from_where_its_shard_was_written() {
        let scratch = Scratch::new().unwrap();
        for id in ["a.o", "../a.o", "../../x/a.o", "x/y/a(b.o at 8)"] {
            let mut written = scratch.index().to_owned();
            for part in Path::new(id) {
                if part == ".." {
                    written.pop();
                } else {
                    written.push(part);
                }
            }
            assert_eq!(scratch.identifier_of(&written), Path::new(id));
        }
    }
}
