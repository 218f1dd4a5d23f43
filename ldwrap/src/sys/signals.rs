//! Signals and limits as we were started with, and signals for a child.
//!
//! A link through us is to end as lld's would. While lld runs as our child, every signal that is sent to
//! us is for it: we block all, and pass on what comes. lld removes its temporary files, or ignores the
//! signal, or dies of it, and then so do we ([`end_as`]).

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, pthread_sigmask, signal};
use nix::sys::signalfd::{SfdFlags, SignalFd, siginfo};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::OnceLock;

/// What a program is started with and hands on.
struct Inherited {
    mask: SigSet,
    ignores_pipe: bool,
    ignores_file_size: bool,
    /// How many files may be open, softly and at most.
    open_files: Option<(u64, u64)>,
}

static INHERITED: OnceLock<Inherited> = OnceLock::new();

/// Remembers the signal mask, the dispositions of SIGPIPE and SIGXFSZ, and the limit of open files. To be called first of all.
pub fn remember_inherited() {
    INHERITED.get_or_init(|| Inherited {
        mask: SigSet::thread_get_mask().unwrap_or_else(|_| SigSet::empty()),
        ignores_pipe: is_ignored(Signal::SIGPIPE),
        ignores_file_size: is_ignored(Signal::SIGXFSZ),
        open_files: getrlimit(Resource::RLIMIT_NOFILE).ok(),
    });
}

/// A file of ours that would become larger than `ulimit -f` allows is an error like others, not our end. [`restore`] undoes it.
pub fn ignore_file_size() {
    // SAFETY: no handler of ours is installed.
    let _ = unsafe { signal(Signal::SIGXFSZ, SigHandler::SigIgn) };
}

/// Lets this process open as many files as it ever may: each object that waits for the cache or a server is one, and the
/// usual 1,024 are meant for programs that use select(2). Children get what we were started with.
pub fn raise_open_files() {
    const ENOUGH: u64 = 1 << 16;
    if let Some((soft, hard)) = INHERITED.get().and_then(|i| i.open_files) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard.min(ENOUGH).max(soft), hard);
    }
}

/// Whether this process ignores a signal.
pub fn is_ignored(signal: Signal) -> bool {
    // SAFETY: reading the disposition of a valid signal into a local, all-zero struct.
    unsafe {
        let mut old: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal as i32, std::ptr::null(), &raw mut old) == 0
            && old.sa_sigaction == libc::SIG_IGN
    }
}

/// Sets all as it was when we were started, for a program that takes our place or a child's.
/// Async-signal-safe.
pub fn restore() {
    let inherited = INHERITED.get();
    let mask = inherited.map_or_else(SigSet::empty, |i| i.mask);
    let ignored = |is: fn(&Inherited) -> bool| match inherited {
        Some(i) if is(i) => SigHandler::SigIgn,
        _ => SigHandler::SigDfl,
    };
    // SAFETY: no handler of ours is installed.
    unsafe {
        let _ = signal(Signal::SIGPIPE, ignored(|i| i.ignores_pipe));
        let _ = signal(Signal::SIGXFSZ, ignored(|i| i.ignores_file_size));
    }
    let _ = pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&mask), None);
    if let Some((soft, hard)) = inherited.and_then(|i| i.open_files) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, soft, hard);
    }
}

/// Signals that are not for a child: those that stop or resume us, that tell of children, and that a
/// fault of our own raises.
const OWN: [Signal; 12] = [
    Signal::SIGTSTP,
    Signal::SIGTTIN,
    Signal::SIGTTOU,
    Signal::SIGCONT,
    Signal::SIGCHLD,
    Signal::SIGSEGV,
    Signal::SIGBUS,
    Signal::SIGILL,
    Signal::SIGFPE,
    Signal::SIGSYS,
    Signal::SIGTRAP,
    Signal::SIGABRT,
];

/// The signals that others send to end this process: no faults of its own, nothing that is ignored by default, by the
/// caller (nohup) or as SIGPIPE is ([`super::process::watch_signals`]), and nothing that the caller blocks.
pub fn ending() -> SigSet {
    let mut set = SigSet::all();
    let blocked = INHERITED.get().map_or_else(SigSet::empty, |i| i.mask);
    for signal in Signal::iterator() {
        use Signal::{SIGKILL, SIGPIPE, SIGSTOP, SIGURG, SIGWINCH};
        let other = matches!(signal, SIGKILL | SIGPIPE | SIGSTOP | SIGURG | SIGWINCH);
        if other || OWN.contains(&signal) || is_ignored(signal) || blocked.contains(signal) {
            set.remove(signal);
        }
    }
    set
}

/// Whether a signal is in a set, by number, since nix knows no real-time signals.
pub fn contains(set: &SigSet, signal: libc::c_int) -> bool {
    // SAFETY: the set is a valid one, and a number that is no signal's is an error.
    unsafe { libc::sigismember(set.as_ref(), signal) == 1 }
}

/// The signals that are sent to us from now on, kept for a child.
#[derive(Debug)]
pub struct Forwarded(SignalFd);

impl Forwarded {
    /// Blocks them for this thread and those that it starts.
    pub fn block() -> io::Result<Self> {
        let mut set = SigSet::all();
        for signal in OWN {
            set.remove(signal);
        }
        let fd = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        pthread_sigmask(SigmaskHow::SIG_BLOCK, Some(&set), None)?;
        Ok(Self(fd))
    }

    /// Whether any has come.
    #[must_use]
    pub fn have_come(&self) -> bool {
        let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::ZERO).is_ok_and(|n| n > 0)
    }

    /// Sends what has come to a child that was not waited for yet.
    pub fn pass_on(&self, child: u32) {
        self.pass_on_if(child, |_| true);
    }

    /// As [`Forwarded::pass_on`], but not what the kernel has sent: a terminal's interrupt goes to the child as well,
    /// and twice it means something else to many programs.
    pub fn pass_on_sent(&self, child: u32) {
        self.pass_on_if(child, |info| info.ssi_code <= 0);
    }

    fn pass_on_if(&self, child: u32, wanted: impl Fn(&siginfo) -> bool) {
        while let Ok(Some(info)) = self.0.read_signal() {
            if wanted(&info) {
                // By number, since nix knows no real-time signals.
                // SAFETY: no memory is involved; the process is a child of ours, so its number is its own.
                unsafe { libc::kill(child as libc::pid_t, info.ssi_signo as libc::c_int) };
            }
        }
    }
}

impl AsFd for Forwarded {
    /// Readable when a signal has come.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Ends this process as a child has ended: with its exit status, or by the signal that killed it.
pub fn end_as(status: ExitStatus) -> ! {
    if let Some(signal) = status.signal() {
        // One core file is enough, and it is the child's.
        let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
        // By number, since nix knows no real-time signals.
        // SAFETY: valid arguments that live through the calls; the set is initialised by sigemptyset.
        unsafe {
            libc::signal(signal, libc::SIG_DFL);
            let mut only: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut only);
            libc::sigaddset(&raw mut only, signal);
            libc::sigprocmask(libc::SIG_UNBLOCK, &raw const only, std::ptr::null_mut());
            libc::kill(libc::getpid(), signal);
        }
        std::process::exit(128 + signal);
    }
    std::process::exit(status.code().unwrap_or(1))
}
