//! What a watched lld and those who make objects elsewhere tell each other.
//!
//! lld's side begins without knowing any job, names modules as lld does, and never waits: it asks which of
//! its lookups may be answered, and which is best compiled by lld's own thread. The other side makes an
//! index of its own, and hands in objects in any order. When that side is over, whatever the reason, all
//! that is missing is lld's.

use crate::cache::files::{Identity, SeenFile};
use crate::executor::tuning::MOST_EARLY_OBJECTS;
use crate::executor::{Executor, WaitingLookup};
use crate::jobs::failure::Failure;
use crate::jobs::outcome::FinishedObject;
use crate::link::attribution::Module;
use crate::link::backends::HeldLookup;
use crate::link::compared_files::ComparedFiles;
use crate::sys::sync::{ignore_poison, lock};
use crossbeam_channel::{Receiver, Sender, unbounded};
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

/// How often one who waits for an index looks whether it is to wait on.
const LOOK: Duration = Duration::from_millis(50);

/// What became of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
enum JobResult {
    /// Its object.
    Object(FinishedObject),
    /// None: the module is left to lld.
    LeftToLld,
}

/// What lld did.
#[derive(Debug)]
enum LldEvent {
    /// It compiles the module.
    Begun,
    /// It has the object; if it has made it, that and how long it took.
    Done(Option<(File, Duration)>),
}

/// An object that came while lld may have been waiting for it.
#[derive(Debug)]
pub struct Arrived {
    number: usize,
    /// The identifier of its module.
    identifier: Vec<u8>,
    /// The object.
    pub object: FinishedObject,
}

impl Arrived {
    /// Whether it is this module's.
    #[must_use]
    pub fn is_of(&self, module: &Module) -> bool {
        match module {
            Module::Named(identifier) => *identifier == self.identifier,
            Module::Number(number) => *number == self.number,
        }
    }
}

#[derive(Debug, Default)]
struct ExchangeState {
    /// Whether jobs are to be made.
    begun: bool,
    /// Numbers of jobs by the identifiers of their modules, once there is an index.
    numbers: Option<HashMap<Vec<u8>, usize>>,
    /// The identifiers by the numbers.
    identifiers: Vec<Vec<u8>>,
    /// Some file was not the same for both: what is made from it elsewhere is of no use.
    differs: bool,
    /// What the jobs have come to, by their numbers.
    became: Vec<Option<JobResult>>,
    /// Objects that lld's side has not heard of yet.
    arrived: Vec<Arrived>,
    /// lld's side has not heard yet that there may be another lookup to choose.
    chooses_anew: bool,
    /// What lld did before its jobs were known.
    early: Vec<(Module, LldEvent)>,
    /// How many objects are among that.
    early_objects: usize,
    /// No more objects will come.
    over: bool,
    /// lld has ended.
    stopped: bool,
    /// Whether cores here wait for the first word.
    patient: bool,
    /// Why it is over, if it failed.
    failure: Option<Failure>,
}

/// Both sides of it.
pub struct Exchange {
    executor: OnceLock<Arc<dyn Executor>>,
    /// How long a core here waits for the first word from there, if it does not wait until the end.
    patience: Option<Duration>,
    state: Mutex<ExchangeState>,
    files: ComparedFiles,
    changed: Condvar,
    wake: EventFd,
    /// Takes each module that lld misses, for those who only make what is missed.
    missed: Mutex<Option<Sender<Module>>>,
    misses: Receiver<Module>,
}

impl Exchange {
    /// With nobody there yet. `patience` is how long a core here waits for the first word from there; none
    /// if it waits until there is an answer for each job.
    pub fn new(patience: Option<Duration>) -> io::Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let (missed, misses) = unbounded();
        Ok(Self {
            executor: OnceLock::new(),
            patience,
            state: Mutex::default(),
            files: ComparedFiles::default(),
            changed: Condvar::new(),
            wake: EventFd::from_flags(flags)?,
            missed: Mutex::new(Some(missed)),
            misses,
        })
    }

    fn state(&self) -> MutexGuard<'_, ExchangeState> {
        lock(&self.state)
    }

    fn wake(&self) {
        // Full is as good: lld's side has not looked since.
        let _ = self.wake.write(1);
    }

    // lld's side.

    /// Readable when there is something new for lld.
    #[must_use]
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    /// The objects that have come since this was last asked, and whether something else has happened since, so that
    /// there may be another choice. One whose lookup came later is in [`Self::object`] only.
    pub fn arrived(&self) -> (Vec<Arrived>, bool) {
        let _ = self.wake.read();
        let mut state = self.state();
        let chooses_anew = std::mem::take(&mut state.chooses_anew);
        (std::mem::take(&mut state.arrived), chooses_anew)
    }

    /// lld is about to open a file, see [`ComparedFiles::opens`]. What has been made from another one elsewhere is not
    /// given to it.
    pub fn opens(&self, path: &Path, identity: Identity, steady: bool) {
        if let Err(failure) = self.files.opens(path, identity, steady) {
            self.state().abandon_jobs(failure);
            self.changed.notify_all();
        }
    }

    /// lld has opened all that it links.
    pub fn all_open(&self) {
        self.files.all_open();
    }

    /// Jobs are wanted, if they were not yet. With `patient`, cores here wait a little for what may be there
    /// already.
    pub fn want_jobs(&self, patient: bool) {
        let mut state = self.state();
        if !state.begun {
            (state.begun, state.patient) = (true, patient);
            self.changed.notify_all();
        }
    }

    /// lld has missed the object of a module.
    pub fn missed(&self, module: &Module) {
        if self.patience.is_none() {
            self.want_jobs(true);
        }
        let missed = lock(&self.missed);
        if let Some(missed) = &*missed {
            let _ = missed.send(module.clone());
        }
    }

    /// The object of a module, if it is there.
    #[must_use]
    pub fn object(&self, module: &Module) -> Option<FinishedObject> {
        let state = self.state();
        match state.result(state.number(module)?)? {
            JobResult::Object(object) => Some(object.clone()),
            JobResult::LeftToLld => None,
        }
    }

    /// The object of a module could not be used: it is left to lld.
    pub fn leave_to_lld(&self, module: &Module) {
        let mut state = self.state();
        if let Some(number) = state.number(module) {
            state.set_result(number, JobResult::LeftToLld);
        }
    }

    /// Which of these lookups is for a module that is best compiled by lld's own thread now, if any: its position. Those
    /// of modules that nobody knows are lld's. One whose object is there is never chosen: it can have come, and all have
    /// ended, since lld's side last asked for objects.
    #[must_use]
    pub fn choose(&self, held: &[HeldLookup]) -> Option<usize> {
        let state = self.state();
        if state.over {
            return held.iter().rposition(|held| !state.is_made(held));
        }
        let last = held.len().checked_sub(1)?;
        if !state.begun && self.patience.is_some() {
            return Some(last);
        }
        if let Some(at) = held.iter().rposition(|held| state.is_left_to_lld(held)) {
            return Some(at);
        }
        let now = Instant::now();
        let lookup = |held: &HeldLookup| WaitingLookup {
            job: state.number_of(held),
            waited: now.saturating_duration_since(held.since),
        };
        let lookups: Vec<_> = held.iter().map(lookup).collect();
        let Some(executor) = self.executor.get() else {
            let most = self.patience?;
            // Not the one that has waited: the last one's thread has compiled before, and finds its memory
            // where it was.
            let long = lookups.iter().any(|lookup| lookup.waited > most);
            return (long || !state.patient).then_some(last);
        };
        drop(state);
        executor.choose_lookup(&lookups)
    }

    /// lld's own thread compiles a module.
    pub fn begun_here(&self, module: &Module) {
        let mut state = self.state();
        match (state.number(module), self.executor.get()) {
            (Some(number), Some(executor)) => executor.local_started(number),
            _ => state.remember(module, LldEvent::Begun),
        }
    }

    /// lld has a module's object: its own, which took so long, if there is one here; or from a cache.
    pub fn done_here(&self, module: &Module, object: Option<(&File, Duration)>) {
        let mut state = self.state();
        match (state.number(module), self.executor.get()) {
            (Some(number), Some(executor)) => {
                drop(state);
                executor.local_finished(number, object);
            }
            _ => {
                let object =
                    object.and_then(|(object, took)| Some((object.try_clone().ok()?, took)));
                state.remember(module, LldEvent::Done(object));
            }
        }
    }

    /// lld has ended.
    pub fn stop(&self) {
        let mut state = self.state();
        (state.over, state.begun, state.stopped) = (true, true, true);
        drop(state);
        self.changed.notify_all();
        self.end_misses();
        if let Some(executor) = self.executor.get() {
            executor.stop();
        }
    }

    /// Why nothing more came from elsewhere, if that failed.
    #[must_use]
    pub fn failure(&self) -> Option<Failure> {
        self.state().failure.clone()
    }

    // The other side.

    /// Waits until jobs are wanted; false if they are not.
    #[must_use]
    pub fn wait(&self) -> bool {
        let not_yet = |state: &mut ExchangeState| !state.begun;
        let state = self.changed.wait_while(self.state(), not_yet);
        !ignore_poison(state).over
    }

    /// Whether nothing is wanted any more.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.state().over
    }

    /// Jobs have been made from these files, see [`ComparedFiles::made_from`].
    pub fn made_from<'f>(
        &self,
        files: impl Iterator<Item = &'f SeenFile>,
        since: Instant,
    ) -> Result<(), Failure> {
        self.files.made_from(files, since)
    }

    /// There is an index, of modules with these identifiers, in task order, and someone who does the jobs.
    pub fn index<'i>(
        &self,
        identifiers: impl Iterator<Item = &'i [u8]>,
        executor: Arc<dyn Executor>,
    ) {
        let mut state = self.state();
        let executor = self.executor.get_or_init(|| executor);
        state.identifiers = identifiers.map(<[u8]>::to_vec).collect();
        let numbered = state.identifiers.iter().cloned().enumerate();
        state.numbers = Some(numbered.map(|(n, id)| (id, n)).collect());
        state.became = vec![None; state.identifiers.len()];
        state.chooses_anew = true;
        for (module, early) in std::mem::take(&mut state.early) {
            match (state.number(&module), early) {
                (Some(number), LldEvent::Begun) => executor.local_started(number),
                (Some(number), LldEvent::Done(object)) => {
                    executor.local_finished(number, object.as_ref().map(|(o, took)| (o, *took)));
                }
                (None, _) => {}
            }
        }
        drop(state);
        self.changed.notify_all();
        self.wake();
    }

    /// The number of each module that lld misses, as it does; ends when lld does.
    pub fn misses(&self) -> impl Iterator<Item = usize> + Send + '_ {
        let number = |module: Module| self.state().number(&module);
        self.misses.iter().filter_map(number)
    }

    /// No more modules are to be told as missed.
    pub fn end_misses(&self) {
        *lock(&self.missed) = None;
    }

    /// What a job came to.
    pub fn finished(&self, number: usize, object: Option<FinishedObject>) {
        let mut state = self.state();
        let object = object.filter(|_| !state.differs);
        if let (Some(object), Some(identifier)) = (&object, state.identifiers.get(number)) {
            let arrived = Arrived {
                number,
                identifier: identifier.clone(),
                object: object.clone(),
            };
            state.arrived.push(arrived);
        }
        state.chooses_anew |= object.is_none();
        let became = object.map_or(JobResult::LeftToLld, JobResult::Object);
        state.set_result(number, became);
        drop(state);
        self.wake();
    }

    /// The identifiers of modules by their numbers, as far as there is an index.
    #[must_use]
    pub fn identifiers(&self) -> Vec<Vec<u8>> {
        self.state().identifiers.clone()
    }

    /// Nothing more will come.
    pub fn end(&self, failure: Option<Failure>) {
        let mut state = self.state();
        if !state.over {
            state.failure = failure;
        }
        (state.over, state.chooses_anew) = (true, true);
        state.early.clear();
        drop(state);
        self.changed.notify_all();
        self.wake();
    }

    /// Waits until lld has ended.
    pub fn wait_for_stop(&self) {
        let stopped = |state: &mut ExchangeState| !state.stopped;
        drop(self.changed.wait_while(self.state(), stopped));
    }

    /// Waits until there is an index, or nothing more will come, or `interrupted`; true if there is one.
    #[must_use]
    pub fn wait_for_index(&self, interrupted: impl Fn() -> bool) -> bool {
        let mut state = self.state();
        while state.numbers.is_none() && !state.over && !interrupted() {
            let waited = self.changed.wait_timeout(state, LOOK);
            state = ignore_poison(waited).0;
        }
        state.numbers.is_some() && !state.over
    }
}

impl ExchangeState {
    /// Remembers what lld did until its jobs are known; of the objects, which are open files, only some.
    fn remember(&mut self, module: &Module, event: LldEvent) {
        let event = match event {
            _ if self.over => return,
            LldEvent::Done(Some(_)) if self.early_objects == MOST_EARLY_OBJECTS => {
                LldEvent::Done(None)
            }
            event => event,
        };
        self.early_objects += usize::from(matches!(event, LldEvent::Done(Some(_))));
        self.early.push((module.clone(), event));
    }

    fn number(&self, module: &Module) -> Option<usize> {
        let numbers = self.numbers.as_ref()?;
        match module {
            Module::Named(identifier) => numbers.get(identifier).copied(),
            Module::Number(number) => (*number < numbers.len()).then_some(*number),
        }
    }

    /// The number of a lookup's job, which is remembered with the lookup: it is asked for often.
    fn number_of(&self, held: &HeldLookup) -> Option<usize> {
        let known = held.job.get().copied();
        known.or_else(|| {
            let number = self.number(held.module.as_ref()?)?;
            Some(*held.job.get_or_init(|| number))
        })
    }

    /// Nothing that has been made elsewhere, or will be, is for lld.
    fn abandon_jobs(&mut self, why: Failure) {
        if !self.over {
            self.failure = Some(why);
        }
        (self.differs, self.over) = (true, true);
        self.early.clear();
        self.arrived.clear();
        self.became.fill(Some(JobResult::LeftToLld));
    }

    /// What a job has come to, if it has ended.
    fn result(&self, number: usize) -> Option<&JobResult> {
        self.became.get(number)?.as_ref()
    }

    fn set_result(&mut self, number: usize, result: JobResult) {
        if let Some(became) = self.became.get_mut(number) {
            *became = Some(result);
        }
    }

    /// Whether a lookup's object is there.
    fn is_made(&self, held: &HeldLookup) -> bool {
        let result = self.number_of(held).and_then(|number| self.result(number));
        matches!(result, Some(JobResult::Object(_)))
    }

    /// Whether nobody else makes a lookup's object.
    fn is_left_to_lld(&self, held: &HeldLookup) -> bool {
        match self.number_of(held) {
            Some(number) => self.result(number) == Some(&JobResult::LeftToLld),
            // The index knows nothing of it.
            None => held.module.is_none() || self.numbers.is_some(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::executor::ObjectSource;
    use crate::executor::clang::Clang;
    use crate::sys::scratch::Scratch;

    /// With an index of two modules, whose jobs nobody does.
    fn of_two_modules() -> Exchange {
        let exchange = Exchange::new(None).expect("an exchange");
        let scratch = Arc::new(Scratch::new().expect("a scratch directory"));
        let identifiers: [&[u8]; 2] = [b"a.o", b"b.o"];
        let clang = Arc::new(Clang::new("clang".into(), scratch, 1));
        exchange.index(identifiers.into_iter(), clang);
        exchange
    }

    fn an_object() -> FinishedObject {
        FinishedObject {
            path: "b.object".into(),
            source: ObjectSource::Clang,
            took: None,
        }
    }

    #[test]
    fn an_object_that_is_there_is_used_although_no_more_come() {
        let exchange = of_two_modules();
        let lookup = |number| HeldLookup::new(0, 0, Vec::new(), Some(Module::Number(number)));
        let both = [lookup(0), lookup(1)];
        assert_eq!(exchange.choose(&both), None);
        exchange.finished(1, Some(an_object()));
        exchange.end(None);
        assert_eq!(exchange.choose(&both[1..]), None);
        assert_eq!(exchange.choose(&both), Some(0));
        exchange.leave_to_lld(&Module::Number(1));
        assert_eq!(exchange.choose(&both[1..]), Some(0));
    }

    #[test]
    fn what_is_made_from_another_file_is_not_given_to_lld() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("a.o");
        std::fs::write(&path, "old").expect("a file");
        let old = SeenFile::now(&path).expect("the file");
        std::thread::sleep(old.identity.tick() * 2);
        let exchange = of_two_modules();
        let made = exchange.made_from([&old].into_iter(), Instant::now());
        assert_eq!(made, Ok(()));
        exchange.finished(0, Some(an_object()));
        std::fs::write(&path, "another").expect("a file");
        let new = SeenFile::now(&path).expect("the file");
        exchange.opens(&path, new.identity, true);
        exchange.finished(1, Some(an_object()));
        assert!(exchange.arrived().0.is_empty() && exchange.is_over());
        assert_eq!(exchange.object(&Module::Number(0)), None);
        let lookup = HeldLookup::new(0, 0, Vec::new(), Some(Module::Number(0)));
        assert_eq!(exchange.choose(&[lookup]), Some(0));
        assert_eq!(exchange.failure(), Some(Failure::changed(&path)));
    }
}
