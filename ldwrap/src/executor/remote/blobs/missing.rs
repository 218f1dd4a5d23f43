//! Which blobs the server lacks.
//!
//! Most of what a job needs other jobs need too, so that one FindMissingBlobs call serves many jobs: while a
//! few calls are under way, the digests of further jobs gather in a batch for the next.

use super::transfer::cas_client;
use crate::executor::remote::calls::Caller;
use crate::executor::remote::connections::Connections;
use crate::executor::tuning::{MAX_DIGESTS, MISSING_CALLS};
use crate::jobs::action::Digest;
use crate::sys::sync::lock;
use bazel_remote_apis::build::bazel::remote::execution::v2 as api;
use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use tokio::sync::{OnceCell, Semaphore};
use tonic::Status;

/// Finds missing blobs, in batches.
#[derive(Debug)]
pub(super) struct MissingBlobs {
    caller: Arc<Caller>,
    connections: Arc<Connections>,
    /// The batch that takes further digests.
    open: Mutex<Arc<MissingBatch>>,
    calls: Semaphore,
}

/// The digests of a FindMissingBlobs call, and which of them the server lacks.
#[derive(Debug, Default)]
struct MissingBatch {
    digests: Mutex<HashSet<Digest>>,
    missing: OnceCell<Result<Arc<HashSet<Digest>>, Status>>,
}

impl MissingBlobs {
    pub(super) fn new(caller: Arc<Caller>, connections: Arc<Connections>) -> Self {
        Self {
            caller,
            connections,
            open: Mutex::default(),
            calls: Semaphore::new(MISSING_CALLS),
        }
    }

    /// Those of these blobs that the server lacks, perhaps with others.
    pub(super) async fn among(&self, digests: &[Digest]) -> Result<Arc<HashSet<Digest>>, Status> {
        let batch = self.join_batch(digests);
        // If the caller that makes the call for all is cancelled, the next of those who wait makes it.
        let find = || async {
            let _permit = self.calls.acquire().await.ok();
            {
                let mut open = lock(&self.open);
                if Arc::ptr_eq(&open, &batch) {
                    *open = Arc::default();
                }
            }
            let reply = self
                .caller
                .call(|| async {
                    let mut client = cas_client(self.connections.next());
                    // Complete: the batch is not open any more.
                    let blob_digests = lock(&batch.digests).iter().map(Digest::as_api).collect();
                    let request = api::FindMissingBlobsRequest {
                        instance_name: self.caller.settings.instance.clone(),
                        blob_digests,
                        ..Default::default()
                    };
                    Ok(client.find_missing_blobs(request).await?.into_inner())
                })
                .await?;
            let missing = reply.missing_blob_digests.iter();
            Ok(Arc::new(missing.filter_map(Digest::from_api).collect()))
        };
        batch.missing.get_or_init(find).await.clone()
    }

    /// Adds digests to the open batch, and closes it if it is full.
    fn join_batch(&self, digests: &[Digest]) -> Arc<MissingBatch> {
        let mut open = lock(&self.open);
        let batch = open.clone();
        let mut all = lock(&batch.digests);
        all.extend(digests);
        if all.len() >= MAX_DIGESTS {
            *open = Arc::default();
        }
        drop(all);
        batch
    }
}
