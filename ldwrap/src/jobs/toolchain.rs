//! The real lld and its clang: where they are, which version they are, and whether clang's objects are
//! known to equal lld's.
//!
//! Asking costs two process starts and a small link (docs/lld.md, "Starting processes"), so the answers
//! are kept in the cache directory by the files' identity (device, inode, size, times). They may be deleted
//! at any time.

use crate::cache::digest::Digest;
use crate::sys::process;
use crate::sys::records::Records;
use object::read::elf::{Dyn, FileHeader};
use object::{Endianness, ReadCache, elf};
use serde_json::{Value, json};
use shim::config::Config;
use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use thiserror::Error;

/// Why there is no toolchain to make jobs with.
#[derive(Debug, Error)]
pub enum ToolchainError {
    /// No clang was found.
    #[error("no clang for {lld}: looked at {tried}; set LDWRAP_CLANG")]
    NoClang {
        /// The real lld.
        lld: PathBuf,
        /// What was looked at.
        tried: String,
    },
    /// A tool could not be run or did not say its version.
    #[error("cannot tell the version of {tool}: {why}")]
    NoVersion {
        /// The tool.
        tool: PathBuf,
        /// What it did instead.
        why: String,
    },
    /// clang and lld are of different LLVMs.
    #[error("{clang} is {clang_version}, but {lld} is {lld_version}: they must be the same")]
    Mismatch {
        /// The clang.
        clang: PathBuf,
        /// Its version.
        clang_version: String,
        /// The lld.
        lld: PathBuf,
        /// Its version.
        lld_version: String,
    },
    /// An lld of which no jobs are made.
    #[error("lld {0} is too old for jobs outside lld: it must be 14 or later")]
    Unsupported(String),
}

/// What stands before the version in what lld says.
const LLD: &str = "LLD ";

/// An lld and the clang of the same LLVM.
#[derive(Debug, Clone)]
pub struct Toolchain {
    /// The real lld.
    pub lld: PathBuf,
    /// The clang that compiles backends.
    pub clang: PathBuf,
    /// The version of both, `22.1.8`.
    pub version: String,
    /// Its first number.
    pub major: u32,
    /// The first line of clang's `--version`, which tells apart builds of one version.
    pub banner: String,
    /// Where these answers are kept.
    records: Records,
    /// Whether the self-test was passed with exactly these files.
    pub self_tested: bool,
}

impl Toolchain {
    /// Finds the clang that belongs to `lld` and checks that they match: the first that does is taken.
    pub fn find(lld: &Path, config: &Config) -> Result<Self, ToolchainError> {
        let candidates = clang_candidates(lld, config);
        let mut mismatch = None;
        for clang in &candidates {
            if !clang.is_file() {
                continue;
            }
            let itself = compiler_itself(clang);
            match itself.and_then(|clang| Self::pair(lld, &clang, config)) {
                Ok(found) => return Ok(found),
                // The next one may match.
                Err(e @ (ToolchainError::Mismatch { .. } | ToolchainError::NoVersion { .. })) => {
                    mismatch.get_or_insert(e);
                }
                Err(e) => return Err(e),
            }
        }
        Err(mismatch.unwrap_or_else(|| ToolchainError::NoClang {
            lld: lld.to_owned(),
            tried: candidates
                .iter()
                .map(|c| c.display().to_string())
                .collect::<Vec<_>>()
                .join(", "),
        }))
    }

    fn pair(lld: &Path, clang: &Path, config: &Config) -> Result<Self, ToolchainError> {
        let key = pair_key(lld, clang);
        let records = Records::new(config.cache_dir.as_deref(), "toolchains");
        if let Some(key) = &key {
            if let Some((version, banner, self_tested)) = read_record(&records, key) {
                if let Some(major) = major(&version) {
                    return Ok(Self {
                        lld: lld.to_owned(),
                        clang: clang.to_owned(),
                        version,
                        major,
                        banner,
                        records,
                        self_tested,
                    });
                }
            }
        }
        let (lld_version, _) = version_of(lld, LLD)?;
        let (clang_version, banner) = version_of(clang, "clang version ")?;
        if lld_version != clang_version {
            return Err(ToolchainError::Mismatch {
                clang: clang.to_owned(),
                clang_version,
                lld: lld.to_owned(),
                lld_version,
            });
        }
        let major = major(&lld_version)
            // Of a later version than we know the self-test says whether it works.
            .filter(|m| m >= shim::lld::MAJORS.start())
            .ok_or_else(|| ToolchainError::Unsupported(lld_version.clone()))?;
        let found = Self {
            lld: lld.to_owned(),
            clang: clang.to_owned(),
            version: lld_version,
            major,
            banner,
            records,
            self_tested: false,
        };
        found.write_record(key.as_deref());
        Ok(found)
    }

    /// Records that the self-test was passed.
    pub fn record_self_test(&mut self) {
        self.self_tested = true;
        self.write_record(pair_key(&self.lld, &self.clang).as_deref());
    }

    /// Keeps what is known of the files that `key` is about.
    fn write_record(&self, key: Option<&str>) {
        if let Some(key) = key {
            let line = json!({
                "key": key, "version": self.version, "banner": self.banner, "self_tested": self.self_tested,
            });
            self.records.write(&file_name_of(key), &line.to_string());
        }
    }
}

/// The version that an lld says of itself, `22.1.8`.
pub fn lld_version(lld: &Path) -> Result<String, ToolchainError> {
    version_of(lld, LLD).map(|(version, _)| version)
}

/// The major version of an lld. Its dynamic section says it where it uses LLVM's library; else it is asked,
/// and the answer is remembered. An error says of which file it cannot be told.
pub fn lld_major(lld: &Path, cache_dir: Option<&Path>) -> Result<u32, String> {
    find_major(lld, cache_dir)
        .ok_or_else(|| format!("cannot tell the version of {}", lld.display()))
}

fn find_major(lld: &Path, cache_dir: Option<&Path>) -> Option<u32> {
    if let Some(major) = needed_llvm(lld) {
        return Some(major);
    }
    let records = Records::new(cache_dir, "versions");
    let name = identity(lld).map(|identity| file_name_of(&identity));
    let remembered = name.as_ref().and_then(|name| records.read(name));
    if let Some(major) = remembered.and_then(|text| text.trim().parse().ok()) {
        return Some(major);
    }
    let found = major(&version_of(lld, LLD).ok()?.0)?;
    if let Some(name) = &name {
        records.write(name, &found.to_string());
    }
    Some(found)
}

/// The major version of the libLLVM that a program is linked with: `libLLVM-14.so.1`,
/// `libLLVM.so.22.1`.
fn needed_llvm(program: &Path) -> Option<u32> {
    needed(program)?
        .iter()
        .find_map(|name| major_of_library(name))
}

/// The names of the libraries that a program says it needs.
fn needed(program: &Path) -> Option<Vec<Vec<u8>>> {
    let data = &ReadCache::new(std::fs::File::open(program).ok()?);
    let header = elf::FileHeader64::<Endianness>::parse(data).ok()?;
    let endian = header.endian().ok()?;
    let sections = header.sections(endian, data).ok()?;
    let (dynamic, strings) = sections.dynamic(endian, data).ok()??;
    let strings = sections.strings(endian, data, strings).ok()?;
    let needed = dynamic
        .iter()
        .filter(|d| d.tag32(endian) == Some(elf::DT_NEEDED));
    let names = needed.filter_map(|d| d.string(endian, strings).ok());
    Some(names.map(<[u8]>::to_vec).collect())
}

fn major_of_library(name: &[u8]) -> Option<u32> {
    let rest = std::str::from_utf8(name).ok()?.strip_prefix("libLLVM")?;
    let rest = rest
        .strip_prefix('-')
        .or_else(|| rest.strip_prefix(".so."))?;
    let end = rest
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(rest.len());
    rest.get(..end)?.parse().ok()
}

/// A name for the record of a key.
fn file_name_of(key: &str) -> String {
    let mut name = Digest::of(key.as_bytes()).hex();
    name.truncate(16);
    name
}

/// Version, banner, and whether the self-test was passed, if that is known of `key`.
fn read_record(records: &Records, key: &str) -> Option<(String, String, bool)> {
    let v: Value = serde_json::from_str(&records.read(&file_name_of(key))?).ok()?;
    if v["key"].as_str()? != key {
        return None;
    }
    let text = |name: &str| v[name].as_str().map(str::to_owned);
    let self_tested = v["self_tested"].as_bool()?;
    Some((text("version")?, text("banner")?, self_tested))
}

fn major(version: &str) -> Option<u32> {
    version.split('.').next()?.parse().ok()
}

/// What a record is about: these two files, and this ldwrap, since another may know better. Ours by
/// size and time alone: copies of it are the same program.
fn pair_key(lld: &Path, clang: &Path) -> Option<String> {
    let own = std::fs::metadata(std::env::current_exe().ok()?).ok()?;
    let libraries = [lld, clang].map(llvms_libraries).concat();
    let (lld, clang) = (identity(lld)?, identity(clang)?);
    let version = env!("CARGO_PKG_VERSION");
    Some(format!(
        "{version}:{}:{}.{} {lld} {clang} {libraries}",
        own.size(),
        own.mtime(),
        own.mtime_nsec()
    ))
}

/// What makes LLVM's and clang's libraries of a program these files: those that it names, where packages have them.
fn llvms_libraries(program: &Path) -> String {
    const PLACES: [&str; 4] = [
        "../lib",
        "/usr/lib/x86_64-linux-gnu",
        "/usr/lib/aarch64-linux-gnu",
        "/usr/lib64",
    ];
    let real = program.canonicalize().unwrap_or_default();
    let dir = real.parent().unwrap_or(Path::new("/"));
    let of_llvm = |name: &Vec<u8>| name.starts_with(b"libLLVM") || name.starts_with(b"libclang");
    let mut found = String::new();
    for name in needed(program)
        .unwrap_or_default()
        .iter()
        .filter(|name| of_llvm(name))
    {
        let paths = PLACES.map(|place| dir.join(place).join(OsStr::from_bytes(name)));
        if let Some(identity) = paths.iter().find_map(|path| identity(path)) {
            let _ = write!(found, " {identity}");
        }
    }
    found
}

/// What makes a file this file: any change of it, or of where its links lead, changes this.
fn identity(path: &Path) -> Option<String> {
    let real = path.canonicalize().ok()?;
    let m = std::fs::metadata(&real).ok()?;
    let mut s = String::new();
    for byte in real.as_os_str().as_bytes() {
        let _ = write!(s, "{byte:02x}");
    }
    let _ = write!(
        s,
        ":{}:{}:{}:{}.{}:{}.{}",
        m.dev(),
        m.ino(),
        m.size(),
        m.mtime(),
        m.mtime_nsec(),
        m.ctime(),
        m.ctime_nsec()
    );
    Some(s)
}

/// Where clang may be, in this order: `LDWRAP_CLANG`; beside the real lld; the calling compiler; `clang-N`.
fn clang_candidates(lld: &Path, config: &Config) -> Vec<PathBuf> {
    if let Some(clang) = &config.clang {
        return vec![clang.clone()];
    }
    let mut found = Vec::new();
    let mut dirs = vec![lld.parent().map(Path::to_owned)];
    dirs.push(
        lld.canonicalize()
            .ok()
            .and_then(|p| p.parent().map(Path::to_owned)),
    );
    for dir in dirs.into_iter().flatten() {
        found.push(dir.join("clang"));
    }
    let is_clang = |p: &PathBuf| {
        p.file_name()
            .is_some_and(|n| n.as_bytes().starts_with(b"clang"))
    };
    found.extend(shim::lld::compiler().filter(is_clang));
    let major = lld_major(lld, config.cache_dir.as_deref()).ok();
    let name = major.map(|n| OsString::from(format!("clang-{n}")));
    for dir in std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()) {
        for name in name.as_deref().into_iter().chain([OsStr::new("clang")]) {
            let p = dir.join(name);
            if p.is_absolute() && p.is_file() {
                found.push(p);
            }
        }
    }
    found.dedup();
    found
}

/// The compiler that a command stands for: itself, or what a script or a cache of compiles (by the name of a
/// compiler) runs. Those are none that objects could be known by, or that could be sent to a server.
fn compiler_itself(clang: &Path) -> Result<PathBuf, ToolchainError> {
    let fail = |why: String| ToolchainError::NoVersion {
        tool: clang.to_owned(),
        why,
    };
    let real = clang.canonicalize().map_err(|e| fail(e.to_string()))?;
    let name = real.file_name().unwrap_or_default().as_bytes();
    if name.starts_with(b"clang") && is_elf(&real) {
        return Ok(clang.to_owned());
    }
    // The driver shows the commands that it would run; a compile is its own program's.
    let mut command = Command::new(clang);
    command.args(["-###", "-c", "-x", "c", "/dev/null"]);
    let out = process::answer(command).map_err(|e| fail(e.to_string()))?;
    let shown = String::from_utf8_lossy(&out.stderr);
    let compile = shown.lines().find(|line| line.contains("\"-cc1\""));
    let program = compile.and_then(|line| line.trim_start().strip_prefix('"')?.split_once('"'));
    match program.map(|(program, _)| PathBuf::from(program)) {
        Some(program) if is_elf(&program) => Ok(program),
        _ => Err(fail("it does not say which compiler it runs".into())),
    }
}

fn is_elf(file: &Path) -> bool {
    let mut head = [0; 4];
    let read = std::fs::File::open(file).and_then(|mut file| file.read_exact(&mut head));
    read.is_ok() && head == elf::ELFMAG
}

/// The version that a tool says of itself, behind `marker`, and the first line of what it says.
fn version_of(tool: &Path, marker: &str) -> Result<(String, String), ToolchainError> {
    let fail = |why: String| ToolchainError::NoVersion {
        tool: tool.to_owned(),
        why,
    };
    let mut command = Command::new(tool);
    if marker == LLD {
        // A diverted one may go by any name, and lld goes by its name.
        command.arg0("ld.lld");
    }
    command.arg("--version");
    let out = process::answer(command).map_err(|e| fail(e.to_string()))?;
    let text = String::from_utf8_lossy(&out.stdout);
    let first = text.lines().next().unwrap_or_default().to_owned();
    text.split_once(marker)
        .map(|(_, rest)| {
            rest.chars()
                .take_while(|c| c.is_ascii_digit() || *c == '.')
                .collect()
        })
        .filter(|v: &String| !v.is_empty())
        .map(|v| (v, first.clone()))
        .ok_or_else(|| {
            fail(format!(
                "`--version` ended with {} and said {first:?}",
                out.status
            ))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_tell_their_version() {
        for (name, major) in [
            ("libLLVM-14.so.1", Some(14)),
            ("libLLVM.so.22.1", Some(22)),
            ("libLLVM.so.22.1-rust-1.95.0-stable", Some(22)),
            ("libLLVM-17-rust-1.75.0-stable.so", Some(17)),
            ("libLLVM.so", None),
            ("libc.so.6", None),
        ] {
            assert_eq!(major_of_library(name.as_bytes()), major, "{name}");
        }
    }

    #[test]
    fn another_library_is_another_toolchain() {
        let dir = tempfile::tempdir().unwrap();
        let script = "mkdir bin lib; cc=\"cc -shared -nostdlib -x c /dev/null -o\"; \
                      $cc lib/libLLVM.so.99 -Wl,-soname,libLLVM.so.99; $cc bin/lld -Wl,--no-as-needed -x none lib/libLLVM.so.99";
        let status = Command::new("sh")
            .args(["-ec", script])
            .current_dir(dir.path())
            .status();
        assert!(status.unwrap().success());
        let (lld, library) = (
            dir.path().join("bin/lld"),
            dir.path().join("lib/libLLVM.so.99"),
        );
        let key = || pair_key(&lld, Path::new("/bin/sh")).unwrap();
        let before = key();
        assert_eq!(before, key());
        let file = std::fs::File::options().append(true).open(library).unwrap();
        file.set_modified(std::time::UNIX_EPOCH).unwrap();
        assert_ne!(before, key());
    }
}
