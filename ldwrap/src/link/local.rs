//! The local engine: lld's own threads, with objects from a cache.
//!
//! lld runs the user's command line with a ThinLTO cache whose directory is none: each of its backend
//! threads looks for `DIR/llvmcache-KEY` before it compiles, makes `DIR/Thin-XXXXXX.tmp.o` when it has
//! code to write, and renames that to the first name when it is whole (`localCache`,
//! llvm/lib/Support/Caching.cpp). The watch reports these three calls and we make them instead of the
//! kernel: a lookup gets our cache's object or finds none, a new file is one in memory, and the rename
//! tells which object it is. So nothing of the link is on a disk but what lld writes anyway, an object
//! needs no attribution to a module (the key names it), and what we cannot do lld does: it compiles.
//!
//! A lookup that finds nothing waits until there may be one more backend ([`crate::admit`]).
//!
//! stdin, stdout and stderr are the user's own, and signals go on to lld. If an answer cannot be given,
//! lld is ended, and the link is to be done by lld alone.
//!
//! # What is kept
//!
//! Objects are put into the cache some at a time, and only while all files that lld has read are as they
//! were when it opened them: lld maps its inputs, so that a backend would read what has been written
//! there since, under a key that was computed before. An object whose thread has written to standard
//! output or error meanwhile is not kept, since a hit would lose the message; and neither is one whose
//! thread has opened a file that no key covers (`.incbin`).

use crate::admit::{Admission, History, LOOK, Limits, Permit, Turn};
use crate::cache::context::{self, Context};
use crate::cache::files::{Files, Identity};
use crate::cache::objects::Cache;
use crate::link::NO_PRUNING;
use crate::link::backends::{Backends, Held};
use crate::link::cached_names::{CachedNames, FIRST_IN_TASK_ORDER};
use crate::link::code_options::{CodeOptions, CoveredFiles};
use crate::link::inputs_read::InputsRead;
use crate::link::keeper::Keeper;
use crate::link::old_lld;
use crate::sys::signals::Forwarded;
use crate::watch::{self, Call, Calls, Listener, Notification, Unanswered, Watched};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::memfd::{MFdFlags, memfd_create};
use shim::cmdline::CommandLine;
use shim::options::Id;
use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// lld's cache directory: one that is always there, and in which no file can be made. A call that we
/// should fail to see finds nothing and leaves nothing.
const DIRECTORY: &str = "/proc";
/// How lookups begin.
const ENTRY: &[u8] = b"/proc/llvmcache-";
/// How the names of new objects begin.
const TEMPORARY: &[u8] = b"/proc/Thin-";
/// What the C library's allocator reads in any thread (`check_may_shrink_heap` and `__get_nprocs` of
/// glibc): the objects know nothing of it.
const ALLOCATOR: [&[u8]; 3] = [
    b"/proc/sys/vm/overcommit_memory",
    b"/sys/devices/system/cpu/online",
    b"/proc/stat",
];

/// Objects wait so long to be kept, so that the files that lld reads are looked at once for many...
const KEEP_AFTER: Duration = Duration::from_millis(500);
/// ... or only this, when no backend compiles: lld is at its last part, which needs one processor.
const KEEP_AFTER_BACKENDS: Duration = Duration::from_millis(2);
/// ... or until there are so many, since each is an open file.
const KEEP_AT: usize = 100;
/// So much is taken of one write at most; lld writes the rest in another.
const MOST_WRITTEN: u64 = 1 << 20;
/// How long lld may take to clean up when it is ended.
const GRACE: Duration = Duration::from_millis(500);

/// A link to be done.
#[derive(Debug)]
pub struct Link<'a> {
    /// The real lld.
    pub lld: &'a Path,
    /// `argv[0]` as it is to see it.
    pub argv0: &'a OsStr,
    /// The rest, as it came.
    pub args: &'a [OsString],
    /// The same, parsed.
    pub cmd: &'a CommandLine,
    /// Where objects are kept.
    pub cache: Option<Arc<Cache>>,
    /// Digests of files that options name.
    pub files: &'a Files,
    /// lld's major version.
    pub major: u32,
    /// What is shared with other links.
    pub limits: &'a Limits,
    /// What this link cost before, and will have cost.
    pub history: Option<&'a History>,
    /// How much bitcode it has, in bytes, as far as that was counted.
    pub bitcode: u64,
}

/// A link that is to be done by lld alone.
#[derive(Debug)]
pub struct Alone {
    /// Why.
    pub reason: String,
    /// How many bytes an lld that had to be ended has written to standard output and standard error.
    pub said: [u64; 2],
}

impl From<String> for Alone {
    fn from(reason: String) -> Self {
        let said = [0; 2];
        Self { reason, said }
    }
}

/// How a link went.
#[derive(Debug)]
pub struct Done {
    /// lld's end.
    pub status: ExitStatus,
    /// Modules whose objects came from the cache.
    pub hits: usize,
    /// Modules that lld compiled.
    pub misses: usize,
    /// When the link's turn was waited for, when lld was started, and when it had ended.
    pub times: [Instant; 3],
}

/// Does the link, or says that it is to be done by lld alone: nothing is left of ours then.
pub fn run(link: &Link<'_>) -> Result<Done, Alone> {
    let options = CodeOptions::of(link.cmd)?;
    if !is_procfs(DIRECTORY) {
        return Err(format!("{DIRECTORY} is not there: lld cannot be watched").into());
    }
    let limit = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_FSIZE);
    if limit.is_ok_and(|(soft, _)| soft != libc::RLIM_INFINITY) {
        // It would hold for objects in memory too, which lld alone makes no files for.
        return Err(String::from("ulimit -f: the size of files is limited").into());
    }
    let names = (link.major < FIRST_IN_TASK_ORDER).then(|| CachedNames::new(ENTRY));
    if names.is_some() {
        old_lld::check(link.cmd)?;
    }
    let arrived = Instant::now();
    let before = link.history.and_then(History::read);
    let admission = Admission::new(link.limits, before);
    let mut turn = Turn::wait(link.limits, link.bitcode, before);
    let signals = Forwarded::block().map_err(|e| format!("signals: {e}"))?;
    let mut command = Command::new(link.lld);
    command.arg0(link.argv0).args(link.args);
    command.arg(format!("--thinlto-cache-dir={DIRECTORY}"));
    command.arg(NO_PRUNING);
    if let Some(threads) = threads(link.cmd, link.limits.jobs) {
        command.arg(format!("--thinlto-jobs={threads}"));
    }
    let begin = Instant::now();
    let Watched { child, listener } =
        watch::spawn(command, Calls::RenamesAndMessages).map_err(|e| e.to_string())?;
    turn.begun(child.id());
    let backends = Backends::new(child.id(), admission);
    let engine = Engine {
        link,
        options,
        listener,
        child,
        context: None,
        covered: HashMap::new(),
        inputs: InputsRead::default(),
        backends,
        new_objects: HashMap::new(),
        waiting: Vec::new(),
        kept_at: begin,
        keeper: link.cache.clone().map(Keeper::new),
        hits: HashSet::new(),
        misses: HashSet::new(),
        names,
        said: [0; 2],
        held_back: [Vec::new(), Vec::new()],
    };
    engine.run(&signals, [arrived, begin])
}

/// How many backend threads lld is to be told to make, if it is to be told: not more than may compile,
/// since each keeps the memory that it once had. lld's own number knows nothing of control groups.
fn threads(cmd: &CommandLine, jobs: usize) -> Option<usize> {
    let Some(asked) = cmd.thinlto_jobs() else {
        // SAFETY: no pointers.
        let processors = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) };
        return (i64::try_from(jobs) != Ok(processors)).then_some(jobs);
    };
    let many = match asked.to_str()?.parse::<usize>() {
        Ok(asked) => asked == 0 || asked > jobs,
        Err(_) => asked == "all",
    };
    many.then_some(jobs)
}

fn is_procfs(path: &str) -> bool {
    nix::sys::statfs::statfs(path)
        .is_ok_and(|fs| fs.filesystem_type() == nix::sys::statfs::PROC_SUPER_MAGIC)
}

struct Engine<'a> {
    link: &'a Link<'a>,
    options: CodeOptions,
    listener: Listener,
    child: Child,
    /// What keys begin with, once it was asked for: none where there is no cache to be used.
    context: Option<Option<Context>>,
    /// Files whose content is in the context, by the name that lld opens.
    covered: CoveredFiles,
    inputs: InputsRead,
    backends: Backends,
    /// Objects that are being written, by name.
    new_objects: HashMap<Vec<u8>, File>,
    /// Objects to be kept, by lld's key.
    waiting: Vec<(Vec<u8>, File)>,
    kept_at: Instant,
    keeper: Option<Keeper>,
    hits: HashSet<(u32, Vec<u8>)>,
    misses: HashSet<(u32, Vec<u8>)>,
    /// What an old lld calls objects, which it would not without a cache.
    names: Option<CachedNames>,
    /// How many bytes have gone to standard output and standard error.
    said: [u64; 2],
    /// Of an old lld's output, what may be the beginning of such a name.
    held_back: [Vec<u8>; 2],
}

impl Engine<'_> {
    /// The link, which arrived and began at these times.
    fn run(mut self, signals: &Forwarded, times: [Instant; 2]) -> Result<Done, Alone> {
        match self.serve(signals) {
            Ok(status) => {
                let end = Instant::now();
                self.remember_cost();
                self.keep();
                self.finish_names();
                Ok(Done {
                    status,
                    hits: self.hits.len(),
                    misses: self.misses.len(),
                    times: [times[0], times[1], end],
                })
            }
            Err(e) => {
                self.end_lld();
                Err(Alone {
                    reason: format!("watching lld: {e}"),
                    said: self.said,
                })
            }
        }
    }

    /// Answers lld until it ends.
    fn serve(&mut self, signals: &Forwarded) -> io::Result<ExitStatus> {
        let ended = pidfd(self.child.id())?;
        let mut watched = true;
        loop {
            let listener = if watched {
                PollFlags::POLLIN
            } else {
                PollFlags::empty()
            };
            let mut fds = [
                PollFd::new(ended.as_fd(), PollFlags::POLLIN),
                PollFd::new(signals.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.listener.as_fd(), listener),
            ];
            // Without any process under the filter the descriptor is hung up for good.
            let n = if watched { 3 } else { 2 };
            let fds = fds.get_mut(..n).unwrap_or_default();
            match poll(fds, self.timeout()) {
                Err(Errno::EINTR) => continue,
                Err(e) => return Err(e.into()),
                Ok(0) => {
                    if self.keep_at().is_some_and(|at| at <= Instant::now()) {
                        self.keep();
                    }
                    self.look().map_err(|Unanswered(e)| e)?;
                    continue;
                }
                Ok(_) => {}
            }
            let has = |n: usize, flag| {
                let events = fds.get(n).and_then(PollFd::revents);
                events.is_some_and(|e| e.intersects(flag))
            };
            let (calls, hung_up) = (has(2, PollFlags::POLLIN), has(2, PollFlags::POLLHUP));
            let (signalled, over) = (has(1, PollFlags::POLLIN), has(0, PollFlags::POLLIN));
            if signalled {
                signals.pass_on(self.child.id());
            }
            if calls {
                if let Some(call) = self.listener.receive()? {
                    self.answer(call).map_err(|Unanswered(e)| e)?;
                }
            } else if hung_up {
                watched = false;
            }
            if self.waiting.len() >= KEEP_AT {
                self.keep();
            }
            self.look().map_err(|Unanswered(e)| e)?;
            // What lld has started and left behind is not waited for.
            if over {
                return self.child.wait();
            }
        }
    }

    /// How long to wait for lld before there is something else to do.
    fn timeout(&self) -> PollTimeout {
        let Some(at) = self
            .keep_at()
            .into_iter()
            .chain(self.backends.look_at())
            .min()
        else {
            return PollTimeout::NONE;
        };
        // Rounded up: poll(2) knows no less than a millisecond.
        let left = at.saturating_duration_since(Instant::now()) + Duration::from_micros(999);
        PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO)
    }

    /// When objects are to be kept.
    fn keep_at(&self) -> Option<Instant> {
        let after = if self.backends.are_idle() {
            KEEP_AFTER_BACKENDS
        } else {
            KEEP_AFTER
        };
        (!self.waiting.is_empty()).then(|| self.kept_at + after)
    }

    fn answer(&mut self, call: Notification) -> Result<(), Unanswered> {
        let Notification { id, thread, call } = call;
        match call {
            Call::Open { path, flags } => {
                let reads = flags & libc::O_ACCMODE == libc::O_RDONLY;
                if let Some(key) = path.strip_prefix(ENTRY)
                    && reads
                {
                    return self.lookup(id, thread, key);
                }
                if path.starts_with(TEMPORARY) && !reads {
                    return self.begin_object(id, path);
                }
                if reads {
                    self.note_read(thread, path);
                }
                self.listener.proceed(id)
            }
            Call::Rename { from, to } => {
                if let Some(key) = to.strip_prefix(ENTRY) {
                    self.end_object(thread, &from, key);
                    return self.listener.succeed(id, 0);
                }
                self.listener.proceed(id)
            }
            Call::Write {
                stream,
                address,
                length,
            } => {
                self.backends.taint(thread);
                let stream = usize::from(stream != libc::STDOUT_FILENO);
                if self.names.is_some() {
                    return self.write(id, thread, stream, address, length);
                }
                self.said[stream] += length;
                self.listener.proceed(id)
            }
        }
    }

    /// A thread looks for its module's object.
    fn lookup(&mut self, id: u64, thread: u32, key: &[u8]) -> Result<(), Unanswered> {
        if self.context.is_none() {
            let context = self.make_context(thread).unwrap_or_else(|e| {
                log::warn!("the cache is not used: {e}");
                None
            });
            self.context = Some(context);
        }
        let found = match (&self.link.cache, &self.context) {
            (Some(cache), Some(Some(context))) => cache.find(&context.key(key)),
            _ => None,
        };
        self.backends.arrives(thread);
        let key = key.to_vec();
        match found {
            Some(object) => {
                self.hits.insert((thread, key));
                self.listener.hand_over(id, object.as_fd())
            }
            None => {
                let since = Instant::now();
                self.backends.hold(Held {
                    id,
                    thread,
                    key,
                    since,
                });
                self.admit()
            }
        }
    }

    /// Lets lookups go for which there are permits.
    fn admit(&mut self) -> Result<(), Unanswered> {
        while let Some((held, permit)) = self.backends.next_to_begin() {
            self.begin(held, permit)?;
        }
        Ok(())
    }

    /// A thread may compile; unless another link has made its object meanwhile.
    fn begin(&mut self, held: Held, permit: Permit) -> Result<(), Unanswered> {
        let lookup = (held.thread, held.key.clone());
        if held.since.elapsed() > LOOK
            && let (Some(cache), Some(Some(context))) = (&self.link.cache, &self.context)
            && let Some(object) = cache.find(&context.key(&held.key))
        {
            self.hits.insert(lookup);
            self.backends.unused(permit);
            return self.listener.hand_over(held.id, object.as_fd());
        }
        self.misses.insert(lookup);
        self.backends.begin(held.thread, held.key, permit);
        self.listener.fail(held.id, libc::ENOENT)
    }

    /// Looks whether lookups may go on, if it is time.
    fn look(&mut self) -> Result<(), Unanswered> {
        if self.backends.look() {
            self.admit()?;
            self.backends.looked();
        }
        self.backends.schedule();
        Ok(())
    }

    /// Remembers what the link has cost, if most of it was compiled.
    fn remember_cost(&self) {
        // What came from the cache cost nothing.
        if self.misses.len() < self.hits.len() {
            return;
        }
        if let (Some(history), Some(cost)) = (self.link.history, self.backends.cost())
            && let Err(e) = history.write(cost)
        {
            log::info!("what the link has cost cannot be remembered: {e}");
        }
    }

    /// An old lld writes: the same, with objects called as they are without a cache.
    fn write(
        &mut self,
        id: u64,
        thread: u32,
        stream: usize,
        address: u64,
        length: u64,
    ) -> Result<(), Unanswered> {
        let length = length.min(MOST_WRITTEN);
        let mut bytes = vec![0; length as usize];
        let Ok(n) = watch::read_memory(thread, address, &mut bytes) else {
            // An address that is none is the kernel's to refuse.
            return self.listener.proceed(id);
        };
        bytes.truncate(n);
        let held = std::mem::take(&mut self.held_back[stream]);
        let mut text = [held, bytes].concat();
        if let Some(names) = &self.names {
            let tail = text.split_off(text.len() - names.unfinished(&text));
            text = self.plain_names(names, &text);
            self.held_back[stream] = tail;
        }
        match write_all(stream, &text) {
            Ok(()) => {
                self.said[stream] += text.len() as u64;
                self.listener.succeed(id, n as i64)
            }
            Err(e) => self
                .listener
                .fail(id, e.raw_os_error().unwrap_or(libc::EIO)),
        }
    }

    fn plain_names(&self, names: &CachedNames, text: &[u8]) -> Vec<u8> {
        names.replace(text, |key| self.is_key(key))
    }

    /// Whether this link has looked for an object of this name.
    fn is_key(&self, key: &[u8]) -> bool {
        let looked_up = self.hits.iter().chain(&self.misses);
        looked_up.into_iter().any(|(_, name)| name == key)
    }

    /// Gives objects their names in what an old lld has written, when it has ended.
    fn finish_names(&mut self) {
        let Some(names) = &self.names else {
            return;
        };
        for stream in 0..2 {
            let text = self.plain_names(names, &self.held_back[stream]);
            let _ = write_all(stream, &text);
        }
        if let Some(map) = self.link.cmd.last(Id::Map).filter(|map| *map != "-") {
            let map = Path::new(map);
            let keys: HashSet<&Vec<u8>> =
                self.hits.iter().chain(&self.misses).map(|k| &k.1).collect();
            let done = names.replace_in_map(map, |key| keys.contains(&key.to_vec()));
            if let Err(e) = done {
                log::warn!("cannot rewrite the map {}: {e}", map.display());
            }
        }
    }

    /// What keys begin with, when lld has loaded all that it runs.
    fn make_context(&mut self, thread: u32) -> io::Result<Option<Context>> {
        if self.link.cache.is_none() {
            return Ok(None);
        }
        let programs = context::programs(thread)?;
        let (options, covered) = self.options.with_content(self.link.files)?;
        let context = Context::of(&programs, &options, self.link.files)?;
        for (path, identity) in &covered {
            self.inputs.add(path, *identity);
        }
        self.covered = covered;
        for program in &programs {
            // The loader has opened libraries under our eyes, by some name; it is the file itself that
            // is not to change any more.
            let identity = Identity::of_path(program)?;
            self.inputs.add(program.as_os_str().as_bytes(), identity);
        }
        if !self.inputs.are_unchanged() {
            return Err(io::Error::other("lld's own files have changed meanwhile"));
        }
        Ok(Some(context))
    }

    /// lld has code to write.
    fn begin_object(&mut self, id: u64, name: Vec<u8>) -> Result<(), Unanswered> {
        let object = memfd_create(c"ldwrap object", MFdFlags::MFD_CLOEXEC);
        let object = File::from(object.map_err(|e| Unanswered(e.into()))?);
        self.listener.hand_over(id, object.as_fd())?;
        self.new_objects.insert(name, object);
        Ok(())
    }

    /// An object is whole.
    fn end_object(&mut self, thread: u32, name: &[u8], key: &[u8]) {
        let made = self.backends.made(thread);
        let object = self.new_objects.remove(name);
        if let (Some(made), Some(object)) = (made, object)
            && made == key
            && matches!(self.context, Some(Some(_)))
        {
            if self.waiting.is_empty() {
                self.kept_at = Instant::now();
            }
            self.waiting.push((made, object));
        }
    }

    /// lld opens a file to read it.
    fn note_read(&mut self, thread: u32, path: Vec<u8>) {
        if ALLOCATOR.contains(&path.as_slice()) {
            return;
        }
        if self.backends.compiles(thread) && !self.covered.contains_key(&path) {
            log::info!("{}: read by a backend", String::from_utf8_lossy(&path));
            self.backends.taint(thread);
        }
        // All that backends read is open before the first of them begins. Later on lld reads what is of
        // no concern to them, among that its own old output while that is being replaced.
        if self.context.is_none() && self.link.cache.is_some() {
            self.inputs.note(path);
        }
    }

    /// Gives the objects that wait to the cache, if all inputs are as they were.
    fn keep(&mut self) {
        self.kept_at = Instant::now();
        if self.waiting.is_empty() {
            return;
        }
        let waiting = std::mem::take(&mut self.waiting);
        let Some(Some(context)) = &self.context else {
            return;
        };
        if !self.inputs.are_unchanged() {
            return;
        }
        let Some(keeper) = &mut self.keeper else {
            return;
        };
        for (key, object) in waiting {
            keeper.keep(context.key(&key), object);
        }
    }

    /// Ends an lld that cannot be answered any more.
    fn end_lld(&mut self) {
        let pid = nix::unistd::Pid::from_raw(self.child.id() as i32);
        // It removes its temporary output when it is asked to end.
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let until = Instant::now() + GRACE;
        while Instant::now() < until && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(2));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Writes to standard output (0) or standard error (1), past any buffer of ours.
fn write_all(stream: usize, mut text: &[u8]) -> io::Result<()> {
    let (stdout, stderr) = (io::stdout(), io::stderr());
    let to = if stream == 0 {
        stdout.as_fd()
    } else {
        stderr.as_fd()
    };
    while !text.is_empty() {
        match nix::unistd::write(to, text) {
            Ok(n) => text = text.get(n..).unwrap_or_default(),
            Err(Errno::EINTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

/// A descriptor that is readable when a child has ended.
fn pidfd(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: plain numbers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just made this descriptor for us, and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lld_has_no_more_threads_than_may_compile() {
        let told = |line: &str| {
            let args: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
            threads(&CommandLine::parse(&args).unwrap(), 5)
        };
        assert_eq!(told("--threads=3"), None);
        assert_eq!(told("--threads=9 --thinlto-jobs=5"), None);
        assert_eq!(told("--threads=1 --thinlto-jobs=6"), Some(5));
        assert_eq!(told("--plugin-opt=jobs=all"), Some(5));
        assert_eq!(told("--thinlto-jobs=0"), Some(5));
        // An error, which is lld's to say.
        assert_eq!(told("--thinlto-jobs=some"), None);
    }
}
