//! A client of the Remote Execution API, version 2: capabilities, blobs, the action cache, execution.
//!
//! Every call has a time limit, transient errors are tried again with growing, jittered pauses, and
//! nothing that a server says is believed before it is checked: blobs against their digests, sizes
//! against what was asked for.

use super::auth::{Credentials, Headers};
use super::settings::Settings;
use crate::action::{Action, Content, Digest};
use bazel_remote_apis::build::bazel::remote::execution::v2 as api;
use bazel_remote_apis::google::bytestream as bytes_api;
use bazel_remote_apis::google::longrunning::{Operation, operation};
use bazel_remote_apis::google::rpc;
use prost::Message;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedMutexGuard, Semaphore, SemaphorePermit};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Status};

/// Blobs up to this size go in batches.
const SMALL: u64 = 256 << 10;
/// A batch is no larger, whatever the server would take: on a slow line it has to be through within
/// the time limit.
const BATCH: u64 = 1 << 20;
/// Size of a piece of a large blob.
const CHUNK: usize = 256 << 10;
/// Objects and answers larger than this are refused.
const MAX_MESSAGE: usize = 64 << 20;
/// No object of a compiler is larger (bytes).
const MAX_BLOB: u64 = 4 << 30;
/// How often a call is tried.
const TRIES: u32 = 4;
/// The first pause between two tries; each further one is twice as long.
const PAUSE: Duration = Duration::from_millis(100);
/// Digests in one question for missing blobs.
const MAX_QUESTION: usize = 5000;
/// Blobs that are on their way, either way, may take up so much memory (KiB), a few times over.
const ROOM: u32 = 32 << 10;
/// How often an action is sent again because the server had lost inputs.
const MISSING_TRIES: usize = 3;

type Service = InterceptedService<Channel, Credentials>;

/// Whether the server has a blob; locked by who sees to it.
type Slot = Arc<tokio::sync::Mutex<bool>>;

/// What was moved and asked, for the report.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Bytes of blobs sent.
    pub up: AtomicU64,
    /// Bytes of blobs received.
    pub down: AtomicU64,
}

/// A server.
#[derive(Debug)]
pub struct Client {
    settings: Settings,
    credentials: Credentials,
    services: Vec<Service>,
    next: AtomicUsize,
    batch: u64,
    zstd: bool,
    zstd_batch: bool,
    /// Memory for blobs that are on their way, in KiB.
    room: Semaphore,
    /// Blobs that the server is known to have, and those on their way.
    present: Mutex<HashMap<Digest, Slot>>,
    /// What was moved.
    pub traffic: Traffic,
    /// Whether the server takes results that were made elsewhere.
    pub takes_results: bool,
}

/// What came of an execution.
#[derive(Debug)]
enum Executed {
    /// The command ended; with what.
    Result(Box<api::ActionResult>, bool),
    /// The server lacks inputs, as it says.
    Missing(Status),
}

impl Client {
    /// Connects and asks what the server can do.
    pub async fn connect(settings: &Settings) -> Result<Self, Status> {
        let bad = |what: &str, e: &dyn std::fmt::Display| {
            Status::invalid_argument(format!("{what}: {e}"))
        };
        let credentials = Credentials::read(settings).map_err(|e| bad("credentials", &e))?;
        let read = |what: &str, file: &std::path::Path| {
            std::fs::read(file).map_err(|e| bad(what, &format!("{}: {e}", file.display())))
        };
        let mut services = Vec::new();
        for _ in 0..settings.connections {
            let mut endpoint = Endpoint::from_shared(settings.endpoint.clone())
                .map_err(|e| bad("LDWRAP_REMOTE", &e))?
                .connect_timeout(settings.timeout.min(Duration::from_secs(10)))
                .http2_keep_alive_interval(Duration::from_secs(20))
                .keep_alive_timeout(settings.timeout.min(Duration::from_secs(20)))
                .http2_adaptive_window(true)
                .tcp_nodelay(true)
                .user_agent(concat!("ldwrap/", env!("CARGO_PKG_VERSION")))
                .map_err(|e| bad("user agent", &e))?;
            if settings.tls {
                let mut tls = ClientTlsConfig::new();
                tls = match &settings.ca {
                    Some(ca) => {
                        tls.ca_certificate(Certificate::from_pem(read("LDWRAP_REMOTE_CA", ca)?))
                    }
                    None => tls.with_native_roots(),
                };
                if let Some((cert, key)) = &settings.identity {
                    tls = tls.identity(Identity::from_pem(
                        read("LDWRAP_REMOTE_CERT", cert)?,
                        read("LDWRAP_REMOTE_KEY", key)?,
                    ));
                }
                endpoint = endpoint.tls_config(tls).map_err(|e| {
                    let cause = cause(&e).unwrap_or_else(|| e.to_string());
                    bad(
                        "LDWRAP_REMOTE_CA, LDWRAP_REMOTE_CERT, LDWRAP_REMOTE_KEY",
                        &cause,
                    )
                })?;
            }
            services.push(InterceptedService::new(
                endpoint.connect_lazy(),
                credentials.clone(),
            ));
        }
        let mut client = Self {
            settings: settings.clone(),
            credentials,
            services,
            next: AtomicUsize::new(0),
            batch: BATCH,
            zstd: false,
            zstd_batch: false,
            room: Semaphore::new(ROOM as usize),
            present: Mutex::default(),
            traffic: Traffic::default(),
            takes_results: false,
        };
        match client.ask_capabilities().await {
            Ok(()) => Ok(client),
            // With TLS 1.3 a server closes the connection on a client whose certificate it misses, and
            // what it says then seldom arrives.
            Err(status) if settings.tls && hung_up(&status) => {
                let hint = match settings.identity {
                    None => "the server may want a certificate (LDWRAP_REMOTE_CERT)",
                    Some(_) => "the server may not take the certificate of LDWRAP_REMOTE_CERT",
                };
                Err(Status::unauthenticated(format!(
                    "the connection was closed; {hint}"
                )))
            }
            Err(status) => Err(status),
        }
    }

    fn service(&self) -> Service {
        let n = self.next.fetch_add(1, Ordering::Relaxed) % self.services.len();
        self.services[n].clone()
    }

    async fn ask_capabilities(&mut self) -> Result<(), Status> {
        let found = self
            .again(|| async {
                let mut client = api::capabilities_client::CapabilitiesClient::new(self.service());
                let request = api::GetCapabilitiesRequest {
                    instance_name: self.settings.instance.clone(),
                };
                Ok(client.get_capabilities(request).await?.into_inner())
            })
            .await?;
        let cache = found
            .cache_capabilities
            .ok_or_else(|| Status::unimplemented("the server has no cache"))?;
        let sha256 = api::digest_function::Value::Sha256 as i32;
        if !cache.digest_functions.contains(&sha256) {
            return Err(Status::unimplemented("the server does not know SHA-256"));
        }
        if !found.execution_capabilities.is_some_and(|e| e.exec_enabled) {
            return Err(Status::unimplemented("the server does not execute"));
        }
        if let Ok(most @ 1..) = u64::try_from(cache.max_batch_total_size_bytes) {
            self.batch = self.batch.min(most / 2);
        }
        let zstd = api::compressor::Value::Zstd as i32;
        self.zstd = cache.supported_compressors.contains(&zstd);
        self.zstd_batch = cache.supported_batch_update_compressors.contains(&zstd);
        self.takes_results = cache
            .action_cache_update_capabilities
            .is_some_and(|u| u.update_enabled);
        Ok(())
    }

    /// Makes a call up to [`TRIES`] times, as long as its error is one that passes, and once more with
    /// other credentials if ours are not taken.
    async fn retry<T, F: Future<Output = Result<T, Status>>>(
        &self,
        passes: impl Fn(Code) -> bool,
        call: impl Fn() -> F,
    ) -> Result<T, Status> {
        let mut tried = 0;
        loop {
            tried += 1;
            let sent = self.credentials.now();
            match call().await {
                Err(status) if tried < TRIES && passes(status.code()) => pause(tried).await,
                Err(status) if tried < TRIES && self.renewed(&status, sent).await => {}
                result => return result,
            }
        }
    }

    /// Whether a call that was refused may be made again, with other credentials than were sent.
    async fn renewed(&self, status: &Status, sent: Headers) -> bool {
        if status.code() != Code::Unauthenticated {
            return false;
        }
        let (credentials, settings) = (self.credentials.clone(), self.settings.clone());
        // The user's program may take its time.
        let renew = tokio::task::spawn_blocking(move || credentials.renew(&settings, &sent));
        renew.await.unwrap_or(false)
    }

    /// Makes a call within the time limit, again after an error that may pass.
    async fn again<T, F: Future<Output = Result<T, Status>>>(
        &self,
        call: impl Fn() -> F,
    ) -> Result<T, Status> {
        self.retry(may_pass, || async {
            tokio::time::timeout(self.settings.timeout, call())
                .await
                .unwrap_or_else(|_| {
                    Err(Status::deadline_exceeded(format!(
                        "no answer within {} s",
                        self.settings.timeout.as_secs()
                    )))
                })
        })
        .await
    }

    /// What the action cache has for a key.
    pub async fn cached(&self, action: &Digest) -> Result<Option<api::ActionResult>, Status> {
        let found = self
            .again(|| async {
                let mut client = api::action_cache_client::ActionCacheClient::new(self.service())
                    .max_decoding_message_size(MAX_MESSAGE);
                let request = api::GetActionResultRequest {
                    instance_name: self.settings.instance.clone(),
                    action_digest: Some(action.to_api()),
                    inline_output_files: vec![crate::backend::OBJECT.into()],
                    inline_stderr: true,
                    inline_stdout: true,
                    ..Default::default()
                };
                Ok(client.get_action_result(request).await?.into_inner())
            })
            .await;
        match found {
            Ok(result) => Ok(Some(result)),
            Err(status) if status.code() == Code::NotFound => Ok(None),
            Err(status) => Err(status),
        }
    }

    /// Tells the action cache a result that was made elsewhere.
    pub async fn tell(&self, action: &Digest, result: &api::ActionResult) -> Result<(), Status> {
        self.again(|| async {
            let mut client = api::action_cache_client::ActionCacheClient::new(self.service());
            let request = api::UpdateActionResultRequest {
                instance_name: self.settings.instance.clone(),
                action_digest: Some(action.to_api()),
                action_result: Some(result.clone()),
                ..Default::default()
            };
            client.update_action_result(request).await.map(drop)
        })
        .await
    }

    fn present(&self) -> MutexGuard<'_, HashMap<Digest, Slot>> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets that the server has these.
    fn forget<'a>(&self, blobs: impl Iterator<Item = &'a Digest>) {
        let mut present = self.present();
        for digest in blobs {
            present.remove(digest);
        }
    }

    /// Sees to it that the server has these blobs. A blob that several callers want is sent once; if
    /// that fails or is given up, by the next of them.
    pub async fn provide(&self, blobs: &HashMap<Digest, Content>) -> Result<(), Status> {
        let wanted: Vec<(Digest, Slot)> = {
            let mut present = self.present();
            let slot = |digest: &Digest| (*digest, present.entry(*digest).or_default().clone());
            blobs.keys().map(slot).collect()
        };
        let (mut mine, mut others) = (Vec::new(), Vec::new());
        for (digest, slot) in wanted {
            match slot.clone().try_lock_owned() {
                Ok(there) if *there => {}
                Ok(there) => mine.push((digest, there)),
                Err(_) => others.push((digest, slot)),
            }
        }
        self.send_missing(mine, blobs).await?;
        for (digest, slot) in others {
            let there = slot.lock_owned().await;
            if !*there {
                // One at a time: who waits for another must hold none.
                self.send_missing(vec![(digest, there)], blobs).await?;
            }
        }
        Ok(())
    }

    /// Sends those of these blobs that the server lacks, and marks all as there.
    async fn send_missing(
        &self,
        wanted: Vec<(Digest, OwnedMutexGuard<bool>)>,
        blobs: &HashMap<Digest, Content>,
    ) -> Result<(), Status> {
        if wanted.is_empty() {
            return Ok(());
        }
        let digests: Vec<Digest> = wanted.iter().map(|(digest, _)| *digest).collect();
        let mut batch = Vec::new();
        let mut size = 0;
        for digest in self.missing(&digests).await? {
            let Some(content) = blobs.get(&digest) else {
                continue;
            };
            if digest.size > SMALL.min(self.batch) {
                self.send_large(&digest, content).await?;
                continue;
            }
            if size + digest.size > self.batch {
                self.send_batch(std::mem::take(&mut batch)).await?;
                size = 0;
            }
            size += digest.size;
            batch.push((digest, content));
        }
        if !batch.is_empty() {
            self.send_batch(batch).await?;
        }
        for (_, mut there) in wanted {
            *there = true;
        }
        Ok(())
    }

    /// Waits until there is room for so many bytes, twice.
    async fn room_for(&self, bytes: u64) -> Option<SemaphorePermit<'_>> {
        let wanted = u32::try_from(bytes / 512 + 1).unwrap_or(ROOM).min(ROOM);
        self.room.acquire_many(wanted).await.ok()
    }

    async fn missing(&self, digests: &[Digest]) -> Result<HashSet<Digest>, Status> {
        let mut missing = HashSet::new();
        for some in digests.chunks(MAX_QUESTION) {
            let found = self
                .again(|| async {
                    let mut client = cas(self.service());
                    let request = api::FindMissingBlobsRequest {
                        instance_name: self.settings.instance.clone(),
                        blob_digests: some.iter().map(Digest::to_api).collect(),
                        ..Default::default()
                    };
                    Ok(client.find_missing_blobs(request).await?.into_inner())
                })
                .await?;
            let said = found.missing_blob_digests.iter();
            missing.extend(said.filter_map(Digest::from_api));
        }
        Ok(missing)
    }

    async fn send_batch(&self, blobs: Vec<(Digest, &Content)>) -> Result<(), Status> {
        let _room = self.room_for(blobs.iter().map(|(d, _)| d.size).sum()).await;
        let mut sent = 0;
        let mut requests = Vec::new();
        for (digest, content) in &blobs {
            let data = load(digest, content).await?;
            let packed = self.zstd_batch.then(|| zstd::bulk::compress(&data, 3).ok());
            let (data, compressor) = match packed.flatten() {
                Some(packed) if packed.len() < data.len() => {
                    (packed, api::compressor::Value::Zstd as i32)
                }
                _ => (data, 0),
            };
            sent += data.len() as u64;
            requests.push(api::batch_update_blobs_request::Request {
                digest: Some(digest.to_api()),
                data,
                compressor,
            });
        }
        let done = self
            .again(|| async {
                let mut client = cas(self.service());
                let request = api::BatchUpdateBlobsRequest {
                    instance_name: self.settings.instance.clone(),
                    requests: requests.clone(),
                    ..Default::default()
                };
                Ok(client.batch_update_blobs(request).await?.into_inner())
            })
            .await?;
        self.traffic.up.fetch_add(sent, Ordering::Relaxed);
        let bad = |r: &api::batch_update_blobs_response::Response| {
            r.status.clone().filter(|status| status.code != 0)
        };
        match done.responses.iter().find_map(bad) {
            Some(status) => Err(to_status(&status)),
            None => Ok(()),
        }
    }

    async fn send_large(&self, digest: &Digest, content: &Content) -> Result<(), Status> {
        let kind = if self.zstd {
            "compressed-blobs/zstd"
        } else {
            "blobs"
        };
        let instance = self.prefix();
        let id = uuid();
        let name = format!(
            "{instance}uploads/{id}/{kind}/{}/{}",
            digest.hex(),
            digest.size
        );
        self.retry(may_pass, || self.write(&name, digest, content))
            .await
    }

    /// One try at a `ByteStream.Write`, in pieces that are read as they are sent. The time limit is for
    /// each piece: large blobs take their time.
    async fn write(&self, name: &str, digest: &Digest, content: &Content) -> Result<(), Status> {
        let _room = self.room_for(4 * CHUNK as u64).await;
        let (send, receive) = tokio::sync::mpsc::channel(1);
        let mut client = bytes_api::byte_stream_client::ByteStreamClient::new(self.service());
        let stream = tokio_stream::wrappers::ReceiverStream::new(receive);
        let mut source: Box<dyn Read + Send + '_> = match content {
            Content::Bytes(bytes) => Box::new(bytes.as_slice()),
            Content::File(file) => Box::new(File::open(file)?),
        };
        if self.zstd {
            source = Box::new(zstd::stream::read::Encoder::new(source, 3)?);
        }
        let (timeout, count) = (self.settings.timeout, AtomicU64::new(0));
        let sent = &count;
        let feed = async move {
            let (mut name, mut piece, mut at) = (name.to_owned(), next_piece(&mut *source)?, 0_u64);
            loop {
                let following = match piece.len() {
                    CHUNK => next_piece(&mut *source)?,
                    _ => Vec::new(),
                };
                let (size, last) = (piece.len() as u64, following.is_empty());
                let request = bytes_api::WriteRequest {
                    resource_name: std::mem::take(&mut name),
                    write_offset: at as i64,
                    finish_write: last,
                    data: std::mem::replace(&mut piece, following),
                };
                match tokio::time::timeout(timeout, send.send(request)).await {
                    Ok(Ok(())) => {}
                    // The server has ended the call; its answer says why.
                    Ok(Err(_)) => return Ok(()),
                    Err(_) => return Err(Status::deadline_exceeded("an upload does not move")),
                }
                at += size;
                sent.store(at, Ordering::Relaxed);
                if last {
                    drop(send);
                    // From the last piece on the answer is due.
                    tokio::time::sleep(timeout).await;
                    return Err(Status::deadline_exceeded("an upload is not confirmed"));
                }
            }
        };
        let answer = async { Ok(client.write(stream).await?.into_inner()) };
        tokio::pin!(feed, answer);
        let answer: Result<bytes_api::WriteResponse, Status> = tokio::select! {
            answer = &mut answer => answer,
            fed = &mut feed => match fed {
                Err(status) => Err(status),
                Ok(()) => tokio::time::timeout(timeout, answer)
                    .await
                    .unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer to an upload"))),
            },
        };
        let committed = answer?.committed_size;
        let sent = count.load(Ordering::Relaxed);
        // There already: its size; -1 where it was sent compressed; and some servers say 0.
        let there = [-1, 0, digest.size as i64];
        if committed != sent as i64 && !there.contains(&committed) {
            return Err(Status::data_loss(format!(
                "{committed} of {sent} bytes were stored"
            )));
        }
        self.traffic.up.fetch_add(sent, Ordering::Relaxed);
        Ok(())
    }

    fn prefix(&self) -> String {
        match self.settings.instance.as_str() {
            "" => String::new(),
            instance => format!("{instance}/"),
        }
    }

    /// Gets a blob, and believes it only if it is what its digest says.
    pub async fn fetch(&self, digest: &Digest) -> Result<Vec<u8>, Status> {
        if digest.size > MAX_BLOB {
            return Err(Status::out_of_range(format!(
                "an object of {} bytes",
                digest.size
            )));
        }
        if digest.size == 0 {
            return Ok(Vec::new());
        }
        let _room = self.room_for(digest.size).await;
        let passes = |code| may_pass(code) || code == Code::DataLoss;
        self.retry(passes, || async {
            let data = if digest.size <= self.batch {
                self.read_small(digest).await
            } else {
                self.read_large(digest).await
            };
            check(digest, data?)
        })
        .await
    }

    async fn read_small(&self, digest: &Digest) -> Result<Vec<u8>, Status> {
        let call = async {
            let mut client = cas(self.service());
            let request = api::BatchReadBlobsRequest {
                instance_name: self.settings.instance.clone(),
                digests: vec![digest.to_api()],
                ..Default::default()
            };
            Ok::<_, Status>(client.batch_read_blobs(request).await?.into_inner())
        };
        let answer = tokio::time::timeout(self.settings.timeout, call)
            .await
            .map_err(|_| Status::deadline_exceeded("no answer to a download"))??;
        let one = answer.responses.into_iter().next();
        let one = one.ok_or_else(|| Status::data_loss("no blob in the answer"))?;
        match one.status.filter(|s| s.code != 0) {
            Some(status) => Err(to_status(&status)),
            None => {
                let received = one.data.len() as u64;
                self.traffic.down.fetch_add(received, Ordering::Relaxed);
                Ok(one.data)
            }
        }
    }

    async fn read_large(&self, digest: &Digest) -> Result<Vec<u8>, Status> {
        let mut client = bytes_api::byte_stream_client::ByteStreamClient::new(self.service())
            .max_decoding_message_size(MAX_MESSAGE);
        let kind = if self.zstd {
            "compressed-blobs/zstd"
        } else {
            "blobs"
        };
        let request = bytes_api::ReadRequest {
            resource_name: format!("{}{kind}/{}/{}", self.prefix(), digest.hex(), digest.size),
            ..Default::default()
        };
        let slow = || Status::deadline_exceeded("a download does not move");
        let opened = tokio::time::timeout(self.settings.timeout, client.read(request)).await;
        let mut stream = opened.map_err(|_| slow())??.into_inner();
        let mut data = Vec::new();
        while let Some(piece) = tokio::time::timeout(self.settings.timeout, stream.message())
            .await
            .map_err(|_| slow())??
        {
            data.extend_from_slice(&piece.data);
            // zstd may grow what does not compress, but never by much.
            if data.len() as u64 > digest.size + digest.size / 128 + 1024 {
                return Err(Status::data_loss("a download is longer than it should be"));
            }
        }
        let received = data.len() as u64;
        self.traffic.down.fetch_add(received, Ordering::Relaxed);
        if self.zstd {
            let size = usize::try_from(digest.size).unwrap_or(0);
            return zstd::bulk::decompress(&data, size)
                .map_err(|e| Status::data_loss(format!("a download does not unpack: {e}")));
        }
        Ok(data)
    }

    /// Has an action run, after sending what the server lacks of it; `runs` is called when a worker has
    /// begun. Gives the result, and whether the server had it already.
    pub async fn run(
        &self,
        action: &Action,
        runs: &(dyn Fn() + Sync),
    ) -> Result<(Box<api::ActionResult>, bool), Status> {
        let mut tried = 0;
        loop {
            tried += 1;
            self.provide(&action.blobs).await?;
            match self.execute(&action.digest, runs).await? {
                Executed::Result(result, cached) => return Ok((result, cached)),
                Executed::Missing(status) if tried == MISSING_TRIES => {
                    return Err(Status::failed_precondition(format!(
                        "the server loses inputs that it was sent: {}",
                        status.message()
                    )));
                }
                Executed::Missing(_) => self.forget(action.blobs.keys()),
            }
        }
    }

    /// Runs an action whose blobs are there. A stream that breaks is taken up again by its operation's
    /// name.
    async fn execute(&self, action: &Digest, runs: &(dyn Fn() + Sync)) -> Result<Executed, Status> {
        let run = self.execute_within(action, runs);
        tokio::time::timeout(self.settings.execution_timeout, run)
            .await
            .unwrap_or_else(|_| {
                Err(Status::deadline_exceeded(format!(
                    "not executed within {} s",
                    self.settings.execution_timeout.as_secs()
                )))
            })
    }

    async fn execute_within(
        &self,
        action: &Digest,
        runs: &(dyn Fn() + Sync),
    ) -> Result<Executed, Status> {
        let mut operation = String::new();
        let mut tried = 0;
        loop {
            tried += 1;
            let waits = !operation.is_empty();
            let sent = self.credentials.now();
            let status = match self.follow(action, &mut operation, runs).await {
                Ok(done) => match finished(done) {
                    Err(status) if is_missing(&status) => return Ok(Executed::Missing(status)),
                    Err(status) => status,
                    done => return done,
                },
                // An operation that the server has forgotten is begun anew.
                Err(status) if status.code() == Code::NotFound && waits => {
                    operation.clear();
                    status
                }
                Err(status) if is_missing(&status) => return Ok(Executed::Missing(status)),
                Err(status) => status,
            };
            let forgotten = status.code() == Code::NotFound;
            if tried < TRIES && self.renewed(&status, sent).await {
                continue;
            }
            if tried >= TRIES || !(may_pass(status.code()) || forgotten) {
                return Err(status);
            }
            pause(tried).await;
        }
    }

    /// Follows an operation to its end, or a new one if there is none yet.
    async fn follow(
        &self,
        action: &Digest,
        operation: &mut String,
        runs: &(dyn Fn() + Sync),
    ) -> Result<Operation, Status> {
        let mut client = api::execution_client::ExecutionClient::new(self.service())
            .max_decoding_message_size(MAX_MESSAGE);
        let opening = async {
            if operation.is_empty() {
                let request = api::ExecuteRequest {
                    instance_name: self.settings.instance.clone(),
                    action_digest: Some(action.to_api()),
                    inline_output_files: vec![crate::backend::OBJECT.into()],
                    inline_stderr: true,
                    inline_stdout: true,
                    ..Default::default()
                };
                client.execute(request).await
            } else {
                let name = operation.clone();
                client
                    .wait_execution(api::WaitExecutionRequest { name })
                    .await
            }
        };
        // A server may answer only when the action has run, so the limit is the execution's.
        let mut stream = opening.await?.into_inner();
        while let Some(said) = stream.message().await? {
            if !said.name.is_empty() {
                said.name.clone_into(operation);
            }
            if said.done {
                return Ok(said);
            }
            let metadata = said.metadata.as_ref();
            let stage =
                metadata.and_then(|any| api::ExecuteOperationMetadata::decode(&*any.value).ok());
            if stage.is_some_and(|m| m.stage() == api::execution_stage::Value::Executing) {
                runs();
            }
        }
        Err(Status::unavailable("the stream ended before the execution"))
    }
}

fn cas(
    service: Service,
) -> api::content_addressable_storage_client::ContentAddressableStorageClient<Service> {
    api::content_addressable_storage_client::ContentAddressableStorageClient::new(service)
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE)
}

/// Up to [`CHUNK`] bytes; fewer only at the end.
fn next_piece(source: &mut (dyn Read + Send)) -> io::Result<Vec<u8>> {
    let mut piece = Vec::with_capacity(CHUNK);
    source.take(CHUNK as u64).read_to_end(&mut piece)?;
    Ok(piece)
}

async fn load(digest: &Digest, content: &Content) -> Result<Vec<u8>, Status> {
    let data = match content {
        Content::Bytes(bytes) => return Ok(bytes.clone()),
        Content::File(file) => tokio::fs::read(file).await?,
    };
    // Written to since it was hashed: no server would take it.
    if data.len() as u64 == digest.size {
        Ok(data)
    } else {
        Err(Status::failed_precondition(
            "an input has changed during the link",
        ))
    }
}

fn check(digest: &Digest, data: Vec<u8>) -> Result<Vec<u8>, Status> {
    if Digest::of(&data) == *digest {
        Ok(data)
    } else {
        Err(Status::data_loss("a blob is not what its digest says"))
    }
}

/// What an operation that is done came to.
fn finished(operation: Operation) -> Result<Executed, Status> {
    let response = match operation.result {
        Some(operation::Result::Error(status)) => return Err(to_status(&status)),
        Some(operation::Result::Response(any)) => any.value,
        None => return Err(Status::internal("an execution ended with nothing")),
    };
    let response = api::ExecuteResponse::decode(&*response)
        .map_err(|e| Status::internal(format!("an execution's answer: {e}")))?;
    if let Some(status) = response.status.filter(|s| s.code != 0) {
        return Err(to_status(&status));
    }
    let result = response.result;
    let result = result.ok_or_else(|| Status::internal("an execution without a result"))?;
    Ok(Executed::Result(Box::new(result), response.cached_result))
}

fn to_status(status: &rpc::Status) -> Status {
    Status::new(Code::from(status.code), status.message.clone())
}

/// "FAILED_PRECONDITION: One or more errors occurred in setting up the action requested, such as a
/// missing input" (remote_execution.proto). buildbox says NOT_FOUND.
fn is_missing(status: &Status) -> bool {
    matches!(status.code(), Code::FailedPrecondition | Code::NotFound)
}

/// Whether a call that failed may succeed when it is made again.
#[must_use]
pub fn may_pass(code: Code) -> bool {
    matches!(
        code,
        Code::Unavailable
            | Code::ResourceExhausted
            | Code::Aborted
            | Code::Internal
            | Code::Unknown
            | Code::Cancelled
    )
}

async fn pause(tried: u32) {
    let most = PAUSE * 2_u32.saturating_pow(tried - 1);
    // Between half and all of it.
    let part = RandomState::new().hash_one(tried) % 512;
    let wait = most / 2 + most * u32::try_from(part).unwrap_or(0) / 1024;
    tokio::time::sleep(wait).await;
}

/// A random version 4 UUID, as ByteStream wants for an upload.
fn uuid() -> String {
    let random = |n: u8| RandomState::new().hash_one(n);
    let (a, b) = (random(0), random(1));
    format!(
        "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
        a >> 32,
        a >> 16 & 0xffff,
        a & 0xfff,
        0x8000 | b >> 48 & 0x3fff,
        b & 0xffff_ffff_ffff
    )
}

/// What a status comes to in one line, for the user; servers' words may be many.
#[must_use]
pub fn in_short(status: &Status) -> String {
    let mut text = format!("{:?}", status.code());
    let words = status.message().lines().next().unwrap_or_default();
    if !words.is_empty() {
        text.push_str(": ");
        text.extend(words.chars().take(160));
    }
    if let Some(cause) = cause(status).filter(|cause| !text.contains(cause.as_str())) {
        text.push_str(&format!(" ({})", cause.lines().next().unwrap_or_default()));
    }
    text
}

/// The first cause of an error, which tonic hides in its sources.
fn cause(error: &dyn std::error::Error) -> Option<String> {
    let first = std::iter::successors(error.source(), |e| e.source()).last();
    first.map(ToString::to_string)
}

/// Whether a call ended because the server closed the connection.
fn hung_up(status: &Status) -> bool {
    let said = in_short(status);
    ["closed", "reset", "broken pipe"]
        .iter()
        .any(|how| said.contains(how))
}
