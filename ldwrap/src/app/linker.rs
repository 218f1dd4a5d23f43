//! ldwrap as the linker: decide, split, and where that fails, be the real lld.

use crate::admit::{History, Limits};
use crate::cache::files::Files;
use crate::cache::objects::{Cache, DEFAULT_SIZE};
use crate::executor::remote::settings::Settings;
use crate::jobs::action::Tool;
use crate::jobs::failure::Failure;
use crate::jobs::invocation::Invocation;
use crate::jobs::shipped;
use crate::jobs::store::Store;
use crate::jobs::toolchain::{self, Toolchain};
use crate::link::alone;
use crate::link::local::{self, Alone};
use crate::link::selftest;
use crate::link::split::{self, Done, Plan};
use crate::sys::signals;
use shim::cmdline::CommandLine;
use shim::config::{Config, Executor};
use shim::decide::{Decision, decide};
use shim::lld::Argv;
use shim::report::Report;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// Bitcode is counted up to this (bytes): more is large too.
const COUNTED: u64 = 64 << 20;

/// Links as `argv0 args...` asks for. Returns only where the link was split, or nothing could be
/// run; a forwarded link is another program from then on.
pub fn main(argv0: &OsStr, args: &[OsString], config: &Config) -> u8 {
    let start = Instant::now();
    for complaint in &config.complaints {
        eprintln!("ldwrap: {complaint}");
    }
    let real = match shim::lld::find(argv0, config, std::env::var_os("PATH").as_deref()) {
        Ok(real) => real,
        Err(e) => {
            eprintln!("ldwrap: {e}");
            return 1;
        }
    };
    if let Some(found) = &config.verify {
        return crate::app::verify::link(argv0, args, &real, found, config);
    }
    let (reason, output, strict) = match decide(args.iter().map(OsString::as_os_str), config) {
        Decision::Forward { reason, output } => (reason, output, false),
        Decision::Split { output } if config.executor() == Executor::Local => {
            match locally(argv0, args, &real, config) {
                Ok(done) => {
                    report_local(config, &output, &done, start);
                    signals::end_as(done.status)
                }
                Err(alone) if alone.said == [0; 2] => (alone.reason, output, false),
                Err(alone) => {
                    report_forward(config, &output, &alone.reason, start);
                    let argv0 = shim::lld::arg0(argv0, &real);
                    let colour = CommandLine::parse(args).is_ok_and(|cmd| split::colours(&cmd));
                    match alone::run(&real, argv0, args, alone.said, colour) {
                        Ok(status) => signals::end_as(status),
                        Err(e) => {
                            eprintln!("ldwrap: cannot run {}: {e}", real.display());
                            return 1;
                        }
                    }
                }
            }
        }
        Decision::Split { output } => match attempt(argv0, args, &real, config) {
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
        },
    };
    crate::sys::process::yield_to_signals();
    report_forward(config, &output, &reason, start);
    if strict {
        eprintln!("ldwrap: {output}: not split, and LDWRAP_STRICT is set: {reason}");
        return 1;
    }
    signals::restore();
    eprintln!(
        "ldwrap: {}",
        shim::lld::exec(&real, argv0, Argv::of_args(args))
    );
    1
}

/// Links with lld's own threads; an error is the reason to leave the link to lld alone.
fn locally(
    argv0: &OsStr,
    args: &[OsString],
    real: &Path,
    config: &Config,
) -> Result<local::Done, Alone> {
    let cmd = &CommandLine::parse(args).map_err(|e| e.to_string())?;
    let dir = config.cache_dir.as_deref();
    let major = toolchain::lld_major(real, dir)
        .ok_or_else(|| format!("cannot tell the version of {}", real.display()))?;
    let cache = cache(config).map(Arc::new);
    let memory = dir.map(|dir| dir.join("digests"));
    let files = memory.map(Files::remembering).unwrap_or_default();
    let limits = Limits::new(split::default_jobs(config, None), config.memory);
    let history = dir.map(|dir| History::new(dir, Path::new(cmd.output())));
    let bitcode = shim::inputs::bitcode_bytes(cmd, true, COUNTED).unwrap_or(0);
    let done = local::run(&local::Link {
        lld: real,
        argv0: shim::lld::arg0(argv0, real),
        args,
        cmd,
        cache: cache.clone(),
        files: &files,
        major,
        limits: &limits,
        history: history.as_ref(),
        bitcode,
    })?;
    if let Some(Err(e)) = cache.map(|cache| cache.settle()) {
        log::warn!("the cache cannot be counted: {e}");
    }
    if let Err(e) = files.settle() {
        log::info!("the digests of files cannot be remembered: {e}");
    }
    Ok(done)
}

/// The local cache, unless there is to be none.
fn cache(config: &Config) -> Option<Cache> {
    match config.cache_size.unwrap_or(DEFAULT_SIZE) {
        0 => None,
        limit => config
            .cache_dir
            .as_deref()
            .map(|dir| Cache::new(dir, limit)),
    }
}

fn report_forward(config: &Config, output: &str, reason: &str, start: Instant) {
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

fn report_local(config: &Config, output: &str, done: &local::Done, start: Instant) {
    let modules = done.hits + done.misses;
    if modules == 0 {
        return report_forward(
            config,
            output,
            "lld looked for no object: no module of ThinLTO took part",
            start,
        );
    }
    log::info!(
        "{output}: {} of {modules} modules from the cache",
        done.hits
    );
    let [arrived, began, ended] = done.times;
    report(
        config,
        Report {
            output: output.to_owned(),
            split: true,
            executor: Some("local"),
            modules: Some(modules),
            cache: Some((done.hits, done.misses)),
            phases_ms: vec![
                ("plan", millis(arrived - start)),
                ("turn", millis(began - arrived)),
                ("lld", millis(ended - began)),
                ("end", millis(ended.elapsed())),
            ],
            total_ms: millis(start.elapsed()),
            ..Report::default()
        },
    );
}

fn attempt(
    argv0: &OsStr,
    args: &[OsString],
    real: &Path,
    config: &Config,
) -> Result<(Toolchain, Done), Failure> {
    let remote = match config.executor() {
        Executor::Local | Executor::Clang => None,
        Executor::Remote => Some(Settings::of(config).map_err(Failure::new)?),
        Executor::Distributor => {
            return Err(Failure::new(
                "LDWRAP_EXECUTOR=distributor is not there yet".into(),
            ));
        }
    };
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
    crate::jobs::codegen::Codegen::of(cmd, toolchain.major).map_err(Failure::planned)?;
    let jobs = split::default_jobs(config, Some(cmd));
    if !crate::jobs::modules::any_thin(cmd)? {
        return Err(Failure::planned(
            "no ThinLTO bitcode, only regular LTO".into(),
        ));
    }
    crate::sys::process::take_signals().map_err(|e| Failure::new(format!("signals: {e}")))?;
    if !toolchain.proven {
        selftest::run(&toolchain, jobs)?;
        toolchain.prove();
    }
    let argv0 = shim::lld::arg0(argv0, real);
    let store = store(&toolchain, config, remote.as_ref())?;
    let done = split::with_scratch(|scratch| {
        split::split(&Plan {
            lld: Invocation {
                program: &toolchain.lld,
                argv0,
                args,
                cmd,
                scratch,
            },
            toolchain: &toolchain,
            jobs,
            colour: split::colours(cmd),
            max_failures: split::MAX_FAILURES,
            store: store.as_ref(),
            remote: remote.as_ref(),
            save_objects: config.save_objects.as_deref(),
        })
    })
    .map_err(|e| Failure::new(format!("no scratch directory: {e}")))??;
    if let Some(store) = &store {
        store.settle();
    }
    Ok((toolchain, done))
}

/// The compiler as keys have it, and the cache; none where nothing asks for keys.
fn store(
    toolchain: &Toolchain,
    config: &Config,
    remote: Option<&Settings>,
) -> Result<Option<Store>, Failure> {
    let dir = config.cache_dir.as_deref();
    let cache = cache(config);
    if cache.is_none() && remote.is_none() {
        return Ok(None);
    }
    let memory = dir.map(|dir| dir.join("digests"));
    let files = memory.map(Files::remembering).unwrap_or_default();
    let shipped = shipped::collect(toolchain, &files);
    let tool = match remote {
        Some(settings) if settings.clang.is_none() => {
            shipped.map_err(|e| Failure::new(e.to_string()))?
        }
        settings => {
            // Two builds may say the same version: which one this is, its files say.
            let build = match shipped {
                Ok(tool) => tool.content(),
                Err(_) => files
                    .digest(&toolchain.clang)
                    .map_err(|e| Failure::new(e.to_string()))?,
            };
            let clang = settings.and_then(|s| s.clang.clone());
            Tool {
                command: vec![clang.unwrap_or("clang".into())],
                banner: toolchain.banner.clone(),
                build: Some(build),
                files: BTreeMap::new(),
                platform: Vec::new(),
            }
        }
    };
    let platform = remote.map(|s| s.platform.clone()).unwrap_or_default();
    Ok(Some(Store::new(Tool { platform, ..tool }, files, cache)))
}

fn finish(config: &Config, output: &str, toolchain: &Toolchain, done: &Done, start: Instant) -> u8 {
    log::info!("{output}: split, {} modules", done.modules);
    if let Some(remote) = &done.remote
        && let Some(trouble) = &remote.trouble
    {
        eprintln!(
            "ldwrap: {output}: remote execution: {trouble}; {} of {} backends ran here",
            remote.local, done.modules
        );
    }
    report(
        config,
        Report {
            output: output.to_owned(),
            split: true,
            lld: Some(toolchain.version.clone()),
            clang: Some(toolchain.version.clone()),
            executor: Some(done.executor),
            remote: done.remote.clone(),
            modules: Some(done.modules),
            cache: Some((done.hits, done.compiled)),
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
    u8::try_from(code).unwrap_or(1)
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
