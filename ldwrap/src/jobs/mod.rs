//! A link as jobs that can run anywhere: the index, modules, what each backend reads and is told.

pub mod action;
pub mod bitcode;
pub mod codegen;
pub mod failure;
pub mod index;
pub mod invocation;
pub mod job;
pub mod locality;
pub mod modules;
pub mod outcome;
pub mod shipped;
pub mod store;
pub mod toolchain;
