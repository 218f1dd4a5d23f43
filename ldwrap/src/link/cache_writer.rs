//! Puts objects into the cache in a thread of its own, beside the one that lld waits for: if all files that
//! lld has read are still as they were. To look at each of ten thousand takes as long as some modules do.

use crate::cache::objects::{Cache, Key};
use crate::link::inputs_read::InputsRead;
use crate::sys::threads::few_threads;
use std::fs::File;
use std::sync::{Arc, mpsc};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

/// How many times some objects may wait for the thread: each object is an open file.
const QUEUE: usize = 2;

/// Objects with their keys, and how long they took to compile, where that is known.
type KeyedObjects = Vec<(Key, File, Option<Duration>)>;

/// Keeps objects.
#[derive(Debug)]
pub struct CacheWriter {
    store: Option<Store>,
    thread: Option<(mpsc::SyncSender<KeyedObjects>, JoinHandle<Option<Store>>)>,
    /// There is no thread to be had.
    alone: bool,
}

/// A cache, and what must be unchanged for anything to be put there.
#[derive(Debug)]
struct Store {
    cache: Arc<Cache>,
    inputs: InputsRead,
    broken: bool,
    /// What has been put there.
    kept: Vec<Key>,
}

impl CacheWriter {
    /// For this cache, and the files that lld has read. The thread comes with the first objects.
    #[must_use]
    pub fn new(cache: Arc<Cache>, inputs: InputsRead) -> Self {
        Self {
            store: Some(Store {
                cache,
                inputs,
                broken: false,
                kept: Vec::new(),
            }),
            thread: None,
            alone: few_threads().is_some(),
        }
    }

    /// Keeps objects; waits when many are waiting already.
    pub fn keep(&mut self, entries: KeyedObjects) {
        if !self.alone {
            if let Some(store) = self.store.take() {
                let (sender, all) = mpsc::sync_channel::<KeyedObjects>(QUEUE);
                let builder = Builder::new().name(String::from("keeper"));
                // Not to be lost where there is no thread for it.
                let (lend, take) = mpsc::channel::<Store>();
                let put_all = move || {
                    let mut store = take.recv().ok()?;
                    all.into_iter().for_each(|entries| store.put(entries));
                    Some(store)
                };
                match builder.spawn(put_all) {
                    Ok(thread) => {
                        let _ = lend.send(store);
                        self.thread = Some((sender, thread));
                    }
                    Err(e) => {
                        log::info!("no thread for the cache: {e}");
                        self.store = Some(store);
                        self.alone = true;
                    }
                }
            }
        }
        match (&self.thread, &mut self.store) {
            (Some((sender, _)), _) => drop(sender.send(entries)),
            (None, Some(store)) => store.put(entries),
            (None, None) => {}
        }
    }
}

impl Store {
    fn put(&mut self, entries: KeyedObjects) {
        if self.broken || entries.is_empty() || !self.inputs.are_unchanged() {
            return;
        }
        for (key, object, took) in entries {
            if let Err(e) = self.cache.put(&key, &object, took) {
                log::warn!("the cache cannot be written: {e}");
                self.broken = true;
                return;
            }
            self.kept.push(key);
        }
    }
}

impl CacheWriter {
    /// Waits until all are kept, and takes them back, since one of them is not to be.
    pub fn take_back(mut self) {
        let store = self.wait().or_else(|| self.store.take());
        if let Some(Store { cache, kept, .. }) = store {
            kept.iter().for_each(|key| cache.forget(key));
        }
    }

    /// Waits until all are kept.
    fn wait(&mut self) -> Option<Store> {
        let (sender, thread) = self.thread.take()?;
        drop(sender);
        thread.join().ok()?
    }
}

impl Drop for CacheWriter {
    fn drop(&mut self) {
        self.wait();
    }
}
