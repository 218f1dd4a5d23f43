//! Makes the jobs of a link beside a watched lld, and has them done elsewhere: index, modules, jobs,
//! objects.
//!
//! It runs in a thread of its own, with an index run of its own: shards can be had from lld's in-process
//! link too, but each only when its backend begins, and a job's shard leans on all of them
//! ([`crate::jobs::locality`]). Whatever goes wrong here ends it, and lld goes on by itself.

use crate::cache::files::SeenFile;
use crate::executor::clang::Clang;
use crate::executor::distributor::Distributor;
use crate::executor::object_dir::ObjectDir;
use crate::executor::order::JobOrder;
use crate::executor::remote::{RemoteExecutor, Server};
use crate::executor::{BackendError, Executor, JobQueue, ObjectSource, Outcome};
use crate::jobs::bitcode::shard::Shard;
use crate::jobs::codegen::Codegen;
use crate::jobs::failure::Failure;
use crate::jobs::index::{Index, IndexedModule};
use crate::jobs::invocation::Invocation;
use crate::jobs::job::Jobs;
use crate::jobs::layout::module_names;
use crate::jobs::modules::{self, Module};
use crate::jobs::store::Store;
use crate::jobs::toolchain::Toolchain;
use crate::link::attribution::AttributionRule;
use crate::link::eligibility;
use crate::link::exchange::Exchange;
use crate::link::lookup_dir::LookupDir;
use crate::sys::scratch::Scratch;
use crate::sys::sync::{ignore_poison, lock};
use shim::cmdline::CommandLine;
use shim::config::ServerSettings;
use shim::options::Id;
use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// More jobs than this may not fail before no more are tried: one may be bad luck.
pub const MAX_FAILURES: usize = 4;

/// What jobs are made from.
#[derive(Clone, Copy)]
pub struct JobsRequest<'a> {
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
    /// Where they are done.
    pub place: JobsPlace<'a>,
    /// Where objects are kept, and how their names begin.
    pub save_objects: Option<&'a Path>,
    /// How many jobs may fail.
    pub max_failures: usize,
}

/// Where jobs are done. Those that go elsewhere have keys, by which the local cache has their objects.
#[derive(Clone, Copy)]
pub enum JobsPlace<'a> {
    /// Here, as clang processes.
    Clang,
    /// On a server.
    Server(&'a ServerSettings, &'a Arc<Store>),
    /// By a program with its first arguments.
    Distributor(&'a [OsString], &'a Arc<Store>),
    /// They have been done: `ldwrap backend` has put their objects into this directory.
    Made(&'a Path, &'a Arc<Store>),
}

/// What was done, for the report.
#[derive(Debug, Default)]
pub struct JobsSummary {
    /// Objects that a server's cache, or ours by the keys of jobs, had.
    pub hits: usize,
    /// What a server did.
    pub remote: Option<shim::report::Remote>,
    /// The version of lld and clang.
    pub version: Option<String>,
}

/// Runs `f` as the other side of a watched lld, if its work is wanted, and says that this side is over; a
/// panic in it, which would be a bug of ours, is a failure like others.
pub fn run_beside(
    exchange: &Exchange,
    f: impl FnOnce() -> Result<JobsSummary, Failure>,
) -> JobsSummary {
    if !exchange.wait() {
        return JobsSummary::default();
    }
    let done = catch_unwind(AssertUnwindSafe(f))
        .unwrap_or_else(|_| Err(Failure::Failed("a bug in ldwrap, see above".into())));
    match done {
        Ok(supplied) => {
            exchange.end(None);
            supplied
        }
        Err(failure) => {
            exchange.end(Some(failure));
            JobsSummary::default()
        }
    }
}

/// Makes the jobs and has them done; `server` is the one of [`JobsPlace::Server`].
pub fn make_jobs(
    plan: &JobsRequest<'_>,
    server: Option<Server>,
    exchange: &Exchange,
) -> Result<JobsSummary, Failure> {
    let scratch = Scratch::new();
    let scratch = scratch.map_err(|e| Failure::Failed(format!("no scratch directory: {e}")))?;
    let scratch = Arc::new(scratch);
    let naming = AttributionRule::of(plan.toolchain.major);
    let workers_busy = Arc::new(AtomicBool::new(false));
    let indexed = |index: &Index| {
        let executor = plan.executor(server, &scratch, naming, &workers_busy, index)?;
        let identifiers = index.modules.iter().map(|m| m.identifier.as_bytes());
        exchange.index(identifiers, executor.clone());
        Ok(executor)
    };
    let is_over = || exchange.is_over();
    plan.with_jobs(&scratch, indexed, &is_over, |executor, planned| {
        exchange.made_from(planned.jobs.sources(), planned.since)?;
        run_jobs(plan, planned, &executor, workers_busy.clone(), exchange)
    })
}

/// Has jobs done, and waits until lld has what came of them.
fn run_jobs(
    plan: &JobsRequest<'_>,
    planned: PlannedJobs<'_>,
    executor: &Arc<dyn Executor>,
    workers_busy: Arc<AtomicBool>,
    exchange: &Exchange,
) -> Result<JobsSummary, Failure> {
    let PlannedJobs { jobs, numbers, .. } = planned;
    let naming = AttributionRule::of(plan.toolchain.major);
    let hits = AtomicUsize::new(0);
    let errors = Mutex::new(Vec::new());
    let max_failures = plan.max_failures.min(planned.modules.len() / 2);
    let changed = Mutex::new(None);
    let done = |number, result: Result<Outcome, BackendError>| {
        let object = match result {
            Ok(Outcome::Object(_)) if is_changed(jobs, number, &changed) => None,
            Ok(Outcome::Object(object)) => {
                plan.save(number, &object.path);
                if object.source == ObjectSource::Cache {
                    hits.fetch_add(1, Ordering::Relaxed);
                }
                Some(object)
            }
            Ok(Outcome::Diagnosed(said)) => {
                log::info!("module {number} is left to lld, which has to say this itself: {said}");
                None
            }
            Ok(Outcome::Absent(why)) => {
                log::info!("module {number} is left to lld: {why}");
                None
            }
            Err(e) => {
                log::info!("{e}");
                let mut errors = lock(&errors);
                errors.push(e.to_string());
                None
            }
        };
        exchange.finished(number, object);
        let errors = lock(&errors);
        let go_on = errors.len() <= max_failures && !exchange.is_over() && lock(&changed).is_none();
        if !go_on {
            exchange.end_misses();
        }
        go_on
    };
    let mut numbers = numbers;
    numbers.retain(|&number| match jobs.left_to_lld(number) {
        Some(why) => {
            log::info!("module {number} is left to lld: {why}");
            exchange.finished(number, None);
            false
        }
        None => true,
    });
    let most = numbers.len();
    let mut queue = plan.queue(exchange, numbers, naming, jobs, executor, workers_busy);
    executor.run(&JobQueue::new(&mut *queue, jobs, most), &done);
    drop(queue);
    if let Some(failure) = ignore_poison(changed.into_inner()) {
        return Err(failure);
    }
    let mut errors = ignore_poison(errors.into_inner());
    if errors.len() > max_failures {
        return Err(Failure::Failed(errors.swap_remove(0)));
    }
    exchange.end(None);
    // lld may not have taken all objects yet.
    exchange.wait_for_stop();
    Ok(JobsSummary {
        hits: hits.into_inner(),
        remote: executor.remote_report(),
        version: Some(plan.toolchain.version.clone()),
    })
}

/// Whether a file that a job was made from has changed since: lld links what the file was before. Puts the reason into `why`.
fn is_changed(jobs: &Jobs<'_>, number: usize, why: &Mutex<Option<Failure>>) -> bool {
    let changed = jobs.changed_source(number);
    if let Some(SeenFile { path, .. }) = changed {
        *lock(why) = Some(Failure::changed(path));
    }
    changed.is_some()
}

fn parse(index: &Index) -> Result<Vec<Shard<'_>>, Failure> {
    if index.modules.is_empty() {
        return Err(Failure::Declined("no ThinLTO module takes part".into()));
    }
    let shards = index
        .modules
        .iter()
        .map(|IndexedModule { identifier, shard }| {
            Shard::parse(shard)
                .map_err(|e| Failure::Failed(format!("shard of {}: {e}", identifier)))
        });
    shards.collect()
}

/// The jobs of a link, and what they were made from.
pub(crate) struct PlannedJobs<'a> {
    pub(crate) index: &'a Index,
    pub(crate) modules: &'a [Module],
    pub(crate) jobs: &'a Jobs<'a>,
    /// The numbers of modules for which lld makes a lookup.
    pub(crate) numbers: Vec<usize>,
    /// When the first of the files was about to be read.
    pub(crate) since: Instant,
}

impl JobsRequest<'_> {
    /// Makes the index and reads the modules, unless it `is_over`, and calls `f` with the jobs, and with what
    /// `indexed` gave as soon as there was an index.
    pub(crate) fn with_jobs<I, T>(
        &self,
        scratch: &Scratch,
        indexed: impl FnOnce(&Index) -> Result<I, Failure>,
        is_over: &(dyn Fn() -> bool + Sync),
        f: impl FnOnce(I, PlannedJobs<'_>) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let codegen = Codegen::of(self.cmd, self.toolchain.major).map_err(Failure::Declined)?;
        let begin = Instant::now();
        let index = self.index(scratch)?;
        let shards = parse(&index)?;
        let numbers = eligibility::lookups(&index, &shards, self.toolchain)?;
        let given = indexed(&index)?;
        let modules = modules::read_all(self.threads, scratch, &index, is_over)?;
        let jobs = Jobs::of(&codegen, &index, &shards, &modules)?;
        log::debug!("modules read: {} ms", begin.elapsed().as_millis());
        let planned = PlannedJobs {
            index: &index,
            modules: &modules,
            jobs: &jobs,
            numbers,
            since: begin,
        };
        f(given, planned)
    }

    fn executor(
        &self,
        server: Option<Server>,
        scratch: &Arc<Scratch>,
        naming: AttributionRule,
        workers_busy: &Arc<AtomicBool>,
        index: &Index,
    ) -> Result<Arc<dyn Executor>, Failure> {
        let clang = || Clang::new(self.toolchain.clang.clone(), scratch.clone(), self.threads);
        Ok(match (self.place, server) {
            (JobsPlace::Made(dir, store), _) => {
                let names = module_names(&index.modules, &[]);
                let names = names.map_err(Failure::Declined)?;
                Arc::new(ObjectDir::new(
                    dir,
                    names,
                    store.clone(),
                    scratch.clone(),
                    self.threads,
                ))
            }
            (JobsPlace::Distributor(command, store), _) => Arc::new(Distributor::new(
                command.to_vec(),
                self.toolchain.clang.clone(),
                self.cmd.output().to_owned(),
                store.clone(),
                scratch.clone(),
                self.threads,
            )),
            (JobsPlace::Clang, _) | (JobsPlace::Server(..), None) => Arc::new(clang()),
            // An lld of one thread is no help.
            (JobsPlace::Server(settings, store), Some(server)) => Arc::new(RemoteExecutor::new(
                store.clone(),
                settings.clone(),
                server,
                scratch.clone(),
                self.threads,
                (naming == AttributionRule::ByTaskOrder).then(clang),
                workers_busy.clone(),
            )),
        })
    }

    /// The jobs in the order in which they are to be run. clang here, and a link with the user's own cache,
    /// run only those that lld misses: they come as it asks, or, where it asks for one at a time, in its
    /// order from the moment of the first miss on. A distributor gets all at once, the largest first. What a
    /// server has made is found by the keys of jobs, so that all are in its queue, in the order that is best
    /// for it.
    fn queue<'q>(
        &self,
        exchange: &'q Exchange,
        numbers: Vec<usize>,
        naming: AttributionRule,
        jobs: &Jobs<'_>,
        executor: &'q Arc<dyn Executor>,
        workers_busy: Arc<AtomicBool>,
    ) -> Box<dyn Iterator<Item = usize> + Send + 'q> {
        let wanted = |&number: &usize| executor.wants(number);
        let only_missed = match self.place {
            JobsPlace::Clang | JobsPlace::Made(..) => true,
            JobsPlace::Server(..) => LookupDir::of(self.cmd).is_users(),
            JobsPlace::Distributor(..) => {
                let mut numbers = numbers;
                numbers.sort_by_key(|&n| std::cmp::Reverse(jobs.weight(n)));
                return Box::new(numbers.into_iter().filter(wanted));
            }
        };
        if !only_missed {
            let (size, reads) = (|n| jobs.weight(n), |n| jobs.needs(n));
            let ordered = JobOrder::new(workers_busy, numbers, size, reads);
            return Box::new(ordered.filter(wanted));
        }
        match naming {
            AttributionRule::ByIndexFile => {
                let mut numbers: HashSet<usize> = numbers.into_iter().collect();
                Box::new(exchange.misses().filter(move |n| numbers.remove(n)))
            }
            AttributionRule::ByTaskOrder => {
                let mut misses = exchange.misses();
                let mut missed = false;
                Box::new(numbers.into_iter().filter(move |n| {
                    missed = missed || misses.next().is_some();
                    missed && wanted(n)
                }))
            }
        }
    }

    /// Runs the thin link.
    fn index(&self, scratch: &Scratch) -> Result<Index, Failure> {
        let begin = Instant::now();
        let index = Index::run(&Invocation {
            program: &self.toolchain.lld,
            argv0: self.argv0,
            args: self.args,
            cmd: self.cmd,
            scratch,
        })?;
        let (modules, ms) = (index.modules.len(), begin.elapsed().as_millis());
        log::debug!("index of {modules} modules: {ms} ms");
        self.save_names(&index);
        Ok(index)
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
                text.extend_from_slice(module.identifier.as_bytes());
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
