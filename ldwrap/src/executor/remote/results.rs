//! ActionResults: what of them is believed, and those that we make.

use super::client::Client;
use crate::executor::{FinishedObject, ObjectSource, Outcome};
use crate::jobs::action::{Action, Content, Digest, Tool};
use crate::jobs::job::{Job, OBJECT};
use crate::sys::process::first_error_line;
use bazel_remote_apis::build::bazel::remote::execution::v2 as api;
use std::path::PathBuf;
use std::time::Duration;
use tonic::Status;

/// A server that says that an execution took longer is not believed.
const LONGEST_EXECUTION: Duration = Duration::from_secs(24 * 3600);

/// Checks the result of a job, downloads its object and writes that to `to`.
pub(super) async fn receive_object(
    client: &Client,
    job: &Job,
    result: &api::ActionResult,
    source: ObjectSource,
    to: PathBuf,
) -> Result<Outcome, Status> {
    if result.exit_code != 0 {
        let messages = String::from_utf8_lossy(&result.stderr_raw);
        return Err(Status::aborted(format!(
            "clang ended with {} there: {}",
            result.exit_code,
            first_error_line(&messages)
        )));
    }
    let has_output = |raw: &[u8], digest: &Option<api::Digest>| {
        !raw.is_empty() || digest.as_ref().is_some_and(|d| d.size_bytes > 0)
    };
    if has_output(&result.stderr_raw, &result.stderr_digest)
        || has_output(&result.stdout_raw, &result.stdout_digest)
    {
        let messages = String::from_utf8_lossy(&result.stderr_raw).into_owned();
        return Ok(Outcome::Diagnosed(messages));
    }
    let file = result.output_files.iter().find(|f| f.path == OBJECT);
    let file = file.ok_or_else(|| Status::data_loss("a result without an object"))?;
    let digest = file.digest.as_ref().and_then(Digest::from_api);
    let digest = digest.ok_or_else(|| Status::data_loss("an object without a digest"))?;
    let (data, _window) = if !file.contents.is_empty() && Digest::of(&file.contents) == digest {
        (file.contents.clone(), None)
    } else {
        client.downloads.fetch(&digest).await?
    };
    if !job.expected.matches(&data) {
        return Err(Status::data_loss(
            "an answer that is not this module's object",
        ));
    }
    // On a thread for blocking calls: a slow disk would hold up all calls to the server.
    tokio::fs::write(&to, data).await?;
    Ok(Outcome::Object(FinishedObject {
        path: to,
        source,
        took: result.execution_metadata.as_ref().and_then(execution_time),
    }))
}

/// How long a worker executed the command, if the server says so.
fn execution_time(metadata: &api::ExecutedActionMetadata) -> Option<Duration> {
    let from = metadata.execution_start_timestamp.as_ref()?;
    let to = metadata.execution_completed_timestamp.as_ref()?;
    let seconds = u64::try_from(to.seconds.checked_sub(from.seconds)?).ok()?;
    let nanos = Duration::from_nanos(u64::try_from(to.nanos).ok()?);
    let end = Duration::from_secs(seconds).checked_add(nanos)?;
    let took = end.checked_sub(Duration::from_nanos(u64::try_from(from.nanos).ok()?))?;
    // More is a wrong clock.
    (took < LONGEST_EXECUTION).then_some(took)
}

/// Gives the server the object of an action that was made here. The Action and its Command go with it: "the
/// client MUST first upload the Action that produced the result, along with its Command" (remote_execution.proto,
/// "UpdateActionResult"). What the command reads does not.
pub(super) async fn share_object(
    client: &Client,
    action: &Action,
    object: Vec<u8>,
) -> Result<(), Status> {
    let digest = Digest::of(&object);
    let result = api::ActionResult {
        output_files: vec![api::OutputFile {
            path: OBJECT.into(),
            digest: Some(digest.as_api()),
            ..api::OutputFile::default()
        }],
        ..api::ActionResult::default()
    };
    let mut blobs = action.without_inputs().blobs;
    blobs.insert(digest, Content::Bytes(object));
    // After the inputs of jobs, which workers wait for.
    let last = usize::MAX;
    client.uploads.ensure_uploaded(&blobs, last).await?;
    client.update_action_result(&action.digest, &result).await
}

/// Has a program executed that says its version: the result, and its standard output.
pub(super) async fn ask_version(
    client: &Client,
    tool: &Tool,
) -> Result<(Box<api::ActionResult>, String), Status> {
    let action = Action::asking_version(tool)?;
    let (result, _) = client.execute(&action, 0, &|_| {}).await?;
    let mut output = result.stdout_raw.clone();
    if let (true, Some(digest)) = (output.is_empty(), &result.stdout_digest) {
        if let Some(digest) = Digest::from_api(digest) {
            (output, _) = client.downloads.fetch(&digest).await?;
        }
    }
    let output = String::from_utf8_lossy(&output).into_owned();
    Ok((result, output))
}

/// Checks that the workers' own clang has this lld's version: another one would make other code.
pub(super) async fn check_clang_version(client: &Client, tool: &Tool) -> Result<(), Status> {
    let (result, output) = ask_version(client, tool).await?;
    let first = output.lines().next().unwrap_or_default();
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
