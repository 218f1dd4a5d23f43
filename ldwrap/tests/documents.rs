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

/// The headings of docs/lld.md that a text cites: those in quotes behind its name.
fn cited(text: &str) -> Vec<String> {
    // A citation may go over lines of a comment.
    let words = text
        .lines()
        .map(|line| line.trim().trim_start_matches(['/', '!']).trim());
    let text = words.collect::<Vec<_>>().join(" ");
    let mut cited = Vec::new();
    for part in text.split("docs/lld.md, ").skip(1) {
        let mut rest = part;
        while let Some((heading, behind)) = rest.strip_prefix('"').and_then(|r| r.split_once('"')) {
            cited.push(heading.to_owned());
            rest = behind.strip_prefix(" and ").unwrap_or_default();
        }
    }
    cited
}

#[test]
fn headings_that_comments_cite_are_there() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let document = fs::read_to_string(top.join("docs/lld.md")).unwrap();
    let headings: Vec<&str> = document
        .lines()
        .filter_map(|l| l.strip_prefix("## "))
        .collect();
    let mut files = Vec::new();
    for part in ["shim", "ldwrap", "tests"] {
        sources(&top.join(part), &mut files);
    }
    let mut found = 0;
    for file in files.iter().filter(|file| !file.ends_with("documents.rs")) {
        let text = fs::read_to_string(file).unwrap();
        assert!(!text.contains("(fact "), "{}", file.display());
        for heading in cited(&text) {
            found += 1;
            let there = headings.contains(&heading.as_str());
            assert!(there, "{}: {heading}", file.display());
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
