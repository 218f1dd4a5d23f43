//! A trace (`LDWRAP_TRACE`) as the page has it: the events that the page draws, each a row of numbers, and every name once.
//!
//! Traces are in Chrome's trace event format. Names repeat in waits and imports, and a large link has ten thousands of
//! events: rows with numbers of names keep the page small and quick to read.

use super::link::number;
use serde_json::{Map, Value, json};
use std::collections::HashMap;

/// The link of one trace.
pub(super) struct Trace {
    /// What the page gets of it.
    pub(super) json: Value,
    /// How many events it has.
    pub(super) events: usize,
    /// How many are left out because they are malformed.
    pub(super) skipped: usize,
}

/// The kinds of events that the page draws, as `cat` names them; their place here is their number in a row.
const KINDS: [&str; 3] = ["backend", "phase", "wait"];

/// Reads a trace: an object with `traceEvents`, or only their array. `None` if the value is neither.
pub(super) fn read(value: &Value, file: &str) -> Option<Trace> {
    let given = match value {
        Value::Array(events) => events,
        _ => value.get("traceEvents")?.as_array()?,
    };
    let mut names = Names::default();
    let mut threads = Threads::default();
    let (mut rows, mut skipped) = (Vec::new(), 0);
    for event in given {
        match event.get("ph").and_then(Value::as_str) {
            Some("M") => threads.describe(event),
            // Events of other kinds are other tools', and no fault.
            Some("X") => match row(event, &mut names, &mut threads) {
                Ok(row) => rows.extend(row),
                Err(Malformed) => skipped += 1,
            },
            Some(_) => {}
            None => skipped += 1,
        }
    }
    let begin = rows.iter().map(|row| row.start).min().unwrap_or(0);
    let end = rows.iter().map(|row| row.start.saturating_add(row.length));
    let length = end.max().unwrap_or(0) - begin;
    let other = |name: &str| value.get("otherData").and_then(|other| other.get(name));
    let text = |name: &str| other(name).and_then(Value::as_str).map(str::to_owned);
    let output = text("output").or(threads.process.take());
    let json = json!({
        "file": file,
        "output": output,
        "lld": text("lld"),
        "started_us": other("started_us").and_then(number),
        "not_recorded": other("dropped").and_then(number),
        "total_us": other("total_us").and_then(number).unwrap_or(length),
        "threads": threads.json(),
        "names": names.list,
        "events": rows.iter().map(|row| row.json(begin)).collect::<Vec<_>>(),
    });
    Some(Trace {
        json,
        events: rows.len(),
        skipped,
    })
}

/// An event that cannot be placed.
struct Malformed;

/// An event: what the page draws as one bar.
struct Row {
    kind: usize,
    name: usize,
    thread: usize,
    /// Microseconds.
    start: u64,
    /// Microseconds.
    length: u64,
    details: Value,
}

impl Row {
    /// `begin` is the time of the first event.
    fn json(&self, begin: u64) -> Value {
        json!([
            self.kind,
            self.name,
            self.thread,
            self.start - begin,
            self.length,
            self.details
        ])
    }
}

/// A complete event, if it is of a kind that the page draws.
fn row(event: &Value, names: &mut Names, threads: &mut Threads) -> Result<Option<Row>, Malformed> {
    let args = event.get("args").and_then(Value::as_object);
    let arg = |name: &str| args.and_then(|args| args.get(name));
    let text = |name: &str| arg(name).and_then(Value::as_str);
    let kind = match event.get("cat").and_then(Value::as_str) {
        Some(cat) => KINDS.iter().position(|kind| *kind == cat),
        None => arg("module").map(|_| 0),
    };
    let Some(kind) = kind else { return Ok(None) };
    let start = event.get("ts").and_then(number).ok_or(Malformed)?;
    let name = event.get("name").and_then(Value::as_str);
    // A wait is named by what it waits for, a backend by its module.
    let name = match KINDS.get(kind) {
        Some(&"backend") => text("module").or(name),
        Some(&"wait") => text("for").or(name),
        _ => name,
    };
    let mut details = Map::new();
    for name in ["bytes", "waited_us"] {
        if let Some(n) = arg(name).and_then(number) {
            details.insert(name.into(), n.into());
        }
    }
    for name in ["source", "for", "module"] {
        if let Some(value) = text(name) {
            details.insert(name.into(), names.number(value).into());
        }
    }
    if arg("unfinished") == Some(&Value::Bool(true)) {
        details.insert("unfinished".into(), true.into());
    }
    match arg("imports") {
        Some(Value::Array(list)) => {
            let list = list.iter().filter_map(Value::as_str);
            let list: Vec<_> = list.map(|name| names.number(name)).collect();
            details.insert("imports".into(), list.into());
        }
        Some(count) => {
            if let Some(n) = number(count) {
                details.insert("imports".into(), n.into());
            }
        }
        None => {}
    }
    Ok(Some(Row {
        kind,
        name: names.number(name.ok_or(Malformed)?),
        thread: threads.number(event),
        start,
        length: event.get("dur").and_then(number).unwrap_or(0),
        details: details.into(),
    }))
}

/// Names, each once, in the order in which they come.
#[derive(Default)]
struct Names {
    list: Vec<String>,
    numbers: HashMap<String, usize>,
}

impl Names {
    fn number(&mut self, name: &str) -> usize {
        if let Some(&n) = self.numbers.get(name) {
            return n;
        }
        let n = self.list.len();
        self.list.push(name.to_owned());
        self.numbers.insert(name.to_owned(), n);
        n
    }
}

/// Threads, in the order in which they come, and what metadata says of them.
#[derive(Default)]
struct Threads {
    list: Vec<ThreadId>,
    numbers: HashMap<ThreadId, usize>,
    titles: HashMap<ThreadId, String>,
    /// The name of the first process that has one: the output.
    process: Option<String>,
}

/// Process and thread as the trace has them.
type ThreadId = (u64, u64);

impl Threads {
    fn id(event: &Value) -> ThreadId {
        let number = |name: &str| event.get(name).and_then(number).unwrap_or(0);
        (number("pid"), number("tid"))
    }

    fn describe(&mut self, event: &Value) {
        let name = event.get("args").and_then(|args| args.get("name"));
        let name = name.and_then(Value::as_str).map(str::to_owned);
        match (event.get("name").and_then(Value::as_str), name) {
            (Some("process_name"), Some(name)) => {
                self.process.get_or_insert(name);
            }
            (Some("thread_name"), Some(name)) => {
                self.titles.insert(Self::id(event), name);
            }
            _ => {}
        }
    }

    fn number(&mut self, event: &Value) -> usize {
        let id = Self::id(event);
        *self.numbers.entry(id).or_insert_with(|| {
            self.list.push(id);
            self.list.len() - 1
        })
    }

    /// Their titles, by number.
    fn json(&self) -> Value {
        let title = |id: &ThreadId| match self.titles.get(id) {
            Some(title) => title.clone(),
            None => format!("thread {}", id.1),
        };
        self.list.iter().map(title).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_become_rows() {
        let value = json!({"traceEvents": [
            {"ph": "M", "name": "process_name", "pid": 7, "args": {"name": "app"}},
            {"ph": "M", "name": "thread_name", "pid": 7, "tid": 2, "args": {"name": "lld 1"}},
            {"ph": "X", "cat": "phase", "name": "backends", "ts": 1000, "dur": 500, "pid": 7, "tid": 1},
            {"ph": "X", "cat": "wait", "name": "wait", "ts": 1010, "dur": 5, "pid": 7, "tid": 2,
             "args": {"module": "a.o", "for": "slot"}},
            {"ph": "X", "cat": "backend", "name": "a.o", "ts": 1015.4, "dur": 80, "pid": 7, "tid": 2,
             "args": {"module": "a.o", "source": "lld", "bytes": 99, "waited_us": 5, "imports": ["b.o", 3],
                      "unfinished": true}},
            {"ph": "X", "cat": "backend", "name": "b.o", "ts": 1100, "dur": 20, "pid": 7, "tid": 3,
             "args": {"imports": 4}},
        ], "otherData": {"output": "app", "total_us": 600, "lld": "22.1.8", "started_us": 1_000_000}});
        let trace = read(&value, "app-1.json").unwrap();
        assert_eq!((trace.events, trace.skipped), (4, 0));
        let expected = json!({
        "file": "app-1.json", "output": "app", "lld": "22.1.8", "total_us": 600,
        "started_us": 1_000_000, "not_recorded": null,
        "threads": ["thread 1", "lld 1", "thread 3"],
        "names": ["backends", "slot", "a.o", "lld", "b.o"],
        "events": [
            [1, 0, 0, 0, 500, {}],
            [2, 1, 1, 10, 5, {"for": 1, "module": 2}],
            [0, 2, 1, 15, 80, {"source": 3, "module": 2, "bytes": 99, "waited_us": 5, "imports": [4],
                "unfinished": true}],
            [0, 4, 2, 100, 20, {"imports": 4}],
        ]});
        assert_eq!(trace.json, expected);
    }

    #[test]
    fn what_is_missing_is_done_without_and_what_is_malformed_counts() {
        let value = json!([
            {"ph": "X", "cat": "backend", "name": "a.o", "ts": 5},
            {"ph": "X", "name": "b.o", "ts": 6, "args": {"module": "b.o"}},
            {"ph": "X", "name": "somebody else's", "ts": 6},
            {"ph": "i", "name": "somebody else's"},
            {"ph": "X", "cat": "backend", "name": "no time"},
            {"ph": "X", "cat": "backend", "ts": 7},
            {"ph": "X", "cat": "backend", "name": "before", "ts": -7},
            {"ph": "X", "cat": "backend", "name": "long", "ts": 1e300, "dur": 1e300},
            3, null, {},
        ]);
        let trace = read(&value, "x").unwrap();
        assert_eq!((trace.events, trace.skipped), (3, 6));
        assert_eq!(trace.json["output"], Value::Null);
        let empty = read(&json!({"traceEvents": []}), "x").unwrap();
        assert_eq!(empty.json["total_us"], 0);
        assert!(read(&json!({"traceEvents": 1}), "x").is_none());
        assert!(read(&json!({}), "x").is_none());
    }
}
