//! The harness of the end-to-end tests: a test reads as a session at a shell.
//!
//! A [`Session`] is a private directory, one LLVM version and an installed ldwrap.
//! [`Session::link_both`] runs one command twice, first with the real lld, then with the shim in
//! its place, and gives a [`Both`] to compare. The real lld is the oracle: exit status, stdout,
//! stderr and every file that the link wrote have to be equal, so a test seldom says what it
//! expects beyond "splits" or "left to lld".
//!
//! Why a shell: drivers, quoting and odd file names are part of what is tested, and a failed test
//! can be repeated by hand. The commands see
//!
//! | variable | plain link | through ldwrap |
//! |---|---|---|
//! | `$N` | LLVM's major version | the same |
//! | `$OUT` | `a.out`, the output of both links, since its name can change bytes | the same |
//! | `$LD` | `ld.lld-N` | the shim of that name |
//! | `$LDLLD` | LLVM's `ld.lld` | the shim of that name |
//! | `$LDWRAP` | lld by the name of `ldwrap` | `ldwrap` |
//! | `$COMPILER_PATH` | LLVM's directory | the shim's (docs/lld.md, "Finding the linker") |
//! | `$FIXTURES` | the folder `tests/fixtures` | the same |
//!
//! The tests themselves read a few variables:
//!
//! - `LDWRAP_TEST_BIN_DIR`: where the binaries `shim` and `ldwrap` are; by default the workspace's target
//!   directory, the newer of release and debug.
//! - `LDWRAP_LLVM`: the versions to test, by default `14 16 19 22`.
//! - `LDWRAP_TEST_KEEP`: keep the directories of failed sessions, and say where they are.
//! - `LDWRAP_TEST_FIXTURES`: prove the fixtures alone. lld takes the place of ldwrap, and nothing is
//!   asserted about splitting; for a new LLVM version, or a new test.

pub mod remote;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// Undoes the default `LDWRAP_STRICT=1` of a link, for [`Session::link_both_with`].
pub const LENIENT: (&str, &str) = ("LDWRAP_STRICT", "");

/// The seconds that one command may take.
const TIMEOUT_SECONDS: &str = "90";

/// Runs `test` with each LLVM version; all of them run, and the failure names those that failed.
pub fn each_llvm(test: impl Fn(&Session)) {
    some_llvm(|_| true, test);
}

/// Runs `test` with the LLVM versions for which `wanted` holds.
///
/// For what older versions do not have at all; the caller says why at the call.
pub fn some_llvm(wanted: impl Fn(u32) -> bool, test: impl Fn(&Session)) {
    let mut failed = Vec::new();
    for llvm in llvm_versions().into_iter().filter(|&n| wanted(n)) {
        eprintln!("---- LLVM {llvm}");
        let result = catch_unwind(AssertUnwindSafe(|| test(&Session::new(llvm))));
        if result.is_err() {
            failed.push(llvm);
        }
    }
    assert!(failed.is_empty(), "failed with LLVM {failed:?}");
}

/// Runs `test` with each LLVM version; not at all when only fixtures are proven.
///
/// For tests that are about ldwrap alone and so have no plain link to look at.
pub fn each_llvm_with_shim(test: impl Fn(&Session)) {
    if fixtures_only() {
        eprintln!("LDWRAP_TEST_FIXTURES is set: this test is about ldwrap alone");
        return;
    }
    each_llvm(test);
}

/// Whether lld stands in for ldwrap (`LDWRAP_TEST_FIXTURES`).
pub fn fixtures_only() -> bool {
    std::env::var_os("LDWRAP_TEST_FIXTURES").is_some_and(|v| !v.is_empty())
}

fn llvm_versions() -> Vec<u32> {
    let list = std::env::var("LDWRAP_LLVM").unwrap_or_else(|_| "14 16 19 22".to_owned());
    let versions: Vec<u32> = list
        .split_whitespace()
        .map(|n| {
            n.parse()
                .unwrap_or_else(|_| panic!("LDWRAP_LLVM: '{n}' is no LLVM version"))
        })
        .collect();
    assert!(!versions.is_empty(), "LDWRAP_LLVM names no version");
    versions
}

/// One built binary, found as the crate's documentation says.
fn binary(name: &str) -> PathBuf {
    let var = |key| {
        std::env::var_os(key)
            .filter(|v| !v.is_empty())
            .map(PathBuf::from)
    };
    let candidates: Vec<PathBuf> = match var("LDWRAP_TEST_BIN_DIR") {
        Some(dir) => vec![dir],
        None => {
            let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
            let target = var("CARGO_TARGET_DIR").unwrap_or_else(|| workspace.join("target"));
            vec![target.join("release"), target.join("debug")]
        }
    };
    let found = candidates
        .iter()
        .filter_map(|dir| fs::canonicalize(dir.join(name)).ok());
    let built = |path: &PathBuf| path.metadata().and_then(|m| m.modified()).ok();
    if let Some(newest) = found.max_by_key(built) {
        return newest;
    }
    panic!(
        "no binary '{name}' in {candidates:?}: run 'cargo build --release', or set LDWRAP_TEST_BIN_DIR"
    )
}

/// A private directory in which commands run, with one LLVM version and an installed ldwrap.
///
/// `w/` is the working directory, `tmp/` is `TMPDIR`, `home/` is `HOME`, `p/` is the prefix where
/// ldwrap is installed, and `plain/` takes the files of the plain link.
pub struct Session {
    /// LLVM's major version.
    pub llvm: u32,
    root: TempDir,
    /// What the last [`Session::link_both`] left in the working directory.
    written: RefCell<Vec<PathBuf>>,
}

/// A cache directory for all sessions of all tests, beside the test binaries.
fn shared_cache() -> PathBuf {
    let exe = std::env::current_exe().expect("a test has a binary");
    exe.with_file_name("ldwrap-tests-cache")
}

impl Session {
    /// A session for one LLVM version. Panics when its clang or lld is missing, or ldwrap is not
    /// built: a test that lacks a tool fails.
    pub fn new(llvm: u32) -> Session {
        for tool in [
            format!("/usr/bin/clang-{llvm}"),
            format!("/usr/lib/llvm-{llvm}/bin/ld.lld"),
        ] {
            assert!(
                Path::new(&tool).exists(),
                "LLVM {llvm}: no {tool}; install clang-{llvm} and lld-{llvm}"
            );
        }
        // A short name: it is in debug information, and identifiers are long enough.
        let root = tempfile::Builder::new()
            .prefix("ldw")
            .tempdir()
            .expect("a temporary directory");
        let s = Session {
            llvm,
            root,
            written: RefCell::default(),
        };
        for dir in [
            "w",
            "tmp",
            "home",
            "plain",
            "plain-bin",
            "p/bin",
            "p/lib/ldwrap",
        ] {
            fs::create_dir_all(s.root().join(dir)).expect("a directory of the session");
        }
        let real = format!("#!/bin/sh\nexec /usr/lib/llvm-{llvm}/bin/ld.lld \"$@\"\n");
        s.script("../plain-bin/ldwrap", &real);
        if fixtures_only() {
            for name in [
                "bin/ldwrap",
                "lib/ldwrap/ld.lld",
                &format!("lib/ldwrap/ld.lld-{llvm}"),
            ] {
                let name = name.to_owned();
                let target = if name.ends_with(&format!("-{llvm}")) {
                    format!("/usr/bin/ld.lld-{llvm}")
                } else {
                    format!("/usr/lib/llvm-{llvm}/bin/ld.lld")
                };
                if name == "bin/ldwrap" {
                    s.script("../p/bin/ldwrap", &real);
                } else {
                    std::os::unix::fs::symlink(target, s.prefix().join(name))
                        .expect("a link to lld");
                }
            }
        } else {
            s.install(&binary("ldwrap"), "bin/ldwrap");
            s.install(&binary("shim"), "lib/ldwrap/ld.lld");
            s.install(&binary("shim"), &format!("lib/ldwrap/ld.lld-{llvm}"));
        }
        s
    }

    /// Puts a binary into the prefix. By another process: were it written by this one, a fork in
    /// another thread could hold it open for writing, and running it would fail with ETXTBSY.
    fn install(&self, binary: &Path, name: &str) {
        let to = self.prefix().join(name);
        let status = Command::new("sh")
            .args([
                "-c",
                "ln \"$1\" \"$2\" 2>/dev/null || cp \"$1\" \"$2\"",
                "install",
            ])
            .args([binary, &to])
            .status();
        assert!(
            status.is_ok_and(|s| s.success()),
            "cannot install {binary:?} as {to:?}"
        );
    }

    /// The session's private directory.
    pub fn root(&self) -> &Path {
        self.root.path()
    }

    /// The working directory of every command.
    pub fn dir(&self) -> PathBuf {
        self.root().join("w")
    }

    /// The prefix where ldwrap is installed.
    pub fn prefix(&self) -> PathBuf {
        self.root().join("p")
    }

    /// The shim by the name `ld.lld`.
    pub fn shim(&self) -> PathBuf {
        self.prefix().join("lib/ldwrap/ld.lld")
    }

    /// The shim by the name `ld.lld-N`.
    pub fn shim_n(&self) -> PathBuf {
        self.prefix()
            .join(format!("lib/ldwrap/ld.lld-{}", self.llvm))
    }

    /// `TMPDIR` of every command.
    pub fn tmp(&self) -> PathBuf {
        self.root().join("tmp")
    }

    /// Writes a file, and the directories that it needs, relative to the working directory.
    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        let path = self.dir().join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).expect("a directory for a file");
        }
        fs::write(&path, text).unwrap_or_else(|e| panic!("cannot write {path:?}: {e}"));
    }

    /// Writes an executable script and gives its absolute path; by another process, as in
    /// `install`.
    pub fn script(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir().join(name);
        let mut child = Command::new("sh")
            .args(["-c", "cat >\"$1\" && chmod 755 \"$1\"", "script"])
            .arg(&path)
            .stdin(Stdio::piped())
            .spawn()
            .expect("sh");
        child
            .stdin
            .take()
            .expect("a pipe")
            .write_all(text.as_bytes())
            .expect("cat reads the script");
        assert!(
            child.wait().is_ok_and(|s| s.success()),
            "cannot write {path:?}"
        );
        path
    }

    /// Whether a file is there, relative to the working directory.
    pub fn exists(&self, name: &str) -> bool {
        self.dir().join(name).symlink_metadata().is_ok()
    }

    /// The text of a file, relative to the working directory.
    pub fn read(&self, name: &str) -> String {
        let path = self.dir().join(name);
        let bytes = fs::read(&path)
            .unwrap_or_else(|e| panic!("LLVM {}: cannot read {path:?}: {e}", self.llvm));
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// A `bash -c` with the session's environment and nothing of ours.
    pub fn bash(&self, command: &str) -> Command {
        let mut c = Command::new("timeout");
        c.args(["-k", "5", TIMEOUT_SECONDS, "bash", "-c"])
            .arg(format!("set -euo pipefail; {command}"));
        self.set_environment(&mut c);
        c
    }

    /// The environment, working directory and streams of every command of the session.
    pub fn set_environment(&self, c: &mut Command) {
        let llvm_bin = format!("/usr/lib/llvm-{}/bin", self.llvm);
        c.env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("LANG", "C.UTF-8")
            .env("HOME", self.root().join("home"))
            // Shared, so that not each session has to prove the toolchains again.
            .env("LDWRAP_CACHE_DIR", shared_cache())
            .env("XDG_CONFIG_HOME", self.root().join("home/config"))
            .env("TMPDIR", self.tmp())
            .env("LDWRAP_TEST_SESSION", self.root())
            .env(
                "FIXTURES",
                Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures"),
            )
            .env("N", self.llvm.to_string())
            .env("OUT", "a.out")
            .env("LD", format!("/usr/bin/ld.lld-{}", self.llvm))
            .env("LDLLD", format!("{llvm_bin}/ld.lld"))
            .env("LDWRAP", self.root().join("plain-bin/ldwrap"))
            .env("COMPILER_PATH", llvm_bin)
            .current_dir(self.dir())
            .stdin(Stdio::null());
    }

    /// Puts ldwrap in the place of lld, for a command that [`Session::set_environment`] prepared.
    pub fn use_shim(&self, c: &mut Command) {
        c.env("LD", self.shim_n())
            .env("LDLLD", self.shim())
            .env("LDWRAP", self.prefix().join("bin/ldwrap"))
            .env("COMPILER_PATH", self.prefix().join("lib/ldwrap"))
            .env("LDWRAP_SPLIT", "always")
            // A process for each module: the way that is more to be proven. Tests of the local engine ask
            // for that.
            .env("LDWRAP_EXECUTOR", "clang")
            .env("LDWRAP_STRICT", "1")
            .env("LDWRAP_JOBS", "2")
            // Each link compiles what it needs; tests of the cache ask for it.
            .env("LDWRAP_CACHE_SIZE", "0")
            .env("LDWRAP_REPORT", self.report_path());
    }

    fn report_path(&self) -> PathBuf {
        self.root().join("report.json")
    }

    /// Runs a command that must succeed, with the plain link's environment; gives its stdout.
    pub fn sh(&self, command: &str) -> String {
        let run = self.capture(self.bash(command));
        assert!(
            run.status.success(),
            "LLVM {}: this failed: {command}\n{run}",
            self.llvm
        );
        String::from_utf8_lossy(&run.stdout).into_owned()
    }

    /// Runs a command that must fail, with the plain link's environment; gives its stderr.
    pub fn sh_fails(&self, command: &str) -> String {
        let run = self.capture(self.bash(command));
        assert!(
            !run.status.success(),
            "LLVM {}: this should have failed: {command}\n{run}",
            self.llvm
        );
        String::from_utf8_lossy(&run.stderr).into_owned()
    }

    fn capture(&self, mut command: Command) -> Run {
        let out = command
            .output()
            .unwrap_or_else(|e| panic!("cannot run {command:?}: {e}"));
        Run {
            status: out.status,
            stdout: out.stdout,
            stderr: out.stderr,
            files: Tree::new(),
        }
    }

    /// Runs a command, and collects the files of the working directory that it wrote or changed.
    fn capture_files(&self, command: Command, before: &Tree) -> Run {
        let mut run = self.capture(command);
        run.files = snapshot(&self.dir());
        run.files
            .retain(|path, entry| before.get(path) != Some(entry));
        run
    }

    /// Links once plainly and once through ldwrap, see the crate's documentation. What an earlier
    /// `link_both` wrote is removed first.
    pub fn link_both(&self, command: &str) -> Both<'_> {
        self.link_both_with(&[], command)
    }

    /// [`Session::link_both`] with further variables for the link through ldwrap; an empty value
    /// unsets one.
    pub fn link_both_with(&self, env: &[(&str, &str)], command: &str) -> Both<'_> {
        for path in self.written.take().into_iter().rev() {
            let path = self.dir().join(path);
            let _ = if path.is_dir() {
                fs::remove_dir(&path)
            } else {
                fs::remove_file(&path)
            };
        }
        let before = snapshot(&self.dir());
        let plain = self.capture_files(self.bash(command), &before);
        self.move_away(&plain.files, &before);

        let mut through = self.bash(command);
        self.use_shim(&mut through);
        if env.iter().any(|(key, _)| *key == "LDWRAP_REMOTE") {
            through.env_remove("LDWRAP_EXECUTOR");
        }
        for (key, value) in env {
            if value.is_empty() {
                through.env_remove(key);
            } else {
                through.env(key, value);
            }
        }
        let _ = fs::remove_file(self.report_path());
        let split = self.capture_files(through, &before);
        self.written.replace(split.files.keys().cloned().collect());
        self.assert_nothing_left(command);
        Both {
            s: self,
            command: command.to_owned(),
            plain,
            split,
            reports: self.reports(),
        }
    }

    /// Moves what the plain link wrote to `plain/` and puts back what it changed.
    fn move_away(&self, written: &Tree, before: &Tree) {
        let plain = self.root().join("plain");
        fs::remove_dir_all(&plain).expect("an empty plain/");
        for (path, entry) in written {
            let (from, to) = (self.dir().join(path), plain.join(path));
            match entry {
                Entry::Dir => fs::create_dir_all(&to).expect("a directory in plain/"),
                _ => {
                    fs::create_dir_all(to.parent().expect("plain/ itself"))
                        .expect("a directory in plain/");
                    fs::rename(&from, &to).expect("a file moved to plain/");
                }
            }
        }
        fs::create_dir_all(&plain).expect("plain/");
        for (path, entry) in written.iter().rev() {
            let at = self.dir().join(path);
            match (entry, before.get(path)) {
                (Entry::Dir, None) => fs::remove_dir(&at).expect("an empty directory"),
                (_, Some(Entry::File { mode, bytes })) => {
                    fs::write(&at, bytes).expect("a file as it was");
                    fs::set_permissions(&at, fs::Permissions::from_mode(*mode)).expect("its mode");
                }
                (_, Some(Entry::Link(to))) => {
                    std::os::unix::fs::symlink(to, &at).expect("a link as it was")
                }
                _ => {}
            }
        }
    }

    /// The reports that links have appended since the last [`Session::link_both`] began.
    pub fn reports(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.report_path()).unwrap_or_default();
        text.lines()
            .map(|line| {
                serde_json::from_str(line)
                    .unwrap_or_else(|e| panic!("a report is no JSON: {e}: {line}"))
            })
            .collect()
    }

    /// Asserts that `TMPDIR` is empty and no process of this session runs (children may need a
    /// moment to die).
    pub fn assert_nothing_left(&self, after: &str) {
        let left: Vec<PathBuf> = snapshot(&self.tmp()).into_keys().collect();
        assert!(
            left.is_empty(),
            "LLVM {}: left in TMPDIR: {left:?}\nafter: {after}",
            self.llvm
        );
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            let running = self.processes();
            if running.is_empty() {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "LLVM {}: still running: {running:?}\nafter: {after}",
                self.llvm
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The processes whose environment carries this session's mark, as `pid name`.
    fn processes(&self) -> Vec<String> {
        let mut mark = b"LDWRAP_TEST_SESSION=".to_vec();
        mark.extend_from_slice(self.root().as_os_str().as_bytes());
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").expect("/proc").flatten() {
            let is_ours = fs::read(entry.path().join("environ"))
                .is_ok_and(|environ| environ.split(|&b| b == 0).any(|var| var == mark));
            if is_ours {
                let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
                found.push(format!(
                    "{} {}",
                    entry.file_name().to_string_lossy(),
                    name.trim()
                ));
            }
        }
        found
    }

    /// Starts the shim itself (`$LD`), so that it can be sent signals; default signal
    /// dispositions, whatever the test runner ignores.
    pub fn spawn_shim(&self, env: &[(&str, &str)], args: &[&str]) -> Child {
        let mut c = Command::new("env");
        c.arg("--default-signal").arg(self.shim_n()).args(args);
        self.set_environment(&mut c);
        self.use_shim(&mut c);
        c.envs(env.iter().copied()).stdout(Stdio::null());
        c.stderr(fs::File::create(self.root().join("stderr")).expect("a file for stderr"));
        c.spawn().expect("env")
    }

    /// Waits until `file` (relative to the working directory) is there and not empty.
    pub fn wait_for(&self, file: &str, child: &mut Child) {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            if fs::metadata(self.dir().join(file)).is_ok_and(|m| m.len() > 0) {
                return;
            }
            let ended = child.try_wait().expect("a child");
            let stderr = fs::read_to_string(self.root().join("stderr")).unwrap_or_default();
            assert!(
                ended.is_none(),
                "LLVM {}: ended ({ended:?}) before {file}: {stderr}",
                self.llvm
            );
            assert!(
                Instant::now() < deadline,
                "LLVM {}: no {file} after 30 s: {stderr}",
                self.llvm
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if std::thread::panicking() && std::env::var_os("LDWRAP_TEST_KEEP").is_some() {
            self.root.disable_cleanup(true);
            eprintln!("LLVM {}: kept {}", self.llvm, self.root().display());
        }
    }
}

/// Waits for a child for at most `seconds`.
pub fn wait(child: &mut Child, seconds: u64) -> ExitStatus {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    loop {
        if let Some(status) = child.try_wait().expect("a child") {
            return status;
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            let _ = child.wait();
            panic!("still running after {seconds} s");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// What a file tree holds, by relative path.
type Tree = BTreeMap<PathBuf, Entry>;

#[derive(PartialEq, Eq)]
enum Entry {
    Dir,
    Link(PathBuf),
    File { mode: u32, bytes: Vec<u8> },
    Other,
}

/// Everything below a directory. What cannot be read counts as empty.
fn snapshot(dir: &Path) -> Tree {
    let mut tree = Tree::new();
    let mut todo = vec![PathBuf::new()];
    while let Some(sub) = todo.pop() {
        for entry in fs::read_dir(dir.join(&sub)).into_iter().flatten().flatten() {
            let (name, path) = (sub.join(entry.file_name()), entry.path());
            let Ok(meta) = path.symlink_metadata() else {
                continue;
            };
            let kind = if meta.is_dir() {
                todo.push(name.clone());
                Entry::Dir
            } else if meta.is_symlink() {
                Entry::Link(fs::read_link(&path).unwrap_or_default())
            } else if meta.is_file() {
                let mode = meta.permissions().mode() & 0o7777;
                Entry::File {
                    mode,
                    bytes: fs::read(&path).unwrap_or_default(),
                }
            } else {
                Entry::Other
            };
            tree.insert(name, kind);
        }
    }
    tree
}

/// What one command did.
pub struct Run {
    /// How it ended.
    pub status: ExitStatus,
    /// What it printed.
    pub stdout: Vec<u8>,
    /// What it complained about.
    pub stderr: Vec<u8>,
    files: Tree,
}

impl Run {
    /// stderr as text.
    pub fn errors(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// The names of the files and directories that it wrote.
    pub fn file_names(&self) -> Vec<String> {
        self.files.keys().map(|p| p.display().to_string()).collect()
    }
}

impl std::fmt::Display for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The head of what may be a map file.
        let text =
            |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(4000)]).into_owned();
        write!(
            f,
            "{}\nstdout:\n{}stderr:\n{}files: {:?}",
            self.status,
            text(&self.stdout),
            text(&self.stderr),
            self.file_names()
        )
    }
}

/// The two links of [`Session::link_both`]: `plain` with lld, `split` through ldwrap.
pub struct Both<'s> {
    s: &'s Session,
    command: String,
    /// The link with the real lld.
    pub plain: Run,
    /// The link through ldwrap, whether it was split or not.
    pub split: Run,
    /// What ldwrap reported (`LDWRAP_REPORT`), one object a link.
    pub reports: Vec<Value>,
}

impl Both<'_> {
    fn context(&self) -> String {
        format!(
            "LLVM {}: {}\n== plain: {}\n== through ldwrap: {}\n== reports: {:?}\n",
            self.s.llvm, self.command, self.plain, self.split, self.reports
        )
    }

    /// Asserts that both links did the same: exit status, stdout, stderr, and each file written,
    /// whole, with its mode.
    pub fn same(&self) -> &Self {
        let (plain, split) = (&self.plain, &self.split);
        assert_eq!(
            plain.status.into_raw(),
            split.status.into_raw(),
            "exit status differs\n{}",
            self.context()
        );
        assert!(
            plain.stdout == split.stdout,
            "stdout differs\n{}",
            self.context()
        );
        assert!(
            plain.stderr == split.stderr,
            "stderr differs\n{}",
            self.context()
        );
        assert_eq!(
            plain.file_names(),
            split.file_names(),
            "other files were written\n{}",
            self.context()
        );
        for (path, entry) in &plain.files {
            if split.files.get(path) != Some(entry) {
                panic!(
                    "{path:?} differs: {}\n{}",
                    self.difference(path),
                    self.context()
                );
            }
        }
        self
    }

    /// How two files differ: sections, dynamic table and symbols, for the person who reads a failure.
    fn difference(&self, path: &Path) -> String {
        let mut c = self.s.bash(
            "cmp \"$PLAIN\" \"$SPLIT\" | head -3 || true; \
             elf() { llvm-readelf-$N -SdWs --dyn-syms \"$1\" 2>&1; llvm-objdump-$N -d \"$1\" 2>&1; }; \
             diff <(elf \"$PLAIN\") <(elf \"$SPLIT\") | head -60 || true",
        );
        c.env("PLAIN", self.s.root().join("plain").join(path))
            .env("SPLIT", self.s.dir().join(path));
        self.s.capture(c).to_string()
    }

    /// The one report of this link.
    pub fn report(&self) -> &Value {
        match self.reports.as_slice() {
            [one] => one,
            _ => panic!("one report expected\n{}", self.context()),
        }
    }

    fn field(&self, name: &str) -> &str {
        self.report()
            .get(name)
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    /// Asserts that the link succeeds, was split, and did the same as lld. Where clang was to compile all
    /// modules, it did.
    pub fn splits(&self) -> &Self {
        self.splits_but(0)
    }

    /// The same where so many modules were left to lld.
    pub fn splits_but(&self, by_lld: u64) -> &Self {
        assert!(self.plain.status.success(), "lld fails\n{}", self.context());
        if !fixtures_only() {
            assert!(
                self.split.status.success(),
                "the split fails\n{}",
                self.context()
            );
            assert_eq!(
                self.field("action"),
                "split",
                "not split\n{}",
                self.context()
            );
            let number = |key| self.report().get(key).and_then(Value::as_u64);
            // What lld has a warning for it has to compile.
            if self.field("executor") == "clang" && self.plain.stderr.is_empty() {
                assert_eq!(
                    (self.field("reason"), number("compiled_by_lld")),
                    ("", Some(by_lld)),
                    "not by clang\n{}",
                    self.context()
                );
            }
            assert_eq!(number("version"), Some(1), "{}", self.context());
            assert!(
                number("modules").is_some_and(|n| n > 0),
                "no modules\n{}",
                self.context()
            );
        }
        self.same()
    }

    /// Asserts the number of modules that the backends compiled.
    pub fn modules(&self, expected: u64) -> &Self {
        if !fixtures_only() {
            let modules = self.report().get("modules").and_then(Value::as_u64);
            assert_eq!(modules, Some(expected), "{}", self.context());
        }
        self
    }

    /// Asserts that no jobs were made of the link, for a reason that contains `reason` (in any case): it was
    /// done by lld's own threads, or forwarded. It did the same as lld, whether lld succeeds or not.
    pub fn left_to_lld(&self, reason: &str) -> &Self {
        if !fixtures_only() {
            let made = self.report().get("cache").and_then(|c| c.get("misses"));
            assert!(
                self.field("action") == "forward" || self.report().get("compiled_by_lld") == made,
                "not by lld\n{}",
                self.context()
            );
            let given = self.field("reason");
            assert!(!given.is_empty(), "no reason\n{}", self.context());
            let found = given.to_lowercase().contains(&reason.to_lowercase());
            assert!(
                found,
                "the reason does not say '{reason}'\n{}",
                self.context()
            );
        }
        self.same()
    }

    /// Asserts that lld succeeds; that ldwrap does too follows from [`Both::same`].
    pub fn succeeds(&self) -> &Self {
        assert!(self.plain.status.success(), "lld fails\n{}", self.context());
        self
    }

    /// Asserts that lld fails, with `message` in its stderr, and that ldwrap did the same.
    pub fn fails(&self, message: &str) -> &Self {
        assert!(
            !self.plain.status.success(),
            "lld succeeds\n{}",
            self.context()
        );
        assert!(
            self.plain.errors().contains(message),
            "another error than '{message}'\n{}",
            self.context()
        );
        self.same()
    }

    /// Asserts that a file written by both links contains `text`: that a side file is not empty.
    pub fn wrote(&self, name: &str, text: &str) -> &Self {
        let found = self.s.root().join("plain").join(name);
        let bytes = fs::read(&found)
            .unwrap_or_else(|e| panic!("lld wrote no {name}: {e}\n{}", self.context()));
        let has = String::from_utf8_lossy(&bytes).contains(text);
        assert!(has, "no '{text}' in {name}\n{}", self.context());
        self
    }

    /// Asserts that stdout of both links contains `text`.
    pub fn said(&self, text: &str) -> &Self {
        let all = [self.plain.stdout.as_slice(), self.plain.stderr.as_slice()].concat();
        assert!(
            String::from_utf8_lossy(&all).contains(text),
            "lld did not say '{text}'\n{}",
            self.context()
        );
        self
    }

    /// Runs `$OUT` of both links, and asserts that both exit with 0 and print `expected`.
    pub fn prints(&self, expected: &str) -> &Self {
        self.runs("$OUT", expected)
    }

    /// Runs a command on both outputs, with `$OUT` the path of each in turn and its directory in
    /// `LD_LIBRARY_PATH`; asserts that both succeed and print `expected`.
    pub fn runs(&self, command: &str, expected: &str) -> &Self {
        for dir in [self.s.root().join("plain"), self.s.dir()] {
            let mut path = OsString::from(&dir);
            path.push(":");
            path.push(self.s.dir());
            let mut c = self.s.bash(command);
            c.env("OUT", dir.join("a.out")).env("LD_LIBRARY_PATH", path);
            let run = self.s.capture(c);
            let stdout = String::from_utf8_lossy(&run.stdout);
            assert!(
                run.status.success() && stdout == expected,
                "'{command}' in {dir:?}: expected '{expected}', got: {run}\n{}",
                self.context()
            );
        }
        self
    }
}
