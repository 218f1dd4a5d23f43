//! Every input of a link, found as lld finds it, and what it is.
//!
//! This is what the shim does for each plain link before it steps aside, so it is built to cost one
//! `open`, one small `pread` and one `close` per object, nothing else: names are searched by opening
//! them, archives are read by their headers, members get a name only when somebody asks for it.
//!
//! The rules are lld's: `LinkerDriver::createFiles` and `addFile` (lld/ELF/Driver.cpp),
//! `searchLibrary` and `findFromSearchPaths` (lld/ELF/DriverUtils.cpp), `ScriptParser::addFile`
//! (lld/ELF/ScriptParser.cpp). Where we would have to guess there is an [`InputError`], and the link
//! is forwarded; lld then says what is wrong, if anything is.
//!
//! # What is not followed
//!
//! Dependent libraries. An object can name libraries itself (`#pragma comment(lib, "x")`: a section
//! of type `SHT_LLVM_DEPENDENT_LIBRARIES` in ELF, a field of the symbol table in bitcode), and lld
//! adds them while it parses the object (`addDependentLibrary` in lld/ELF/InputFiles.cpp; found as
//! `-lx`, then as a file in the search paths, then as a path; off with `--no-dependent-libraries`).
//! To know of them each native object's section headers would have to be read, in every plain link,
//! for the sake of a link whose only bitcode is in such a library. So bitcode that comes in only that
//! way does not count, and the link is forwarded: the right output, not the fast way. In a link
//! with other bitcode nothing is lost, as lld itself does the resolution in each phase and names such
//! modules by identifiers that [`crate::archive::locate`] finds.
//!
//! `--just-symbols` and `--in-implib` name ELF files that never go through LTO.

use std::borrow::Cow;
use std::collections::HashSet;
use std::ffi::{CString, OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use object::read::elf::{FileHeader, SectionHeader};
use object::{Endianness, elf, pod};

use crate::archive::{Archive, ArchiveError, Member, MemberHeader};
use crate::cmdline::{CommandLine, PositionalState, Step};
use crate::files;
use crate::kind::{self, Kind};
use crate::llvm_path;
use crate::options::Id;
use crate::script::{Command, Parser, ScriptError};

/// Scripts may name and include scripts this deep. lld has no limit but its stack.
const MAX_SCRIPT_DEPTH: usize = 16;
/// All scripts of a link together.
const MAX_SCRIPT_BYTES: u64 = 32 << 20;
/// All scripts of a link together, so that scripts that name each other twice end soon.
const MAX_SCRIPTS: usize = 1000;
/// Section headers or section names of one object. What has more is no fat object of ours.
const MAX_SECTION_BYTES: u64 = 64 << 20;
/// Archives that are kept open until all other inputs have been looked at.
const MAX_KEPT_OPEN: usize = 64;

/// An input that could not be found, read or understood. The link is to be forwarded.
#[derive(Debug)]
pub struct InputError {
    /// The input: as given when it was not found, its path otherwise.
    pub path: PathBuf,
    /// What is wrong with it.
    pub fault: InputFault,
}

/// The ways in which finding the inputs fails.
#[derive(Debug)]
pub enum InputFault {
    /// The file can't be opened or read.
    Io(io::Error),
    /// No search path has it.
    NotFound(&'static str),
    /// An archive that can't be read.
    Archive(ArchiveError),
    /// A linker script, or what lld takes for one.
    Script(ScriptError),
    /// Something that we don't do as lld does.
    Unsupported(&'static str),
}

impl fmt::Display for InputError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match &self.fault {
            InputFault::Io(e) => write!(f, "cannot read the input {path}: {e}"),
            InputFault::NotFound(what) => write!(f, "cannot find the {what} {path}; check -L"),
            InputFault::Archive(e) => e.fmt(f),
            InputFault::Script(e) => write!(f, "cannot read {path} as a linker script: {e}"),
            InputFault::Unsupported(what) => write!(f, "the input {path} needs lld alone: {what}"),
        }
    }
}

impl std::error::Error for InputError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.fault {
            InputFault::Io(e) => Some(e),
            InputFault::Archive(e) => Some(e),
            InputFault::Script(e) => Some(e),
            InputFault::NotFound(_) | InputFault::Unsupported(_) => None,
        }
    }
}

impl From<ArchiveError> for InputError {
    fn from(e: ArchiveError) -> InputError {
        InputError {
            path: e.path.clone(),
            fault: InputFault::Archive(e),
        }
    }
}

fn fail<T>(path: &Path, fault: InputFault) -> Result<T, InputError> {
    Err(InputError {
        path: path.to_path_buf(),
        fault,
    })
}

/// An input, or a member of one.
#[derive(Debug)]
pub struct Found<'a> {
    /// The file, by the path that lld opens; for a member, the archive.
    pub path: &'a Path,
    /// The member, if this is one.
    pub member: Option<&'a Member>,
    /// What the file or member is.
    pub kind: Kind,
    /// The state in which lld adds it.
    pub state: PositionalState,
}

/// Whether to look at more inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visit {
    /// Go on.
    Continue,
    /// That was enough.
    Stop,
}

/// Calls `f` with each input of the link in lld's order, archives and scripts before what they
/// contain.
///
/// Fails with `f`'s error, or when an input can't be found, read or understood.
pub fn visit(
    cmd: &CommandLine,
    f: &mut dyn FnMut(&Found<'_>) -> Result<Visit, InputError>,
) -> Result<(), InputError> {
    let mut sink = |item: Item<'_>| {
        let Item {
            path,
            member,
            kind,
            state,
            len: _,
        } = item;
        let named;
        let member = match member {
            None => None,
            Some(Inside::Regular(archive, entry)) => {
                named = archive.member(entry)?;
                Some(&named)
            }
            Some(Inside::Thin(member)) => Some(member),
        };
        f(&Found {
            path,
            member,
            kind,
            state,
        })
    };
    Walker::new(cmd, false, &mut sink)?.walk(cmd)
}

/// How many bytes of bitcode the link has among its inputs, or at least `enough`: it stops as soon as
/// it has seen so many. What lies in archives counts whether or not the link takes it.
///
/// Archives wait until all files have been looked at, since one look at a file is cheaper than one at
/// each member. Fails when an input that it came by can't be found, read or understood.
///
/// With `sample`, only some of very many objects (of names in `.o`, or members of thin archives) are
/// looked at, evenly spaced. Each costs three system calls, which is what a look costs; a link of
/// thousands of objects of which less than one in [`MAX_STRIDE`] is bitcode is not one that a split
/// would make faster.
pub fn bitcode_bytes(cmd: &CommandLine, sample: bool, enough: u64) -> Result<u64, InputError> {
    let mut bytes = 0u64;
    let mut sink = |item: Item<'_>| {
        if item.kind.is_bitcode() {
            bytes = bytes.saturating_add(item.len.max(1));
        }
        Ok(if bytes >= enough {
            Visit::Stop
        } else {
            Visit::Continue
        })
    };
    let mut walker = Walker::new(cmd, true, &mut sink)?;
    if sample {
        let objects = cmd.inputs().filter(|name| is_object_name(name)).count();
        walker.objects = Some(Sampler::of(objects));
    }
    walker.walk(cmd)?;
    Ok(bytes)
}

/// A [`Found`] whose member need not have a name yet.
struct Item<'a> {
    path: &'a Path,
    member: Option<Inside<'a>>,
    kind: Kind,
    state: PositionalState,
    /// Its size in bytes, where it is bitcode.
    len: u64,
}

enum Inside<'a> {
    Regular(&'a mut Archive, &'a MemberHeader),
    Thin(&'a Member),
}

type Sink<'a> = dyn FnMut(Item<'_>) -> Result<Visit, InputError> + 'a;

/// So many objects are all looked at.
const ALL_UP_TO: usize = 128;
/// At least one object of so many is looked at.
pub const MAX_STRIDE: usize = 128;

/// Takes some of a row of objects: evenly spaced ones, and one of each directory that has several
/// in a row, since what a build compiles in one directory it mostly compiles in one way.
///
/// Runs for each of perhaps ten thousand arguments, so it counts down rather than divides, and
/// looks for the directory only now and then.
#[derive(Clone, Copy)]
struct Sampler<'a> {
    stride: usize,
    /// Objects until the next evenly spaced one.
    left: usize,
    dir: &'a [u8],
    /// How many may still be taken for their directory.
    dirs_left: usize,
}

impl<'a> Sampler<'a> {
    /// Directories are told apart at every so-manieth object.
    const DIR_STRIDE: usize = 8;

    fn of(count: usize) -> Self {
        Sampler {
            stride: (count / ALL_UP_TO).clamp(1, MAX_STRIDE),
            left: 0,
            dir: b"",
            dirs_left: ALL_UP_TO,
        }
    }

    fn takes(&mut self, object: &'a [u8]) -> bool {
        if self.left == 0 {
            self.left = self.stride - 1;
            return true;
        }
        self.left -= 1;
        self.left.is_multiple_of(Self::DIR_STRIDE)
            && self.dirs_left > 0
            && self.is_elsewhere(object)
    }

    fn is_elsewhere(&mut self, object: &'a [u8]) -> bool {
        let name = object.iter().rposition(|&b| b == b'/').unwrap_or(0);
        let dir = object.get(..name).unwrap_or_default();
        let new = dir != self.dir;
        if new {
            self.dir = dir;
            self.dirs_left -= 1;
        }
        new
    }
}

/// The arguments without the objects that a sample would not look at, where there are very many:
/// parsing costs an allocation or two for each. Only a name behind an argument that is no option is
/// left out, since it might be an option's value.
pub fn sample_args<'a>(args: impl ExactSizeIterator<Item = &'a OsStr>) -> Vec<OsString> {
    let count = args.len();
    if count <= 4 * ALL_UP_TO {
        return args.map(OsStr::to_os_string).collect();
    }
    let mut sampler = Sampler::of(count);
    let mut after_option = true;
    let mut kept = Vec::new();
    for arg in args {
        if after_option || !is_object_name(arg) || sampler.takes(arg.as_bytes()) {
            kept.push(arg.to_os_string());
        }
        after_option = arg.as_bytes().starts_with(b"-");
    }
    kept
}

fn is_object_name(name: &OsStr) -> bool {
    name.as_bytes().ends_with(b".o")
}

/// What lld keeps in its configuration while it adds inputs.
struct Walker<'a> {
    sink: &'a mut Sink<'a>,
    search_paths: Vec<Cow<'a, [u8]>>,
    sysroot: &'a [u8],
    nostdlib: bool,
    fat_lto_objects: bool,
    /// Archives to be looked at last, for one who only asks for bitcode; `None` to look at all in
    /// its place.
    waiting: Option<Vec<(PathBuf, Option<File>, PositionalState)>>,
    /// The paths of those: compilers name some libraries several times.
    named: HashSet<PathBuf>,
    /// Which objects of the command line to look at, if not all.
    objects: Option<Sampler<'a>>,
    scripts: usize,
    script_bytes: u64,
    /// For paths that are tried.
    scratch: Vec<u8>,
}

/// The script whose inputs are being added: by which path it was opened, and by which the one on
/// the command line that included it.
#[derive(Clone, Copy)]
struct Script<'a> {
    path: &'a Path,
    main: &'a Path,
    depth: usize,
}

macro_rules! go {
    ($visit:expr) => {
        if $visit? == Visit::Stop {
            return Ok(Visit::Stop);
        }
    };
}

impl<'a> Walker<'a> {
    fn new(
        cmd: &'a CommandLine,
        archives_last: bool,
        sink: &'a mut Sink<'a>,
    ) -> Result<Walker<'a>, InputError> {
        // Both change which file a name stands for, and neither is used in everyday links.
        for (id, name) in [
            (Id::Chroot, "--chroot"),
            (Id::RemapInputs, "--remap-inputs"),
            (Id::RemapInputsFile, "--remap-inputs-file"),
        ] {
            if cmd.has(id) {
                let what = "the option changes which files are read";
                return fail(Path::new(name), InputFault::Unsupported(what));
            }
        }
        Ok(Walker {
            sink,
            search_paths: cmd
                .library_paths()
                .map(|dir| Cow::Borrowed(dir.as_bytes()))
                .collect(),
            sysroot: cmd.sysroot().as_bytes(),
            nostdlib: cmd.has(Id::Nostdlib),
            fat_lto_objects: cmd.flag(Id::FatLtoObjects, Id::NoFatLtoObjects, false),
            waiting: archives_last.then(Vec::new),
            named: HashSet::new(),
            objects: None,
            scripts: 0,
            script_bytes: 0,
            scratch: Vec::new(),
        })
    }

    fn walk(&mut self, cmd: &'a CommandLine) -> Result<(), InputError> {
        for step in cmd.steps() {
            let visit = match step {
                Step::File { path, .. }
                    if is_object_name(path)
                        && self
                            .objects
                            .as_mut()
                            .is_some_and(|s| !s.takes(path.as_bytes())) =>
                {
                    Ok(Visit::Continue)
                }
                Step::File { path, state } => self.add_file(Path::new(path), None, state, 0),
                Step::Library { name, state } => self.add_library(name.as_bytes(), state, 0),
                Step::Script { path, state } => self.add_named_script(path, state),
                Step::Symbols(path) => self.add_symbols(Path::new(path)),
            };
            if visit? == Visit::Stop {
                return Ok(());
            }
        }
        for (path, file, state) in self.waiting.take().unwrap_or_default() {
            let file = match file {
                Some(file) => file,
                None => open(&path)?,
            };
            if self.add_archive(&path, file, state)? == Visit::Stop {
                return Ok(());
            }
        }
        Ok(())
    }

    /// A file that lld takes for an ELF object whatever it is, and never for bitcode.
    fn add_symbols(&mut self, path: &Path) -> Result<Visit, InputError> {
        if self.waiting.is_some() {
            return Ok(Visit::Continue);
        }
        let (kind, _) = self.identify(path, open(path)?)?;
        self.emit(path, None, kind, PositionalState::default(), 0)
    }

    /// `LinkerDriver::addFile`. `file` is the open file if it was opened to find it.
    fn add_file(
        &mut self,
        path: &Path,
        file: Option<File>,
        state: PositionalState,
        depth: usize,
    ) -> Result<Visit, InputError> {
        let file = match file {
            Some(file) => file,
            None => open(path)?,
        };
        let (kind, file) = self.identify(path, file)?;
        if state.format_binary {
            return self.emit(path, None, Kind::Other, state, 0);
        }
        go!(self.emit(path, None, kind, state, bitcode_size(kind, &file)));
        match (kind, &mut self.waiting) {
            (Kind::Text, _) => self.add_script(path, file, state, depth),
            (Kind::Archive | Kind::ThinArchive, Some(waiting)) => {
                if self.named.insert(path.to_path_buf()) {
                    let file = (waiting.len() < MAX_KEPT_OPEN).then_some(file);
                    waiting.push((path.to_path_buf(), file, state));
                }
                Ok(Visit::Continue)
            }
            (Kind::Archive | Kind::ThinArchive, None) => self.add_archive(path, file, state),
            _ => Ok(Visit::Continue),
        }
    }

    /// What a file is, and the file again.
    fn identify(&self, path: &Path, file: File) -> Result<(Kind, File), InputError> {
        let mut head = [0; kind::HEAD_LEN];
        let kind = match files::read_full(&file, &mut head, 0) {
            Ok(len) => kind::kind_of(head.get(..len).unwrap_or_default()),
            Err(e) => return unreadable(path, file, e),
        };
        if kind == Kind::ElfRelocatable && self.fat_lto_objects {
            let len = file.metadata().map_or(0, |m| m.len());
            if has_lto_section(&file, 0, len) {
                return Ok((Kind::FatElf, file));
            }
        }
        Ok((kind, file))
    }

    fn emit(
        &mut self,
        path: &Path,
        member: Option<Inside<'_>>,
        kind: Kind,
        state: PositionalState,
        len: u64,
    ) -> Result<Visit, InputError> {
        (self.sink)(Item {
            path,
            member,
            kind,
            state,
            len,
        })
    }

    /// The members of an archive. What they contain is not looked at: an archive or a script in an
    /// archive is nothing to lld.
    fn add_archive(
        &mut self,
        path: &Path,
        file: File,
        state: PositionalState,
    ) -> Result<Visit, InputError> {
        let mut archive = Archive::open(path, file)?;
        let mut head = [0; kind::HEAD_LEN];
        let mut members = 0;
        while let Some(entry) = archive.next_header()? {
            members += 1;
            if archive.is_thin() {
                // How many there are is not known yet.
                if self.objects.is_some() && members > ALL_UP_TO && members % MAX_STRIDE != 0 {
                    continue;
                }
                let member = archive.member(&entry)?;
                go!(self.add_thin_member(path, &member, state));
                continue;
            }
            let read = match archive.read_head(&entry, &mut head) {
                Ok(read) => read,
                Err(e) => return fail(path, InputFault::Io(e)),
            };
            let mut kind = kind::kind_of(head.get(..read).unwrap_or_default());
            let (file, at, len) = archive.bytes_of(&entry);
            if kind == Kind::ElfRelocatable
                && self.fat_lto_objects
                && has_lto_section(file, at, len)
            {
                kind = Kind::FatElf;
            }
            go!(self.emit(
                path,
                Some(Inside::Regular(&mut archive, &entry)),
                kind,
                state,
                len
            ));
        }
        Ok(Visit::Continue)
    }

    fn add_thin_member(
        &mut self,
        archive: &Path,
        member: &Member,
        state: PositionalState,
    ) -> Result<Visit, InputError> {
        let Some(path) = &member.external else {
            return Ok(Visit::Continue);
        };
        let (kind, file) = self.identify(path, open(path)?)?;
        let len = bitcode_size(kind, &file);
        self.emit(archive, Some(Inside::Thin(member)), kind, state, len)
    }

    /// `-lNAME` and `-l:NAME` (`searchLibrary`).
    fn add_library(
        &mut self,
        name: &[u8],
        state: PositionalState,
        depth: usize,
    ) -> Result<Visit, InputError> {
        let mut path = std::mem::take(&mut self.scratch);
        let found = match name.strip_prefix(b":") {
            Some(name) => self.search(&mut path, &[&[name]]),
            None => {
                let shared: &[&[u8]] = &[b"lib", name, b".so"];
                let archive: &[&[u8]] = &[b"lib", name, b".a"];
                let both = [shared, archive];
                let names = if state.is_static { &both[1..] } else { &both };
                self.search(&mut path, names)
            }
        };
        let visit = match found {
            Ok(Some(file)) => self.add_file(as_path(&path), Some(file), state, depth),
            Ok(None) => {
                let name = [b"-l", name].concat();
                fail(as_path(&name), InputFault::NotFound("library"))
            }
            Err(e) => Err(e),
        };
        self.scratch = path;
        visit
    }

    /// Opens the first of `names`, each given in pieces, that exists in a search path, and leaves
    /// its path in `path` (`findFromSearchPaths`, `searchLibraryBaseName`, `findFile`).
    fn search(&self, path: &mut Vec<u8>, names: &[&[&[u8]]]) -> Result<Option<File>, InputError> {
        for dir in &self.search_paths {
            for name in names {
                path.clear();
                match dir.strip_prefix(b"=") {
                    Some(rest) => {
                        path.extend_from_slice(self.sysroot);
                        llvm_path::append(path, rest);
                    }
                    None => path.extend_from_slice(dir),
                }
                // The pieces make one component.
                let mut pieces = name.iter();
                if let Some(first) = pieces.next() {
                    llvm_path::append(path, first);
                }
                for piece in pieces {
                    path.extend_from_slice(piece);
                }
                if let Some(file) = open_existing(as_path(path))? {
                    return Ok(Some(file));
                }
            }
        }
        Ok(None)
    }

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
    fn add_named_script(
        &mut self,
        name: &OsStr,
        state: PositionalState,
    ) -> Result<Visit, InputError> {
        let mut path = Vec::new();
        let file = self.open_script(name.as_bytes(), &mut path)?;
        go!(self.emit(as_path(&path), None, Kind::Text, state, 0));
        self.add_script(as_path(&path), file, state, 0)
    }

    fn add_script(
        &mut self,
        path: &Path,
        file: File,
        state: PositionalState,
        depth: usize,
    ) -> Result<Visit, InputError> {
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
    ) -> Result<Visit, InputError> {
        self.scripts += 1;
        if script.depth >= MAX_SCRIPT_DEPTH || self.scripts > MAX_SCRIPTS {
            let what = "too many linker scripts that name each other";
            return fail(script.path, InputFault::Unsupported(what));
        }
        // Read at positions: what has none, a pipe, is lld's to read.
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

        let mut parser = Parser::new(&text);
        loop {
            let command = match parser.next_command() {
                Ok(Some(command)) => command,
                Ok(None) => return Ok(Visit::Continue),
                Err(e) => return fail(script.path, InputFault::Script(e)),
            };
            match command {
                Command::Input(name) => go!(self.add_script_input(script, name, state)),
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
                    go!(self.emit(included.path, None, Kind::Text, state, 0));
                    go!(self.read_script(included, file, state));
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

    /// `ScriptParser::addFile`: absolute, from the sysroot, a library, or relative to the script's
    /// directory, the current one, and the search paths.
    fn add_script_input(
        &mut self,
        script: Script<'_>,
        name: &[u8],
        state: PositionalState,
    ) -> Result<Visit, InputError> {
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

/// The size of a file that is bitcode; of others nobody asks.
fn bitcode_size(kind: Kind, file: &File) -> u64 {
    if kind.is_bitcode() {
        file.metadata().map_or(0, |m| m.len())
    } else {
        0
    }
}

/// Whether `path` or a directory on its way is the directory `root`, by identity
/// (`sys::fs::equivalent`).
fn is_under(path: &Path, root: &[u8]) -> bool {
    use std::os::unix::fs::MetadataExt;
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

fn as_path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

fn open(path: &Path) -> Result<File, InputError> {
    // Opening a FIFO lets its writer go on, which may then be gone before lld comes. A stat for each of
    // ten thousand objects would be felt, so those that go by the usual names are trusted.
    let usual = [&b".o"[..], b".a", b".so", b".rlib"];
    let name = path.as_os_str().as_bytes();
    if !usual.iter().any(|end| name.ends_with(end))
        && std::fs::metadata(path).is_ok_and(|m| !m.is_file())
    {
        return fail(path, InputFault::Unsupported("it is no plain file"));
    }
    files::open_readable(path).or_else(|e| fail(path, InputFault::Io(e)))
}

/// Opens a file that may not exist. What exists and can't be opened is an error, as in lld, which
/// asks for existence first and opens later.
fn open_existing(path: &Path) -> Result<Option<File>, InputError> {
    match files::open_readable(path) {
        Ok(file) => Ok(Some(file)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => {
            let exists = CString::new(path.as_os_str().as_bytes())
                // SAFETY: the argument is a string that ends in NUL and lives through the call.
                .is_ok_and(|path| unsafe { libc::access(path.as_ptr(), libc::F_OK) } == 0);
            if exists {
                fail(path, InputFault::Io(e))
            } else {
                Ok(None)
            }
        }
    }
}

/// A file that opens and can't be read: a directory, or a FIFO. A FIFO is left open past our `exec`,
/// since opening it may have let its writer go on, and a writer without a reader dies.
fn unreadable<T>(path: &Path, file: File, e: io::Error) -> Result<T, InputError> {
    if e.raw_os_error() == Some(libc::ESPIPE) {
        // SAFETY: the descriptor is open, and stays so; the call changes a flag of it.
        unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFD, 0) };
        std::mem::forget(file);
    }
    fail(path, InputFault::Io(e))
}

/// Whether the ELF object of `len` bytes at `at` in `file` has bitcode in `.llvm.lto`
/// (`IRObjectFile::findBitcodeInObject`). What is malformed has none, to lld as well.
fn has_lto_section(file: &File, at: u64, len: u64) -> bool {
    let object = Slice { file, at, len };
    let Some(head) = object.read(0, len.min(64)) else {
        return false;
    };
    match pod::bytes_of_slice(&head).get(4) {
        Some(&elf::ELFCLASS32) => {
            find_lto_section::<elf::FileHeader32<Endianness>>(&object, &head).is_some()
        }
        Some(&elf::ELFCLASS64) => {
            find_lto_section::<elf::FileHeader64<Endianness>>(&object, &head).is_some()
        }
        _ => false,
    }
}

struct Slice<'a> {
    file: &'a File,
    at: u64,
    len: u64,
}

impl Slice<'_> {
    /// `size` bytes at `offset`, rounded up to words with zeros: aligned for any header.
    fn read(&self, offset: u64, size: u64) -> Option<Vec<u64>> {
        let end = offset.checked_add(size)?;
        if end > self.len || size > MAX_SECTION_BYTES {
            return None;
        }
        let size = usize::try_from(size).ok()?;
        let mut words = vec![0u64; size.div_ceil(8)];
        let bytes = pod::bytes_of_slice_mut(&mut words).get_mut(..size)?;
        let at = self.at.checked_add(offset)?;
        let got = files::read_full(self.file, bytes, at).ok()?;
        (got == size).then_some(words)
    }
}

fn find_lto_section<H>(object: &Slice<'_>, head: &[u64]) -> Option<()>
where
    H: FileHeader<Endian = Endianness>,
{
    let (header, _) = pod::from_bytes::<H>(pod::bytes_of_slice(head)).ok()?;
    let endian = header.endian().ok()?;
    let entry_size = size_of::<H::SectionHeader>() as u64;
    if u64::from(header.e_shentsize(endian)) != entry_size {
        return None;
    }
    let table_at: u64 = header.e_shoff(endian).into();
    // Numbers that don't fit the header are in the first section header.
    let words = object.read(table_at, entry_size)?;
    let (first, _) = pod::from_bytes::<H::SectionHeader>(pod::bytes_of_slice(&words)).ok()?;
    let count = match header.e_shnum(endian) {
        0 => first.sh_size(endian).into(),
        n => u64::from(n),
    };
    let names = match header.e_shstrndx(endian) {
        elf::SHN_XINDEX => first.sh_link(endian),
        n => u32::from(n),
    };
    let words = object.read(table_at, count.checked_mul(entry_size)?)?;
    let count = usize::try_from(count).ok()?;
    let table = pod::bytes_of_slice(&words);
    let (sections, _) = pod::slice_from_bytes::<H::SectionHeader>(table, count).ok()?;
    let names = sections.get(usize::try_from(names).ok()?)?;
    let words = object.read(names.sh_offset(endian).into(), names.sh_size(endian).into())?;
    let names = pod::bytes_of_slice(&words);
    sections.iter().find_map(|section| {
        let name = names.get(usize::try_from(section.sh_name(endian)).ok()?..)?;
        // One byte is a placeholder (`-fembed-bitcode-marker`).
        let size: u64 = section.sh_size(endian).into();
        (name.starts_with(b".llvm.lto\0") && size > 1).then_some(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_everything_of_few_and_evenly_spaced_of_many() {
        let taken = |names: &[String]| -> Vec<usize> {
            let mut s = Sampler::of(names.len());
            (0..names.len())
                .filter(|&i| s.takes(names[i].as_bytes()))
                .collect()
        };
        let few: Vec<String> = (0..ALL_UP_TO).map(|i| format!("{i}.o")).collect();
        assert_eq!(taken(&few).len(), ALL_UP_TO);
        let mut many: Vec<String> = (0..10_000).map(|i| format!("{i}.o")).collect();
        let some = taken(&many);
        assert!(some.len() <= 2 * ALL_UP_TO, "{}", some.len());
        assert!(some.windows(2).all(|w| w[1] - w[0] <= MAX_STRIDE));
        // Some objects of another directory, between two that are looked at.
        for (i, name) in many.iter_mut().enumerate().skip(5001).take(8) {
            *name = format!("lto/{i}.o");
        }
        assert!(taken(&many).iter().any(|i| (5001..5009).contains(i)));
    }
}
