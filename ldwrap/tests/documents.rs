//! What comments cite is there, and documents say what the program's own tables say.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// What a text cites: documents, and the headings of theirs in quotes behind the name.
fn cited(text: &str) -> Vec<(String, String)> {
    // A citation may go over lines of a comment.
    let words = text
        .lines()
        .map(|line| line.trim().trim_start_matches(['/', '!']).trim());
    let text = words.collect::<Vec<_>>().join(" ");
    let mut cited = Vec::new();
    for (at, ending) in text.match_indices(".md, ") {
        let before = &text[..at];
        let name = before.rsplit(|c: char| !(c.is_alphanumeric() || "/-".contains(c)));
        let document = format!("{}.md", name.into_iter().next().unwrap_or_default());
        let mut rest = &text[at + ending.len()..];
        while let Some((heading, behind)) = rest.strip_prefix('"').and_then(|r| r.split_once('"')) {
            cited.push((document.clone(), heading.to_owned()));
            rest = behind.strip_prefix(" and ").unwrap_or_default();
        }
    }
    cited
}

#[test]
fn headings_that_comments_cite_are_there() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    // A paragraph's first words, in bold, count as its heading.
    let has_heading = |document: &str, heading: &str| {
        let text = fs::read_to_string(top.join(document)).unwrap_or_default();
        let bold = format!("- **{heading}");
        text.lines()
            .any(|line| line.strip_prefix("## ") == Some(heading) || line.starts_with(&bold))
    };
    let mut files = Vec::new();
    for part in ["shim", "ldwrap", "tests"] {
        sources(&top.join(part), &mut files);
    }
    let mut found = 0;
    for file in files.iter().filter(|file| !file.ends_with("documents.rs")) {
        let text = fs::read_to_string(file).unwrap();
        assert!(!text.contains("(fact "), "{}", file.display());
        for (document, heading) in cited(&text) {
            found += 1;
            let there = has_heading(&document, &heading);
            assert!(there, "{}: {document}, {heading}", file.display());
        }
    }
    assert!(found > 20, "{found}");
}

/// README's tables of settings are made by ldwrap.
#[test]
fn tables_of_settings() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let readme = fs::read_to_string(top.join("README.md")).unwrap();
    for part in ["settings", "server"] {
        let made = Command::new(env!("CARGO_BIN_EXE_ldwrap"))
            .args(["document", part])
            .output()
            .unwrap();
        let table = format!(
            "<!-- ldwrap document {part} -->\n\n{}\n<!-- end -->\n",
            String::from_utf8(made.stdout).unwrap()
        );
        assert!(table.lines().count() > 10, "{table}");
        assert!(
            readme.contains(&table),
            "README.md: put there what 'ldwrap document {part}' prints"
        );
    }
}
