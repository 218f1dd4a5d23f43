//! What is kept from link to link: objects, and digests of files.

pub mod context;
pub mod digest;
pub mod files;
pub mod objects;
