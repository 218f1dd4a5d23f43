//! What is kept from link to link: objects, and digests of files.

pub(crate) mod context;
pub(crate) mod digest;
pub(crate) mod files;
pub(crate) mod objects;
