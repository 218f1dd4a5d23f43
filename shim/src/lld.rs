//! Finding the real lld, and never ourselves.
//!
//! Our own binaries may lie under any name on `PATH`: symbolic links, copies, several installations. So a
//! candidate is not judged by its path but by a note section that only our own binaries carry.

use crate::config::Config;
use crate::options;
use object::elf::{FileHeader32, FileHeader64};
use object::read::elf::FileHeader;
use object::{Endianness, ReadCache};
use std::ffi::{CStr, OsStr, OsString, c_char};
use std::fs::File;
use std::io;
use std::ops::RangeInclusive;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::slice::SliceIndex;

/// The section that marks our own binaries.
const MARK_SECTION: &str = ".note.ldwrap";

/// Kept in every binary that links this library.
// SAFETY: the section holds plain read-only bytes and is named like a note so that strip keeps it;
// nothing else uses it.
#[used]
#[unsafe(link_section = ".note.ldwrap")]
static MARK: [u8; 8] = *b"ldwrap\0\0";

/// lld majors that we know: from the oldest tested release to the newest.
pub const MAJORS: RangeInclusive<u32> = {
    let [oldest, .., newest] = options::TESTED;
    oldest..=newest
};

/// Whether a file is one of our own binaries. One that can't be read or is no ELF file is not.
#[must_use]
pub fn is_ours(path: &Path) -> bool {
    // Keeps the mark from being dropped as unused by a linker that collects sections.
    std::hint::black_box(&MARK);
    let Ok(file) = File::open(path) else {
        return false;
    };
    let cache = ReadCache::new(file);
    // The raw headers, not `ElfFile`: that would read the whole symbol table.
    marked::<FileHeader64<Endianness>>(&cache) || marked::<FileHeader32<Endianness>>(&cache)
}

fn marked<E: FileHeader<Endian = Endianness>>(data: &ReadCache<File>) -> bool {
    let section = || -> object::Result<bool> {
        let header = E::parse(data)?;
        let endian = header.endian()?;
        let sections = header.sections(endian, data)?;
        Ok(sections
            .section_by_name(endian, MARK_SECTION.as_bytes())
            .is_some())
    };
    section().unwrap_or(false)
}

/// The major in our own name (`ld.lld-19` gives 19).
#[must_use]
pub fn major_of_name(argv0: &OsStr) -> Option<u32> {
    let name = Path::new(argv0).file_name()?.as_bytes();
    std::str::from_utf8(name.strip_prefix(b"ld.lld-")?)
        .ok()?
        .parse()
        .ok()
}

/// No lld was found.
#[derive(Debug)]
pub struct NoLld {
    /// Each candidate, and why it is none.
    tried: Vec<String>,
}

impl std::fmt::Display for NoLld {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "cannot find the real ld.lld; tried ")?;
        if self.tried.is_empty() {
            write!(f, "PATH, which is empty")?;
        }
        write!(f, "{}", self.tried.join(", "))?;
        write!(f, "; set LDWRAP_REAL_LLD to its path")
    }
}

impl std::error::Error for NoLld {}

/// Finds the real lld for a link that was called as `argv0`, in the order that README.md promises:
/// `LDWRAP_REAL_LLD`, the version in our own name, the `ld.lld` beside the compiler that called us, `path` (the
/// variable `PATH`).
///
/// A `LDWRAP_REAL_LLD` that is set but unusable is an error, not a reason to look on: the user
/// named it.
pub fn find(argv0: &OsStr, config: &Config, path: Option<&OsStr>) -> Result<PathBuf, NoLld> {
    let mut tried = Vec::new();
    let mut usable = |candidate: &Path, from: &str| -> bool {
        let why = match std::fs::metadata(candidate) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => "which does not exist",
            Err(_) => "which cannot be read",
            Ok(m) if !m.is_file() => "which is no file",
            Ok(m) if m.permissions().mode() & 0o111 == 0 => "which is not executable",
            Ok(_) if is_ours(candidate) => "which is ldwrap itself",
            Ok(_) => return true,
        };
        tried.push(format!("{}{from}, {why}", candidate.display()));
        false
    };
    if let Some(named) = &config.real_lld {
        return if usable(named, " (LDWRAP_REAL_LLD)") {
            Ok(named.clone())
        } else {
            Err(NoLld { tried })
        };
    }
    if let Some(major) = major_of_name(argv0) {
        if let Some(found) = in_path(&format!("ld.lld-{major}"), path, &mut usable) {
            return Ok(found);
        }
        // Where Debian's packages have it.
        let versioned = PathBuf::from(format!("/usr/lib/llvm-{major}/bin/ld.lld"));
        if usable(&versioned, "") {
            return Ok(versioned);
        }
    } else {
        if let Some(beside) = caller().and_then(|exe| Some(exe.parent()?.join("ld.lld")))
            && usable(&beside, " (beside the compiler)")
        {
            return Ok(beside);
        }
        if let Some(found) = in_path("ld.lld", path, &mut usable) {
            return Ok(found);
        }
    }
    Err(NoLld { tried })
}

fn in_path(
    name: &str,
    path: Option<&OsStr>,
    usable: &mut dyn FnMut(&Path, &str) -> bool,
) -> Option<PathBuf> {
    std::env::split_paths(path?)
        .filter(|dir| dir.is_absolute())
        .map(|dir| dir.join(name))
        .find(|candidate| candidate.exists() && usable(candidate, " (PATH)"))
}

/// Arguments as `execv` wants them: pointers to NUL-terminated strings, `argv[0]` among them.
///
/// Not `Command::args`: that copies each of perhaps ten thousand arguments once more.
#[derive(Debug)]
pub struct Argv {
    /// The first is `argv[0]`, the last null.
    pointers: Vec<*const c_char>,
    /// What they point to, where that is ours.
    _owned: Vec<Vec<u8>>,
}

impl Argv {
    /// `argv` as C's `main` got it, without copying a string.
    ///
    /// # Safety
    /// `argv` must be what the C runtime gave `main`.
    #[must_use]
    pub unsafe fn of_main(argv: *const *const c_char) -> Self {
        let mut pointers = Vec::new();
        // SAFETY: `main`'s argv ends with a null pointer, and lives as long as the process.
        unsafe {
            let mut at = argv;
            while !(*at).is_null() {
                pointers.push(*at);
                at = at.add(1);
            }
        }
        pointers.push(std::ptr::null());
        Self {
            pointers,
            _owned: Vec::new(),
        }
    }

    /// `args` behind an empty `argv[0]`.
    #[must_use]
    pub fn of_args(args: &[OsString]) -> Self {
        let owned: Vec<Vec<u8>> = args
            .iter()
            .map(|arg| [arg.as_bytes(), b"\0"].concat())
            .collect();
        let pointers = std::iter::once(c"".as_ptr())
            .chain(owned.iter().map(|arg| arg.as_ptr().cast()))
            .chain([std::ptr::null()])
            .collect();
        Self {
            pointers,
            _owned: owned,
        }
    }

    /// `argv[0]`; empty where there is none.
    #[must_use]
    pub fn argv0(&self) -> &OsStr {
        self.strings(..1).next().unwrap_or_default()
    }

    /// The arguments behind `argv[0]`.
    pub fn args(&self) -> impl ExactSizeIterator<Item = &OsStr> {
        self.strings(1..)
    }

    fn strings(
        &self,
        range: impl SliceIndex<[*const c_char], Output = [*const c_char]>,
    ) -> impl ExactSizeIterator<Item = &OsStr> {
        let all = self
            .pointers
            .split_last()
            .map_or(&[][..], |(_null, all)| all);
        // SAFETY: all pointers but the last are to NUL-terminated strings that live as long as self.
        all.get(range)
            .unwrap_or_default()
            .iter()
            .map(|&p| OsStr::from_bytes(unsafe { CStr::from_ptr(p) }.to_bytes()))
    }

    /// Becomes another program, with `argv0` in the place of `argv[0]` and the environment as it
    /// is; returns only an error.
    pub fn exec(mut self, program: &Path, argv0: &OsStr) -> io::Error {
        let terminated = |s: &OsStr| [s.as_bytes(), b"\0"].concat();
        let (path, argv0) = (terminated(program.as_os_str()), terminated(argv0));
        match self.pointers.first_mut() {
            Some(first) if !first.is_null() => *first = argv0.as_ptr().cast(),
            _ => self.pointers.insert(0, argv0.as_ptr().cast()),
        }
        // SAFETY: `path` and all that `pointers` has are NUL-terminated (an argument holds no other
        // NUL, since it came from a kernel) and outlive the call.
        unsafe { libc::execv(path.as_ptr().cast(), self.pointers.as_ptr()) };
        io::Error::last_os_error()
    }
}

/// Becomes the real lld, with arguments and environment as they came; returns only an error.
///
/// lld picks its flavour, and the name in its messages, by `argv[0]`: ours goes on where it is one
/// of lld's own names, else (`-fuse-ld=/path/ldwrap`) the file's.
#[must_use]
pub fn exec(real: &Path, argv0: &OsStr, argv: Argv) -> String {
    let e = argv.exec(real, arg0(argv0, real));
    format!("cannot run the real lld, {}: {e}", real.display())
}

/// The `argv[0]` that the real lld is to see; see [`exec`]. lld looks at the parts of its name
/// between dashes (`x86_64-linux-gnu-ld.lld`, `ld.lld-19`; lld/Common/DriverDispatcher.cpp).
#[must_use]
pub fn arg0<'a>(ours: &'a OsStr, real: &'a Path) -> &'a OsStr {
    let name = Path::new(ours).file_name().unwrap_or_default().as_bytes();
    let is_lld = |part: &[u8]| matches!(part, b"ld.lld" | b"ld" | b"gnu");
    if name.split(|&b| b == b'-').any(is_lld) {
        ours
    } else {
        real.as_os_str()
    }
}

/// The executable of the process that called us: the compiler driver, as a rule.
#[must_use]
pub fn caller() -> Option<PathBuf> {
    // SAFETY: getppid has no preconditions and cannot fail.
    let parent = unsafe { libc::getppid() };
    std::fs::read_link(format!("/proc/{parent}/exe")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_major_is_read_from_our_name() {
        assert_eq!(major_of_name(OsStr::new("/opt/lib/ld.lld-19")), Some(19));
        for other in [
            "ld.lld",
            "ld.lld-",
            "ld.lld-x",
            "xld.lld-19",
            "/ld.lld-19/ld.lld",
        ] {
            assert_eq!(major_of_name(OsStr::new(other)), None, "{other}");
        }
    }

    #[test]
    fn arguments_survive() {
        let args: Vec<OsString> = ["", "a b", "\u{e4}"].map(OsString::from).to_vec();
        let argv = Argv::of_args(&args);
        assert_eq!(argv.args().collect::<Vec<_>>(), args);
        assert_eq!(argv.argv0(), "");
    }

    #[test]
    fn this_test_binary_is_ours_and_sh_is_not() {
        assert!(is_ours(&std::env::current_exe().unwrap()));
        assert!(!is_ours(Path::new("/bin/sh")));
        assert!(!is_ours(Path::new("/etc/passwd")));
    }

    #[test]
    fn a_named_lld_that_is_ourselves_is_an_error() {
        let config = Config {
            real_lld: std::env::current_exe().ok(),
            ..Config::default()
        };
        let e = find(OsStr::new("ld.lld"), &config, None)
            .unwrap_err()
            .to_string();
        assert!(e.contains("which is ldwrap itself"), "{e}");
    }
}
