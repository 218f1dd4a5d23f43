//! What the lines of a report (docs/report.md) say, for those who add links up.
//!
//! A line that is torn or makes no sense is lost, and nothing else.

use serde_json::Value;
use shim::decide::{LINKS_NOTHING, TOO_SMALL};

/// What became of a link.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fate<'r> {
    /// It went through ldwrap.
    Split,
    /// It was left to lld, for this reason.
    LeftToLld(&'r str),
}

/// The lines that are JSON.
pub(super) fn read(text: &[u8]) -> impl Iterator<Item = Value> + '_ {
    text.split(|&b| b == b'\n')
        .filter_map(|line| serde_json::from_slice(line).ok())
}

/// What became of a link; `None` of what linked nothing, or is no link's line.
pub(super) fn fate(report: &Value) -> Option<Fate<'_>> {
    match report["action"].as_str()? {
        "split" => Some(Fate::Split),
        "forward" => match report["reason"].as_str().unwrap_or_default() {
            TOO_SMALL => Some(Fate::LeftToLld("too little bitcode")),
            reason if reason.ends_with(LINKS_NOTHING) => None,
            reason => Some(Fate::LeftToLld(reason)),
        },
        _ => None,
    }
}

/// A number by its JSON pointer; 0 if there is none.
pub(super) fn number(report: &Value, pointer: &str) -> u64 {
    report.pointer(pointer).and_then(Value::as_u64).unwrap_or(0)
}
