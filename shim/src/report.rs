//! The report: one line of JSON a link, appended to `LDWRAP_REPORT`.

use crate::files::append_within_limit;
use serde_json::{Map, Value};
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// What became of one link.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// The output as the command line names it.
    pub output: String,
    /// Split, or forwarded to the real lld.
    pub split: bool,
    /// Why it was forwarded; for a split, why lld compiled what was to be compiled elsewhere.
    pub reason: String,
    /// lld's version, if it was asked for.
    pub lld: Option<String>,
    /// clang's version, if it was asked for.
    pub clang: Option<String>,
    /// Where the backends ran.
    pub executor: Option<&'static str>,
    /// How many ThinLTO modules took part.
    pub modules: Option<usize>,
    /// How many of them lld's own threads compiled.
    pub compiled_by_lld: Option<usize>,
    /// How many modules' objects came from a cache, and how many were compiled.
    pub cache: Option<(usize, usize)>,
    /// How large objects from a cache were, and what it took to compile modules.
    pub objects: Option<Objects>,
    /// What a Remote Execution server did.
    pub remote: Option<Remote>,
    /// Phases in order, in milliseconds.
    pub phases_ms: Vec<(&'static str, u64)>,
    /// Settings that could not be understood.
    pub complaints: Vec<String>,
    /// How lld ended, as a shell tells it: its exit status, or 128 and the signal's number. Not of a link that was handed over.
    pub exit_status: Option<i32>,
    /// From start to end; for a forwarded link, to the moment of handing over.
    pub total_ms: u64,
}

/// Sizes and times of one link's objects.
#[derive(Debug, Clone, Copy, Default)]
pub struct Objects {
    /// Bytes of objects that came from a cache.
    pub cached_bytes: u64,
    /// What compiling took, all modules added up: milliseconds.
    pub compile_ms: u64,
    /// What it once took to compile what came from a cache: milliseconds.
    pub saved_ms: u64,
    /// How many objects from a cache do not count in that, as it is not known of them.
    pub saved_unknown: usize,
    /// Whether there was no cache of ours to look into: none is wanted, or the user has one of lld's own.
    pub cache_unused: bool,
    /// How long modules waited until one more was allowed to be compiled, all added up: milliseconds.
    pub waited_ms: u64,
}

/// What a Remote Execution server did for one link.
#[derive(Debug, Clone, Default)]
pub struct Remote {
    /// Objects that its action cache had.
    pub hits: usize,
    /// Objects that it made.
    pub executed: usize,
    /// Objects that were made on this machine.
    pub local: usize,
    /// Bytes of blobs sent to it.
    pub bytes_up: u64,
    /// Bytes of blobs received.
    pub bytes_down: u64,
    /// What went wrong first.
    pub trouble: Option<String>,
}

impl Report {
    /// The line, without its newline.
    #[must_use]
    pub fn line(&self) -> String {
        let mut o = Map::new();
        let mut put = |k: &str, v: Value| {
            o.insert(k.to_owned(), v);
        };
        put("version", 1.into());
        put("output", self.output.as_str().into());
        put(
            "action",
            if self.split { "split" } else { "forward" }.into(),
        );
        put("reason", self.reason.as_str().into());
        if let Some(v) = &self.lld {
            put("lld", v.as_str().into());
        }
        if let Some(v) = &self.clang {
            put("clang", v.as_str().into());
        }
        if let Some(v) = self.executor {
            put("executor", v.into());
        }
        if let Some(n) = self.modules {
            put("modules", n.into());
        }
        if let Some(n) = self.compiled_by_lld {
            put("compiled_by_lld", n.into());
        }
        if let Some((hits, misses)) = self.cache {
            let mut c = Map::new();
            c.insert("hits".into(), hits.into());
            c.insert("misses".into(), misses.into());
            if let Some(objects) = &self.objects {
                c.insert("bytes".into(), objects.cached_bytes.into());
                c.insert("saved_ms".into(), objects.saved_ms.into());
                c.insert("saved_unknown".into(), objects.saved_unknown.into());
                if objects.cache_unused {
                    c.insert("unused".into(), true.into());
                }
            }
            put("cache", Value::Object(c));
        }
        if let Some(objects) = &self.objects {
            put("compile_ms", objects.compile_ms.into());
            put("waited_ms", objects.waited_ms.into());
        }
        if let Some(r) = &self.remote {
            let mut remote = Map::new();
            remote.insert("hits".into(), r.hits.into());
            remote.insert("executed".into(), r.executed.into());
            remote.insert("local".into(), r.local.into());
            remote.insert("bytes_up".into(), r.bytes_up.into());
            remote.insert("bytes_down".into(), r.bytes_down.into());
            if let Some(trouble) = &r.trouble {
                remote.insert("trouble".into(), trouble.as_str().into());
            }
            put("remote", Value::Object(remote));
        }
        let phases: Map<_, _> = self
            .phases_ms
            .iter()
            .map(|&(k, ms)| (k.to_owned(), Value::from(ms)))
            .collect();
        put("phases_ms", Value::Object(phases));
        if !self.complaints.is_empty() {
            put("complaints", self.complaints.clone().into());
        }
        if let Some(status) = self.exit_status {
            put("exit_status", status.into());
        }
        put("total_ms", self.total_ms.into());
        Value::Object(o).to_string()
    }

    /// Appends the line in one write, so that the lines of concurrent links do not mix. A report that
    /// cannot be written never fails a link; the caller logs the error.
    pub fn append(&self, file: &Path) -> std::io::Result<()> {
        let mut line = self.line();
        line.push('\n');
        append(file, line.as_bytes())
    }
}

/// Appends lines to a report.
pub fn append(file: &Path, lines: &[u8]) -> std::io::Result<()> {
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        // Never to wait for the other end of a FIFO.
        .custom_flags(libc::O_NONBLOCK)
        .open(file)?;
    append_within_limit(&file, lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_json_whatever_the_names() {
        let r = Report {
            output: "a \"b\"\n\u{1}".into(),
            split: true,
            cache: Some((0, 127)),
            phases_ms: vec![("plan", 2), ("index", 98)],
            ..Report::default()
        };
        let line = r.line();
        assert!(!line.contains('\n'));
        let v: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(v["output"], "a \"b\"\n\u{1}");
        assert_eq!(v["cache"]["misses"], 127);
        assert_eq!(v["phases_ms"]["index"], 98);
    }
}
