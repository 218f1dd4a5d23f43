//! A cursor over a bitstream: blocks entered or skipped, records with their abbreviations undone.
//!
//! Positions are in bits from the start of the stream, since a splice happens at a bit.

use super::cursor::{Cursor, only_32_bits};
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
/// For how many operands memory is taken before they are read.
const MAX_RESERVED: u64 = 1 << 12;
/// Widest field that LLVM reads (`MaxChunkSize`, llvm/Bitstream/BitstreamReader.h).
const MAX_WIDTH: u64 = 32;

/// Abbreviation id of END_BLOCK.
pub const END_BLOCK: u64 = 0;
/// Abbreviation id of ENTER_SUBBLOCK.
pub const ENTER_SUBBLOCK: u64 = 1;
/// Abbreviation id of DEFINE_ABBREV.
pub const DEFINE_ABBREV: u64 = 2;
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
    /// Codes of the records whose operands are wanted, if not all are.
    only: Option<&'static [u64]>,
}

/// What comes next in the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BitstreamEntry {
    /// A block begins: [`Reader::enter`] it or [`Reader::skip`] it.
    Block(Block),
    /// A record with this code; its operands are in [`Reader::ops`] (unless [`Reader::enter_for`] leaves them out), its
    /// blob in [`Reader::blob`].
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
        self.enter_scope(None)
    }

    /// The same, for records with these codes: the operands of others, which may be a program's tables of megabytes,
    /// are passed over.
    pub fn enter_for(&mut self, codes: &'static [u64]) -> Result<(), Malformed> {
        self.enter_scope(Some(codes))
    }

    fn enter_scope(&mut self, only: Option<&'static [u64]>) -> Result<(), Malformed> {
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
        self.stack.push(Scope {
            block,
            abbrevs,
            only,
        });
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
    pub fn next(&mut self) -> Result<BitstreamEntry, Malformed> {
        if self.pending.is_some() {
            self.skip()?;
        }
        loop {
            let width = match self.stack.last() {
                Some(s) => s.block.width,
                None => {
                    // At top level blocks are word aligned; what is shorter than a block is padding.
                    if self.cursor.remaining() < 64 {
                        return Ok(BitstreamEntry::Eof);
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
                    return Ok(BitstreamEntry::End(at));
                }
                ENTER_SUBBLOCK => {
                    let found = self.block_header()?;
                    if found.id == block::BLOCKINFO {
                        // Elsewhere LLVM does not look for it, and a splice that writes a block
                        // anew would lose what is in there.
                        if self.stack.len() != 1 {
                            return Err(Malformed::Shape("BLOCKINFO in an unknown place"));
                        }
                        self.block_info(found)?;
                        continue;
                    }
                    self.pending = Some(found);
                    return Ok(BitstreamEntry::Block(found));
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
                UNABBREV_RECORD => return self.unabbreviated(false).map(BitstreamEntry::Record),
                _ => {
                    let abbrev = (id as usize)
                        .checked_sub(4)
                        .and_then(|i| self.stack.last()?.abbrevs.get(i).cloned())
                        .ok_or(Malformed::Shape("an abbreviation that is not defined"))?;
                    return self.abbreviated(&abbrev).map(BitstreamEntry::Record);
                }
            }
        }
    }

    /// As [`Self::next`], within a block that was entered; `None` when that block ends.
    pub fn next_in_block(&mut self) -> Result<Option<BitstreamEntry>, Malformed> {
        match self.next()? {
            BitstreamEntry::End(_) => Ok(None),
            BitstreamEntry::Eof => Err(Malformed::Truncated),
            entry => Ok(Some(entry)),
        }
    }

    /// The rest of an ENTER_SUBBLOCK.
    fn block_header(&mut self) -> Result<Block, Malformed> {
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
        Ok(Block {
            id,
            width,
            length_at,
            start,
            after,
        })
    }

    /// Takes in a BLOCKINFO block.
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
                    if self.unabbreviated(true)? == 1 {
                        target = self.ops.first().copied();
                    }
                }
                _ => return Err(Malformed::Shape("BLOCKINFO of an unknown form")),
            }
        }
    }

    /// The rest of a DEFINE_ABBREV.
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

    /// The width of an abbreviated operand.
    fn width(&mut self) -> Result<u32, Malformed> {
        match self.cursor.vbr(5)? {
            width @ 0..=MAX_WIDTH => Ok(width as u32),
            _ => Err(Malformed::Shape("a field is wider than 32 bits")),
        }
    }

    /// The rest of a record without an abbreviation; gives its code. Operands that nobody wants are kept if `all` are.
    fn unabbreviated(&mut self, all: bool) -> Result<u64, Malformed> {
        self.blob = None;
        self.ops.clear();
        let code = self.cursor.vbr32(6)?;
        let n = self.cursor.vbr32(6)?;
        if n > self.cursor.remaining() / 6 {
            return Err(Malformed::Truncated);
        }
        self.operands(Op::Vbr(6), n, all || self.wants(code))?;
        Ok(code)
    }

    /// Whether the operands of a record with this code are to be kept.
    fn wants(&self, code: u64) -> bool {
        let only = self.stack.last().and_then(|scope| scope.only);
        only.is_none_or(|codes| codes.contains(&code))
    }

    /// So many operands of one kind, kept or passed over.
    fn operands(&mut self, op: Op, n: u64, keep: bool) -> Result<(), Malformed> {
        let width = match op {
            Op::Fixed(width) => Some(width.into()),
            Op::Char6 => Some(6),
            _ => None,
        };
        match width.filter(|_| !keep) {
            Some(width) => self
                .cursor
                .skip(n.checked_mul(width).ok_or(Malformed::Truncated)?)?,
            None => {
                if keep {
                    // What is written there may say any number.
                    self.ops.reserve(n.min(MAX_RESERVED) as usize);
                }
                for _ in 0..n {
                    let value = self.scalar(op)?;
                    if keep {
                        self.ops.push(value);
                    }
                }
            }
        }
        Ok(())
    }

    /// An operand that is one number.
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

    /// A record by its abbreviation; gives its code.
    fn abbreviated(&mut self, abbrev: &Abbrev) -> Result<u64, Malformed> {
        self.blob = None;
        self.ops.clear();
        let mut ops = abbrev.iter();
        let code = *ops
            .next()
            .ok_or(Malformed::Shape("a record without a code"))?;
        let code = only_32_bits(self.scalar(code)?)?;
        let keep = self.wants(code);
        while let Some(&op) = ops.next() {
            match op {
                Op::Array => {
                    let n = self.cursor.vbr32(6)?;
                    if n > self.cursor.remaining() {
                        return Err(Malformed::Truncated);
                    }
                    let element = ops.next().ok_or(Malformed::Shape("an array of nothing"))?;
                    self.operands(*element, n, keep)?;
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
                }
                _ => self.operands(op, 1, keep)?,
            }
        }
        Ok(code)
    }
}

#[cfg(test)]
mod tests;
