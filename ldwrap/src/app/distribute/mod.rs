//! `ldwrap distribute FILE`: ldwrap as the distributor of an lld that distributes its backends itself (DTLTO, lld 21 and later;
//! docs/distributors.md).
//!
//! The commands that lld writes for a distributor lack most options that shape code, and its shards lack what in-process
//! backends know of the whole link. So ldwrap reads the command line of the lld that called it ([`caller`]) and does that
//! link itself, watched as any other, with backends from the cache, here or elsewhere; but it takes the objects
//! ([`delivery`]) and no output. They are those of a link without a distributor.
//!
//! Objects that do not come that way are compiled here by the commands that lld wrote ([`commands`]), as LLVM's own
//! distributor does, with a message that names the options these lack.

mod caller;
mod commands;
mod delivery;

use crate::app::linker::{self, Request};
use crate::jobs::job_file::JobFile;
use caller::Caller;
use delivery::Delivery;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use shim::cmdline::CommandLine;
use shim::config::Config;
use shim::message::say;
use shim::options::Id;
use std::path::Path;

/// Does the jobs of a file that lld wrote; the exit status is 0 if all objects are there.
#[must_use]
pub fn run(path: &Path, config: &Config) -> u8 {
    for complaint in &config.complaints {
        log::warn!("{complaint}");
    }
    // An lld that is killed wants no objects.
    let _ = set_pdeathsig(Signal::SIGTERM);
    match distribute(path, config) {
        Ok(()) => 0,
        Err(why) => {
            say(format_args!("{}: {why}", path.display()));
            1
        }
    }
}

fn distribute(path: &Path, config: &Config) -> Result<(), String> {
    let text = std::fs::read(path).map_err(|e| e.to_string())?;
    let file = JobFile::parse(&text).map_err(|e| e.to_string())?;
    let caller = Caller::find(path, &file);
    let cmd = match &caller {
        Ok(caller) => CommandLine::parse(&caller.args).map_err(|e| e.to_string()),
        Err(why) => Err(why.clone()),
    };
    let delivery = Delivery::new(&file, cmd.as_ref().ok());
    let linked = match (&caller, &cmd) {
        (Ok(caller), Ok(cmd)) => link(caller, cmd, &file, &delivery, config),
        (_, Err(why)) | (Err(why), _) => Err(why.clone()),
    };
    let left = delivery.left();
    if left.is_empty() {
        return Ok(());
    }
    let why = linked.err().unwrap_or_else(|| "see the log".into());
    let what = format!(
        "{} of {} backends by lld's own commands: {why}",
        left.len(),
        file.jobs.len()
    );
    log::warn!("{}: {what}", file.linker_output);
    if config.strict {
        return Err(format!("LDWRAP_STRICT is set: {what}"));
    }
    commands::run(
        &file,
        &left,
        cmd.as_ref().ok(),
        linker::default_jobs(config, None),
    )
}

/// Does the link of the lld that called, for its objects. An error is why not all may have come.
fn link(
    caller: &Caller,
    cmd: &CommandLine,
    file: &JobFile,
    delivery: &Delivery<'_>,
    config: &Config,
) -> Result<(), String> {
    if cmd.has(Id::ThinltoRemoteCompilerArg) || cmd.has(Id::ThinltoRemoteCompilerPrependArg) {
        return Err(
            "arguments for the compiler that lld does not have (--thinlto-remote-compiler-arg)"
                .into(),
        );
    }
    if let Some(why) = crate::link::eligibility::read_once(&caller.args, cmd) {
        return Err(why);
    }
    let mut args = caller.args.clone();
    // Without a distributor, with our cache, and nothing written where lld itself will write.
    args.extend(
        [
            "--thinlto-distributor=",
            "--thinlto-cache-dir=",
            "--Map=",
            "--dependency-file=",
            "-o",
            "/dev/null",
        ]
        .map(Into::into),
    );
    let request = Request {
        argv0: &caller.argv0,
        args: &args,
        real: &caller.lld,
        config,
        bitcode: delivery.bitcode(),
        modules: Some(file.jobs.len()),
        start: std::time::Instant::now(),
        objects: Some(delivery),
    };
    let status = linker::link_for_objects(&request, &file.linker_output).map_err(|e| e.reason)?;
    if !delivery.left().is_empty() {
        if std::os::unix::process::ExitStatusExt::signal(&status).is_some() {
            crate::sys::signals::end_as(status);
        }
        return Err(format!(
            "lld ended ({status}) and did not compile all of them"
        ));
    }
    Ok(())
}
