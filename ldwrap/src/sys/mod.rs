//! What the rest stands on: processes and signals, scratch directories, files in memory, threads.

pub(crate) mod cgroups;
pub(crate) mod keep;
pub(crate) mod parallel;
pub(crate) mod process;
pub(crate) mod procfs;
pub(crate) mod records;
pub(crate) mod scratch;
pub(crate) mod signals;
pub(crate) mod sync;
pub(crate) mod threads;

pub use signals::{ignore_file_size, remember_inherited};

use memmap2::Mmap;
use std::fs::{File, Metadata, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Makes all threads share two heaps. By default glibc gives each one its own, up to eight for a processor, and what is
/// free in one is of no use to the others: 18 of 150 MiB in a link of 10,000 modules with a server. To be called before
/// there are threads.
pub fn share_heaps() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it sets a number; no other thread allocates meanwhile. Refused, it changes nothing.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 2);
    }
}

/// Maps a file. To read from a file that is cut short meanwhile is a fault (SIGBUS), as it is in lld,
/// which maps its inputs as well.
pub(crate) fn map(path: &Path) -> io::Result<Mmap> {
    let file = File::open(path)?;
    // SAFETY: the map is only read, and for as long as lld itself has the file mapped.
    unsafe { Mmap::map(&file) }
}

/// The bytes of a regular file, or of one that a symbolic link leads to, if they are at most so many: neither a FIFO
/// nor a device is waited for, or read without end.
pub(crate) fn read_regular(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let file = File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut bytes = Vec::new();
    if found.len() > most || file.take(most + 1).read_to_end(&mut bytes)? as u64 > most {
        let text = format!("it is larger than {most} bytes");
        return Err(io::Error::other(text));
    }
    Ok(bytes)
}

/// Writes a file for this user alone, there whole or not at all; its directory is made if need be.
pub(crate) fn write_whole(path: &Path, text: &str) -> io::Result<()> {
    write_private(path, text.as_bytes())
}

/// The same of bytes.
pub(crate) fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    write_with_mode(path, content, 0o600)
}

/// Writes a file of the user's build, there whole or not at all, readable as the umask allows; its directory is made if
/// need be.
pub(crate) fn write_output(path: &Path, content: &[u8]) -> io::Result<()> {
    write_with_mode(path, content, 0o666)
}

fn write_with_mode(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let dir = path.parent().ok_or(io::ErrorKind::NotFound)?;
    std::fs::create_dir_all(dir)?;
    let mut new = tempfile::Builder::new()
        .permissions(Permissions::from_mode(mode))
        .tempfile_in(dir)?;
    new.write_all(content)?;
    new.persist(path)?;
    Ok(())
}

/// Writes a file as [`write_output`] does, unless it has this content already: then its time of change stays, by which
/// build systems know that nothing has to be made again.
pub(crate) fn update_output(path: &Path, content: &[u8]) -> io::Result<()> {
    let is_there = |m: Metadata| m.len() == content.len() as u64;
    if std::fs::metadata(path).is_ok_and(is_there) && std::fs::read(path)? == content {
        return Ok(());
    }
    write_output(path, content)
}
