//! A graph as rules for GNU make (tried with 4.3), and as a depfile, which has the same syntax.

use super::graph::{Graph, shell};
use std::borrow::Cow;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// What a name is in a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Target,
    Prerequisite,
}

/// The rules of a graph; `ldwrap` is its command, and `last` that of the last step, both for a shell. An error names a
/// file that make has no way to say.
pub(super) fn graph(graph: &Graph<'_>, ldwrap: &[u8], last: &[u8]) -> Result<Vec<u8>, String> {
    let mut text = b"# Made by ldwrap index: the backends of a link (docs/phases.md).\n\n".to_vec();
    let output = Path::new(graph.output);
    // First, so that it is the goal where this is the only makefile.
    name(output, Role::Target, &mut text)?;
    text.push(b':');
    for backend in &graph.backends {
        text.extend_from_slice(b" \\\n ");
        prerequisite(&backend.files.object(), &mut text)?;
    }
    for input in graph.prerequisites() {
        text.extend_from_slice(b" \\\n ");
        prerequisite(input, &mut text)?;
    }
    recipe(last, &mut text)?;
    for backend in &graph.backends {
        text.push(b'\n');
        name(&backend.files.object(), Role::Target, &mut text)?;
        text.push(b':');
        prerequisite(&backend.files.description(), &mut text)?;
        prerequisite(&backend.files.shard(), &mut text)?;
        text.extend_from_slice(b" |");
        for file in &backend.reads {
            prerequisite(file, &mut text)?;
        }
        let description = shell(&[backend.files.description()]);
        recipe(&[ldwrap, b" backend ", &description].concat(), &mut text)?;
    }
    text.extend_from_slice(b"\n# What makes this file reads all that the link reads.\n");
    text.extend(depfile(graph)?);
    text.extend_from_slice(b"\n# An input that is gone is for the rule above to find out.\n");
    for input in graph.prerequisites() {
        if !input.as_os_str().as_bytes().contains(&b'%') {
            name(input, Role::Target, &mut text)?;
            text.extend_from_slice(b":\n");
        }
    }
    Ok(text)
}

/// The files that a graph was made from, as a rule without a recipe.
pub(super) fn depfile(graph: &Graph<'_>) -> Result<Vec<u8>, String> {
    let mut text = Vec::new();
    name(graph.file, Role::Target, &mut text)?;
    text.push(b':');
    for input in graph.prerequisites() {
        text.extend_from_slice(b" \\\n ");
        prerequisite(input, &mut text)?;
    }
    text.push(b'\n');
    Ok(text)
}

fn prerequisite(path: &Path, text: &mut Vec<u8>) -> Result<(), String> {
    text.push(b' ');
    name(path, Role::Prerequisite, text)
}

/// A line of a recipe.
fn recipe(command: &[u8], text: &mut Vec<u8>) -> Result<(), String> {
    if command.contains(&b'\n') {
        return Err("make has no way to say a command with a newline in it".into());
    }
    text.extend_from_slice(b"\n\t");
    for &byte in command {
        if byte == b'$' {
            text.push(b'$');
        }
        text.push(byte);
    }
    text.push(b'\n');
    Ok(())
}

/// A file's name in a rule.
fn name(path: &Path, role: Role, text: &mut Vec<u8>) -> Result<(), String> {
    let bytes = path.as_os_str().as_bytes();
    let refuse = |what: &str| {
        let shown: Cow<'_, str> = OsStr::from_bytes(bytes).to_string_lossy();
        Err(format!("make has no way to say the name {shown:?}: {what}"))
    };
    if bytes.starts_with(b"~") {
        return refuse("it begins with ~");
    }
    for &byte in bytes {
        match byte {
            b'$' => text.extend_from_slice(b"$$"),
            b' ' | b'#' | b':' | b'*' | b'?' | b'[' => text.extend_from_slice(&[b'\\', byte]),
            b'%' if role == Role::Target => return refuse("% in a target is a pattern"),
            b'%' | 0x80.. => text.push(byte),
            b'&' | b'(' | b')' | b'|' | b';' | b'=' | b'\\' | b'`' => {
                return refuse(&format!("it has a {}", char::from(byte)));
            }
            0..=0x1f | 0x7f => return refuse("it has a control character"),
            _ => text.push(byte),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::graph::tests::of_file;
    use super::*;
    use std::ffi::OsString;
    use std::process::Command;

    #[test]
    fn names_that_make_can_say_it_reads_as_they_are() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("lto")).unwrap();
        // The object last: not to be older than what it is made from.
        for file in ["a.json", "lto/a.o.json", "lto/a.o.thinlto.bc", "lto/a.o"] {
            std::fs::write(dir.path().join(file), "").unwrap();
        }
        let link = [OsString::from("clang")];
        for odd in [
            "a b", "a#b", "a:b", "a$b", "a*b", "a?b", "a[b", "a%b", "a'b\"c", "\u{e4}",
        ] {
            let input = format!("{odd}.o");
            let output = odd.replace('%', "p");
            let graph = of_file(&input, &link, OsStr::new(&output));
            let touch = format!(
                "touch {}",
                String::from_utf8(shell(&[OsStr::new(&output)])).unwrap()
            );
            let text = super::graph(&graph, b"/bin/false", touch.as_bytes()).unwrap();
            std::fs::write(dir.path().join("mk"), text).unwrap();
            let input = dir.path().join(input);
            std::fs::write(&input, "").unwrap();
            let make = || {
                let make = Command::new("make")
                    .args(["-f", "mk"])
                    .current_dir(&dir)
                    .output();
                make.unwrap()
            };
            let out = make();
            assert!(out.status.success(), "{odd}: {out:?}");
            assert!(dir.path().join(&output).exists(), "{odd}");
            let again = String::from_utf8(make().stdout).unwrap();
            assert!(again.contains("up to date"), "{odd}: {again}");
            std::fs::remove_file(input).unwrap();
        }
    }

    #[test]
    fn other_names_are_refused() {
        let link = [OsString::from("clang")];
        for odd in [
            "a=b", "a;b", "a|b", "l(m)", "a\\b", "a\tb", "a\nb", "~a", "a&b", "a`b",
        ] {
            let graph = of_file(odd, &link, OsStr::new("app"));
            let error = super::graph(&graph, b"x", b"x").unwrap_err();
            assert!(error.contains("no way to say"), "{error}");
        }
        let graph = of_file("a.o", &link, OsStr::new("a%b"));
        assert!(super::graph(&graph, b"x", b"x").is_err());
    }
}
