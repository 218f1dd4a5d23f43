//! Whether jobs are made from what lld links: a build that runs on, or a second one, may replace a file between the
//! moment in which lld opens it and the one in which it is read for jobs, and what comes of another file is wrong.
//!
//! All files that lld opens are compared, and not only modules: a version script or a shared library decides which
//! symbols are preserved, and so what the shards of the index say.

use crate::cache::files::{Identity, SeenFile};
use crate::jobs::failure::Failure;
use crate::sys::sync::lock;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Instant;

/// The files of a link, as lld has opened them and as they were read for jobs. lld's side and the side of jobs tell it
/// what they do, in any order; whichever comes second hears of a difference.
#[derive(Debug, Default)]
pub struct ComparedFiles(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// What each was, and when it was looked at.
    seen: HashMap<PathBuf, (Identity, Instant)>,
    /// lld has opened all that it links.
    all_open: bool,
    /// When the first file was about to be read for jobs, once they are made.
    made_since: Option<Instant>,
}

impl ComparedFiles {
    /// lld is about to open a file, of which another time would tell if it changed, where it is `steady`. Fails if
    /// jobs may have been made from another one.
    pub fn opens(&self, path: &Path, identity: Identity, steady: bool) -> Result<(), Failure> {
        let Ok(path) = std::path::absolute(path) else {
            return Ok(());
        };
        let mut state = lock(&self.0);
        if !steady {
            return Err(Failure::unsteady(&path));
        }
        match state.seen.get(&path) {
            Some((known, _)) if *known != identity => return Err(Failure::changed(&path)),
            Some(_) => return Ok(()),
            None => {}
        }
        let is_old = |since| is_older(&identity, since);
        if !state.made_since.is_none_or(is_old) {
            return Err(Failure::unsteady(&path));
        }
        state.seen.insert(path, (identity, Instant::now()));
        Ok(())
    }

    /// lld has opened all that it links.
    pub fn all_open(&self) {
        let mut state = lock(&self.0);
        state.all_open = true;
        state.forget_compared();
    }

    /// Jobs have been made from these files, and an index from all that lld links, which have been read between `since`
    /// and now. Fails unless they are the very files that lld links, and unchanged: it has opened them before `since`,
    /// or they have not changed from then on.
    pub fn made_from<'f>(
        &self,
        files: impl Iterator<Item = &'f SeenFile>,
        since: Instant,
    ) -> Result<(), Failure> {
        let opened = lock(&self.0).seen.clone();
        // Files are looked at without the lock: lld is not to wait for a slow file system.
        let mut read = HashMap::new();
        for SeenFile { path, identity } in files {
            if *read.entry(path).or_insert(*identity) != *identity {
                return Err(Failure::changed(path));
            }
        }
        let look = |path: &Path, identity: &Identity, was_open_before: bool| {
            if !was_open_before && !is_older(identity, since) {
                return Err(Failure::unsteady(path));
            }
            identity
                .is_still(path)
                .then_some(())
                .ok_or_else(|| Failure::changed(path))
        };
        for (path, (identity, at)) in &opened {
            look(path, identity, *at < since)?;
        }
        for (path, identity) in &read {
            if !opened.contains_key(*path) {
                look(path, identity, false)?;
            }
        }
        let mut state = lock(&self.0);
        for (path, (identity, _)) in &state.seen {
            if read.get(path).is_some_and(|read| read != identity) {
                return Err(Failure::changed(path));
            }
            if !opened.contains_key(path) && !is_older(identity, since) {
                return Err(Failure::unsteady(path));
            }
        }
        for (path, identity) in read {
            let now = (identity, Instant::now());
            state.seen.entry(path.clone()).or_insert(now);
        }
        state.made_since = Some(since);
        state.forget_compared();
        Ok(())
    }
}

impl State {
    /// A link may have tens of thousands of files: they go as soon as nothing is left to be compared.
    fn forget_compared(&mut self) {
        if self.all_open && self.made_since.is_some() {
            self.seen = HashMap::new();
        }
    }
}

/// Whether a file has not changed since shortly before `since`, and would have another time on it if it had.
fn is_older(identity: &Identity, since: Instant) -> bool {
    let least = since.elapsed() + identity.tick();
    identity.age().is_some_and(|age| age >= least)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{File, FileTimes};
    use std::time::{Duration, SystemTime};

    /// A file, old enough to be told from a later one.
    fn a_file(dir: &Path, name: &str) -> SeenFile {
        let path = dir.join(name);
        std::fs::write(&path, "old").expect("a file");
        let file = SeenFile::now(&path).expect("the file");
        std::thread::sleep(file.identity.tick() * 2);
        file
    }

    fn replace(file: &SeenFile) -> SeenFile {
        std::fs::write(&file.path, "another").expect("a file");
        SeenFile::now(&file.path).expect("the file")
    }

    fn made_from(files: &ComparedFiles, file: &SeenFile, since: Instant) -> Option<Failure> {
        files.made_from([file].into_iter(), since).err()
    }

    fn opens(files: &ComparedFiles, file: &SeenFile) -> Option<Failure> {
        files.opens(&file.path, file.identity, true).err()
    }

    #[test]
    fn files_are_old_or_open_before_they_are_read() {
        let dir = tempfile::tempdir().expect("a directory");
        let old = a_file(dir.path(), "a.o");
        let changed = Some(Failure::changed(&old.path));
        let unsteady = Some(Failure::unsteady(&old.path));
        let now = Instant::now();
        assert_eq!(made_from(&ComparedFiles::default(), &old, now), None);
        let new = replace(&old);
        assert_eq!(made_from(&ComparedFiles::default(), &new, now), unsteady);
        // Old enough when it was read, and another one since.
        assert_eq!(made_from(&ComparedFiles::default(), &old, now), changed);
        let files = ComparedFiles::default();
        assert_eq!(opens(&files, &new), None);
        assert_eq!(made_from(&files, &new, Instant::now()), None);
        assert_eq!(made_from(&files, &old, Instant::now()), changed);
        // It may have been a third one in between.
        assert_eq!(made_from(&files, &new, now), unsteady);
    }

    #[test]
    fn a_file_that_lld_opens_later_is_the_same() {
        let dir = tempfile::tempdir().expect("a directory");
        let old = a_file(dir.path(), "a.o");
        let script = a_file(dir.path(), "exports.map");
        let files = ComparedFiles::default();
        let now = Instant::now();
        assert_eq!(made_from(&files, &old, now), None);
        assert_eq!(opens(&files, &old), None);
        assert_eq!(opens(&files, &script), None);
        let new = replace(&old);
        assert_eq!(opens(&files, &new), Some(Failure::changed(&old.path)));
        // Not one of those from which jobs are made, but the index run has read it.
        let late = a_file(dir.path(), "late.map");
        assert_eq!(opens(&files, &late), Some(Failure::unsteady(&late.path)));
    }

    #[test]
    fn what_only_shapes_the_index_is_compared_too() {
        let dir = tempfile::tempdir().expect("a directory");
        let (module, script) = (a_file(dir.path(), "a.o"), a_file(dir.path(), "exports.map"));
        let files = ComparedFiles::default();
        assert_eq!(opens(&files, &script), None);
        let now = Instant::now();
        assert_eq!(made_from(&files, &module, now), None);
        replace(&script);
        let failure = made_from(&files, &module, now);
        assert_eq!(failure, Some(Failure::changed(&script.path)));
    }

    #[test]
    fn what_cannot_be_told_to_be_unchanged() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = a_file(dir.path(), "a.o");
        let failure = ComparedFiles::default().opens(&file.path, file.identity, false);
        assert_eq!(failure, Err(Failure::unsteady(&file.path)));
        // A time in the future, set by hand, says nothing; the time at which it was set does.
        let later = SystemTime::now() + Duration::from_secs(3600);
        let opened = File::options().write(true).open(&file.path);
        let opened = opened.expect("the file");
        let times = FileTimes::new().set_modified(later);
        opened.set_times(times).expect("times");
        let file = SeenFile::now(&file.path).expect("the file");
        let age = file.identity.age().expect("an age");
        assert!(age < Duration::from_secs(3000), "{age:?}");
        std::thread::sleep(file.identity.tick() * 2);
        assert_eq!(
            made_from(&ComparedFiles::default(), &file, Instant::now()),
            None
        );
    }

    #[test]
    fn files_are_forgotten_when_all_are_compared() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = a_file(dir.path(), "a.o");
        let files = ComparedFiles::default();
        assert_eq!(opens(&files, &file), None);
        files.all_open();
        assert_eq!(lock(&files.0).seen.len(), 1);
        assert_eq!(made_from(&files, &file, Instant::now()), None);
        assert_eq!(lock(&files.0).seen.len(), 0);
    }
}
