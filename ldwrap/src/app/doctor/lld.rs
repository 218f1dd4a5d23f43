//! One real lld: its version, the clang of the same LLVM, and whether its links can be watched here.
//!
//! Watching is tried with a small link that is done twice, with a cache of its own: the second time its object has to come
//! from there. Without a clang there is no bitcode to link; then a file of bytes is linked, which shows whether lld can
//! be watched, and no more.

use super::finding::Finding;
use super::setup::{compiles_elsewhere, mend_reason};
use crate::admit::Limits;
use crate::app::linker::default_jobs;
use crate::cache::files::FileDigests;
use crate::cache::objects::Cache;
use crate::jobs::toolchain::{self, Toolchain, ToolchainError};
use crate::link::eligibility;
use crate::link::engine::{self, Link, LinkOutcome};
use crate::link::events::Events;
use crate::link::selftest;
use crate::sys::process::{self, Role, first_error_line};
use shim::cmdline::CommandLine;
use shim::config::Config;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

/// What lld calls the code of this machine (`-m`), for a link without an object that tells it.
#[cfg(target_arch = "aarch64")]
const EMULATION: &str = "aarch64linux";
#[cfg(not(target_arch = "aarch64"))]
const EMULATION: &str = "elf_x86_64";

/// Bytes of the cache of a small link: more than its object.
const CACHE: u64 = 1 << 20;

/// A real lld that was looked at.
#[derive(Debug)]
pub(super) struct Lld {
    pub(super) path: PathBuf,
    /// The file that this leads to.
    pub(super) file: PathBuf,
    /// Its major version, if it says one.
    pub(super) major: Option<u32>,
    /// With the clang of the same LLVM, if there is one.
    pub(super) toolchain: Option<Toolchain>,
    /// Whether its links can be split.
    pub(super) splits: bool,
    /// Whether backends can run outside it, if the settings want that.
    pub(super) has_jobs: bool,
}

/// Looks at an lld; `dir` is a directory of ours, with nothing in it.
pub(super) fn check(path: &Path, config: &Config, dir: &Path) -> (Lld, Vec<Finding>) {
    let subject = path.display();
    let mut lld = Lld {
        path: path.to_owned(),
        file: path.canonicalize().unwrap_or_default(),
        major: None,
        toolchain: None,
        splits: false,
        has_jobs: false,
    };
    let version = match toolchain::lld_version(path) {
        Ok(version) => version,
        Err(e) => {
            let fix = "export LDWRAP_REAL_LLD=FILE, an lld that runs";
            return (lld, vec![Finding::bad(subject, e, fix)]);
        }
    };
    lld.major = version.split('.').next().and_then(|n| n.parse().ok());
    let mut found = Vec::new();
    match Toolchain::find(path, config) {
        Ok(toolchain) => {
            let text = format!("lld {version}; its clang is {}", toolchain.clang.display());
            found.push(Finding::ok(&subject, text));
            lld.toolchain = Some(toolchain);
        }
        Err(e) => {
            found.push(Finding::ok(&subject, format!("lld {version}")));
            found.push(no_clang(&subject, &e, lld.major, config));
        }
    }
    let tried = match lld.major {
        Some(major) => small_link(path, major, lld.toolchain.as_ref(), dir),
        None => Err(format!("cannot tell the version of {subject}")),
    };
    match tried {
        Ok(text) => {
            lld.splits = true;
            found.push(Finding::ok(&subject, text));
        }
        Err(reason) => {
            let fix = mend_reason(&reason, config);
            found.push(Finding::bad(
                &subject,
                format!("a small link was not split: {reason}"),
                fix,
            ));
        }
    }
    if lld.splits && compiles_elsewhere(config) {
        if let Some(toolchain) = &mut lld.toolchain {
            let tested = self_test(&subject, toolchain, config);
            lld.has_jobs = !tested.is_bad();
            found.push(tested);
        }
    }
    (lld, found)
}

/// A clang is needed for jobs only.
fn no_clang(
    subject: impl std::fmt::Display,
    error: &ToolchainError,
    major: Option<u32>,
    config: &Config,
) -> Finding {
    let fix = match (&config.clang, major) {
        (Some(_), _) => super::setup::undo(config, "LDWRAP_CLANG"),
        (None, Some(major)) => {
            format!(
                "apt-get install clang-{major}, or export LDWRAP_CLANG=FILE, one of the same version"
            )
        }
        (None, None) => "export LDWRAP_CLANG=FILE".into(),
    };
    match compiles_elsewhere(config) {
        true => Finding::bad(
            subject,
            format!("no backend can run outside lld: {error}"),
            fix,
        ),
        false => Finding::note(
            subject,
            format!("backends can run in lld's own threads only: {error}"),
            Some(fix),
        ),
    }
}

/// Whether objects of clang are lld's own, for backends outside it.
fn self_test(
    subject: impl std::fmt::Display,
    toolchain: &mut Toolchain,
    config: &Config,
) -> Finding {
    match selftest::run(toolchain, default_jobs(config, None)) {
        Ok(()) => {
            toolchain.record_self_test();
            let text = "a small link with backends outside lld equals lld's own";
            Finding::ok(subject, text)
        }
        Err(e) => Finding::bad(
            subject,
            format!("no backend can run outside lld: {e}"),
            "export LDWRAP_EXECUTOR=local",
        ),
    }
}

/// Links twice, watched; an error is the reason why the link was not split.
fn small_link(
    lld: &Path,
    major: u32,
    toolchain: Option<&Toolchain>,
    dir: &Path,
) -> Result<String, String> {
    let mut args: Vec<OsString> = ["-shared", "-o"].map(OsString::from).into();
    args.push(dir.join("out").into());
    let input = dir.join("input.c");
    std::fs::write(&input, "int input(int n) { return n * 3; }\n")
        .map_err(|e| format!("{}: {e}", input.display()))?;
    match toolchain {
        Some(toolchain) => args.push(compile(toolchain, &input, dir)?.into()),
        None => {
            args.extend(["-m", EMULATION, "--format=binary"].map(OsString::from));
            args.push(input.into());
        }
    }
    let cache = Arc::new(Cache::new(&dir.join("cache"), CACHE));
    let link = || watched_link(lld, major, &args, &cache);
    let first = link()?;
    if toolchain.is_none() {
        return Ok("a small link without bitcode can be watched".into());
    }
    let second = link()?;
    match (first.compiled, second.hits) {
        (1, 1) => Ok("a small link was split: its object came from a cache the second time".into()),
        (compiled, hits) => Err(format!(
            "lld compiled {compiled} modules, and took {hits} objects from a cache afterwards"
        )),
    }
}

fn watched_link(
    lld: &Path,
    major: u32,
    args: &[OsString],
    cache: &Arc<Cache>,
) -> Result<LinkOutcome, String> {
    let cmd = CommandLine::parse(args).map_err(|e| e.to_string())?;
    let options = eligibility::watched(&cmd, major)?;
    let link = Link {
        lld,
        argv0: OsStr::new("ld.lld"),
        args,
        cmd: &cmd,
        cache: Some(cache),
        files: &FileDigests::default(),
        major,
        limits: &Limits::of_one_link(1),
        history: None,
        bitcode: 0,
        exchange: None,
        signals: None,
        quiet: true,
        objects: None,
    };
    let done =
        engine::run(&link, options, &mut Events::new(None, None)).map_err(|alone| alone.reason)?;
    match done.status.success() {
        true => Ok(done),
        false => Err(format!("lld ended with {}", done.status)),
    }
}

fn compile(toolchain: &Toolchain, source: &Path, dir: &Path) -> Result<PathBuf, String> {
    let object = dir.join("input.o");
    let mut clang = Command::new(&toolchain.clang);
    clang
        .args(["-c", "-O2", "-fPIC", "-flto=thin", "-ffreestanding"])
        .arg(source)
        .arg("-o")
        .arg(&object)
        .env("TMPDIR", dir);
    let shown = toolchain.clang.display();
    let out = process::output(clang, Role::Tool).map_err(|e| format!("cannot run {shown}: {e}"))?;
    if out.status.success() {
        return Ok(object);
    }
    let said = String::from_utf8_lossy(&out.stderr);
    Err(format!(
        "{shown} compiles nothing: {}",
        first_error_line(&said)
    ))
}
