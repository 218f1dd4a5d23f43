//! Backends on this machine as clang processes: a pool of threads, each with one process at a time.
//!
//! lld's own threads compile only what clang could not: a process for each backend is slower than a thread
//! of lld's (docs/limits.md, "Limits"), so that this is for those who ask for it, and for an lld whose threads
//! cannot compile beside jobs.

use super::{
    BackendError, Executor, FinishedObject, JobQueue, ObjectSource, Outcome, ReportOutcome,
};
use crate::jobs::job::{Job, OBJECT, SHARD};
use crate::sys::process::{self, Role};
use crate::sys::scratch::Scratch;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// A pool of clang processes.
#[derive(Debug)]
pub(crate) struct Clang {
    program: PathBuf,
    scratch: Arc<Scratch>,
    processes: usize,
    stopped: AtomicBool,
}

impl Executor for Clang {
    fn run(&self, jobs: &JobQueue<'_>, report: ReportOutcome<'_>) {
        jobs.run_all(self.processes, &self.stopped, report, |job| {
            self.compile(job)
                .map_err(|why| BackendError::of(&job.identifier, why))
        });
    }

    fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    fn wants(&self, _: usize) -> bool {
        !self.stopped.load(Ordering::Relaxed)
    }
}

impl Clang {
    /// Runs `program` in directories below `scratch`, at most `processes` at once.
    pub(crate) fn new(program: PathBuf, scratch: Arc<Scratch>, processes: usize) -> Self {
        Self {
            program,
            scratch,
            processes,
            stopped: AtomicBool::new(false),
        }
    }

    /// How many processes there may be at once.
    pub(crate) fn processes(&self) -> usize {
        self.processes
    }

    /// Compiles a job. An error is one line for the log.
    pub(crate) fn compile(&self, job: &Job) -> Result<Outcome, String> {
        compile(&self.program, &self.scratch, job)
    }
}

/// Compiles a job with a clang, in a directory of its own. An error is one line.
pub(crate) fn compile(clang: &Path, scratch: &Scratch, job: &Job) -> Result<Outcome, String> {
    let dir = scratch.backend(job.number);
    create_job_dir(&dir, job).map_err(|e| format!("cannot write in {}: {e}", dir.display()))?;
    let mut command = Command::new(clang);
    command.args(&job.args).current_dir(&dir);
    scratch.confine(&mut command);
    let begin = Instant::now();
    let out = process::output(command, Role::Backend)
        .map_err(|e| format!("cannot run {}: {e}", clang.display()))?;
    let took = begin.elapsed();
    log::debug!("{} compiled in {} ms", job.identifier, took.as_millis());
    let messages = String::from_utf8_lossy(&out.stderr);
    if !out.status.success() {
        return Err(format!(
            "{} ended with {}: {}",
            clang.display(),
            out.status,
            process::first_error_line(&messages)
        ));
    }
    if !messages.is_empty() || !out.stdout.is_empty() {
        return Ok(Outcome::Diagnosed(messages.into_owned()));
    }
    let path = dir.join(OBJECT);
    match std::fs::metadata(&path) {
        Ok(m) if m.len() > 0 => Ok(Outcome::Object(FinishedObject {
            path,
            source: ObjectSource::Clang,
            took: Some(took),
        })),
        Ok(_) => Err(format!("{} wrote an empty object", clang.display())),
        Err(e) => Err(format!("{} wrote no object: {e}", clang.display())),
    }
}

/// Creates a job's directory with its inputs as symbolic links and its shard as a file.
fn create_job_dir(dir: &Path, job: &Job) -> io::Result<()> {
    std::fs::create_dir_all(dir.join("m"))?;
    for (name, file) in &job.inputs {
        std::os::unix::fs::symlink(file, dir.join(name))?;
    }
    std::fs::write(dir.join(SHARD), &job.shard)
}
