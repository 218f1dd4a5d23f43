//! Where backends run, behind one small trait.

pub mod board;
pub mod clang;
pub mod order;
pub mod remote;

use crate::jobs::job::{Job, Jobs};
pub use crate::jobs::outcome::{BackendError, ObjectSource, Outcome};
pub use order::Order;
use std::sync::{Mutex, PoisonError};

/// Backends to run, in the order in which they are best begun. A thread that asks for the next may
/// have to wait: with the user's own cache, a backend is there once lld has missed its object.
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

/// Runs backends.
pub trait Executor: Sync {
    /// Its name in the report.
    fn name(&self) -> &'static str;

    /// In which order it is best given jobs.
    fn order(&self) -> Order<'_>;

    /// Runs all jobs and calls `done` with a job's number as soon as it has ended,
    /// from any thread. Returns when all have been reported, or soon after `done` said false.
    fn run(&self, jobs: &Queue<'_>, done: Done<'_>);
}
