//! Backends on a Remote Execution server, and on this machine beside it.
//!
//! A few threads make each job's Action and look for its object in the local cache; what is not there
//! goes on the board ([`super::board`]). From the board, one thread with many calls in flight asks the
//! server's action cache, sends what the server lacks, has it executed and gets the object; and lld's
//! own threads take jobs from it, to compile them here. Whatever goes wrong elsewhere is done here: a
//! server never fails a link, and no core here waits for it for long.

mod auth;
mod blobs;
mod calls;
pub mod client;
mod connections;

use super::board::{Board, Next, Place, Room, Task, shares};
use super::clang::Clang;
use super::{BackendError, Done, Executor, ObjectSource, Order, Outcome, Queue, Waiting};
use crate::jobs::action::{Action, Content, Digest};
use crate::jobs::job::{Job, OBJECT};
use crate::jobs::store::Store;
use crate::sys::scratch::Scratch;
use bazel_remote_apis::build::bazel::remote::execution::v2 as api;
use calls::in_short;
use client::{Client, Stage};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use shim::config::ServerSettings;
use shim::report::Remote as Report;
use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tonic::{Code, Status};

/// So many jobs that fail in a row, and the server is not asked any more.
const PATIENCE: usize = 3;
/// Jobs that are prepared on the server beside those that run, at least.
const AHEAD: usize = 64;
/// Jobs that have run and whose objects are not here yet, at most, and then some: on a line that is full
/// one way, the other is used on.
const MOST_FETCHING: usize = 1000;
/// After the last job is done, so long may results that were made here take to reach the server, and
/// files to be written.
const PARTING: Duration = Duration::from_millis(200);

/// A server, and who talks to it.
#[derive(Debug)]
pub struct Server {
    runtime: Runtime,
    /// None if it was not asked anything yet.
    client: Option<Client>,
}

impl Server {
    /// One that is asked when there is a job for it.
    pub fn later() -> Result<Self, String> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build();
        Ok(Self {
            runtime: runtime.map_err(|e| format!("no threads to talk to a server: {e}"))?,
            client: None,
        })
    }

    /// Asks it what it can do: nothing is made for one that does not answer. Gives up when it is `over`.
    pub fn reach(settings: &ServerSettings, over: impl Fn() -> bool) -> Result<Self, String> {
        let mut server = Self::later()?;
        let over = async {
            while !over() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(Status::deadline_exceeded("no answer in time"))
        };
        let asked = server.runtime.block_on(async {
            tokio::select! {
                client = Client::connect(settings) => client,
                ended = over => ended,
            }
        });
        match asked {
            Ok(client) => {
                server.client = Some(client);
                Ok(server)
            }
            Err(status) => {
                // The user's program, or a name that is looked up, is not waited for.
                server.runtime.shutdown_background();
                Err(in_short(&status))
            }
        }
    }
}

/// A server and this machine.
#[derive(Debug)]
pub struct Remote {
    /// Where received objects go.
    scratch: Arc<Scratch>,
    /// How many jobs are prepared at once.
    threads: usize,
    /// Compiles here, where threads of lld's cannot.
    here: Option<Clang>,
    board: Board,
    server: Mutex<Option<Server>>,
    /// Takes what was made here, for the server's action cache.
    made_here: UnboundedSender<MadeHere>,
    to_tell: Mutex<Option<UnboundedReceiver<MadeHere>>>,
    /// Objects that were made here before their jobs were known, by number.
    early: Mutex<HashMap<usize, File>>,
    /// Keys and the local cache.
    store: Arc<Store>,
    /// The server.
    settings: ServerSettings,
    /// What happened.
    counts: Counts,
    /// Whether the server has as many executions as it may have, or is gone.
    full: AtomicBool,
}

/// A job that was done here, and its object.
type MadeHere = (Arc<Task>, Vec<u8>);

/// What happened, for the report and the user.
#[derive(Debug, Default)]
pub struct Counts {
    /// Objects that the server's action cache had.
    pub hits: AtomicUsize,
    /// Objects that were made there.
    pub executed: AtomicUsize,
    /// Objects that were made here.
    pub local: AtomicUsize,
    /// Bytes of blobs sent and received.
    pub traffic: Mutex<(u64, u64)>,
    trouble: Mutex<Option<String>>,
    in_a_row: AtomicUsize,
}

impl Counts {
    /// All of it.
    fn report(&self) -> Report {
        let (bytes_up, bytes_down) = *self.traffic.lock().unwrap_or_else(PoisonError::into_inner);
        let trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        let count = |of: &AtomicUsize| of.load(Ordering::Relaxed);
        Report {
            hits: count(&self.hits),
            executed: count(&self.executed),
            local: count(&self.local),
            bytes_up,
            bytes_down,
            trouble: trouble.clone(),
        }
    }

    fn note(&self, status: &Status) {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        trouble.get_or_insert_with(|| in_short(status));
    }
}

/// Reports what became of a job; with its place on the board, if it has one. False if someone was faster.
type Tell<'t> = &'t (dyn Fn(Option<Place>, &Job, Result<Outcome, String>) -> bool + Sync);

/// One thing to ask of the server.
struct Call<'c> {
    client: &'c Client,
    board: &'c Board,
    place: Place,
    task: Arc<Task>,
    next: Next,
    /// Until its execution begins.
    prepared: Counted<'c>,
}

/// Counts for a share among others, until it is told not to, or dropped.
struct Counted<'c> {
    among: &'c AtomicUsize,
    share: AtomicUsize,
}

impl<'c> Counted<'c> {
    fn new(among: &'c AtomicUsize, share: usize) -> Self {
        among.fetch_add(share, Ordering::Relaxed);
        let share = AtomicUsize::new(share);
        Self { among, share }
    }

    fn end(&self) {
        let share = self.share.swap(0, Ordering::Relaxed);
        self.among.fetch_sub(share, Ordering::Relaxed);
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.end();
    }
}

impl Executor for Remote {
    fn name(&self) -> &'static str {
        "remote"
    }

    fn order(&self) -> Order<'_> {
        Order::Mixed(&self.full)
    }

    fn run(&self, jobs: &Queue<'_>, done: Done<'_>) {
        let preparing = AtomicUsize::new(self.threads);
        let tell = |place: Option<Place>, job: &Job, result: Result<Outcome, String>| {
            if place.is_some_and(|place| !self.board.done(place)) {
                return false;
            }
            let result = result.map_err(|why| BackendError::of(job, why));
            if !done(job.number, result) {
                self.board.stop();
            }
            true
        };
        let server = self.server.lock();
        let server = server.unwrap_or_else(PoisonError::into_inner).take();
        let to_tell = self
            .to_tell
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        std::thread::scope(|scope| {
            for _ in 0..self.threads {
                scope.spawn(|| {
                    while let Some(job) = jobs.next(done)
                        && !self.board.finished()
                    {
                        self.prepare(job, &tell);
                    }
                    if preparing.fetch_sub(1, Ordering::AcqRel) == 1 {
                        self.board.close();
                    }
                });
            }
            if let Some(clang) = &self.here {
                for _ in 0..clang.jobs() {
                    scope.spawn(|| self.compile_with(clang, &tell));
                }
            }
            match (server, to_tell) {
                (Some(Server { runtime, client }), Some(to_tell)) => {
                    runtime.block_on(self.talk(client, &tell, to_tell));
                    // Calls that are still open are not waited for; a file that is being written is, since
                    // its directory is removed when the link ends.
                    runtime.shutdown_timeout(PARTING);
                }
                _ => self.alone(),
            }
        });
    }

    fn stop(&self) {
        self.board.stop();
    }

    fn choose_here(&self, waiting: &[Waiting]) -> Option<usize> {
        self.board.choose_here(waiting)
    }

    fn begun_here(&self, number: usize) {
        self.board.begun_here(number);
    }

    fn done_here(&self, number: usize, object: Option<&File>) {
        let (first, task) = self.board.done_here(number);
        let Some(object) = object.filter(|_| first) else {
            return;
        };
        self.counts.local.fetch_add(1, Ordering::Relaxed);
        match (task, object.try_clone()) {
            (Some(task), _) => self.tell_of(task, object),
            (None, Ok(object)) => drop(self.early().insert(number, object)),
            (None, Err(e)) => log::info!("an object cannot be kept: {e}"),
        }
    }

    fn wants(&self, number: usize) -> bool {
        self.board.wants(number) || self.early().contains_key(&number)
    }

    fn report(&self) -> Option<Report> {
        Some(self.counts.report())
    }
}

/// Ends when nothing is to be done any more.
async fn over(board: &Board) {
    while !board.finished() {
        tokio::select! {
            () = board.remote.notified() => {}
            () = tokio::time::sleep(Duration::from_millis(200)) => {}
        }
    }
}

/// All of a file, wherever its offset stands.
fn read_all(file: &File) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(file.metadata()?.len()).unwrap_or(0)];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

impl Remote {
    /// For a link, with a server that has these settings. `threads` is how many jobs are prepared at once; with `here`, cores of this machine run
    /// clang, as they must where lld's own threads cannot compile beside it.
    #[must_use]
    pub fn new(
        store: Arc<Store>,
        settings: ServerSettings,
        server: Server,
        scratch: Arc<Scratch>,
        threads: usize,
        here: Option<Clang>,
    ) -> Self {
        let room = Room {
            all: 2 * settings.jobs + MOST_FETCHING + threads,
            waiting: ahead(&settings) + shares(threads),
        };
        let (made_here, to_tell) = tokio::sync::mpsc::unbounded_channel();
        Self {
            scratch,
            threads,
            here,
            board: Board::new(settings.fallback_only, room),
            server: Mutex::new(Some(server)),
            made_here,
            to_tell: Mutex::new(Some(to_tell)),
            early: Mutex::default(),
            store,
            settings,
            counts: Counts::default(),
            full: AtomicBool::new(false),
        }
    }
}

/// Jobs that are looked up and whose inputs are sent at once, beside those that run: inputs are to be
/// there when a slot is free. In shares.
fn ahead(settings: &ServerSettings) -> usize {
    shares(AHEAD + settings.jobs / 8)
}

impl Remote {
    fn early(&self) -> MutexGuard<'_, HashMap<usize, File>> {
        self.early.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An object was made here: it is kept, and for the server.
    fn tell_of(&self, task: Arc<Task>, object: &File) {
        match read_all(object) {
            Ok(bytes) => {
                self.store.keep(&task.action.digest, object);
                let _ = self.made_here.send((task, bytes));
            }
            Err(e) => log::info!("an object cannot be read again: {e}"),
        }
    }

    /// There is no server any more.
    fn alone(&self) {
        // Nothing waits for a line now: the largest first.
        self.full.store(true, Ordering::Relaxed);
        self.board.alone();
    }

    /// Compiles jobs of the board with clang until there are none.
    fn compile_with(&self, clang: &Clang, tell: Tell<'_>) {
        while let Some((place, task)) = self.board.take_local() {
            let result = clang.compile(&task.job);
            if let Ok(Outcome::Object(object, _)) = &result
                && let Ok(object) = File::open(object)
            {
                self.tell_of(task.clone(), &object);
            }
            let made = matches!(&result, Ok(Outcome::Object(..)));
            if tell(Some(place), &task.job, result) && made {
                self.counts.local.fetch_add(1, Ordering::Relaxed);
            }
        }
        // Those that the server was faster with.
        crate::sys::process::kill_backends();
    }

    fn prepare(&self, job: Job, tell: Tell<'_>) {
        let action = match self.store.action(&job) {
            Ok(action) => action,
            Err(e) => {
                tell(None, &job, Err(e.to_string()));
                return;
            }
        };
        if let Some(object) = self.store.find(&action.digest, &self.object(&job)) {
            tell(None, &job, Ok(Outcome::Object(object, ObjectSource::Cache)));
            return;
        }
        let number = job.number;
        let over = tokio::sync::Notify::new();
        let task = Task { job, action, over };
        let early = self.early().remove(&number);
        match early {
            Some(object) => self.tell_of(Arc::new(task), &object),
            None => self.board.put(task),
        }
    }

    /// Where an object from elsewhere goes.
    fn object(&self, job: &Job) -> PathBuf {
        self.scratch.received(job.number)
    }

    /// Keeps the server busy until the board is empty.
    async fn talk(
        &self,
        client: Option<Client>,
        tell: Tell<'_>,
        mut made_here: UnboundedReceiver<MadeHere>,
    ) {
        let board = &self.board;
        // A link whose objects are all in the local cache does not talk to anyone.
        while board.idle() {
            tokio::select! {
                () = board.remote.notified() => {}
                () = tokio::time::sleep(Duration::from_millis(200)) => {}
            }
        }
        if board.finished() {
            return;
        }
        let begun = async {
            let client = match client {
                Some(client) => client,
                None => Client::connect(&self.settings).await?,
            };
            // What is shipped is known.
            if self.settings.clang.is_some() {
                self.check_version(&client).await?;
            }
            Ok(client)
        };
        let client = tokio::select! {
            client = begun => client,
            () = over(board) => return,
        };
        let client = match client {
            Ok(client) => client,
            Err(status) => {
                self.counts.note(&status);
                return self.alone();
            }
        };
        let over = AtomicBool::new(false);
        let prepared = AtomicUsize::new(0);
        let mut running = FuturesUnordered::new();
        let mut telling = FuturesUnordered::new();
        loop {
            while prepared.load(Ordering::Relaxed) < ahead(&self.settings)
                && !over.load(Ordering::Relaxed)
                && let Some((place, task, next)) = board.take_remote()
            {
                let call = Call {
                    client: &client,
                    board,
                    place,
                    prepared: Counted::new(&prepared, task.share()),
                    task,
                    next,
                };
                running.push(self.one(call, tell, &over));
            }
            self.full.store(client.full(), Ordering::Relaxed);
            if board.finished() || over.load(Ordering::Relaxed) {
                break;
            }
            tokio::select! {
                _ = running.next(), if !running.is_empty() => {}
                _ = telling.next(), if !telling.is_empty() => {}
                Some((task, object)) = made_here.recv() => {
                    telling.push(self.share(&client, task, object));
                }
                () = board.remote.notified() => {}
                () = tokio::time::sleep(Duration::from_millis(200)) => {}
            }
        }
        drop(running);
        if !over.load(Ordering::Relaxed) {
            let rest = async {
                while let Ok((task, object)) = made_here.try_recv() {
                    telling.push(self.share(&client, task, object));
                }
                while telling.next().await.is_some() {}
            };
            if tokio::time::timeout(PARTING, rest).await.is_err() {
                log::info!("results that were made here did not all reach the server in time");
            }
        }
        let traffic = (
            client.blobs.traffic.up.load(Ordering::Relaxed),
            client.blobs.traffic.down.load(Ordering::Relaxed),
        );
        *self
            .counts
            .traffic
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = traffic;
    }

    /// Whether the workers' clang is the one of this lld. An object of another one would be other code.
    async fn check_version(&self, client: &Client) -> Result<(), Status> {
        let tool = self.store.tool();
        let action = Action::asking_version(tool);
        let (result, _) = client.run(&action, 0, &|_| {}).await?;
        let mut said = result.stdout_raw.clone();
        if let (true, Some(digest)) = (said.is_empty(), &result.stdout_digest)
            && let Some(digest) = Digest::from_api(digest)
        {
            (said, _) = client.blobs.fetch(&digest).await?;
        }
        let said = String::from_utf8_lossy(&said);
        let first = said.lines().next().unwrap_or_default();
        if first == tool.banner {
            return Ok(());
        }
        Err(Status::failed_precondition(format!(
            "{} there says {first:?} (exit code {}), ours {:?}",
            tool.command.join(" "),
            result.exit_code,
            tool.banner
        )))
    }

    /// Gives the server an object that was made here, if it takes such.
    async fn share(&self, client: &Client, task: Arc<Task>, object: Vec<u8>) {
        if !client.takes_results {
            return;
        }
        let digest = Digest::of(&object);
        let result = api::ActionResult {
            output_files: vec![api::OutputFile {
                path: OBJECT.into(),
                digest: Some(digest.as_api()),
                ..api::OutputFile::default()
            }],
            ..api::ActionResult::default()
        };
        let blobs = HashMap::from([(digest, Content::Bytes(object))]);
        let told = async {
            // After what jobs wait for.
            client.blobs.provide(&blobs, usize::MAX).await?;
            client.tell(&task.action.digest, &result).await
        };
        if let Err(status) = told.await {
            log::info!("an object made here was not shared: {}", in_short(&status));
        }
    }

    async fn one(&self, call: Call<'_>, tell: Tell<'_>, over: &AtomicBool) {
        let Call {
            board, place, task, ..
        } = &call;
        let place = *place;
        let ended = task.over.notified();
        tokio::pin!(ended);
        ended.as_mut().enable();
        if !board.wanted_remotely(place) {
            return;
        }
        let result = tokio::select! {
            result = self.object_of(&call) => result,
            () = ended => return,
        };
        match result {
            Ok(None) => board.missed(place),
            Ok(Some(outcome)) => {
                self.counts.in_a_row.store(0, Ordering::Relaxed);
                board.received();
                let count = match &outcome {
                    Outcome::Object(object, told) => {
                        self.store.keep_file(&task.action.digest, object);
                        match told {
                            ObjectSource::Cache => &self.counts.hits,
                            ObjectSource::Compiled => &self.counts.executed,
                        }
                    }
                    Outcome::Diagnosed(_) => &self.counts.executed,
                };
                if tell(Some(place), &task.job, Ok(outcome)) {
                    count.fetch_add(1, Ordering::Relaxed);
                }
            }
            Err(status) => {
                log::info!(
                    "{} is compiled here: {}",
                    task.job.identifier,
                    in_short(&status)
                );
                self.counts.note(&status);
                let refused = matches!(
                    status.code(),
                    Code::PermissionDenied | Code::Unauthenticated | Code::Unimplemented
                );
                let failed = self.counts.in_a_row.fetch_add(1, Ordering::Relaxed) + 1;
                if refused || failed >= PATIENCE {
                    over.store(true, Ordering::Relaxed);
                    self.alone();
                } else {
                    board.failed(place);
                }
            }
        }
    }

    /// A job's object: what the server's cache has, if anything, or what is made there.
    async fn object_of(&self, call: &Call<'_>) -> Result<Option<Outcome>, Status> {
        let (client, task) = (call.client, &call.task);
        let key = &task.action.digest;
        if call.next == Next::Ask {
            let Some(result) = client.cached(key).await? else {
                return Ok(None);
            };
            // A result that cannot be had, or is none, is made anew.
            let received = self
                .receive(client, &task.job, &result, ObjectSource::Cache)
                .await;
            return Ok(received.ok());
        }
        let stage = |stage| match stage {
            Stage::Sent => call.prepared.end(),
            Stage::Runs => call.board.runs(call.place),
        };
        let (result, cached) = client.run(&task.action, call.place, &stage).await?;
        let told = if cached {
            ObjectSource::Cache
        } else {
            ObjectSource::Compiled
        };
        let outcome = self.receive(client, &task.job, &result, told).await?;
        Ok(Some(outcome))
    }

    /// Gets the object that a result names, and checks it.
    async fn receive(
        &self,
        client: &Client,
        job: &Job,
        result: &api::ActionResult,
        told: ObjectSource,
    ) -> Result<Outcome, Status> {
        if result.exit_code != 0 {
            let said = String::from_utf8_lossy(&result.stderr_raw);
            return Err(Status::aborted(format!(
                "clang ended with {} there: {}",
                result.exit_code,
                crate::sys::process::first_error_line(&said)
            )));
        }
        let said = |raw: &[u8], digest: &Option<api::Digest>| {
            !raw.is_empty() || digest.as_ref().is_some_and(|d| d.size_bytes > 0)
        };
        if said(&result.stderr_raw, &result.stderr_digest)
            || said(&result.stdout_raw, &result.stdout_digest)
        {
            let said = String::from_utf8_lossy(&result.stderr_raw).into_owned();
            return Ok(Outcome::Diagnosed(said));
        }
        let file = result.output_files.iter().find(|f| f.path == OBJECT);
        let file = file.ok_or_else(|| Status::data_loss("a result without an object"))?;
        let digest = file.digest.as_ref().and_then(Digest::from_api);
        let digest = digest.ok_or_else(|| Status::data_loss("an object without a digest"))?;
        let (data, _room) = if !file.contents.is_empty() && Digest::of(&file.contents) == digest {
            (file.contents.clone(), None)
        } else {
            client.blobs.fetch(&digest).await?
        };
        if !job.plausible(&data) {
            return Err(Status::data_loss(
                "an answer that is not this module's object",
            ));
        }
        let object = self.object(job);
        // Not here: where disks are slow, a write that waits for one would hold up all calls.
        tokio::fs::write(&object, data).await?;
        Ok(Outcome::Object(object, told))
    }
}
