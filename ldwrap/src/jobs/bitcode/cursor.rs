//! A position in a bitstream, and the primitive reads there.

use super::Malformed;

/// A position in a stream, and the primitive reads.
#[derive(Debug, Clone)]
pub(super) struct Cursor<'a> {
    pub(super) data: &'a [u8],
    /// In bits from the start.
    pub(super) pos: u64,
}

impl<'a> Cursor<'a> {
    /// In bits.
    pub(super) fn len(&self) -> u64 {
        self.data.len() as u64 * 8
    }

    /// How many bits are left.
    pub(super) fn remaining(&self) -> u64 {
        self.len().saturating_sub(self.pos)
    }

    /// Goes past so many bits.
    pub(super) fn skip(&mut self, bits: u64) -> Result<(), Malformed> {
        if bits > self.remaining() {
            return Err(Malformed::Truncated);
        }
        self.pos += bits;
        Ok(())
    }

    /// A number of `width` bits, up to 64.
    pub(super) fn fixed(&mut self, width: u32) -> Result<u64, Malformed> {
        if width == 0 {
            return Ok(0);
        }
        if width > 64 {
            return Err(Malformed::Shape("a field is wider than 64 bits"));
        }
        if u64::from(width) > self.remaining() {
            return Err(Malformed::Truncated);
        }
        let byte = (self.pos / 8) as usize;
        let shift = (self.pos % 8) as u32;
        self.pos += u64::from(width);
        let rest = self.data.get(byte..).ok_or(Malformed::Truncated)?;
        let value = if let (Some(first), true) = (rest.first_chunk::<8>(), shift + width <= 64) {
            u64::from_le_bytes(*first) >> shift
        } else {
            let mut buf = [0; 16];
            let n = rest.len().min(16);
            buf[..n].copy_from_slice(&rest[..n]);
            (u128::from_le_bytes(buf) >> shift) as u64
        };
        Ok(if width == 64 {
            value
        } else {
            value & ((1 << width) - 1)
        })
    }

    /// A number of pieces of `width` bits, each with a bit that tells whether another follows.
    pub(super) fn vbr(&mut self, width: u32) -> Result<u64, Malformed> {
        if width == 0 {
            return Ok(0);
        }
        if !(2..=32).contains(&width) {
            return Err(Malformed::Shape("a variable-width field of an odd width"));
        }
        let high = 1u64 << (width - 1);
        let mut value = 0u64;
        let mut shift = 0;
        loop {
            let piece = self.fixed(width)?;
            let bits = piece & (high - 1);
            if shift >= 64 || bits << shift >> shift != bits {
                return Err(Malformed::Shape("a number of more than 64 bits"));
            }
            value |= bits << shift;
            if piece & high == 0 {
                return Ok(value);
            }
            shift += width - 1;
        }
    }

    /// A number that LLVM reads as 32 bits.
    pub(super) fn vbr32(&mut self, width: u32) -> Result<u64, Malformed> {
        only_32_bits(self.vbr(width)?)
    }

    /// Goes to the next 32-bit word.
    pub(super) fn align(&mut self) {
        self.pos = self.pos.next_multiple_of(32);
    }
}

pub(super) fn only_32_bits(value: u64) -> Result<u64, Malformed> {
    match u32::try_from(value) {
        Ok(_) => Ok(value),
        Err(_) => Err(Malformed::Shape("a number of more than 32 bits")),
    }
}
