//! Calls to a server: time limits, retries, and what their errors mean.

use super::auth::{Credentials, Headers};
use crate::executor::tuning::{FIRST_BACKOFF, MAX_ATTEMPTS};
use bazel_remote_apis::google::rpc;
use shim::config::ServerSettings;
use std::time::Duration;
use tonic::{Code, Status};

/// The settings and credentials of all calls to a server.
#[derive(Debug)]
pub(super) struct Caller {
    pub(super) settings: ServerSettings,
    pub(super) credentials: Credentials,
}

impl Caller {
    /// Makes a call within the time limit, and again after a transient error.
    pub(super) async fn call<T, F: Future<Output = Result<T, Status>>>(
        &self,
        call: impl Fn() -> F,
    ) -> Result<T, Status> {
        let limit = self.settings.timeout;
        let late = || format!("no answer within {} s", limit.as_secs());
        self.retry(is_transient, || within(limit, late, call()))
            .await
    }

    /// Makes a call up to [`MAX_ATTEMPTS`] times, as long as its error is one that `may_pass`, or the server
    /// refuses our credentials and there are others.
    pub(super) async fn retry<T, F: Future<Output = Result<T, Status>>>(
        &self,
        may_pass: impl Fn(Code) -> bool,
        call: impl Fn() -> F,
    ) -> Result<T, Status> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let sent = self.credentials.current();
            match call().await {
                Err(status) if attempt < MAX_ATTEMPTS && may_pass(status.code()) => {
                    back_off(attempt).await;
                }
                Err(status)
                    if attempt < MAX_ATTEMPTS && self.credentials_renewed(&status, sent).await => {}
                result => return result,
            }
        }
    }

    /// Whether a call was refused for the credentials that were `sent`, and there are others now.
    pub(super) async fn credentials_renewed(&self, status: &Status, sent: Headers) -> bool {
        if status.code() != Code::Unauthenticated {
            return false;
        }
        let (credentials, settings) = (self.credentials.clone(), self.settings.clone());
        // Runs the user's credential helper, which may take long.
        let renew = tokio::task::spawn_blocking(move || credentials.renew(&settings, &sent));
        renew.await.unwrap_or(false)
    }
}

/// The call's result, or the error `DEADLINE_EXCEEDED` with a message after the time limit.
pub(super) async fn within<T, M: Into<String>>(
    limit: Duration,
    message: impl FnOnce() -> M,
    call: impl Future<Output = Result<T, Status>>,
) -> Result<T, Status> {
    tokio::time::timeout(limit, call)
        .await
        .unwrap_or_else(|_| Err(Status::deadline_exceeded(message())))
}

/// An error of a single blob or execution, inside a reply.
pub(super) fn to_status(status: &rpc::Status) -> Status {
    Status::new(Code::from(status.code), status.message.clone())
}

/// Whether a call that failed may succeed when it is made again.
pub(super) fn is_transient(code: Code) -> bool {
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

/// Whether the server will not do such a call for us at all.
pub(super) fn is_refusal(code: Code) -> bool {
    matches!(
        code,
        Code::PermissionDenied | Code::Unauthenticated | Code::Unimplemented
    )
}

/// Waits before the attempt after this one (1 is the first): exponential, with half of it random, so that
/// calls that failed together do not come again together.
pub(super) async fn back_off(attempt: u32) {
    let longest = FIRST_BACKOFF * 2_u32.saturating_pow(attempt - 1);
    tokio::time::sleep(longest.mul_f64(0.5 + 0.5 * fastrand::f64())).await;
}

/// A status in one line of bounded length, for the user and the log.
pub(super) fn one_line(status: &Status) -> String {
    let mut text = format!("{:?}", status.code());
    let message = printable_line(status.message());
    if !message.is_empty() {
        text.push_str(": ");
        text.push_str(&message);
    }
    let cause = root_cause(status).map(|cause| printable_line(&cause));
    if let Some(cause) = cause.filter(|cause| !text.contains(cause.as_str())) {
        text.push_str(&format!(" ({cause})"));
    }
    text
}

/// The beginning of the first line of what a server may have written: no control characters, which a terminal would obey.
fn printable_line(text: &str) -> String {
    const MAX_CHARS: usize = 160;
    let line = text.lines().next().unwrap_or_default();
    let printable = |c: char| if c.is_control() { ' ' } else { c };
    line.chars().take(MAX_CHARS).map(printable).collect()
}

/// The innermost source of an error, where tonic has what went wrong.
pub(super) fn root_cause(error: &dyn std::error::Error) -> Option<String> {
    let innermost = std::iter::successors(error.source(), |e| e.source()).last();
    innermost.map(ToString::to_string)
}

/// Substring of rustls's message for a TLS alert from the peer.
pub(super) const TLS_ALERT: &str = "fatal alert";

/// Whether a call ended because the server closed the connection.
pub(super) fn connection_closed(status: &Status) -> bool {
    let text = one_line(status);
    ["closed", "reset", "broken pipe", TLS_ALERT]
        .iter()
        .any(|how| text.contains(how))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_says_is_a_printable_line() {
        let of = |message: &str| one_line(&Status::aborted(message));
        assert_eq!(of(""), "Aborted");
        assert_eq!(of("one\ntwo"), "Aborted: one");
        assert_eq!(of("\u{1b}]0;x\u{7}y\u{9b}\tz"), "Aborted:  ]0;x y  z");
        assert_eq!(
            of(&"é".repeat(999)),
            format!("Aborted: {}", "é".repeat(160))
        );
        let mut status = Status::aborted("why");
        let cause = format!("\u{1b}[2J{}", "x".repeat(999));
        status.set_source(std::sync::Arc::new(std::io::Error::other(cause)));
        assert_eq!(
            one_line(&status),
            format!("Aborted: why ( [2J{})", "x".repeat(156))
        );
    }
}
