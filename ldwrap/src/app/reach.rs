//! Commands whose links go through this ldwrap, with nothing installed for it.

use shim::config::Config;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// A command that runs `program`, a linker or anything that ends in links, with ldwrap in the linker's place. `bin`
/// is made, or was by an earlier call, to hold ldwrap by the names of linkers.
pub(crate) fn through_ldwrap(program: &OsStr, bin: &Path, config: &Config) -> io::Result<Command> {
    let exe = std::env::current_exe()?;
    if !bin.is_dir() {
        fs::create_dir(bin)?;
        symlink(&exe, bin.join("ld.lld"))?;
        for major in shim::lld::MAJORS {
            symlink(&exe, bin.join(format!("ld.lld-{major}")))?;
        }
    }
    let mut run = if is_linker(program) {
        let mut run = Command::new(&exe);
        run.arg0(program);
        // A path names the linker that is meant, unless that is ourselves.
        let real = Path::new(program);
        if config.real_lld.is_none()
            && program.as_bytes().contains(&b'/')
            && !shim::lld::is_ours(real)
        {
            run.env("LDWRAP_REAL_LLD", real);
        }
        run
    } else {
        Command::new(program)
    };
    // clang and gcc look there first (docs/lld.md, "Finding the linker"); others in PATH.
    for name in ["COMPILER_PATH", "PATH"] {
        let others = std::env::var_os(name).unwrap_or_default();
        let all = std::iter::once(bin.to_owned()).chain(std::env::split_paths(&others));
        let all = all.filter(|dir| !dir.as_os_str().is_empty());
        run.env(name, std::env::join_paths(all).map_err(io::Error::other)?);
    }
    Ok(run)
}

/// Whether a program is a linker, by its name.
fn is_linker(program: &OsStr) -> bool {
    let name = Path::new(program).file_name().unwrap_or(program);
    let name = name.as_bytes();
    name == b"ldwrap" || name == b"ld.lld" || name.starts_with(b"ld.lld-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn linkers_are_known_by_name() {
        for name in ["ld.lld", "ld.lld-19", "/usr/bin/ld.lld-22", "/x/ldwrap"] {
            assert!(is_linker(OsStr::new(name)), "{name}");
        }
        for name in ["clang", "make", "ld", "/usr/bin/gcc", ""] {
            assert!(!is_linker(OsStr::new(name)), "{name}");
        }
    }
}
