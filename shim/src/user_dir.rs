//! The directory for what this user's processes on this machine share, whatever their environment.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::PathBuf;

/// The directory, made if it is not there. It depends on no variable, so that all processes find the same
/// one; and nobody else can write to it, or it is an error. What is in it lasts until the machine is started
/// again, or until a clean-up of `/tmp`.
pub fn user_dir() -> io::Result<PathBuf> {
    // SAFETY: no memory is involved, and it cannot fail.
    let user = unsafe { libc::geteuid() };
    let run = PathBuf::from(format!("/run/user/{user}"));
    let dir = if fs::symlink_metadata(&run).is_ok_and(|m| m.is_dir() && m.uid() == user) {
        run.join("ldwrap")
    } else {
        PathBuf::from(format!("/tmp/ldwrap-{user}"))
    };
    match DirBuilder::new().mode(0o700).create(&dir) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
        done => done?,
    }
    let metadata = fs::symlink_metadata(&dir)?;
    if metadata.is_dir() && metadata.uid() == user && metadata.mode() & 0o077 == 0 {
        Ok(dir)
    } else {
        let why = format!("{} is not a directory of this user's alone", dir.display());
        Err(io::Error::new(io::ErrorKind::PermissionDenied, why))
    }
}
