//! Which linker a command runs, found out without linking anything.
//!
//! A compiler driver first shows what it would run (`-###`). If that is a link and nothing else, the command is run with
//! `-Wl,--version` behind it: no linker that was ever seen links then. A linker in our place leaves an answer instead
//! ([`crate::app::probe`]). Drivers remove the output of a link that fails; so the command gets another one.

use crate::app::probe::{Answer, SHOW_VERSION};
use crate::sys::process::{self, Role, first_error_line};
use serde_json::Value;
use shim::compiler::without_version;
use shim::settings::DOCTOR;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The output that a command gets, in the directory of the probe.
pub(crate) const OUTPUT: &str = "out";

/// What came of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reached {
    /// The shim, and ldwrap behind it.
    Ldwrap(Answer),
    /// The shim, which does not find ldwrap.
    ShimAlone,
    /// Another linker: its path, as far as the driver tells; and the first line of what it said if it failed.
    Other {
        linker: String,
        error: Option<String>,
    },
}

/// Why it cannot be told which linker a command runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NotProbed {
    pub(crate) text: String,
    pub(crate) fix: String,
}

impl NotProbed {
    fn new(text: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            fix: fix.into(),
        }
    }
}

/// What a command is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CommandKind {
    /// A compiler, which runs a linker.
    Driver,
    Linker,
    /// It may do anything, whatever options it is given.
    Unknown,
}

/// Finds out which linker a command reaches. `dir` is a directory of ours, with nothing in it.
pub(super) fn probe(command: &[OsString], dir: &Path) -> Result<Reached, NotProbed> {
    let plain = |program: &OsStr| Ok(Command::new(program));
    probe_with(command, dir, &plain)
}

/// How to run a program.
type MakeCommand<'m> = &'m dyn Fn(&OsStr) -> io::Result<Command>;

/// As [`probe`], with each program run as `make` has it.
pub(crate) fn probe_with(
    command: &[OsString],
    dir: &Path,
    make: MakeCommand<'_>,
) -> Result<Reached, NotProbed> {
    let (program, args) = command
        .split_first()
        .ok_or_else(|| NotProbed::new("no command", "ldwrap doctor -- clang -fuse-ld=lld a.o"))?;
    let (linker, added) = match kind(command) {
        CommandKind::Driver => (
            linker_of(program, args, dir, make)?,
            format!("-Wl,{SHOW_VERSION}"),
        ),
        CommandKind::Linker => (program.to_string_lossy().into(), SHOW_VERSION.to_owned()),
        CommandKind::Unknown => {
            let name = program.to_string_lossy();
            return Err(NotProbed::new(
                format!("{name} is neither a compiler nor a linker"),
                format!(
                    "give the command that links (make V=1, ninja -v show it), or: ldwrap verify -- {name} ..."
                ),
            ));
        }
    };
    let (answer, report) = (dir.join("answer"), dir.join("report"));
    let mut run = prepared(make, program)?;
    run.args(args)
        .arg(added)
        .arg("-o")
        .arg(dir.join(OUTPUT))
        .env(DOCTOR, &answer)
        .env("LDWRAP_REPORT", &report);
    let out = output(run, program, dir)?;
    let left = Answer::read(&answer)
        .map_err(|e| NotProbed::new(format!("{}: {e}", answer.display()), "reinstall ldwrap"))?;
    if let Some(answer) = left {
        return Ok(Reached::Ldwrap(answer));
    }
    // The shim itself reports a link that it cannot hand over.
    if std::fs::read_to_string(&report).is_ok_and(|text| is_report(&text)) {
        return Ok(Reached::ShimAlone);
    }
    let said = String::from_utf8_lossy(&out.stderr);
    let error = (!out.status.success()).then(|| first_error_line(&said).to_owned());
    let shown = collect2_runs(&String::from_utf8_lossy(
        &[out.stdout, b"\n".to_vec(), out.stderr.clone()].concat(),
    ));
    Ok(Reached::Other {
        linker: shown.unwrap_or(linker),
        error,
    })
}

/// What a driver would run as the linker, if it runs that and nothing else.
fn linker_of(
    program: &OsStr,
    args: &[OsString],
    dir: &Path,
    make: MakeCommand<'_>,
) -> Result<String, NotProbed> {
    let mut show = prepared(make, program)?;
    show.args(args).arg("-###");
    let out = output(show, program, dir)?;
    let said = String::from_utf8_lossy(&out.stderr);
    if !out.status.success() {
        let text = first_error_line(&said).to_owned();
        let fix = match text.contains("-fuse-ld=") {
            // clang looks for lld itself, and finds none.
            true => return Ok(String::new()),
            false => "mend the command: it fails without ldwrap too",
        };
        return Err(NotProbed::new(text, fix));
    }
    let jobs = jobs(&said);
    let compiles = jobs.iter().filter(|job| is_compile(job)).count();
    match jobs.last() {
        Some(link) if !is_compile(link) && compiles == 0 => {
            Ok(link.first().cloned().unwrap_or_default())
        }
        Some(link) if !is_compile(link) => Err(NotProbed::new(
            "the command compiles as well: what is linked is known only then",
            "compile first (-c), and give the command that links the objects",
        )),
        _ => Err(NotProbed::new(
            "the command links nothing",
            "give the command that links",
        )),
    }
}

fn prepared(make: MakeCommand<'_>, program: &OsStr) -> Result<Command, NotProbed> {
    make(program).map_err(|e| cannot_run(program, &e))
}

fn output(mut command: Command, program: &OsStr, dir: &Path) -> Result<Output, NotProbed> {
    // Messages that are known, and temporary files that go with ours.
    command.env("LC_ALL", "C").env("TMPDIR", dir);
    process::output(command, Role::Tool).map_err(|e| cannot_run(program, &e))
}

fn cannot_run(program: &OsStr, error: &io::Error) -> NotProbed {
    let name = program.to_string_lossy();
    NotProbed::new(
        format!("cannot run {name}: {error}"),
        "give a command that can be run",
    )
}

/// Whether a file has a report of a link.
fn is_report(text: &str) -> bool {
    let first = text.lines().next().unwrap_or_default();
    serde_json::from_str::<Value>(first).is_ok_and(|report| report["action"] == "forward")
}

/// What a command is, by its name. A cache of compiles runs what follows.
fn kind(command: &[OsString]) -> CommandKind {
    let name = |word: &OsString| {
        let name = Path::new(word).file_name().unwrap_or_default();
        name.as_bytes().to_vec()
    };
    let mut names = command.iter().map(name);
    let is_cache = |name: &Vec<u8>| matches!(&name[..], b"ccache" | b"sccache");
    let Some(name) = names.find(|name| !is_cache(name)) else {
        return CommandKind::Unknown;
    };
    // A target may stand before it, a version behind it.
    match without_version(&name).rsplit(|&b| b == b'-').next() {
        Some(b"ld.lld" | b"ld" | b"ldwrap") => CommandKind::Linker,
        Some(b"clang" | b"clang++" | b"gcc" | b"g++" | b"cc" | b"c++" | b"gfortran" | b"flang") => {
            CommandKind::Driver
        }
        _ => CommandKind::Unknown,
    }
}

/// The commands that a driver shows with `-###`: lines that begin with a space, words quoted as for a shell.
fn jobs(shown: &str) -> Vec<Vec<String>> {
    let lines = shown.lines().filter_map(|line| line.strip_prefix(' '));
    lines.map(words).filter(|words| !words.is_empty()).collect()
}

/// The words of a line: both clang and gcc quote with `"`, in which `\` takes the next character as it is.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted) = (Vec::new(), None::<String>, false);
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            ' ' if !quoted => words.extend(word.take()),
            '\\' => word.get_or_insert_default().extend(chars.next()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// Whether a command of a driver's compiles or assembles.
fn is_compile(job: &[String]) -> bool {
    let program = job.first().map(PathBuf::from).unwrap_or_default();
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    let name = name.rsplit('-').next().unwrap_or_default();
    job.iter().any(|word| word == "-cc1" || word == "-cc1as")
        || matches!(name, "cc1" | "cc1plus" | "as" | "f951" | "lto1" | "objcopy")
}

/// The linker that gcc's collect2 runs, which it shows when it is asked for its version.
fn collect2_runs(said: &str) -> Option<String> {
    let mut lines = said.lines();
    lines.find(|line| line.starts_with("collect2 version "))?;
    let linker = lines.next()?.split(' ').next()?;
    linker.starts_with('/').then(|| linker.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn commands_are_known_by_name() {
        for (line, expected) in [
            ("clang -O2 a.o", CommandKind::Driver),
            ("/usr/bin/clang++-22 a.o", CommandKind::Driver),
            ("x86_64-linux-gnu-gcc-12 a.o", CommandKind::Driver),
            ("ccache clang a.o", CommandKind::Driver),
            ("ld.lld-22 a.o", CommandKind::Linker),
            ("/usr/bin/ld a.o", CommandKind::Linker),
            ("make all", CommandKind::Unknown),
            ("./build.sh", CommandKind::Unknown),
            ("clang-format x", CommandKind::Unknown),
            ("22 x", CommandKind::Unknown),
            ("ccache", CommandKind::Unknown),
        ] {
            assert_eq!(kind(&command(line)), expected, "{line}");
        }
    }

    #[test]
    fn what_drivers_show_is_read() {
        let clang = "Debian clang version 22.1.8\nInstalledDir: /usr/lib/llvm-22/bin\n \
                     \"/usr/lib/llvm-22/bin/ld.lld\" \"-o\" \"a b\" \"\" \"-rpath\" \"\\$ORIGIN\\\"\"\n";
        assert_eq!(
            jobs(clang),
            [[
                "/usr/lib/llvm-22/bin/ld.lld",
                "-o",
                "a b",
                "",
                "-rpath",
                "$ORIGIN\""
            ]]
        );
        let gcc = "COLLECT_GCC=gcc\n /usr/lib/gcc/cc1 -quiet a.c -o /tmp/a.s\n as --64 -o a.o\n \
                   /usr/lib/gcc/collect2 \"-fuse-ld=lld\" a.o\n";
        let jobs = jobs(gcc);
        let compile: Vec<bool> = jobs.iter().map(|job| is_compile(job)).collect();
        assert_eq!(compile, [true, true, false]);
        assert!(is_compile(&words(
            "\"/usr/bin/clang\" \"-cc1\" \"-triple\""
        )));
        let said = "LLD 22\ncollect2 version 12.2.0\n/usr/bin/ld.lld -plugin x --version\n";
        assert_eq!(collect2_runs(said).as_deref(), Some("/usr/bin/ld.lld"));
        assert_eq!(collect2_runs("LLD 22.1.8"), None);
    }

    #[test]
    fn what_may_do_anything_is_not_run() {
        let dir = tempfile::tempdir().unwrap();
        let not = probe(&command("/bin/false x"), dir.path()).unwrap_err();
        assert!(not.fix.contains("ldwrap verify -- /bin/false"), "{not:?}");
    }
}
