//! What became of a job.

use super::index::ModuleIdentifier;
use std::path::PathBuf;
use thiserror::Error;

/// What a backend came to.
#[derive(Debug)]
pub enum Outcome {
    /// A finished object, and whether it was there before.
    Object(PathBuf, ObjectSource),
    /// The compiler had something to say. In-process lld says it in its own words and order, so this
    /// module is left to it.
    Diagnosed(String),
    /// There is none, for this reason: the module is left to lld.
    Absent(String),
}

/// Where an object comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObjectSource {
    /// A cache had it.
    Cache,
    /// It was compiled for this link.
    Compiled,
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

impl BackendError {
    /// A module's.
    #[must_use]
    pub fn of(module: &ModuleIdentifier, why: String) -> Self {
        Self {
            module: module.to_string(),
            why,
        }
    }
}
