//! Objects by what makes them: the keys of a link's jobs, and the local cache.
//!
//! A cache that cannot be read or written costs time, never a link.

use crate::cache::files::Files;
use crate::cache::objects::Cache;
use crate::jobs::action::{Action, Digest, Tool};
use crate::jobs::job::Job;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// Keys and cache of one link.
#[derive(Debug)]
pub struct Store {
    tool: Tool,
    files: Files,
    cache: Option<Cache>,
    failed: AtomicBool,
}

impl Store {
    /// For a compiler; without a cache, keys only.
    #[must_use]
    pub fn new(tool: Tool, files: Files, cache: Option<Cache>) -> Self {
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

    /// The object that the cache has for a key, put at `to`.
    #[must_use]
    pub fn find(&self, key: &Digest, to: &Path) -> Option<PathBuf> {
        let cache = self.cache.as_ref()?;
        cache.get(&key.hash, to).then(|| to.to_owned())
    }

    /// Keeps an object.
    pub fn keep(&self, key: &Digest, object: &File) {
        if let Some(cache) = &self.cache {
            self.note(cache.put(&key.hash, object));
        }
    }

    /// The same with an object that has a name.
    pub fn keep_file(&self, key: &Digest, object: &Path) {
        match File::open(object) {
            Ok(object) => self.keep(key, &object),
            Err(e) => self.note(Err(e)),
        }
    }

    fn note(&self, kept: io::Result<()>) {
        if let Err(e) = kept
            && !self.failed.swap(true, Ordering::Relaxed)
        {
            log::warn!("the cache cannot be written: {e}");
        }
    }

    /// The link has ended.
    pub fn settle(&self) {
        if let Some(Err(e)) = self.cache.as_ref().map(Cache::settle) {
            log::warn!("the cache cannot be counted: {e}");
        }
        if let Err(e) = self.files.settle() {
            log::info!("the digests of files cannot be remembered: {e}");
        }
    }
}
