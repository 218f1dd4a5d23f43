//! Links beside a thread that makes jobs: where these are done, and under which keys their objects are known.

use super::request::{Outcome, Request, cache, default_jobs, files};
use crate::cache::files::TICK;
use crate::executor::remote::Server;
use crate::executor::tuning::{MOST_DISTRIBUTED, SERVER_PATIENCE};
use crate::jobs::action::Tool;
use crate::jobs::failure::Failure;
use crate::jobs::shipped;
use crate::jobs::store::Store;
use crate::jobs::toolchain::Toolchain;
use crate::link::attribution::AttributionRule;
use crate::link::code_options::CodeOptions;
use crate::link::eligibility;
use crate::link::engine::{self, Link, NotWatched};
use crate::link::events::Events;
use crate::link::exchange::Exchange;
use crate::link::jobs_thread::{self, JobsPlace, JobsRequest, JobsSummary};
use crate::link::selftest;
use crate::sys::process;
use crate::sys::signals::Forwarded;
use shim::cmdline::CommandLine;
use shim::config::{Config, Executor, ServerSettings};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::Builder;
use std::time::Instant;

/// Where the jobs of a link are to be done, if jobs are to be made of it; an error is why they are not,
/// though they were asked for.
pub(super) fn jobs_place(
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
pub(super) enum Place {
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
pub(super) fn link_with_jobs(
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
        let supplied = process::without_children(|| thread.ok().and_then(|t| t.join().ok()));
        Ok(Outcome {
            done: done?,
            supplied,
            failure: exchange.failure(),
            identifiers: match by_order && events.want_names() {
                true => exchange.identifiers(),
                false => Vec::new(),
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
        Place::Server(server) => {
            let (clang, platform) = (server.clang.as_deref(), server.platform.clone());
            Some(store(&toolchain, config, clang, platform)?)
        }
        Place::Distributor(_) | Place::Made(_) => Some(store_of_commands(&toolchain, config)?),
    };
    let store = store.map(Arc::new);
    // What was written just before the link is to be told from what is written while it is read.
    std::thread::sleep((request.start + TICK).saturating_duration_since(Instant::now()));
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

/// Keys and cache of backends that other programs run: a distributor, or a build system (`ldwrap backend`). By which path
/// they run clang makes no difference to the keys.
pub(crate) fn store_of_commands(toolchain: &Toolchain, config: &Config) -> Result<Store, Failure> {
    store(toolchain, config, Some("clang"), Vec::new())
}

/// Keys and cache of backends that a clang of this name compiles, or, without one, the clang that is sent along; on
/// workers of this platform.
fn store(
    toolchain: &Toolchain,
    config: &Config,
    clang: Option<&str>,
    platform: Vec<(String, String)>,
) -> Result<Store, Failure> {
    let files = files(config);
    let shipped = shipped::collect(toolchain, &files);
    // At once: a link that ends before its jobs do would leave the next one to compute them again.
    if let Err(e) = files.save() {
        log::info!("the digests of the compiler cannot be remembered: {e}");
    }
    let failure = |e: std::io::Error| Failure::Failed(e.to_string());
    let tool = match clang {
        None => shipped.map_err(failure)?,
        Some(clang) => {
            // Two builds may say the same version: which one this is, its files say.
            let build = match shipped {
                Ok(tool) => tool.content(),
                Err(_) => files.digest(&toolchain.clang).map_err(failure)?,
            };
            Tool {
                command: vec![clang.to_owned()],
                banner: toolchain.banner.clone(),
                build: Some(build),
                files: BTreeMap::new(),
                platform: Vec::new(),
            }
        }
    };
    Ok(Store::new(Tool { platform, ..tool }, files, cache(config)))
}
