//! One link from its start to its end: one lld, watched ([`engine`]), and beside it those who make objects
//! elsewhere ([`supply`]).

pub mod alone;
pub mod attribution;
pub mod backends;
pub mod cached_names;
pub mod code_options;
pub mod eligibility;
pub mod elsewhere;
pub mod engine;
pub mod entries;
pub mod inputs_read;
pub mod keeper;
pub mod old_lld;
pub mod output;
pub mod selftest;
pub mod supply;

/// A policy that prunes nothing and therefore warns about nothing: each limit off
/// (llvm/include/llvm/Support/CachePruning.h).
const NO_PRUNING: &str =
    "--thinlto-cache-policy=prune_after=0s:cache_size=0%:cache_size_bytes=0:cache_size_files=0";
