//! The tasks of a board by remote state.

use super::task::{RemoteState, TaskEntry, TaskId};
use std::collections::BTreeSet;
use std::time::Instant;

/// Tasks of one state: oldest first if the state has a beginning, else in the order of their ids.
pub(super) type TaskQueue = BTreeSet<(Option<Instant>, TaskId)>;

/// Unclaimed tasks indexed by remote state, so that picking one is O(log n).
///
/// A task is unclaimed while no core of this machine compiles it. Thousands of tasks may be on a board, and
/// hundreds end each second.
#[derive(Debug, Default)]
pub(super) struct RemoteQueues {
    pub(super) new: TaskQueue,
    pub(super) looking_up: TaskQueue,
    pub(super) queued: TaskQueue,
    pub(super) dispatched: TaskQueue,
    pub(super) executing: TaskQueue,
    pub(super) failed: TaskQueue,
    /// Sum of [`super::Task::weight`] over `new`, `looking_up` and `queued`.
    pub(super) undispatched_weight: usize,
}

impl RemoteQueues {
    /// Adds a task under its present state, unless a core of this machine has claimed it.
    pub(super) fn insert(&mut self, id: TaskId, entry: &TaskEntry) {
        if !entry.local {
            let (queue, since) = self.queue_of(entry.remote);
            queue.insert((since, id));
            if entry.remote.is_undispatched() {
                self.undispatched_weight += entry.task.weight();
            }
        }
    }

    /// Removes a task; to be called before its state changes.
    pub(super) fn remove(&mut self, id: TaskId, entry: &TaskEntry) {
        let (queue, since) = self.queue_of(entry.remote);
        if queue.remove(&(since, id)) && entry.remote.is_undispatched() {
            self.undispatched_weight -= entry.task.weight();
        }
    }

    fn queue_of(&mut self, state: RemoteState) -> (&mut TaskQueue, Option<Instant>) {
        match state {
            RemoteState::New => (&mut self.new, None),
            RemoteState::LookingUp(since) => (&mut self.looking_up, Some(since)),
            RemoteState::Queued => (&mut self.queued, None),
            RemoteState::Dispatched(since) => (&mut self.dispatched, Some(since)),
            RemoteState::Executing(since) => (&mut self.executing, Some(since)),
            RemoteState::Failed => (&mut self.failed, None),
        }
    }
}
