//! `ldwrap compilers`: the shim by the names of this machine's compilers, for builds that find programs in `PATH`
//! (`shim::compiler` is what it does there).
//!
//! A link for each compiler that is in `PATH` now and none for others: a configure script that looks for clang must not
//! find it where it is not.

use super::shim_dir;
use shim::compiler::{is_executable, names_compiler};
use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fmt::Write;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// Makes the links in `dir`, by default the shim's own directory, removes those whose compiler is gone, and prints
/// what it did.
pub fn run(dir: Option<&Path>) -> Result<(), String> {
    let shims = shim_dir().map_err(|e| e.to_string())?;
    let dir = dir.unwrap_or(&shims);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let names = compilers_in(&path);
    let done = Links::in_dir(dir, &shims)
        .and_then(|links| links.refresh(&names))
        .map_err(|e| format!("{}: {e}", dir.display()))?;
    let mut text = format!("{}: {} compilers\n", dir.display(), names.len());
    for (what, names) in [
        ("made", &done.made),
        ("removed", &done.removed),
        ("unchanged", &done.unchanged),
        ("left alone, not a link of ours", &done.others),
    ] {
        if !names.is_empty() {
            let names: Vec<_> = names.iter().map(|name| name.to_string_lossy()).collect();
            let _ = writeln!(text, "  {what}: {}", names.join(" "));
        }
    }
    super::print(text)
}

/// The names of the compilers in the directories of `path`, ourselves excepted. Relative
/// directories are passed over: elsewhere they are others.
fn compilers_in(path: &OsStr) -> BTreeSet<OsString> {
    let mut names = BTreeSet::new();
    for dir in std::env::split_paths(path).filter(|dir| dir.is_absolute()) {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let name = entry.file_name();
            if names_compiler(&name) && !names.contains(&name) && is_foreign_program(&entry.path())
            {
                names.insert(name);
            }
        }
    }
    names
}

fn is_foreign_program(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|m| is_executable(&m)) && !shim::lld::is_ours(path)
}

/// What became of the links in a directory.
#[derive(Debug, Default, PartialEq, Eq)]
struct Refreshed {
    made: Vec<OsString>,
    removed: Vec<OsString>,
    unchanged: Vec<OsString>,
    /// Names that something else has.
    others: Vec<OsString>,
}

/// Links to the shim in a directory.
struct Links<'a> {
    dir: &'a Path,
    target: PathBuf,
}

impl<'a> Links<'a> {
    /// In `dir`, which is made if need be, to the `ld.lld` in `shims`.
    fn in_dir(dir: &'a Path, shims: &Path) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        // Beside the shim a name is enough, and holds when the whole prefix is moved.
        let target = match dir.canonicalize()? == shims.canonicalize()? {
            true => PathBuf::from("ld.lld"),
            false => shims.join("ld.lld"),
        };
        Ok(Self { dir, target })
    }

    /// A link for each of `names`, and none of ours by another compiler's name.
    fn refresh(&self, names: &BTreeSet<OsString>) -> io::Result<Refreshed> {
        let mut done = Refreshed::default();
        for entry in fs::read_dir(self.dir)? {
            let name = entry?.file_name();
            if names_compiler(&name) && !names.contains(&name) && self.is_link_of_ours(&name) {
                fs::remove_file(self.dir.join(&name))?;
                done.removed.push(name);
            }
        }
        done.removed.sort();
        for name in names {
            let link = self.dir.join(name);
            let list = if fs::read_link(&link).is_ok_and(|target| target == self.target) {
                &mut done.unchanged
            } else if link.symlink_metadata().is_ok() && !self.is_link_of_ours(name) {
                &mut done.others
            } else {
                self.put(&link)?;
                &mut done.made
            };
            list.push(name.clone());
        }
        Ok(done)
    }

    /// Whether a name is a link to this shim, or to any.
    fn is_link_of_ours(&self, name: &OsStr) -> bool {
        let link = self.dir.join(name);
        fs::read_link(&link).is_ok_and(|target| target == self.target || shim::lld::is_ours(&link))
    }

    /// Makes a link. One that is replaced is there at any time: builds may be running.
    fn put(&self, link: &Path) -> io::Result<()> {
        let new = self.dir.join(format!(".ldwrap-{}", std::process::id()));
        symlink(&self.target, &new)?;
        fs::rename(&new, link).inspect_err(|_| {
            let _ = fs::remove_file(&new);
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> BTreeSet<OsString> {
        names.iter().map(OsString::from).collect()
    }

    #[test]
    fn programs_that_are_there() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        for name in ["gcc", "clang-22", "other"] {
            symlink("/bin/sh", at(name)).unwrap();
        }
        symlink(std::env::current_exe().unwrap(), at("cc")).unwrap();
        symlink("/nonexistent", at("g++")).unwrap();
        fs::write(at("c++"), "not executable").unwrap();
        let path = std::env::join_paths([Path::new("/nonexistent"), root.path()]).unwrap();
        assert_eq!(compilers_in(&path), names(&["clang-22", "gcc"]));
    }

    #[test]
    fn links_follow_what_is_there() {
        let root = tempfile::tempdir().unwrap();
        let (shims, dir) = (root.path().join("lib"), root.path().join("new/dir"));
        fs::create_dir(&shims).unwrap();
        fs::copy(std::env::current_exe().unwrap(), shims.join("ld.lld")).unwrap();
        for dir in [&shims, &dir] {
            let links = Links::in_dir(dir, &shims).unwrap();
            let made = links.refresh(&names(&["cc", "clang-22"])).unwrap();
            assert_eq!(made.made, ["cc", "clang-22"]);
            assert!(shim::lld::is_ours(&dir.join("cc")));
            fs::write(dir.join("gcc"), "").unwrap();
            symlink("/bin/sh", dir.join("g++")).unwrap();
            symlink(std::env::current_exe().unwrap(), dir.join("c++")).unwrap();
            let done = links.refresh(&names(&["c++", "cc", "gcc", "g++"])).unwrap();
            let list = |names: &[&str]| names.iter().map(OsString::from).collect();
            let expected = Refreshed {
                made: list(&["c++"]),
                removed: list(&["clang-22"]),
                unchanged: list(&["cc"]),
                others: list(&["g++", "gcc"]),
            };
            assert_eq!(done, expected);
            links.refresh(&names(&[])).unwrap();
            let left = fs::read_dir(dir).unwrap().flatten();
            let left: BTreeSet<_> = left.map(|entry| entry.file_name()).collect();
            let shim = if *dir == shims { "ld.lld" } else { "gcc" };
            assert_eq!(left, names(&["g++", "gcc", shim]));
        }
    }
}
