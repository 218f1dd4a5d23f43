//! Writes bits: whole ranges of an existing stream as they are, and unabbreviated records.

use super::reader::{END_BLOCK, UNABBREV_RECORD};

/// A growing stream of bits, least significant first, as LLVM writes them.
#[derive(Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
    /// Bits in use of the last byte, 0 to 7; 0 when it is full or there is none.
    used: u32,
}

impl Writer {
    /// An empty stream with room for about `capacity` bytes.
    #[must_use]
    pub fn with_capacity(capacity: usize) -> Self {
        Self {
            bytes: Vec::with_capacity(capacity),
            used: 0,
        }
    }

    /// Position in bits.
    #[must_use]
    pub fn pos(&self) -> u64 {
        let whole = self.bytes.len() as u64 * 8;
        if self.used == 0 {
            whole
        } else {
            whole - 8 + u64::from(self.used)
        }
    }

    /// Appends the low `width` (0 to 64) bits of `value`.
    pub fn fixed(&mut self, value: u64, width: u32) {
        let mut value = if width >= 64 {
            value
        } else {
            value & ((1 << width) - 1)
        };
        let mut left = width;
        while left > 0 {
            if self.used == 0 {
                self.bytes.push(0);
            }
            let room = 8 - self.used;
            let n = room.min(left);
            if let Some(last) = self.bytes.last_mut() {
                *last |= ((value & ((1 << n) - 1)) << self.used) as u8;
            }
            value = if n >= 64 { 0 } else { value >> n };
            left -= n;
            self.used = (self.used + n) % 8;
        }
    }

    /// Appends a variable-width number in pieces of `width` bits.
    pub fn vbr(&mut self, mut value: u64, width: u32) {
        let high = 1 << (width - 1);
        while value >= high {
            self.fixed((value & (high - 1)) | high, width);
            value >>= width - 1;
        }
        self.fixed(value, width);
    }

    /// Fills up to a 32-bit word.
    pub fn align(&mut self) {
        let pad = self.pos().next_multiple_of(32) - self.pos();
        self.fixed(0, pad as u32);
    }

    /// Appends a record without an abbreviation, in a block whose ids are `id_width` wide.
    pub fn record(&mut self, id_width: u32, code: u64, ops: impl ExactSizeIterator<Item = u64>) {
        self.fixed(UNABBREV_RECORD, id_width);
        self.vbr(code, 6);
        self.vbr(ops.len() as u64, 6);
        for op in ops {
            self.vbr(op, 6);
        }
    }

    /// Ends a block whose ids are `id_width` wide.
    pub fn end_block(&mut self, id_width: u32) {
        self.fixed(END_BLOCK, id_width);
        self.align();
    }

    /// Appends bits `from..to` of `source` as they are; nothing where the range is not in it.
    pub fn copy(&mut self, source: &[u8], from: u64, to: u64) {
        let mut at = from;
        // Up to a byte boundary of the source, then bytes, then the rest.
        while at < to {
            let byte = source.get((at / 8) as usize).copied().unwrap_or(0);
            let shift = (at % 8) as u32;
            if shift == 0 && self.used == 0 && to - at >= 8 {
                let (a, b) = ((at / 8) as usize, (to / 8) as usize);
                self.bytes
                    .extend_from_slice(source.get(a..b).unwrap_or(&[]));
                at = b as u64 * 8;
                continue;
            }
            let n = u64::from(8 - shift).min(to - at) as u32;
            self.fixed(u64::from(byte >> shift), n);
            at += u64::from(n);
        }
    }

    /// Overwrites the aligned 32-bit word at bit `at`.
    pub fn patch_word(&mut self, at: u64, value: u32) {
        let i = (at / 8) as usize;
        if let Some(word) = self.bytes.get_mut(i..i + 4) {
            word.copy_from_slice(&value.to_le_bytes());
        }
    }

    /// The bytes; the last is filled with zero bits.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}
