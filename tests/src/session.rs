//! A private directory, one LLVM version and an installed ldwrap: files, commands, and what they leave.

use crate::fixtures_only;
use crate::link::PlainLink;
use crate::run::{Run, Tree, snapshot};
use serde_json::Value;
use shim::stats_log::file_name;
use shim::user_dir::user_dir;
use std::cell::RefCell;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The seconds that one command may take.
const TIMEOUT_SECONDS: &str = "90";

/// [`user_dir`] of the user that some tests take on.
const NOBODYS_USER_DIR: &str = "/tmp/ldwrap-65534";

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
    pub(crate) written: RefCell<Vec<PathBuf>>,
    /// The last plain link of [`Session::link_both`].
    pub(crate) last_plain: RefCell<Option<PlainLink>>,
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
            last_plain: RefCell::default(),
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
            s.install(&binary("ldwrap-shim"), "lib/ldwrap/ld.lld");
            s.install(&binary("ldwrap-shim"), &format!("lib/ldwrap/ld.lld-{llvm}"));
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

    /// A program by the name of `clang` that runs a bash script, and its absolute path. ldwrap asks a script that stands for
    /// clang which compiler it runs, and takes that one.
    pub fn clang(&self, directory: &str, text: &str) -> PathBuf {
        self.sh(&format!("mkdir -p {directory}"));
        self.script(&format!("{directory}/clang.sh"), text);
        self.write(
            &format!("{directory}/run.c"),
            "#include <string.h>\n#include <unistd.h>\n\
             int main(int argc, char **argv) {\n\
             \x20 static char path[4096]; char *args[argc + 2]; (void)!readlink(\"/proc/self/exe\", path, 4000); strcat(path, \".sh\");\n\
             \x20 args[0] = \"bash\"; args[1] = path; memcpy(args + 2, argv + 1, argc * sizeof *argv);\n\
             \x20 return execv(\"/bin/bash\", args); }\n",
        );
        self.sh(&format!(
            "clang-$N -O1 -w {directory}/run.c -o {directory}/clang"
        ));
        self.dir().join(directory).join("clang")
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
            // Shared, so that not each session has to test the toolchains again.
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
            // A process for each module: the way that needs more testing. Tests of the local engine ask
            // for that.
            .env("LDWRAP_EXECUTOR", "clang")
            .env("LDWRAP_STRICT", "1")
            .env("LDWRAP_JOBS", "2")
            // Each link compiles what it needs; tests of the cache ask for it.
            .env("LDWRAP_CACHE_SIZE", "0")
            .env("LDWRAP_REPORT", self.report_path());
    }

    /// The same with the settings that a user has who has made none.
    pub fn use_shim_by_default(&self, c: &mut Command) {
        self.use_shim(c);
        for name in [
            "LDWRAP_SPLIT",
            "LDWRAP_EXECUTOR",
            "LDWRAP_STRICT",
            "LDWRAP_JOBS",
            "LDWRAP_CACHE_SIZE",
            "LDWRAP_REPORT",
        ] {
            c.env_remove(name);
        }
    }

    pub(crate) fn report_path(&self) -> PathBuf {
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

    pub(crate) fn capture(&self, mut command: Command) -> Run {
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
        c.args(["--default-signal", "prlimit", "--core=0"]);
        c.arg(self.shim_n()).args(args);
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

    /// Removes what links leave outside of this session's directory: the logs of its cache directories
    /// ([`shim::stats_log`]), which may be anywhere in its directory and in those below, or be shared.
    fn remove_stats_logs(&self) {
        let entries = |dir: &Path| -> Vec<PathBuf> {
            let entries = fs::read_dir(dir).into_iter().flatten().flatten();
            entries.map(|entry| entry.path()).collect()
        };
        let mut cache_dirs = vec![shared_cache(), self.root().join("home/.cache/ldwrap")];
        for dir in entries(self.root()) {
            cache_dirs.extend(entries(&dir));
            cache_dirs.push(dir);
        }
        let user_dirs = user_dir().into_iter().chain([NOBODYS_USER_DIR.into()]);
        for user_dir in user_dirs {
            for cache_dir in &cache_dirs {
                let _ = fs::remove_file(user_dir.join(file_name(Some(cache_dir))));
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if std::thread::panicking() && std::env::var_os("LDWRAP_TEST_KEEP").is_some() {
            self.root.disable_cleanup(true);
            eprintln!("LLVM {}: kept {}", self.llvm, self.root().display());
        }
        self.remove_stats_logs();
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
