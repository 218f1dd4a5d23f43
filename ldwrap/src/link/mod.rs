//! One link from its start to its end: with lld's own threads ([`local`]), or as jobs ([`split`]).

pub mod code_options;
pub mod final_link;
pub mod local;
pub mod lookups;
pub mod selftest;
pub mod split;
