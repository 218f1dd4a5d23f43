//! Files with reports and traces: what a file is, its content says.
//!
//! A report is appended to by links that may be killed, and traces are many: a bad line or file costs itself only, and
//! what is left out because it would be too much for a browser is the oldest. All of that is counted, for the page.

use super::trace::Trace;
use super::{link, trace};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// The largest file that is read, in bytes: a trace of some 500,000 modules.
const LARGEST_FILE: u64 = 256 << 20;

/// The most links of reports on a page.
const MOST_LINKS: usize = 10_000;

/// The most events of traces on a page: it stays below 50 MB.
const MOST_EVENTS: usize = 300_000;

/// What was read of the files that were named.
#[derive(Default)]
pub(super) struct Collected {
    sources: Vec<Source>,
    links: VecDeque<Value>,
    older_links: usize,
    traces: Vec<Value>,
    older_traces: usize,
    events: usize,
}

/// A file or directory that was named, and what was found in it.
struct Source {
    name: String,
    links: usize,
    traces: usize,
    skipped: Skipped,
}

/// What could not be read.
#[derive(Default)]
struct Skipped {
    /// Lines of reports.
    lines: usize,
    /// Events of traces.
    events: usize,
    /// Files of a directory.
    files: usize,
}

impl Collected {
    /// Reads a report, a trace, or a directory of them. Reports are to come in the order of their links, oldest first.
    pub(super) fn add(&mut self, file: &Path) -> io::Result<()> {
        let mut source = Source {
            name: file.to_string_lossy().into_owned(),
            links: 0,
            traces: 0,
            skipped: Skipped::default(),
        };
        if file.is_dir() {
            for entry in newest_first(file)? {
                if self.events >= MOST_EVENTS {
                    self.older_traces += 1;
                } else if self.add_file(&entry, &mut source).is_err() {
                    source.skipped.files += 1;
                }
            }
        } else {
            self.add_file(file, &mut source)?;
        }
        self.sources.push(source);
        Ok(())
    }

    fn add_file(&mut self, file: &Path, source: &mut Source) -> io::Result<()> {
        let mut text = Vec::new();
        let mut input = File::open(file)?.take(LARGEST_FILE + 1);
        input.read_to_end(&mut text)?;
        if text.len() as u64 > LARGEST_FILE {
            let most = LARGEST_FILE >> 20;
            return Err(io::Error::other(format!("larger than {most} MiB")));
        }
        let name = file.file_name().unwrap_or(file.as_os_str());
        let whole = serde_json::from_slice::<Value>(&text).ok();
        match whole.and_then(|value| trace::read(&value, &name.to_string_lossy())) {
            Some(trace) => self.add_trace(trace, source),
            None => self.add_lines(&text, source),
        }
        Ok(())
    }

    fn add_trace(&mut self, trace: Trace, source: &mut Source) {
        self.events += trace.events;
        self.traces.push(trace.json);
        source.traces += 1;
        source.skipped.events += trace.skipped;
    }

    fn add_lines(&mut self, text: &[u8], source: &mut Source) {
        for line in text.split(|&b| b == b'\n') {
            if line.trim_ascii().is_empty() {
                continue;
            }
            let Some(link) = link::read(line) else {
                source.skipped.lines += 1;
                continue;
            };
            source.links += 1;
            self.links.push_back(link);
            if self.links.len() > MOST_LINKS {
                self.links.pop_front();
                self.older_links += 1;
            }
        }
    }

    /// What was left out, in sentences.
    pub(super) fn notes(&self) -> Vec<String> {
        let mut notes: Vec<_> = self.sources.iter().filter_map(Source::note).collect();
        let mut older = |n: usize, what: &str| {
            if n > 0 {
                notes.push(format!("{n} older {what} left out: too many for one page"));
            }
        };
        older(self.older_links, "links are");
        older(self.older_traces, "traces are");
        notes
    }

    /// All of it, for the page.
    pub(super) fn into_json(self) -> Value {
        let notes = self.notes();
        let sources = self.sources.iter();
        json!({
            "sources": sources.map(|source| &source.name).collect::<Vec<_>>(),
            "notes": notes,
            "links": Vec::from(self.links),
            "traces": self.traces,
        })
    }
}

impl Source {
    /// What was not understood in it, if anything.
    fn note(&self) -> Option<String> {
        let Skipped {
            lines,
            events,
            files,
        } = self.skipped;
        let parts = [
            (lines, "line", "that no link wrote"),
            (events, "event", "without a name or a time"),
            (files, "file", "that cannot be read"),
        ];
        let part = |&(n, what, why): &(usize, &str, &str)| {
            let plural = if n == 1 { "" } else { "s" };
            (n > 0).then(|| format!("{n} {what}{plural} {why}"))
        };
        let parts: Vec<_> = parts.iter().filter_map(part).collect();
        let name = &self.name;
        if !parts.is_empty() {
            return Some(format!("{name}: skipped {}", parts.join(", ")));
        }
        (self.links + self.traces == 0).then(|| format!("{name}: no link in it"))
    }
}

/// The JSON files of a directory, by their last change.
fn newest_first(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)?.flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|e| e == "json") && path.is_file() {
            let changed = path.metadata().and_then(|m| m.modified()).ok();
            files.push((changed, path));
        }
    }
    files.sort_by(|a, b| b.cmp(a));
    Ok(files.into_iter().map(|(_, path)| path).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, SystemTime};

    fn collected(files: &[&Path]) -> Collected {
        let mut collected = Collected::default();
        for file in files {
            collected.add(file).unwrap();
        }
        collected
    }

    #[test]
    fn lines_that_are_bad_cost_themselves_only() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("report");
        let text =
            b"{\"action\":\"split\",\"output\":\"a\"}\n\n{\"action\":\"spl\n\xff\n{\"action\":\"forward\"}";
        fs::write(&file, text).unwrap();
        let c = collected(&[&file]);
        assert_eq!(
            c.notes(),
            [format!(
                "{}: skipped 2 lines that no link wrote",
                file.display()
            )]
        );
        let json = c.into_json();
        assert_eq!(json["links"][0]["output"], "a");
        assert_eq!(json["links"][1]["action"], "forward");
        assert_eq!(json["links"].as_array().unwrap().len(), 2);
        assert!(Collected::default().add(&dir.path().join("none")).is_err());
    }

    #[test]
    fn a_directory_of_traces_newest_first() {
        let dir = tempfile::tempdir().unwrap();
        let trace = |name: &str, age: u64, text: &str| {
            let path = dir.path().join(name);
            fs::write(&path, text).unwrap();
            let file = File::options().write(true).open(path).unwrap();
            let time = SystemTime::now() - Duration::from_secs(age);
            file.set_modified(time).unwrap();
        };
        trace("old.json", 60, r#"{"traceEvents":[{}]}"#);
        trace("new.json", 0, r#"{"traceEvents":[]}"#);
        trace("torn.json", 0, r#"{"traceEvents":[{"ph":"X","#);
        trace("notes.txt", 0, "not read");
        fs::create_dir(dir.path().join("d.json")).unwrap();
        let c = collected(&[dir.path()]);
        let note = format!(
            "{}: skipped 1 line that no link wrote, 1 event without a name or a time",
            dir.path().display()
        );
        assert_eq!(c.notes(), [note]);
        let json = c.into_json();
        let files = json["traces"].as_array().unwrap();
        let files: Vec<_> = files.iter().map(|trace| &trace["file"]).collect();
        assert_eq!(files, ["new.json", "old.json"]);
    }

    #[test]
    fn of_too_much_the_newest_stays() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("report");
        let line = |n: usize| format!("{{\"action\":\"split\",\"total_ms\":{n}}}\n");
        fs::write(&file, (0..MOST_LINKS + 2).map(line).collect::<String>()).unwrap();
        let empty = dir.path().join("empty");
        fs::write(&empty, "").unwrap();
        let c = collected(&[&file, &empty]);
        assert_eq!(
            c.notes(),
            [
                format!("{}: no link in it", empty.display()),
                "2 older links are left out: too many for one page".into()
            ]
        );
        assert_eq!(c.into_json()["links"][0]["total_ms"], 2);
    }
}
