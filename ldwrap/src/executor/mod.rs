//! Where backends run, behind one small trait.

pub mod local;

use crate::backend::Job;
use std::path::PathBuf;
use thiserror::Error;

/// What a backend came to.
#[derive(Debug)]
pub enum Outcome {
    /// A finished object.
    Object(PathBuf),
    /// The compiler had something to say. In-process lld says it in its own words and order, so this
    /// module is left to it.
    Diagnosed(String),
}

/// A backend that did not come to an end.
#[derive(Debug, Error)]
#[error("backend of {module}: {why}")]
pub struct BackendError {
    /// The module, as lld names it.
    pub module: String,
    /// What went wrong.
    pub why: String,
}

/// Runs backends.
pub trait Executor: Sync {
    /// Its name in the report.
    fn name(&self) -> &'static str;

    /// Runs all jobs, in any order, and calls `done` with a job's number as soon as it has ended,
    /// from any thread. Returns when all have been reported, or soon after `done` said false.
    fn run(
        &self,
        jobs: Vec<Job>,
        done: &(dyn Fn(usize, Result<Outcome, BackendError>) -> bool + Sync),
    );
}
