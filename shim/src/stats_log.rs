//! What became of each link, a line each, for `ldwrap stats`.
//!
//! The lines are those of the report ([`crate::report`]). They are in [`user_dir`], which is on this machine: the cache
//! directory may be on a network, where a line takes longer than all that the shim does otherwise. ldwrap adds them to
//! a summary in the cache directory when there are many, or somebody asks.

use crate::files::append_within_limit;
use crate::report::Report;
use crate::user_dir::user_dir;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// From this size on (bytes) the lines are to be added to the summary.
const LONG: u64 = 64 << 10;
/// Where nobody does that, no more are written from this size on (bytes).
const LONGEST: u64 = 1 << 20;
/// What the first line says: when it was written (seconds since 1970).
pub const SINCE: &str = "since";
/// How often, and after what time each, a lock is tried again that another link has.
const TRIES: usize = 5;
const PAUSE: Duration = Duration::from_millis(1);

/// The lines of links with one cache directory.
#[derive(Debug)]
pub struct StatsLog(File);

/// Which cache directory it is, as a part of a file's name.
#[must_use]
pub fn name_of(cache_dir: Option<&Path>) -> String {
    let dir = cache_dir.map(|dir| std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned()));
    let dir = dir.unwrap_or_default();
    // FNV-1a: the shim has no other hash that is the same in every release.
    let hash = dir.as_os_str().as_encoded_bytes().iter();
    let hash = hash.fold(0xcbf2_9ce4_8422_2325u64, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
}

/// The log of a cache directory, in [`user_dir`].
#[must_use]
pub fn file_name(cache_dir: Option<&Path>) -> String {
    format!("stats-{}", name_of(cache_dir))
}

impl StatsLog {
    /// Opens the one of a cache directory; makes it if it is not there.
    pub fn open(cache_dir: Option<&Path>) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            // Whatever somebody put there is not waited for.
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(user_dir()?.join(file_name(cache_dir)))?;
        Ok(Self(file))
    }

    /// Whether its lines are to be added to the summary.
    #[must_use]
    pub fn is_long(&self) -> bool {
        self.0.metadata().is_ok_and(|m| m.len() >= LONG)
    }

    /// Adds a link in one write, so that the lines of links that end at once do not mix.
    pub fn append(self, report: &Report) -> io::Result<()> {
        self.lock(libc::LOCK_SH, TRIES)?;
        let length = self.0.metadata()?.len();
        if length >= LONGEST {
            return Ok(());
        }
        let mut text = String::new();
        if length == 0 {
            let now = SystemTime::now().duration_since(UNIX_EPOCH);
            text = format!("{{\"{SINCE}\":{}}}\n", now.map_or(0, |now| now.as_secs()));
        }
        // Which file it was is for the report only.
        let line = Report {
            output: String::new(),
            complaints: Vec::new(),
            ..report.clone()
        };
        text += &line.line();
        text.push('\n');
        append_within_limit(&self.0, text.as_bytes())
    }

    /// Gives all lines to `add`, and empties the log if that succeeds. No link writes meanwhile.
    pub fn take<T>(mut self, add: impl FnOnce(&[u8]) -> io::Result<T>) -> io::Result<T> {
        self.lock(libc::LOCK_EX, 100 * TRIES)?;
        let mut lines = Vec::new();
        self.0.rewind()?;
        (&self.0).take(2 * LONGEST).read_to_end(&mut lines)?;
        let added = add(&lines)?;
        self.0.set_len(0)?;
        Ok(added)
    }

    /// Locks it, until it is closed. A process that has the lock and is stopped is not waited for.
    fn lock(&self, kind: i32, tries: usize) -> io::Result<()> {
        for _ in 0..tries {
            // SAFETY: no memory is involved; the descriptor is ours.
            if unsafe { libc::flock(self.0.as_raw_fd(), kind | libc::LOCK_NB) } == 0 {
                return Ok(());
            }
            sleep(PAUSE);
        }
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_taken_once_and_not_while_they_are_written() {
        let dir = tempfile_name();
        let open = || StatsLog::open(Some(Path::new(&dir))).unwrap();
        let report = Report {
            output: "a.out".into(),
            reason: "no bitcode".into(),
            ..Report::default()
        };
        open().append(&report).unwrap();
        open().append(&report).unwrap();
        assert!(!open().is_long());
        let fails =
            open().take(|_| Err::<(), _>(io::Error::other("the summary cannot be written")));
        assert!(fails.is_err());
        let lines = open().take(|lines| Ok(lines.to_vec())).unwrap();
        let lines = String::from_utf8(lines).unwrap();
        assert_eq!(lines.lines().count(), 3);
        assert!(lines.starts_with("{\"since\":"));
        assert!(lines.contains("no bitcode") && !lines.contains("a.out"));
        assert_eq!(open().take(|lines| Ok(lines.len())).unwrap(), 0);
        let writer = open();
        writer.lock(libc::LOCK_EX, 1).unwrap();
        assert!(open().append(&report).is_err());
        drop(writer);
        open().append(&report).unwrap();
        let log = user_dir().unwrap().join(file_name(Some(Path::new(&dir))));
        std::fs::remove_file(log).unwrap();
    }

    fn tempfile_name() -> String {
        format!("/nonexistent/stats-log-test-{}", std::process::id())
    }
}
