//! Tokens of the jobserver that started this link.

use jobserver::{Acquired, Client};
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

/// A jobserver.
#[derive(Debug)]
pub struct Tokens(Client);

/// A token, until it is dropped.
#[derive(Debug)]
pub struct Token(#[expect(dead_code, reason = "given back when dropped")] Acquired);

impl Tokens {
    /// The jobserver that the environment names, if it can be used: one whose pipe is there (make closes
    /// it for commands that it does not take for makes, and leaves the variable), and asked without
    /// waiting.
    pub fn of_environment() -> Option<Self> {
        let flags = ["CARGO_MAKEFLAGS", "MAKEFLAGS", "MFLAGS"].map(std::env::var_os);
        if !flags
            .iter()
            .flatten()
            .all(|flags| names_no_other_file(flags))
        {
            log::warn!("MAKEFLAGS names a jobserver that is no FIFO");
            return None;
        }
        // SAFETY: descriptors that the variable names are checked to be pipes; we have opened none yet
        // that could have such a number.
        let found = unsafe { Client::from_env_ext(true) };
        let client = found.client.ok()?;
        match client.try_acquire() {
            Ok(_) => Some(Self(client)),
            Err(e) => {
                log::info!("the jobserver is not usable: {e}");
                None
            }
        }
    }

    /// A token, if one is free.
    pub fn try_take(&self) -> io::Result<Option<Token>> {
        Ok(self.0.try_acquire()?.map(Token))
    }
}

/// Whether a named jobserver (`--jobserver-auth=fifo:PATH`), if there is one, is a FIFO: what is read
/// from and written to another file would be damage.
fn names_no_other_file(flags: &OsStr) -> bool {
    let words = flags.as_bytes().split(|&b| b == b' ');
    let mut paths = words.filter_map(|word| {
        let fds = word.strip_prefix(b"--jobserver-auth=");
        let path = fds?.strip_prefix(b"fifo:")?;
        Some(Path::new(OsStr::from_bytes(path)))
    });
    paths.all(|path| path.metadata().is_ok_and(|m| m.file_type().is_fifo()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jobserver_is_a_fifo() {
        let dir = tempfile::tempdir().unwrap();
        let flags = |name: &str| {
            let path = dir.path().join(name);
            format!(" -j3 --jobserver-auth=fifo:{}", path.display())
        };
        assert!(names_no_other_file(OsStr::new("")));
        assert!(names_no_other_file(OsStr::new("-j --jobserver-auth=3,4")));
        std::fs::write(dir.path().join("file"), "tokens").unwrap();
        assert!(!names_no_other_file(OsStr::new(&flags("file"))));
        assert!(!names_no_other_file(OsStr::new(&flags("none"))));
        let fifo = dir.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(names_no_other_file(OsStr::new(&flags("fifo"))));
    }
}
