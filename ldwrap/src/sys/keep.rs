//! What `LDWRAP_KEEP` asks for: a directory for each link, with the commands that were run and the files that they
//! were given, and scripts that repeat the link (docs/debugging.md).
//!
//! One link a process, so it is known to the whole process; without the setting nothing here costs anything.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// More directories of one name are not tried.
const MOST: usize = 100_000;

static KEPT: OnceLock<PathBuf> = OnceLock::new();

/// Makes the directory of a link, for its owner only: `PARENT/NAME-N` with the first free number. From now on
/// all commands go there, and scratch directories.
pub fn begin(parent: &Path, name: &OsStr) -> io::Result<&'static Path> {
    // Commands run elsewhere too.
    let parent = std::path::absolute(parent)?;
    fs::create_dir_all(&parent)?;
    for n in 1..MOST {
        let mut dir = parent.join(name).into_os_string();
        dir.push(format!("-{n}"));
        match DirBuilder::new().mode(0o700).create(&dir) {
            Ok(()) => return Ok(KEPT.get_or_init(|| dir.into())),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(e),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// The directory of this process's link, if it is kept.
#[must_use]
pub fn dir() -> Option<&'static Path> {
    KEPT.get().map(PathBuf::as_path)
}

/// Writes a script that runs a program again: `argv`, of which the first is the name that it is called by, in the
/// present working directory, with these variables set.
pub fn script<'a>(
    name: &str,
    program: &Path,
    argv: impl IntoIterator<Item = &'a OsStr>,
    variables: &[(&str, &str)],
) -> io::Result<()> {
    let Some(dir) = dir() else { return Ok(()) };
    let mut text =
        b"#!/usr/bin/env bash\n# Repeats the link; arguments are added to its own.\ncd ".to_vec();
    quote(std::env::current_dir()?.as_os_str(), &mut text);
    text.extend_from_slice(b" || exit\n");
    for (name, value) in variables {
        text.extend_from_slice(format!("export {name}=").as_bytes());
        quote(OsStr::new(value), &mut text);
        text.push(b'\n');
    }
    let mut argv = argv.into_iter();
    text.extend_from_slice(b"exec -a ");
    quote(argv.next().unwrap_or_default(), &mut text);
    text.push(b' ');
    quote(program.as_os_str(), &mut text);
    for arg in argv {
        text.extend_from_slice(b" \\\n    ");
        quote(arg, &mut text);
    }
    text.extend_from_slice(b" \"$@\"\n");
    let mut file = OpenOptions::new();
    let mut file = file
        .write(true)
        .create_new(true)
        .mode(0o700)
        .open(dir.join(name))?;
    file.write_all(&text)
}

/// Notes that a command is run, as a line for a shell.
pub fn command(command: &Command) {
    let Some(dir) = dir() else { return };
    let mut line = Vec::new();
    if let Some(dir) = command.get_current_dir() {
        line.extend_from_slice(b"cd ");
        quote(dir.as_os_str(), &mut line);
        line.extend_from_slice(b" && ");
    }
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            line.extend_from_slice(name.as_bytes());
            line.push(b'=');
            quote(value, &mut line);
            line.push(b' ');
        }
    }
    quote(command.get_program(), &mut line);
    for arg in command.get_args() {
        line.push(b' ');
        quote(arg, &mut line);
    }
    line.push(b'\n');
    append(&dir.join("commands"), &line);
}

/// Appends to a file; what cannot be kept is no reason to fail a link.
pub fn append(file: &Path, text: &[u8]) {
    let opened: io::Result<File> = OpenOptions::new().create(true).append(true).open(file);
    if let Err(e) = opened.and_then(|mut file| file.write_all(text)) {
        log::warn!("cannot write {}: {e}", file.display());
    }
}

/// Quotes a word for a POSIX shell, if it needs that.
pub fn quote(word: &OsStr, to: &mut Vec<u8>) {
    let plain = |b: &u8| b.is_ascii_alphanumeric() || b"-_=+./,:@%^".contains(b);
    let word = word.as_bytes();
    if !word.is_empty() && word.iter().all(plain) {
        to.extend_from_slice(word);
        return;
    }
    to.push(b'\'');
    for part in word.split_inclusive(|b| *b == b'\'') {
        match part.strip_suffix(b"'") {
            Some(before) => {
                to.extend_from_slice(before);
                to.extend_from_slice(br"'\''");
            }
            None => to.extend_from_slice(part),
        }
    }
    to.push(b'\'');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_for_a_shell() {
        for (word, quoted) in [
            ("a.o", "a.o"),
            ("", "''"),
            ("/a b/it's", r"'/a b/it'\''s'"),
            ("'", r"''\'''"),
            ("$x", "'$x'"),
            ("~", "'~'"),
        ] {
            let mut to = Vec::new();
            quote(OsStr::new(word), &mut to);
            assert_eq!(String::from_utf8(to).unwrap(), quoted);
        }
    }
}
