//! Who compiles what, when a job can run here and elsewhere.
//!
//! Each job is on the board from the moment its object is known to be in no cache until it is done. A
//! remote slot takes the first in line. A core that is free here takes, in this order: a job that
//! failed elsewhere; the last in line, since remote slots take from the front; one that waits for a
//! worker on the server; one that takes long there. In the last two both compile, and the first to
//! end wins: a straggler never holds up a link that a free core could finish.

use crate::action::Action;
use crate::backend::Job;
use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// A remote execution is a straggler when it takes this many times as long as most do.
const STRAGGLES: u32 = 2;
/// How often waiting cores look for stragglers.
const LOOK: Duration = Duration::from_millis(50);

/// A job with its key.
#[derive(Debug)]
pub struct Task {
    /// What is to be done.
    pub job: Job,
    /// Its Action.
    pub action: Action,
    /// Told when the job is done, or no longer to be done remotely.
    pub over: Notify,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Remote {
    /// In line.
    Waits,
    /// Sent, and not known to run.
    Sent(Instant),
    /// Runs.
    Runs(Instant),
    /// Not to be tried any more.
    Failed,
}

#[derive(Debug)]
struct Entry {
    task: Arc<Task>,
    remote: Remote,
    local: bool,
}

#[derive(Debug, Default)]
struct State {
    /// By the order in which jobs came.
    entries: BTreeMap<usize, Entry>,
    next: usize,
    /// No more jobs will come.
    closed: bool,
    /// No server any more.
    alone: bool,
    stopped: bool,
    /// Cores here do only what failed elsewhere.
    fallback_only: bool,
    /// How long remote executions took.
    took: Vec<Duration>,
}

/// The board.
#[derive(Debug, Default)]
pub struct Board {
    state: Mutex<State>,
    changed: Condvar,
    /// Told when there may be something for a remote slot.
    pub remote: Notify,
}

/// The place of a task on the board.
pub type Place = usize;

impl Board {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An empty board; with `fallback_only`, cores here do only what failed elsewhere.
    #[must_use]
    pub fn new(fallback_only: bool) -> Self {
        let board = Self::default();
        board.state().fallback_only = fallback_only;
        board
    }

    fn tell(&self) {
        self.changed.notify_all();
        self.remote.notify_one();
    }

    /// Puts a task in line.
    pub fn put(&self, task: Task) {
        let mut state = self.state();
        let place = state.next;
        state.next += 1;
        let remote = if state.alone {
            Remote::Failed
        } else {
            Remote::Waits
        };
        let task = Arc::new(task);
        let entry = Entry {
            task,
            remote,
            local: false,
        };
        state.entries.insert(place, entry);
        drop(state);
        self.tell();
    }

    /// No more tasks will come.
    pub fn close(&self) {
        self.state().closed = true;
        self.tell();
    }

    /// Nothing more is to be done.
    pub fn stop(&self) {
        let mut state = self.state();
        state.stopped = true;
        for entry in state.entries.values() {
            entry.task.over.notify_waiters();
        }
        drop(state);
        self.tell();
    }

    /// There is no server any more: all that is left is done here.
    pub fn alone(&self) {
        let mut state = self.state();
        state.alone = true;
        for entry in state.entries.values_mut() {
            entry.remote = Remote::Failed;
            entry.task.over.notify_waiters();
        }
        drop(state);
        self.tell();
    }

    /// Whether all is done and nothing will come.
    #[must_use]
    pub fn finished(&self) -> bool {
        let state = self.state();
        state.stopped || (state.closed && state.entries.is_empty())
    }

    /// The first in line, for a remote slot.
    pub fn take_remote(&self) -> Option<(Place, Arc<Task>)> {
        let mut state = self.state();
        if state.stopped {
            return None;
        }
        let found = state
            .entries
            .iter_mut()
            .find(|(_, e)| e.remote == Remote::Waits && !e.local)?;
        found.1.remote = Remote::Sent(Instant::now());
        Some((*found.0, found.1.task.clone()))
    }

    /// A remote execution has begun.
    pub fn runs(&self, place: Place) {
        if let Some(entry) = self.state().entries.get_mut(&place)
            && let Remote::Sent(_) = entry.remote
        {
            entry.remote = Remote::Runs(Instant::now());
        }
    }

    /// It failed: the job is to be done here.
    pub fn failed(&self, place: Place) {
        if let Some(entry) = self.state().entries.get_mut(&place) {
            entry.remote = Remote::Failed;
        }
        self.tell();
    }

    /// Whether a task is still to be done remotely.
    #[must_use]
    pub fn wanted_remotely(&self, place: Place) -> bool {
        let state = self.state();
        let wanted = |e: &Entry| matches!(e.remote, Remote::Sent(_) | Remote::Runs(_));
        !state.stopped && state.entries.get(&place).is_some_and(wanted)
    }

    /// Takes a task off the board, as done; false if it is off already.
    pub fn done(&self, place: Place) -> bool {
        let mut state = self.state();
        let Some(entry) = state.entries.remove(&place) else {
            return false;
        };
        if let Remote::Runs(since) = entry.remote
            && !entry.local
        {
            state.took.push(since.elapsed());
        }
        entry.task.over.notify_waiters();
        drop(state);
        self.tell();
        true
    }

    /// The next task for a core here; waits for one, and ends when all is done.
    pub fn take_local(&self) -> Option<(Place, Arc<Task>)> {
        let mut state = self.state();
        loop {
            if state.stopped || (state.closed && state.entries.is_empty()) {
                return None;
            }
            if let Some(place) = choose(&state)
                && let Some(entry) = state.entries.get_mut(&place)
            {
                entry.local = true;
                return Some((place, entry.task.clone()));
            }
            state = self
                .changed
                .wait_timeout(state, LOOK)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}

/// What a free core is to do.
fn choose(state: &State) -> Option<Place> {
    let free = || state.entries.iter().filter(|(_, e)| !e.local);
    let place = |(place, _): (&Place, &Entry)| *place;
    let failed = free().find(|(_, e)| e.remote == Remote::Failed);
    if let Some(found) = failed {
        return Some(place(found));
    }
    if state.fallback_only {
        return None;
    }
    // The last in line: remote slots take from the front.
    let waits = free().rfind(|(_, e)| e.remote == Remote::Waits);
    // The last that was sent and does not run yet.
    let sent = || free().rfind(|(_, e)| matches!(e.remote, Remote::Sent(_)));
    if let Some(found) = waits.or_else(sent) {
        return Some(place(found));
    }
    let since = |e: &Entry| match e.remote {
        Remote::Runs(since) => Some(since),
        _ => None,
    };
    let (oldest, since) = free()
        .filter_map(|(place, e)| Some((*place, since(e)?)))
        .min_by_key(|(_, since)| *since)?;
    let usual = median(&state.took)?;
    (since.elapsed() > usual * STRAGGLES).then_some(oldest)
}

fn median(all: &[Duration]) -> Option<Duration> {
    let mut all = all.to_vec();
    let middle = all.len() / 2;
    if all.is_empty() {
        return None;
    }
    Some(*all.select_nth_unstable(middle).1)
}
