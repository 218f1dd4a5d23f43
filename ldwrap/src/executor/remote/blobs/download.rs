//! Downloads: bounded in memory, and believed only if their digest is right.

use super::transfer::{BlobLimits, ByteBudget, ZSTD, cas_client, stream_client};
use crate::executor::remote::calls::{Caller, is_transient, to_status, within};
use crate::executor::remote::connections::Connections;
use crate::executor::tuning::{DOWNLOAD_WINDOW, MAX_EMPTY_MESSAGES, MAX_OBJECT, MIN_DOWNLOAD_RATE};
use crate::jobs::action::Digest;
use bazel_remote_apis::build::bazel::remote::execution::v2 as api;
use bazel_remote_apis::google::bytestream::ReadRequest;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::SemaphorePermit;
use tonic::{Code, Status};

/// Downloads blobs.
#[derive(Debug)]
pub(in crate::executor::remote) struct Downloader {
    caller: Arc<Caller>,
    connections: Connections,
    limits: BlobLimits,
    window: ByteBudget,
    /// Bytes that were received, before decompression.
    received: AtomicU64,
}

impl Downloader {
    pub(in crate::executor::remote) fn new(
        caller: Arc<Caller>,
        connections: Connections,
        limits: BlobLimits,
    ) -> Self {
        Self {
            caller,
            connections,
            limits,
            window: ByteBudget::new(DOWNLOAD_WINDOW),
            received: AtomicU64::new(0),
        }
    }

    /// Bytes that were received, before decompression.
    pub(in crate::executor::remote) fn bytes_received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Downloads a blob and checks it against its digest. The permit is to be kept as long as the bytes: it
    /// bounds the memory of all downloads.
    pub(in crate::executor::remote) async fn fetch(
        &self,
        digest: &Digest,
    ) -> Result<(Vec<u8>, Option<SemaphorePermit<'_>>), Status> {
        if digest.size > MAX_OBJECT {
            return Err(Status::out_of_range(format!(
                "an object of {} bytes",
                digest.size
            )));
        }
        if digest.size == 0 {
            return Ok((Vec::new(), None));
        }
        let window = self.window.acquire(digest.size).await;
        let may_pass = |code| is_transient(code) || code == Code::DataLoss;
        let read = || async {
            let data = if digest.size <= self.limits.max_batch {
                self.read_batch(digest).await
            } else {
                self.read_stream(digest).await
            };
            verify(digest, data?)
        };
        Ok((self.caller.retry(may_pass, read).await?, window))
    }

    async fn read_batch(&self, digest: &Digest) -> Result<Vec<u8>, Status> {
        let call = async {
            let mut client = cas_client(self.connections.next());
            let request = api::BatchReadBlobsRequest {
                instance_name: self.caller.settings.instance.clone(),
                digests: vec![digest.as_api()],
                acceptable_compressors: self.limits.zstd.then_some(ZSTD).into_iter().collect(),
                ..Default::default()
            };
            Ok(client.batch_read_blobs(request).await?.into_inner())
        };
        let timeout = self.caller.settings.timeout;
        let reply = within(timeout, || "no answer to a download", call).await?;
        let blob = reply.responses.into_iter().next();
        let blob = blob.ok_or_else(|| Status::data_loss("no blob in the answer"))?;
        match blob.status.filter(|s| s.code != 0) {
            Some(status) => Err(to_status(&status)),
            None => {
                self.count(&blob.data);
                match blob.compressor {
                    ZSTD => decompress(&blob.data, digest),
                    _ => Ok(blob.data),
                }
            }
        }
    }

    /// Reads a blob as a stream, with the time limit for each message, and for all of it together at a minimum rate.
    async fn read_stream(&self, digest: &Digest) -> Result<Vec<u8>, Status> {
        let settings = &self.caller.settings;
        let mut client = stream_client(self.connections.next());
        let request = ReadRequest {
            resource_name: self.limits.resource_name(&settings.instance, "", digest),
            ..Default::default()
        };
        let slow = || "a download does not move";
        let mut stream = within(settings.timeout, slow, client.read(request))
            .await?
            .into_inner();
        let begin = Instant::now();
        let mut data = Vec::new();
        let mut empty = 0;
        loop {
            let at_rate = Duration::from_secs(data.len() as u64 / MIN_DOWNLOAD_RATE);
            let left = (settings.timeout + at_rate).saturating_sub(begin.elapsed());
            let limit = settings.timeout.min(left);
            let Some(message) = within(limit, slow, stream.message()).await? else {
                break;
            };
            empty += usize::from(message.data.is_empty());
            if empty > MAX_EMPTY_MESSAGES {
                return Err(Status::data_loss("a download of empty messages"));
            }
            data.extend_from_slice(&message.data);
            // A stream that always has a message would keep all other calls waiting.
            tokio::task::yield_now().await;
            // zstd adds less than this to what does not compress (ZSTD_compressBound).
            if data.len() as u64 > digest.size + digest.size / 128 + 1024 {
                return Err(Status::data_loss("a download is longer than it should be"));
            }
        }
        self.count(&data);
        if self.limits.zstd {
            return decompress(&data, digest);
        }
        Ok(data)
    }

    fn count(&self, data: &[u8]) {
        self.received
            .fetch_add(data.len() as u64, Ordering::Relaxed);
    }
}

/// Decompresses up to a byte more than the blob's size, which [`verify`] then refuses. Memory grows with the
/// data, whatever size the server has named.
fn decompress(data: &[u8], digest: &Digest) -> Result<Vec<u8>, Status> {
    let mut blob = Vec::new();
    zstd::stream::read::Decoder::with_buffer(data)
        .and_then(|decoder| decoder.take(digest.size + 1).read_to_end(&mut blob))
        .map_err(|e| Status::data_loss(format!("a download does not unpack: {e}")))?;
    Ok(blob)
}

fn verify(digest: &Digest, data: Vec<u8>) -> Result<Vec<u8>, Status> {
    if Digest::of(&data) == *digest {
        Ok(data)
    } else {
        Err(Status::data_loss("a blob is not what its digest says"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decompression_is_bounded_by_the_digest() {
        let blob = vec![7; 1 << 20];
        let compressed = zstd::bulk::compress(&blob, 3).unwrap();
        let digest = Digest::of(&blob);
        assert!(decompress(&compressed, &digest).unwrap() == blob);
        let named = |size| Digest { size, ..digest };
        // One byte more than named shows that it is wrong.
        assert_eq!(decompress(&compressed, &named(99)).unwrap().len(), 100);
        assert!(decompress(&compressed, &named(MAX_OBJECT)).unwrap() == blob);
        assert!(decompress(&compressed[..compressed.len() - 1], &digest).is_err());
        assert!(decompress(b"no zstd", &digest).is_err());
    }
}
