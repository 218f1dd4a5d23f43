//! The inputs that linker scripts name.

use std::borrow::Cow;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::{Halt, Walker, as_path};
use crate::cmdline::PositionalState;
use crate::files;
use crate::inputs::error::{InputError, InputFault, fail};
use crate::inputs::open::{open_existing, unreadable};
use crate::kind::Kind;
use crate::llvm_path;
use crate::script::{Command, Parser};

/// Scripts may name and include scripts this deep. lld has no limit but its stack.
const MAX_SCRIPT_DEPTH: usize = 16;
/// Bytes of all scripts of a link together.
const MAX_SCRIPT_BYTES: u64 = 32 << 20;
/// Number of all scripts of a link together, so that scripts that name each other twice end soon.
const MAX_SCRIPTS: usize = 1000;

/// The script whose inputs are being added: by which path it was opened, and by which the one on
/// the command line that included it.
#[derive(Clone, Copy)]
struct Script<'a> {
    path: &'a Path,
    main: &'a Path,
    depth: usize,
}

impl Walker<'_> {
    /// `searchScript`: a script of `-T`, `--default-script` or `INCLUDE`, as it is or in a search
    /// path. Leaves its path in `path`.
    fn open_script(&self, name: &[u8], path: &mut Vec<u8>) -> Result<File, InputError> {
        if let Some(file) = open_existing(as_path(name))? {
            path.clear();
            path.extend_from_slice(name);
            return Ok(file);
        }
        match self.search(path, &[&[name]])? {
            Some(file) => Ok(file),
            None => fail(as_path(name), InputFault::NotFound("linker script")),
        }
    }

    /// A script of `-T` or `--default-script`, which is one whatever its magic number.
    pub(super) fn add_named_script(
        &mut self,
        name: &[u8],
        state: PositionalState,
    ) -> Result<(), Halt> {
        let mut path = Vec::new();
        let file = self.open_script(name, &mut path)?;
        self.emit(as_path(&path), None, Kind::Text, 0)?;
        self.add_script(as_path(&path), file, state, 0)
    }

    /// An input that is a script. `depth` is how deep in other scripts it is named.
    pub(super) fn add_script(
        &mut self,
        path: &Path,
        file: File,
        state: PositionalState,
        depth: usize,
    ) -> Result<(), Halt> {
        let script = Script {
            path,
            main: path,
            depth,
        };
        self.read_script(script, file, state)
    }

    fn read_script(
        &mut self,
        script: Script<'_>,
        file: File,
        state: PositionalState,
    ) -> Result<(), Halt> {
        let text = self.text_of(script, file)?;
        let mut parser = Parser::new(&text);
        loop {
            let command = match parser.next_command() {
                Ok(Some(command)) => command,
                Ok(None) => return Ok(()),
                Err(e) => return fail(script.path, InputFault::Script(e)),
            };
            match command {
                Command::Input(name) => self.add_script_input(script, name, state)?,
                Command::SearchDir(dir) => {
                    if !self.nostdlib {
                        self.search_paths.push(Cow::Owned(dir.to_vec()));
                    }
                }
                Command::Include(name) => {
                    let mut path = Vec::new();
                    let file = self.open_script(name, &mut path)?;
                    let included = Script {
                        path: as_path(&path),
                        main: script.main,
                        depth: script.depth.saturating_add(1),
                    };
                    self.emit(included.path, None, Kind::Text, 0)?;
                    self.read_script(included, file, state)?;
                }
                Command::Target(name) => {
                    let binary = match name {
                        b"binary" => true,
                        _ if name.starts_with(b"elf") => false,
                        _ => return fail(script.path, InputFault::Unsupported("its TARGET")),
                    };
                    // It holds for all inputs behind it, up to the next --format.
                    if binary != state.format_binary {
                        let what = "its TARGET changes the format of later inputs";
                        return fail(script.path, InputFault::Unsupported(what));
                    }
                }
            }
        }
    }

    /// A script's text, within the limits.
    fn text_of(&mut self, script: Script<'_>, file: File) -> Result<Vec<u8>, InputError> {
        self.scripts += 1;
        if script.depth >= MAX_SCRIPT_DEPTH || self.scripts > MAX_SCRIPTS {
            let what = "too many linker scripts that name each other";
            return fail(script.path, InputFault::Unsupported(what));
        }
        // A pipe cannot be read at a position: its bytes are left to lld.
        let left = MAX_SCRIPT_BYTES.saturating_sub(self.script_bytes);
        let len = file.metadata().map_or(0, |m| m.len()).min(left);
        let mut text = vec![0; usize::try_from(len).unwrap_or(0).saturating_add(1)];
        match files::read_full(&file, &mut text, 0) {
            Ok(len) => text.truncate(len),
            Err(e) => return unreadable(script.path, file, e),
        }
        drop(file);
        self.script_bytes = self.script_bytes.saturating_add(text.len() as u64);
        if self.script_bytes > MAX_SCRIPT_BYTES {
            let what = "it is too large for a linker script";
            return fail(script.path, InputFault::Unsupported(what));
        }
        Ok(text)
    }

    /// `ScriptParser::addFile`: absolute, from the sysroot, a library, or relative to the script's
    /// directory, the current one, and the search paths.
    fn add_script_input(
        &mut self,
        script: Script<'_>,
        name: &[u8],
        state: PositionalState,
    ) -> Result<(), Halt> {
        let depth = script.depth.saturating_add(1);
        if let Some(library) = name.strip_prefix(b"-l") {
            return self.add_library(library, state, depth);
        }
        if let Some(rest) = name.strip_prefix(b"=") {
            if self.sysroot.is_empty() {
                return self.add_file(as_path(rest), None, state, depth);
            }
            let path = [self.sysroot, b"/", rest].concat();
            return self.add_file(as_path(&path), None, state, depth);
        }
        if name.starts_with(b"/") {
            if !self.under_sysroot(script)? {
                return self.add_file(as_path(name), None, state, depth);
            }
            let path = [self.sysroot, name].concat();
            return match open_existing(as_path(&path))? {
                Some(file) => self.add_file(as_path(&path), Some(file), state, depth),
                None => fail(as_path(&path), InputFault::NotFound("input of a script")),
            };
        }
        let dir = llvm_path::parent_path(script.path.as_os_str().as_bytes());
        if !dir.is_empty() {
            let mut path = dir.to_vec();
            llvm_path::append(&mut path, name);
            if let Some(file) = open_existing(as_path(&path))? {
                return self.add_file(as_path(&path), Some(file), state, depth);
            }
        }
        if let Some(file) = open_existing(as_path(name))? {
            return self.add_file(as_path(name), Some(file), state, depth);
        }
        let mut path = Vec::new();
        match self.search(&mut path, &[&[name]])? {
            Some(file) => self.add_file(as_path(&path), Some(file), state, depth),
            None => fail(as_path(name), InputFault::NotFound("input of a script")),
        }
    }

    /// Whether the script is in the sysroot, so that its absolute names are meant within it.
    fn under_sysroot(&self, script: Script<'_>) -> Result<bool, InputError> {
        if self.sysroot.is_empty() {
            return Ok(false);
        }
        let under = is_under(script.path, self.sysroot);
        // Up to LLVM 19 the script on the command line decides, later the included one.
        if script.path != script.main && under != is_under(script.main, self.sysroot) {
            let what = "it is included across the sysroot's border";
            return fail(script.path, InputFault::Unsupported(what));
        }
        Ok(under)
    }
}

/// Whether `path` or a directory on its way is the directory `root`, by identity
/// (`sys::fs::equivalent`).
fn is_under(path: &Path, root: &[u8]) -> bool {
    let identity = |path: &Path| std::fs::metadata(path).ok().map(|m| (m.dev(), m.ino()));
    let Some(root) = identity(as_path(root)) else {
        return false;
    };
    let mut path = path.as_os_str().as_bytes();
    while !path.is_empty() {
        if identity(as_path(path)) == Some(root) {
            return true;
        }
        path = llvm_path::parent_path(path);
    }
    false
}
