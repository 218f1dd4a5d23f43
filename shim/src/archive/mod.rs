//! Archives, regular and thin, read by their headers alone.
//!
//! [`Archive`] reads members, [`locate`] finds the one that an identifier of lld's means.
//!
//! Why not `object::read::archive`: over a slice it wants the archive mapped, over its `ReadCache` each
//! header costs a seek, a read and an allocation that is kept, and every plain link would pay that. It
//! does not tell where a member's header is, which is what identifiers have. And it takes archives that
//! LLVM refuses, such as one whose last member is cut off; what counts here is what lld takes
//! (llvm/lib/Object/Archive.cpp). The tests compare the two on well-formed archives.

mod error;
mod identifier;
mod reader;
#[cfg(test)]
mod tests;
mod window;

pub use error::{ArchiveError, Fault};
pub use identifier::{ModuleBytes, locate};
pub use reader::{Archive, Member, MemberHeader};
