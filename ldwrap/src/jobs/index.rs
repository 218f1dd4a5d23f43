//! The index phase: the thin link, by the real lld, from the user's own command line.
//!
//! Nothing of the command line is rewritten; a few options are added behind it (docs/lld.md, "The index
//! run"). Shards go to our scratch directory under each module's identifier, nothing is written beside the
//! inputs, and the list of modules that take part comes in task order.

use super::failure::Failure;
use super::invocation::Invocation;
use crate::sys::process::{self, Role};
use crate::sys::scratch::Scratch;
use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A module as lld names it: a path, or `ARCHIVE(MEMBER at OFFSET)` (docs/lld.md, "Identifiers").
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ModuleIdentifier(OsString);

impl ModuleIdentifier {
    /// By the bytes of its name.
    #[must_use]
    pub fn new(name: &[u8]) -> Self {
        Self(OsStr::from_bytes(name).to_owned())
    }

    /// Its name.
    #[must_use]
    pub fn as_os_str(&self) -> &OsStr {
        &self.0
    }

    /// The bytes of its name, as shards have it for a module's path.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Display for ModuleIdentifier {
    /// What is not UTF-8 is replaced.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.to_string_lossy().fmt(f)
    }
}

/// A module of the index.
#[derive(Debug)]
pub struct IndexedModule {
    /// Its name.
    pub identifier: ModuleIdentifier,
    /// Its individual index (`MODULE.thinlto.bc`), as lld wrote it: the part of the combined index that
    /// its backend needs. LLVM calls it a shard of the index.
    pub shard: Vec<u8>,
}

/// What comes of the thin link.
#[derive(Debug)]
pub struct Index {
    /// ThinLTO modules that take part, in task order.
    pub modules: Vec<IndexedModule>,
    /// Modules that take part as regular LTO only.
    pub regular_lto: Vec<ModuleIdentifier>,
}

impl Index {
    /// Runs the thin link and reads what it writes. Fails where lld does, or writes something else.
    pub fn run(lld: &Invocation<'_>) -> Result<Self, Failure> {
        let list = lld.scratch.list();
        let mut only = OsString::from("--thinlto-index-only=");
        only.push(&list);
        let mut replace = OsString::from("--thinlto-prefix-replace=;");
        replace.push(lld.scratch.index());
        replace.push("/");
        // An output of its own: lld tries out early whether it can make it.
        let output = lld.scratch.file("out").into_os_string();
        let command = lld.command([only, replace, "-o".into(), output])?;
        let out = process::output(command, Role::Tool)
            .map_err(|e| Failure::Failed(format!("cannot run {}: {e}", lld.program.display())))?;
        if !out.status.success() {
            return Err(Failure::Lld {
                phase: "index",
                status: out.status,
                messages: String::from_utf8_lossy(&out.stderr).into_owned(),
            });
        }
        let list = fs::read(&list).map_err(|e| {
            Failure::Failed(format!("the index phase left no list of modules: {e}"))
        })?;
        let mut prefix = lld.scratch.index().as_os_str().as_bytes().to_vec();
        prefix.push(b'/');
        let mut modules = Vec::new();
        for line in list.split(|&b| b == b'\n').filter(|line| !line.is_empty()) {
            let identifier = line.strip_prefix(prefix.as_slice()).ok_or_else(|| {
                Failure::Failed(format!(
                    "the index phase names a module outside its directory: {}",
                    String::from_utf8_lossy(line)
                ))
            })?;
            let identifier = ModuleIdentifier::new(identifier);
            let shard = read_shard(lld, &identifier)?;
            modules.push(IndexedModule { identifier, shard });
        }
        let regular_lto = regular_lto_modules(lld.scratch)
            .map_err(|e| Failure::Failed(format!("reading the index phase's directory: {e}")))?;
        Ok(Self {
            modules,
            regular_lto,
        })
    }

    /// Lazy modules that stay out of the link, sorted, as far as it can be told which files they are.
    pub fn left_out(&self, scratch: &Scratch) -> io::Result<Vec<ModuleIdentifier>> {
        // By inode: one file has many names (./a.o).
        let inode = |m: &Metadata| (m.dev(), m.ino());
        let shard = |m: &IndexedModule| {
            let metadata = fs::metadata(shard_path(scratch, &m.identifier))?;
            Ok(inode(&metadata))
        };
        let taken: io::Result<HashSet<_>> = self.modules.iter().map(shard).collect();
        let taken = taken?;
        let lazy =
            |file: &ShardFile| file.metadata.len() > 0 && !taken.contains(&inode(&file.metadata));
        let files = ShardFile::all(scratch)?.into_iter().filter(lazy);
        let mut found: Vec<_> = files.filter_map(|file| file.identifier().ok()).collect();
        found.sort();
        Ok(found)
    }
}

/// A module's file in the index phase's directory: what is left there of its identifier, and the file itself.
struct ShardFile {
    relative: PathBuf,
    metadata: Metadata,
}

impl ShardFile {
    /// All that the index phase has written.
    fn all(scratch: &Scratch) -> io::Result<Vec<Self>> {
        let mut found = Vec::new();
        let mut dirs = vec![scratch.index_root()];
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(&dir)? {
                let entry = entry?;
                let path = entry.path();
                if entry.file_type()?.is_dir() {
                    dirs.push(path);
                    continue;
                }
                let module = path.as_os_str().as_bytes().strip_suffix(b".thinlto.bc");
                if let Some(module) = module {
                    found.push(Self {
                        relative: scratch.identifier_of(Path::new(OsStr::from_bytes(module))),
                        metadata: entry.metadata()?,
                    });
                }
            }
        }
        Ok(found)
    }

    /// The module. An absolute path is told from a relative one by what exists; an error says that this does not tell.
    fn identifier(self) -> io::Result<ModuleIdentifier> {
        let Self { relative, .. } = self;
        let absolute = Path::new("/").join(&relative);
        let exists = |p: &Path| shim::archive::locate(p.as_os_str()).is_ok();
        match (exists(&relative), exists(&absolute)) {
            (true, false) => Ok(ModuleIdentifier(relative.into_os_string())),
            (false, true) => Ok(ModuleIdentifier(absolute.into_os_string())),
            _ => Err(io::Error::other(format!(
                "cannot tell which file {} is",
                relative.display()
            ))),
        }
    }
}

/// Modules that take part as regular LTO only: in a shard's place they have an empty file. Lazy ones that stay out have
/// a shard that says so (`BitcodeCompiler::compile`, lld/ELF/LTO.cpp).
fn regular_lto_modules(scratch: &Scratch) -> io::Result<Vec<ModuleIdentifier>> {
    let files = ShardFile::all(scratch)?.into_iter();
    let empty = files.filter(|file| file.metadata.len() == 0);
    empty.map(ShardFile::identifier).collect()
}

fn read_shard(lld: &Invocation<'_>, identifier: &ModuleIdentifier) -> Result<Vec<u8>, Failure> {
    fs::read(shard_path(lld.scratch, identifier)).map_err(|e| {
        Failure::Failed(format!(
            "the index phase left no shard for {identifier}: {e}"
        ))
    })
}

/// Where the index phase has written a module's shard.
fn shard_path(scratch: &Scratch, identifier: &ModuleIdentifier) -> PathBuf {
    let mut path = scratch.index().as_os_str().to_owned();
    path.push("/");
    path.push(identifier.as_os_str());
    path.push(".thinlto.bc");
    path.into()
}
