//! A shard's summaries in an order that only their content decides.
//!
//! LLVM numbers a shard's values as it comes upon them in hash maps, and since 20 what is imported
//! elsewhere in the link, or how the modules' paths begin, can change the order of these
//! (`ImportIDTable`, llvm/Transforms/IPO/FunctionImport.h). The backend's code is the same, but the
//! bytes are others, and so would be the key by which its object is known.
//!
//! Values get their numbers in the order of their GUIDs, and each module's summaries come in that order,
//! aliases last, as LLVM has them. The order of a symbol's summaries among each other stays: that is all
//! that a reader of the index sees of the order (`parseEntireSummary`,
//! llvm/lib/Bitcode/Reader/BitcodeReader.cpp). A shard with records that are not known here to the last
//! operand stays as it is: its object may then be compiled once more than needed, no more than that.

use super::reader::{BitstreamEntry, Block, Reader};
use super::shard::{
    BLOCK_COUNT, COMBINED_ALIAS, COMBINED_GLOBALVAR, COMBINED_PROFILE, VALUE_GUID, VERSION,
};
use super::writer::Writer;
use super::{Malformed, block};
use std::collections::HashMap;

/// Records of GLOBALVAL_SUMMARY_BLOCK (`GlobalValueSummarySymtabCodes`, llvm/Bitcode/LLVMBitCodes.h).
const COMBINED_ORIGINAL_NAME: u64 = 9;
/// What the next function's summary has of types, in GUIDs.
const TYPE_TESTS: u64 = 11;
const TYPE_CHECKED_LOAD_CONST_VCALL: u64 = 15;
const CFI_FUNCTION_DEFS: u64 = 17;
const CFI_FUNCTION_DECLS: u64 = 18;
const FLAGS: u64 = 20;
const TYPE_ID: u64 = 21;
/// The first version of summaries in which a function's calls always have two operands, as in LLVM 19.
const FIRST_VERSION: u64 = 10;
/// Where a function's counts of references are, and where the references begin.
const NUM_REFS: usize = 6;
const REFS: usize = 9;

#[derive(Debug, Clone)]
struct Record {
    code: u64,
    ops: Vec<u64>,
}

/// A summary, with the records that belong to it.
#[derive(Debug)]
struct Group {
    module: u64,
    guid: u64,
    records: Vec<Record>,
}

/// The shard in its canonical form; `None` if it has any record of an unknown form.
pub fn canonical(bytes: &[u8]) -> Result<Option<Vec<u8>>, Malformed> {
    let Some((parent, summary, records)) = read(bytes)? else {
        return Ok(None);
    };
    match sort(records) {
        Some(sorted) => with_records(bytes, (parent, summary), sorted).map(Some),
        None => Ok(None),
    }
}

/// The shard without the number of basic blocks that all modules of the link have together, which LLVM 14 and 16
/// write; `None` if it has none. Only a backend whose module has a partial profile asks for it
/// (`Module::setPartialSampleProfileRatio`, llvm/lib/IR/Module.cpp), and lld's own keys do not have it.
pub fn without_block_count(bytes: &[u8]) -> Result<Option<Vec<u8>>, Malformed> {
    let Some((parent, summary, mut records)) = read(bytes)? else {
        return Ok(None);
    };
    let all = records.len();
    records.retain(|record| record.code != BLOCK_COUNT);
    match records.len() < all {
        true => with_records(bytes, (parent, summary), records).map(Some),
        false => Ok(None),
    }
}

/// A shard with other records in its summary block, which is in `parent`.
fn with_records(
    bytes: &[u8],
    (parent, summary): (Block, Block),
    records: Vec<Record>,
) -> Result<Vec<u8>, Malformed> {
    let mut w = Writer::with_capacity(bytes.len() + bytes.len() / 4);
    w.copy(bytes, 0, summary.start);
    for record in records {
        w.record(summary.width, record.code, record.ops.into_iter());
    }
    w.end_block(summary.width);
    let end = w.pos();
    w.copy(bytes, summary.after, bytes.len() as u64 * 8);
    let words =
        |bits: u64| u32::try_from(bits / 32).map_err(|_| Malformed::Shape("it grows too long"));
    w.patch_word(summary.length_at, words(end - summary.start)?);
    let after = end + parent.after - summary.after;
    w.patch_word(parent.length_at, words(after - parent.start)?);
    Ok(w.into_bytes())
}

/// The summary block, the one it is in, and its records.
fn read(bytes: &[u8]) -> Result<Option<(Block, Block, Vec<Record>)>, Malformed> {
    let mut reader = Reader::new(bytes)?;
    let mut found = None;
    loop {
        match reader.next()? {
            BitstreamEntry::Eof => return Ok(found),
            BitstreamEntry::Block(b) if b.id == block::MODULE => reader.enter()?,
            BitstreamEntry::Block(b) if b.id == block::GLOBALVAL_SUMMARY => {
                let Some(parent) = reader.open_blocks().last() else {
                    return Ok(None);
                };
                reader.enter()?;
                let mut records = Vec::new();
                loop {
                    match reader.next()? {
                        BitstreamEntry::Record(code) if reader.blob().is_none() => {
                            records.push(Record {
                                code,
                                ops: reader.ops().to_vec(),
                            })
                        }
                        BitstreamEntry::End(_) => break,
                        _ => return Ok(None),
                    }
                }
                if found.replace((parent, b, records)).is_some() {
                    return Ok(None);
                }
            }
            _ => {}
        }
    }
}

/// A summary block's records, by where they are in the canonical form.
#[derive(Default)]
struct Parts {
    /// Version and flags.
    head: Vec<Record>,
    /// GUID, number and record of each value.
    values: Vec<(u64, u64, Record)>,
    /// Summaries of functions and variables.
    groups: Vec<Group>,
    aliases: Vec<Group>,
    /// What is said of types.
    tail: Vec<Record>,
}

impl Parts {
    /// Takes a block's records apart; `None` if one is unknown or out of place.
    fn of(records: Vec<Record>) -> Option<Self> {
        let mut parts = Self::default();
        let mut guids = HashMap::new();
        // Those of the summary that comes next, and whether the last summary, an alias or not, may be
        // given its old name.
        let mut pending = Vec::new();
        let mut nameable: Option<bool> = None;
        for record in records {
            let last_is_alias = nameable.take();
            match (record.code, record.ops.as_slice()) {
                (VERSION, &[version]) if version >= FIRST_VERSION => parts.head.push(record),
                (FLAGS, [_]) => parts.head.push(record),
                (VALUE_GUID, &[value, guid]) => {
                    guids.insert(value, guid);
                    parts.values.push((guid, value, record));
                }
                (VALUE_GUID, &[value, high, low]) => {
                    guids.insert(value, high << 32 | low);
                    parts.values.push((high << 32 | low, value, record));
                }
                (TYPE_TESTS..=TYPE_CHECKED_LOAD_CONST_VCALL, _) => pending.push(record),
                (COMBINED_PROFILE | COMBINED_GLOBALVAR | COMBINED_ALIAS, &[value, module, ..]) => {
                    // They are a function's.
                    if record.code != COMBINED_PROFILE && !pending.is_empty() {
                        return None;
                    }
                    let is_alias = record.code == COMBINED_ALIAS;
                    pending.push(record);
                    parts.summaries(is_alias).push(Group {
                        module,
                        guid: *guids.get(&value)?,
                        records: std::mem::take(&mut pending),
                    });
                    nameable = Some(is_alias);
                }
                (COMBINED_ORIGINAL_NAME, [_]) => {
                    let last = parts.summaries(last_is_alias?).last_mut()?;
                    last.records.push(record);
                }
                (CFI_FUNCTION_DEFS | CFI_FUNCTION_DECLS | TYPE_ID, _) => parts.tail.push(record),
                _ => return None,
            }
        }
        let complete = pending.is_empty() && parts.head.first()?.code == VERSION;
        complete.then_some(parts)
    }

    fn summaries(&mut self, aliases: bool) -> &mut Vec<Group> {
        if aliases {
            &mut self.aliases
        } else {
            &mut self.groups
        }
    }
}

/// The records in canonical order, with canonical numbers.
fn sort(records: Vec<Record>) -> Option<Vec<Record>> {
    let mut parts = Parts::of(records)?;
    let numbers = sort_values(&mut parts.values)?;
    sort_groups(&mut parts.groups)?;
    sort_groups(&mut parts.aliases)?;
    let values = parts.values.into_iter().map(|(_, _, record)| record);
    let summaries = parts.groups.into_iter().chain(parts.aliases);
    let mut sorted: Vec<Record> = parts
        .head
        .into_iter()
        .chain(values)
        .chain(summaries.flat_map(|group| group.records))
        .chain(parts.tail)
        .collect();
    for record in &mut sorted {
        renumber(record, &numbers)?;
    }
    Some(sorted)
}

/// Sorts values by GUID and drops those of a GUID that another has already: one that is referred to and
/// has a summary of ours has two numbers, and one will do. Gives each old number's new one, from 1 on;
/// `None` if two values have one number.
fn sort_values(values: &mut Vec<(u64, u64, Record)>) -> Option<HashMap<u64, u64>> {
    values.sort_by_key(|(guid, ..)| *guid);
    let mut numbers = HashMap::new();
    let mut last = None;
    let mut count = 0;
    for (guid, old, _) in values.iter() {
        count += u64::from(last.replace(*guid) != Some(*guid));
        numbers.insert(*old, count);
    }
    if numbers.len() != values.len() {
        return None;
    }
    values.dedup_by_key(|(guid, ..)| *guid);
    Some(numbers)
}

/// Sorts summaries by module and GUID. `None` if those of one symbol are not in the order of their
/// modules already: they have to keep their order.
fn sort_groups(groups: &mut [Group]) -> Option<()> {
    let mut last = HashMap::new();
    for group in groups.iter() {
        let before = last.insert(group.guid, group.module);
        if before.is_some_and(|module| module > group.module) {
            return None;
        }
    }
    groups.sort_by_key(|group| (group.module, group.guid));
    Some(())
}

/// Puts the new numbers of values in a record.
fn renumber(record: &mut Record, numbers: &HashMap<u64, u64>) -> Option<()> {
    let ops = record.ops.as_mut_slice();
    let (values, calls): (&mut [u64], &mut [u64]) = match record.code {
        VALUE_GUID => (ops.get_mut(..1)?, &mut []),
        COMBINED_GLOBALVAR => {
            let (value, rest) = ops.split_first_mut()?;
            replace(value, numbers)?;
            (rest.get_mut(3..)?, &mut [])
        }
        COMBINED_ALIAS => match ops {
            [value, _, _, aliasee] => {
                replace(value, numbers)?;
                (std::slice::from_mut(aliasee), &mut [])
            }
            _ => return None,
        },
        COMBINED_PROFILE => {
            let refs = usize::try_from(*ops.get(NUM_REFS)?).ok()?;
            let (value, rest) = ops.split_first_mut()?;
            replace(value, numbers)?;
            let rest = rest.get_mut(REFS - 1..)?;
            rest.split_at_mut_checked(refs)?
        }
        _ => return Some(()),
    };
    for value in values {
        replace(value, numbers)?;
    }
    let mut calls = calls.chunks_exact_mut(2);
    for call in &mut calls {
        replace(call.first_mut()?, numbers)?;
    }
    calls.into_remainder().is_empty().then_some(())
}

fn replace(value: &mut u64, numbers: &HashMap<u64, u64>) -> Option<()> {
    *value = *numbers.get(value)?;
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs::bitcode::made_up::{Node, encode};
    use crate::jobs::bitcode::shard::Shard;

    fn shard(summaries: &[(u64, &[u64])]) -> Vec<u8> {
        let paths = (0..3).map(|id| Node::record(1, [id, u64::from(b'a') + id]));
        let summaries = summaries
            .iter()
            .map(|(code, ops)| Node::record(*code, *ops));
        let module = vec![
            Node::block(block::MODULE_STRTAB, paths.collect()),
            Node::block(block::GLOBALVAL_SUMMARY, summaries.collect()),
        ];
        encode(&[Node::block(block::MODULE, module)]).unwrap()
    }

    /// A function, two variables, an alias and a copy of one variable elsewhere; `n` are the numbers of
    /// four GUIDs, `order` that of the first module's summaries.
    fn link(n: [u64; 4], order: [usize; 3]) -> Vec<u8> {
        let guid = |i: usize| vec![n[i], 7, 100 + i as u64];
        let own: [Vec<(u64, Vec<u64>)>; 3] = [
            vec![
                (TYPE_TESTS, vec![1, 2]),
                (
                    COMBINED_PROFILE,
                    vec![n[0], 0, 64, 9, 1, 0, 2, 1, 0, n[2], n[1], n[3], 3, n[0], 1],
                ),
                (COMBINED_ORIGINAL_NAME, vec![5]),
            ],
            vec![(COMBINED_GLOBALVAR, vec![n[1], 0, 64, 1, n[2]])],
            vec![(COMBINED_GLOBALVAR, vec![n[2], 0, 65, 2])],
        ];
        let mut all = vec![(VERSION, vec![12]), (FLAGS, vec![1120])];
        all.extend((0..4).map(|i| (VALUE_GUID, guid(i))));
        all.extend(order.iter().flat_map(|&i| own[i].clone()));
        all.push((COMBINED_GLOBALVAR, vec![n[1], 1, 32, 0]));
        all.push((COMBINED_ALIAS, vec![n[3], 0, 66, n[0]]));
        // As we add them.
        all.push((VALUE_GUID, vec![n[3] + 5000, 7, 50]));
        all.push((COMBINED_GLOBALVAR, vec![n[3] + 5000, 0, 0x70, 0]));
        all.push((TYPE_ID, vec![1, 2, 3]));
        let all: Vec<_> = all.iter().map(|(c, ops)| (*c, ops.as_slice())).collect();
        shard(&all)
    }

    #[test]
    fn content_alone_decides() {
        let one = link([1, 2, 3, 4], [0, 1, 2]);
        let first = canonical(&one).unwrap().unwrap();
        for (numbers, order) in [
            ([4, 3, 2, 1], [0, 1, 2]),
            ([1, 2, 3, 4], [2, 0, 1]),
            ([40, 7, 1000, 3], [2, 1, 0]),
        ] {
            let other = link(numbers, order);
            assert_ne!(other, one);
            assert_eq!(canonical(&other).unwrap().as_ref(), Some(&first));
        }
        assert_eq!(canonical(&first).unwrap(), Some(first.clone()));
        let say = |bytes: &[u8]| {
            let mut all = Shard::parse(bytes).unwrap().summaries;
            all.sort_by_key(|s| (s.module, s.guid));
            all
        };
        assert_eq!(say(&first), say(&one));
        assert_eq!(say(&first).len(), 6);
        // What is said of the function is still that: its references, in their order, and its calls.
        let records = read(&first).unwrap().unwrap().2;
        let function = records.iter().find(|r| r.code == COMBINED_PROFILE).unwrap();
        assert_eq!(function.ops, [2, 0, 64, 9, 1, 0, 2, 1, 0, 4, 3, 5, 3, 2, 1]);
        let at = records
            .iter()
            .position(|r| r.code == COMBINED_PROFILE)
            .unwrap();
        assert_eq!(records[at - 1].code, TYPE_TESTS);
        assert_eq!(records[at + 1].code, COMBINED_ORIGINAL_NAME);
    }

    #[test]
    fn a_count_of_the_whole_link_goes() {
        let records: [(u64, &[u64]); 3] = [
            (VERSION, &[9]),
            (VALUE_GUID, &[1, 7]),
            (COMBINED_GLOBALVAR, &[1, 0, 0, 0]),
        ];
        let plain = shard(&records);
        let counted = shard(&[records.as_slice(), &[(BLOCK_COUNT, &[5])]].concat());
        assert_ne!(plain, counted);
        assert_eq!(without_block_count(&counted), Ok(Some(plain.clone())));
        assert_eq!(without_block_count(&plain), Ok(None));
        let read = |bytes: &[u8]| Shard::parse(bytes).map(|shard| shard.has_block_count);
        assert_eq!((read(&counted), read(&plain)), (Ok(true), Ok(false)));
    }

    #[test]
    fn what_is_not_known_stays() {
        let head: [(u64, &[u64]); 2] = [(VERSION, &[12]), (VALUE_GUID, &[1, 2, 3])];
        let with =
            |more: &[(u64, &[u64])]| canonical(&shard(&[head.as_slice(), more].concat())).unwrap();
        assert!(with(&[(COMBINED_GLOBALVAR, &[1, 0, 0, 0])]).is_some());
        for more in [
            // Another kind of summary, a record of memory profiles.
            &[(4, &[1, 0, 0, 0][..])][..],
            &[(30, &[1])],
            // A value without a GUID, as a reference, a callee, an aliasee.
            &[(COMBINED_GLOBALVAR, &[1, 0, 0, 0, 9])],
            &[(COMBINED_PROFILE, &[1, 0, 0, 0, 0, 0, 0, 0, 0, 9, 0])],
            &[(COMBINED_ALIAS, &[1, 0, 0, 9])],
            // Half a call, more references than operands.
            &[(COMBINED_PROFILE, &[1, 0, 0, 0, 0, 0, 0, 0, 0, 1])],
            &[(COMBINED_PROFILE, &[1, 0, 0, 0, 0, 0, 2, 0, 0, 1])],
            &[(COMBINED_PROFILE, &[1, 0, 0, 0, 0, 0, u64::MAX, 0, 0, 1])],
            // Out of place.
            &[(TYPE_TESTS, &[1])],
            &[(TYPE_TESTS, &[1]), (COMBINED_GLOBALVAR, &[1, 0, 0, 0])],
            &[(COMBINED_ORIGINAL_NAME, &[1])],
            // One symbol's modules not in order.
            &[
                (COMBINED_GLOBALVAR, &[1, 1, 0, 0]),
                (COMBINED_GLOBALVAR, &[1, 0, 0, 0]),
            ],
        ] {
            assert_eq!(with(more), None, "{more:?}");
        }
        // Two numbers of one GUID are one; two GUIDs of one number are none.
        assert_eq!(with(&[(VALUE_GUID, &[9, 2, 3])]), with(&[]));
        assert_eq!(with(&[(VALUE_GUID, &[1, 7, 7])]), None);
        assert_eq!(canonical(&shard(&[(VERSION, &[9])])).unwrap(), None);
    }
}
