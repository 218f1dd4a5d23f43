//! Backends on this machine as processes: a pool of threads, each with one clang at a time. lld's own
//! threads compile only what clang could not.

use super::{BackendError, Done, Executor, ObjectSource, Order, Outcome, Queue, Waiting};
use crate::jobs::job::{Job, OBJECT, SHARD};
use crate::sys::process::{self, Role};
use crate::sys::scratch::Scratch;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// The pool.
#[derive(Debug)]
pub struct Clang {
    clang: PathBuf,
    scratch: Arc<Scratch>,
    jobs: usize,
    stopped: AtomicBool,
}

impl Executor for Clang {
    fn name(&self) -> &'static str {
        "clang"
    }

    fn order(&self) -> Order<'_> {
        Order::LargestFirst
    }

    fn run(&self, jobs: &Queue<'_>, done: Done<'_>) {
        let work = || {
            while let Some(job) = jobs.next(done)
                && !self.stopped.load(Ordering::Relaxed)
            {
                let result = self
                    .compile(&job)
                    .map_err(|why| BackendError::of(&job, why));
                if !done(job.number, result) {
                    self.stop();
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..self.jobs.min(jobs.most()) {
                scope.spawn(work);
            }
        });
    }

    fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    fn choose_here(&self, _: &[Waiting]) -> Option<usize> {
        None
    }

    fn begun_here(&self, _: usize) {}

    fn done_here(&self, _: usize, _: Option<&File>) {}

    fn wants(&self, _: usize) -> bool {
        !self.stopped.load(Ordering::Relaxed)
    }
}

impl Clang {
    /// With a compiler, where the jobs' directories are made, and how many there are at once.
    #[must_use]
    pub fn new(clang: PathBuf, scratch: Arc<Scratch>, jobs: usize) -> Self {
        let stopped = AtomicBool::new(false);
        Self {
            clang,
            scratch,
            jobs,
            stopped,
        }
    }

    /// How many there are at once.
    #[must_use]
    pub fn jobs(&self) -> usize {
        self.jobs
    }

    /// Compiles one.
    pub fn compile(&self, job: &Job) -> Result<Outcome, String> {
        let dir = self.scratch.backend(job.number);
        lay_out(&dir, job).map_err(|e| format!("cannot write in {}: {e}", dir.display()))?;
        let mut command = Command::new(&self.clang);
        command.args(&job.args).current_dir(&dir);
        self.scratch.confine(&mut command);
        let begin = Instant::now();
        let out = process::output(command, Role::Backend)
            .map_err(|e| format!("cannot run {}: {e}", self.clang.display()))?;
        let (name, ms) = (&job.identifier, begin.elapsed().as_millis());
        log::debug!("{name} compiled in {ms} ms");
        let said = String::from_utf8_lossy(&out.stderr);
        if !out.status.success() {
            return Err(format!(
                "{} ended with {}: {}",
                self.clang.display(),
                out.status,
                process::first_error_line(&said)
            ));
        }
        if !said.is_empty() || !out.stdout.is_empty() {
            return Ok(Outcome::Diagnosed(said.into_owned()));
        }
        let object = dir.join(OBJECT);
        match std::fs::metadata(&object) {
            Ok(m) if m.len() > 0 => Ok(Outcome::Object(object, ObjectSource::Compiled)),
            Ok(_) => Err(format!("{} wrote an empty object", self.clang.display())),
            Err(e) => Err(format!("{} wrote no object: {e}", self.clang.display())),
        }
    }
}

/// Makes a job's directory: its inputs as links, its shard as a file.
fn lay_out(dir: &Path, job: &Job) -> io::Result<()> {
    std::fs::create_dir_all(dir.join("m"))?;
    for (name, file) in &job.inputs {
        std::os::unix::fs::symlink(file, dir.join(name))?;
    }
    std::fs::write(dir.join(SHARD), &job.shard)
}
