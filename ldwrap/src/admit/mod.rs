//! Who may compile now, over all links of the machine and the build.
//!
//! A backend needs a permit. That is one of the slots that all links of a user on this machine share; and
//! where a jobserver started this link (make, ninja, cargo; "POSIX Jobserver Interaction" in GNU make's
//! manual), one of its tokens as well, of which each job has one from the start. Beyond that it needs
//! memory: what is free has to cover what a backend is expected to take. Where it does not, one backend
//! of all may run nevertheless, since waiting would free nothing.
//!
//! All of these are locks of files or tokens of a jobserver: no process has to be asked, and one that dies
//! takes nothing along but tokens, which are its jobserver's to replace.

mod history;
mod memory;
mod slots;
mod tokens;
mod turn;

pub use history::{Cost, Fingerprint, History, LinkRecord};
pub use slots::{Slot, Slots};
pub use turn::Turn;

use crate::sys::procfs::resident;
use shim::user_dir::user_dir;
use slots::Queue;
use std::io;
use std::path::PathBuf;
use std::sync::Once;
use std::time::{Duration, Instant};
use tokens::Tokens;

/// What a backend takes, if it is not known (bytes).
const BACKEND: u64 = 96 << 20;
/// So much memory is left free.
const RESERVE: u64 = 32 << 20;
/// How long a measurement of free memory is used.
const MEMORY_VALID_FOR: Duration = Duration::from_millis(100);
/// How often what a backend waits for is looked at again, at first and at last.
pub const POLL_INTERVAL: Duration = Duration::from_millis(5);
const LONGEST_POLL_INTERVAL: Duration = Duration::from_millis(20);
/// After this time of waiting, slots of processes that are stopped, or make no progress, do not count.
const STUCK_COUNT_FOR: Duration = Duration::from_millis(500);
/// A link gives a slot away that it has had for this time if others wait.
const QUANTUM: Duration = Duration::from_secs(1);

/// What is shared with whom, and how much of it there is.
#[derive(Debug)]
pub struct Limits {
    /// How many backends at once: of all links where they share slots, and of each link in any case.
    pub jobs: usize,
    /// How much memory all large links may take together (bytes), if the user says.
    pub memory: Option<u64>,
    /// Where locks are; none where nothing can be shared.
    pub dir: Option<PathBuf>,
}

impl Limits {
    /// With the directory of this user on this machine.
    #[must_use]
    pub fn new(jobs: usize, memory: Option<u64>) -> Self {
        let dir = user_dir();
        if let Err(e) = &dir {
            warn_of_no_sharing(e);
        }
        let dir = dir.ok();
        Self { jobs, memory, dir }
    }

    /// Of one link by itself.
    #[must_use]
    pub fn of_one_link(jobs: usize) -> Self {
        Self {
            jobs,
            memory: None,
            dir: None,
        }
    }
}

/// What a backend may have to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Resource {
    /// One of the machine's slots, or its link's own.
    Slot,
    /// A token of the jobserver.
    Token,
    /// Free memory.
    Memory,
}

/// The right to run one backend. What it holds of shared resources is given back when it is dropped.
#[derive(Debug)]
pub struct Permit {
    resources: Resources,
    /// Of a backend that runs though memory is short.
    _exemption: Option<Slot>,
    since: Instant,
}

/// What a permit holds. Each is given back when it is dropped, but for the own token.
#[derive(Debug)]
struct Resources {
    token: Option<Token>,
    slot: Option<Slot>,
}

#[derive(Debug)]
enum Token {
    /// The one that this link was started with.
    Own,
    Another(#[expect(dead_code, reason = "given back when dropped")] tokens::Token),
}

/// A jobserver, and whether the token that this link was started with is free.
#[derive(Debug)]
struct Jobserver {
    tokens: Tokens,
    own: bool,
}

/// The machine's slots, and our place among those who wait for one.
#[derive(Debug)]
struct Machine {
    slots: Slots,
    queue: Queue,
    place: Option<Slot>,
}

/// Admission of one link's backends.
#[derive(Debug)]
pub struct Admission {
    jobs: usize,
    jobserver: Option<Jobserver>,
    machine: Option<Machine>,
    /// The one slot for a backend that may run though memory is short.
    exemption: Option<Slots>,
    /// The slots of large links, and how much memory they may take together (bytes).
    bound: Option<(Slots, u64)>,
    /// What lld takes without backends, and what each of them takes (bytes).
    base: u64,
    backend: u64,
    available: Option<(Instant, u64)>,
    running: usize,
    waits_since: Option<Instant>,
    /// Others come first until then.
    not_before: Option<Instant>,
    /// What there was none of when a permit was refused last.
    lacks: Resource,
}

impl Admission {
    /// For a link of which this is known, and which may run so many backends at once itself. Reads the
    /// environment for a jobserver: to be called before files are opened.
    #[must_use]
    pub fn new(limits: &Limits, most: usize, before: Option<Cost>) -> Self {
        let jobserver = Tokens::of_environment();
        let jobserver = jobserver.map(|tokens| Jobserver { tokens, own: true });
        let machine = limits.dir.as_deref().map(|dir| Machine {
            slots: Slots::new(dir, "slot", limits.jobs),
            queue: Queue::new(dir),
            place: None,
        });
        let exemption = limits.dir.as_deref().map(|dir| Slots::new(dir, "lone", 1));
        let large = limits
            .dir
            .as_deref()
            .map(|dir| turn::large_links(dir, limits.jobs));
        Self {
            bound: large.zip(limits.memory),
            jobs: most.min(limits.jobs),
            jobserver,
            machine,
            exemption,
            base: before.map_or(0, |cost| cost.base),
            backend: before.map_or(BACKEND, |cost| cost.backend),
            available: None,
            running: 0,
            waits_since: None,
            not_before: None,
            lacks: Resource::Slot,
        }
    }

    /// What there was none of when a permit was refused last.
    #[must_use]
    pub fn lacks(&self) -> Resource {
        self.lacks
    }

    /// Whether it is worth to ask for a permit now.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.running < self.jobs && self.waits_since.is_none()
    }

    /// A permit for a backend of the lld with this process number, which this thread of it is to compile, if there may
    /// be one more now.
    pub fn try_permit(&mut self, lld: u32, thread: u32) -> Option<Permit> {
        let now = Instant::now();
        if self.not_before.is_some_and(|t| now < t) || self.running >= self.jobs {
            self.lacks = Resource::Slot;
            return None;
        }
        let ignore_stuck = self.waits_since.is_some_and(|t| now - t > STUCK_COUNT_FOR);
        let Some((resources, exemption)) = self.try_resources(lld, ignore_stuck) else {
            self.waits_since.get_or_insert(now);
            return None;
        };
        for slot in resources.slot.iter().chain(&exemption) {
            slot.used_for(thread);
        }
        self.waits_since = None;
        self.running += 1;
        Some(Permit {
            resources,
            _exemption: exemption,
            since: now,
        })
    }

    /// What a permit needs, if all of it is free: slot and token, and where memory is short, the exemption.
    fn try_resources(&mut self, lld: u32, ignore_stuck: bool) -> Option<(Resources, Option<Slot>)> {
        let enough = self.has_memory(lld);
        self.lacks = Resource::Memory;
        let mut exemption = None;
        if let Some(slots) = self.exemption.as_mut().filter(|_| !enough) {
            match slots.try_take(ignore_stuck) {
                Ok(slot) => exemption = Some(slot?),
                Err(e) => {
                    warn_of_no_sharing(&e);
                    self.exemption = None;
                }
            }
        }
        // Where there are no locks, nothing is known of others: one of each link may run.
        if !enough && exemption.is_none() && self.running > 0 {
            return None;
        }
        Some((self.resources(ignore_stuck)?, exemption))
    }

    /// The backend has ended, and no other is to run in its place.
    pub fn give_back(&mut self, permit: Permit) {
        self.running -= 1;
        if let (Some(Token::Own), Some(jobserver)) = (permit.resources.token, &mut self.jobserver) {
            jobserver.own = true;
        }
    }

    /// Whether a permit may be used for another backend; otherwise it is to be given back first, since others
    /// wait, who come next.
    pub fn may_keep(&mut self, permit: &Permit) -> bool {
        let Some(machine) = &self.machine else {
            return true;
        };
        if permit.since.elapsed() < QUANTUM || machine.queue.is_empty() {
            return true;
        }
        self.not_before = Some(Instant::now() + 2 * POLL_INTERVAL);
        false
    }

    /// Takes a slot and a token, as far as they are in use; `None` if one of them is not free.
    fn resources(&mut self, ignore_stuck: bool) -> Option<Resources> {
        self.lacks = Resource::Slot;
        let slot = match &mut self.machine {
            Some(machine) => match machine.slots.try_take(ignore_stuck) {
                Ok(None) => {
                    if machine.place.is_none() {
                        machine.place = machine.queue.join();
                    }
                    return None;
                }
                Ok(Some(slot)) => {
                    machine.place = None;
                    Some(slot)
                }
                Err(e) => {
                    warn_of_no_sharing(&e);
                    self.machine = None;
                    None
                }
            },
            None => None,
        };
        self.lacks = Resource::Token;
        let token = match &mut self.jobserver {
            Some(jobserver) if jobserver.own => {
                jobserver.own = false;
                Some(Token::Own)
            }
            Some(jobserver) => match jobserver.tokens.try_take() {
                Ok(token) => Some(Token::Another(token?)),
                Err(e) => {
                    log::warn!("the jobserver is not usable: {e}");
                    self.jobserver = None;
                    None
                }
            },
            None => None,
        };
        Some(Resources { token, slot })
    }

    /// How long to wait before the next try.
    #[must_use]
    pub fn poll_interval(&self) -> Duration {
        let waited = self.waits_since.map_or(Duration::ZERO, |t| t.elapsed());
        (waited / 10).clamp(POLL_INTERVAL, LONGEST_POLL_INTERVAL)
    }

    /// Whether one more backend has room beside those that run and have not yet taken all that they will.
    fn has_memory(&mut self, lld: u32) -> bool {
        let now = Instant::now();
        let available = match self.available {
            Some((at, available)) if now - at < MEMORY_VALID_FOR => available,
            _ => {
                let bound = self
                    .bound
                    .as_mut()
                    .map(|(large, most)| turn::memory_left(*most, large));
                let Some(available) = memory::available().into_iter().chain(bound).min() else {
                    return true;
                };
                self.available = Some((now, available));
                available
            }
        };
        let expected = self.base + self.backend * self.running as u64;
        let wanted = self.backend + RESERVE;
        // What it has taken already is not available any more.
        expected + wanted <= available
            || expected.saturating_sub(resident(lld)) + wanted <= available
    }
}

/// Says once why this link does without locks.
fn warn_of_no_sharing(why: &io::Error) {
    static SAID: Once = Once::new();
    SAID.call_once(|| log::warn!("links of this machine cannot share its processors: {why}"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn short_of_memory(dir: &Path) -> Admission {
        let limits = Limits {
            jobs: 2,
            memory: None,
            dir: Some(dir.to_owned()),
        };
        let huge = Cost {
            peak: 1 << 60,
            base: 1 << 60,
            backend: 1 << 50,
        };
        Admission::new(&limits, 2, Some(huge))
    }

    /// A stopped process has the exemption for short memory: another takes its place.
    #[test]
    fn memory_is_not_waited_for_without_end() {
        let dir = tempfile::tempdir().unwrap();
        let mut admission = short_of_memory(dir.path());
        let mut others = Slots::new(dir.path(), "lone", 1);
        let own = std::process::id();
        let exemption = others.try_take(false).unwrap().unwrap();
        let mut stopped = slots::tests::stopped_process();
        exemption.used_by(stopped.id(), 0);
        assert!(admission.try_permit(own, own).is_none());
        std::thread::sleep(STUCK_COUNT_FOR + POLL_INTERVAL);
        assert!(admission.try_permit(own, own).is_some());
        stopped.kill().unwrap();
        stopped.wait().unwrap();
    }

    /// Where the exemption cannot be locked, one backend of the link runs.
    #[test]
    fn an_exemption_that_cannot_be_locked_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/nonexistent", dir.path().join("lone-0")).unwrap();
        let own = std::process::id();
        let mut admission = short_of_memory(dir.path());
        let permit = admission.try_permit(own, own).unwrap();
        assert!(admission.try_permit(own, own).is_none());
        assert_eq!(admission.lacks(), Resource::Memory);
        admission.give_back(permit);
        assert!(admission.try_permit(own, own).is_some());
    }
}
