//! Every reason for which a link is not split, or not sent elsewhere, in the order in which it can be known.
//!
//! The shim asks first ([`shim::decide`]): it must not cost a link without bitcode more than a look at its inputs. What
//! is here is asked of links that the shim has let through: of the command line before lld is started ([`watched`]),
//! of jobs before any work is done for them ([`jobs`], [`release`]), and of the index ([`lookups`]).

use crate::jobs::bitcode::shard::Shard;
use crate::jobs::codegen::Codegen;
use crate::jobs::failure::Failure;
use crate::jobs::index::Index;
use crate::jobs::modules;
use crate::jobs::quirks;
use crate::jobs::toolchain::Toolchain;
use crate::link::code_options::CodeOptions;
use crate::link::lookup_dir::{LookupDir, NOWHERE};
use crate::sys::scratch::Scratch;
use crate::sys::threads::few_threads;
use shim::cmdline::CommandLine;
use shim::config::{Config, Executor, Split};
use shim::inputs::{self, Visit};
use shim::options::Id;
use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// A link of less bitcode (bytes) is done here before a server has answered its questions.
const WORTH_SENDING: u64 = 512 << 10;
/// The kernel follows no more symbolic links in a name (path_resolution(7)).
const MAX_LINKS: u32 = 40;

/// Why a link cannot be watched, if it cannot: it is to be done by lld alone.
pub fn watched(cmd: &CommandLine, major: u32) -> Result<CodeOptions, String> {
    let options = CodeOptions::of(cmd)?;
    if !is_procfs(NOWHERE) {
        return Err(format!("{NOWHERE} is not there: lld cannot be watched"));
    }
    let own = std::process::id().to_string();
    if std::fs::read_link("/proc/self").is_ok_and(|pid| pid != Path::new(&own)) {
        // What it tells of a thread's number is of another thread.
        return Err(String::from("/proc is that of another PID namespace"));
    }
    let lookup_dir = LookupDir::of(cmd);
    if let Some(policy) = cmd.last(Id::ThinltoCachePolicy) {
        // Ours would be in its place, and lld reads the last one only.
        if !lookup_dir.is_users() && !is_policy(policy.as_bytes()) {
            let policy = policy.to_string_lossy();
            return Err(format!(
                "--thinlto-cache-policy={policy}: lld may refuse it"
            ));
        }
    }
    let limit = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_FSIZE);
    if limit.is_ok_and(|(soft, _)| soft != libc::RLIM_INFINITY) {
        // It would hold for objects in memory too, which lld alone makes no files for.
        return Err(String::from("ulimit -f: the size of files is limited"));
    }
    if major < quirks::CACHED_OBJECTS_IN_TASK_ORDER && !lookup_dir.is_users() {
        crate::link::old_lld::check(cmd)?;
    }
    Ok(options)
}

/// Whether the keys of this link's objects have all that shapes them. Those of functions with memory tagging do not: what
/// the functions that they call do with their arguments is in the index, and in no key (docs/lld.md, "Memory tagging").
pub fn has_whole_keys(cmd: &CommandLine) -> bool {
    let emulation = cmd.last(Id::Emulation).unwrap_or(OsStr::new("aarch64"));
    if !emulation.as_bytes().starts_with(b"aarch64") {
        return true;
    }
    // Bitcode that cannot be read is lld's to complain of.
    modules::any_memory_tagging(cmd).is_ok_and(|tagging| !tagging)
}

/// Whether every lld accepts this policy for its cache (`parseCachePruningPolicy`, llvm/lib/Support/CachePruning.cpp). lld
/// also takes numbers that are octal or hexadecimal, and a colon at the end; nobody writes them.
fn is_policy(policy: &[u8]) -> bool {
    policy.is_empty() || policy.split(|&b| b == b':').all(is_limit)
}

/// Whether it is one part of a policy, KEY=VALUE.
fn is_limit(limit: &[u8]) -> bool {
    let number = |digits: &[u8]| -> Option<u64> {
        let decimal = digits.iter().all(u8::is_ascii_digit)
            && (digits.len() == 1 || !digits.starts_with(b"0"));
        std::str::from_utf8(digits)
            .ok()?
            .parse()
            .ok()
            .filter(|_| decimal)
    };
    let Some(equals) = limit.iter().position(|&b| b == b'=') else {
        return false;
    };
    let (key, value) = limit.split_at(equals);
    let value = value.get(1..).unwrap_or_default();
    let (digits, unit) = match value.split_last() {
        Some((unit, digits)) if !unit.is_ascii_digit() => (digits, unit.to_ascii_lowercase()),
        _ => (value, 0),
    };
    match (key, number(digits)) {
        (_, None) => false,
        (b"prune_interval" | b"prune_after", _) => matches!(value.last(), Some(b's' | b'm' | b'h')),
        (b"cache_size", Some(percent)) => unit == b'%' && percent <= 100,
        (b"cache_size_bytes", _) => matches!(unit, 0 | b'k' | b'm' | b'g'),
        (b"cache_size_files", _) => unit == 0,
        _ => false,
    }
}

/// Why no jobs are made of a link that the settings want them of: `Err` is the reason. `bitcode` is how much it has
/// (bytes).
pub fn jobs(
    args: &[OsString],
    cmd: &CommandLine,
    major: u32,
    config: &Config,
    bitcode: u64,
) -> Result<(), String> {
    can_be_jobs(args, cmd, major)?;
    if config.split == Split::Always || bitcode >= WORTH_SENDING {
        return Ok(());
    }
    match config.executor() {
        Executor::Remote => Err("too little bitcode for a server's round trips".into()),
        Executor::Distributor => Err("too little bitcode to be distributed".into()),
        Executor::Local | Executor::Clang => Ok(()),
    }
}

/// Why a link cannot be made into jobs, as far as its command line tells: `Err` is the reason.
fn can_be_jobs(args: &[OsString], cmd: &CommandLine, major: u32) -> Result<(), String> {
    Codegen::of(cmd, major)?;
    check_paths(cmd)?;
    if let Some(why) = few_threads() {
        return Err(why);
    }
    // An error, which is lld's to say.
    if let Some(jobs) = cmd.thinlto_jobs() {
        if cmd.thinlto_job_count().is_none() {
            return Err(format!("--thinlto-jobs={}", jobs.to_string_lossy()));
        }
    }
    if !LookupDir::of(cmd).can_be_made() {
        return Err("the directory of --thinlto-cache-dir cannot be written".into());
    }
    match read_once(args, cmd) {
        Some(why) => Err(format!("{why}, which is lld's to do")),
        None => Ok(()),
    }
}

/// Why a link cannot be done twice, if a file of it can perhaps be read only once.
pub fn read_once(args: &[OsString], cmd: &CommandLine) -> Option<String> {
    let values = cmd.options().map(|o| o.value.as_os_str());
    let named = cmd.inputs().chain(values);
    let mut named = named.chain(args.iter().filter_map(|arg| response_file(arg)));
    let mut plain_dirs = HashSet::new();
    let found = named.find(|name| can_be_read_once(Path::new(name), &mut plain_dirs));
    // Where a script or response file names a pipe, the shim has left the link to lld. All processes inherit the
    // descriptors of plain files, except for standard input.
    let stdin_is_file = || std::fs::metadata("/proc/self/fd/0").is_ok_and(|m| m.is_file());
    let name = match found {
        Some(name) => Some(name.to_owned()),
        None if stdin_is_file() => find_response_file(args, |file| {
            can_be_read_once(Path::new(file), &mut plain_dirs)
        })
        .or_else(|| input_of_script(cmd, &mut plain_dirs)),
        None => None,
    };
    name.map(|name| format!("{} can perhaps be read only once", name.to_string_lossy()))
}

fn response_file(arg: &OsStr) -> Option<&OsStr> {
    arg.as_bytes().strip_prefix(b"@").map(OsStr::from_bytes)
}

/// The first response file that is wanted, of those that a command names and those that they name. It is not read.
pub fn find_response_file(
    args: &[OsString],
    mut is_wanted: impl FnMut(&OsStr) -> bool,
) -> Option<OsString> {
    let mut words = args.to_vec();
    let mut seen = HashSet::new();
    while let Some(word) = words.pop() {
        let Some(file) = response_file(&word).map(OsStr::to_owned) else {
            continue;
        };
        if is_wanted(&file) {
            return Some(file);
        }
        let text = std::fs::read(&file).unwrap_or_default();
        if seen.insert(file) {
            words.extend(shim::response::tokenize_gnu(&text));
        }
    }
    None
}

/// An input that a linker script names and that can be read once.
fn input_of_script(cmd: &CommandLine, plain_dirs: &mut HashSet<PathBuf>) -> Option<OsString> {
    let mut found = None;
    let visited = inputs::visit(cmd, &mut |input| {
        if input.member.is_none() && can_be_read_once(input.path, plain_dirs) {
            found = Some(input.path.as_os_str().to_owned());
            return Ok(Visit::Stop);
        }
        Ok(Visit::Continue)
    });
    if let Err(e) = visited {
        log::debug!("{e}");
    }
    found
}

/// Whether a name may stand for something else when it is opened again, or by another process: a pipe, or a descriptor.
fn can_be_read_once(path: &Path, plain_dirs: &mut HashSet<PathBuf>) -> bool {
    path != Path::new("/dev/null")
        && (path.starts_with("/dev")
            || leads_into_proc(path, plain_dirs)
            || std::fs::metadata(path).is_ok_and(|m| !m.is_file() && !m.is_dir()))
}

/// Whether a name or a symbolic link on its way leads into `/proc`, where the names of descriptors are. Links are
/// followed one by one, since `canonicalize` goes on to the file that a descriptor is open on. `plain_dirs` are
/// directories, by the names used here, that are known not to lead there.
fn leads_into_proc(path: &Path, plain_dirs: &mut HashSet<PathBuf>) -> bool {
    let parent = path.parent().unwrap_or(Path::new(""));
    if plain_dirs.contains(parent) && path.read_link().is_err() {
        return false;
    }
    let Ok(absolute) = std::path::absolute(path) else {
        return false;
    };
    let reversed = |path: &Path| -> Vec<OsString> {
        let parts = path.components().rev();
        parts.map(|part| part.as_os_str().to_owned()).collect()
    };
    let mut left = reversed(&absolute);
    let mut at = PathBuf::new();
    let mut links = 0;
    while let Some(part) = left.pop() {
        if part == ".." {
            at.pop();
            continue;
        }
        at.push(part);
        if at == Path::new("/proc") {
            return true;
        }
        if let Ok(target) = at.read_link() {
            links += 1;
            if links > MAX_LINKS {
                return true;
            }
            at.pop();
            left.extend(reversed(&target));
        }
    }
    plain_dirs.insert(parent.to_owned());
    false
}

/// What the phases could not carry out faithfully.
fn check_paths(cmd: &CommandLine) -> Result<(), String> {
    let values = cmd.options().map(|o| o.value.as_os_str());
    for name in cmd.inputs().chain(values) {
        let bytes = name.as_bytes();
        if bytes.contains(&b'\n') {
            return Err("a path with a newline in it".into());
        }
        if bytes.ends_with(b".thinlto.bc") {
            return Err("a path that ends in .thinlto.bc, as lld's index files do".into());
        }
        let parents = bytes.split(|&b| b == b'/').filter(|part| *part == b"..");
        if parents.count() >= Scratch::max_parents() {
            return Err("a path with too many ..".into());
        }
    }
    Ok(())
}

/// Why no jobs are made of a link, now that lld's release is known and `cmd` is read by its own grammar.
pub fn release(cmd: &CommandLine) -> Result<(), Failure> {
    if let Some(unknown) = cmd.first_unknown() {
        let unknown = unknown.to_string_lossy();
        return Err(Failure::Declined(format!("unknown option {unknown}")));
    }
    if !modules::any_thin(cmd)? {
        let why = "no ThinLTO bitcode, only regular LTO";
        return Err(Failure::Declined(why.into()));
    }
    Ok(())
}

/// The numbers of modules with a hash: lld makes no lookup for one without, and compiles it itself.
pub fn lookups(
    index: &Index,
    shards: &[Shard<'_>],
    toolchain: &Toolchain,
) -> Result<Vec<usize>, Failure> {
    let total = index.modules.len();
    let has_hash = |&n: &usize| {
        let module = index.modules.get(n).zip(shards.get(n));
        let own = module.and_then(|(m, shard)| shard.module(m.identifier.as_bytes()));
        own.is_some_and(|own| own.hashed)
    };
    let numbers: Vec<usize> = (0..total).filter(has_hash).collect();
    let hashed = numbers.len();
    if hashed == 0 || (hashed < total && toolchain.major < quirks::CACHED_OBJECTS_IN_TASK_ORDER) {
        return Err(Failure::Declined(format!(
            "{} of {total} modules have no hash: lld {} would not ask for their objects",
            total - hashed,
            toolchain.version
        )));
    }
    Ok(numbers)
}

fn is_procfs(path: &str) -> bool {
    nix::sys::statfs::statfs(path)
        .is_ok_and(|fs| fs.filesystem_type() == nix::sys::statfs::PROC_SUPER_MAGIC)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_that_lld_accepts() {
        for (policy, accepted) in [
            ("", true),
            ("prune_interval=0s", true),
            (
                "prune_after=24h:cache_size=0%:cache_size_bytes=10g:cache_size_files=0",
                true,
            ),
            (
                "cache_size_bytes=5K:prune_interval=30m:cache_size=100%",
                true,
            ),
            ("cache_size_bytes=500", true),
            ("foo", false),
            ("foo=1", false),
            ("prune_after", false),
            ("prune_after=", false),
            ("prune_after=s", false),
            ("prune_after=5", false),
            ("prune_after=5d", false),
            ("prune_after=+5s", false),
            ("prune_after=5H", false),
            ("cache_size=101%", false),
            ("cache_size=50", false),
            ("cache_size_bytes=5t", false),
            ("cache_size_bytes=99999999999999999999", false),
            ("cache_size_files=09", false),
            ("cache_size_files=1k", false),
            ("cache_size_files=1::cache_size=1%", false),
        ] {
            assert_eq!(is_policy(policy.as_bytes()), accepted, "{policy}");
        }
    }
}
