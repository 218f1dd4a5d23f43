//! Which object is for which job, and its way to the file where lld expects it.
//!
//! The lld that distributes calls some modules otherwise than one that does not: a member of an archive `NAME.NUMBER.PID.o` beside the output,
//! where NAME is the last part of its usual identifier, and so the bitcode of a fat object; a member of a thin archive by its own path (`DTLTO::addInput`,
//! llvm/lib/DTLTO/DTLTO.cpp). An object for the wrong module would make a wrong program, so such a module is known by name and
//! content, and left out where two could be meant.

use crate::jobs::index::ModuleIdentifier;
use crate::jobs::job_file::JobFile;
use crate::jobs::modules::with_bitcode;
use crate::link::engine::ObjectReceiver;
use crate::sys::sync::lock;
use shim::cmdline::CommandLine;
use shim::inputs::{self, Visit};
use shim::options::Id;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// A file, by whatever name.
type FileId = (u64, u64);

/// The jobs of a link, and what is still to come of them.
#[derive(Debug)]
pub(super) struct Delivery<'a> {
    file: &'a JobFile,
    /// The size of all modules, in bytes.
    bitcode: u64,
    /// Jobs by the names of their modules.
    by_name: HashMap<&'a [u8], Vec<usize>>,
    /// The same by these files themselves.
    by_file: HashMap<FileId, Vec<usize>>,
    /// Jobs whose modules were unpacked, by the last part of the usual identifier.
    unpacked: HashMap<&'a [u8], Vec<usize>>,
    /// Names of inputs, without their directories, that more than one has, where not all modules of the link are listed.
    shared_names: HashSet<OsString>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The jobs of modules that were asked for.
    known: HashMap<Vec<u8>, Option<usize>>,
    /// Jobs that one of these modules has: no other may have them.
    claimed: HashSet<usize>,
    /// Jobs whose objects lld has not made yet.
    awaited: BTreeSet<usize>,
    /// Jobs whose objects are not there.
    left: BTreeSet<usize>,
}

impl<'a> Delivery<'a> {
    /// Of all jobs of a file. `cmd` is the link's command line, if it is known.
    pub(super) fn new(file: &'a JobFile, cmd: Option<&CommandLine>) -> Self {
        let mut by_name: HashMap<_, Vec<usize>> = HashMap::new();
        let mut by_file: HashMap<_, Vec<usize>> = HashMap::new();
        let mut unpacked: HashMap<_, Vec<usize>> = HashMap::new();
        let mut bitcode: u64 = 0;
        for (n, job) in file.jobs.iter().enumerate() {
            let name = job.module().as_bytes();
            by_name.entry(name).or_default().push(n);
            if let Ok(metadata) = std::fs::metadata(job.module()) {
                bitcode = bitcode.saturating_add(metadata.len());
                by_file
                    .entry((metadata.dev(), metadata.ino()))
                    .or_default()
                    .push(n);
            }
            if let Some(usual) = usual_name(last_part(name)) {
                unpacked.entry(usual).or_default().push(n);
            }
        }
        let all: BTreeSet<usize> = (0..file.jobs.len()).collect();
        Self {
            file,
            bitcode,
            by_name,
            by_file,
            unpacked,
            shared_names: cmd.map(shared_names).unwrap_or_default(),
            state: Mutex::new(State {
                awaited: all.clone(),
                left: all,
                ..State::default()
            }),
        }
    }

    /// The size of all modules, in bytes, as far as they can be looked at.
    pub(super) fn bitcode(&self) -> u64 {
        self.bitcode
    }

    /// The numbers of jobs whose objects are not there.
    pub(super) fn left(&self) -> Vec<usize> {
        lock(&self.state).left.iter().copied().collect()
    }

    /// The job of the module that lld calls `identifier`, when it does not distribute.
    fn job_of(&self, identifier: &[u8]) -> Option<usize> {
        if let Some(jobs) = self.by_name.get(identifier) {
            return one(jobs);
        }
        let identifier = ModuleIdentifier::new(identifier);
        let found = with_bitcode(&identifier, |bytes, whole| {
            let metadata = whole.and_then(|path| std::fs::metadata(path).ok());
            let same = metadata.and_then(|m| self.by_file.get(&(m.dev(), m.ino())));
            if let Some(jobs) = same {
                return Ok(one(jobs));
            }
            let name = last_part(identifier.as_bytes());
            let input = name.split(|&b| b == b'(').next().unwrap_or_default();
            if self.shared_names.contains(OsStr::from_bytes(input)) {
                return Ok(None);
            }
            let equal = |&&n: &&usize| {
                let path = self.file.jobs.get(n).map(|job| job.module());
                path.is_some_and(|path| {
                    crate::sys::map(Path::new(path)).is_ok_and(|map| *map == *bytes)
                })
            };
            let candidates = self.unpacked.get(name).into_iter().flatten();
            let equal: Vec<usize> = candidates.filter(equal).copied().collect();
            Ok(one(&equal))
        });
        found.unwrap_or_else(|why| {
            log::info!("{identifier}: {why}");
            None
        })
    }

    fn known_job_of(&self, identifier: &[u8]) -> Option<usize> {
        if let Some(job) = lock(&self.state).known.get(identifier) {
            return *job;
        }
        let job = self.job_of(identifier);
        let mut state = lock(&self.state);
        if job.is_some_and(|n| !state.claimed.insert(n)) {
            log::warn!(
                "two modules for one job: {}",
                String::from_utf8_lossy(identifier)
            );
            return None;
        }
        state.known.insert(identifier.to_vec(), job);
        job
    }
}

impl ObjectReceiver for Delivery<'_> {
    fn wants(&self, identifier: &[u8]) -> bool {
        self.known_job_of(identifier).is_some()
    }

    fn take(&self, identifier: &[u8], object: &File) -> bool {
        let job = self.known_job_of(identifier);
        let to = job.and_then(|n| Some((n, self.file.jobs.get(n)?.object())));
        let mut state = lock(&self.state);
        if let Some((n, to)) = to {
            // By its name in /proc it is read from its beginning.
            let from = format!("/proc/self/fd/{}", object.as_raw_fd());
            let copied = File::open(from)
                .and_then(|mut from| std::io::copy(&mut from, &mut File::create(to)?));
            state.awaited.remove(&n);
            match copied {
                Ok(_) => drop(state.left.remove(&n)),
                Err(e) => log::warn!("cannot write {to}: {e}"),
            }
        }
        !state.awaited.is_empty()
    }
}

fn one(jobs: &[usize]) -> Option<usize> {
    match jobs {
        [one] => Some(*one),
        _ => None,
    }
}

/// A name without its directory; parentheses of a member's identifier may have slashes in them.
fn last_part(name: &[u8]) -> &[u8] {
    name.rsplit(|&b| b == b'/').next().unwrap_or_default()
}

/// What `NAME.NUMBER.PID.o` was called before it was unpacked: NUMBER is decimal, PID hexadecimal.
fn usual_name(name: &[u8]) -> Option<&[u8]> {
    let name = name.strip_suffix(b".o")?;
    let mut parts = name.rsplitn(3, |&b| b == b'.');
    let (pid, number, usual) = (parts.next()?, parts.next()?, parts.next()?);
    let all = |part: &[u8], is: fn(&u8) -> bool| !part.is_empty() && part.iter().all(is);
    (all(pid, u8::is_ascii_hexdigit) && all(number, u8::is_ascii_digit)).then_some(usual)
}

/// Names, without directories, of which a link has more than one input, if not all of its modules are listed: with a cache of its own
/// (`--thinlto-cache-dir`), lld lists only what that lacks.
fn shared_names(cmd: &CommandLine) -> HashSet<OsString> {
    if cmd.last(Id::ThinltoCacheDir).is_none_or(OsStr::is_empty) {
        return HashSet::new();
    }
    let mut paths: HashMap<OsString, PathBuf> = HashMap::new();
    let mut shared = HashSet::new();
    let visited = inputs::visit(cmd, &mut |input| {
        let name = input.path.file_name().unwrap_or_default().to_owned();
        let first = paths
            .entry(name.clone())
            .or_insert_with(|| input.path.to_owned());
        if first != input.path {
            shared.insert(name);
        }
        Ok(Visit::Continue)
    });
    if let Err(e) = visited {
        log::info!("{e}");
    }
    shared
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unpacked_modules_are_known_by_their_usual_names() {
        assert_eq!(
            usual_name(b"lib.a(x.o at 84).3.5A4B.o"),
            Some(&b"lib.a(x.o at 84)"[..])
        );
        assert_eq!(usual_name(b"fat.o.12.A0.o"), Some(&b"fat.o"[..]));
        for other in ["x.o", "a.1.o", "a.b.1.o", "a.1.G.o", ".1.o", "a.1..o"] {
            assert_eq!(usual_name(other.as_bytes()), None, "{other}");
        }
    }
}
