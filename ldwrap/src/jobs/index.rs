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
    /// Lazy modules that stay out, as far as their names can be told.
    pub left_out: Vec<ModuleIdentifier>,
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
        let (regular_lto, left_out) = other_modules(lld.scratch, &modules)
            .map_err(|e| Failure::Failed(format!("reading the index phase's directory: {e}")))?;
        Ok(Self {
            modules,
            regular_lto,
            left_out,
        })
    }
}

/// Finds modules of the link that are not in the index: those of regular LTO have an empty file in a shard's place,
/// and lazy ones that stay out a shard that says so (`BitcodeCompiler::compile`, lld/ELF/LTO.cpp).
///
/// Only the path of that file is left of the identifier, so an absolute one is told from a relative
/// one by what exists. Where that does not tell, it is an error for regular LTO, whose summaries count.
fn other_modules(
    scratch: &Scratch,
    taken: &[IndexedModule],
) -> io::Result<(Vec<ModuleIdentifier>, Vec<ModuleIdentifier>)> {
    // By inode: one file has many names (./a.o).
    let inode = |m: &Metadata| (m.dev(), m.ino());
    let shard = |m: &IndexedModule| Ok(inode(&fs::metadata(shard_path(scratch, &m.identifier))?));
    let taken: HashSet<(u64, u64)> = taken.iter().map(shard).collect::<io::Result<_>>()?;
    let (mut regular_lto, mut left_out) = (Vec::new(), Vec::new());
    let mut dirs = vec![scratch.index_root()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir)? {
            let entry = entry?;
            let path = entry.path();
            if entry.file_type()?.is_dir() {
                dirs.push(path);
                continue;
            }
            let Some(module) = path.as_os_str().as_bytes().strip_suffix(b".thinlto.bc") else {
                continue;
            };
            let relative = scratch.identifier_of(Path::new(OsStr::from_bytes(module)));
            let absolute = Path::new("/").join(&relative);
            let [relative, absolute] =
                [relative, absolute].map(|path| ModuleIdentifier(path.into_os_string()));
            let metadata = entry.metadata()?;
            let is_lazy = metadata.len() > 0;
            if taken.contains(&inode(&metadata)) {
                continue;
            }
            let exists = |id: &ModuleIdentifier| shim::archive::locate(id.as_os_str()).is_ok();
            let id = match (exists(&relative), exists(&absolute)) {
                (true, false) => relative,
                (false, true) => absolute,
                _ if is_lazy => continue,
                _ => {
                    let why = format!("cannot tell which file {relative} is");
                    return Err(io::Error::other(why));
                }
            };
            match is_lazy {
                true => left_out.push(id),
                false => regular_lto.push(id),
            }
        }
    }
    left_out.sort();
    Ok((regular_lto, left_out))
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
