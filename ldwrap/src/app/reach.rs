//! Commands whose links go through this ldwrap.

use crate::app::shim_dir;
use shim::compiler::with_directory;
use shim::config::Config;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// A command that runs `program`, a linker or anything that ends in links, with ldwrap in the linker's place.
pub(crate) fn through_ldwrap(program: &OsStr, config: &Config) -> io::Result<Command> {
    let shims = shim_dir().map_err(io::Error::other)?;
    let mut run = if is_linker(program) {
        let mut run = Command::new(std::env::current_exe()?);
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
    set_paths(&mut run, &shims)?;
    Ok(run)
}

/// Puts the shim's directory first, wherever the command looks for linkers and compilers. No directory that is gone
/// afterwards: CMake keeps the paths of the programs that it finds, and a build goes on with them.
pub(super) fn set_paths(run: &mut Command, shims: &Path) -> io::Result<()> {
    for name in ["PATH", "COMPILER_PATH"] {
        let all = std::env::var_os(name).unwrap_or_default();
        // Wherever it was: another directory of the list may have an ld.lld too.
        let others = std::env::split_paths(&all).filter(|dir| dir != shims);
        let others = std::env::join_paths(others).map_err(io::Error::other)?;
        run.envs(with_directory(shims, &others).map(|all| (name, all)));
    }
    Ok(())
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
