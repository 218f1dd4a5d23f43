//! A large link's turn, before its lld is started.
//!
//! Links that share processors end no sooner for having begun together, and each takes memory from its
//! first moment on. So only as many large ones are at work as there are slots, and one more begins only
//! when what it is expected to take is free, beside what the others will still take, or when none is at
//! work. The next to begin holds a lock until it has begun: two cannot count on the same memory.

use super::slots::{Slot, Slots};
use super::{Before, LOOK, Limits, MadeOf, RESERVE, STOPPED, memory, taken};
use crate::sys::procfs::resident;
use std::path::Path;
use std::time::{Duration, Instant};

/// A link of less bitcode (bytes) waits for nothing.
const LARGE: u64 = 512 << 10;
/// What an lld takes that is not known: so many bytes, and so many times its bitcode.
const LLD: u64 = 96 << 20;
const PER_BITCODE: u64 = 16;
/// For others to end, a link waits at least so long, and otherwise so many times as long as its backends
/// are expected to take: after that it begins, since one of the others may be stuck.
const PATIENCE: Duration = Duration::from_secs(10);
const PATIENCE_FACTOR: u64 = 4;
/// How much bitcode a processor compiles in a second (bytes).
const SPEED: u64 = 100 << 10;

/// A large link at work, until it is dropped.
#[derive(Debug)]
pub struct Turn {
    slot: Option<Slot>,
    peak: u64,
    /// Held until lld has been started.
    gate: Option<Slot>,
}

impl Turn {
    /// Waits for the turn of a link with so much bitcode (bytes, as far as that was counted), of which this
    /// is known; returns at once for a small one, and for one that is as it was: its objects are cached.
    #[must_use]
    pub fn wait(limits: &Limits, bitcode: u64, before: Option<Before>, made_of: MadeOf) -> Self {
        let unknown = LLD + PER_BITCODE * bitcode;
        let peak = before.map_or(unknown, |before| before.cost.peak);
        let mut turn = Self {
            slot: None,
            peak,
            gate: None,
        };
        let as_it_was = before.is_some_and(|before| before.made_of == made_of);
        let dir = limits.dir.as_deref();
        let Some(dir) = dir.filter(|_| bitcode >= LARGE && !as_it_was) else {
            return turn;
        };
        let mut gate = Slots::new(dir, "gate", 1);
        let mut large = large(dir, limits.jobs);
        let begin = Instant::now();
        let patience = PATIENCE.max(Duration::from_secs(bitcode / SPEED * PATIENCE_FACTOR));
        loop {
            let patient = begin.elapsed() > STOPPED;
            if turn.gate.is_none() {
                turn.gate = taken(&mut gate, patient);
            }
            if turn.gate.is_some() {
                // Before one of them is ours.
                let others = large.users(patient);
                turn.slot = taken(&mut large, patient);
                let room = others.is_empty() || has_memory(limits, peak, &others);
                if room && (turn.slot.is_some() || begin.elapsed() > patience) {
                    return turn;
                }
                turn.slot = None;
            } else if begin.elapsed() > patience {
                return turn;
            }
            std::thread::sleep(LOOK);
        }
    }

    /// lld has been started.
    pub fn begun(&mut self, lld: u32) {
        if let Some(slot) = &self.slot {
            slot.used_by(lld, self.peak);
        }
        self.gate = None;
    }
}

/// The places of large links that are at work.
pub(super) fn large(dir: &Path, jobs: usize) -> Slots {
    Slots::new(dir, "large", jobs)
}

/// What large links have left of so much memory (bytes).
pub(super) fn left(most: u64, large: &mut Slots) -> u64 {
    let users = large.users(true).into_iter();
    most.saturating_sub(users.map(|(pid, _)| resident(pid)).sum())
}

/// Whether so much memory is free beside what others will still take.
fn has_memory(limits: &Limits, peak: u64, others: &[(u32, u64)]) -> bool {
    let to_come = others
        .iter()
        .map(|&(pid, peak)| peak.saturating_sub(resident(pid)))
        .sum::<u64>();
    let fits = |available: u64| peak + to_come + RESERVE <= available;
    let taken = || others.iter().map(|&(pid, _)| resident(pid)).sum::<u64>();
    memory::available().is_none_or(fits)
        && limits
            .memory
            .is_none_or(|limit| fits(limit.saturating_sub(taken())))
}
