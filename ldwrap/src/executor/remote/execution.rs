//! Executions of actions whose inputs the server has.

use super::calls::{Caller, back_off, is_transient, to_status, within};
use super::connections::Connections;
use crate::executor::tuning::{MAX_ATTEMPTS, MAX_RESULT, STREAMS_PER_CONNECTION};
use crate::jobs::action::Digest;
use bazel_remote_apis::build::bazel::remote::execution::v2 as api;
use bazel_remote_apis::google::longrunning::{Operation, operation};
use prost::Message;
use std::sync::Arc;
use tokio::sync::Semaphore;
use tonic::{Code, Status};

/// How far an execution is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ExecutionStage {
    /// It has a slot; its inputs are there.
    Submitted,
    /// A worker executes it.
    Executing,
}

/// How an execution ended.
#[derive(Debug)]
pub(super) enum ExecutionEnd {
    /// The command ended. True if the server had the result already.
    Result(Box<api::ActionResult>, bool),
    /// The server says that it lacks inputs.
    InputsMissing(Status),
}

/// Executes actions, as many at once as the settings allow. Each call is open until its execution ends.
#[derive(Debug)]
pub(super) struct Executions {
    caller: Arc<Caller>,
    connections: Connections,
    slots: Semaphore,
}

impl Executions {
    pub(super) fn new(caller: Arc<Caller>, connections: impl Fn(usize) -> Connections) -> Self {
        let slots = caller.settings.jobs;
        Self {
            caller,
            connections: connections(slots.div_ceil(STREAMS_PER_CONNECTION)),
            slots: Semaphore::new(slots),
        }
    }

    /// Whether no further execution can begin before one ends.
    pub(super) fn all_slots_busy(&self) -> bool {
        self.slots.available_permits() == 0
    }

    /// Executes an action, once there is a slot, within the time limit of executions.
    pub(super) async fn execute(
        &self,
        action: &Digest,
        on_stage: &(dyn Fn(ExecutionStage) + Sync),
    ) -> Result<ExecutionEnd, Status> {
        let _slot = self.slots.acquire().await.ok();
        on_stage(ExecutionStage::Submitted);
        let limit = self.caller.settings.execution_timeout;
        let late = || format!("not executed within {} s", limit.as_secs());
        within(limit, late, self.execute_with_retries(action, on_stage)).await
    }

    /// Executes an action. If the stream of its operation breaks, the operation is followed further.
    async fn execute_with_retries(
        &self,
        action: &Digest,
        on_stage: &(dyn Fn(ExecutionStage) + Sync),
    ) -> Result<ExecutionEnd, Status> {
        let mut operation = String::new();
        let mut attempt = 0;
        loop {
            attempt += 1;
            let was_known = !operation.is_empty();
            let sent = self.caller.credentials.current();
            let status = match self.follow(action, &mut operation, on_stage).await {
                Ok(done) => match end_of(done) {
                    Err(status) if inputs_missing(&status) => {
                        return Ok(ExecutionEnd::InputsMissing(status));
                    }
                    Err(status) => status,
                    end => return end,
                },
                // The server has forgotten the operation: execute anew.
                Err(status) if status.code() == Code::NotFound && was_known => {
                    operation.clear();
                    status
                }
                Err(status) if inputs_missing(&status) => {
                    return Ok(ExecutionEnd::InputsMissing(status));
                }
                Err(status) => status,
            };
            let forgotten = status.code() == Code::NotFound;
            if attempt < MAX_ATTEMPTS && self.caller.credentials_renewed(&status, sent).await {
                continue;
            }
            if attempt >= MAX_ATTEMPTS || !(is_transient(status.code()) || forgotten) {
                return Err(status);
            }
            back_off(attempt).await;
        }
    }

    /// Follows the operation of that name to its end; begins one, and stores its name, if it is empty.
    async fn follow(
        &self,
        action: &Digest,
        operation: &mut String,
        on_stage: &(dyn Fn(ExecutionStage) + Sync),
    ) -> Result<Operation, Status> {
        let mut client = api::execution_client::ExecutionClient::new(self.connections.next())
            .max_decoding_message_size(MAX_RESULT);
        let opened = if operation.is_empty() {
            let request = api::ExecuteRequest {
                instance_name: self.caller.settings.instance.clone(),
                action_digest: Some(action.as_api()),
                // Not the object: hundreds of answers at once would share the line, and all come late.
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
        };
        // A server may answer only when the action has been executed, so that only the time limit of
        // executions applies.
        let mut stream = opened?.into_inner();
        while let Some(update) = stream.message().await? {
            if !update.name.is_empty() {
                update.name.clone_into(operation);
            }
            if update.done {
                return Ok(update);
            }
            // A stream that always has a message would keep all other calls waiting.
            tokio::task::yield_now().await;
            let metadata = update.metadata.as_ref();
            let metadata =
                metadata.and_then(|any| api::ExecuteOperationMetadata::decode(&*any.value).ok());
            if metadata.is_some_and(|m| m.stage() == api::execution_stage::Value::Executing) {
                on_stage(ExecutionStage::Executing);
            }
        }
        Err(Status::unavailable("the stream ended before the execution"))
    }
}

/// How an operation that is done ended.
fn end_of(operation: Operation) -> Result<ExecutionEnd, Status> {
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
    let cached = response.cached_result;
    Ok(ExecutionEnd::Result(Box::new(result), cached))
}

/// "FAILED_PRECONDITION: One or more errors occurred in setting up the action requested, such as a
/// missing input" (remote_execution.proto). buildbox says NOT_FOUND.
fn inputs_missing(status: &Status) -> bool {
    matches!(status.code(), Code::FailedPrecondition | Code::NotFound)
}
