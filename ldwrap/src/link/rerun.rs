//! lld once more, alone, after a watched one has been ended in the middle.
//!
//! What the first had already said is not said again: as many bytes as it wrote to a stream are dropped
//! from what the second writes there.

use crate::sys::process;
use crate::sys::signals::Forwarded;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

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
    process::prepare(&mut command);
    let mut child = command.spawn()?;
    let stdout = child.stdout.take().map(OwnedFd::from);
    let stderr = child.stderr.take().map(OwnedFd::from);
    let [drop_out, drop_err] = said;
    let streams = [
        Stream::new(stdout, Box::new(io::stdout()), drop_out),
        Stream::new(stderr, Box::new(io::stderr()), drop_err),
    ];
    pass_on(streams, &child, &signals)?;
    child.wait()
}

/// What lld writes to a stream of its own, and where it goes.
struct Stream {
    from: Option<File>,
    to: Box<dyn Write>,
    /// How many bytes are still to be dropped.
    dropped: u64,
}

/// Copies streams to their ends, and passes on signals; once lld has ended, who holds its streams is not waited for.
fn pass_on(mut streams: [Stream; 2], child: &Child, signals: &Forwarded) -> io::Result<()> {
    // Without one, the streams' ends have to do.
    let ended = process::pidfd(child.id()).ok();
    // When to stop after the end.
    let mut until: Option<Instant> = None;
    while streams.iter().any(|stream| stream.from.is_some()) {
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        if left == Some(Duration::ZERO) {
            return streams.iter_mut().try_for_each(Stream::copy_held);
        }
        let open = streams.iter().filter_map(|stream| stream.from.as_ref());
        let end = ended.iter().filter(|_| until.is_none());
        let mut fds: Vec<PollFd> = std::iter::once(signals.as_fd())
            .chain(open.map(AsFd::as_fd))
            .chain(end.map(AsFd::as_fd))
            .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
            .collect();
        match poll(&mut fds, process::poll_timeout(left)) {
            Err(Errno::EINTR) => continue,
            n => n?,
        };
        let ready: Vec<bool> = fds.iter().map(|fd| fd.any() == Some(true)).collect();
        let mut ready = ready.into_iter();
        if ready.next() == Some(true) {
            signals.pass_on(child.id());
        }
        for stream in streams.iter_mut().filter(|stream| stream.from.is_some()) {
            if ready.next() == Some(true) {
                stream.copy()?;
            }
        }
        if ready.next() == Some(true) {
            until = Some(Instant::now() + process::PASSING_ON);
        }
    }
    Ok(())
}

impl Stream {
    fn new(from: Option<OwnedFd>, to: Box<dyn Write>, dropped: u64) -> Self {
        let from = from.map(File::from);
        Self { from, to, dropped }
    }

    /// Copies what there is, or notes the end.
    fn copy(&mut self) -> io::Result<()> {
        let mut buffer = [0; 1 << 14];
        let Some(from) = &mut self.from else {
            return Ok(());
        };
        match from.read(&mut buffer) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(e) => Err(e),
            Ok(0) => {
                self.from = None;
                Ok(())
            }
            Ok(n) => self.write(buffer.get(..n).unwrap_or_default()),
        }
    }

    /// Copies what lld has left, and not to the end: somebody may go on writing.
    fn copy_held(&mut self) -> io::Result<()> {
        let mut rest = Vec::new();
        if let Some(from) = &self.from {
            from.take(process::held(from)?).read_to_end(&mut rest)?;
        }
        self.write(&rest)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let skip = usize::try_from(self.dropped)
            .unwrap_or(bytes.len())
            .min(bytes.len());
        self.dropped -= skip as u64;
        self.to.write_all(bytes.get(skip..).unwrap_or_default())?;
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Seek;

    #[test]
    fn what_lld_leaves_running_is_not_waited_for() {
        let mut to = [(); 2].map(|()| tempfile::tempfile().expect("a file"));
        let mut command = Command::new("sh");
        command.args(["-c", "echo said; echo more; sleep 600 >&2 & echo $! >&2"]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let signals = Forwarded::block().expect("signals");
        let mut child = command.spawn().expect("a shell");
        let stdout = child.stdout.take().map(OwnedFd::from);
        let stderr = child.stderr.take().map(OwnedFd::from);
        let [out, err] = to
            .each_ref()
            .map(|to| Box::new(to.try_clone().expect("the file")));
        let streams = [Stream::new(stdout, out, 5), Stream::new(stderr, err, 0)];
        pass_on(streams, &child, &signals).expect("streams");
        assert!(child.wait().expect("its end").success());
        let [out, err] = to.each_mut().map(|to| {
            let mut text = String::new();
            to.rewind().expect("the beginning");
            to.read_to_string(&mut text).expect("a text");
            text
        });
        assert_eq!(out, "more\n");
        let left = err.trim().parse().expect("the number of what runs on");
        // SAFETY: plain numbers; it is the process that the shell has just started, which sleeps.
        assert_eq!(unsafe { libc::kill(left, libc::SIGKILL) }, 0);
    }
}
