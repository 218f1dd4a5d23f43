//! What `ldwrap` is called for: as the linker, or as our tool.

pub mod cli;
pub mod explain;
pub mod linker;
pub mod verify;
