//! The split, told in one page: plan, index, backends, final link.
//!
//! Each phase borrows what came before and returns a value. Whatever goes wrong in one of them is a
//! [`Failure`]: nothing of the user's has been touched that lld would not touch again, so the caller
//! runs the original command on the real lld.

use crate::executor::clang::Clang;
use crate::executor::remote::settings::Settings;
use crate::executor::remote::{self, Remote};
use crate::executor::{Executor, ObjectSource, Outcome, Queue};
use crate::jobs::bitcode::shard::Shard;
use crate::jobs::codegen::Codegen;
use crate::jobs::failure::Failure;
use crate::jobs::index::Index;
use crate::jobs::invocation::Invocation;
use crate::jobs::job::{self, Jobs};
use crate::jobs::modules;
use crate::jobs::store::Store;
use crate::jobs::toolchain::Toolchain;
use crate::link::cached_names::{CachedNames, FIRST_IN_TASK_ORDER};
use crate::link::final_link::{self, FinalLink};
use crate::link::lookups::{Cache, Lookups};
use crate::sys::process;
use crate::sys::scratch::Scratch;
use nix::sys::signal::Signal;
use shim::cmdline::CommandLine;
use shim::options::Id;
use std::io::{self, IsTerminal};
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// More backends than this may not fail before the link is given up: one may be bad luck.
pub const MAX_FAILURES: usize = 4;

/// What the user asked for, and with what it is done.
#[derive(Debug)]
pub struct Plan<'a> {
    /// The user's own link.
    pub lld: Invocation<'a>,
    /// lld and clang.
    pub toolchain: &'a Toolchain,
    /// How many things at once on this machine.
    pub jobs: usize,
    /// Whether lld would colour its messages, had it our stderr.
    pub colour: bool,
    /// How many backends may fail (and be left to lld) before the link is given up.
    pub max_failures: usize,
    /// Keys, and where objects are kept from link to link; none for a link that tries out the tools.
    pub store: Option<&'a Store>,
    /// A server for backends.
    pub remote: Option<&'a Settings>,
    /// Where objects of backends are kept, and how their names begin.
    pub save_objects: Option<&'a Path>,
}

/// What the split was, for the report.
#[derive(Debug, Default)]
pub struct Done {
    /// lld's exit status.
    pub status: Option<ExitStatus>,
    /// ThinLTO modules.
    pub modules: usize,
    /// Of these, compiled by backends.
    pub compiled: usize,
    /// Of these, found in a cache: the user's own, ours, a server's.
    pub hits: usize,
    /// What a server did.
    pub remote: Option<shim::report::Remote>,
    /// Phases and how long they took.
    pub phases: Vec<(&'static str, Duration)>,
    /// Where backends ran.
    pub executor: &'static str,
}

impl Plan<'_> {
    /// How many backends there may be at once, here and elsewhere.
    #[must_use]
    pub fn width(&self) -> usize {
        self.jobs + self.remote.map_or(0, |r| r.jobs)
    }

    /// The number by which `--lto-obj-path` names a module's object (fact 26): that of its task, and
    /// the first tasks are the regular-LTO part's.
    fn task(&self, module: usize) -> usize {
        let partitions = self.lld.cmd.last(Id::LtoPartitions);
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

    /// How objects from the cache are called, where lld does not call them by their module.
    #[must_use]
    pub fn cached_names(&self) -> Option<CachedNames> {
        let cache = self.cache();
        let private = matches!(cache, Cache::Private(_));
        (private && self.toolchain.major < FIRST_IN_TASK_ORDER)
            .then(|| CachedNames::new(&cache.prefix()))
    }

    /// Where lld looks for objects: in the user's own cache, if the command line has one.
    #[must_use]
    pub fn cache(&self) -> Cache {
        match self.lld.cmd.last(Id::ThinltoCacheDir) {
            Some(dir) if !dir.is_empty() => Cache::Users(dir.to_owned()),
            _ => Cache::Private(self.lld.scratch.cache()),
        }
    }
}

/// Whether lld would colour its messages if it wrote to our stderr: it would if that is a terminal
/// and nobody said otherwise.
#[must_use]
pub fn colours(cmd: &CommandLine) -> bool {
    !cmd.has(Id::ColorDiagnostics) && io::stderr().is_terminal()
}

/// Splits a link.
pub fn split(plan: &Plan<'_>) -> Result<Done, Failure> {
    let mut clock = Clock::start();
    let codegen = Codegen::of(plan.lld.cmd, plan.toolchain.major).map_err(Failure::planned)?;
    check_paths(plan.lld.cmd)?;
    clock.lap("plan");

    let index = Index::run(&plan.lld)?;
    if index.modules.is_empty() {
        return Err(Failure::planned("no ThinLTO module takes part".into()));
    }
    plan.save_names(&index);
    let shards = index
        .modules
        .iter()
        .map(|m| {
            Shard::parse(&m.shard)
                .map_err(|e| Failure::new(format!("shard of {}: {e}", m.identifier.0.display())))
        })
        .collect::<Result<Vec<_>, _>>()?;
    let has_hash: Vec<bool> = index
        .modules
        .iter()
        .zip(&shards)
        .map(|(m, shard)| job::own(m.identifier.0.as_bytes(), shard).is_some_and(|own| own.hashed))
        .collect();
    let hashed = has_hash.iter().filter(|&&has| has).count();
    let total = index.modules.len();
    let ordered = plan.toolchain.major >= FIRST_IN_TASK_ORDER;
    if hashed == 0 || (hashed < total && !ordered) {
        return Err(Failure::planned(format!(
            "{} of {total} modules have no hash: lld {} would not ask for their objects",
            total - hashed,
            plan.toolchain.version
        )));
    }
    clock.lap("index");

    let lookups = Lookups::new(
        final_link::naming(plan.toolchain.major),
        plan.cache(),
        index.modules.iter().map(|m| &m.identifier),
        hashed,
    );
    let link = FinalLink::start(plan, lookups)?;
    let local = |store| Clang {
        clang: &plan.toolchain.clang,
        scratch: plan.lld.scratch,
        jobs: plan.jobs,
        store,
    };
    let remote = plan.remote.zip(plan.store).map(|(settings, store)| Remote {
        local: local(None),
        store,
        settings,
        counts: remote::Counts::default(),
        full: AtomicBool::new(false),
    });
    let here = local(plan.store);
    let executor: &dyn Executor = match &remote {
        Some(remote) => remote,
        None => &here,
    };
    let max_failures = plan.max_failures.min(total / 2);
    let (compiled, hits) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let errors = Mutex::new(Vec::new());
    let ended = std::thread::scope(|scope| {
        scope.spawn(|| {
            // An lld that nobody answers would wait for ever.
            if let Err(why) = shielded(|| link.serve().map_err(|e| Failure::new(e.to_string()))) {
                log::warn!("watching lld: {}", why.reason);
                link.kill(Signal::SIGKILL);
            }
            link.close();
        });
        let backends = || -> Result<(), Failure> {
            let begin = Instant::now();
            let modules = modules::read_all(plan.jobs, plan.lld.scratch, &index)?;
            let jobs = Jobs::of(plan.jobs, &codegen, &index, &shards, &modules)?;
            let ms = begin.elapsed().as_millis();
            log::debug!("{total} modules read in {ms} ms");
            // lld makes no lookup for a module without a hash: it compiles that itself.
            let mut numbers: Vec<usize> = (0..total).collect();
            numbers.retain(|&n| has_hash.get(n) == Some(&true));
            let most = numbers.len();
            let mut queue = link.queue(numbers, &jobs, executor.order());
            executor.run(&Queue::new(&mut *queue, &jobs, most), &|number, result| {
                let failed = match &result {
                    Ok(outcome) => {
                        let count = match outcome {
                            Outcome::Object(object, told) => {
                                plan.save(number, object);
                                if *told == ObjectSource::Cache {
                                    &hits
                                } else {
                                    &compiled
                                }
                            }
                            Outcome::Diagnosed(_) => &compiled,
                        };
                        count.fetch_add(1, Ordering::Relaxed);
                        false
                    }
                    Err(e) => {
                        let mut errors = errors.lock().unwrap_or_else(PoisonError::into_inner);
                        errors.push(e.to_string());
                        errors.len() > max_failures
                    }
                };
                link.finished(number, result);
                if failed {
                    process::kill_backends();
                    link.kill(Signal::SIGTERM);
                }
                !failed
            });
            let mut errors = errors.lock().unwrap_or_else(PoisonError::into_inner);
            if errors.len() > max_failures {
                return Err(Failure::new(errors.swap_remove(0)));
            }
            Ok(())
        };
        let result = shielded(backends);
        if result.is_err() {
            // SIGTERM: lld removes its temporary output.
            link.kill(Signal::SIGTERM);
        }
        link.abandon();
        clock.lap("backends");
        let ended = link.wait();
        process::remove_temporaries();
        clock.lap("final");
        result.and(ended.map_err(|e| Failure::new(format!("waiting for lld: {e}"))))
    })?;
    if !ended.status.success() {
        return Err(Failure::lld("final", ended.status, &link.errors()));
    }
    ended
        .lookups
        .map_err(|why| Failure::new(format!("the final link was not as expected: {why}")))?;
    if let Some(names) = plan.cached_names()
        && let Some(map) = plan.lld.cmd.last(Id::Map)
        && map != "-"
    {
        // The directory's name is unpredictable, so nothing else can look like an entry.
        names
            .replace_in_map(Path::new(map), |_| true)
            .map_err(|e| Failure::new(format!("cannot rewrite {}: {e}", map.display())))?;
    }
    link.show(plan)
        .map_err(|e| Failure::new(format!("cannot show what lld said: {e}")))?;
    Ok(Done {
        status: Some(ended.status),
        modules: total,
        compiled: ended.answered.min(compiled.into_inner()),
        hits: ended.hits + hits.into_inner(),
        executor: executor.name(),
        remote: remote.map(|r| r.counts.told()),
        phases: clock.laps,
    })
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

/// Forwards what the phases could not carry out faithfully.
fn check_paths(cmd: &CommandLine) -> Result<(), Failure> {
    for arg in cmd
        .inputs()
        .chain(cmd.options().map(|o| o.value.as_os_str()))
    {
        let bytes = arg.as_bytes();
        if bytes.contains(&b'\n') {
            return Err(Failure::planned("a path with a newline in it".into()));
        }
        if bytes.ends_with(b".thinlto.bc") {
            return Err(Failure::planned(
                "a path that ends in .thinlto.bc, as lld's index files do".into(),
            ));
        }
        let parents = bytes
            .split(|&b| b == b'/')
            .filter(|part| *part == b"..")
            .count();
        if parents >= Scratch::max_parents() {
            return Err(Failure::planned("a path with too many ..".into()));
        }
    }
    Ok(())
}

/// Runs `f`; a panic in it, which would be a bug of ours, is a failure like others.
fn shielded<T>(f: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    catch_unwind(AssertUnwindSafe(f))
        .unwrap_or_else(|_| Err(Failure::new("a bug in ldwrap, see above".into())))
}

/// Measures phases.
#[derive(Debug)]
struct Clock {
    last: Instant,
    laps: Vec<(&'static str, Duration)>,
}

impl Clock {
    fn start() -> Self {
        Self {
            last: Instant::now(),
            laps: Vec::new(),
        }
    }

    fn lap(&mut self, phase: &'static str) {
        let now = Instant::now();
        self.laps.push((phase, now - self.last));
        self.last = now;
    }
}

/// Runs `f` with a scratch directory that a signal removes too.
pub fn with_scratch<T>(f: impl FnOnce(&Scratch) -> T) -> io::Result<T> {
    let scratch = process::make_scratch(Scratch::new)?;
    let result = f(&scratch);
    // In this order: a signal in between has it removed twice rather than not at all.
    drop(scratch);
    process::forget_scratch();
    Ok(result)
}

/// The number of backends at once: the setting, or lld's own (`--thinlto-jobs`, `--threads`), or the
/// processors that we may use.
#[must_use]
pub fn default_jobs(config: &shim::config::Config, cmd: Option<&CommandLine>) -> usize {
    // "all" is all processors.
    let users = || {
        cmd?.thinlto_jobs()?
            .to_str()?
            .parse()
            .ok()
            .filter(|&n: &usize| n > 0)
    };
    config
        .jobs
        .or_else(users)
        .or_else(|| std::thread::available_parallelism().ok().map(usize::from))
        .unwrap_or(1)
}
