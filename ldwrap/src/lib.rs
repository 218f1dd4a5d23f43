//! ThinLTO links with the bytes that lld alone writes, their backends from a cache, here or elsewhere.
//!
//! | folder | what it owns |
//! |---|---|
//! | [`app`] | the linker's entry, the subcommands |
//! | [`link`] | one link from start to end |
//! | [`watch`] | the watched lld: filter, calls, answers |
//! | [`admit`] | who may compile now: jobserver, slots, memory |
//! | [`executor`] | backends as processes here or on a server |
//! | [`jobs`] | a link as jobs: index, modules, code generation |
//! | [`cache`] | objects and digests, from link to link |
//! | [`sys`] | processes, signals, scratch directories, threads |
//!
//! Each may use those below it, and none above.

#![deny(clippy::print_stderr)]

pub(crate) mod admit;
pub mod app;
pub(crate) mod cache;
pub mod executor;
pub mod jobs;
pub mod link;
pub mod sys;
pub(crate) mod watch;
