//! One link from its start to its end: with lld's own threads ([`local`]), or as jobs ([`split`]).

pub mod alone;
pub mod backends;
pub mod cached_names;
pub mod code_options;
pub mod final_link;
pub mod inputs_read;
pub mod keeper;
pub mod local;
pub mod lookups;
pub mod old_lld;
pub mod selftest;
pub mod split;
