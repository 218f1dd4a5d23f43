//! The split: a ThinLTO link as index, backends and final link, with the bytes that lld alone
//! writes. [`link`] tells the story; each phase is a file.

pub mod action;
pub mod backend;
pub mod bitcode;
pub mod cache;
pub mod cli;
pub mod codegen;
pub mod executor;
pub mod explain;
pub mod files;
pub mod final_link;
pub mod index;
pub mod link;
pub mod linker;
pub mod locality;
pub mod lookups;
pub mod modules;
pub mod parallel;
pub mod process;
pub mod scratch;
pub mod selftest;
pub mod shipped;
pub mod store;
pub mod supervise;
pub mod toolchain;
pub mod verify;
