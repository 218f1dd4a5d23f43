//! lld's backend threads: which of them compile, which wait, and the permits for that.

use crate::admit::{Admission, Cost, Permit};
use crate::sys::procfs;
use nix::sys::resource::{UsageWho, getrusage};
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// When a thread that has made its object is looked at: mostly its next lookup comes before.
const NEXT_LOOKUP: Duration = Duration::from_millis(1);

/// A lookup that waits, since no cache has its object and no backend may begin yet.
#[derive(Debug)]
pub struct Held {
    /// The call's number.
    pub id: u64,
    /// The thread that makes it.
    pub thread: u32,
    /// lld's key.
    pub key: Vec<u8>,
    /// Since when.
    pub since: Instant,
}

/// A thread that compiles.
#[derive(Debug)]
struct Compile {
    key: Vec<u8>,
    /// Whether its object may be kept.
    pure: bool,
    permit: Permit,
}

/// The backends of one link.
#[derive(Debug)]
pub struct Backends {
    lld: u32,
    admission: Admission,
    held: Vec<Held>,
    /// By thread.
    compiles: HashMap<u32, Compile>,
    /// Threads that have made an object, and have still to clear up after that.
    ending: Vec<(u32, Permit)>,
    /// Permits that no thread uses.
    free: Vec<Permit>,
    /// When all of these are to be looked at.
    look_at: Option<Instant>,
    /// lld's memory when its first backend was to begin (bytes).
    memory_before: u64,
    most: usize,
}

impl Backends {
    /// Of this process.
    #[must_use]
    pub fn new(lld: u32, admission: Admission) -> Self {
        Self {
            lld,
            admission,
            held: Vec::new(),
            compiles: HashMap::new(),
            ending: Vec::new(),
            free: Vec::new(),
            look_at: None,
            memory_before: 0,
            most: 0,
        }
    }

    /// A thread makes a lookup: whatever it has done before is done. (A call that was interrupted comes
    /// again.)
    pub fn arrives(&mut self, thread: u32) {
        self.held.retain(|held| held.thread != thread);
        if let Some(compile) = self.compiles.remove(&thread) {
            self.free.push(compile.permit);
        }
        self.end_threads(|ending| ending == thread);
    }

    /// It is to wait until there is a permit for it.
    pub fn hold(&mut self, held: Held) {
        self.held.push(held);
    }

    /// The next that may compile. The last to come is the first: its thread has just compiled
    /// something, and finds its memory where it was (with very many threads, few of them do it all).
    pub fn next_to_begin(&mut self) -> Option<(Held, Permit)> {
        if self.held.is_empty() {
            return None;
        }
        let free = self.free.pop();
        let permit = free.or_else(|| self.admission.try_permit(self.lld))?;
        Some((self.held.pop()?, permit))
    }

    /// It compiles now.
    pub fn begin(&mut self, thread: u32, key: Vec<u8>, permit: Permit) {
        if self.most == 0 {
            self.memory_before = procfs::resident(self.lld);
        }
        let compile = Compile {
            key,
            pure: true,
            permit,
        };
        self.compiles.insert(thread, compile);
        self.most = self.most.max(self.compiles.len());
    }

    /// It needs no permit after all.
    pub fn unused(&mut self, permit: Permit) {
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
            compile.pure = false;
        }
    }

    /// A thread has made an object: its key, if the object may be kept.
    pub fn made(&mut self, thread: u32) -> Option<Vec<u8>> {
        let compile = self.compiles.remove(&thread)?;
        self.ending.push((thread, compile.permit));
        compile.pure.then_some(compile.key)
    }

    /// Whether no thread compiles or waits.
    #[must_use]
    pub fn are_idle(&self) -> bool {
        self.compiles.is_empty() && self.held.is_empty()
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
        }
        due
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
            let after = if !self.free.is_empty() || !self.ending.is_empty() {
                Some(NEXT_LOOKUP)
            } else {
                (!self.held.is_empty()).then(|| self.admission.look_after())
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

    /// What the link has cost, when lld has ended; none if nothing was compiled.
    #[must_use]
    pub fn cost(&self) -> Option<Cost> {
        let usage = getrusage(UsageWho::RUSAGE_CHILDREN).ok()?;
        let peak = u64::try_from(usage.max_rss()).ok()? << 10;
        let base = self.memory_before.min(peak);
        let backend = (peak - base).checked_div(self.most as u64)?;
        Some(Cost {
            peak,
            base,
            backend,
        })
    }
}
