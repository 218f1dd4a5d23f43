//! Module identifiers as lld forms them, and the way back to a module's bytes.
//!
//! lld calls a bitcode member `ARCHIVE(MEMBER at OFFSET)` (docs/lld.md, "Identifiers"; lld/ELF/InputFiles.cpp,
//! the constructor of `BitcodeFile`):
//!
//! * `ARCHIVE` is the path by which lld added the archive, before `--chroot` and `--remap-inputs`.
//! * `MEMBER` is the last component of the member's name, for regular and thin archives alike: the
//!   thin member `d/b.o` is called `b.o`.
//! * `OFFSET` is `Archive::Child::getChildOffset`: where the member's 60-byte header begins in the
//!   archive file, in decimal, counted from the magic, and not where its bytes begin. For BSD names
//!   the name lies between header and bytes, which changes nothing. In a thin archive it is the
//!   offset of the header in the thin archive itself.
//!
//! Seen alike for GNU, BSD and thin archives on LLVM 14, 16, 19 and 22 (shim/tests/inputs.rs).

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::error::{ArchiveError, Fault};
use super::reader::{Archive, decimal};
use crate::files::open_readable;
use crate::llvm_path;

/// No file has a longer name.
const PATH_MAX: usize = libc::PATH_MAX as usize;

/// Where the bytes of a module are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModuleBytes {
    /// The file.
    pub path: PathBuf,
    /// Where in it they begin, in bytes.
    pub offset: u64,
    /// How many there are.
    pub size: u64,
    /// Whether the module is the whole file: an input of its own, or a member of a thin archive.
    /// A fat object is a whole file, or member, too; its bitcode is in the section `.llvm.lto`.
    pub whole_file: bool,
}

/// Every way to read `id` as `ARCHIVE(MEMBER at OFFSET)`.
///
/// Only the `(` is in doubt. OFFSET has digits only, so the last ` at ` is the one. MEMBER is the
/// last component of a path, so its `(` is behind the last slash.
fn splits(id: &[u8]) -> impl Iterator<Item = (&[u8], &[u8], u64)> {
    const AT: &[u8] = b" at ";
    let front = id.strip_suffix(b")").and_then(|body| {
        let at = body.windows(AT.len()).rposition(|w| w == AT)?;
        let (front, digits) = body.split_at_checked(at)?;
        let digits = digits.strip_prefix(AT)?;
        // No form that lld would not print: leading zeros, blanks.
        let canonical = digits == b"0" || !digits.starts_with(b"0");
        let offset = decimal(digits).filter(|_| canonical && !digits.ends_with(b" "))?;
        Some((front, offset))
    });
    front.into_iter().flat_map(|(front, offset)| {
        let from = front.iter().rposition(|&b| b == b'/').map_or(0, |i| i + 1);
        front
            .iter()
            .enumerate()
            .skip(from)
            .filter(|&(i, &b)| b == b'(' && (1..PATH_MAX).contains(&i))
            .filter_map(move |(i, _)| {
                let (archive, member) = front.split_at_checked(i)?;
                Some((archive, member.get(1..)?, offset))
            })
    })
}

/// Finds the bytes of the module that lld calls `id`, if lld runs in our working directory.
///
/// A file of that very name, an archive with a member of that name at that offset, or the file of
/// such a member of a thin archive. Each candidate is checked on disk. Fails when there is none, and
/// when there is more than one: a module taken for another would make a wrong program, and such
/// names are no accident.
pub fn locate(id: &OsStr) -> Result<ModuleBytes, ArchiveError> {
    let at = |path: &Path, offset, fault| ArchiveError {
        path: path.to_path_buf(),
        offset,
        fault,
    };
    let mut found = None;
    let mut failed = None;
    let mut ambiguous = false;

    match whole_file(PathBuf::from(id)) {
        Ok(file) => found = Some(file),
        Err(e) => failed = Some(e),
    }

    for (archive, member, offset) in splits(id.as_bytes()) {
        let path = PathBuf::from(OsStr::from_bytes(archive));
        let file = match open_readable(&path) {
            Ok(file) => file,
            Err(e) => {
                failed = Some(at(&path, 0, Fault::Io(e)));
                continue;
            }
        };
        let candidate = Archive::open(&path, file)
            .and_then(|mut archive| archive.member_at(offset))
            .and_then(|m| {
                if llvm_path::filename(m.name.as_bytes()) != member {
                    let what = Fault::Identifier("the archive has another member at that offset");
                    return Err(at(Path::new(id), offset, what));
                }
                match m.external {
                    Some(file) => whole_file(file),
                    None => Ok(ModuleBytes {
                        path: path.clone(),
                        offset: m.data_offset,
                        size: m.size,
                        whole_file: false,
                    }),
                }
            });
        match candidate {
            Ok(bytes) => ambiguous |= found.replace(bytes).is_some(),
            Err(e) => failed = Some(e),
        }
    }

    if ambiguous {
        let what = "more than one file answers to that name; rename one of them";
        return Err(at(Path::new(id), 0, Fault::Identifier(what)));
    }
    match (found, failed) {
        (Some(bytes), _) => Ok(bytes),
        (None, Some(e)) => Err(e),
        (None, None) => Err(at(Path::new(id), 0, Fault::Identifier("no such file"))),
    }
}

fn whole_file(path: PathBuf) -> Result<ModuleBytes, ArchiveError> {
    let e = match std::fs::metadata(&path) {
        Ok(meta) if meta.is_file() => {
            return Ok(ModuleBytes {
                path,
                offset: 0,
                size: meta.len(),
                whole_file: true,
            });
        }
        Ok(_) => io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"),
        Err(e) => e,
    };
    Err(ArchiveError {
        path,
        offset: 0,
        fault: Fault::Io(e),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::tests::build;

    #[test]
    fn identifiers_of_nothing() {
        let brackets = [&b"l.a".to_vec()[..], &b"(".repeat(60_000), b" at 8)"].concat();
        assert_eq!(splits(&brackets).count(), PATH_MAX - 3);
        let dir = std::env::temp_dir().join(format!("locate-test-{}", std::process::id()));
        std::fs::create_dir_all(dir.join("m.o")).unwrap();
        std::fs::write(dir.join("t.a"), build(b"!<thin>\n", &[(b"m.o/", b"")])).unwrap();
        let id = dir.join("t.a(m.o at 8)").into_os_string();
        let not_a_file = locate(&id).unwrap_err();
        std::fs::remove_dir(dir.join("m.o")).unwrap();
        std::fs::write(dir.join("m.o"), b"BC").unwrap();
        let found = locate(&id);
        std::fs::remove_dir_all(&dir).unwrap();
        assert!(matches!(not_a_file.fault, Fault::Io(_)), "{not_a_file}");
        assert_eq!(found.unwrap().size, 2);
    }

    #[test]
    fn identifiers_by_form() {
        let all = |id: &'static str| -> Vec<_> {
            let text = |bytes| std::str::from_utf8(bytes).unwrap();
            splits(id.as_bytes())
                .map(|(archive, member, offset)| (text(archive), text(member), offset))
                .collect()
        };
        assert_eq!(all("l.a(m.o at 8)"), [("l.a", "m.o", 8)]);
        assert_eq!(
            all("/d/l.a(m (1) at 3).o at 88)"),
            [
                ("/d/l.a", "m (1) at 3).o", 88),
                ("/d/l.a(m ", "1) at 3).o", 88)
            ]
        );
        assert_eq!(
            all("d(1)/l(2).a(m.o at 0)"),
            [("d(1)/l", "2).a(m.o", 0), ("d(1)/l(2).a", "m.o", 0)]
        );
        assert_eq!(all("l(m at 2.o at 8)"), [("l", "m at 2.o", 8)]);
        for id in [
            "",
            ")",
            " at 8)",
            "(m at 8)",
            "m.o",
            "l.a(m.o at )",
            "l.a(m.o at 08)",
            "l.a(m.o at 8",
            "l.a(m.o at -8)",
            "l.a(m.o at 99999999999999999999)",
        ] {
            assert_eq!(all(id), [], "{id}");
        }
    }
}
