//! `ldwrap doctor`: will links be split, and if not, why, and what is to be done?
//!
//! Everything is tried rather than guessed: each compiler runs up to its linker, a small link is done twice, a file is
//! written to the cache, a program is executed on the server. One line a finding; behind each that is bad, the line that
//! mends it.
//!
//! Each file uses only those above it: `finding`, then `setup`, `cache`, `server`, `lld`, `driver`, `compilers`, and this.

mod cache;
mod compilers;
pub(crate) mod driver;
mod finding;
mod lld;
mod server;
mod setup;

use crate::executor::remote::check::ReachedServer;
use crate::sys::process;
use crate::sys::scratch::{self, Scratch};
use compilers::{Before, Compilers};
use finding::{Checkup, Finding, Tried};
use shim::config::{Config, Executor};
use std::ffi::OsString;
use std::io;
use std::path::Path;

/// Looks at all that splitting links needs, for the compilers in PATH or for the link that `command` makes, and shows
/// what was found on standard output. True if links will be split, and nothing is wrong.
pub fn run(command: &[OsString], config: &Config) -> bool {
    if let Err(e) = process::watch_signals() {
        log::warn!("signals: {e}");
    }
    let mut checkup = Checkup::default();
    checkup.add_all(setup::findings(config));
    let (findings, cache_is_usable) = cache::findings(config);
    checkup.add_all(findings);
    let dir = scratch::temporary_files().unwrap_or_else(|_| std::env::temp_dir());
    let tried = process::with_scratch(|scratch| {
        checkup.add(Finding::ok(SCRATCH, dir.display()));
        try_links(command, config, scratch, cache_is_usable, &mut checkup)
    });
    let tried = tried.unwrap_or_else(|e| {
        checkup.add(no_scratch(&dir, &e));
        let scratch = Scratch::new_in(Path::new("/tmp")).ok();
        scratch.map_or_else(Vec::new, |scratch| {
            try_links(command, config, &scratch, cache_is_usable, &mut checkup)
        })
    });
    checkup.conclude(&tried)
}

const SCRATCH: &str = "scratch directory";

fn no_scratch(dir: &Path, error: &io::Error) -> Finding {
    let text = format!("{}: no directory can be made there: {error}", dir.display());
    let fix = match std::env::var_os("TMPDIR") {
        Some(_) => format!("unset TMPDIR, or mkdir -p {}", super::quoted(dir)),
        None => "export TMPDIR=DIRECTORY, one that this user can write".into(),
    };
    Finding::bad(SCRATCH, text, fix)
}

/// Tries the server, and links of each compiler or of the command.
fn try_links(
    command: &[OsString],
    config: &Config,
    scratch: &Scratch,
    cache_is_usable: bool,
    checkup: &mut Checkup,
) -> Vec<Tried> {
    let server = reach_server(config, checkup);
    let found = Before {
        cache_is_usable,
        server_answers: server.is_some(),
        all_prevented: checkup.all_prevented(),
    };
    let mut compilers = Compilers::new(config, scratch, found);
    let tried = match command.is_empty() {
        true => compilers.in_path(checkup),
        false => vec![compilers.command(command, checkup)],
    };
    if let Some(server) = server {
        checkup.add_all(server::service(&server, compilers.toolchain()));
        server.close();
    }
    tried
}

/// The server, if backends are to run on one and it answers.
fn reach_server(config: &Config, checkup: &mut Checkup) -> Option<ReachedServer> {
    if config.executor() != Executor::Remote {
        return None;
    }
    // Why there is none has been told with the settings.
    let settings = config.server().ok()?;
    checkup.add_all(server::advice(config));
    let (findings, reached) = server::reach(settings);
    checkup.add_all(findings);
    reached
}
