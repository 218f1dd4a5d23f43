//! Headers that authenticate us: from a file, or from a credential helper.
//!
//! A secret is never on a command line, and is marked so that nothing prints it. Tokens expire: when a
//! server refuses them, the file is read and the helper run again.

use crate::sys::process::{self, Role};
use crate::sys::sync::ignore_poison;
use serde_json::Value;
use shim::config::ServerSettings;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;
use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue};
use tonic::service::Interceptor;
use tonic::{Request, Status};

/// The headers of every call, shared by all connections.
#[derive(Debug, Clone)]
pub(super) struct Credentials(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    headers: RwLock<Headers>,
    /// Held while headers are read again, which may take a helper's whole time limit: other calls go on meanwhile.
    renewing: Mutex<()>,
}

impl Interceptor for Credentials {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        for (name, value) in &self.current().all {
            request.metadata_mut().insert(name.clone(), value.clone());
        }
        Ok(request)
    }
}

impl Credentials {
    /// Reads the file and runs the helper that the settings name, if any.
    pub(super) fn read(settings: &ServerSettings) -> io::Result<Self> {
        let headers = Headers::read(settings)?;
        Ok(Self(Arc::new(Shared {
            headers: RwLock::new(headers),
            renewing: Mutex::default(),
        })))
    }

    /// The headers that calls are sent with at the moment.
    pub(super) fn current(&self) -> Headers {
        ignore_poison(self.0.headers.read()).clone()
    }

    /// Whether there are other headers than those that a server `refused`. Reads file and helper again, unless
    /// another call has done so since.
    pub(super) fn renew(&self, settings: &ServerSettings, refused: &Headers) -> bool {
        let _renewing = ignore_poison(self.0.renewing.lock());
        if self.current() == *refused {
            if let Ok(read) = Headers::read(settings) {
                *ignore_poison(self.0.headers.write()) = read;
            }
        }
        self.current() != *refused
    }
}

/// A helper is killed so long after the time limit: who waits for a connection has given up by then, and said so.
/// Where calls wait for credentials that are read again, nothing else ends that.
const HELPER_GRACE: Duration = Duration::from_secs(1);

/// Most bytes of the file with headers: far more than any server takes.
const MAX_HEADERS: u64 = 1 << 20;

/// Headers as they were read. Their values are not printed.
#[derive(Clone, Default, PartialEq)]
pub(super) struct Headers {
    all: Vec<(AsciiMetadataKey, AsciiMetadataValue)>,
}

impl std::fmt::Debug for Headers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list()
            .entries(self.all.iter().map(|(k, _)| k))
            .finish()
    }
}

impl Headers {
    fn read(settings: &ServerSettings) -> io::Result<Self> {
        let mut headers = Self::default();
        if let Some(file) = &settings.headers {
            let named = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", file.display()));
            let text = read_small_file(file).map_err(named)?;
            for (n, line) in text.lines().enumerate() {
                let line = line.trim();
                if line.is_empty() || line.starts_with('#') {
                    continue;
                }
                // Without the line itself, which may be a secret.
                let malformed = || {
                    let text = format!("{}:{}: expected NAME: VALUE", file.display(), n + 1);
                    io::Error::new(io::ErrorKind::InvalidData, text)
                };
                let (name, value) = line.split_once(':').ok_or_else(malformed)?;
                headers
                    .add(name.trim(), value.trim())
                    .ok_or_else(malformed)?;
            }
        }
        if let Some(helper) = &settings.credential_helper {
            headers.run_helper(helper, &settings.endpoint, settings.timeout)?;
        }
        Ok(headers)
    }

    fn add(&mut self, name: &str, value: &str) -> Option<()> {
        let name = AsciiMetadataKey::from_bytes(name.to_ascii_lowercase().as_bytes()).ok()?;
        let mut value = AsciiMetadataValue::try_from(value).ok()?;
        value.set_sensitive(true);
        self.all.push((name, value));
        Some(())
    }

    /// Adds what a credential helper gives. The protocol is that of EngFlow's credential-helper-spec, which Bazel
    /// and others speak: `HELPER get`, a URI in JSON to its stdin, headers in JSON from its stdout.
    fn run_helper(&mut self, helper: &Path, endpoint: &str, limit: Duration) -> io::Result<()> {
        let fail = |why: &str| io::Error::other(format!("{} {why}", helper.display()));
        let mut command = Command::new(helper);
        command.arg("get");
        let request = serde_json::json!({ "uri": endpoint }).to_string();
        let killed_after = Some(limit + HELPER_GRACE);
        let out = process::output_of(command, Role::Tool, request.as_bytes(), killed_after)
            .map_err(|e| match e.kind() {
                io::ErrorKind::TimedOut => fail(&format!(
                    "did not answer within {limit:?} (LDWRAP_REMOTE_TIMEOUT)"
                )),
                _ => fail(&format!("cannot be run: {e}")),
            })?;
        if !out.status.success() {
            let messages = String::from_utf8_lossy(&out.stderr);
            let error = process::first_error_line(&messages);
            return Err(fail(&format!("ended with {}: {error}", out.status)));
        }
        let reply: Value =
            serde_json::from_slice(&out.stdout).map_err(|_| fail("did not answer in JSON"))?;
        let Some(given) = reply.get("headers").and_then(Value::as_object) else {
            return Err(fail("gave no headers"));
        };
        for (name, values) in given {
            for value in values.as_array().into_iter().flatten() {
                let added = value.as_str().and_then(|value| self.add(name, value));
                added.ok_or_else(|| fail("gave a header that is none"))?;
            }
        }
        Ok(())
    }
}

/// The text of a regular file of reasonable size. It is read again when a server refuses what it says, and a FIFO
/// could be waited for without end.
fn read_small_file(path: &Path) -> io::Result<String> {
    let file = File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    if !file.metadata()?.is_file() {
        let text =
            "it is no regular file; a command can be asked by LDWRAP_REMOTE_CREDENTIAL_HELPER";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    let mut text = String::new();
    if file.take(MAX_HEADERS + 1).read_to_string(&mut text)? as u64 > MAX_HEADERS {
        let text = format!("it is larger than {MAX_HEADERS} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn settings(dir: &Path) -> ServerSettings {
        ServerSettings {
            endpoint: "http://host:1".into(),
            headers: Some(dir.join("headers")),
            ..ServerSettings::default()
        }
    }

    #[test]
    fn headers_of_a_file_and_of_a_helper() {
        let dir = tempfile::tempdir().unwrap();
        let mut settings = settings(dir.path());
        std::fs::write(
            dir.path().join("headers"),
            "# ours\n\nAuthorization: Bearer se:cret\n",
        )
        .unwrap();
        let helper = dir.path().join("helper");
        std::fs::write(
            &helper,
            "#!/bin/sh\n[ \"$1\" = get ] && cat >/dev/null && echo '{\"headers\":{\"x-token\":[\"hidden\"]}}'\n",
        )
        .unwrap();
        std::fs::set_permissions(&helper, PermissionsExt::from_mode(0o755)).unwrap();
        settings.credential_helper = Some(helper);
        let mut headers = Credentials::read(&settings).unwrap();
        let request = headers.call(Request::new(())).unwrap();
        assert_eq!(
            request.metadata().get("authorization").unwrap(),
            "Bearer se:cret"
        );
        assert_eq!(request.metadata().get("x-token").unwrap(), "hidden");
        let shown = format!("{headers:?} {request:?}");
        assert!(
            !shown.contains("cret") && !shown.contains("hidden"),
            "{shown}"
        );
    }

    #[test]
    fn refused_headers_are_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let settings = settings(dir.path());
        let write = |text| std::fs::write(dir.path().join("headers"), text).unwrap();
        write("authorization: one");
        let credentials = Credentials::read(&settings).unwrap();
        let first = credentials.current();
        assert!(!credentials.renew(&settings, &first));
        write("authorization: two");
        assert!(credentials.renew(&settings, &first));
        // Another call that was refused finds it done.
        write("authorization: three");
        assert!(credentials.renew(&settings, &first));
        let mut credentials = credentials;
        let request = credentials.call(Request::new(())).unwrap();
        assert_eq!(request.metadata().get("authorization").unwrap(), "two");
    }

    #[test]
    fn while_headers_are_read_again_calls_have_the_old_ones() {
        let dir = tempfile::tempdir().unwrap();
        let mut settings = settings(dir.path());
        std::fs::write(dir.path().join("headers"), "authorization: one").unwrap();
        let credentials = Credentials::read(&settings).unwrap();
        let first = credentials.current();
        let helper = dir.path().join("helper");
        std::fs::write(&helper, "#!/bin/sh\nsleep 20\n").unwrap();
        std::fs::set_permissions(&helper, PermissionsExt::from_mode(0o755)).unwrap();
        settings.credential_helper = Some(helper);
        settings.timeout = Duration::from_secs(1);
        std::thread::scope(|scope| {
            let renewed = scope.spawn(|| credentials.renew(&settings, &first));
            while credentials.0.renewing.try_lock().is_ok() {
                std::thread::yield_now();
            }
            assert!(credentials.current() == first);
            assert!(!renewed.is_finished());
            assert!(!renewed.join().unwrap());
        });
    }

    #[test]
    fn headers_are_a_small_regular_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("headers");
        let settings = settings(dir.path());
        nix::unistd::mkfifo(&file, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let e = Headers::read(&settings).unwrap_err().to_string();
        assert!(e.contains("no regular file"), "{e}");
        std::fs::remove_file(&file).unwrap();
        let size = usize::try_from(MAX_HEADERS).unwrap();
        std::fs::write(&file, "#".repeat(size + 1)).unwrap();
        let e = Headers::read(&settings).unwrap_err().to_string();
        assert!(e.contains("larger"), "{e}");
        std::fs::write(&file, "#".repeat(size)).unwrap();
        Headers::read(&settings).unwrap();
    }

    #[test]
    fn a_helper_that_hangs_is_killed() {
        let dir = tempfile::tempdir().unwrap();
        let helper = dir.path().join("helper");
        // Its child keeps the pipes.
        std::fs::write(&helper, "#!/bin/sh\nsleep 20\n").unwrap();
        std::fs::set_permissions(&helper, std::fs::Permissions::from_mode(0o755)).unwrap();
        let settings = ServerSettings {
            credential_helper: Some(helper),
            timeout: Duration::from_millis(200),
            ..ServerSettings::default()
        };
        let begin = std::time::Instant::now();
        let e = Headers::read(&settings).unwrap_err().to_string();
        assert!(e.contains("did not answer within 200ms"), "{e}");
        assert!(begin.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn an_error_names_the_line_without_its_content() {
        let dir = tempfile::tempdir().unwrap();
        let settings = settings(dir.path());
        for text in ["a: b\nsecret", "se cret: x"] {
            std::fs::write(dir.path().join("headers"), text).unwrap();
            let e = Headers::read(&settings).unwrap_err().to_string();
            assert!(
                e.contains("expected NAME: VALUE") && !e.contains("cret"),
                "{e}"
            );
        }
        std::fs::remove_file(dir.path().join("headers")).unwrap();
        assert!(Headers::read(&settings).is_err());
    }
}
