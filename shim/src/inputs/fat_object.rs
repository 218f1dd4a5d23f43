//! Fat objects: ELF objects that carry bitcode in the section `.llvm.lto`.
//!
//! lld takes that bitcode under `--fat-lto-objects` only, so only then are the section headers of each
//! object read.

use std::fs::File;

use object::read::elf::{FileHeader, SectionHeader};
use object::{Endianness, elf, pod};

use crate::files::read_full;

/// Section headers or section names of one object (bytes). What has more is taken for no fat object.
const MAX_SECTION_BYTES: u64 = 64 << 20;

/// Whether the ELF object of `len` bytes at `at` in `file` has bitcode in `.llvm.lto`
/// (`IRObjectFile::findBitcodeInObject`). What is malformed has none, to lld as well.
pub(super) fn has_lto_section(file: &File, at: u64, len: u64) -> bool {
    let object = ObjectBytes { file, at, len };
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

/// The bytes of an object: a part of a file.
struct ObjectBytes<'a> {
    file: &'a File,
    at: u64,
    len: u64,
}

impl ObjectBytes<'_> {
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
        let got = read_full(self.file, bytes, at).ok()?;
        (got == size).then_some(words)
    }
}

/// `Some` if the object with the header `head` has the section.
fn find_lto_section<H>(object: &ObjectBytes<'_>, head: &[u64]) -> Option<()>
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
