//! `ldwrap verify -- COMMAND`: every link of a command done both ways and compared.
//!
//! The command is a linker's or anything that ends in links: `clang ...`, `make`, `cargo build`. It runs
//! with ldwrap in the linker's place, told by `LDWRAP_VERIFY` to verify. Each link then is done by the
//! real lld, whose output, messages and exit status the command gets, as if we were not there; and a
//! second time split. What was found is left in a directory, and shown at the end: build systems show
//! a linker's own words or don't.

mod side_files;
mod summary;

use crate::app::report_lines::number;
use crate::app::{explain, reach};
use crate::link::eligibility;
use crate::sys::process::{self, Role, Running};
use serde_json::{Value, json};
use shim::cmdline::CommandLine;
use shim::config::{Config, Split};
use shim::decide::{Decision, decide};
use shim::message::say;
use shim::options::Id;
use shim::settings::VERIFY;
use side_files::{Written, copy_tree, move_file, stamps, take, with_path, written_place};
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output};
use std::time::SystemTime;
use summary::Totals;

/// More objects that differ than these are counted, not told.
const MAX_OBJECTS: usize = 5;

/// How a command is to be verified.
#[derive(Debug, Clone, Copy)]
pub struct Options<'a> {
    /// Where files that differ are kept.
    pub keep: Option<&'a Path>,
    /// Whether a link that has bitcode and is left to lld is a failure.
    pub require_split: bool,
    /// Whether to print JSON; then what the command prints goes to standard error.
    pub json: bool,
}

/// Runs a command whose links are verified, and shows what was found; true if some were compared, all of them were
/// equal, and the command succeeded.
pub fn command(
    command: &[OsString],
    options: &Options<'_>,
    config: &Config,
) -> Result<bool, String> {
    let (program, args) = command.split_first().ok_or("no command to verify")?;
    process::watch_signals().map_err(|e| format!("signals: {e}"))?;
    let done = process::with_scratch(|scratch| -> io::Result<_> {
        let found = scratch.file("found");
        fs::create_dir(&found)?;
        let mut run = reach::through_ldwrap(program, config)?;
        run.args(args).env(VERIFY, &found);
        if options.json {
            run.stdout(io::stderr().as_fd().try_clone_to_owned()?);
        }
        process::prepare(&mut run);
        let child = run.spawn().map_err(|e| {
            io::Error::new(
                e.kind(),
                format!("cannot run {}: {e}", program.to_string_lossy()),
            )
        })?;
        let status = Running::new(child, Role::Tool).wait()?;
        process::wait_for_pending_signal(status);
        let findings = read_findings(&found)?;
        if let Some(keep) = options.keep {
            copy_tree(&found.join(KEPT), keep)?;
        }
        Ok((status, findings))
    });
    let (status, findings) = done.and_then(|r| r).map_err(|e| e.to_string())?;
    let totals = Totals::of(&findings);
    let failure = totals.failure(status, options.require_split);
    let text = match options.json {
        true => format!(
            "{}\n",
            summary::as_json(&findings, &totals, failure.as_deref())
        ),
        false => summary::text(&findings, &totals, failure.as_deref(), options.keep),
    };
    crate::app::print(text)?;
    Ok(failure.is_none())
}

/// How many modules a link had, and where their objects came from, by its report.
fn counts(report: &Value) -> String {
    let (hits, misses) = (
        number(report, "/cache/hits"),
        number(report, "/cache/misses"),
    );
    let modules = number(report, "/modules");
    match report["executor"] == "local" {
        true => format!("{modules} modules, {hits} of them from the cache"),
        false => format!("{} of {modules} modules from backends", hits + misses),
    }
}

/// Where links leave files that differ, below the directory for findings.
const KEPT: &str = "kept";

fn read_findings(dir: &Path) -> io::Result<Vec<Value>> {
    let mut findings = BTreeMap::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension() == Some(OsStr::new("json")) {
            let found = serde_json::from_slice(&fs::read(&path)?)?;
            findings.insert(path, found);
        }
    }
    Ok(findings.into_values().collect())
}

const EQUAL: &str = "equal";
const DIFFERS: &str = "DIFFERS";
const FORWARDED: &str = "forwarded";
const NATIVE: &str = "native";

/// Verifies one link: does what the real lld alone would do, and leaves in `found` how a split
/// compares. Nothing that goes wrong in the comparison is the build's concern.
pub fn link(argv0: &OsStr, args: &[OsString], real: &Path, found: &Path, config: &Config) -> u8 {
    let mut always = config.clone();
    always.split = Split::Always;
    let decision = decide(args.iter().map(OsString::as_os_str), &always, 1);
    let (Decision::Split { output, .. } | Decision::Forward { output, .. }) = &decision;
    let leave = |verdict: &Verdict| {
        let finding = json!({
            "output": output, "verdict": verdict.word, "text": verdict.text, "differences": verdict.differences,
            "compared": verdict.compared, "modules": verdict.modules,
        });
        if let Err(e) = leave(found, &finding) {
            say(format_args!("cannot note what was found: {e}"));
        }
    };
    let link = VerifiedLink {
        argv0,
        args,
        real,
        config,
    };
    let not_twice = match &decision {
        Decision::Forward { reason, .. } => Some(reason.clone()),
        Decision::Split { .. } => link.read_once(),
    };
    let result = match not_twice {
        Some(reason) => {
            let verdict = if reason == shim::decide::NO_BITCODE {
                NATIVE
            } else {
                FORWARDED
            };
            leave(&Verdict::not_compared(verdict, reason));
            link.plainly(&[])
        }
        None => match link.both_ways(found) {
            Ok((plain, verdict)) => {
                leave(&verdict);
                Ok(plain)
            }
            Err(e) => {
                let text = format!("could not be compared: {e}");
                leave(&Verdict::not_compared(DIFFERS, text));
                link.plainly(&[])
            }
        },
    };
    match result {
        Ok(run) => {
            let _ = io::stdout().write_all(&run.stdout);
            let _ = io::stderr().write_all(&run.stderr);
            let code = run.status.code().unwrap_or(1);
            u8::try_from(code).unwrap_or(1)
        }
        Err(e) => {
            say(format_args!("cannot run {}: {e}", real.display()));
            1
        }
    }
}

fn leave(dir: &Path, finding: &Value) -> io::Result<()> {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let nanos = since.map_or(0, |d| d.as_nanos());
    let name = format!("{nanos:030}-{}.json", std::process::id());
    fs::write(dir.join(name), finding.to_string())
}

/// How a split compares.
struct Verdict {
    word: &'static str,
    text: String,
    differences: Vec<String>,
    /// Whether a split link was compared with lld's.
    compared: bool,
    /// How many modules that had.
    modules: u64,
}

impl Verdict {
    fn not_compared(word: &'static str, text: String) -> Self {
        Self {
            word,
            text,
            differences: Vec::new(),
            compared: false,
            modules: 0,
        }
    }
}

struct Run {
    status: ExitStatus,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    files: Vec<Written>,
}

struct VerifiedLink<'a> {
    argv0: &'a OsStr,
    args: &'a [OsString],
    real: &'a Path,
    config: &'a Config,
}

impl VerifiedLink<'_> {
    /// Why a second link could not read what the first has read, if so.
    fn read_once(&self) -> Option<String> {
        let cmd = CommandLine::parse(self.args).ok()?;
        eligibility::read_once(self.args, &cmd)
    }

    /// Runs the real lld, with our standard input.
    fn plainly(&self, extra: &[OsString]) -> io::Result<Run> {
        let mut lld = Command::new(self.real);
        lld.arg0(shim::lld::arg0(self.argv0, self.real));
        lld.args(self.args).args(extra);
        process::output_with_stdin(lld, Role::Tool).map(ended)
    }

    /// Links both ways and compares. The files of lld's own link are in their places in the end.
    fn both_ways(&self, found: &Path) -> io::Result<(Run, Verdict)> {
        let dir = tempfile::Builder::new().prefix("link-").tempdir_in(found)?;
        let cmd = CommandLine::parse(self.args).map_err(|e| io::Error::other(e.to_string()))?;
        // The user's own cache would answer the second link with what the first has put there.
        let mut extra = Vec::new();
        let cache = dir.path().join("cache");
        if cmd.last(Id::ThinltoCacheDir).is_some_and(|d| !d.is_empty()) {
            extra.push(joined("--thinlto-cache-dir=", &cache));
        }

        let outputs = cmd.outputs();
        let before = stamps(&outputs);
        let mut plain = self.plainly(&extra)?;
        plain.files = take(&outputs, &before, &dir.path().join("plain"))?;
        let _ = fs::remove_dir_all(&cache);

        let (report, objects) = (dir.path().join("report"), dir.path().join("ours"));
        let mut split = Command::new(std::env::current_exe()?);
        split.arg0(self.argv0).args(self.args).args(&extra);
        split
            .env_remove(VERIFY)
            .env_remove("LDWRAP_STRICT")
            .env("LDWRAP_REAL_LLD", self.real)
            .env("LDWRAP_SPLIT", "always")
            .env("LDWRAP_REPORT", &report)
            .env("LDWRAP_SAVE_OBJECTS", &objects);
        if let Some(clang) = &self.config.clang {
            split.env("LDWRAP_CLANG", clang);
        }
        let before = stamps(&outputs);
        let ran = process::output(split, Role::Tool).map(ended);
        let taken = take(&outputs, &before, &dir.path().join("split"));
        let compared = match (ran, taken) {
            (Ok(mut ran), Ok(files)) => {
                ran.files = files;
                Ok(self.compare(&cmd, &plain, &ran, dir.path()))
            }
            (Err(e), _) | (_, Err(e)) => Err(e),
        };
        // Comparing may have linked once more. What no link has written is the user's from before.
        for (name, before) in outputs.iter().zip(&before) {
            if let Some(place) = written_place(Path::new(name), *before)? {
                fs::remove_file(&place).map_err(|e| with_path(&place, e))?;
            }
        }
        let verdict = compared?;
        if verdict.word == DIFFERS {
            let name = dir.path().file_name().unwrap_or(OsStr::new("link"));
            copy_tree(dir.path(), &found.join(KEPT).join(name))?;
        }
        for written in &plain.files {
            move_file(&written.file, &written.place)?;
        }
        Ok((plain, verdict))
    }

    fn compare(&self, cmd: &CommandLine, plain: &Run, split: &Run, dir: &Path) -> Verdict {
        let report = fs::read_to_string(dir.join("report")).unwrap_or_default();
        let report: Value = serde_json::from_str(report.trim()).unwrap_or_default();
        let field = |name: &str| report.get(name).and_then(Value::as_str).unwrap_or("");
        let mut differences = Vec::new();
        let mut differ = |what: String, plain: &[u8], split: &[u8]| {
            for line in explain::differences(plain, split) {
                differences.push(format!("{what}: {line}"));
            }
        };
        differ(
            "exit status".into(),
            plain.status.to_string().as_bytes(),
            split.status.to_string().as_bytes(),
        );
        differ("stdout".into(), &plain.stdout, &split.stdout);
        if !same_errors(plain, split) {
            differ("stderr".into(), &plain.stderr, &split.stderr);
        }
        let mut output_differs = false;
        for name in files(plain, split) {
            let what = name.display().to_string();
            let of = |run: &Run| {
                let written = run.files.iter().find(|w| w.name == name)?;
                fs::read(&written.file).ok()
            };
            match (of(plain), of(split)) {
                // Times differ each time.
                (Some(a), Some(b)) if is_time_trace(&a) && is_time_trace(&b) => {}
                (Some(a), Some(b)) => {
                    output_differs |= a != b && name.as_os_str() == cmd.output();
                    differ(what, &a, &b);
                }
                (None, _) => differ(what, b"not written", b"written"),
                (_, None) => differ(what, b"written", b"not written"),
            }
        }
        let (action, reason) = (field("action"), field("reason"));
        if action != "split" || !plain.status.success() {
            return not_split(plain, split, (action, reason), differences);
        }
        let modules = number(&report, "/modules");
        let mut text = counts(&report);
        if differences.is_empty() {
            let _ = match plain.files.len() {
                1 => write!(text, "; the file is equal"),
                n => write!(text, "; {n} files are equal"),
            };
            return Verdict {
                word: EQUAL,
                text,
                differences,
                compared: true,
                modules,
            };
        }
        if output_differs {
            differences.extend(self.objects(dir));
        }
        Verdict {
            word: DIFFERS,
            text,
            differences,
            compared: true,
            modules,
        }
    }

    /// Which modules' objects differ from those of an in-process link (docs/lld.md, "Objects of an in-process link").
    fn objects(&self, dir: &Path) -> Vec<String> {
        let theirs = dir.join("theirs");
        let extra = [
            joined("--lto-obj-path=", &theirs),
            "--thinlto-cache-dir=".into(),
            "-o".into(),
            dir.join("third").into(),
        ];
        let linked = self.plainly(&extra).is_ok_and(|run| run.status.success());
        let modules = fs::read(dir.join("ours.modules")).unwrap_or_default();
        if !linked || modules.is_empty() {
            return vec!["which module's object differs could not be found out".into()];
        }
        let mut told = Vec::new();
        let mut differ = 0;
        for line in modules.split(|&b| b == b'\n').filter(|l| !l.is_empty()) {
            let line = String::from_utf8_lossy(line);
            let (number, module) = line.split_once(' ').unwrap_or((&line, ""));
            let read = |kind: &str| fs::read(dir.join(format!("{kind}{number}")));
            let (Ok(theirs), Ok(ours)) = (read("theirs"), read("ours")) else {
                continue;
            };
            let found = explain::differences(&theirs, &ours);
            if found.is_empty() {
                continue;
            }
            differ += 1;
            if differ <= MAX_OBJECTS {
                told.extend(
                    found
                        .into_iter()
                        .map(|d| format!("object of {module}: {d}")),
                );
            }
        }
        if differ > MAX_OBJECTS {
            told.push(format!("objects of {} more modules", differ - MAX_OBJECTS));
        }
        if differ == 0 {
            told.push("each backend's object is equal: the difference is in the final link".into());
        }
        told
    }
}

/// How links compare of which one was left to lld, or failed, as the report has it (action and reason).
fn not_split(
    plain: &Run,
    split: &Run,
    (action, reason): (&str, &str),
    differences: Vec<String>,
) -> Verdict {
    let (word, text) = match (differences.is_empty(), plain.status.success()) {
        (true, true) => (FORWARDED, reason.to_owned()),
        (true, false) => (EQUAL, "fails, in the same words".to_owned()),
        (false, _) if action == "forward" => (
            DIFFERS,
            format!("forwarded, {reason}: two links by lld alone differ"),
        ),
        (false, _) => {
            let [alone, ours] = [plain, split].map(|run| run.status);
            let text = format!("by lld alone {alone}, through ldwrap {ours}");
            (DIFFERS, text)
        }
    };
    Verdict {
        differences,
        ..Verdict::not_compared(word, text)
    }
}

/// Whether both links complain of the same. The threads of an lld that fails do so in any order.
fn same_errors(plain: &Run, split: &Run) -> bool {
    let sorted = |run: &Run| {
        let mut lines: Vec<Vec<u8>> = run
            .stderr
            .split(|&b| b == b'\n')
            .map(<[u8]>::to_vec)
            .collect();
        lines.sort_unstable();
        lines
    };
    !plain.status.success() && sorted(plain) == sorted(split)
}

fn joined(option: &str, path: &Path) -> OsString {
    let mut joined = OsString::from(option);
    joined.push(path);
    joined
}

/// A link that has ended, unless a signal is about to end us too.
fn ended(out: Output) -> Run {
    process::wait_for_pending_signal(out.status);
    Run {
        status: out.status,
        stdout: out.stdout,
        stderr: out.stderr,
        files: Vec::new(),
    }
}

/// Names of all files that either link wrote, in order.
fn files(plain: &Run, split: &Run) -> Vec<PathBuf> {
    let mut names: Vec<PathBuf> = Vec::new();
    for written in plain.files.iter().chain(&split.files) {
        if !names.contains(&written.name) {
            names.push(written.name.clone());
        }
    }
    names
}

/// Whether a file is lld's time trace (`--time-trace`), whole.
fn is_time_trace(bytes: &[u8]) -> bool {
    let trace: Option<Value> = serde_json::from_slice(bytes).ok();
    trace.is_some_and(|t| t.get("traceEvents").is_some_and(Value::is_array))
}
