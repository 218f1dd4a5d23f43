//! How much memory is free for this process: what the machine has, and what each of its control groups
//! allows.

use crate::sys::procfs::field;
use std::fs;
use std::path::{Path, PathBuf};

/// Where control groups are mounted (`cgroups(7)`): version 2, and the memory controller of version 1.
const GROUPS: &str = "/sys/fs/cgroup";
const GROUPS_V1: &str = "/sys/fs/cgroup/memory";

/// Bytes that processes of ours could still take without pushing out anything but cached files; `None`
/// where the kernel does not tell.
#[must_use]
pub fn available() -> Option<u64> {
    let machine = fs::read_to_string("/proc/meminfo").ok();
    let machine = machine.and_then(|text| Some(field(&text, "MemAvailable:")? << 10));
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let groups = groups.lines().filter_map(memory_group).flat_map(ancestors);
    groups
        .filter_map(|dir| available_in(&dir))
        .chain(machine)
        .min()
}

/// The directory of the control group that limits memory, of a line of `/proc/self/cgroup`
/// (`NUMBER:CONTROLLERS:/PATH`; version 2 has number 0 and no controllers).
fn memory_group(line: &str) -> Option<(PathBuf, PathBuf)> {
    let mut fields = line.splitn(3, ':');
    let (number, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
    let root = if number == "0" && controllers.is_empty() {
        GROUPS
    } else if controllers.split(',').any(|c| c == "memory") {
        GROUPS_V1
    } else {
        return None;
    };
    let root = PathBuf::from(root);
    let dir = root.join(path.trim_start_matches('/'));
    Some((root, dir))
}

/// A group and all that it is in, up to the root. In a container the path may be one of the host's: then
/// what is mounted is the container's own group.
fn ancestors((root, dir): (PathBuf, PathBuf)) -> impl Iterator<Item = PathBuf> {
    let up: Vec<PathBuf> = dir.ancestors().map(Path::to_owned).collect();
    up.into_iter().take_while(move |dir| dir.starts_with(&root))
}

/// What a group has left (bytes); `None` where it has no limit.
fn available_in(dir: &Path) -> Option<u64> {
    let read = |name: &str| fs::read_to_string(dir.join(name)).ok();
    let number = |name: &str| read(name)?.trim().parse::<u64>().ok();
    let limits = ["memory.max", "memory.high", "memory.limit_in_bytes"];
    let limit = limits.iter().filter_map(|name| number(name)).min()?;
    let used = number("memory.current").or_else(|| number("memory.usage_in_bytes"))?;
    // Cached files give way.
    let stat = read("memory.stat").unwrap_or_default();
    let files = |of: &str| field(&stat, &format!("total_{of}")).or_else(|| field(&stat, of));
    let files = files("inactive_file").unwrap_or(0) + files("active_file").unwrap_or(0) / 2;
    Some(limit.saturating_sub(used.saturating_sub(files)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_memory() {
        let available = available().unwrap();
        assert!(available > 1 << 20, "{available}");
    }

    #[test]
    fn groups_of_both_versions_are_found() {
        let found = |line| memory_group(line).map(|(_, dir)| dir.display().to_string());
        assert_eq!(found("0::/a/b").as_deref(), Some("/sys/fs/cgroup/a/b"));
        assert_eq!(
            found("4:memory:/a").as_deref(),
            Some("/sys/fs/cgroup/memory/a")
        );
        assert_eq!(
            found("4:cpu,memory:/").as_deref(),
            Some("/sys/fs/cgroup/memory/")
        );
        assert_eq!(found("5:devices:/a"), None);
        assert_eq!(found("nonsense"), None);
        let up = ancestors(memory_group("0::/a/b").unwrap()).count();
        assert_eq!(up, 3);
    }

    #[test]
    fn what_a_group_has_left_is_its_limit_less_what_it_uses() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        assert_eq!(available_in(dir.path()), None);
        write("memory.max", "max\n");
        write("memory.current", "600\n");
        write(
            "memory.stat",
            "anon 1\nfile 300\nactive_file 200\ninactive_file 100\n",
        );
        assert_eq!(available_in(dir.path()), None);
        write("memory.max", "1000\n");
        assert_eq!(available_in(dir.path()), Some(600));
        write("memory.high", "500\n");
        assert_eq!(available_in(dir.path()), Some(100));
        write("memory.max", "nonsense");
        write("memory.high", "");
        assert_eq!(available_in(dir.path()), None);
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        write("memory.limit_in_bytes", "1000\n");
        write("memory.usage_in_bytes", "1000\n");
        write("memory.stat", "inactive_file 1\ntotal_inactive_file 100\n");
        assert_eq!(available_in(dir.path()), Some(100));
    }
}
