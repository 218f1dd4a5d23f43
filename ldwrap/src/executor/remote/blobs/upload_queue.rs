//! Lets one job at a time begin its uploads, by priority.

use crate::sys::sync::lock;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::oneshot;

/// Hands a single permit from one job to the next, lowest priority number first.
#[derive(Debug, Default)]
pub(super) struct UploadQueue(Mutex<QueueState>);

#[derive(Debug, Default)]
struct QueueState {
    permit_taken: bool,
    /// By priority; first come, first served within one.
    waiting: BTreeMap<(usize, u64), oneshot::Sender<UploadPermit>>,
    arrivals: u64,
}

/// The right to begin uploads. Dropping it passes it on.
#[derive(Debug)]
pub(super) struct UploadPermit(Arc<UploadQueue>);

impl UploadQueue {
    /// Enters the queue at once, also before the returned future, which waits for the permit, is polled.
    pub(super) fn enter(
        self: &Arc<Self>,
        priority: usize,
    ) -> impl Future<Output = Option<UploadPermit>> + use<> {
        let (give, get) = oneshot::channel();
        let mut state = self.lock();
        state.arrivals += 1;
        let arrival = state.arrivals;
        state.waiting.insert((priority, arrival), give);
        let free = !std::mem::replace(&mut state.permit_taken, true);
        drop(state);
        if free {
            drop(UploadPermit(self.clone()));
        }
        async { get.await.ok() }
    }

    fn lock(&self) -> MutexGuard<'_, QueueState> {
        lock(&self.0)
    }
}

impl Drop for UploadPermit {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        // Skip jobs that were cancelled.
        state.waiting.retain(|_, give| !give.is_closed());
        let Some((_, give)) = state.waiting.pop_first() else {
            state.permit_taken = false;
            return;
        };
        drop(state);
        // If the job is cancelled just now, the permit is dropped with the channel, and so passed on.
        let _ = give.send(Self(self.0.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_priority_is_next_and_the_permit_is_never_lost() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(async {
            let queue = Arc::new(UploadQueue::default());
            let first = queue.enter(7).await.unwrap();
            let (third, second, cancelled) = (queue.enter(5), queue.enter(3), queue.enter(1));
            drop(cancelled);
            let order = Mutex::new(Vec::new());
            let note = async |name, permit: Option<UploadPermit>| {
                order.lock().unwrap().push(name);
                drop(permit);
            };
            drop(first);
            // Cancelled while it waits behind one that has the permit but was not polled since.
            drop(queue.enter(4));
            tokio::join!(async { note("third", third.await).await }, async {
                note("second", second.await).await;
            });
            assert_eq!(*order.lock().unwrap(), ["second", "third"]);
            assert!(queue.enter(9).await.is_some());
            assert!(!queue.lock().permit_taken);
        });
    }
}
