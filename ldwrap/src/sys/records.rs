//! Small files that save later links from finding something out again.
//!
//! They are kept in the cache directory, and where there is none, or none that can be written, in
//! [`user_dir`]: a build without a home directory makes many links, too.

use super::write_whole;
use shim::user_dir::user_dir;
use std::path::{Path, PathBuf};

/// Where records of one kind are.
#[derive(Debug, Clone)]
pub struct Records {
    cache: Option<PathBuf>,
    kind: &'static str,
}

impl Records {
    /// Of a kind, which is the name of a directory; `cache` is the cache directory, if there is one.
    #[must_use]
    pub fn new(cache: Option<&Path>, kind: &'static str) -> Self {
        let cache = cache.map(Path::to_owned);
        Self { cache, kind }
    }

    /// The text of a record, if there is one.
    #[must_use]
    pub fn read(&self, name: &str) -> Option<String> {
        let in_cache = self.cache.as_ref().and_then(|dir| {
            let file = dir.join(self.kind).join(name);
            std::fs::read_to_string(file).ok()
        });
        in_cache.or_else(|| {
            let file = user_dir().ok()?.join(self.kind).join(name);
            std::fs::read_to_string(file).ok()
        })
    }

    /// Keeps a record. Where it cannot be kept the next link finds out again.
    pub fn write(&self, name: &str, text: &str) {
        if let Some(dir) = &self.cache {
            match write_whole(&dir.join(self.kind).join(name), text) {
                Ok(()) => return,
                Err(e) => log::info!("cannot write {}/{}: {e}", dir.display(), self.kind),
            }
        }
        if let Err(e) =
            user_dir().and_then(|dir| write_whole(&dir.join(self.kind).join(name), text))
        {
            log::warn!("cannot remember what was found out ({}): {e}", self.kind);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_that_cannot_be_written_is_no_loss() {
        let dir = tempfile::tempdir().unwrap();
        let name = format!("test-{}", std::process::id());
        let good = Records::new(Some(dir.path()), "records-test");
        assert_eq!(good.read(&name), None);
        good.write(&name, "1");
        assert_eq!(good.read(&name).as_deref(), Some("1"));
        // A file, in which nothing can be made.
        let file = dir.path().join("records-test").join(&name);
        for cache in [Some(file.as_path()), None] {
            let bad = Records::new(cache, "records-test");
            assert_eq!(bad.read(&name), None);
            bad.write(&name, "2");
            assert_eq!(bad.read(&name).as_deref(), Some("2"));
            let kept = user_dir().unwrap().join("records-test");
            std::fs::remove_dir_all(kept).unwrap();
        }
        assert_eq!(good.read(&name).as_deref(), Some("1"));
    }
}
