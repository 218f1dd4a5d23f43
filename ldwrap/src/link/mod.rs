//! One link from its start to its end: one lld, watched ([`engine`]), and beside it those who make objects
//! elsewhere ([`jobs_thread`]).

pub mod attribution;
pub mod backends;
pub mod cache_writer;
pub mod cached_names;
pub mod code_options;
pub mod compared_files;
pub mod eligibility;
pub mod engine;
pub mod events;
pub mod exchange;
pub mod import_orders;
pub mod inputs_read;
pub mod jobs_thread;
pub mod lookup_dir;
pub mod old_lld;
pub mod output;
pub mod rerun;
pub mod selftest;

/// A policy that prunes nothing and therefore warns about nothing: each limit off
/// (llvm/include/llvm/Support/CachePruning.h).
const NO_PRUNING: &str =
    "--thinlto-cache-policy=prune_after=0s:cache_size=0%:cache_size_bytes=0:cache_size_files=0";
