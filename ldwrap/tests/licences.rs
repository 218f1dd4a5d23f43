//! The licences of all that is linked into our programs are ones that a distribution takes, and go with ours.

use serde_json::Value;
use std::process::Command;

/// Licences that ask for no more than to be named.
const TAKEN: [&str; 9] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "ISC",
    "MIT",
    "Unicode-3.0",
];

/// Whether an SPDX expression can be satisfied by licences that are taken. `/` is an old word for `OR`.
fn is_taken(expression: &str) -> bool {
    let words = expression.replace('/', " OR ");
    let any = |words: &str| {
        split(words, " OR ").iter().any(|part| {
            split(part, " AND ").iter().all(|part| {
                let part = part.trim();
                let inner = part.strip_prefix('(').and_then(|p| p.strip_suffix(')'));
                inner.map_or_else(|| TAKEN.contains(&part), is_taken)
            })
        })
    };
    any(&words)
}

/// The parts between an operator that is in no parentheses.
fn split(expression: &str, operator: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut open = 0;
    for part in expression.split_inclusive(operator) {
        let last = parts.last_mut().unwrap();
        last.push_str(part);
        open += part.matches('(').count();
        open -= part.matches(')').count();
        if open == 0 && part.ends_with(operator) {
            last.truncate(last.len() - operator.len());
            parts.push(String::new());
        }
    }
    parts
}

#[test]
fn expressions() {
    assert!(is_taken("MIT OR Apache-2.0") && is_taken("GPL-3.0-only OR MIT"));
    assert!(is_taken("Apache-2.0 AND ISC") && is_taken("Unlicense/MIT"));
    assert!(
        is_taken("(MIT OR GPL-2.0-only) AND ISC") && !is_taken("(MIT OR ISC) AND GPL-2.0-only")
    );
    assert!(!is_taken("GPL-2.0-only") && !is_taken("MIT AND GPL-2.0-only") && !is_taken(""));
}

#[test]
fn licences_of_all_crates() {
    let made = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version=1",
            "--locked",
            "--filter-platform=x86_64-unknown-linux-gnu",
        ])
        .args([
            "--manifest-path",
            concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"),
        ])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&made.stderr);
    assert!(made.status.success(), "{said}");
    let metadata: Value = serde_json::from_slice(&made.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    assert!(packages.len() > 50, "{}", packages.len());
    for package in packages {
        let licence = package["license"].as_str().unwrap_or_default();
        assert!(is_taken(licence), "{}: {licence:?}", package["name"]);
    }
}
