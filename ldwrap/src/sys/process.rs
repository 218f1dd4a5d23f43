//! Children and signals: whoever stops us stops them too, and nothing stays behind.
//!
//! SIGINT, SIGTERM and SIGHUP are blocked, and one thread sees them come (a signalfd that is polled
//! but never read, so that they stay pending). It stops the children, removes the scratch directory,
//! and unblocks the signal, by which we then die, as the caller expects of a linker. Since nothing
//! takes the signal away, it also reaches the real lld when that has become our process in the
//! meantime. SIGKILL cannot be seen; then the kernel kills the children
//! ([`prepare_child`]).

use super::signals;
use crate::sys::scratch::Scratch;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{self, SigSet, SigmaskHow, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;
use std::collections::HashMap;
use std::io::{self, Write};
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long children may take to clean up after themselves.
const GRACE: Duration = Duration::from_secs(2);

/// What a child is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// lld, and whatever else ends by itself.
    Tool,
    /// A backend: its work is worthless once the link has failed.
    Backend,
}

#[derive(Debug, Default)]
struct State {
    children: HashMap<u32, Role>,
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

/// The signals that end a link early.
const ENDING: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];

/// Starts watching for signals. To be called before any other thread is started.
pub fn take_signals() -> io::Result<()> {
    // A pipe or connection whose other end is gone is an error like others, not our end.
    // SAFETY: a valid signal number and disposition.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    let mut set = SigSet::empty();
    // What the caller ignores (nohup) stays ignored.
    ENDING
        .into_iter()
        .filter(|&s| !is_ignored(s))
        .for_each(|s| set.add(s));
    signal::pthread_sigmask(SigmaskHow::SIG_BLOCK, Some(&set), None)?;
    let pending = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC)?;
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            loop {
                let mut fds = [PollFd::new(pending.as_fd(), PollFlags::POLLIN)];
                if poll(&mut fds, PollTimeout::NONE).is_ok_and(|n| n > 0)
                    && let Some(signal) = pending_signal()
                {
                    stop(signal);
                }
            }
        })?;
    Ok(())
}

/// Which of the signals that end us is waiting to be delivered.
fn pending_signal() -> Option<Signal> {
    // SAFETY: sigpending fills the set in before it is read.
    let set = unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigpending(&raw mut set);
        set
    };
    // SAFETY: a valid set and a valid signal number.
    ENDING
        .into_iter()
        .find(|&s| unsafe { libc::sigismember(&raw const set, s as i32) } == 1)
}

/// Waits for the end when a signal is about to end us, as it has ended a child: nothing else is to be done
/// then.
pub fn yield_to_signals(ended: ExitStatus) {
    // An interrupt goes to the whole group, and may reach a child just before it reaches us.
    let by = ended.signal();
    if by.is_some_and(|n| ENDING.iter().any(|&s| s as i32 == n)) {
        let end = Instant::now() + Duration::from_millis(50);
        while pending_signal().is_none() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    while pending_signal().is_some() {
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn is_ignored(signal: Signal) -> bool {
    // SAFETY: reading the disposition of a valid signal into a local, all-zero struct.
    unsafe {
        let mut old: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal as i32, std::ptr::null(), &raw mut old) == 0
            && old.sa_sigaction == libc::SIG_IGN
    }
}

/// Runs `f` with a scratch directory that a signal removes too.
pub fn with_scratch<T>(f: impl FnOnce(&Scratch) -> T) -> io::Result<T> {
    // A signal in the middle waits until it is whole.
    let scratch = with(|s| {
        let scratch = Scratch::new()?;
        s.scratch = Some(scratch.root().to_owned());
        Ok::<_, io::Error>(scratch)
    })?;
    let result = f(&scratch);
    // In this order: a signal in between has it removed twice rather than not at all.
    drop(scratch);
    with(|s| s.scratch = None);
    Ok(result)
}

fn stop(signal: Signal) -> ! {
    let (children, scratch) = with(|s| {
        s.stopping = true;
        (
            s.children.keys().copied().collect::<Vec<_>>(),
            s.scratch.take(),
        )
    });
    for &child in &children {
        let _ = signal::kill(Pid::from_raw(child as i32), signal);
    }
    // lld removes its temporary output when it is interrupted; give it the time.
    let end = Instant::now() + GRACE;
    while Instant::now() < end && children.iter().any(|&child| runs(child)) {
        std::thread::sleep(Duration::from_millis(5));
    }
    for child in with(|s| s.children.keys().copied().collect::<Vec<_>>()) {
        let _ = signal::kill(Pid::from_raw(child as i32), Signal::SIGKILL);
    }
    // Killed ones may take a moment to be gone.
    let end = Instant::now() + GRACE;
    while Instant::now() < end && children.iter().any(|&child| runs(child)) {
        std::thread::sleep(Duration::from_millis(1));
    }
    if let Some(dir) = scratch {
        // A worker may have been about to make a file: a later try finds what an earlier one missed.
        for _ in 0..20 {
            let _ = crate::sys::scratch::remove(&dir);
            if !dir.exists() {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    let mut only = SigSet::empty();
    only.add(signal);
    // It is pending: we die of it here.
    let _ = signal::pthread_sigmask(SigmaskHow::SIG_UNBLOCK, Some(&only), None);
    std::process::exit(128 + signal as i32)
}

/// Kills all backends that run.
pub fn kill_backends() {
    // Under the lock: who is in the list has not been reaped, so its number is still its own.
    with(|s| {
        for (&child, _) in s
            .children
            .iter()
            .filter(|&(_, &role)| role == Role::Backend)
        {
            let _ = signal::kill(Pid::from_raw(child as i32), Signal::SIGKILL);
        }
    });
}

/// Kills all children that are known here, and those that will be.
pub fn kill_children() {
    with(|s| {
        s.stopping = true;
        for &child in s.children.keys() {
            let _ = signal::kill(Pid::from_raw(child as i32), Signal::SIGKILL);
        }
    });
}

/// A descriptor that is readable when a child has ended.
pub fn pidfd(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: plain numbers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just made this descriptor for us, and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Whether a child of ours has not ended yet. Does not reap it: its own thread may be about to.
fn runs(child: u32) -> bool {
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    waitid(Id::Pid(Pid::from_raw(child as i32)), flags) == Ok(WaitStatus::StillAlive)
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
    pub fn new(mut child: Child, role: Role) -> Self {
        let stopping = with(|s| {
            s.children.insert(child.id(), role);
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
        // Off the list before its number is free for another process.
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
        while waitid(Id::Pid(Pid::from_raw(self.child.id() as i32)), flags) == Err(Errno::EINTR) {}
        self.forget();
        self.child.wait()
    }

    /// Its process number, as long as it has not been waited for.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has not ended yet.
    #[must_use]
    pub fn runs(&self) -> bool {
        runs(self.child.id())
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

/// The line of a failed program's messages that says most in one: the first error, or the last line.
/// clang ends with a mere count of its errors, and "LLVM ERROR:" comes before a stack trace.
#[must_use]
pub fn first_error_line(said: &str) -> &str {
    let mut lines = said.lines().filter(|line| !line.trim().is_empty());
    let error = lines
        .clone()
        .find(|line| line.contains("error:") || line.contains("ERROR:"));
    error.or(lines.next_back()).unwrap_or("no message")
}

/// Runs a command to its end, with its output taken and nothing to read.
pub fn output(command: Command, role: Role) -> io::Result<Output> {
    output_of(command, role, &[])
}

/// The same with a little to read from its standard input, which it may ignore.
pub fn output_of(mut command: Command, role: Role, input: &[u8]) -> io::Result<Output> {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    prepare(&mut command);
    let mut child = command.spawn()?;
    let stdin = child.stdin.take();
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let mut running = Running::new(child, role);
    if let Some(mut stdin) = stdin.filter(|_| !input.is_empty()) {
        let _ = stdin.write_all(input);
    }
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

/// Makes the command's child what all our children are, see [`prepare_child`].
pub fn prepare(command: &mut Command) {
    // SAFETY: `prepare_child` is async-signal-safe, as pre_exec demands.
    unsafe {
        command.pre_exec(prepare_child);
    }
}

/// What every child does between fork and exec: it asks the kernel to kill it when the thread that
/// forked it ends, and gets the signal mask and dispositions that we were started with.
/// Async-signal-safe.
pub fn prepare_child() -> io::Result<()> {
    let signal = libc::SIGKILL as libc::c_ulong;
    // SAFETY: prctl with these arguments touches no memory of ours.
    if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, signal, 0, 0, 0) } < 0 {
        return Err(io::Error::last_os_error());
    }
    signals::restore();
    Ok(())
}
