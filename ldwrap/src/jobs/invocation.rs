//! The user's own link, as a command that phases add options to.

use super::failure::Failure;
use crate::sys::scratch::Scratch;
use shim::cmdline::CommandLine;
use shim::options::Id;
use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// Longer command lines go to lld as a response file. The kernel's own limit is a quarter of the
/// stack limit (2 MiB as a rule), shared with the environment.
const MAX_ARGV: usize = 1 << 20;
/// What the user asked for.
#[derive(Debug, Clone, Copy)]
pub struct Invocation<'a> {
    /// The real lld.
    pub program: &'a Path,
    /// The command line's `argv[0]` as the real lld is to see it.
    pub argv0: &'a OsStr,
    /// The rest, as it came.
    pub args: &'a [OsString],
    /// The same, parsed.
    pub cmd: &'a CommandLine,
    /// Where temporary files go.
    pub scratch: &'a Scratch,
}

impl Invocation<'_> {
    /// The user's command with options added behind it.
    ///
    /// A command line too long for the kernel goes on as a response file, which lld reads to the
    /// same arguments.
    pub fn command(&self, extra: impl IntoIterator<Item = OsString>) -> Result<Command, Failure> {
        let mut command = Command::new(self.program);
        command.arg0(self.argv0);
        self.scratch.confine(&mut command);
        let extra: Vec<OsString> = extra.into_iter().collect();
        let length: usize = self.args.iter().chain(&extra).map(|a| a.len() + 9).sum();
        if length < MAX_ARGV {
            command.args(self.args).args(extra);
            return Ok(command);
        }
        // Response files within ours are found from the working directory, as before; only their
        // quoting must be the same as ours.
        if self.cmd.has(Id::RspQuoting) {
            return Err(Failure::Failed(
                "--rsp-quoting on a command line that is too long".into(),
            ));
        }
        let text = shim::response::write_gnu(self.args.iter().map(OsString::as_os_str));
        let file = self.scratch.file("response");
        std::fs::write(&file, text)
            .map_err(|e| Failure::Failed(format!("cannot write {}: {e}", file.display())))?;
        let mut at = OsString::from("@");
        at.push(&file);
        command.arg(at).args(extra);
        Ok(command)
    }
}
