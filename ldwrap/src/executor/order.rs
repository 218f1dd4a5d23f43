//! The order in which a server is given jobs that are all needed.
//!
//! Workers can begin only when inputs have been uploaded, and a module that is uploaded for one job, its own
//! or one that imports from it, is there for all others. Largest first, which keeps the end short where
//! inputs are at hand, would have the line carry nothing but inputs until the longest jobs are done, and
//! most inputs before half of the jobs can begin. So while workers are free, most bytes go to the jobs that need
//! fewest, and the rest to the largest. Once all workers are busy, the largest are next.

use super::tuning::{CHEAP_RATIO, LARGEST_SHARE, TAIL_PART};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Iterates over the numbers of jobs, each once, in the order that suits the server at that moment.
pub(crate) struct JobOrder {
    workers_busy: Arc<AtomicBool>,
    /// All but the tail, smallest first; begun jobs are skipped.
    by_size: Vec<usize>,
    /// All but the tail, cheapest first. A job is in here once for each cost that it has had; only the entry
    /// with its present one counts.
    by_cost: BinaryHeap<Reverse<(CostRank, usize)>>,
    pending: HashMap<usize, PendingJob>,
    /// The jobs that read a module which no begun job reads.
    readers: HashMap<usize, Vec<usize>>,
    /// Bytes that the largest jobs have taken beyond their share, in thirds ([`LARGEST_SHARE`]).
    largest_ahead: i128,
    /// The smallest jobs, largest first.
    tail: std::vec::IntoIter<usize>,
}

/// Whether a job is not cheap ([`CHEAP_RATIO`]), and its cost.
type CostRank = (bool, u64);

/// A job that is not begun.
struct PendingJob {
    /// The modules that it reads and their sizes in bytes.
    reads: Vec<(usize, u64)>,
    /// Size of its own module in bytes.
    size: u64,
    /// Bytes of the modules that it reads and no begun job does.
    cost: u64,
}

impl PendingJob {
    fn rank(&self) -> CostRank {
        let (cost, size) = CHEAP_RATIO;
        (self.cost / cost > self.size / size, self.cost)
    }
}

impl JobOrder {
    /// For the jobs of these numbers. `size` is the size of a module in bytes, `reads` the modules that a
    /// job reads, its own among them. `workers_busy` is looked at for each job.
    pub(crate) fn new(
        workers_busy: Arc<AtomicBool>,
        mut jobs: Vec<usize>,
        size: impl Fn(usize) -> u64,
        reads: impl Fn(usize) -> Vec<usize>,
    ) -> Self {
        jobs.sort_by_key(|&job| Reverse(size(job)));
        let total: u64 = jobs.iter().map(|&job| size(job)).sum();
        let mut so_far = 0;
        let in_tail = |job: &&usize| {
            so_far += size(**job);
            so_far <= total / TAIL_PART
        };
        let in_tail = jobs.iter().rev().take_while(in_tail).count();
        let tail = jobs.split_off(jobs.len() - in_tail);
        let mut order = Self {
            workers_busy,
            by_size: jobs.iter().rev().copied().collect(),
            by_cost: BinaryHeap::new(),
            pending: HashMap::new(),
            readers: HashMap::new(),
            largest_ahead: 0,
            tail: tail.into_iter(),
        };
        for job in jobs {
            let mut modules = reads(job);
            modules.sort_unstable();
            modules.dedup();
            for &module in &modules {
                order.readers.entry(module).or_default().push(job);
            }
            let reads: Vec<_> = modules.into_iter().map(|m| (m, size(m))).collect();
            let pending = PendingJob {
                size: size(job),
                cost: reads.iter().map(|(_, size)| size).sum(),
                reads,
            };
            order.by_cost.push(Reverse((pending.rank(), job)));
            order.pending.insert(job, pending);
        }
        order
    }

    fn pop_largest(&mut self) -> Option<usize> {
        loop {
            let job = self.by_size.pop()?;
            if self.pending.contains_key(&job) {
                return Some(job);
            }
        }
    }

    fn pop_cheapest(&mut self) -> Option<usize> {
        loop {
            let Reverse((rank, job)) = self.by_cost.pop()?;
            if self.pending.get(&job).is_some_and(|p| p.rank() == rank) {
                return Some(job);
            }
        }
    }

    fn next_before_tail(&mut self) -> Option<usize> {
        let workers_busy = self.workers_busy.load(Ordering::Relaxed);
        let largest = workers_busy || self.largest_ahead <= 0;
        let job = if largest {
            self.pop_largest()
        } else {
            self.pop_cheapest()
        }?;
        let begun = self.pending.remove(&job)?;
        if !workers_busy {
            let cost = i128::from(begun.cost) + 1;
            self.largest_ahead += if largest {
                cost * (LARGEST_SHARE - 1)
            } else {
                -cost
            };
        }
        for (module, size) in begun.reads {
            for reader in self.readers.remove(&module).unwrap_or_default() {
                if let Some(pending) = self.pending.get_mut(&reader) {
                    pending.cost = pending.cost.saturating_sub(size);
                    self.by_cost.push(Reverse((pending.rank(), reader)));
                }
            }
        }
        Some(job)
    }
}

impl Iterator for JobOrder {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        self.next_before_tail().or_else(|| self.tail.next())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(
        jobs: impl Iterator<Item = usize>,
        size: impl Fn(usize) -> u64,
        reads: impl Fn(usize) -> Vec<usize>,
    ) -> Vec<usize> {
        JobOrder::new(Arc::default(), jobs.collect(), size, reads).collect()
    }

    #[test]
    fn each_job_comes_once() {
        let size = |n: usize| n as u64 * 37 % 101 * 1000;
        // Some read a module twice, some one that has no job.
        let reads = |n: usize| vec![n, (n * 7) % 90, (n * 7) % 90, n + 50];
        let mut all = order(0..100, size, reads);
        all.sort_unstable();
        assert_eq!(all, (0..100).collect::<Vec<_>>());
        assert!(order(0..0, |_| 1, |_| vec![]).is_empty());
        assert_eq!(order(5..7, |_| 0, |n| vec![n]).len(), 2);
        assert_eq!(order(5..7, |_| u64::MAX / 4, |n| vec![n]).len(), 2);
    }

    #[test]
    fn large_and_cheap_alternate_and_the_smallest_are_last() {
        let all = order(1..=20, |n| n as u64, |n| vec![n]);
        let expected = [20, 4, 5, 6, 7, 8, 9, 19, 10, 11, 12, 13, 18, 14];
        assert_eq!(all[..14], expected);
        assert_eq!(all[17..], [3, 2, 1]);
    }

    #[test]
    fn a_job_whose_inputs_are_uploaded_is_next() {
        // The largest imports from 3, which then costs nothing; 2 is smaller than all.
        let size = |n: usize| [100, 90, 30, 50, 1][n];
        let reads = |n: usize| match n {
            0 => vec![0, 3],
            1 => vec![1, 2],
            _ => vec![n],
        };
        assert_eq!(order(0..5, size, reads), [0, 3, 2, 1, 4]);
    }

    #[test]
    fn the_largest_are_next_while_all_workers_are_busy() {
        let busy = Arc::new(AtomicBool::new(false));
        let mut order = JobOrder::new(busy.clone(), (1..=20).collect(), |n| n as u64, |n| vec![n]);
        assert_eq!([order.next(), order.next()], [Some(20), Some(4)]);
        busy.store(true, Ordering::Relaxed);
        assert_eq!([order.next(), order.next()], [Some(19), Some(18)]);
        busy.store(false, Ordering::Relaxed);
        assert_eq!([order.next(), order.next()], [Some(5), Some(6)]);
    }
}
