//! A client of the Remote Execution API, version 2: capabilities, action cache, blobs, executions.
//!
//! Every call has a time limit, transient errors are retried with growing, randomized pauses, and nothing
//! that a server says is believed before it is checked: blobs against their digests, sizes against what was
//! asked for. Each kind of call has its own connections, so that nothing short waits behind something long.

use super::auth::Credentials;
use super::blobs::{BlobLimits, Downloader, Uploader};
use super::calls::{Caller, TLS_ALERT, connection_closed, root_cause, within};
use super::connections::Connections;
use super::execution::{ExecutionEnd, ExecutionStage, Executions};
use crate::executor::tuning::{
    CONNECT_TIMEOUT, CONNECTION_WINDOW, KEEP_ALIVE, MAX_INPUT_ATTEMPTS, MAX_RESULT, STREAM_WINDOW,
};
use crate::jobs::action::{Action, Digest};
use crate::jobs::job::OBJECT;
use bazel_remote_apis::build::bazel::remote::execution::v2 as api;
use shim::config::ServerSettings;
use std::path::Path;
use std::sync::Arc;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Status};

/// A server that has answered.
#[derive(Debug)]
pub(super) struct Client {
    caller: Arc<Caller>,
    /// For calls that are short and answered at once.
    short_calls: Arc<Connections>,
    /// For GetActionResult, whose answers may include objects.
    lookups: Connections,
    executions: Executions,
    pub(super) uploads: Uploader,
    pub(super) downloads: Downloader,
    pub(super) capabilities: Capabilities,
}

/// What a server can do.
#[derive(Debug)]
pub(super) struct Capabilities {
    blob_limits: BlobLimits,
    /// Whether it executes; else it is a cache.
    pub(super) executes: bool,
    /// Whether it takes results that were made elsewhere (UpdateActionResult).
    pub(super) accepts_results: bool,
    /// The digest functions that it names, as the API numbers them.
    pub(super) digest_functions: Vec<i32>,
    /// Bytes of blobs in a batch, as it says; 0 for any number.
    pub(super) max_batch: i64,
}

impl Client {
    /// Connects and asks what the server can do. Fails if it has no cache that we can use.
    pub(super) async fn connect(settings: &ServerSettings) -> Result<Self, Status> {
        let credentials = read_credentials(settings).await?;
        Self::connect_with(settings, credentials).await
    }

    /// The same with credentials that were read.
    pub(super) async fn connect_with(
        settings: &ServerSettings,
        credentials: Credentials,
    ) -> Result<Self, Status> {
        let endpoint = endpoint(settings)?;
        let timeout = settings.timeout.min(CONNECT_TIMEOUT);
        let connections = |n| Connections::new(n, &endpoint, timeout, &credentials);
        let caller = Arc::new(Caller {
            settings: settings.clone(),
            credentials: credentials.clone(),
        });
        let short_calls = Arc::new(connections(1));
        let capabilities = get_capabilities(&caller, &short_calls)
            .await
            .map_err(|status| with_tls_hint(status, settings))?;
        let limits = capabilities.blob_limits;
        Ok(Self {
            lookups: connections(1),
            executions: Executions::new(caller.clone(), connections),
            uploads: Uploader::new(
                caller.clone(),
                short_calls.clone(),
                connections(settings.connections),
                limits,
            ),
            downloads: Downloader::new(caller.clone(), connections(settings.connections), limits),
            capabilities,
            short_calls,
            caller,
        })
    }

    /// The result that the server's action cache has for an action, if any, and if it is of a reasonable size.
    pub(super) async fn get_action_result(
        &self,
        action: &Digest,
    ) -> Result<Option<api::ActionResult>, Status> {
        match self.look_up(action, vec![OBJECT.into()]).await {
            Err(status) if status.code() == Code::OutOfRange => self.look_up_alone(action).await,
            found => found,
        }
    }

    /// The same without the object itself.
    async fn look_up_alone(&self, action: &Digest) -> Result<Option<api::ActionResult>, Status> {
        match self.look_up(action, Vec::new()).await {
            Err(status) if status.code() == Code::OutOfRange => Ok(None),
            found => found,
        }
    }

    /// Looks an action up, to get these of its files with the result. The error OUT_OF_RANGE, which is tonic's, is that the
    /// answer is larger than [`MAX_RESULT`].
    async fn look_up(
        &self,
        action: &Digest,
        inline_output_files: Vec<String>,
    ) -> Result<Option<api::ActionResult>, Status> {
        let found = self
            .caller
            .call(|| async {
                let mut client =
                    api::action_cache_client::ActionCacheClient::new(self.lookups.next())
                        .max_decoding_message_size(MAX_RESULT);
                let request = api::GetActionResultRequest {
                    instance_name: self.caller.settings.instance.clone(),
                    action_digest: Some(action.as_api()),
                    inline_output_files: inline_output_files.clone(),
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

    /// Puts a result that was made elsewhere into the server's action cache.
    pub(super) async fn update_action_result(
        &self,
        action: &Digest,
        result: &api::ActionResult,
    ) -> Result<(), Status> {
        self.caller
            .call(|| async {
                let mut client =
                    api::action_cache_client::ActionCacheClient::new(self.short_calls.next());
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

    /// Uploads what the server lacks of an action, the lowest `priority` number first, and has it executed.
    /// `on_stage` is called as the execution proceeds. Returns the result, and whether the server had it
    /// already.
    pub(super) async fn execute(
        &self,
        action: &Action,
        priority: usize,
        on_stage: &(dyn Fn(ExecutionStage) + Sync),
    ) -> Result<(Box<api::ActionResult>, bool), Status> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            self.uploads
                .ensure_uploaded(&action.blobs, priority)
                .await?;
            let ended = match self.executions.execute(&action.digest, on_stage).await {
                // The answer is too large: the same without what need not be in it.
                Err(status) if status.code() == Code::OutOfRange => {
                    let result = self.look_up_alone(&action.digest).await?;
                    ExecutionEnd::Result(Box::new(result.ok_or(status)?), false)
                }
                ended => ended?,
            };
            match ended {
                ExecutionEnd::Result(result, cached) => return Ok((result, cached)),
                ExecutionEnd::InputsMissing(status) if attempt == MAX_INPUT_ATTEMPTS => {
                    return Err(Status::failed_precondition(format!(
                        "the server loses inputs that it was sent: {}",
                        status.message()
                    )));
                }
                ExecutionEnd::InputsMissing(_) => self.uploads.forget(action.blobs.keys()),
            }
        }
    }

    /// Whether no further execution can begin before one ends.
    pub(super) fn all_slots_busy(&self) -> bool {
        self.executions.all_slots_busy()
    }
}

/// Reads the file of headers and runs the credential helper, within the time limit of a call.
pub(super) async fn read_credentials(settings: &ServerSettings) -> Result<Credentials, Status> {
    let owned = settings.clone();
    let limit = settings.timeout;
    let late = || format!("no credentials within {} s", limit.as_secs());
    let read = async {
        let credentials = tokio::task::spawn_blocking(move || Credentials::read(&owned)).await;
        let credentials = credentials.unwrap_or_else(|e| Err(std::io::Error::other(e)));
        credentials.map_err(|e| invalid("credentials", &e))
    };
    within(limit, late, read).await
}

fn invalid(what: &str, e: &dyn std::fmt::Display) -> Status {
    Status::invalid_argument(format!("{what}: {e}"))
}

/// How to connect, with TLS if the settings say so.
fn endpoint(settings: &ServerSettings) -> Result<Endpoint, Status> {
    let endpoint = Endpoint::from_shared(settings.endpoint.clone())
        .map_err(|e| invalid("LDWRAP_REMOTE", &e))?
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(settings.timeout.min(KEEP_ALIVE))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .user_agent(concat!("ldwrap/", env!("CARGO_PKG_VERSION")))
        .map_err(|e| invalid("user agent", &e))?;
    if !settings.tls {
        return Ok(endpoint);
    }
    let read = |setting: &str, file: &Path| {
        std::fs::read(file).map_err(|e| invalid(setting, &format!("{}: {e}", file.display())))
    };
    let mut tls = ClientTlsConfig::new();
    tls = match &settings.ca {
        Some(ca) => tls.ca_certificate(Certificate::from_pem(read("LDWRAP_REMOTE_CA", ca)?)),
        None => tls.with_native_roots(),
    };
    if let (Some(cert), Some(key)) = (&settings.certificate, &settings.key) {
        tls = tls.identity(Identity::from_pem(
            read("LDWRAP_REMOTE_CERT", cert)?,
            read("LDWRAP_REMOTE_KEY", key)?,
        ));
    }
    endpoint.tls_config(tls).map_err(|e| {
        let cause = root_cause(&e).unwrap_or_else(|| e.to_string());
        invalid(
            "LDWRAP_REMOTE_CA, LDWRAP_REMOTE_CERT, LDWRAP_REMOTE_KEY",
            &cause,
        )
    })
}

async fn get_capabilities(
    caller: &Caller,
    connections: &Connections,
) -> Result<Capabilities, Status> {
    let found = caller
        .call(|| async {
            let mut client = api::capabilities_client::CapabilitiesClient::new(connections.next());
            let request = api::GetCapabilitiesRequest {
                instance_name: caller.settings.instance.clone(),
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
    Ok(Capabilities {
        blob_limits: BlobLimits::of(&cache),
        executes: found.execution_capabilities.is_some_and(|e| e.exec_enabled),
        accepts_results: cache
            .action_cache_update_capabilities
            .as_ref()
            .is_some_and(|u| u.update_enabled),
        max_batch: cache.max_batch_total_size_bytes,
        digest_functions: cache.digest_functions,
    })
}

/// Explains a connection that the server closed. With TLS 1.3 it does so after the handshake if it requires
/// or refuses a client certificate, and its alert seldom arrives.
fn with_tls_hint(status: Status, settings: &ServerSettings) -> Status {
    if !(settings.tls && connection_closed(&status)) {
        return status;
    }
    let alert = root_cause(&status).filter(|cause| cause.contains(TLS_ALERT));
    let alert = alert.unwrap_or_else(|| "the connection was closed".into());
    let hint = match settings.certificate {
        None => "the server may want a certificate (LDWRAP_REMOTE_CERT)",
        Some(_) => "the server may not take the certificate of LDWRAP_REMOTE_CERT",
    };
    Status::unauthenticated(format!("{alert}; {hint}"))
}
