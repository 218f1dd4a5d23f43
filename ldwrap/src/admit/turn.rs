//! A large link's turn, before its lld is started.
//!
//! Links that share processors end no sooner for having begun together, and each takes memory from its
//! first moment on. So only as many large ones are at work as there are slots, and one more begins only
//! when what it is expected to take is free, beside what the others will still take, or when none is at
//! work. The next to begin holds a lock until it has begun: two cannot count on the same memory.

use super::slots::{Slot, Slots};
use super::{
    Fingerprint, Limits, LinkRecord, POLL_INTERVAL, RESERVE, STOPPED_COUNT_FOR, memory, try_take,
};
use crate::sys::procfs::resident;
use std::path::Path;
use std::time::{Duration, Instant};

/// A link of less bitcode (bytes) does not wait for its turn.
const LARGE: u64 = 512 << 10;
/// What lld takes for a link that is not known: so many bytes, and so many times its bitcode.
const UNKNOWN_BASE: u64 = 96 << 20;
const UNKNOWN_PER_BITCODE: u64 = 16;
/// A link waits for others to end at least so long, and up to so many times as long as its backends are
/// expected to take. Then it begins, since one of the others may be stuck.
const PATIENCE: Duration = Duration::from_secs(10);
const PATIENCE_FACTOR: u64 = 4;
/// How much bitcode a processor compiles in a second (bytes).
const BITCODE_PER_SECOND: u64 = 100 << 10;

/// A large link at work, until it is dropped.
#[derive(Debug)]
pub struct Turn {
    slot: Option<Slot>,
    peak: u64,
    /// Held until lld has been started.
    gate: Option<Slot>,
}

impl Turn {
    /// Waits for the turn of a link with so much bitcode (bytes, as far as that was counted). Returns at once
    /// for a small link, and for one whose fingerprint is that of `before`: its objects are cached. Calls `waits` again
    /// and again while it waits.
    #[must_use]
    pub fn wait(
        limits: &Limits,
        bitcode: u64,
        before: Option<LinkRecord>,
        fingerprint: Fingerprint,
        mut waits: impl FnMut(),
    ) -> Self {
        let unknown = UNKNOWN_BASE + UNKNOWN_PER_BITCODE * bitcode;
        let peak = before.map_or(unknown, |before| before.cost.peak);
        let mut turn = Self {
            slot: None,
            peak,
            gate: None,
        };
        let unchanged = before.is_some_and(|before| before.fingerprint == fingerprint);
        let dir = limits.dir.as_deref();
        let Some(dir) = dir.filter(|_| bitcode >= LARGE && !unchanged) else {
            return turn;
        };
        let mut gate = Slots::new(dir, "gate", 1);
        let mut large = large_links(dir, limits.jobs);
        let begin = Instant::now();
        let patience = PATIENCE.max(Duration::from_secs(
            bitcode / BITCODE_PER_SECOND * PATIENCE_FACTOR,
        ));
        loop {
            let ignore_stopped = begin.elapsed() > STOPPED_COUNT_FOR;
            if turn.gate.is_none() {
                turn.gate = try_take(&mut gate, ignore_stopped);
            }
            if turn.gate.is_some() {
                // Before one of them is ours.
                let others = large.users(ignore_stopped);
                turn.slot = try_take(&mut large, ignore_stopped);
                let room = others.is_empty() || has_memory(limits, peak, &others);
                if room && (turn.slot.is_some() || begin.elapsed() > patience) {
                    return turn;
                }
                turn.slot = None;
            } else if begin.elapsed() > patience {
                return turn;
            }
            waits();
            std::thread::sleep(POLL_INTERVAL);
        }
    }

    /// lld has been started, with this process number: the next link may begin.
    pub fn lld_started(&mut self, lld: u32) {
        if let Some(slot) = &self.slot {
            slot.used_by(lld, self.peak);
        }
        self.gate = None;
    }
}

/// The slots of large links that are at work.
pub(super) fn large_links(dir: &Path, jobs: usize) -> Slots {
    Slots::new(dir, "large", jobs)
}

/// What large links have left of the memory that they may take together (bytes).
pub(super) fn memory_left(limit: u64, large: &mut Slots) -> u64 {
    let users = large.users(true).into_iter();
    limit.saturating_sub(users.map(|(pid, _)| resident(pid)).sum())
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
