//! What `ldwrap doctor` is told by the linker that a command reaches.
//!
//! Only the linker itself knows what the drivers before it have made of a command: its arguments, its environment, and
//! which compiler called it. So the doctor runs the command with `LDWRAP_DOCTOR` naming a file, and with `--version`, with
//! which any linker links nothing. Where the linker is ldwrap, it leaves here what it would do, and links nothing either.

use crate::jobs::toolchain;
use crate::link::eligibility;
use serde_json::{Value, json};
use shim::cmdline::CommandLine;
use shim::config::{Config, Executor};
use shim::decide::{COUNTED, Decision, decide};
use shim::message::say;
use shim::response::{self, Quoting};
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// The option with which every linker links nothing.
pub(crate) const SHOW_VERSION: &str = "--version";

/// What a linker has left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The real lld; an error says where it was looked for.
    pub(crate) real: Result<PathBuf, String>,
    /// `argv[0]` as it came.
    pub(crate) argv0: OsString,
    /// The rest, without what the doctor has added; response files of drivers are gone when they end.
    pub(crate) args: Vec<OsString>,
    /// Bytes of bitcode, as far as they were counted; an error says why the link is lld's alone.
    pub(crate) bitcode: Result<u64, String>,
    /// Why no jobs are made of it, if the settings ask for jobs.
    pub(crate) no_jobs: Option<String>,
}

/// In ldwrap as the linker: leaves an answer in `file`. Gives the exit status.
pub(crate) fn answer(argv0: &OsStr, args: &[OsString], config: &Config, file: &Path) -> u8 {
    let args = without_added(args);
    let real = shim::lld::find(argv0, config, std::env::var_os("PATH").as_deref());
    let (bitcode, no_jobs) = match &real {
        Ok(real) => plan(&args, real, config),
        Err(_) => (Err(String::new()), None),
    };
    let expanded = shim::response::expand(&args, Quoting::Gnu);
    let answer = Answer {
        argv0: argv0.to_owned(),
        args: expanded.unwrap_or(args),
        real: real.map_err(|e| e.to_string()),
        bitcode,
        no_jobs,
    };
    match std::fs::write(file, answer.to_json().to_string()) {
        Ok(()) => 0,
        Err(e) => {
            say(format_args!("{}: {e}", file.display()));
            1
        }
    }
}

/// The arguments without what the doctor has added. clang passes a long command line on in a response file, and gcc one
/// that it was given in such a file.
fn without_added(args: &[OsString]) -> Vec<OsString> {
    let is_added = |arg: &OsString| arg == SHOW_VERSION;
    let mut args = args.to_vec();
    if !args.iter().any(is_added) {
        // Drivers use GNU's quoting. What cannot be read is found out, and said, later.
        args = response::expand(&args, Quoting::Gnu).unwrap_or(args);
    }
    if let Some(added) = args.iter().rposition(is_added) {
        args.remove(added);
    }
    args
}

/// How much bitcode a link has, or why it is lld's alone; and why no jobs are made of it.
fn plan(args: &[OsString], real: &Path, config: &Config) -> (Result<u64, String>, Option<String>) {
    let bitcode = match decide(args.iter().map(OsString::as_os_str), config, COUNTED) {
        Decision::Forward { reason, .. } => return (Err(reason), None),
        Decision::Split { bitcode, .. } => bitcode,
    };
    let watched = || -> Result<(CommandLine, u32), String> {
        let cmd = CommandLine::parse(args).map_err(|e| e.to_string())?;
        let major = toolchain::lld_major(real, config.cache_dir.as_deref())?;
        eligibility::watched(&cmd, major)?;
        Ok((cmd, major))
    };
    let (cmd, major) = match watched() {
        Ok(watched) => watched,
        Err(reason) => return (Err(reason), None),
    };
    let no_jobs = match config.executor() {
        Executor::Clang | Executor::Remote | Executor::Distributor => {
            eligibility::jobs(args, &cmd, major, config, bitcode).err()
        }
        Executor::Local => None,
    };
    (Ok(bitcode), no_jobs)
}

impl Answer {
    /// Reads what a linker has left; `None` if it has left nothing.
    pub(crate) fn read(file: &Path) -> io::Result<Option<Self>> {
        let text = match std::fs::read_to_string(file) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            text => text?,
        };
        let value: Value = serde_json::from_str(&text)?;
        Ok(Self::from_json(&value))
    }

    fn to_json(&self) -> Value {
        json!({
            // A path is bytes.
            "real": self.real.as_ref().ok().map(|p| p.as_os_str().as_bytes()),
            "argv0": self.argv0.as_bytes(),
            "args": self.args.iter().map(|arg| arg.as_bytes()).collect::<Vec<_>>(),
            "no_lld": self.real.as_ref().err(),
            "bitcode": self.bitcode.as_ref().ok(),
            "reason": self.bitcode.as_ref().err(),
            "no_jobs": self.no_jobs,
        })
    }

    fn from_json(value: &Value) -> Option<Self> {
        let text = |name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
        let bytes = |value: &Value| {
            let byte = |b: &Value| b.as_u64().and_then(|b| u8::try_from(b).ok());
            let bytes: Option<Vec<u8>> = value.as_array()?.iter().map(byte).collect();
            bytes.map(OsString::from_vec)
        };
        let real = match value.get("real").filter(|real| !real.is_null()) {
            Some(real) => Ok(PathBuf::from(bytes(real)?)),
            None => Err(text("no_lld")?),
        };
        let args = value.get("args")?.as_array()?.iter();
        let bitcode = match value.get("bitcode").and_then(Value::as_u64) {
            Some(bytes) => Ok(bytes),
            None => Err(text("reason")?),
        };
        Some(Self {
            real,
            argv0: bytes(value.get("argv0")?)?,
            args: args.map(bytes).collect::<Option<_>>()?,
            bitcode,
            no_jobs: text("no_jobs"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_as_it_was_left() {
        let left = Answer {
            real: Ok(OsString::from_vec(b"/a \xff/ld.lld".to_vec()).into()),
            argv0: "ld.lld".into(),
            args: vec![OsString::from_vec(b"\xff.o".to_vec()), "".into()],
            bitcode: Ok(7),
            no_jobs: Some("--lto-O0".into()),
        };
        let none = Answer {
            real: Err("tried".into()),
            argv0: "".into(),
            args: Vec::new(),
            bitcode: Err("no bitcode".into()),
            no_jobs: None,
        };
        for answer in [left, none] {
            let text = answer.to_json().to_string();
            let value = serde_json::from_str(&text).unwrap();
            assert_eq!(Answer::from_json(&value), Some(answer));
        }
        assert_eq!(Answer::from_json(&json!({"real": [300]})), None);
        let gone = Path::new("/nonexistent/answer");
        assert_eq!(Answer::read(gone).unwrap(), None);
    }

    #[test]
    fn what_was_added_is_left_out_once() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("args");
        std::fs::write(&file, "-o \"a b\"\n--version c.o --version -lc").unwrap();
        let at = format!("@{}", file.display());
        for (args, expected) in [
            (
                &["-o", "x", SHOW_VERSION, "-lc"][..],
                &["-o", "x", "-lc"][..],
            ),
            (&[&at], &["-o", "a b", SHOW_VERSION, "c.o", "-lc"]),
            // It is behind what the user has in files.
            (&[&at, SHOW_VERSION], &[&at]),
            (&["@/nonexistent"], &["@/nonexistent"]),
        ] {
            let args: Vec<OsString> = args.iter().map(OsString::from).collect();
            assert_eq!(without_added(&args), expected);
        }
    }

    #[test]
    fn a_linker_leaves_what_it_would_do() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("answer");
        let config = Config {
            real_lld: Some("/nonexistent/ld.lld".into()),
            ..Config::default()
        };
        let args = ["-o", "x", SHOW_VERSION].map(OsString::from);
        assert_eq!(answer(OsStr::new("ld.lld"), &args, &config, &file), 0);
        let left = Answer::read(&file).unwrap().unwrap();
        assert!(left.real.unwrap_err().contains("/nonexistent/ld.lld"));
    }
}
