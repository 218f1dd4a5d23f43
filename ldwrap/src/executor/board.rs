//! Who compiles what, when a job can run here and elsewhere.
//!
//! Each job is on the board from the moment its object is known not to be in the local cache until it
//! is done. First the server's cache is asked for it; then it is in line. A remote slot takes the first
//! in line. A core that is free here takes, in this order: a job that failed elsewhere; the last in
//! line, since remote slots take from the front; one that is not on the board yet, where the server's
//! cache has had little; one that waited too long for an answer or a worker; one that takes long there.
//! In the last two both compile, and the first to end wins: a straggler never holds up a link that a
//! free core could finish.
//!
//! A core here is a thread of lld's own, which can compile only modules that lld has asked for, and is
//! not to be stopped once it has begun ([`Board::choose_here`]). With an lld whose lookups can only be
//! told apart when it has a single thread, it is a clang process ([`Board::take_local`]).

use crate::jobs::action::Action;
use crate::jobs::job::Job;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// A remote execution is a straggler when it takes this many times as long as most do.
const STRAGGLES: u32 = 2;
/// So long a core here waits for the server: for its first word, an answer of its cache, a worker.
const ANSWER: Duration = Duration::from_secs(2);
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

/// The share that a job takes among those that are prepared, if its module is not small. Small ones take
/// less: more of them are needed to keep a line busy.
const FULL_SHARE: usize = 8;
/// Modules below this size are small (bytes).
const SMALL: u64 = 96 << 10;

/// What so many full shares come to.
#[must_use]
pub fn shares(jobs: usize) -> usize {
    jobs * FULL_SHARE
}

impl Task {
    /// Its share among those that are prepared.
    #[must_use]
    pub fn share(&self) -> usize {
        let share = self.job.size.min(SMALL) * FULL_SHARE as u64 / SMALL;
        usize::try_from(share).unwrap_or(FULL_SHARE).max(1)
    }
}

/// How far a task is on the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Remote {
    /// The server's cache is to be asked for it.
    Unknown,
    /// It is being asked.
    Asked(Instant),
    /// In line.
    Waits,
    /// Sent, and not known to run.
    Sent(Instant),
    /// Runs.
    Runs(Instant),
    /// Not to be tried any more.
    Failed,
}

impl Remote {
    /// Whether nothing is done for it but asking the server's cache.
    fn waits(self) -> bool {
        matches!(self, Self::Unknown | Self::Asked(_) | Self::Waits)
    }
}

#[derive(Debug)]
struct Entry {
    task: Arc<Task>,
    remote: Remote,
    local: bool,
}

/// Places of tasks that no core here has, of those that are as far as each other: thousands of jobs a
/// minute are looked for among thousands. By when they came there, if it matters how long they have
/// been, and otherwise in the order in which jobs came.
#[derive(Debug, Default)]
struct Lines {
    unknown: Places,
    asked: Places,
    waits: Places,
    sent: Places,
    runs: Places,
    failed: Places,
    /// Shares of those that wait: unknown, asked, or in line.
    waiting: usize,
}

type Places = BTreeSet<(Option<Instant>, Place)>;

impl Lines {
    fn of(&mut self, remote: Remote) -> (&mut Places, Option<Instant>) {
        match remote {
            Remote::Unknown => (&mut self.unknown, None),
            Remote::Asked(since) => (&mut self.asked, Some(since)),
            Remote::Waits => (&mut self.waits, None),
            Remote::Sent(since) => (&mut self.sent, Some(since)),
            Remote::Runs(since) => (&mut self.runs, Some(since)),
            Remote::Failed => (&mut self.failed, None),
        }
    }

    fn enter(&mut self, place: Place, entry: &Entry) {
        if !entry.local {
            let (line, since) = self.of(entry.remote);
            line.insert((since, place));
            if entry.remote.waits() {
                self.waiting += entry.task.share();
            }
        }
    }

    fn leave(&mut self, place: Place, entry: &Entry) {
        let (line, since) = self.of(entry.remote);
        if line.remove(&(since, place)) && entry.remote.waits() {
            self.waiting -= entry.task.share();
        }
    }
}

#[derive(Debug, Default)]
struct State {
    entries: HashMap<Place, Entry>,
    /// The places of jobs, by their numbers.
    places: HashMap<usize, Place>,
    /// Numbers of jobs that cores here began before they came to the board.
    begun: HashSet<usize>,
    /// Numbers of jobs that are done.
    settled: HashSet<usize>,
    lines: Lines,
    next: Place,
    /// No more jobs will come.
    closed: bool,
    /// No server any more.
    alone: bool,
    stopped: bool,
    room: Room,
    /// Cores here do only what failed elsewhere.
    fallback_only: bool,
    /// How long remote executions took, the shortest first.
    took: Vec<Duration>,
    /// How many jobs the server's cache did not have.
    missed: usize,
    /// How many objects came from the server.
    received: usize,
}

impl State {
    fn is_full(&self) -> bool {
        !self.alone
            && (self.entries.len() >= self.room.all || self.lines.waiting >= self.room.waiting)
    }

    fn finished(&self) -> bool {
        self.stopped || (self.closed && self.entries.is_empty())
    }

    /// Changes a task's entry, if it is here still.
    fn change(&mut self, place: Place, how: impl FnOnce(&mut Entry)) {
        if let Some(entry) = self.entries.get_mut(&place) {
            self.lines.leave(place, entry);
            how(entry);
            self.lines.enter(place, entry);
        }
    }

    fn put(&mut self, place: Place, entry: Entry) {
        self.lines.enter(place, &entry);
        self.places.insert(entry.task.job.number, place);
        self.entries.insert(place, entry);
    }

    fn remove(&mut self, place: Place) -> Option<Entry> {
        let entry = self.entries.remove(&place)?;
        self.lines.leave(place, &entry);
        self.places.remove(&entry.task.job.number);
        Some(entry)
    }

    /// How good it is to have a thread of lld's compile a job whose lookup has waited so long: the less
    /// the better; none if that is better left to the server. Among those of the same class, the second
    /// number decides.
    fn rank(&self, number: Option<usize>, waited: Duration) -> Option<(Class, u64)> {
        let last = self.alone && (!self.fallback_only || self.closed);
        if last || self.stopped {
            return Some((Class::Failed, 0));
        }
        let oldest_first = |since: Instant| u64::MAX - since.elapsed().as_millis() as u64;
        let late = |since: Instant| {
            (since.elapsed() > ANSWER).then(|| (Class::Unanswered, oldest_first(since)))
        };
        if number.is_some_and(|n| self.settled.contains(&n) || self.begun.contains(&n)) {
            return None;
        }
        let place = number.and_then(|n| self.places.get(&n).copied());
        let entry = place.and_then(|place| Some((place, self.entries.get(&place)?)));
        let Some((place, entry)) = entry else {
            // Not known yet, or not on the board yet.
            let mostly_missing = self.missed > self.received;
            let class = if waited > ANSWER {
                Class::Unanswered
            } else if number.is_some() && mostly_missing {
                Class::NotThereYet
            } else {
                return None;
            };
            return (!self.fallback_only).then_some((class, 0));
        };
        if entry.local {
            return None;
        }
        if entry.remote == Remote::Failed {
            return Some((Class::Failed, 0));
        }
        if self.fallback_only {
            return None;
        }
        match entry.remote {
            Remote::Failed => None,
            Remote::Waits => Some((Class::InLine, u64::MAX - place as u64)),
            Remote::Unknown => (waited > ANSWER).then_some((Class::Unanswered, 0)),
            Remote::Asked(since) | Remote::Sent(since) => late(since),
            Remote::Runs(since) => match self.took.get(self.took.len() / 2) {
                Some(&usual) => (since.elapsed() > usual * STRAGGLES)
                    .then(|| (Class::Straggler, oldest_first(since))),
                // It has never given anything: the smallest, which a server that works ends first.
                None => (since.elapsed() > ANSWER && self.received == 0)
                    .then_some((Class::Straggler, entry.task.job.size)),
            },
        }
    }
}

/// Why a core here takes a job, the best reason first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    Failed,
    InLine,
    NotThereYet,
    Unanswered,
    Straggler,
}

/// How many tasks may be on a board.
#[derive(Debug, Clone, Copy, Default)]
pub struct Room {
    /// In all.
    pub all: usize,
    /// Of which nothing is done yet but asking the server's cache, in [`shares`]. Few: what is best begun
    /// next is to be decided late.
    pub waiting: usize,
}

/// The board.
#[derive(Debug, Default)]
pub struct Board {
    state: Mutex<State>,
    /// Told when there may be room for a task.
    room: Condvar,
    /// Told when there may be something for a core here.
    local: Condvar,
    /// Told when there may be something for a remote slot.
    pub remote: Notify,
}

/// What a remote slot is to do with a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Ask the server's cache.
    Ask,
    /// Have it executed.
    Execute,
}

/// The place of a task on the board.
pub type Place = usize;

impl Board {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An empty board with some room; with `fallback_only`, cores here do only what failed
    /// elsewhere.
    #[must_use]
    pub fn new(fallback_only: bool, room: Room) -> Self {
        let board = Self::default();
        let mut state = board.state();
        (state.fallback_only, state.room) = (fallback_only, room);
        drop(state);
        board
    }

    /// Tells who may have to do with what a state has become.
    fn tell(&self, state: MutexGuard<'_, State>) {
        let room = state.stopped || !state.is_full();
        let local = state.finished() || !state.fallback_only || !state.lines.failed.is_empty();
        drop(state);
        if room {
            self.room.notify_all();
        }
        if local {
            self.local.notify_all();
        }
        self.remote.notify_one();
    }

    /// Puts a task in line, as soon as there is room.
    pub fn put(&self, task: Task) {
        let full = |state: &mut State| !state.stopped && state.is_full();
        let mut state = self
            .room
            .wait_while(self.state(), full)
            .unwrap_or_else(PoisonError::into_inner);
        let place = state.next;
        state.next += 1;
        if state.settled.contains(&task.job.number) {
            return;
        }
        let remote = if state.alone {
            Remote::Failed
        } else {
            Remote::Unknown
        };
        let task = Arc::new(task);
        let entry = Entry {
            local: state.begun.remove(&task.job.number),
            task,
            remote,
        };
        state.put(place, entry);
        self.tell(state);
    }

    /// No more tasks will come.
    pub fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        self.tell(state);
    }

    /// Nothing more is to be done.
    pub fn stop(&self) {
        let mut state = self.state();
        state.stopped = true;
        for entry in state.entries.values() {
            entry.task.over.notify_waiters();
        }
        self.tell(state);
    }

    /// There is no server any more: all that is left is done here.
    pub fn alone(&self) {
        let mut state = self.state();
        state.alone = true;
        let places: Vec<Place> = state.entries.keys().copied().collect();
        for place in places {
            state.change(place, |entry| {
                entry.remote = Remote::Failed;
                entry.task.over.notify_waiters();
            });
        }
        self.tell(state);
    }

    /// Whether all is done and nothing will come.
    #[must_use]
    pub fn finished(&self) -> bool {
        self.state().finished()
    }

    /// Whether nothing is to be done yet.
    #[must_use]
    pub fn idle(&self) -> bool {
        let state = self.state();
        state.entries.is_empty() && !state.finished()
    }

    /// What is next for a remote slot: a job that the server's cache is to be asked for, or the first
    /// in line.
    pub fn take_remote(&self) -> Option<(Place, Arc<Task>, Next)> {
        let mut state = self.state();
        if state.stopped {
            return None;
        }
        let first = |line: &Places| line.first().map(|(_, place)| *place);
        let (place, next) = match first(&state.lines.unknown) {
            Some(place) => (place, Next::Ask),
            None => (first(&state.lines.waits)?, Next::Execute),
        };
        state.change(place, |entry| {
            entry.remote = match next {
                Next::Ask => Remote::Asked(Instant::now()),
                Next::Execute => Remote::Sent(Instant::now()),
            }
        });
        let task = state.entries.get(&place)?.task.clone();
        if next == Next::Execute {
            // There is room for one that waits.
            drop(state);
            self.room.notify_all();
        }
        Some((place, task, next))
    }

    /// The server's cache does not have it.
    pub fn missed(&self, place: Place) {
        let mut state = self.state();
        state.change(place, |entry| {
            if let Remote::Asked(_) = entry.remote {
                entry.remote = Remote::Waits;
            }
        });
        state.missed += 1;
        self.tell(state);
    }

    /// A remote execution has begun.
    pub fn runs(&self, place: Place) {
        self.state().change(place, |entry| {
            if let Remote::Sent(_) = entry.remote {
                entry.remote = Remote::Runs(Instant::now());
            }
        });
    }

    /// It failed: the job is to be done here.
    pub fn failed(&self, place: Place) {
        let mut state = self.state();
        state.change(place, |entry| entry.remote = Remote::Failed);
        self.tell(state);
    }

    /// Whether a task is still to be done remotely.
    #[must_use]
    pub fn wanted_remotely(&self, place: Place) -> bool {
        let state = self.state();
        let wanted = |e: &Entry| {
            matches!(
                e.remote,
                Remote::Asked(_) | Remote::Sent(_) | Remote::Runs(_)
            )
        };
        !state.stopped && state.entries.get(&place).is_some_and(wanted)
    }

    /// Takes a task off the board, as done; false if it is off already.
    pub fn done(&self, place: Place) -> bool {
        let mut state = self.state();
        let Some(entry) = state.remove(place) else {
            return false;
        };
        state.settled.insert(entry.task.job.number);
        if let Remote::Runs(since) = entry.remote
            && !entry.local
        {
            let took = since.elapsed();
            let at = state.took.partition_point(|shorter| *shorter < took);
            state.took.insert(at, took);
        }
        entry.task.over.notify_waiters();
        self.tell(state);
        true
    }

    /// An object has come from the server.
    pub fn received(&self) {
        self.state().received += 1;
    }

    /// Which of these jobs a thread of lld's is to compile now, if any: the position of one. Each is given
    /// by its number, if that is known, and how long lld has waited for its object.
    #[must_use]
    pub fn choose_here(&self, held: &[(Option<usize>, Duration)]) -> Option<usize> {
        let state = self.state();
        let ranked = held
            .iter()
            .enumerate()
            .filter_map(|(at, &(number, waited))| {
                // The last that lld has asked for is its smallest.
                Some((state.rank(number, waited)?, usize::MAX - at, at))
            });
        ranked.min().map(|(.., at)| at)
    }

    /// A thread of lld's compiles a job.
    pub fn begun_here(&self, number: usize) {
        let mut state = self.state();
        match state.places.get(&number).copied() {
            Some(place) => state.change(place, |entry| entry.local = true),
            None => {
                state.begun.insert(number);
            }
        }
    }

    /// lld has a job's object, made by itself or from its own cache. Says whether that is news, and gives the
    /// job if it was on the board.
    pub fn done_here(&self, number: usize) -> (bool, Option<Arc<Task>>) {
        let (first, place, task) = {
            let mut state = self.state();
            state.begun.remove(&number);
            let first = state.settled.insert(number);
            let place = state.places.get(&number).copied();
            let entry = place.and_then(|place| state.entries.get(&place));
            (first, place, entry.map(|entry| entry.task.clone()))
        };
        (
            first,
            task.filter(|_| place.is_some_and(|place| self.done(place))),
        )
    }

    /// Whether a job is still to be put on the board.
    #[must_use]
    pub fn wants(&self, number: usize) -> bool {
        let state = self.state();
        let over = state.stopped || (state.alone && !state.fallback_only);
        !over && !state.settled.contains(&number)
    }

    /// The next task for a clang process here; waits for one, and ends when all is done.
    pub fn take_local(&self) -> Option<(Place, Arc<Task>)> {
        let mut state = self.state();
        loop {
            if state.finished() {
                return None;
            }
            if let Some(place) = choose(&state)
                && let Some(task) = state.entries.get(&place).map(|e| e.task.clone())
            {
                state.change(place, |entry| entry.local = true);
                return Some((place, task));
            }
            state = self
                .local
                .wait_timeout(state, LOOK)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}

/// What a free core is to do.
fn choose(state: &State) -> Option<Place> {
    let lines = &state.lines;
    if let Some((_, failed)) = lines.failed.first() {
        return Some(*failed);
    }
    if state.fallback_only {
        return None;
    }
    let oldest = |line: &Places| {
        let (since, place) = *line.first()?;
        Some((since?.elapsed(), place))
    };
    // The last in line, since remote slots take from the front; the last that was sent and does not run.
    if let Some((_, place)) = lines.waits.last().or_else(|| lines.sent.last()) {
        return Some(*place);
    }
    let unanswered = oldest(&lines.asked).filter(|(waited, _)| *waited > ANSWER);
    let straggler = || {
        let usual = *state.took.get(state.took.len() / 2)?;
        oldest(&lines.runs).filter(|(runs, _)| *runs > usual * STRAGGLES)
    };
    unanswered.or_else(straggler).map(|(_, place)| place)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs::action::Digest;
    use crate::jobs::index::ModuleIdentifier;

    fn plenty(room: usize) -> Room {
        Room {
            all: room,
            waiting: shares(room),
        }
    }

    fn task(number: usize, size: u64) -> Task {
        let job = Job {
            number,
            identifier: ModuleIdentifier::new(format!("{number}.o").as_bytes()),
            inputs: Vec::new(),
            size,
            shard: Vec::new(),
            args: Vec::new(),
            defines: Vec::new(),
        };
        let action = Action {
            digest: Digest::of(&[]),
            blobs: Default::default(),
        };
        let over = Notify::new();
        Task { job, action, over }
    }

    fn board(jobs: usize) -> Board {
        let board = Board::new(false, plenty(jobs));
        for number in 0..jobs {
            board.put(task(number, 1 << 20));
        }
        board.close();
        board
    }

    fn remote(board: &Board) -> Option<(Place, Next)> {
        board.take_remote().map(|(place, _, next)| (place, next))
    }

    fn local(board: &Board) -> Option<Place> {
        board.take_local().map(|(place, _)| place)
    }

    #[test]
    fn the_cache_is_asked_before_anyone_compiles() {
        let board = board(2);
        assert!(choose(&board.state()).is_none());
        assert_eq!(remote(&board), Some((0, Next::Ask)));
        assert_eq!(remote(&board), Some((1, Next::Ask)));
        assert_eq!(remote(&board), None);
        assert!(choose(&board.state()).is_none());
        // A hit, and a miss.
        assert!(board.done(0));
        board.missed(1);
        assert_eq!(remote(&board), Some((1, Next::Execute)));
        assert!(board.wanted_remotely(1) && !board.finished());
        assert!(board.done(1) && !board.done(1));
        assert!(board.finished());
        assert_eq!(local(&board), None);
    }

    #[test]
    fn slots_take_the_first_and_cores_the_last() {
        let board = board(4);
        while let Some((place, Next::Ask)) = remote(&board) {
            board.missed(place);
        }
        // The loop above has sent the first.
        assert_eq!(local(&board), Some(3));
        assert_eq!(remote(&board), Some((1, Next::Execute)));
        assert_eq!(local(&board), Some(2));
        assert_eq!(remote(&board), None);
        // One that only waits on the server, the last of them.
        board.runs(0);
        assert_eq!(local(&board), Some(1));
        // What failed there goes first.
        board.failed(0);
        assert_eq!(local(&board), Some(0));
        // Whoever is first wins.
        assert!(board.done(1) && !board.done(1));
    }

    #[test]
    fn a_straggler_is_raced() {
        let board = board(3);
        for _ in 0..6 {
            if let Some((place, Next::Ask)) = remote(&board) {
                board.missed(place);
            }
        }
        while remote(&board).is_some() {}
        for place in 0..3 {
            board.runs(place);
        }
        // Nothing is known of how long it takes.
        assert!(choose(&board.state()).is_none());
        std::thread::sleep(Duration::from_millis(5));
        board.done(0);
        board.done(1);
        assert_eq!(local(&board), Some(2));
    }

    #[test]
    fn more_small_tasks_wait_than_large_ones() {
        for (size, most) in [(1 << 20, 2), (48 << 10, 4), (0, 16)] {
            let board = Board::new(
                true,
                Room {
                    all: 100,
                    waiting: shares(2),
                },
            );
            for n in 0..most {
                assert!(!board.state().is_full(), "{n} of {size} bytes");
                board.put(task(n, size));
            }
            assert!(board.state().is_full());
            // One is looked up, and sent: there is room.
            let place = board.take_remote().unwrap().0;
            board.missed(place);
            assert!(board.state().is_full());
            while board
                .take_remote()
                .is_some_and(|(_, _, next)| next == Next::Ask)
            {}
            assert!(!board.state().is_full());
            assert!(board.done(place));
        }
    }

    #[test]
    fn without_a_server_all_is_done_here() {
        let board = Board::new(true, plenty(2));
        let other = self::board(2);
        while let Some((_, task, _)) = other.take_remote() {
            other.done(task.job.number);
            board.put(Arc::into_inner(task).unwrap());
        }
        assert!(choose(&board.state()).is_none());
        board.alone();
        assert_eq!(local(&board), Some(0));
        assert_eq!(remote(&board), None);
        assert!(!board.wanted_remotely(1));
        board.stop();
        assert_eq!(local(&board), None);
    }
}
