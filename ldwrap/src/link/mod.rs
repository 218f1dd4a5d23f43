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

/// A policy that prunes nothing and therefore warns about nothing: each limit off
/// (llvm/include/llvm/Support/CachePruning.h).
const NO_PRUNING: &str =
    "--thinlto-cache-policy=prune_after=0s:cache_size=0%:cache_size_bytes=0:cache_size_files=0";
