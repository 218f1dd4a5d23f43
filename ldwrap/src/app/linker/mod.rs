//! ldwrap as the linker: decide, watch lld, and where that fails, be the real lld.

mod jobs;
mod report;
mod request;

pub(crate) use jobs::{store_of_commands, tested_toolchain};
pub(crate) use request::{Request, default_jobs};

use crate::admit::{History, Limits};
use crate::app::probe;
use crate::jobs::toolchain;
use crate::link::eligibility;
use crate::link::engine::{self, Link, NotWatched};
use crate::link::events::{Events, Progress, Trace};
use crate::link::exchange::Exchange;
use crate::link::rerun;
use crate::sys::keep;
use crate::sys::signals::{self, Forwarded};
use jobs::{jobs_place, link_with_jobs};
use report::{finish, refuse, report_forward, report_outcome};
use request::{Outcome, cache, files};
use shim::cmdline::CommandLine;
use shim::config::{Config, Executor};
use shim::decide::{COUNTED, Decision, decide};
use shim::lld::Argv;
use shim::message::say;
use shim::options::Id;
use std::ffi::{OsStr, OsString};
use std::io::{self, IsTerminal};
use std::path::Path;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Instant;

/// Links as `argv0 args...` asks for. Returns only where the link was split, or nothing could be
/// run; a forwarded link is another program from then on.
pub fn main(argv0: &OsStr, args: &[OsString], config: &Config) -> u8 {
    let start = Instant::now();
    if let Some(file) = &config.doctor {
        return probe::answer(argv0, args, config, file);
    }
    for complaint in &config.complaints {
        log::warn!("{complaint}");
        if std::io::stderr().is_terminal() {
            say(complaint);
        }
    }
    let real = match shim::lld::find(argv0, config, std::env::var_os("PATH").as_deref()) {
        Ok(real) => real,
        Err(e) => {
            say(e);
            return 1;
        }
    };
    if let Some(found) = &config.verify {
        return crate::app::verify::link(argv0, args, &real, found, config);
    }
    if let Some(parent) = &config.keep {
        if let Err(e) = keep_link(parent, argv0, args, &real, config) {
            log::warn!("LDWRAP_KEEP={}: nothing is kept: {e}", parent.display());
        }
    }
    let (reason, output) = match decide(args.iter().map(OsString::as_os_str), config, COUNTED) {
        Decision::Forward { reason, output } => (reason, output),
        Decision::Split { output, .. } if config.strict && !config.complaints.is_empty() => {
            return refuse(&output, &config.complaints.join("; "));
        }
        Decision::Split {
            output,
            bitcode,
            modules,
        } => {
            let strict = config.strict && config.executor() != Executor::Local;
            let request = Request {
                argv0: shim::lld::arg0(argv0, &real),
                args,
                real: &real,
                config,
                bitcode,
                objects: None,
                modules,
                start,
            };
            match link_watched(&request) {
                Ok(done) => return finish(config, &output, done, start),
                Err(alone) if strict && !alone.planned => {
                    return refuse(&output, &alone.reason);
                }
                Err(alone) if alone.said == [0; 2] => (alone.reason, output),
                Err(alone) => {
                    report_forward(config, &output, &alone.reason, start);
                    let colour = CommandLine::parse(args).is_ok_and(|cmd| colours(&cmd));
                    match rerun::run(&real, request.argv0, args, alone.said, colour) {
                        Ok(status) => signals::end_as(status),
                        Err(e) => {
                            say(format_args!("cannot run {}: {e}", real.display()));
                            return 1;
                        }
                    }
                }
            }
        }
    };
    report_forward(config, &output, &reason, start);
    signals::restore();
    say(shim::lld::exec(&real, argv0, Argv::of_args(args)));
    1
}

/// Begins to keep what the link is made from, with a script that repeats it by lld alone and one that repeats it
/// through ldwrap.
fn keep_link(
    parent: &Path,
    argv0: &OsStr,
    args: &[OsString],
    real: &Path,
    config: &Config,
) -> io::Result<()> {
    let cmd = CommandLine::parse(args).ok();
    let name = cmd.and_then(|cmd| Path::new(cmd.output()).file_name().map(OsStr::to_owned));
    keep::begin(parent, &name.unwrap_or_else(|| "link".into()))?;
    let args = || args.iter().map(OsString::as_os_str);
    let plain = std::iter::once(shim::lld::arg0(argv0, real)).chain(args());
    keep::script("lld", real, plain, &[])?;
    let real = real.to_string_lossy();
    let others = ["LDWRAP_KEEP", "LDWRAP_REPORT", "LDWRAP_REAL_LLD"];
    let given = config.given.iter().map(|g| (g.name, g.shown.as_str()));
    let mut variables: Vec<_> = given.filter(|(name, _)| !others.contains(name)).collect();
    variables.push(("LDWRAP_REAL_LLD", &real));
    let ours = std::iter::once(OsStr::new("ld.lld")).chain(args());
    keep::script("ldwrap", &std::env::current_exe()?, ours, &variables)
}

/// Does a link for its objects, and reports it as that of `output`. Returns how its lld ended, which says little where it was ended
/// because all objects were there; an error is why there is no more than was taken.
pub(crate) fn link_for_objects(
    request: &Request<'_>,
    output: &str,
) -> Result<ExitStatus, NotWatched> {
    let outcome = link_watched(request)?;
    Ok(report_outcome(
        request.config,
        output,
        outcome,
        request.start,
    )?)
}

/// Links with one lld that is watched; an error is the reason to leave the link to lld alone.
fn link_watched(request: &Request<'_>) -> Result<Outcome, NotWatched> {
    let Request { args, config, .. } = *request;
    let cmd = &CommandLine::parse(args).map_err(|e| e.to_string())?;
    let dir = config.cache_dir.as_deref();
    let major = toolchain::lld_major(request.real, dir)?;
    let options = eligibility::watched(cmd, major)?;
    let cache = cache(config).filter(|_| eligibility::has_whole_keys(cmd));
    let cache = cache.map(Arc::new);
    let files = files(config);
    let limits = Limits::new(default_jobs(config, None), config.memory);
    let history = dir.map(|dir| History::new(dir, Path::new(cmd.output())));
    let signals = Forwarded::block().map_err(|e| format!("signals: {e}"))?;
    let link = Link {
        lld: request.real,
        argv0: request.argv0,
        args,
        cmd,
        cache: cache.as_ref(),
        files: &files,
        major,
        limits: &limits,
        history: history.as_ref(),
        bitcode: request.bitcode,
        exchange: None,
        signals: Some(&signals),
        quiet: request.objects.is_some(),
        objects: request.objects,
    };
    let mut events = events(request, cmd, major);
    let outcome = match jobs_place(request, cmd, major) {
        Ok(Some(place)) => link_with_jobs(request, &place, &link, options, events)?,
        none => {
            let exchange = exchange_without_jobs(request)?;
            let link = Link {
                exchange: exchange.as_ref().map(|exchange| (exchange, 0)),
                ..link
            };
            Outcome {
                done: engine::run(&link, options, &mut events)?,
                supplied: None,
                failure: none.err(),
                events,
                identifiers: Vec::new(),
            }
        }
    };
    if let Some(Err(e)) = cache.map(|cache| cache.finish_link()) {
        log::warn!("the cache cannot be counted: {e}");
    }
    if let Err(e) = files.save() {
        log::info!("the digests of files cannot be remembered: {e}");
    }
    Ok(outcome)
}

/// Where objects are taken, an exchange from which none come: with one, the engine knows the modules of lookups.
fn exchange_without_jobs(request: &Request<'_>) -> Result<Option<Exchange>, String> {
    if request.objects.is_none() {
        return Ok(None);
    }
    let exchange = Exchange::new(None).map_err(|e| format!("no event descriptor: {e}"))?;
    exchange.end(None);
    Ok(Some(exchange))
}

/// Those who watch a link, as the settings want them.
fn events(request: &Request<'_>, cmd: &CommandLine, major: u32) -> Events {
    let (config, output) = (request.config, cmd.output());
    let elsewhere = match config.executor() {
        Executor::Clang => "clang",
        Executor::Distributor => "distributor",
        _ => "server",
    };
    let progress = Progress::new(config.progress, config.log.is_some(), output, elsewhere);
    let trace = config.trace.as_deref();
    let trace = trace.map(|dir| Trace::new(dir, output, elsewhere, request.start, major));
    let mut events = Events::new(progress, trace);
    events.expect_at_most(request.modules);
    events
}

/// Whether lld would colour its messages if it wrote to our stderr: it would if that is a terminal
/// and nobody said otherwise.
fn colours(cmd: &CommandLine) -> bool {
    !cmd.has(Id::ColorDiagnostics) && std::io::stderr().is_terminal()
}
