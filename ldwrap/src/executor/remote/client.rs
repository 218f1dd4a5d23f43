//! A client of the Remote Execution API, version 2: capabilities, blobs, the action cache, execution.
//!
//! Every call has a time limit, transient errors are tried again with growing, jittered pauses, and
//! nothing that a server says is believed before it is checked: blobs against their digests, sizes
//! against what was asked for.

use super::auth::Credentials;
use super::blobs::{Blobs, Taken, ZSTD};
use super::calls::{ALERT, Caller, MAX_MESSAGE, TRIES, cause, hung_up, may_pass, pause, to_status};
use super::connections::Connections;
use crate::jobs::action::{Action, Digest};
use bazel_remote_apis::build::bazel::remote::execution::v2 as api;
use bazel_remote_apis::google::longrunning::{Operation, operation};
use prost::Message;
use shim::config::ServerSettings;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Status};

/// How much may be on its way from the server in a call, and on a connection, before we have read it
/// (bytes): what a line of 1 Gbit/s takes in 60 ms. Fixed, since windows that follow what was seen
/// begin small, and grow too late for a link.
const STREAM_WINDOW: u32 = 2 << 20;
const CONNECTION_WINDOW: u32 = 8 << 20;
/// Executions on one connection. Servers allow 100 calls or so; further ones would wait for those.
const STREAMS: usize = 80;
/// How often an action is sent again because the server had lost inputs.
const MISSING_TRIES: usize = 3;

/// A server.
#[derive(Debug)]
pub struct Client {
    caller: Arc<Caller>,
    /// For what is short and answered at once. No call of one kind waits behind those of another: this
    /// is why each kind has its connections.
    questions: Arc<Connections>,
    /// For results in the action cache, with their objects if the server adds them.
    lookups: Connections,
    /// For executions, whose calls are open until they end.
    executions: Connections,
    /// Executions at once.
    slots: Semaphore,
    /// What is sent and received.
    pub(super) blobs: Blobs,
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
    pub async fn connect(settings: &ServerSettings) -> Result<Self, Status> {
        let bad = |what: &str, e: &dyn std::fmt::Display| {
            Status::invalid_argument(format!("{what}: {e}"))
        };
        // The user's program may take its time.
        let theirs = settings.clone();
        let credentials = tokio::task::spawn_blocking(move || Credentials::read(&theirs)).await;
        let credentials = credentials.unwrap_or_else(|e| Err(std::io::Error::other(e)));
        let credentials = credentials.map_err(|e| bad("credentials", &e))?;
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
            if let (Some(cert), Some(key)) = (&settings.certificate, &settings.key) {
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
        let questions = Arc::new(connections(1));
        let lookups = connections(1);
        let (uploads, downloads) = (
            connections(settings.connections),
            connections(settings.connections),
        );
        let executions = connections(settings.jobs.div_ceil(STREAMS));
        let caller = Arc::new(Caller {
            settings: settings.clone(),
            credentials,
        });
        let mut client = Self {
            blobs: Blobs::new(caller.clone(), questions.clone(), uploads, downloads),
            caller,
            questions,
            lookups,
            executions,
            slots: Semaphore::new(settings.jobs),
            takes_results: false,
        };
        match client.ask_capabilities().await {
            Ok(()) => Ok(client),
            // With TLS 1.3 a server closes the connection on a client whose certificate it misses or
            // does not take, and what it says then seldom arrives.
            Err(status) if settings.tls && hung_up(&status) => {
                let said = cause(&status).filter(|said| said.contains(ALERT));
                let said = said.unwrap_or_else(|| "the connection was closed".into());
                let hint = match settings.certificate {
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
            .caller
            .again(|| async {
                let mut client =
                    api::capabilities_client::CapabilitiesClient::new(self.questions.one());
                let request = api::GetCapabilitiesRequest {
                    instance_name: self.caller.settings.instance.clone(),
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
        self.blobs.takes(Taken {
            batch: u64::try_from(cache.max_batch_total_size_bytes).unwrap_or(0),
            zstd: cache.supported_compressors.contains(&ZSTD),
            zstd_batch: cache.supported_batch_update_compressors.contains(&ZSTD),
        });
        self.takes_results = cache
            .action_cache_update_capabilities
            .is_some_and(|u| u.update_enabled);
        Ok(())
    }

    /// What the action cache has for a key.
    pub async fn cached(&self, action: &Digest) -> Result<Option<api::ActionResult>, Status> {
        let found = self
            .caller
            .again(|| async {
                let mut client =
                    api::action_cache_client::ActionCacheClient::new(self.lookups.one())
                        .max_decoding_message_size(MAX_MESSAGE);
                let request = api::GetActionResultRequest {
                    instance_name: self.caller.settings.instance.clone(),
                    action_digest: Some(action.as_api()),
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
        self.caller
            .again(|| async {
                let mut client =
                    api::action_cache_client::ActionCacheClient::new(self.questions.one());
                let request = api::UpdateActionResultRequest {
                    instance_name: self.caller.settings.instance.clone(),
                    action_digest: Some(action.as_api()),
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
            self.blobs.provide(&action.blobs, rank).await?;
            match self.execute(&action.digest, stage).await? {
                Executed::Result(result, cached) => return Ok((result, cached)),
                Executed::Missing(status) if tried == MISSING_TRIES => {
                    return Err(Status::failed_precondition(format!(
                        "the server loses inputs that it was sent: {}",
                        status.message()
                    )));
                }
                Executed::Missing(_) => self.blobs.forget(action.blobs.keys()),
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
        tokio::time::timeout(self.caller.settings.execution_timeout, run)
            .await
            .unwrap_or_else(|_| {
                Err(Status::deadline_exceeded(format!(
                    "not executed within {} s",
                    self.caller.settings.execution_timeout.as_secs()
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
            let sent = self.caller.credentials.now();
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
            if tried < TRIES && self.caller.renewed(&status, sent).await {
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
                    instance_name: self.caller.settings.instance.clone(),
                    action_digest: Some(action.as_api()),
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

/// "FAILED_PRECONDITION: One or more errors occurred in setting up the action requested, such as a
/// missing input" (remote_execution.proto). buildbox says NOT_FOUND.
fn is_missing(status: &Status) -> bool {
    matches!(status.code(), Code::FailedPrecondition | Code::NotFound)
}
