//! A backend: one module compiled with its shard, as a job that could run on any machine.
//!
//! A job is a directory of relative names: `m/0000.o`, `m/0001.o` ... are the module and what it
//! imports, in the lexical order of their identifiers (facts 8 and 9), `shard` is its part of the
//! index with just these names in it, `out.o` is what it makes.

use crate::bitcode::shard::{ModuleRef, Shard};
use crate::codegen::{self, Codegen};
use crate::index::{Identifier, Index};
use crate::link::{Failure, Plan};
use crate::locality::Locality;
use crate::modules::Module;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Name of the shard in a job's directory.
pub const SHARD: &str = "shard";
/// Name of the object.
pub const OBJECT: &str = "out.o";

/// One backend compile.
#[derive(Debug)]
pub struct Job {
    /// The module's position in task order.
    pub number: usize,
    /// What lld calls it, for messages.
    pub identifier: Identifier,
    /// Files that it reads besides the shard: name in the job, and where the bytes are.
    pub inputs: Vec<(PathBuf, PathBuf)>,
    /// The shard, enriched and with the job's own names.
    pub shard: Vec<u8>,
    /// Arguments of clang, all paths relative to the job's directory.
    pub args: Vec<OsString>,
    /// Size of its module, in bytes: how long it will take, roughly.
    pub weight: u64,
    /// GUIDs of what the module defines: an object of another module is known by its symbols.
    pub defines: Vec<u64>,
}

/// Makes the jobs of a link, in task order.
pub fn jobs(
    plan: &Plan<'_>,
    codegen: &Codegen,
    index: &Index,
    shards: &[Shard<'_>],
    modules: &[Module],
) -> Result<Vec<Job>, Failure> {
    let number_of: HashMap<&[u8], usize> = index
        .modules
        .iter()
        .enumerate()
        .map(|(n, m)| (m.identifier.0.as_encoded_bytes(), n))
        .collect();
    let own: Vec<u64> = index
        .modules
        .iter()
        .zip(shards)
        .map(|(m, shard)| own_id(m.identifier.0.as_encoded_bytes(), shard))
        .collect::<Result<_, _>>()?;
    check_modules(plan, codegen, index, modules)?;
    let regular_only = crate::modules::regular_only(index)?;
    let locality = Locality::of(
        shards.iter().zip(own.iter().copied()),
        modules,
        &regular_only,
    );
    let numbered: Vec<usize> = (0..index.modules.len()).collect();
    let made = crate::parallel::map(plan.jobs, &numbered, |_, &n| {
        let (Some(m), Some(shard), Some(module), Some(&own)) = (
            index.modules.get(n),
            shards.get(n),
            modules.get(n),
            own.get(n),
        ) else {
            return Err(Failure::new("the index is inconsistent".into()));
        };
        let fail = |why: &dyn std::fmt::Display| {
            Failure::new(format!("shard of {}: {why}", m.identifier.0.display()))
        };
        let paths: BTreeSet<&[u8]> = shard.modules.iter().map(|r| r.path.as_slice()).collect();
        let names: HashMap<&[u8], PathBuf> = paths
            .iter()
            .enumerate()
            .map(|(rank, path)| (*path, PathBuf::from(format!("m/{rank:04}.o"))))
            .collect();
        let mut inputs = codegen.inputs().to_vec();
        let mut symbols: Vec<u64> = module.names.clone();
        for path in &paths {
            let imported = number_of
                .get(path)
                .and_then(|&n| modules.get(n))
                .ok_or_else(|| {
                    fail(&format!(
                        "it imports from {}, which takes no part",
                        lossy(path)
                    ))
                })?;
            symbols.extend(&imported.names);
            inputs.push((names[path].clone(), imported.file.clone()));
        }
        let have: HashSet<u64> = shard.summaries.iter().map(|s| s.guid).collect();
        let missing = locality.missing(symbols.into_iter(), &have);
        let bytes = shard
            .rewrite(own, &missing, |path| {
                names
                    .get(path)
                    .map_or_else(Vec::new, |n| n.as_os_str().as_encoded_bytes().to_vec())
            })
            .map_err(|e| fail(&e))?;
        let name = names
            .get(m.identifier.0.as_encoded_bytes())
            .ok_or_else(|| fail(&"it does not mention its own module"))?;
        let args = codegen.backend_args(
            &module.triple,
            &codegen::Job {
                module: name,
                shard: Path::new(SHARD),
                object: Path::new(OBJECT),
            },
        );
        Ok(Job {
            number: n,
            identifier: m.identifier.clone(),
            inputs,
            shard: bytes,
            args,
            weight: module.size,
            defines: module.defines.clone(),
        })
    });
    made.into_iter().collect()
}

impl Job {
    /// Whether bytes from elsewhere can be this job's object: an object file, and if it defines
    /// anything for others, then something that the module does. No proof, but it tells the objects
    /// of other modules apart, for which a server may have a right digest.
    #[must_use]
    pub fn plausible(&self, object: &[u8]) -> bool {
        use object::{Object, ObjectSymbol};
        let Ok(file) = object::File::parse(object) else {
            return false;
        };
        // Promoted statics are called `NAME.llvm.HASH`; weak ones may be any module's.
        let mut names = file
            .symbols()
            .filter(|s| s.is_definition() && s.is_global() && !s.is_weak())
            .filter_map(|s| s.name_bytes().ok())
            .filter(|name| !name.windows(6).any(|part| part == b".llvm."))
            .peekable();
        file.kind() == object::ObjectKind::Relocatable
            && (names.peek().is_none()
                || names.any(|name| self.defines.contains(&crate::bitcode::guid(name))))
    }
}

/// Forwards a link of modules that clang would compile otherwise than lld.
fn check_modules(
    plan: &Plan<'_>,
    codegen: &Codegen,
    index: &Index,
    modules: &[Module],
) -> Result<(), Failure> {
    crate::parallel::map(plan.jobs, modules, |n, module| {
        codegen
            .check_module(&module.file, &module.triple)
            .map_err(|why| {
                let name = index.modules.get(n).map(|m| m.identifier.0.display());
                let name = name.map(|n| n.to_string()).unwrap_or_default();
                Failure::planned(format!("module {name}: {why}"))
            })
    })
    .into_iter()
    .collect()
}

/// The number that a shard gives the module it is for.
fn own_id(identifier: &[u8], shard: &Shard<'_>) -> Result<u64, Failure> {
    own(identifier, shard).map(|m| m.id).ok_or_else(|| {
        Failure::new(format!(
            "the shard of {} does not mention it",
            lossy(identifier)
        ))
    })
}

/// The entry of the module that a shard is for.
#[must_use]
pub fn own<'s>(identifier: &[u8], shard: &'s Shard<'_>) -> Option<&'s ModuleRef> {
    shard.modules.iter().find(|m| m.path == identifier)
}

fn lossy(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}
