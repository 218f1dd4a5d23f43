//! What the remote executor did, for the report.

use super::calls::one_line;
use crate::sys::sync::lock;
use shim::report::Remote as RemoteReport;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use tonic::Status;

/// What happened so far.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Objects that the server's action cache had.
    pub(super) hits: AtomicUsize,
    /// Objects that were made on the server.
    pub(super) executed: AtomicUsize,
    /// Objects that were made here.
    pub(super) local: AtomicUsize,
    /// Bytes of blobs sent, set at the end.
    pub(super) bytes_up: AtomicU64,
    /// Bytes of blobs received, set at the end.
    pub(super) bytes_down: AtomicU64,
    /// Jobs that the server failed since it last did one.
    pub(super) consecutive_failures: AtomicUsize,
    /// The first error.
    trouble: Mutex<Option<String>>,
}

impl Counts {
    pub(super) fn report(&self) -> RemoteReport {
        let trouble = lock(&self.trouble);
        RemoteReport {
            hits: self.hits.load(Ordering::Relaxed),
            executed: self.executed.load(Ordering::Relaxed),
            local: self.local.load(Ordering::Relaxed),
            bytes_up: self.bytes_up.load(Ordering::Relaxed),
            bytes_down: self.bytes_down.load(Ordering::Relaxed),
            trouble: trouble.clone(),
        }
    }

    /// Remembers an error if it is the first.
    pub(super) fn note_trouble(&self, status: &Status) {
        let mut trouble = lock(&self.trouble);
        trouble.get_or_insert_with(|| one_line(status));
    }
}
