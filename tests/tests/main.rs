//! All end-to-end tests, in one program: it is linked once, and no core waits for the last test of each file.

use std::collections::BTreeSet;
use std::path::Path;

mod admission;
mod answers;
mod attributes;
mod build_systems;
mod cache;
mod changing;
mod codegen;
mod distributor;
mod doctor;
mod doctor_command;
mod dtlto;
mod errors;
mod examples;
mod failures;
mod faults;
mod finding;
mod forwards;
mod inputs;
mod language;
mod local;
mod local_faults;
mod local_limits;
mod local_options;
mod local_signals;
mod lto;
mod modules;
mod options;
mod page;
mod phases;
mod remote;
mod remote_cache;
mod seed;
mod seen;
mod settings;
mod signals;
mod traps;
mod verify;
mod ways_in;

/// A file that no `mod` names would not be compiled, and its tests not run.
#[test]
fn every_file_is_a_module() {
    let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let files = files.read_dir().expect("the directory of this file");
    let files: BTreeSet<String> = files
        .filter_map(|file| Some(file.ok()?.path().file_stem()?.to_str()?.to_owned()))
        .filter(|name| name != "main")
        .collect();
    let modules = include_str!("main.rs").lines();
    let modules = modules.filter_map(|line| line.strip_prefix("mod ")?.strip_suffix(';'));
    assert_eq!(files, modules.map(str::to_owned).collect());
}
