//! Response files: up to three that may name one another, `f0`, `f1` and `f2`.

#![no_main]

use ldwrap_fuzz::file;
use libfuzzer_sys::fuzz_target;
use shim::response::{self, Quoting};
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

fuzz_target!(|data: &[u8]| {
    let mut texts = data.splitn(3, |&b| b == 0x1e);
    for name in ["f0", "f1", "f2"] {
        file(name, texts.next().unwrap_or_default());
    }
    for quoting in [Quoting::Gnu, Quoting::Windows] {
        let Ok(all) = response::expand(&["@f0".into()], quoting) else {
            continue;
        };
        for arg in &all {
            assert!(!arg.as_bytes().contains(&0));
            assert!(!["@f0", "@f1", "@f2"].iter().any(|name| arg == name));
        }
        written(&all);
    }
    written(&response::tokenize_gnu(data));
});

/// What we write is read back.
fn written(args: &[OsString]) {
    let text = response::write_gnu(args.iter().map(OsString::as_os_str));
    assert_eq!(response::tokenize_gnu(&text), args);
    if !args.iter().any(|arg| arg.as_bytes().starts_with(b"@")) {
        file("again", &text);
        let again = response::expand(&["@again".into()], Quoting::Gnu).unwrap();
        assert_eq!(again, args);
    }
}
