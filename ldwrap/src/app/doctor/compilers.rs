//! The compilers in PATH, or one command: do their links reach ldwrap, and what becomes of them there?

use super::driver::{self, NotProbed, Reached};
use super::finding::{Checkup, EXPORT, Finding, Tried};
use super::lld::{self, Lld};
use super::setup::{INSTALL, mend_reason};
use crate::app::cache::size;
use crate::app::probe::Answer;
use crate::app::settings::place;
use crate::app::{quoted, shim_dir};
use crate::jobs::toolchain::Toolchain;
use crate::sys::process::{self, Role};
use crate::sys::scratch::Scratch;
use shim::compiler::{is_executable, names_compiler};
use shim::config::{Config, Executor};
use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;

/// Names of compilers, the one that is shown first. A version may follow: `clang-22`.
const NAMES: [&str; 6] = ["clang", "clang++", "gcc", "g++", "cc", "c++"];

/// What was found before.
#[derive(Debug, Clone, Copy)]
pub(super) struct Before {
    pub(super) cache_is_usable: bool,
    pub(super) server_answers: bool,
    /// Whether no link is split, whatever the compiler.
    pub(super) all_prevented: bool,
}

/// What is known of the compilers that were looked at.
pub(super) struct Compilers<'a> {
    config: &'a Config,
    scratch: &'a Scratch,
    before: Before,
    llds: Vec<Rc<Lld>>,
    /// How many directories were made.
    dirs: usize,
}

impl<'a> Compilers<'a> {
    pub(super) fn new(config: &'a Config, scratch: &'a Scratch, before: Before) -> Self {
        Self {
            config,
            scratch,
            before,
            llds: Vec::new(),
            dirs: 0,
        }
    }

    /// Looks at each compiler in PATH.
    pub(super) fn in_path(&mut self, checkup: &mut Checkup) -> Vec<Tried> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let compilers = find(&path);
        if compilers.is_empty() {
            let text = "there is none in PATH";
            let fix = "export PATH=DIRECTORY:$PATH, or apt-get install clang lld";
            checkup.add(Finding::bad("compilers", text, fix));
        }
        let mut tried = Vec::new();
        let mut all_want_path = !compilers.is_empty();
        for compiler in &compilers {
            let (found, splits) = self.compiler(compiler);
            all_want_path &= found.iter().any(Finding::wants_compiler_path);
            tried.push(checkup.add_of_compiler(&found, splits));
        }
        if all_want_path {
            let text = "the links of one command come to the shim without any of this";
            let fix = Some("ldwrap run -- COMMAND".into());
            checkup.add(Finding::note("ldwrap run", text, fix));
        }
        tried
    }

    /// Looks at the link that a command makes.
    pub(super) fn command(&mut self, command: &[OsString], checkup: &mut Checkup) -> Tried {
        let program = command.first().map_or(Path::new(""), Path::new);
        let name = program.display().to_string();
        let mut found = Vec::new();
        let answer = self.reach(&name, command, program, &mut found);
        let mut splits = false;
        if let Some(answer) = &answer {
            if let Some(lld) = self.lld_that_splits(answer, &mut found) {
                splits = self.link(&name, answer, &lld, &mut found);
            }
        }
        checkup.add_of_compiler(&found, splits)
    }

    /// The first lld with a clang of the same version.
    pub(super) fn toolchain(&self) -> Option<&Toolchain> {
        self.llds.iter().find_map(|lld| lld.toolchain.as_ref())
    }

    /// What was found, and whether its links are split.
    fn compiler(&mut self, compiler: &Path) -> (Vec<Finding>, bool) {
        let name = compiler.display().to_string();
        let mut found = Vec::new();
        let dir = self.dir();
        let object = dir.join("a.o");
        // What is in it is looked at by no one.
        if let Err(e) = std::fs::write(&object, "") {
            log::warn!("{}: {e}", object.display());
        }
        let mut command: Vec<OsString> = vec![compiler.into()];
        command.extend(["-fuse-ld=lld", "-shared", "-nostdlib", "-o"].map(OsString::from));
        command.extend([dir.join("out").into(), object.into()]);
        let Some(answer) = self.reach(&name, &command, compiler, &mut found) else {
            return (found, false);
        };
        let Some(lld) = self.lld_that_splits(&answer, &mut found) else {
            return (found, false);
        };
        let clang = clang_major(compiler);
        if let Some(clang) = clang.filter(|&clang| lld.major.is_some_and(|lld| clang > lld)) {
            found.push(Finding::bad(
                &name,
                format!(
                    "{} does not read the bitcode of clang {clang}",
                    lld.path.display()
                ),
                format!("apt-get install lld-{clang}, or export LDWRAP_REAL_LLD=FILE"),
            ));
            return (found, false);
        }
        let whose = match clang {
            Some(_) => "ThinLTO links",
            None => "links of bitcode that clang or rustc has made",
        };
        let by = lld.path.display();
        let elsewhere = self.compiles_elsewhere(&lld);
        if self.before.all_prevented || !(self.before.cache_is_usable || elsewhere) {
            let text = format!("{whose} can be split, by {by}, when what is BAD above is mended");
            found.push(Finding::note(&name, text, None));
            return (found, false);
        }
        let from = match self.before.cache_is_usable {
            true => "objects come from the cache, and backends run",
            false => "backends run",
        };
        let place = self.place(elsewhere);
        let text = format!("{whose} are split, by {by}: {from} {place}");
        found.push(Finding::ok(&name, text));
        (found, true)
    }

    /// Whether backends run outside an lld, as the settings want it.
    fn compiles_elsewhere(&self, lld: &Lld) -> bool {
        let remote = self.config.executor() == Executor::Remote;
        lld.has_jobs && (self.before.server_answers || !remote)
    }

    fn place(&self, elsewhere: bool) -> String {
        match elsewhere {
            true => place(self.config),
            false => "in lld's own threads".into(),
        }
    }

    /// Whether a command reaches ldwrap: what that has answered.
    fn reach(
        &mut self,
        name: &str,
        command: &[OsString],
        program: &Path,
        found: &mut Vec<Finding>,
    ) -> Option<Answer> {
        let reached = match driver::probe(command, &self.dir()) {
            Ok(reached) => reached,
            Err(NotProbed { text, fix }) => {
                found.push(Finding::bad(name, text, fix));
                return None;
            }
        };
        let (text, fix) = match reached {
            Reached::Ldwrap(answer) => return Some(answer),
            Reached::ShimAlone => (
                "reaches the shim, but ldwrap is not installed beside it".into(),
                INSTALL.into(),
            ),
            Reached::Other { linker, error } => not_reached(command, program, &linker, error),
        };
        found.push(Finding::bad(name, text, fix));
        None
    }

    /// The lld of an answer, if its links are split. It is looked at when it is found for the first time.
    fn lld_that_splits(&mut self, answer: &Answer, found: &mut Vec<Finding>) -> Option<Rc<Lld>> {
        let real = match &answer.real {
            Ok(real) => real,
            Err(why) => {
                found.push(Finding::bad("lld", why, no_lld(self.config)));
                return None;
            }
        };
        let file = real.canonicalize().unwrap_or_default();
        let known = self.llds.iter().position(|lld| lld.file == file);
        let at = match known {
            Some(at) => at,
            None => {
                let dir = self.dir();
                let (lld, findings) = lld::check(real, self.config, &dir);
                found.extend(findings);
                self.llds.push(Rc::new(lld));
                self.llds.len() - 1
            }
        };
        let lld = self.llds.get(at)?.clone();
        if known.is_some() && !lld.splits {
            let text = "no link is split, as was said above";
            found.push(Finding::bad(real.display(), text, "mend that first"));
        }
        Some(lld).filter(|lld| lld.splits)
    }

    /// What becomes of the very link; whether it is split.
    fn link(&self, name: &str, answer: &Answer, lld: &Lld, found: &mut Vec<Finding>) -> bool {
        let bitcode = match &answer.bitcode {
            Ok(bitcode) => *bitcode,
            Err(reason) => {
                let text = format!("this link is lld's alone: {reason}");
                found.push(match self.before.all_prevented {
                    true => Finding::note(name, text, None),
                    false => Finding::bad(name, text, mend_reason(reason, self.config)),
                });
                return false;
            }
        };
        let elsewhere = answer.no_jobs.is_none() && self.compiles_elsewhere(lld);
        if let Some(why) = &answer.no_jobs {
            let text = format!("no backend of this link runs outside lld: {why}");
            found.push(Finding::note(name, text, None));
        }
        if self.before.all_prevented || !(self.before.cache_is_usable || elsewhere) {
            let text = "this link can be split when what is BAD above is mended";
            found.push(Finding::note(name, text, None));
            return false;
        }
        let by = lld.path.display();
        let (size, place) = (size(bitcode), self.place(elsewhere));
        let text = format!("this link is split, by {by}: {size} of bitcode, backends run {place}");
        found.push(Finding::ok(name, text));
        true
    }

    /// A new directory of ours.
    fn dir(&mut self) -> PathBuf {
        self.dirs += 1;
        let dir = self.scratch.file(&format!("doctor{}", self.dirs));
        if let Err(e) = std::fs::create_dir(&dir) {
            log::warn!("{}: {e}", dir.display());
        }
        dir
    }
}

/// What is wrong with a command that reaches another linker, and what to do.
fn not_reached(
    command: &[OsString],
    program: &Path,
    linker: &str,
    error: Option<String>,
) -> (String, String) {
    let text = match (error, linker) {
        (Some(error), "") => format!("does not reach the shim: {error}"),
        (Some(error), linker) => format!("does not reach the shim but {linker}: {error}"),
        (None, linker) => format!("does not reach the shim: its linker is {linker}"),
    };
    let names_lld = |arg: &OsString| {
        let arg = arg.to_string_lossy();
        arg.starts_with("-fuse-ld=lld") || arg.starts_with("--ld-path=")
    };
    let is_linker = program.file_name().is_some_and(|name| {
        let name = name.to_string_lossy();
        name.starts_with("ld") || name.contains("-ld")
    });
    let dir = match shim_dir() {
        Ok(dir) => dir,
        Err(missing) => return (text, missing.fix),
    };
    let fix = if is_linker {
        let name = program.file_name().unwrap_or_default();
        let name = match name.to_string_lossy().starts_with("ld.lld") {
            true => name,
            false => OsStr::new("ld.lld"),
        };
        format!("run {}", quoted(&dir.join(name)))
    } else if !command.iter().skip(1).any(names_lld) {
        "add -fuse-ld=lld to the command".into()
    } else {
        export(&dir, std::env::var_os("COMPILER_PATH").as_deref())
    };
    (text, fix)
}

/// The line that puts the shim first.
fn export(dir: &Path, compiler_path: Option<&OsStr>) -> String {
    let dir = quoted(dir);
    match compiler_path.is_some_and(|path| !path.is_empty()) {
        true => format!("{EXPORT}{dir}:\"$COMPILER_PATH\""),
        false => format!("{EXPORT}{dir}"),
    }
}

/// What to do where there is no real lld.
fn no_lld(config: &Config) -> String {
    if config.real_lld.is_some() {
        return super::setup::undo(config, "LDWRAP_REAL_LLD");
    }
    // Where Debian's packages have it, the newest first.
    let mut majors: Vec<u32> = shim::lld::MAJORS.collect();
    majors.reverse();
    let packaged = majors
        .iter()
        .map(|major| format!("/usr/lib/llvm-{major}/bin/ld.lld"))
        .find(|lld| Path::new(lld).is_file());
    match packaged {
        Some(lld) => format!("export LDWRAP_REAL_LLD={lld}"),
        None => "apt-get install lld, or export LDWRAP_REAL_LLD=FILE".into(),
    }
}

/// The compilers in some directories, each real file once, by the name that comes first.
fn find(path: &OsStr) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut known = HashSet::new();
    for dir in std::env::split_paths(path).filter(|dir| dir.is_absolute()) {
        let entries = std::fs::read_dir(&dir).into_iter().flatten().flatten();
        let mut names: Vec<_> = entries
            .filter_map(|entry| Some((rank(&entry.file_name())?, entry.path())))
            .collect();
        names.sort();
        for (_, file) in names {
            let runs = |file: &PathBuf| std::fs::metadata(file).is_ok_and(|m| is_executable(&m));
            let real = file.canonicalize().ok().filter(runs);
            // A cache of compiles is one file by many names.
            let real = real.map(|real| match real.file_name().is_some_and(names_compiler) {
                true => real,
                false => file.clone(),
            });
            if real.is_some_and(|real| known.insert(real)) {
                found.push(file);
            }
        }
    }
    found
}

/// Where a name comes among those of compilers: by kind, then without a version, then the newest. `None` for what is
/// none.
fn rank(name: &OsStr) -> Option<(usize, u32)> {
    let name = name.to_str()?;
    let (base, version) = match name.split_once('-') {
        Some((base, version)) => (base, u32::MAX - version.parse::<u32>().ok()?),
        None => (name, 0),
    };
    let kind = NAMES.iter().position(|known| *known == base)?;
    Some((kind, version))
}

/// The major version of a clang; `None` for another compiler.
fn clang_major(compiler: &Path) -> Option<u32> {
    let mut command = Command::new(compiler);
    command.arg("--version");
    let out = process::output(command, Role::Tool).ok()?;
    let said = String::from_utf8_lossy(&out.stdout);
    let (_, version) = said.split_once("clang version ")?;
    version.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn each_compiler_is_found_once() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let program = |name: &str| {
            std::fs::write(at(name), "").unwrap();
            std::fs::set_permissions(at(name), PermissionsExt::from_mode(0o755)).unwrap();
        };
        program("clang-22");
        program("x86_64-linux-gnu-gcc-12");
        program("ccache");
        std::fs::write(at("clang-14"), "").unwrap();
        program("clang-format");
        for (name, target) in [
            ("clang", "clang-22"),
            ("clang++", "clang-22"),
            ("gcc", "x86_64-linux-gnu-gcc-12"),
            ("cc", "gcc"),
            ("g++", "ccache"),
            ("c++", "ccache"),
            ("gcc-9", "nowhere"),
        ] {
            symlink(target, at(name)).unwrap();
        }
        let path = std::env::join_paths([dir.path(), Path::new("relative"), dir.path()]).unwrap();
        let expected = ["clang", "gcc", "g++", "c++"].map(at);
        assert_eq!(find(&path), expected);
    }

    #[test]
    fn names_have_an_order() {
        let rank = |name: &str| rank(OsStr::new(name));
        assert!(rank("clang") < rank("clang-22") && rank("clang-22") < rank("clang-14"));
        assert!(rank("clang-14") < rank("gcc") && rank("gcc") < rank("cc"));
        for none in ["clang-format", "clang-cl-22", "ccache", "gcc-ar"] {
            assert_eq!(rank(none), None, "{none}");
        }
    }

    #[test]
    fn the_shim_is_put_first() {
        let dir = Path::new("/usr/lib/ldwrap");
        let plain = "export COMPILER_PATH=/usr/lib/ldwrap";
        assert_eq!(export(dir, None), plain);
        assert_eq!(export(dir, Some(OsStr::new(""))), plain);
        let before = export(dir, Some(OsStr::new("/opt/bin")));
        assert_eq!(before, format!("{plain}:\"$COMPILER_PATH\""));
    }
}
