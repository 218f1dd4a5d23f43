//! The index phase: the thin link, by the real lld, from the user's own command line.
//!
//! Nothing of the command line is rewritten; a few options are added behind it (fact 9). Shards go
//! to our scratch directory under each module's identifier, nothing is written beside the inputs,
//! and the list of modules that take part comes in task order (fact 6).

use crate::link::{Failure, Plan};
use crate::process;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

/// A module that takes part, as lld names it: a path, or `ARCHIVE(MEMBER at OFFSET)` (fact 7).
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
}

impl Index {
    /// Runs the thin link.
    pub fn run(plan: &Plan<'_>) -> Result<Self, Failure> {
        let list = plan.scratch.list();
        let mut only = OsString::from("--thinlto-index-only=");
        only.push(&list);
        let mut replace = OsString::from("--thinlto-prefix-replace=;");
        replace.push(plan.scratch.index());
        replace.push("/");
        let command = plan.lld([only, replace])?;
        let out = process::output(command)
            .map_err(|e| Failure::new(format!("cannot run {}: {e}", plan.toolchain.lld.display())))?;
        if !out.status.success() {
            return Err(Failure::lld("index", out.status, &out.stderr));
        }
        let list = fs::read(&list)
            .map_err(|e| Failure::new(format!("the index phase left no list of modules: {e}")))?;
        let mut prefix = plan.scratch.index().as_os_str().as_bytes().to_vec();
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
            let shard = read_shard(plan, &identifier)?;
            modules.push(Indexed { identifier, shard });
        }
        Ok(Self { modules })
    }
}

fn read_shard(plan: &Plan<'_>, identifier: &Identifier) -> Result<Vec<u8>, Failure> {
    let mut path = plan.scratch.index().as_os_str().to_owned();
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
