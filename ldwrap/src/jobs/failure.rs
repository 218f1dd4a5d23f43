//! Why no jobs are made of a link, or no more of them.

use crate::sys::process::first_error_line;
use std::process::ExitStatus;

/// Why no jobs are made of a link, or no more of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// For the report, the log and, under `LDWRAP_STRICT`, the user.
    pub reason: String,
    /// The link is not one for jobs, rather than one that went wrong: no error, however strict.
    pub planned: bool,
}

impl Failure {
    /// Something went wrong.
    #[must_use]
    pub fn new(reason: String) -> Self {
        let planned = false;
        Self { reason, planned }
    }

    /// lld ended badly in a phase, and said this.
    #[must_use]
    pub fn lld(phase: &str, status: ExitStatus, said: &[u8]) -> Self {
        let said = String::from_utf8_lossy(said);
        Self::new(format!(
            "lld failed in the {phase} phase ({status}): {}",
            first_error_line(&said)
        ))
    }

    /// A link of which no jobs are to be made.
    #[must_use]
    pub fn planned(reason: String) -> Self {
        let planned = true;
        Self { reason, planned }
    }
}
