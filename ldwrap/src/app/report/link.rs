//! A line of `LDWRAP_REPORT` as the page has it: known fields with the types that they should have, and nothing else.
//!
//! docs/report.md says what the fields mean. A report may be older or newer than this ldwrap, or made by someone else:
//! what is missing or of another type is left out.

use serde_json::{Map, Value, json};

/// Fields that are text.
const TEXTS: [&str; 6] = ["output", "action", "reason", "executor", "lld", "clang"];

/// Fields that are counts or milliseconds.
const NUMBERS: [&str; 3] = ["modules", "compiled_by_lld", "total_ms"];

/// The same within `cache` and `remote`.
const COUNTS: [(&str, &[&str]); 2] = [
    ("cache", &["hits", "misses", "saved_ms"]),
    (
        "remote",
        &["hits", "executed", "local", "bytes_up", "bytes_down"],
    ),
];

/// The largest whole number that JavaScript keeps exactly.
const LARGEST: u64 = (1 << 53) - 1;

/// A link; `None` if the line is none.
pub(super) fn read(line: &[u8]) -> Option<Value> {
    let given: Map<String, Value> = serde_json::from_slice(line).ok()?;
    given.get("action")?.as_str()?;
    let mut link = Map::new();
    for name in TEXTS {
        if let Some(text @ Value::String(_)) = given.get(name) {
            link.insert(name.into(), text.clone());
        }
    }
    copy_numbers(&given, &NUMBERS, &mut link);
    for (name, fields) in COUNTS {
        if let Some(inner) = given.get(name).and_then(Value::as_object) {
            let mut counts = Map::new();
            copy_numbers(inner, fields, &mut counts);
            if let Some(trouble @ Value::String(_)) = inner.get("trouble") {
                counts.insert("trouble".into(), trouble.clone());
            }
            link.insert(name.into(), counts.into());
        }
    }
    if let Some(phases) = given.get("phases_ms").and_then(Value::as_object) {
        let times = phases
            .iter()
            .filter_map(|(name, ms)| Some(json!([name, number(ms)?])));
        link.insert("phases".into(), times.collect());
    }
    if let Some(complaints) = given.get("complaints").and_then(Value::as_array) {
        let texts = complaints.iter().filter(|text| text.is_string()).cloned();
        link.insert("complaints".into(), texts.collect());
    }
    Some(link.into())
}

fn copy_numbers(from: &Map<String, Value>, names: &[&str], to: &mut Map<String, Value>) {
    for &name in names {
        if let Some(n) = from.get(name).and_then(number) {
            to.insert(name.into(), n.into());
        }
    }
}

/// A number that is not negative, rounded to a whole one.
pub(super) fn number(value: &Value) -> Option<u64> {
    let n = match value.as_u64() {
        Some(n) => n,
        // A conversion of a float saturates.
        None => value.as_f64().filter(|n| *n >= 0.0)?.round() as u64,
    };
    Some(n.min(LARGEST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_that_a_link_writes() {
        let report = shim::report::Report {
            output: "app".into(),
            split: true,
            modules: Some(127),
            cache: Some((126, 1)),
            phases_ms: vec![("plan", 2), ("backends", 98)],
            remote: Some(shim::report::Remote {
                hits: 3,
                trouble: Some("late".into()),
                ..Default::default()
            }),
            total_ms: 100,
            ..Default::default()
        };
        let link = read(report.line().as_bytes()).unwrap();
        assert_eq!(link["output"], "app");
        assert_eq!(link["action"], "split");
        assert_eq!(link["modules"], 127);
        assert_eq!(link["cache"], json!({"hits": 126, "misses": 1}));
        assert_eq!(link["remote"]["hits"], 3);
        assert_eq!(link["remote"]["trouble"], "late");
        assert_eq!(link["phases"], json!([["backends", 98], ["plan", 2]]));
        assert_eq!(link["total_ms"], 100);
    }

    #[test]
    fn what_is_not_as_it_should_be_is_left_out() {
        let line = br#"{"action":"forward","output":["x"],"modules":"9","total_ms":-1,"cache":{"hits":1e300},
            "phases_ms":{"plan":1.6,"turn":null},"new":{"html":"<b>"},"complaints":["a",1]}"#;
        let expected = json!({"action": "forward", "cache": {"hits": LARGEST}, "phases": [["plan", 2]],
            "complaints": ["a"]});
        assert_eq!(read(line), Some(expected));
        for none in [
            "",
            "[]",
            "{}",
            "{\"action\":1}",
            "{\"action\":\"split\"",
            "\u{fffd}",
        ] {
            assert_eq!(read(none.as_bytes()), None, "{none}");
        }
        assert_eq!(read(b"{\"action\":\"\xff\"}"), None);
    }
}
