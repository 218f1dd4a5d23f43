//! Puts objects into the cache in a thread of its own, beside the one that lld waits for.

use crate::cache::objects::{Cache, Key};
use nix::sys::resource::{Resource, getrlimit};
use std::fs::File;
use std::sync::{Arc, mpsc};
use std::thread::{Builder, JoinHandle};

/// How many objects may wait for the thread: each is an open file.
const QUEUE: usize = 100;
/// Where a user may have fewer threads than this, lld needs them all.
const THREADS: u64 = 1024;

/// An object with its key.
type Entry = (Key, File);

/// Keeps objects.
#[derive(Debug)]
pub struct Keeper {
    cache: Arc<Cache>,
    thread: Option<(mpsc::SyncSender<Entry>, JoinHandle<()>)>,
    /// There is no thread to be had.
    alone: bool,
}

impl Keeper {
    /// For this cache. The thread comes with the first object.
    #[must_use]
    pub fn new(cache: Arc<Cache>) -> Self {
        let few = |(soft, _)| soft < THREADS;
        Self {
            cache,
            thread: None,
            alone: getrlimit(Resource::RLIMIT_NPROC).is_ok_and(few),
        }
    }

    /// Keeps an object; waits when very many are waiting already.
    pub fn keep(&mut self, key: Key, object: File) {
        if self.thread.is_none() && !self.alone {
            let (sender, entries) = mpsc::sync_channel(QUEUE);
            let cache = self.cache.clone();
            let builder = Builder::new().name(String::from("keeper"));
            match builder.spawn(move || put_all(&cache, entries)) {
                Ok(thread) => self.thread = Some((sender, thread)),
                Err(e) => {
                    log::info!("no thread for the cache: {e}");
                    self.alone = true;
                }
            }
        }
        match &self.thread {
            // It has given up if nobody listens.
            Some((sender, _)) => drop(sender.send((key, object))),
            None => put_all(&self.cache, [(key, object)]),
        }
    }
}

impl Drop for Keeper {
    /// Waits until all are kept.
    fn drop(&mut self) {
        if let Some((sender, thread)) = self.thread.take() {
            drop(sender);
            let _ = thread.join();
        }
    }
}

fn put_all(cache: &Cache, entries: impl IntoIterator<Item = Entry>) {
    for (key, object) in entries {
        if let Err(e) = cache.put(&key, &object) {
            log::warn!("the cache cannot be written: {e}");
            return;
        }
    }
}
