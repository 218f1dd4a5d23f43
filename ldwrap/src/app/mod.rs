//! What `ldwrap` is called for: as the linker, or as our tool.

pub mod advice;
pub mod cache;
pub mod cli;
pub mod doctor;
pub mod explain;
pub mod linker;
pub mod manual;
pub(crate) mod probe;
pub mod settings;
pub mod verify;

use crate::sys::keep;
use std::path::{Path, PathBuf};

/// `lib/ldwrap` of the prefix that we are installed in.
fn shim_dir() -> Result<PathBuf, String> {
    let exe = std::env::current_exe().map_err(|e| format!("cannot tell where ldwrap is: {e}"))?;
    let dir = exe
        .parent()
        .and_then(Path::parent)
        .map(|p| p.join("lib/ldwrap"));
    dir.filter(|d| d.join("ld.lld").is_file()).ok_or_else(|| {
        format!(
            "{} is not installed: there is no ../lib/ldwrap/ld.lld",
            exe.display()
        )
    })
}

/// A path as a shell reads it.
fn quoted(path: &Path) -> String {
    let mut text = Vec::new();
    keep::quote(path.as_os_str(), &mut text);
    String::from_utf8_lossy(&text).into_owned()
}
