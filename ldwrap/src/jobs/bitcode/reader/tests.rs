use super::*;
use crate::jobs::bitcode::made_up::{stream, write_block};
use crate::jobs::bitcode::writer::Writer;

/// Writes a block whose ids are 4 bits wide, in one whose are `outer`.
fn sub(w: &mut Writer, outer: u32, id: u64, inside: impl FnOnce(&mut Writer)) {
    write_block(w, outer, id, 4, inside);
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
            BitstreamEntry::Block(_) => reader.enter()?,
            BitstreamEntry::Record(code) => records.push((code, reader.ops().to_vec())),
            BitstreamEntry::End(_) => {}
            BitstreamEntry::Eof => return Ok(records),
        }
    }
}

#[test]
fn operands_that_nobody_wants_are_passed_over() {
    // The same code and elements, wanted or not, in each encoding of an array, and without an abbreviation.
    for element in [fixed(7), Err((2, Some(6))), Err((4, None))] {
        let bytes = stream(|w| {
            sub(w, 2, block::MODULE, |w| {
                abbrev(w, &[fixed(3), fixed(5), ARRAY, element]);
                for code in [1, 2, 1] {
                    w.fixed(4, 4);
                    w.fixed(code, 3);
                    w.fixed(9, 5);
                    w.vbr(3, 6);
                    for value in [3, 0, 30] {
                        match element {
                            Err((2, _)) => w.vbr(value, 6),
                            Err((4, _)) => w.fixed(value, 6),
                            _ => w.fixed(value, 7),
                        }
                    }
                    w.record(4, code, [5, 1 << 40].into_iter());
                }
            });
        });
        let all = records(&bytes).unwrap();
        assert_eq!(all.len(), 6);
        assert_eq!(all[1], (1, vec![5, 1 << 40]));
        let mut reader = Reader::new(&bytes).unwrap();
        assert!(matches!(reader.next(), Ok(BitstreamEntry::Block(_))));
        reader.enter_for(&[2]).unwrap();
        for (code, ops) in all {
            assert_eq!(reader.next(), Ok(BitstreamEntry::Record(code)));
            let wanted = if code == 2 { ops } else { Vec::new() };
            assert_eq!(reader.ops(), wanted);
        }
        assert!(matches!(reader.next(), Ok(BitstreamEntry::End(_))));
        // What is passed over is to be there, too.
        let mut cut = Reader::new(&bytes).unwrap();
        cut.next().unwrap();
        cut.enter_for(&[]).unwrap();
        cut.cursor.data = &bytes[..bytes.len() / 2];
        while let Ok(entry) = cut.next() {
            assert!(matches!(entry, BitstreamEntry::Record(_)));
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
    // It is read where no record of the module is wanted, too.
    let mut reader = Reader::new(&two).unwrap();
    reader.next().unwrap();
    reader.enter_for(&[]).unwrap();
    assert!(matches!(reader.next(), Ok(BitstreamEntry::Block(b)) if b.id == 11));
    reader.enter().unwrap();
    assert_eq!(reader.next(), Ok(BitstreamEntry::Record(1)));

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
