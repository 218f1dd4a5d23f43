//! The modules of a link: where each one's bytes are, and what it names.

use super::failure::Failure;
use crate::cache::files::SeenFile;
use crate::jobs::bitcode::Malformed;
use crate::jobs::bitcode::attributes::FunctionAttributes;
use crate::jobs::bitcode::guid;
use crate::jobs::bitcode::module::{self, LtoKind};
use crate::jobs::index::{Index, ModuleIdentifier};
use crate::sys;
use crate::sys::scratch::Scratch;
use object::elf::{FileHeader32, FileHeader64};
use object::read::elf::{ElfFile, FileHeader};
use object::{Endianness, Object, ObjectSection};
use shim::cmdline::CommandLine;
use shim::inputs::{self, Input, Visit};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A module that takes part.
#[derive(Debug)]
pub struct Module {
    /// Its bytes as a file of their own: the user's file, or an unpacked copy.
    pub file: PathBuf,
    /// The file that lld reads it from, as it was before it was read here.
    pub source: Arc<SeenFile>,
    /// Size of the bitcode.
    pub size: u64,
    /// Target triple of its ThinLTO part.
    pub triple: OsString,
    /// GUIDs of all that it names: definitions and declarations.
    pub names: Vec<u64>,
    /// GUIDs of what its own summary defines and others can see.
    pub defines: Vec<u64>,
    /// What the summaries of the file's regular-LTO part say.
    pub regular_lto: Vec<SymbolLocality>,
    /// Its assembly may read other files when it is compiled.
    pub reads_files: bool,
    /// Attributes of its functions.
    pub attributes: FunctionAttributes,
}

/// What a summary says of a symbol.
#[derive(Debug)]
pub struct SymbolLocality {
    /// The symbol.
    pub guid: u64,
    /// Whether the summary marks it `dso_local`.
    pub dso_local: bool,
}

impl Module {
    /// Finds and reads the module `number` of the index.
    pub fn read(
        scratch: &Scratch,
        number: usize,
        identifier: &ModuleIdentifier,
    ) -> Result<Self, Failure> {
        let why = |why| Failure::Failed(format!("module {identifier}: {why}"));
        let source = Arc::new(source(identifier).map_err(why)?);
        with_bitcode(identifier, |bytes, whole| {
            let scanned = module::scan(bytes).map_err(|e| e.to_string())?;
            let mut thin = scanned.iter().filter(|m| m.kind == LtoKind::Thin);
            let (Some(first), None) = (thin.next(), thin.next()) else {
                return Err("it does not have exactly one ThinLTO part".into());
            };
            let triple = OsString::from_vec(first.triple.clone());
            let (mut names, mut defines) = (Vec::new(), Vec::new());
            for global in first.globals.iter().filter(|g| !g.local) {
                let guid = guid(global.name);
                if !global.name.is_empty() {
                    names.push(guid);
                }
                if global.summary_dso_local.is_some() {
                    defines.push(guid);
                }
            }
            names.sort_unstable();
            names.dedup();
            let regular_lto = scanned
                .iter()
                .filter(|m| m.kind != LtoKind::Thin)
                .flat_map(symbol_localities)
                .collect();
            let file = match whole {
                Some(path) => std::path::absolute(path).map_err(|e| e.to_string())?,
                None => {
                    let file = scratch.members().join(number.to_string());
                    std::fs::write(&file, bytes)
                        .map_err(|e| format!("cannot write {}: {e}", file.display()))?;
                    file
                }
            };
            Ok(Self {
                file,
                source,
                size: bytes.len() as u64,
                triple,
                names,
                defines,
                regular_lto,
                reads_files: scanned.iter().any(|m| m.reads_files),
                attributes: (scanned.iter().map(|m| m.attributes))
                    .fold(FunctionAttributes::default(), FunctionAttributes::or),
            })
        })
        .map_err(why)
    }
}

/// The file of the module that lld calls `identifier`, as it is now.
pub fn source(identifier: &ModuleIdentifier) -> Result<SeenFile, String> {
    let at = shim::archive::locate(identifier.as_os_str()).map_err(|e| e.to_string())?;
    SeenFile::now(&at.path).map_err(|e| format!("{}: {e}", at.path.display()))
}

/// Calls `f` with the bitcode of the module that lld calls `identifier`, and says whether it is a
/// whole file.
pub fn with_bitcode<T>(
    identifier: &ModuleIdentifier,
    f: impl FnOnce(&[u8], Option<&Path>) -> Result<T, String>,
) -> Result<T, String> {
    let at = shim::archive::locate(identifier.as_os_str()).map_err(|e| e.to_string())?;
    let map = sys::map(&at.path).map_err(|e| e.to_string())?;
    let whole = at.whole_file.then_some(at.path.as_path());
    let bytes = part(&map, at.offset, at.size)?;
    if bytes.starts_with(b"\x7fELF") {
        return f(
            fat_section(bytes).ok_or("an ELF file without bitcode")?,
            None,
        );
    }
    f(bytes, whole)
}

fn part(map: &[u8], offset: u64, size: u64) -> Result<&[u8], String> {
    let start = usize::try_from(offset).ok();
    let end = offset
        .checked_add(size)
        .and_then(|end| usize::try_from(end).ok());
    start
        .zip(end)
        .and_then(|(start, end)| map.get(start..end))
        .ok_or_else(|| "it ends behind the end of its file".into())
}

/// What a module's own summary says of the symbols that others can see.
fn symbol_localities(m: &module::Module<'_>) -> Vec<SymbolLocality> {
    let locality = |g: &module::Global<'_>| {
        let dso_local = g.summary_dso_local?;
        let guid = guid(g.name);
        Some(SymbolLocality { guid, dso_local })
    };
    m.globals
        .iter()
        .filter(|g| !g.local)
        .filter_map(locality)
        .collect()
}

/// The bitcode of a fat object (docs/lld.md, "Recognising bitcode").
fn fat_section(elf: &[u8]) -> Option<&[u8]> {
    fn of<F: FileHeader<Endian = Endianness>>(elf: &[u8]) -> Option<&[u8]> {
        let file = ElfFile::<F>::parse(elf).ok()?;
        file.section_by_name(".llvm.lto")?.data().ok()
    }
    of::<FileHeader64<Endianness>>(elf).or_else(|| of::<FileHeader32<Endianness>>(elf))
}

/// Reads all modules of the index on up to `threads` threads; the results are in its order. Fails when a
/// module cannot be read, or lld `is_over`.
pub fn read_all(
    threads: usize,
    scratch: &Scratch,
    index: &Index,
    is_over: &(dyn Fn() -> bool + Sync),
) -> Result<Vec<Module>, Failure> {
    sys::parallel::map(threads, &index.modules, |number, m| {
        if is_over() {
            return Err(Failure::Failed("lld has ended".into()));
        }
        Module::read(scratch, number, &m.identifier)
    })
    .into_iter()
    .collect()
}

/// What the summaries of modules that are regular LTO only say: the thin link has them in its index, but
/// they get no shard (docs/lld.md, "Regular LTO beside ThinLTO"; `LTO::addModule`).
pub fn regular_lto_summaries(index: &Index) -> Result<Vec<SymbolLocality>, Failure> {
    let mut all = Vec::new();
    for identifier in &index.regular_lto {
        with_bitcode(identifier, |bytes, _| {
            let scanned = module::scan(bytes).map_err(|e| e.to_string())?;
            all.extend(scanned.iter().flat_map(symbol_localities));
            Ok(())
        })
        .map_err(|why| Failure::Failed(format!("module {identifier}: {why}")))?;
    }
    Ok(all)
}

/// Whether any input has a ThinLTO module. Stops at the first.
pub fn any_thin(cmd: &CommandLine) -> Result<bool, Failure> {
    any(cmd, module::has_thin)
}

/// Whether any input has functions with memory tagging. Stops at the first.
pub fn any_memory_tagging(cmd: &CommandLine) -> Result<bool, Failure> {
    any(cmd, |bytes| {
        Ok(module::function_attributes(bytes)?.memory_tagging)
    })
}

/// Whether the bitcode of any input is like that.
fn any(
    cmd: &CommandLine,
    is_it: impl Fn(&[u8]) -> Result<bool, Malformed>,
) -> Result<bool, Failure> {
    let mut found = false;
    let mut error = None;
    inputs::visit(cmd, &mut |input| {
        if input.kind.is_bitcode() {
            match with_input(input, |bytes| is_it(bytes).map_err(|e| e.to_string())) {
                Ok(is_it) => found = is_it,
                Err(why) => error = Some(format!("{}: {why}", input.path.display())),
            }
        }
        Ok(if found || error.is_some() {
            Visit::Stop
        } else {
            Visit::Continue
        })
    })
    .map_err(|e| Failure::Failed(e.to_string()))?;
    error.map_or(Ok(found), |why| Err(Failure::Failed(why)))
}

/// Calls `f` with the bitcode of an input that has some.
pub fn with_input<T>(
    input: &Input<'_>,
    f: impl FnOnce(&[u8]) -> Result<T, String>,
) -> Result<T, String> {
    let (path, offset, size) = match input.member {
        Some(m) => match &m.external {
            Some(file) => (file.as_path(), 0, None),
            None => (input.path, m.data_offset, Some(m.size)),
        },
        None => (input.path, 0, None),
    };
    let map = sys::map(path).map_err(|e| e.to_string())?;
    let mut bytes = part(&map, offset, size.unwrap_or(map.len() as u64))?;
    if bytes.starts_with(b"\x7fELF") {
        bytes = fat_section(bytes).ok_or("an ELF file without bitcode")?;
    }
    f(bytes)
}
