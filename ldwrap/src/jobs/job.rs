//! A backend: one module compiled with its shard, as a job that could run on any machine.
//!
//! A job is a directory of relative names: `m/00000000.o`, `m/00000001.o` ... are the module and what it
//! imports, in the lexical order of their identifiers (docs/lld.md, "Imports" and "The index run"),
//! `shard` is its part of the index with just these names in it, `out.o` is what it makes.

use super::failure::Failure;
use super::outcome::BackendError;
use crate::cache::files::SeenFile;
use crate::jobs::bitcode::canonical::{canonical, without_block_count};
use crate::jobs::bitcode::shard::{ModuleRef, Shard};
use crate::jobs::codegen::{BackendFiles, Codegen, InputFile};
use crate::jobs::expected_object::{self, ExpectedObject};
use crate::jobs::index::{Index, ModuleIdentifier};
use crate::jobs::locality::Locality;
use crate::jobs::modules::{self, Module};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Name of the shard in a job's own directory.
pub const SHARD: &str = "shard";
/// Name of the object there.
pub const OBJECT: &str = "out.o";

/// How the files of jobs are called where these run. Either way the names of modules keep the order of their identifiers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Names {
    /// Each job in a directory of its own: its names, and so its key, are the same in whatever link.
    Own,
    /// All jobs of a link in one directory: each module has one name.
    Shared,
}

impl Names {
    /// The shard of the job of this number.
    #[must_use]
    pub fn shard(self, number: usize) -> PathBuf {
        match self {
            Self::Own => SHARD.into(),
            Self::Shared => format!("i/{number}.thinlto.bc").into(),
        }
    }

    /// Its object.
    #[must_use]
    pub fn object(self, number: usize) -> PathBuf {
        match self {
            Self::Own => OBJECT.into(),
            Self::Shared => format!("o/{number}.o").into(),
        }
    }
}

/// One backend compile.
#[derive(Debug)]
pub struct Job {
    /// The module's position in task order.
    pub number: usize,
    /// What lld calls it, for messages.
    pub identifier: ModuleIdentifier,
    /// Files that it reads besides the shard.
    pub inputs: Vec<InputFile>,
    /// Size of the module (bytes).
    pub size: u64,
    /// The shard, enriched and with the job's own names.
    pub shard: Vec<u8>,
    /// Arguments of clang, all paths relative to the job's directory.
    pub args: Vec<OsString>,
    /// By what the module's object is told from other files.
    pub expected: ExpectedObject,
    /// What the job was made from: the files that lld has these inputs from, as they were then.
    pub sources: Vec<Arc<SeenFile>>,
}

/// What the jobs of a link are made from. Each is made when it is its turn: a job has a copy of its
/// shard, and a link may have more of them than there is memory for.
#[derive(Debug)]
pub struct Jobs<'a> {
    codegen: &'a Codegen,
    index: &'a Index,
    shards: &'a [Shard<'a>],
    modules: &'a [Module],
    number_of: HashMap<&'a [u8], usize>,
    /// The position of each module among all in the order of identifiers.
    ranks: HashMap<&'a [u8], usize>,
    /// The number of each module in its own shard.
    own: Vec<u64>,
    locality: Locality,
    /// Files that all jobs read.
    common_sources: Vec<Arc<SeenFile>>,
    /// The files of modules that are regular LTO only, which are read once, here.
    regular_lto_sources: Vec<SeenFile>,
}

impl<'a> Jobs<'a> {
    /// For the modules of an index, in task order.
    pub fn of(
        codegen: &'a Codegen,
        index: &'a Index,
        shards: &'a [Shard<'a>],
        modules: &'a [Module],
    ) -> Result<Self, Failure> {
        let number_of = index
            .modules
            .iter()
            .enumerate()
            .map(|(n, m)| (m.identifier.as_bytes(), n))
            .collect();
        let mut sorted: Vec<&[u8]> = (index.modules.iter())
            .map(|m| m.identifier.as_bytes())
            .collect();
        sorted.sort_unstable();
        let ranks = sorted.into_iter().zip(0..).collect();
        let own: Vec<u64> = index
            .modules
            .iter()
            .zip(shards)
            .map(|(m, shard)| own_number(&m.identifier, shard))
            .collect::<Result<_, _>>()?;
        check_modules(codegen, index, modules)?;
        let regular_lto_sources = index.regular_lto.iter().map(modules::source);
        let regular_lto_sources = regular_lto_sources
            .collect::<Result<_, _>>()
            .map_err(Failure::Failed)?;
        let regular_lto = modules::regular_lto_summaries(index)?;
        let locality = Locality::of(
            shards.iter().zip(own.iter().copied()),
            modules
                .iter()
                .flat_map(|m| &m.regular_lto)
                .chain(&regular_lto),
        );
        Ok(Self {
            codegen,
            index,
            shards,
            modules,
            number_of,
            ranks,
            own,
            locality,
            common_sources: common_sources(codegen)?,
            regular_lto_sources,
        })
    }

    /// All files that jobs are made from, as they were then. A file may come more than once.
    pub fn sources(&self) -> impl Iterator<Item = &SeenFile> {
        let modules = self.modules.iter().map(|m| &m.source);
        let read_by_jobs = modules.chain(&self.common_sources).map(AsRef::as_ref);
        read_by_jobs.chain(&self.regular_lto_sources)
    }

    /// The files that a module's job reads.
    fn sources_of(&self, number: usize) -> impl Iterator<Item = &Arc<SeenFile>> {
        let needs = self.needs(number).into_iter();
        let modules = needs.filter_map(|n| Some(&self.modules.get(n)?.source));
        modules.chain(&self.common_sources)
    }

    /// A file that a job was made from and that has changed since, if there is one.
    #[must_use]
    pub fn changed_source(&self, number: usize) -> Option<&SeenFile> {
        let mut sources = self.sources_of(number);
        let changed = sources.find(|source| !source.is_unchanged());
        changed.map(AsRef::as_ref)
    }

    /// The size of a module's bitcode in bytes: how long its backend will take, roughly.
    #[must_use]
    pub fn weight(&self, number: usize) -> u64 {
        self.modules.get(number).map_or(0, |m| m.size)
    }

    /// The modules that a module's backend reads: itself, and those it imports from.
    #[must_use]
    pub fn needs(&self, number: usize) -> Vec<usize> {
        let modules = self.shards.get(number).map_or(&[][..], |s| &s.modules);
        let number_of = |m: &ModuleRef| self.number_of.get(m.path.as_slice()).copied();
        modules.iter().filter_map(number_of).collect()
    }

    /// Why a module has no job, if it has none: what it, or one that it imports from, takes for its backend is in no job.
    #[must_use]
    pub fn left_to_lld(&self, number: usize) -> Option<&'static str> {
        let needs = self.needs(number).into_iter().chain([number]);
        let mut modules = needs.filter_map(|n| self.modules.get(n));
        modules.find_map(|m| {
            if m.reads_files {
                return Some("its assembly reads files");
            }
            // Its backend asks the index for what functions do with their arguments, also those that are not imported
            // (docs/lld.md, "Shards as bitstreams").
            let tags = m.attributes.memory_tagging;
            tags.then_some("memory tagging needs the whole index")
        })
    }

    /// Makes the job of a module.
    pub fn make(&self, number: usize, names: Names) -> Result<Job, BackendError> {
        let named = self.index.modules.get(number);
        let named = named.map(|m| m.identifier.to_string());
        self.try_make(number, names).map_err(|why| BackendError {
            module: named.unwrap_or_default(),
            why,
        })
    }

    /// The names of modules in a job's directory, by their identifiers.
    fn module_names<'p>(
        &self,
        paths: &BTreeSet<&'p [u8]>,
        names: Names,
    ) -> HashMap<&'p [u8], PathBuf> {
        // As wide as no link has modules: backends import in the order of these names.
        let name = |(own, path): (usize, &&'p [u8])| {
            let rank = match names {
                Names::Own => own,
                Names::Shared => self.ranks.get(path).copied().unwrap_or_default(),
            };
            (*path, PathBuf::from(format!("m/{rank:08}.o")))
        };
        paths.iter().enumerate().map(name).collect()
    }

    fn try_make(&self, number: usize, names: Names) -> Result<Job, String> {
        let (Some(m), Some(shard), Some(module), Some(&own)) = (
            self.index.modules.get(number),
            self.shards.get(number),
            self.modules.get(number),
            self.own.get(number),
        ) else {
            return Err("the index is inconsistent".into());
        };
        let paths: BTreeSet<&[u8]> = shard.modules.iter().map(|r| r.path.as_slice()).collect();
        let (shard_name, object_name) = (names.shard(number), names.object(number));
        let names = self.module_names(&paths, names);
        let mut inputs = self.codegen.inputs().to_vec();
        let mut symbols: Vec<u64> = module.names.clone();
        for path in &paths {
            let imported = self
                .number_of
                .get(path)
                .and_then(|&n| self.modules.get(n))
                .ok_or_else(|| {
                    format!(
                        "it imports from {}, which takes no part",
                        String::from_utf8_lossy(path)
                    )
                })?;
            symbols.extend(&imported.names);
            inputs.push((names[path].clone(), imported.file.clone()));
        }
        let have: HashSet<u64> = shard.summaries.iter().map(|s| s.guid).collect();
        let missing = self.locality.missing(symbols.into_iter(), &have);
        let bytes = shard
            .rewrite(own, &missing, |path| {
                names
                    .get(path)
                    .map_or_else(Vec::new, |n| n.as_os_str().as_encoded_bytes().to_vec())
            })
            .map_err(|e| format!("its shard: {e}"))?;
        let counts_blocks = shard.has_block_count && !has_partial_profile(&module.file);
        let bytes = match counts_blocks.then(|| without_block_count(&bytes)) {
            Some(Ok(Some(without))) => without,
            _ => bytes,
        };
        let bytes = match canonical(&bytes) {
            Ok(Some(sorted)) => sorted,
            _ => {
                log::debug!("{}: its shard stays in its order", m.identifier);
                bytes
            }
        };
        let name = names
            .get(m.identifier.as_bytes())
            .ok_or("its shard does not mention it")?;
        let args = self.codegen.backend_args(
            &module.triple,
            &BackendFiles {
                module: name,
                shard: &shard_name,
                object: &object_name,
            },
        );
        Ok(Job {
            number,
            identifier: m.identifier.clone(),
            inputs,
            size: self.weight(number),
            shard: bytes,
            args,
            expected: ExpectedObject {
                defines: module.defines.clone(),
                definition: shard.definition(own),
                architecture: expected_object::architecture(&module.triple),
            },
            sources: self.sources_of(number).cloned().collect(),
        })
    }
}

impl Job {
    /// A file that the job was made from and that has changed since, if there is one: what was compiled meanwhile may not be
    /// the object of what the job's key says.
    #[must_use]
    pub fn changed_source(&self) -> Option<&Path> {
        let changed = self.sources.iter().find(|source| !source.is_unchanged());
        changed.map(|source| source.path.as_path())
    }
}

/// The files that all jobs read, as they are now.
fn common_sources(codegen: &Codegen) -> Result<Vec<Arc<SeenFile>>, Failure> {
    let seen = |file: &Path| match SeenFile::now(file) {
        Ok(seen) => Ok(Arc::new(seen)),
        Err(e) => Err(Failure::Failed(format!("{}: {e}", file.display()))),
    };
    codegen
        .inputs()
        .iter()
        .map(|(_, file)| seen(file))
        .collect()
}

/// Whether a module has a profile that may be a partial one, by the text of its metadata. If that cannot be told, it has.
fn has_partial_profile(bitcode: &Path) -> bool {
    const KEY: &[u8] = b"IsPartialProfile";
    let map = crate::sys::map(bitcode);
    map.map_or(true, |bytes| bytes.windows(KEY.len()).any(|w| w == KEY))
}

/// Refuses a link with a module that clang would compile otherwise than lld.
fn check_modules(codegen: &Codegen, index: &Index, modules: &[Module]) -> Result<(), Failure> {
    modules.iter().enumerate().try_for_each(|(n, module)| {
        let checked = codegen.check_module(&module.triple, module.attributes);
        checked.map_err(|why| {
            let name = index.modules.get(n).map(|m| m.identifier.to_string());
            let name = name.unwrap_or_default();
            Failure::Declined(format!("module {name}: {why}"))
        })
    })
}

/// The number that a shard gives the module it is for.
fn own_number(identifier: &ModuleIdentifier, shard: &Shard<'_>) -> Result<u64, Failure> {
    let own = shard.module(identifier.as_bytes()).map(|m| m.id);
    own.ok_or_else(|| Failure::Failed(format!("the shard of {identifier} does not mention it")))
}
