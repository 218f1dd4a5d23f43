//! A link as jobs that can run anywhere: the index, modules, what each backend reads and is told.

pub(crate) mod action;
pub mod bitcode;
pub(crate) mod codegen;
pub(crate) mod description;
pub(crate) mod expected_object;
pub(crate) mod failure;
pub(crate) mod index;
pub(crate) mod invocation;
pub(crate) mod job;
pub(crate) mod job_file;
pub(crate) mod layout;
pub(crate) mod locality;
pub(crate) mod modules;
pub(crate) mod outcome;
pub(crate) mod quirks;
pub(crate) mod shipped;
pub(crate) mod store;
pub(crate) mod toolchain;
