//! ldwrap as the linker: decide, split, and where that fails, be the real lld.

use crate::link::{self, Done, Failure, Plan};
use crate::modules::Survey;
use crate::selftest;
use crate::toolchain::Toolchain;
use shim::cmdline::CommandLine;
use shim::config::{Config, Executor, Split};
use shim::decide::{Decision, decide};
use shim::report::Report;
use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

/// Links as `argv0 args...` asks for. Returns only where the link was split, or nothing could be
/// run; a forwarded link is another program from then on.
pub fn main(argv0: &OsStr, args: &[OsString], config: &Config) -> ExitCode {
    let start = Instant::now();
    for complaint in &config.complaints {
        eprintln!("ldwrap: {complaint}");
    }
    let real = match shim::lld::find(argv0, config, std::env::var_os("PATH").as_deref()) {
        Ok(real) => real,
        Err(e) => {
            eprintln!("ldwrap: {e}");
            return ExitCode::FAILURE;
        }
    };
    let (reason, output, strict) = match decide(args, config) {
        Decision::Forward { reason, output } => (reason, output, false),
        Decision::Split(cmd) => {
            let output = cmd.output().to_string_lossy().into_owned();
            match attempt(argv0, args, &real, config) {
                Ok((toolchain, done)) => {
                    return finish(config, &output, &toolchain, &done, start);
                }
                Err(failure) => {
                    let strict = config.strict && !failure.planned;
                    if strict && !failure.said.is_empty() {
                        let _ = std::io::stderr().write_all(&failure.said);
                    }
                    (failure.reason, output, strict)
                }
            }
        }
    };
    crate::process::yield_to_signals();
    log::info!("{output}: forwarded: {reason}");
    report(
        config,
        Report {
            output: output.clone(),
            reason: reason.clone(),
            total_ms: millis(start.elapsed()),
            ..Report::default()
        },
    );
    if strict {
        eprintln!("ldwrap: {output}: not split, and LDWRAP_STRICT is set: {reason}");
        return ExitCode::FAILURE;
    }
    eprintln!("ldwrap: {}", shim::lld::exec(&real, argv0, args.to_vec()));
    ExitCode::FAILURE
}

fn attempt(
    argv0: &OsStr,
    args: &[OsString],
    real: &Path,
    config: &Config,
) -> Result<(Toolchain, Done), Failure> {
    if config.executor != Executor::Local {
        return Err(Failure::new(
            "only LDWRAP_EXECUTOR=local is there yet".into(),
        ));
    }
    // Before anything is started: most links that cannot be split are known by their options.
    let mut toolchain = Toolchain::find(real, config).map_err(|e| Failure::new(e.to_string()))?;
    // Now that the release is known, its own grammar.
    let cmd = &CommandLine::parse_for(args, Some(toolchain.major))
        .map_err(|e| Failure::planned(e.to_string()))?;
    if let Some(unknown) = cmd.first_unknown() {
        return Err(Failure::planned(format!(
            "unknown option {}",
            unknown.to_string_lossy()
        )));
    }
    crate::codegen::Codegen::of(cmd, toolchain.major).map_err(Failure::planned)?;
    let auto = config.split == Split::Auto;
    let jobs = link::default_jobs(config);
    let survey = crate::modules::survey(cmd, auto)?;
    if !survey.thin {
        return Err(Failure::planned(
            "no ThinLTO bitcode, only regular LTO".into(),
        ));
    }
    if auto {
        pays(&survey, jobs).map_err(Failure::planned)?;
    }
    crate::process::take_signals().map_err(|e| Failure::new(format!("signals: {e}")))?;
    if !toolchain.proven {
        selftest::run(&toolchain, jobs)?;
        toolchain.prove();
    }
    let argv0 = shim::lld::arg0(argv0, real);
    let done = link::with_scratch(|scratch| {
        link::split(&Plan {
            argv0,
            args,
            cmd,
            toolchain: &toolchain,
            scratch,
            jobs,
            colour: link::colours(cmd),
            max_failures: link::MAX_FAILURES,
        })
    })
    .map_err(|e| Failure::new(format!("no scratch directory: {e}")))??;
    Ok((toolchain, done))
}

/// Whether local backends are expected to be no slower than lld's threads.
///
/// A backend costs the start of one process, 40 ms on a quiet core, which lld's threads do not have
/// (fact 5); large modules make up for it by going first and by using every processor, where lld
/// uses one thread a core (fact 20). Break-even was seen at about 13 KiB of bitcode for each of those
/// 40 ms; the bound is several times that.
fn pays(survey: &Survey, jobs: usize) -> Result<(), String> {
    const SMALL_LINK: u64 = 2 << 20;
    const SMALL_MODULE: u64 = 48 << 10;
    let mean = survey.bytes / survey.modules.max(1);
    if jobs < 2 {
        Err("LDWRAP_SPLIT=auto: one backend at a time is no faster than lld".into())
    } else if survey.bytes < SMALL_LINK || mean < SMALL_MODULE {
        Err(format!(
            "LDWRAP_SPLIT=auto: {} modules of {} KiB in the mean are too little for local backends to pay",
            survey.modules,
            mean >> 10
        ))
    } else {
        Ok(())
    }
}

fn finish(
    config: &Config,
    output: &str,
    toolchain: &Toolchain,
    done: &Done,
    start: Instant,
) -> ExitCode {
    log::info!("{output}: split, {} modules", done.modules);
    report(
        config,
        Report {
            output: output.to_owned(),
            split: true,
            lld: Some(toolchain.version.clone()),
            clang: Some(toolchain.version.clone()),
            executor: Some(done.executor),
            modules: Some(done.modules),
            cache: Some((0, done.compiled)),
            phases_ms: done
                .phases
                .iter()
                .map(|&(name, t)| (name, millis(t)))
                .collect(),
            total_ms: millis(start.elapsed()),
            ..Report::default()
        },
    );
    let code = done.status.and_then(|s| s.code()).unwrap_or(0);
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

fn report(config: &Config, report: Report) {
    if let Some(file) = &config.report
        && let Err(e) = report.append(file)
    {
        log::warn!("cannot write the report {}: {e}", file.display());
    }
}

fn millis(t: std::time::Duration) -> u64 {
    u64::try_from(t.as_millis()).unwrap_or(u64::MAX)
}
