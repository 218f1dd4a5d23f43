//! Which module a cache lookup of lld's is for, and whether its object is there.
//!
//! An object given to the wrong module would be the one unforgivable bug (fact 23), so there are two
//! ways to know, and anything else is answered with nothing: lld then compiles that module itself.
//!
//! - lld 16 and later, with `--thinlto-emit-index-files`: each backend thread opens its own module's
//!   `IDENTIFIER.thinlto.bc` for writing and next makes its lookup, so the thread says which module
//!   it asks for, whatever the order.
//! - Before that: with one thread, lookups come in task order, and every module makes one.

use crate::index::Identifier;
use crate::supervise::{Answer, Opening};
use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

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
    /// Directory and first part of the name of lld's cache entries.
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
}

/// What is to be done with an opening, beyond [`Answer`].
pub type Resume = Vec<u64>;

impl Lookups {
    /// For the modules of an index, in task order, lld's cache directory, and the number of modules
    /// that lld will look up (those with a hash).
    #[must_use]
    pub fn new<'a>(
        naming: Naming,
        cache: &Path,
        modules: impl ExactSizeIterator<Item = &'a Identifier>,
        expected: usize,
    ) -> Self {
        let mut prefix = cache.as_os_str().as_encoded_bytes().to_vec();
        prefix.extend_from_slice(b"/llvmcache-");
        let n = modules.len();
        Self {
            naming,
            prefix,
            numbers: modules
                .enumerate()
                .map(|(n, id)| (id.0.as_encoded_bytes().to_vec(), n))
                .collect(),
            objects: vec![Object::Pending; n],
            asked: vec![0; n],
            answered: 0,
            threads: HashMap::new(),
            waiting: Vec::new(),
            next: 0,
            odd: Vec::new(),
            expected,
        }
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
        let entry = PathBuf::from(
            <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(&opening.path),
        );
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
        match &self.objects[module] {
            Object::Pending => {
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
                match place(object, &entry) {
                    Ok(()) => self.answered += 1,
                    Err(e) => self
                        .odd
                        .push(format!("cannot place {}: {e}", entry.display())),
                }
                Answer::Continue
            }
            Object::Left => {
                clear(&entry);
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
                Object::Ready(file) => match place(file, &w.entry) {
                    Ok(()) => self.answered += 1,
                    Err(e) => self
                        .odd
                        .push(format!("cannot place {}: {e}", w.entry.display())),
                },
                _ => clear(&w.entry),
            }
            resume.push(w.id);
            self.waiting.swap_remove(i);
        }
        if let Some(slot) = self.objects.get_mut(module) {
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
            clear(&w.entry);
        }
        waiting.into_iter().map(|w| w.id).collect()
    }

    /// How many objects lld was given.
    #[must_use]
    pub fn answered(&self) -> usize {
        self.answered
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

/// Gives `object` the name that lld asks for. Two modules may have the same key (the same content
/// twice): lld has mapped the first by now, and the name is given anew.
fn place(object: &Path, entry: &Path) -> io::Result<()> {
    clear(entry);
    std::fs::rename(object, entry)
}

/// Takes an earlier module's object away, so that lld does not find it for this one.
fn clear(entry: &Path) {
    let _ = std::fs::remove_file(entry);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsString;

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
            let lookups = Lookups::new(naming, dir.path(), ids.iter(), expected);
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
}
