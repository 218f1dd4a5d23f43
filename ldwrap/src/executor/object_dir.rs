//! Objects that `ldwrap backend` has made, in a directory of the user's: nothing is compiled for them.
//!
//! An object is taken only if it was made from all that the job of this link has: the module, those it imports from,
//! its shard, the compiler and its arguments. What is missing, stale or damaged is lld's to compile.

use super::tuning::MAX_OBJECT;
use super::{Executor, FinishedObject, JobQueue, ObjectSource, Outcome, ReportOutcome};
use crate::cache::digest::Digest;
use crate::jobs::description::ObjectKey;
use crate::jobs::job::Job;
use crate::jobs::layout::ModuleFiles;
use crate::jobs::store::Store;
use crate::sys;
use crate::sys::scratch::Scratch;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Most bytes of the file with an object's key: far more than `ldwrap backend` writes.
const MAX_KEY: u64 = 1 << 20;

/// A directory of objects.
pub(crate) struct ObjectDir {
    dir: PathBuf,
    /// Of the modules, by number.
    names: Vec<String>,
    store: Arc<Store>,
    scratch: Arc<Scratch>,
    threads: usize,
    stopped: AtomicBool,
}

impl ObjectDir {
    /// Objects in `dir`, of modules that have these names there.
    pub(crate) fn new(
        dir: &Path,
        names: Vec<String>,
        store: Arc<Store>,
        scratch: Arc<Scratch>,
        threads: usize,
    ) -> Self {
        Self {
            dir: dir.to_owned(),
            names,
            store,
            scratch,
            threads,
            stopped: AtomicBool::new(false),
        }
    }

    /// The object of a job, copied to where nobody changes it; an error is why there is none to be used.
    fn find(&self, job: &Job) -> Result<PathBuf, String> {
        let name = self.names.get(job.number).ok_or("it has no name")?;
        let files = ModuleFiles::new(&self.dir, name);
        let read = |file: &Path, most| {
            sys::read_regular(file, most).map_err(|e| format!("no object: {e}"))
        };
        let made = read(&files.object_key(), MAX_KEY)?;
        let made = ObjectKey::parse(&String::from_utf8_lossy(&made))
            .ok_or("no object: its key is damaged")?;
        let action = self.store.action(job).map_err(|e| e.to_string())?;
        if made.key != action.digest.hex() {
            return Err("its object was made from something else".into());
        }
        let expected = made.object.ok_or("clang has something to say about it")?;
        let object = read(&files.object(), MAX_OBJECT)?;
        if Digest::of(&object) != expected {
            return Err("its object is damaged".into());
        }
        let to = self.scratch.received(job.number);
        fs::write(&to, object).map_err(|e| format!("{}: {e}", to.display()))?;
        Ok(to)
    }
}

impl Executor for ObjectDir {
    fn run(&self, jobs: &JobQueue<'_>, report: ReportOutcome<'_>) {
        jobs.run_all(self.threads, &self.stopped, report, |job| {
            Ok(match self.find(job) {
                Ok(path) => Outcome::Object(FinishedObject {
                    path,
                    source: ObjectSource::Clang,
                    took: None,
                }),
                Err(why) => Outcome::Absent(why),
            })
        });
    }

    fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    fn wants(&self, _: usize) -> bool {
        !self.stopped.load(Ordering::Relaxed)
    }
}
