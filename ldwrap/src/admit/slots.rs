//! Slots that all processes of a user on this machine share: files, each locked by who has it.
//!
//! A lock and not a counter, since the kernel gives it back however its process ends. No server and
//! nothing to clean up: the files stay, with a line on the processes that had one last.
//!
//! A process that makes no progress may hold its lock without end, and others cannot tell when it will go on. So its
//! slot makes room for another.

use crate::sys::procfs;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// An lld with a permit that has used no processor for this time is stuck: it was stopped, or waits for a terminal or
/// a pipe that nobody reads.
const STALLED_AFTER: Duration = Duration::from_secs(10);

/// The slots of one kind.
#[derive(Debug)]
pub struct Slots {
    dir: PathBuf,
    kind: String,
    count: usize,
    /// Opened, and locked by nobody here.
    files: Vec<Option<File>>,
    /// How much processor time the lld of each thread that has a permit had used when it was looked at, and since when
    /// that is so.
    progress: HashMap<u32, (u64, Instant)>,
    stalled_after: Duration,
}

/// What a slot says of who has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct User {
    pid: u32,
    /// How much memory it is expected to take (bytes).
    memory: u64,
    /// The thread of lld's that it has the slot for, if it is a permit's.
    thread: Option<u32>,
}

/// A slot, until it is dropped.
#[derive(Debug)]
pub struct Slot(Flock<File>);

impl Slot {
    /// Says which process uses the slot, and how many bytes of memory it is expected to take.
    pub fn used_by(&self, pid: u32, memory: u64) {
        self.write(pid, memory, None);
    }

    /// Says that this process has the slot for a backend, which this thread of its lld is to compile.
    pub fn used_for(&self, thread: u32) {
        self.write(std::process::id(), 0, Some(thread));
    }

    fn write(&self, pid: u32, memory: u64, thread: Option<u32>) {
        let thread = thread.unwrap_or(0);
        // Who reads it can do without.
        let text = format!("{pid:<10} {memory:<20}\n{thread:<10}\n");
        let _ = self.0.write_all_at(text.as_bytes(), 0);
    }
}

impl Slots {
    /// So many slots in a directory of [`user_dir`](shim::user_dir::user_dir).
    #[must_use]
    pub fn new(dir: &Path, kind: impl Into<String>, count: usize) -> Self {
        Self {
            dir: dir.to_owned(),
            kind: kind.into(),
            count,
            files: Vec::new(),
            progress: HashMap::new(),
            stalled_after: STALLED_AFTER,
        }
    }

    /// Takes a slot if one is free. With `ignore_stuck`, one whose process is stopped (`SIGSTOP`, Ctrl-Z) or makes no
    /// progress, maybe for ever, makes room for another. An error names the file.
    pub fn try_take(&mut self, ignore_stuck: bool) -> io::Result<Option<Slot>> {
        let (mut n, mut count) = (0, self.count);
        while n < count {
            if let Some(slot) = self.try_number(n)? {
                slot.used_by(std::process::id(), 0);
                return Ok(Some(slot));
            }
            if ignore_stuck && self.user(n).is_some_and(|user| self.is_stuck(user)) {
                count += 1;
            }
            n += 1;
        }
        Ok(None)
    }

    fn try_number(&mut self, n: usize) -> io::Result<Option<Slot>> {
        if self.files.len() <= n {
            self.files.resize_with(n + 1, || None);
        }
        let path = self.path(n);
        let place = &mut self.files[n];
        let named = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", path.display()));
        let file = match place.take() {
            Some(file) => file,
            None => open(&path).map_err(named)?,
        };
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Some(Slot(lock))),
            Err((file, Errno::EWOULDBLOCK)) => {
                *place = Some(file);
                Ok(None)
            }
            Err((_, e)) => Err(named(e.into())),
        }
    }

    fn path(&self, n: usize) -> PathBuf {
        self.dir.join(format!("{}-{n}", self.kind))
    }

    /// The processes that use slots which others have, each with the memory (bytes) that it is expected to
    /// take; with `ignore_stuck`, only those that make progress.
    pub fn users(&mut self, ignore_stuck: bool) -> Vec<(u32, u64)> {
        let mut users = Vec::new();
        for n in 0..self.count {
            // Who takes a slot has tried all before it: behind one that nobody has ever had there are none.
            if !matches!(self.files.get(n), Some(Some(_))) && !self.path(n).exists() {
                break;
            }
            // One that is free is so again at once.
            if !matches!(self.try_number(n), Ok(Some(_))) {
                let user = self.user(n);
                users.extend(user.filter(|user| !ignore_stuck || !self.is_stuck(*user)));
            }
        }
        users.iter().map(|user| (user.pid, user.memory)).collect()
    }

    /// Who has the slot of this number, as it says; none if that was not looked at, or says nothing.
    fn user(&self, n: usize) -> Option<User> {
        let mut text = [0; 42];
        let file = self.files.get(n)?.as_ref()?;
        let length = file.read_at(&mut text, 0).ok()?;
        let text = std::str::from_utf8(text.get(..length)?).ok()?;
        let mut words = text.split_ascii_whitespace();
        Some(User {
            pid: words.next()?.parse().ok()?,
            memory: words.next()?.parse().ok()?,
            thread: words.next().and_then(|thread| thread.parse().ok()),
        })
    }

    /// Whether who has a slot is stopped by a signal or a debugger, or its lld is or has used no processor for a while;
    /// not if that cannot be told.
    fn is_stuck(&mut self, User { pid, thread, .. }: User) -> bool {
        // The numbers are those of other processes in another PID namespace, and lld may be a child of a script's.
        let thread = thread.filter(|&thread| procfs::parent(thread) == Some(pid));
        if is_stopped(pid) || thread.is_some_and(is_stopped) {
            return true;
        }
        let Some((thread, ticks)) = thread.and_then(|t| Some((t, procfs::ticks(t)?))) else {
            return false;
        };
        let now = Instant::now();
        let seen = self.progress.entry(thread).or_insert((ticks, now));
        if seen.0 != ticks {
            *seen = (ticks, now);
        }
        now - seen.1 > self.stalled_after
    }
}

/// Whether any process waits for a slot.
#[derive(Debug)]
pub struct Queue(PathBuf);

impl Queue {
    /// In a directory of [`user_dir`](shim::user_dir::user_dir).
    #[must_use]
    pub fn new(dir: &Path) -> Self {
        Self(dir.join("queue"))
    }

    /// Waits in it until what is returned is dropped; none if that fails.
    pub fn join(&self) -> Option<Slot> {
        let file = open(&self.0).ok()?;
        Flock::lock(file, FlockArg::LockSharedNonblock)
            .ok()
            .map(Slot)
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        open(&self.0).is_ok_and(|file| Flock::lock(file, FlockArg::LockExclusiveNonblock).is_ok())
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        // Whatever somebody put there is not waited for.
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)
}

/// Whether a process is stopped by a signal or a debugger; not if that cannot be told.
fn is_stopped(pid: u32) -> bool {
    matches!(procfs::state(pid), Some(b'T' | b't'))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::process::{Child, Command};

    #[test]
    fn there_are_so_many_and_they_come_back() {
        let dir = tempfile::tempdir().unwrap();
        let mut one = Slots::new(dir.path(), "test", 2);
        let mut other = Slots::new(dir.path(), "test", 2);
        let first = one.try_take(false).unwrap().unwrap();
        let second = other.try_take(false).unwrap().unwrap();
        assert!(one.try_take(false).unwrap().is_none());
        // Ours run.
        assert!(other.try_take(true).unwrap().is_none());
        assert_eq!(other.users(false)[0], (std::process::id(), 0));
        drop(first);
        let third = other.try_take(false).unwrap().unwrap();
        assert!(one.try_take(false).unwrap().is_none());
        drop((second, third));
        assert!(one.try_take(false).unwrap().is_some());
    }

    /// A process that is stopped, and has to be killed.
    pub(in crate::admit) fn stopped_process() -> Child {
        let mut sleeper = Command::new("sleep").arg("60").spawn().unwrap();
        let pid = nix::unistd::Pid::from_raw(sleeper.id() as i32);
        // Again until it is seen to have stopped: under qemu-user a first signal was without effect once.
        while !is_stopped(sleeper.id()) {
            assert!(sleeper.try_wait().unwrap().is_none(), "it ended unstopped");
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSTOP).unwrap();
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        sleeper
    }

    #[test]
    fn a_process_that_is_stopped_makes_room() {
        let dir = tempfile::tempdir().unwrap();
        let mut one = Slots::new(dir.path(), "test", 1);
        let mut other = Slots::new(dir.path(), "test", 1);
        let slot = one.try_take(false).unwrap().unwrap();
        slot.used_by(std::process::id(), 1);
        assert_eq!(other.users(false), [(std::process::id(), 1)]);
        assert!(other.try_take(true).unwrap().is_none());
        let mut stopped = stopped_process();
        slot.used_by(stopped.id(), 1);
        assert_eq!(other.users(false), [(stopped.id(), 1)]);
        assert!(other.try_take(false).unwrap().is_none());
        let extra = other.try_take(true).unwrap().unwrap();
        assert!(one.try_take(true).unwrap().is_none());
        drop((slot, extra));
        stopped.kill().unwrap();
        stopped.wait().unwrap();
    }

    #[test]
    fn an_lld_that_makes_no_progress_makes_room() {
        let dir = tempfile::tempdir().unwrap();
        let mut one = Slots::new(dir.path(), "test", 1);
        let mut other = Slots::new(dir.path(), "test", 1);
        other.stalled_after = Duration::from_millis(100);
        let slot = one.try_take(false).unwrap().unwrap();
        let wait = || std::thread::sleep(Duration::from_millis(200));
        let mut idle = Command::new("sleep").arg("60").spawn().unwrap();
        let mut busy = Command::new("sh")
            .args(["-c", "while :; do :; done"])
            .spawn()
            .unwrap();
        // Not what is no child of the one that has the slot, nor one that works.
        slot.write(1, 0, Some(idle.id()));
        assert!(other.try_take(true).unwrap().is_none());
        wait();
        assert!(other.try_take(true).unwrap().is_none());
        slot.used_for(busy.id());
        assert!(other.try_take(true).unwrap().is_none());
        wait();
        assert!(other.try_take(true).unwrap().is_none());
        slot.used_for(idle.id());
        assert!(other.try_take(true).unwrap().is_none());
        wait();
        assert!(other.try_take(false).unwrap().is_none());
        let extra = other.try_take(true).unwrap().unwrap();
        assert!(other.try_take(true).unwrap().is_none());
        // Nor does the next one wait for both of them.
        extra.used_for(idle.id());
        assert!(other.try_take(true).unwrap().is_some());
        for child in [&mut idle, &mut busy] {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    #[test]
    fn looking_for_users_makes_no_files() {
        let dir = tempfile::tempdir().unwrap();
        let mut slots = Slots::new(dir.path(), "test", 1 << 30);
        assert_eq!(slots.users(false), []);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        let first = slots.try_take(false).unwrap().unwrap();
        let mut other = Slots::new(dir.path(), "test", 1 << 30);
        assert_eq!(other.users(false), [(std::process::id(), 0)]);
        drop(first);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn an_error_names_the_file() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/nonexistent", dir.path().join("test-0")).unwrap();
        let mut slots = Slots::new(dir.path(), "test", 1);
        let error = slots.try_take(false).unwrap_err().to_string();
        assert!(error.contains("/test-0: "), "{error}");
        assert_eq!(slots.users(false), []);
    }
}
