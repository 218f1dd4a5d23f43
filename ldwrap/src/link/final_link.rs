//! The final link: the user's own command line on the real lld, with its ThinLTO cache lookups
//! answered by us (fact 22).
//!
//! Native objects on the command line in the bitcode's place would be another link: definitions,
//! archive members, order, names and map would differ (fact 21). So lld does all of it as in an
//! in-process link, and only where it would compile a module does it find the finished object. It
//! starts as soon as the index is there; its lookups wait for the backends.

use super::lookups::{Answer, Opening};
use crate::executor::{BackendError, Order, Outcome};
use crate::jobs::failure::Failure;
use crate::jobs::job::Jobs;
use crate::link::NO_PRUNING;
use crate::link::lookups::{Cache, Lookups, Naming};
use crate::link::split::Plan;
use crate::sys::process::{self, Role, Running};
use crate::watch::{self, Call, Calls, Listener, Unanswered, Watched};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How lookups are told apart with this lld (fact 23).
#[must_use]
pub const fn naming(major: u32) -> Naming {
    if major >= 16 {
        Naming::ByShard
    } else {
        Naming::ByOrder
    }
}

/// A running final link.
#[derive(Debug)]
pub struct FinalLink {
    lld: Mutex<Running>,
    pid: u32,
    listener: Listener,
    null: File,
    lookups: Mutex<Lookups>,
    /// How the names of lld's temporary outputs begin.
    output_prefix: Vec<u8>,
    said: Said,
}

/// How it ended.
#[derive(Debug)]
pub struct Ended {
    /// lld's exit status.
    pub status: ExitStatus,
    /// How many objects lld was given.
    pub answered: usize,
    /// How many it found in the user's cache.
    pub hits: usize,
    /// Whether all lookups were as they should be.
    pub lookups: Result<(), String>,
}

/// What lld writes to its standard streams, kept until we know that it is to be shown.
#[derive(Debug)]
struct Said {
    stdout: File,
    /// None where both streams are the same file, so that their order is kept.
    stderr: Option<File>,
}

impl FinalLink {
    /// Starts lld. The calling thread must outlive the link.
    pub fn start(plan: &Plan<'_>, lookups: Lookups) -> Result<Self, Failure> {
        let mut options: Vec<OsString> = Vec::new();
        let naming = naming(plan.toolchain.major);
        match naming {
            Naming::ByShard => options.push("--thinlto-emit-index-files".into()),
            Naming::ByOrder => options.push("--thinlto-jobs=1".into()),
        }
        match plan.cache() {
            Cache::Private(cache) => {
                let mut dir = OsString::from("--thinlto-cache-dir=");
                dir.push(cache);
                options.push(dir);
                options.push(NO_PRUNING.into());
            }
            // The user's cache and policy are on the command line. Backends start when lld has missed
            // their objects, so it must be able to miss as many at once as are to run.
            Cache::Users(_) if naming == Naming::ByShard => {
                options.push(format!("--thinlto-jobs={}", plan.width()).into());
            }
            Cache::Users(_) => {}
        }
        if plan.colour {
            options.push("--color-diagnostics=always".into());
        }
        let mut command = plan.lld.command(options)?;
        let io = |e: io::Error| Failure::new(format!("cannot write in the scratch directory: {e}"));
        let make = |name: &str| {
            File::options()
                .create_new(true)
                .read(true)
                .append(true)
                .open(plan.lld.scratch.file(name))
        };
        let said = if same_file(io::stdout().as_fd(), io::stderr().as_fd()) {
            Said {
                stdout: make("said").map_err(io)?,
                stderr: None,
            }
        } else {
            Said {
                stdout: make("stdout").map_err(io)?,
                stderr: Some(make("stderr").map_err(io)?),
            }
        };
        let stderr = said.stderr.as_ref().unwrap_or(&said.stdout);
        command.stdin(Stdio::null());
        command.stdout(said.stdout.try_clone().map_err(io)?);
        command.stderr(stderr.try_clone().map_err(io)?);
        let null = File::options().write(true).open("/dev/null");
        let null = null.map_err(|e| Failure::new(format!("cannot open /dev/null: {e}")))?;
        let Watched { child, listener } =
            watch::spawn(command, Calls::EveryOpen).map_err(|e| Failure::new(e.to_string()))?;
        let pid = child.id();
        let lld = Mutex::new(Running::new(child, Role::Tool));
        Ok(Self {
            lld,
            pid,
            listener,
            null,
            lookups: Mutex::new(lookups),
            output_prefix: [plan.lld.cmd.output().as_bytes(), b".tmp"].concat(),
            said,
        })
    }

    fn lookups(&self) -> MutexGuard<'_, Lookups> {
        self.lookups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers lld until it ends. Runs in a thread of its own.
    pub fn serve(&self) -> io::Result<()> {
        loop {
            let mut fds = [PollFd::new(self.listener.as_fd(), PollFlags::POLLIN)];
            match poll(&mut fds, PollTimeout::NONE) {
                Err(Errno::EINTR) => continue,
                n => n?,
            };
            if !fds[0]
                .revents()
                .is_some_and(|r| r.contains(PollFlags::POLLIN))
            {
                return Ok(());
            }
            let Some(call) = self.listener.receive()? else {
                continue;
            };
            let Call::Open { path, flags } = call.call else {
                continue;
            };
            let opening = Opening {
                id: call.id,
                thread: call.thread,
                path,
                flags,
            };
            if let Some(path) = self.temporary(&opening) {
                process::note_temporary(path);
            }
            let answer = if opening.path.is_empty() {
                Answer::Continue
            } else {
                self.lookups().opened(&opening)
            };
            match answer {
                Answer::Continue => self.listener.proceed(call.id),
                Answer::Discard => self.listener.hand_over(call.id, self.null.as_fd()),
                Answer::Hold => Ok(()),
            }
            .map_err(io::Error::other)?;
        }
    }

    /// No lookup will come any more.
    pub fn close(&self) {
        self.lookups().close();
    }

    /// The jobs in the order in which they are to be run. With a private cache all are needed, in the
    /// executor's order. With the user's only those are that lld
    /// misses: they come as it asks, or, where it asks for one at a time, in its order from the
    /// moment of the first miss on.
    pub fn queue<'a>(
        &'a self,
        numbers: Vec<usize>,
        jobs: &Jobs<'_>,
        order: Order<'a>,
    ) -> Box<dyn Iterator<Item = usize> + Send + 'a> {
        let (misses, naming, users) = {
            let lookups = self.lookups();
            (lookups.misses(), lookups.naming(), lookups.in_users_cache())
        };
        if !users {
            return order.of(numbers, |n| jobs.weight(n), |n| jobs.needs(n));
        }
        match naming {
            Naming::ByShard => {
                let mut numbers: HashSet<usize> = numbers.into_iter().collect();
                Box::new(misses.into_iter().filter(move |n| numbers.remove(n)))
            }
            Naming::ByOrder => {
                let mut missed = false;
                let wanted = move |&number: &usize| {
                    missed = missed || misses.recv().is_ok();
                    missed && self.lookups().wanted(number)
                };
                Box::new(numbers.into_iter().filter(wanted))
            }
        }
    }

    /// The temporary file under which lld begins its output (`FileOutputBuffer`), when it is this
    /// that is made. lld removes it when a signal ends it, but not if that comes between making it
    /// and taking note of it.
    fn temporary(&self, opening: &Opening) -> Option<PathBuf> {
        let makes = libc::O_CREAT | libc::O_EXCL;
        let tail = opening.path.strip_prefix(self.output_prefix.as_slice())?;
        let random = tail.iter().all(u8::is_ascii_hexdigit);
        (opening.flags & makes == makes && random)
            .then(|| std::path::absolute(OsStr::from_bytes(&opening.path)).ok())?
    }

    /// Hands over what a backend came to. A backend that failed leaves its module to lld.
    pub fn finished(&self, module: usize, result: Result<Outcome, BackendError>) {
        let object = match result {
            Ok(Outcome::Object(object, _)) => Some(object),
            Ok(Outcome::Diagnosed(said)) => {
                log::info!("module {module} is left to lld, which has to say this itself: {said}");
                None
            }
            Err(e) => {
                log::warn!("{e}");
                None
            }
        };
        // Resumed without the lock: lld's next call may come at once.
        let resume = self.lookups().finished(module, object);
        self.resume(resume);
    }

    /// Leaves everything that is missing to lld.
    pub fn abandon(&self) {
        let resume = self.lookups().abandon();
        self.resume(resume);
    }

    fn resume(&self, ids: Vec<u64>) {
        for id in ids {
            if let Err(Unanswered(e)) = self.listener.proceed(id) {
                log::warn!("a held call of lld could not be answered: {e}");
                self.kill(Signal::SIGKILL);
            }
        }
    }

    /// Stops lld.
    pub fn kill(&self, signal: Signal) {
        let pid = Pid::from_raw(self.pid as i32);
        let _ = nix::sys::signal::kill(pid, signal);
    }

    /// Waits for lld's end.
    pub fn wait(&self) -> io::Result<Ended> {
        let status = self
            .lld
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .wait()?;
        let lookups = self.lookups();
        Ok(Ended {
            status,
            answered: lookups.answered(),
            hits: lookups.hits(),
            lookups: lookups.check(),
        })
    }

    /// What lld wrote to stderr, for a message of ours.
    #[must_use]
    pub fn errors(&self) -> Vec<u8> {
        read_all(self.said.stderr.as_ref().unwrap_or(&self.said.stdout)).unwrap_or_default()
    }

    /// Shows what lld said, where it would have said it. lld before 18 calls objects that come from
    /// its cache by their file's name; in-process they are `lto.tmp`, so that is what is shown.
    pub fn show(&self, plan: &Plan<'_>) -> io::Result<()> {
        let cached = plan.cached_names();
        let show = |from: &File, to: &mut dyn Write| -> io::Result<()> {
            let bytes = read_all(from)?;
            if bytes.is_empty() {
                return Ok(());
            }
            let bytes = cached
                .as_ref()
                .map_or(bytes.clone(), |c| c.replace(&bytes, |_| true));
            to.write_all(&bytes)?;
            to.flush()
        };
        show(&self.said.stdout, &mut io::stdout().lock())?;
        if let Some(stderr) = &self.said.stderr {
            show(stderr, &mut io::stderr().lock())?;
        }
        Ok(())
    }
}

fn read_all(mut file: &File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn same_file(a: std::os::fd::BorrowedFd<'_>, b: std::os::fd::BorrowedFd<'_>) -> bool {
    match (nix::sys::stat::fstat(a), nix::sys::stat::fstat(b)) {
        (Ok(a), Ok(b)) => (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino),
        _ => false,
    }
}
