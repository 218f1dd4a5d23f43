//! A command line, one argument a line: nothing of it is lost, for any lld.

#![no_main]

use libfuzzer_sys::fuzz_target;
use shim::cmdline::{Arg, CommandLine};
use shim::options::{self, Kind, Match};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

fuzz_target!(|data: &[u8]| {
    let argv: Vec<OsString> = data
        .split(|&b| b == b'\n')
        // Response files are another fuzzer's.
        .filter(|arg| !arg.starts_with(b"@"))
        .map(|arg| OsStr::from_bytes(arg).to_os_string())
        .collect();
    for major in [None, Some(14), Some(16), Some(19), Some(22)] {
        let Ok(cmd) = CommandLine::parse_for(&argv, major) else {
            continue;
        };
        assert!(cmd.response_files.is_empty());
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
            Arg::Option(option) => {
                let joined = [option.spelled.as_bytes(), option.value.as_bytes()].concat();
                match kind(word, major) {
                    Some(Kind::Flag) => option.spelled == *word,
                    _ if joined == word.as_bytes() && option.spelled != *word => true,
                    Some(Kind::Joined) => joined == word.as_bytes(),
                    _ => option.spelled == *word && argv.next() == Some(&option.value),
                }
            }
        };
        if !same {
            return false;
        }
    }
    argv.all(|word| word.is_empty())
}

fn kind(word: &OsStr, major: Option<u32>) -> Option<Kind> {
    options::dialects(major)
        .iter()
        .map(|&major| options::lookup(word.as_bytes(), major))
        .find(|&found| found != Match::Unknown)
        .and_then(Match::entry)
        .map(|entry| entry.kind)
}
