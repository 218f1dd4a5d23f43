//! What a board knows, without its locks.

use super::queues::RemoteQueues;
use super::task::{RemoteState, Task, TaskEntry, TaskId};
use crate::executor::tuning::FULL_WEIGHT;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

/// How many tasks may be on a board.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Capacity {
    /// Tasks in all.
    pub(crate) tasks: usize,
    /// Weight of those that are not dispatched yet (see [`weight_of`]). Small: what best begins next is to
    /// be decided late.
    pub(crate) undispatched_weight: usize,
}

/// The weight of this many tasks whose modules are not small.
pub(crate) fn weight_of(tasks: usize) -> usize {
    tasks * FULL_WEIGHT
}

#[derive(Debug, Default)]
pub(super) struct BoardState {
    pub(super) tasks: HashMap<TaskId, TaskEntry>,
    /// The tasks of jobs, by job number.
    pub(super) ids: HashMap<usize, TaskId>,
    /// Numbers of jobs that lld's threads began to compile before their tasks were added.
    pub(super) started_early: HashSet<usize>,
    /// Numbers of jobs that are done.
    pub(super) done: HashSet<usize>,
    pub(super) queues: RemoteQueues,
    pub(super) next_id: TaskId,
    /// No more tasks will be added.
    pub(super) closed: bool,
    /// The server is not used any more.
    pub(super) remote_abandoned: bool,
    pub(super) stopped: bool,
    pub(super) capacity: Capacity,
    /// Cores of this machine do only what failed on the server.
    pub(super) fallback_only: bool,
    /// The server has a cache and does not execute: what the cache lacks is left to this machine.
    pub(super) cache_only: bool,
    /// Cores of this machine are clang processes, which need inputs; else lld's threads.
    pub(super) clang_compiles: bool,
    /// How long executions took, in ascending order.
    pub(super) durations: Vec<Duration>,
    /// Lookups that the server's action cache missed.
    pub(super) misses: usize,
    /// Objects that came from the server.
    pub(super) received: usize,
}

impl BoardState {
    /// Whether adding a task has to wait. A task without its inputs needs no room, and must not take any:
    /// lld's threads may be waiting for others, which are not on the board yet.
    pub(super) fn is_full(&self) -> bool {
        let without_inputs = match self.clang_compiles {
            true => 0,
            false => self.queues.failed.len(),
        };
        !self.remote_abandoned
            && (self.tasks.len() - without_inputs >= self.capacity.tasks
                || self.queues.undispatched_weight >= self.capacity.undispatched_weight)
    }

    /// Whether all is done and no more will come.
    pub(super) fn finished(&self) -> bool {
        self.stopped || (self.closed && self.tasks.is_empty())
    }

    /// The median duration of executions, once one has ended.
    pub(super) fn median_duration(&self) -> Option<Duration> {
        self.durations.get(self.durations.len() / 2).copied()
    }

    pub(super) fn insert(&mut self, id: TaskId, entry: TaskEntry) {
        self.queues.insert(id, &entry);
        self.ids.insert(entry.task.job.number, id);
        self.tasks.insert(id, entry);
    }

    pub(super) fn remove(&mut self, id: TaskId) -> Option<TaskEntry> {
        let entry = self.tasks.remove(&id)?;
        self.queues.remove(id, &entry);
        self.ids.remove(&entry.task.job.number);
        Some(entry)
    }

    /// Takes a task off the board as done: everyone else may stop working on it. `None` if it was off already.
    pub(super) fn finish(&mut self, id: TaskId) -> Option<Arc<Task>> {
        let entry = self.remove(id)?;
        self.done.insert(entry.task.job.number);
        if let RemoteState::Executing(since) = entry.remote {
            if !entry.local {
                let took = since.elapsed();
                let at = self.durations.partition_point(|shorter| *shorter < took);
                self.durations.insert(at, took);
            }
        }
        entry.task.remote_cancelled.notify_waiters();
        Some(entry.task)
    }

    /// The server is not tried again for a task. Where only lld's threads compile here, nobody needs its inputs
    /// any more.
    pub(super) fn leave_to_this_machine(&mut self, id: TaskId) {
        let lld_compiles = !self.clang_compiles;
        self.update(id, |entry| {
            entry.remote = RemoteState::Failed;
            if lld_compiles {
                entry.task = Arc::new(entry.task.without_inputs());
            }
        });
    }

    /// Changes a task, if it is still on the board, and keeps the queues in step.
    pub(super) fn update(&mut self, id: TaskId, change: impl FnOnce(&mut TaskEntry)) {
        if let Some(entry) = self.tasks.get_mut(&id) {
            self.queues.remove(id, entry);
            change(entry);
            self.queues.insert(id, entry);
        }
    }
}
