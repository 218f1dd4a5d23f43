//! What `ldwrap` is called for: as the linker, or as our tool.

pub mod advice;
pub mod cache;
pub mod cli;
pub mod compilers;
pub mod distribute;
pub mod doctor;
pub mod explain;
pub mod linker;
pub mod manual;
pub(crate) mod phases;
pub(crate) mod probe;
pub(crate) mod reach;
pub mod report;
mod report_lines;
pub mod run;
pub mod settings;
pub mod stats;
pub mod verify;

use crate::sys::keep;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Where the directory of the shim may be in a prefix: distributions differ. `scripts/install --libdir` takes these.
const SHIM_DIRS: [&str; 3] = ["lib/ldwrap", "lib64/ldwrap", "libexec/ldwrap"];

/// Why there is no directory of the shim, and the line that makes one.
#[derive(Debug, thiserror::Error)]
#[error("{why}: {fix}")]
pub struct NoShim {
    why: String,
    fix: String,
}

/// The directory with `ld.lld` in the prefix that we are installed in.
pub fn shim_dir() -> Result<PathBuf, NoShim> {
    let exe = std::env::current_exe().map_err(|e| NoShim {
        why: format!("cannot tell where ldwrap is: {e}"),
        fix: "mount /proc".into(),
    })?;
    let prefix = exe.parent().and_then(Path::parent);
    let prefix = prefix.unwrap_or(Path::new("/"));
    shim_dir_of(prefix).ok_or_else(|| {
        let dir = prefix.join(SHIM_DIRS[0]);
        let why = format!("{} has no ld.lld", dir.display());
        let (exe, dir) = (quoted(&exe), quoted(&dir));
        // ldwrap is a linker, too.
        let fix = format!("mkdir -p {dir} && ln -s {exe} {dir}/ld.lld");
        NoShim { why, fix }
    })
}

/// A path as a shell reads it.
fn quoted(path: &Path) -> String {
    let mut text = Vec::new();
    keep::quote(path.as_os_str(), &mut text);
    String::from_utf8_lossy(&text).into_owned()
}

/// Writes on standard output, as far as somebody reads it (SIGPIPE); an error says that it cannot be written.
fn print(text: impl AsRef<[u8]>) -> Result<(), String> {
    let mut stdout = io::stdout().lock();
    let written = stdout
        .write_all(text.as_ref())
        .and_then(|()| stdout.flush());
    written.map_err(|e| format!("standard output: {e}"))
}

/// The first of [`SHIM_DIRS`] in a prefix that has an `ld.lld`.
fn shim_dir_of(prefix: &Path) -> Option<PathBuf> {
    let mut dirs = SHIM_DIRS.iter().map(|dir| prefix.join(dir));
    dirs.find(|dir| dir.join("ld.lld").is_file())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_shim_is_found_where_distributions_put_it() {
        for place in SHIM_DIRS {
            let prefix = tempfile::tempdir().unwrap();
            let dir = prefix.path().join(place);
            fs::create_dir_all(&dir).unwrap();
            assert_eq!(shim_dir_of(prefix.path()), None);
            fs::write(dir.join("ld.lld"), "").unwrap();
            assert_eq!(shim_dir_of(prefix.path()), Some(dir));
        }
    }
}
