//! The shim: `ld.lld` as build systems call it, and compilers on their way to it ([`shim::compiler`]).
//!
//! Small on purpose: a link that is not to be split costs one more exec and a look at the first
//! bytes of its inputs. Starts no thread and links no network stack; `ldwrap` does the split.
//!
//! C's `main` rather than Rust's: `argv` then goes on to `execv` as it came, uncopied, and Rust's
//! start-up (which reads `/proc/self/maps` and changes signal handlers) is not paid for.

#![deny(clippy::print_stderr)]
#![no_main]

use shim::compiler;
use shim::decide::{Decision, decide};
use shim::lld::Argv;
use shim::message::say;
use shim::read_settings;
use shim::report::Report;
use shim::stats_log::StatsLog;
use std::ffi::{OsStr, OsString, c_char, c_int};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// The entry point, called by the C runtime.
///
/// # Safety
/// Only the C runtime may call it, with the program's arguments.
// SAFETY: this is the program's only `main`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn main(_argc: c_int, argv: *const *const c_char) -> c_int {
    // SAFETY: the C runtime's own argv.
    let argv = unsafe { Argv::of_main(argv) };
    let name = Path::new(argv.argv0()).file_name().unwrap_or_default();
    let (status, message) = if compiler::names_compiler(name) {
        let exe = std::env::current_exe().ok();
        let failure = compiler::exec(argv, exe.as_deref().and_then(Path::parent));
        (failure.status, failure.message)
    } else {
        (1, link(argv))
    };
    say(message);
    status
}

/// Becomes the program that this link is for; returns only what went wrong.
fn link(argv: Argv) -> String {
    let start = Instant::now();
    let argv0 = match argv.argv0() {
        none if none.is_empty() => OsString::from("ld.lld"),
        argv0 => argv0.to_os_string(),
    };
    let config = read_settings::read();

    // Logging, keeping, verifying and answering the doctor are ldwrap's, which decides the same.
    let talk = config.log.is_some()
        || config.keep.is_some()
        || config.verify.is_some()
        || config.doctor.is_some();
    let (reason, output) = match decide(argv.args(), &config, 1) {
        Decision::Forward { reason, output } if !talk => (reason, output),
        _ => match ldwrap() {
            Some(ldwrap) => return become_ldwrap(&ldwrap, argv, &argv0),
            None => (
                "ldwrap is not installed beside the shim".into(),
                String::new(),
            ),
        },
    };
    let log = StatsLog::open(config.cache_dir.as_deref()).ok();
    if log.as_ref().is_some_and(StatsLog::is_long) {
        if let Some(ldwrap) = ldwrap() {
            // It decides the same, and sums the log up.
            return become_ldwrap(&ldwrap, argv, &argv0);
        }
    }
    let real = match shim::lld::find(&argv0, &config, std::env::var_os("PATH").as_deref()) {
        Ok(real) => real,
        Err(e) => return e.to_string(),
    };
    let report = Report {
        output,
        reason,
        complaints: config.complaints.clone(),
        total_ms: u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX),
        ..Report::default()
    };
    // A report that cannot be written is no reason to fail a link.
    let _ = log.map(|log| log.append(&report));
    let _ = config.report.as_ref().map(|file| report.append(file));
    shim::lld::exec(&real, &argv0, argv)
}

/// Becomes ldwrap, with the same arguments; returns only what went wrong.
fn become_ldwrap(ldwrap: &Path, argv: Argv, argv0: &OsStr) -> String {
    let error = argv.exec(ldwrap, argv0);
    format!("cannot run {}: {error}", ldwrap.display())
}

/// `bin/ldwrap` of the prefix that we are installed in (`lib/ldwrap/ld.lld`), or beside us.
fn ldwrap() -> Option<PathBuf> {
    let exe = std::env::current_exe().ok()?;
    let dir = exe.parent()?;
    [dir.join("../../bin/ldwrap"), dir.join("ldwrap")]
        .into_iter()
        .find(|p| p.is_file())
}
