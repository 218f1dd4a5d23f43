//! Children and signals: whoever stops us stops them too, and nothing stays behind.
//!
//! SIGINT, SIGTERM and SIGHUP are taken by one thread (`sigwait`), so no handler runs at an odd
//! moment. It stops the children, removes the scratch directory, and dies by the same signal, as the
//! caller expects of a linker. SIGKILL cannot be taken; then the kernel kills the children
//! ([`crate::supervise::die_with_parent`]).

use nix::sys::signal::{self, SigSet, SigmaskHow, Signal};
use nix::unistd::Pid;
use std::collections::HashSet;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long children may take to clean up after themselves.
const GRACE: Duration = Duration::from_secs(2);

#[derive(Debug, Default)]
struct State {
    children: HashSet<u32>,
    scratch: Option<PathBuf>,
    stopping: bool,
}

static STATE: Mutex<Option<State>> = Mutex::new(None);

fn state() -> MutexGuard<'static, Option<State>> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn with<T>(f: impl FnOnce(&mut State) -> T) -> T {
    f(state().get_or_insert_with(State::default))
}

/// Starts taking signals. To be called before any other thread is started.
pub fn take_signals() -> io::Result<()> {
    let mut set = SigSet::empty();
    for s in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        // What the caller ignores (nohup) stays ignored.
        if !is_ignored(s) {
            set.add(s);
        }
    }
    signal::pthread_sigmask(SigmaskHow::SIG_BLOCK, Some(&set), None)?;
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            if let Ok(signal) = set.wait() {
                stop(signal);
            }
        })?;
    Ok(())
}

fn is_ignored(signal: Signal) -> bool {
    // SAFETY: reading the disposition of a valid signal into a local, all-zero struct.
    unsafe {
        let mut old: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal as i32, std::ptr::null(), &raw mut old) == 0
            && old.sa_sigaction == libc::SIG_IGN
    }
}

/// Names the directory to remove when a signal ends us.
pub fn set_scratch(dir: Option<PathBuf>) {
    with(|s| s.scratch = dir);
}

fn stop(signal: Signal) -> ! {
    let (children, scratch) = with(|s| {
        s.stopping = true;
        (s.children.clone(), s.scratch.take())
    });
    for &child in &children {
        let _ = signal::kill(Pid::from_raw(child as i32), signal);
    }
    // lld removes its temporary output when it is interrupted; give it the time.
    let end = Instant::now() + GRACE;
    while Instant::now() < end && with(|s| !s.children.is_empty()) {
        std::thread::sleep(Duration::from_millis(5));
    }
    for child in with(|s| s.children.clone()) {
        let _ = signal::kill(Pid::from_raw(child as i32), Signal::SIGKILL);
    }
    if let Some(dir) = scratch {
        // A worker may have been about to make a file: a second try finds what the first missed.
        for _ in 0..3 {
            if crate::scratch::remove(&dir).is_ok() || !dir.exists() {
                break;
            }
        }
    }
    let mut only = SigSet::empty();
    only.add(signal);
    let _ = signal::pthread_sigmask(SigmaskHow::SIG_UNBLOCK, Some(&only), None);
    let _ = signal::raise(signal);
    std::process::exit(128 + signal as i32)
}

/// A child that is known to the signal thread as long as it runs.
#[derive(Debug)]
pub struct Running {
    child: Child,
    reaped: bool,
}

impl Running {
    /// Takes charge of a child.
    #[must_use]
    pub fn new(mut child: Child) -> Self {
        let stopping = with(|s| {
            s.children.insert(child.id());
            s.stopping
        });
        if stopping {
            let _ = child.kill();
        }
        Self {
            child,
            reaped: false,
        }
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        let status = self.child.wait();
        self.forget();
        status
    }

    /// Its process number, as long as it has not been waited for.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    fn forget(&mut self) {
        self.reaped = true;
        with(|s| s.children.remove(&self.child.id()));
    }
}

impl Drop for Running {
    /// A child that nobody waited for is not wanted any more.
    fn drop(&mut self) {
        if !self.reaped {
            let _ = self.child.kill();
            let _ = self.child.wait();
            self.forget();
        }
    }
}

/// Runs a command to its end, with its output taken and nothing to read.
pub fn output(mut command: Command) -> io::Result<Output> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    die_with_thread(&mut command);
    let mut child = command.spawn()?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let mut running = Running::new(child);
    let drain = |pipe: Option<Box<dyn io::Read + Send>>| {
        let mut bytes = Vec::new();
        pipe.map_or(Ok(0), |mut p| p.read_to_end(&mut bytes))
            .map(|_| bytes)
    };
    let (out, err) = std::thread::scope(|scope| {
        let other = scope.spawn(|| drain(stdout.map(|p| Box::new(p) as _)));
        let err = drain(stderr.map(|p| Box::new(p) as _));
        (
            other
                .join()
                .unwrap_or_else(|_| Err(io::ErrorKind::Other.into())),
            err,
        )
    });
    let status = running.wait()?;
    Ok(Output {
        status,
        stdout: out?,
        stderr: err?,
    })
}

/// Makes the kernel kill the child of this command when the thread that starts it ends.
pub fn die_with_thread(command: &mut Command) {
    // SAFETY: `die_with_parent` is async-signal-safe, as pre_exec demands.
    unsafe {
        command.pre_exec(crate::supervise::die_with_parent);
    }
}
