//! The index phase: the thin link, by the real lld, from the user's own command line.
//!
//! Nothing of the command line is rewritten; a few options are added behind it (docs/lld.md, "The index run"). Shards go
//! to our scratch directory under each module's identifier, nothing is written beside the inputs,
//! and the list of modules that take part comes in task order (docs/lld.md, "The index run").

use super::failure::Failure;
use super::invocation::Invocation;
use crate::sys::process::{self, Role};
use crate::sys::scratch::Scratch;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// A module that takes part, as lld names it: a path, or `ARCHIVE(MEMBER at OFFSET)` (docs/lld.md, "Identifiers").
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identifier(pub OsString);

/// One module and its shard.
#[derive(Debug)]
pub struct Indexed {
    /// Who it is.
    pub identifier: Identifier,
    /// Its shard, as lld wrote it.
    pub shard: Vec<u8>,
}

/// What the thin link said: the modules, in task order.
#[derive(Debug)]
pub struct Index {
    /// ThinLTO modules that take part.
    pub modules: Vec<Indexed>,
    /// Modules that take part as regular LTO only.
    pub regular: Vec<Identifier>,
}

impl Index {
    /// Runs the thin link.
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
            .map_err(|e| Failure::new(format!("cannot run {}: {e}", lld.program.display())))?;
        if !out.status.success() {
            return Err(Failure::lld("index", out.status, &out.stderr));
        }
        let list = fs::read(&list)
            .map_err(|e| Failure::new(format!("the index phase left no list of modules: {e}")))?;
        let mut prefix = lld.scratch.index().as_os_str().as_bytes().to_vec();
        prefix.push(b'/');
        let mut modules = Vec::new();
        for line in list.split(|&b| b == b'\n').filter(|line| !line.is_empty()) {
            let identifier = line.strip_prefix(prefix.as_slice()).ok_or_else(|| {
                Failure::new(format!(
                    "the index phase names a module outside its directory: {}",
                    String::from_utf8_lossy(line)
                ))
            })?;
            let identifier = Identifier(OsString::from_vec(identifier.to_vec()));
            let shard = read_shard(lld, &identifier)?;
            modules.push(Indexed { identifier, shard });
        }
        let regular = regular(lld.scratch)
            .map_err(|e| Failure::new(format!("reading the index phase's directory: {e}")))?;
        Ok(Self { modules, regular })
    }
}

/// Modules of the link that are not in the index have an empty file in a shard's place; lazy ones
/// that stay out have a shard that says so (`BitcodeCompiler::compile`, lld/ELF/LTO.cpp).
///
/// Only the path of that file is left of the identifier, so an absolute one is told from a relative
/// one by what exists.
fn regular(scratch: &Scratch) -> io::Result<Vec<Identifier>> {
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
            let Some(module) = path.as_os_str().as_bytes().strip_suffix(b".thinlto.bc") else {
                continue;
            };
            if entry.metadata()?.len() == 0 {
                let relative = scratch.identifier_of(Path::new(OsStr::from_bytes(module)));
                let absolute = Path::new("/").join(&relative);
                let exists = |p: &Path| shim::archive::locate(p.as_os_str()).is_ok();
                let id = match (exists(&relative), exists(&absolute)) {
                    (true, false) => relative,
                    (false, true) => absolute,
                    _ => {
                        return Err(io::Error::other(format!(
                            "cannot tell which file {} is",
                            relative.display()
                        )));
                    }
                };
                found.push(Identifier(id.into_os_string()));
            }
        }
    }
    Ok(found)
}

fn read_shard(lld: &Invocation<'_>, identifier: &Identifier) -> Result<Vec<u8>, Failure> {
    let mut path = lld.scratch.index().as_os_str().to_owned();
    path.push("/");
    path.push(&identifier.0);
    path.push(".thinlto.bc");
    fs::read(PathBuf::from(&path)).map_err(|e| {
        Failure::new(format!(
            "the index phase left no shard for {}: {e}",
            OsStr::display(&identifier.0)
        ))
    })
}
