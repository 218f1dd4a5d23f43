//! Names of the files that the phases as commands hand to each other, in a directory of the user's.
//!
//! A module has a name there that a build system, a shell and a file system take as it is, and that stays when other
//! members of its archive change: lld's identifier of a member has its offset (docs/lld.md, "Identifiers").

use crate::jobs::index::{IndexedModule, ModuleIdentifier};
use std::collections::HashSet;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// What the name of a description ends in.
const DESCRIPTION: &str = ".json";
/// What is behind the names of a module's files; the first is its object.
const SUFFIXES: [&str; 6] = [
    "",
    DESCRIPTION,
    ".thinlto.bc",
    ".imports",
    ".bc",
    ".object-key",
];

/// The files of one module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ModuleFiles {
    /// Directory and name: the object's path.
    base: PathBuf,
}

impl ModuleFiles {
    /// Of the module of this name.
    pub(crate) fn new(dir: &Path, name: &str) -> Self {
        Self {
            base: dir.join(name),
        }
    }

    /// Those beside a description; `None` if its name is not that of one.
    pub(crate) fn of_description(path: &Path) -> Option<Self> {
        let base = path
            .as_os_str()
            .as_bytes()
            .strip_suffix(DESCRIPTION.as_bytes())?;
        let base = PathBuf::from(OsStr::from_bytes(base));
        Some(Self { base })
    }

    /// Those of an object.
    pub(crate) fn of_object(path: &Path) -> Self {
        Self {
            base: path.to_owned(),
        }
    }

    fn with(&self, suffix: &str) -> PathBuf {
        let mut path = self.base.clone().into_os_string();
        path.push(suffix);
        path.into()
    }

    /// The object.
    pub(crate) fn object(&self) -> PathBuf {
        self.base.clone()
    }

    /// What its backend is.
    pub(crate) fn description(&self) -> PathBuf {
        self.with(DESCRIPTION)
    }

    /// Its part of the index.
    pub(crate) fn shard(&self) -> PathBuf {
        self.with(".thinlto.bc")
    }

    /// The modules that it imports from, a line each, as lld's `--thinlto-emit-imports-files` has them.
    pub(crate) fn imports(&self) -> PathBuf {
        self.with(".imports")
    }

    /// A copy of its bitcode, if that is not a file of its own.
    pub(crate) fn bitcode(&self) -> PathBuf {
        self.with(".bc")
    }

    /// What the object was made from.
    pub(crate) fn object_key(&self) -> PathBuf {
        self.with(".object-key")
    }
}

/// The names of modules: those of the index in its order, then those that are left out. An error tells of one that is
/// not there any more.
pub(crate) fn module_names(
    modules: &[IndexedModule],
    left_out: &[ModuleIdentifier],
) -> Result<Vec<String>, String> {
    let mut taken = HashSet::new();
    modules
        .iter()
        .map(|m| &m.identifier)
        .chain(left_out)
        .map(|identifier| Ok(unused(name_of(identifier)?, &mut taken)))
        .collect()
}

/// A name none of whose files has another module, and from now on that of one.
fn unused(name: String, taken: &mut HashSet<String>) -> String {
    let mut numbered = name.clone();
    let mut n = 1;
    while SUFFIXES
        .iter()
        .any(|s| taken.contains(&format!("{numbered}{s}")))
    {
        n += 1;
        numbered = format!("{name}~{n}");
    }
    taken.extend(SUFFIXES.map(|s| format!("{numbered}{s}")));
    numbered
}

/// A name of a module by its file, or its archive and member.
fn name_of(identifier: &ModuleIdentifier) -> Result<String, String> {
    let at = shim::archive::locate(identifier.as_os_str()).map_err(|e| e.to_string())?;
    let path = at.path.as_os_str().as_bytes();
    if at.whole_file {
        return Ok(safe(path));
    }
    let member = || {
        let behind = identifier.as_bytes().strip_prefix(path)?;
        let inside = behind.strip_prefix(b"(")?.strip_suffix(b")")?;
        let end = inside.windows(4).rposition(|w| w == b" at ")?;
        inside.get(..end)
    };
    let member = member().ok_or_else(|| format!("{identifier} is no member of an archive"))?;
    Ok(safe(&[path, b"/", member].concat()))
}

/// A path as one below a directory, of bytes that mean nothing to a shell, make or ninja: `,XX` is the byte XX, `,,` is
/// `..`, and a first component `,` is the root.
fn safe(path: &[u8]) -> String {
    let mut parts: Vec<String> = Vec::new();
    if path.starts_with(b"/") {
        parts.push(",".into());
    }
    for part in path.split(|&b| b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => parts.push(",,".into()),
            _ => parts.push(part.iter().fold(String::new(), |mut text, &b| {
                if b.is_ascii_alphanumeric() || b"._+-@".contains(&b) {
                    text.push(char::from(b));
                } else {
                    let _ = write!(text, ",{b:02X}");
                }
                text
            })),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_mean_nothing_to_a_shell() {
        for (path, name) in [
            ("a.o", "a.o"),
            ("./d//a.o", "d/a.o"),
            ("../a b.o", ",,/a,20b.o"),
            ("/usr/lib/x:$#%=.o", ",/usr/lib/x,3A,24,23,25,3D.o"),
            ("c++/,~.o", "c++/,2C,7E.o"),
            ("\u{e4}.o", ",C3,A4.o"),
        ] {
            assert_eq!(safe(path.as_bytes()), name);
        }
    }

    #[test]
    fn no_two_modules_have_a_file_in_common() {
        let mut taken = HashSet::new();
        let mut name = |name: &str| unused(name.into(), &mut taken);
        assert_eq!(name("l.a/m.o"), "l.a/m.o");
        assert_eq!(name("l.a/m.o"), "l.a/m.o~2");
        assert_eq!(name("l.a/m.o"), "l.a/m.o~3");
        // Its object would be the other one's copy of bitcode.
        assert_eq!(name("l.a/m.o.bc"), "l.a/m.o.bc~2");
    }

    #[test]
    fn members_are_named_without_their_offsets() {
        let dir = tempfile::tempdir().unwrap();
        let archive = dir.path().join("l.a");
        let header = format!("{:<16}{:<32}{:<10}`\n", "m (1).o/", "0", 4);
        std::fs::write(&archive, format!("!<arch>\n{header}BC  ")).unwrap();
        let identifier = format!("{}(m (1).o at 8)", archive.display());
        let name = name_of(&ModuleIdentifier::new(identifier.as_bytes())).unwrap();
        assert!(name.ends_with("/l.a/m,20,281,29.o"), "{name}");
        assert!(name.starts_with(",/"), "{name}");
        assert!(name_of(&ModuleIdentifier::new(b"/nonexistent/a.o")).is_err());
    }

    #[test]
    fn files_are_found_from_a_description() {
        let files = ModuleFiles::new(Path::new("lto"), "d/a.o");
        assert_eq!(files.description(), Path::new("lto/d/a.o.json"));
        let found = ModuleFiles::of_description(&files.description());
        assert_eq!(found.as_ref(), Some(&files));
        assert_eq!(ModuleFiles::of_description(Path::new("lto/a.o")), None);
        let all = [
            files.object(),
            files.description(),
            files.shard(),
            files.imports(),
            files.bitcode(),
            files.object_key(),
        ];
        assert_eq!(
            all,
            SUFFIXES.map(|s| PathBuf::from(format!("lto/d/a.o{s}")))
        );
    }
}
