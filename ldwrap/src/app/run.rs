//! `ldwrap run -- COMMAND`: one command with its links through ldwrap, and nothing to set or install for it.
//!
//! The shim's directory is first in `COMPILER_PATH`, for compilers, and in `PATH`, for those who call linkers by name; the
//! compilers' names that are there (`shim::compiler`) serve builds that keep nothing but `PATH`. A command that is a linker
//! itself is run by us. Links report to a file of ours, from which the last two lines are made.

use super::reach::through_ldwrap;
use super::report_lines::{self, Fate, number};
use crate::sys::process;
use crate::sys::scratch::Scratch;
use crate::sys::signals::Forwarded;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::Value;
use shim::config::Config;
use shim::message::say;
use shim::report;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::process::{Child, ExitStatus};

/// Why the command was not run.
#[derive(Debug)]
pub struct NotRun {
    /// The exit status, as a shell's.
    pub status: u8,
    /// What to say.
    pub message: String,
}

impl NotRun {
    fn ours(message: impl ToString) -> Self {
        Self {
            status: 1,
            message: message.to_string(),
        }
    }
}

/// Runs a command, says on standard error what became of its links, and returns how it ended.
pub fn command(command: &[OsString], config: &Config) -> Result<ExitStatus, NotRun> {
    let (program, args) = command
        .split_first()
        .ok_or_else(|| NotRun::ours("no command to run"))?;
    // From here on signals are the command's, so that we are there to remove the directory.
    let signals = Forwarded::block().map_err(NotRun::ours)?;
    let scratch = Scratch::new().map_err(NotRun::ours)?;
    let reports = scratch.file("reports");
    let mut run = through_ldwrap(program, config).map_err(NotRun::ours)?;
    run.args(args).env("LDWRAP_REPORT", &reports);
    process::prepare(&mut run);
    let child = run.spawn().map_err(|e| NotRun {
        status: match e.kind() {
            io::ErrorKind::NotFound => 127,
            _ => 126,
        },
        message: format!("cannot run {}: {e}", program.to_string_lossy()),
    })?;
    let status = wait(child, &signals).map_err(NotRun::ours)?;
    let lines = fs::read(&reports).unwrap_or_default();
    // Whether anybody reads it is not the command's concern.
    let _ = io::stderr().write_all(summary(&lines, status.success()).as_bytes());
    if let Some(file) = config.report.as_ref().filter(|_| !lines.is_empty()) {
        if let Err(e) = report::append(file, &lines) {
            say(format_args!("cannot write {}: {e}", file.display()));
        }
    }
    Ok(status)
}

/// Waits for the command, which gets the signals that are sent to us meanwhile.
fn wait(mut child: Child, signals: &Forwarded) -> io::Result<ExitStatus> {
    // Before Linux 5.3 there is none, and only what a terminal sends reaches the command.
    if let Ok(ended) = process::pidfd(child.id()) {
        loop {
            let mut fds = [
                PollFd::new(ended.as_fd(), PollFlags::POLLIN),
                PollFd::new(signals.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut fds, PollTimeout::NONE) {
                Err(Errno::EINTR) => continue,
                n => n?,
            };
            let [ended, signalled] = fds.map(|fd| fd.revents().is_some_and(|r| !r.is_empty()));
            if ended {
                break;
            }
            if signalled {
                signals.pass_on_sent(child.id());
            }
        }
    }
    child.wait()
}

/// What became of all links of a command.
#[derive(Debug, Default)]
struct Totals {
    through_ldwrap: u64,
    /// Links that lld did alone, by reason.
    left_to_lld: BTreeMap<String, u64>,
    modules: u64,
    hits: u64,
    compiled: u64,
    on_server: u64,
    milliseconds: u64,
}

impl Totals {
    fn add(&mut self, report: &Value) {
        match report_lines::fate(report) {
            Some(Fate::Split) => {
                self.through_ldwrap += 1;
                self.modules += number(report, "/modules");
                self.hits += number(report, "/cache/hits");
                self.compiled += number(report, "/cache/misses");
                self.on_server += number(report, "/remote/executed");
                self.milliseconds += number(report, "/total_ms");
            }
            Some(Fate::LeftToLld(reason)) => {
                *self.left_to_lld.entry(reason.to_owned()).or_default() += 1;
            }
            None => {}
        }
    }

    /// The reasons for which links were left to lld, the most frequent first; how often, where there are several.
    fn reasons(&self) -> String {
        const MOST: usize = 3;
        let mut reasons: Vec<_> = self.left_to_lld.iter().collect();
        reasons.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        let mut words: Vec<String> = match reasons.as_slice() {
            [(one, _)] => vec![(*one).clone()],
            all => all
                .iter()
                .take(MOST)
                .map(|(reason, count)| format!("{count} {reason}"))
                .collect(),
        };
        let others: u64 = reasons.iter().skip(MOST).map(|(_, count)| **count).sum();
        if others > 0 {
            words.push(format!("{others} for other reasons"));
        }
        words.join(", ")
    }
}

/// What is said at the end, by the reports of all links. That there was none tells something only of a command that
/// `succeeded`: another may have ended before its first link.
fn summary(reports: &[u8], succeeded: bool) -> String {
    let mut totals = Totals::default();
    for report in report_lines::read(reports) {
        totals.add(&report);
    }
    let alone: u64 = totals.left_to_lld.values().sum();
    let links = totals.through_ldwrap + alone;
    if links == 0 && !succeeded {
        return String::new();
    }
    if links == 0 {
        return "ldwrap: no link reached ldwrap: is lld the linker (-fuse-ld=lld)? 'ldwrap doctor' tells more\n"
            .into();
    }
    let plural = if links == 1 { "" } else { "s" };
    let mut said = format!(
        "ldwrap: {links} link{plural}: {} through ldwrap, {alone} left to lld",
        totals.through_ldwrap
    );
    if alone > 0 {
        let _ = write!(said, " ({})", totals.reasons());
    }
    let Totals {
        modules,
        hits,
        compiled,
        on_server,
        milliseconds,
        ..
    } = totals;
    if modules > 0 {
        let _ = write!(
            said,
            "\nldwrap: {modules} modules: {hits} from the cache, {compiled} compiled"
        );
        if on_server > 0 {
            let _ = write!(said, " ({on_server} on the server)");
        }
        let (seconds, tenths) = (milliseconds / 1000, milliseconds / 100 % 10);
        let _ = write!(said, "; {seconds}.{tenths} s in links");
    }
    said.push('\n');
    said
}

#[cfg(test)]
mod tests {
    use super::*;
    use shim::decide::{NO_BITCODE, TOO_SMALL};

    #[test]
    fn two_lines_about_all_links() {
        let split = r#"{"action":"split","reason":"","modules":127,"cache":{"hits":HITS,"misses":MISSES},"total_ms":6240}"#;
        let cold = split.replace("HITS", "0").replace("MISSES", "127");
        let warm = split.replace("HITS", "127").replace("MISSES", "0");
        let small = format!(r#"{{"action":"forward","reason":"{TOO_SMALL}","total_ms":1}}"#);
        let native = format!(r#"{{"action":"forward","reason":"{NO_BITCODE}","total_ms":1}}"#);
        let version = r#"{"action":"forward","reason":"--version links nothing","total_ms":1}"#;
        let lines = |all: &[&str]| summary(all.join("\n").as_bytes(), true);
        assert_eq!(
            lines(&[&cold, version, &warm, &small, "{cut sho"]),
            "ldwrap: 3 links: 2 through ldwrap, 1 left to lld (too little bitcode)\n\
             ldwrap: 254 modules: 127 from the cache, 127 compiled; 12.4 s in links\n"
        );
        assert_eq!(
            lines(&[&small, &native, &native]),
            "ldwrap: 3 links: 0 through ldwrap, 3 left to lld (2 no bitcode, 1 too little bitcode)\n"
        );
        assert_eq!(
            lines(&[&warm]),
            "ldwrap: 1 link: 1 through ldwrap, 0 left to lld\n\
             ldwrap: 127 modules: 127 from the cache, 0 compiled; 6.2 s in links\n"
        );
        for none in [&[][..], &[version]] {
            assert!(lines(none).contains("no link reached ldwrap"));
            assert_eq!(summary(none.join("\n").as_bytes(), false), "");
        }
    }
}
