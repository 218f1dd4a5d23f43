//! What goes wrong with inputs.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::archive::ArchiveError;
use crate::script::ScriptError;

/// An input that could not be found, read or understood. The link is to be forwarded.
#[derive(Debug)]
pub struct InputError {
    /// The input: as given when it was not found, its path otherwise.
    pub path: PathBuf,
    /// What is wrong with it.
    pub fault: InputFault,
}

/// The ways in which finding the inputs fails.
#[derive(Debug)]
pub enum InputFault {
    /// The file can't be opened or read.
    Io(io::Error),
    /// No search path has it.
    NotFound(&'static str),
    /// An archive that can't be read.
    Archive(ArchiveError),
    /// A linker script, or what lld takes for one.
    Script(ScriptError),
    /// Only lld itself does the right thing with it.
    Unsupported(&'static str),
}

impl fmt::Display for InputError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match &self.fault {
            InputFault::Io(e) => write!(f, "cannot read the input {path}: {e}"),
            InputFault::NotFound(what) => write!(f, "cannot find the {what} {path}; check -L"),
            InputFault::Archive(e) => e.fmt(f),
            InputFault::Script(e) => write!(f, "cannot read {path} as a linker script: {e}"),
            InputFault::Unsupported(what) => write!(f, "the input {path} needs lld alone: {what}"),
        }
    }
}

impl std::error::Error for InputError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.fault {
            InputFault::Io(e) => Some(e),
            InputFault::Archive(e) => Some(e),
            InputFault::Script(e) => Some(e),
            InputFault::NotFound(_) | InputFault::Unsupported(_) => None,
        }
    }
}

impl From<ArchiveError> for InputError {
    fn from(e: ArchiveError) -> InputError {
        InputError {
            path: e.path.clone(),
            fault: InputFault::Archive(e),
        }
    }
}

/// The error that `path` has this fault.
pub(super) fn fail<T, E: From<InputError>>(path: &Path, fault: InputFault) -> Result<T, E> {
    let path = path.to_path_buf();
    Err(InputError { path, fault }.into())
}
