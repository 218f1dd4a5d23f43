//! The server's side of a board: drives tasks through lookup, upload, execution and download.

use super::calls::{is_refusal, one_line};
use super::client::Client;
use super::counts::Counts;
use super::execution::ExecutionStage;
use super::results::{check_clang_version, receive_object, share_object};
use crate::executor::board::{Board, RemoteStep, Task, TaskId, weight_of};
use crate::executor::tuning::{
    BOARD_POLL, MAX_CONSECUTIVE_FAILURES, MAX_LATE_UPLOADS, MIN_PREPARED, SHUTDOWN_GRACE,
    SLOTS_PER_PREPARED,
};
use crate::executor::{ObjectSource, Outcome};
use crate::jobs::job::Job;
use crate::jobs::store::Store;
use crate::sys::scratch::Scratch;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use shim::config::ServerSettings;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::UnboundedReceiver;
use tonic::Status;

/// Takes a job off the board, if it is on it, and reports its outcome; false if the other side was first.
pub(super) type FinishJob<'f> =
    &'f (dyn Fn(Option<TaskId>, &Job, Result<Outcome, String>) -> bool + Sync);

/// An object that was made here, for the server's action cache.
pub(super) struct LocalObject {
    pub(super) task: Arc<Task>,
    pub(super) bytes: Vec<u8>,
    /// For the memory that it takes.
    pub(super) _room: OwnedSemaphorePermit,
}

/// The weight of tasks that are looked up and uploaded at once, beside those that execute: inputs are to be
/// there when a slot becomes free.
pub(super) fn max_prepared_weight(settings: &ServerSettings) -> usize {
    weight_of(MIN_PREPARED + settings.jobs / SLOTS_PER_PREPARED)
}

/// What the server's side of a link works with.
pub(super) struct RemoteSide<'a> {
    pub(super) board: &'a Board,
    pub(super) store: &'a Store,
    /// Where downloaded objects go.
    pub(super) scratch: &'a Scratch,
    pub(super) settings: &'a ServerSettings,
    pub(super) counts: &'a Counts,
    /// Whether all execution slots are taken, for the order of jobs.
    pub(super) workers_busy: &'a AtomicBool,
    pub(super) finish: FinishJob<'a>,
    /// Whether the server has been given up.
    pub(super) abandoned: AtomicBool,
    /// Whether it takes no results that are made here.
    pub(super) sharing_refused: AtomicBool,
}

/// A task that a remote slot has taken.
struct RemoteTask<'c> {
    client: &'c Client,
    id: TaskId,
    task: Arc<Task>,
    step: RemoteStep,
    /// Until its execution begins.
    prepared: PreparedWeight<'c>,
}

/// Counts the weight of a task in a total until it ends or is dropped.
struct PreparedWeight<'c> {
    total: &'c AtomicUsize,
    weight: AtomicUsize,
}

impl<'c> PreparedWeight<'c> {
    fn new(total: &'c AtomicUsize, weight: usize) -> Self {
        total.fetch_add(weight, Ordering::Relaxed);
        let weight = AtomicUsize::new(weight);
        Self { total, weight }
    }

    fn end(&self) {
        let weight = self.weight.swap(0, Ordering::Relaxed);
        self.total.fetch_sub(weight, Ordering::Relaxed);
    }
}

impl Drop for PreparedWeight<'_> {
    fn drop(&mut self) {
        self.end();
    }
}

impl RemoteSide<'_> {
    /// Keeps the server busy until the board is empty, or the server is given up.
    pub(super) async fn serve(
        &self,
        client: Option<Client>,
        local_objects: UnboundedReceiver<LocalObject>,
    ) {
        // A link whose objects are all in the local cache makes no call.
        while self.board.idle() {
            self.board_changed().await;
        }
        if self.board.finished() {
            return;
        }
        let client = tokio::select! {
            client = self.ready_client(client) => client,
            () = self.board_finished() => return,
        };
        match client {
            Ok(client) => self.serve_with(&client, local_objects).await,
            Err(status) => {
                self.counts.note_trouble(&status);
                self.abandon();
            }
        }
    }

    /// Gives the server up: all that is left is done here.
    pub(super) fn abandon(&self) {
        // No line is waited for now, so the largest jobs are to be next.
        self.workers_busy.store(true, Ordering::Relaxed);
        self.abandoned.store(true, Ordering::Relaxed);
        self.board.abandon_remote();
    }

    fn is_abandoned(&self) -> bool {
        self.abandoned.load(Ordering::Relaxed)
    }

    async fn board_changed(&self) {
        tokio::select! {
            () = self.board.has_remote_work.notified() => {}
            () = tokio::time::sleep(BOARD_POLL) => {}
        }
    }

    async fn board_finished(&self) {
        while !self.board.finished() {
            self.board_changed().await;
        }
    }

    /// A connected client, of a server whose clang is ours if it executes.
    async fn ready_client(&self, client: Option<Client>) -> Result<Client, Status> {
        let client = match client {
            Some(client) => client,
            None => Client::connect(self.settings).await?,
        };
        self.sharing_refused
            .store(!client.capabilities.accepts_results, Ordering::Relaxed);
        if !client.capabilities.executes {
            log::info!("the server does not execute: it is a cache");
            self.board.expect_no_execution();
        } else if self.settings.clang.is_some() {
            // Without a clang of their own the workers get ours.
            check_clang_version(&client, self.store.tool()).await?;
        }
        Ok(client)
    }

    async fn serve_with(&self, client: &Client, mut local_objects: UnboundedReceiver<LocalObject>) {
        let prepared_weight = AtomicUsize::new(0);
        let mut running = FuturesUnordered::new();
        let mut sharing = FuturesUnordered::new();
        loop {
            while prepared_weight.load(Ordering::Relaxed) < max_prepared_weight(self.settings)
                && !self.is_abandoned()
            {
                let Some((id, task, step)) = self.board.take_remote() else {
                    break;
                };
                running.push(self.drive_task(RemoteTask {
                    client,
                    id,
                    prepared: PreparedWeight::new(&prepared_weight, task.weight()),
                    task,
                    step,
                }));
            }
            if self.board.finished() || self.is_abandoned() {
                break;
            }
            // Nothing is uploaded to a mere cache for a job to begin, so the largest are next.
            let busy = !client.capabilities.executes || client.all_slots_busy();
            self.workers_busy.store(busy, Ordering::Relaxed);
            tokio::select! {
                _ = running.next(), if !running.is_empty() => {}
                _ = sharing.next(), if !sharing.is_empty() => {}
                Some(object) = local_objects.recv() => sharing.push(self.share(client, object)),
                () = self.board_changed() => {}
            }
        }
        drop(running);
        if !self.is_abandoned() {
            let rest = async {
                while let Ok(object) = local_objects.try_recv() {
                    sharing.push(self.share(client, object));
                }
                while sharing.next().await.is_some() {}
            };
            // While lld writes its output nobody waits for uploads. They end all the same: what is left of lld's
            // lookups when all jobs are done goes on only after them.
            let limit = async {
                tokio::time::sleep(SHUTDOWN_GRACE).await;
                let lld_ends = async {
                    while !self.board.stopped() {
                        self.board_changed().await;
                    }
                };
                let _ = tokio::time::timeout(MAX_LATE_UPLOADS, lld_ends).await;
            };
            tokio::select! {
                () = rest => {}
                () = limit => {
                    log::info!("results that were made here did not all reach the server in time");
                }
            }
        }
        let (up, down) = (
            client.uploads.bytes_sent(),
            client.downloads.bytes_received(),
        );
        self.counts.bytes_up.store(up, Ordering::Relaxed);
        self.counts.bytes_down.store(down, Ordering::Relaxed);
    }

    /// Does a step of a task, and tells the board what came of it.
    async fn drive_task(&self, remote: RemoteTask<'_>) {
        let RemoteTask { id, task, .. } = &remote;
        let id = *id;
        let cancelled = task.remote_cancelled.notified();
        tokio::pin!(cancelled);
        // From here on no notification is missed.
        cancelled.as_mut().enable();
        if !self.board.wanted_remotely(id) {
            return;
        }
        let result = tokio::select! {
            result = self.do_step(&remote) => result,
            () = cancelled => return,
        };
        match result {
            Ok(None) => {
                if !remote.client.capabilities.executes {
                    // It is an answer, and all that there is to be had.
                    self.counts.consecutive_failures.store(0, Ordering::Relaxed);
                }
                self.board.lookup_missed(id);
            }
            Ok(Some(outcome)) => self.task_done(id, task, outcome),
            Err(status) => self.task_failed(id, task, &status),
        }
    }

    fn task_done(&self, id: TaskId, task: &Task, outcome: Outcome) {
        self.counts.consecutive_failures.store(0, Ordering::Relaxed);
        self.board.object_received();
        let count = match &outcome {
            Outcome::Object(object) => {
                self.store.keep_finished(&task.action.digest, object);
                match object.source {
                    ObjectSource::Cache => &self.counts.hits,
                    ObjectSource::Clang | ObjectSource::Elsewhere => &self.counts.executed,
                }
            }
            Outcome::Diagnosed(_) | Outcome::Absent(_) => &self.counts.executed,
        };
        if (self.finish)(Some(id), &task.job, Ok(outcome)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn task_failed(&self, id: TaskId, task: &Task, status: &Status) {
        log::info!(
            "{} is compiled here: {}",
            task.job.identifier,
            one_line(status)
        );
        self.counts.note_trouble(status);
        let failures = &self.counts.consecutive_failures;
        let failures = failures.fetch_add(1, Ordering::Relaxed) + 1;
        if is_refusal(status.code()) || failures >= MAX_CONSECUTIVE_FAILURES {
            self.abandon();
        } else {
            self.board.remote_failed(id);
        }
    }

    /// Looks a task up, or has it executed. `None` if the action cache has no usable result.
    async fn do_step(&self, remote: &RemoteTask<'_>) -> Result<Option<Outcome>, Status> {
        let (client, task) = (remote.client, &remote.task);
        let object = self.scratch.received(task.job.number);
        if remote.step == RemoteStep::LookUp {
            let Some(result) = client.get_action_result(&task.action.digest).await? else {
                return Ok(None);
            };
            let source = ObjectSource::Cache;
            let received = receive_object(client, &task.job, &result, source, object).await;
            // A cached result that is wrong, or whose object is gone, is made anew.
            return Ok(received.ok());
        }
        let on_stage = |stage| match stage {
            ExecutionStage::Submitted => remote.prepared.end(),
            ExecutionStage::Executing => self.board.execution_started(remote.id),
        };
        let (result, cached) = client.execute(&task.action, remote.id, &on_stage).await?;
        let source = if cached {
            ObjectSource::Cache
        } else {
            ObjectSource::Elsewhere
        };
        let outcome = receive_object(client, &task.job, &result, source, object).await?;
        Ok(Some(outcome))
    }

    /// Gives the server an object that was made here, unless it takes none.
    async fn share(&self, client: &Client, object: LocalObject) {
        if self.sharing_refused.load(Ordering::Relaxed) {
            return;
        }
        if let Err(status) = share_object(client, &object.task.action, object.bytes).await {
            log::info!("an object made here was not shared: {}", one_line(&status));
            if is_refusal(status.code()) {
                // Some servers say only now that we may not write (bazel-remote).
                self.sharing_refused.store(true, Ordering::Relaxed);
            }
        }
    }
}
