//! What became of a job.

use super::index::ModuleIdentifier;
use std::path::PathBuf;
use std::time::Duration;
use thiserror::Error;

/// What a backend came to.
#[derive(Debug)]
pub enum Outcome {
    /// A finished object.
    Object(FinishedObject),
    /// The compiler had something to say. In-process lld says it in its own words and order, so this
    /// module is left to it.
    Diagnosed(String),
    /// There is none, for this reason: the module is left to lld.
    Absent(String),
}

/// An object that lld need not make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FinishedObject {
    /// The file.
    pub path: PathBuf,
    /// Where it comes from.
    pub source: ObjectSource,
    /// How long it took to compile, if that is known; of a cached object, when it was made.
    pub took: Option<Duration>,
}

/// Where an object comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObjectSource {
    /// A cache had it, this machine's or a server's.
    Cache,
    /// A clang process of this machine compiled it for this link.
    Clang,
    /// A server, or somebody's distributor, compiled it for this link.
    Elsewhere,
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
