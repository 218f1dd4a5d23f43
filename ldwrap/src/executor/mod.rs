//! Where backends run other than in lld's own threads, behind one small trait.

pub(crate) mod board;
pub(crate) mod clang;
pub(crate) mod distributor;
pub(crate) mod object_dir;
pub(crate) mod order;
pub(crate) mod remote;
pub(crate) mod tuning;

use crate::jobs::job::{Job, Jobs, Names};
pub(crate) use crate::jobs::outcome::{BackendError, FinishedObject, ObjectSource, Outcome};
use crate::sys::parallel;
use crate::sys::sync::lock;
use std::fs::File;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The jobs that an executor is to run, in the order in which they are best begun.
///
/// Jobs are made one by one, since each holds a copy of its shard. Asking for the next may block: some are
/// known only once lld has looked for their objects.
pub struct JobQueue<'a> {
    numbers: Mutex<&'a mut (dyn Iterator<Item = usize> + Send)>,
    jobs: &'a Jobs<'a>,
    max_jobs: usize,
}

impl<'a> JobQueue<'a> {
    /// The jobs of these numbers, which are at most `max_jobs`.
    pub(crate) fn new(
        numbers: &'a mut (dyn Iterator<Item = usize> + Send),
        jobs: &'a Jobs<'a>,
        max_jobs: usize,
    ) -> Self {
        Self {
            numbers: Mutex::new(numbers),
            jobs,
            max_jobs,
        }
    }

    /// The next job, made by the calling thread; `None` when there are no more. A job that cannot be made is
    /// reported and skipped.
    pub(crate) fn next(&self, report: ReportOutcome<'_>) -> Option<Job> {
        loop {
            let number = lock(&self.numbers).next()?;
            match self.jobs.make(number, Names::Own) {
                Ok(job) => return Some(job),
                Err(e) => {
                    if !report(number, Err(e)) {
                        return None;
                    }
                }
            }
        }
    }

    /// The job of this number as one that runs in a directory with others.
    pub(crate) fn in_shared_directory(&self, number: usize) -> Result<Job, BackendError> {
        self.jobs.make(number, Names::Shared)
    }

    /// Has all jobs done by `run`, on so many threads at most, and reports each. Ends early when `stopped` is set, which
    /// it does itself when no more jobs are to be begun.
    pub(crate) fn run_all(
        &self,
        threads: usize,
        stopped: &AtomicBool,
        report: ReportOutcome<'_>,
        run: impl Fn(&Job) -> Result<Outcome, BackendError> + Sync,
    ) {
        let work = || {
            while let Some(job) = self.next(report) {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                if !report(job.number, run(&job)) {
                    stopped.store(true, Ordering::Relaxed);
                }
            }
        };
        parallel::run(threads.min(self.max_jobs), work);
    }

    /// How many jobs there are at most.
    pub(crate) fn max_jobs(&self) -> usize {
        self.max_jobs
    }
}

/// Takes the outcome of the job of a number; returns false when no more jobs are to be begun.
pub type ReportOutcome<'r> = &'r (dyn Fn(usize, Result<Outcome, BackendError>) -> bool + Sync);

/// A cache lookup that one of lld's threads waits in.
#[derive(Debug, Clone, Copy)]
pub struct WaitingLookup {
    /// The number of the module's job, if that is known.
    pub(crate) job: Option<usize>,
    /// How long the thread has waited.
    pub(crate) waited: Duration,
}

/// Runs backends beside lld's own threads, which can compile every module whose object they have looked for.
///
/// Jobs are identified by number: the position of their module in task order.
pub trait Executor: Send + Sync {
    /// Runs all jobs and reports each as soon as it has ended, from any thread. Returns when all have been
    /// reported, or soon after `report` returned false or [`Executor::stop`] was called.
    fn run(&self, jobs: &JobQueue<'_>, report: ReportOutcome<'_>);

    /// Nothing more is to be done.
    fn stop(&self);

    /// The position of the lookup whose thread is to compile its module now, if any. By default none: lld's threads
    /// compile only what has been reported without an object.
    fn choose_lookup(&self, _lookups: &[WaitingLookup]) -> Option<usize> {
        None
    }

    /// lld's own thread has begun to compile the module of this job.
    fn local_started(&self, _number: usize) {}

    /// lld has the object of this job: from its own cache, or made by itself, and then `object` is that and how long it
    /// took.
    fn local_finished(&self, _number: usize, _object: Option<(&File, Duration)>) {}

    /// Whether this job is still to be done.
    fn wants(&self, number: usize) -> bool;

    /// What a server did, if there is one.
    fn remote_report(&self) -> Option<shim::report::Remote> {
        None
    }
}
