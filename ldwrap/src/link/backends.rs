//! lld's backend threads: which of them compile, which wait, and the permits for that.

use crate::admit::{Admission, Cost, POLL_INTERVAL, Permit, Resource};
use crate::link::attribution::Module;
use crate::sys::procfs;
use nix::sys::resource::{UsageWho, getrusage};
use std::cell::OnceCell;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// A thread that compiles and sleeps for so long waits for another one.
const ASLEEP: Duration = Duration::from_millis(100);
/// After a choice that found nothing there is none for so many times as long as it took...
const CHOICE_PAUSE: u32 = 50;
/// ... but never for longer.
const LONGEST_PAUSE: Duration = Duration::from_millis(50);
/// When a thread that has made its object is looked at, if others wait: mostly its next lookup comes before.
const NEXT_LOOKUP: Duration = Duration::from_millis(1);
/// The same if none of this link does.
const FOR_OTHERS: Duration = Duration::from_millis(20);

/// A lookup that waits, since no cache has its object and no backend may begin yet.
#[derive(Debug)]
pub struct HeldLookup {
    /// The call's number.
    pub id: u64,
    /// The thread that makes it.
    pub thread: u32,
    /// lld's key.
    pub key: Vec<u8>,
    /// The module, where that matters and is known.
    pub module: Option<Module>,
    /// The number of the module's job, once that is known.
    pub job: OnceCell<usize>,
    /// Since when.
    pub since: Instant,
}

impl HeldLookup {
    /// One that waits from now on.
    #[must_use]
    pub fn new(id: u64, thread: u32, key: Vec<u8>, module: Option<Module>) -> Self {
        Self {
            id,
            thread,
            key,
            module,
            job: OnceCell::new(),
            since: Instant::now(),
        }
    }
}

/// What a thread compiles.
#[derive(Debug)]
pub struct MadeObject {
    /// lld's key.
    pub key: Vec<u8>,
    /// The module, where that matters and is known.
    pub module: Option<Module>,
    /// Whether its object may be kept.
    pub pure: bool,
    /// How long that took, and how long of it on a processor; nothing until it has ended.
    pub took: Duration,
    /// See above.
    pub processor_time: Duration,
}

/// A thread that compiles.
#[derive(Debug)]
struct RunningBackend {
    made: MadeObject,
    since: Instant,
    /// How long the thread had been on a processor before.
    processor_time: Option<Duration>,
    /// None while it waits for another thread.
    permit: Option<Permit>,
    asleep_since: Option<Instant>,
}

/// The backends of one link.
#[derive(Debug)]
pub struct Backends {
    lld: u32,
    admission: Admission,
    held: Vec<HeldLookup>,
    /// What those that are held lack; none if they wait for an object from elsewhere.
    lacks: Option<Resource>,
    /// Nothing is chosen among those before this time.
    choose_from: Option<Instant>,
    /// By thread.
    compiles: HashMap<u32, RunningBackend>,
    /// Threads that have made an object, and have still to clear up after that.
    ending: Vec<(u32, Permit)>,
    /// Permits that no thread uses.
    free: Vec<Permit>,
    /// When all of these are to be looked at.
    look_at: Option<Instant>,
    /// lld's memory when it made its first lookup (bytes).
    memory_before: u64,
    most: usize,
    /// When an object was made last.
    made_at: Option<Instant>,
}

impl Backends {
    /// Of this process.
    #[must_use]
    pub fn new(lld: u32, admission: Admission) -> Self {
        Self {
            lld,
            admission,
            held: Vec::new(),
            lacks: None,
            choose_from: None,
            compiles: HashMap::new(),
            ending: Vec::new(),
            free: Vec::new(),
            look_at: None,
            memory_before: 0,
            most: 0,
            made_at: None,
        }
    }

    /// A thread makes a lookup: whatever it has done before is done. A call that was interrupted comes
    /// again: then, what was held of it.
    pub fn arrives(&mut self, thread: u32) -> Option<HeldLookup> {
        if self.memory_before == 0 {
            self.memory_before = procfs::resident(self.lld);
        }
        let held = self.held.iter().position(|held| held.thread == thread);
        let permit = self.compiles.remove(&thread).and_then(|c| c.permit);
        self.free.extend(permit);
        self.end_threads(|ending| ending == thread);
        held.map(|at| self.held.remove(at))
    }

    /// Takes the held lookup of a module, if there is one.
    pub fn take_held(&mut self, is_it: impl Fn(&Module) -> bool) -> Option<HeldLookup> {
        let of_it = |held: &HeldLookup| held.module.as_ref().is_some_and(&is_it);
        let at = self.held.iter().position(of_it)?;
        Some(self.held.remove(at))
    }

    /// It is to wait until there is a permit for it.
    pub fn hold(&mut self, held: HeldLookup) {
        self.held.push(held);
    }

    /// The next that may compile, which `choose` finds among those that are held.
    pub fn next_to_begin(
        &mut self,
        choose: impl Fn(&[HeldLookup]) -> Option<usize>,
    ) -> Option<(HeldLookup, Permit)> {
        self.lacks = None;
        let begin = Instant::now();
        let Some(at) = choose(&self.held) else {
            let after = (begin.elapsed() * CHOICE_PAUSE).clamp(POLL_INTERVAL, LONGEST_PAUSE);
            self.choose_from = (!self.held.is_empty()).then(|| Instant::now() + after);
            return None;
        };
        let thread = self.held.get(at)?.thread;
        let free = self.free.pop();
        let Some(permit) = free.or_else(|| self.admission.try_permit(self.lld, thread)) else {
            self.lacks = Some(self.admission.lacks());
            return None;
        };
        Some((self.held.remove(at), permit))
    }

    /// Whether it is worth asking [`Self::next_to_begin`]. Choosing looks at every lookup that is held, of which there may
    /// be a thousand; where there was nothing to choose a moment ago, there is hardly anything yet.
    #[must_use]
    pub fn may_choose(&self) -> bool {
        self.choose_from.is_none_or(|at| at <= Instant::now())
    }

    /// Something has changed: there may be one to choose now.
    pub fn choose_anew(&mut self) {
        self.choose_from = None;
    }

    /// Lookups that are held, and what they lack; none if they wait for an object from elsewhere.
    #[must_use]
    pub fn held(&self) -> (&[HeldLookup], Option<Resource>) {
        (&self.held, self.lacks)
    }

    /// How many threads compile.
    #[must_use]
    pub fn running(&self) -> usize {
        self.compiles.len()
    }

    /// Whether lookups wait that may not begin, since as many compile as may.
    #[must_use]
    pub fn are_too_many(&self) -> bool {
        !self.held.is_empty() && !self.admission.has_room()
    }

    /// A held one compiles now.
    pub fn begin(&mut self, held: HeldLookup, permit: Permit) {
        let made = MadeObject {
            key: held.key,
            module: held.module,
            pure: true,
            took: Duration::ZERO,
            processor_time: Duration::ZERO,
        };
        let compile = RunningBackend {
            made,
            since: Instant::now(),
            processor_time: procfs::processor_time(held.thread),
            permit: Some(permit),
            asleep_since: None,
        };
        self.compiles.insert(held.thread, compile);
        self.most = self.most.max(self.compiles.len());
    }

    /// It needs no permit after all.
    pub fn give_back_unused(&mut self, permit: Permit) {
        self.free.push(permit);
    }

    /// Whether a thread compiles.
    #[must_use]
    pub fn compiles(&self, thread: u32) -> bool {
        self.compiles.contains_key(&thread)
    }

    /// The object that a thread compiles is not to be kept.
    pub fn taint(&mut self, thread: u32) {
        if let Some(compile) = self.compiles.get_mut(&thread) {
            compile.made.pure = false;
        }
    }

    /// A thread has made an object.
    pub fn made(&mut self, thread: u32) -> Option<MadeObject> {
        let compile = self.compiles.remove(&thread)?;
        self.made_at = Some(Instant::now());
        self.ending
            .extend(compile.permit.map(|permit| (thread, permit)));
        let took = compile.since.elapsed();
        let now = procfs::processor_time(thread);
        let processor_time = now.zip(compile.processor_time);
        Some(MadeObject {
            took,
            processor_time: processor_time.map_or(took, |(now, before)| now.saturating_sub(before)),
            ..compile.made
        })
    }

    /// Since when no thread compiles or waits.
    #[must_use]
    pub fn idle_since(&self) -> Option<Instant> {
        let idle = self.compiles.is_empty() && self.held.is_empty();
        self.made_at.filter(|_| idle)
    }

    /// When to look next.
    #[must_use]
    pub fn look_at(&self) -> Option<Instant> {
        self.look_at
    }

    /// Whether it is time to look for what may go on. Then [`Backends::next_to_begin`] is to be asked, and
    /// [`Backends::looked`] called.
    pub fn look(&mut self) -> bool {
        let due = self.look_at.is_some_and(|at| at <= Instant::now());
        if due {
            self.look_at = None;
            // One that sleeps waits for more to do.
            self.end_threads(|thread| matches!(procfs::state(thread), Some(b'S') | None));
            if self.are_too_many() {
                self.free_sleepers();
            }
        }
        due
    }

    /// A thread that waits for others in the middle of its module, as when lld is about to exit with an
    /// error, may wait for one that has no permit.
    fn free_sleepers(&mut self) {
        let now = Instant::now();
        for (&thread, compile) in &mut self.compiles {
            if !procfs::waits_for_another(thread) {
                compile.asleep_since = None;
            } else if now - *compile.asleep_since.get_or_insert(now) > ASLEEP {
                self.free.extend(compile.permit.take());
            }
        }
    }

    /// Gives back permits that no lookup wants.
    pub fn looked(&mut self) {
        for permit in self.free.drain(..) {
            self.admission.give_back(permit);
        }
    }

    /// Sets when to look next, after something has happened.
    pub fn schedule(&mut self) {
        if self.look_at.is_none() {
            let waits = !self.held.is_empty();
            let after = if !self.free.is_empty() || !self.ending.is_empty() {
                Some(if waits { NEXT_LOOKUP } else { FOR_OTHERS })
            } else {
                waits.then(|| self.admission.poll_interval())
            };
            self.look_at = after.map(|after| Instant::now() + after);
        }
    }

    /// These threads are done with what they made: their permits are free.
    fn end_threads(&mut self, has_ended: impl Fn(u32) -> bool) {
        for (thread, permit) in std::mem::take(&mut self.ending) {
            if !has_ended(thread) {
                self.ending.push((thread, permit));
            } else if self.admission.may_keep(&permit) {
                self.free.push(permit);
            } else {
                self.admission.give_back(permit);
            }
        }
    }

    /// What the link has cost, when lld has ended; none if it made no lookup.
    #[must_use]
    pub fn cost(&self) -> Option<Cost> {
        let usage = getrusage(UsageWho::RUSAGE_CHILDREN).ok()?;
        let peak = u64::try_from(usage.max_rss()).ok()? << 10;
        let base = self.memory_before.min(peak);
        if base == 0 {
            return None;
        }
        let backend = (peak - base) / self.most.max(1) as u64;
        Some(Cost {
            peak,
            base,
            backend,
        })
    }
}
