//! All settings, in one table: it feeds the parser, the complaints, `ldwrap help settings`, `ldwrap config`,
//! docs/settings.md and the manual page.
//!
//! A setting is an environment variable and a key of the configuration files. The names are a contract: packages
//! and build scripts rely on them.

use crate::config::{Config, Executor, ShowProgress, Split};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

/// What a setting is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topic {
    /// Every link.
    Links,
    /// Links with a Remote Execution server.
    Server,
}

/// One row of the table.
pub struct Setting {
    /// The environment variable. In a configuration file it is written without `LDWRAP_`, in lower case.
    pub name: &'static str,
    /// What its value looks like, for people.
    pub value: &'static str,
    /// What holds when it is not set: a value, or in parentheses what decides.
    pub default: &'static str,
    /// What it is about.
    pub topic: Topic,
    /// What it means, in half a line.
    pub help: &'static str,
    /// What else there is to know: whole sentences, or nothing.
    pub more: &'static str,
    /// Whether its value is not to be shown, as it may hold a secret.
    pub secret: fn(&OsStr) -> bool,
    /// Takes a value; false if it is none.
    pub take: fn(&mut Config, &OsStr) -> bool,
}

/// The configuration file itself, and so no key of it.
pub const CONFIG: &str = "LDWRAP_CONFIG";
/// A directory for what the verification of each link found: set by `ldwrap verify` for the command that it
/// runs, and by nobody else.
pub const VERIFY: &str = "LDWRAP_VERIFY";
/// A file for the answer of the linker that a command reaches: set by `ldwrap doctor` for the command that it runs, and
/// by nobody else.
pub const DOCTOR: &str = "LDWRAP_DOCTOR";
/// A directory of objects that `ldwrap backend` has made: set by `ldwrap final` for the link that it runs, and by nobody else.
pub const OBJECTS: &str = "LDWRAP_OBJECTS";
/// How often a script in the place of lld has led back to us; set by ourselves ([`crate::lld::depth_for`]).
pub const DEPTH: &str = "LDWRAP_DEPTH";
/// How often scripts in the place of a compiler have been run; set by ourselves ([`crate::compiler::exec`]).
pub const COMPILER_DEPTH: &str = "LDWRAP_COMPILER_DEPTH";
/// What begins with one of these is for scripts and tests, or between two of us.
pub const OTHERS: [&str; 4] = ["LDWRAP_LLVM", "LDWRAP_TEST_", DEPTH, COMPILER_DEPTH];

const SIZE: &str = "SIZE: bytes, or a number with K, M, G or T behind it";
/// Each may be a lock's file, which every link looks at.
const MOST_JOBS: usize = 4096;
const MOST_REMOTE_JOBS: usize = 10_000;
/// Each link has twice as many.
const MOST_CONNECTIONS: usize = 64;
/// A day: times that are added up stay far from an overflow.
pub const MOST_SECONDS: u64 = 86_400;
const SECONDS: &str = "SECONDS from 1 to 86400";

/// An ordinary setting of every link, to be completed.
const LINKS: Setting = Setting {
    name: "",
    value: "",
    default: "(none)",
    topic: Topic::Links,
    help: "",
    more: "",
    secret: |_| false,
    take: |_, _| false,
};
const SERVER: Setting = Setting {
    topic: Topic::Server,
    ..LINKS
};

/// Every setting.
pub static SETTINGS: [Setting; 30] = [
    Setting {
        name: "LDWRAP_SPLIT",
        value: "auto|always|never",
        default: "auto",
        help: "which links ldwrap takes part in",
        more: "With auto, those with enough bitcode for a cache to pay; those with enough for a server's round trips \
               go to the server. With always, each one that has ThinLTO bitcode. With never, none: lld links alone.",
        take: |c, v| {
            let split = match v.as_bytes() {
                b"auto" => Split::Auto,
                b"always" => Split::Always,
                b"never" => Split::Never,
                _ => return false,
            };
            c.split = split;
            true
        },
        ..LINKS
    },
    Setting {
        name: "LDWRAP_REAL_LLD",
        value: "FILE",
        default: "(the one that would run without ldwrap)",
        help: "the real lld",
        more: "Otherwise the first of these: the lld with the version in ldwrap's own name (ld.lld-19); ld.lld.distrib \
               or ld.lld.real beside that name, where a package has put ldwrap in the place of lld; the ld.lld \
               beside the compiler that called; ld.lld in PATH; the newest ld.lld-N in PATH. Where one of these is \
               ldwrap itself, the ld.lld.distrib or ld.lld.real beside it counts.",
        take: |c, v| put(&mut c.real_lld, path(v)),
        ..LINKS
    },
    Setting {
        name: "LDWRAP_CLANG",
        value: "FILE",
        default: "(the one of the same LLVM as the lld)",
        help: "the clang that compiles backends outside lld",
        more: "Otherwise the one beside the real lld, the compiler that called, or clang-N in PATH. Its version must \
               be lld's.",
        take: |c, v| put(&mut c.clang, path(v)),
        ..LINKS
    },
    Setting {
        name: "LDWRAP_JOBS",
        value: "NUMBER from 1 to 4096",
        default: "(the number of processors)",
        help: "how many backends compile at once, over all links of this user on this machine",
        more: "Under a jobserver (make, ninja, cargo) each needs one of its tokens as well.",
        take: |c, v| put(&mut c.jobs, count(v, MOST_JOBS)),
        ..LINKS
    },
    Setting {
        name: "LDWRAP_MEMORY",
        value: SIZE,
        default: "(what the machine and its control groups have free)",
        help: "how much memory the links of this machine may take together",
        more: "A backend starts only when what it is expected to need is there, and large links take turns.",
        take: |c, v| put(&mut c.memory, size(v).filter(|&n| n > 0)),
        ..LINKS
    },
    Setting {
        name: "LDWRAP_EXECUTOR",
        value: "local|clang|remote|distributor",
        default: "(remote where LDWRAP_REMOTE is set, else local)",
        help: "where backends run",
        more: "local: in lld's own threads. clang: on this machine, a process each. remote: on the server that \
               LDWRAP_REMOTE names, and in lld's own threads. distributor: by the program that LDWRAP_DISTRIBUTOR \
               names, and in lld's own threads.",
        take: |c, v| {
            let executor = match v.as_bytes() {
                b"local" => Executor::Local,
                b"clang" => Executor::Clang,
                b"remote" => Executor::Remote,
                b"distributor" => Executor::Distributor,
                _ => return false,
            };
            put(&mut c.executor, Some(executor))
        },
        ..LINKS
    },
    Setting {
        name: "LDWRAP_DISTRIBUTOR",
        value: "COMMAND",
        default: "(none)",
        help: "a DTLTO distributor, with its arguments: the program that runs backends under LDWRAP_EXECUTOR=distributor",
        more: "It is run once for a link, with a file of jobs in the format of lld 21 and later behind its arguments, for \
               lld 14 and later. Words are separated by spaces.",
        take: |c, v| {
            let words = v.as_bytes().split(u8::is_ascii_whitespace);
            let words = words.filter(|word| !word.is_empty());
            c.distributor = words
                .map(|word| OsStr::from_bytes(word).to_owned())
                .collect();
            !c.distributor.is_empty()
        },
        ..LINKS
    },
    Setting {
        name: "LDWRAP_CACHE_DIR",
        value: "DIRECTORY",
        default: "(${XDG_CACHE_HOME:-~/.cache}/ldwrap)",
        help: "where the caches are",
        more: "They may be deleted at any time.",
        take: |c, v| put(&mut c.cache_dir, path(v)),
        ..LINKS
    },
    Setting {
        name: "LDWRAP_CACHE_SIZE",
        value: SIZE,
        default: "10G",
        help: "how large the cache of objects may grow; 0 for no cache",
        more: "What was not used for longest goes first.",
        take: |c, v| match size(v) {
            Some(size) => {
                c.cache_size = size;
                true
            }
            None => false,
        },
        ..LINKS
    },
    Setting {
        name: "LDWRAP_STRICT",
        value: "0|1",
        default: "0",
        help: "1: backends outside lld that fail, and bad settings, are errors",
        more: "Otherwise lld does the work of such backends, and bad settings are passed over. For tests.",
        take: |c, v| {
            let strict = match v.as_bytes() {
                b"1" | b"true" | b"yes" => true,
                b"0" | b"false" | b"no" => false,
                _ => return false,
            };
            c.strict = strict;
            true
        },
        ..LINKS
    },
    Setting {
        name: "LDWRAP_LOG",
        value: "FILTER",
        help: "what to log on standard error, in env_logger's syntax, such as info or ldwrap=debug",
        take: |c, v| put(&mut c.log, Some(v.to_string_lossy().into_owned())),
        ..LINKS
    },
    Setting {
        name: "LDWRAP_REPORT",
        value: "FILE",
        help: "a file that gets one line of JSON for each link: what was done, why, and how long each phase took",
        take: |c, v| put(&mut c.report, path(v)),
        ..LINKS
    },
    Setting {
        name: "LDWRAP_PROGRESS",
        value: "auto|never|always",
        default: "auto",
        help: "whether links that take longer than a second show on a terminal how far they are",
        more: "It is one line, which is gone when lld speaks and when the link ends. Of several links on a terminal one \
               has it. With auto, none is shown with LDWRAP_LOG; with always, it is shown at once and wherever standard \
               error goes.",
        take: |c, v| {
            let progress = match v.as_bytes() {
                b"auto" => ShowProgress::Auto,
                b"never" => ShowProgress::Never,
                b"always" => ShowProgress::Always,
                _ => return false,
            };
            c.progress = progress;
            true
        },
        ..LINKS
    },
    Setting {
        name: "LDWRAP_TRACE",
        value: "DIRECTORY",
        help: "a directory that gets a trace of each link, to be looked at in Perfetto or chrome://tracing",
        more: "A file OUTPUT-PID.json for each: what ran when and where, and what it waited for.",
        take: |c, v| put(&mut c.trace, path(v)),
        ..LINKS
    },
    Setting {
        name: "LDWRAP_SAVE_OBJECTS",
        value: "FILE",
        help: "keep the objects of backends outside lld under this name with a number behind it",
        more: "As lld's --lto-obj-path does; FILE.modules says which module each is of.",
        take: |c, v| put(&mut c.save_objects, path(v)),
        ..LINKS
    },
    Setting {
        name: "LDWRAP_KEEP",
        value: "DIRECTORY",
        help: "keep what each link was made from there, with every command that was run and a script that repeats it",
        take: |c, v| put(&mut c.keep, path(v)),
        ..LINKS
    },
    Setting {
        name: "LDWRAP_REMOTE",
        value: "grpc://HOST:PORT or, with TLS, grpcs://HOST:PORT",
        help: "a server of the Remote Execution API, version 2",
        more: "A path behind HOST:PORT is the instance name. A user or a password does not belong here: use \
               LDWRAP_REMOTE_HEADERS.",
        secret: |v| v.as_bytes().contains(&b'@'),
        take: |c, v| match v.to_str().and_then(endpoint) {
            Some((tls, host, path)) => {
                let scheme = if tls { "https" } else { "http" };
                c.server.endpoint = format!("{scheme}://{host}");
                (c.server.tls, c.server.path) = (tls, path.to_owned());
                true
            }
            None => false,
        },
        ..SERVER
    },
    Setting {
        name: "LDWRAP_REMOTE_INSTANCE",
        value: "NAME",
        default: "(the path of LDWRAP_REMOTE)",
        help: "the instance name",
        take: |c, v| text(v).map(|v| c.server.instance = v).is_some(),
        ..SERVER
    },
    Setting {
        name: "LDWRAP_REMOTE_PLATFORM",
        value: "NAME=VALUE,...",
        help: "properties that a worker must have",
        take: |c, v| pairs(v).map(|v| c.server.platform = v).is_some(),
        ..SERVER
    },
    Setting {
        name: "LDWRAP_REMOTE_HEADERS",
        value: "FILE",
        help: "a file of headers for each call, one a line (authorization: Bearer TOKEN)",
        more: "It is read again when the server refuses what it said.",
        take: |c, v| put(&mut c.server.headers, path(v)),
        ..SERVER
    },
    Setting {
        name: "LDWRAP_REMOTE_CREDENTIAL_HELPER",
        value: "FILE",
        help: "a program that gives headers, run as HELPER get, as Bazel's credential helpers are",
        more: "It is run again when the server refuses what it said.",
        take: |c, v| put(&mut c.server.credential_helper, path(v)),
        ..SERVER
    },
    Setting {
        name: "LDWRAP_REMOTE_CA",
        value: "FILE",
        default: "(the system's)",
        help: "certificates to trust (PEM)",
        take: |c, v| put(&mut c.server.ca, path(v)),
        ..SERVER
    },
    Setting {
        name: "LDWRAP_REMOTE_CERT",
        value: "FILE",
        help: "our own certificate (PEM), together with LDWRAP_REMOTE_KEY",
        take: |c, v| put(&mut c.server.certificate, path(v)),
        ..SERVER
    },
    Setting {
        name: "LDWRAP_REMOTE_KEY",
        value: "FILE",
        help: "our certificate's key (PEM)",
        take: |c, v| put(&mut c.server.key, path(v)),
        ..SERVER
    },
    Setting {
        name: "LDWRAP_REMOTE_CLANG",
        value: "FILE",
        default: "(ours is sent, once, with its libraries)",
        help: "the path of clang on the workers",
        more: "Its version is checked before the first job.",
        take: |c, v| put(&mut c.server.clang, text(v)),
        ..SERVER
    },
    Setting {
        name: "LDWRAP_REMOTE_JOBS",
        value: "NUMBER from 1 to 10000",
        default: "200",
        help: "executions at once",
        take: |c, v| {
            count(v, MOST_REMOTE_JOBS)
                .map(|v| c.server.jobs = v)
                .is_some()
        },
        ..SERVER
    },
    Setting {
        name: "LDWRAP_REMOTE_CONNECTIONS",
        value: "NUMBER from 1 to 64",
        default: "2",
        help: "connections for what is sent, and as many for what is received",
        take: |c, v| {
            count(v, MOST_CONNECTIONS)
                .map(|v| c.server.connections = v)
                .is_some()
        },
        ..SERVER
    },
    Setting {
        name: "LDWRAP_REMOTE_LOCAL",
        value: "always|fallback",
        default: "always",
        help: "always: this machine's cores take part; fallback: they do only what the server fails to",
        take: |c, v| {
            let fallback_only = match v.as_bytes() {
                b"always" => false,
                b"fallback" => true,
                _ => return false,
            };
            c.server.fallback_only = fallback_only;
            true
        },
        ..SERVER
    },
    Setting {
        name: "LDWRAP_REMOTE_TIMEOUT",
        value: SECONDS,
        default: "30",
        help: "the time limit of a call, and of each step of a transfer; a download that takes longer has to bring 64 KiB a second",
        take: |c, v| seconds(v).map(|v| c.server.timeout = v).is_some(),
        ..SERVER
    },
    Setting {
        name: "LDWRAP_REMOTE_EXECUTION_TIMEOUT",
        value: SECONDS,
        default: "600",
        help: "the time limit of an execution, waiting for a worker included",
        take: |c, v| seconds(v).map(|v| c.server.execution_timeout = v).is_some(),
        ..SERVER
    },
];

impl Setting {
    /// The setting of a name; with or without its prefix, in any case.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        let name = name.to_ascii_uppercase();
        let name = name.strip_prefix("LDWRAP_").unwrap_or(&name);
        SETTINGS.iter().find(|s| s.short() == name)
    }

    /// Its name without the prefix.
    #[must_use]
    pub fn short(&self) -> &'static str {
        self.name.trim_start_matches("LDWRAP_")
    }

    /// Its key in a configuration file.
    #[must_use]
    pub fn key(&self) -> String {
        self.short().to_ascii_lowercase()
    }
}

/// The known name that is nearest to one that is not known, if one is near.
#[must_use]
pub fn nearest<'n>(name: &str, known: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    // What all names begin with says nothing.
    let own = |name: &'n str| name.strip_prefix("LDWRAP_").unwrap_or(name);
    let given = name.strip_prefix("LDWRAP_").unwrap_or(name);
    let likeness = |known: &'n str| (strsim::jaro_winkler(given, own(known)), known);
    let alike = known
        .into_iter()
        .map(likeness)
        .filter(|(how, _)| *how > 0.85);
    alike
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, known)| known)
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

/// Puts a value, if it is one, where it belongs.
fn put<T>(to: &mut Option<T>, value: Option<T>) -> bool {
    let is_one = value.is_some();
    if is_one {
        *to = value;
    }
    is_one
}

fn path(value: &OsStr) -> Option<PathBuf> {
    (!value.is_empty()).then(|| value.into())
}

fn text(value: &OsStr) -> Option<String> {
    value.to_str().map(str::to_owned)
}

fn size(value: &OsStr) -> Option<u64> {
    bytes(value.to_str()?)
}

fn count(value: &OsStr, most: usize) -> Option<usize> {
    let count = value.to_str()?.parse().ok();
    count.filter(|n| (1..=most).contains(n))
}

fn seconds(value: &OsStr) -> Option<Duration> {
    let seconds = value.to_str()?.parse().ok();
    let seconds = seconds.filter(|n| (1..=MOST_SECONDS).contains(n));
    seconds.map(Duration::from_secs)
}

fn pairs(value: &OsStr) -> Option<Vec<(String, String)>> {
    let properties = value.to_str()?.split(',').filter(|p| !p.is_empty());
    let pair = |p: &str| {
        let (name, value) = p.split_once('=')?;
        Some((name.to_owned(), value.to_owned()))
    };
    properties.map(pair).collect()
}

/// Whether it is encrypted, host with port, and path, of a server's URL.
fn endpoint(url: &str) -> Option<(bool, &str, &str)> {
    let (scheme, rest) = url.split_once("://")?;
    let tls = match scheme {
        "grpc" => false,
        "grpcs" => true,
        _ => return None,
    };
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    // A password in the URL would be on show wherever the URL is.
    let fine = !host.is_empty() && !rest.contains('@');
    fine.then_some((tls, host, path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_default_that_is_a_value_is_the_default() {
        for setting in &SETTINGS {
            assert!(setting.name.starts_with("LDWRAP_"));
            assert!(
                !setting.help.is_empty() && !setting.help.ends_with('.'),
                "{}",
                setting.name
            );
            assert!(
                setting.more.is_empty() || setting.more.ends_with('.'),
                "{}",
                setting.name
            );
            if !setting.default.starts_with('(') {
                let mut config = Config::default();
                assert!((setting.take)(&mut config, OsStr::new(setting.default)));
                assert_eq!(config, Config::default(), "{}", setting.name);
            }
            assert!(std::ptr::eq(
                Setting::named(&setting.key()).unwrap(),
                setting
            ));
        }
    }

    #[test]
    fn numbers_have_the_range_that_is_told() {
        for setting in &SETTINGS {
            let Some((_, range)) = setting.value.split_once(" from ") else {
                continue;
            };
            let (least, most) = range.split_once(" to ").unwrap();
            let (least, most): (u64, u64) = (least.parse().unwrap(), most.parse().unwrap());
            let takes = |n: u64| (setting.take)(&mut Config::default(), OsStr::new(&n.to_string()));
            assert!(takes(least) && takes(most), "{}", setting.name);
            for bad in [least - 1, most + 1, 1 << 32, u64::MAX] {
                assert!(!takes(bad), "{}={bad}", setting.name);
            }
        }
        let ranges = SETTINGS.iter().filter(|s| s.value.contains(" from "));
        assert_eq!(ranges.count(), 5);
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
    fn the_nearest_name() {
        let known = || SETTINGS.iter().map(Setting::short);
        assert_eq!(nearest("JOB", known()), Some("JOBS"));
        assert_eq!(nearest("REMOTE_TIMOUT", known()), Some("REMOTE_TIMEOUT"));
        assert_eq!(nearest("XYZZY", known()), None);
        let whole = ["LDWRAP_LOG", "LDWRAP_SPLIT"];
        assert_eq!(nearest("LDWRAP_XYZZY", whole), None);
        assert_eq!(nearest("LDWRAP_SPILT", whole), Some("LDWRAP_SPLIT"));
    }

    #[test]
    fn urls() {
        for (url, parts) in [
            (
                "grpcs://build.example:443/main/one",
                Some((true, "build.example:443", "main/one")),
            ),
            ("grpc://[::1]:50051", Some((false, "[::1]:50051", ""))),
            ("host:1", None),
            ("https://host:1", None),
            ("grpc:///x", None),
            ("grpc://me:secret@host:1", None),
        ] {
            assert_eq!(endpoint(url), parts, "{url}");
        }
    }
}
