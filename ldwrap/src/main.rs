//! `ldwrap`: the linker, and our tool.
//!
//! Called under a linker's name (the shim hands links over that way) or with linker arguments, it
//! links; with a subcommand as first argument it is our tool. Where it is installed without the shim
//! (`cargo install`) it has compilers' names too ([`shim::compiler`]).
//!
//! C's `main` rather than Rust's, which would change SIGPIPE's disposition before we could see it; lld
//! is to have it as we were given it.

#![deny(clippy::print_stderr)]
#![no_main]

use shim::compiler;
use shim::lld::Argv;
use shim::message::say;
use shim::read_settings;
use std::ffi::{OsStr, OsString, c_char, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

/// The entry point, called by the C runtime.
///
/// # Safety
/// Only the C runtime may call it, with the program's arguments.
// SAFETY: this is the program's only `main`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn main(_argc: c_int, argv: *const *const c_char) -> c_int {
    ldwrap::sys::remember_inherited();
    ldwrap::sys::share_heaps();
    // SAFETY: the C runtime's own argv.
    let argv = unsafe { Argv::of_main(argv) };
    // A panic, which would be a bug of ours, must not cross into C.
    catch_unwind(AssertUnwindSafe(|| run(argv))).unwrap_or(101)
}

fn run(argv: Argv) -> c_int {
    let argv0 = match argv.argv0() {
        none if none.is_empty() => OsString::from("ldwrap"),
        argv0 => argv0.to_os_string(),
    };
    let name = Path::new(&argv0).file_name().unwrap_or_default();
    if compiler::names_compiler(name) {
        let failure = compiler::exec(argv, ldwrap::app::shim_dir().ok().as_deref());
        say(failure.message);
        return failure.status;
    }
    ldwrap::sys::ignore_file_size();
    let args: Vec<OsString> = argv.args().map(OsStr::to_os_string).collect();
    let config = read_settings::read();
    if let Some(filter) = &config.log {
        env_logger::Builder::new().parse_filters(filter).init();
    }
    if name == "ldwrap" {
        if let Some(code) = ldwrap::app::cli::run(&args, &config) {
            return code.into();
        }
    }
    ldwrap::app::linker::main(&argv0, &args, &config).into()
}
