//! Reads the settings: the environment, and the configuration files beneath it.
//!
//! Once, here; nothing else in the project looks at the environment for its settings. A bad setting never
//! stops a link and is never silent either: it is a complaint, which `ldwrap config`, `ldwrap doctor`, the
//! report and the log tell, and a terminal.

use crate::config::{Config, Executor, Given, Origin};
use crate::files::open_readable;
use crate::settings::{CONFIG, DOCTOR, OBJECTS, OTHERS, SETTINGS, Setting, Topic, VERIFY, nearest};
use std::env;
use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// What holds for all users of the machine.
const SYSTEM_WIDE: &str = "/etc/ldwrap.toml";

/// Reads the environment of this process and the configuration files.
#[must_use]
pub fn read() -> Config {
    read_from(env::vars_os(), Path::new(SYSTEM_WIDE))
}

/// As [`read`], from any environment and file.
pub fn read_from(
    vars: impl IntoIterator<Item = (OsString, OsString)>,
    system_wide: &Path,
) -> Config {
    let (mut ours, mut reader) = (Vec::new(), Reader::default());
    let (mut home, mut cache, mut files) = (None, None, None);
    for (name, value) in vars.into_iter().filter(|(_, value)| !value.is_empty()) {
        match name.as_bytes() {
            b"HOME" => home = Some(value),
            b"XDG_CACHE_HOME" => cache = Some(value),
            b"XDG_CONFIG_HOME" => files = Some(value),
            n if n.starts_with(b"LDWRAP_") => ours.push((name, value)),
            _ => {}
        }
    }
    // As the XDG base directory specification has it, a relative path counts as none.
    let absolute = |path: &Option<OsString>| {
        let path = path.as_ref().map(PathBuf::from);
        path.filter(|path| path.is_absolute())
    };
    let below = |xdg, name| {
        let in_home = || absolute(&home).map(|home| home.join(name));
        absolute(xdg).or_else(in_home).map(|dir| dir.join("ldwrap"))
    };
    reader.config.cache_dir = below(&cache, ".cache");

    reader.file(system_wide, false);
    match ours.iter().find(|(name, _)| name == CONFIG) {
        Some((_, file)) => reader.file(Path::new(file), true),
        None => {
            if let Some(dir) = below(&files, ".config") {
                reader.file(&dir.join("ldwrap.toml"), false);
            }
        }
    }
    // Variables come in any order.
    ours.sort();
    for (name, value) in &ours {
        reader.variable(name, value);
    }
    reader.settle();
    reader.config
}

/// Reads a configuration file; never waits for the other end of a FIFO, nor reads without end.
fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    const LARGEST: u64 = 1 << 20;
    let file = open_readable(path)?;
    if !file.metadata()?.is_file() && path != Path::new("/dev/null") {
        return Err(io::Error::other("it is no plain file"));
    }
    let mut text = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut text)?;
    if text.len() as u64 > LARGEST {
        return Err(io::Error::other("it is larger than 1 MiB"));
    }
    Ok(text)
}

/// The settings as far as they were read.
#[derive(Default)]
struct Reader {
    config: Config,
}

impl Reader {
    /// What only all settings together tell.
    fn settle(&mut self) {
        let server = &mut self.config.server;
        if server.instance.is_empty() {
            server.instance.clone_from(&server.path);
        }
        if server.certificate.is_some() != server.key.is_some() {
            let complaint =
                "LDWRAP_REMOTE_CERT and LDWRAP_REMOTE_KEY go together; the server is not used";
            self.complain(Topic::Server, complaint.into());
        }
        // A bad name of a server has been complained about.
        let nameless =
            self.config.server_trouble.is_none() && self.config.server.endpoint.is_empty();
        if self.config.executor == Some(Executor::Remote) && nameless {
            let complaint = "LDWRAP_EXECUTOR=remote, but LDWRAP_REMOTE names no server";
            self.complain(Topic::Server, complaint.into());
        }
    }

    /// Notes what is wrong with a setting.
    fn complain(&mut self, topic: Topic, complaint: String) {
        if topic == Topic::Server {
            self.config
                .server_trouble
                .get_or_insert_with(|| complaint.clone());
        }
        self.config.complaints.push(complaint);
    }

    /// Takes an environment variable of ours.
    fn variable(&mut self, name: &OsStr, value: &OsStr) {
        let shown = name.to_string_lossy();
        match SETTINGS.iter().find(|setting| setting.name == shown) {
            Some(setting) => self.take(setting, value, Origin::Environment),
            None if shown == VERIFY => self.config.verify = Some(value.into()),
            None if shown == DOCTOR => self.config.doctor = Some(value.into()),
            None if shown == OBJECTS => self.config.objects = Some(value.into()),
            None if shown == CONFIG || OTHERS.iter().any(|other| shown.starts_with(other)) => {}
            None => {
                let known = SETTINGS.iter().map(|setting| setting.name);
                self.unknown(&shown, nearest(&shown, known), &Origin::Environment);
            }
        }
    }

    /// Takes what a configuration file says: each setting as a top-level key of its name, in any case, with or
    /// without its prefix.
    fn file(&mut self, path: &Path, must_be: bool) {
        let text = match read_file(path) {
            Ok(text) => text,
            Err(e) => {
                // The one of all users or of this user may well not be there.
                if must_be || e.kind() != io::ErrorKind::NotFound {
                    let why = format!("{}: cannot read the configuration: {e}", path.display());
                    self.complain(Topic::Links, why);
                }
                return;
            }
        };
        let text = String::from_utf8_lossy(&text);
        let line = |at: usize| 1 + text.bytes().take(at).filter(|b| *b == b'\n').count();
        let table = match toml::de::DeTable::parse(&text) {
            Ok(table) => table.into_inner(),
            Err(e) => {
                let line = line(e.span().map_or(0, |span| span.start));
                let (path, why) = (path.display(), e.message());
                let complaint = format!("{path}:{line}: {why}; the whole file is passed over");
                self.complain(Topic::Links, complaint);
                return;
            }
        };
        let mut entries: Vec<_> = table.iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        for (key, value) in entries {
            let origin = Origin::File(path.to_owned(), line(key.span().start));
            let key = key.get_ref();
            let Some(setting) = Setting::named(key) else {
                let keys: Vec<String> = SETTINGS.iter().map(Setting::key).collect();
                let known = keys.iter().map(String::as_str);
                self.unknown(key, nearest(&key.to_ascii_lowercase(), known), &origin);
                continue;
            };
            match value.get_ref() {
                toml::de::DeValue::String(s) => self.take(setting, OsStr::new(&**s), origin),
                toml::de::DeValue::Boolean(b) => {
                    self.take(setting, OsStr::new(if *b { "1" } else { "0" }), origin);
                }
                toml::de::DeValue::Integer(n) => self.take(setting, OsStr::new(n.as_str()), origin),
                _ => {
                    let why = format!("{origin}: {key}: expected a text, a number, true or false");
                    self.complain(setting.topic, why);
                }
            }
        }
    }

    /// Takes one setting.
    fn take(&mut self, setting: &'static Setting, value: &OsStr, origin: Origin) {
        let shown = if (setting.secret)(value) {
            "(not shown: it may hold a password)".into()
        } else {
            value.to_string_lossy().into_owned()
        };
        if !(setting.take)(&mut self.config, value) {
            let then = match setting.topic {
                Topic::Links => "it is passed over",
                Topic::Server => "the server is not used",
            };
            let complaint = format!(
                "{origin}: {}={shown}: expected {}; {then}",
                setting.name, setting.value
            );
            self.complain(setting.topic, complaint);
        }
        self.config.given.push(Given {
            name: setting.name,
            shown,
            origin,
        });
    }

    /// Complains about a name that is not known.
    fn unknown(&mut self, name: &str, nearest: Option<&str>, origin: &Origin) {
        let hint = nearest.map_or("see ldwrap help settings".into(), |n| format!("is it {n}?"));
        let complaint = format!("{origin}: {name} is no setting: {hint}");
        self.complain(Topic::Links, complaint);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Split;

    fn from(vars: &[(&str, &str)]) -> Config {
        let vars = vars.iter().map(|(n, v)| ((*n).into(), (*v).into()));
        read_from(vars, Path::new("/nonexistent/ldwrap.toml"))
    }

    struct Dir(PathBuf);

    impl Dir {
        fn new(name: &str) -> Self {
            let dir = env::temp_dir().join(format!("ldwrap-config-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&dir).unwrap();
            Self(dir)
        }

        fn file(&self, name: &str, text: &str) -> PathBuf {
            let file = self.0.join(name);
            std::fs::write(&file, text).unwrap();
            file
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn the_environment_wins_over_the_users_file_and_that_over_the_systems() {
        let dir = Dir::new("wins");
        let system = dir.file("system.toml", "jobs = 2\nstrict = true\nclang = \"/c\"\n");
        let user = dir.file("user.toml", "# ours\njobs = 3\nLDWRAP_SPLIT = \"never\"\n");
        let vars = [("LDWRAP_SPLIT", "always"), (CONFIG, user.to_str().unwrap())];
        let c = read_from(vars.map(|(n, v)| (n.into(), v.into())), &system);
        assert_eq!((c.jobs, c.split, c.strict), (Some(3), Split::Always, true));
        assert_eq!(c.clang, Some("/c".into()));
        assert!(c.complaints.is_empty(), "{:?}", c.complaints);
        let origin = |name| {
            let given = c.given.iter().rev().find(|g| g.name == name);
            given.map(|g| g.origin.clone())
        };
        assert_eq!(origin("LDWRAP_SPLIT"), Some(Origin::Environment));
        assert_eq!(origin("LDWRAP_JOBS"), Some(Origin::File(user, 2)));
    }

    #[test]
    fn complaints_name_the_place() {
        let dir = Dir::new("place");
        let bad = dir.file(
            "bad.toml",
            "\njobs = 0\njbos = 1\nclang = [1]\nstrict = 7\n",
        );
        let broken = dir.file("broken.toml", "jobs = 1\nsplit = \n");
        let c = from(&[(CONFIG, bad.to_str().unwrap())]);
        let bad = bad.display();
        assert_eq!(
            c.complaints,
            [
                format!(
                    "{bad}:2: LDWRAP_JOBS=0: expected NUMBER from 1 to 4096; it is passed over"
                ),
                format!("{bad}:3: jbos is no setting: is it jobs?"),
                format!("{bad}:4: clang: expected a text, a number, true or false"),
                format!("{bad}:5: LDWRAP_STRICT=7: expected 0|1; it is passed over"),
            ]
        );
        let c = from(&[(CONFIG, broken.to_str().unwrap())]);
        let place = format!("{}:2: ", broken.display());
        assert!(c.complaints[0].starts_with(&place), "{:?}", c.complaints);
        assert_eq!(c.jobs, None);
        let c = from(&[(CONFIG, "/nonexistent/ldwrap.toml")]);
        assert!(
            c.complaints[0].contains("cannot read"),
            "{:?}",
            c.complaints
        );
    }

    #[test]
    fn a_configuration_is_a_plain_file_of_a_sensible_size() {
        let dir = Dir::new("plain");
        let fifo = dir.0.join("fifo");
        let name = std::ffi::CString::new(fifo.as_os_str().as_bytes()).unwrap();
        // SAFETY: a valid string that lives through the call.
        assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
        let large = dir.file("large.toml", &"\n".repeat((1 << 20) + 1));
        for (file, why) in [
            (fifo.as_path(), "it is no plain file"),
            (Path::new("/dev/zero"), "it is no plain file"),
            (dir.0.as_path(), "it is no plain file"),
            (large.as_path(), "it is larger than 1 MiB"),
        ] {
            let c = from(&[(CONFIG, file.to_str().unwrap())]);
            let file = file.display();
            assert_eq!(
                c.complaints,
                [format!("{file}: cannot read the configuration: {why}")]
            );
        }
        assert_eq!(from(&[(CONFIG, "/dev/null")]).complaints, [""; 0]);
    }

    #[test]
    fn bad_and_unknown_variables() {
        let c = from(&[
            ("LDWRAP_SPLIT", "sometimes"),
            ("LDWRAP_JOB", "1"),
            ("LDWRAP_LLVM", "22"),
            ("LDWRAP_TEST_X", "1"),
            ("LDWRAP_CLANG", ""),
            ("OTHER", "1"),
        ]);
        assert_eq!(
            c.complaints,
            [
                "environment: LDWRAP_JOB is no setting: is it LDWRAP_JOBS?",
                "environment: LDWRAP_SPLIT=sometimes: expected auto|always|never; it is passed over",
            ]
        );
        assert_eq!((c.split, c.jobs), (Split::Auto, None));
        assert_eq!(
            from(&[("LDWRAP_REAL_LLD", ""), ("LDWRAP_JOBS", "")]),
            Config::default()
        );
    }

    #[test]
    fn a_server_needs_good_settings() {
        let good = from(&[
            ("LDWRAP_REMOTE", "grpcs://h:1/from/url"),
            ("LDWRAP_REMOTE_PLATFORM", "OSFamily=Linux,image=a=b"),
            ("LDWRAP_REMOTE_JOBS", "7"),
        ]);
        assert_eq!(good.executor(), Executor::Remote);
        let server = good.server().unwrap();
        assert_eq!(
            (server.endpoint.as_str(), server.tls),
            ("https://h:1", true)
        );
        assert_eq!((server.instance.as_str(), server.jobs), ("from/url", 7));
        assert_eq!(server.platform[1], ("image".into(), "a=b".into()));
        let named = [
            ("LDWRAP_REMOTE", "grpc://h:1/x"),
            ("LDWRAP_REMOTE_INSTANCE", "y"),
        ];
        assert_eq!(from(&named).server().unwrap().instance, "y");
        for (vars, complaint) in [
            (&[("LDWRAP_REMOTE", "host:1")][..], "expected grpc://"),
            (&[("LDWRAP_REMOTE", "me:secret@h:1")], "not shown"),
            (&[("LDWRAP_REMOTE", "grpc://me:secret@h:1")], "not shown"),
            (
                &[("LDWRAP_REMOTE", "grpc://h:1"), ("LDWRAP_REMOTE_JOBS", "0")],
                "NUMBER from 1 to 10000",
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
            (
                &[
                    ("LDWRAP_REMOTE", "grpc://h:1"),
                    ("LDWRAP_REMOTE_LOCAL", "never"),
                ],
                "always|fallback",
            ),
            (
                &[
                    ("LDWRAP_REMOTE", "grpc://h:1"),
                    ("LDWRAP_REMOTE_TIMEOUT", "abc"),
                ],
                "SECONDS from 1 to 86400",
            ),
            (&[("LDWRAP_EXECUTOR", "remote")], "names no server"),
        ] {
            let c = from(vars);
            assert_eq!(c.complaints.len(), 1, "{:?}", c.complaints);
            assert!(c.complaints[0].contains(complaint), "{:?}", c.complaints);
            assert!(!format!("{c:?}").contains("secret"));
            assert!(c.server().is_err());
        }
    }
}
