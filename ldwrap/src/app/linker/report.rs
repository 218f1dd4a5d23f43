//! What is said of a link when it has ended: the report, the statistics, the trace, a line on a terminal.

use super::request::Outcome;
use crate::app::stats;
use crate::jobs::failure::Failure;
use crate::sys::keep;
use crate::sys::signals;
use shim::config::{Config, Executor};
use shim::message::say;
use shim::report::Report;
use std::io::IsTerminal;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Instant;

pub(super) fn report_forward(config: &Config, output: &str, reason: &str, start: Instant) {
    log::info!("{output}: forwarded: {reason}");
    report(
        config,
        Report {
            output: output.to_owned(),
            reason: reason.to_owned(),
            total_ms: millis(start.elapsed()),
            ..Report::default()
        },
    );
}

/// Fails a link for a reason that is only good enough under `LDWRAP_STRICT`.
pub(super) fn refuse(output: &str, reason: &str) -> u8 {
    say(format_args!("{output}: LDWRAP_STRICT is set: {reason}"));
    1
}

/// Reports a link, and ends as its lld has ended.
pub(super) fn finish(config: &Config, output: &str, outcome: Outcome, start: Instant) -> u8 {
    match report_outcome(config, output, outcome, start) {
        Ok(status) => signals::end_as(status),
        Err(reason) => refuse(output, &reason),
    }
}

/// Reports a link, and gives its lld's end; an error is why it is one under `LDWRAP_STRICT`.
pub(super) fn report_outcome(
    config: &Config,
    output: &str,
    outcome: Outcome,
    start: Instant,
) -> Result<ExitStatus, String> {
    let done = &outcome.done;
    let failed = outcome.failure.as_ref().filter(|f| !f.is_declined());
    if let Some(failed) = failed {
        if config.strict && done.status.success() {
            return Err(failed.to_string());
        }
    }
    if let Some(reason) = &outcome.failure {
        log::info!("{output}: lld's own threads: {reason}");
    }
    let modules = done.hits + done.compiled + done.given;
    if modules == 0 {
        let why = match done.status.success() {
            true => "lld looked for no object: no module of ThinLTO took part",
            false => "lld ended with an error before it looked for an object",
        };
        report_forward(config, output, why, start);
        return Ok(done.status);
    }
    let remote = outcome.supplied.as_ref().and_then(|s| s.remote.as_ref());
    let trouble = remote.and_then(|r| r.trouble.clone());
    let why = trouble.or_else(|| failed.map(Failure::to_string));
    // A wrong setting has been named when the link began.
    if let Some(why) = why.filter(|why| !config.complaints.contains(why)) {
        if std::io::stderr().is_terminal() {
            let compiled = done.compiled;
            say(format_args!(
                "{output}: {why}; {compiled} of {modules} modules were compiled by lld"
            ));
        }
    }
    report(config, split_report(config, output, &outcome, start));
    let status = done.status;
    let [arrived, began, objects_there, ended] = done.times;
    if let Some(trace) = outcome.events.into_trace() {
        let ends = [arrived, began, objects_there, ended, Instant::now()];
        if let Err(e) = trace.write(&ends, &outcome.identifiers) {
            log::warn!("cannot write the trace: {e}");
        }
    }
    Ok(status)
}

/// The report of a link in which modules were compiled or came from a cache.
fn split_report(config: &Config, output: &str, outcome: &Outcome, start: Instant) -> Report {
    let Outcome { done, supplied, .. } = outcome;
    let modules = done.hits + done.compiled + done.given;
    let mut remote = supplied.as_ref().and_then(|s| s.remote.clone());
    if let Some(remote) = &mut remote {
        if remote.hits + remote.executed + remote.local == 0 {
            remote.local = done.compiled;
        }
    }
    let exchange = supplied.as_ref().map_or(0, |s| s.hits.min(done.given));
    let hits = done.hits + exchange;
    log::info!("{output}: {hits} of {modules} modules from a cache");
    let [arrived, began, objects_there, ended] = done.times;
    let version = supplied.as_ref().and_then(|s| s.version.clone());
    let reason = outcome.failure.as_ref().map(Failure::to_string);
    Report {
        output: output.to_owned(),
        split: true,
        lld: version.clone(),
        clang: version,
        reason: reason.unwrap_or_default(),
        executor: Some(match (supplied, config.executor()) {
            (None, _) | (_, Executor::Local) => "local",
            (Some(_), Executor::Distributor) => "distributor",
            (Some(_), Executor::Clang) => "clang",
            (Some(_), Executor::Remote) => "remote",
        }),
        remote,
        modules: Some(modules),
        compiled_by_lld: Some(done.compiled),
        cache: Some((hits, modules - hits)),
        objects: Some(outcome.events.objects(done.cached)),
        phases_ms: vec![
            ("plan", millis(arrived - start)),
            ("turn", millis(began - arrived)),
            ("backends", millis(objects_there - began)),
            ("final", millis(ended - objects_there)),
            ("end", millis(ended.elapsed())),
        ],
        exit_status: shell_status(done.status),
        total_ms: millis(start.elapsed()),
        ..Report::default()
    }
}

fn report(config: &Config, mut report: Report) {
    report.complaints.clone_from(&config.complaints);
    if let Some(kept) = keep::dir() {
        keep::append(&kept.join("report"), (report.line() + "\n").as_bytes());
    }
    if let Some(file) = &config.report {
        if let Err(e) = report.append(file) {
            log::warn!("cannot write the report {}: {e}", file.display());
        }
    }
    stats::count(config, &report);
}

fn shell_status(status: ExitStatus) -> Option<i32> {
    status.code().or_else(|| Some(128 + status.signal()?))
}

fn millis(t: std::time::Duration) -> u64 {
    u64::try_from(t.as_millis()).unwrap_or(u64::MAX)
}
