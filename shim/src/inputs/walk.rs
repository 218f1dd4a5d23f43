//! The walk over a link's inputs, in the order in which lld adds them.
//!
//! Names are searched by opening them, archives are read by their headers, and a member gets a name only
//! when somebody asks for it.

mod scripts;

use std::borrow::Cow;
use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::error::{InputError, InputFault, fail};
use super::fat_object::has_lto_section;
use super::open::{open, open_existing, unreadable};
use super::sample::{ALL_UP_TO, MAX_STRIDE, Sampler, is_object_name};
use crate::archive::{Archive, ArchiveError, Member, MemberHeader};
use crate::cmdline::{CommandLine, PositionalState, Step};
use crate::files;
use crate::kind::{self, Kind};
use crate::llvm_path;
use crate::options::Id;

/// Archives that are kept open until all other inputs have been looked at.
const MAX_KEPT_OPEN: usize = 64;

/// Whether to look at more inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visit {
    /// Go on.
    Continue,
    /// That was enough.
    Stop,
}

/// An input, or a member of one, as the walk comes by it.
pub(super) struct Walked<'a> {
    /// The file, by the path that lld opens; for a member, the archive.
    pub path: &'a Path,
    pub member: Option<WalkedMember<'a>>,
    pub kind: Kind,
    /// Its size in bytes, where it is bitcode.
    pub bitcode_size: u64,
}

/// A member of an archive.
pub(super) enum WalkedMember<'a> {
    /// Its name has not been read.
    Regular(&'a mut Archive, &'a MemberHeader),
    Thin(&'a Member),
}

pub(super) type Sink<'a> = dyn FnMut(Walked<'_>) -> Result<Visit, InputError> + 'a;

/// Why a walk ends early.
enum Halt {
    /// The sink has seen enough.
    Enough,
    Failed(InputError),
}

impl From<InputError> for Halt {
    fn from(e: InputError) -> Halt {
        Halt::Failed(e)
    }
}

impl From<ArchiveError> for Halt {
    fn from(e: ArchiveError) -> Halt {
        Halt::Failed(e.into())
    }
}

/// Where a walk is, and what lld keeps in its configuration while it adds inputs.
pub(super) struct Walker<'a> {
    sink: &'a mut Sink<'a>,
    search_paths: Vec<Cow<'a, [u8]>>,
    sysroot: &'a [u8],
    nostdlib: bool,
    fat_lto_objects: bool,
    /// Archives to be looked at last, where only bitcode counts; `None` to look at each in its place.
    waiting: Option<Vec<(PathBuf, Option<File>)>>,
    /// The paths of those, to look at each once: compilers name some libraries several times.
    waiting_paths: HashSet<PathBuf>,
    /// Which objects of the command line to look at, if not all.
    sampler: Option<Sampler<'a>>,
    /// How many scripts were read, and their bytes.
    scripts: usize,
    script_bytes: u64,
    /// The buffer of paths that are tried in search paths.
    path_buffer: Vec<u8>,
}

impl<'a> Walker<'a> {
    /// A walk that gives each input to `sink`; with `bitcode_only`, of archives named twice only one, after
    /// all files, and no symbol files.
    pub(super) fn new(
        cmd: &'a CommandLine,
        bitcode_only: bool,
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
            waiting: bitcode_only.then(Vec::new),
            waiting_paths: HashSet::new(),
            sampler: None,
            scripts: 0,
            script_bytes: 0,
            path_buffer: Vec::new(),
        })
    }

    /// Of very many objects (of names in `.o`, or members of thin archives), look at a sample only. Whether these are
    /// all objects that the command line names.
    pub(super) fn sample(&mut self, cmd: &CommandLine) -> bool {
        let objects = cmd.inputs().filter(|name| is_object_name(name)).count();
        let sampler = Sampler::of(objects);
        self.sampler = Some(sampler);
        sampler.takes_all()
    }

    /// Walks until the sink has seen enough.
    pub(super) fn walk(mut self, cmd: &'a CommandLine) -> Result<(), InputError> {
        match self.steps(cmd) {
            Ok(()) | Err(Halt::Enough) => Ok(()),
            Err(Halt::Failed(e)) => Err(e),
        }
    }

    fn steps(&mut self, cmd: &'a CommandLine) -> Result<(), Halt> {
        for step in cmd.steps() {
            match step {
                Step::File { path, .. } if self.leaves_out(path) => {}
                Step::File { path, state } => self.add_file(Path::new(path), None, state, 0)?,
                Step::Library { name, state } => self.add_library(name.as_bytes(), state, 0)?,
                Step::Script { path, state } => self.add_named_script(path.as_bytes(), state)?,
                Step::Symbols(path) => self.add_symbols(Path::new(path))?,
            }
        }
        for (path, file) in self.waiting.take().unwrap_or_default() {
            let file = match file {
                Some(file) => file,
                None => open(&path)?,
            };
            self.add_archive(&path, file)?;
        }
        Ok(())
    }

    /// Whether an input is an object that is not in the sample.
    fn leaves_out(&mut self, path: &'a OsStr) -> bool {
        let sampler = self.sampler.as_mut().filter(|_| is_object_name(path));
        sampler.is_some_and(|sampler| !sampler.picks(path.as_bytes()))
    }

    /// A file that lld takes for an ELF object whatever it is, and never for bitcode.
    fn add_symbols(&mut self, path: &Path) -> Result<(), Halt> {
        if self.waiting.is_some() {
            return Ok(());
        }
        let (kind, _) = self.identify(path, open(path)?)?;
        self.emit(path, None, kind, 0)
    }

    /// `LinkerDriver::addFile`. `file` is the open file if it was opened to find it, `depth` how deep in
    /// scripts it is named.
    fn add_file(
        &mut self,
        path: &Path,
        file: Option<File>,
        state: PositionalState,
        depth: usize,
    ) -> Result<(), Halt> {
        let file = match file {
            Some(file) => file,
            None => open(path)?,
        };
        let (kind, file) = self.identify(path, file)?;
        if state.format_binary {
            return self.emit(path, None, Kind::Other, 0);
        }
        self.emit(path, None, kind, bitcode_size(kind, &file))?;
        match (kind, &mut self.waiting) {
            (Kind::Text, _) => self.add_script(path, file, state, depth),
            (Kind::Archive | Kind::ThinArchive, Some(waiting)) => {
                if self.waiting_paths.insert(path.to_path_buf()) {
                    let file = (waiting.len() < MAX_KEPT_OPEN).then_some(file);
                    waiting.push((path.to_path_buf(), file));
                }
                Ok(())
            }
            (Kind::Archive | Kind::ThinArchive, None) => self.add_archive(path, file),
            _ => Ok(()),
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
        member: Option<WalkedMember<'_>>,
        kind: Kind,
        bitcode_size: u64,
    ) -> Result<(), Halt> {
        match (self.sink)(Walked {
            path,
            member,
            kind,
            bitcode_size,
        })? {
            Visit::Continue => Ok(()),
            Visit::Stop => Err(Halt::Enough),
        }
    }

    /// The members of an archive. An archive or a script in an archive is nothing to lld, so members are
    /// not looked into.
    fn add_archive(&mut self, path: &Path, file: File) -> Result<(), Halt> {
        let mut archive = Archive::open(path, file)?;
        let mut head = [0; kind::HEAD_LEN];
        let mut members = 0;
        while let Some(header) = archive.next_header()? {
            members += 1;
            if archive.is_thin() {
                // How many there are is not known yet.
                if self.sampler.is_some() && members > ALL_UP_TO && members % MAX_STRIDE != 0 {
                    continue;
                }
                let member = archive.member(&header)?;
                self.add_thin_member(path, &member)?;
                continue;
            }
            let read = match archive.read_head(&header, &mut head) {
                Ok(read) => read,
                Err(e) => return fail(path, InputFault::Io(e)),
            };
            let mut kind = kind::kind_of(head.get(..read).unwrap_or_default());
            let (file, at, size) = archive.bytes_of(&header);
            if kind == Kind::ElfRelocatable
                && self.fat_lto_objects
                && has_lto_section(file, at, size)
            {
                kind = Kind::FatElf;
            }
            let member = WalkedMember::Regular(&mut archive, &header);
            self.emit(path, Some(member), kind, size)?;
        }
        Ok(())
    }

    fn add_thin_member(&mut self, archive: &Path, member: &Member) -> Result<(), Halt> {
        let Some(path) = &member.external else {
            return Ok(());
        };
        let (kind, file) = self.identify(path, open(path)?)?;
        let size = bitcode_size(kind, &file);
        self.emit(archive, Some(WalkedMember::Thin(member)), kind, size)
    }

    /// `-lNAME` and `-l:NAME` (`searchLibrary`).
    fn add_library(
        &mut self,
        name: &[u8],
        state: PositionalState,
        depth: usize,
    ) -> Result<(), Halt> {
        let mut path = std::mem::take(&mut self.path_buffer);
        let found = match name.strip_prefix(b":") {
            Some(name) => self.search(&mut path, &[&[name]]),
            None => {
                let shared: &[&[u8]] = &[b"lib", name, b".so"];
                let archive: &[&[u8]] = &[b"lib", name, b".a"];
                let both = [shared, archive];
                let names = if state.is_static { &both[1..] } else { &both };
                self.search(&mut path, names)
            }
        }?;
        let Some(file) = found else {
            let name = [b"-l", name].concat();
            return fail(as_path(&name), InputFault::NotFound("library"));
        };
        self.add_file(as_path(&path), Some(file), state, depth)?;
        self.path_buffer = path;
        Ok(())
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
}

/// The size of a file that is bitcode; of others nobody asks.
fn bitcode_size(kind: Kind, file: &File) -> u64 {
    if kind.is_bitcode() {
        file.metadata().map_or(0, |m| m.len())
    } else {
        0
    }
}

fn as_path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}
