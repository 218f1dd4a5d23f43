//! The control groups that this process is in (cgroups(7)), and what they say.

use std::fs;
use std::path::{Path, PathBuf};

/// Where control groups are mounted: version 2, and the controllers of version 1 in directories of their names.
const GROUPS: &str = "/sys/fs/cgroup";

/// The directories of all groups that limit this process by a controller: that of version 2 and that of the controller in
/// version 1, each with all that it is in.
#[must_use]
pub fn groups(controller: &str) -> Vec<PathBuf> {
    let text = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let found = text.lines().filter_map(|line| group(line, controller));
    found.flat_map(ancestors).collect()
}

/// A number that a group has in a file of this name; none where it has no such file or limit.
#[must_use]
pub fn number(group: &Path, name: &str) -> Option<u64> {
    let text = fs::read_to_string(group.join(name)).ok()?;
    text.trim().parse().ok()
}

/// Where groups are mounted, and the directory of the one that has this controller, of a line of `/proc/self/cgroup`
/// (`NUMBER:CONTROLLERS:/PATH`; version 2 has number 0 and no controllers).
fn group(line: &str, controller: &str) -> Option<(PathBuf, PathBuf)> {
    let mut fields = line.splitn(3, ':');
    let (number, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
    let root = if number == "0" && controllers.is_empty() {
        PathBuf::from(GROUPS)
    } else if controllers.split(',').any(|c| c == controller) {
        Path::new(GROUPS).join(controller)
    } else {
        return None;
    };
    let dir = root.join(path.trim_start_matches('/'));
    Some((root, dir))
}

/// A group and all that it is in, up to the root. In a container the path may be one of the host's: then
/// what is mounted is the container's own group.
fn ancestors((root, dir): (PathBuf, PathBuf)) -> impl Iterator<Item = PathBuf> {
    let up: Vec<PathBuf> = dir.ancestors().map(Path::to_owned).collect();
    up.into_iter().take_while(move |dir| dir.starts_with(&root))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_of_both_versions_are_found() {
        let found = |line| group(line, "memory").map(|(_, dir)| dir.display().to_string());
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
        let up = ancestors(group("0::/a/b", "memory").unwrap()).count();
        assert_eq!(up, 3);
    }
}
