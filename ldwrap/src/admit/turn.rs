//! A large link's turn, before its lld is started.
//!
//! Links that share processors end no sooner for having begun together, and each takes memory from its
//! first moment on. So only as many large ones are at work as there are slots, and one more begins only
//! when what it is expected to take is free, beside what the others will still take, or when none is at
//! work. The next to begin holds a lock until it has begun: two cannot count on the same memory.

use super::slots::{Slot, Slots};
use super::{
    Fingerprint, Limits, LinkRecord, POLL_INTERVAL, RESERVE, STUCK_COUNT_FOR, memory,
    warn_of_no_sharing,
};
use crate::sys::procfs::resident;
use std::io;
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
    /// for a small link, for one whose fingerprint is that of `before` (its objects are cached), and where there can be
    /// no locks. Calls `goes_on` again and again while it waits, and waits no longer when that is not so.
    #[must_use]
    pub fn wait(
        limits: &Limits,
        bitcode: u64,
        before: Option<LinkRecord>,
        fingerprint: Fingerprint,
        goes_on: impl FnMut() -> bool,
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
        let patience = PATIENCE.max(Duration::from_secs(
            bitcode / BITCODE_PER_SECOND * PATIENCE_FACTOR,
        ));
        if let Err(e) = turn.wait_for_others(dir, limits, patience, goes_on) {
            warn_of_no_sharing(&e);
        }
        turn
    }

    /// Waits for a slot and for memory, where locks are in `dir`.
    fn wait_for_others(
        &mut self,
        dir: &Path,
        limits: &Limits,
        patience: Duration,
        mut goes_on: impl FnMut() -> bool,
    ) -> io::Result<()> {
        let mut gate = Slots::new(dir, "gate", 1);
        let mut large = large_links(dir, limits.jobs);
        let begin = Instant::now();
        loop {
            let ignore_stuck = begin.elapsed() > STUCK_COUNT_FOR;
            if self.gate.is_none() {
                self.gate = gate.try_take(ignore_stuck)?;
            }
            if self.gate.is_some() {
                // Before one of them is ours.
                let others = large.users(ignore_stuck);
                self.slot = large.try_take(ignore_stuck)?;
                let room = others.is_empty() || has_memory(limits, self.peak, &others);
                if room && (self.slot.is_some() || begin.elapsed() > patience) {
                    return Ok(());
                }
                self.slot = None;
            } else if begin.elapsed() > patience {
                return Ok(());
            }
            if !goes_on() {
                return Ok(());
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(dir: &Path, goes_on: impl FnMut() -> bool) -> Turn {
        let limits = Limits {
            jobs: 1,
            memory: None,
            dir: Some(dir.to_owned()),
        };
        let fingerprint = Fingerprint::new(&[], std::iter::empty());
        Turn::wait(&limits, LARGE, None, fingerprint, goes_on)
    }

    #[test]
    fn locks_that_fail_are_not_waited_for() {
        for name in ["gate-0", "large-0"] {
            let dir = tempfile::tempdir().unwrap();
            std::os::unix::fs::symlink("/nonexistent", dir.path().join(name)).unwrap();
            let turn = wait(dir.path(), || panic!("waits for {name}"));
            assert!(turn.slot.is_none());
        }
    }

    #[test]
    fn a_signal_ends_the_wait() {
        let dir = tempfile::tempdir().unwrap();
        let _others = large_links(dir.path(), 1).try_take(false).unwrap().unwrap();
        let mut asked = 0;
        let begin = Instant::now();
        let turn = wait(dir.path(), || {
            asked += 1;
            asked < 3
        });
        assert!(turn.slot.is_none() && begin.elapsed() < PATIENCE);
    }
}
