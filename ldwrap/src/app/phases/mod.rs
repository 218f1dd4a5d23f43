//! The three phases of a distributed ThinLTO link as commands, for build systems that run backends themselves.
//!
//! `ldwrap index` makes the thin link and describes each backend, `ldwrap backend` makes one object, `ldwrap final`
//! links with these objects. The last is a link like any other of ours: it looks at everything again, and whatever
//! object is missing or stale lld compiles itself, so that a wrong rule in a build costs time and not a wrong program.

pub(crate) mod backend;
mod emit;
pub(crate) mod final_link;
pub(crate) mod graph;
pub(crate) mod index;
mod make;
mod ninja;
