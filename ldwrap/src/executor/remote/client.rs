//! A client of the Remote Execution API, version 2: capabilities, blobs, the action cache, execution.
//!
//! Every call has a time limit, transient errors are tried again with growing, jittered pauses, and
//! nothing that a server says is believed before it is checked: blobs against their digests, sizes
//! against what was asked for.

use super::auth::{Credentials, Headers};
use super::blobs::{BATCH, Blobs, ZSTD};
use super::connections::Connections;
use super::settings::Settings;
use crate::jobs::action::{Action, Digest};
use bazel_remote_apis::build::bazel::remote::execution::v2 as api;
use bazel_remote_apis::google::longrunning::{Operation, operation};
use bazel_remote_apis::google::rpc;
use prost::Message;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::AtomicU64;
use std::time::Duration;
use tokio::sync::Semaphore;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Status};

/// Objects and answers larger than this are refused.
pub(super) const MAX_MESSAGE: usize = 64 << 20;
/// How often a call is tried.
const TRIES: u32 = 4;
/// The first pause between two tries; each further one is twice as long.
const PAUSE: Duration = Duration::from_millis(100);
/// How much may be on its way from the server in a call, and on a connection, before we have read it
/// (bytes): what a line of 1 Gbit/s takes in 60 ms. Fixed, since windows that follow what was seen
/// begin small, and grow too late for a link.
const STREAM_WINDOW: u32 = 2 << 20;
const CONNECTION_WINDOW: u32 = 8 << 20;
/// Executions on one connection. Servers allow 100 calls or so; further ones would wait for those.
const STREAMS: usize = 80;
/// How often an action is sent again because the server had lost inputs.
const MISSING_TRIES: usize = 3;

/// What was moved and asked, for the report.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Bytes of blobs sent.
    pub up: AtomicU64,
    /// Bytes of blobs received.
    pub down: AtomicU64,
}

/// A server.
#[derive(Debug)]
pub struct Client {
    pub(super) settings: Settings,
    credentials: Credentials,
    /// For what is short and answered at once. No call of one kind waits behind those of another: this
    /// is why each kind has its connections.
    pub(super) questions: Connections,
    /// For results in the action cache, with their objects if the server adds them.
    lookups: Connections,
    /// For blobs that are sent.
    pub(super) uploads: Connections,
    /// For objects.
    pub(super) downloads: Connections,
    /// For executions, whose calls are open until they end.
    executions: Connections,
    /// Executions at once.
    slots: Semaphore,
    /// The most that a batch may have, in bytes.
    pub(super) batch: u64,
    pub(super) zstd: bool,
    pub(super) zstd_batch: bool,
    pub(super) blobs: Blobs,
    /// What was moved.
    pub traffic: Traffic,
    /// Whether the server takes results that were made elsewhere.
    pub takes_results: bool,
}

/// How far an execution is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The server has it.
    Sent,
    /// A worker has it.
    Runs,
}

/// What came of an execution.
#[derive(Debug)]
enum Executed {
    /// The command ended; with what.
    Result(Box<api::ActionResult>, bool),
    /// The server lacks inputs, as it says.
    Missing(Status),
}

impl Client {
    /// Connects and asks what the server can do.
    pub async fn connect(settings: &Settings) -> Result<Self, Status> {
        let bad = |what: &str, e: &dyn std::fmt::Display| {
            Status::invalid_argument(format!("{what}: {e}"))
        };
        let credentials = Credentials::read(settings).map_err(|e| bad("credentials", &e))?;
        let read = |what: &str, file: &std::path::Path| {
            std::fs::read(file).map_err(|e| bad(what, &format!("{}: {e}", file.display())))
        };
        let mut endpoint = Endpoint::from_shared(settings.endpoint.clone())
            .map_err(|e| bad("LDWRAP_REMOTE", &e))?
            .http2_keep_alive_interval(Duration::from_secs(20))
            .keep_alive_timeout(settings.timeout.min(Duration::from_secs(20)))
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .user_agent(concat!("ldwrap/", env!("CARGO_PKG_VERSION")))
            .map_err(|e| bad("user agent", &e))?;
        if settings.tls {
            let mut tls = ClientTlsConfig::new();
            tls = match &settings.ca {
                Some(ca) => {
                    tls.ca_certificate(Certificate::from_pem(read("LDWRAP_REMOTE_CA", ca)?))
                }
                None => tls.with_native_roots(),
            };
            if let Some((cert, key)) = &settings.identity {
                tls = tls.identity(Identity::from_pem(
                    read("LDWRAP_REMOTE_CERT", cert)?,
                    read("LDWRAP_REMOTE_KEY", key)?,
                ));
            }
            endpoint = endpoint.tls_config(tls).map_err(|e| {
                let cause = cause(&e).unwrap_or_else(|| e.to_string());
                bad(
                    "LDWRAP_REMOTE_CA, LDWRAP_REMOTE_CERT, LDWRAP_REMOTE_KEY",
                    &cause,
                )
            })?;
        }
        let within = settings.timeout.min(Duration::from_secs(10));
        let connections = |n| Connections::new(n, &endpoint, within, &credentials);
        let mut client = Self {
            settings: settings.clone(),
            questions: connections(1),
            lookups: connections(1),
            uploads: connections(settings.connections),
            downloads: connections(settings.connections),
            executions: connections(settings.jobs.div_ceil(STREAMS)),
            credentials,
            slots: Semaphore::new(settings.jobs),
            batch: BATCH,
            zstd: false,
            zstd_batch: false,
            blobs: Blobs::default(),
            traffic: Traffic::default(),
            takes_results: false,
        };
        match client.ask_capabilities().await {
            Ok(()) => Ok(client),
            // With TLS 1.3 a server closes the connection on a client whose certificate it misses or
            // does not take, and what it says then seldom arrives.
            Err(status) if settings.tls && hung_up(&status) => {
                let said = cause(&status).filter(|said| said.contains(ALERT));
                let said = said.unwrap_or_else(|| "the connection was closed".into());
                let hint = match settings.identity {
                    None => "the server may want a certificate (LDWRAP_REMOTE_CERT)",
                    Some(_) => "the server may not take the certificate of LDWRAP_REMOTE_CERT",
                };
                Err(Status::unauthenticated(format!("{said}; {hint}")))
            }
            Err(status) => Err(status),
        }
    }

    async fn ask_capabilities(&mut self) -> Result<(), Status> {
        let found = self
            .again(|| async {
                let mut client =
                    api::capabilities_client::CapabilitiesClient::new(self.questions.one());
                let request = api::GetCapabilitiesRequest {
                    instance_name: self.settings.instance.clone(),
                };
                Ok(client.get_capabilities(request).await?.into_inner())
            })
            .await?;
        let cache = found
            .cache_capabilities
            .ok_or_else(|| Status::unimplemented("the server has no cache"))?;
        let sha256 = api::digest_function::Value::Sha256 as i32;
        if !cache.digest_functions.contains(&sha256) {
            return Err(Status::unimplemented("the server does not know SHA-256"));
        }
        if !found.execution_capabilities.is_some_and(|e| e.exec_enabled) {
            return Err(Status::unimplemented("the server does not execute"));
        }
        if let Ok(most @ 1..) = u64::try_from(cache.max_batch_total_size_bytes) {
            self.batch = self.batch.min(most / 2);
        }
        self.zstd = cache.supported_compressors.contains(&ZSTD);
        self.zstd_batch = cache.supported_batch_update_compressors.contains(&ZSTD);
        self.takes_results = cache
            .action_cache_update_capabilities
            .is_some_and(|u| u.update_enabled);
        Ok(())
    }

    /// Makes a call up to [`TRIES`] times, as long as its error is one that passes, and once more with
    /// other credentials if ours are not taken.
    pub(super) async fn retry<T, F: Future<Output = Result<T, Status>>>(
        &self,
        passes: impl Fn(Code) -> bool,
        call: impl Fn() -> F,
    ) -> Result<T, Status> {
        let mut tried = 0;
        loop {
            tried += 1;
            let sent = self.credentials.now();
            match call().await {
                Err(status) if tried < TRIES && passes(status.code()) => pause(tried).await,
                Err(status) if tried < TRIES && self.renewed(&status, sent).await => {}
                result => return result,
            }
        }
    }

    /// Whether a call that was refused may be made again, with other credentials than were sent.
    async fn renewed(&self, status: &Status, sent: Headers) -> bool {
        if status.code() != Code::Unauthenticated {
            return false;
        }
        let (credentials, settings) = (self.credentials.clone(), self.settings.clone());
        // The user's program may take its time.
        let renew = tokio::task::spawn_blocking(move || credentials.renew(&settings, &sent));
        renew.await.unwrap_or(false)
    }

    /// Makes a call within the time limit, again after an error that may pass.
    pub(super) async fn again<T, F: Future<Output = Result<T, Status>>>(
        &self,
        call: impl Fn() -> F,
    ) -> Result<T, Status> {
        self.retry(may_pass, || async {
            tokio::time::timeout(self.settings.timeout, call())
                .await
                .unwrap_or_else(|_| {
                    Err(Status::deadline_exceeded(format!(
                        "no answer within {} s",
                        self.settings.timeout.as_secs()
                    )))
                })
        })
        .await
    }

    /// What the action cache has for a key.
    pub async fn cached(&self, action: &Digest) -> Result<Option<api::ActionResult>, Status> {
        let found = self
            .again(|| async {
                let mut client =
                    api::action_cache_client::ActionCacheClient::new(self.lookups.one())
                        .max_decoding_message_size(MAX_MESSAGE);
                let request = api::GetActionResultRequest {
                    instance_name: self.settings.instance.clone(),
                    action_digest: Some(action.to_api()),
                    inline_output_files: vec![crate::jobs::job::OBJECT.into()],
                    inline_stderr: true,
                    inline_stdout: true,
                    ..Default::default()
                };
                Ok(client.get_action_result(request).await?.into_inner())
            })
            .await;
        match found {
            Ok(result) => Ok(Some(result)),
            Err(status) if status.code() == Code::NotFound => Ok(None),
            Err(status) => Err(status),
        }
    }

    /// Tells the action cache a result that was made elsewhere.
    pub async fn tell(&self, action: &Digest, result: &api::ActionResult) -> Result<(), Status> {
        self.again(|| async {
            let mut client = api::action_cache_client::ActionCacheClient::new(self.questions.one());
            let request = api::UpdateActionResultRequest {
                instance_name: self.settings.instance.clone(),
                action_digest: Some(action.to_api()),
                action_result: Some(result.clone()),
                ..Default::default()
            };
            client.update_action_result(request).await.map(drop)
        })
        .await
    }

    /// Has an action run, after sending what the server lacks of it, for the lowest `rank` first; `stage`
    /// is told how far it is. Gives the result, and whether the server had it already.
    pub async fn run(
        &self,
        action: &Action,
        rank: usize,
        stage: &(dyn Fn(Stage) + Sync),
    ) -> Result<(Box<api::ActionResult>, bool), Status> {
        let mut tried = 0;
        loop {
            tried += 1;
            self.provide(&action.blobs, rank).await?;
            match self.execute(&action.digest, stage).await? {
                Executed::Result(result, cached) => return Ok((result, cached)),
                Executed::Missing(status) if tried == MISSING_TRIES => {
                    return Err(Status::failed_precondition(format!(
                        "the server loses inputs that it was sent: {}",
                        status.message()
                    )));
                }
                Executed::Missing(_) => self.forget(action.blobs.keys()),
            }
        }
    }

    /// Whether no further execution can begin before one ends.
    pub fn full(&self) -> bool {
        self.slots.available_permits() == 0
    }

    /// Runs an action whose blobs are there. A stream that breaks is taken up again by its operation's
    /// name.
    async fn execute(
        &self,
        action: &Digest,
        stage: &(dyn Fn(Stage) + Sync),
    ) -> Result<Executed, Status> {
        let _slot = self.slots.acquire().await.ok();
        stage(Stage::Sent);
        let run = self.execute_within(action, stage);
        tokio::time::timeout(self.settings.execution_timeout, run)
            .await
            .unwrap_or_else(|_| {
                Err(Status::deadline_exceeded(format!(
                    "not executed within {} s",
                    self.settings.execution_timeout.as_secs()
                )))
            })
    }

    async fn execute_within(
        &self,
        action: &Digest,
        stage: &(dyn Fn(Stage) + Sync),
    ) -> Result<Executed, Status> {
        let mut operation = String::new();
        let mut tried = 0;
        loop {
            tried += 1;
            let waits = !operation.is_empty();
            let sent = self.credentials.now();
            let status = match self.follow(action, &mut operation, stage).await {
                Ok(done) => match finished(done) {
                    Err(status) if is_missing(&status) => return Ok(Executed::Missing(status)),
                    Err(status) => status,
                    done => return done,
                },
                // An operation that the server has forgotten is begun anew.
                Err(status) if status.code() == Code::NotFound && waits => {
                    operation.clear();
                    status
                }
                Err(status) if is_missing(&status) => return Ok(Executed::Missing(status)),
                Err(status) => status,
            };
            let forgotten = status.code() == Code::NotFound;
            if tried < TRIES && self.renewed(&status, sent).await {
                continue;
            }
            if tried >= TRIES || !(may_pass(status.code()) || forgotten) {
                return Err(status);
            }
            pause(tried).await;
        }
    }

    /// Follows an operation to its end, or a new one if there is none yet.
    async fn follow(
        &self,
        action: &Digest,
        operation: &mut String,
        stage: &(dyn Fn(Stage) + Sync),
    ) -> Result<Operation, Status> {
        let mut client = api::execution_client::ExecutionClient::new(self.executions.one())
            .max_decoding_message_size(MAX_MESSAGE);
        let opening = async {
            if operation.is_empty() {
                let request = api::ExecuteRequest {
                    instance_name: self.settings.instance.clone(),
                    action_digest: Some(action.to_api()),
                    // Not the object: hundreds of answers at once would share the line, and all
                    // come late. Objects are fetched one after the other.
                    inline_stderr: true,
                    inline_stdout: true,
                    ..Default::default()
                };
                client.execute(request).await
            } else {
                let name = operation.clone();
                client
                    .wait_execution(api::WaitExecutionRequest { name })
                    .await
            }
        };
        // A server may answer only when the action has run, so the limit is the execution's.
        let mut stream = opening.await?.into_inner();
        while let Some(said) = stream.message().await? {
            if !said.name.is_empty() {
                said.name.clone_into(operation);
            }
            if said.done {
                return Ok(said);
            }
            let metadata = said.metadata.as_ref();
            let said =
                metadata.and_then(|any| api::ExecuteOperationMetadata::decode(&*any.value).ok());
            if said.is_some_and(|m| m.stage() == api::execution_stage::Value::Executing) {
                stage(Stage::Runs);
            }
        }
        Err(Status::unavailable("the stream ended before the execution"))
    }
}

/// What an operation that is done came to.
fn finished(operation: Operation) -> Result<Executed, Status> {
    let response = match operation.result {
        Some(operation::Result::Error(status)) => return Err(to_status(&status)),
        Some(operation::Result::Response(any)) => any.value,
        None => return Err(Status::internal("an execution ended with nothing")),
    };
    let response = api::ExecuteResponse::decode(&*response)
        .map_err(|e| Status::internal(format!("an execution's answer: {e}")))?;
    if let Some(status) = response.status.filter(|s| s.code != 0) {
        return Err(to_status(&status));
    }
    let result = response.result;
    let result = result.ok_or_else(|| Status::internal("an execution without a result"))?;
    Ok(Executed::Result(Box::new(result), response.cached_result))
}

pub(super) fn to_status(status: &rpc::Status) -> Status {
    Status::new(Code::from(status.code), status.message.clone())
}

/// "FAILED_PRECONDITION: One or more errors occurred in setting up the action requested, such as a
/// missing input" (remote_execution.proto). buildbox says NOT_FOUND.
fn is_missing(status: &Status) -> bool {
    matches!(status.code(), Code::FailedPrecondition | Code::NotFound)
}

/// Whether a call that failed may succeed when it is made again.
#[must_use]
pub fn may_pass(code: Code) -> bool {
    matches!(
        code,
        Code::Unavailable
            | Code::ResourceExhausted
            | Code::Aborted
            | Code::Internal
            | Code::Unknown
            | Code::Cancelled
    )
}

async fn pause(tried: u32) {
    let most = PAUSE * 2_u32.saturating_pow(tried - 1);
    // Between half and all of it.
    let part = RandomState::new().hash_one(tried) % 512;
    let wait = most / 2 + most * u32::try_from(part).unwrap_or(0) / 1024;
    tokio::time::sleep(wait).await;
}

/// What a status comes to in one line, for the user; servers' words may be many.
#[must_use]
pub fn in_short(status: &Status) -> String {
    let mut text = format!("{:?}", status.code());
    let words = status.message().lines().next().unwrap_or_default();
    if !words.is_empty() {
        text.push_str(": ");
        text.extend(words.chars().take(160));
    }
    if let Some(cause) = cause(status).filter(|cause| !text.contains(cause.as_str())) {
        text.push_str(&format!(" ({})", cause.lines().next().unwrap_or_default()));
    }
    text
}

/// The first cause of an error, which tonic hides in its sources.
fn cause(error: &dyn std::error::Error) -> Option<String> {
    let first = std::iter::successors(error.source(), |e| e.source()).last();
    first.map(ToString::to_string)
}

/// In what rustls says of a peer's last word.
const ALERT: &str = "fatal alert";

/// Whether a call ended because the server closed the connection.
fn hung_up(status: &Status) -> bool {
    let said = in_short(status);
    ["closed", "reset", "broken pipe", ALERT]
        .iter()
        .any(|how| said.contains(how))
}
