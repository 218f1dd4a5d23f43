//! A task: a job with its Action, and how far the server and this machine are with it.

use crate::executor::tuning::{FULL_WEIGHT, SMALL_MODULE};
use crate::jobs::action::Action;
use crate::jobs::job::Job;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::Notify;

/// Identifies a task on its board. Ids grow in the order in which tasks were added; that is not the order
/// of job numbers.
pub(crate) type TaskId = usize;

/// A job that this link needs, with its Action.
#[derive(Debug)]
pub(crate) struct Task {
    /// What to compile.
    pub(crate) job: Job,
    /// The same for the server; its digest is the job's key.
    pub(crate) action: Action,
    /// Notified when the job is done, or no longer wanted from the server.
    pub(crate) remote_cancelled: Notify,
}

impl Task {
    /// A task that nobody has begun.
    pub(crate) fn new(job: Job, action: Action) -> Self {
        Self {
            job,
            action,
            remote_cancelled: Notify::new(),
        }
    }

    /// The same without what a compile of it reads: who it is, and the key of its object.
    pub(super) fn without_inputs(&self) -> Self {
        let job = Job {
            number: self.job.number,
            identifier: self.job.identifier.clone(),
            inputs: Vec::new(),
            size: self.job.size,
            shard: Vec::new(),
            args: Vec::new(),
            expected: Default::default(),
            sources: self.job.sources.clone(),
        };
        Self::new(job, self.action.without_inputs())
    }

    /// How much it counts among tasks that are being prepared: 1 to [`FULL_WEIGHT`], by module size.
    pub(crate) fn weight(&self) -> usize {
        let weight = self.job.size.min(SMALL_MODULE) * FULL_WEIGHT as u64 / SMALL_MODULE;
        usize::try_from(weight).unwrap_or(FULL_WEIGHT).max(1)
    }
}

/// How far the server is with a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RemoteState {
    /// The server's action cache is to be asked for it.
    New,
    /// The action cache is being asked, since then.
    LookingUp(Instant),
    /// The action cache does not have it; it waits for its inputs' upload to begin.
    Queued,
    /// Its inputs are being uploaded or it waits for a worker, since then.
    Dispatched(Instant),
    /// A worker executes it, since then.
    Executing(Instant),
    /// The server is not tried again for it: it failed, or does not have it and does not execute.
    Failed,
}

impl RemoteState {
    /// Whether nothing has been done for it but asking the action cache.
    pub(super) fn is_undispatched(self) -> bool {
        matches!(self, Self::New | Self::LookingUp(_) | Self::Queued)
    }

    /// Whether a call for it is under way.
    pub(super) fn is_active(self) -> bool {
        matches!(
            self,
            Self::LookingUp(_) | Self::Dispatched(_) | Self::Executing(_)
        )
    }
}

/// A task on the board.
#[derive(Debug)]
pub(super) struct TaskEntry {
    pub(super) task: Arc<Task>,
    pub(super) remote: RemoteState,
    /// Whether a core of this machine compiles it.
    pub(super) local: bool,
}
