//! By what an object that comes from elsewhere is told from other files. No proof that it is the right one, but an
//! object of another module, for which a server may have a right digest, is told apart, and so is an empty one, as a
//! distributor writes it that has not understood its jobs.

use crate::jobs::bitcode::guid;
use crate::jobs::bitcode::shard::Definition;
use object::elf::SHF_ALLOC;
use object::{Architecture, Object, ObjectKind, ObjectSection, ObjectSymbol, SectionFlags};
use std::ffi::OsStr;

/// What the object of a module must have.
#[derive(Debug, Clone, Default)]
pub struct ExpectedObject {
    /// GUIDs of what the module defines and others can see.
    pub defines: Vec<u64>,
    /// How it defines something at least.
    pub definition: Definition,
    /// The machine that it is for, if that is known ([`architecture`]).
    pub architecture: Option<Architecture>,
}

impl ExpectedObject {
    /// Whether these bytes can be the object: a relocatable file for the machine that defines something as strongly as
    /// the module does, and if any strong symbols have the names that the module gives them, then one of the module's.
    #[must_use]
    pub fn matches(&self, object: &[u8]) -> bool {
        let Ok(file) = object::File::parse(object) else {
            return false;
        };
        // Weak ones may be any module's, and promoted statics are called `NAME.llvm.HASH`.
        let mut names = file
            .symbols()
            .filter(|s| s.is_definition() && s.is_global() && !s.is_weak())
            .filter_map(|s| s.name_bytes().ok())
            .filter(|name| !name.windows(6).any(|part| part == b".llvm."))
            .peekable();
        file.kind() == ObjectKind::Relocatable
            && self.architecture.is_none_or(|a| a == file.architecture())
            && definition(&file) >= self.definition
            && (names.peek().is_none() || names.any(|name| self.is_defined(name)))
    }

    /// Whether the module defines what its object calls so. With control flow integrity, `f` is an entry of a jump table
    /// elsewhere, and the function itself is called `f.cfi` (LowerTypeTestsModule::importFunction,
    /// llvm/lib/Transforms/IPO/LowerTypeTests.cpp).
    fn is_defined(&self, name: &[u8]) -> bool {
        let in_module = name.strip_suffix(b".cfi").unwrap_or(name);
        [name, in_module]
            .iter()
            .any(|name| self.defines.contains(&guid(name)))
    }
}

/// How an object defines what it defines most strongly.
fn definition(file: &object::File<'_>) -> Definition {
    let allocated = |flags| matches!(flags, SectionFlags::Elf { sh_flags } if sh_flags & u64::from(SHF_ALLOC) != 0);
    let symbols = file
        .symbols()
        .filter(|s| s.is_definition() && s.is_global());
    let strongest = symbols.map(|s| match s.is_weak() {
        true => Definition::Weak,
        false => Definition::Strong,
    });
    strongest.max().unwrap_or_else(|| {
        let mut sections = file.sections();
        match sections.any(|s| s.size() > 0 && allocated(s.flags())) {
            true => Definition::Local,
            false => Definition::None,
        }
    })
}

/// The machine of a target triple: `None` if it is not one of the usual ones, or of an ABI with another class of ELF files.
#[must_use]
pub fn architecture(triple: &OsStr) -> Option<Architecture> {
    let triple = triple.to_str()?;
    if triple.ends_with("x32") || triple.ends_with("ilp32") {
        return None;
    }
    match triple.split('-').next()? {
        "x86_64" => Some(Architecture::X86_64),
        "i386" | "i486" | "i586" | "i686" => Some(Architecture::I386),
        "aarch64" => Some(Architecture::Aarch64),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_module() {
        let expected = ExpectedObject {
            defines: vec![guid(b"f"), guid(b"real.cfi")],
            ..Default::default()
        };
        for (name, is_defined) in [
            ("f", true),
            ("f.cfi", true),
            ("real.cfi", true),
            ("real", false),
            ("f.cfi.cfi", false),
            (".cfi", false),
        ] {
            assert_eq!(expected.is_defined(name.as_bytes()), is_defined, "{name}");
        }
    }

    #[test]
    fn machines_of_triples() {
        for (triple, machine) in [
            ("x86_64-pc-linux-gnu", Some(Architecture::X86_64)),
            ("x86_64-pc-linux-gnux32", None),
            ("i686-linux-gnu", Some(Architecture::I386)),
            ("aarch64-unknown-linux-gnu", Some(Architecture::Aarch64)),
            ("aarch64-unknown-linux-gnu_ilp32", None),
            ("riscv64-unknown-elf", None),
            ("", None),
        ] {
            assert_eq!(architecture(OsStr::new(triple)), machine, "{triple}");
        }
    }
}
