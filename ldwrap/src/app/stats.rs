//! `ldwrap stats`: what became of all links with one cache directory since the numbers were last set to zero.
//!
//! Each link leaves a line ([`shim::stats_log`]). They are added up in a record of the cache directory when there are
//! many, or somebody asks.

use super::cache::size;
use super::report_lines::{self, Fate, number};
use crate::sys::records::Records;
use serde_json::{Map, Value, json};
use shim::config::Config;
use shim::report::Report;
use shim::stats_log::{SINCE, StatsLog, name_of};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The version of the format (docs/report.md, "Statistics").
const VERSION: u64 = 1;
/// So many reasons are told apart, of so many characters each.
const MOST_REASONS: usize = 100;
const LONGEST_REASON: usize = 120;
/// Under which all further ones are counted.
const OTHER_REASONS: &str = "other reasons";
/// The numbers that are added up: their names in a report, and in the statistics.
const NUMBERS: [(&str, &str); 14] = [
    ("/modules", "modules"),
    ("/cache/hits", "cache_hits"),
    ("/cache/bytes", "cache_bytes"),
    ("/cache/saved_ms", "saved_ms"),
    ("/cache/saved_unknown", "saved_unknown"),
    ("/compiled_by_lld", "compiled_by_lld"),
    ("/compile_ms", "compile_ms"),
    ("/waited_ms", "waited_ms"),
    ("/total_ms", "total_ms"),
    ("/remote/hits", "remote_hits"),
    ("/remote/executed", "remote_executed"),
    ("/remote/local", "remote_local"),
    ("/remote/bytes_up", "remote_bytes_up"),
    ("/remote/bytes_down", "remote_bytes_down"),
];
/// What is added up beside them.
const THROUGH: &str = "through_ldwrap";
const ALONE: &str = "left_to_lld";
const MISSES: &str = "cache_misses";
const UNCACHED: &str = "uncached";
const BY_CLANG: &str = "compiled_by_clang";
const WITH_TROUBLE: &str = "remote_trouble";
const OTHERS: [&str; 6] = [THROUGH, ALONE, MISSES, UNCACHED, BY_CLANG, WITH_TROUBLE];

/// Numbers of many links.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stats {
    /// When the first of them may have ended (seconds since 1970).
    since: u64,
    /// By name.
    numbers: BTreeMap<&'static str, u64>,
    /// Why links were left to lld, and how many for each reason.
    reasons: BTreeMap<String, u64>,
}

impl Stats {
    /// Of no links, from now on.
    fn new() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let names = NUMBERS.iter().map(|(_, name)| *name).chain(OTHERS);
        Self {
            since: since.map_or(0, |since| since.as_secs()),
            numbers: names.map(|name| (name, 0)).collect(),
            reasons: BTreeMap::new(),
        }
    }

    /// What [`Stats::json`] has written; of no links if it is something else.
    fn read(text: &str) -> Self {
        let mut stats = Self::new();
        let Ok(json) = serde_json::from_str::<Value>(text) else {
            return stats;
        };
        if json["version"] != VERSION {
            return stats;
        }
        stats.since = json["since"].as_u64().unwrap_or(stats.since);
        for (name, number) in &mut stats.numbers {
            *number = json[*name].as_u64().unwrap_or(0);
        }
        for (reason, count) in json["reasons"].as_object().into_iter().flatten() {
            stats.count_reason(reason, count.as_u64().unwrap_or(0));
        }
        stats
    }

    fn json(&self) -> Value {
        let mut json = Map::new();
        json.insert("version".into(), VERSION.into());
        json.insert("since".into(), self.since.into());
        for (name, number) in &self.numbers {
            json.insert((*name).to_owned(), (*number).into());
        }
        json.insert("reasons".into(), json!(self.reasons));
        Value::Object(json)
    }

    fn get(&self, name: &str) -> u64 {
        self.numbers.get(name).copied().unwrap_or(0)
    }

    fn add(&mut self, name: &str, more: u64) {
        if let Some(number) = self.numbers.get_mut(name) {
            *number = number.saturating_add(more);
        }
    }

    fn count_reason(&mut self, reason: &str, links: u64) {
        let mut reason: String = reason.chars().take(LONGEST_REASON).collect();
        reason = reason.replace(char::is_control, "?");
        if self.reasons.len() >= MOST_REASONS && !self.reasons.contains_key(&reason) {
            reason = OTHER_REASONS.into();
        }
        let count = self.reasons.entry(reason).or_default();
        *count = count.saturating_add(links);
    }

    /// Adds links by their reports, a line each.
    fn add_reports(&mut self, lines: &[u8]) {
        for report in report_lines::read(lines) {
            self.add_report(&report);
        }
    }

    fn add_report(&mut self, report: &Value) {
        match report_lines::fate(report) {
            Some(Fate::Split) => self.add(THROUGH, 1),
            Some(Fate::LeftToLld(reason)) => {
                self.add(ALONE, 1);
                self.count_reason(reason, 1);
                return;
            }
            None => {
                let since = report[SINCE].as_u64().unwrap_or(self.since);
                self.since = since.min(self.since);
                return;
            }
        }
        for (in_report, name) in NUMBERS {
            self.add(name, number(report, in_report));
        }
        let misses = number(report, "/cache/misses");
        let unused = report["cache"]["unused"] == true;
        self.add(if unused { UNCACHED } else { MISSES }, misses);
        if report["executor"] == "clang" {
            self.add(
                BY_CLANG,
                misses.saturating_sub(number(report, "/compiled_by_lld")),
            );
        }
        self.add(
            WITH_TROUBLE,
            u64::from(report["remote"]["trouble"].is_string()),
        );
    }

    /// For people.
    fn text(&self) -> String {
        let mut text = String::new();
        let links = self.get(THROUGH).saturating_add(self.get(ALONE));
        row(&mut text, "Links", format!("{links:>10}"));
        row(&mut text, "  through ldwrap", self.count(THROUGH));
        row(&mut text, "  left to lld", self.count(ALONE));
        let mut reasons: Vec<_> = self.reasons.iter().collect();
        reasons.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        for (reason, links) in reasons {
            row(&mut text, "", format!("{links:>10} {reason}"));
        }
        if self.get(THROUGH) > 0 {
            self.modules_text(&mut text);
            self.server_text(&mut text);
        }
        text
    }

    /// What became of the modules, and the time.
    fn modules_text(&self, text: &mut String) {
        let modules = self.get("modules");
        let of_modules = |name: &str| {
            let part = self.get(name);
            match modules {
                0 => format!("{part:>10}"),
                _ => format!(
                    "{part:>10}   {:>3} %",
                    u128::from(part) * 100 / u128::from(modules)
                ),
            }
        };
        let seconds = |name: &str| {
            let ms = self.get(name);
            format!("{:>8}.{} s", ms / 1000, ms / 100 % 10)
        };
        row(text, "Modules", self.count("modules"));
        row(text, "  from a cache", of_modules("cache_hits"));
        row(text, "  not in the cache", of_modules(MISSES));
        if self.get(UNCACHED) > 0 {
            row(text, "  with no cache in use", of_modules(UNCACHED));
        }
        row(text, "  compiled by lld", self.count("compiled_by_lld"));
        if self.get(BY_CLANG) > 0 {
            row(text, "  compiled by clang", self.count(BY_CLANG));
        }
        row(text, "Time of all links", seconds("total_ms"));
        row(
            text,
            "  backends",
            seconds("compile_ms") + ", of all cores together",
        );
        let unknown = match self.get("saved_unknown") {
            0 => String::new(),
            unknown => format!(", not counting {unknown} modules of which it is not known"),
        };
        row(
            text,
            "  saved by caches",
            seconds("saved_ms") + ", of all cores together" + &unknown,
        );
        row(
            text,
            "  waited for a turn",
            seconds("waited_ms") + ", of all threads together",
        );
        row(
            text,
            "From caches",
            format!("{:>14}", size(self.get("cache_bytes"))),
        );
    }

    /// What servers did, if there were any.
    fn server_text(&self, text: &mut String) {
        let on_server = [
            "remote_hits",
            "remote_executed",
            "remote_bytes_up",
            WITH_TROUBLE,
        ];
        if on_server.iter().any(|name| self.get(name) > 0) {
            row(text, "Server", String::new());
            row(text, "  from its cache", self.count("remote_hits"));
            row(text, "  compiled there", self.count("remote_executed"));
            row(
                text,
                "  sent",
                format!("{:>14}", size(self.get("remote_bytes_up"))),
            );
            row(
                text,
                "  received",
                format!("{:>14}", size(self.get("remote_bytes_down"))),
            );
            row(text, "  links with trouble", self.count(WITH_TROUBLE));
        }
    }

    fn count(&self, name: &str) -> String {
        format!("{:>10}", self.get(name))
    }
}

/// A line of what people read.
fn row(text: &mut String, name: &str, value: String) {
    let _ = writeln!(text, "{name:<24}{value}");
}

/// Counts a link. What goes wrong with that is no concern of the link's.
pub fn count(config: &Config, report: &Report) {
    let dir = config.cache_dir.as_deref();
    let counted = StatsLog::open(dir).and_then(|log| {
        let long = log.is_long();
        log.append(report)?;
        if long {
            sum_up(dir)?;
        }
        Ok(())
    });
    if let Err(e) = counted {
        log::info!("the link is not counted for 'ldwrap stats': {e}");
    }
}

fn record(dir: Option<&Path>) -> (Records, String) {
    (Records::new(dir, "stats"), name_of(dir))
}

/// Adds what links have left to the record; gives that.
fn sum_up(dir: Option<&Path>) -> io::Result<Stats> {
    StatsLog::open(dir)?.take(|lines| {
        let (records, name) = record(dir);
        let mut stats = records
            .read(&name)
            .map_or_else(Stats::new, |text| Stats::read(&text));
        if !lines.is_empty() {
            stats.add_reports(lines);
            records.write(&name, &stats.json().to_string());
        }
        Ok(stats)
    })
}

/// Shows the statistics, and with `zero` begins anew.
pub fn run(as_json: bool, zero: bool, config: &Config) -> Result<(), String> {
    let dir = config.cache_dir.as_deref();
    let fail = |e: io::Error| format!("the statistics: {e}");
    if zero {
        return StatsLog::open(dir)
            .and_then(|log| {
                log.take(|_| {
                    let (records, name) = record(dir);
                    records.write(&name, &Stats::new().json().to_string());
                    Ok(())
                })
            })
            .map_err(fail);
    }
    let stats = sum_up(dir).map_err(fail)?;
    let text = match as_json {
        true => format!("{}\n", stats.json()),
        false => {
            let since = time_in_words(stats.since);
            let place = dir.map_or_else(|| "none".into(), |dir| dir.display().to_string());
            format!(
                "{:<24}{place}\n{:<24}{since}\n{}",
                "Cache directory",
                "Counted since",
                stats.text()
            )
        }
    };
    super::print(text)
}

/// How long a time (seconds since 1970) is ago, for people; it may be any number.
fn time_in_words(seconds: u64) -> String {
    let time = UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
    let ago = time.and_then(|time| SystemTime::now().duration_since(time).ok());
    ago.map_or_else(|| String::from("?"), ago_in_words)
}

fn ago_in_words(ago: Duration) -> String {
    let seconds = ago.as_secs();
    let (count, unit) = match seconds {
        0..120 => (seconds, "second"),
        120..7200 => (seconds / 60, "minute"),
        7200..172_800 => (seconds / 3600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    format!("{count} {unit}{} ago", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use shim::decide::TOO_SMALL;

    const SPLIT: &str = r#"{"action":"split","reason":"","modules":10,"cache":{"hits":7,"misses":3,"bytes":700,
        "saved_ms":1500,"saved_unknown":1},"compiled_by_lld":3,"compile_ms":900,"total_ms":400,"executor":"local"}"#;

    fn forwarded(reason: &str) -> String {
        json!({"action": "forward", "reason": reason, "total_ms": 1}).to_string()
    }

    #[test]
    fn lines_add_up_and_bad_ones_are_lost_alone() {
        let split = SPLIT.replace('\n', "");
        let uncached = split.replace(r#""misses":3"#, r#""misses":3,"unused":true"#);
        let hostile = [
            "{\"action\":\"spl",
            "[]",
            "\u{0}\u{1}",
            r#"{"action":"split","modules":-5,"cache":7,"remote":[1]}"#,
            r#"{"action":"else","modules":9}"#,
        ];
        let mut lines = vec![split.as_str(), uncached.as_str()];
        lines.extend(hostile);
        let (small, version) = (forwarded(TOO_SMALL), forwarded("--version links nothing"));
        lines.extend([small.as_str(), &small, &version, &split[..split.len() - 1]]);
        let mut stats = Stats::new();
        stats.add_reports(lines.join("\n").as_bytes());
        let get = |name| stats.get(name);
        assert_eq!((get(THROUGH), get(ALONE)), (3, 2));
        assert_eq!(
            (
                get("modules"),
                get("cache_hits"),
                get(MISSES),
                get(UNCACHED)
            ),
            (20, 14, 3, 3)
        );
        assert_eq!((get("saved_ms"), get("compile_ms")), (3000, 1800));
        assert_eq!(
            stats.reasons,
            BTreeMap::from([("too little bitcode".into(), 2)])
        );
        assert_eq!(Stats::read(&stats.json().to_string()), stats);
        let text = stats.text();
        assert!(
            text.contains("  from a cache                  14    70 %\n"),
            "{text}"
        );
        assert!(text.contains("         2 too little bitcode\n"), "{text}");
    }

    #[test]
    fn any_time_has_words() {
        assert_eq!(time_in_words(u64::MAX), "?");
        assert!(time_in_words(0).ends_with(" days ago"));
    }

    #[test]
    fn numbers_and_reasons_are_bounded() {
        let mut stats = Stats::new();
        let many = format!(
            r#"{{"action":"split","modules":{},"cache":{{"hits":1}}}}"#,
            u64::MAX
        );
        stats.add_reports(format!("{many}\n{many}").as_bytes());
        assert_eq!(stats.get("modules"), u64::MAX);
        for n in 0..3 * MOST_REASONS {
            stats.add_report(
                &serde_json::from_str(&forwarded(&format!("{n}\u{1b}{}", "x".repeat(999))))
                    .unwrap(),
            );
        }
        assert_eq!(stats.reasons.len(), MOST_REASONS + 1);
        assert_eq!(stats.reasons[OTHER_REASONS], 2 * MOST_REASONS as u64);
        assert!(stats.json().to_string().len() < 20_000);
        assert!(stats.text().len() < 20_000 && !stats.text().contains('\u{1b}'));
    }

    #[test]
    fn what_is_no_record_counts_as_none() {
        for text in ["", "nonsense", "[]", r#"{"version":9,"modules":3}"#] {
            assert_eq!(Stats::read(text).get("modules"), 0, "{text}");
        }
    }
}
