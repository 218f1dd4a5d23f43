//! What the shim and ldwrap share: lld's command line, its inputs, and the decision whether a link
//! is forwarded to lld as it is.
//!
//! Data flows one way: argv -> [`cmdline::CommandLine`] -> [`inputs`] -> [`decide::Decision`].
//! Nothing here knows of jobs, clang or the network.

#![deny(clippy::print_stderr)]

pub mod archive;
pub mod cmdline;
pub mod compiler;
pub mod config;
pub mod decide;
pub mod effects;
mod files;
pub mod inputs;
pub mod kind;
pub mod lld;
mod llvm_path;
pub mod message;
pub mod options;
pub mod read_settings;
pub mod report;
pub mod response;
pub mod script;
pub mod settings;
pub mod stats_log;
pub mod user_dir;
