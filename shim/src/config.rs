//! What the user set, as the program uses it. [`crate::settings`] says what each means, [`crate::read_settings`] reads
//! them.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// When a link is split.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Split {
    /// When it is expected to pay.
    #[default]
    Auto,
    /// Whenever it can be.
    Always,
    /// Never.
    Never,
}

/// Where backends run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Executor {
    /// In lld's own threads, from a cache where it has their objects.
    #[default]
    Local,
    /// On this machine, a clang process each.
    Clang,
    /// On a Remote Execution server.
    Remote,
    /// Through a DTLTO distributor.
    Distributor,
}

/// When a line of progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ShowProgress {
    /// Where standard error is a terminal and no log goes there, in links that take longer than a second.
    #[default]
    Auto,
    /// Never.
    Never,
    /// In every link, whatever standard error is.
    Always,
}

/// A server and how it is used. No secret is in here: those are in files, read when needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerSettings {
    /// `http://host:port` or `https://host:port`; empty where none is named.
    pub endpoint: String,
    /// Whether the connection is encrypted.
    pub tls: bool,
    /// The instance name.
    pub instance: String,
    /// The path of its URL, which is the instance name if no other is given.
    pub path: String,
    /// A file of headers for each call, a line each.
    pub headers: Option<PathBuf>,
    /// A program that gives headers.
    pub credential_helper: Option<PathBuf>,
    /// Certificates that are trusted, instead of the system's.
    pub ca: Option<PathBuf>,
    /// Our own certificate.
    pub certificate: Option<PathBuf>,
    /// Its key; there are both or none.
    pub key: Option<PathBuf>,
    /// Platform properties.
    pub platform: Vec<(String, String)>,
    /// The compiler's path on workers; none: it is shipped.
    pub clang: Option<String>,
    /// Executions at once. A server queues what it cannot run.
    pub jobs: usize,
    /// Connections for what is sent, and as many for what is received: HTTP/2 carries many calls on each. Executions
    /// and short calls have their own.
    pub connections: usize,
    /// Whether this machine does only what the server fails to.
    pub fallback_only: bool,
    /// Time limit of a call, and of each step of a transfer.
    pub timeout: Duration,
    /// Time limit of an execution, waiting for a worker included.
    pub execution_timeout: Duration,
}

impl ServerSettings {
    /// Scheme, host and port as `LDWRAP_REMOTE` has them.
    #[must_use]
    pub fn address(&self) -> String {
        self.endpoint.replacen("http", "grpc", 1)
    }
}

impl Default for ServerSettings {
    fn default() -> Self {
        Self {
            endpoint: String::new(),
            tls: false,
            instance: String::new(),
            path: String::new(),
            headers: None,
            credential_helper: None,
            ca: None,
            certificate: None,
            key: None,
            platform: Vec::new(),
            clang: None,
            jobs: 200,
            connections: 2,
            fallback_only: false,
            timeout: Duration::from_secs(30),
            execution_timeout: Duration::from_secs(600),
        }
    }
}

/// Where a setting was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// By an environment variable.
    Environment,
    /// In a file, in this line.
    File(PathBuf, usize),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Environment => f.write_str("environment"),
            Self::File(file, line) => write!(f, "{}:{line}", file.display()),
        }
    }
}

/// A setting that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// Its name.
    pub name: &'static str,
    /// Its value, as it can be shown.
    pub shown: String,
    /// Where.
    pub origin: Origin,
}

/// All settings: see [`crate::settings::SETTINGS`] for what each means.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)] // Said in the table.
pub struct Config {
    pub split: Split,
    pub real_lld: Option<PathBuf>,
    pub clang: Option<PathBuf>,
    pub jobs: Option<usize>,
    pub memory: Option<u64>,
    pub executor: Option<Executor>,
    /// The program that does the jobs of [`Executor::Distributor`], with its first arguments.
    pub distributor: Vec<OsString>,
    pub cache_dir: Option<PathBuf>,
    pub cache_size: u64,
    pub strict: bool,
    pub log: Option<String>,
    pub report: Option<PathBuf>,
    pub save_objects: Option<PathBuf>,
    pub keep: Option<PathBuf>,
    pub progress: ShowProgress,
    pub trace: Option<PathBuf>,
    pub server: ServerSettings,
    /// See [`crate::settings::VERIFY`].
    pub verify: Option<PathBuf>,
    /// See [`crate::settings::DOCTOR`].
    pub doctor: Option<PathBuf>,
    /// See [`crate::settings::OBJECTS`].
    pub objects: Option<PathBuf>,
    /// What of the above was set, in the order in which it was taken: the last of a setting holds.
    pub given: Vec<Given>,
    /// What was set and could not be understood, as sentences for the user.
    pub complaints: Vec<String>,
    /// The first of them that is about the server, which is not used then.
    pub server_trouble: Option<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            split: Split::default(),
            real_lld: None,
            clang: None,
            jobs: None,
            memory: None,
            executor: None,
            distributor: Vec::new(),
            cache_dir: None,
            cache_size: 10 << 30,
            strict: false,
            log: None,
            report: None,
            save_objects: None,
            keep: None,
            progress: ShowProgress::default(),
            trace: None,
            server: ServerSettings::default(),
            verify: None,
            doctor: None,
            objects: None,
            given: Vec::new(),
            complaints: Vec::new(),
            server_trouble: None,
        }
    }
}

impl Config {
    /// Where backends run.
    #[must_use]
    pub fn executor(&self) -> Executor {
        let named = |given: &Given| given.name == "LDWRAP_REMOTE";
        self.executor.unwrap_or(match self.given.iter().any(named) {
            true => Executor::Remote,
            false => Executor::Local,
        })
    }

    /// The distributor to be used, a program with its first arguments; an error says why there is none.
    pub fn distributor(&self) -> Result<&[OsString], &str> {
        match self.distributor.as_slice() {
            [] => Err("LDWRAP_DISTRIBUTOR names no program"),
            command => Ok(command),
        }
    }

    /// The server to be used; an error says why there is none.
    pub fn server(&self) -> Result<&ServerSettings, &str> {
        match &self.server_trouble {
            Some(complaint) => Err(complaint),
            None if self.server.endpoint.is_empty() => Err("LDWRAP_REMOTE names no server"),
            None => Ok(&self.server),
        }
    }
}
