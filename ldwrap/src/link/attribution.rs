//! Which module a lookup of lld's is for. Only objects that are made elsewhere need to know: a cache goes
//! by lld's key.
//!
//! An object given to the wrong module would be the one unforgivable bug, so there are two ways to know,
//! and a lookup that neither explains is nobody's: lld compiles that module itself.
//!
//! - lld 16 and later, with `--thinlto-emit-index-files`: each backend thread opens its own module's
//!   `IDENTIFIER.thinlto.bc` for writing and next makes its lookup (`InProcessThinBackend`,
//!   llvm/lib/LTO/LTO.cpp), so the thread says which module it asks for, whatever the order.
//! - Before that: with one thread, lookups come in task order, and every module makes one.

use crate::jobs::quirks;
use std::collections::HashMap;

/// How lookups are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttributionRule {
    /// By the shard that the same thread opened before.
    ByIndexFile,
    /// By their order.
    ByTaskOrder,
}

impl AttributionRule {
    /// With lld of this major version.
    #[must_use]
    pub const fn of(major: u32) -> Self {
        if major >= quirks::OPENS_INDEX_FILES {
            Self::ByIndexFile
        } else {
            Self::ByTaskOrder
        }
    }
}

/// The module of a lookup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Module {
    /// By its identifier.
    Named(Vec<u8>),
    /// By its position in task order.
    Number(usize),
}

/// What lld's threads have shown of their modules.
#[derive(Debug)]
pub struct Attribution {
    naming: AttributionRule,
    threads: HashMap<u32, Vec<u8>>,
    next: usize,
    /// The key before, by order; none when the order is lost.
    last: Option<Vec<u8>>,
}

impl Attribution {
    /// With nothing shown yet.
    #[must_use]
    pub fn new(naming: AttributionRule) -> Self {
        Self {
            naming,
            threads: HashMap::new(),
            next: 0,
            last: Some(Vec::new()),
        }
    }

    /// A thread opens a file to write it; true if that is a shard, which nobody is to see.
    pub fn opens(&mut self, thread: u32, path: &[u8]) -> bool {
        let shard = path.strip_suffix(b".thinlto.bc");
        match shard.filter(|_| self.naming == AttributionRule::ByIndexFile) {
            Some(identifier) => {
                self.threads.insert(thread, identifier.to_vec());
                true
            }
            None => false,
        }
    }

    /// A thread makes a lookup with this key: its module, if that is sure. Not to be asked again for a
    /// lookup that waits.
    pub fn lookup(&mut self, thread: u32, key: &[u8]) -> Option<Module> {
        match self.naming {
            AttributionRule::ByIndexFile => self.threads.remove(&thread).map(Module::Named),
            AttributionRule::ByTaskOrder => {
                // A call that is interrupted comes again. One that was answered, and another module's with
                // the same key, cannot be told apart.
                self.last = self.last.take().filter(|last| last != key);
                self.last.as_mut()?.clone_from(&key.to_vec());
                self.next += 1;
                Some(Module::Number(self.next - 1))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_asks_for_the_module_whose_shard_it_opened() {
        let mut seen = Attribution::new(AttributionRule::ByIndexFile);
        assert!(seen.opens(7, b"2.o.thinlto.bc"));
        assert!(seen.opens(8, b"a/0.o.thinlto.bc"));
        assert!(!seen.opens(8, b"out.tmp"));
        let named = |name: &[u8]| Some(Module::Named(name.to_vec()));
        assert_eq!(seen.lookup(8, b"A"), named(b"a/0.o"));
        assert_eq!(seen.lookup(7, b"A"), named(b"2.o"));
        // A lookup without a shard is nobody's.
        assert_eq!(seen.lookup(7, b"B"), None);
        assert_eq!(seen.lookup(9, b"B"), None);
    }

    #[test]
    fn by_order_each_lookup_is_the_next_module_s() {
        let mut seen = Attribution::new(AttributionRule::ByTaskOrder);
        assert!(!seen.opens(7, b"2.o.thinlto.bc"));
        assert_eq!(seen.lookup(7, b"A"), Some(Module::Number(0)));
        assert_eq!(seen.lookup(7, b"B"), Some(Module::Number(1)));
        assert_eq!(seen.lookup(7, b"A"), Some(Module::Number(2)));
        // The same lookup again, or another with the same key: nothing is sure any more.
        assert_eq!(seen.lookup(7, b"A"), None);
        assert_eq!(seen.lookup(7, b"C"), None);
    }
}
