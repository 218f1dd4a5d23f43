//! What the user says about a server, made ready for the client.

use shim::config::Config;
use std::ffi::OsStr;
use std::path::PathBuf;
use std::time::Duration;

/// Executions at once, if not said. A server queues what it cannot run.
const JOBS: usize = 200;
/// Connections of each use, if not said: HTTP/2 carries many calls on each.
const CONNECTIONS: usize = 2;
/// The time limit of a call, and of each step of a transfer.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The time limit of an execution, waiting for a worker included.
const EXECUTION_TIMEOUT: Duration = Duration::from_secs(600);

/// A server and how it is used. No secret is in here: those are in files, read when needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `http://host:port` or `https://host:port`.
    pub endpoint: String,
    /// Whether the connection is encrypted.
    pub tls: bool,
    /// The instance name.
    pub instance: String,
    /// A file of headers for each call, a line each.
    pub headers: Option<PathBuf>,
    /// A program that gives headers.
    pub credential_helper: Option<PathBuf>,
    /// Certificates that are trusted, instead of the system's.
    pub ca: Option<PathBuf>,
    /// Our own certificate and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// Platform properties.
    pub platform: Vec<(String, String)>,
    /// The compiler's path on workers; none: it is shipped.
    pub clang: Option<String>,
    /// Executions at once.
    pub jobs: usize,
    /// Connections for what is sent, and as many for what is received. Executions and short calls have
    /// their own.
    pub connections: usize,
    /// Whether this machine does only what the server fails to.
    pub fallback_only: bool,
    /// Time limit of a call.
    pub timeout: Duration,
    /// Time limit of an execution.
    pub execution_timeout: Duration,
}

impl Settings {
    /// From the user's; an error says what is wrong with them.
    pub fn of(config: &Config) -> Result<Self, String> {
        let url = config
            .remote
            .as_deref()
            .ok_or("LDWRAP_REMOTE names no server")?;
        let bad_url =
            || format!("LDWRAP_REMOTE={url}: expected grpc://HOST:PORT or grpcs://HOST:PORT");
        let (scheme, rest) = url.split_once("://").ok_or_else(bad_url)?;
        let tls = match scheme {
            "grpc" => false,
            "grpcs" => true,
            _ => return Err(bad_url()),
        };
        // A password in the URL would be on show wherever the URL is.
        if rest.contains('@') {
            return Err(
                "LDWRAP_REMOTE: no user or password in the URL; use LDWRAP_REMOTE_HEADERS".into(),
            );
        }
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        if host.is_empty() {
            return Err(bad_url());
        }
        let set = |name: &str| config.remote_settings.get(name).map(|v| v.as_os_str());
        let text = |name: &str| {
            set(name)
                .map(|v: &OsStr| v.to_str().ok_or_else(|| format!("{name} is not UTF-8")))
                .transpose()
        };
        let path_of = |name: &str| set(name).map(PathBuf::from);
        let number = |name: &str, default: u64| match text(name)? {
            None => Ok(default),
            Some(value) => match value.parse() {
                Ok(n @ 1..) => Ok(n),
                _ => Err(format!("{name}={value}: expected a number above 0")),
            },
        };
        let count = |name: &str, default: usize| {
            number(name, default as u64).map(|n| usize::try_from(n).unwrap_or(default))
        };
        let identity = match (path_of("LDWRAP_REMOTE_CERT"), path_of("LDWRAP_REMOTE_KEY")) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            _ => return Err("LDWRAP_REMOTE_CERT and LDWRAP_REMOTE_KEY go together".into()),
        };
        let mut platform = Vec::new();
        let wanted = text("LDWRAP_REMOTE_PLATFORM")?.unwrap_or_default();
        for property in wanted.split(',').filter(|p| !p.is_empty()) {
            let (name, value) = property.split_once('=').ok_or_else(|| {
                format!("LDWRAP_REMOTE_PLATFORM: {property}: expected NAME=VALUE")
            })?;
            platform.push((name.to_owned(), value.to_owned()));
        }
        Ok(Self {
            endpoint: format!("{}://{host}", if tls { "https" } else { "http" }),
            tls,
            instance: text("LDWRAP_REMOTE_INSTANCE")?.unwrap_or(path).to_owned(),
            headers: path_of("LDWRAP_REMOTE_HEADERS"),
            credential_helper: path_of("LDWRAP_REMOTE_CREDENTIAL_HELPER"),
            ca: path_of("LDWRAP_REMOTE_CA"),
            identity,
            platform,
            clang: text("LDWRAP_REMOTE_CLANG")?.map(str::to_owned),
            jobs: count("LDWRAP_REMOTE_JOBS", JOBS)?,
            connections: count("LDWRAP_REMOTE_CONNECTIONS", CONNECTIONS)?,
            fallback_only: match text("LDWRAP_REMOTE_LOCAL")? {
                None | Some("always") => false,
                Some("fallback") => true,
                Some(value) => {
                    return Err(format!(
                        "LDWRAP_REMOTE_LOCAL={value}: expected always or fallback"
                    ));
                }
            },
            timeout: Duration::from_secs(number("LDWRAP_REMOTE_TIMEOUT", TIMEOUT.as_secs())?),
            execution_timeout: Duration::from_secs(number(
                "LDWRAP_REMOTE_EXECUTION_TIMEOUT",
                EXECUTION_TIMEOUT.as_secs(),
            )?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(vars: &[(&str, &str)]) -> Result<Settings, String> {
        Settings::of(&Config::from(&|name| {
            let found = vars.iter().find(|(n, _)| *n == name);
            found.map(|(_, v)| (*v).into())
        }))
    }

    #[test]
    fn a_url_is_a_server_and_an_instance() {
        let s = of(&[("LDWRAP_REMOTE", "grpcs://build.example:443/main/one")]).unwrap();
        assert_eq!(
            (s.endpoint.as_str(), s.tls, s.instance.as_str()),
            ("https://build.example:443", true, "main/one")
        );
        let s = of(&[
            ("LDWRAP_REMOTE", "grpc://[::1]:50051"),
            ("LDWRAP_REMOTE_INSTANCE", "x"),
            ("LDWRAP_REMOTE_PLATFORM", "OSFamily=Linux,image=a=b"),
        ])
        .unwrap();
        assert_eq!(
            (s.endpoint.as_str(), s.instance.as_str()),
            ("http://[::1]:50051", "x")
        );
        assert_eq!(s.platform[1], ("image".into(), "a=b".into()));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (vars, error) in [
            (&[][..], "no server"),
            (&[("LDWRAP_REMOTE", "host:1")], "expected grpc://"),
            (&[("LDWRAP_REMOTE", "https://host:1")], "expected grpc://"),
            (&[("LDWRAP_REMOTE", "grpc:///x")], "expected grpc://"),
            (
                &[("LDWRAP_REMOTE", "grpc://me:secret@host:1")],
                "no user or password",
            ),
            (
                &[("LDWRAP_REMOTE", "grpc://h:1"), ("LDWRAP_REMOTE_JOBS", "0")],
                "above 0",
            ),
            (
                &[("LDWRAP_REMOTE", "grpc://h:1"), ("LDWRAP_REMOTE_CERT", "c")],
                "go together",
            ),
            (
                &[
                    ("LDWRAP_REMOTE", "grpc://h:1"),
                    ("LDWRAP_REMOTE_PLATFORM", "x"),
                ],
                "NAME=VALUE",
            ),
        ] {
            let e = of(vars).unwrap_err();
            assert!(e.contains(error), "{e}");
            assert!(!e.contains("secret"), "{e}");
        }
    }
}
