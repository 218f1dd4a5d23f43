//! `ldwrap doctor`: will links be split, and if not, why, and what is to be done?
//!
//! Everything is tried rather than guessed: each compiler runs up to its linker, a small link is done twice, a file is
//! written to the cache, a program is executed on the server. One line a finding; behind each that is bad, the line that
//! mends it.
//!
//! Each file uses only those above it: `finding`, then `setup`, `cache`, `server`, `lld`, `compilers`, and this.

mod cache;
mod compilers;
mod driver;
mod finding;
mod lld;
mod server;
mod setup;

use crate::executor::remote::check::Reached;
use crate::sys::scratch::Scratch;
use compilers::{Before, Compilers};
use finding::{Checkup, Finding};
use shim::config::{Config, Executor};
use std::ffi::OsString;
use std::path::Path;

/// Looks at all that splitting links needs, for the compilers in PATH or for the link that `command` makes, and shows
/// what was found on standard output. True if links will be split, and nothing is wrong.
pub fn run(command: &[OsString], config: &Config) -> bool {
    let mut checkup = Checkup::default();
    checkup.add_all(setup::findings(config));
    let (findings, cache_is_usable) = cache::findings(config);
    checkup.add_all(findings);
    let Some(scratch) = scratch(&mut checkup) else {
        return checkup.conclude(&[]);
    };
    let server = reach_server(config, &mut checkup);
    let found = Before {
        cache_is_usable,
        server_answers: server.is_some(),
        all_prevented: checkup.all_prevented(),
    };
    let mut compilers = Compilers::new(config, &scratch, found);
    let tried = match command.is_empty() {
        true => compilers.in_path(&mut checkup),
        false => vec![compilers.command(command, &mut checkup)],
    };
    if let Some(server) = server {
        checkup.add(server::execution(&server, compilers.toolchain()));
        server.close();
    }
    checkup.conclude(&tried)
}

/// A directory to try things in; none if there can be none.
fn scratch(checkup: &mut Checkup) -> Option<Scratch> {
    const SUBJECT: &str = "scratch directory";
    let error = match Scratch::new() {
        Ok(scratch) => {
            let parent = scratch.root().parent().unwrap_or(Path::new("/"));
            checkup.add(Finding::ok(SUBJECT, parent.display()));
            return Some(scratch);
        }
        Err(e) => e,
    };
    let dir = std::env::temp_dir();
    let text = format!("{}: no directory can be made there: {error}", dir.display());
    let fix = match std::env::var_os("TMPDIR") {
        Some(_) => format!("unset TMPDIR, or mkdir -p {}", super::quoted(dir.as_path())),
        None => "export TMPDIR=DIRECTORY, one that this user can write".into(),
    };
    checkup.add(Finding::bad(SUBJECT, text, fix));
    Scratch::new_in(Path::new("/tmp")).ok()
}

/// The server, if backends are to run on one and it answers.
fn reach_server(config: &Config, checkup: &mut Checkup) -> Option<Reached> {
    if config.executor() != Executor::Remote {
        return None;
    }
    // Why there is none has been told with the settings.
    let settings = config.server().ok()?;
    let (findings, reached) = server::reach(settings);
    checkup.add_all(findings);
    reached
}
