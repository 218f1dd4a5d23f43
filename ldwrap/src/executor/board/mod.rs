//! Which side compiles what, when a job can run here and on a server.
//!
//! A task is on the board from the moment its object is known not to be in the local cache until it is
//! done. First the server's action cache is asked for it; if that misses, it is queued, or, where the server
//! does not execute, left to this machine. Remote slots take the first of the queue; what a free core of
//! this machine takes is in `policy.rs`.
//!
//! A core of this machine is a thread of lld's, which can compile only modules whose lookups it has made
//! and cannot be stopped once it has begun ([`Board::choose_lookup`]). With an lld whose lookups are told
//! apart only while it has a single thread, it is a clang process ([`Board::take_local`]).

mod policy;
mod queues;
mod state;
mod task;
#[cfg(test)]
mod tests;

pub(crate) use state::{Capacity, weight_of};
pub(crate) use task::{Task, TaskId};

use super::WaitingLookup;
use super::tuning::STRAGGLER_POLL;
use crate::sys::sync::{ignore_poison, lock};
use queues::TaskQueue;
use state::BoardState;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Instant;
use task::{RemoteState, TaskEntry};
use tokio::sync::Notify;

/// The tasks of a link, shared by the threads that add them and both sides that do them.
#[derive(Debug, Default)]
pub(crate) struct Board {
    state: Mutex<BoardState>,
    /// Notified when there may be capacity for a task.
    has_capacity: Condvar,
    /// Notified when there may be something for a clang process here.
    has_local_work: Condvar,
    /// Notified when there may be something for a remote slot.
    pub(crate) has_remote_work: Notify,
}

/// What the remote side is to do with a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RemoteStep {
    /// Ask the server's action cache.
    LookUp,
    /// Have it executed.
    Execute,
}

impl Board {
    /// An empty board. With `fallback_only`, cores of this machine do only what failed on the server; with
    /// `clang_compiles` they are clang processes, else lld's threads.
    pub(crate) fn new(fallback_only: bool, clang_compiles: bool, capacity: Capacity) -> Self {
        let board = Self::default();
        let mut state = board.lock();
        (state.fallback_only, state.capacity) = (fallback_only, capacity);
        state.clang_compiles = clang_compiles;
        drop(state);
        board
    }

    /// The server has a cache and does not execute: what the cache lacks is left to this machine.
    pub(crate) fn expect_no_execution(&self) {
        self.lock().cache_only = true;
    }

    fn lock(&self) -> MutexGuard<'_, BoardState> {
        lock(&self.state)
    }

    /// Unlocks the state and wakes those who may have something to do after its change.
    fn unlock_and_notify(&self, state: MutexGuard<'_, BoardState>) {
        let capacity = state.stopped || !state.is_full();
        let local = state.finished() || !state.fallback_only || !state.queues.failed.is_empty();
        drop(state);
        if capacity {
            self.has_capacity.notify_all();
        }
        if local {
            self.has_local_work.notify_all();
        }
        self.has_remote_work.notify_one();
    }

    /// Adds a task, once there is capacity; gives it back if lld has the job's object by then.
    pub(crate) fn add(&self, task: Task) -> Option<Task> {
        let full = |state: &mut BoardState| !state.stopped && state.is_full();
        let mut state = ignore_poison(self.has_capacity.wait_while(self.lock(), full));
        let id = state.next_id;
        state.next_id += 1;
        if state.done.contains(&task.job.number) {
            return Some(task);
        }
        let remote = if state.remote_abandoned {
            RemoteState::Failed
        } else {
            RemoteState::New
        };
        let entry = TaskEntry {
            local: state.started_early.remove(&task.job.number),
            task: Arc::new(task),
            remote,
        };
        state.insert(id, entry);
        self.unlock_and_notify(state);
        None
    }

    /// No more tasks will be added.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        self.unlock_and_notify(state);
    }

    /// Nothing more is to be done.
    pub(crate) fn stop(&self) {
        let mut state = self.lock();
        state.stopped = true;
        for entry in state.tasks.values() {
            entry.task.remote_cancelled.notify_waiters();
        }
        self.unlock_and_notify(state);
    }

    /// Whether nothing more is to be done, since lld has ended or jobs go wrong.
    pub(crate) fn stopped(&self) -> bool {
        self.lock().stopped
    }

    /// Leaves all that is not done, and all that will be added, to this machine.
    pub(crate) fn abandon_remote(&self) {
        let mut state = self.lock();
        state.remote_abandoned = true;
        let ids: Vec<TaskId> = state.tasks.keys().copied().collect();
        for id in ids {
            state.update(id, |entry| {
                entry.remote = RemoteState::Failed;
                entry.task.remote_cancelled.notify_waiters();
            });
        }
        self.unlock_and_notify(state);
    }

    /// Whether all is done and no more will come.
    pub(crate) fn finished(&self) -> bool {
        self.lock().finished()
    }

    /// Whether there is nothing to do yet.
    pub(crate) fn idle(&self) -> bool {
        let state = self.lock();
        state.tasks.is_empty() && !state.finished()
    }

    // The remote side.

    /// The next task for a remote slot, and what to do with it: lookups first, then the first of the queue.
    pub(crate) fn take_remote(&self) -> Option<(TaskId, Arc<Task>, RemoteStep)> {
        let mut state = self.lock();
        if state.stopped {
            return None;
        }
        let first = |queue: &TaskQueue| queue.first().map(|(_, id)| *id);
        let (id, step) = match first(&state.queues.new) {
            Some(id) => (id, RemoteStep::LookUp),
            None => (first(&state.queues.queued)?, RemoteStep::Execute),
        };
        state.update(id, |entry| {
            entry.remote = match step {
                RemoteStep::LookUp => RemoteState::LookingUp(Instant::now()),
                RemoteStep::Execute => RemoteState::Dispatched(Instant::now()),
            }
        });
        let task = state.tasks.get(&id)?.task.clone();
        if step == RemoteStep::Execute {
            drop(state);
            self.has_capacity.notify_all();
        }
        Some((id, task, step))
    }

    /// The server's action cache does not have the task's result.
    pub(crate) fn lookup_missed(&self, id: TaskId) {
        let mut state = self.lock();
        if state.cache_only {
            state.leave_to_this_machine(id);
        } else {
            state.update(id, |entry| {
                if let RemoteState::LookingUp(_) = entry.remote {
                    entry.remote = RemoteState::Queued;
                }
            });
        }
        state.misses += 1;
        self.unlock_and_notify(state);
    }

    /// A worker has begun to execute the task.
    pub(crate) fn execution_started(&self, id: TaskId) {
        self.lock().update(id, |entry| {
            if let RemoteState::Dispatched(_) = entry.remote {
                entry.remote = RemoteState::Executing(Instant::now());
            }
        });
    }

    /// The server failed the task: this machine does it.
    pub(crate) fn remote_failed(&self, id: TaskId) {
        let mut state = self.lock();
        state.leave_to_this_machine(id);
        self.unlock_and_notify(state);
    }

    /// An object has come from the server.
    pub(crate) fn object_received(&self) {
        self.lock().received += 1;
    }

    /// Whether the task that a remote slot has taken is still wanted from it.
    pub(crate) fn wanted_remotely(&self, id: TaskId) -> bool {
        let state = self.lock();
        !state.stopped && state.tasks.get(&id).is_some_and(|e| e.remote.is_active())
    }

    // Both sides.

    /// Takes a task off the board as done; false if the other side was first.
    pub(crate) fn finish(&self, id: TaskId) -> bool {
        let mut state = self.lock();
        let finished = state.finish(id).is_some();
        self.unlock_and_notify(state);
        finished
    }

    // This machine's side.

    /// The position of the lookup whose thread is to compile its module now, if any.
    pub(crate) fn choose_lookup(&self, lookups: &[WaitingLookup]) -> Option<usize> {
        policy::choose_lookup(&self.lock(), lookups)
    }

    /// A thread of lld's compiles the job of this number.
    pub(crate) fn local_started(&self, number: usize) {
        let mut state = self.lock();
        match state.ids.get(&number).copied() {
            Some(id) => state.update(id, |entry| entry.local = true),
            None => {
                state.started_early.insert(number);
            }
        }
    }

    /// lld has the object of the job of this number, made by itself or from its own cache. Returns whether the
    /// job was not done before, and its task if that was on the board.
    pub(crate) fn local_finished(&self, number: usize) -> (bool, Option<Arc<Task>>) {
        let mut state = self.lock();
        state.started_early.remove(&number);
        let first = state.done.insert(number);
        let id = state.ids.get(&number).copied();
        let task = id.and_then(|id| state.finish(id));
        self.unlock_and_notify(state);
        (first, task)
    }

    /// Whether the job of this number is still to be added.
    pub(crate) fn wants(&self, number: usize) -> bool {
        let state = self.lock();
        let useless = state.stopped || (state.remote_abandoned && !state.fallback_only);
        !useless && !state.done.contains(&number)
    }

    /// The next task for a clang process here; blocks until there is one, `None` when all is done.
    pub(crate) fn take_local(&self) -> Option<(TaskId, Arc<Task>)> {
        let mut state = self.lock();
        loop {
            if state.finished() {
                return None;
            }
            if let Some(id) = policy::choose_task(&state) {
                if let Some(task) = state.tasks.get(&id).map(|entry| entry.task.clone()) {
                    state.update(id, |entry| entry.local = true);
                    return Some((id, task));
                }
            }
            let waited = self.has_local_work.wait_timeout(state, STRAGGLER_POLL);
            state = ignore_poison(waited).0;
        }
    }
}
