//! The modules of a link: where each one's bytes are, and what it names.

use crate::bitcode::module::{self, LtoKind};
use crate::index::{Identifier, Index};
use crate::link::{Failure, Plan};
use memmap2::Mmap;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// A module that takes part.
#[derive(Debug)]
pub struct Module {
    /// Its bytes as a file of their own: the user's file, or an unpacked copy.
    pub file: PathBuf,
    /// Size of the bitcode.
    pub size: u64,
    /// Target triple of its ThinLTO part.
    pub triple: OsString,
    /// GUIDs of all that it names: definitions and declarations.
    pub names: Vec<u64>,
    /// GUIDs whose summary in the file's regular-LTO part says `dso_local`, and those whose
    /// summary there does not.
    pub regular: Vec<(u64, bool)>,
}

impl Module {
    /// Finds and reads the module `number` of the index.
    pub fn read(plan: &Plan<'_>, number: usize, identifier: &Identifier) -> Result<Self, Failure> {
        let fail = |why: &dyn std::fmt::Display| {
            Failure::new(format!("module {}: {why}", identifier.0.display()))
        };
        let at = shim::archive::locate(&identifier.0, Path::new("")).map_err(|e| fail(&e))?;
        let map = map(&at.path).map_err(|e| fail(&e))?;
        let start = usize::try_from(at.offset).map_err(|e| fail(&e))?;
        let size = usize::try_from(at.size).map_err(|e| fail(&e))?;
        let mut bytes = start
            .checked_add(size)
            .and_then(|end| map.get(start..end))
            .ok_or_else(|| fail(&"it ends behind the end of its file"))?;
        let mut whole = at.whole_file;
        if bytes.starts_with(b"\x7fELF") {
            bytes = fat_section(bytes).ok_or_else(|| fail(&"an ELF file without bitcode"))?;
            whole = false;
        }
        let scanned = module::scan(bytes).map_err(|e| fail(&e))?;
        let mut thin = scanned.iter().filter(|m| m.kind == LtoKind::Thin);
        let (Some(first), None) = (thin.next(), thin.next()) else {
            return Err(fail(&"it does not have exactly one ThinLTO part"));
        };
        let triple = OsString::from_vec(first.triple.clone());
        let mut names: Vec<u64> = first
            .globals
            .iter()
            .filter(|g| !g.name.is_empty())
            .map(|g| crate::bitcode::guid(g.name))
            .collect();
        names.sort_unstable();
        names.dedup();
        let regular = scanned
            .iter()
            .filter(|m| m.kind != LtoKind::Thin)
            .flat_map(|m| &m.globals)
            .filter_map(|g| Some((crate::bitcode::guid(g.name), g.summary_dso_local?)))
            .collect();
        let file = if whole {
            std::path::absolute(&at.path).map_err(|e| fail(&e))?
        } else {
            let file = plan.scratch.members().join(number.to_string());
            std::fs::write(&file, bytes).map_err(|e| fail(&e))?;
            file
        };
        Ok(Self { file, size: bytes.len() as u64, triple, names, regular })
    }
}

/// The bitcode of a fat object (fact 3).
fn fat_section(elf: &[u8]) -> Option<&[u8]> {
    use object::{Object, ObjectSection};
    let file = object::read::elf::ElfFile64::<object::Endianness>::parse(elf).ok()?;
    file.section_by_name(".llvm.lto")?.data().ok()
}

/// Maps a file. An input that is cut short while we read it would be a fault in any linker; lld
/// maps its inputs as well.
fn map(path: &Path) -> io::Result<Mmap> {
    let file = File::open(path)?;
    // SAFETY: the map is only read, and for as long as lld itself has the file mapped.
    unsafe { Mmap::map(&file) }
}

/// Reads all modules of the index, `jobs` at a time, in its order.
pub fn read_all(plan: &Plan<'_>, index: &Index) -> Result<Vec<Module>, Failure> {
    crate::parallel::map(plan.jobs, &index.modules, |number, m| {
        Module::read(plan, number, &m.identifier)
    })
    .into_iter()
    .collect()
}
