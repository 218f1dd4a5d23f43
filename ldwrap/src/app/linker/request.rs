//! A link that is to be split, how it was done, and what every link has from the settings.

use crate::cache::files::FileDigests;
use crate::cache::objects::Cache;
use crate::jobs::failure::Failure;
use crate::link::engine::{LinkOutcome, ObjectReceiver};
use crate::link::events::Events;
use crate::link::jobs_thread::JobsSummary;
use shim::cmdline::CommandLine;
use shim::config::Config;
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::time::Instant;

/// A link that is to be split.
#[derive(Clone, Copy)]
pub(crate) struct Request<'a> {
    /// `argv[0]` as lld is to see it.
    pub(crate) argv0: &'a OsStr,
    /// The rest.
    pub(crate) args: &'a [OsString],
    /// The real lld.
    pub(crate) real: &'a Path,
    /// The settings.
    pub(crate) config: &'a Config,
    /// Bytes, as far as they were counted.
    pub(crate) bitcode: u64,
    /// How many modules it has at most, if that was counted.
    pub(crate) modules: Option<usize>,
    /// When it came.
    pub(crate) start: Instant,
    /// Who takes the objects, where these are wanted and no output.
    pub(crate) objects: Option<&'a dyn ObjectReceiver>,
}

/// How a link was done.
pub(super) struct Outcome {
    pub(super) done: LinkOutcome,
    /// What was done elsewhere, if anyone was there for it.
    pub(super) supplied: Option<JobsSummary>,
    /// Why nothing, or no more, came from elsewhere, where that was asked for.
    pub(super) failure: Option<Failure>,
    pub(super) events: Events,
    /// Identifiers of modules by their numbers, where the trace needs them.
    pub(super) identifiers: Vec<Vec<u8>>,
}

/// The number of backends at once: the setting, or lld's own (`--thinlto-jobs`, `--threads`), or the
/// processors that we may use.
pub(crate) fn default_jobs(config: &Config, cmd: Option<&CommandLine>) -> usize {
    let users = || {
        let jobs = usize::try_from(cmd?.thinlto_job_count()?).ok();
        jobs.filter(|&n| n > 0)
    };
    config
        .jobs
        .or_else(users)
        .or_else(|| std::thread::available_parallelism().ok().map(usize::from))
        .unwrap_or(1)
}

/// Digests of files, remembered where there is a cache directory.
pub(super) fn files(config: &Config) -> FileDigests {
    let memory = config.cache_dir.as_deref().map(|dir| dir.join("digests"));
    memory.map(FileDigests::recorded_in).unwrap_or_default()
}

/// The local cache, unless there is to be none.
pub(super) fn cache(config: &Config) -> Option<Cache> {
    match config.cache_size {
        0 => None,
        limit => config
            .cache_dir
            .as_deref()
            .map(|dir| Cache::new(dir, limit)),
    }
}
