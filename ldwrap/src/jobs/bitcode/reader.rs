//! A cursor over a bitstream: blocks entered or skipped, records with their abbreviations undone.
//!
//! Positions are in bits from the start of the stream, since a splice happens at a bit.

use super::{Malformed, block};
use std::collections::HashMap;
use std::rc::Rc;

/// Deeper nesting than LLVM ever writes (module, function, constants, metadata ...).
const MAX_DEPTH: usize = 32;
/// More operands than one abbreviation of LLVM's ever has. Each may be a literal, which takes no bits
/// in the records that use it.
const MAX_ABBREV_OPS: u64 = 64;
/// More abbreviations than LLVM ever gives a kind of block in BLOCKINFO. Each block of that kind
/// begins with a copy of their list.
const MAX_INFO_ABBREVS: usize = 256;
/// Widest field that LLVM reads (`MaxChunkSize`, llvm/Bitstream/BitstreamReader.h).
const MAX_WIDTH: u64 = 32;

/// Abbreviation id of END_BLOCK.
pub const END_BLOCK: u64 = 0;
const ENTER_SUBBLOCK: u64 = 1;
const DEFINE_ABBREV: u64 = 2;
/// Abbreviation id of a record that has none.
pub const UNABBREV_RECORD: u64 = 3;

#[derive(Debug, Clone, Copy)]
enum Op {
    Literal(u64),
    Fixed(u32),
    Vbr(u32),
    Array,
    Char6,
    Blob,
}

type Abbrev = Vec<Op>;

/// A position in a stream, and the primitive reads.
#[derive(Debug, Clone)]
struct Cursor<'a> {
    data: &'a [u8],
    pos: u64,
}

impl<'a> Cursor<'a> {
    fn len(&self) -> u64 {
        self.data.len() as u64 * 8
    }

    fn remaining(&self) -> u64 {
        self.len().saturating_sub(self.pos)
    }

    fn fixed(&mut self, width: u32) -> Result<u64, Malformed> {
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

    fn vbr(&mut self, width: u32) -> Result<u64, Malformed> {
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
    fn vbr32(&mut self, width: u32) -> Result<u64, Malformed> {
        only_32_bits(self.vbr(width)?)
    }

    fn align(&mut self) {
        self.pos = self.pos.next_multiple_of(32);
    }
}

fn only_32_bits(value: u64) -> Result<u64, Malformed> {
    match u32::try_from(value) {
        Ok(_) => Ok(value),
        Err(_) => Err(Malformed::Shape("a number of more than 32 bits")),
    }
}

/// Where a block is, for those who change it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block {
    /// Its number, see [`block`].
    pub id: u64,
    /// Width of abbreviation ids inside.
    pub width: u32,
    /// Bit position of its length field (one 32-bit word).
    pub length_at: u64,
    /// First bit of its body.
    pub start: u64,
    /// First bit behind it, as its length field says.
    pub after: u64,
}

#[derive(Debug)]
struct Scope {
    block: Block,
    abbrevs: Vec<Rc<Abbrev>>,
}

/// What comes next in the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// A block begins: [`Reader::enter`] it or [`Reader::skip`] it.
    Block(Block),
    /// A record with this code; its operands are in [`Reader::ops`], its blob in [`Reader::blob`].
    Record(u64),
    /// The innermost entered block ends; the bit where END_BLOCK begins.
    End(u64),
    /// Nothing is left at top level.
    Eof,
}

/// Reads a stream from its first block on.
#[derive(Debug)]
pub struct Reader<'a> {
    cursor: Cursor<'a>,
    stack: Vec<Scope>,
    info: HashMap<u64, Vec<Rc<Abbrev>>>,
    pending: Option<Block>,
    ops: Vec<u64>,
    blob: Option<&'a [u8]>,
}

impl<'a> Reader<'a> {
    /// Begins behind the magic of `data` (without a wrapper, see [`super::unwrap`]).
    pub fn new(data: &'a [u8]) -> Result<Self, Malformed> {
        let mut cursor = Cursor { data, pos: 0 };
        if cursor.fixed(32)? != u64::from(super::MAGIC) {
            return Err(Malformed::Magic);
        }
        Ok(Self {
            cursor,
            stack: Vec::new(),
            info: HashMap::new(),
            pending: None,
            ops: Vec::new(),
            blob: None,
        })
    }

    /// Operands of the last record (its code not among them).
    #[must_use]
    pub fn ops(&self) -> &[u64] {
        &self.ops
    }

    /// The blob of the last record, if it has one.
    #[must_use]
    pub fn blob(&self) -> Option<&'a [u8]> {
        self.blob
    }

    /// The blocks that are open, outermost first.
    pub fn open_blocks(&self) -> impl Iterator<Item = Block> + '_ {
        self.stack.iter().map(|s| s.block)
    }

    /// Goes into the block that [`Self::next`] just gave.
    pub fn enter(&mut self) -> Result<(), Malformed> {
        let block = self
            .pending
            .take()
            .ok_or(Malformed::Shape("no block to enter"))?;
        if self.stack.len() >= MAX_DEPTH {
            return Err(Malformed::Shape("blocks are nested too deeply"));
        }
        // What BLOCKINFO says holds for the rest of its module.
        if self.stack.is_empty() {
            self.info.clear();
        }
        let abbrevs = self.info.get(&block.id).cloned().unwrap_or_default();
        self.stack.push(Scope { block, abbrevs });
        Ok(())
    }

    /// Goes past the block that [`Self::next`] just gave.
    pub fn skip(&mut self) -> Result<(), Malformed> {
        let block = self
            .pending
            .take()
            .ok_or(Malformed::Shape("no block to skip"))?;
        self.cursor.pos = block.after;
        Ok(())
    }

    /// Goes behind the innermost block that was entered, whatever is left of it.
    pub fn leave(&mut self) -> Result<(), Malformed> {
        let scope = self.stack.pop();
        let scope = scope.ok_or(Malformed::Shape("no block to leave"))?;
        self.pending = None;
        self.cursor.pos = scope.block.after;
        Ok(())
    }

    /// The next entry. A block that was neither entered nor skipped is skipped; BLOCKINFO and
    /// abbreviation definitions are taken in silently.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Entry, Malformed> {
        if self.pending.is_some() {
            self.skip()?;
        }
        loop {
            let width = match self.stack.last() {
                Some(s) => s.block.width,
                None => {
                    // At top level blocks are word aligned; what is shorter than a block is padding.
                    if self.cursor.remaining() < 64 {
                        return Ok(Entry::Eof);
                    }
                    2
                }
            };
            let at = self.cursor.pos;
            let id = self.cursor.fixed(width)?;
            match id {
                END_BLOCK => {
                    let scope = self
                        .stack
                        .pop()
                        .ok_or(Malformed::Shape("a block ends at top level"))?;
                    self.cursor.align();
                    if self.cursor.pos != scope.block.after {
                        return Err(Malformed::Shape("a block's length is wrong"));
                    }
                    return Ok(Entry::End(at));
                }
                ENTER_SUBBLOCK => {
                    let id = self.cursor.vbr32(8)?;
                    let width = self.cursor.vbr32(4)? as u32;
                    self.cursor.align();
                    let length_at = self.cursor.pos;
                    let words = self.cursor.fixed(32)?;
                    let start = self.cursor.pos;
                    let after = start + words * 32;
                    let outer = self
                        .stack
                        .last()
                        .map_or(self.cursor.len(), |s| s.block.after);
                    if after > outer {
                        return Err(Malformed::Truncated);
                    }
                    if !(2..=32).contains(&width) {
                        return Err(Malformed::Shape("a block with an odd abbreviation width"));
                    }
                    let found = Block {
                        id,
                        width,
                        length_at,
                        start,
                        after,
                    };
                    if id == block::BLOCKINFO {
                        // Elsewhere LLVM does not look for it, and a splice that writes a block
                        // anew would lose what is in there.
                        if self.stack.len() != 1 {
                            return Err(Malformed::Shape("BLOCKINFO in an unknown place"));
                        }
                        self.block_info(found)?;
                        continue;
                    }
                    self.pending = Some(found);
                    return Ok(Entry::Block(found));
                }
                DEFINE_ABBREV => {
                    let abbrev = Rc::new(self.define_abbrev()?);
                    match self.stack.last_mut() {
                        Some(s) => s.abbrevs.push(abbrev),
                        None => return Err(Malformed::Shape("an abbreviation at top level")),
                    }
                }
                UNABBREV_RECORD if self.stack.is_empty() => {
                    return Err(Malformed::Shape("a record at top level"));
                }
                UNABBREV_RECORD => return self.unabbreviated().map(Entry::Record),
                _ => {
                    let abbrev = (id as usize)
                        .checked_sub(4)
                        .and_then(|i| self.stack.last()?.abbrevs.get(i).cloned())
                        .ok_or(Malformed::Shape("an abbreviation that is not defined"))?;
                    return self.abbreviated(&abbrev).map(Entry::Record);
                }
            }
        }
    }

    fn block_info(&mut self, block: Block) -> Result<(), Malformed> {
        let mut target = None;
        loop {
            match self.cursor.fixed(block.width)? {
                END_BLOCK => {
                    self.cursor.align();
                    return if self.cursor.pos == block.after {
                        Ok(())
                    } else {
                        Err(Malformed::Shape("a block's length is wrong"))
                    };
                }
                DEFINE_ABBREV => {
                    let abbrev = Rc::new(self.define_abbrev()?);
                    let id = target.ok_or(Malformed::Shape("BLOCKINFO without SETBID"))?;
                    let abbrevs = self.info.entry(id).or_default();
                    if abbrevs.len() >= MAX_INFO_ABBREVS {
                        return Err(Malformed::Shape("too many abbreviations"));
                    }
                    abbrevs.push(abbrev);
                }
                UNABBREV_RECORD => {
                    if self.unabbreviated()? == 1 {
                        target = self.ops.first().copied();
                    }
                }
                _ => return Err(Malformed::Shape("BLOCKINFO of an unknown form")),
            }
        }
    }

    fn define_abbrev(&mut self) -> Result<Abbrev, Malformed> {
        let n = self.cursor.vbr(5)?;
        if n == 0 || n > MAX_ABBREV_OPS {
            return Err(Malformed::Shape(
                "an abbreviation of no or too many operands",
            ));
        }
        let mut ops = Vec::with_capacity(n as usize);
        for _ in 0..n {
            ops.push(if self.cursor.fixed(1)? == 1 {
                Op::Literal(self.cursor.vbr(8)?)
            } else {
                match self.cursor.fixed(3)? {
                    1 => Op::Fixed(self.width()?),
                    2 => Op::Vbr(self.width()?),
                    3 => Op::Array,
                    4 => Op::Char6,
                    5 => Op::Blob,
                    _ => return Err(Malformed::Shape("an abbreviation of an unknown encoding")),
                }
            });
        }
        // The code first; a blob last; an array last but one, before what its elements are. These
        // take up bits: a length alone must not make a record of any size.
        let shape = match ops.as_slice() {
            [
                scalars @ ..,
                Op::Array,
                Op::Fixed(1..) | Op::Vbr(1..) | Op::Char6,
            ]
            | [scalars @ .., Op::Blob]
            | scalars => scalars,
        };
        if matches!(ops.first(), Some(Op::Array | Op::Blob))
            || shape.iter().any(|op| matches!(op, Op::Array | Op::Blob))
        {
            return Err(Malformed::Shape("an abbreviation of an unknown form"));
        }
        Ok(ops)
    }

    fn width(&mut self) -> Result<u32, Malformed> {
        match self.cursor.vbr(5)? {
            width @ 0..=MAX_WIDTH => Ok(width as u32),
            _ => Err(Malformed::Shape("a field is wider than 32 bits")),
        }
    }

    fn unabbreviated(&mut self) -> Result<u64, Malformed> {
        self.blob = None;
        self.ops.clear();
        let code = self.cursor.vbr32(6)?;
        let n = self.cursor.vbr32(6)?;
        if n > self.cursor.remaining() / 6 {
            return Err(Malformed::Truncated);
        }
        self.ops.reserve(n as usize);
        for _ in 0..n {
            let op = self.cursor.vbr(6)?;
            self.ops.push(op);
        }
        Ok(code)
    }

    fn scalar(&mut self, op: Op) -> Result<u64, Malformed> {
        match op {
            Op::Literal(v) => Ok(v),
            Op::Fixed(w) => self.cursor.fixed(w),
            Op::Vbr(w) => self.cursor.vbr(w),
            Op::Char6 => {
                const CHARS: &[u8; 64] =
                    b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._";
                Ok(u64::from(CHARS[self.cursor.fixed(6)? as usize & 63]))
            }
            Op::Array | Op::Blob => Err(Malformed::Shape("an abbreviation of an unknown form")),
        }
    }

    fn abbreviated(&mut self, abbrev: &Abbrev) -> Result<u64, Malformed> {
        self.blob = None;
        self.ops.clear();
        let mut i = 0;
        while let Some(&op) = abbrev.get(i) {
            match op {
                Op::Array => {
                    let n = self.cursor.vbr32(6)?;
                    if n > self.cursor.remaining() {
                        return Err(Malformed::Truncated);
                    }
                    let element = *abbrev
                        .get(i + 1)
                        .ok_or(Malformed::Shape("an array of nothing"))?;
                    for _ in 0..n {
                        let v = self.scalar(element)?;
                        self.ops.push(v);
                    }
                    i += 2;
                }
                Op::Blob => {
                    let n = self.cursor.vbr32(6)?;
                    self.cursor.align();
                    let from = self.cursor.pos / 8;
                    let to = from.checked_add(n).ok_or(Malformed::Truncated)?;
                    let blob = self.cursor.data.get(from as usize..to as usize);
                    self.blob = Some(blob.ok_or(Malformed::Truncated)?);
                    self.cursor.pos = to * 8;
                    self.cursor.align();
                    i += 1;
                }
                _ => {
                    let v = self.scalar(op)?;
                    self.ops.push(v);
                    i += 1;
                }
            }
        }
        if self.ops.is_empty() {
            return Err(Malformed::Shape("a record without a code"));
        }
        only_32_bits(self.ops.remove(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs::bitcode::MAGIC;
    use crate::jobs::bitcode::writer::Writer;

    /// Writes a block whose ids are 4 bits wide, in one whose are `outer`.
    fn sub(w: &mut Writer, outer: u32, id: u64, inside: impl FnOnce(&mut Writer)) {
        w.fixed(ENTER_SUBBLOCK, outer);
        w.vbr(id, 8);
        w.vbr(4, 4);
        w.align();
        let length_at = w.pos();
        w.fixed(0, 32);
        let start = w.pos();
        inside(w);
        w.end_block(4);
        w.patch_word(length_at, ((w.pos() - start) / 32) as u32);
    }

    fn stream(inside: impl FnOnce(&mut Writer)) -> Vec<u8> {
        let mut w = Writer::default();
        w.fixed(u64::from(MAGIC), 32);
        inside(&mut w);
        w.into_bytes()
    }

    /// DEFINE_ABBREV: each operand the value of a literal, or an encoding and perhaps its width.
    fn abbrev(w: &mut Writer, ops: &[Result<u64, (u64, Option<u64>)>]) {
        w.fixed(DEFINE_ABBREV, 4);
        w.vbr(ops.len() as u64, 5);
        for op in ops {
            match *op {
                Ok(literal) => {
                    w.fixed(1, 1);
                    w.vbr(literal, 8);
                }
                Err((encoding, width)) => {
                    w.fixed(encoding << 1, 4);
                    if let Some(width) = width {
                        w.vbr(width, 5);
                    }
                }
            }
        }
    }

    const ARRAY: Result<u64, (u64, Option<u64>)> = Err((3, None));
    const BLOB: Result<u64, (u64, Option<u64>)> = Err((5, None));

    fn fixed(width: u64) -> Result<u64, (u64, Option<u64>)> {
        Err((1, Some(width)))
    }

    /// Every record of the stream, all blocks entered.
    fn records(bytes: &[u8]) -> Result<Vec<(u64, Vec<u64>)>, Malformed> {
        let mut reader = Reader::new(bytes)?;
        let mut records = Vec::new();
        loop {
            match reader.next()? {
                Entry::Block(_) => reader.enter()?,
                Entry::Record(code) => records.push((code, reader.ops().to_vec())),
                Entry::End(_) => {}
                Entry::Eof => return Ok(records),
            }
        }
    }

    #[test]
    fn abbreviations_as_llvm_reads_them() {
        let with = |ops: &[_]| {
            records(&stream(|w| {
                sub(w, 2, block::MODULE, |w| {
                    abbrev(w, ops);
                    // A record of it: two elements of an array, of whatever width up to 8.
                    w.fixed(4, 4);
                    w.vbr(2, 6);
                    w.fixed(0x0201, 16);
                });
            }))
        };
        assert_eq!(with(&[Ok(7), ARRAY, fixed(8)]), Ok(vec![(7, vec![1, 2])]));
        // Elements that take no bits would make records of any size from a length alone.
        for element in [Ok(0), fixed(0), Err((2, Some(0))), ARRAY, BLOB] {
            assert!(with(&[Ok(7), ARRAY, element]).is_err(), "{element:?}");
        }
        for ops in [
            &[][..],
            &[ARRAY, fixed(8)],
            &[BLOB],
            &[Ok(7), ARRAY],
            &[Ok(7), ARRAY, fixed(8), fixed(8)],
            &[Ok(7), BLOB, Ok(1)],
            &[Ok(7), ARRAY, fixed(33)],
            &[Ok(7), ARRAY, fixed((1 << 32) + 8)],
            &[Ok(1 << 32), ARRAY, fixed(8)],
            &[Ok(7); MAX_ABBREV_OPS as usize + 1],
        ] {
            assert!(with(ops).is_err(), "{ops:?}");
        }
    }

    #[test]
    fn block_info_is_its_modules() {
        let module = |w: &mut Writer, literal: u64| {
            sub(w, 2, block::MODULE, |w| {
                sub(w, 4, block::BLOCKINFO, |w| {
                    w.record(4, 1, [11].into_iter());
                    abbrev(w, &[Ok(literal)]);
                });
                sub(w, 4, 11, |w| {
                    abbrev(w, &[Ok(literal + 1)]);
                    w.fixed(4, 4);
                    w.fixed(5, 4);
                });
            });
        };
        let two = stream(|w| {
            module(w, 1);
            module(w, 5);
        });
        let codes: Vec<u64> = records(&two).unwrap().iter().map(|r| r.0).collect();
        assert_eq!(codes, [1, 2, 5, 6]);

        let many = |n: usize| {
            records(&stream(|w| {
                sub(w, 2, block::MODULE, |w| {
                    sub(w, 4, block::BLOCKINFO, |w| {
                        w.record(4, 1, [11].into_iter());
                        (0..n).for_each(|_| abbrev(w, &[Ok(1)]));
                    });
                });
            }))
        };
        assert_eq!(many(MAX_INFO_ABBREVS), Ok(Vec::new()));
        assert!(many(MAX_INFO_ABBREVS + 1).is_err());

        let nothing = |_: &mut Writer| {};
        let top = stream(|w| sub(w, 2, block::BLOCKINFO, nothing));
        assert!(records(&top).is_err());
        let deep = stream(|w| {
            sub(w, 2, block::MODULE, |w| {
                sub(w, 4, block::MODULE_STRTAB, |w| {
                    sub(w, 4, block::BLOCKINFO, nothing);
                });
            });
        });
        assert!(records(&deep).is_err());
    }

    #[test]
    fn numbers_that_llvm_would_cut_short() {
        let code = |code| {
            records(&stream(|w| {
                sub(w, 2, block::MODULE, |w| {
                    w.record(4, code, [u64::MAX].into_iter())
                });
            }))
        };
        let max = u64::from(u32::MAX);
        assert_eq!(code(max), Ok(vec![(max, vec![u64::MAX])]));
        assert!(code(max + 1).is_err());
        let id = |id| records(&stream(|w| sub(w, 2, id, |_| {})));
        assert_eq!(id(max), Ok(Vec::new()));
        assert!(id((1 << 32) + block::MODULE).is_err());
        // 13 pieces of 5 bits, the topmost bit beyond 64.
        let bytes = stream(|w| {
            sub(w, 2, block::MODULE, |w| {
                w.fixed(UNABBREV_RECORD, 4);
                w.vbr(1, 6);
                w.vbr(1, 6);
                (0..12).for_each(|_| w.fixed(0b11_1111, 6));
                w.fixed(0b01_1111, 6);
            });
        });
        assert!(records(&bytes).is_err());
    }

    #[test]
    fn no_records_at_top_level() {
        let bytes = stream(|w| {
            w.record(2, 1, [1, 2, 3, 4, 5, 6, 7, 8, 9].into_iter());
            w.align();
        });
        assert!(records(&bytes).is_err());
    }
}
