//! The harness of the end-to-end tests: a test reads as a session at a shell.
//!
//! A [`Session`] is a private directory, one LLVM version and an installed ldwrap.
//! [`Session::link_both`] runs one command twice, first with the real lld, then with the shim in
//! its place, and gives a [`LinkPair`] to compare. The real lld is the oracle: exit status, stdout,
//! stderr and every file that the link wrote have to be equal, so a test seldom says what it
//! expects beyond "splits" or "left to lld".
//!
//! Why a shell: drivers, quoting and odd file names are part of what is tested, and a failed test
//! can be repeated by hand. The commands see
//!
//! | variable | plain link | through ldwrap |
//! |---|---|---|
//! | `$N` | LLVM's major version | the same |
//! | `$OUT` | `a.out`, the output of both links, since its name can change bytes | the same |
//! | `$LD` | `ld.lld-N` | the shim of that name |
//! | `$LDLLD` | LLVM's `ld.lld` | the shim of that name |
//! | `$LDWRAP` | lld by the name of `ldwrap` | `ldwrap` |
//! | `$COMPILER_PATH` | LLVM's directory | the shim's (docs/lld.md, "Finding the linker") |
//! | `$FIXTURES` | the folder `tests/fixtures` | the same |
//!
//! The tests themselves read a few variables:
//!
//! - `LDWRAP_TEST_BIN_DIR`: where the binaries `shim` and `ldwrap` are; by default the workspace's target
//!   directory, the newer of release and debug.
//! - `LDWRAP_LLVM`: the versions to test, by default `14 16 19 22`.
//! - `LDWRAP_TEST_KEEP`: keep the directories of failed sessions, and say where they are.
//! - `LDWRAP_TEST_FIXTURES`: test the fixtures alone. lld takes the place of ldwrap, and nothing is
//!   asserted about splitting; for a new LLVM version, or a new test.

pub mod browser;
mod compile;
mod link;
mod llvm;
pub mod remote;
mod run;
mod session;
pub mod sources;

pub use link::{LENIENT, LinkPair};
pub use llvm::{
    each_llvm, each_llvm_with_shim, fixtures_only, llvm_22_with_shim, newest_llvm,
    oldest_and_newest_with_shim, rust_tools, some_llvm,
};
pub use run::Run;
pub use session::{Session, wait};
