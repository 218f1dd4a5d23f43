//! Children and signals: whoever stops us stops them too, and nothing stays behind.
//!
//! The signals that would end us are blocked, and one thread sees them come (a signalfd that is polled
//! but never read, so that they stay pending). It stops the children, removes the scratch directory,
//! and unblocks the signal, by which we then die, as the caller expects of a linker. Since nothing
//! takes the signal away, it also reaches the real lld when that has become our process in the
//! meantime. SIGKILL cannot be seen; then the kernel kills the children
//! ([`prepare_child`]).

use super::keep;
use super::scratch::Scratch;
use super::signals;
use super::sync::lock;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{self, SigHandler, SigSet, SigmaskHow, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Mutex, OnceLock};
use std::thread::Builder;
use std::time::{Duration, Instant};

/// How long children may take to clean up after themselves.
const GRACE: Duration = Duration::from_secs(2);

/// How long what a child has left running may take to pass on the child's output (`exec > >(tee log)`).
pub const PASSING_ON: Duration = Duration::from_millis(100);

/// How many bytes a child may write that has a time limit.
const LONGEST_ANSWER: usize = 16 << 20;

/// What a child is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// lld, and whatever else ends by itself.
    Tool,
    /// A backend: of no use once the link has failed.
    Backend,
}

/// What a signal that ends us has to end too.
#[derive(Debug, Default)]
struct Supervised {
    children: HashMap<u32, Role>,
    scratch: Option<PathBuf>,
    /// Children are not to run: a signal is about to end us.
    stopping: bool,
    /// Nor while this lasts.
    forbidden: bool,
}

static SUPERVISED: Mutex<Option<Supervised>> = Mutex::new(None);

fn with_supervised<T>(f: impl FnOnce(&mut Supervised) -> T) -> T {
    f(lock(&SUPERVISED).get_or_insert_default())
}

/// The signals that end us.
fn ending() -> &'static SigSet {
    static ENDING: OnceLock<SigSet> = OnceLock::new();
    ENDING.get_or_init(signals::ending)
}

/// Starts watching for signals. To be called before any other thread is started.
pub fn watch_signals() -> io::Result<()> {
    // A pipe or connection whose other end is gone is an error like others, not our end.
    // SAFETY: no handler of ours is installed.
    unsafe { signal::signal(Signal::SIGPIPE, SigHandler::SigIgn) }?;
    signal::pthread_sigmask(SigmaskHow::SIG_BLOCK, Some(ending()), None)?;
    let pending = SignalFd::with_flags(ending(), SfdFlags::SFD_CLOEXEC)?;
    Builder::new().name("signals".into()).spawn(move || {
        loop {
            let mut fds = [PollFd::new(pending.as_fd(), PollFlags::POLLIN)];
            if poll(&mut fds, PollTimeout::NONE).is_ok_and(|n| n > 0) {
                if let Some(signal) = pending_signal() {
                    stop(signal);
                }
            }
        }
    })?;
    Ok(())
}

/// Which of the signals that end us is waiting to be delivered.
fn pending_signal() -> Option<libc::c_int> {
    // SAFETY: an all-zero set is a valid one, the empty one, which sigpending fills in.
    let set = unsafe {
        let mut set = std::mem::zeroed();
        libc::sigpending(&raw mut set);
        SigSet::from_sigset_t_unchecked(set)
    };
    let is_pending =
        |&n: &libc::c_int| signals::contains(&set, n) && signals::contains(ending(), n);
    (1..=libc::SIGRTMAX()).find(is_pending)
}

/// To be called when a child has ended: if a signal is about to end us, as it has ended the child, waits
/// for that instead of going on.
pub fn wait_for_pending_signal(ended: ExitStatus) {
    // An interrupt goes to the whole group, and may reach a child just before it reaches us.
    let by = ended.signal();
    if by.is_some_and(|n| signals::contains(ending(), n)) {
        let end = Instant::now() + Duration::from_millis(50);
        while pending_signal().is_none() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    while pending_signal().is_some() {
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Runs `f` with a scratch directory that a signal removes too.
pub fn with_scratch<T>(f: impl FnOnce(&Scratch) -> T) -> io::Result<T> {
    // A signal in the middle waits until it is whole.
    let scratch = with_supervised(|s| {
        let scratch = Scratch::new()?;
        s.scratch = Some(scratch.root().to_owned());
        Ok::<_, io::Error>(scratch)
    })?;
    let result = f(&scratch);
    // In this order: a signal in between has it removed twice rather than not at all.
    drop(scratch);
    with_supervised(|s| s.scratch = None);
    Ok(result)
}

fn stop(signal: libc::c_int) -> ! {
    let (children, scratch) = with_supervised(|s| {
        s.stopping = true;
        (
            s.children.keys().copied().collect::<Vec<_>>(),
            s.scratch.take(),
        )
    });
    children.iter().for_each(|&child| send(child, signal));
    // lld removes its temporary output when it is interrupted; give it the time.
    wait_for_ends(&children, Duration::from_millis(5));
    kill_children();
    // Killed ones may take a moment to be gone.
    wait_for_ends(&children, Duration::from_millis(1));
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
    // It is pending, before all others: we die of it here.
    let _ = signal::pthread_sigmask(SigmaskHow::SIG_UNBLOCK, Some(ending()), None);
    std::process::exit(128 + signal)
}

/// Waits for children to end, [`GRACE`] at most, looking at such intervals.
fn wait_for_ends(children: &[u32], interval: Duration) {
    let end = Instant::now() + GRACE;
    while Instant::now() < end && children.iter().any(|&child| runs(child)) {
        std::thread::sleep(interval);
    }
}

/// Sends a signal to a child that has not been reaped: its number is still its own.
fn send(child: u32, signal: libc::c_int) {
    // SAFETY: plain numbers.
    unsafe { libc::kill(child as libc::pid_t, signal) };
}

/// Kills all backends that run.
pub fn kill_backends() {
    // Under the lock: who is in the list has not been reaped.
    with_supervised(|s| {
        let backends = s
            .children
            .iter()
            .filter(|&(_, &role)| role == Role::Backend);
        backends.for_each(|(&child, _)| send(child, libc::SIGKILL));
    });
}

/// Calls `f`, for which no child is to run any more: kills those that do, and those that are started meanwhile.
pub fn without_children<T>(f: impl FnOnce() -> T) -> T {
    with_supervised(|s| s.forbidden = true);
    kill_children();
    let result = f();
    with_supervised(|s| s.forbidden = false);
    result
}

/// Kills all children that are known here.
fn kill_children() {
    let kill = |&child: &u32| send(child, libc::SIGKILL);
    with_supervised(|s| s.children.keys().for_each(kill));
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
        let forbidden = with_supervised(|s| {
            s.children.insert(child.id(), role);
            s.stopping || s.forbidden
        });
        if forbidden {
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
        with_supervised(|s| s.children.remove(&self.child.id()));
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

/// The first error among a failed program's messages, or what clang was at when it crashed, or else their last line. Not
/// the last line first: clang ends with a mere count of its errors, and "LLVM ERROR:" comes before a stack trace.
#[must_use]
pub fn first_error_line(said: &str) -> &str {
    let mut lines = said.lines().filter(|line| !line.trim().is_empty());
    let error = lines
        .clone()
        .find(|line| line.contains("error:") || line.contains("ERROR:"));
    let line = match said.split_once("Stack dump:") {
        Some((_, dump)) => error.or_else(|| crashed_at(dump)).or(lines.next()),
        None => error.or(lines.next_back()),
    };
    line.unwrap_or("no message")
}

/// The innermost of what a stack dump says the program was at: `2.<tab>Running pass ...`. The first is its command line
/// (llvm/lib/Support/PrettyStackTrace.cpp).
fn crashed_at(dump: &str) -> Option<&str> {
    let mut entries = dump.lines().filter_map(|line| {
        let (number, entry) = line.split_once('.')?;
        let number: u32 = number.parse().ok()?;
        (number > 0).then(|| entry.trim())
    });
    entries.next_back()
}

/// Runs a command to its end, with its output taken and nothing to read. What it leaves running may hold its output
/// open for longer: that is not waited for.
pub fn output(command: Command, role: Role) -> io::Result<Output> {
    output_of(command, role, &[], None)
}

/// The same with our standard input to read.
pub fn output_with_stdin(mut command: Command, role: Role) -> io::Result<Output> {
    keep::command(&command);
    command.stdin(Stdio::inherit());
    run(command, role, &[], None)
}

/// The same with a little to read from its standard input, which it may ignore. After the time limit, if there
/// is one, or after [`LONGEST_ANSWER`], it is killed, which is an error; what it has started may live on.
pub fn output_of(
    mut command: Command,
    role: Role,
    input: &[u8],
    limit: Option<Duration>,
) -> io::Result<Output> {
    keep::command(&command);
    command.stdin(Stdio::piped());
    run(command, role, input, limit)
}

/// As [`output`], for a question about a tool that is no part of a link, and so not kept with it.
pub fn answer(mut command: Command) -> io::Result<Output> {
    command.stdin(Stdio::null());
    run(command, Role::Tool, &[], None)
}

fn run(
    mut command: Command,
    role: Role,
    input: &[u8],
    limit: Option<Duration>,
) -> io::Result<Output> {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    prepare(&mut command);
    let mut child = command.spawn()?;
    let stdin = child.stdin.take();
    let stdout = child.stdout.take().map(OwnedFd::from);
    let stderr = child.stderr.take().map(OwnedFd::from);
    let mut running = Running::new(child, role);
    if let Some(mut stdin) = stdin.filter(|_| !input.is_empty()) {
        let _ = stdin.write_all(input);
    }
    // Before Linux 5.3 there is none, and the pipes' ends have to do.
    let ended = pidfd(running.id()).ok();
    let until = limit.map(|limit| Instant::now() + limit);
    let [stdout, stderr] = read_all([stdout, stderr], ended.as_ref(), until)?;
    let status = running.wait()?;
    Ok(Output {
        status,
        stdout,
        stderr,
    })
}

/// Reads pipes to their ends, or fails after `until`, or [`LONGEST_ANSWER`] before that. Once `ended` is readable, who holds them is not waited for.
fn read_all(
    pipes: [Option<OwnedFd>; 2],
    ended: Option<&OwnedFd>,
    until: Option<Instant>,
) -> io::Result<[Vec<u8>; 2]> {
    let mut pipes = pipes.map(|pipe| pipe.map(File::from));
    let mut read = [const { Vec::new() }; 2];
    let mut buffer = [0; 1 << 14];
    // When to stop after the end.
    let mut enough: Option<Instant> = None;
    loop {
        let open = pipes.iter().flatten().map(File::as_fd);
        let mut fds: Vec<PollFd> = open
            .chain(ended.filter(|_| enough.is_none()).map(OwnedFd::as_fd))
            .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
            .collect();
        if pipes.iter().all(Option::is_none) {
            return Ok(read);
        }
        if until.is_some() && read.iter().any(|read| read.len() > LONGEST_ANSWER) {
            return Err(io::Error::other("it writes without end"));
        }
        let now = Instant::now();
        if enough.is_some_and(|enough| now >= enough) {
            // Not to the pipes' ends: somebody may go on writing.
            for (pipe, read) in pipes.iter().zip(&mut read) {
                if let Some(pipe) = pipe {
                    pipe.take(held(pipe)?).read_to_end(read)?;
                }
            }
            return Ok(read);
        }
        let until = enough.or(until);
        let left = until.map(|until| until.saturating_duration_since(now));
        if enough.is_none() && left == Some(Duration::ZERO) {
            return Err(io::ErrorKind::TimedOut.into());
        }
        match poll(&mut fds, poll_timeout(left)) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(e) => return Err(e.into()),
        }
        let mut ready = fds
            .into_iter()
            .map(|fd| fd.any() == Some(true))
            .collect::<Vec<_>>()
            .into_iter();
        for (pipe, read) in pipes.iter_mut().zip(&mut read) {
            let Some(file) = pipe else { continue };
            if ready.next() == Some(true) {
                match file.read(&mut buffer) {
                    Ok(0) => *pipe = None,
                    Ok(n) => read.extend_from_slice(buffer.get(..n).unwrap_or_default()),
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    Err(e) => return Err(e),
                }
            }
        }
        if ready.next() == Some(true) {
            enough = Some(Instant::now() + PASSING_ON);
        }
    }
}

/// What poll(2) is told of the time that is left, if it has an end: rounded up, so that time has run out when it is over.
pub fn poll_timeout(left: Option<Duration>) -> PollTimeout {
    let wait = left.map(|left| PollTimeout::try_from(left + Duration::from_millis(1)));
    wait.and_then(Result::ok).unwrap_or(PollTimeout::NONE)
}

/// How many bytes there are to read from a pipe.
pub fn held(pipe: &File) -> io::Result<u64> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: FIONREAD writes one int, which lives through the call.
    match unsafe { libc::ioctl(pipe.as_raw_fd(), libc::FIONREAD, &raw mut bytes) } {
        0 => Ok(u64::try_from(bytes).unwrap_or(0)),
        _ => Err(io::Error::last_os_error()),
    }
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
    set_pdeathsig(Signal::SIGKILL)?;
    signals::restore();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_told_in_a_line() {
        let dump = "PLEASE submit a bug report\nStack dump:\n0.\tProgram arguments: clang -cc1\n\
                    1.\tCode generation\n2.\tRunning pass 'X' on function '@f'\n #0 0x01 main (a.so+0x1)\n";
        let error = format!("a.c:1: error: no\n{dump}");
        for (said, line) in [
            (dump, "Running pass 'X' on function '@f'"),
            (&error, "a.c:1: error: no"),
            (
                "Bad\nStack dump:\n0.\tProgram arguments: x\n #0 0x01\n",
                "Bad",
            ),
            ("one\n\ntwo\n", "two"),
            ("", "no message"),
        ] {
            assert_eq!(first_error_line(said), line, "{said}");
        }
    }

    fn script(text: &str, limit: Duration) -> io::Result<Output> {
        let mut command = Command::new("sh");
        command.args(["-c", text]);
        output_of(command, Role::Tool, &[], Some(limit))
    }

    #[test]
    fn who_never_stops_writing_is_not_waited_for() {
        let short = Duration::from_millis(300);
        let error = script("while :; do echo; done", short).expect_err("no time left");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let begin = Instant::now();
        let long = Duration::from_secs(600);
        let error = script("exec yes", long).expect_err("too much");
        assert_eq!(error.to_string(), "it writes without end");
        assert!(begin.elapsed() < long / 2);
        let output = script("echo out; echo err >&2", long).expect("an output");
        assert_eq!(
            (&*output.stdout, &*output.stderr),
            (&b"out\n"[..], &b"err\n"[..])
        );
    }
}
