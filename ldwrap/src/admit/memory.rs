//! How much memory is free for this process: what the machine has, and what each of its control groups
//! allows.

use crate::sys::cgroups;
use crate::sys::procfs::field;
use std::fs;
use std::path::Path;

/// Bytes that processes of ours could still take without pushing out anything but cached files; `None`
/// where the kernel does not tell.
#[must_use]
pub fn available() -> Option<u64> {
    let machine = fs::read_to_string("/proc/meminfo").ok();
    let machine = machine.and_then(|text| Some(field(&text, "MemAvailable:")? << 10));
    let groups = cgroups::groups("memory");
    let in_groups = groups.iter().filter_map(|group| available_in(group));
    in_groups.chain(machine).min()
}

/// What a group has left (bytes); `None` where it has no limit.
fn available_in(dir: &Path) -> Option<u64> {
    let number = |name: &str| cgroups::number(dir, name);
    let limits = ["memory.max", "memory.high", "memory.limit_in_bytes"];
    let limit = limits.iter().filter_map(|name| number(name)).min()?;
    let used = number("memory.current").or_else(|| number("memory.usage_in_bytes"))?;
    // Cached files give way.
    let stat = fs::read_to_string(dir.join("memory.stat")).unwrap_or_default();
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
