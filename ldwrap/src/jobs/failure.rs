//! Why a link is not split.

use std::process::ExitStatus;

/// Why a link was not split after all.
#[derive(Debug)]
pub struct Failure {
    /// For the report, the log and, under `LDWRAP_STRICT`, the user.
    pub reason: String,
    /// What the real lld said, where it was it that failed.
    pub said: Vec<u8>,
    /// The link is not one to be split, rather than a split that went wrong: no error, however
    /// strict.
    pub planned: bool,
}

impl Failure {
    /// A failure of our own.
    #[must_use]
    pub fn new(reason: String) -> Self {
        Self {
            reason,
            said: Vec::new(),
            planned: false,
        }
    }

    /// lld ended badly in a phase.
    #[must_use]
    pub fn lld(phase: &str, status: ExitStatus, said: &[u8]) -> Self {
        Self {
            reason: format!("lld failed in the {phase} phase ({status})"),
            said: said.to_vec(),
            planned: false,
        }
    }

    /// A link that is not to be split.
    #[must_use]
    pub fn planned(reason: String) -> Self {
        Self {
            planned: true,
            ..Self::new(reason)
        }
    }
}
