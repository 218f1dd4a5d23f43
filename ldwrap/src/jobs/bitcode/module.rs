//! What a bitcode file says about its modules: triple, kind of LTO, and the globals that it names.
//!
//! Names come from the module records and the string table, not from the native symbol table
//! (`SYMTAB_BLOCK`): they are the IR's own, declarations included, and their form has not changed
//! since LLVM 5, while the symbol table is rebuilt by lld whenever its producer is another LLVM.

use super::assembly::may_read_files;
use super::attributes::FunctionAttributes;
use super::reader::{BitstreamEntry, Reader};
use super::{Malformed, block, unwrap};

/// Records of MODULE_BLOCK.
const MODULE_TRIPLE: u64 = 2;
/// MODULE_CODE_HASH: of the bitcode, as five words.
const MODULE_HASH: u64 = 17;
/// MODULE_CODE_ASM: the text of assembly at file level.
const MODULE_ASM: u64 = 4;
/// FUNC_CODE_DECLAREBLOCKS, a function's first record; its constants follow, then all else.
const DECLARE_BLOCKS: u64 = 1;
/// CST_CODE_INLINEASM and its older forms.
const INLINE_ASM: [u64; 4] = [18, 23, 28, 30];
const MODULE_GLOBALVAR: u64 = 7;
const MODULE_FUNCTION: u64 = 8;
const MODULE_ALIAS_OLD: u64 = 9;
const MODULE_ALIAS: u64 = 14;
const MODULE_IFUNC: u64 = 15;
/// The blob of STRTAB_BLOCK.
const STRTAB_BLOB: u64 = 1;
/// Per-module summaries, `[valueid, flags, ...]`: function, function with profile, variable,
/// alias, function with relative block frequency, variable with vtable functions.
const PER_MODULE_SUMMARIES: [u64; 6] = [1, 2, 3, 7, 19, 21];
/// Internal and private (`getEncodedLinkage`, llvm/lib/Bitcode/Writer/BitcodeWriter.cpp).
const LOCAL_LINKAGES: [u64; 2] = [3, 9];
/// `GlobalValueSummary::GVFlags`: bit 6 of the encoded flags (docs/lld.md, "Shards as bitstreams").
const FLAG_DSO_LOCAL: u64 = 1 << 6;

/// How a module takes part in LTO.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LtoKind {
    /// With a ThinLTO summary.
    Thin,
    /// Compiled together with all others of its kind; `summary` says whether the thin link sees it.
    Regular {
        /// It has a summary (`-fsplit-lto-unit`, `-flto=full` of newer clang).
        summary: bool,
    },
}

/// A global that a module defines or declares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Global<'a> {
    /// Its name in the IR (for an external symbol, the linker's name too).
    pub name: &'a [u8],
    /// Of internal or private linkage: no other module can mean it by its name.
    pub local: bool,
    /// The module's own summary marks it `dso_local`; `None` where it has no summary.
    pub summary_dso_local: Option<bool>,
}

/// One module of a file.
#[derive(Debug)]
pub struct Module<'a> {
    /// The target triple, as written.
    pub triple: Vec<u8>,
    /// Thin or regular.
    pub kind: LtoKind,
    /// All named globals, in order of their value numbers.
    pub globals: Vec<Global<'a>>,
    /// Its assembly may read files when it is compiled.
    pub reads_files: bool,
    /// Attributes of its functions.
    pub attributes: FunctionAttributes,
}

/// A module without the names of its globals, which are in a string table behind it.
#[derive(Default)]
struct UnnamedModule {
    triple: Vec<u8>,
    /// Where each global's name is, and whether it is local to the module.
    names: Vec<(u64, u64, bool)>,
    thin: bool,
    full: bool,
    /// Value number and flags of each summary.
    flags: Vec<(u64, u64)>,
    reads_files: bool,
    attributes: FunctionAttributes,
}

/// Reads the modules of one file (there are two with `-fsplit-lto-unit`). Function bodies but for their
/// constants, and metadata, are skipped unread.
pub fn scan(bytes: &[u8]) -> Result<Vec<Module<'_>>, Malformed> {
    let mut reader = Reader::new(unwrap(bytes)?)?;
    let mut modules = Vec::new();
    // A string table serves all modules before it that have none yet.
    let mut unnamed: Vec<UnnamedModule> = Vec::new();
    loop {
        match reader.next()? {
            BitstreamEntry::Block(b) if b.id == block::MODULE => {
                reader.enter()?;
                unnamed.push(read_module(&mut reader)?);
            }
            BitstreamEntry::Block(b) if b.id == block::STRTAB => {
                reader.enter()?;
                let mut table: &[u8] = &[];
                while let Some(entry) = reader.next_in_block()? {
                    if entry == BitstreamEntry::Record(STRTAB_BLOB) {
                        table = reader.blob().unwrap_or(&[]);
                    }
                }
                for module in unnamed.drain(..) {
                    modules.push(resolve_names(module, table)?);
                }
            }
            BitstreamEntry::Eof => break,
            _ => {}
        }
    }
    if !unnamed.is_empty() {
        return Err(Malformed::Shape("a module without a string table"));
    }
    Ok(modules)
}

/// Whether a file holds a ThinLTO module: the first summary block decides, little else is read.
pub fn has_thin(bytes: &[u8]) -> Result<bool, Malformed> {
    let mut reader = Reader::new(unwrap(bytes)?)?;
    while enter_next_module(&mut reader)? {
        while let Some(entry) = reader.next_in_block()? {
            if matches!(entry, BitstreamEntry::Block(b) if b.id == block::GLOBALVAL_SUMMARY) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// What the functions of all modules of a file have among their attributes.
pub fn function_attributes(bytes: &[u8]) -> Result<FunctionAttributes, Malformed> {
    let mut reader = Reader::new(unwrap(bytes)?)?;
    let mut attributes = FunctionAttributes::default();
    while enter_next_module(&mut reader)? {
        while let Some(entry) = reader.next_in_block()? {
            if matches!(entry, BitstreamEntry::Block(b) if b.id == block::PARAMATTR_GROUP) {
                attributes = attributes.or(FunctionAttributes::read(&mut reader)?);
            }
        }
    }
    Ok(attributes)
}

/// Whether a file's ThinLTO module has a hash; `None` where it holds no such module. Without one (all zero
/// is none) lld makes no lookup for it (`runThinLTOBackendThread`, llvm/lib/LTO/LTO.cpp).
pub fn thin_hash(bytes: &[u8]) -> Result<Option<bool>, Malformed> {
    let mut reader = Reader::new(unwrap(bytes)?)?;
    while enter_next_module(&mut reader)? {
        let (mut thin, mut hashed) = (false, false);
        while let Some(entry) = reader.next_in_block()? {
            match entry {
                BitstreamEntry::Block(b) => thin |= b.id == block::GLOBALVAL_SUMMARY,
                BitstreamEntry::Record(MODULE_HASH) => {
                    hashed = reader.ops().iter().any(|&word| word != 0);
                }
                _ => {}
            }
        }
        if thin {
            return Ok(Some(hashed));
        }
    }
    Ok(None)
}

/// Enters the next module of a file; false if there is none.
fn enter_next_module(reader: &mut Reader) -> Result<bool, Malformed> {
    loop {
        match reader.next()? {
            BitstreamEntry::Block(b) if b.id == block::MODULE => {
                reader.enter()?;
                return Ok(true);
            }
            BitstreamEntry::Eof => return Ok(false),
            _ => {}
        }
    }
}

/// Reads a module that was entered.
fn read_module(reader: &mut Reader) -> Result<UnnamedModule, Malformed> {
    let mut m = UnnamedModule::default();
    while let Some(entry) = reader.next_in_block()? {
        match entry {
            BitstreamEntry::Block(b)
                if b.id == block::GLOBALVAL_SUMMARY
                    || b.id == block::FULL_LTO_GLOBALVAL_SUMMARY =>
            {
                m.thin |= b.id == block::GLOBALVAL_SUMMARY;
                m.full |= b.id == block::FULL_LTO_GLOBALVAL_SUMMARY;
                read_summary_flags(reader, &mut m.flags)?;
            }
            BitstreamEntry::Block(b) if b.id == block::PARAMATTR_GROUP => {
                m.attributes = m.attributes.or(FunctionAttributes::read(reader)?);
            }
            BitstreamEntry::Block(b) if b.id == block::CONSTANTS => {
                m.reads_files |= constants_read_files(reader)?;
            }
            BitstreamEntry::Block(b) if b.id == block::FUNCTION => {
                m.reads_files |= function_reads_files(reader)?;
            }
            BitstreamEntry::Record(MODULE_ASM) => {
                m.reads_files |= may_read_files(reader.ops());
            }
            BitstreamEntry::Record(MODULE_TRIPLE) => {
                m.triple = reader.ops().iter().map(|&c| c as u8).collect();
            }
            BitstreamEntry::Record(
                code @ (MODULE_GLOBALVAR | MODULE_FUNCTION | MODULE_ALIAS | MODULE_ALIAS_OLD
                | MODULE_IFUNC),
            ) => {
                let [offset, size, ..] = *reader.ops() else {
                    return Err(Malformed::Shape("a global without a name"));
                };
                let linkage = reader
                    .ops()
                    .get(if code == MODULE_ALIAS_OLD { 4 } else { 5 });
                let local = linkage.is_some_and(|l| LOCAL_LINKAGES.contains(l));
                m.names.push((offset, size, local));
            }
            _ => {}
        }
    }
    Ok(m)
}

/// Adds value number and flags of each summary in the block that comes next.
fn read_summary_flags(reader: &mut Reader, flags: &mut Vec<(u64, u64)>) -> Result<(), Malformed> {
    reader.enter()?;
    while let Some(entry) = reader.next_in_block()? {
        if let BitstreamEntry::Record(code) = entry {
            if PER_MODULE_SUMMARIES.contains(&code) {
                if let [value, of_value, ..] = *reader.ops() {
                    flags.push((value, of_value));
                }
            }
        }
    }
    Ok(())
}

/// Whether inline assembly in the function that comes next reads files: it is among its constants, which
/// come before its code (`ModuleBitcodeWriter::writeFunction`, llvm/lib/Bitcode/Writer/BitcodeWriter.cpp).
fn function_reads_files(reader: &mut Reader) -> Result<bool, Malformed> {
    reader.enter()?;
    let mut reads = false;
    while let Some(entry) = reader.next_in_block()? {
        match entry {
            BitstreamEntry::Block(b) if b.id == block::CONSTANTS => {
                reads |= constants_read_files(reader)?;
            }
            BitstreamEntry::Record(code) if code != DECLARE_BLOCKS => {
                reader.leave()?;
                break;
            }
            _ => {}
        }
    }
    Ok(reads)
}

/// Whether inline assembly among the constants that come next reads files.
fn constants_read_files(reader: &mut Reader) -> Result<bool, Malformed> {
    reader.enter_for(&INLINE_ASM)?;
    let mut reads = false;
    while let Some(entry) = reader.next_in_block()? {
        if let BitstreamEntry::Record(code) = entry {
            reads |= INLINE_ASM.contains(&code) && may_read_files(reader.ops());
        }
    }
    Ok(reads)
}

/// Gives a module's globals their names, which lie in `table`.
fn resolve_names(m: UnnamedModule, table: &[u8]) -> Result<Module<'_>, Malformed> {
    let mut globals = Vec::with_capacity(m.names.len());
    for (offset, size, local) in m.names {
        let end = offset.checked_add(size).ok_or(Malformed::Truncated)?;
        let name = table
            .get(offset as usize..end as usize)
            .ok_or(Malformed::Truncated)?;
        globals.push(Global {
            name,
            local,
            summary_dso_local: None,
        });
    }
    for (value, flags) in m.flags {
        if let Some(g) = globals.get_mut(value as usize) {
            g.summary_dso_local = Some(flags & FLAG_DSO_LOCAL != 0);
        }
    }
    let kind = if m.thin {
        LtoKind::Thin
    } else {
        LtoKind::Regular { summary: m.full }
    };
    Ok(Module {
        triple: m.triple,
        kind,
        globals,
        reads_files: m.reads_files,
        attributes: m.attributes,
    })
}
