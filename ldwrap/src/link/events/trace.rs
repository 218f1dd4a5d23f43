//! A trace of one link, in the format that Chrome and Perfetto read (docs/report.md, "The trace").
//!
//! It is kept in memory, and written when the link has ended: a link that is looked at is not to wait for a disk.

use super::{Source, WaitsFor};
use crate::admit::Resource;
use crate::link::attribution::Module;
use crate::sys::write_whole;
use serde_json::{Value, json};
use std::collections::{BTreeSet, HashMap};
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// So many slices are kept; a link of more modules has the first.
const MOST: usize = 200_000;
/// Rows of what was made elsewhere are numbered from here on: no thread has such a number (`pid_max` in `proc(5)`).
const FIRST_ELSEWHERE: u64 = 5_000_000;
/// The phases of a link, in the report's words.
const PHASES: [&str; 5] = ["plan", "turn", "backends", "final", "end"];

/// Something that took some time.
#[derive(Debug)]
pub(super) struct Slice {
    /// Whose, if that is known.
    pub(super) module: Option<Module>,
    pub(super) kind: SliceKind,
    pub(super) row: Row,
    pub(super) start: Instant,
    pub(super) end: Instant,
}

/// What it was.
#[derive(Debug)]
pub(super) enum SliceKind {
    /// A module's object was made, or found.
    Backend {
        source: Source,
        bytes: u64,
        waited: Duration,
        /// For most of that time.
        waited_for: Option<WaitsFor>,
    },
    /// A thread of lld's was about to make an object when lld ended.
    Unfinished,
    /// A module waited.
    Wait(WaitsFor),
}

/// Where it is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Row {
    /// With a thread of lld's.
    Thread(u32),
    /// With what was made elsewhere: in a row that is free then.
    Elsewhere,
}

/// When the phases of a link ended; they began when the one before did, the first with the process.
pub type LinkTimes = [Instant; 5];

/// The trace of one link.
#[derive(Debug)]
pub struct Trace {
    file: PathBuf,
    output: String,
    /// Where objects from elsewhere are made: `server`, `distributor` or `clang`.
    elsewhere: &'static str,
    start: Instant,
    /// lld's major version.
    lld: u32,
    slices: Vec<Slice>,
    dropped: usize,
}

impl Trace {
    /// Of a link with this output, to be written to a directory. `start` is when the link began, `lld` lld's major
    /// version.
    #[must_use]
    pub fn new(
        dir: &Path,
        output: &OsStr,
        elsewhere: &'static str,
        start: Instant,
        lld: u32,
    ) -> Self {
        let mut name = Path::new(output).file_name().unwrap_or(output).to_owned();
        // With what is added to it, a file's name may have 255 bytes.
        if name.len() > 200 {
            name = "link".into();
        }
        name.push(format!("-{}.json", std::process::id()));
        Self {
            file: dir.join(name),
            output: output.to_string_lossy().into_owned(),
            elsewhere,
            start,
            lld,
            slices: Vec::new(),
            dropped: 0,
        }
    }

    pub(super) fn add(&mut self, slice: Slice) {
        if self.slices.len() < MOST {
            self.slices.push(slice);
        } else {
            self.dropped += 1;
        }
    }

    /// Writes it: `ends` is when each phase ended, `modules` has the identifiers of modules that are known by their
    /// numbers only.
    pub fn write(mut self, ends: &LinkTimes, modules: &[Vec<u8>]) -> io::Result<()> {
        let pid = std::process::id();
        let mut events = vec![
            metadata("process_name", pid, pid.into(), &self.output),
            metadata("thread_name", pid, pid.into(), "phases"),
        ];
        let mut begin = self.start;
        for (name, &end) in PHASES.iter().zip(ends) {
            events.push(self.event(name, "phase", (begin, end), pid.into(), json!({})));
            begin = end;
        }
        self.slices.sort_by_key(|slice| slice.start);
        let mut lanes = Lanes::default();
        let mut threads = BTreeSet::new();
        for (number, slice) in numbers(&self.slices).into_iter().zip(&self.slices) {
            let tid = match slice.row {
                Row::Thread(thread) => {
                    threads.insert(thread);
                    thread.into()
                }
                Row::Elsewhere => FIRST_ELSEWHERE + lanes.free_at(slice.start, slice.end),
            };
            events.push(self.slice(number, slice, tid, modules));
        }
        for (number, thread) in threads.into_iter().enumerate() {
            let name = format!("lld thread {}", number + 1);
            events.push(metadata("thread_name", pid, thread.into(), &name));
        }
        for lane in 0..lanes.0.len() as u64 {
            let name = format!("{} {}", self.elsewhere, lane + 1);
            events.push(metadata("thread_name", pid, FIRST_ELSEWHERE + lane, &name));
        }
        let total = ends.last().map_or(0, |end| micros(*end - self.start));
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
        let started = since_epoch
            .map_or(0, micros)
            .saturating_sub(micros(self.start.elapsed()));
        let trace = json!({
            "traceEvents": events,
            "displayTimeUnit": "ms",
            "otherData": {
                "version": 1, "output": self.output, "total_us": total, "lld": self.lld.to_string(),
                "started_us": started, "dropped": self.dropped,
            },
        });
        write_whole(&self.file, &trace.to_string())
    }

    /// The event of a slice.
    fn slice(&self, number: usize, slice: &Slice, tid: u64, modules: &[Vec<u8>]) -> Value {
        let identifier = match &slice.module {
            Some(Module::Named(identifier)) => Some(identifier),
            Some(Module::Number(number)) => modules.get(*number),
            None => None,
        };
        let module = identifier.map_or_else(
            || format!("module {number}"),
            |bytes| String::from_utf8_lossy(bytes).into_owned(),
        );
        let times = (slice.start, slice.end);
        match &slice.kind {
            SliceKind::Wait(what) => {
                let what = self.name_of(*what);
                let name = format!("waits for {what}");
                let args = json!({"module": module, "for": what});
                self.event(&name, "wait", times, tid, args)
            }
            SliceKind::Unfinished => {
                let args = json!({"module": module, "source": "lld", "unfinished": true});
                self.event(&module, "backend", times, tid, args)
            }
            SliceKind::Backend {
                source,
                bytes,
                waited,
                waited_for,
            } => {
                let source = match source {
                    Source::Cache => "cache",
                    Source::Lld => "lld",
                    Source::Clang => "clang",
                    Source::Remote => "remote",
                };
                let args = json!({
                    "module": module, "source": source, "bytes": bytes, "waited_us": micros(*waited),
                    "for": waited_for.map(|what| self.name_of(what)),
                });
                self.event(&module, "backend", times, tid, args)
            }
        }
    }

    fn name_of(&self, what: WaitsFor) -> &'static str {
        match what {
            WaitsFor::Resource(Resource::Slot) => "slot",
            WaitsFor::Resource(Resource::Token) => "token",
            WaitsFor::Resource(Resource::Memory) => "memory",
            WaitsFor::Elsewhere => self.elsewhere,
        }
    }

    fn event(
        &self,
        name: &str,
        category: &str,
        (start, end): (Instant, Instant),
        tid: u64,
        args: Value,
    ) -> Value {
        // Both ends are rounded alike, so that what follows each other does not overlap.
        let (from, to) = (micros(start - self.start), micros(end - self.start));
        json!({
            "name": name, "cat": category, "ph": "X", "ts": from, "dur": to.saturating_sub(from),
            "pid": std::process::id(), "tid": tid, "args": args,
        })
    }
}

/// For each slice the number that its module is called by if lld did not tell which it is: backends are counted in the
/// order of their starts, and a wait has the number of its thread's next backend, or the number of all backends if lld
/// ended before that. `slices` are in the order of their starts.
fn numbers(slices: &[Slice]) -> Vec<usize> {
    let is_backend = |slice: &&Slice| !matches!(slice.kind, SliceKind::Wait(_));
    let all = slices.iter().filter(is_backend).count();
    let mut backends = all;
    // From the last to the first, so that a wait finds what its thread did next.
    let mut next_of = HashMap::new();
    let mut numbers: Vec<usize> = slices
        .iter()
        .rev()
        .map(|slice| {
            if !is_backend(&slice) {
                return next_of.get(&slice.row).copied().unwrap_or(all);
            }
            backends -= 1;
            next_of.insert(slice.row, backends);
            backends
        })
        .collect();
    numbers.reverse();
    numbers
}

/// Rows for what overlaps, each with when it is free again.
#[derive(Default)]
struct Lanes(Vec<Instant>);

impl Lanes {
    /// A row that is free at `start`, and then not until `end`. Starts are in order.
    fn free_at(&mut self, start: Instant, end: Instant) -> u64 {
        let free = self.0.iter().position(|until| *until <= start);
        let lane = free.unwrap_or(self.0.len());
        match self.0.get_mut(lane) {
            Some(until) => *until = end,
            None => self.0.push(end),
        }
        lane as u64
    }
}

fn metadata(what: &str, pid: u32, tid: u64, name: &str) -> Value {
    json!({"name": what, "ph": "M", "pid": pid, "tid": tid, "args": {"name": name}})
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_overlaps_is_in_rows_of_its_own() {
        let begin = Instant::now();
        let at = |ms| begin + Duration::from_millis(ms);
        let mut lanes = Lanes::default();
        let rows = [(0, 10), (5, 8), (8, 20), (10, 12), (30, 31)];
        let rows = rows.map(|(start, end)| lanes.free_at(at(start), at(end)));
        assert_eq!(rows, [0, 1, 1, 0, 0]);
    }

    #[test]
    fn a_wait_has_the_number_of_what_its_thread_does_next() {
        let begin = Instant::now();
        let slice = |(thread, start, end, kind)| Slice {
            module: None,
            kind,
            row: Row::Thread(thread),
            start: begin + Duration::from_millis(start),
            end: begin + Duration::from_millis(end),
        };
        let slot = || SliceKind::Wait(WaitsFor::Resource(Resource::Slot));
        let slices = [
            (1, 0, 5, SliceKind::Unfinished),
            (2, 1, 9, slot()),
            (1, 6, 7, SliceKind::Unfinished),
            (2, 9, 10, SliceKind::Unfinished),
            (2, 11, 12, slot()),
        ];
        assert_eq!(numbers(&slices.map(slice)), [0, 2, 1, 2, 3]);
    }

    #[test]
    fn a_trace_is_bounded_and_names_are_escaped() {
        let dir = tempfile::tempdir().unwrap();
        let start = Instant::now();
        let output = OsStr::new("out/a \"b\"\n");
        let mut trace = Trace::new(dir.path(), output, "server", start, 22);
        let slice = || Slice {
            module: Some(Module::Number(1)),
            kind: SliceKind::Wait(WaitsFor::Elsewhere),
            row: Row::Elsewhere,
            start,
            end: start + Duration::from_millis(1),
        };
        for _ in 0..MOST {
            trace.add(slice());
        }
        trace.add(slice());
        assert_eq!((trace.slices.len(), trace.dropped), (MOST, 1));
        trace.slices.truncate(2);
        let file = trace.file.clone();
        let names = [b"w.o".to_vec(), b"x.o\xff".to_vec()];
        trace.write(&[start; 5], &names).unwrap();
        let text = std::fs::read_to_string(file).unwrap();
        let read: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(read["otherData"]["output"], "out/a \"b\"\n");
        let waits: Vec<&Value> = read["traceEvents"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|e| e["cat"] == "wait")
            .collect();
        assert_eq!(waits.len(), 2);
        assert_eq!(waits[0]["args"]["module"], "x.o\u{fffd}");
        assert_eq!(waits[0]["name"], "waits for server");
        assert_ne!(waits[0]["tid"], waits[1]["tid"]);
    }
}
