//! LLVM bitstreams: enough reading to know what a module defines, and enough writing to change a
//! ThinLTO shard in place.
//!
//! Why our own reader rather than a crate's: a shard is changed by a splice, which needs the exact
//! bit at which a block ends and the position of each length field above it; no crate gives those,
//! and none writes the format. The format is LLVM's `docs/BitCodeFormat.rst`; block and record
//! numbers are those of `llvm/Bitcode/LLVMBitCodes.h`, unchanged from LLVM 14 to 22.
//!
//! Every input here is hostile: nothing is indexed unchecked, nesting and counts are bounded, and a
//! stream of unknown shape is an error, never a guess.

mod assembly;
pub mod attributes;
pub mod canonical;
mod cursor;
#[cfg(any(test, feature = "test-support"))]
pub mod made_up;
pub mod module;
pub mod reader;
pub mod shard;
pub mod writer;

use thiserror::Error;

/// `BC C0 DE`, read as a little-endian word.
pub const MAGIC: u32 = 0xdec0_4342;
/// The wrapper's magic, `DE C0 17 0B`.
pub const WRAPPER_MAGIC: u32 = 0x0b17_c0de;

/// Block numbers that we look into.
pub mod block {
    /// Abbreviations for other blocks.
    pub const BLOCKINFO: u64 = 0;
    /// One module.
    pub const MODULE: u64 = 8;
    /// Groups of attributes.
    pub const PARAMATTR_GROUP: u64 = 10;
    /// Constants, of a module or a function.
    pub const CONSTANTS: u64 = 11;
    /// A function's body.
    pub const FUNCTION: u64 = 12;
    /// Module paths (and hashes) of a combined index.
    pub const MODULE_STRTAB: u64 = 19;
    /// ThinLTO summaries.
    pub const GLOBALVAL_SUMMARY: u64 = 20;
    /// Symbol names.
    pub const STRTAB: u64 = 23;
    /// Summaries of a module that takes part as regular LTO.
    pub const FULL_LTO_GLOBALVAL_SUMMARY: u64 = 24;
}

/// What is wrong with a bitstream.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Malformed {
    /// The stream ends inside a value or block.
    #[error("it ends too early")]
    Truncated,
    /// It does not begin with the bitcode magic.
    #[error("it is not bitcode")]
    Magic,
    /// Something that LLVM 14 to 22 do not write.
    #[error("{0}")]
    Shape(&'static str),
}

/// Strips the wrapper (`-fembed-bitcode` on Darwin, and some archives) from a module's bytes.
pub fn unwrap(bytes: &[u8]) -> Result<&[u8], Malformed> {
    let word = |at: usize| -> Result<u32, Malformed> {
        let b = bytes.get(at..at + 4).ok_or(Malformed::Truncated)?;
        Ok(u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
    };
    match word(0)? {
        MAGIC => Ok(bytes),
        WRAPPER_MAGIC => {
            let (offset, size) = (word(8)? as usize, word(12)? as usize);
            let end = offset.checked_add(size).ok_or(Malformed::Truncated)?;
            bytes.get(offset..end).ok_or(Malformed::Truncated)
        }
        _ => Err(Malformed::Magic),
    }
}

/// A symbol's GUID: the first eight bytes of the MD5 of its name, little endian (`GlobalValue::getGUID`,
/// docs/lld.md, "Locality of declarations"). A leading `\1` says that the name is not to be mangled and is
/// no part of it (`GlobalValue::dropLLVMManglingEscape`).
#[must_use]
pub fn guid(name: &[u8]) -> u64 {
    use md5::Digest;
    let name = name.strip_prefix(&[1]).unwrap_or(name);
    let digest = md5::Md5::digest(name);
    let mut first = [0; 8];
    first.copy_from_slice(&digest[..8]);
    u64::from_le_bytes(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guid_of_main_is_llvms() {
        // `llvm-dis` of any index that has main: ^1 = gv: (name: "main") ; guid = 15822663052811949562
        assert_eq!(guid(b"main"), 15_822_663_052_811_949_562);
        assert_eq!(guid(b"\x01main"), guid(b"main"));
    }

    #[test]
    fn wrapper_bounds_are_checked() {
        assert_eq!(unwrap(b"BC"), Err(Malformed::Truncated));
        assert_eq!(unwrap(b"\x7fELF"), Err(Malformed::Magic));
        let mut w = Vec::new();
        for x in [WRAPPER_MAGIC, 0, 20, 4, 7] {
            w.extend_from_slice(&x.to_le_bytes());
        }
        assert_eq!(unwrap(&w), Err(Malformed::Truncated));
        w.extend_from_slice(&MAGIC.to_le_bytes());
        assert_eq!(unwrap(&w).unwrap(), &MAGIC.to_le_bytes());
    }
}
