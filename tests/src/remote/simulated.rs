//! A Remote Execution server that pretends to compile: it waits as long as such a compile was once seen
//! to take, and answers with the object of a filled local cache of ldwrap. It has as many slots as it
//! is told, so that one machine can be the cluster of a link with ten thousand backends.

use super::lock;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bazel_remote_apis::build::bazel::remote::execution::v2 as api;
use bazel_remote_apis::google::bytestream as bytes;
use bazel_remote_apis::google::longrunning::{Operation, operation};
use bazel_remote_apis::google::protobuf::Any;
use prost::Message;
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};
use tokio::sync::Semaphore;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming, async_trait};

/// A blob is large from so many bytes on.
const LARGE: u64 = 1 << 20;

/// Large objects go in pieces of so many bytes.
const PIECE: usize = 256 << 10;
const ZSTD: i32 = api::compressor::Value::Zstd as i32;
/// In names of blobs that come or go compressed.
const PACKED: &str = "compressed-blobs/zstd/";
/// Calls at once on a connection, as many servers have it.
const STREAMS: u32 = 100;

/// How much may be on its way to it in a call before it was read (bytes). Fixed: windows that hyper adapts
/// stay at 160 KiB on a line of 100 Mbit/s and 20 ms, which leaves a third of it idle.
const WINDOW: u32 = 4 << 20;

/// What is pretended.
#[derive(Debug, Clone)]
pub struct Settings {
    /// A filled cache of ldwrap (`LDWRAP_CACHE_DIR`): the results.
    pub cache: PathBuf,
    /// How long compiles of modules of some sizes take. An action takes that of the size next to its
    /// object's.
    pub durations: BTreeMap<u64, Duration>,
    /// How many run at once.
    pub slots: usize,
    /// Blobs may come and go compressed.
    pub zstd: bool,
    /// It executes; else it is a cache that nobody can write to, and has all results from the start.
    pub executes: bool,
}

/// What happened.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Actions that were run.
    pub executed: usize,
    /// The most that ran at once.
    pub most: usize,
    /// Sum of their times.
    pub work: Duration,
    /// The longest of their times.
    pub longest: Duration,
    /// The first call.
    pub first: Option<SystemTime>,
    /// The first execution's call.
    pub first_execution: Option<SystemTime>,
    /// Bytes of blobs that came, as they came.
    pub up: u64,
    /// Bytes of blobs that went, as they went.
    pub down: u64,
    /// Blobs that came or went compressed.
    pub packed: usize,
    /// Bytes of blobs that came, without compression.
    pub blobs_up: u64,
    /// Bytes of blobs that went, without compression.
    pub blobs_down: u64,
}

/// The server.
#[derive(Debug, Clone)]
pub struct Simulated(Arc<ClusterState>);

#[derive(Debug)]
struct ClusterState {
    settings: Settings,
    slots: Semaphore,
    now: Mutex<Now>,
    /// The digest of each action's object, by the action's hash.
    results: HashMap<String, api::Digest>,
    /// Where the objects are, by their hashes.
    objects: HashMap<String, PathBuf>,
}

/// The hashes of actions and the files of their objects, in a local cache of ldwrap
/// (ldwrap/src/cache/objects.rs).
fn entries(cache: &Path) -> Vec<(String, PathBuf)> {
    let list = |dir: &Path| -> Vec<PathBuf> {
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        entries.map(|e| e.path()).collect()
    };
    let objects = cache.join("objects");
    let mut found = Vec::new();
    for key in list(&objects.join("k")) {
        let name = key.file_name().unwrap_or_default().to_string_lossy();
        let action = URL_SAFE_NO_PAD.decode(&*name).expect("the name of a key");
        let text = std::fs::read_link(&key).expect("a key is a link");
        let text = text.to_string_lossy();
        let object = text.split('.').next().unwrap_or_default();
        let path = objects.join("o").join(object);
        found.push((hex(&action), path));
    }
    found
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[derive(Debug, Default)]
struct Now {
    /// With their sizes, as they came.
    blobs: HashMap<String, u64>,
    done: HashSet<String>,
    seen: Seen,
    running: usize,
}

impl Simulated {
    /// A new one, which knows nothing yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        assert!(!settings.durations.is_empty(), "no durations");
        let (mut results, mut objects) = (HashMap::new(), HashMap::new());
        for (action, path) in entries(&settings.cache) {
            let content = std::fs::read(&path).expect("an object of the cache");
            let digest = api::Digest {
                hash: hex(&Sha256::digest(&content)),
                size_bytes: content.len() as i64,
            };
            objects.insert(digest.hash.clone(), path);
            results.insert(action, digest);
        }
        Self(Arc::new(ClusterState {
            slots: Semaphore::new(settings.slots),
            settings,
            now: Mutex::default(),
            results,
            objects,
        }))
    }

    /// What happened so far. From now on it knows nothing but large blobs.
    pub fn forget(&self) -> Seen {
        let mut now = self.now();
        let mut blobs = std::mem::take(&mut now.blobs);
        blobs.retain(|_, size| *size > LARGE);
        std::mem::replace(
            &mut *now,
            Now {
                blobs,
                ..Now::default()
            },
        )
        .seen
    }

    /// Serves.
    pub async fn serve(self, listener: TcpListener) {
        let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
        let most = 64 << 20;
        let storage = api::content_addressable_storage_server::ContentAddressableStorageServer::new(
            self.clone(),
        );
        let byte_stream = bytes::byte_stream_server::ByteStreamServer::new(self.clone());
        tonic::transport::Server::builder()
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(4 * WINDOW)
            .max_concurrent_streams(STREAMS)
            .add_service(api::capabilities_server::CapabilitiesServer::new(
                self.clone(),
            ))
            .add_service(api::action_cache_server::ActionCacheServer::new(
                self.clone(),
            ))
            .add_service(storage.max_decoding_message_size(most))
            .add_service(byte_stream.max_decoding_message_size(most))
            .add_service(api::execution_server::ExecutionServer::new(self))
            .serve_with_incoming(TcpListenerStream::new(listener))
            .await
            .expect("a server");
    }

    fn now(&self) -> MutexGuard<'_, Now> {
        lock(&self.0.now)
    }

    /// Notes that something was asked.
    fn touch(&self) -> MutexGuard<'_, Now> {
        let mut now = self.now();
        now.seen.first.get_or_insert_with(SystemTime::now);
        now
    }

    /// How long an action takes.
    fn takes(&self, result: &api::ActionResult) -> Duration {
        let durations = &self.0.settings.durations;
        let size = result.output_files.iter().filter_map(|f| f.digest.as_ref());
        let size = size.map(|d| u64::try_from(d.size_bytes).unwrap_or(0)).sum();
        let (below, above) = (
            durations.range(..=size).next_back(),
            durations.range(size..).next(),
        );
        let near = below.into_iter().chain(above);
        near.min_by_key(|(known, _)| known.abs_diff(size))
            .map_or(Duration::ZERO, |(_, takes)| *takes)
    }

    /// What an action came to when the cache was filled; with the object itself, if that is wanted.
    fn result(&self, action: &api::Digest, inline: bool) -> Option<api::ActionResult> {
        let digest = self.0.results.get(&action.hash)?.clone();
        let file = api::OutputFile {
            path: "out.o".into(),
            contents: if inline {
                self.object(&digest)?
            } else {
                Vec::new()
            },
            digest: Some(digest),
            ..Default::default()
        };
        Some(api::ActionResult {
            output_files: vec![file],
            ..Default::default()
        })
    }

    fn object(&self, digest: &api::Digest) -> Option<Vec<u8>> {
        std::fs::read(self.0.objects.get(&digest.hash)?).ok()
    }

    /// An object that is on its way.
    fn sent(&self, digest: &api::Digest, packed: bool) -> Result<Vec<u8>, Status> {
        let object = self.object(digest);
        let mut object = object.ok_or_else(|| Status::not_found("no such object"))?;
        let size = object.len() as u64;
        if packed {
            object = zstd::bulk::compress(&object, 1)?;
        }
        self.went(object.len() as u64, size);
        self.now().seen.packed += usize::from(packed);
        Ok(object)
    }

    /// Notes that so many bytes went, for so many of blobs.
    fn went(&self, bytes: u64, blobs: u64) {
        let mut now = self.touch();
        now.seen.down += bytes;
        now.seen.blobs_down += blobs;
    }

    /// A blob that has come. What was compressed is looked at, as any server does.
    fn store(&self, digest: &api::Digest, data: &[u8], packed: bool) -> Result<(), Status> {
        let size = u64::try_from(digest.size_bytes).unwrap_or(0);
        if packed {
            let odd = |_| Status::invalid_argument("no zstd");
            let blob = zstd::bulk::decompress(data, size as usize).map_err(odd)?;
            let hash = Sha256::digest(&blob);
            let hash: String = hash.iter().map(|b| format!("{b:02x}")).collect();
            if hash != digest.hash || blob.len() as u64 != size {
                return Err(Status::invalid_argument("not what its digest says"));
            }
        }
        let mut now = self.touch();
        now.seen.up += data.len() as u64;
        now.seen.blobs_up += size;
        now.seen.packed += usize::from(packed);
        now.blobs.insert(digest.hash.clone(), size);
        Ok(())
    }

    fn compressors(&self) -> Vec<i32> {
        let zstd = self.0.settings.zstd.then_some(ZSTD);
        zstd.into_iter().collect()
    }

    /// Runs an action, in its turn.
    async fn run(
        &self,
        action: &api::Digest,
        inline: bool,
        say: &tokio::sync::mpsc::Sender<Result<Operation, Status>>,
    ) -> Result<api::ExecuteResponse, Status> {
        let stage = |stage: api::execution_stage::Value| {
            let metadata = api::ExecuteOperationMetadata {
                stage: stage.into(),
                ..Default::default()
            };
            Operation {
                name: action.hash.clone(),
                metadata: Some(any(&metadata)),
                ..Default::default()
            }
        };
        let gone = |_| Status::cancelled("nobody listens");
        let queued = stage(api::execution_stage::Value::Queued);
        say.send(Ok(queued)).await.map_err(gone)?;
        let slot = self.0.slots.acquire().await;
        let _slot = slot.map_err(|e| Status::internal(e.to_string()))?;
        let result = self.result(action, inline).ok_or_else(|| {
            Status::invalid_argument(format!("the cache has no result of {}", action.hash))
        })?;
        let takes = self.takes(&result);
        {
            let mut now = self.now();
            now.running += 1;
            now.seen.most = now.seen.most.max(now.running);
        }
        let executing = stage(api::execution_stage::Value::Executing);
        let said = say.send(Ok(executing)).await;
        tokio::time::sleep(takes).await;
        {
            let mut now = self.now();
            now.running -= 1;
            now.seen.executed += 1;
            now.seen.work += takes;
            now.seen.longest = now.seen.longest.max(takes);
            now.done.insert(action.hash.clone());
        }
        said.map_err(gone)?;
        self.went(bytes_of(&result), bytes_of(&result));
        Ok(api::ExecuteResponse {
            result: Some(result),
            ..Default::default()
        })
    }
}

fn bytes_of(result: &api::ActionResult) -> u64 {
    let contents = result.output_files.iter().map(|f| f.contents.len() as u64);
    contents.sum()
}

fn any<M: Message>(message: &M) -> Any {
    Any {
        type_url: String::new(),
        value: message.encode_to_vec(),
    }
}

fn digest(given: Option<api::Digest>) -> Result<api::Digest, Status> {
    given.ok_or_else(|| Status::invalid_argument("no digest"))
}

/// The digest in `.../blobs/HASH/SIZE`.
fn named(name: &str) -> api::Digest {
    let mut parts = name.rsplit('/');
    let size_bytes = parts.next().and_then(|size| size.parse().ok());
    api::Digest {
        size_bytes: size_bytes.unwrap_or(0),
        hash: parts.next().unwrap_or_default().into(),
    }
}

type Answer<T> = Result<Response<T>, Status>;
type Messages<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn not_here<T>() -> Answer<T> {
    Err(Status::unimplemented("not in this server"))
}

#[async_trait]
impl api::capabilities_server::Capabilities for Simulated {
    async fn get_capabilities(
        &self,
        _: Request<api::GetCapabilitiesRequest>,
    ) -> Answer<api::ServerCapabilities> {
        drop(self.touch());
        let sha256 = api::digest_function::Value::Sha256 as i32;
        Ok(Response::new(api::ServerCapabilities {
            cache_capabilities: Some(api::CacheCapabilities {
                digest_functions: vec![sha256],
                max_batch_total_size_bytes: 4 << 20,
                supported_compressors: self.compressors(),
                supported_batch_update_compressors: self.compressors(),
                ..Default::default()
            }),
            execution_capabilities: Some(api::ExecutionCapabilities {
                digest_function: sha256,
                exec_enabled: self.0.settings.executes,
                ..Default::default()
            }),
            ..Default::default()
        }))
    }
}

#[async_trait]
impl api::action_cache_server::ActionCache for Simulated {
    async fn get_action_result(
        &self,
        request: Request<api::GetActionResultRequest>,
    ) -> Answer<api::ActionResult> {
        let request = request.into_inner();
        let inline = !request.inline_output_files.is_empty();
        let action = digest(request.action_digest)?;
        if !self.touch().done.contains(&action.hash) && self.0.settings.executes {
            return Err(Status::not_found("never run"));
        }
        let result = self.result(&action, inline);
        let result = result.ok_or_else(|| Status::not_found("not in the cache"))?;
        self.went(bytes_of(&result), bytes_of(&result));
        Ok(Response::new(result))
    }

    async fn update_action_result(
        &self,
        _: Request<api::UpdateActionResultRequest>,
    ) -> Answer<api::ActionResult> {
        not_here()
    }
}

#[async_trait]
impl api::content_addressable_storage_server::ContentAddressableStorage for Simulated {
    type GetTreeStream = Messages<api::GetTreeResponse>;
    type GetChunkMappingStream = Messages<api::GetChunkMappingResponse>;

    async fn find_missing_blobs(
        &self,
        request: Request<api::FindMissingBlobsRequest>,
    ) -> Answer<api::FindMissingBlobsResponse> {
        let now = self.touch();
        let mut missing = request.into_inner().blob_digests;
        missing.retain(|digest| !now.blobs.contains_key(&digest.hash));
        Ok(Response::new(api::FindMissingBlobsResponse {
            missing_blob_digests: missing,
        }))
    }

    async fn batch_update_blobs(
        &self,
        request: Request<api::BatchUpdateBlobsRequest>,
    ) -> Answer<api::BatchUpdateBlobsResponse> {
        let mut responses = Vec::new();
        for one in request.into_inner().requests {
            let digest = digest(one.digest)?;
            self.store(&digest, &one.data, one.compressor == ZSTD)?;
            responses.push(api::batch_update_blobs_response::Response {
                digest: Some(digest),
                status: None,
            });
        }
        Ok(Response::new(api::BatchUpdateBlobsResponse { responses }))
    }

    async fn batch_read_blobs(
        &self,
        request: Request<api::BatchReadBlobsRequest>,
    ) -> Answer<api::BatchReadBlobsResponse> {
        let request = request.into_inner();
        let packed = self.0.settings.zstd && request.acceptable_compressors.contains(&ZSTD);
        let mut responses = Vec::new();
        for digest in request.digests {
            responses.push(api::batch_read_blobs_response::Response {
                data: self.sent(&digest, packed)?,
                compressor: if packed { ZSTD } else { 0 },
                digest: Some(digest),
                ..Default::default()
            });
        }
        Ok(Response::new(api::BatchReadBlobsResponse { responses }))
    }

    async fn get_tree(&self, _: Request<api::GetTreeRequest>) -> Answer<Self::GetTreeStream> {
        not_here()
    }

    async fn split_blob(
        &self,
        _: Request<api::SplitBlobRequest>,
    ) -> Answer<api::SplitBlobResponse> {
        not_here()
    }

    async fn get_chunk_mapping(
        &self,
        _: Request<api::GetChunkMappingRequest>,
    ) -> Answer<Self::GetChunkMappingStream> {
        not_here()
    }

    async fn splice_blob(
        &self,
        _: Request<api::SpliceBlobRequest>,
    ) -> Answer<api::SpliceBlobResponse> {
        not_here()
    }

    async fn register_chunk_mapping(
        &self,
        _: Request<Streaming<api::RegisterChunkMappingRequest>>,
    ) -> Answer<api::RegisterChunkMappingResponse> {
        not_here()
    }
}

#[async_trait]
impl bytes::byte_stream_server::ByteStream for Simulated {
    type ReadStream = Messages<bytes::ReadResponse>;

    async fn read(&self, request: Request<bytes::ReadRequest>) -> Answer<Self::ReadStream> {
        let name = request.into_inner().resource_name;
        let object = self.sent(&named(&name), name.contains(PACKED))?;
        let pieces: Vec<_> = object
            .chunks(PIECE)
            .map(|data| Ok(bytes::ReadResponse { data: data.into() }))
            .collect();
        Ok(Response::new(Box::pin(tokio_stream::iter(pieces))))
    }

    async fn write(
        &self,
        request: Request<Streaming<bytes::WriteRequest>>,
    ) -> Answer<bytes::WriteResponse> {
        let mut pieces = request.into_inner();
        let (mut name, mut data) = (String::new(), Vec::new());
        while let Some(piece) = pieces.next().await {
            let piece = piece?;
            if name.is_empty() {
                name = piece.resource_name;
            }
            data.extend(piece.data);
        }
        self.store(&named(&name), &data, name.contains(PACKED))?;
        Ok(Response::new(bytes::WriteResponse {
            committed_size: i64::try_from(data.len()).unwrap_or(0),
        }))
    }

    async fn query_write_status(
        &self,
        _: Request<bytes::QueryWriteStatusRequest>,
    ) -> Answer<bytes::QueryWriteStatusResponse> {
        not_here()
    }
}

#[async_trait]
impl api::execution_server::Execution for Simulated {
    type ExecuteStream = Messages<Operation>;
    type WaitExecutionStream = Messages<Operation>;

    async fn execute(&self, request: Request<api::ExecuteRequest>) -> Answer<Self::ExecuteStream> {
        if !self.0.settings.executes {
            return not_here();
        }
        let request = request.into_inner();
        let inline = !request.inline_output_files.is_empty();
        let action = digest(request.action_digest)?;
        {
            let mut now = self.touch();
            now.seen.first_execution.get_or_insert_with(SystemTime::now);
            if !now.blobs.contains_key(&action.hash) {
                return Err(Status::failed_precondition("the action is missing"));
            }
        }
        let (say, said) = tokio::sync::mpsc::channel(4);
        let server = self.clone();
        tokio::spawn(async move {
            let message = match server.run(&action, inline, &say).await {
                Ok(response) => Ok(Operation {
                    name: action.hash,
                    done: true,
                    result: Some(operation::Result::Response(any(&response))),
                    ..Default::default()
                }),
                Err(status) => Err(status),
            };
            let _ = say.send(message).await;
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(said))))
    }

    async fn wait_execution(
        &self,
        _: Request<api::WaitExecutionRequest>,
    ) -> Answer<Self::WaitExecutionStream> {
        Err(Status::not_found("forgotten"))
    }
}
