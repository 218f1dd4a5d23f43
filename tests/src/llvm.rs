//! Which LLVM versions a test runs with.

use crate::Session;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs `test` with each LLVM version; all of them run, and the failure names those that failed.
pub fn each_llvm(test: impl Fn(&Session)) {
    some_llvm(|_| true, test);
}

/// Runs `test` with the LLVM versions for which `wanted` holds.
///
/// For what older versions do not have at all; the caller says why at the call.
pub fn some_llvm(wanted: impl Fn(u32) -> bool, test: impl Fn(&Session)) {
    let mut failed = Vec::new();
    for llvm in llvm_versions().into_iter().filter(|&n| wanted(n)) {
        eprintln!("---- LLVM {llvm}");
        let result = catch_unwind(AssertUnwindSafe(|| test(&Session::new(llvm))));
        if result.is_err() {
            failed.push(llvm);
        }
    }
    assert!(failed.is_empty(), "failed with LLVM {failed:?}");
}

/// Runs `test` with each LLVM version; not at all when only fixtures are tested.
///
/// For tests that are about ldwrap alone and so have no plain link to look at.
pub fn each_llvm_with_shim(test: impl Fn(&Session)) {
    if fixtures_only() {
        eprintln!("LDWRAP_TEST_FIXTURES is set: this test is about ldwrap alone");
        return;
    }
    each_llvm(test);
}

/// Runs `test` with LLVM 22; not at all when only fixtures are tested.
///
/// For what is about ldwrap alone, and the same with each version.
pub fn llvm_22_with_shim(test: impl Fn(&Session)) {
    if !fixtures_only() {
        some_llvm(|n| n == 22, test);
    }
}

/// Runs `test` with the oldest and the newest LLVM of those that are tested; not at all when only fixtures are tested.
///
/// For what ldwrap does with processes, whose LLVM has no say in it: with the oldest and the newest both ways to follow lld are tried.
pub fn oldest_and_newest_with_shim(test: impl Fn(&Session)) {
    let versions = llvm_versions();
    let ends = [
        versions.iter().min().copied(),
        versions.iter().max().copied(),
    ];
    if !fixtures_only() {
        some_llvm(|n| ends.contains(&Some(n)), test);
    }
}

/// Runs `test` with the newest LLVM of those that are tested, for what does not depend on the version.
pub fn newest_llvm(test: impl Fn(&Session)) {
    let newest = llvm_versions().into_iter().max();
    some_llvm(|n| Some(n) == newest, test);
}

/// `PATH` of the tests themselves, in which cargo and rustc are, and `RUSTUP_HOME`: a session has neither.
pub fn rust_tools() -> (String, String) {
    let path = std::env::var("PATH").expect("PATH");
    let rustup = std::env::var("RUSTUP_HOME").unwrap_or_else(|_| {
        let home = std::env::var("HOME").expect("HOME");
        format!("{home}/.rustup")
    });
    (path, rustup)
}

/// Whether lld stands in for ldwrap (`LDWRAP_TEST_FIXTURES`).
pub fn fixtures_only() -> bool {
    std::env::var_os("LDWRAP_TEST_FIXTURES").is_some_and(|v| !v.is_empty())
}

fn llvm_versions() -> Vec<u32> {
    let list = std::env::var("LDWRAP_LLVM").unwrap_or_else(|_| "14 16 19 22".to_owned());
    let versions: Vec<u32> = list
        .split_whitespace()
        .map(|n| {
            n.parse()
                .unwrap_or_else(|_| panic!("LDWRAP_LLVM: '{n}' is no LLVM version"))
        })
        .collect();
    assert!(!versions.is_empty(), "LDWRAP_LLVM names no version");
    versions
}
