//! Where lld looks for objects: in a directory that is none, so that all of it goes through us, or in the
//! user's own (`--thinlto-cache-dir`).
//!
//! In the user's, an entry that is there is lld's to take, and what we put there is what lld would have
//! (`localCache`, llvm/lib/Support/Caching.cpp): whole at once, and never taken away again.

use nix::unistd::AccessFlags;
use shim::cmdline::CommandLine;
use shim::options::Id;
use std::ffi::{OsStr, OsString};
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// lld's cache directory where the user has none: one that is always there, and in which no file can be
/// made. A call that we should fail to see finds nothing and leaves nothing.
pub const NOWHERE: &str = "/proc";
/// How the names of new objects begin in it.
const TEMPORARY: &[u8] = b"/proc/Thin-";

/// The directory in which lld looks for objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LookupDir {
    /// The user's own, as the command line names it.
    users: Option<OsString>,
    prefix: Vec<u8>,
}

impl LookupDir {
    /// Of a link.
    #[must_use]
    pub fn of(cmd: &CommandLine) -> Self {
        let users = cmd.last(Id::ThinltoCacheDir).filter(|dir| !dir.is_empty());
        let dir = users.unwrap_or(OsStr::new(NOWHERE));
        // As lld writes them (`sys::path::append`).
        let mut prefix = dir.as_bytes().to_vec();
        if !prefix.ends_with(b"/") {
            prefix.push(b'/');
        }
        prefix.extend_from_slice(b"llvmcache-");
        let users = users.map(OsStr::to_owned);
        Self { users, prefix }
    }

    /// Whether they are the user's own.
    #[must_use]
    pub fn is_users(&self) -> bool {
        self.users.is_some()
    }

    /// How the paths of entries begin; a key follows.
    #[must_use]
    pub fn prefix(&self) -> &[u8] {
        &self.prefix
    }

    /// lld's key, if this is an entry's path.
    #[must_use]
    pub fn key<'p>(&self, path: &'p [u8]) -> Option<&'p [u8]> {
        let key = path.strip_prefix(self.prefix.as_slice())?;
        (!key.contains(&b'/')).then_some(key)
    }

    /// Whether lld makes a new object of this name with us: none is made on a disk.
    #[must_use]
    pub fn are_made_by_us(&self, path: &[u8]) -> bool {
        !self.is_users() && path.starts_with(TEMPORARY)
    }

    /// Whether entries can be made in the user's directory, as far as permissions tell.
    #[must_use]
    pub fn can_be_made(&self) -> bool {
        let Some(dir) = &self.users else {
            return true;
        };
        let Ok(dir) = std::path::absolute(dir) else {
            return false;
        };
        let there = dir.ancestors().find(|dir| dir.symlink_metadata().is_ok());
        there.is_some_and(|dir| {
            let flags = AccessFlags::W_OK | AccessFlags::X_OK;
            dir.is_dir() && nix::unistd::access(dir, flags).is_ok()
        })
    }

    /// Whether the user's directory has the entry of a key.
    #[must_use]
    pub fn has(&self, key: &[u8]) -> bool {
        self.is_users() && Path::new(OsStr::from_bytes(&self.path(key))).exists()
    }

    fn path(&self, key: &[u8]) -> Vec<u8> {
        [self.prefix.as_slice(), key].concat()
    }

    /// Puts an object into the user's directory as lld does: the directory made when first needed, the
    /// entry readable by its owner only, and there whole or not at all.
    pub fn add(&self, key: &[u8], object: &mut fs::File) -> io::Result<()> {
        let dir = Path::new(self.users.as_deref().unwrap_or(OsStr::new(NOWHERE)));
        fs::create_dir_all(dir)?;
        let mut temporary = tempfile::Builder::new()
            .prefix("Thin-")
            .suffix(".tmp.o")
            .permissions(Permissions::from_mode(0o600))
            .tempfile_in(dir)?;
        io::copy(object, temporary.as_file_mut())?;
        temporary.persist(OsStr::from_bytes(&self.path(key)))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    fn of(line: &str) -> LookupDir {
        let args: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        LookupDir::of(&CommandLine::parse(&args).unwrap())
    }

    #[test]
    fn entries_are_named_as_lld_names_them() {
        for (line, prefix) in [
            ("--thinlto-cache-dir=c", "c/llvmcache-"),
            ("--thinlto-cache-dir=/c/", "/c/llvmcache-"),
            ("--thinlto-cache-dir=.", "./llvmcache-"),
            ("--thinlto-cache-dir=", "/proc/llvmcache-"),
            ("a.o", "/proc/llvmcache-"),
        ] {
            assert_eq!(of(line).prefix(), prefix.as_bytes(), "{line}");
        }
        let lookup_dir = of("--thinlto-cache-dir=c");
        assert_eq!(lookup_dir.key(b"c/llvmcache-AB"), Some(&b"AB"[..]));
        assert_eq!(lookup_dir.key(b"c/llvmcache-AB/c"), None);
        assert_eq!(lookup_dir.key(b"/c/llvmcache-AB"), None);
        assert!(!lookup_dir.are_made_by_us(b"/proc/Thin-1.tmp.o"));
        assert!(of("a.o").are_made_by_us(b"/proc/Thin-1.tmp.o"));
    }

    #[test]
    fn in_the_users_directory_an_object_is_as_lld_s() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        let below = |name: &str| {
            of(&format!(
                "--thinlto-cache-dir={}/{name}",
                dir.path().display()
            ))
        };
        assert!(below("a/b").can_be_made() && !below("file/b").can_be_made());
        let users = dir.path().join("users");
        let lookup_dir = of(&format!("--thinlto-cache-dir={}", users.display()));
        assert!(!lookup_dir.has(b"A"));
        let object = dir.path().join("object");
        fs::write(&object, "an object").unwrap();
        let mut file = fs::File::open(&object).unwrap();
        lookup_dir.add(b"A", &mut file).unwrap();
        assert!(lookup_dir.has(b"A"));
        let entry = users.join("llvmcache-A");
        assert_eq!(fs::metadata(&entry).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read_to_string(entry).unwrap(), "an object");
        assert_eq!(fs::read_dir(&users).unwrap().count(), 1);
    }
}
