//! A private directory for one link, gone when the link ends, however it ends.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Levels below the index directory, so that `..` in module identifiers stays inside the scratch
/// directory (fact 9).
const DEPTH: usize = 48;
/// Name of a level: none that an input's directory has.
const LEVEL: &str = ".ldwrap";

/// The scratch directory (0700, unpredictable name, in `TMPDIR`).
#[derive(Debug)]
pub struct Scratch {
    dir: tempfile::TempDir,
    index: PathBuf,
}

impl Scratch {
    /// Makes it, with all that the phases expect in it.
    pub fn new() -> io::Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("ldwrap-")
            .permissions(Permissions::from_mode(0o700))
            .tempdir()?;
        let mut index = dir.path().join("i");
        for _ in 0..DEPTH {
            index.push(LEVEL);
        }
        for made in [
            &index,
            &dir.path().join("c"),
            &dir.path().join("m"),
            &dir.path().join("b"),
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

    /// The directory that lld takes for its ThinLTO cache.
    #[must_use]
    pub fn cache(&self) -> PathBuf {
        self.dir.path().join("c")
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

    /// The whole of it.
    #[must_use]
    pub fn root(&self) -> &Path {
        self.dir.path()
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
