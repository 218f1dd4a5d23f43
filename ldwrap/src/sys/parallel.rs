//! Work on a few threads: as many as are asked for, or fewer where the system gives no more.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::Builder;

/// Runs `work` on up to `threads` threads at once, the caller's among them, until all have ended.
pub fn run(threads: usize, work: impl Fn() + Sync) {
    std::thread::scope(|scope| {
        for _ in 1..threads {
            if let Err(e) = Builder::new().spawn_scoped(scope, &work) {
                log::info!("no more threads: {e}");
                break;
            }
        }
        work();
    });
}

/// Calls `f(position, element)` for each element on up to `threads` threads, the caller's among them. The
/// results are in the elements' order. Panics if `f` does.
pub fn map<T: Sync, R: Send>(
    threads: usize,
    items: &[T],
    f: impl Fn(usize, &T) -> R + Sync,
) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        loop {
            let i = next.fetch_add(1, Ordering::Relaxed);
            match items.get(i) {
                Some(item) => done.push((i, f(i, item))),
                None => return done,
            }
        }
    };
    let mut all: Vec<(usize, R)> = std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads.min(items.len()))
            .map_while(|_| Builder::new().spawn_scoped(scope, work).ok())
            .collect();
        let mut all = work();
        for thread in others {
            match thread.join() {
                Ok(done) => all.extend(done),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        all
    });
    all.sort_unstable_by_key(|(i, _)| *i);
    all.into_iter().map(|(_, r)| r).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn results_come_in_order() {
        let items: Vec<u32> = (0..1000).collect();
        let doubled = super::map(4, &items, |i, x| (i as u32, x * 2));
        assert!(
            doubled
                .iter()
                .enumerate()
                .all(|(i, d)| *d == (i as u32, i as u32 * 2))
        );
        assert_eq!(super::map(3, &[] as &[u8], |_, b| *b), Vec::<u8>::new());
    }
}
