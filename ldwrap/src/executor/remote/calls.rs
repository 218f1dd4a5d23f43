//! Calls to a server: tried again after errors that pass, within time limits, and what their errors say.

use super::auth::{Credentials, Headers};
use bazel_remote_apis::google::rpc;
use shim::config::ServerSettings;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;
use tonic::{Code, Status};

/// Objects and answers larger than this are refused.
pub(super) const MAX_MESSAGE: usize = 64 << 20;
/// How often a call is tried.
pub(super) const TRIES: u32 = 4;
/// The first pause between two tries; each further one is twice as long.
const PAUSE: Duration = Duration::from_millis(100);

/// Who makes calls.
#[derive(Debug)]
pub(super) struct Caller {
    pub(super) settings: ServerSettings,
    pub(super) credentials: Credentials,
}

impl Caller {
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
    pub(super) async fn renewed(&self, status: &Status, sent: Headers) -> bool {
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
}

pub(super) fn to_status(status: &rpc::Status) -> Status {
    Status::new(Code::from(status.code), status.message.clone())
}

/// Whether a call that failed may succeed when it is made again.
#[must_use]
pub(super) fn may_pass(code: Code) -> bool {
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

pub(super) async fn pause(tried: u32) {
    let most = PAUSE * 2_u32.saturating_pow(tried - 1);
    // Between half and all of it.
    let part = RandomState::new().hash_one(tried) % 512;
    let wait = most / 2 + most * u32::try_from(part).unwrap_or(0) / 1024;
    tokio::time::sleep(wait).await;
}

/// What a status comes to in one line, for the user; servers' words may be many.
#[must_use]
pub(super) fn in_short(status: &Status) -> String {
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
pub(super) fn cause(error: &dyn std::error::Error) -> Option<String> {
    let first = std::iter::successors(error.source(), |e| e.source()).last();
    first.map(ToString::to_string)
}

/// In what rustls says of a peer's last word.
pub(super) const ALERT: &str = "fatal alert";

/// Whether a call ended because the server closed the connection.
pub(super) fn hung_up(status: &Status) -> bool {
    let said = in_short(status);
    ["closed", "reset", "broken pipe", ALERT]
        .iter()
        .any(|how| said.contains(how))
}
