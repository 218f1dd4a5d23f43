//! What the fuzzers share: bitstreams as trees, and a directory of files for parsers that want some.

pub mod tree;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// A directory of this process's own, below `TMPDIR`, which the working directory then is.
pub fn dir() -> &'static Path {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| {
        let dir = std::env::temp_dir().join(format!("ldwrap-fuzz-{}", std::process::id()));
        std::fs::create_dir_all(dir.join("d")).expect("TMPDIR can be written to");
        // Members for thin archives, inputs for scripts.
        for (name, bytes) in [
            ("a.o", &b"BC\xc0\xde"[..]),
            ("b.o", b"\x7fELF"),
            ("d/c.o", b""),
            ("t", b"INPUT(a.o)"),
        ] {
            std::fs::write(dir.join(name), bytes).expect("files can be written");
        }
        std::env::set_current_dir(&dir).expect("the directory was just made");
        dir
    })
}

/// A file in [`dir`].
pub fn file(name: &str, bytes: &[u8]) -> PathBuf {
    let path = dir().join(name);
    std::fs::write(&path, bytes).expect("files can be written");
    path
}
