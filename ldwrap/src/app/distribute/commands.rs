//! Backends by the commands that lld wrote, on this machine: what LLVM's own distributors do.
//!
//! These commands have few of the options that shape code in a link without a distributor: a message names those that
//! they lack.

use crate::jobs::job_file::{JobEntry, JobFile};
use crate::sys::parallel;
use crate::sys::process::{self, Role};
use shim::cmdline::{CommandLine, Occurrence};
use shim::effects::{Effect, effect};
use shim::message::say;
use shim::options::{Id, TABLE, ValueKind};
use std::io::Write;
use std::process::Command;

/// Runs the commands of the jobs with these numbers, as many at once as `processes`. What they print is shown. An
/// error says which failed.
pub(super) fn run(
    file: &JobFile,
    numbers: &[usize],
    cmd: Option<&CommandLine>,
    processes: usize,
) -> Result<(), String> {
    let lost = match cmd {
        None => "lld's options, which cannot be seen".to_owned(),
        Some(cmd) => lost_options(cmd).join(" "),
    };
    if !lost.is_empty() {
        say(format_args!(
            "{}: backends are compiled without {lost}",
            file.linker_output
        ));
    }
    let jobs: Vec<&JobEntry> = numbers.iter().filter_map(|&n| file.jobs.get(n)).collect();
    let failed = parallel::map(processes, &jobs, |_, job| compile(file, job).err());
    let failed: Vec<String> = failed.into_iter().flatten().collect();
    match failed.as_slice() {
        [] => Ok(()),
        [first, ..] => Err(format!(
            "{} of {} backends failed: {first}",
            failed.len(),
            jobs.len()
        )),
    }
}

fn compile(file: &JobFile, job: &JobEntry) -> Result<(), String> {
    let mut words = file.args.iter().chain(&job.args);
    let program = words.next().map_or("", String::as_str);
    let mut command = Command::new(program);
    command.args(words);
    let done = process::output(command, Role::Backend)
        .map_err(|e| format!("cannot run {program}: {e}"))?;
    // Each at once, so that those of two jobs are not mixed.
    let _ = std::io::stdout().lock().write_all(&done.stdout);
    let _ = std::io::stderr().lock().write_all(&done.stderr);
    match done.status.success() {
        true => Ok(()),
        false => Err(format!(
            "{}: {program} ended with {}",
            job.module(),
            done.status
        )),
    }
}

/// Options that shape code, and that lld does not write into a distributor's commands (`OutOfProcessThinBackend`, llvm/lib/LTO/LTO.cpp).
fn lost_options(cmd: &CommandLine) -> Vec<String> {
    let is_lost = |option: &&Occurrence| match option.id {
        // Written: -O, -fprofile-sample-use, -mllvm -no-pgo-warn-mismatch.
        Id::LtoO | Id::LtoSampleProfile | Id::LtoPgoWarnMismatch | Id::NoLtoPgoWarnMismatch => {
            false
        }
        // Of the thin link, or of messages.
        Id::LtoPartitions
        | Id::Lto
        | Id::LtoWholeProgramVisibility
        | Id::NoLtoWholeProgramVisibility => false,
        Id::ErrorLimit | Id::FatalWarnings | Id::NoFatalWarnings | Id::NoWarnings => false,
        Id::ThinltoDistributor => false,
        // What clang takes by itself.
        Id::PluginOptMcpu => option.value != "x86-64" && option.value != "generic",
        id => effect(id) != Effect::None,
    };
    let shown = |option: &Occurrence| {
        let spelling = TABLE.iter().find(|spelling| spelling.id == option.id);
        let (name, space) = match spelling {
            Some(s) if s.value_kind == ValueKind::Separate => (s.name, " "),
            Some(s) => (s.name, ""),
            None => ("", ""),
        };
        format!("--{name}{space}{}", option.value.to_string_lossy())
    };
    cmd.options().filter(is_lost).map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsString;

    #[test]
    fn options_that_lld_drops_are_named() {
        let lost = |line: &str| {
            let args: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
            lost_options(&CommandLine::parse(&args).unwrap())
        };
        let kept = "-plugin-opt=O2 -plugin-opt=mcpu=x86-64 --thinlto-distributor=d --lto-sample-profile=p -pie --gc-sections";
        assert_eq!(lost(kept), [""; 0]);
        let all = lost("-mllvm -align-all-functions=4 --lto-CGO0 --save-temps").join(" ");
        for word in ["-align-all-functions=4", "CGO0", "save-temps"] {
            assert!(all.contains(word), "{all}");
        }
    }
}
