//! What `ldwrap verify` says at the end. That nothing was compared is no success: a build that is found right must
//! have had something to be wrong.

use super::{EQUAL, FORWARDED, NATIVE};
use serde_json::{Value, json};
use std::fmt::Write;
use std::path::Path;
use std::process::ExitStatus;

/// What was found, of all links of a command.
#[derive(Debug, Default)]
pub(super) struct Totals {
    equal: u64,
    differ: u64,
    forwarded: u64,
    native: u64,
    /// Links that failed both ways, in the same words.
    fail: u64,
    /// Of those that were done both ways.
    modules: u64,
}

impl Totals {
    pub(super) fn of(findings: &[Value]) -> Self {
        let mut totals = Self::default();
        for finding in findings {
            let count = match finding["verdict"].as_str() {
                Some(EQUAL) if finding["compared"] == true => &mut totals.equal,
                Some(EQUAL) => &mut totals.fail,
                Some(FORWARDED) => &mut totals.forwarded,
                Some(NATIVE) => &mut totals.native,
                _ => &mut totals.differ,
            };
            *count += 1;
            totals.modules += finding["modules"].as_u64().unwrap_or(0);
        }
        totals
    }

    /// Why a command that ended like this does not count as verified, if it does not. With `require_split`, each link
    /// that has bitcode has to be done both ways.
    pub(super) fn failure(&self, status: ExitStatus, require_split: bool) -> Option<String> {
        let all = self.equal + self.differ + self.forwarded + self.native + self.fail;
        if self.differ > 0 {
            Some(format!("{} differ", links(self.differ)))
        } else if !status.success() {
            Some(format!("the command itself failed: {status}"))
        } else if all == 0 {
            let why = "no link came to ldwrap: is lld the linker (-fuse-ld=lld), and found by COMPILER_PATH or PATH?";
            Some(why.into())
        } else if self.equal == 0 {
            Some("nothing was compared: each link was lld's alone".into())
        } else if require_split && self.forwarded > 0 {
            Some(format!(
                "--require-split: {} with bitcode went to lld alone",
                links(self.forwarded)
            ))
        } else {
            None
        }
    }
}

fn links(number: u64) -> String {
    format!("{number} link{}", if number == 1 { "" } else { "s" })
}

/// Says what was found, and why the command does not count as verified, if it does not.
pub(super) fn text(
    findings: &[Value],
    totals: &Totals,
    failure: Option<&str>,
    keep: Option<&Path>,
) -> String {
    let mut text = String::new();
    for finding in findings {
        let field = |name: &str| finding.get(name).and_then(Value::as_str).unwrap_or("");
        let verdict = field("verdict");
        if verdict != NATIVE {
            let _ = writeln!(text, "{verdict:<9} {}: {}", field("output"), field("text"));
        }
        let lines = finding.get("differences").and_then(Value::as_array);
        for line in lines.into_iter().flatten().filter_map(Value::as_str) {
            let _ = writeln!(text, "          {line}");
        }
    }
    let Totals {
        equal,
        differ,
        forwarded,
        native,
        modules,
        ..
    } = *totals;
    if native > 0 {
        let native = links(native);
        let _ = writeln!(
            text,
            "{NATIVE:<9} {native} without bitcode: lld alone, unchanged"
        );
    }
    if differ > 0 {
        let _ = match keep {
            Some(dir) => writeln!(text, "files that differ are in {}", dir.display()),
            None => writeln!(text, "--keep DIR keeps the files that differ"),
        };
    }
    let compared = links(equal + differ);
    let _ = writeln!(
        text,
        "total     {compared} compared ({modules} modules): {equal} equal, {differ} differ; {} not compared",
        forwarded + native + totals.fail
    );
    if let Some(why) = failure {
        let _ = writeln!(text, "FAILED    {why}");
    }
    text
}

/// The same as one object of JSON (docs/report.md, "Verification").
pub(super) fn as_json(findings: &[Value], totals: &Totals, failure: Option<&str>) -> Value {
    json!({
        "version": 1, "success": failure.is_none(), "reason": failure, "equal": totals.equal,
        "differ": totals.differ, "forwarded": totals.forwarded, "native": totals.native, "fail": totals.fail,
        "modules": totals.modules, "links": findings,
    })
}
