//! lld once more, alone, after a watched one has been ended in the middle.
//!
//! What the first had already said is not said again: as many bytes as it wrote to a stream are dropped
//! from what the second writes there.

use crate::sys::process::prepare_child;
use crate::sys::signals::Forwarded;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

/// Runs lld with this command line. `said` is how many bytes of standard output and standard error are to
/// be dropped; `colour` is whether lld would have coloured messages, which it does not do into a pipe.
pub fn run(
    lld: &Path,
    argv0: &OsStr,
    args: &[OsString],
    said: [u64; 2],
    colour: bool,
) -> io::Result<ExitStatus> {
    let signals = Forwarded::block()?;
    let mut command = Command::new(lld);
    command.arg0(argv0).args(args);
    if colour {
        command.arg("--color-diagnostics=always");
    }
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    // SAFETY: `prepare_child` is async-signal-safe, as pre_exec demands.
    unsafe { command.pre_exec(prepare_child) };
    let mut child = command.spawn()?;
    let (mut stdout, mut stderr) = (child.stdout.take(), child.stderr.take());
    let [mut drop_out, mut drop_err] = said;
    while let (Some(out), Some(err)) = (&stdout, &stderr) {
        let mut fds = [
            PollFd::new(out.as_fd(), PollFlags::POLLIN),
            PollFd::new(err.as_fd(), PollFlags::POLLIN),
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut fds, PollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            n => n?,
        };
        let ready = fds.map(|fd| fd.revents().is_some_and(|r| !r.is_empty()));
        if ready[2] {
            signals.pass_on(child.id());
        }
        if ready[0] && !copy(&mut stdout, &mut io::stdout(), &mut drop_out)? {
            break;
        }
        if ready[1] && !copy(&mut stderr, &mut io::stderr(), &mut drop_err)? {
            break;
        }
    }
    // One has ended: lld closes neither before it ends itself.
    while copy(&mut stdout, &mut io::stdout(), &mut drop_out)? {}
    while copy(&mut stderr, &mut io::stderr(), &mut drop_err)? {}
    let status = child.wait()?;
    Ok(status)
}

/// Copies what there is; false at the end.
fn copy(from: &mut Option<impl Read>, to: &mut impl Write, dropped: &mut u64) -> io::Result<bool> {
    let mut buffer = [0; 1 << 14];
    let Some(from) = from else { return Ok(false) };
    let n = match from.read(&mut buffer) {
        Err(e) if e.kind() == io::ErrorKind::Interrupted => return Ok(true),
        n => n?,
    };
    let skip = usize::try_from(*dropped).unwrap_or(n).min(n);
    *dropped -= skip as u64;
    to.write_all(buffer.get(skip..n).unwrap_or_default())?;
    to.flush()?;
    Ok(n > 0)
}
