//! Makes the jobs of a link beside a watched lld, and has them done elsewhere: index, modules, jobs,
//! objects.
//!
//! It runs in a thread of its own, with an index run of its own: shards can be had from lld's in-process
//! link too, but each only when its backend begins, and a job's shard leans on all of them
//! ([`crate::jobs::locality`]). Whatever goes wrong here ends it, and lld goes on by itself.

use crate::executor::clang::Clang;
use crate::executor::order::JobOrder;
use crate::executor::remote::{RemoteExecutor, Server};
use crate::executor::{BackendError, Executor, JobQueue, ObjectSource, Outcome};
use crate::jobs::bitcode::shard::Shard;
use crate::jobs::codegen::Codegen;
use crate::jobs::failure::Failure;
use crate::jobs::index::{Index, Indexed};
use crate::jobs::invocation::Invocation;
use crate::jobs::job::{self, Jobs};
use crate::jobs::modules;
use crate::jobs::store::Store;
use crate::jobs::toolchain::Toolchain;
use crate::link::attribution::Naming;
use crate::link::cached_names::FIRST_IN_TASK_ORDER;
use crate::link::elsewhere::Elsewhere;
use crate::link::entries::Entries;
use crate::sys::scratch::Scratch;
use shim::cmdline::CommandLine;
use shim::config::ServerSettings;
use shim::options::Id;
use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// More jobs than this may not fail before no more are tried: one may be bad luck.
pub const MAX_FAILURES: usize = 4;

/// What jobs are made from.
#[derive(Clone, Copy)]
pub struct Plan<'a> {
    /// `argv[0]` as the real lld is to see it.
    pub argv0: &'a OsStr,
    /// The rest, as it came.
    pub args: &'a [OsString],
    /// The same, parsed with lld's own grammar.
    pub cmd: &'a CommandLine,
    /// lld and clang.
    pub toolchain: &'a Toolchain,
    /// How many things at once on this machine.
    pub threads: usize,
    /// A server's settings, and keys and the cache of objects by them; clang here without.
    pub remote: Option<(&'a ServerSettings, &'a Arc<Store>)>,
    /// Where objects are kept, and how their names begin.
    pub save_objects: Option<&'a Path>,
    /// How many jobs may fail.
    pub max_failures: usize,
}

/// What was done, for the report.
#[derive(Debug, Default)]
pub struct Supplied {
    /// Objects that a server's cache, or ours by the keys of jobs, had.
    pub hits: usize,
    /// What a server did.
    pub remote: Option<shim::report::Remote>,
    /// The version of lld and clang.
    pub version: Option<String>,
}

/// Why a link cannot be made into jobs, as far as its command line tells: `Err` is the reason.
pub fn check(args: &[OsString], cmd: &CommandLine, major: u32) -> Result<(), String> {
    Codegen::of(cmd, major)?;
    check_paths(cmd)?;
    // An error, which is lld's to say.
    if let Some(jobs) = cmd.thinlto_jobs()
        && jobs != "all"
        && jobs.to_str().is_none_or(|n| n.parse::<u32>().is_err())
    {
        return Err(format!("--thinlto-jobs={}", jobs.display()));
    }
    if !Entries::of(cmd).can_be_made() {
        return Err("the directory of --thinlto-cache-dir cannot be written".into());
    }
    let responses = args
        .iter()
        .filter_map(|arg| arg.as_bytes().strip_prefix(b"@"));
    let values = cmd.options().map(|o| o.value.as_os_str());
    let named = cmd
        .inputs()
        .chain(values)
        .chain(responses.map(OsStr::from_bytes));
    match named
        .into_iter()
        .find(|name| can_be_read_once(Path::new(name)))
    {
        Some(name) => Err(format!(
            "{} can perhaps be read only once, which is lld's to do",
            name.display()
        )),
        None => Ok(()),
    }
}

/// Whether a name may stand for something else when it is opened again: a pipe, or a descriptor.
fn can_be_read_once(path: &Path) -> bool {
    path != Path::new("/dev/null")
        && (path.starts_with("/dev")
            || path.starts_with("/proc")
            || std::fs::metadata(path).is_ok_and(|m| !m.is_file() && !m.is_dir()))
}

/// What the phases could not carry out faithfully.
fn check_paths(cmd: &CommandLine) -> Result<(), String> {
    let values = cmd.options().map(|o| o.value.as_os_str());
    for name in cmd.inputs().chain(values) {
        let bytes = name.as_bytes();
        if bytes.contains(&b'\n') {
            return Err("a path with a newline in it".into());
        }
        if bytes.ends_with(b".thinlto.bc") {
            return Err("a path that ends in .thinlto.bc, as lld's index files do".into());
        }
        let parents = bytes.split(|&b| b == b'/').filter(|part| *part == b"..");
        if parents.count() >= Scratch::max_parents() {
            return Err("a path with too many ..".into());
        }
    }
    Ok(())
}

/// Runs `f` as the other side of a watched lld, if its work is wanted, and says that this side is over; a
/// panic in it, which would be a bug of ours, is a failure like others.
pub fn beside(elsewhere: &Elsewhere, f: impl FnOnce() -> Result<Supplied, Failure>) -> Supplied {
    if !elsewhere.wait() {
        return Supplied::default();
    }
    let done = catch_unwind(AssertUnwindSafe(f))
        .unwrap_or_else(|_| Err(Failure::new("a bug in ldwrap, see above".into())));
    match done {
        Ok(supplied) => {
            elsewhere.end(None);
            supplied
        }
        Err(failure) => {
            elsewhere.end(Some(failure));
            Supplied::default()
        }
    }
}

/// Makes the jobs and has them done, by a server if there is one.
pub fn supply(
    plan: &Plan<'_>,
    server: Option<Server>,
    elsewhere: &Elsewhere,
) -> Result<Supplied, Failure> {
    let scratch = Scratch::new();
    let scratch = scratch.map_err(|e| Failure::new(format!("no scratch directory: {e}")))?;
    let scratch = Arc::new(scratch);
    let codegen = Codegen::of(plan.cmd, plan.toolchain.major).map_err(Failure::planned)?;
    let begin = Instant::now();
    let index = Index::run(&Invocation {
        program: &plan.toolchain.lld,
        argv0: plan.argv0,
        args: plan.args,
        cmd: plan.cmd,
        scratch: &scratch,
    })?;
    let total = index.modules.len();
    log::debug!(
        "index of {total} modules: {} ms",
        begin.elapsed().as_millis()
    );
    plan.save_names(&index);
    let shards = parse(&index)?;
    let numbers = with_hash(&index, &shards, plan.toolchain)?;
    let naming = Naming::of(plan.toolchain.major);
    let workers_busy = Arc::new(AtomicBool::new(false));
    let executor = plan.executor(server, &scratch, naming, &workers_busy);
    let identifiers = index.modules.iter().map(|m| m.identifier.0.as_bytes());
    elsewhere.index(identifiers, executor.clone());
    let modules = modules::read_all(plan.threads, &scratch, &index, &|| elsewhere.is_over())?;
    let jobs = Jobs::of(plan.threads, &codegen, &index, &shards, &modules)?;
    log::debug!("modules read: {} ms", begin.elapsed().as_millis());
    let hits = AtomicUsize::new(0);
    let errors = Mutex::new(Vec::new());
    let max_failures = plan.max_failures.min(total / 2);
    let done = |number, result: Result<Outcome, BackendError>| {
        let object = match result {
            Ok(Outcome::Object(object, source)) => {
                plan.save(number, &object);
                if source == ObjectSource::Cache {
                    hits.fetch_add(1, Ordering::Relaxed);
                }
                Some(object)
            }
            Ok(Outcome::Diagnosed(said)) => {
                log::info!("module {number} is left to lld, which has to say this itself: {said}");
                None
            }
            Err(e) => {
                log::info!("{e}");
                let mut errors = errors.lock().unwrap_or_else(PoisonError::into_inner);
                errors.push(e.to_string());
                None
            }
        };
        elsewhere.finished(number, object);
        let errors = errors.lock().unwrap_or_else(PoisonError::into_inner);
        let go_on = errors.len() <= max_failures && !elsewhere.is_over();
        if !go_on {
            elsewhere.end_misses();
        }
        go_on
    };
    let (left, numbers): (Vec<_>, Vec<_>) = numbers.into_iter().partition(|&n| jobs.reads_files(n));
    for number in left {
        log::info!("module {number} is left to lld: its assembly reads files");
        elsewhere.finished(number, None);
    }
    let most = numbers.len();
    let mut queue = plan.queue(elsewhere, numbers, naming, &jobs, &executor, workers_busy);
    executor.run(&JobQueue::new(&mut *queue, &jobs, most), &done);
    drop(queue);
    let mut errors = errors.into_inner().unwrap_or_else(PoisonError::into_inner);
    if errors.len() > max_failures {
        return Err(Failure::new(errors.swap_remove(0)));
    }
    elsewhere.end(None);
    // lld may not have taken all objects yet.
    elsewhere.wait_for_stop();
    Ok(Supplied {
        hits: hits.into_inner(),
        remote: executor.remote_report(),
        version: Some(plan.toolchain.version.clone()),
    })
}

fn parse(index: &Index) -> Result<Vec<Shard<'_>>, Failure> {
    if index.modules.is_empty() {
        return Err(Failure::planned("no ThinLTO module takes part".into()));
    }
    let shards = index.modules.iter().map(|Indexed { identifier, shard }| {
        Shard::parse(shard)
            .map_err(|e| Failure::new(format!("shard of {}: {e}", identifier.0.display())))
    });
    shards.collect()
}

/// The numbers of modules with a hash: lld makes no lookup for one without, and compiles it itself.
fn with_hash(
    index: &Index,
    shards: &[Shard<'_>],
    toolchain: &Toolchain,
) -> Result<Vec<usize>, Failure> {
    let total = index.modules.len();
    let has_hash = |&n: &usize| {
        let module = index.modules.get(n).zip(shards.get(n));
        let own = module.and_then(|(m, shard)| job::own(m.identifier.0.as_bytes(), shard));
        own.is_some_and(|own| own.hashed)
    };
    let numbers: Vec<usize> = (0..total).filter(has_hash).collect();
    let hashed = numbers.len();
    if hashed == 0 || (hashed < total && toolchain.major < FIRST_IN_TASK_ORDER) {
        return Err(Failure::planned(format!(
            "{} of {total} modules have no hash: lld {} would not ask for their objects",
            total - hashed,
            toolchain.version
        )));
    }
    Ok(numbers)
}

impl Plan<'_> {
    fn executor(
        &self,
        server: Option<Server>,
        scratch: &Arc<Scratch>,
        naming: Naming,
        workers_busy: &Arc<AtomicBool>,
    ) -> Arc<dyn Executor> {
        let clang = || Clang::new(self.toolchain.clang.clone(), scratch.clone(), self.threads);
        match self.remote.zip(server) {
            None => Arc::new(clang()),
            // An lld of one thread is no help.
            Some(((settings, store), server)) => Arc::new(RemoteExecutor::new(
                store.clone(),
                settings.clone(),
                server,
                scratch.clone(),
                self.threads,
                (naming == Naming::ByOrder).then(clang),
                workers_busy.clone(),
            )),
        }
    }

    /// The jobs in the order in which they are to be run. clang here, and a link with the user's own cache,
    /// run only those that lld misses: they come as it asks, or, where it asks for one at a time, in its
    /// order from the moment of the first miss on. What a server has made is found by the keys of jobs, so
    /// that all are in its queue, in the order that is best for it.
    fn queue<'q>(
        &self,
        elsewhere: &'q Elsewhere,
        numbers: Vec<usize>,
        naming: Naming,
        jobs: &Jobs<'_>,
        executor: &'q Arc<dyn Executor>,
        workers_busy: Arc<AtomicBool>,
    ) -> Box<dyn Iterator<Item = usize> + Send + 'q> {
        let wanted = |&number: &usize| executor.wants(number);
        let only_missed = self.remote.is_none() || Entries::of(self.cmd).are_users();
        if !only_missed {
            let (size, reads) = (|n| jobs.weight(n), |n| jobs.needs(n));
            let ordered = JobOrder::new(workers_busy, numbers, size, reads);
            return Box::new(ordered.filter(wanted));
        }
        match naming {
            Naming::ByShard => {
                let mut numbers: HashSet<usize> = numbers.into_iter().collect();
                Box::new(elsewhere.misses().filter(move |n| numbers.remove(n)))
            }
            Naming::ByOrder => {
                let mut misses = elsewhere.misses();
                let mut missed = false;
                Box::new(numbers.into_iter().filter(move |n| {
                    missed = missed || misses.next().is_some();
                    missed && wanted(n)
                }))
            }
        }
    }

    /// The number by which `--lto-obj-path` names a module's object: that of its task, and the first tasks
    /// are the regular-LTO part's (`BitcodeCompiler::compile`, lld/ELF/LTO.cpp).
    fn task(&self, module: usize) -> usize {
        let partitions = self.cmd.last(Id::LtoPartitions);
        let regular = partitions.and_then(|n| n.to_str()?.parse().ok());
        module + regular.unwrap_or(1)
    }

    /// Keeps an object of a backend, named as `--lto-obj-path` names lld's own.
    fn save(&self, module: usize, object: &Path) {
        if let Some(prefix) = self.save_objects {
            let to = with_suffix(prefix, &self.task(module).to_string());
            if let Err(e) = std::fs::copy(object, &to) {
                log::warn!("cannot save {}: {e}", to.display());
            }
        }
    }

    /// Says which module each kept object is of: a line with its number and identifier each.
    fn save_names(&self, index: &Index) {
        if let Some(prefix) = self.save_objects {
            let mut text = Vec::new();
            for (n, module) in index.modules.iter().enumerate() {
                text.extend_from_slice(format!("{} ", self.task(n)).as_bytes());
                text.extend_from_slice(module.identifier.0.as_bytes());
                text.push(b'\n');
            }
            let to = with_suffix(prefix, ".modules");
            if let Err(e) = std::fs::write(&to, text) {
                log::warn!("cannot write {}: {e}", to.display());
            }
        }
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}
