//! Uploads: each blob once, whoever needs it, small ones in batches, large ones as streams.

use super::missing::MissingBlobs;
use super::transfer::{BlobLimits, ByteBudget, ZSTD, cas_client, stream_client};
use super::upload_queue::UploadQueue;
use crate::executor::remote::calls::{Caller, is_transient, to_status, within};
use crate::executor::remote::connections::Connections;
use crate::executor::tuning::{
    CHUNK, MAX_BATCHED_BLOB, STREAM_IN_FLIGHT, UPLOAD_WINDOW, ZSTD_LEVEL,
};
use crate::jobs::action::{Content, Digest};
use crate::sys::sync::lock;
use bazel_remote_apis::build::bazel::remote::execution::v2 as api;
use bazel_remote_apis::google::bytestream::{WriteRequest, WriteResponse};
use futures_util::StreamExt;
use futures_util::future::try_join;
use futures_util::stream::FuturesUnordered;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::{OwnedMutexGuard, SemaphorePermit, mpsc};
use tonic::Status;

/// Whether the server has a blob. Locked by the job that uploads it; others that need it wait for the lock.
type Presence = Arc<tokio::sync::Mutex<bool>>;

/// A blob that this job uploads.
struct Claim<'b> {
    digest: Digest,
    content: &'b Content,
    present: OwnedMutexGuard<bool>,
}

/// Uploads blobs, and remembers what the server has.
#[derive(Debug)]
pub(in crate::executor::remote) struct Uploader {
    caller: Arc<Caller>,
    connections: Connections,
    limits: BlobLimits,
    missing: MissingBlobs,
    /// What is known of the server's blobs.
    presence: Mutex<HashMap<Digest, Presence>>,
    queue: Arc<UploadQueue>,
    window: ByteBudget,
    /// Bytes that were sent, after compression.
    sent: AtomicU64,
}

impl Uploader {
    /// `connections` carry uploads, `lookups` the calls that find missing blobs.
    pub(in crate::executor::remote) fn new(
        caller: Arc<Caller>,
        lookups: Arc<Connections>,
        connections: Connections,
        limits: BlobLimits,
    ) -> Self {
        Self {
            missing: MissingBlobs::new(caller.clone(), lookups),
            caller,
            connections,
            limits,
            presence: Mutex::default(),
            queue: Arc::default(),
            window: ByteBudget::new(UPLOAD_WINDOW),
            sent: AtomicU64::new(0),
        }
    }

    /// Bytes that were sent, after compression.
    pub(in crate::executor::remote) fn bytes_sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Forgets that the server has these blobs.
    pub(in crate::executor::remote) fn forget<'a>(&self, blobs: impl Iterator<Item = &'a Digest>) {
        let mut presence = self.presence();
        for digest in blobs {
            presence.remove(digest);
        }
    }

    fn presence(&self) -> MutexGuard<'_, HashMap<Digest, Presence>> {
        lock(&self.presence)
    }

    /// Uploads those of these blobs that the server lacks. A blob that several jobs need is uploaded by one of
    /// them; if that fails or is cancelled, by the next. Jobs begin by priority, lowest number first.
    pub(in crate::executor::remote) async fn ensure_uploaded(
        &self,
        blobs: &HashMap<Digest, Content>,
        priority: usize,
    ) -> Result<(), Status> {
        // Enter the queue before it is known what is missing: replies arrive in any order.
        let permit = self.queue.enter(priority);
        let permit = async { Ok(permit.await) };
        let (permit, blobs) = try_join(permit, self.look_up(blobs)).await?;
        let mut claims = Vec::new();
        let mut claimed_by_others = Vec::new();
        for (digest, content, presence) in blobs {
            match presence.clone().try_lock_owned() {
                Ok(present) if *present => {}
                Ok(present) => claims.push(Claim {
                    digest,
                    content,
                    present,
                }),
                Err(_) => claimed_by_others.push((digest, content, presence)),
            }
        }
        let mut sending = FuturesUnordered::new();
        for batch in self.batches(claims) {
            let window = {
                let window = self.acquire_window(&batch);
                tokio::pin!(window);
                loop {
                    tokio::select! {
                        window = &mut window => break window,
                        Some(sent) = sending.next() => sent?,
                    }
                }
            };
            sending.push(self.send(batch, window));
        }
        drop(permit);
        while let Some(sent) = sending.next().await {
            sent?;
        }
        for (digest, content, presence) in claimed_by_others {
            // One at a time: two jobs that hold claims and wait for each other's would deadlock.
            let present = presence.lock_owned().await;
            if !*present {
                let batch = vec![Claim {
                    digest,
                    content,
                    present,
                }];
                let window = self.acquire_window(&batch).await;
                self.send(batch, window).await?;
            }
        }
        Ok(())
    }

    /// What is known of these blobs, after asking the server for the unknown ones.
    async fn look_up<'b>(
        &self,
        blobs: &'b HashMap<Digest, Content>,
    ) -> Result<Vec<(Digest, &'b Content, Presence)>, Status> {
        let unknown: Vec<Digest> = {
            let presence = self.presence();
            let unknown = blobs.keys().filter(|digest| !presence.contains_key(digest));
            unknown.copied().collect()
        };
        let missing = match unknown.as_slice() {
            [] => Arc::default(),
            unknown => self.missing.among(unknown).await?,
        };
        let mut presence = self.presence();
        for digest in unknown {
            let present = !missing.contains(&digest);
            presence
                .entry(digest)
                .or_insert_with(|| Arc::new(tokio::sync::Mutex::new(present)));
        }
        // Blobs that were forgotten meanwhile are uploaded.
        let of = |(digest, content): (&Digest, &'b Content)| {
            let presence: &Presence = presence.entry(*digest).or_default();
            (*digest, content, presence.clone())
        };
        Ok(blobs.iter().map(of).collect())
    }

    /// Waits until a batch may be sent.
    async fn acquire_window(&self, batch: &[Claim<'_>]) -> Option<SemaphorePermit<'_>> {
        let bytes = batch.iter().map(|claim| claim.digest.size).sum::<u64>();
        self.window.acquire(bytes.min(STREAM_IN_FLIGHT)).await
    }

    fn is_streamed(&self, digest: &Digest) -> bool {
        digest.size > MAX_BATCHED_BLOB.min(self.limits.max_batch)
    }

    /// Divides blobs into batches; each that is to be streamed is a batch of its own, after the others.
    fn batches<'b>(&self, claims: Vec<Claim<'b>>) -> Vec<Vec<Claim<'b>>> {
        let (large, small): (Vec<_>, Vec<_>) = claims
            .into_iter()
            .partition(|claim| self.is_streamed(&claim.digest));
        let mut batches = Vec::new();
        let mut size = 0;
        for claim in small {
            size += claim.digest.size;
            match batches.last_mut() {
                Some(batch) if size <= self.limits.max_batch => Vec::push(batch, claim),
                _ => {
                    size = claim.digest.size;
                    batches.push(vec![claim]);
                }
            }
        }
        batches.extend(large.into_iter().map(|claim| vec![claim]));
        batches
    }

    /// Sends a batch and marks its blobs as present.
    async fn send(
        &self,
        batch: Vec<Claim<'_>>,
        _window: Option<SemaphorePermit<'_>>,
    ) -> Result<(), Status> {
        match batch.as_slice() {
            [claim] if self.is_streamed(&claim.digest) => {
                self.send_stream(&claim.digest, claim.content).await?;
            }
            claims => self.send_batch(claims).await?,
        }
        for mut claim in batch {
            *claim.present = true;
        }
        Ok(())
    }

    async fn send_batch(&self, claims: &[Claim<'_>]) -> Result<(), Status> {
        let (reply, sent) = self
            .caller
            .call(|| async {
                // Read again on retry instead of cloned: retries are rare.
                let mut requests = Vec::new();
                for claim in claims {
                    requests.push(self.batch_entry(&claim.digest, claim.content).await?);
                }
                let sent = requests.iter().map(|r| r.data.len() as u64).sum();
                let mut client = cas_client(self.connections.next());
                let request = api::BatchUpdateBlobsRequest {
                    instance_name: self.caller.settings.instance.clone(),
                    requests,
                    ..Default::default()
                };
                Ok((client.batch_update_blobs(request).await?.into_inner(), sent))
            })
            .await?;
        self.sent.fetch_add(sent, Ordering::Relaxed);
        let failed = |r: &api::batch_update_blobs_response::Response| {
            r.status.clone().filter(|status| status.code != 0)
        };
        match reply.responses.iter().find_map(failed) {
            Some(status) => Err(to_status(&status)),
            None => Ok(()),
        }
    }

    /// A blob as an entry of a batch, compressed where that helps.
    async fn batch_entry(
        &self,
        digest: &Digest,
        content: &Content,
    ) -> Result<api::batch_update_blobs_request::Request, Status> {
        let data = load(digest, content).await?;
        let compressed = self
            .limits
            .zstd_batch_update
            .then(|| zstd::bulk::compress(&data, ZSTD_LEVEL).ok());
        let (data, compressor) = match compressed.flatten() {
            Some(compressed) if compressed.len() < data.len() => (compressed, ZSTD),
            _ => (data, 0),
        };
        Ok(api::batch_update_blobs_request::Request {
            digest: Some(digest.as_api()),
            data,
            compressor,
        })
    }

    async fn send_stream(&self, digest: &Digest, content: &Content) -> Result<(), Status> {
        let instance = &self.caller.settings.instance;
        let operation = format!("uploads/{}/", random_uuid());
        let name = self.limits.resource_name(instance, &operation, digest);
        self.caller
            .retry(is_transient, || self.write_stream(&name, digest, content))
            .await
    }

    /// One attempt at a `ByteStream.Write`. The time limit is for each chunk, since large blobs take long.
    async fn write_stream(
        &self,
        name: &str,
        digest: &Digest,
        content: &Content,
    ) -> Result<(), Status> {
        let mut source: Box<dyn Read + Send + '_> = match content {
            Content::Bytes(bytes) => Box::new(bytes.as_slice()),
            Content::File(file) => Box::new(File::open(file)?),
        };
        if self.limits.zstd {
            source = Box::new(zstd::stream::read::Encoder::new(source, ZSTD_LEVEL)?);
        }
        let timeout = self.caller.settings.timeout;
        let sent = AtomicU64::new(0);
        let (requests, receiver) = mpsc::channel(1);
        let stream = tokio_stream::wrappers::ReceiverStream::new(receiver);
        let mut client = stream_client(self.connections.next());
        let feed = feed_stream(name, source, requests, timeout, &sent);
        let reply = async { Ok(client.write(stream).await?.into_inner()) };
        tokio::pin!(feed, reply);
        let reply: Result<WriteResponse, Status> = tokio::select! {
            reply = &mut reply => reply,
            fed = &mut feed => match fed {
                Err(status) => Err(status),
                Ok(()) => within(timeout, || "no answer to an upload", reply).await,
            },
        };
        let committed = reply?.committed_size;
        let sent = sent.load(Ordering::Relaxed);
        // A server that has the blob already may end the call early and commit its size, or -1 if it is sent
        // compressed (remote_execution.proto); some say 0.
        let already_present = [-1, 0, digest.size as i64];
        if committed != sent as i64 && !already_present.contains(&committed) {
            return Err(Status::data_loss(format!(
                "{committed} of {sent} bytes were stored"
            )));
        }
        self.sent.fetch_add(sent, Ordering::Relaxed);
        Ok(())
    }
}

/// Feeds a `ByteStream.Write` with chunks that are read as they are sent, counts their bytes, and then waits
/// for the call to be cancelled by its reply. `Ok` if the server has ended the call: its reply says why.
async fn feed_stream(
    name: &str,
    mut source: Box<dyn Read + Send + '_>,
    requests: mpsc::Sender<WriteRequest>,
    timeout: Duration,
    sent: &AtomicU64,
) -> Result<(), Status> {
    // Only the first request has the name.
    let mut name = name.to_owned();
    let mut chunk = next_chunk(&mut *source)?;
    let mut offset = 0_u64;
    loop {
        let following = match chunk.len() {
            CHUNK => next_chunk(&mut *source)?,
            _ => Vec::new(),
        };
        let (size, last) = (chunk.len() as u64, following.is_empty());
        let request = WriteRequest {
            resource_name: std::mem::take(&mut name),
            write_offset: offset as i64,
            finish_write: last,
            data: std::mem::replace(&mut chunk, following),
        };
        match tokio::time::timeout(timeout, requests.send(request)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Ok(()),
            Err(_) => return Err(Status::deadline_exceeded("an upload does not move")),
        }
        offset += size;
        sent.store(offset, Ordering::Relaxed);
        if last {
            drop(requests);
            tokio::time::sleep(timeout).await;
            return Err(Status::deadline_exceeded("an upload is not confirmed"));
        }
    }
}

/// Up to [`CHUNK`] bytes; fewer only at the end.
fn next_chunk(source: &mut (dyn Read + Send)) -> io::Result<Vec<u8>> {
    let mut chunk = Vec::with_capacity(CHUNK);
    source.take(CHUNK as u64).read_to_end(&mut chunk)?;
    Ok(chunk)
}

async fn load(digest: &Digest, content: &Content) -> Result<Vec<u8>, Status> {
    let data = match content {
        Content::Bytes(bytes) => return Ok(bytes.clone()),
        Content::File(file) => tokio::fs::read(file).await?,
    };
    // No server would accept a file that was written to since it was hashed.
    if data.len() as u64 == digest.size {
        Ok(data)
    } else {
        Err(Status::failed_precondition(
            "an input has changed during the link",
        ))
    }
}

/// A random UUID (RFC 9562, version 4), which ByteStream wants for each upload.
fn random_uuid() -> String {
    let random = fastrand::u128(..);
    let version_and_variant = random & !(0xf << 76 | 0x3 << 62) | 4 << 76 | 2 << 62;
    let hex = format!("{version_and_variant:032x}");
    let (a, rest) = hex.split_at(8);
    let (b, rest) = rest.split_at(4);
    let (c, rest) = rest.split_at(4);
    let (d, e) = rest.split_at(4);
    format!("{a}-{b}-{c}-{d}-{e}")
}

#[cfg(test)]
mod tests {
    use super::random_uuid;

    #[test]
    fn a_uuid_has_its_version_and_variant() {
        for _ in 0..100 {
            let uuid = random_uuid();
            let lengths: Vec<_> = uuid.split('-').map(str::len).collect();
            assert_eq!(lengths, [8, 4, 4, 4, 12], "{uuid}");
            assert_eq!(&uuid[14..15], "4", "{uuid}");
            assert!("89ab".contains(&uuid[19..20]), "{uuid}");
        }
    }
}
