//! A server looked at for its user: does it answer, does it take our credentials, does it execute or is it a cache?
//!
//! With the calls that links make. A link makes its own way around whatever fails; this says what failed.

use super::calls::{one_line, within};
use super::client::{Client, read_credentials};
use super::server::Server;
use crate::jobs::action::{Digest, Tool};
use crate::sys::process::first_error_line;
use bazel_remote_apis::build::bazel::remote::execution::v2 as api;
use shim::config::ServerSettings;
use std::time::{Duration, Instant};
use tonic::{Code, Status};

/// A server that answers.
#[derive(Debug)]
pub(crate) struct ReachedServer {
    server: Server,
    pub(crate) settings: ServerSettings,
    /// How long it took to connect and to be told what it can do.
    pub(crate) time: Duration,
    /// What it can do, for people.
    pub(crate) capabilities: String,
    /// Whether it executes; else it is a cache.
    pub(crate) executes: bool,
    /// Whether it says that it takes results that were made here.
    pub(crate) accepts_results: bool,
}

/// Why a server is of no use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServerTrouble {
    pub(crate) kind: TroubleKind,
    /// What was said, in a line.
    pub(crate) text: String,
}

/// What kind of trouble it is, and so what can be done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TroubleKind {
    /// Nobody is there, or something else than such a server.
    Unreachable,
    /// Nothing was said within the time limit.
    Silent,
    /// Our credentials could not be read.
    NoCredentials,
    /// It does not take our credentials.
    Refused,
    /// It cannot do what links need.
    Incapable,
    /// Another error.
    Other,
}

impl From<Status> for ServerTrouble {
    fn from(status: Status) -> Self {
        let kind = match status.code() {
            Code::Unauthenticated | Code::PermissionDenied => TroubleKind::Refused,
            Code::DeadlineExceeded => TroubleKind::Silent,
            Code::Unimplemented => TroubleKind::Incapable,
            Code::Unavailable | Code::Internal | Code::Unknown | Code::Cancelled => {
                TroubleKind::Unreachable
            }
            _ => TroubleKind::Other,
        };
        let text = one_line(&status);
        Self { kind, text }
    }
}

/// Connects to a server and asks what it can do, within the time limit of a call.
pub(crate) fn reach(settings: &ServerSettings) -> Result<ReachedServer, ServerTrouble> {
    let mut server = Server::later().map_err(|text| ServerTrouble {
        kind: TroubleKind::Other,
        text,
    })?;
    let limit = settings.timeout;
    let begin = Instant::now();
    let connected = server.runtime.block_on(async {
        let credentials = read_credentials(settings).await;
        let credentials = credentials.map_err(|status| ServerTrouble {
            kind: TroubleKind::NoCredentials,
            text: status.message().to_owned(),
        })?;
        let late = || format!("no answer within {} s", limit.as_secs());
        let connect = Client::connect_with(settings, credentials);
        within(limit, late, connect)
            .await
            .map_err(ServerTrouble::from)
    });
    match connected {
        Ok(client) => {
            let capabilities = describe(&client);
            let (executes, accepts_results) = (
                client.capabilities.executes,
                client.capabilities.accepts_results,
            );
            server.client = Some(client);
            Ok(ReachedServer {
                server,
                executes,
                accepts_results,
                settings: settings.clone(),
                time: begin.elapsed(),
                capabilities,
            })
        }
        Err(trouble) => {
            // Do not wait for the user's credential helper or for name resolution.
            server.runtime.shutdown_background();
            Err(trouble)
        }
    }
}

impl ReachedServer {
    /// Has a program executed that says its version, and gives the first line of it and the time that it took. Its
    /// files are sent along, if it has any.
    pub(crate) fn execute(&self, tool: &Tool) -> Result<(String, Duration), ServerTrouble> {
        let begin = Instant::now();
        let limit = self.settings.execution_timeout;
        let run = async {
            let client = self.server.client.as_ref();
            let client = client.ok_or_else(|| Status::internal("not connected"))?;
            let late = || format!("nothing was executed within {} s", limit.as_secs());
            within(limit, late, say_version(client, tool)).await
        };
        let said = self.server.runtime.block_on(run)?;
        Ok((said, begin.elapsed()))
    }

    /// Looks an Action up that nobody has the result of, and gives the time that the answer took.
    pub(crate) fn look_up(&self) -> Result<Duration, ServerTrouble> {
        let begin = Instant::now();
        let limit = self.settings.timeout;
        let run = async {
            let client = self.server.client.as_ref();
            let client = client.ok_or_else(|| Status::internal("not connected"))?;
            let late = || format!("no answer within {} s", limit.as_secs());
            let nobody = Digest::of(b"ldwrap doctor");
            within(limit, late, client.get_action_result(&nobody)).await
        };
        self.server.runtime.block_on(run)?;
        Ok(begin.elapsed())
    }

    /// Ends all calls, without waiting for any.
    pub(crate) fn close(self) {
        self.server.runtime.shutdown_background();
    }
}

async fn say_version(client: &Client, tool: &Tool) -> Result<String, Status> {
    let (result, output) = super::results::ask_version(client, tool).await?;
    let first = output.lines().next().unwrap_or_default().to_owned();
    if result.exit_code != 0 {
        let messages = String::from_utf8_lossy(&result.stderr_raw);
        return Err(Status::aborted(format!(
            "{} ended with {} there: {}",
            tool.command.join(" "),
            result.exit_code,
            first_error_line(&messages)
        )));
    }
    Ok(first)
}

/// What a server can do.
fn describe(client: &Client) -> String {
    let capabilities = &client.capabilities;
    let names: Vec<&str> = capabilities
        .digest_functions
        .iter()
        .filter_map(|&n| api::digest_function::Value::try_from(n).ok())
        .map(|function| function.as_str_name())
        .collect();
    let batch = match capabilities.max_batch {
        0 => "batches of any size".to_owned(),
        bytes => format!("batches of {bytes} bytes"),
    };
    let results = match capabilities.accepts_results {
        true => "takes results that are made here",
        false => "takes no results that are made here",
    };
    format!("{}, {batch}, {results}", names.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_there_and_somebody_who_says_nothing() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut settings = ServerSettings {
            endpoint: format!("http://{}", listener.local_addr().unwrap()),
            timeout: Duration::from_secs(1),
            ..ServerSettings::default()
        };
        let trouble = reach(&settings).unwrap_err();
        assert_eq!(trouble.kind, TroubleKind::Silent, "{trouble:?}");
        drop(listener);
        let trouble = reach(&settings).unwrap_err();
        assert_eq!(trouble.kind, TroubleKind::Unreachable, "{trouble:?}");
        settings.headers = Some("/nonexistent/headers".into());
        let trouble = reach(&settings).unwrap_err();
        assert_eq!(trouble.kind, TroubleKind::NoCredentials, "{trouble:?}");
        assert!(trouble.text.contains("/nonexistent/headers"), "{trouble:?}");
    }
}
