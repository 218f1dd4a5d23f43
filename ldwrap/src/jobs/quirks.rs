//! What differs between versions of LLVM, beside the grammar of lld's options ([`shim::options`]): each by the first
//! major version that does it otherwise. A version that we do not know yet counts as the newest that we know.

/// lld names each backend by a file that its thread opens before its lookup (`--thinlto-emit-index-files`).
pub const OPENS_INDEX_FILES: u32 = 16;
/// Relaxed relocations (`--mrelax-relocations`) are cc1's default, as they are lld's in all versions.
pub const RELAXED_RELOCATIONS: u32 = 15;
/// cc1 writes XRay's index by default, as lld does.
pub const XRAY_INDEX: u32 = 17;
/// lld's cache keys have the modules that a module imports from in the order of their hashes, and no more in one that
/// their names decide (`computeLTOCacheKey`, llvm/lib/LTO/LTO.cpp).
pub const KEYS_LACK_IMPORT_ORDER: u32 = 17;
/// lld names all objects by their modules, and puts them in task order; before, it names those from a cache by
/// their entries, and puts them behind those that it compiled without a lookup.
pub const CACHED_OBJECTS_IN_TASK_ORDER: u32 = 18;
/// `--lto-basic-block-sections=labels` is deprecated: cc1 does not have it.
pub const NO_LABELS: u32 = 20;
/// cc1 takes `-fprofile-instrument-use=KIND` instead of looking into the profile.
pub const PROFILE_KIND: u32 = 22;
/// The library of vector functions is a field of `TargetOptions`; before, a switch of `TargetLibraryInfo`.
pub const VECTOR_LIBRARY: u32 = 22;
