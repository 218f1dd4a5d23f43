//! The compiler as files that any Linux machine can run: clang, the libraries it loads, their loader.
//!
//! Started as `t/ld.so --library-path t/lib t/clang`, it needs nothing of the worker's own system, not
//! even a `/usr`. What `ld.so --list` says is what it loads; the digests of these large files are
//! remembered by their identity, so they are read once.

use crate::cache::files::FileDigests;
use crate::jobs::action::{Tool, ToolFile};
use crate::jobs::toolchain::Toolchain;
use object::read::elf::{ElfFile64, ProgramHeader};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where it is below an action's directory.
const DIR: &str = "t";

/// Collects the toolchain's clang.
pub fn collect(toolchain: &Toolchain, known: &FileDigests) -> io::Result<Tool> {
    let clang = toolchain.clang.canonicalize()?;
    let fail = |why: &str| {
        io::Error::other(format!(
            "{} cannot be shipped: {why}; LDWRAP_REMOTE_CLANG names the clang of the workers",
            clang.display()
        ))
    };
    let loader = loader_of(&clang).map_err(|e| fail(&e.to_string()))?;
    let mut sources = BTreeMap::new();
    let at = |name: &str| format!("{DIR}/{name}");
    sources.insert(at("clang"), clang.clone());
    let mut command = vec![at("clang")];
    if let Some(loader) = loader {
        let out = Command::new(&loader).arg("--list").arg(&clang).output()?;
        if !out.status.success() {
            return Err(fail(&String::from_utf8_lossy(&out.stderr)));
        }
        for (name, path) in libraries(&String::from_utf8_lossy(&out.stdout)) {
            if path != loader {
                sources.insert(at(&format!("lib/{name}")), path);
            }
        }
        sources.insert(at("ld.so"), loader);
        command = [at("ld.so"), "--library-path".into(), at("lib"), at("clang")].into();
    }
    let mut files = BTreeMap::new();
    for (name, source) in sources {
        let digest = known.digest(&source)?;
        let executable = fs::metadata(&source)?.permissions().mode() & 0o111 != 0;
        let file = ToolFile {
            digest,
            source,
            executable,
        };
        files.insert(PathBuf::from(name), file);
    }
    Ok(Tool {
        command,
        banner: toolchain.banner.clone(),
        build: None,
        files,
        platform: Vec::new(),
    })
}

/// The loader that a program asks for; none for a static one.
fn loader_of(program: &Path) -> io::Result<Option<PathBuf>> {
    let bytes = crate::sys::map(program)?;
    let elf = ElfFile64::<object::Endianness>::parse(&*bytes)
        .map_err(|_| io::Error::other("it is no ELF program"))?;
    let endian = elf.endian();
    for header in elf.elf_program_headers() {
        let named = header.interpreter(endian, &*bytes);
        if let Some(name) = named.map_err(io::Error::other)? {
            return Ok(Some(String::from_utf8_lossy(name).into_owned().into()));
        }
    }
    Ok(None)
}

/// The lines `NAME => PATH (ADDRESS)` of `ld.so --list`.
fn libraries(text: &str) -> Vec<(String, PathBuf)> {
    let line = |line: &str| {
        let (name, rest) = line.trim().split_once(" => ")?;
        let path = rest.rsplit_once(" (")?.0;
        let name = Path::new(name).file_name()?.to_str()?;
        Some((name.to_owned(), PathBuf::from(path)))
    };
    text.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_loader_lists_is_read() {
        let text = "\tlinux-vdso.so.1 (0x00007ffc)\n\tlibc.so.6 => /lib/x/libc.so.6 (0x7f)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x7f)\n\tlibgone.so => not found\n";
        assert_eq!(
            libraries(text),
            [("libc.so.6".into(), "/lib/x/libc.so.6".into())]
        );
    }

    #[test]
    fn a_program_names_its_loader() {
        let exe = std::env::current_exe().unwrap();
        assert!(loader_of(&exe).unwrap().unwrap().exists());
        let dir = tempfile::tempdir().unwrap();
        let script = dir.path().join("clang");
        fs::write(&script, "#!/bin/sh\n").unwrap();
        assert!(loader_of(&script).is_err());
    }
}
