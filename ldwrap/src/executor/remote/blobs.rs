//! Blobs: which of them the server has, sending those that it lacks, and getting objects.
//!
//! A job's execution can begin when the last of its inputs is there, so what counts is not only that
//! the line is busy but in which order blobs are sent: with hundreds of transfers at once, each gets a
//! share of the line, and all end late. So jobs send in the order in which they came, and no more is on
//! its way at once than keeps a long line full. What the server lacks is asked for many jobs in one
//! question, ahead of that.

use super::calls::{Caller, MAX_MESSAGE, may_pass, to_status};
use super::connections::{Connections, Service};
use crate::jobs::action::{Content, Digest};
use bazel_remote_apis::build::bazel::remote::execution::v2 as api;
use bazel_remote_apis::google::bytestream as bytes_api;
use futures_util::StreamExt;
use futures_util::future::try_join;
use futures_util::stream::FuturesUnordered;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{OnceCell, OwnedMutexGuard, Semaphore, SemaphorePermit, oneshot};
use tonic::{Code, Status};

/// Blobs up to this size go in batches.
const SMALL: u64 = 256 << 10;
/// A batch is no larger, whatever the server would take: on a slow line it has to be through within
/// the time limit.
const BATCH: u64 = 1 << 20;
/// As the API numbers it.
pub(super) const ZSTD: i32 = api::compressor::Value::Zstd as i32;
/// Size of a piece of a large blob.
const CHUNK: usize = 256 << 10;
/// No object of a compiler is larger (bytes).
const MAX_BLOB: u64 = 4 << 30;
/// Digests in one question for missing blobs, more or less.
const MAX_QUESTION: usize = 5000;
/// Questions at once. Meanwhile the next one grows.
const QUESTIONS: usize = 2;
/// Bytes on their way to the server at once: what a line of 1 Gbit/s takes in 30 ms. More would make the
/// first jobs of a slower line wait.
const SENDING: usize = 4 << 20;
/// Bytes on their way from it. What is asked for waits on a line that is busy with what is sent, so
/// that more is needed to keep both directions full; it is bounded for the memory.
const FETCHING: usize = 32 << 20;

/// Whether the server has a blob; locked by who sends it.
type Slot = Arc<tokio::sync::Mutex<bool>>;

/// A blob that is to be sent, by who has locked its slot.
type Claimed<'b> = (Digest, &'b Content, OwnedMutexGuard<bool>);

/// What is known of the server's blobs, and what is on its way.
#[derive(Debug)]
pub(super) struct Blobs {
    caller: Arc<Caller>,
    /// For what is short and answered at once.
    short: Arc<Connections>,
    uploads: Connections,
    downloads: Connections,
    taken: Taken,
    /// What was moved.
    pub(super) traffic: Traffic,
    known: Mutex<HashMap<Digest, Slot>>,
    /// The question that is asked next.
    question: Mutex<Arc<Question>>,
    questions: Semaphore,
    /// Who sends next.
    line: Arc<Line>,
    sending: Semaphore,
    fetching: Semaphore,
}

/// Which blobs does the server lack? Asked once for all who want to know.
#[derive(Debug, Default)]
struct Question {
    digests: Mutex<HashSet<Digest>>,
    answer: OnceCell<Result<Arc<HashSet<Digest>>, Status>>,
}

/// What the server takes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Taken {
    /// The most that a batch may have, in bytes; 0 for no limit.
    pub(super) batch: u64,
    /// Whether streams may be compressed, and whether batches may.
    pub(super) zstd: bool,
    pub(super) zstd_batch: bool,
}

/// What was moved, for the report.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Bytes of blobs sent.
    pub up: AtomicU64,
    /// Bytes of blobs received.
    pub down: AtomicU64,
}

/// Hands a turn from one to the next, by rank.
#[derive(Debug, Default)]
struct Line(Mutex<InLine>);

#[derive(Debug, Default)]
struct InLine {
    taken: bool,
    /// With a number for those of the same rank.
    waiting: BTreeMap<(usize, u64), oneshot::Sender<Turn>>,
    number: u64,
}

/// The turn; whoever drops it hands it on.
#[derive(Debug)]
struct Turn(Arc<Line>);

impl Line {
    /// Waits for the turn. In line from the call on.
    fn turn(self: &Arc<Self>, rank: usize) -> impl Future<Output = Option<Turn>> + use<> {
        let (give, get) = oneshot::channel();
        let mut line = lock(&self.0);
        line.number += 1;
        let number = line.number;
        line.waiting.insert((rank, number), give);
        let free = !std::mem::replace(&mut line.taken, true);
        drop(line);
        if free {
            drop(Turn(self.clone()));
        }
        async { get.await.ok() }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut line = lock(&self.0.0);
        // Who does not wait any more is passed over.
        line.waiting.retain(|_, give| !give.is_closed());
        let Some((_, give)) = line.waiting.pop_first() else {
            line.taken = false;
            return;
        };
        drop(line);
        // One that is not taken is dropped, and so handed on.
        let _ = give.send(Self(self.0.clone()));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits for room for so many bytes, or for all room if it is less.
async fn room(of: &Semaphore, all: usize, bytes: u64) -> Option<SemaphorePermit<'_>> {
    let wanted = usize::try_from(bytes).unwrap_or(all).min(all);
    of.acquire_many(u32::try_from(wanted).unwrap_or(u32::MAX))
        .await
        .ok()
}

impl Blobs {
    /// With connections for questions, for what is sent, and for what is received.
    pub(super) fn new(
        caller: Arc<Caller>,
        short: Arc<Connections>,
        uploads: Connections,
        downloads: Connections,
    ) -> Self {
        Self {
            caller,
            short,
            uploads,
            downloads,
            taken: Taken {
                batch: BATCH,
                zstd: false,
                zstd_batch: false,
            },
            traffic: Traffic::default(),
            known: Mutex::default(),
            question: Mutex::default(),
            questions: Semaphore::new(QUESTIONS),
            line: Arc::default(),
            sending: Semaphore::new(SENDING),
            fetching: Semaphore::new(FETCHING),
        }
    }

    /// The server says what it takes.
    pub(super) fn takes(&mut self, taken: Taken) {
        let batch = match taken.batch {
            0 => BATCH,
            most => BATCH.min(most / 2),
        };
        self.taken = Taken { batch, ..taken };
    }

    /// Forgets that the server has these.
    pub(super) fn forget<'a>(&self, blobs: impl Iterator<Item = &'a Digest>) {
        let mut known = lock(&self.known);
        for digest in blobs {
            known.remove(digest);
        }
    }

    /// Sees to it that the server has these blobs. A blob that several callers want is sent once; if
    /// that fails or is given up, by the next of them. Of those who wait to send, the lowest rank is
    /// next.
    pub async fn provide(
        &self,
        blobs: &HashMap<Digest, Content>,
        rank: usize,
    ) -> Result<(), Status> {
        // In line before the answer is there, and in the jobs' order: answers come in any.
        let in_line = self.line.turn(rank);
        let in_line = async { Ok(in_line.await) };
        let (turn, slots) = try_join(in_line, self.look_up(blobs)).await?;
        let mut others = Vec::new();
        let mut sending = FuturesUnordered::new();
        let mut mine = Vec::new();
        for (digest, content, slot) in slots {
            match slot.clone().try_lock_owned() {
                Ok(there) if *there => {}
                Ok(there) => mine.push((digest, content, there)),
                Err(_) => others.push((digest, content, slot)),
            }
        }
        for batch in self.batches(mine) {
            let room = {
                let room = self.room_to_send(&batch);
                tokio::pin!(room);
                loop {
                    tokio::select! {
                        room = &mut room => break room,
                        Some(sent) = sending.next() => sent?,
                    }
                }
            };
            sending.push(self.send(batch, room));
        }
        drop(turn);
        while let Some(sent) = sending.next().await {
            sent?;
        }
        for (digest, content, slot) in others {
            // One at a time: who waits for another must hold none.
            let there = slot.lock_owned().await;
            if !*there {
                let batch = vec![(digest, content, there)];
                let room = self.room_to_send(&batch).await;
                self.send(batch, room).await?;
            }
        }
        Ok(())
    }

    /// Those of these blobs that the server is not known to have, after asking it.
    async fn look_up<'b>(
        &self,
        blobs: &'b HashMap<Digest, Content>,
    ) -> Result<Vec<(Digest, &'b Content, Slot)>, Status> {
        let unknown: Vec<Digest> = {
            let known = lock(&self.known);
            let unknown = blobs.keys().filter(|digest| !known.contains_key(digest));
            unknown.copied().collect()
        };
        let missing = match unknown.as_slice() {
            [] => Arc::default(),
            unknown => self.missing(unknown).await?,
        };
        let mut known = lock(&self.known);
        for digest in unknown {
            let there = !missing.contains(&digest);
            known
                .entry(digest)
                .or_insert_with(|| Arc::new(tokio::sync::Mutex::new(there)));
        }
        // What was forgotten meanwhile is sent.
        let slot = |(digest, content): (&Digest, &'b Content)| {
            let slot: &Slot = known.entry(*digest).or_default();
            (*digest, content, slot.clone())
        };
        Ok(blobs.iter().map(slot).collect())
    }

    /// Which of these the server lacks; asked together with what others want to know.
    async fn missing(&self, digests: &[Digest]) -> Result<Arc<HashSet<Digest>>, Status> {
        let question = {
            let mut next = lock(&self.question);
            let question = next.clone();
            let mut all = lock(&question.digests);
            all.extend(digests);
            if all.len() >= MAX_QUESTION {
                *next = Arc::default();
            }
            drop(all);
            question
        };
        // If who asks is stopped, the next of those who wait does.
        let ask = || async {
            let _permit = self.questions.acquire().await.ok();
            {
                let mut next = lock(&self.question);
                if Arc::ptr_eq(&next, &question) {
                    *next = Arc::default();
                }
            }
            let found = self
                .caller
                .again(|| async {
                    let mut client = cas(self.short.one());
                    // No more are added: nobody comes to this question by now.
                    let blob_digests = lock(&question.digests).iter().map(Digest::as_api).collect();
                    let request = api::FindMissingBlobsRequest {
                        instance_name: self.caller.settings.instance.clone(),
                        blob_digests,
                        ..Default::default()
                    };
                    Ok(client.find_missing_blobs(request).await?.into_inner())
                })
                .await?;
            let said = found.missing_blob_digests.iter();
            let missing: HashSet<Digest> = said.filter_map(Digest::from_api).collect();
            Ok(Arc::new(missing))
        };
        question.answer.get_or_init(ask).await.clone()
    }

    /// Waits until blobs may be sent.
    async fn room_to_send(&self, batch: &[Claimed<'_>]) -> Option<SemaphorePermit<'_>> {
        let bytes = batch.iter().map(|(digest, ..)| digest.size).sum::<u64>();
        // A large one is read as it is sent.
        let bytes = bytes.min(4 * CHUNK as u64);
        room(&self.sending, SENDING, bytes).await
    }

    /// In what portions blobs are sent: large ones alone, others together.
    fn batches<'b>(&self, blobs: Vec<Claimed<'b>>) -> Vec<Vec<Claimed<'b>>> {
        let (large, small): (Vec<_>, Vec<_>) = blobs
            .into_iter()
            .partition(|(digest, ..)| digest.size > SMALL.min(self.taken.batch));
        let mut batches = Vec::new();
        let mut size = 0;
        for blob in small {
            size += blob.0.size;
            match batches.last_mut() {
                Some(batch) if size <= self.taken.batch => Vec::push(batch, blob),
                _ => {
                    size = blob.0.size;
                    batches.push(vec![blob]);
                }
            }
        }
        batches.extend(large.into_iter().map(|blob| vec![blob]));
        batches
    }

    /// Sends a batch, and marks its blobs as there.
    async fn send(
        &self,
        blobs: Vec<Claimed<'_>>,
        _room: Option<SemaphorePermit<'_>>,
    ) -> Result<(), Status> {
        match blobs.as_slice() {
            [(digest, content, _)] if digest.size > SMALL.min(self.taken.batch) => {
                self.send_large(digest, content).await?;
            }
            blobs => self.send_batch(blobs).await?,
        }
        for (_, _, mut there) in blobs {
            *there = true;
        }
        Ok(())
    }

    async fn send_batch(&self, blobs: &[Claimed<'_>]) -> Result<(), Status> {
        // Read again for each try, which are few, rather than copied for each, of which one is most often
        // enough.
        let (done, sent) = self
            .caller
            .again(|| async {
                let mut requests = Vec::new();
                for (digest, content, _) in blobs {
                    requests.push(self.part_of_batch(digest, content).await?);
                }
                let sent = requests.iter().map(|r| r.data.len() as u64).sum();
                let mut client = cas(self.uploads.one());
                let request = api::BatchUpdateBlobsRequest {
                    instance_name: self.caller.settings.instance.clone(),
                    requests,
                    ..Default::default()
                };
                Ok((client.batch_update_blobs(request).await?.into_inner(), sent))
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

    /// A blob as a batch has it.
    async fn part_of_batch(
        &self,
        digest: &Digest,
        content: &Content,
    ) -> Result<api::batch_update_blobs_request::Request, Status> {
        let data = load(digest, content).await?;
        let packed = self
            .taken
            .zstd_batch
            .then(|| zstd::bulk::compress(&data, 3).ok());
        let (data, compressor) = match packed.flatten() {
            Some(packed) if packed.len() < data.len() => (packed, ZSTD),
            _ => (data, 0),
        };
        Ok(api::batch_update_blobs_request::Request {
            digest: Some(digest.as_api()),
            data,
            compressor,
        })
    }

    async fn send_large(&self, digest: &Digest, content: &Content) -> Result<(), Status> {
        let name = self.resource(&format!("uploads/{}/", uuid()), digest);
        self.caller
            .retry(may_pass, || self.write(&name, digest, content))
            .await
    }

    /// One try at a `ByteStream.Write`, in pieces that are read as they are sent. The time limit is for
    /// each piece: large blobs take their time.
    async fn write(&self, name: &str, digest: &Digest, content: &Content) -> Result<(), Status> {
        let (send, receive) = tokio::sync::mpsc::channel(1);
        let mut client = bytes_api::byte_stream_client::ByteStreamClient::new(self.uploads.one());
        let stream = tokio_stream::wrappers::ReceiverStream::new(receive);
        let mut source: Box<dyn Read + Send + '_> = match content {
            Content::Bytes(bytes) => Box::new(bytes.as_slice()),
            Content::File(file) => Box::new(File::open(file)?),
        };
        if self.taken.zstd {
            source = Box::new(zstd::stream::read::Encoder::new(source, 3)?);
        }
        let (timeout, count) = (self.caller.settings.timeout, AtomicU64::new(0));
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

    /// A large blob's name, under the instance's.
    fn resource(&self, under: &str, digest: &Digest) -> String {
        let instance = match self.caller.settings.instance.as_str() {
            "" => String::new(),
            instance => format!("{instance}/"),
        };
        let kind = match self.taken.zstd {
            true => "compressed-blobs/zstd",
            false => "blobs",
        };
        format!("{instance}{under}{kind}/{digest}")
    }

    /// Gets a blob, and believes it only if it is what its digest says. It comes with its share of the
    /// memory that blobs may take, to be given back when the blob is gone.
    pub async fn fetch(
        &self,
        digest: &Digest,
    ) -> Result<(Vec<u8>, Option<SemaphorePermit<'_>>), Status> {
        if digest.size > MAX_BLOB {
            return Err(Status::out_of_range(format!(
                "an object of {} bytes",
                digest.size
            )));
        }
        if digest.size == 0 {
            return Ok((Vec::new(), None));
        }
        let room = room(&self.fetching, FETCHING, digest.size).await;
        let passes = |code| may_pass(code) || code == Code::DataLoss;
        let read = || async {
            let data = if digest.size <= self.taken.batch {
                self.read_small(digest).await
            } else {
                self.read_large(digest).await
            };
            check(digest, data?)
        };
        Ok((self.caller.retry(passes, read).await?, room))
    }

    async fn read_small(&self, digest: &Digest) -> Result<Vec<u8>, Status> {
        let call = async {
            let mut client = cas(self.downloads.one());
            let request = api::BatchReadBlobsRequest {
                instance_name: self.caller.settings.instance.clone(),
                digests: vec![digest.as_api()],
                acceptable_compressors: self.taken.zstd.then_some(ZSTD).into_iter().collect(),
                ..Default::default()
            };
            Ok::<_, Status>(client.batch_read_blobs(request).await?.into_inner())
        };
        let answer = tokio::time::timeout(self.caller.settings.timeout, call)
            .await
            .map_err(|_| Status::deadline_exceeded("no answer to a download"))??;
        let one = answer.responses.into_iter().next();
        let one = one.ok_or_else(|| Status::data_loss("no blob in the answer"))?;
        match one.status.filter(|s| s.code != 0) {
            Some(status) => Err(to_status(&status)),
            None => {
                let received = one.data.len() as u64;
                self.traffic.down.fetch_add(received, Ordering::Relaxed);
                match one.compressor {
                    ZSTD => unpacked(&one.data, digest),
                    _ => Ok(one.data),
                }
            }
        }
    }

    async fn read_large(&self, digest: &Digest) -> Result<Vec<u8>, Status> {
        let mut client = bytes_api::byte_stream_client::ByteStreamClient::new(self.downloads.one())
            .max_decoding_message_size(MAX_MESSAGE);
        let request = bytes_api::ReadRequest {
            resource_name: self.resource("", digest),
            ..Default::default()
        };
        let slow = || Status::deadline_exceeded("a download does not move");
        let opened = tokio::time::timeout(self.caller.settings.timeout, client.read(request)).await;
        let mut stream = opened.map_err(|_| slow())??.into_inner();
        let mut data = Vec::new();
        while let Some(piece) = tokio::time::timeout(self.caller.settings.timeout, stream.message())
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
        if self.taken.zstd {
            return unpacked(&data, digest);
        }
        Ok(data)
    }
}

/// What compressed data stands for. Memory is taken as it comes, whatever size the server has named.
fn unpacked(data: &[u8], digest: &Digest) -> Result<Vec<u8>, Status> {
    let mut blob = Vec::new();
    zstd::stream::read::Decoder::with_buffer(data)
        .and_then(|decoder| decoder.take(digest.size + 1).read_to_end(&mut blob))
        .map_err(|e| Status::data_loss(format!("a download does not unpack: {e}")))?;
    Ok(blob)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_compressed_is_unpacked_up_to_its_size() {
        let blob = vec![7; 1 << 20];
        let packed = zstd::bulk::compress(&blob, 3).unwrap();
        let digest = Digest::of(&blob);
        assert!(unpacked(&packed, &digest).unwrap() == blob);
        let named = |size| Digest { size, ..digest };
        // More than was named: as much as shows that it is wrong.
        assert_eq!(unpacked(&packed, &named(99)).unwrap().len(), 100);
        assert!(unpacked(&packed, &named(MAX_BLOB)).unwrap() == blob);
        assert!(unpacked(&packed[..packed.len() - 1], &digest).is_err());
        assert!(unpacked(b"no zstd", &digest).is_err());
    }

    #[test]
    fn the_lowest_rank_is_next_and_nobody_is_forgotten() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(async {
            let line = Arc::new(Line::default());
            let first = line.turn(7).await.unwrap();
            let (third, second, gone) = (line.turn(5), line.turn(3), line.turn(1));
            drop(gone);
            let order = Mutex::new(Vec::new());
            let note = async |name, turn: Option<Turn>| {
                lock(&order).push(name);
                drop(turn);
            };
            drop(first);
            // Handed to one that gives up before it looks.
            let given_up = line.turn(4);
            drop(given_up);
            tokio::join!(async { note("third", third.await).await }, async {
                note("second", second.await).await;
            });
            assert_eq!(*lock(&order), ["second", "third"]);
            assert!(line.turn(9).await.is_some());
            assert!(!lock(&line.0).taken);
        });
    }
}
