//! How many threads there may be: lld does not do without one that it cannot make.

use super::cgroups;
use super::procfs::field;
use nix::sys::resource::{Resource, getrlimit};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Under a lower limit of processes and threads lld needs them all.
const FEWEST_ALLOWED: u64 = 1024;
/// The same of those that are left.
const FEWEST_LEFT: u64 = 256;
/// The threads of a user are not counted under a higher limit.
const COUNTED_BELOW: u64 = 8192;
/// An lld that is to have many threads gets one for so many of those that are left: others need some too.
const SHARE: u64 = 4;

/// Why lld needs all processes and threads that there may be, if it does.
#[must_use]
pub fn few_threads() -> Option<String> {
    let (soft, _) = getrlimit(Resource::RLIMIT_NPROC).ok()?;
    if soft < FEWEST_ALLOWED {
        return Some(format!(
            "only {soft} processes and threads are allowed (ulimit -u)"
        ));
    }
    let left = threads_left().filter(|&left| left < FEWEST_LEFT)?;
    Some(format!(
        "only {left} more processes and threads are allowed (ulimit -u, or pids.max of a control group)"
    ))
}

/// So many threads, or fewer where that would be a large part of those that there may be.
#[must_use]
pub fn share_of_threads(wanted: usize) -> usize {
    share(wanted, threads_left())
}

fn share(wanted: usize, left: Option<u64>) -> usize {
    let share = left.and_then(|left| usize::try_from(left / SHARE).ok());
    share.map_or(wanted, |share| wanted.min(share))
}

/// How many more there may be; none where that is without a limit that matters.
fn threads_left() -> Option<u64> {
    let groups = cgroups::groups("pids");
    let in_groups = groups.iter().filter_map(|group| left_in(group));
    in_groups.chain(left_of_user()).min()
}

fn left_in(group: &Path) -> Option<u64> {
    let most = cgroups::number(group, "pids.max")?;
    Some(most.saturating_sub(cgroups::number(group, "pids.current")?))
}

fn left_of_user() -> Option<u64> {
    // SAFETY: no memory is involved, and it cannot fail.
    let user = unsafe { libc::getuid() };
    let (soft, _) = getrlimit(Resource::RLIMIT_NPROC).ok()?;
    // The limit is none for root (copy_process, kernel/fork.c).
    (user != 0 && soft < COUNTED_BELOW).then(|| soft.saturating_sub(threads_of(user)))
}

/// How many threads a user has, as far as `/proc` tells.
fn threads_of(user: u32) -> u64 {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let of_user = processes.filter(|process| {
        let name = process.file_name();
        name.as_encoded_bytes().iter().all(u8::is_ascii_digit)
            && process.metadata().is_ok_and(|m| m.uid() == user)
    });
    let threads = |process: fs::DirEntry| {
        let status = fs::read_to_string(process.path().join("status")).ok()?;
        field(&status, "Threads:")
    };
    of_user.filter_map(threads).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_group_has_left_is_its_limit_less_what_it_has() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        assert_eq!(left_in(dir.path()), None);
        write("pids.current", "5\n");
        write("pids.max", "max\n");
        assert_eq!(left_in(dir.path()), None);
        write("pids.max", "40\n");
        assert_eq!(left_in(dir.path()), Some(35));
        write("pids.max", "3\n");
        assert_eq!(left_in(dir.path()), Some(0));
    }

    #[test]
    fn threads_of_this_user_are_counted() {
        let user = fs::metadata("/proc/self").unwrap().uid();
        std::thread::scope(|scope| {
            let (end, wait) = std::sync::mpsc::channel::<()>();
            scope.spawn(move || wait.recv());
            assert!(threads_of(user) >= 2);
            drop(end);
        });
        assert_eq!(threads_of(u32::MAX - 7), 0);
    }

    #[test]
    fn many_threads_are_fewer_where_few_are_left() {
        let of = |left| share(202, left);
        assert_eq!([None, Some(10_000), Some(300)].map(of), [202, 202, 75]);
    }
}
