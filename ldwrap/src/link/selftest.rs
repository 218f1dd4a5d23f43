//! A small link, both ways, before a toolchain is relied on (docs/lld.md, "Lookups").
//!
//! What the split leans on is not promised by lld: the order or the threads of its cache lookups,
//! what cc1's flags mean, how a shard is laid out. So the first time that an lld and a clang are seen,
//! a link that has all of it (a lazy module, imports, a call to a declaration, data that is local to
//! the output, modules of different sizes, a shared and an executable output) is made by the real lld
//! alone and split, and must come out the same to the byte, with every object from a backend.

use crate::admit::Limits;
use crate::cache::files::{FileDigests, Identity};
use crate::jobs::failure::Failure;
use crate::jobs::toolchain::Toolchain;
use crate::link::attribution::AttributionRule;
use crate::link::eligibility;
use crate::link::engine::{self, Link, LinkOutcome};
use crate::link::events::Events;
use crate::link::exchange::Exchange;
use crate::link::jobs_thread::{self, JobsPlace, JobsRequest};
use crate::sys::process::{self, Role};
use crate::sys::scratch::Scratch;
use shim::cmdline::CommandLine;
use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::Builder;

/// `argv[0]`, whatever the file is called.
const LLD: &str = "ld.lld";
/// Sources of the test, in link order; the third is linked lazily, the last not at all.
const SOURCES: [(&str, &str); 5] = [
    (
        "main",
        "extern int big[]; int small(int); int lazy(int); extern int data;\n\
         int _start(void) { return small(data) + lazy(big[3]) + big[data]; }\n",
    ),
    (
        "small",
        "int lazy(int); int data = 7; int small(int x) { return lazy(x) ^ data; }\n",
    ),
    (
        "lazy",
        "extern int big[]; extern int data; __attribute__((noinline)) int lazy(int x) {\n\
         for (int i = 0; i < 64; i++) x = x * 31 + big[i]; return x + data; }\n",
    ),
    (
        "big",
        "int data; int big[64] = {1, 2, 3}; static int turn(int x) { return x * 17 ^ (x >> 3); }\n\
         __attribute__((weak)) int fill(int n) { for (int i = 0; i < 64; i++) big[i] = turn(n + i);\n\
         return big[n & 63]; }\n\
         __attribute__((visibility(\"hidden\"))) int twice(int x) { return fill(x) + fill(x + 1); }\n",
    ),
    ("unused", "int unused(void) { return 1; }\n"),
];

/// Runs the test; an error says what differed.
pub fn run(toolchain: &Toolchain, jobs: usize) -> Result<(), Failure> {
    let scratch = Scratch::new().map_err(|e| fail(&format!("no scratch directory: {e}")))?;
    let dir = scratch.file("selftest");
    std::fs::create_dir(&dir).map_err(|e| fail(&format!("{}: {e}", dir.display())))?;
    for pic in [false, true] {
        both_ways(toolchain, jobs, &scratch, &dir, pic)?;
    }
    Ok(())
}

fn fail(why: &str) -> Failure {
    Failure::Failed(format!("self-test of this lld and clang: {why}"))
}

fn both_ways(
    toolchain: &Toolchain,
    jobs: usize,
    scratch: &Scratch,
    dir: &Path,
    pic: bool,
) -> Result<(), Failure> {
    let mut objects = Vec::new();
    for (name, source) in SOURCES {
        objects.push(compile(toolchain, scratch, dir, name, source, pic)?);
    }
    let output = dir.join(if pic { "out.so" } else { "out" });
    let mut args: Vec<OsString> = Vec::new();
    if pic {
        args.push("-shared".into());
    }
    args.extend(["-o".into(), output.clone().into()]);
    for (i, object) in objects.into_iter().enumerate() {
        // main, small, (lazy), big, (unused)
        let lazy = i == 2 || i == 4;
        if lazy {
            args.push("--start-lib".into());
        }
        args.push(object.into());
        if lazy {
            args.push("--end-lib".into());
        }
    }
    // `data` is defined twice on purpose: one of the two must win in both links.
    args.push("-z".into());
    args.push("muldefs".into());

    let mut plain = Command::new(&toolchain.lld);
    plain.arg0(LLD).arg("--thinlto-jobs=1").args(&args);
    run_tool(scratch, plain)?;
    let read = || std::fs::read(&output).map_err(|e| fail(&format!("{}: {e}", output.display())));
    let expected = read()?;
    std::fs::remove_file(&output).map_err(|e| fail(&e.to_string()))?;

    wait_until_old(&args);
    let done = split(toolchain, jobs, &args)?;
    let got = read()?;
    if got != expected {
        return Err(fail("the split link's output differs from lld's own"));
    }
    if done.given != 4 || done.compiled > 0 {
        return Err(fail(&format!(
            "lld took {} objects of backends and compiled {} modules itself",
            done.given, done.compiled
        )));
    }
    Ok(())
}

/// Links with objects from clang.
fn split(toolchain: &Toolchain, jobs: usize, args: &[OsString]) -> Result<LinkOutcome, Failure> {
    let cmd = CommandLine::parse(args).map_err(|e| fail(&e.to_string()))?;
    let options = eligibility::watched(&cmd, toolchain.major).map_err(|e| fail(&e))?;
    let exchange = Exchange::new(None).map_err(|e| fail(&e.to_string()))?;
    let plan = JobsRequest {
        argv0: OsStr::new(LLD),
        args,
        cmd: &cmd,
        toolchain,
        threads: jobs,
        place: JobsPlace::Clang,
        save_objects: None,
        max_failures: 0,
    };
    exchange.want_jobs(true);
    let done = std::thread::scope(|scope| {
        let make = || {
            jobs_thread::run_beside(&exchange, || jobs_thread::make_jobs(&plan, None, &exchange))
        };
        if let Err(e) = Builder::new().spawn_scoped(scope, make) {
            exchange.end(Some(fail(&format!("no thread: {e}"))));
        }
        let by_order = AttributionRule::of(toolchain.major) == AttributionRule::ByTaskOrder;
        let there = !by_order || exchange.wait_for_index(|| false);
        let done = engine::run(
            &Link {
                lld: &toolchain.lld,
                argv0: plan.argv0,
                args,
                cmd: &cmd,
                cache: None,
                files: &FileDigests::default(),
                major: toolchain.major,
                limits: &Limits::of_one_link(jobs),
                history: None,
                bitcode: 0,
                exchange: there.then_some((&exchange, jobs)),
                signals: None,
                quiet: true,
                objects: None,
            },
            options,
            &mut Events::new(None, None),
        );
        exchange.stop();
        done
    });
    match exchange.failure() {
        Some(failure) => Err(fail(&failure.to_string())),
        None => done.map_err(|alone| fail(&alone.reason)),
    }
}

/// Waits until these files would have another time on them if they changed: jobs are made of no others, and there are
/// file systems with times in whole seconds.
fn wait_until_old(files: &[OsString]) {
    for file in files {
        if let Ok(identity) = Identity::of_path(Path::new(file)) {
            let age = identity.age().unwrap_or_default();
            std::thread::sleep(identity.tick().saturating_sub(age));
        }
    }
}

fn compile(
    toolchain: &Toolchain,
    scratch: &Scratch,
    dir: &Path,
    name: &str,
    source: &str,
    pic: bool,
) -> Result<PathBuf, Failure> {
    let file = dir.join(format!("{name}.c"));
    std::fs::write(&file, source).map_err(|e| fail(&format!("{}: {e}", file.display())))?;
    let object = dir.join(format!("{name}{}.o", u8::from(pic)));
    let mut clang = Command::new(&toolchain.clang);
    clang.args(["-c", "-O2", "-flto=thin", "-ffreestanding", "-w"]);
    clang.arg(if pic { "-fPIC" } else { "-fno-pic" });
    clang.arg(&file).arg("-o").arg(&object);
    run_tool(scratch, clang)?;
    Ok(object)
}

fn run_tool(scratch: &Scratch, mut command: Command) -> Result<(), Failure> {
    scratch.confine(&mut command);
    let program = command.get_program().to_string_lossy().into_owned();
    let out = process::output(command, Role::Tool)
        .map_err(|e| fail(&format!("cannot run {program}: {e}")))?;
    if out.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&out.stderr);
    let first = said.lines().next().unwrap_or("no message");
    Err(fail(&format!(
        "{program} ended with {}: {first}",
        out.status
    )))
}
