//! The page: template, style and script, with the data between them.
//!
//! Data is JSON in a script element that is not run, with each character escaped by which HTML could leave it; the page's
//! script puts it into elements as text. The page's policy allows its own style and script by their digests and nothing
//! else, so that markup in a name could do nothing even if some way into the page had been overlooked.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use sha2::{Digest, Sha256};

const TEMPLATE: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = concat!(
    include_str!("text.js"),
    include_str!("table.js"),
    include_str!("links.js"),
    include_str!("trace.js"),
    include_str!("timeline.js"),
    include_str!("page.js"),
);

/// The page that shows the data.
pub(super) fn page(data: &Value) -> String {
    let policy = format!(
        "default-src 'none'; style-src {}; script-src {}",
        source(STYLE),
        source(SCRIPT)
    );
    let data = escaped(&data.to_string());
    let mut page = String::with_capacity(TEMPLATE.len() + STYLE.len() + SCRIPT.len() + data.len());
    // In one pass: what is filled in is not looked at again.
    let mut rest = TEMPLATE;
    while let Some((before, behind)) = rest.split_once("@@") {
        let (name, after) = behind.split_once("@@").unwrap_or((behind, ""));
        page.push_str(before);
        page.push_str(match name {
            "policy" => &policy,
            "style" => STYLE,
            "script" => SCRIPT,
            _ => &data,
        });
        rest = after;
    }
    page.push_str(rest);
    page
}

/// How a policy names a script or style in the page.
fn source(text: &str) -> String {
    format!("'sha256-{}'", STANDARD.encode(Sha256::digest(text)))
}

/// JSON without characters that mean anything in HTML. They occur in strings only, where they can be escaped.
fn escaped(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '<' => text.push_str("\\u003c"),
            '>' => text.push_str("\\u003e"),
            '&' => text.push_str("\\u0026"),
            c => text.push(c),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_cannot_leave_the_data() {
        let hostile =
            json!({"links": ["</script><script>alert(1)</script><!--", "@@style@@", "&lt;"]});
        let page = page(&hostile);
        let (_, behind) = page.split_once("type=\"application/json\">").unwrap();
        let (data, _) = behind.split_once("</script>").unwrap();
        assert!(!data.contains(['<', '>', '&']), "{data}");
        let read: Value = serde_json::from_str(data).unwrap();
        assert_eq!(read, hostile);
    }

    #[test]
    fn the_page_is_whole() {
        let page = page(&json!({}));
        for part in [STYLE, SCRIPT] {
            assert!(page.contains(&format!(">{part}</")), "filled in unchanged");
            assert!(!part.contains("innerHTML") && !part.contains("//cdn"));
        }
        assert!(
            !page.contains("@@") && page.ends_with("</html>\n"),
            "{page}"
        );
    }
}
