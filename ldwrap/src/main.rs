//! `ldwrap`: the linker that splits, and our tool.
//!
//! Called under a linker's name (the shim hands links over that way) or with linker arguments, it
//! links; with a subcommand as first argument it is our tool.

use shim::config::Config;
use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut argv = std::env::args_os();
    let argv0 = argv.next().unwrap_or_else(|| OsString::from("ldwrap"));
    let args: Vec<OsString> = argv.collect();
    let config = Config::read();
    if let Some(filter) = &config.log {
        env_logger::Builder::new().parse_filters(filter).init();
    }
    let under_our_name = Path::new(&argv0).file_name().is_some_and(|n| n == "ldwrap");
    if under_our_name && let Some(code) = ldwrap::cli::run(&args, &config) {
        return code;
    }
    ldwrap::linker::main(&argv0, &args, &config)
}
