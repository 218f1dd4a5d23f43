//! What goes wrong with archives.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// What is wrong with an archive, and where.
#[derive(Debug)]
pub struct ArchiveError {
    /// The archive.
    pub path: PathBuf,
    /// Where in it, in bytes from its start.
    pub offset: u64,
    /// What is wrong.
    pub fault: Fault,
}

/// The ways in which reading an archive fails.
#[derive(Debug)]
pub enum Fault {
    /// The file, or that of a thin member, can't be read.
    Io(io::Error),
    /// The bytes are no archive that LLVM reads.
    Malformed(&'static str),
    /// A module identifier names nothing, or more than one thing.
    Identifier(&'static str),
}

impl fmt::Display for ArchiveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match &self.fault {
            Fault::Io(e) => write!(f, "cannot read {path} at offset {}: {e}", self.offset),
            Fault::Malformed(what) => write!(
                f,
                "{path} is no valid archive: {what} at offset {}; build it again",
                self.offset
            ),
            Fault::Identifier(what) => write!(f, "cannot find the module {path}: {what}"),
        }
    }
}

impl std::error::Error for ArchiveError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.fault {
            Fault::Io(e) => Some(e),
            _ => None,
        }
    }
}
