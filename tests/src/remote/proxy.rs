//! A gRPC proxy before a real server that answers some calls wrongly, slowly or not at all.
//!
//! It passes messages on as bytes, whatever the method, and looks into those that a [`Fault`] is about.

use super::{Running, local, lock};
use bazel_remote_apis::build::bazel::remote::execution::v2 as api;
use bazel_remote_apis::google::bytestream::ReadResponse;
use bazel_remote_apis::google::longrunning::{Operation, operation};
use futures_util::StreamExt;
use prost::Message;
use prost::bytes::{Buf, BufMut};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::TcpListener;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio_stream::Stream;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::body::Body;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::{Grpc, NamedService, StreamingService};
use tonic::transport::{Certificate, Channel, Endpoint, Identity, Server, ServerTlsConfig};
use tonic::{Code, Request, Response, Status, Streaming};

/// What is done to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing, so that those after it meet later calls.
    Passes,
    /// It is answered with this.
    Error(Code),
    /// It is never answered.
    Hang,
    /// Its stream breaks after the first message.
    Breaks,
    /// Its stream ends after the first message, as if all were said.
    Ends,
    /// A bit of what blobs it returns is another.
    Corrupts,
    /// The blobs that it returns are cut short.
    Truncates,
    /// Its result is that of another action, with a right digest.
    Foreign,
    /// Its result names an object of another digest than its content has.
    WrongDigest,
    /// Its result names an object of two GiB.
    HugeObject,
    /// Its result has no object.
    NoObject,
    /// Its result says that the command failed.
    Fails,
    /// It says that no blob is missing.
    HasAll,
    /// It answers with bytes that are no message.
    Garbage,
    /// Its result has three MiB that nobody has asked for.
    Bloats,
    /// It says that batches have no more than two bytes, so that all blobs are streamed.
    SmallBatches,
    /// Its stream is empty messages, without end.
    Floods,
    /// Of its stream of a blob comes a byte each 300 ms.
    Drips,
}

/// Which calls a fault is for.
#[derive(Debug, Clone)]
pub struct Rule {
    /// The method's name; empty for all.
    pub method: &'static str,
    /// What is done.
    pub fault: Fault,
    /// To how many calls.
    pub times: usize,
}

/// The proxy's certificate and key, and whose certificates it wants of its callers.
#[derive(Debug, Clone)]
pub struct Tls {
    /// Its certificate (PEM).
    pub cert: PathBuf,
    /// Its key (PEM).
    pub key: PathBuf,
    /// Who signs its callers' certificates; none: they need none.
    pub client_ca: Option<PathBuf>,
}

/// How a proxy is.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// The first that matches a call, and is not used up, is used.
    pub rules: Vec<Rule>,
    /// Encrypted.
    pub tls: Option<Tls>,
    /// The tokens that callers may have, and for how many calls each is good; none: they need none.
    pub tokens: Vec<(&'static str, usize)>,
}

/// A proxy, gone with this.
#[derive(Debug)]
pub struct Proxy {
    running: Running,
    state: Arc<ProxyState>,
}

#[derive(Debug)]
struct ProxyState {
    server: Channel,
    settings: Mutex<Settings>,
    /// Calls by method.
    calls: Mutex<BTreeMap<String, usize>>,
    /// Calls that rules have met.
    met: Mutex<usize>,
    /// The first result that was seen.
    first: Mutex<Option<api::ActionResult>>,
}

impl Proxy {
    /// Starts one before the server at a port.
    #[must_use]
    pub fn start(server: u16, settings: Settings) -> Self {
        let (give, take) = std::sync::mpsc::channel();
        let running = Running::start(move |listener| async move {
            let server = Endpoint::from_shared(format!("http://{}", local(server)))
                .expect("an address")
                .connect_lazy();
            let tls = settings.tls.clone();
            let state = Arc::new(ProxyState {
                server,
                settings: Mutex::new(settings),
                calls: Mutex::default(),
                met: Mutex::default(),
                first: Mutex::default(),
            });
            give.send(state.clone()).expect("a waiting thread");
            serve(listener, state, tls).await;
        });
        let state = take.recv().expect("a proxy");
        Self { running, state }
    }

    /// For `LDWRAP_REMOTE`.
    #[must_use]
    pub fn url(&self) -> String {
        let tls = lock(&self.state.settings).tls.is_some();
        let scheme = if tls { "grpcs" } else { "grpc" };
        format!("{scheme}://localhost:{}", self.running.port)
    }

    /// How often a method was called.
    #[must_use]
    pub fn calls(&self, method: &str) -> usize {
        lock(&self.state.calls).get(method).copied().unwrap_or(0)
    }

    /// How many calls rules have met.
    #[must_use]
    pub fn met(&self) -> usize {
        *lock(&self.state.met)
    }
}

async fn serve(listener: TcpListener, state: Arc<ProxyState>, tls: Option<Tls>) {
    let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
    let mut server = Server::builder();
    if let Some(tls) = tls {
        let read = |file: &PathBuf| std::fs::read(file).expect("a PEM file");
        let identity = Identity::from_pem(read(&tls.cert), read(&tls.key));
        let mut config = ServerTlsConfig::new().identity(identity);
        if let Some(ca) = &tls.client_ca {
            config = config.client_ca_root(Certificate::from_pem(read(ca)));
        }
        server = server.tls_config(config).expect("a TLS configuration");
    }
    server
        .add_service(Execution(state.clone()))
        .add_service(ActionCache(state.clone()))
        .add_service(Storage(state.clone()))
        .add_service(Capabilities(state.clone()))
        .add_service(ByteStream(state))
        .serve_with_incoming(TcpListenerStream::new(listener))
        .await
        .expect("a server");
}

/// All services are one; tonic finds them by their names.
macro_rules! services {
    ($($kind:ident $name:literal)*) => {$(
        #[derive(Clone)]
        struct $kind(Arc<ProxyState>);

        impl NamedService for $kind {
            const NAME: &'static str = $name;
        }

        impl Service<http::Request<Body>> for $kind {
            type Response = http::Response<Body>;
            type Error = Infallible;
            type Future = BoxFuture<Self::Response, Infallible>;

            fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
                Poll::Ready(Ok(()))
            }

            fn call(&mut self, request: http::Request<Body>) -> Self::Future {
                let call = Call {
                    state: self.0.clone(),
                    path: request.uri().path().to_owned(),
                };
                let mut grpc = Grpc::new(Raw).max_decoding_message_size(usize::MAX);
                Box::pin(async move { Ok(grpc.streaming(call, request).await) })
            }
        }
    )*};
}

services! {
    Execution "build.bazel.remote.execution.v2.Execution"
    ActionCache "build.bazel.remote.execution.v2.ActionCache"
    Storage "build.bazel.remote.execution.v2.ContentAddressableStorage"
    Capabilities "build.bazel.remote.execution.v2.Capabilities"
    ByteStream "google.bytestream.ByteStream"
}

/// Messages as bytes.
#[derive(Debug, Clone, Copy)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;
    fn encoder(&mut self) -> Self {
        Self
    }
    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;
    fn encode(&mut self, item: Vec<u8>, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;
    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let mut item = vec![0; from.remaining()];
        from.copy_to_slice(&mut item);
        Ok(Some(item))
    }
}

struct Call {
    state: Arc<ProxyState>,
    path: String,
}

type Messages = Pin<Box<dyn Stream<Item = Result<Vec<u8>, Status>> + Send>>;

impl StreamingService<Vec<u8>> for Call {
    type Response = Vec<u8>;
    type ResponseStream = Messages;
    type Future = BoxFuture<Response<Messages>, Status>;

    fn call(&mut self, request: Request<Streaming<Vec<u8>>>) -> Self::Future {
        let (state, path) = (self.state.clone(), self.path.clone());
        Box::pin(async move { state.answer(&path, request).await })
    }
}

impl ProxyState {
    async fn answer(
        self: Arc<Self>,
        path: &str,
        request: Request<Streaming<Vec<u8>>>,
    ) -> Result<Response<Messages>, Status> {
        let method = path.rsplit('/').next().unwrap_or_default().to_owned();
        *lock(&self.calls).entry(method.clone()).or_default() += 1;
        let fault = self.meet(&method, request.metadata())?;
        match fault {
            Some(Fault::Error(code)) => return Err(Status::new(code, "as the test wants it")),
            Some(Fault::Hang) => std::future::pending().await,
            Some(Fault::HasAll) => {
                let answer = api::FindMissingBlobsResponse::default().encode_to_vec();
                return Ok(Response::new(Box::pin(tokio_stream::once(Ok(answer)))));
            }
            Some(Fault::Floods) => {
                let empty = tokio_stream::iter(std::iter::repeat_with(|| Ok(Vec::new())));
                return Ok(Response::new(Box::pin(empty)));
            }
            _ => {}
        }
        let sent = request.into_inner().filter_map(|m| async { m.ok() });
        let mut client =
            tonic::client::Grpc::new(self.server.clone()).max_decoding_message_size(usize::MAX);
        let ready = client.ready().await;
        ready.map_err(|e| Status::unavailable(e.to_string()))?;
        let to = http::uri::PathAndQuery::try_from(path).expect("a path");
        let answer = client.streaming(Request::new(sent), to, Raw).await?;
        let mut count = 0;
        let changed = answer.into_inner().map(move |message| {
            count += 1;
            match fault {
                Some(Fault::Breaks) if count > 1 => {
                    Err(Status::unavailable("broken, as the test wants it"))
                }
                Some(fault) => Ok(self.change(&method, fault, message?)),
                None => {
                    let message: Vec<u8> = message?;
                    self.look(&method, &message);
                    Ok(message)
                }
            }
        });
        Ok(Response::new(match fault {
            Some(Fault::Ends) => Box::pin(changed.take(1)),
            Some(Fault::Drips) => Box::pin(changed.flat_map(drip)),
            _ => Box::pin(changed),
        }))
    }

    /// What is to be done to a call, and whether it may be made at all.
    fn meet(
        &self,
        method: &str,
        headers: &tonic::metadata::MetadataMap,
    ) -> Result<Option<Fault>, Status> {
        let mut settings = lock(&self.settings);
        if !settings.tokens.is_empty() {
            let given = headers.get("authorization").and_then(|v| v.to_str().ok());
            let given = given.and_then(|v| v.strip_prefix("Bearer "));
            let mut tokens = settings.tokens.iter_mut();
            match tokens.find(|(token, _)| given == Some(token)) {
                None => return Err(Status::unauthenticated("no such token")),
                Some((_, 0)) => return Err(Status::unauthenticated("the token has expired")),
                Some((_, left)) => *left -= 1,
            }
        }
        let met = |r: &&mut Rule| (r.method == method || r.method.is_empty()) && r.times > 0;
        let rule = settings.rules.iter_mut().find(met);
        Ok(rule.map(|rule| {
            rule.times -= 1;
            *lock(&self.met) += 1;
            rule.fault
        }))
    }

    /// Remembers the first result.
    fn look(&self, method: &str, message: &[u8]) {
        let _ = change_result(method, message, |result| {
            lock(&self.first).get_or_insert_with(|| result.clone());
        });
    }

    fn change(&self, method: &str, fault: Fault, message: Vec<u8>) -> Vec<u8> {
        if fault == Fault::Garbage {
            return vec![0xff; 7];
        }
        let damage = |data: &mut Vec<u8>| match fault {
            Fault::Corrupts => {
                let middle = data.len() / 2;
                if let Some(byte) = data.get_mut(middle) {
                    *byte ^= 1;
                }
            }
            Fault::Truncates => data.truncate(data.len() / 2),
            _ => {}
        };
        match method {
            "BatchReadBlobs" => {
                let mut all = api::BatchReadBlobsResponse::decode(&*message).expect("an answer");
                all.responses.iter_mut().for_each(|r| damage(&mut r.data));
                all.encode_to_vec()
            }
            "GetCapabilities" if fault == Fault::SmallBatches => {
                let mut all = api::ServerCapabilities::decode(&*message).expect("an answer");
                if let Some(cache) = &mut all.cache_capabilities {
                    cache.max_batch_total_size_bytes = 2;
                }
                all.encode_to_vec()
            }
            "Read" if fault == Fault::Drips => message,
            "Read" => {
                let mut piece = ReadResponse::decode(&*message).expect("an answer");
                damage(&mut piece.data);
                piece.encode_to_vec()
            }
            _ => change_result(method, &message, |result| match fault {
                Fault::Foreign => {
                    let mut first = lock(&self.first);
                    *result = first.get_or_insert_with(|| result.clone()).clone();
                }
                Fault::WrongDigest => {
                    for file in &mut result.output_files {
                        if let Some(digest) = &mut file.digest {
                            digest.hash = "0".repeat(64);
                        }
                    }
                }
                Fault::HugeObject => {
                    for file in &mut result.output_files {
                        if let Some(digest) = &mut file.digest {
                            digest.size_bytes = 2 << 30;
                        }
                    }
                }
                Fault::NoObject => result.output_files.clear(),
                Fault::Bloats => result.output_files.push(api::OutputFile {
                    path: "other".into(),
                    contents: vec![0; 3 << 20],
                    ..api::OutputFile::default()
                }),
                Fault::Fails => result.exit_code = 1,
                _ => result
                    .output_files
                    .iter_mut()
                    .for_each(|f| damage(&mut f.contents)),
            })
            .unwrap_or(message),
        }
    }
}

/// The bytes of a piece of a blob, one by one.
fn drip(message: Result<Vec<u8>, Status>) -> impl Stream<Item = Result<Vec<u8>, Status>> {
    let piece = message.and_then(|message| {
        ReadResponse::decode(&*message).map_err(|e| Status::internal(e.to_string()))
    });
    let bytes = piece.map(|piece| piece.data).unwrap_or_default();
    tokio_stream::iter(bytes).then(|byte| async move {
        tokio::time::sleep(Duration::from_millis(300)).await;
        Ok(ReadResponse { data: vec![byte] }.encode_to_vec())
    })
}

/// Changes the result of an action in an answer; none in answers that have none.
fn change_result(
    method: &str,
    message: &[u8],
    change: impl FnOnce(&mut api::ActionResult),
) -> Option<Vec<u8>> {
    match method {
        "GetActionResult" => {
            let mut result = api::ActionResult::decode(message).ok()?;
            change(&mut result);
            Some(result.encode_to_vec())
        }
        "Execute" | "WaitExecution" => {
            let mut said = Operation::decode(message).ok()?;
            let Some(operation::Result::Response(any)) = &mut said.result else {
                return None;
            };
            let mut response = api::ExecuteResponse::decode(&*any.value).ok()?;
            change(response.result.as_mut()?);
            any.value = response.encode_to_vec();
            Some(said.encode_to_vec())
        }
        _ => None,
    }
}
