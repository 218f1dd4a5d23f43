//! The options of a link that shape its objects, for keys of the cache; or the reason why lld is to do
//! the link alone.
//!
//! lld's own key lacks much of what its command line sets (`computeLTOCacheKey` in llvm/lib/LTO/LTO.cpp
//! says so itself). With all of it beside lld's key, no link was ever seen to get another link's object.

use crate::cache::files::{FileDigests, Identity};
use crate::jobs::codegen;
use shim::cmdline::CommandLine;
use shim::effects::{Effect, effect, left_to_lld, names_file};
use shim::options::Id;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Files that keys cover, by the name that lld opens, as they were when they were read.
pub type CoveredFiles = HashMap<Vec<u8>, Identity>;

/// What a link's options say about code.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CodeOptions {
    /// Each option with its value, as bytes that no other options have.
    words: Vec<u8>,
    /// Files that options name.
    files: Vec<PathBuf>,
}

impl CodeOptions {
    /// Of a command line; `Err` is the reason to leave the link to lld alone.
    pub fn of(cmd: &CommandLine) -> Result<Self, String> {
        if cmd.last(Id::Lto) == Some(OsStr::new("full")) {
            return Err("--lto=full".into());
        }
        if let Some(reason) = left_to_lld(cmd) {
            return Err(reason.to_owned());
        }
        let mut options = Self::default();
        for option in cmd.options() {
            let value = option.value.as_bytes();
            match effect(option.id) {
                Effect::None | Effect::Alone(_) => {}
                Effect::Code => {
                    codegen::check_cacheable(option.id, value)?;
                    options.word(option.id, value);
                }
                Effect::CodeFile if names_file(option.id, value) => {
                    options.files.push(PathBuf::from(&option.value));
                    // With --lto-cs-profile-generate this is a name for the program to write to.
                    let name = cmd.has(Id::LtoCsProfileGenerate);
                    options.word(option.id, if name { value } else { b"" });
                }
                Effect::CodeFile => options.word(option.id, value),
            }
        }
        Ok(options)
    }

    fn word(&mut self, id: Id, value: &[u8]) {
        self.words
            .extend_from_slice(format!("{id:?}={}:", value.len()).as_bytes());
        self.words.extend_from_slice(value);
    }

    /// The options with the content of the files that they name, and these files as they were when they
    /// were read.
    pub fn with_content(&self, files: &FileDigests) -> io::Result<(Vec<u8>, CoveredFiles)> {
        let mut words = self.words.clone();
        let mut identities = HashMap::new();
        for path in &self.files {
            // One that is not there is lld's to complain about, or to do without.
            let digest = match Identity::of_path(path) {
                Ok(identity) => {
                    identities.insert(path.as_os_str().as_bytes().to_vec(), identity);
                    files.digest(Path::new(path))?.to_string()
                }
                Err(_) => "none".into(),
            };
            words.extend_from_slice(digest.as_bytes());
        }
        Ok((words, identities))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsString;

    fn of(line: &str) -> Result<CodeOptions, String> {
        let args: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        CodeOptions::of(&CommandLine::parse(&args).unwrap())
    }

    #[test]
    fn what_shapes_no_code_makes_no_difference() {
        let plain = of("a.o -o out").unwrap();
        assert_eq!(of("-L/x b.o -o other --gc-sections -Map=m").unwrap(), plain);
        for line in [
            "--lto-O3",
            "-mllvm -align-all-functions=5",
            "-plugin-opt=-stack-size-section",
            "-plugin-opt=mcpu=x86-64-v3",
            "--no-warnings",
            "--lto-whole-program-visibility",
        ] {
            assert_ne!(of(line).unwrap(), plain, "{line}");
        }
        assert_ne!(of("--lto-O3").unwrap(), of("--lto-O2").unwrap());
    }

    #[test]
    fn files_count_by_their_content() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("profile");
        let line = format!("--lto-cs-profile-file={}", file.display());
        let words = || {
            of(&line)
                .unwrap()
                .with_content(&FileDigests::default())
                .unwrap()
                .0
        };
        let none = words();
        std::fs::write(&file, "one").unwrap();
        let one = words();
        std::fs::write(&file, "two").unwrap();
        assert!(none != one && one != words() && none != words());
    }

    #[test]
    fn what_a_cached_object_would_lose_is_left_to_lld() {
        for line in [
            "--save-temps",
            "--thinlto-index-only",
            "-mllvm -print-after-all",
            "-mllvm -opt-bisect-limit=5",
            "-mllvm -sample-profile-file=x/y",
            "--opt-remarks-filename r",
            "--lto=full",
        ] {
            assert!(of(line).is_err(), "{line}");
        }
        assert!(of("--thinlto-cache-dir=").is_ok());
    }
}
