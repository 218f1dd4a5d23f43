//! Why no jobs are made of a link, or no more of them.

use crate::sys::process::first_error_line;
use std::path::Path;
use std::process::ExitStatus;
use thiserror::Error;

/// Why no jobs are made of a link, or no more of them: for the report, the log and, under `LDWRAP_STRICT`, the user.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Failure {
    /// The link is not one for jobs: no error, however strict.
    #[error("{0}")]
    Declined(String),
    /// Something went wrong.
    #[error("{0}")]
    Failed(String),
    /// lld ended badly in a phase of ours.
    #[error("lld failed in the {phase} phase ({status}): {}", first_error_line(.messages))]
    Lld {
        /// Which.
        phase: &'static str,
        /// How it ended.
        status: ExitStatus,
        /// What it said on standard error.
        messages: String,
    },
}

impl Failure {
    /// A file has changed while it was linked, and jobs may not be made from what lld has read.
    #[must_use]
    pub fn changed(file: &Path) -> Self {
        Self::Failed(format!("{} has changed during the link", file.display()))
    }

    /// A file may have changed while it was linked, without another time on it.
    #[must_use]
    pub fn unsteady(file: &Path) -> Self {
        let file = file.display();
        let why = "its time is too near to the link's, or in the future";
        Self::Declined(format!(
            "it cannot be told whether {file} has changed during the link: {why}"
        ))
    }

    /// Whether the link is not one for jobs, rather than one that went wrong.
    #[must_use]
    pub fn is_declined(&self) -> bool {
        matches!(self, Self::Declined(_))
    }
}
