//! What uploads and downloads share.

use crate::executor::remote::connections::Service;
use crate::executor::tuning::{MAX_BATCH, MAX_MESSAGE};
use crate::jobs::action::Digest;
use bazel_remote_apis::build::bazel::remote::execution::v2 as api;
use bazel_remote_apis::google::bytestream::byte_stream_client::ByteStreamClient;
use tokio::sync::{Semaphore, SemaphorePermit};

/// zstd, as the API numbers compressors.
pub(super) const ZSTD: i32 = api::compressor::Value::Zstd as i32;

/// How blobs may be sent to a server.
#[derive(Debug, Clone, Copy)]
pub(in crate::executor::remote) struct BlobLimits {
    /// Bytes of blobs in a batch.
    pub(super) max_batch: u64,
    /// Whether streams both ways and downloaded batches may be compressed with zstd.
    pub(super) zstd: bool,
    /// Whether uploaded batches may.
    pub(super) zstd_batch_update: bool,
}

impl BlobLimits {
    /// What a server declares.
    pub(in crate::executor::remote) fn of(cache: &api::CacheCapabilities) -> Self {
        // "0 means no limit is set". Half of it leaves space for what is not blobs.
        let max_batch = match u64::try_from(cache.max_batch_total_size_bytes).unwrap_or(0) {
            0 => MAX_BATCH,
            most => MAX_BATCH.min(most / 2),
        };
        Self {
            max_batch,
            zstd: cache.supported_compressors.contains(&ZSTD),
            zstd_batch_update: cache.supported_batch_update_compressors.contains(&ZSTD),
        }
    }

    /// The name of a streamed blob, of which `operation` is "" for reading and "uploads/UUID/" for writing
    /// (remote_execution.proto, "ContentAddressableStorage").
    pub(super) fn resource_name(self, instance: &str, operation: &str, digest: &Digest) -> String {
        let instance = match instance {
            "" => String::new(),
            instance => format!("{instance}/"),
        };
        let kind = match self.zstd {
            true => "compressed-blobs/zstd",
            false => "blobs",
        };
        format!("{instance}{operation}{kind}/{digest}")
    }
}

/// A bound on the bytes that are transferred at once.
#[derive(Debug)]
pub(super) struct ByteBudget {
    permits: Semaphore,
    total: usize,
}

impl ByteBudget {
    pub(super) fn new(total: usize) -> Self {
        Self {
            permits: Semaphore::new(total),
            total,
        }
    }

    /// Waits until so many bytes fit, or, if they are more than the budget, until nothing else is there.
    pub(super) async fn acquire(&self, bytes: u64) -> Option<SemaphorePermit<'_>> {
        let wanted = usize::try_from(bytes).unwrap_or(self.total).min(self.total);
        self.permits
            .acquire_many(u32::try_from(wanted).unwrap_or(u32::MAX))
            .await
            .ok()
    }
}

type CasClient = api::content_addressable_storage_client::ContentAddressableStorageClient<Service>;

pub(super) fn cas_client(service: Service) -> CasClient {
    CasClient::new(service)
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE)
}

pub(super) fn stream_client(service: Service) -> ByteStreamClient<Service> {
    ByteStreamClient::new(service).max_decoding_message_size(MAX_MESSAGE)
}
