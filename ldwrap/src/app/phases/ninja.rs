//! A graph as a file for ninja (tried with 1.11).

use super::graph::Graph;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// The rules and edges of a graph; `ldwrap` is its command, and `last` that of the last step, both for a shell. An
/// error names a file that ninja has no way to say.
pub(super) fn graph(graph: &Graph<'_>, ldwrap: &[u8], last: &[u8]) -> Result<Vec<u8>, String> {
    let mut text = b"# Made by ldwrap index: the backends of a link (docs/phases.md).\n".to_vec();
    // ninja's own log, where this is the only file; another ninja may be at work here.
    text.extend_from_slice(b"\nbuilddir =");
    name(graph.dir.as_os_str(), &mut text)?;
    text.push(b'\n');
    rule(
        "ldwrap_backend",
        &[ldwrap, b" backend "].concat(),
        b"$in",
        &mut text,
    )?;
    rule("ldwrap_final", last, b"", &mut text)?;
    for backend in &graph.backends {
        text.extend_from_slice(b"build");
        name(backend.files.object().as_os_str(), &mut text)?;
        text.extend_from_slice(b": ldwrap_backend");
        name(backend.files.description().as_os_str(), &mut text)?;
        text.extend_from_slice(b" |");
        name(backend.files.shard().as_os_str(), &mut text)?;
        text.extend_from_slice(b" ||");
        for file in &backend.reads {
            name(file.as_os_str(), &mut text)?;
        }
        text.push(b'\n');
    }
    text.extend_from_slice(b"\nbuild");
    name(graph.output, &mut text)?;
    text.extend_from_slice(b": ldwrap_final |");
    for backend in &graph.backends {
        text.extend_from_slice(b" $\n   ");
        name(backend.files.object().as_os_str(), &mut text)?;
    }
    for input in graph.prerequisites() {
        text.extend_from_slice(b" $\n   ");
        name(input.as_os_str(), &mut text)?;
    }
    text.push(b'\n');
    Ok(text)
}

/// A rule with a command, and what ninja itself puts behind it.
fn rule(rule: &str, command: &[u8], behind: &[u8], text: &mut Vec<u8>) -> Result<(), String> {
    if command.contains(&b'\n') {
        return Err("ninja has no way to say a command with a newline in it".into());
    }
    text.extend_from_slice(format!("\nrule {rule}\n  command = ").as_bytes());
    for &byte in command {
        if byte == b'$' {
            text.push(b'$');
        }
        text.push(byte);
    }
    text.extend_from_slice(behind);
    text.push(b'\n');
    Ok(())
}

/// A blank and a file's name.
fn name(path: &OsStr, text: &mut Vec<u8>) -> Result<(), String> {
    text.push(b' ');
    for &byte in path.as_bytes() {
        match byte {
            b'$' | b' ' | b':' => text.extend_from_slice(&[b'$', byte]),
            b'|' | b'\n' | b'\r' | 0 => {
                return Err(format!("ninja has no way to say the name {path:?}"));
            }
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

    #[test]
    fn names_are_escaped_or_refused() {
        let link = [OsString::from("clang")];
        let of = |file: &str, last: &[u8]| {
            let graph = of_file(file, &link, OsStr::new("a pp"));
            super::graph(&graph, b"/bin/ldwrap", last).map(|text| String::from_utf8(text).unwrap())
        };
        let text = of("$a b:c#%.o", b"ldwrap final 'a$b'").unwrap();
        let lines: Vec<&str> = text.lines().collect();
        for expected in [
            "  command = /bin/ldwrap backend $in",
            "  command = ldwrap final 'a$$b'",
            "build lto/a.o: ldwrap_backend lto/a.o.json | lto/a.o.thinlto.bc || $$a$ b$:c#%.o",
            "build a$ pp: ldwrap_final | $",
        ] {
            assert!(lines.contains(&expected), "{expected}\n{text}");
        }
        assert!(of("a|b.o", b"x").is_err() && of("a\nb.o", b"x").is_err());
        assert!(of("a.o", b"x\ny").is_err());
    }
}
