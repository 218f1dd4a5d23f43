//! What became of each link, a line each, for `ldwrap stats`.
//!
//! The lines are those of the report ([`crate::report`]). They are in [`user_dir`], which is on this machine: the cache
//! directory may be on a network, where a line takes longer than all that the shim does otherwise. ldwrap adds them to
//! a summary in the cache directory when there are many, or somebody asks.

use crate::files::append_within_limit;
use crate::report::Report;
use crate::user_dir::user_dir;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read, Seek};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
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

/// A log to which nothing was written for so long is removed: each cache directory that is used once leaves one.
const UNUSED: Duration = Duration::from_secs(7 * 86_400);
/// How the names of logs begin.
const PREFIX: &str = "stats-";

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
    format!("{PREFIX}{}", name_of(cache_dir))
}

impl StatsLog {
    /// Opens the one of a cache directory; makes it if it is not there.
    pub fn open(cache_dir: Option<&Path>) -> io::Result<Self> {
        Self::open_file(&user_dir()?.join(file_name(cache_dir)), true)
    }

    fn open_file(path: &Path, create: bool) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(create)
            .mode(0o600)
            // Whatever somebody put there is not waited for.
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(path)?;
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
        let metadata = self.0.metadata()?;
        if metadata.nlink() == 0 {
            return Err(io::Error::other("the log was removed just now"));
        }
        if metadata.len() >= LONGEST {
            return Ok(());
        }
        let mut text = String::new();
        if metadata.len() == 0 {
            remove_unused(&user_dir()?);
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

/// Removes the logs in a directory that are not used any more, with what they say.
fn remove_unused(dir: &Path) {
    let is_unused = |metadata: io::Result<Metadata>| {
        let modified = metadata.ok().filter(Metadata::is_file)?.modified().ok()?;
        modified.elapsed().ok().filter(|age| *age > UNUSED)
    };
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if !name.as_encoded_bytes().starts_with(PREFIX.as_bytes())
            || is_unused(entry.metadata()).is_none()
        {
            continue;
        }
        let path = entry.path();
        // With the lock, no link is about to write to it.
        let Ok(log) = StatsLog::open_file(&path, false) else {
            continue;
        };
        if log.lock(libc::LOCK_EX, 1).is_ok() && is_unused(log.0.metadata()).is_some() {
            let _ = fs::remove_file(path);
        }
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

    #[test]
    fn a_log_that_nobody_uses_is_removed() {
        let dir = std::env::temp_dir().join(format!("ldwrap-stats-log-{}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        let names = ["stats-old", "stats-new", "stats-locked", "slot-old"];
        let logs = names.map(|name| StatsLog::open_file(&dir.join(name), true).unwrap());
        let [old, _, locked, other] = &logs;
        let long_ago = SystemTime::now() - 2 * UNUSED;
        for log in [old, locked, other] {
            log.0.set_modified(long_ago).unwrap();
        }
        locked.lock(libc::LOCK_SH, 1).unwrap();
        remove_unused(&dir);
        let left = names.map(|name| dir.join(name).exists());
        assert_eq!(left, [false, true, true, true]);
        // Whoever has opened it already writes no line that nobody finds.
        let [old, ..] = logs;
        assert!(old.append(&Report::default()).is_err());
        fs::remove_dir_all(dir).unwrap();
    }

    fn tempfile_name() -> String {
        format!("/nonexistent/stats-log-test-{}", std::process::id())
    }
}
