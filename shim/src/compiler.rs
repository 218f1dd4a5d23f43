//! The shim under a compiler's name, for builds that find programs in `PATH` and nowhere else.
//!
//! clang takes the `ld.lld` beside its own binary before it looks at `PATH` (docs/lld.md, "Finding the linker"). So the
//! shim's directory, first in `PATH`, also has the shim by the names of compilers. Under such a name it becomes the
//! compiler that would have run without it, and puts its own directory in `COMPILER_PATH`, where clang and gcc look for
//! linkers first. The arguments are the compiler's and are not looked at. Every compile pays for this: it may cost a
//! few `stat` calls and one exec.

use crate::lld::{Argv, is_ours, is_script};
use crate::settings::COMPILER_DEPTH;
use std::ffi::{OsStr, OsString, c_int};
use std::fs::Metadata;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Compilers that link through `COMPILER_PATH`: clang and gcc by themselves, rustc by the `cc` that it calls.
const NAMES: [&[u8]; 7] = [
    b"cc", b"c++", b"gcc", b"g++", b"clang", b"clang++", b"rustc",
];

/// A script in the place of a compiler may have led back to us fewer times than this; else it would for ever.
const DEEPEST: u32 = 8;

/// A shell's exit status for a program that is not there.
const NOT_FOUND: c_int = 127;
/// A shell's exit status for a program that cannot be run.
const NOT_RUN: c_int = 126;

/// Whether a file name is a compiler's: one of [`NAMES`], with or without a version behind it (`clang-22`,
/// `gcc-12.2`) and a target before it (`x86_64-linux-gnu-gcc`).
#[must_use]
pub fn names_compiler(name: &OsStr) -> bool {
    let name = without_version(name.as_bytes());
    NAMES.iter().any(|known| {
        let target = name.strip_suffix(*known);
        target
            .is_some_and(|target| target.is_empty() || (target.len() > 1 && target.ends_with(b"-")))
    })
}

/// A program's name without the version behind it, if there is one: `clang` of `clang-22`.
#[must_use]
pub fn without_version(name: &[u8]) -> &[u8] {
    let Some(dash) = name.iter().rposition(|&b| b == b'-') else {
        return name;
    };
    let (before, version) = name.split_at(dash);
    let mut parts = version.get(1..).unwrap_or_default().split(|&b| b == b'.');
    match parts.all(|part| !part.is_empty() && part.iter().all(u8::is_ascii_digit)) {
        true => before,
        false => name,
    }
}

/// Why no compiler was run.
#[derive(Debug)]
pub struct Failure {
    /// The exit status, as a shell's.
    pub status: c_int,
    /// What to say.
    pub message: String,
}

/// Becomes the compiler by whose name we were called, with arguments as they came; returns only what went wrong.
/// `shims` is the directory with our `ld.lld`.
///
/// `PATH` loses the directories in which that name is ours: ccache, or a script, looks there for the next program of
/// its own name. `argv[0]` is the path of what was found, by which gcc finds its own files.
#[must_use]
pub fn exec(argv: Argv, shims: Option<&Path>) -> Failure {
    let name = Path::new(argv.argv0()).file_name().unwrap_or_default();
    let path = std::env::var_os("PATH");
    let own = std::fs::metadata("/proc/self/exe").ok();
    // An empty variable names the working directory; one that is not set names none.
    let found = path
        .as_deref()
        .and_then(|path| Found::in_path(name, path, own));
    let Some(found) = found else {
        let path = path.unwrap_or_default();
        let (name, path) = (name.to_string_lossy(), path.to_string_lossy());
        return Failure {
            status: NOT_FOUND,
            message: format!(
                "{name}: not found: PATH has no such program but ldwrap itself (PATH={path})"
            ),
        };
    };
    let program = found.program;
    let mut variables = Vec::new();
    variables.extend(found.path.map(|path| ("PATH", path)));
    if let Some(shims) = shims {
        let others = std::env::var_os("COMPILER_PATH").unwrap_or_default();
        variables.extend(with_directory(shims, &others).map(|all| ("COMPILER_PATH", all)));
    }
    if is_script(&program) {
        let depth = std::env::var(COMPILER_DEPTH).ok();
        let depth = depth.and_then(|n| n.parse().ok()).unwrap_or(0);
        if depth >= DEEPEST {
            return Failure {
                status: NOT_RUN,
                message: format!("{} leads back to ldwrap each time", program.display()),
            };
        }
        variables.push((COMPILER_DEPTH, (depth + 1).to_string().into()));
    }
    let error = argv.exec_with(&program, program.as_os_str(), &variables);
    Failure {
        status: NOT_RUN,
        message: format!("cannot run {}: {error}", program.display()),
    }
}

/// The compiler that would run if we were not in `PATH`.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    /// Its path, absolute.
    program: PathBuf,
    /// `PATH` without the directories in which the name is ours, if there are any.
    path: Option<OsString>,
}

impl Found {
    /// Looks for `name` in `path` as a shell does, past ourselves: the file `own`, and whatever carries our mark.
    fn in_path(name: &OsStr, path: &OsStr, own: Option<Metadata>) -> Option<Self> {
        let identity = |m: &Metadata| (m.dev(), m.ino());
        // Files that were looked at, and whether they are ours: /bin often is /usr/bin.
        let mut known: Vec<_> = own.iter().map(|own| (identity(own), true)).collect();
        let mut found: Option<PathBuf> = None;
        let mut kept: Vec<&[u8]> = Vec::new();
        let mut dropped = false;
        for dir in path.as_bytes().split(|&b| b == b':') {
            let program = Path::new(OsStr::from_bytes(dir)).join(name);
            let metadata = std::fs::metadata(&program).ok().filter(is_executable);
            if let Some(file) = metadata.as_ref().map(identity) {
                let ours = known.iter().find(|(other, _)| *other == file);
                let ours = ours.map_or_else(|| is_ours(&program), |(_, ours)| *ours);
                known.push((file, ours));
                if ours {
                    dropped = true;
                    continue;
                }
                found.get_or_insert(program);
            }
            kept.push(dir);
        }
        let program = found?;
        Some(Self {
            program: std::path::absolute(&program).unwrap_or(program),
            path: dropped.then(|| OsStr::from_bytes(&kept.join(&b':')).to_os_string()),
        })
    }
}

/// Whether a file is a program, as far as its kind and permissions tell.
#[must_use]
pub fn is_executable(metadata: &Metadata) -> bool {
    metadata.is_file() && metadata.permissions().mode() & 0o111 != 0
}

/// A list of directories with `dir` in front; `None` if it is in the list, or cannot be in any.
#[must_use]
pub fn with_directory(dir: &Path, others: &OsStr) -> Option<OsString> {
    let is_there = std::env::split_paths(others).any(|other| other == dir);
    if is_there || dir.as_os_str().as_bytes().contains(&b':') {
        return None;
    }
    let mut all = dir.as_os_str().to_os_string();
    if !others.is_empty() {
        all.push(":");
        all.push(others);
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn names_of_compilers() {
        for name in [
            "cc",
            "c++",
            "gcc-12",
            "g++-12.2",
            "clang",
            "clang-22",
            "clang++-22",
            "x86_64-linux-gnu-gcc",
            "aarch64-linux-gnu-g++-12",
            "musl-gcc",
            "rustc",
        ] {
            assert!(names_compiler(OsStr::new(name)), "{name}");
        }
        for name in [
            "",
            "-",
            "-cc",
            "12",
            "ld.lld",
            "ld.lld-22",
            "x86_64-linux-gnu-ld.lld",
            "ldwrap",
            "ccache",
            "distcc",
            "gcc-ar-12",
            "gcc-",
            "gcc-x",
            "gcc-12.",
            "clang-cpp-22",
            "clang-format",
            "rustc-22-x",
        ] {
            assert!(!names_compiler(OsStr::new(name)), "{name}");
        }
    }

    /// Directories `a` to `d` below `root`, and `PATH` of them.
    fn directories(root: &Path) -> OsString {
        let dirs = ["a", "b", "c", "d"].map(|name| root.join(name));
        for dir in &dirs {
            std::fs::create_dir(dir).unwrap();
        }
        std::env::join_paths(dirs).unwrap()
    }

    #[test]
    fn the_next_in_path_that_is_not_ourselves() {
        let root = tempfile_dir("next");
        let path = directories(&root);
        let ours = std::env::current_exe().unwrap();
        let own = || std::fs::metadata(&ours).ok();
        let find = |name: &str, own| Found::in_path(OsStr::new(name), &path, own);
        assert_eq!(find("cc", own()), None);
        // Ours, another, ours once more, the other once more.
        for (dir, target) in [("a", ours.as_path()), ("b", Path::new("/bin/sh"))] {
            symlink(target, root.join(dir).join("cc")).unwrap();
        }
        std::fs::copy(&ours, root.join("c/cc")).unwrap();
        symlink("/bin/sh", root.join("d/cc")).unwrap();
        let expected = Found {
            program: root.join("b/cc"),
            path: std::env::join_paths([root.join("b"), root.join("d")]).ok(),
        };
        assert_eq!(find("cc", own()).as_ref(), Some(&expected));
        // By our mark alone.
        assert_eq!(find("cc", None), Some(expected));
        // Where there is nothing of ours PATH stays as it is; what cannot be run is passed over.
        std::fs::write(root.join("a/gcc"), "").unwrap();
        std::fs::create_dir(root.join("b/gcc")).unwrap();
        symlink("/bin/sh", root.join("d/gcc")).unwrap();
        let found = find("gcc", own()).unwrap();
        assert_eq!((found.program, found.path), (root.join("d/gcc"), None));
        std::fs::remove_dir_all(root).unwrap();
    }

    fn tempfile_dir(name: &str) -> PathBuf {
        let dir =
            std::env::temp_dir().join(format!("ldwrap-compiler-{name}-{}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        dir
    }

    #[test]
    fn a_directory_is_put_in_front_once() {
        for (others, all) in [
            ("", Some("/p")),
            ("/a:/b", Some("/p:/a:/b")),
            (":", Some("/p::")),
            ("/a:/p", None),
            ("/p/:/a", None),
        ] {
            let all = all.map(OsString::from);
            assert_eq!(with_directory(Path::new("/p"), OsStr::new(others)), all);
        }
        assert_eq!(with_directory(Path::new("/p:q"), OsStr::new("")), None);
    }
}
