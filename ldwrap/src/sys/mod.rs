//! What the rest stands on: processes and signals, scratch directories, files in memory, threads.

pub mod keep;
pub mod parallel;
pub mod process;
pub mod procfs;
pub mod scratch;
pub mod signals;

use memmap2::Mmap;
use std::fs::File;
use std::io;
use std::path::Path;

/// Maps a file. An input that is cut short while we read it would be a fault in any linker; lld
/// maps its inputs as well.
pub fn map(path: &Path) -> io::Result<Mmap> {
    let file = File::open(path)?;
    // SAFETY: the map is only read, and for as long as lld itself has the file mapped.
    unsafe { Mmap::map(&file) }
}
