//! Attributes of a module's functions.

use super::Malformed;
use super::reader::{BitstreamEntry, Reader};

/// PARAMATTR_GRP_CODE_ENTRY: group, what it is for, then each attribute.
const GROUP_ENTRY: u64 = 3;
/// A group for functions: `AttributeList::FunctionIndex`.
const FUNCTION: u64 = 0xffff_ffff;
/// The kind of an attribute that is a number alone; and ATTR_KIND_SANITIZE_MEMTAG.
const SANITIZE_MEMTAG: [u64; 2] = [0, 64];
/// The kind of an attribute that is a string with a value, each ended by a zero.
const KEY_AND_VALUE: u64 = 4;

/// What a module's functions have among their attributes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FunctionAttributes {
    /// Some have a CPU of their own but no target features: they take those of the machine that they are compiled for.
    pub cpu_without_features: bool,
    /// Some are to be built with memory tagging (`sanitize_memtag`).
    pub memory_tagging: bool,
}

impl FunctionAttributes {
    /// What either has.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            cpu_without_features: self.cpu_without_features || other.cpu_without_features,
            memory_tagging: self.memory_tagging || other.memory_tagging,
        }
    }

    /// Reads the PARAMATTR_GROUP_BLOCK that comes next (llvm/Bitcode/LLVMBitCodes.h;
    /// `ModuleBitcodeWriter::writeAttributeGroupTable`, llvm/lib/Bitcode/Writer/BitcodeWriter.cpp).
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        reader.enter()?;
        let mut found = Self::default();
        while let Some(entry) = reader.next_in_block()? {
            if entry != BitstreamEntry::Record(GROUP_ENTRY) {
                continue;
            }
            if let [_, FUNCTION, attributes @ ..] = reader.ops() {
                found.cpu_without_features |=
                    has_key(attributes, b"target-cpu") && !has_key(attributes, b"target-features");
                found.memory_tagging |= attributes.windows(2).any(|pair| pair == SANITIZE_MEMTAG);
            }
        }
        Ok(found)
    }
}

/// Whether a string attribute with a value is among the operands of a group.
fn has_key(attributes: &[u64], key: &[u8]) -> bool {
    attributes.windows(key.len() + 2).any(|w| {
        w.split_first().is_some_and(|(&kind, text)| {
            kind == KEY_AND_VALUE
                && text
                    .iter()
                    .copied()
                    .eq(key.iter().map(|&c| u64::from(c)).chain([0]))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs::bitcode::made_up::{Node, encode};

    /// What a module with such a group has.
    fn read(of: u64, attributes: &[u8]) -> FunctionAttributes {
        let attributes = attributes.iter().map(|&c| c.into());
        let group: Vec<u64> = [1, of].into_iter().chain(attributes).collect();
        let block = Node::block(10, vec![Node::record(GROUP_ENTRY, group)]);
        let bytes = encode(&[block]).expect("a stream");
        let mut reader = Reader::new(&bytes).expect("a stream");
        assert!(matches!(reader.next(), Ok(BitstreamEntry::Block(_))));
        FunctionAttributes::read(&mut reader).expect("groups")
    }

    #[test]
    fn attributes_are_found_in_groups_of_functions() {
        let none = FunctionAttributes::default();
        let cpu = FunctionAttributes {
            cpu_without_features: true,
            ..none
        };
        let tagged = FunctionAttributes {
            memory_tagging: true,
            ..none
        };
        assert_eq!(read(FUNCTION, b"\x00\x01\x04target-cpu\x00x\x00"), cpu);
        assert_eq!(read(FUNCTION, b"\x04target-cpus\x00x\x00"), none);
        let both = b"\x04target-cpu\x00x\x00\x04target-features\x00+y\x00";
        assert_eq!(read(FUNCTION, both), none);
        assert_eq!(read(FUNCTION, b"\x00\x12\x00\x40"), tagged);
        assert_eq!(read(FUNCTION, b"\x00\x41"), none);
        assert_eq!(read(0, b"\x00\x40"), none);
        assert_eq!(cpu.or(tagged).or(none), {
            FunctionAttributes {
                cpu_without_features: true,
                memory_tagging: true,
            }
        });
    }
}
