//! Archives, regular and thin, read by their headers alone.
//!
//! [`Archive`] reads members, [`locate`] finds the one that an identifier of lld's means.
//!
//! Why not `object::read::archive`: over a slice it wants the archive mapped, over its `ReadCache` each
//! header costs a seek, a read and an allocation that is kept, and every plain link would pay that. It
//! does not tell where a member's header is, which is what identifiers have. And it takes archives that
//! LLVM refuses, such as one whose last member is cut off; what counts here is what lld takes
//! (llvm/lib/Object/Archive.cpp). The tests compare the two on well-formed archives.

mod identifier;
mod reader;
#[cfg(test)]
mod tests;
mod window;

pub use identifier::{ModuleBytes, locate};
pub use reader::{Archive, Member, MemberHeader};

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
