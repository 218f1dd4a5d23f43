//! lld before 18 calls an object by the name of its cache entry, in maps and messages, where it would have
//! called it `lto.tmp` without a cache (`BitcodeCompiler::compile`, lld/ELF/LTO.cpp). Here is what gives
//! them back that name.

use std::io;
use std::path::Path;

/// Digits of a key, which is a SHA-1 in hexadecimal.
const KEY_DIGITS: usize = 40;

/// Cache entries as an old lld names them.
#[derive(Debug)]
pub struct CachedNames {
    prefix: Vec<u8>,
}

impl CachedNames {
    /// For entries whose names begin like this, with a key behind it.
    #[must_use]
    pub fn new(prefix: &[u8]) -> Self {
        Self {
            prefix: prefix.to_vec(),
        }
    }

    /// `text` with each entry called what it is called in-process; `is_key` tells keys from what only
    /// looks like one.
    #[must_use]
    pub fn replace(&self, text: &[u8], is_key: impl Fn(&[u8]) -> bool) -> Vec<u8> {
        let mut out = Vec::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = find(rest, &self.prefix) {
            let (before, entry) = rest.split_at(at);
            out.extend_from_slice(before);
            let key = entry.get(self.prefix.len()..).unwrap_or_default();
            let digits = key.iter().take(KEY_DIGITS);
            let end = digits.take_while(|b| b.is_ascii_hexdigit()).count();
            let (key, behind) = key.split_at(end);
            if is_key(key) {
                out.extend_from_slice(b"lto.tmp");
            } else {
                out.extend_from_slice(&self.prefix);
                out.extend_from_slice(key);
            }
            rest = behind;
        }
        out.extend_from_slice(rest);
        out
    }

    /// How many bytes at the end of `text` may be the beginning of an entry's name.
    #[must_use]
    pub fn unfinished(&self, text: &[u8]) -> usize {
        let longest = self.prefix.len() + KEY_DIGITS - 1;
        let from = text.len().saturating_sub(longest);
        let tails = (from..text.len()).filter_map(|at| text.get(at..));
        let begins = |tail: &&[u8]| match tail.strip_prefix(self.prefix.as_slice()) {
            Some(key) => key.iter().all(u8::is_ascii_hexdigit),
            None => self.prefix.starts_with(tail),
        };
        tails.into_iter().find(begins).map_or(0, <[u8]>::len)
    }

    /// Replaces the names in a map that lld has written. A map that is no plain file went where we cannot
    /// follow, which is an error.
    pub fn replace_in_map(&self, map: &Path, is_key: impl Fn(&[u8]) -> bool) -> io::Result<()> {
        if !std::fs::metadata(map)?.is_file() {
            return Err(io::Error::other("it is no plain file"));
        }
        let text = std::fs::read(map)?;
        let new = self.replace(&text, is_key);
        if new != text {
            std::fs::write(map, new)?;
        }
        Ok(())
    }
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    let first = *what.first()?;
    let mut from = 0;
    loop {
        let at = from + text.get(from..)?.iter().position(|&b| b == first)?;
        if text.get(at..)?.starts_with(what) {
            return Some(at);
        }
        from = at + 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cache_entries_are_shown_as_lld_names_them_in_process() {
        let names = CachedNames::new(b"/tmp/x/c/llvmcache-");
        let map = b" 10 /tmp/x/c/llvmcache-0123ABCDEF:(.text.f)\n/tmp/x/c /tmp/x/c/llvmcache-";
        assert_eq!(
            String::from_utf8(names.replace(map, |_| true)).unwrap(),
            " 10 lto.tmp:(.text.f)\n/tmp/x/c lto.tmp"
        );
        assert_eq!(names.replace(map, |_| false), map);
    }

    #[test]
    fn a_name_that_goes_on_later_is_seen() {
        let names = CachedNames::new(b"/p/c-");
        for (text, unfinished) in [
            ("", 0),
            ("x", 0),
            ("x/", 1),
            ("x/p/c", 4),
            ("x /p/c-", 5),
            ("x/p/c-0A", 7),
            ("x/p/c-0A:", 0),
            ("/p/p", 2),
        ] {
            assert_eq!(names.unfinished(text.as_bytes()), unfinished, "{text}");
        }
        let whole = format!("/p/c-{}", "0".repeat(KEY_DIGITS));
        assert_eq!(names.unfinished(whole.as_bytes()), 0);
    }
}
