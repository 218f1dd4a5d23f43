//! `ldwrap final --dir DIR -- LINK`: the real link, with the objects of backends that were run before.

use crate::app::reach;
use crate::sys::process::{self, Role, Running};
use shim::config::Config;
use shim::settings::OBJECTS;
use std::ffi::OsString;
use std::path::Path;
use std::process::ExitStatus;

/// Runs a link, through ldwrap, with the objects that are in `dir`; gives how it ended.
pub(crate) fn run(dir: &Path, link: &[OsString], config: &Config) -> Result<ExitStatus, String> {
    let (program, args) = link.split_first().ok_or("no link")?;
    let dir = std::path::absolute(dir).map_err(|e| e.to_string())?;
    process::watch_signals().map_err(|e| format!("signals: {e}"))?;
    let done = || {
        let mut run = reach::through_ldwrap(program, config)?;
        // Whoever has made objects wants them used, however small the link is.
        run.args(args)
            .env(OBJECTS, &dir)
            .env("LDWRAP_SPLIT", "always");
        process::prepare(&mut run);
        let status = Running::new(run.spawn()?, Role::Tool).wait()?;
        process::wait_for_pending_signal(status);
        Ok(status)
    };
    done().map_err(|e: std::io::Error| format!("cannot run {}: {e}", program.to_string_lossy()))
}
