//! What a key covers beside lld's own: which lld it is, and the options that shape code.
//!
//! lld is known by the files that it runs, as the kernel maps them into a process of it: itself, LLVM's
//! library, whatever the loader or the environment adds. Each counts by the build ID that its linker
//! computed from its content, and its size; or by its content where it has none. So a toolchain that is
//! installed anew, or elsewhere, keeps its objects, and one that is rebuilt does not.

use super::files::FileDigests;
use super::objects::Key;
use object::read::elf::{FileHeader, ProgramHeader};
use object::{Endianness, ReadCache, elf};
use sha2::{Digest as _, Sha256};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Another meaning of keys is another number.
const FORMAT: &str = "ldwrap objects by lld's keys, 2";
/// A build ID shorter than this (bytes) may have been chosen by hand.
const SHORTEST_BUILD_ID: usize = 16;

/// What all objects of one link have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Context(Key);

impl Context {
    /// Of an lld's files and a link's options.
    pub fn of(programs: &[PathBuf], options: &[u8], files: &FileDigests) -> io::Result<Self> {
        let mut hash = Sha256::new();
        let mut add = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        };
        add(FORMAT.as_bytes());
        // Where and in which order files are mapped is of no concern.
        let mut builds = programs
            .iter()
            .map(|path| build(path, files))
            .collect::<io::Result<Vec<_>>>()?;
        builds.sort_unstable();
        for build in &builds {
            add(build);
        }
        add(options);
        Ok(Self(hash.finalize().into()))
    }

    /// The key of the object that lld calls `name`.
    #[must_use]
    pub fn key(&self, name: &[u8]) -> Key {
        let mut hash = Sha256::new();
        hash.update(self.0);
        hash.update(name);
        hash.finalize().into()
    }
}

/// Which build a program or library is.
fn build(path: &Path, files: &FileDigests) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let size = file.metadata()?.len();
    let id = build_id(file).filter(|id| id.len() >= SHORTEST_BUILD_ID);
    Ok(match id {
        Some(id) => [id.as_slice(), &size.to_le_bytes()].concat(),
        None => files.digest(path)?.hash.to_vec(),
    })
}

/// The build ID that a linker left in a program.
fn build_id(file: File) -> Option<Vec<u8>> {
    let data = &ReadCache::new(file);
    let header = elf::FileHeader64::<Endianness>::parse(data).ok()?;
    let endian = header.endian().ok()?;
    for segment in header.program_headers(endian, data).ok()? {
        let Ok(Some(mut notes)) = segment.notes(endian, data) else {
            continue;
        };
        while let Ok(Some(note)) = notes.next() {
            if note.name() == elf::ELF_NOTE_GNU && note.n_type(endian) == elf::NT_GNU_BUILD_ID {
                return Some(note.desc().to_vec());
            }
        }
    }
    None
}

/// The files that a process has mapped to run them.
pub fn programs(pid: u32) -> io::Result<Vec<PathBuf>> {
    let maps = fs::read(format!("/proc/{pid}/maps"))?;
    let programs = executable_paths(&maps);
    if programs.is_empty() {
        return Err(io::ErrorKind::NotFound.into());
    }
    Ok(programs)
}

/// Paths of executable mappings: `START-END r-xp OFFSET DEVICE INODE      PATH`. A newline in a path is
/// written as `\012`, and such a path is then not found.
fn executable_paths(maps: &[u8]) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = Vec::new();
    for line in maps.split(|&b| b == b'\n') {
        let mut fields = line.splitn(6, |&b| b == b' ');
        let Some(permissions) = fields.nth(1) else {
            continue;
        };
        let path = fields.nth(3).unwrap_or_default().trim_ascii_start();
        if permissions.get(2) == Some(&b'x') && path.starts_with(b"/") {
            let path = PathBuf::from(OsStr::from_bytes(path));
            if !paths.contains(&path) {
                paths.push(path);
            }
        }
    }
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_tells_what_it_runs() {
        let programs = programs(std::process::id()).unwrap();
        let own = std::env::current_exe().unwrap();
        assert!(programs.contains(&own), "{programs:?}");
        assert!(programs.len() > 1, "{programs:?}");
        let files = FileDigests::default();
        let context = Context::of(&programs, b"", &files).unwrap();
        let mut reversed = programs.clone();
        reversed.reverse();
        assert_eq!(Context::of(&reversed, b"", &files).unwrap(), context);
        assert_ne!(Context::of(&programs, b"x", &files).unwrap(), context);
        assert_ne!(Context::of(&programs[1..], b"", &files).unwrap(), context);
        assert_ne!(context.key(b"A"), context.key(b"B"));
    }

    #[test]
    fn maps_are_read() {
        let maps = b"55-56 r--p 00000000 fe:00 12      /usr/bin/a b\n\
            55-56 r-xp 00000000 fe:00 12              /usr/bin/a b\n\
            57-58 r-xp 00001000 fe:00 12              /usr/bin/a b\n\
            7f-80 r-xp 00000000 00:00 0               [vdso]\n\
            7f-80 rwxp 00000000 00:00 0 \n";
        assert_eq!(executable_paths(maps), [PathBuf::from("/usr/bin/a b")]);
        assert!(executable_paths(b"").is_empty());
        assert!(executable_paths(b"\xff \n x").is_empty());
    }

    #[test]
    fn what_has_no_build_id_counts_by_its_content() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("script");
        let of = |text: &str| {
            fs::write(&file, text).unwrap();
            build(&file, &FileDigests::default()).unwrap()
        };
        assert_ne!(of("#!/bin/sh\n"), of("#!/bin/sx\n"));
    }
}
