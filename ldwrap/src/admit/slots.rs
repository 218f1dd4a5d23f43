//! Slots that all processes of a user on this machine share: files, each locked by who has it.
//!
//! A lock and not a counter, since the kernel gives it back however its process ends. No server and
//! nothing to clean up: the files stay, with a line on the process that had one last.

use crate::sys::procfs;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The slots of one kind.
#[derive(Debug)]
pub struct Slots {
    dir: PathBuf,
    kind: String,
    count: usize,
    /// Opened, and locked by nobody here.
    files: Vec<Option<File>>,
}

/// A slot, until it is dropped.
#[derive(Debug)]
pub struct Slot(Flock<File>);

impl Slot {
    /// Says which process uses the slot, and how many bytes of memory it is expected to take.
    pub fn used_by(&self, pid: u32, memory: u64) {
        // Who reads it can do without.
        let text = format!("{pid:<10} {memory:<20}\n");
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
        }
    }

    /// Takes a slot if one is free. With `ignore_stopped`, one whose process is stopped (`SIGSTOP`, Ctrl-Z),
    /// maybe for ever, makes room for another.
    pub fn try_take(&mut self, ignore_stopped: bool) -> io::Result<Option<Slot>> {
        let free = self.first_free(0..self.count)?;
        if free.is_some() || !ignore_stopped {
            return Ok(free);
        }
        let users = self.users(false);
        let stopped = users.iter().filter(|user| is_stopped(user.0)).count();
        self.first_free(self.count..self.count + stopped)
    }

    fn first_free(&mut self, numbers: Range<usize>) -> io::Result<Option<Slot>> {
        for n in numbers {
            if let Some(slot) = self.try_number(n)? {
                slot.used_by(std::process::id(), 0);
                return Ok(Some(slot));
            }
        }
        Ok(None)
    }

    fn try_number(&mut self, n: usize) -> io::Result<Option<Slot>> {
        if self.files.len() <= n {
            self.files.resize_with(n + 1, || None);
        }
        let place = &mut self.files[n];
        let file = match place.take() {
            Some(file) => file,
            None => open(&self.dir.join(format!("{}-{n}", self.kind)))?,
        };
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Some(Slot(lock))),
            Err((file, Errno::EWOULDBLOCK)) => {
                *place = Some(file);
                Ok(None)
            }
            Err((_, e)) => Err(e.into()),
        }
    }

    /// The processes that use slots which others have, each with the memory (bytes) that it is expected to
    /// take; with `ignore_stopped`, only those that are not stopped.
    pub fn users(&mut self, ignore_stopped: bool) -> Vec<(u32, u64)> {
        let user = |file: &File| {
            let mut text = [0; 31];
            file.read_exact_at(&mut text, 0).ok()?;
            let mut words = std::str::from_utf8(&text).ok()?.split_ascii_whitespace();
            Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
        };
        let mut users = Vec::new();
        for n in 0..self.count {
            // One that is free is so again at once.
            if !matches!(self.try_number(n), Ok(Some(_))) {
                if let Some(Some(file)) = self.files.get(n) {
                    users
                        .extend(user(file).filter(|(pid, _)| !ignore_stopped || !is_stopped(*pid)));
                }
            }
        }
        users
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
        let sleeper = Command::new("sleep").arg("60").spawn().unwrap();
        let pid = nix::unistd::Pid::from_raw(sleeper.id() as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSTOP).unwrap();
        while !is_stopped(sleeper.id()) {
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
}
