//! The executor: prepares jobs, and joins the server's side and this machine's.

use super::counts::Counts;
use super::remote_side::{FinishJob, LocalObject, RemoteSide, max_prepared_weight};
use super::server::Server;
use crate::executor::board::{Board, Capacity, Task, TaskId, weight_of};
use crate::executor::clang::Clang;
use crate::executor::tuning::{
    MAX_DOWNLOADING, MAX_UNSHARED_KIB, MOST_EARLY_OBJECTS, SHUTDOWN_GRACE, TASKS_PER_SLOT,
};
use crate::executor::{BackendError, Executor, JobQueue, Outcome, ReportOutcome, WaitingLookup};
use crate::jobs::job::Job;
use crate::jobs::store::Store;
use crate::sys::process::kill_backends;
use crate::sys::scratch::Scratch;
use crate::sys::sync::{ignore_poison, lock};
use shim::config::ServerSettings;
use shim::report::Remote as RemoteReport;
use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::Builder;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// Runs backends on a server, beside this machine's cores.
#[derive(Debug)]
pub(crate) struct RemoteExecutor {
    /// Where objects from the server and the local cache go.
    scratch: Arc<Scratch>,
    /// How many jobs are prepared at once.
    threads: usize,
    /// Compiles here, with an lld whose own threads cannot.
    local_clang: Option<Clang>,
    board: Board,
    /// Until the executor runs.
    server: Mutex<Option<(Server, UnboundedReceiver<LocalObject>)>>,
    local_objects: UnboundedSender<LocalObject>,
    /// KiB of them that there is memory for.
    unshared: Arc<Semaphore>,
    /// Objects that lld made before their tasks were on the board, and how long each took, by job number.
    early_objects: Mutex<HashMap<usize, (File, Duration)>>,
    store: Arc<Store>,
    settings: ServerSettings,
    counts: Counts,
    workers_busy: Arc<AtomicBool>,
}

impl RemoteExecutor {
    /// For a link. `threads` is how many jobs are prepared at once; `local_clang` compiles here where lld's own
    /// threads cannot compile beside jobs. `workers_busy` is kept up to date for the order of jobs: true
    /// while the server executes as many as it may, and once it is given up.
    pub(crate) fn new(
        store: Arc<Store>,
        settings: ServerSettings,
        server: Server,
        scratch: Arc<Scratch>,
        threads: usize,
        local_clang: Option<Clang>,
        workers_busy: Arc<AtomicBool>,
    ) -> Self {
        let capacity = Capacity {
            tasks: TASKS_PER_SLOT * settings.jobs + MAX_DOWNLOADING + threads,
            undispatched_weight: max_prepared_weight(&settings) + weight_of(threads),
        };
        let (local_objects, receiver) = unbounded_channel();
        let board = Board::new(settings.fallback_only, local_clang.is_some(), capacity);
        Self {
            scratch,
            threads,
            local_clang,
            board,
            server: Mutex::new(Some((server, receiver))),
            local_objects,
            unshared: Arc::new(Semaphore::new(MAX_UNSHARED_KIB)),
            early_objects: Mutex::default(),
            store,
            settings,
            counts: Counts::default(),
            workers_busy,
        }
    }

    /// Makes a job's Action. If the local cache has the object, or lld has made it, the job is done; else its
    /// task is put on the board, which may block.
    fn prepare(&self, job: Job, finish: FinishJob<'_>) {
        let action = match self.store.action(&job) {
            Ok(action) => action,
            Err(e) => {
                finish(None, &job, Err(e.to_string()));
                return;
            }
        };
        let to = self.scratch.received(job.number);
        if let Some(object) = self.store.find(&action.digest, &to) {
            finish(None, &job, Ok(Outcome::Object(object)));
            return;
        }
        // Of a job that lld has done, an object that it made is here.
        if let Some(task) = self.board.add(Task::new(job, action)) {
            let early = self.early_objects().remove(&task.job.number);
            if let Some((object, took)) = early {
                self.keep_and_share(Arc::new(task), &object, Some(took));
            }
        }
    }

    /// Compiles tasks of the board with clang until there are none.
    fn compile_with(&self, clang: &Clang, finish: FinishJob<'_>) {
        while let Some((id, task)) = self.board.take_local() {
            let result = clang.compile(&task.job);
            if let Ok(Outcome::Object(object)) = &result {
                if let Ok(file) = File::open(&object.path) {
                    self.keep_and_share(task.clone(), &file, object.took);
                }
            }
            let compiled = matches!(&result, Ok(Outcome::Object(..)));
            if finish(Some(id), &task.job, result) && compiled {
                self.counts.local.fetch_add(1, Ordering::Relaxed);
            }
        }
        // Kill local duplicates of jobs that the server finished first.
        kill_backends();
    }

    /// Puts an object that was made here into the local cache, and hands it to the server's side.
    fn keep_and_share(&self, task: Arc<Task>, object: &File, took: Option<Duration>) {
        if let Some(file) = task.job.changed_source() {
            log::info!(
                "{} has changed during the link: an object is not kept",
                file.display()
            );
            return;
        }
        self.store.keep(&task.action.digest, object, took);
        let size = object.metadata().map_or(0, |found| found.len());
        let kib = u32::try_from(size.div_ceil(1024)).unwrap_or(u32::MAX);
        let Ok(room) = self.unshared.clone().try_acquire_many_owned(kib) else {
            log::info!("an object made here is not shared: too many wait to be sent");
            return;
        };
        match read_all(object) {
            Ok(bytes) => {
                let _ = self.local_objects.send(LocalObject {
                    task,
                    bytes,
                    _room: room,
                });
            }
            Err(e) => log::info!("an object cannot be read again: {e}"),
        }
    }

    fn early_objects(&self) -> MutexGuard<'_, HashMap<usize, (File, Duration)>> {
        lock(&self.early_objects)
    }
}

impl Executor for RemoteExecutor {
    fn run(&self, jobs: &JobQueue<'_>, report: ReportOutcome<'_>) {
        let preparing = AtomicUsize::new(self.threads);
        let finish = |id: Option<TaskId>, job: &Job, result: Result<Outcome, String>| {
            if id.is_some_and(|id| !self.board.finish(id)) {
                return false;
            }
            let result = result.map_err(|why| BackendError::of(&job.identifier, why));
            if !report(job.number, result) {
                self.board.stop();
            }
            true
        };
        let finish: FinishJob<'_> = &finish;
        let remote = RemoteSide {
            board: &self.board,
            store: &self.store,
            scratch: &self.scratch,
            settings: &self.settings,
            counts: &self.counts,
            workers_busy: &self.workers_busy,
            finish,
            abandoned: AtomicBool::new(false),
            sharing_refused: AtomicBool::new(false),
        };
        let server = self.server.lock();
        let server = ignore_poison(server).take();
        std::thread::scope(|scope| {
            for _ in 0..self.threads {
                let prepared = || {
                    if preparing.fetch_sub(1, Ordering::AcqRel) == 1 {
                        self.board.close();
                    }
                };
                let prepare = move || {
                    while let Some(job) = jobs.next(report) {
                        if self.board.finished() {
                            break;
                        }
                        self.prepare(job, finish);
                    }
                    prepared();
                };
                if let Err(e) = Builder::new().spawn_scoped(scope, prepare) {
                    log::info!("no thread to prepare jobs: {e}");
                    prepared();
                }
            }
            if let Some(clang) = &self.local_clang {
                for _ in 0..clang.processes() {
                    let compile = || self.compile_with(clang, finish);
                    if let Err(e) = Builder::new().spawn_scoped(scope, compile) {
                        log::info!("no thread for clang: {e}");
                        break;
                    }
                }
            }
            match server {
                Some((Server { runtime, client }, local_objects)) => {
                    runtime.block_on(remote.serve(client, local_objects));
                    // Do not wait for open calls, but for a file that is being written: its directory is
                    // removed when the link ends.
                    runtime.shutdown_timeout(SHUTDOWN_GRACE);
                }
                None => remote.abandon(),
            }
        });
    }

    fn stop(&self) {
        self.board.stop();
    }

    fn choose_lookup(&self, lookups: &[WaitingLookup]) -> Option<usize> {
        self.board.choose_lookup(lookups)
    }

    fn local_started(&self, number: usize) {
        self.board.local_started(number);
    }

    fn local_finished(&self, number: usize, object: Option<(&File, Duration)>) {
        let (first, task) = self.board.local_finished(number);
        let Some((object, took)) = object.filter(|_| first) else {
            return;
        };
        self.counts.local.fetch_add(1, Ordering::Relaxed);
        match (task, object.try_clone()) {
            (Some(task), _) => self.keep_and_share(task, object, Some(took)),
            (None, Ok(object)) => {
                let mut early = self.early_objects();
                if early.len() < MOST_EARLY_OBJECTS {
                    early.insert(number, (object, took));
                }
            }
            (None, Err(e)) => log::info!("an object cannot be kept: {e}"),
        }
    }

    fn wants(&self, number: usize) -> bool {
        // The job of an early object is needed for its key.
        self.board.wants(number) || self.early_objects().contains_key(&number)
    }

    fn remote_report(&self) -> Option<RemoteReport> {
        Some(self.counts.report())
    }
}

/// All of a file, wherever its offset is.
fn read_all(file: &File) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(file.metadata()?.len()).unwrap_or(0)];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}
