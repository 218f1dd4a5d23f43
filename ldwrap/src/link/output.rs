//! What lld writes to its standard output and standard error: counted, so that a second lld need not say
//! it again; and of an old lld, written for it with objects called as they are without a cache.

use crate::link::cached_names::CachedNames;
use crate::watch;
use nix::errno::Errno;
use std::collections::HashMap;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// So much is taken of one write at most; lld writes the rest in another.
const MOST_WRITTEN: u64 = 1 << 20;

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
    /// call's result.
    pub fn write(
        &mut self,
        thread: u32,
        stream: usize,
        address: u64,
        length: u64,
        is_key: impl Fn(&[u8]) -> bool,
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
        Some(write_all(stream, &text).map(|()| {
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
    /// makes an object all the same. Returns whether the object is good.
    pub fn show_noted(&mut self, thread: u32) -> bool {
        let text = self.noted.remove(&thread).unwrap_or_default();
        let good = !text.windows(5).any(|word| word == b"error");
        if good {
            let _ = write_all(1, &text);
        }
        good
    }

    /// lld has ended: the rest, and the map (none where there is none).
    pub fn finish(&mut self, map: Option<&Path>, is_key: impl Fn(&[u8]) -> bool) {
        let Some(names) = &self.names else {
            return;
        };
        for stream in 0..2 {
            let text = names.replace(&self.held_back[stream], &is_key);
            let _ = write_all(stream, &text);
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
fn write_all(stream: usize, mut text: &[u8]) -> io::Result<()> {
    let (stdout, stderr) = (io::stdout(), io::stderr());
    let to = if stream == 0 {
        stdout.as_fd()
    } else {
        stderr.as_fd()
    };
    while !text.is_empty() {
        match nix::unistd::write(to, text) {
            Ok(n) => text = text.get(n..).unwrap_or_default(),
            Err(Errno::EINTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}
