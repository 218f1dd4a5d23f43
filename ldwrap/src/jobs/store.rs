//! The keys of a link's jobs, and their objects in the local cache.
//!
//! A cache that cannot be read or written costs time, never a link.

use crate::cache::files::FileDigests;
use crate::cache::objects::Cache;
use crate::jobs::action::{Action, Digest, Tool};
use crate::jobs::job::Job;
use crate::jobs::outcome::{FinishedObject, ObjectSource};
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Keys and cache of one link.
#[derive(Debug)]
pub struct Store {
    tool: Tool,
    files: FileDigests,
    cache: Option<Cache>,
    failed: AtomicBool,
}

impl Store {
    /// For a compiler; without a cache, keys only.
    #[must_use]
    pub fn new(tool: Tool, files: FileDigests, cache: Option<Cache>) -> Self {
        Self {
            tool,
            files,
            cache,
            failed: AtomicBool::new(false),
        }
    }

    /// The compiler.
    #[must_use]
    pub fn tool(&self) -> &Tool {
        &self.tool
    }

    /// A job's Action.
    pub fn action(&self, job: &Job) -> io::Result<Action> {
        Action::of(job, &self.tool, &self.files)
    }

    /// The digest of a file that jobs read.
    pub fn digest(&self, file: &Path) -> io::Result<Digest> {
        self.files.digest(file)
    }

    /// The object that the cache has for a key, put at `to`.
    #[must_use]
    pub fn find(&self, key: &Digest, to: &Path) -> Option<FinishedObject> {
        let found = self.cache.as_ref()?.get(&key.hash, to)?;
        Some(FinishedObject {
            path: to.to_owned(),
            source: ObjectSource::Cache,
            took: found.took,
        })
    }

    /// Puts an object into the cache; `took` is how long it took to compile, if that is known.
    pub fn keep(&self, key: &Digest, object: &File, took: Option<Duration>) {
        if let Some(cache) = &self.cache {
            self.warn_once(cache.put(&key.hash, object, took));
        }
    }

    /// The same with an object that has a name.
    pub fn keep_finished(&self, key: &Digest, object: &FinishedObject) {
        match File::open(&object.path) {
            Ok(file) => self.keep(key, &file, object.took),
            Err(e) => self.warn_once(Err(e)),
        }
    }

    fn warn_once(&self, kept: io::Result<()>) {
        if let Err(e) = kept {
            if !self.failed.swap(true, Ordering::Relaxed) {
                log::warn!("the cache cannot be written: {e}");
            }
        }
    }

    /// To be called when the link has ended: brings the cache's size and the record of digests up to date.
    pub fn finish_link(&self) {
        if let Some(Err(e)) = self.cache.as_ref().map(Cache::finish_link) {
            log::warn!("the cache cannot be counted: {e}");
        }
        if let Err(e) = self.files.save() {
            log::info!("the digests of files cannot be remembered: {e}");
        }
    }
}
