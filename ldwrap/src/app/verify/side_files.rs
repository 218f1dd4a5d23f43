//! The files that a link writes beside its messages: told by their times, taken, and put back.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A file that a link wrote, by the name that the command line gives it.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) name: PathBuf,
    /// Where it was: lld writes side files through symbolic links, and replaces one by the output.
    pub(super) place: PathBuf,
    /// Where it was moved.
    pub(super) file: PathBuf,
}

/// What tells that a file was written: another file, another time or size.
pub(super) type Stamp = (u64, u64, i64, i64, u64);

/// The stamp of a plain file; devices and the like are nothing to move.
fn stamp(name: &Path) -> Option<Stamp> {
    let m = fs::metadata(name).ok().filter(fs::Metadata::is_file)?;
    Some((m.dev(), m.ino(), m.mtime(), m.mtime_nsec(), m.len()))
}

pub(super) fn stamps(names: &[OsString]) -> Vec<Option<Stamp>> {
    names.iter().map(|n| stamp(Path::new(n))).collect()
}

/// Moves the files that were written since `before` into a new directory.
pub(super) fn take(
    names: &[OsString],
    before: &[Option<Stamp>],
    dir: &Path,
) -> io::Result<Vec<Written>> {
    fs::create_dir(dir)?;
    let mut written = Vec::new();
    for (n, (name, before)) in names.iter().zip(before).enumerate() {
        let name = Path::new(name);
        // A name that occurs twice is gone the second time.
        if let Some(place) = written_place(name, *before)? {
            let file_name = name.file_name().unwrap_or_default().to_string_lossy();
            let file = dir.join(format!("{n}-{file_name}"));
            move_file(&place, &file)?;
            let name = name.to_owned();
            written.push(Written { name, place, file });
        }
    }
    Ok(written)
}

/// Where the file of a name is, free of symbolic links, if it was written since `before`.
pub(super) fn written_place(name: &Path, before: Option<Stamp>) -> io::Result<Option<PathBuf>> {
    let now = stamp(name);
    if now.is_none() || now == before {
        return Ok(None);
    }
    let place = fs::canonicalize(name).map_err(|e| with_path(name, e))?;
    Ok(Some(place))
}

/// Moves a file, to another file system if need be, mode and all.
pub(super) fn move_file(from: &Path, to: &Path) -> io::Result<()> {
    let moved = match fs::rename(from, to) {
        Err(e) if e.kind() == io::ErrorKind::CrossesDevices => {
            fs::copy(from, to).and_then(|_| fs::remove_file(from))
        }
        done => done,
    };
    moved.map_err(|e| with_path(from, e))
}

pub(super) fn with_path(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// Copies plain files and directories.
pub(super) fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    if !from.exists() {
        return Ok(());
    }
    fs::create_dir_all(to).map_err(|e| with_path(to, e))?;
    for entry in fs::read_dir(from).map_err(|e| with_path(from, e))? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &to)?;
        } else {
            fs::copy(entry.path(), &to).map_err(|e| with_path(&to, e))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_written_files_are_taken() {
        let dir = tempfile::tempdir().unwrap();
        let name = |n: &str| dir.path().join(n).into_os_string();
        let names = [name("old"), name("new"), name("none"), name("new")];
        fs::write(&names[0], "1").unwrap();
        let before = stamps(&names);
        fs::write(&names[1], "2").unwrap();
        let taken = take(&names, &before, &dir.path().join("taken")).unwrap();
        assert_eq!(taken.len(), 1);
        assert_eq!(fs::read(&taken[0].file).unwrap(), b"2");
        assert!(Path::new(&names[0]).exists() && !Path::new(&names[1]).exists());
    }

    #[test]
    fn what_was_written_through_a_symbolic_link_is_taken_and_the_link_stays() {
        let dir = tempfile::tempdir().unwrap();
        let name = |n: &str| dir.path().join(n);
        std::os::unix::fs::symlink("real", name("link")).unwrap();
        let names = [name("link").into_os_string()];
        fs::write(&names[0], "2").unwrap();
        let taken = take(&names, &[None], &name("taken")).unwrap();
        assert_eq!(fs::read(&taken[0].file).unwrap(), b"2");
        assert!(!name("real").exists() && name("link").is_symlink());
        move_file(&taken[0].file, &taken[0].place).unwrap();
        assert_eq!(fs::read(name("real")).unwrap(), b"2");
        let error = move_file(&name("gone"), &name("here")).unwrap_err();
        assert!(error.to_string().contains("/gone: No such file"));
    }
}
