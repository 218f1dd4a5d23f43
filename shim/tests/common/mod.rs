//! The real lld of each tested major, in a directory of its own.

use shim::options::TESTED;
use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

/// A directory of its own, removed at the end.
pub struct Scratch(pub PathBuf);

impl Scratch {
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("shim-tests-{}-{count}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        fs::create_dir_all(&dir).unwrap();
        Scratch(dir)
    }

    /// Runs lld in this directory, where nothing exists that an argument could name.
    pub fn lld<S: AsRef<OsStr>>(&self, major: u32, args: &[S]) -> Output {
        Command::new(format!("ld.lld-{major}"))
            .args(args)
            .current_dir(&self.0)
            .env_remove("LLD_REPRODUCE")
            .env("LC_ALL", "C")
            .output()
            .unwrap_or_else(|error| panic!("ld.lld-{major} must be installed: {error}"))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Runs `test` for each tested major, at once.
pub fn for_each_major(test: impl Fn(u32) + Sync) {
    std::thread::scope(|scope| {
        for major in TESTED {
            let test = &test;
            scope.spawn(move || test(major));
        }
    });
}
