//! Backends on this machine as processes: a pool of threads, each with one clang at a time.

use super::{BackendError, Done, Executor, ObjectSource, Order, Outcome, Queue};
use crate::jobs::job::{Job, OBJECT, SHARD};
use crate::jobs::store::Store;
use crate::sys::process::{self, Role};
use crate::sys::scratch::Scratch;
use std::io;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// The pool.
#[derive(Debug)]
pub struct Clang<'a> {
    /// The compiler.
    pub clang: &'a Path,
    /// Where the jobs' directories are made.
    pub scratch: &'a Scratch,
    /// How many at once.
    pub jobs: usize,
    /// Where objects are kept from link to link.
    pub store: Option<&'a Store>,
}

impl Executor for Clang<'_> {
    fn name(&self) -> &'static str {
        "clang"
    }

    fn order(&self) -> Order<'_> {
        Order::LargestFirst
    }

    fn run(&self, jobs: &Queue<'_>, done: Done<'_>) {
        let stop = AtomicBool::new(false);
        let work = || {
            while let Some(job) = jobs.next(done)
                && !stop.load(Ordering::Relaxed)
            {
                let result = self.object(&job).map_err(|why| BackendError::of(&job, why));
                if !done(job.number, result) {
                    stop.store(true, Ordering::Relaxed);
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..self.jobs.min(jobs.most()) {
                scope.spawn(work);
            }
        });
    }
}

impl Clang<'_> {
    /// A job's object, from the cache or compiled.
    fn object(&self, job: &Job) -> Result<Outcome, String> {
        let Some(store) = self.store else {
            return self.compile(job);
        };
        let key = store.action(job).map_err(|e| e.to_string())?.digest;
        let to = self.scratch.received(job.number);
        if let Some(object) = store.find(&key, &to) {
            return Ok(Outcome::Object(object, ObjectSource::Cache));
        }
        let outcome = self.compile(job)?;
        if let Outcome::Object(object, _) = &outcome {
            store.keep(&key, object);
        }
        Ok(outcome)
    }

    /// Compiles one.
    pub fn compile(&self, job: &Job) -> Result<Outcome, String> {
        let dir = self.scratch.backend(job.number);
        lay_out(&dir, job).map_err(|e| format!("cannot write in {}: {e}", dir.display()))?;
        let mut command = Command::new(self.clang);
        command.args(&job.args).current_dir(&dir);
        self.scratch.confine(&mut command);
        let begin = Instant::now();
        let out = process::output(command, Role::Backend)
            .map_err(|e| format!("cannot run {}: {e}", self.clang.display()))?;
        let (name, ms) = (job.identifier.0.display(), begin.elapsed().as_millis());
        log::debug!("{name} compiled in {ms} ms");
        let said = String::from_utf8_lossy(&out.stderr);
        if !out.status.success() {
            return Err(format!(
                "{} ended with {}: {}",
                self.clang.display(),
                out.status,
                process::gist(&said)
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
