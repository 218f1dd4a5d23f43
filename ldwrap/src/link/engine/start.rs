//! The command that a watched link is.

use super::Link;
use crate::link::NO_PRUNING;
use crate::link::attribution::AttributionRule;
use crate::link::lookup_dir::{LookupDir, NOWHERE};
use crate::sys::threads::share_of_threads;
use nix::unistd::{SysconfVar, sysconf};
use shim::cmdline::CommandLine;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

/// The user's command, with what makes lld ask for objects; and say whose, if they are to be known by names.
pub(super) fn command(link: &Link<'_>, lookup_dir: &LookupDir, names_modules: bool) -> Command {
    let mut command = Command::new(link.lld);
    command.arg0(link.argv0).args(link.args);
    if let Some(depth) = shim::lld::depth_for(link.lld) {
        command.env(shim::settings::DEPTH, depth);
    }
    if !lookup_dir.is_users() {
        command.arg(format!("--thinlto-cache-dir={NOWHERE}"));
        command.arg(NO_PRUNING);
    }
    let rule = AttributionRule::of(link.major);
    if names_modules && rule == AttributionRule::ByIndexFile {
        command.arg("--thinlto-emit-index-files");
    }
    let threads = match (link.exchange, rule) {
        (None, _) => threads(link.cmd, link.limits.jobs),
        (Some((_, jobs)), AttributionRule::ByIndexFile) => {
            // Each waits in a lookup for what is made elsewhere.
            let own = link.limits.jobs;
            Some(share_of_threads(own + jobs).max(own))
        }
        (Some(_), AttributionRule::ByTaskOrder) => Some(1),
    };
    if let Some(threads) = threads {
        command.arg(format!("--thinlto-jobs={threads}"));
    }
    if link.quiet {
        command.stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(Stdio::null());
    }
    command
}

/// How many backend threads lld is to be told to make, if it is to be told: not more than may compile,
/// since each keeps the memory that it once had. lld's own number knows nothing of control groups.
fn threads(cmd: &CommandLine, jobs: usize) -> Option<usize> {
    if cmd.thinlto_jobs().is_none() {
        let processors = sysconf(SysconfVar::_NPROCESSORS_ONLN).ok().flatten();
        return (i64::try_from(jobs).ok() != processors).then_some(jobs);
    }
    // Otherwise an error, which is lld's to say.
    let asked = usize::try_from(cmd.thinlto_job_count()?).ok()?;
    (asked == 0 || asked > jobs).then_some(jobs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsString;

    #[test]
    fn lld_has_no_more_threads_than_may_compile() {
        let told = |line: &str| {
            let args: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
            threads(&CommandLine::parse(&args).unwrap(), 5)
        };
        assert_eq!(told("--threads=3"), None);
        assert_eq!(told("--threads=9 --thinlto-jobs=5"), None);
        assert_eq!(told("--threads=1 --thinlto-jobs=6"), Some(5));
        assert_eq!(told("--plugin-opt=jobs=all"), Some(5));
        assert_eq!(told("--thinlto-jobs=0"), Some(5));
        for refused in ["some", "99999999999", "4294967296", "+9", "-1"] {
            assert_eq!(told(&format!("--thinlto-jobs={refused}")), None);
            assert_eq!(told(&format!("--threads={refused}")), None);
        }
    }
}
