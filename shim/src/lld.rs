//! Finding the real lld, and never ourselves.
//!
//! Our own binaries may lie under any name on `PATH`: symbolic links, copies, several installations. So a
//! candidate is not judged by its path but by a note section that only our own binaries carry.

use crate::config::Config;
use crate::options;
use crate::settings::DEPTH;
use object::elf::{FileHeader32, FileHeader64};
use object::read::elf::{FileHeader, SectionHeader};
use object::{Endianness, ReadCache};
use std::ffi::{CStr, OsStr, OsString, c_char};
use std::fs::File;
use std::io::{self, Read};
use std::ops::RangeInclusive;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::slice::SliceIndex;

/// How a diverted original is called in messages.
const DIVERTED: &str = " (the diverted original)";

/// The section that marks our own binaries.
const MARK_SECTION: &CStr = c".note.ldwrap";

/// An ELF note: sizes of name and content, a type, and the name, padded to four bytes.
#[repr(C)]
struct Note {
    name_size: u32,
    content_size: u32,
    kind: u32,
    name: [u8; 8],
}

/// Kept in every binary that links this library.
// SAFETY: the section holds plain read-only bytes, a whole note, so that strip keeps it; nothing else uses it.
#[used]
#[unsafe(link_section = ".note.ldwrap")]
static MARK: Note = Note {
    name_size: 7,
    content_size: 0,
    kind: 1,
    name: *b"ldwrap\0\0",
};

/// A script in the place of lld may have led back to us fewer times than this; else it would for ever.
const DEEPEST: u32 = 3;

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
    /// Bytes of our sections' names are far fewer; a file that claims more is not read.
    const MOST_NAMES: u64 = 1 << 16;
    let section = || -> object::Result<bool> {
        let header = E::parse(data)?;
        let endian = header.endian()?;
        let sections = header.section_headers(endian, data)?;
        // All names at once: this is in the way of each compile, and one by one they are two calls each.
        let names = header.section_strings_index(endian, data)?;
        let names = sections
            .get(names.0)
            .filter(|names| names.sh_size(endian).into() <= MOST_NAMES);
        let names = names.map_or(Ok(&[][..]), |names| names.data(endian, data))?;
        Ok(sections.iter().any(|section| {
            let name = names.get(section.sh_name(endian) as usize..);
            name.is_some_and(|name| name.starts_with(MARK_SECTION.to_bytes_with_nul()))
        }))
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
        match self.tried.as_slice() {
            [] => write!(f, "cannot find the real ld.lld: none is in PATH")?,
            tried => write!(f, "cannot find the real ld.lld; tried {}", tried.join(", "))?,
        }
        write!(f, "; set LDWRAP_REAL_LLD to its path")
    }
}

impl std::error::Error for NoLld {}

/// Finds the real lld for a link that was called as `argv0`, in the order that `ldwrap help real_lld` tells:
/// `LDWRAP_REAL_LLD`, the version in our own name, a diverted original beside us, the `ld.lld` beside the compiler
/// that called us, `path` (the variable `PATH`), the newest `ld.lld-N` there. Where one of these is ourselves, its
/// diverted original counts.
///
/// A `LDWRAP_REAL_LLD` that is set but unusable is an error, not a reason to look on: the user
/// named it.
pub fn find(argv0: &OsStr, config: &Config, path: Option<&OsStr>) -> Result<PathBuf, NoLld> {
    let mut search = Search::default();
    if depth() >= DEEPEST {
        let why = format!("what leads back to ldwrap each time ({DEPTH} is {DEEPEST})");
        return Err(NoLld { tried: vec![why] });
    }
    if let Some(named) = &config.real_lld {
        return match search.usable(named, " (LDWRAP_REAL_LLD)") {
            true => Ok(named.clone()),
            false => Err(search.failed()),
        };
    }
    // An empty variable names the working directory; one that is not set names none.
    let dirs: Vec<PathBuf> = path
        .map(std::env::split_paths)
        .into_iter()
        .flatten()
        .collect();
    let in_path = |name: &str| -> Vec<PathBuf> { dirs.iter().map(|dir| dir.join(name)).collect() };
    let major = major_of_name(argv0);
    if let Some(major) = major {
        // Where Debian's packages have it.
        let packaged = PathBuf::from(format!("/usr/lib/llvm-{major}/bin/ld.lld"));
        let found = search.first(in_path(&format!("ld.lld-{major}")), " (PATH)");
        if let Some(found) = found.or_else(|| search.first([packaged], "")) {
            return Ok(found);
        }
    }
    if let Some(found) = search.first(diverted(argv0, &dirs), DIVERTED) {
        return Ok(found);
    }
    if major.is_some() {
        return Err(search.failed());
    }
    let beside = compiler().and_then(|exe| Some(exe.parent()?.join("ld.lld")));
    let found = search
        .first(beside, " (beside the compiler)")
        .or_else(|| search.first(in_path("ld.lld"), " (PATH)"))
        .or_else(|| search.first(by_version(&dirs), " (PATH)"));
    found.ok_or_else(|| search.failed())
}

/// A search for the real lld: what was tried, and why it would not do.
#[derive(Default)]
struct Search {
    tried: Vec<String>,
}

impl Search {
    /// The first of some candidates that will do, or that a package has diverted for us.
    fn first(&mut self, all: impl IntoIterator<Item = PathBuf>, from: &str) -> Option<PathBuf> {
        for candidate in all.into_iter().filter(|candidate| candidate.exists()) {
            if self.usable(&candidate, from) {
                return Some(candidate);
            }
            let mut originals = diverted(candidate.as_os_str(), &[]).into_iter();
            if let Some(original) =
                originals.find(|path| path.exists() && self.usable(path, DIVERTED))
            {
                return Some(original);
            }
        }
        None
    }

    fn usable(&mut self, candidate: &Path, from: &str) -> bool {
        let why = match std::fs::metadata(candidate) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => "which does not exist",
            Err(_) => "which cannot be read",
            Ok(m) if !m.is_file() => "which is no file",
            Ok(m) if m.permissions().mode() & 0o111 == 0 => "which is not executable",
            Ok(_) if is_ours(candidate) => "which is ldwrap itself",
            Ok(_) => return true,
        };
        self.tried
            .push(format!("{}{from}, {why}", candidate.display()));
        false
    }

    fn failed(self) -> NoLld {
        NoLld { tried: self.tried }
    }
}

/// Where a package that puts us in lld's place may have left lld: `ld.lld.distrib` or `ld.lld.real` beside a name
/// (looked for in `path` where it has no slash), or beside what that leads to.
fn diverted(argv0: &OsStr, path: &[PathBuf]) -> Vec<PathBuf> {
    /// As the kernel has it for symbolic links.
    const MOST_LINKS: usize = 40;
    let mut at = match argv0.as_bytes().contains(&b'/') {
        true => Some(PathBuf::from(argv0)),
        false => path.iter().map(|dir| dir.join(argv0)).find(|p| p.exists()),
    };
    let mut found = Vec::new();
    for _ in 0..MOST_LINKS {
        let Some(name) = at.take() else { break };
        for suffix in [".distrib", ".real"] {
            let mut original = name.clone().into_os_string();
            original.push(suffix);
            found.push(PathBuf::from(original));
        }
        let target = std::fs::read_link(&name).ok();
        at = target.and_then(|target| Some(name.parent()?.join(target)));
    }
    found
}

/// Each `ld.lld-N` of some directories, the newest first.
fn by_version(dirs: &[PathBuf]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in dirs
        .iter()
        .filter_map(|dir| std::fs::read_dir(dir).ok())
        .flatten()
        .flatten()
    {
        if let Some(major) = major_of_name(&entry.file_name()) {
            found.push((major, entry.path()));
        }
    }
    // Among equals the first directory counts.
    found.sort_by_key(|(major, _)| std::cmp::Reverse(*major));
    found.into_iter().map(|(_, path)| path).collect()
}

/// How often a script has led back to us, as the environment says.
fn depth() -> u32 {
    let depth = std::env::var(DEPTH).ok();
    depth.and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// What [`DEPTH`] is to be for a program in the place of lld: only a script can lead back to us, and lld itself is to
/// see the environment as it came.
#[must_use]
pub fn depth_for(program: &Path) -> Option<String> {
    is_script(program).then(|| (depth() + 1).to_string())
}

/// Whether the kernel has an interpreter run this program.
pub(crate) fn is_script(program: &Path) -> bool {
    let mut head = [0; 2];
    let read = File::open(program).and_then(|mut file| file.read_exact(&mut head));
    read.is_ok() && head == *b"#!"
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
    /// is but for [`depth_for`] it; returns only an error.
    pub fn exec(self, program: &Path, argv0: &OsStr) -> io::Error {
        let depth = depth_for(program).map(|depth| (DEPTH, depth.into()));
        self.exec_with(program, argv0, depth.as_slice())
    }

    /// As [`Argv::exec`], with these variables set in the environment.
    pub(crate) fn exec_with(
        mut self,
        program: &Path,
        argv0: &OsStr,
        variables: &[(&str, OsString)],
    ) -> io::Error {
        let terminated = |s: &OsStr| [s.as_bytes(), b"\0"].concat();
        let (path, argv0) = (terminated(program.as_os_str()), terminated(argv0));
        match self.pointers.first_mut() {
            Some(first) if !first.is_null() => *first = argv0.as_ptr().cast(),
            _ => self.pointers.insert(0, argv0.as_ptr().cast()),
        }
        for (name, value) in variables {
            // SAFETY: this process is about to be another program; where there are other threads of it still, they
            // read no variables.
            unsafe { std::env::set_var(name, value) };
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
    let names_lld = |name: &OsStr| {
        let name = Path::new(name).file_name().unwrap_or_default().as_bytes();
        let mut parts = name.split(|&b| b == b'-');
        parts.any(|part| matches!(part, b"ld.lld" | b"ld" | b"gnu"))
    };
    match (names_lld(ours), names_lld(real.as_os_str())) {
        (true, _) => ours,
        (false, true) => real.as_os_str(),
        // A diverted original.
        (false, false) => OsStr::new("ld.lld"),
    }
}

/// The executable of the process that called us, if that is a compiler.
#[must_use]
pub fn compiler() -> Option<PathBuf> {
    // SAFETY: getppid has no preconditions and cannot fail.
    let parent = unsafe { libc::getppid() };
    let exe = std::fs::read_link(format!("/proc/{parent}/exe")).ok()?;
    is_compiler(exe.file_name()?).then_some(exe)
}

/// Whether a program is a compiler, by its name: `clang-19`, `x86_64-linux-gnu-g++`. A shell, make or ninja has
/// nothing to do with the `ld.lld` that may lie beside it.
fn is_compiler(name: &OsStr) -> bool {
    const NAMES: [&[u8]; 15] = [
        b"clang",
        b"clang++",
        b"gcc",
        b"g++",
        b"cc",
        b"c++",
        b"collect2",
        b"rustc",
        b"flang",
        b"gfortran",
        b"gdc",
        b"ldc2",
        b"swiftc",
        b"icx",
        b"icpx",
    ];
    let mut parts = name.as_bytes().split(|&b| b == b'-');
    parts.any(|part| NAMES.contains(&part))
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
    fn compilers_are_known_by_name() {
        for name in [
            "clang",
            "clang-19",
            "clang++",
            "x86_64-linux-gnu-gcc-12",
            "collect2",
            "rustc",
        ] {
            assert!(is_compiler(OsStr::new(name)), "{name}");
        }
        for name in ["bash", "make", "ninja", "python3.11", "accord"] {
            assert!(!is_compiler(OsStr::new(name)), "{name}");
        }
    }

    #[test]
    fn lld_sees_one_of_its_names() {
        for (ours, real, seen) in [
            ("/p/ld.lld", "/r/ld.lld.distrib", "/p/ld.lld"),
            ("ldwrap", "/r/ld.lld-19", "/r/ld.lld-19"),
            ("ldwrap", "/r/ld.lld.distrib", "ld.lld"),
        ] {
            assert_eq!(arg0(OsStr::new(ours), Path::new(real)), seen);
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
