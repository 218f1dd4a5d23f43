//! In which order jobs that are all needed are best begun.
//!
//! On this machine: the largest first, which keeps the tail short (docs/lld.md, "Starting processes"). Behind a line it costs
//! time until inputs are there and until the first objects come back, and a module that is sent for one
//! job, its own or one that imports from it, is there for all others. With the largest first, the line
//! carries nothing but inputs until the longest jobs are done, and most inputs before half of the jobs
//! can begin. So there, as long as workers are free, those that need least go first, two bytes for one
//! of the largest. Once workers are what is short, the largest are what counts again.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};

/// One of the two.
#[derive(Debug, Clone, Copy)]
pub enum Order<'e> {
    /// The largest first.
    LargestFirst,
    /// Those that need least too, unless this says that all workers are busy.
    Mixed(&'e AtomicBool),
}

/// Of bytes to be sent, one part in so many is for the largest jobs.
const LARGEST: i128 = 3;
/// The smallest jobs, one part in so many of all bytes, are left for the tail.
const TAIL: u64 = 30;

impl<'e> Order<'e> {
    /// These jobs in that order. `weight` is a module's size, `needs` the modules that a job reads, its
    /// own among them.
    pub fn of(
        self,
        mut jobs: Vec<usize>,
        weight: impl Fn(usize) -> u64,
        needs: impl Fn(usize) -> Vec<usize>,
    ) -> Box<dyn Iterator<Item = usize> + Send + 'e> {
        jobs.sort_by_key(|&job| Reverse(weight(job)));
        match self {
            Self::LargestFirst => Box::new(jobs.into_iter()),
            Self::Mixed(full) => {
                let all: u64 = jobs.iter().map(|&job| weight(job)).sum();
                let mut size = 0;
                let in_tail = |job: &&usize| {
                    size += weight(**job);
                    size <= all / TAIL
                };
                let in_tail = jobs.iter().rev().take_while(in_tail).count();
                let tail = jobs.split_off(jobs.len() - in_tail);
                let mixed = Mixed::new(full, &jobs, weight, needs);
                Box::new(mixed.chain(tail))
            }
        }
    }
}

/// A job that is not begun.
struct Waiting {
    /// Modules and their sizes.
    needs: Vec<(usize, u64)>,
    weight: u64,
    /// Bytes of what it needs and nobody has sent.
    cost: u64,
}

impl Waiting {
    /// What needs least is first; before all others those that need hardly more than to be sent
    /// themselves.
    fn rank(&self) -> (bool, u64) {
        (self.cost / 6 > self.weight / 5, self.cost)
    }
}

/// All but the tail.
struct Mixed<'e> {
    full: &'e AtomicBool,
    /// The smallest first; with jobs that are begun.
    largest: Vec<usize>,
    /// A job whose rank has changed is in here once more.
    cheapest: BinaryHeap<Reverse<((bool, u64), usize)>>,
    waiting: HashMap<usize, Waiting>,
    /// The jobs that need a module which nobody has sent.
    readers: HashMap<usize, Vec<usize>>,
    /// What the largest have cost beyond their share.
    ahead: i128,
}

impl<'e> Mixed<'e> {
    fn new(
        full: &'e AtomicBool,
        largest_first: &[usize],
        weight: impl Fn(usize) -> u64,
        needs: impl Fn(usize) -> Vec<usize>,
    ) -> Self {
        let mut mixed = Self {
            full,
            largest: largest_first.iter().rev().copied().collect(),
            cheapest: BinaryHeap::new(),
            waiting: HashMap::new(),
            readers: HashMap::new(),
            ahead: 0,
        };
        for &job in largest_first {
            let mut needs = needs(job);
            needs.sort_unstable();
            needs.dedup();
            for &module in &needs {
                mixed.readers.entry(module).or_default().push(job);
            }
            let needs: Vec<_> = needs.into_iter().map(|n| (n, weight(n))).collect();
            let entry = Waiting {
                weight: weight(job),
                cost: needs.iter().map(|(_, size)| size).sum(),
                needs,
            };
            mixed.cheapest.push(Reverse((entry.rank(), job)));
            mixed.waiting.insert(job, entry);
        }
        mixed
    }

    fn next_largest(&mut self) -> Option<usize> {
        loop {
            let job = self.largest.pop()?;
            if self.waiting.contains_key(&job) {
                return Some(job);
            }
        }
    }

    fn next_cheapest(&mut self) -> Option<usize> {
        loop {
            let Reverse((rank, job)) = self.cheapest.pop()?;
            if self.waiting.get(&job).is_some_and(|w| w.rank() == rank) {
                return Some(job);
            }
        }
    }
}

impl Iterator for Mixed<'_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let full = self.full.load(Ordering::Relaxed);
        let of_largest = full || self.ahead <= 0;
        let job = if of_largest {
            self.next_largest()
        } else {
            self.next_cheapest()
        }?;
        let taken = self.waiting.remove(&job)?;
        let cost = i128::from(taken.cost) + 1;
        match (full, of_largest) {
            (true, _) => {}
            (_, true) => self.ahead += cost * (LARGEST - 1),
            (_, false) => self.ahead -= cost,
        }
        for (module, size) in taken.needs {
            for reader in self.readers.remove(&module).unwrap_or_default() {
                if let Some(entry) = self.waiting.get_mut(&reader) {
                    entry.cost = entry.cost.saturating_sub(size);
                    self.cheapest.push(Reverse((entry.rank(), reader)));
                }
            }
        }
        Some(job)
    }
}

#[cfg(test)]
mod tests {
    use super::Order;
    use std::sync::atomic::{AtomicBool, Ordering};

    static FREE: AtomicBool = AtomicBool::new(false);

    fn mixed(
        jobs: impl Iterator<Item = usize>,
        weight: impl Fn(usize) -> u64,
        needs: impl Fn(usize) -> Vec<usize>,
    ) -> Vec<usize> {
        Order::Mixed(&FREE)
            .of(jobs.collect(), weight, needs)
            .collect()
    }

    #[test]
    fn an_order_has_all_jobs_once() {
        let weight = |n: usize| n as u64 * 37 % 101 * 1000;
        // Some need one twice, some one that is no job.
        let needs = |n: usize| vec![n, (n * 7) % 90, (n * 7) % 90, n + 50];
        for order in [Order::LargestFirst, Order::Mixed(&FREE)] {
            let mut given: Vec<_> = order.of((0..100).collect(), weight, needs).collect();
            given.sort_unstable();
            assert_eq!(given, (0..100).collect::<Vec<_>>());
        }
        assert!(mixed(0..0, |_| 1, |_| vec![]).is_empty());
        assert_eq!(mixed(5..7, |_| 0, |n| vec![n]).len(), 2);
        assert_eq!(mixed(5..7, |_| u64::MAX / 4, |n| vec![n]).len(), 2);
    }

    #[test]
    fn large_and_small_in_turn_and_the_smallest_last() {
        let given = mixed(1..=20, |n| n as u64, |n| vec![n]);
        let expected = [20, 4, 5, 6, 7, 8, 9, 19, 10, 11, 12, 13, 18, 14];
        assert_eq!(given[..14], expected);
        assert_eq!(given[17..], [3, 2, 1]);
    }

    #[test]
    fn who_needs_what_is_there_is_next() {
        // The largest imports from 3, which then costs nothing; 2 is smaller than all.
        let weight = |n: usize| [100, 90, 30, 50, 1][n];
        let needs = |n: usize| match n {
            0 => vec![0, 3],
            1 => vec![1, 2],
            _ => vec![n],
        };
        let given = mixed(0..5, weight, needs);
        assert_eq!(given, [0, 3, 2, 1, 4]);
    }

    #[test]
    fn the_largest_are_next_when_all_workers_are_busy() {
        let full = AtomicBool::new(false);
        let mut given = Order::Mixed(&full).of((1..=20).collect(), |n| n as u64, |n| vec![n]);
        assert_eq!([given.next(), given.next()], [Some(20), Some(4)]);
        full.store(true, Ordering::Relaxed);
        assert_eq!([given.next(), given.next()], [Some(19), Some(18)]);
        full.store(false, Ordering::Relaxed);
        assert_eq!([given.next(), given.next()], [Some(5), Some(6)]);
    }
}
