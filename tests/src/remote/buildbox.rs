//! buildbox-casd, a real Remote Execution server (docs/lld.md, "A server for tests").

use super::free_port;
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// What a worker's sandbox needs to run the clang of this machine.
pub const SYSTEM: &[&str] = &["/usr", "/bin", "/lib", "/lib64"];

/// A server, gone with this.
#[derive(Debug)]
pub struct Server {
    child: Child,
    port: u16,
    /// What its sandbox sees; none: it does not execute.
    mounts: Option<Vec<String>>,
    dir: tempfile::TempDir,
}

impl Server {
    /// Its sandbox sees these directories of ours; without any, not even `/usr`.
    #[must_use]
    pub fn start(mounts: &[&str]) -> Self {
        Self::start_with(Some(mounts.iter().map(|m| (*m).to_owned()).collect()))
    }

    /// A cache, which does not execute.
    #[must_use]
    pub fn start_cache() -> Self {
        Self::start_with(None)
    }

    fn start_with(mounts: Option<Vec<String>>) -> Self {
        let dir = tempfile::tempdir().expect("a directory for the server");
        let port = free_port();
        let child = spawn(dir.path(), port, mounts.as_deref());
        Self {
            child,
            port,
            mounts,
            dir,
        }
    }

    /// For `LDWRAP_REMOTE`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("grpc://127.0.0.1:{}", self.port)
    }

    /// Its port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Ends it at once, with all that it runs.
    pub fn kill(&mut self) {
        self.end("-KILL");
    }

    fn end(&mut self, signal: &str) {
        let group = format!("-{}", self.child.id());
        let _ = Command::new("kill").args([signal, "--", &group]).status();
        let _ = self.child.wait();
    }

    /// Kills it and starts it again, on the same port; with nothing of what it knew if `empty`.
    pub fn restart(&mut self, empty: bool) {
        self.kill();
        if empty {
            self.dir = tempfile::tempdir().expect("a directory for the server");
        }
        self.child = spawn(self.dir.path(), self.port, self.mounts.as_deref());
    }

    /// Where it keeps what it has.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }
}

fn spawn(dir: &Path, port: u16, mounts: Option<&[String]>) -> Child {
    let cache = std::env::var_os("XDG_CACHE_HOME").map_or_else(
        || Path::new(&std::env::var_os("HOME").expect("HOME")).join(".cache"),
        PathBuf::from,
    );
    let buildbox = cache.join("ldwrap/buildbox");
    assert!(
        buildbox.join("buildbox-casd").exists(),
        "no buildbox-casd: run scripts/setup --tests"
    );
    // What it leaves when it is killed goes with its directory.
    let (tmp, cas) = (dir.join("tmp"), dir.join("cas"));
    std::fs::create_dir_all(&tmp).expect("a directory for the server");
    let mut command = Command::new(buildbox.join("buildbox-casd"));
    command
        .env("TMPDIR", &tmp)
        .arg(format!("--bind=127.0.0.1:{port}"))
        .arg("--log-level=error");
    if let Some(mounts) = mounts {
        let run = buildbox.join("buildbox-run");
        command
            .arg(format!("--buildbox-run={}", run.display()))
            .arg("--jobs=2");
        let mount = |m: &String| format!("--runner-arg=--bind-mount={m}:{m}");
        command.args(mounts.iter().map(mount));
    }
    command
        .arg(cas)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0);
    let child = command.spawn().expect("buildbox-casd");
    let end = Instant::now() + Duration::from_secs(20);
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(Instant::now() < end, "the server does not answer");
        std::thread::sleep(Duration::from_millis(20));
    }
    child
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end("-TERM");
    }
}
