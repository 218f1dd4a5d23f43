//! Every tuned constant of the executors: its unit, what it trades off, and what supports it.
//!
//! "docs, Scaling" stands for the runs of `scripts/bench-remote` that docs/jobs.md shows. They were made
//! with all these values together. "Not measured by itself" marks a value that these runs exercise, but
//! never with another one in its place; "not measured" marks one that was chosen by argument alone. Limits
//! that a protocol or the kernel sets are where they are used.

use std::time::Duration;

// What cores of this machine take from the board.

/// How long a core of this machine waits for the server: for its first answer, for the answer to a lookup,
/// for a worker. A shorter time compiles here what the server is about to deliver, a longer one leaves
/// cores idle. docs/settings.md promises this value. Not measured: others were not compared.
pub(crate) const SERVER_PATIENCE: Duration = Duration::from_secs(2);

/// How many modules of a link lld asks for at once while a distributor has its jobs: each is a thread of lld's that waits, and those
/// behind them are not known to have been compiled before. As many as executions on a server by default (`LDWRAP_REMOTE_JOBS`). Not measured.
pub(crate) const MOST_DISTRIBUTED: usize = 200;

/// How many objects that lld made before its jobs were known, or before their tasks are on the board, are kept to be shared:
/// each is an open file. Not measured: few links have more before there is an index.
pub(crate) const MOST_EARLY_OBJECTS: usize = 256;

/// An execution is a straggler when it takes this many times the median of those that ended. Less
/// duplicates ordinary work, more lets one slow worker hold up the link. Not measured.
pub(super) const STRAGGLER_FACTOR: u32 = 2;

/// How often an idle clang thread looks for stragglers, which announce themselves to nobody. Not measured:
/// short beside the shortest backend worth duplicating, long beside the cost of a look.
pub(super) const STRAGGLER_POLL: Duration = Duration::from_millis(50);

// How many tasks are under way.

/// Weight of a task among those that are being prepared if its module is not small, and so how many of the
/// smallest tasks take the place of a large one. What small tasks wait for is answers, so that many are
/// needed to keep a line busy; many large ones would each get little of it (docs/jobs.md, "Behind a line the
/// order counts"). Not measured by itself (docs, Scaling).
pub(super) const FULL_WEIGHT: usize = 8;

/// Modules from this size on (bytes) have the full weight; below it, weight is in proportion to size. Close
/// to the mean of redis-server's modules, 92 KiB. Not measured by itself (docs, Scaling).
pub(super) const SMALL_MODULE: u64 = 96 << 10;

/// Tasks of full weight that are prepared (looked up, uploaded) on the server beside those that execute, at
/// least. More hides a longer round trip, but the order in which tasks begin is decided earlier, and more
/// shards are in memory. Not measured by itself (docs, Scaling).
pub(super) const MIN_PREPARED: usize = 64;

/// One more task is prepared for this many execution slots: where more jobs end each second, more have to
/// be ready. Not measured by itself (docs, Scaling).
pub(super) const SLOTS_PER_PREPARED: usize = 8;

/// Tasks on the board for each execution slot: one that executes and one that is ready to. Not measured.
pub(super) const TASKS_PER_SLOT: usize = 2;

/// Bound on finished executions whose object is still downloading; generous, so that a full uplink does not
/// idle the downlink. Each holds its shard in memory: docs, Scaling has 134 to 146 MiB in all. Not
/// measured by itself.
pub(super) const MAX_DOWNLOADING: usize = 1000;

// The order of jobs while workers are free.

/// One byte in this many of those to be uploaded is for the largest jobs, the others for the jobs that need
/// fewest bytes. More for the largest shortens the tail, but leaves workers idle at the start. None
/// for them takes 1.09 of the time, all 1.17 (docs/jobs.md, "Behind a line the order counts"); shares between
/// were not compared.
pub(super) const LARGEST_SHARE: i128 = 3;

/// The smallest jobs, one part in this many of all bytes, come last, so that all workers end at about the
/// same time. Fewer leave gaps at the end, more delay jobs that could have begun early. Not measured by
/// itself (docs, Scaling).
pub(super) const TAIL_PART: u64 = 30;

/// A job is cheap if what it needs uploaded is at most this ratio of its own module's size. Cheap jobs go
/// before all others. Not measured by itself.
pub(super) const CHEAP_RATIO: (u64, u64) = (6, 5);

// Giving up on a server.

/// Jobs that fail in a row before the server is given up: a broken server costs this many attempts, while
/// one or two bad jobs do not end remote execution. Not measured.
pub(super) const MAX_CONSECUTIVE_FAILURES: usize = 3;

/// Attempts at a call. With [`FIRST_BACKOFF`], the last one comes 0.35 to 0.7 s after the first: a server's
/// restart is survived only if it is quick, but a dead server costs little. Not measured.
pub(super) const MAX_ATTEMPTS: u32 = 4;

/// Pause before the second attempt at a call; doubled for each further one. Not measured.
pub(super) const FIRST_BACKOFF: Duration = Duration::from_millis(100);

/// How often an action is sent again because the server lost inputs after it had them. Not measured.
pub(super) const MAX_INPUT_ATTEMPTS: usize = 3;

/// How long the end of a link may be delayed by uploads of objects made here, counted from the last object
/// on, and again by files that are still being written. Longer shares more results, shorter ends the link
/// earlier. Not measured.
pub(super) const SHUTDOWN_GRACE: Duration = Duration::from_millis(200);

/// How long objects made here are uploaded while lld writes its output. Not measured.
pub(super) const MAX_LATE_UPLOADS: Duration = Duration::from_secs(10);

/// KiB of objects made here that wait to be uploaded, at most; what is made beyond that is not shared. More
/// would share more over a line that is slower than this machine compiles, at the cost of memory. Not
/// measured.
pub(super) const MAX_UNSHARED_KIB: usize = 256 << 10;

// Threads and wake-ups.

/// Threads for all calls, whose work is TLS, hashing and compression. docs, Scaling: 1.0 to 1.7 ms of
/// processor time a job, less than a core at 335 jobs a second.
pub(super) const NETWORK_THREADS: usize = 2;

/// How often the remote side looks at the board without being notified: bounds the delay should a
/// notification go to another waiter. Not measured: five looks a second cost nothing.
pub(super) const BOARD_POLL: Duration = Duration::from_millis(200);

/// How often a connection attempt looks whether the link still wants it. Not measured: short beside what a
/// user notices.
pub(super) const CANCEL_POLL: Duration = Duration::from_millis(20);

// Connections.

/// Time to connect, if the time limit of calls is not shorter: a host that drops packets is noticed before
/// the limit of a call (30 s by default). Not measured.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How often an idle HTTP/2 connection is pinged, and how long the answer may take: finds a dead connection
/// earlier than the time limit of an execution does, at the cost of a packet each way. Not measured.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// Bytes that the server may send in a call before we have read them: at 1 Gbit/s, what arrives in 17 ms.
/// Fixed, because adaptive windows begin small and grow too late for a link. Not measured by itself.
pub(super) const STREAM_WINDOW: u32 = 2 << 20;

/// The same for all calls of a connection: at 1 Gbit/s, what arrives in 67 ms. Larger windows fill longer
/// lines, at the cost of memory. Not measured by itself.
pub(super) const CONNECTION_WINDOW: u32 = 8 << 20;

/// Executions on one connection. Many servers allow 100 concurrent streams; a call above that would wait
/// for an execution to end. Not measured: some distance to 100.
pub(super) const STREAMS_PER_CONNECTION: usize = 80;

/// Largest message that is sent or accepted (bytes); bounds the memory that a hostile server can make us
/// take. Far above what a batch needs. Not measured.
pub(super) const MAX_MESSAGE: usize = 64 << 20;

/// The same for a result of an action, of which hundreds may come at once. Objects in it that are larger are downloaded,
/// as they are where the server sends none in results. Not measured.
pub(super) const MAX_RESULT: usize = 2 << 20;

// Blobs.

/// Blobs up to this size (bytes) are uploaded in batches, larger ones each in a stream of its own, which
/// costs a call each but needs them in memory only in chunks. Not measured.
pub(super) const MAX_BATCHED_BLOB: u64 = 256 << 10;

/// Bytes in a batch at most, whatever the server would take, and the largest object that is downloaded in
/// one answer. Larger batches save calls, but on a slow line each has to be through within the time limit
/// of a call. Not measured: 1 MiB in 30 s is 0.3 Mbit/s.
pub(super) const MAX_BATCH: u64 = 1 << 20;

/// Size of a message of an uploaded stream (bytes), and how much of a blob is in memory at a time. Not
/// measured.
pub(super) const CHUNK: usize = 256 << 10;

/// Of a streamed blob, this much (bytes) counts against [`UPLOAD_WINDOW`], since it is read as it is sent.
/// Not measured.
pub(super) const STREAM_IN_FLIGHT: u64 = 4 * CHUNK as u64;

/// Bytes that are being uploaded at once: what a line of 1 Gbit/s takes in 34 ms. More would delay the
/// first jobs on a slower line, less would leave a long one idle. Not measured by itself (docs, Scaling:
/// 100 Mbit/s, 20 ms).
pub(super) const UPLOAD_WINDOW: usize = 4 << 20;

/// Bytes that are being downloaded at once. Requests wait on a busy uplink, so more are needed to keep both
/// directions full; the bound is for the memory. Not measured by itself (docs, Scaling: 100 Mbit/s, 20
/// ms).
pub(super) const DOWNLOAD_WINDOW: usize = 32 << 20;

/// Largest object that is accepted (bytes): far above what a compiler makes of one module, so that a hostile
/// digest cannot fill the memory beyond it; lld compiles such a module. Not measured.
pub(super) const MAX_OBJECT: u64 = 1 << 30;

/// Bytes a second that a streamed download has to bring, once the time limit of a call is over: one that drips is given
/// up. Objects in batches have no more than that limit, all in [`DOWNLOAD_WINDOW`] together, so that a line on which they
/// come is fast enough for this. Not measured.
pub(super) const MIN_DOWNLOAD_RATE: u64 = 64 << 10;

/// Messages without data in a download, which no server needs to send. Not measured.
pub(super) const MAX_EMPTY_MESSAGES: usize = 16;

/// Digests in one FindMissingBlobs call, after which the next batch begins. With about 75 bytes each the
/// request stays far below the 4 MiB that gRPC servers accept by default. Not measured.
pub(super) const MAX_DIGESTS: usize = 5000;

/// FindMissingBlobs calls at once. Meanwhile the next batch grows: fewer calls at once mean fewer and
/// larger ones. Not measured by itself; docs, Scaling has the processor time a job.
pub(super) const MISSING_CALLS: usize = 2;

/// Level of zstd for uploads: its default. `scripts/bench-remote` has 0.65 of the size for redis-server's
/// modules; other levels were not compared.
pub(super) const ZSTD_LEVEL: i32 = 3;
