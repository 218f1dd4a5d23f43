//! What the user set: the environment, and `ldwrap.toml` beneath it.
//!
//! Read once, here; nothing else in the project looks at the environment for its settings. The
//! names are a contract (packages and build scripts rely on them).

use std::collections::HashMap;
use std::env;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// When to split: `auto`, `always` or `never`.
pub const SPLIT: &str = "LDWRAP_SPLIT";
/// The real lld.
pub const REAL_LLD: &str = "LDWRAP_REAL_LLD";
/// The clang that compiles backends.
pub const CLANG: &str = "LDWRAP_CLANG";
/// How many local backends at once.
pub const JOBS: &str = "LDWRAP_JOBS";
/// Where backends run: `local`, `clang`, `remote` or `distributor`.
pub const EXECUTOR: &str = "LDWRAP_EXECUTOR";
/// A Remote Execution server's gRPC URL.
pub const REMOTE: &str = "LDWRAP_REMOTE";
/// Where caches live.
pub const CACHE_DIR: &str = "LDWRAP_CACHE_DIR";
/// `1`: a split that fails is an error rather than a forwarded link.
pub const STRICT: &str = "LDWRAP_STRICT";
/// Log filter in env_logger's syntax.
pub const LOG: &str = "LDWRAP_LOG";
/// File to which one line of JSON a link is appended.
pub const REPORT: &str = "LDWRAP_REPORT";
/// How a Remote Execution server is used: the instance name; a file of headers, or a program that
/// gives them; certificates (PEM files); the platform asked for; the compiler's path on workers (none:
/// it is shipped); how many jobs at once, on how many connections; whether this machine's cores take part
/// (`always`) or do only what the server fails to (`fallback`); time limits in seconds.
pub const REMOTE_SETTINGS: [&str; 13] = [
    "LDWRAP_REMOTE_INSTANCE",
    "LDWRAP_REMOTE_HEADERS",
    "LDWRAP_REMOTE_CREDENTIAL_HELPER",
    "LDWRAP_REMOTE_CA",
    "LDWRAP_REMOTE_CERT",
    "LDWRAP_REMOTE_KEY",
    "LDWRAP_REMOTE_PLATFORM",
    "LDWRAP_REMOTE_CLANG",
    "LDWRAP_REMOTE_JOBS",
    "LDWRAP_REMOTE_CONNECTIONS",
    "LDWRAP_REMOTE_LOCAL",
    "LDWRAP_REMOTE_TIMEOUT",
    "LDWRAP_REMOTE_EXECUTION_TIMEOUT",
];
/// How large the cache of objects may grow: bytes, with K, M, G or T behind the number; 0 for no cache.
pub const CACHE_SIZE: &str = "LDWRAP_CACHE_SIZE";
/// Objects of backends are kept under this path with a number behind it, as `--lto-obj-path` names
/// lld's own.
pub const SAVE_OBJECTS: &str = "LDWRAP_SAVE_OBJECTS";
/// A directory for what each link's verification found: set by `ldwrap verify` for the command that it
/// runs, and by nobody else.
pub const VERIFY: &str = "LDWRAP_VERIFY";
/// How much memory large links may take together: bytes, with K, M, G or T behind the number.
pub const MEMORY: &str = "LDWRAP_MEMORY";
/// The configuration file itself.
pub const CONFIG: &str = "LDWRAP_CONFIG";

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

/// All settings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Config {
    /// See [`SPLIT`].
    pub split: Split,
    /// See [`REAL_LLD`].
    pub real_lld: Option<PathBuf>,
    /// See [`CLANG`].
    pub clang: Option<PathBuf>,
    /// See [`JOBS`].
    pub jobs: Option<usize>,
    /// See [`EXECUTOR`]; `remote` where [`REMOTE`] is set, `local` otherwise.
    pub executor: Option<Executor>,
    /// See [`REMOTE`].
    pub remote: Option<String>,
    /// See [`CACHE_DIR`]; otherwise `ldwrap` in the XDG cache directory, or nowhere.
    pub cache_dir: Option<PathBuf>,
    /// See [`STRICT`].
    pub strict: bool,
    /// See [`LOG`].
    pub log: Option<String>,
    /// See [`REPORT`].
    pub report: Option<PathBuf>,
    /// See [`REMOTE_SETTINGS`]: those that are set.
    pub remote_settings: HashMap<&'static str, OsString>,
    /// See [`CACHE_SIZE`], in bytes.
    pub cache_size: Option<u64>,
    /// See [`MEMORY`], in bytes.
    pub memory: Option<u64>,
    /// See [`SAVE_OBJECTS`].
    pub save_objects: Option<PathBuf>,
    /// See [`VERIFY`].
    pub verify: Option<PathBuf>,
    /// Settings that could not be understood, as sentences for the user. Bad settings never stop
    /// a link.
    pub complaints: Vec<String>,
}

impl Config {
    /// Reads the environment of this process and the configuration file.
    #[must_use]
    pub fn read() -> Self {
        Self::from(&|name| env::var_os(name))
    }

    /// Where backends run.
    #[must_use]
    pub fn executor(&self) -> Executor {
        self.executor.unwrap_or_default()
    }

    /// As [`Config::read`], from any environment.
    pub fn from(var: &dyn Fn(&str) -> Option<OsString>) -> Self {
        let set = |name: &str| var(name).filter(|v| !v.is_empty());
        let mut config = Self::default();
        let xdg = |name: &str, below: &str| -> Option<PathBuf> {
            let absolute = |p: OsString| Some(PathBuf::from(p)).filter(|p| p.is_absolute());
            set(name)
                .and_then(absolute)
                .or_else(|| set("HOME").and_then(absolute).map(|home| home.join(below)))
                .map(|dir| dir.join("ldwrap"))
        };
        config.cache_dir = xdg("XDG_CACHE_HOME", ".cache");

        let explicit = set(CONFIG).map(PathBuf::from);
        let file = explicit
            .clone()
            .or_else(|| xdg("XDG_CONFIG_HOME", ".config").map(|dir| dir.join("ldwrap.toml")));
        if let Some(file) = file {
            match std::fs::read(&file) {
                Ok(text) => config.file(&file, &String::from_utf8_lossy(&text)),
                Err(e) if explicit.is_some() => {
                    config
                        .complaints
                        .push(format!("cannot read {CONFIG}={}: {e}", file.display()));
                }
                Err(_) => {}
            }
        }
        for name in [
            SPLIT,
            REAL_LLD,
            CLANG,
            JOBS,
            EXECUTOR,
            REMOTE,
            CACHE_DIR,
            STRICT,
            LOG,
            REPORT,
            SAVE_OBJECTS,
            CACHE_SIZE,
            MEMORY,
        ]
        .into_iter()
        .chain(REMOTE_SETTINGS)
        {
            if let Some(value) = set(name) {
                config.setting(name, &value);
            }
        }
        // A server that is named is used, unless something else is asked for.
        if config.executor.is_none() && config.remote.is_some() {
            config.executor = Some(Executor::Remote);
        }
        // No setting: not for a configuration file.
        config.verify = set(VERIFY).map(PathBuf::from);
        config
    }

    /// `ldwrap.toml`: each environment variable as a top-level key of the same name, in any case,
    /// with or without its prefix.
    fn file(&mut self, path: &Path, text: &str) {
        let table = match toml::de::DeTable::parse(text) {
            Ok(table) => table.into_inner(),
            Err(e) => {
                self.complaints.push(format!(
                    "{}: {}; the file is ignored",
                    path.display(),
                    e.message()
                ));
                return;
            }
        };
        for (key, value) in &table {
            let key = key.get_ref();
            let name = key.to_ascii_uppercase();
            let name = if name.starts_with("LDWRAP_") {
                name
            } else {
                format!("LDWRAP_{name}")
            };
            let value = match value.get_ref() {
                toml::de::DeValue::String(s) => s.to_string(),
                toml::de::DeValue::Boolean(b) => String::from(if *b { "1" } else { "0" }),
                toml::de::DeValue::Integer(n) => n.as_str().to_owned(),
                _ => {
                    self.complaints
                        .push(format!("{}: {key} is not a plain value", path.display()));
                    continue;
                }
            };
            if !self.setting(&name, OsStr::new(&value)) {
                self.complaints
                    .push(format!("{}: {key} is not a setting", path.display()));
            }
        }
    }

    /// Takes one setting; false when there is none of this name.
    fn setting(&mut self, name: &str, value: &OsStr) -> bool {
        let path = || Some(PathBuf::from(value)).filter(|p| !p.as_os_str().is_empty());
        let mut bad = |wanted: &str| {
            self.complaints.push(format!(
                "{name}={}: expected {wanted}",
                value.to_string_lossy()
            ));
        };
        match name {
            SPLIT => match value.as_bytes() {
                b"auto" => self.split = Split::Auto,
                b"always" => self.split = Split::Always,
                b"never" => self.split = Split::Never,
                _ => bad("auto, always or never"),
            },
            EXECUTOR => match value.as_bytes() {
                b"local" => self.executor = Some(Executor::Local),
                b"clang" => self.executor = Some(Executor::Clang),
                b"remote" => self.executor = Some(Executor::Remote),
                b"distributor" => self.executor = Some(Executor::Distributor),
                _ => bad("local, clang, remote or distributor"),
            },
            JOBS => match value.to_str().map(str::parse::<usize>) {
                Some(Ok(n)) if n > 0 => self.jobs = Some(n),
                _ => bad("a number above 0"),
            },
            STRICT => match value.as_bytes() {
                b"1" | b"true" | b"yes" => self.strict = true,
                b"0" | b"false" | b"no" => self.strict = false,
                _ => bad("0 or 1"),
            },
            REAL_LLD => self.real_lld = path(),
            CLANG => self.clang = path(),
            CACHE_DIR => self.cache_dir = path(),
            REPORT => self.report = path(),
            CACHE_SIZE => match value.to_str().and_then(bytes) {
                Some(size) => self.cache_size = Some(size),
                None => bad("a number of bytes such as 10G"),
            },
            MEMORY => match value.to_str().and_then(bytes) {
                Some(size) if size > 0 => self.memory = Some(size),
                _ => bad("a number of bytes such as 8G"),
            },
            SAVE_OBJECTS => self.save_objects = path(),
            REMOTE => self.remote = Some(value.to_string_lossy().into_owned()),
            LOG => self.log = Some(value.to_string_lossy().into_owned()),
            _ => match REMOTE_SETTINGS.iter().find(|known| **known == name) {
                Some(known) => drop(self.remote_settings.insert(known, value.to_owned())),
                None => return false,
            },
        }
        true
    }
}

/// A number of bytes: `10G`, `500M`, `0`.
#[must_use]
pub fn bytes(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let shift = match text.get(digits.len()..)?.to_ascii_uppercase().as_str() {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(vars: &[(&str, &str)]) -> Config {
        Config::from(&|name| {
            vars.iter()
                .find(|(n, _)| *n == name)
                .map(|(_, v)| OsString::from(v))
        })
    }

    #[test]
    fn environment_wins_over_the_file() {
        let dir = std::env::temp_dir().join(format!("ldwrap-config-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let file = dir.join("ldwrap.toml");
        std::fs::write(
            &file,
            "jobs = 3\nLDWRAP_SPLIT = \"never\"\nstrict = true\nnonsense = 1\n",
        )
        .unwrap();
        let c = from(&[(CONFIG, file.to_str().unwrap()), (SPLIT, "always")]);
        std::fs::remove_dir_all(&dir).unwrap();
        assert_eq!((c.jobs, c.split, c.strict), (Some(3), Split::Always, true));
        assert_eq!(c.complaints.len(), 1);
        assert!(
            c.complaints[0].contains("nonsense is not a setting"),
            "{:?}",
            c.complaints
        );
    }

    #[test]
    fn bad_values_are_said_and_ignored() {
        let c = from(&[
            (JOBS, "0"),
            (SPLIT, "sometimes"),
            (CONFIG, "/nonexistent/ldwrap.toml"),
        ]);
        assert_eq!((c.jobs, c.split), (None, Split::Auto));
        assert_eq!(c.complaints.len(), 3);
    }

    #[test]
    fn sizes_have_units() {
        for (text, size) in [
            ("0", Some(0)),
            ("10G", Some(10 << 30)),
            ("3k", Some(3072)),
            ("", None),
            ("G", None),
            ("1.5G", None),
            ("99999999T", None),
            ("-1", None),
        ] {
            assert_eq!(bytes(text), size, "{text}");
        }
    }

    #[test]
    fn empty_means_unset() {
        assert_eq!(from(&[(REAL_LLD, ""), (JOBS, "")]), Config::default());
    }
}
