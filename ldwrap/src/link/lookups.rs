//! Which module a cache lookup of lld's is for, and whether its object is there.
//!
//! An object given to the wrong module would be the one unforgivable bug (fact 23), so there are two
//! ways to know, and anything else is answered with nothing: lld then compiles that module itself.
//!
//! - lld 16 and later, with `--thinlto-emit-index-files`: each backend thread opens its own module's
//!   `IDENTIFIER.thinlto.bc` for writing and next makes its lookup, so the thread says which module
//!   it asks for, whatever the order.
//! - Before that: with one thread, lookups come in task order, and every module makes one.
//!
//! The cache is a private, empty one, or the user's own (`--thinlto-cache-dir`). In the latter an entry
//! that is there is lld's to take, and what we put there is what lld would have (`localCache`,
//! llvm/lib/Support/Caching.cpp): whole at once, and never taken away again.

use crate::jobs::index::Identifier;
use crate::sys::process;

use crossbeam_channel::{Receiver, Sender, unbounded};
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The directory in which lld looks for objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cache {
    /// Ours, for this link.
    Private(PathBuf),
    /// The user's, as the command line names it.
    Users(OsString),
}

impl Cache {
    /// How entries' paths begin, as lld writes them (`sys::path::append`).
    #[must_use]
    pub fn prefix(&self) -> Vec<u8> {
        let mut prefix = self.dir().as_bytes().to_vec();
        if !prefix.ends_with(b"/") {
            prefix.push(b'/');
        }
        prefix.extend_from_slice(b"llvmcache-");
        prefix
    }

    fn dir(&self) -> &OsStr {
        match self {
            Self::Private(dir) => dir.as_os_str(),
            Self::Users(dir) => dir,
        }
    }
}

/// A file that lld opens; it waits until it is answered.
#[derive(Debug)]
pub struct Opening {
    /// The kernel's number for this call.
    pub id: u64,
    /// The thread that makes it.
    pub thread: u32,
    /// The path as lld gave it.
    pub path: Vec<u8>,
    /// `open(2)` flags.
    pub flags: i32,
}

impl Opening {
    /// Opened for reading only.
    #[must_use]
    pub fn is_read(&self) -> bool {
        self.flags & libc::O_ACCMODE == libc::O_RDONLY
    }
}

/// What is to happen with an opening.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// The kernel opens the file as asked.
    Continue,
    /// What lld writes goes nowhere; no file is made.
    Discard,
    /// Nothing yet.
    Hold,
}

/// How lld's lookups are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Naming {
    /// By the shard that the same thread opened before.
    ByShard,
    /// By their order.
    ByOrder,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Object {
    Pending,
    Ready(PathBuf),
    /// Left to lld.
    Left,
    /// In the user's cache before we had it.
    Hit,
}

#[derive(Debug)]
struct Waiting {
    id: u64,
    thread: u32,
    module: usize,
    entry: PathBuf,
}

/// The state of all lookups of one final link.
#[derive(Debug)]
pub struct Lookups {
    naming: Naming,
    cache: Cache,
    /// [`Cache::prefix`].
    prefix: Vec<u8>,
    numbers: HashMap<Vec<u8>, usize>,
    objects: Vec<Object>,
    asked: Vec<u32>,
    answered: usize,
    threads: HashMap<u32, usize>,
    waiting: Vec<Waiting>,
    next: usize,
    odd: Vec<String>,
    expected: usize,
    /// Takes the number of each module whose lookup has to wait; none once lld has ended.
    missing: Option<Sender<usize>>,
    misses: Receiver<usize>,
}

/// What is to be done with an opening, beyond [`Answer`].
pub type Resume = Vec<u64>;

impl Lookups {
    /// For the modules of an index, in task order, lld's cache, and the number of modules that lld
    /// will look up (those with a hash).
    #[must_use]
    pub fn new<'a>(
        naming: Naming,
        cache: Cache,
        modules: impl ExactSizeIterator<Item = &'a Identifier>,
        expected: usize,
    ) -> Self {
        let n = modules.len();
        let (missing, misses) = unbounded();
        Self {
            naming,
            prefix: cache.prefix(),
            cache,
            numbers: modules
                .enumerate()
                .map(|(n, id)| (id.0.as_bytes().to_vec(), n))
                .collect(),
            objects: vec![Object::Pending; n],
            asked: vec![0; n],
            answered: 0,
            threads: HashMap::new(),
            waiting: Vec::new(),
            next: 0,
            odd: Vec::new(),
            expected,
            missing: Some(missing),
            misses,
        }
    }

    /// The numbers of modules that lld waits for, as it asks for them; ends when lld does.
    #[must_use]
    pub fn misses(&self) -> Receiver<usize> {
        self.misses.clone()
    }

    /// lld has ended: nothing will be asked any more.
    pub fn close(&mut self) {
        self.missing = None;
    }

    /// How lookups are told apart.
    #[must_use]
    pub fn naming(&self) -> Naming {
        self.naming
    }

    /// Whether lld looks in the user's own cache.
    #[must_use]
    pub fn in_users_cache(&self) -> bool {
        matches!(self.cache, Cache::Users(_))
    }

    /// Whether a module's object is still of use.
    #[must_use]
    pub fn wanted(&self, module: usize) -> bool {
        self.missing.is_some() && self.objects.get(module) == Some(&Object::Pending)
    }

    /// lld opens a file.
    pub fn opened(&mut self, opening: &Opening) -> Answer {
        // A call that was interrupted comes again, under a new number.
        self.waiting.retain(|w| {
            let again = w.thread == opening.thread;
            if again && self.naming == Naming::ByShard {
                self.threads.insert(w.thread, w.module);
            } else if again {
                self.next = w.module;
            }
            if again && let Some(asked) = self.asked.get_mut(w.module) {
                *asked -= 1;
            }
            !again
        });
        if opening.is_read() {
            match opening.path.strip_prefix(self.prefix.as_slice()) {
                Some(key) if !key.contains(&b'/') => self.lookup(opening),
                _ => Answer::Continue,
            }
        } else if self.naming == Naming::ByShard
            && let Some(identifier) = opening.path.strip_suffix(b".thinlto.bc")
        {
            match self.numbers.get(identifier) {
                Some(&module) => {
                    self.threads.insert(opening.thread, module);
                }
                // An empty index file, of a module that takes no part.
                None => {
                    self.threads.remove(&opening.thread);
                }
            }
            Answer::Discard
        } else {
            Answer::Continue
        }
    }

    fn lookup(&mut self, opening: &Opening) -> Answer {
        let module = match self.naming {
            Naming::ByShard => self.threads.remove(&opening.thread),
            Naming::ByOrder => {
                self.next += 1;
                Some(self.next - 1)
            }
        };
        let entry = PathBuf::from(OsStr::from_bytes(&opening.path));
        let Some((module, asked)) = module.and_then(|m| Some((m, self.asked.get_mut(m)?))) else {
            self.odd
                .push(format!("a lookup of no known module: {}", entry.display()));
            return Answer::Continue;
        };
        *asked += 1;
        if *asked > 1 {
            self.odd
                .push(format!("module {module} was asked for twice"));
            return Answer::Continue;
        }
        let users = self.in_users_cache();
        match &self.objects[module] {
            Object::Hit => Answer::Continue,
            _ if users && entry.exists() => {
                self.objects[module] = Object::Hit;
                Answer::Continue
            }
            Object::Pending => {
                if let Some(missing) = &self.missing {
                    let _ = missing.send(module);
                }
                let waiting = Waiting {
                    id: opening.id,
                    thread: opening.thread,
                    module,
                    entry,
                };
                self.waiting.push(waiting);
                Answer::Hold
            }
            Object::Ready(object) => {
                match self.cache.place(object, &entry) {
                    Ok(()) => self.answered += 1,
                    Err(e) => self
                        .odd
                        .push(format!("cannot place {}: {e}", entry.display())),
                }
                Answer::Continue
            }
            Object::Left => {
                self.cache.clear(&entry);
                Answer::Continue
            }
        }
    }

    /// A backend ended, with its object or without; returns the calls that may go on now.
    pub fn finished(&mut self, module: usize, object: Option<PathBuf>) -> Resume {
        let object = object.map_or(Object::Left, Object::Ready);
        let mut resume = Vec::new();
        let mut i = 0;
        while let Some(w) = self.waiting.get(i) {
            if w.module != module {
                i += 1;
                continue;
            }
            match &object {
                Object::Ready(file) => match self.cache.place(file, &w.entry) {
                    Ok(()) => self.answered += 1,
                    Err(e) => self
                        .odd
                        .push(format!("cannot place {}: {e}", w.entry.display())),
                },
                _ => self.cache.clear(&w.entry),
            }
            resume.push(w.id);
            self.waiting.swap_remove(i);
        }
        if let Some(slot) = self.objects.get_mut(module)
            && *slot == Object::Pending
        {
            *slot = object;
        }
        resume
    }

    /// Gives up on all that is still missing; returns the calls that may go on now.
    pub fn abandon(&mut self) -> Resume {
        for slot in &mut self.objects {
            if *slot == Object::Pending {
                *slot = Object::Left;
            }
        }
        let waiting = std::mem::take(&mut self.waiting);
        for w in &waiting {
            self.cache.clear(&w.entry);
        }
        waiting.into_iter().map(|w| w.id).collect()
    }

    /// How many objects lld was given.
    #[must_use]
    pub fn answered(&self) -> usize {
        self.answered
    }

    /// How many modules the user's cache had.
    #[must_use]
    pub fn hits(&self) -> usize {
        self.objects.iter().filter(|&o| *o == Object::Hit).count()
    }

    /// Whether all went as it should: each expected module asked for once, nothing odd. By order,
    /// anything else could mean that an object went to the wrong module.
    pub fn check(&self) -> Result<(), String> {
        if let Some(first) = self.odd.first() {
            return Err(first.clone());
        }
        let asked = self.asked.iter().filter(|&&n| n == 1).count();
        if asked == self.expected {
            Ok(())
        } else {
            Err(format!(
                "lld looked up {asked} modules where {} were expected",
                self.expected
            ))
        }
    }
}

impl Cache {
    /// Gives `object` the name that lld asks for.
    fn place(&self, object: &Path, entry: &Path) -> io::Result<()> {
        match self {
            // Two modules may have the same key (the same content twice): lld has mapped the first
            // by now, and the name is given anew.
            Self::Private(_) => {
                self.clear(entry);
                fs::rename(object, entry)
            }
            Self::Users(dir) => contribute(object, Path::new(dir), entry),
        }
    }

    /// Takes an earlier module's object away, so that lld does not find it for this one.
    fn clear(&self, entry: &Path) {
        if let Self::Private(_) = self {
            let _ = fs::remove_file(entry);
        }
    }
}

/// Puts an object into the user's cache as lld does: the directory made when first needed, the entry
/// readable by its owner only, and there whole or not at all.
fn contribute(object: &Path, dir: &Path, entry: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    fs::set_permissions(object, Permissions::from_mode(0o600))?;
    match fs::rename(object, entry) {
        Err(e) if e.kind() == io::ErrorKind::CrossesDevices => {}
        done => return done,
    }
    let mut temporary = tempfile::Builder::new()
        .prefix("Thin-")
        .suffix(".tmp.o")
        .tempfile_in(dir)?;
    process::note_temporary(std::path::absolute(temporary.path())?);
    io::copy(&mut fs::File::open(object)?, temporary.as_file_mut())?;
    temporary.persist(entry)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    struct Case {
        dir: tempfile::TempDir,
        lookups: Lookups,
        id: u64,
    }

    impl Case {
        fn new(naming: Naming, n: usize, expected: usize) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let ids: Vec<_> = (0..n)
                .map(|i| Identifier(OsString::from(format!("{i}.o"))))
                .collect();
            let cache = Cache::Private(dir.path().to_owned());
            let lookups = Lookups::new(naming, cache, ids.iter(), expected);
            Self {
                dir,
                lookups,
                id: 0,
            }
        }
        fn object(&self, module: usize) -> PathBuf {
            let file = self.dir.path().join(format!("object{module}"));
            std::fs::write(&file, format!("{module}")).unwrap();
            file
        }
        fn open(&mut self, thread: u32, path: &str, flags: i32) -> Answer {
            self.id += 1;
            let path = path.as_bytes().to_vec();
            self.lookups.opened(&Opening {
                id: self.id,
                thread,
                path,
                flags,
            })
        }
        fn look(&mut self, thread: u32, key: &str) -> Answer {
            let path = self.entry(key).display().to_string();
            self.open(thread, &path, libc::O_RDONLY | libc::O_CLOEXEC)
        }
        fn shard(&mut self, thread: u32, module: &str) -> Answer {
            self.open(
                thread,
                &format!("{module}.thinlto.bc"),
                libc::O_WRONLY | libc::O_CREAT,
            )
        }
        fn entry(&self, key: &str) -> PathBuf {
            self.dir.path().join(format!("llvmcache-{key}"))
        }
        fn read(&self, key: &str) -> Option<String> {
            std::fs::read_to_string(self.entry(key)).ok()
        }
    }

    #[test]
    fn a_thread_is_answered_for_the_shard_it_opened() {
        let mut c = Case::new(Naming::ByShard, 3, 3);
        for n in [0, 2] {
            let object = c.object(n);
            assert!(c.lookups.finished(n, Some(object)).is_empty());
        }
        assert_eq!(c.shard(7, "2.o"), Answer::Discard);
        assert_eq!(c.shard(8, "0.o"), Answer::Discard);
        assert_eq!(c.look(8, "A"), Answer::Continue);
        assert_eq!(c.look(7, "B"), Answer::Continue);
        assert_eq!(
            (c.read("A").as_deref(), c.read("B").as_deref()),
            (Some("0"), Some("2"))
        );
        // Held until the object is there.
        assert_eq!(c.shard(7, "1.o"), Answer::Discard);
        assert_eq!(c.look(7, "C"), Answer::Hold);
        let object = c.object(1);
        assert_eq!(c.lookups.finished(1, Some(object)), vec![c.id]);
        assert_eq!(c.read("C").as_deref(), Some("1"));
        c.lookups.check().unwrap();
        assert_eq!(c.lookups.answered(), 3);
    }

    #[test]
    fn a_lookup_without_a_shard_gets_nothing() {
        let mut c = Case::new(Naming::ByShard, 1, 1);
        let object = c.object(0);
        c.lookups.finished(0, Some(object));
        assert_eq!(c.look(7, "A"), Answer::Continue);
        assert_eq!(c.read("A"), None);
        assert!(c.lookups.check().is_err());
    }

    #[test]
    fn a_missing_answer_leaves_the_module_to_lld() {
        let mut c = Case::new(Naming::ByShard, 2, 2);
        c.shard(7, "0.o");
        assert_eq!(c.look(7, "A"), Answer::Hold);
        assert_eq!(c.lookups.finished(0, None), vec![c.id]);
        assert_eq!(c.read("A"), None);
        c.shard(7, "1.o");
        assert_eq!(c.look(7, "B"), Answer::Hold);
        assert_eq!(c.lookups.abandon(), vec![c.id]);
        c.lookups.check().unwrap();
        assert_eq!(c.lookups.answered(), 0);
    }

    #[test]
    fn by_order_one_lookup_too_many_or_too_few_is_seen() {
        let mut c = Case::new(Naming::ByOrder, 2, 2);
        for n in 0..2 {
            let object = c.object(n);
            c.lookups.finished(n, Some(object));
        }
        c.look(1, "A");
        assert!(c.lookups.check().is_err());
        c.look(1, "B");
        c.lookups.check().unwrap();
        assert_eq!(
            (c.read("A").as_deref(), c.read("B").as_deref()),
            (Some("0"), Some("1"))
        );
        c.look(1, "C");
        assert!(c.lookups.check().is_err());
    }

    #[test]
    fn one_key_for_two_modules_gives_each_its_own_object() {
        let mut c = Case::new(Naming::ByOrder, 2, 2);
        for n in 0..2 {
            let object = c.object(n);
            c.lookups.finished(n, Some(object));
        }
        c.look(1, "A");
        assert_eq!(c.read("A").as_deref(), Some("0"));
        c.look(1, "A");
        assert_eq!(c.read("A").as_deref(), Some("1"));
        c.lookups.check().unwrap();
    }

    #[test]
    fn an_interrupted_call_that_comes_again_is_the_same_lookup() {
        for naming in [Naming::ByShard, Naming::ByOrder] {
            let mut c = Case::new(naming, 2, 1);
            if naming == Naming::ByShard {
                c.shard(7, "0.o");
            }
            assert_eq!(c.look(7, "A"), Answer::Hold);
            assert_eq!(c.look(7, "A"), Answer::Hold);
            let object = c.object(0);
            assert_eq!(c.lookups.finished(0, Some(object)), vec![c.id]);
            assert_eq!(c.read("A").as_deref(), Some("0"));
            c.lookups.check().unwrap();
        }
    }

    #[test]
    fn in_the_users_cache_entries_are_lld_s_and_ours_stay() {
        for naming in [Naming::ByShard, Naming::ByOrder] {
            let mut c = Case::new(naming, 3, 3);
            let dir = c.dir.path().join("users");
            fs::create_dir(&dir).unwrap();
            c.lookups.cache = Cache::Users(dir.clone().into());
            c.lookups.prefix = c.lookups.cache.prefix();
            fs::write(dir.join("llvmcache-A"), "theirs").unwrap();
            let misses = c.lookups.misses();
            let ask = |c: &mut Case, module: &str, key: &str| {
                if naming == Naming::ByShard {
                    c.shard(7, module);
                }
                let path = dir.join(format!("llvmcache-{key}")).display().to_string();
                c.open(7, &path, libc::O_RDONLY)
            };
            // A hit is lld's own, and its backend is of no use any more.
            assert!(c.lookups.wanted(0));
            assert_eq!(ask(&mut c, "0.o", "A"), Answer::Continue);
            assert!(!c.lookups.wanted(0));
            // A miss is said, and what is made for it stays.
            assert_eq!(ask(&mut c, "1.o", "B"), Answer::Hold);
            assert_eq!(misses.try_iter().collect::<Vec<_>>(), [1]);
            let object = c.object(1);
            assert_eq!(c.lookups.finished(1, Some(object)), vec![c.id]);
            let entry = dir.join("llvmcache-B");
            assert_eq!(fs::metadata(&entry).unwrap().mode() & 0o777, 0o600);
            // One key for two modules is a hit, as it is for lld.
            assert_eq!(ask(&mut c, "2.o", "B"), Answer::Continue);
            c.lookups.abandon();
            c.lookups.close();
            assert!(misses.recv().is_err());
            assert_eq!((c.lookups.hits(), c.lookups.answered()), (2, 1));
            assert_eq!(
                fs::read_to_string(dir.join("llvmcache-A")).unwrap(),
                "theirs"
            );
            assert_eq!(fs::read_to_string(entry).unwrap(), "1");
            c.lookups.check().unwrap();
        }
    }

    #[test]
    fn entries_are_named_as_lld_names_them() {
        for (dir, prefix) in [
            ("c", "c/llvmcache-"),
            ("/c/", "/c/llvmcache-"),
            (".", "./llvmcache-"),
        ] {
            assert_eq!(Cache::Users(dir.into()).prefix(), prefix.as_bytes());
        }
    }
}
