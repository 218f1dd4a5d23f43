//! A command line, one argument a line: nothing of it is lost, for any lld.

#![no_main]

use libfuzzer_sys::fuzz_target;
use shim::cmdline::{Arg, CommandLine};
use shim::options::{self, Match, ValueKind};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

fuzz_target!(|data: &[u8]| {
    let argv: Vec<OsString> = data
        .split(|&b| b == b'\n')
        // Response files are another fuzzer's.
        .filter(|arg| !arg.starts_with(b"@"))
        .map(|arg| OsStr::from_bytes(arg).to_os_string())
        .collect();
    for major in std::iter::once(None).chain(options::TESTED.map(Some)) {
        let Ok(cmd) = CommandLine::parse_for(&argv, major) else {
            continue;
        };
        assert!(cmd.steps().count() <= cmd.args.len());
        let rewritten = ["-flavor", "-plugin-opt", "--plugin-opt"];
        if !argv.iter().any(|arg| rewritten.iter().any(|r| arg == r)) {
            assert!(told_in_full(&cmd.args, &argv, major), "{argv:?} {cmd:?}");
        }
    }
    let sample = shim::inputs::sample_args(argv.iter().map(OsString::as_os_str));
    assert!(sample.len() <= argv.len());
});

/// Whether `args` say what `argv` says, word for word.
fn told_in_full(args: &[Arg], argv: &[OsString], major: Option<u32>) -> bool {
    let mut argv = argv.iter();
    for arg in args {
        let Some(word) = argv.find(|word| !word.is_empty()) else {
            return false;
        };
        let same = match arg {
            Arg::Input(text) | Arg::Unknown(text) => text == word,
            Arg::Option(option) => match lookup(word, major) {
                Match::Option { spelling, len } => {
                    let joined = &word.as_bytes()[len..];
                    option.id == spelling.id
                        && match spelling.value_kind {
                            ValueKind::Flag => joined.is_empty(),
                            ValueKind::Joined => joined == option.value.as_bytes(),
                            ValueKind::JoinedOrSeparate if !joined.is_empty() => {
                                joined == option.value.as_bytes()
                            }
                            ValueKind::JoinedOrSeparate | ValueKind::Separate => {
                                joined.is_empty() && argv.next() == Some(&option.value)
                            }
                        }
                }
                Match::Input | Match::Unknown => false,
            },
        };
        if !same {
            return false;
        }
    }
    argv.all(|word| word.is_empty())
}

fn lookup(word: &OsStr, major: Option<u32>) -> Match {
    options::dialects(major)
        .iter()
        .map(|&major| options::lookup(word.as_bytes(), major))
        .find(|&found| found != Match::Unknown)
        .unwrap_or(Match::Unknown)
}
