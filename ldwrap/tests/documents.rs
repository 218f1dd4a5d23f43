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
    files.extend(documents());
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

/// The documents of the top and of docs/.
fn documents() -> Vec<PathBuf> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let folders = [top.to_owned(), top.join("docs")];
    let entries = folders.iter().flat_map(|dir| fs::read_dir(dir).unwrap());
    let files = entries.map(|entry| entry.unwrap().path());
    files
        .filter(|file| file.extension().is_some_and(|e| e == "md"))
        .collect()
}

/// A heading as GitHub makes an anchor of it.
fn anchor(heading: &str) -> String {
    let kept = heading
        .chars()
        .filter(|&c| c.is_alphanumeric() || " -_".contains(c));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

/// Links between documents lead to files and headings that are there.
#[test]
fn links_lead_somewhere() {
    let mut found = 0;
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap();
        let links = text.split("](").skip(1);
        for link in links.filter_map(|rest| rest.split(')').next()) {
            if link.contains("://") {
                continue;
            }
            found += 1;
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let to = match file {
                "" => document.clone(),
                file => document.parent().unwrap().join(file),
            };
            assert!(to.exists(), "{}: {link}", document.display());
            if !heading.is_empty() {
                let text = fs::read_to_string(&to).unwrap();
                let mut headings = text.lines().filter(|line| line.starts_with('#'));
                let there =
                    headings.any(|line| anchor(line.trim_start_matches(['#', ' '])) == heading);
                assert!(there, "{}: {link}", document.display());
            }
        }
    }
    assert!(found > 40, "{found}");
}

/// The tables of settings are made by ldwrap.
#[test]
fn tables_of_settings() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let document = fs::read_to_string(top.join("docs/settings.md")).unwrap();
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
            document.contains(&table),
            "docs/settings.md: put there what 'ldwrap document {part}' prints"
        );
    }
}

/// The strings of a source file, without its tests, comments and byte strings: `\` at the end of a line joins lines.
fn strings(text: &str) -> Vec<String> {
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    let lines = code
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    let code = lines.collect::<Vec<_>>().join("\n");
    let pieces: Vec<&str> = code.split('"').collect();
    let texts = pieces
        .chunks_exact(2)
        .filter(|pair| !pair[0].ends_with('b'));
    let words = texts.map(|pair| pair[1].replace('\\', " "));
    words
        .map(|text| text.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect()
}

/// What troubleshooting.md has to have of a reason: what stands between the values that it is filled with, without the
/// option that it begins with.
fn fixed_parts(reason: &str) -> Vec<String> {
    let behind_option = match reason.split_once(": ") {
        Some((option, why)) if option.starts_with('-') => why,
        _ => reason,
    };
    let parts = behind_option.split('{');
    let parts = parts.map(|part| part.split_once('}').map_or(part, |(_, behind)| behind));
    let parts = parts.map(|part| part.trim_matches([' ', ':', ';', ',']).to_owned());
    parts.filter(|part| part.len() > 3).collect()
}

/// Every reason that the code can give for leaving a link to lld, or for making no jobs of it, is explained.
#[test]
fn reasons_are_explained() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let read = |file: &str| fs::read_to_string(top.join(file)).unwrap();
    let explained = read("docs/troubleshooting.md");
    let mut reasons = Vec::new();
    for file in [
        "shim/src/decide.rs",
        "shim/src/effects.rs",
        "shim/src/inputs/error.rs",
        "shim/src/archive/error.rs",
        "ldwrap/src/link/eligibility.rs",
        "ldwrap/src/link/old_lld.rs",
        "ldwrap/src/sys/threads.rs",
        "ldwrap/src/jobs/codegen/mod.rs",
        "ldwrap/src/jobs/codegen/files.rs",
        "ldwrap/src/jobs/codegen/llvm_options.rs",
    ] {
        let found = strings(&read(file));
        reasons.extend(found.into_iter().filter(|text| text.contains(' ')));
    }
    // In these, only what an error says.
    for file in [
        "ldwrap/src/jobs/failure.rs",
        "ldwrap/src/jobs/toolchain.rs",
        "ldwrap/src/watch/listener.rs",
        "ldwrap/src/watch/spawn.rs",
    ] {
        let text = read(file);
        let errors = text
            .lines()
            .filter(|line| line.trim_start().starts_with("#[error("));
        reasons.extend(errors.flat_map(strings));
    }
    assert!(reasons.len() > 70, "{}", reasons.len());
    let mut missing = Vec::new();
    for reason in reasons {
        let parts = fixed_parts(&reason);
        if !parts.iter().all(|part| explained.contains(part)) {
            missing.push(reason);
        }
    }
    assert!(
        missing.is_empty(),
        "docs/troubleshooting.md lacks {missing:#?}"
    );
}
