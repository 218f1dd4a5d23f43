//! ldwrap as the linker: decide, watch lld, and where that fails, be the real lld.

use crate::admit::{History, Limits};
use crate::app::{probe, stats};
use crate::cache::files::FileDigests;
use crate::cache::objects::Cache;
use crate::executor::remote::Server;
use crate::executor::tuning::{MOST_DISTRIBUTED, SERVER_PATIENCE};
use crate::jobs::action::Tool;
use crate::jobs::failure::Failure;
use crate::jobs::shipped;
use crate::jobs::store::Store;
use crate::jobs::toolchain::{self, Toolchain};
use crate::link::attribution::AttributionRule;
use crate::link::code_options::CodeOptions;
use crate::link::eligibility;
use crate::link::engine::{self, Link, LinkOutcome, NotWatched, ObjectReceiver};
use crate::link::events::{Events, Progress, Trace};
use crate::link::exchange::Exchange;
use crate::link::jobs_thread::{self, JobsPlace, JobsRequest, JobsSummary};
use crate::link::rerun;
use crate::link::selftest;
use crate::sys::keep;
use crate::sys::signals::{self, Forwarded};
use shim::cmdline::CommandLine;
use shim::config::{Config, Executor, ServerSettings};
use shim::decide::{COUNTED, Decision, decide};
use shim::lld::Argv;
use shim::options::Id;
use shim::report::Report;
use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;
use std::thread::Builder;
use std::time::Instant;

/// Links as `argv0 args...` asks for. Returns only where the link was split, or nothing could be
/// run; a forwarded link is another program from then on.
pub fn main(argv0: &OsStr, args: &[OsString], config: &Config) -> u8 {
    let start = Instant::now();
    if let Some(file) = &config.doctor {
        return probe::answer(argv0, args, config, file);
    }
    for complaint in &config.complaints {
        log::warn!("{complaint}");
        if std::io::stderr().is_terminal() {
            eprintln!("ldwrap: {complaint}");
        }
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
    if let Some(parent) = &config.keep {
        if let Err(e) = keep_link(parent, argv0, args, &real, config) {
            log::warn!("LDWRAP_KEEP={}: nothing is kept: {e}", parent.display());
        }
    }
    let (reason, output) = match decide(args.iter().map(OsString::as_os_str), config, COUNTED) {
        Decision::Forward { reason, output } => (reason, output),
        Decision::Split { output, .. } if config.strict && !config.complaints.is_empty() => {
            return refuse(&output, &config.complaints.join("; "));
        }
        Decision::Split {
            output,
            bitcode,
            modules,
        } => {
            let strict = config.strict && config.executor() != Executor::Local;
            let request = Request {
                argv0: shim::lld::arg0(argv0, &real),
                args,
                real: &real,
                config,
                bitcode,
                objects: None,
                modules,
                start,
            };
            match link_watched(&request) {
                Ok(done) => return finish(config, &output, done, start),
                Err(alone) if strict && !alone.planned => {
                    return refuse(&output, &alone.reason);
                }
                Err(alone) if alone.said == [0; 2] => (alone.reason, output),
                Err(alone) => {
                    report_forward(config, &output, &alone.reason, start);
                    let colour = CommandLine::parse(args).is_ok_and(|cmd| colours(&cmd));
                    match rerun::run(&real, request.argv0, args, alone.said, colour) {
                        Ok(status) => signals::end_as(status),
                        Err(e) => {
                            eprintln!("ldwrap: cannot run {}: {e}", real.display());
                            return 1;
                        }
                    }
                }
            }
        }
    };
    report_forward(config, &output, &reason, start);
    signals::restore();
    eprintln!(
        "ldwrap: {}",
        shim::lld::exec(&real, argv0, Argv::of_args(args))
    );
    1
}

/// Begins to keep what the link is made from, with a script that repeats it by lld alone and one that repeats it
/// through ldwrap.
fn keep_link(
    parent: &Path,
    argv0: &OsStr,
    args: &[OsString],
    real: &Path,
    config: &Config,
) -> io::Result<()> {
    let cmd = CommandLine::parse(args).ok();
    let name = cmd.and_then(|cmd| Path::new(cmd.output()).file_name().map(OsStr::to_owned));
    keep::begin(parent, &name.unwrap_or_else(|| "link".into()))?;
    let args = || args.iter().map(OsString::as_os_str);
    let plain = std::iter::once(shim::lld::arg0(argv0, real)).chain(args());
    keep::script("lld", real, plain, &[])?;
    let real = real.to_string_lossy();
    let others = ["LDWRAP_KEEP", "LDWRAP_REPORT", "LDWRAP_REAL_LLD"];
    let given = config.given.iter().map(|g| (g.name, g.shown.as_str()));
    let mut variables: Vec<_> = given.filter(|(name, _)| !others.contains(name)).collect();
    variables.push(("LDWRAP_REAL_LLD", &real));
    let ours = std::iter::once(OsStr::new("ld.lld")).chain(args());
    keep::script("ldwrap", &std::env::current_exe()?, ours, &variables)
}

/// A link that is to be split.
#[derive(Clone, Copy)]
pub(crate) struct Request<'a> {
    /// `argv[0]` as lld is to see it.
    pub(crate) argv0: &'a OsStr,
    /// The rest.
    pub(crate) args: &'a [OsString],
    /// The real lld.
    pub(crate) real: &'a Path,
    /// The settings.
    pub(crate) config: &'a Config,
    /// Bytes, as far as they were counted.
    pub(crate) bitcode: u64,
    /// How many modules it has at most, if that was counted.
    pub(crate) modules: Option<usize>,
    /// When it came.
    pub(crate) start: Instant,
    /// Who takes the objects, where these are wanted and no output.
    pub(crate) objects: Option<&'a dyn ObjectReceiver>,
}

/// Does a link for its objects, and reports it as that of `output`. Returns how its lld ended, which says little where it was ended
/// because all objects were there; an error is why there is no more than was taken.
pub(crate) fn link_for_objects(
    request: &Request<'_>,
    output: &str,
) -> Result<ExitStatus, NotWatched> {
    let outcome = link_watched(request)?;
    Ok(report_outcome(
        request.config,
        output,
        outcome,
        request.start,
    )?)
}

/// How a link was done.
struct Outcome {
    done: LinkOutcome,
    /// What was done elsewhere, if anyone was there for it.
    supplied: Option<JobsSummary>,
    /// Why nothing, or no more, came from elsewhere, where that was asked for.
    failure: Option<Failure>,
    events: Events,
    /// Identifiers of modules by their numbers, where the trace needs them.
    identifiers: HashMap<usize, Vec<u8>>,
}

/// Links with one lld that is watched; an error is the reason to leave the link to lld alone.
fn link_watched(request: &Request<'_>) -> Result<Outcome, NotWatched> {
    let Request { args, config, .. } = *request;
    let cmd = &CommandLine::parse(args).map_err(|e| e.to_string())?;
    let dir = config.cache_dir.as_deref();
    let major = toolchain::lld_major(request.real, dir)?;
    let options = eligibility::watched(cmd, major)?;
    let cache = cache(config).map(Arc::new);
    let files = files(config);
    let limits = Limits::new(default_jobs(config, None), config.memory);
    let history = dir.map(|dir| History::new(dir, Path::new(cmd.output())));
    let signals = Forwarded::block().map_err(|e| format!("signals: {e}"))?;
    let link = Link {
        lld: request.real,
        argv0: request.argv0,
        args,
        cmd,
        cache: cache.as_ref(),
        files: &files,
        major,
        limits: &limits,
        history: history.as_ref(),
        bitcode: request.bitcode,
        exchange: None,
        signals: Some(&signals),
        quiet: request.objects.is_some(),
        objects: request.objects,
    };
    let mut events = events(request, cmd, major);
    let outcome = match jobs_place(request, cmd, major) {
        Ok(Some(place)) => link_with_jobs(request, &place, &link, options, events)?,
        none => {
            let nobody = nobody_elsewhere(request)?;
            let link = Link {
                exchange: nobody.as_ref().map(|exchange| (exchange, 0)),
                ..link
            };
            Outcome {
                done: engine::run(&link, options, &mut events)?,
                supplied: None,
                failure: none.err(),
                events,
                identifiers: HashMap::new(),
            }
        }
    };
    if let Some(Err(e)) = cache.map(|cache| cache.finish_link()) {
        log::warn!("the cache cannot be counted: {e}");
    }
    if let Err(e) = files.save() {
        log::info!("the digests of files cannot be remembered: {e}");
    }
    Ok(outcome)
}

/// What tells modules apart where objects are taken, and nobody makes any elsewhere.
fn nobody_elsewhere(request: &Request<'_>) -> Result<Option<Exchange>, String> {
    if request.objects.is_none() {
        return Ok(None);
    }
    let exchange = Exchange::new(None).map_err(|e| format!("no event descriptor: {e}"))?;
    exchange.end(None);
    Ok(Some(exchange))
}

/// Those who watch a link, as the settings want them.
fn events(request: &Request<'_>, cmd: &CommandLine, major: u32) -> Events {
    let (config, output) = (request.config, cmd.output());
    let elsewhere = match config.executor() {
        Executor::Clang => "clang",
        Executor::Distributor => "distributor",
        _ => "server",
    };
    let progress = Progress::new(config.progress, config.log.is_some(), output, elsewhere);
    let trace = config.trace.as_deref();
    let trace = trace.map(|dir| Trace::new(dir, output, elsewhere, request.start, major));
    let mut events = Events::new(progress, trace);
    events.expect(request.modules);
    events
}

/// Where the jobs of a link are to be done, if jobs are to be made of it; an error is why they are not,
/// though they were asked for.
fn jobs_place(
    request: &Request<'_>,
    cmd: &CommandLine,
    major: u32,
) -> Result<Option<Place>, Failure> {
    let config = request.config;
    if let Some(dir) = &config.objects {
        eligibility::jobs(request.args, cmd, major, config, request.bitcode)
            .map_err(Failure::Declined)?;
        return Ok(Some(Place::Made(dir.clone())));
    }
    let place = match config.executor() {
        Executor::Local => return Ok(None),
        Executor::Distributor => {
            let command = config.distributor();
            let command = command.map_err(|why| Failure::Failed(why.into()))?;
            Place::Distributor(command.to_vec())
        }
        Executor::Clang => Place::Here,
        Executor::Remote => {
            let server = config.server().map_err(|why| Failure::Failed(why.into()))?;
            Place::Server(Box::new(server.clone()))
        }
    };
    eligibility::jobs(request.args, cmd, major, config, request.bitcode)
        .map_err(Failure::Declined)?;
    Ok(Some(place))
}

/// Where jobs are done.
enum Place {
    /// As clang processes on this machine.
    Here,
    /// On a server.
    Server(Box<ServerSettings>),
    /// By a program with its first arguments.
    Distributor(Vec<OsString>),
    /// They have been done, and their objects are in this directory.
    Made(PathBuf),
}

/// Links beside a thread that makes jobs and has them done elsewhere.
fn link_with_jobs(
    request: &Request<'_>,
    place: &Place,
    link: &Link<'_>,
    options: CodeOptions,
    mut events: Events,
) -> Result<Outcome, NotWatched> {
    let (patience, jobs) = match place {
        Place::Here | Place::Made(_) => (None, default_jobs(request.config, Some(link.cmd))),
        Place::Server(server) => (
            (!server.fallback_only).then_some(SERVER_PATIENCE),
            server.jobs,
        ),
        Place::Distributor(_) => (Some(SERVER_PATIENCE), MOST_DISTRIBUTED),
    };
    let remote = !matches!(place, Place::Here);
    let exchange = Exchange::new(patience).map_err(|e| format!("no event descriptor: {e}"))?;
    let by_order = AttributionRule::of(link.major) == AttributionRule::ByTaskOrder;
    // What was linked here before is mostly in the cache.
    let made = matches!(place, Place::Made(_));
    if by_order || made || (remote && link.history.is_none_or(|history| history.read().is_none())) {
        exchange.want_jobs(true);
    }
    std::thread::scope(|scope| {
        let make = || {
            jobs_thread::run_beside(&exchange, || make_jobs(request, place, by_order, &exchange))
        };
        let thread = Builder::new().name("jobs".into()).spawn_scoped(scope, make);
        if let Err(e) = &thread {
            exchange.end(Some(Failure::Failed(format!("no thread: {e}"))));
        }
        let interrupted = || link.signals.is_some_and(Forwarded::have_come);
        let there = !by_order || exchange.wait_for_index(interrupted);
        let done = engine::run(
            &Link {
                exchange: there.then_some((&exchange, jobs)),
                // A server does not wait for this machine's processors.
                bitcode: if remote { 0 } else { link.bitcode },
                ..*link
            },
            options,
            &mut events,
        );
        exchange.stop();
        crate::sys::process::kill_children();
        let supplied = thread.ok().and_then(|thread| thread.join().ok());
        Ok(Outcome {
            done: done?,
            supplied,
            failure: exchange.failure(),
            identifiers: match by_order && events.want_names() {
                true => exchange.identifiers(),
                false => HashMap::new(),
            },
            events,
        })
    })
}

/// Makes the jobs of a link and has them done.
fn make_jobs(
    request: &Request<'_>,
    place: &Place,
    by_order: bool,
    exchange: &Exchange,
) -> Result<JobsSummary, Failure> {
    let Request { args, config, .. } = *request;
    let reached = match place {
        Place::Here | Place::Distributor(_) | Place::Made(_) => None,
        Place::Server(settings) if settings.fallback_only => Some(Server::later()),
        Place::Server(settings) => {
            // lld is not started before there is an index where lookups are known by their order.
            let begin = Instant::now();
            let late = || by_order && begin.elapsed() > SERVER_PATIENCE;
            Some(Server::reach(settings, || exchange.is_over() || late()))
        }
    };
    let reached = match reached.transpose() {
        Ok(server) => server,
        Err(trouble) => {
            let remote = shim::report::Remote {
                trouble: Some(trouble),
                ..Default::default()
            };
            return Ok(JobsSummary {
                remote: Some(remote),
                ..JobsSummary::default()
            });
        }
    };
    let toolchain = tested_toolchain(request.real, config, default_jobs(config, None))?;
    // Now that the release is known, its own grammar.
    let cmd = &CommandLine::parse_for(args, Some(toolchain.major))
        .map_err(|e| Failure::Declined(e.to_string()))?;
    eligibility::release(cmd)?;
    let threads = default_jobs(config, Some(cmd));
    let store = match place {
        Place::Here => None,
        Place::Server(server) => Some(store(&toolchain, config, server)?),
        Place::Distributor(_) => {
            // Its own compiler, by whatever path.
            let named = ServerSettings {
                clang: Some("clang".into()),
                ..ServerSettings::default()
            };
            Some(store(&toolchain, config, &named)?)
        }
        Place::Made(_) => Some(store_of_phases(&toolchain, config)?),
    };
    let store = store.map(Arc::new);
    let supplied = jobs_thread::make_jobs(
        &JobsRequest {
            argv0: request.argv0,
            args,
            cmd,
            toolchain: &toolchain,
            threads,
            place: match (place, &store) {
                (Place::Server(settings), Some(store)) => JobsPlace::Server(settings, store),
                (Place::Distributor(command), Some(store)) => {
                    JobsPlace::Distributor(command, store)
                }
                (Place::Made(dir), Some(store)) => JobsPlace::Made(dir, store),
                _ => JobsPlace::Clang,
            },
            save_objects: config.save_objects.as_deref(),
            max_failures: jobs_thread::MAX_FAILURES,
        },
        reached,
        exchange,
    )?;
    if let Some(store) = store {
        store.finish_link();
    }
    Ok(supplied)
}

/// lld and its clang, known to make the same code.
pub(crate) fn tested_toolchain(
    real: &Path,
    config: &Config,
    threads: usize,
) -> Result<Toolchain, Failure> {
    let mut toolchain =
        Toolchain::find(real, config).map_err(|e| Failure::Failed(e.to_string()))?;
    if !toolchain.self_tested {
        selftest::run(&toolchain, threads)?;
        toolchain.record_self_test();
    }
    Ok(toolchain)
}

/// Whether lld would colour its messages if it wrote to our stderr: it would if that is a terminal
/// and nobody said otherwise.
fn colours(cmd: &CommandLine) -> bool {
    !cmd.has(Id::ColorDiagnostics) && std::io::stderr().is_terminal()
}

/// The number of backends at once: the setting, or lld's own (`--thinlto-jobs`, `--threads`), or the
/// processors that we may use.
pub(crate) fn default_jobs(config: &Config, cmd: Option<&CommandLine>) -> usize {
    // "all" is all processors.
    let users = || {
        let jobs = cmd?.thinlto_jobs()?.to_str()?.parse().ok();
        jobs.filter(|&n: &usize| n > 0)
    };
    config
        .jobs
        .or_else(users)
        .or_else(|| std::thread::available_parallelism().ok().map(usize::from))
        .unwrap_or(1)
}

/// Digests of files, remembered where there is a cache directory.
fn files(config: &Config) -> FileDigests {
    let memory = config.cache_dir.as_deref().map(|dir| dir.join("digests"));
    memory.map(FileDigests::recorded_in).unwrap_or_default()
}

/// The local cache, unless there is to be none.
fn cache(config: &Config) -> Option<Cache> {
    match config.cache_size {
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

/// The same with keys of the phases as commands: where the compiler is makes no difference to them.
pub(crate) fn store_of_phases(toolchain: &Toolchain, config: &Config) -> Result<Store, Failure> {
    let settings = ServerSettings {
        clang: Some("clang".into()),
        ..ServerSettings::default()
    };
    store(toolchain, config, &settings)
}

/// The compiler as keys have it, and the cache.
fn store(
    toolchain: &Toolchain,
    config: &Config,
    settings: &ServerSettings,
) -> Result<Store, Failure> {
    let files = files(config);
    let shipped = shipped::collect(toolchain, &files);
    let failure = |e: std::io::Error| Failure::Failed(e.to_string());
    let tool = match &settings.clang {
        None => shipped.map_err(failure)?,
        Some(clang) => {
            // Two builds may say the same version: which one this is, its files say.
            let build = match shipped {
                Ok(tool) => tool.content(),
                Err(_) => files.digest(&toolchain.clang).map_err(failure)?,
            };
            Tool {
                command: vec![clang.clone()],
                banner: toolchain.banner.clone(),
                build: Some(build),
                files: BTreeMap::new(),
                platform: Vec::new(),
            }
        }
    };
    let platform = settings.platform.clone();
    Ok(Store::new(Tool { platform, ..tool }, files, cache(config)))
}

/// Fails a link for a reason that is only good enough under `LDWRAP_STRICT`.
fn refuse(output: &str, reason: &str) -> u8 {
    eprintln!("ldwrap: {output}: LDWRAP_STRICT is set: {reason}");
    1
}

/// Reports a link, and ends as its lld has ended.
fn finish(config: &Config, output: &str, outcome: Outcome, start: Instant) -> u8 {
    match report_outcome(config, output, outcome, start) {
        Ok(status) => signals::end_as(status),
        Err(reason) => refuse(output, &reason),
    }
}

/// Reports a link, and gives its lld's end; an error is why it is one under `LDWRAP_STRICT`.
fn report_outcome(
    config: &Config,
    output: &str,
    outcome: Outcome,
    start: Instant,
) -> Result<ExitStatus, String> {
    let Outcome { done, supplied, .. } = &outcome;
    let modules = done.hits + done.compiled + done.given;
    let mut remote = supplied.as_ref().and_then(|s| s.remote.clone());
    if let Some(remote) = &mut remote {
        if remote.hits + remote.executed + remote.local == 0 {
            remote.local = done.compiled;
        }
    }
    let failed = outcome.failure.as_ref().filter(|f| !f.is_declined());
    if let Some(failed) = failed {
        if config.strict && done.status.success() {
            return Err(failed.to_string());
        }
    }
    let reason = outcome.failure.as_ref().map(Failure::to_string);
    if let Some(reason) = &reason {
        log::info!("{output}: lld's own threads: {reason}");
    }
    if modules == 0 {
        let why = "lld looked for no object: no module of ThinLTO took part";
        report_forward(config, output, why, start);
        return Ok(done.status);
    }
    let trouble = remote.as_ref().and_then(|r| r.trouble.clone());
    if let Some(why) = trouble.or_else(|| failed.map(Failure::to_string)) {
        if std::io::stderr().is_terminal() {
            let compiled = done.compiled;
            eprintln!(
                "ldwrap: {output}: {why}; {compiled} of {modules} modules were compiled by lld"
            );
        }
    }
    let exchange = supplied.as_ref().map_or(0, |s| s.hits.min(done.given));
    let hits = done.hits + exchange;
    log::info!("{output}: {hits} of {modules} modules from a cache");
    let [arrived, began, objects_there, ended] = done.times;
    let version = supplied.as_ref().and_then(|s| s.version.clone());
    report(
        config,
        Report {
            output: output.to_owned(),
            split: true,
            lld: version.clone(),
            clang: version,
            reason: reason.unwrap_or_default(),
            executor: Some(match (supplied, config.executor()) {
                (None, _) | (_, Executor::Local) => "local",
                (Some(_), Executor::Distributor) => "distributor",
                (Some(_), Executor::Clang) => "clang",
                (Some(_), Executor::Remote) => "remote",
            }),
            remote,
            modules: Some(modules),
            compiled_by_lld: Some(done.compiled),
            cache: Some((hits, modules - hits)),
            objects: Some(outcome.events.objects(done.cached)),
            phases_ms: vec![
                ("plan", millis(arrived - start)),
                ("turn", millis(began - arrived)),
                ("backends", millis(objects_there - began)),
                ("final", millis(ended - objects_there)),
                ("end", millis(ended.elapsed())),
            ],
            total_ms: millis(start.elapsed()),
            ..Report::default()
        },
    );
    let status = done.status;
    if let Some(trace) = outcome.events.into_trace() {
        let ends = [arrived, began, objects_there, ended, Instant::now()];
        if let Err(e) = trace.write(&ends, &outcome.identifiers) {
            log::warn!("cannot write the trace: {e}");
        }
    }
    Ok(status)
}

fn report(config: &Config, mut report: Report) {
    report.complaints.clone_from(&config.complaints);
    if let Some(kept) = keep::dir() {
        keep::append(&kept.join("report"), (report.line() + "\n").as_bytes());
    }
    if let Some(file) = &config.report {
        if let Err(e) = report.append(file) {
            log::warn!("cannot write the report {}: {e}", file.display());
        }
    }
    stats::count(config, &report);
}

fn millis(t: std::time::Duration) -> u64 {
    u64::try_from(t.as_millis()).unwrap_or(u64::MAX)
}
