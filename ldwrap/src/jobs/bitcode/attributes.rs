//! Attributes of a module's functions.

use super::reader::{BitstreamEntry, Reader};
use super::{Malformed, block, unwrap};

/// Whether a module has functions with a CPU of their own but no target features: a group of function
/// attributes with the one and without the other (PARAMATTR_GROUP_BLOCK of
/// llvm/Bitcode/LLVMBitCodes.h: group, what it is for, then each attribute; strings end in zero).
pub fn has_cpu_without_features(bitcode: &[u8]) -> Result<bool, Malformed> {
    const PARAMATTR_GROUP_BLOCK: u64 = 10;
    const GROUP_ENTRY: u64 = 3;
    const FUNCTION: u64 = 0xffff_ffff;
    let mut reader = Reader::new(unwrap(bitcode)?)?;
    let mut open = false;
    // In MODULE_BLOCK, and in its PARAMATTR_GROUP_BLOCK.
    let mut depth = 0;
    loop {
        match reader.next()? {
            BitstreamEntry::Block(b)
                if (depth == 0 && b.id == block::MODULE)
                    || (depth == 1 && b.id == PARAMATTR_GROUP_BLOCK) =>
            {
                reader.enter()?;
                depth += 1;
            }
            BitstreamEntry::Record(GROUP_ENTRY) if depth == 2 => {
                if let [_, FUNCTION, attributes @ ..] = reader.ops() {
                    open |= has_key(attributes, b"target-cpu")
                        && !has_key(attributes, b"target-features");
                }
            }
            BitstreamEntry::End(_) => depth -= 1,
            BitstreamEntry::Eof => return Ok(open),
            _ => {}
        }
    }
}

/// Whether a string attribute with a value is among the operands of a group.
fn has_key(attributes: &[u64], key: &[u8]) -> bool {
    const KEY_AND_VALUE: u64 = 4;
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

    #[test]
    fn keys_are_found_in_groups() {
        assert!(has_cpu_without_features(b"").is_err());
        assert!(has_cpu_without_features(b"BC\xc0\xde").is_ok_and(|open| !open));
        let group = |text: &[u8]| -> Vec<u64> { text.iter().map(|&c| c.into()).collect() };
        assert!(has_key(
            &group(b"\x00\x01\x04target-cpu\x00x\x00"),
            b"target-cpu"
        ));
        assert!(!has_key(&group(b"\x04target-cpus\x00x\x00"), b"target-cpu"));
    }
}
