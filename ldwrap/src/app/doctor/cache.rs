//! Whether the cache can be used: written, by whom, and how much room it has.

use super::finding::Finding;
use super::setup::compiles_elsewhere;
use crate::app::cache::size;
use crate::app::{advice, quoted};
use crate::cache::objects::Cache;
use shim::config::Config;
use std::io::{self, ErrorKind, Write};
use std::path::Path;

const SUBJECT: &str = "cache";

/// So much is written to try it (bytes): about an object.
const TRIED: usize = 64 << 10;

/// What was found, and whether objects are kept.
pub(super) fn findings(config: &Config) -> (Vec<Finding>, bool) {
    // Without any other source of objects than the cache, nothing is gained.
    let needed = !compiles_elsewhere(config);
    if config.cache_size == 0 {
        // Told with the settings.
        return (Vec::new(), false);
    }
    let Some(dir) = &config.cache_dir else {
        let text = "there is no directory for it: neither HOME nor XDG_CACHE_HOME is set";
        let fix = "export LDWRAP_CACHE_DIR=DIRECTORY";
        return (
            vec![Finding::bad(SUBJECT, text, fix).prevents(needed)],
            false,
        );
    };
    let mut found = Vec::new();
    let usable = match write_to(dir) {
        Ok(()) => {
            found.push(room(dir, config.cache_size));
            true
        }
        Err(e) => {
            let text = format!("{}: nothing can be written there: {e}", dir.display());
            found.push(Finding::bad(SUBJECT, text, mend(dir, &e)).prevents(needed));
            false
        }
    };
    let advice = advice::on_cache(config);
    found.extend(advice.map(|advice| Finding::note(SUBJECT, advice.what, Some(advice.fix))));
    (found, usable)
}

/// Writes as much as an object, and removes it.
fn write_to(dir: &Path) -> io::Result<()> {
    std::fs::create_dir_all(dir)?;
    let objects = dir.join("objects");
    let places = [dir.to_owned(), objects.join("k"), objects.join("o")];
    // What is not there yet is made in what is.
    for place in places.iter().filter(|place| place.exists()) {
        tempfile::tempfile_in(place)?.write_all(&[0; TRIED])?;
    }
    Ok(())
}

/// What to do about a directory that cannot be written.
fn mend(dir: &Path, error: &io::Error) -> String {
    let dir = quoted(dir);
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            format!("make room (df {dir}), or export LDWRAP_CACHE_DIR=DIRECTORY on another disk")
        }
        ErrorKind::PermissionDenied => {
            format!("sudo chown -R \"$USER\" {dir}, or export LDWRAP_CACHE_DIR=DIRECTORY")
        }
        _ => "export LDWRAP_CACHE_DIR=DIRECTORY, one that this user can write".into(),
    }
}

/// How full it is, and whether the disk has room for the rest.
fn room(dir: &Path, limit: u64) -> Finding {
    let used = match Cache::new(dir, limit).stats() {
        Ok(stats) => stats.bytes,
        Err(e) => {
            let text = format!("{}: it cannot be read: {e}", dir.display());
            return Finding::bad(SUBJECT, text, "ldwrap cache clear");
        }
    };
    let state = format!("{}: {} of {}", dir.display(), size(used), size(limit));
    let free = nix::sys::statvfs::statvfs(dir)
        .ok()
        .map(|fs| fs.blocks_available().saturating_mul(fs.fragment_size()));
    match free {
        None => Finding::ok(SUBJECT, state),
        Some(free) if used.saturating_add(free) >= limit => {
            Finding::ok(SUBJECT, format!("{state}; {} are free", size(free)))
        }
        Some(free) => {
            let most = (used.saturating_add(free) / 2) >> 20;
            Finding::note(
                SUBJECT,
                format!("{state}, but only {} are free", size(free)),
                Some(format!("export LDWRAP_CACHE_SIZE={}M", most.max(1))),
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_that_can_be_written_and_one_that_cannot() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config {
            cache_dir: Some(dir.path().join("new")),
            cache_size: 1 << 20,
            ..Config::default()
        };
        let (found, usable) = findings(&config);
        assert!(usable && !found[0].is_bad(), "{found:?}");
        config.cache_dir = Some("/proc/nowhere".into());
        let (found, usable) = findings(&config);
        assert!(
            !usable && found[0].is_bad() && found[0].prevents,
            "{found:?}"
        );
        config.executor = Some(shim::config::Executor::Clang);
        assert!(!findings(&config).0[0].prevents);
        config.cache_dir = None;
        assert!(findings(&config).0[0].text.contains("HOME"));
    }

    #[test]
    fn more_than_the_disk_has_is_noted() {
        let dir = tempfile::tempdir().unwrap();
        let note = room(dir.path(), u64::MAX);
        assert!(note.text.contains("only") && note.fix.is_some(), "{note:?}");
        assert_eq!(room(dir.path(), 1).fix, None);
    }
}
