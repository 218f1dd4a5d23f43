//! What a file is, from its first bytes.
//!
//! The names of inputs say nothing: `libc.so` is a linker script, an `.rlib` is an archive, and an
//! `.o` is bitcode or ELF. lld decides by magic number alone (llvm/lib/BinaryFormat/Magic.cpp,
//! `identify_magic`, and lld/ELF/Driver.cpp, `LinkerDriver::addFile`); so do we, from one small read.
//!
//! What has no magic number is a linker script to lld, whatever it contains. That includes files
//! shorter than four bytes, and ELF files that are cut off before `e_type`.

/// How many bytes [`kind_of`] wants to see. Fewer are right only when the file has no more.
pub const HEAD_LEN: usize = 64;

/// What an input is to lld.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Raw LLVM bitcode, `BC C0 DE` (docs/lld.md, "Recognising bitcode").
    Bitcode,
    /// LLVM bitcode in its wrapper, `DE C0 17 0B` (docs/lld.md, "Recognising bitcode").
    BitcodeWrapper,
    /// An ELF relocatable object that carries bitcode in `.llvm.lto`, under `--fat-lto-objects`.
    /// Never an answer of [`kind_of`]: it takes more than the first bytes to tell.
    FatElf,
    /// An ELF relocatable object.
    ElfRelocatable,
    /// An ELF shared object.
    ElfShared,
    /// ELF of another type, which lld refuses: executable, core file, unknown.
    ElfOther,
    /// A regular archive.
    Archive,
    /// A thin archive: its members are files of their own.
    ThinArchive,
    /// No bytes at all: a linker script that says nothing.
    Empty,
    /// No magic number: a linker script.
    Text,
    /// A format that lld knows and refuses (COFF, Mach-O, Wasm, AIX archives, ...), or, in the
    /// answers of [`crate::inputs`], raw data under `--format=binary`.
    Other,
}

impl Kind {
    /// Whether lld sends it through LTO.
    pub fn is_bitcode(self) -> bool {
        matches!(self, Kind::Bitcode | Kind::BitcodeWrapper | Kind::FatElf)
    }

    /// Whether it is an archive with members to look at.
    pub fn is_archive(self) -> bool {
        matches!(self, Kind::Archive | Kind::ThinArchive)
    }
}

/// Tells what a file is from `head`, its first [`HEAD_LEN`] bytes, or all if it has fewer.
pub fn kind_of(head: &[u8]) -> Kind {
    match head {
        [] => Kind::Empty,
        // identify_magic looks at nothing shorter.
        [_] | [_, _] | [_, _, _] => Kind::Text,
        [0x7f, b'E', b'L', b'F', ..] => elf(head),
        [b'B', b'C', 0xc0, 0xde, ..] => Kind::Bitcode,
        [0xde, 0xc0, 0x17, 0x0b, ..] => Kind::BitcodeWrapper,
        [b'!', ..] if head.starts_with(b"!<arch>\n") => Kind::Archive,
        [b'!', ..] if head.starts_with(b"!<thin>\n") => Kind::ThinArchive,
        _ if refused(head) => Kind::Other,
        _ => Kind::Text,
    }
}

fn elf(head: &[u8]) -> Kind {
    let (Some(&data), Some(&[a, b])) = (head.get(5), head.get(16..18)) else {
        return Kind::Text;
    };
    // EI_DATA is 2 for big endian, and anything else reads as little endian.
    let e_type = if data == 2 {
        u16::from_be_bytes([a, b])
    } else {
        u16::from_le_bytes([a, b])
    };
    match e_type {
        1 => Kind::ElfRelocatable,
        3 => Kind::ElfShared,
        _ => Kind::ElfOther,
    }
}

/// Formats of other systems, which lld refuses with "unknown file type". Of binary ones less is
/// checked than LLVM does: nothing that begins so is a valid script either.
fn refused(head: &[u8]) -> bool {
    const TEXTUAL: [&[u8]; 6] = [
        b"<bigaf>\n",
        b"Microsoft C/C++ MSF 7.00\r\n",
        b"MDMP",
        b"DXBC",
        b"--- !tapi",
        b"---\narchs:",
    ];
    if TEXTUAL.iter().any(|magic| head.starts_with(magic)) {
        return true;
    }
    match head {
        // COFF of unknown machine, bigobj, Windows resources, Wasm.
        [0x00, 0x00, ..] | [0x00, b'a', b's', b'm', ..] => true,
        // XCOFF, GOFF, offload bundles, CUDA.
        [0x01, 0xdf | 0xf7, ..] | [0x03, 0xf0, 0x00, ..] => true,
        [0x10, 0xff, 0x10, 0xad, ..] | [0x50, 0xed, 0x55, 0xba, ..] => true,
        // Mach-O, thin and universal.
        [0xfe, 0xed, 0xfa, 0xce | 0xcf, ..] | [0xce | 0xcf, 0xfa, 0xed, 0xfe, ..] => true,
        [0xca, 0xfe, 0xba, 0xbe | 0xbf, ..] => head.get(7).is_some_and(|&n| n < 43),
        // COFF by machine.
        [
            0xf0 | 0x83 | 0x84 | 0x66 | 0x50 | 0x4c | 0xc4,
            0x01 | 0x02,
            ..,
        ] => true,
        [0x90 | 0x68, 0x02, ..] | [0x64, 0x86 | 0xaa, ..] | [0x41, 0xa6, ..] => true,
        // A PE image behind an MS-DOS stub. Where the PE header lies beyond what was read, an offset
        // that is no text says enough.
        [b'M', b'Z', ..] => match head.get(0x3c..0x40) {
            Some(&[a, b, c, d]) => {
                let at = u32::from_le_bytes([a, b, c, d]) as usize;
                match head.get(at..) {
                    Some(pe) if pe.len() >= 4 => pe.starts_with(b"PE\0\0"),
                    _ => c == 0 && d == 0,
                }
            }
            _ => false,
        },
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn elf_head(data: u8, e_type: [u8; 2], len: usize) -> Vec<u8> {
        let mut head = vec![0u8; 64];
        head[..4].copy_from_slice(b"\x7fELF");
        head[5] = data;
        head[16..18].copy_from_slice(&e_type);
        head.truncate(len);
        head
    }

    #[test]
    fn bitcode_in_both_forms() {
        assert_eq!(kind_of(b"BC\xc0\xde"), Kind::Bitcode);
        assert_eq!(kind_of(b"BC\xc0\xde5\x14"), Kind::Bitcode);
        assert_eq!(kind_of(b"\xde\xc0\x17\x0b\0\0\0\0"), Kind::BitcodeWrapper);
        assert_eq!(kind_of(b"BC\xc0"), Kind::Text);
    }

    #[test]
    fn elf_by_type_and_byte_order() {
        assert_eq!(kind_of(&elf_head(1, [1, 0], 64)), Kind::ElfRelocatable);
        assert_eq!(kind_of(&elf_head(2, [0, 1], 64)), Kind::ElfRelocatable);
        assert_eq!(kind_of(&elf_head(1, [3, 0], 18)), Kind::ElfShared);
        assert_eq!(kind_of(&elf_head(2, [0, 3], 18)), Kind::ElfShared);
        assert_eq!(kind_of(&elf_head(1, [2, 0], 64)), Kind::ElfOther);
        assert_eq!(kind_of(&elf_head(1, [0, 1], 64)), Kind::ElfOther);
        assert_eq!(kind_of(&elf_head(1, [1, 0], 17)), Kind::Text);
    }

    #[test]
    fn archives_by_whole_magic() {
        assert_eq!(kind_of(b"!<arch>\n"), Kind::Archive);
        assert_eq!(kind_of(b"!<thin>\n//"), Kind::ThinArchive);
        assert_eq!(kind_of(b"!<arch> "), Kind::Text);
        assert_eq!(kind_of(b"<bigaf>\n"), Kind::Other);
    }

    #[test]
    fn what_has_no_magic_is_a_script() {
        assert_eq!(kind_of(b""), Kind::Empty);
        assert_eq!(kind_of(b"\x7fEL"), Kind::Text);
        assert_eq!(kind_of(b"/* GNU ld script"), Kind::Text);
        assert_eq!(kind_of(b"Input(x)"), Kind::Text);
        assert_eq!(kind_of(b"MZ = 1; INPUT(x)"), Kind::Text);
        assert_eq!(kind_of(b"\0asm\x01\0\0\0"), Kind::Other);
        assert_eq!(kind_of(b"d\x86\0\0"), Kind::Other);
    }

    #[test]
    fn every_short_head_has_an_answer() {
        for first in 0..=255u8 {
            for len in 0..=70 {
                for fill in [0u8, 1, 2, 0x86, 0xff] {
                    let mut head = vec![fill; len];
                    if let Some(byte) = head.first_mut() {
                        *byte = first;
                    }
                    kind_of(&head);
                }
            }
        }
    }
}
