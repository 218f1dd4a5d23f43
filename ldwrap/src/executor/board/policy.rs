//! What a free core of this machine does.
//!
//! Best is a job that the server failed, since nobody else does it. Then the last in the queue, because
//! remote slots take from the front. Then a job that is not on the board yet, provided the server's
//! action cache has missed more than the server has delivered. Then one that has waited too long for an
//! answer or a worker, and last a straggler. In the last two cases both sides compile, and the first to
//! end wins: a slow execution never holds up a link that a free core could finish.

use super::queues::TaskQueue;
use super::state::BoardState;
use super::task::{RemoteState, TaskId};
use crate::executor::WaitingLookup;
use crate::executor::tuning::{SERVER_PATIENCE, STRAGGLER_FACTOR};
use std::time::{Duration, Instant};

/// Why a core of this machine compiles a job, best reason first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum LocalReason {
    /// The server will not make it.
    NotRemote,
    Queued,
    NotOnBoard,
    Unanswered,
    Straggler,
}

/// The position of the lookup whose thread is to compile its module now, if any.
pub(super) fn choose_lookup(state: &BoardState, lookups: &[WaitingLookup]) -> Option<usize> {
    let ranked = lookups.iter().enumerate().filter_map(|(at, lookup)| {
        // Of equal ones the last: lld asks for its largest modules first, and a smaller one is done sooner.
        Some((rank(state, lookup)?, usize::MAX - at, at))
    });
    ranked.min().map(|(.., at)| at)
}

/// How good it is that lld's thread compiles the module of its lookup: less is better, and `None` is
/// better left to the server. The second number decides within a reason.
fn rank(state: &BoardState, lookup: &WaitingLookup) -> Option<(LocalReason, u64)> {
    let WaitingLookup { job, waited } = *lookup;
    let no_server = state.remote_abandoned && (!state.fallback_only || state.closed);
    if no_server || state.stopped {
        return Some((LocalReason::NotRemote, 0));
    }
    if job.is_some_and(|n| state.done.contains(&n) || state.started_early.contains(&n)) {
        return None;
    }
    let id = job.and_then(|n| state.ids.get(&n).copied());
    let Some((id, entry)) = id.and_then(|id| Some((id, state.tasks.get(&id)?))) else {
        let reason = if waited > SERVER_PATIENCE {
            LocalReason::Unanswered
        } else if job.is_some() && state.misses > state.received {
            LocalReason::NotOnBoard
        } else {
            return None;
        };
        return (!state.fallback_only).then_some((reason, 0));
    };
    if entry.local {
        return None;
    }
    let oldest_first = |since: Instant| u64::MAX - since.elapsed().as_millis() as u64;
    match entry.remote {
        RemoteState::Failed => Some((LocalReason::NotRemote, 0)),
        _ if state.fallback_only => None,
        RemoteState::Queued => Some((LocalReason::Queued, u64::MAX - id as u64)),
        RemoteState::New => (waited > SERVER_PATIENCE).then_some((LocalReason::Unanswered, 0)),
        RemoteState::LookingUp(since) | RemoteState::Dispatched(since) => (since.elapsed()
            > SERVER_PATIENCE)
            .then(|| (LocalReason::Unanswered, oldest_first(since))),
        RemoteState::Executing(since) => is_straggler(state, since.elapsed()).then(|| {
            let rank = match state.median_duration() {
                Some(_) => oldest_first(since),
                // No execution has ended. A thread of lld's cannot be stopped, so take the smallest module: a
                // server that does work loses least by it.
                None => entry.task.job.size,
            };
            (LocalReason::Straggler, rank)
        }),
    }
}

/// Whether an execution that has run for so long is late. What the action cache has delivered says nothing about
/// workers, so that until an execution ends there is only a fixed limit.
fn is_straggler(state: &BoardState, elapsed: Duration) -> bool {
    let median = state.median_duration();
    elapsed > median.map_or(SERVER_PATIENCE, |median| median * STRAGGLER_FACTOR)
}

/// The task for a free clang process. It differs from [`choose_lookup`] in that it takes a dispatched task at
/// once, the last one: a process that turns out to be needless is killed.
pub(super) fn choose_task(state: &BoardState) -> Option<TaskId> {
    let queues = &state.queues;
    if let Some((_, failed)) = queues.failed.first() {
        return Some(*failed);
    }
    if state.fallback_only {
        return None;
    }
    if let Some((_, last)) = queues.queued.last().or_else(|| queues.dispatched.last()) {
        return Some(*last);
    }
    let oldest = |queue: &TaskQueue| {
        let (since, id) = *queue.first()?;
        Some((since?.elapsed(), id))
    };
    let unanswered = oldest(&queues.looking_up).filter(|(waited, _)| *waited > SERVER_PATIENCE);
    let straggler =
        || oldest(&queues.executing).filter(|(elapsed, _)| is_straggler(state, *elapsed));
    unanswered.or_else(straggler).map(|(_, id)| id)
}
