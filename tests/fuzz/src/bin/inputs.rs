//! A file as an input of a link: object, archive or script. Looking at everything and looking for
//! bitcode agree.

#![no_main]

use ldwrap_fuzz::{dir, file};
use libfuzzer_sys::fuzz_target;
use shim::cmdline::CommandLine;
use shim::inputs::{self, Visit};

fuzz_target!(|data: &[u8]| {
    let path = file("in", data);
    // In the sysroot, so that names that begin with a slash stay below it.
    let args = [
        format!("--sysroot={}", dir().display()),
        format!("-L{}", dir().display()),
        "--fat-lto-objects".into(),
        path.display().to_string(),
    ];
    let cmd = CommandLine::parse(&args.map(Into::into)).unwrap();
    let mut bitcode = false;
    let seen = inputs::visit(&cmd, &mut |found| {
        bitcode |= found.kind.is_bitcode();
        Ok(Visit::Continue)
    });
    let all = inputs::bitcode(&cmd, false, u64::MAX);
    if seen.is_ok() {
        assert_eq!(bitcode, all.expect("it looks at nothing more").bytes > 0);
        let one = inputs::bitcode(&cmd, true, 1).unwrap();
        assert_eq!(bitcode, one.bytes > 0);
    }
});
