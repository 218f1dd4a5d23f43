//! What the rest stands on: processes and signals, scratch directories, files in memory, threads.

pub(crate) mod keep;
pub(crate) mod parallel;
pub(crate) mod process;
pub(crate) mod procfs;
pub(crate) mod records;
pub(crate) mod scratch;
pub(crate) mod signals;
pub(crate) mod sync;

pub use signals::remember_inherited;

use memmap2::Mmap;
use std::fs::File;
use std::io;
use std::path::Path;

/// Maps a file. To read from a file that is cut short meanwhile is a fault (SIGBUS), as it is in lld,
/// which maps its inputs as well.
pub(crate) fn map(path: &Path) -> io::Result<Mmap> {
    let file = File::open(path)?;
    // SAFETY: the map is only read, and for as long as lld itself has the file mapped.
    unsafe { Mmap::map(&file) }
}

/// Writes a file that is there whole or not at all; its directory is made if need be.
pub(crate) fn write_whole(path: &Path, text: &str) -> io::Result<()> {
    let dir = path.parent().ok_or(io::ErrorKind::NotFound)?;
    std::fs::create_dir_all(dir)?;
    let new = tempfile::NamedTempFile::new_in(dir)?;
    std::fs::write(new.path(), text)?;
    new.persist(path)?;
    Ok(())
}
