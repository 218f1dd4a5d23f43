//! A shard (LLVM's word; also individual index, `MODULE.thinlto.bc`): the part of the combined index
//! that one module's backend needs, as lld's index phase writes it.
//!
//! Two things are changed in it before a backend gets it, in one pass:
//!
//! - Module paths become short relative names, so that the job is the same on every machine and in
//!   every checkout (docs/lld.md, "The index run"). Backends import in the lexical order of these
//!   names, so the new names keep the order of the old ones (docs/lld.md, "Imports").
//! - For each symbol that is local to the output but has no summary here, a summary is added that
//!   says so. In-process, the backend finds that in the full index; without it every distributed
//!   ThinLTO generates other code than lld alone (docs/lld.md, "Locality of declarations").
//!
//! All that was there stays, bit for bit, except MODULE_STRTAB_BLOCK, which is written anew.

use super::reader::{BitstreamEntry, Block, Reader};
use super::writer::Writer;
use super::{Malformed, block};
use std::collections::{HashMap, HashSet};

/// Records of MODULE_STRTAB_BLOCK.
const MST_ENTRY: u64 = 1;
const MST_HASH: u64 = 2;
/// Records of GLOBALVAL_SUMMARY_BLOCK in a combined index.
const COMBINED: u64 = 4;
pub(super) const COMBINED_PROFILE: u64 = 5;
pub(super) const COMBINED_GLOBALVAR: u64 = 6;
pub(super) const COMBINED_ALIAS: u64 = 8;
pub(super) const VERSION: u64 = 10;
pub(super) const VALUE_GUID: u64 = 16;
pub(super) const BLOCK_COUNT: u64 = 24;
/// Flags of an added summary: not eligible to import (4), live (5), `dso_local` (6); linkage 0,
/// external (docs/lld.md, "Shards as bitstreams").
const ADDED_FLAGS: u64 = 0b111_0000;
const FLAG_DSO_LOCAL: u64 = 1 << 6;
const FLAG_LIVE: u64 = 1 << 5;
/// The linkage, as `GlobalValue::LinkageTypes` numbers it (llvm/IR/GlobalValue.h).
const LINKAGE: u64 = 0b1111;
const EXTERNAL: u64 = 0;
const WEAK_ANY: u64 = 4;
const WEAK_ODR: u64 = 5;
const APPENDING: u64 = 6;
/// Of a variable's own flags (`GlobalVarSummary::GVarFlags`), that it is only read, or only written.
const READ_OR_WRITE_ONLY: u64 = 0b11;
/// LLVM numbers values with 32 bits.
const MAX_VALUES: u64 = u32::MAX as u64;
const MANY_VALUES: &str = "a value number of more than 32 bits";

/// One module that a shard mentions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModuleRef {
    /// Its number in this shard.
    pub id: u64,
    /// Its identifier: the path as lld got it, or `ARCHIVE(MEMBER at OFFSET)` (docs/lld.md,
    /// "Identifiers").
    pub path: Vec<u8>,
    /// Whether it has a hash that is not all zero. Without one, lld makes no cache lookup (docs/lld.md,
    /// "Lookups").
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
    /// How its module's object defines it.
    pub definition: Definition,
}

/// How an object defines something, least first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Definition {
    /// Perhaps not at all.
    #[default]
    None,
    /// Without a symbol that others see.
    Local,
    /// As a weak symbol.
    Weak,
    /// As a global symbol that is not weak.
    Strong,
}

impl Definition {
    /// What a summary's flags say, once the thin link has dropped what is dead and resolved the linkage of the others.
    /// Internal functions and variables may be optimised away, linkonce ones are kept elsewhere, and lists such as
    /// `llvm.global_ctors` come to an object as data.
    /// Variables that are only read or only written become internal after the import, in their own module too
    /// (`FunctionImportGlobalProcessing::processGlobalForThinLTO`, llvm/lib/Transforms/Utils/FunctionImportUtils.cpp).
    fn of_summary(code: u64, flags: u64, more: &[u64]) -> Self {
        let becomes_internal = code == COMBINED_GLOBALVAR
            && more
                .first()
                .is_none_or(|flags| flags & READ_OR_WRITE_ONLY != 0);
        if flags & FLAG_LIVE == 0 || becomes_internal {
            return Self::None;
        }
        match flags & LINKAGE {
            EXTERNAL => Self::Strong,
            WEAK_ANY | WEAK_ODR => Self::Weak,
            APPENDING => Self::Local,
            _ => Self::None,
        }
    }
}

/// The hash of a module's contents, as five words.
type ModuleHash = [u64; 5];

/// A parsed shard.
#[derive(Debug)]
pub struct Shard<'a> {
    bytes: &'a [u8],
    /// The block that the other two are in.
    parent: Block,
    strtab: Block,
    /// For each of `modules`, its hash, if one follows it.
    hashes: Vec<Option<ModuleHash>>,
    summary: Block,
    summary_end: u64,
    wide_guids: Option<bool>,
    next_value: u64,
    /// Whether it has the number of basic blocks of the whole link ([`super::canonical::without_block_count`]).
    pub has_block_count: bool,
    /// Modules that this shard mentions, in its order.
    pub modules: Vec<ModuleRef>,
    /// Its summaries, in its order.
    pub summaries: Vec<Summary>,
}

impl<'a> Shard<'a> {
    /// Reads a shard. Errors on anything that LLVM 14 to 22 would not have written.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        if bytes.len() % 4 != 0 {
            return Err(Malformed::Shape(
                "its length is not a whole number of words",
            ));
        }
        let mut reader = Reader::new(bytes)?;
        let mut paths: Option<(Block, Block, Paths)> = None;
        let mut summaries: Option<(Block, Block, Summaries)> = None;
        loop {
            match reader.next()? {
                BitstreamEntry::Eof => break,
                BitstreamEntry::Block(b) if b.id == block::MODULE => reader.enter()?,
                BitstreamEntry::Block(b) if b.id == block::MODULE_STRTAB => {
                    let parent = parent(&reader)?;
                    reader.enter()?;
                    let read = Paths::read(&mut reader)?;
                    if paths.replace((parent, b, read)).is_some() {
                        return Err(Malformed::Shape("two tables of module paths"));
                    }
                }
                BitstreamEntry::Block(b) if b.id == block::GLOBALVAL_SUMMARY => {
                    let (_, _, paths) = paths
                        .as_ref()
                        .ok_or(Malformed::Shape("summaries before the module paths"))?;
                    let parent = parent(&reader)?;
                    reader.enter()?;
                    let read = Summaries::read(&mut reader, paths)?;
                    if summaries.replace((parent, b, read)).is_some() {
                        return Err(Malformed::Shape("two summary blocks"));
                    }
                }
                _ => {}
            }
        }
        let (beside, strtab, paths) = paths.ok_or(Malformed::Shape("no table of module paths"))?;
        let (parent, summary, summaries) = summaries.ok_or(Malformed::Shape("no summary block"))?;
        if beside != parent {
            return Err(Malformed::Shape(
                "module paths outside the summaries' module",
            ));
        }
        Ok(Self {
            bytes,
            parent,
            strtab,
            hashes: paths.hashes,
            summary,
            summary_end: summaries.end,
            wide_guids: summaries.wide_guids,
            next_value: summaries.next_value,
            has_block_count: summaries.has_block_count,
            modules: paths.modules,
            summaries: summaries.list,
        })
    }

    /// What it says of the module with this path.
    #[must_use]
    pub fn module(&self, path: &[u8]) -> Option<&ModuleRef> {
        self.modules.iter().find(|m| m.path == path)
    }

    /// How the object of this module (a [`ModuleRef::id`]) defines what it defines most strongly.
    #[must_use]
    pub fn definition(&self, module: u64) -> Definition {
        let own = self.summaries.iter().filter(|s| s.module == module);
        own.map(|s| s.definition).max().unwrap_or_default()
    }

    /// The shard with its module paths replaced by `rename(path)` and, for each GUID of `local`, a
    /// summary added in module `own` that says it is local to the output.
    ///
    /// `local` must hold no GUID that the shard has a summary for. Fails when the shard does not
    /// mention `own`, and when there would be too much of something for LLVM.
    pub fn rewrite(
        &self,
        own: u64,
        local: &[u64],
        mut rename: impl FnMut(&[u8]) -> Vec<u8>,
    ) -> Result<Vec<u8>, Malformed> {
        if !self.modules.iter().any(|m| m.id == own) {
            return Err(Malformed::Shape("it does not mention its own module"));
        }
        if self.next_value.saturating_add(local.len() as u64) > MAX_VALUES {
            return Err(Malformed::Shape(MANY_VALUES));
        }
        let wide_guids = match self.wide_guids {
            Some(wide) => wide,
            None if local.is_empty() => true,
            None => return Err(Malformed::Shape("its form of GUIDs is unknown")),
        };
        let mut w = Writer::with_capacity(self.bytes.len() + local.len() * 24);
        // Up to the module paths, these anew, and on to the end of the summaries.
        w.copy(self.bytes, 0, self.strtab.start);
        let width = self.strtab.width;
        for (m, hash) in self.modules.iter().zip(&self.hashes) {
            let name = rename(&m.path);
            let ops: Vec<u64> = std::iter::once(m.id)
                .chain(name.iter().map(|&c| u64::from(c)))
                .collect();
            w.record(width, MST_ENTRY, ops.into_iter());
            if let Some(hash) = hash {
                w.record(width, MST_HASH, hash.iter().copied());
            }
        }
        w.end_block(width);
        let moved = w.pos() as i64 - self.strtab.after as i64;
        w.copy(self.bytes, self.strtab.after, self.summary_end);

        let width = self.summary.width;
        for (i, &guid) in local.iter().enumerate() {
            let value = self.next_value + i as u64;
            if wide_guids {
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

        // Length fields count words. The paths' and the parent's lie before anything that moved.
        let words = |block: &Block, bits: i64| {
            let old = (block.after - block.start) as i64;
            u32::try_from((old + bits) / 32).map_err(|_| Malformed::Shape("it grows too long"))
        };
        w.patch_word(self.strtab.length_at, words(&self.strtab, moved)?);
        w.patch_word(self.parent.length_at, words(&self.parent, grown)?);
        let at = (self.summary.length_at as i64 + moved) as u64;
        w.patch_word(at, words(&self.summary, grown - moved)?);
        Ok(w.into_bytes())
    }
}

/// The only block that `reader` is in.
fn parent(reader: &Reader<'_>) -> Result<Block, Malformed> {
    let mut open = reader.open_blocks();
    match (open.next(), open.next()) {
        (Some(parent), None) => Ok(parent),
        _ => Err(Malformed::Shape("a part of an index not in a module block")),
    }
}

/// What MODULE_STRTAB_BLOCK says.
#[derive(Default)]
struct Paths {
    modules: Vec<ModuleRef>,
    hashes: Vec<Option<ModuleHash>>,
    ids: HashSet<u64>,
}

impl Paths {
    /// Reads the block that `reader` has just entered.
    fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let mut paths = Self::default();
        loop {
            match reader.next()? {
                BitstreamEntry::Record(_) if reader.blob().is_some() => {
                    return Err(Malformed::Shape("a module path of an unknown form"));
                }
                BitstreamEntry::Record(code) => paths.record(code, reader.ops())?,
                BitstreamEntry::End(_) => return Ok(paths),
                _ => return Err(Malformed::Shape("a block among the module paths")),
            }
        }
    }

    fn record(&mut self, code: u64, ops: &[u64]) -> Result<(), Malformed> {
        match (code, ops) {
            (MST_ENTRY, [id, path @ ..]) => {
                if !self.ids.insert(*id) {
                    return Err(Malformed::Shape("two modules of one number"));
                }
                let path: Result<_, _> = path.iter().map(|&c| u8::try_from(c)).collect();
                self.modules.push(ModuleRef {
                    id: *id,
                    path: path.map_err(|_| Malformed::Shape("a module path not of bytes"))?,
                    hashed: false,
                });
                self.hashes.push(None);
                Ok(())
            }
            (MST_HASH, hash) => match (self.modules.last_mut(), self.hashes.last_mut()) {
                (Some(m), Some(last @ None)) => {
                    let hash = ModuleHash::try_from(hash)
                        .ok()
                        .filter(|hash| hash.iter().all(|&word| word <= u64::from(u32::MAX)))
                        .ok_or(Malformed::Shape("a hash of an unknown form"))?;
                    m.hashed = hash.iter().any(|&word| word != 0);
                    *last = Some(hash);
                    Ok(())
                }
                _ => Err(Malformed::Shape("a hash of no module")),
            },
            _ => Err(Malformed::Shape("a module path of an unknown form")),
        }
    }
}

/// The hashes of the modules from which a shard imports, in the order in which a backend does, which is that of their
/// identifiers (docs/lld.md, "Imports"). `own` is the identifier of the shard's own module. An error if the table of
/// modules is not one that LLVM writes, or a module has no hash.
pub fn imports_in_order(bytes: &[u8], own: &[u8]) -> Result<Vec<[u8; 20]>, Malformed> {
    let mut reader = Reader::new(bytes)?;
    let paths = loop {
        match reader.next()? {
            BitstreamEntry::Eof => return Err(Malformed::Shape("no table of module paths")),
            BitstreamEntry::Block(b) if b.id == block::MODULE => reader.enter()?,
            BitstreamEntry::Block(b) if b.id == block::MODULE_STRTAB => {
                reader.enter()?;
                break Paths::read(&mut reader)?;
            }
            _ => {}
        }
    };
    let mut imports = Vec::new();
    for (module, hash) in paths.modules.iter().zip(&paths.hashes) {
        let hash = hash.filter(|_| module.hashed);
        let hash = hash.ok_or(Malformed::Shape("a module without a hash"))?;
        if module.path != own {
            imports.push((module.path.as_slice(), hash));
        }
    }
    imports.sort_unstable();
    let bytes = |hash: ModuleHash| {
        let mut bytes = [0; 20];
        for (to, word) in bytes.chunks_exact_mut(4).zip(hash) {
            to.copy_from_slice(&(word as u32).to_le_bytes());
        }
        bytes
    };
    Ok(imports.into_iter().map(|(_, hash)| bytes(hash)).collect())
}

/// What GLOBALVAL_SUMMARY_BLOCK says.
#[derive(Default)]
struct Summaries {
    list: Vec<Summary>,
    guids: HashMap<u64, u64>,
    /// Whether a GUID is one operand or, split in two, two.
    wide_guids: Option<bool>,
    next_value: u64,
    has_block_count: bool,
    /// Where END_BLOCK begins.
    end: u64,
}

impl Summaries {
    /// Reads the block that `reader` has just entered.
    fn read(reader: &mut Reader<'_>, paths: &Paths) -> Result<Self, Malformed> {
        let mut summaries = Self::version(reader)?;
        loop {
            match reader.next()? {
                BitstreamEntry::Record(VERSION) => return Err(Malformed::Shape("two versions")),
                BitstreamEntry::Record(VALUE_GUID) => summaries.value(reader.ops())?,
                BitstreamEntry::Record(
                    code @ (COMBINED | COMBINED_PROFILE | COMBINED_GLOBALVAR | COMBINED_ALIAS),
                ) => summaries.summary(code, reader.ops(), paths)?,
                BitstreamEntry::Record(code) => summaries.has_block_count |= code == BLOCK_COUNT,
                BitstreamEntry::End(at) => {
                    summaries.end = at;
                    return Ok(summaries);
                }
                _ => return Err(Malformed::Shape("a block among the summaries")),
            }
        }
    }

    /// The first record, and only that, says how the others are to be read.
    fn version(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let mut summaries = Self::default();
        match (reader.next()?, reader.ops()) {
            // LLVM 14, 16, 19 and 22. Of 11 the GUIDs say it themselves, if there are any.
            (BitstreamEntry::Record(VERSION), [9 | 10]) => summaries.wide_guids = Some(true),
            (BitstreamEntry::Record(VERSION), [11]) => {}
            (BitstreamEntry::Record(VERSION), [12]) => summaries.wide_guids = Some(false),
            _ => return Err(Malformed::Shape("summaries of an unknown version")),
        }
        Ok(summaries)
    }

    fn value(&mut self, ops: &[u64]) -> Result<(), Malformed> {
        const WORD: u64 = u32::MAX as u64;
        let (value, guid, wide) = match *ops {
            [value, high @ 0..=WORD, low @ 0..=WORD] => (value, high << 32 | low, false),
            [value, guid] => (value, guid, true),
            _ => return Err(Malformed::Shape("a GUID of an unknown form")),
        };
        if self.wide_guids.replace(wide).is_some_and(|was| was != wide) {
            return Err(Malformed::Shape("GUIDs of two forms"));
        }
        if value >= MAX_VALUES {
            return Err(Malformed::Shape(MANY_VALUES));
        }
        self.next_value = self.next_value.max(value + 1);
        match self.guids.insert(value, guid) {
            None => Ok(()),
            Some(_) => Err(Malformed::Shape("two GUIDs of one value number")),
        }
    }

    fn summary(&mut self, code: u64, ops: &[u64], paths: &Paths) -> Result<(), Malformed> {
        let [value, module, flags, ref more @ ..] = *ops else {
            return Err(Malformed::Shape("a summary of an unknown form"));
        };
        let guid = self.guids.get(&value);
        if !paths.ids.contains(&module) {
            return Err(Malformed::Shape("a summary in a module without a path"));
        }
        self.list.push(Summary {
            guid: *guid.ok_or(Malformed::Shape("a summary without a GUID"))?,
            module,
            dso_local: flags & FLAG_DSO_LOCAL != 0,
            definition: Definition::of_summary(code, flags, more),
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests;
