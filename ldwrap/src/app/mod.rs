//! What `ldwrap` is called for: as the linker, or as our tool.

pub mod cache;
pub mod cli;
pub mod doctor;
pub mod explain;
pub mod linker;
pub mod manual;
pub mod settings;
pub mod verify;
