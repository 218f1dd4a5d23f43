//! One lld, watched: its own threads compile, with objects from a cache and from elsewhere.
//!
//! lld runs the user's command line with a ThinLTO cache whose directory is none ([`super::lookup_dir`]):
//! each of its backend threads looks for `DIR/llvmcache-KEY` before it compiles, makes
//! `DIR/Thin-XXXXXX.tmp.o` when it has code to write, and renames that to the first name when it is whole
//! (`localCache`, llvm/lib/Support/Caching.cpp). The watch reports these three calls and we make them
//! instead of the kernel: a lookup gets an object or finds none, a new file is one in memory, and the
//! rename tells which object it is. So nothing of the link is on a disk but what lld writes anyway, an
//! object of our cache needs no attribution to a module (the key names it), and what we cannot do lld
//! does: it compiles.
//!
//! A lookup that finds nothing waits: for an object that is made elsewhere ([`super::exchange`]), or until
//! there may be one more backend ([`crate::admit`]).
//!
//! A directory that the user has named (`--thinlto-cache-dir`) stays his: lld reads, writes and prunes it,
//! and lookups only wait.
//!
//! stdin, stdout and stderr are the user's own, and signals go on to lld. If an answer cannot be given,
//! lld is ended, and the link is to be done by lld alone.

mod lookups;
mod objects;
mod start;

use crate::admit::{Admission, Fingerprint, History, Limits, Turn};
use crate::cache::context::Context;
use crate::cache::files::FileDigests;
use crate::cache::objects::Cache;
use crate::jobs::quirks;
use crate::link::attribution::{Attribution, AttributionRule};
use crate::link::backends::Backends;
use crate::link::cache_writer::CacheWriter;
use crate::link::cached_names::CachedNames;
use crate::link::code_options::{CodeOptions, CoveredFiles};
use crate::link::events::Events;
use crate::link::exchange::Exchange;
use crate::link::import_orders::{ImportOrders, NewRecord, Record};
use crate::link::inputs_read::InputsRead;
use crate::link::lookup_dir::LookupDir;
use crate::link::output::Output;
use crate::sys::process::{Role, Running, pidfd};
use crate::sys::signals::{self, Forwarded};
use crate::watch::{self, Call, Listener, Notification, ReportedOpens, Unanswered, Watched};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use shim::cmdline::CommandLine;
use shim::options::Id;
use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Objects wait so long to be kept, so that the files that lld reads are looked at once for many...
const KEEP_AFTER: Duration = Duration::from_millis(500);
/// ... or only this, and as long as to look at these files takes, since a backend compiled: lld is at its last
/// part, which needs one processor.
const KEEP_AFTER_BACKENDS: Duration = Duration::from_millis(2);
/// What it takes to look at one of these files, and then some.
const LOOK_AT_FILE: Duration = Duration::from_micros(10);
/// ... or until there are so many, since each is an open file; or one for 25 of the files that lld reads.
const KEEP_AT: usize = 100;
/// But never more.
const MOST_WAITING: usize = 400;
/// How long lld may take to clean up when it is ended.
const GRACE: Duration = Duration::from_millis(500);

/// Who takes the objects of a link in its output's place. Asked and told by the thread that answers lld.
pub trait ObjectReceiver: Sync {
    /// Whether the object of the module that lld calls `identifier` is wanted.
    fn wants(&self, identifier: &[u8]) -> bool;
    /// The object of a module that is wanted; returns whether more are.
    fn take(&self, identifier: &[u8], object: &File) -> bool;
}

/// A link to be done.
#[derive(Clone, Copy)]
pub struct Link<'a> {
    /// The real lld.
    pub lld: &'a Path,
    /// `argv[0]` as it is to see it.
    pub argv0: &'a OsStr,
    /// The rest, as it came.
    pub args: &'a [OsString],
    /// The same, parsed.
    pub cmd: &'a CommandLine,
    /// Where objects are kept.
    pub cache: Option<&'a Arc<Cache>>,
    /// Digests of files that options name.
    pub files: &'a FileDigests,
    /// lld's major version.
    pub major: u32,
    /// What is shared with other links.
    pub limits: &'a Limits,
    /// What this link cost before, and will have cost.
    pub history: Option<&'a History>,
    /// How much bitcode it has, in bytes, as far as that was counted.
    pub bitcode: u64,
    /// Who makes objects elsewhere, how many at once.
    pub exchange: Option<(&'a Exchange, usize)>,
    /// Signals that come for lld.
    pub signals: Option<&'a Forwarded>,
    /// What lld says goes nowhere.
    pub quiet: bool,
    /// Who takes the objects, if these are wanted instead of the output: lld is ended when it has the last one, and only what its
    /// backends say is shown. Modules have to be known, so there has to be an `exchange`.
    pub objects: Option<&'a dyn ObjectReceiver>,
}

/// A link that is to be done by lld alone.
#[derive(Debug)]
pub struct NotWatched {
    /// Why.
    pub reason: String,
    /// How many bytes an lld that had to be ended has written to standard output and standard error.
    pub said: [u64; 2],
    /// Whether it is not one to be watched, rather than one for which that failed.
    pub planned: bool,
}

impl From<String> for NotWatched {
    fn from(reason: String) -> Self {
        Self {
            reason,
            said: [0; 2],
            planned: true,
        }
    }
}

/// How a link went.
#[derive(Debug)]
pub struct LinkOutcome {
    /// lld's end.
    pub status: ExitStatus,
    /// Modules whose objects came from a cache.
    pub hits: usize,
    /// Modules that lld compiled.
    pub compiled: usize,
    /// Modules whose objects were made elsewhere.
    pub given: usize,
    /// Whether there was a cache of ours.
    pub cached: bool,
    /// When the link's turn was waited for, when lld was started, when it had the last object, and when it
    /// had ended.
    pub times: [Instant; 4],
}

/// Does the link, with options that [`crate::link::eligibility::watched`] gave, or says that it is to be done by lld alone: nothing is
/// left of ours then.
///
/// `events` is told what happens.
pub fn run(
    link: &Link<'_>,
    options: CodeOptions,
    events: &mut Events,
) -> Result<LinkOutcome, NotWatched> {
    let lookup_dir = LookupDir::of(link.cmd);
    let old = link.major < quirks::CACHED_OBJECTS_IN_TASK_ORDER && !lookup_dir.is_users();
    let names = old.then(|| CachedNames::new(lookup_dir.prefix()));
    let arrived = Instant::now();
    let before = link.history.and_then(History::read);
    let fingerprint = Fingerprint::new(link.args, link.cmd.inputs());
    // lld's own threads are no more than the user wants; with jobs elsewhere it has more of them.
    let wanted = link.cmd.thinlto_job_count().filter(|&n| n > 0);
    let most = wanted
        .and_then(|n| usize::try_from(n).ok())
        .unwrap_or(usize::MAX);
    let admission = Admission::new(link.limits, most, before.map(|before| before.cost));
    events.expect(before.map(|before| before.modules));
    let mut turn = Turn::wait(link.limits, link.bitcode, before, fingerprint, || {
        events.waits_for_turn();
        // lld is to get the signal at once.
        !link.signals.is_some_and(Forwarded::have_come)
    });
    signals::raise_open_files();
    let begin = Instant::now();
    let rule = AttributionRule::of(link.major);
    let writes_shards =
        rule == AttributionRule::ByIndexFile && (link.exchange.is_some() || events.want_names());
    let cache = link.cache.filter(|_| !lookup_dir.is_users());
    let (orders, orders_of) = import_orders(link, cache.is_some(), writes_shards);
    let names_modules = link.exchange.is_some() || writes_shards || orders.are_from_shards();
    let calls = match names_modules {
        true => ReportedOpens::All,
        false => ReportedOpens::ForReading,
    };
    let command = start::command(link, &lookup_dir, names_modules);
    let Watched { child, listener } = watch::spawn(command, calls).map_err(|e| NotWatched {
        planned: false,
        ..NotWatched::from(e.to_string())
    })?;
    turn.lld_started(child.id());
    let backends = Backends::new(child.id(), admission);
    let engine = Engine {
        link,
        events,
        names_modules,
        options,
        listener,
        child: Running::new(child, Role::Tool),
        lookup_dir,
        cache,
        attribution: Attribution::new(rule),
        orders,
        new_record: None,
        context: None,
        covered: HashMap::new(),
        inputs: InputsRead::default(),
        backends,
        new_objects: HashMap::new(),
        waiting: Vec::new(),
        kept_at: begin,
        looked_at: 0,
        cache_writer: None,
        hits: 0,
        compiled: 0,
        given: 0,
        prints_late: false,
        keys: HashSet::new(),
        objects_there: begin,
        all_taken: false,
        temporaries: Vec::new(),
        fingerprint,
        orders_of,
        output: Output::new(names, link.quiet),
    };
    engine.run([arrived, begin])
}

/// Where the orders of imports come from, and of which links they are the same.
fn import_orders(
    link: &Link<'_>,
    has_cache: bool,
    writes_shards: bool,
) -> (ImportOrders, Fingerprint) {
    // Another lld need not import the same.
    let inputs_and_lld = link.cmd.inputs().chain([link.lld.as_os_str()]);
    let orders_of = Fingerprint::new(link.args, inputs_and_lld);
    let history = link.history.filter(|_| has_cache && !writes_shards);
    let record = history.and_then(|history| Record::read(&history.import_orders(), orders_of));
    let orders = ImportOrders::new(link.major, has_cache, writes_shards, record);
    (orders, orders_of)
}

struct Engine<'a> {
    link: &'a Link<'a>,
    events: &'a mut Events,
    /// Whether it is known which module a lookup is for.
    names_modules: bool,
    options: CodeOptions,
    listener: Listener,
    child: Running,
    lookup_dir: LookupDir,
    /// Ours, unless lld has the user's.
    cache: Option<&'a Arc<Cache>>,
    attribution: Attribution,
    orders: ImportOrders,
    /// For the next link of the output.
    new_record: Option<NewRecord>,
    /// What keys begin with, once it was asked for: none where there is no cache to be used.
    context: Option<Option<Context>>,
    /// Files whose content is in the context, by the name that lld opens.
    covered: CoveredFiles,
    /// Until it is known what of it matters.
    inputs: InputsRead,
    backends: Backends,
    /// Objects that are being written, by name.
    new_objects: HashMap<Vec<u8>, File>,
    /// Objects to be kept, by lld's key, and how long they took to compile, where that is known.
    waiting: Vec<(Vec<u8>, File, Option<Duration>)>,
    kept_at: Instant,
    /// How many files are looked at before anything is kept.
    looked_at: usize,
    cache_writer: Option<CacheWriter>,
    hits: usize,
    compiled: usize,
    given: usize,
    /// Something was written to standard output that a backend may have left in a buffer (`.print` in assembly, remarks):
    /// `llvm::outs`, which lld's main thread writes when it ends.
    prints_late: bool,
    /// All keys that lld has asked for.
    keys: HashSet<Vec<u8>>,
    /// When lld had the last object.
    objects_there: Instant,
    /// No more objects are wanted, and no output.
    all_taken: bool,
    /// Files under whose names lld begins its output.
    temporaries: Vec<PathBuf>,
    fingerprint: Fingerprint,
    /// The same of what decides in which order modules import.
    orders_of: Fingerprint,
    output: Output,
}

impl Engine<'_> {
    /// The link, which arrived and began at these times.
    fn run(mut self, times: [Instant; 2]) -> Result<LinkOutcome, NotWatched> {
        let served = self.serve();
        self.events.lld_ended();
        match served {
            Ok(status) => {
                let end = Instant::now();
                if status.signal().is_some() {
                    // lld removes it, but not if the signal came between making it and noting that.
                    for path in &self.temporaries {
                        let _ = std::fs::remove_file(path);
                    }
                }
                if status.success() || self.all_taken {
                    self.remember();
                }
                self.keep();
                if let Some(writer) = self.cache_writer.take_if(|_| self.prints_late) {
                    log::info!("a backend has written to standard output: nothing is kept");
                    writer.take_back();
                }
                self.finish_names();
                Ok(LinkOutcome {
                    status,
                    hits: self.hits,
                    compiled: self.compiled,
                    given: self.given,
                    cached: self.cache.is_some(),
                    times: [times[0], times[1], self.objects_there, end],
                })
            }
            Err(e) => {
                self.end_lld();
                Err(NotWatched {
                    reason: format!("watching lld: {e}"),
                    said: self.output.said(),
                    planned: false,
                })
            }
        }
    }

    /// Answers lld until it ends.
    fn serve(&mut self) -> io::Result<ExitStatus> {
        let ended = pidfd(self.child.id())?;
        let link = self.link;
        let mut watched = true;
        loop {
            let on = |there: bool| match there {
                true => PollFlags::POLLIN,
                false => PollFlags::empty(),
            };
            let exchange = link.exchange.map_or(ended.as_fd(), |(e, _)| e.as_fd());
            let signals = link.signals.map_or(ended.as_fd(), Forwarded::as_fd);
            let mut fds = [
                PollFd::new(ended.as_fd(), PollFlags::POLLIN),
                PollFd::new(signals, on(link.signals.is_some())),
                PollFd::new(exchange, on(link.exchange.is_some())),
                PollFd::new(self.listener.as_fd(), on(watched)),
            ];
            // Without any process under the filter the descriptor is hung up for good.
            let n = if watched { 4 } else { 3 };
            let fds = fds.get_mut(..n).unwrap_or_default();
            match poll(fds, self.timeout()) {
                Err(Errno::EINTR) => continue,
                Err(e) => return Err(e.into()),
                Ok(0) => {
                    if self.keep_at().is_some_and(|at| at <= Instant::now()) {
                        self.keep();
                    }
                    self.look().map_err(|Unanswered(e)| e)?;
                    self.events.tick();
                    continue;
                }
                Ok(_) => {}
            }
            let has = |n: usize, flag| {
                let events = fds.get(n).and_then(PollFd::revents);
                events.is_some_and(|e| e.intersects(flag))
            };
            let (calls, hung_up) = (has(3, PollFlags::POLLIN), has(3, PollFlags::POLLHUP));
            let (signalled, over) = (has(1, PollFlags::POLLIN), has(0, PollFlags::POLLIN));
            let news = has(2, PollFlags::POLLIN);
            if let Some(signals) = link.signals.filter(|_| signalled) {
                signals.pass_on(self.child.id());
            }
            if news {
                self.hear_from_elsewhere().map_err(|Unanswered(e)| e)?;
            }
            if calls {
                if let Some(call) = self.listener.receive()? {
                    self.answer(call).map_err(|Unanswered(e)| e)?;
                }
            } else if hung_up {
                watched = false;
            }
            if self.waiting.len() >= KEEP_AT.max(self.looked_at / 25).min(MOST_WAITING) {
                self.keep();
            }
            self.look().map_err(|Unanswered(e)| e)?;
            self.events.tick();
            if self.all_taken {
                let lld = nix::unistd::Pid::from_raw(self.child.id() as i32);
                let _ = nix::sys::signal::kill(lld, nix::sys::signal::Signal::SIGKILL);
                return self.child.wait();
            }
            // What lld has started and left behind is not waited for.
            if over {
                return self.child.wait();
            }
        }
    }

    /// How long to wait for lld before there is something else to do.
    fn timeout(&self) -> PollTimeout {
        let Some(at) = self
            .keep_at()
            .into_iter()
            .chain(self.backends.look_at())
            .chain(self.events.next_tick())
            .min()
        else {
            return PollTimeout::NONE;
        };
        // Rounded up: poll(2) knows no less than a millisecond.
        let left = at.saturating_duration_since(Instant::now()) + Duration::from_micros(999);
        PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO)
    }

    /// When objects are to be kept.
    fn keep_at(&self) -> Option<Instant> {
        let look = LOOK_AT_FILE * self.looked_at as u32;
        let idle = self.backends.idle_since();
        let idle = idle.map(|since| since + KEEP_AFTER_BACKENDS + look);
        let at = self.kept_at + KEEP_AFTER.max(look * 20);
        (!self.waiting.is_empty()).then(|| idle.map_or(at, |idle| idle.min(at)))
    }

    fn answer(&mut self, call: Notification) -> Result<(), Unanswered> {
        let Notification { id, thread, call } = call;
        let link = self.link;
        match call {
            Call::Open { path, flags } => {
                if flags & libc::O_ACCMODE == libc::O_RDONLY {
                    if let Some(key) = self.lookup_dir.key(&path) {
                        return self.lookup(id, thread, key.to_vec());
                    }
                    self.note_read(thread, path);
                } else if self.lookup_dir.are_made_by_us(&path) {
                    return self.begin_object(id, path);
                } else if self.names_modules && self.attribution.opens(thread, &path) {
                    return self.begin_shard(id, thread);
                } else if self.is_temporary_output(&path, flags) {
                    let path = PathBuf::from(OsStr::from_bytes(&path));
                    self.temporaries.push(path);
                }
                self.listener.proceed(id)
            }
            Call::Rename { from, to } => match self.lookup_dir.key(&to) {
                Some(key) if self.lookup_dir.is_users() => {
                    let object = File::open(OsStr::from_bytes(&from)).ok();
                    self.listener.proceed(id)?;
                    self.end_object(thread, key.to_vec(), object);
                    Ok(())
                }
                Some(key) => {
                    self.listener.succeed(id, 0)?;
                    let object = self.new_objects.remove(&from);
                    self.end_object(thread, key.to_vec(), object);
                    Ok(())
                }
                None => self.listener.proceed(id),
            },
            Call::Write {
                stream,
                address,
                length,
            } => {
                self.backends.taint(thread);
                self.prints_late |= stream == libc::STDOUT_FILENO
                    && self.context.is_some()
                    && !self.backends.compiles(thread)
                    && !prints(self.link.cmd);
                if self.link.objects.is_some() && self.backends.compiles(thread) {
                    self.output.note(thread, address, length);
                }
                let stream = usize::from(stream != libc::STDOUT_FILENO);
                self.events
                    .lld_writes(stream, || ends_line(thread, address, length));
                let is_key = |key: &[u8]| self.keys.contains(key);
                let goes_on = || passes_signals(link.signals, &self.child);
                let bytes = (address, length);
                match self.output.write(thread, stream, bytes, is_key, goes_on) {
                    None => self.listener.proceed(id),
                    Some(Ok(written)) => self.listener.succeed(id, written),
                    Some(Err(e)) => {
                        let error = e.raw_os_error().unwrap_or(libc::EIO);
                        self.listener.fail(id, error)
                    }
                }
            }
        }
    }

    /// Remembers what the link was made of, and what it has cost, if most of it was compiled.
    fn remember(&mut self) {
        // What came from the cache cost nothing.
        let compiled = self.compiled + self.given >= self.hits;
        let cost = self.backends.cost().filter(|_| compiled);
        if let Some(history) = self.link.history {
            if self.cache.is_some() {
                let modules = self.hits + self.compiled + self.given;
                if let Err(e) = history.write(cost, self.fingerprint, modules) {
                    log::info!("what the link has cost cannot be remembered: {e}");
                }
                if self.orders.are_stale() {
                    let _ = std::fs::remove_file(history.import_orders());
                }
                let written = self.new_record.take().map(|r| r.write(&self.orders));
                if let Some(Err(e)) = written {
                    log::info!("in which order modules import cannot be remembered: {e}");
                }
            }
        }
    }

    /// Gives objects their names in what an old lld has written, when it has ended.
    fn finish_names(&mut self) {
        let link = self.link;
        let map = link.cmd.last(Id::Map).filter(|map| *map != "-");
        let is_key = |key: &[u8]| self.keys.contains(key);
        let goes_on = || !link.signals.is_some_and(Forwarded::have_come);
        self.output.finish(map.map(Path::new), is_key, goes_on);
    }

    /// Ends an lld that cannot be answered any more; what is left of it goes with us.
    fn end_lld(&self) {
        let pid = nix::unistd::Pid::from_raw(self.child.id() as i32);
        // It removes its temporary output when it is asked to end.
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let until = Instant::now() + GRACE;
        while Instant::now() < until && self.child.runs() {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// Whether lld itself prints to standard output.
fn prints(cmd: &CommandLine) -> bool {
    const PRINTING: [Id; 12] = [
        Id::PrintMap,
        Id::Cref,
        Id::Trace,
        Id::TraceSymbol,
        Id::Verbose,
        Id::VerboseBpSectionOrderer,
        Id::Version,
        Id::V,
        Id::PrintGcSections,
        Id::PrintGcSectionsEq,
        Id::PrintIcfSections,
        Id::PrintMemoryUsage,
    ];
    let to_stdout = |id| cmd.last(id).is_some_and(|file| file == "-");
    PRINTING.iter().any(|&option| cmd.has(option))
        || [Id::Map, Id::PrintArchiveStats, Id::WhyExtract]
            .into_iter()
            .any(to_stdout)
}

/// Passes on what has come for lld; says whether it still runs.
fn passes_signals(signals: Option<&Forwarded>, lld: &Running) -> bool {
    if let Some(signals) = signals {
        signals.pass_on(lld.id());
    }
    lld.runs()
}

/// Whether what a thread is about to write ends a line; not if that cannot be told.
fn ends_line(thread: u32, address: u64, length: u64) -> bool {
    let mut last = [0];
    let at = address.wrapping_add(length).wrapping_sub(1);
    watch::read_memory(thread, at, &mut last).is_ok_and(|n| n == 1) && last == *b"\n"
}
