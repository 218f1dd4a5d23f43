//! A shard, parsed and rewritten: refused, or changed in exactly what it was told to.

#![no_main]

use ldwrap::jobs::bitcode::block;
use ldwrap::jobs::bitcode::canonical::canonical;
use ldwrap::jobs::bitcode::reader::{BitstreamEntry, Block, Reader};
use ldwrap::jobs::bitcode::shard::{Definition, Shard, Summary};
use ldwrap_fuzz::tree;
use libfuzzer_sys::{fuzz_mutator, fuzz_target};
use std::collections::HashSet;

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    tree::mutate(data, size, max_size, seed)
});

fuzz_target!(|data: &[u8]| {
    let Ok(shard) = Shard::parse(data) else {
        return;
    };
    let known: HashSet<u64> = shard.summaries.iter().map(|s| s.guid).collect();
    let ids: HashSet<u64> = shard.modules.iter().map(|m| m.id).collect();
    assert!(shard.summaries.iter().all(|s| ids.contains(&s.module)));
    let stranger = (0..).find(|id| !ids.contains(id)).expect("they are few");
    assert!(shard.rewrite(stranger, &[], <[u8]>::to_vec).is_err());
    // What there is to choose is chosen by the input.
    let sum = data
        .iter()
        .fold(0, |sum: usize, &b| sum * 31 % 65521 + b as usize);
    let Some(own) = shard.modules.get(sum % shard.modules.len().max(1)) else {
        return;
    };
    let mut local = vec![1, u64::MAX, 1 << 63, 0x1234_5678_9abc_def0, 0xffff_ffff, 0];
    local.truncate(sum / 7 % 7);
    local.retain(|guid| !known.contains(guid));
    let rename = |path: &[u8]| match sum % 4 {
        0 => [b"m/", path].concat(),
        1 => path.to_vec(),
        2 => (0..=255).collect(),
        _ => path.iter().skip(1).copied().collect(),
    };
    let Ok(new) = shard.rewrite(own.id, &local, rename) else {
        return;
    };
    let after = Shard::parse(&new).expect("what we wrote can be read");

    let mut modules = shard.modules.clone();
    modules.iter_mut().for_each(|m| m.path = rename(&m.path));
    assert_eq!(after.modules, modules);
    let mut summaries = shard.summaries.clone();
    summaries.extend(local.iter().map(|&guid| Summary {
        guid,
        module: own.id,
        dso_local: true,
        definition: Definition::Strong,
    }));
    assert_eq!(after.summaries, summaries);
    bit_for_bit(data, &new, 2 * local.len());

    let same = after.rewrite(own.id, &[], <[u8]>::to_vec);
    assert_eq!(same.as_deref(), Ok(new.as_slice()), "not idempotent");

    if let Ok(Some(sorted)) = canonical(&new) {
        let of = Shard::parse(&sorted).expect("what we wrote can be read");
        assert_eq!(of.modules, modules);
        let in_order = |mut all: Vec<Summary>| {
            all.sort_by_key(|s| (s.module, s.guid, s.dso_local, s.definition));
            all
        };
        assert_eq!(in_order(of.summaries), in_order(summaries));
        assert_eq!(canonical(&sorted), Ok(Some(sorted)), "not idempotent");
    }
});

/// A shard's parts, and its records outside the module paths that matter here.
struct Parts {
    parent: Block,
    strtab: Block,
    hashes: Vec<Vec<u64>>,
    summary: Block,
    end: u64,
    records: Vec<(u64, Vec<u64>)>,
}

fn parts(bytes: &[u8]) -> Parts {
    let mut reader = Reader::new(bytes).unwrap();
    let (mut parent, mut strtab, mut summary, mut end) = (None, None, None, 0);
    let (mut hashes, mut records) = (Vec::new(), Vec::new());
    loop {
        match reader.next().unwrap() {
            BitstreamEntry::Block(b) if b.id == block::MODULE => reader.enter().unwrap(),
            BitstreamEntry::Block(b) if b.id == block::MODULE_STRTAB => {
                parent = reader.open_blocks().last();
                reader.enter().unwrap();
                strtab = Some(b);
                while let BitstreamEntry::Record(code) = reader.next().unwrap() {
                    if code == 2 {
                        hashes.push(reader.ops().to_vec());
                    }
                }
            }
            BitstreamEntry::Block(b) if b.id == block::GLOBALVAL_SUMMARY => {
                reader.enter().unwrap();
                summary = Some(b);
                loop {
                    match reader.next().unwrap() {
                        BitstreamEntry::Record(code) => records.push((code, reader.ops().to_vec())),
                        BitstreamEntry::End(at) => break end = at,
                        other => panic!("{other:?} among the summaries"),
                    }
                }
            }
            BitstreamEntry::Eof => break,
            _ => {}
        }
    }
    let (parent, strtab, summary) = (parent.unwrap(), strtab.unwrap(), summary.unwrap());
    Parts {
        parent,
        strtab,
        hashes,
        summary,
        end,
        records,
    }
}

/// All but the module paths and `added` records is as it was.
fn bit_for_bit(old: &[u8], new: &[u8], added: usize) {
    let (a, b) = (parts(old), parts(new));
    // Length fields aside, which reading has checked.
    let without = |bytes: &[u8], p: &Parts| {
        let mut bytes = bytes.to_vec();
        for block in [p.parent, p.strtab, p.summary] {
            bytes[block.length_at as usize / 8..][..4].fill(0);
        }
        bytes
    };
    let (old, new) = (without(old, &a), without(new, &b));
    let range = |from: u64, to: u64| from as usize / 8..to as usize / 8;
    assert_eq!(old[range(0, a.strtab.start)], new[range(0, b.strtab.start)]);
    assert_eq!(a.hashes, b.hashes);
    let between = |bytes: &[u8], p: &Parts| {
        let mut part = bytes[range(p.strtab.after, p.end.next_multiple_of(8))].to_vec();
        if let (Some(last), used @ 1..) = (part.last_mut(), p.end % 8) {
            *last &= (1 << used) - 1;
        }
        part
    };
    // Behind its last bit, the old one ends; the new one goes on.
    let kept = between(&old, &a);
    let cut = Parts {
        end: a.end + b.strtab.after - a.strtab.after,
        ..b
    };
    assert_eq!(kept, between(&new, &cut));
    let b = cut;
    assert_eq!(b.records.len(), a.records.len() + added);
    assert_eq!(b.records[..a.records.len()], a.records);
    assert_eq!(
        old[range(a.summary.after, old.len() as u64 * 8)],
        new[range(b.summary.after, new.len() as u64 * 8)]
    );
}
