//! What lld writes to its standard output and standard error: counted, so that a second lld need not say
//! it again; and of an old lld, written for it with objects called as they are without a cache.

use crate::link::cached_names::CachedNames;
use crate::watch;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

/// So much is taken of one write at most; lld writes the rest in another.
const MOST_WRITTEN: u64 = 1 << 20;
/// A pipe that poll(2) says can be written has room for so much (pipe_write, fs/pipe.c).
const ROOM: usize = libc::PIPE_BUF;
/// How often a write that waits for its reader asks whether to go on.
const ASK_AGAIN: Duration = Duration::from_millis(20);

/// Both streams of a link, standard output first.
#[derive(Debug, Default)]
pub struct Output {
    /// What an old lld calls objects, which it would not without a cache.
    names: Option<CachedNames>,
    said: [u64; 2],
    /// What may be the beginning of such a name.
    held_back: [Vec<u8>; 2],
    /// Whether it goes nowhere.
    quiet: bool,
    /// What threads that compile have written, by thread.
    noted: HashMap<u32, Vec<u8>>,
}

impl Output {
    /// With names to be replaced, if lld is an old one.
    #[must_use]
    pub fn new(names: Option<CachedNames>, quiet: bool) -> Self {
        Self {
            names,
            quiet,
            ..Self::default()
        }
    }

    /// How many bytes were written.
    #[must_use]
    pub fn said(&self) -> [u64; 2] {
        self.said
    }

    /// lld writes so many bytes at this address of its own; none if it is to do that itself, otherwise the
    /// call's result. While the reader does not read, asks again and again whether it `goes_on`.
    pub fn write(
        &mut self,
        thread: u32,
        stream: usize,
        (address, length): (u64, u64),
        is_key: impl Fn(&[u8]) -> bool,
        goes_on: impl FnMut() -> bool,
    ) -> Option<io::Result<i64>> {
        if !self.quiet && !is_our_stream(thread, stream) {
            return None;
        }
        let Some(names) = self.names.as_ref().filter(|_| !self.quiet) else {
            self.said[stream] += length;
            return None;
        };
        let length = length.min(MOST_WRITTEN);
        let mut bytes = vec![0; length as usize];
        // An address that is none is the kernel's to refuse.
        let n = watch::read_memory(thread, address, &mut bytes).ok()?;
        bytes.truncate(n);
        let held = std::mem::take(&mut self.held_back[stream]);
        let mut text = [held, bytes].concat();
        let tail = text.split_off(text.len() - names.unfinished(&text));
        let text = names.replace(&text, is_key);
        self.held_back[stream] = tail;
        Some(write_all(stream, &text, goes_on).map(|()| {
            self.said[stream] += text.len() as u64;
            n as i64
        }))
    }

    /// A thread of a quiet lld compiles a module and writes so many bytes at this address.
    pub fn note(&mut self, thread: u32, address: u64, length: u64) {
        let mut bytes = vec![0; length.min(MOST_WRITTEN) as usize];
        if let Ok(n) = watch::read_memory(thread, address, &mut bytes) {
            let read = bytes.get(..n).unwrap_or_default();
            self.noted
                .entry(thread)
                .or_default()
                .extend_from_slice(read);
        }
    }

    /// A thread has made its object: what was noted of it is shown on standard error, unless it is about an error, after which lld
    /// makes an object all the same. Returns whether the object is good. For `goes_on` see [`Output::write`].
    pub fn show_noted(&mut self, thread: u32, goes_on: impl FnMut() -> bool) -> bool {
        let text = self.noted.remove(&thread).unwrap_or_default();
        let good = !text.windows(5).any(|word| word == b"error");
        if good {
            let _ = write_all(1, &text, goes_on);
        }
        good
    }

    /// lld has ended: the rest, and the map (none where there is none). For `goes_on` see [`Output::write`].
    pub fn finish(
        &mut self,
        map: Option<&Path>,
        is_key: impl Fn(&[u8]) -> bool,
        mut goes_on: impl FnMut() -> bool,
    ) {
        let Some(names) = &self.names else {
            return;
        };
        for stream in 0..2 {
            let text = names.replace(&self.held_back[stream], &is_key);
            let _ = write_all(stream, &text, &mut goes_on);
        }
        if let Some(map) = map {
            if let Err(e) = names.replace_in_map(map, is_key) {
                log::warn!("cannot rewrite the map {}: {e}", map.display());
            }
        }
    }
}

/// Whether a thread's standard output (0) or standard error (1) is what ours is: that of a program which lld runs
/// (`--error-handling-script`) may be another.
fn is_our_stream(thread: u32, stream: usize) -> bool {
    let identity = |process: &str| {
        let file = format!("/proc/{process}/fd/{}", stream + 1);
        std::fs::metadata(file).ok().map(|m| (m.dev(), m.ino()))
    };
    identity(&thread.to_string()).is_none_or(|theirs| Some(theirs) == identity("self"))
}

/// Writes to standard output (0) or standard error (1), past any buffer of ours.
fn write_all(stream: usize, text: &[u8], goes_on: impl FnMut() -> bool) -> io::Result<()> {
    match stream {
        0 => write_to(io::stdout().as_fd(), text, goes_on),
        _ => write_to(io::stderr().as_fd(), text, goes_on),
    }
}

/// Writes all, or what there is room for until it is not to go on any more. A full pipe or terminal is waited for, also
/// where it is not to block: lld would repeat a write that fails from its beginning (`raw_fd_ostream::write_impl`,
/// llvm/lib/Support/raw_ostream.cpp).
fn write_to(
    to: BorrowedFd<'_>,
    mut text: &[u8],
    mut goes_on: impl FnMut() -> bool,
) -> io::Result<()> {
    let wait = PollTimeout::try_from(ASK_AGAIN).unwrap_or(PollTimeout::ZERO);
    while !text.is_empty() && goes_on() {
        match poll(&mut [PollFd::new(to, PollFlags::POLLOUT)], wait) {
            Ok(0) | Err(Errno::EINTR) => continue,
            Ok(_) => {}
            Err(e) => return Err(e.into()),
        }
        let part = text.get(..ROOM).unwrap_or(text);
        match nix::unistd::write(to, part) {
            Ok(n) => text = text.get(n..).unwrap_or_default(),
            // Another process was there before us.
            Err(Errno::EAGAIN) => std::thread::sleep(Duration::from_millis(1)),
            Err(Errno::EINTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::fcntl::OFlag;
    use std::fs::File;
    use std::io::Read;

    /// A pipe whose reader is slow gets all of it once, whether it blocks or not.
    #[test]
    fn slow_readers_get_all() {
        let text: Vec<u8> = (0..300_000u32).map(|n| n as u8).collect();
        for flags in [OFlag::empty(), OFlag::O_NONBLOCK] {
            let (from, to) = nix::unistd::pipe2(flags).unwrap();
            let mut from = File::from(from);
            let reader = std::thread::spawn(move || {
                let mut all = Vec::new();
                let mut buffer = [0; 5000];
                loop {
                    match from.read(&mut buffer) {
                        Ok(0) => return all,
                        Ok(n) => all.extend_from_slice(&buffer[..n]),
                        Err(e) => assert_eq!(e.kind(), io::ErrorKind::WouldBlock),
                    }
                    std::thread::sleep(Duration::from_millis(1));
                }
            });
            write_to(to.as_fd(), &text, || true).unwrap();
            drop(to);
            assert!(reader.join().unwrap() == text);
        }
    }

    /// One that does not read at all is not waited for when lld has ended.
    #[test]
    fn readers_that_do_not_read_are_given_up() {
        let (_from, to) = nix::unistd::pipe().unwrap();
        let mut asked = 0;
        let goes_on = || {
            asked += 1;
            asked < 100
        };
        write_to(to.as_fd(), &[0; 1 << 20], goes_on).unwrap();
        assert_eq!(asked, 100);
    }
}
