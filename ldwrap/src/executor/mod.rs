//! Where backends run, behind one small trait.

pub mod board;
pub mod clang;
pub mod order;
pub mod remote;

use crate::jobs::job::{Job, Jobs};
pub use crate::jobs::outcome::{BackendError, ObjectSource, Outcome};
pub use order::Order;
use std::fs::File;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Backends to run, in the order in which they are best begun. A thread that asks for the next may
/// have to wait: some are there only once lld has looked for their objects.
pub struct Queue<'a> {
    numbers: Mutex<&'a mut (dyn Iterator<Item = usize> + Send)>,
    jobs: &'a Jobs<'a>,
    most: usize,
}

impl<'a> Queue<'a> {
    /// A queue of these of a link's jobs, at most so many.
    pub fn new(
        numbers: &'a mut (dyn Iterator<Item = usize> + Send),
        jobs: &'a Jobs<'a>,
        most: usize,
    ) -> Self {
        Self {
            numbers: Mutex::new(numbers),
            jobs,
            most,
        }
    }

    /// The next job, made by the calling thread, or none any more. One that cannot be made is reported
    /// to `done`, and so on.
    pub fn next(&self, done: Done<'_>) -> Option<Job> {
        loop {
            let number = self
                .numbers
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .next()?;
            match self.jobs.make(number) {
                Ok(job) => return Some(job),
                Err(e) => {
                    if !done(number, Err(e)) {
                        return None;
                    }
                }
            }
        }
    }

    /// How many jobs there are at most.
    #[must_use]
    pub fn most(&self) -> usize {
        self.most
    }
}

/// Takes what became of the job of a number; false when no more are to be begun.
pub type Done<'d> = &'d (dyn Fn(usize, Result<Outcome, BackendError>) -> bool + Sync);

/// A lookup that one of lld's threads waits in: the number of its job, if that is known, and how long it
/// has waited.
pub type Waiting = (Option<usize>, Duration);

/// Runs backends, beside lld's own threads, which can compile what they have looked for.
pub trait Executor: Send + Sync {
    /// Its name in the report.
    fn name(&self) -> &'static str;

    /// In which order it is best given jobs.
    fn order(&self) -> Order<'_>;

    /// Runs all jobs and calls `done` with a job's number as soon as it has ended, from any thread.
    /// Returns when all have been reported, or soon after `done` said false or [`Executor::stop`] was
    /// called.
    fn run(&self, jobs: &Queue<'_>, done: Done<'_>);

    /// Nothing more is to be done.
    fn stop(&self);

    /// Which of these is best compiled by lld's own thread now, if any: its position.
    fn choose_here(&self, waiting: &[Waiting]) -> Option<usize>;

    /// lld's own thread compiles this job.
    fn begun_here(&self, number: usize);

    /// lld has the object of this job without us: from a cache, or made by itself, which `object` is.
    fn done_here(&self, number: usize, object: Option<&File>);

    /// Whether this job is still to be done.
    fn wants(&self, number: usize) -> bool;

    /// What a server did.
    fn report(&self) -> Option<shim::report::Remote> {
        None
    }
}
