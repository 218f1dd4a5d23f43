//! A shard: the part of the combined index that one backend needs, as lld's index phase writes it.
//!
//! Two things are changed in it before a backend gets it, in one pass:
//!
//! - Module paths become short relative names, so that the job is the same on every machine and in
//!   every checkout (fact 9). Backends import in the lexical order of these names, so the new names
//!   keep the order of the old ones (fact 8).
//! - For each symbol that is local to the output but has no summary here, a summary is added that
//!   says so. In-process, the backend finds that in the full index; without it every distributed
//!   ThinLTO generates other code than lld alone (facts 14 and 15).
//!
//! All that was there stays, bit for bit, except MODULE_STRTAB_BLOCK, which is written anew.

use super::reader::{Block, Entry, Reader};
use super::writer::Writer;
use super::{Malformed, block};
use std::collections::HashMap;

/// Records of MODULE_STRTAB_BLOCK.
const MST_ENTRY: u64 = 1;
const MST_HASH: u64 = 2;
/// Records of GLOBALVAL_SUMMARY_BLOCK in a combined index.
const COMBINED: u64 = 4;
const COMBINED_PROFILE: u64 = 5;
const COMBINED_GLOBALVAR: u64 = 6;
const COMBINED_ALIAS: u64 = 8;
const VALUE_GUID: u64 = 16;
/// Flags of an added summary: not eligible to import (4), live (5), `dso_local` (6); linkage 0,
/// external (fact 16).
const ADDED_FLAGS: u64 = 0b111_0000;
const FLAG_DSO_LOCAL: u64 = 1 << 6;

/// One module that a shard mentions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModuleRef {
    /// Its number in this shard.
    pub id: u64,
    /// Its identifier: the path as lld got it, or `ARCHIVE(MEMBER at OFFSET)` (fact 7).
    pub path: Vec<u8>,
    /// Whether a hash that is not all zero follows. Without one, lld makes no cache lookup (fact 23).
    pub hashed: bool,
}

/// One summary, as far as locality needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// The symbol's GUID.
    pub guid: u64,
    /// The module (a [`ModuleRef::id`]) that this is a summary of.
    pub module: u64,
    /// Local to the output.
    pub dso_local: bool,
}

/// A parsed shard.
#[derive(Debug)]
pub struct Shard<'a> {
    bytes: &'a [u8],
    parents: Vec<Block>,
    strtab: Block,
    strtab_records: Vec<(u64, Vec<u64>)>,
    summary: Block,
    summary_end: u64,
    wide_guids: bool,
    next_value: u64,
    /// Modules that this shard mentions, in its order.
    pub modules: Vec<ModuleRef>,
    /// Its summaries, in its order.
    pub summaries: Vec<Summary>,
}

impl<'a> Shard<'a> {
    /// Reads a shard. Errors on anything that LLVM 14 to 22 would not have written.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        if !bytes.len().is_multiple_of(4) {
            return Err(Malformed::Shape(
                "its length is not a whole number of words",
            ));
        }
        let mut reader = Reader::new(bytes)?;
        let mut parents = Vec::new();
        let mut strtab = None;
        let mut strtab_records = Vec::new();
        let mut summary = None;
        let mut guids = HashMap::new();
        let mut pairs = Vec::new();
        let mut wide_guids = None;
        let mut next_value = 0;
        loop {
            match reader.next()? {
                Entry::Eof => break,
                Entry::Block(b) if b.id == block::MODULE => reader.enter()?,
                Entry::Block(b) if b.id == block::MODULE_STRTAB => {
                    if strtab.replace(b).is_some() {
                        return Err(Malformed::Shape("two tables of module paths"));
                    }
                    reader.enter()?;
                    loop {
                        match reader.next()? {
                            Entry::Record(code) => {
                                strtab_records.push((code, reader.ops().to_vec()))
                            }
                            Entry::End(_) => break,
                            _ => return Err(Malformed::Shape("a block among the module paths")),
                        }
                    }
                }
                Entry::Block(b) if b.id == block::GLOBALVAL_SUMMARY => {
                    parents = reader.open_blocks().collect();
                    reader.enter()?;
                    loop {
                        match reader.next()? {
                            Entry::Record(VALUE_GUID) => {
                                let (value, guid) = match *reader.ops() {
                                    [v, high, low] => {
                                        wide_guids = Some(false);
                                        (v, high << 32 | (low & 0xffff_ffff))
                                    }
                                    [v, guid] => {
                                        wide_guids = Some(true);
                                        (v, guid)
                                    }
                                    _ => return Err(Malformed::Shape("a GUID of an unknown form")),
                                };
                                guids.insert(value, guid);
                                next_value = next_value.max(value.saturating_add(1));
                            }
                            Entry::Record(
                                COMBINED | COMBINED_PROFILE | COMBINED_GLOBALVAR | COMBINED_ALIAS,
                            ) => {
                                let [value, module, flags, ..] = *reader.ops() else {
                                    return Err(Malformed::Shape("a summary of an unknown form"));
                                };
                                next_value = next_value.max(value.saturating_add(1));
                                pairs.push((value, module, flags));
                            }
                            Entry::Record(_) => {}
                            Entry::End(at) => {
                                if summary.replace((b, at)).is_some() {
                                    return Err(Malformed::Shape("two summary blocks"));
                                }
                                break;
                            }
                            _ => return Err(Malformed::Shape("a block among the summaries")),
                        }
                    }
                }
                _ => {}
            }
        }
        let strtab = strtab.ok_or(Malformed::Shape("no table of module paths"))?;
        let (summary, summary_end) = summary.ok_or(Malformed::Shape("no summary block"))?;
        if strtab.after > summary.start {
            return Err(Malformed::Shape("module paths behind the summaries"));
        }
        if parents.len() != 1 {
            return Err(Malformed::Shape("summaries outside a module block"));
        }
        // The two blocks are siblings, so one list of parents serves both.
        if !parents
            .iter()
            .all(|p| p.start <= strtab.length_at && strtab.after <= p.after)
        {
            return Err(Malformed::Shape(
                "module paths outside the summaries' module",
            ));
        }
        if next_value > u64::from(u32::MAX) {
            return Err(Malformed::Shape("a value number of more than 32 bits"));
        }
        let mut modules: Vec<ModuleRef> = Vec::new();
        for (code, ops) in &strtab_records {
            match (*code, ops.as_slice()) {
                (MST_ENTRY, [id, path @ ..]) => modules.push(ModuleRef {
                    id: *id,
                    path: path.iter().map(|&c| c as u8).collect(),
                    hashed: false,
                }),
                (MST_HASH, hash) => {
                    let last = modules
                        .last_mut()
                        .ok_or(Malformed::Shape("a hash of no module"))?;
                    last.hashed = hash.iter().any(|&word| word != 0);
                }
                _ => return Err(Malformed::Shape("a module path of an unknown form")),
            }
        }
        let mut summaries = Vec::with_capacity(pairs.len());
        for (value, module, flags) in pairs {
            let guid = *guids
                .get(&value)
                .ok_or(Malformed::Shape("a summary without a GUID"))?;
            summaries.push(Summary {
                guid,
                module,
                dso_local: flags & FLAG_DSO_LOCAL != 0,
            });
        }
        Ok(Self {
            bytes,
            parents,
            strtab,
            strtab_records,
            summary,
            summary_end,
            wide_guids: wide_guids.unwrap_or(false),
            next_value,
            modules,
            summaries,
        })
    }

    /// The shard with its module paths replaced by `rename(path)` and, for each GUID of `local`, a
    /// summary added in module `own` that says it is local to the output.
    ///
    /// `local` must hold no GUID that the shard has a summary for.
    pub fn rewrite(
        &self,
        own: u64,
        local: &[u64],
        mut rename: impl FnMut(&[u8]) -> Vec<u8>,
    ) -> Result<Vec<u8>, Malformed> {
        let mut w = Writer::with_capacity(self.bytes.len() + local.len() * 24);
        // Up to the module paths, these anew, and on to the end of the summaries.
        w.copy(self.bytes, 0, self.strtab.start);
        let width = self.strtab.width;
        for (code, ops) in &self.strtab_records {
            if let (MST_ENTRY, [id, path @ ..]) = (*code, ops.as_slice()) {
                let old: Vec<u8> = path.iter().map(|&c| c as u8).collect();
                let name = rename(&old);
                let ops: Vec<u64> = std::iter::once(*id)
                    .chain(name.iter().map(|&c| u64::from(c)))
                    .collect();
                w.record(width, MST_ENTRY, ops.into_iter());
            } else {
                w.record(width, *code, ops.iter().copied());
            }
        }
        w.end_block(width);
        let moved = w.pos() as i64 - self.strtab.after as i64;
        w.copy(self.bytes, self.strtab.after, self.summary_end);

        let width = self.summary.width;
        for (i, &guid) in local.iter().enumerate() {
            let value = self.next_value + i as u64;
            if self.wide_guids {
                w.record(width, VALUE_GUID, [value, guid].into_iter());
            } else {
                w.record(
                    width,
                    VALUE_GUID,
                    [value, guid >> 32, guid & 0xffff_ffff].into_iter(),
                );
            }
            w.record(
                width,
                COMBINED_GLOBALVAR,
                [value, own, ADDED_FLAGS, 0].into_iter(),
            );
        }
        w.end_block(width);
        let grown = w.pos() as i64 - self.summary.after as i64;
        w.copy(self.bytes, self.summary.after, self.bytes.len() as u64 * 8);

        // Length fields count words. The paths' and the parents' lie before anything that moved.
        let words = |block: &Block, bits: i64| {
            let old = (block.after - block.start) as i64;
            u32::try_from((old + bits) / 32).map_err(|_| Malformed::Shape("it grows too long"))
        };
        w.patch_word(self.strtab.length_at, words(&self.strtab, moved)?);
        for p in &self.parents {
            w.patch_word(p.length_at, words(p, grown)?);
        }
        let at = (self.summary.length_at as i64 + moved) as u64;
        w.patch_word(at, words(&self.summary, grown - moved)?);
        Ok(w.into_bytes())
    }
}
