//! What happens in a link, for those who watch it: the line of progress, the trace, and the times in the report.
//!
//! The engine says here what it does, in its own thread. What only the line and the trace need is not kept where
//! there is neither.

mod progress;
mod trace;

pub use progress::Progress;
pub use trace::{LinkTimes, Trace};

use crate::admit::Resource;
use crate::cache::objects::CachedObject;
use crate::jobs::outcome::{FinishedObject, ObjectSource};
use crate::link::attribution::Module;
use crate::link::backends::{HeldLookup, MadeObject};
use shim::report::Objects;
use std::collections::HashMap;
use std::time::{Duration, Instant};
use trace::{Row, Slice, SliceKind};

/// Where the object of a module came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// A cache: this machine's, a server's, or the user's own.
    Cache,
    /// A thread of lld's.
    Lld,
    /// A clang process of this machine.
    Clang,
    /// A server, or a distributor.
    Remote,
}

/// What a module waits for before it is compiled, or its object is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WaitsFor {
    /// Something that backends of this machine share.
    Resource(Resource),
    /// Objects that are made elsewhere.
    Elsewhere,
}

/// How far a link is.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    /// Modules that have their objects.
    pub done: usize,
    /// How many of them from a cache.
    pub cached: usize,
    /// How many of them from a clang process, a server or a distributor.
    pub elsewhere: usize,
    /// Modules that lld's threads compile now.
    pub running: usize,
    /// Modules that wait.
    pub waiting: usize,
    /// What most of them wait for.
    pub waits_for: Option<WaitsFor>,
    /// How many modules there are, if that is known.
    pub total: Option<usize>,
    /// Whether there may be fewer: members of archives that are left out count in `total` too.
    pub at_most: bool,
    /// What a backend of lld's has taken lately.
    pub usual: Option<Duration>,
}

/// A lookup that is not answered, or whose thread compiles.
#[derive(Debug)]
struct OpenLookup {
    module: Option<Module>,
    since: Instant,
    /// What it waits for, since when.
    waits: Option<(WaitsFor, Instant)>,
    waited: HashMap<WaitsFor, Duration>,
    compiles_since: Option<Instant>,
}

/// Those who watch one link.
#[derive(Debug)]
pub struct Events {
    progress: Option<Progress>,
    trace: Option<Trace>,
    counts: Counts,
    /// By thread.
    open: HashMap<u32, OpenLookup>,
    cached_bytes: u64,
    compiled: Duration,
    saved: Duration,
    saved_unknown: usize,
    waited: Duration,
}

impl Events {
    /// For these, if there are any.
    #[must_use]
    pub fn new(progress: Option<Progress>, trace: Option<Trace>) -> Self {
        Self {
            progress,
            trace,
            counts: Counts::default(),
            open: HashMap::new(),
            cached_bytes: 0,
            compiled: Duration::ZERO,
            saved: Duration::ZERO,
            saved_unknown: 0,
            waited: Duration::ZERO,
        }
    }

    /// Whether modules are to be known by their names, which costs lld some time.
    #[must_use]
    pub fn want_names(&self) -> bool {
        self.trace.is_some()
    }

    /// Whether it is worth to say more than what the report needs.
    fn are_watched(&self) -> bool {
        self.trace.is_some() || self.progress.is_some()
    }

    /// So many modules are among the link's inputs; not all of them need be linked.
    pub fn expect_at_most(&mut self, modules: Option<usize>) {
        self.counts.total = modules;
        self.counts.at_most = true;
    }

    /// The link had so many modules when it was done last, if it was.
    pub fn expect(&mut self, modules: Option<usize>) {
        if modules.is_some() {
            self.counts.total = modules;
            self.counts.at_most = false;
        }
    }

    /// A thread looks for its module's object.
    pub fn looked_up(&mut self, thread: u32, module: Option<&Module>) {
        if self.are_watched() {
            let lookup = OpenLookup {
                module: module.cloned(),
                since: Instant::now(),
                waits: None,
                waited: HashMap::new(),
                compiles_since: None,
            };
            self.open.insert(thread, lookup);
        }
    }

    /// These lookups wait: for what they lack, or else for objects from elsewhere. So many threads compile.
    pub fn waits(&mut self, (held, lacks): (&[HeldLookup], Option<Resource>), running: usize) {
        if !self.are_watched() {
            return;
        }
        let what = lacks.map_or(WaitsFor::Elsewhere, WaitsFor::Resource);
        let now = Instant::now();
        for held in held {
            let Some(lookup) = self.open.get_mut(&held.thread) else {
                continue;
            };
            match lookup.waits {
                Some((before, _)) if before == what => {}
                Some((before, since)) => {
                    end_wait(self.trace.as_mut(), held.thread, lookup, before, since, now);
                    lookup.waits = Some((what, now));
                }
                None => lookup.waits = Some((what, lookup.since)),
            }
        }
        self.counts.running = running;
        self.counts.waiting = held.len();
        self.counts.waits_for = (!held.is_empty()).then_some(what);
    }

    /// A thread that has waited since then compiles its module now.
    pub fn compiles(&mut self, thread: u32, waited: Duration) {
        self.waited += waited;
        self.counts.running += 1;
        let now = Instant::now();
        if let Some(lookup) = self.open.get_mut(&thread) {
            if let Some((what, since)) = lookup.waits.take() {
                end_wait(self.trace.as_mut(), thread, lookup, what, since, now);
            }
            lookup.compiles_since = Some(now);
        }
    }

    /// A thread has compiled its module to an object of so many bytes.
    pub fn compiled(&mut self, thread: u32, made: &MadeObject, bytes: u64) {
        let took = made.took;
        self.compiled += made.processor_time;
        self.counts.running = self.counts.running.saturating_sub(1);
        // Modules come largest first: the last count.
        let usual = self
            .counts
            .usual
            .map_or(took, |usual| (usual * 3 + took) / 4);
        self.counts.usual = Some(usual);
        self.done(thread, Source::Lld, bytes, None);
    }

    /// A thread got its object from a cache: ours, or the user's own, of which nothing more is known.
    pub fn cached(&mut self, thread: u32, object: Option<&CachedObject>) {
        let bytes = object.map_or(0, |object| object.bytes);
        self.count_cached(bytes, object.and_then(|object| object.took));
        self.done(thread, Source::Cache, bytes, None);
    }

    /// A thread got an object of so many bytes that was made elsewhere.
    pub fn given(&mut self, thread: u32, object: &FinishedObject, bytes: u64) {
        let source = match object.source {
            ObjectSource::Cache => Source::Cache,
            ObjectSource::Clang => Source::Clang,
            ObjectSource::Elsewhere => Source::Remote,
        };
        if source == Source::Cache {
            self.count_cached(bytes, object.took);
        } else {
            self.counts.elsewhere += 1;
            self.compiled += object.took.unwrap_or_default();
        }
        self.done(thread, source, bytes, object.took);
    }

    fn count_cached(&mut self, bytes: u64, took: Option<Duration>) {
        self.counts.cached += 1;
        self.cached_bytes += bytes;
        match took {
            Some(took) => self.saved += took,
            None => self.saved_unknown += 1,
        }
    }

    /// A thread has its object, which took so long to compile elsewhere, if it was compiled there.
    fn done(&mut self, thread: u32, source: Source, bytes: u64, took: Option<Duration>) {
        self.counts.done += 1;
        let Some(mut lookup) = self.open.remove(&thread) else {
            return;
        };
        let now = Instant::now();
        if let Some((what, since)) = lookup.waits.take() {
            end_wait(self.trace.as_mut(), thread, &mut lookup, what, since, now);
        }
        if let Some(trace) = &mut self.trace {
            let waited_for = lookup.waited.iter().max_by_key(|(_, waited)| **waited);
            let (row, start) = match source {
                Source::Clang | Source::Remote => {
                    let took = took.unwrap_or_else(|| now - lookup.since);
                    (Row::Elsewhere, now.checked_sub(took).unwrap_or(now))
                }
                Source::Lld => (Row::Thread(thread), lookup.compiles_since.unwrap_or(now)),
                Source::Cache if lookup.waited.is_empty() => (Row::Thread(thread), lookup.since),
                Source::Cache => (Row::Thread(thread), now),
            };
            let kind = SliceKind::Backend {
                source,
                bytes,
                waited: lookup.waited.values().sum(),
                waited_for: waited_for.map(|(what, _)| *what),
            };
            trace.add(Slice {
                module: lookup.module,
                kind,
                row,
                start,
                end: now,
            });
        }
    }

    /// lld is about to write to standard output (0) or standard error (1); `ends_line` says whether its last byte
    /// ends a line.
    pub fn lld_writes(&mut self, stream: usize, ends_line: impl FnOnce() -> bool) {
        if let Some(progress) = &mut self.progress {
            progress.give_way(stream, ends_line());
        }
    }

    /// When [`Events::tick`] is to be called next, if ever.
    #[must_use]
    pub fn next_tick(&self) -> Option<Instant> {
        self.progress.as_ref().map(Progress::next_tick)
    }

    /// Shows how far the link is, if it is time.
    pub fn tick(&mut self) {
        if let Some(progress) = &mut self.progress {
            progress.tick(&self.counts);
        }
    }

    /// The link waits for others before lld is started.
    pub fn waits_for_turn(&mut self) {
        if let Some(progress) = &mut self.progress {
            progress.tick_while_others_link();
        }
    }

    /// lld has ended, and nothing more is to be shown.
    pub fn lld_ended(&mut self) {
        self.progress = None;
        for (thread, lookup) in std::mem::take(&mut self.open) {
            // One that lld has given up.
            if let (Some(trace), Some(start)) = (&mut self.trace, lookup.compiles_since) {
                trace.add(Slice {
                    module: lookup.module,
                    kind: SliceKind::Unfinished,
                    row: Row::Thread(thread),
                    start,
                    end: Instant::now(),
                });
            }
        }
    }

    /// Sizes and times, for the report; `cached` says whether there was a cache of ours.
    #[must_use]
    pub fn objects(&self, cached: bool) -> Objects {
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Objects {
            cached_bytes: self.cached_bytes,
            compile_ms: ms(self.compiled),
            saved_ms: ms(self.saved),
            saved_unknown: self.saved_unknown,
            cache_unused: !cached,
            waited_ms: ms(self.waited),
        }
    }

    /// The trace, if there is one.
    #[must_use]
    pub fn into_trace(self) -> Option<Trace> {
        self.trace
    }
}

/// A lookup does not wait any more for what it has waited for since then.
fn end_wait(
    trace: Option<&mut Trace>,
    thread: u32,
    lookup: &mut OpenLookup,
    what: WaitsFor,
    since: Instant,
    now: Instant,
) {
    *lookup.waited.entry(what).or_default() += now - since;
    if let Some(trace) = trace {
        trace.add(Slice {
            module: lookup.module.clone(),
            kind: SliceKind::Wait(what),
            row: Row::Thread(thread),
            start: since,
            end: now,
        });
    }
}
