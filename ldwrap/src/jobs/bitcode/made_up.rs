//! Bitstreams made up for tests and fuzzers.

use super::MAGIC;
use super::reader::{DEFINE_ABBREV, ENTER_SUBBLOCK};
use super::writer::Writer;

/// Width of abbreviation ids in blocks of [`Node::block`].
const WIDTH: u32 = 4;
/// DEFINE_ABBREV's number for a blob, behind the bit that says that it is no literal.
const BLOB: u64 = 5;

/// A block or a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// A block's number, the width of abbreviation ids inside, and what is in it.
    Block(u64, u32, Vec<Node>),
    /// A record's code, operands, and blob.
    Record(u64, Vec<u64>, Option<Vec<u8>>),
}

impl Node {
    /// A block.
    #[must_use]
    pub fn block(id: u64, nodes: Vec<Node>) -> Self {
        Self::Block(id, WIDTH, nodes)
    }

    /// A record without a blob.
    #[must_use]
    pub fn record(code: u64, ops: impl Into<Vec<u64>>) -> Self {
        Self::Record(code, ops.into(), None)
    }
}

/// A stream: the magic, and what `inside` writes.
#[must_use]
pub fn stream(inside: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut w = Writer::default();
    w.fixed(u64::from(MAGIC), 32);
    inside(&mut w);
    w.into_bytes()
}

/// Writes block `id`, whose abbreviation ids are `inner` bits wide, into one whose are `outer`.
pub fn write_block<T>(
    w: &mut Writer,
    outer: u32,
    id: u64,
    inner: u32,
    inside: impl FnOnce(&mut Writer) -> T,
) -> T {
    w.fixed(ENTER_SUBBLOCK, outer);
    w.vbr(id, 8);
    w.vbr(u64::from(inner), 4);
    w.align();
    let length_at = w.pos();
    w.fixed(0, 32);
    let start = w.pos();
    let result = inside(w);
    w.end_block(inner);
    w.patch_word(length_at, ((w.pos() - start) / 32) as u32);
    result
}

/// Writes a stream without abbreviations but for blobs. `None` if a block's ids are too narrow for
/// these, or a record with a blob has too many operands.
#[must_use]
pub fn encode(nodes: &[Node]) -> Option<Vec<u8>> {
    let mut complete = None;
    let bytes = stream(|w| complete = write_nodes(w, nodes, 2));
    complete.map(|()| bytes)
}

fn write_nodes(w: &mut Writer, nodes: &[Node], width: u32) -> Option<()> {
    let mut next_abbrev = 4;
    for node in nodes {
        match node {
            Node::Block(id, inner, nodes) => {
                write_block(w, width, *id, *inner, |w| write_nodes(w, nodes, *inner))?;
            }
            Node::Record(code, ops, None) => w.record(width, *code, ops.iter().copied()),
            // An abbreviation of literals and a blob, and its one record.
            Node::Record(code, ops, Some(blob)) => {
                if next_abbrev >> width != 0 || ops.len() > 60 {
                    return None;
                }
                w.fixed(DEFINE_ABBREV, width);
                w.vbr(ops.len() as u64 + 2, 5);
                for &op in std::iter::once(code).chain(ops) {
                    w.fixed(1, 1);
                    w.vbr(op, 8);
                }
                w.fixed(BLOB << 1, 4);
                w.fixed(next_abbrev, width);
                next_abbrev += 1;
                w.vbr(blob.len() as u64, 6);
                w.align();
                blob.iter().for_each(|&b| w.fixed(u64::from(b), 8));
                w.align();
            }
        }
    }
    Some(())
}
