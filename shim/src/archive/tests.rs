//! The reader on archives built here, good, malformed and random.

mod oracle;

use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::reader::MAX_NAME;
use super::*;

/// A file without a name that holds `bytes`.
fn file_of(bytes: &[u8]) -> File {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let n = COUNT.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("archive-test-{}-{n}", std::process::id()));
    std::fs::write(&path, bytes).unwrap();
    let file = File::open(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    file
}

fn header(name: &[u8], size: usize) -> Vec<u8> {
    let mut header = vec![b' '; 60];
    header[..name.len()].copy_from_slice(name);
    let size = size.to_string();
    header[48..48 + size.len()].copy_from_slice(size.as_bytes());
    header[58..].copy_from_slice(b"`\n");
    header
}

/// An archive of fields and contents, padded as GNU's and LLVM's are.
pub(super) fn build(magic: &[u8], members: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut bytes = magic.to_vec();
    for (name, content) in members {
        bytes.extend(header(name, content.len()));
        bytes.extend_from_slice(content);
        if content.len() % 2 == 1 {
            bytes.push(b'\n');
        }
    }
    bytes
}

fn regular(members: &[(&[u8], &[u8])]) -> Vec<u8> {
    build(b"!<arch>\n", members)
}

fn read(bytes: &[u8]) -> Result<Vec<Member>, ArchiveError> {
    let mut archive = Archive::open(Path::new("dir/lib.a"), file_of(bytes))?;
    let mut members = Vec::new();
    while let Some(header) = archive.next_header()? {
        let member = archive.member(&header)?;
        let mut head = [0; 8];
        if member.external.is_none() {
            let len = archive.read_head(&header, &mut head).unwrap();
            let data = &bytes[member.data_offset as usize..][..member.size as usize];
            assert_eq!(head[..len], data[..data.len().min(8)]);
        }
        assert_eq!(archive.member_at(member.header_offset).unwrap(), member);
        members.push(member);
    }
    Ok(members)
}

fn names(bytes: &[u8]) -> Vec<String> {
    let show = |m: &Member| m.name.as_bytes().escape_ascii().to_string();
    read(bytes).unwrap().iter().map(show).collect()
}

fn fault(bytes: &[u8]) -> (u64, &'static str) {
    match read(bytes).unwrap_err() {
        ArchiveError {
            offset,
            fault: Fault::Malformed(what),
            ..
        } => (offset, what),
        e => panic!("{e}"),
    }
}

#[test]
fn gnu_names() {
    let bytes = regular(&[
        (b"/", b"\0\0\0\0"),
        (b"//", b"a long name.o/\ndir/b (1).o/\n\xff/\n"),
        (b"/0", b"one"),
        (b"short.o/", b""),
        (b"/15", b"three"),
        (b"with blank.o/", b"4"),
        (b"short.o/", b"again"),
        (b"/28", b"x"),
        (b"16 characters__/", b""),
        (b"no slash", b"x"),
    ]);
    assert_eq!(
        names(&bytes),
        [
            "a long name.o",
            "short.o",
            "dir/b (1).o",
            "with blank.o",
            "short.o",
            "\\xff",
            "16 characters__",
            "no slash",
        ]
    );
    let members = read(&bytes).unwrap();
    assert_eq!(members[0].header_offset, 8 + 64 + 60 + 32);
    assert_eq!(members[0].data_offset, members[0].header_offset + 60);
    assert_eq!(members[0].size, 3);
    assert_eq!(members[1].header_offset, members[0].data_offset + 4);
}

#[test]
fn bsd_names() {
    let bytes = regular(&[
        (b"#1/20", b"__.SYMDEF SORTED\0\0\0\0\x08"),
        (b"#1/12", b"a name.o\0\0\0\0BC\xc0\xde"),
        (b"plain.o", b"xy"),
        (b"#1/3", b"dup"),
    ]);
    assert_eq!(names(&bytes), ["a name.o", "plain.o", "dup"]);
    let members = read(&bytes).unwrap();
    assert_eq!(members[0].data_offset, members[0].header_offset + 72);
    assert_eq!(members[0].size, 4);
    assert_eq!(
        names(&regular(&[(b"__.SYMDEF", b"x"), (b"b.o", b"y")])),
        ["b.o"]
    );
}

#[test]
fn other_tables() {
    assert_eq!(
        names(&regular(&[(b"/SYM64/", b"x"), (b"a.o/", b"y")])),
        ["a.o"]
    );
    let coff = regular(&[
        (b"/", b"x"),
        (b"/", b"y"),
        (b"//", b"first name of sixteen.o\0second\0"),
        (b"/<ECSYMBOLS>/", b""),
        (b"/0", b"1"),
        (b"/24", b"2"),
    ]);
    assert_eq!(names(&coff), ["first name of sixteen.o", "second"]);
    assert!(names(&regular(&[(b"/", b"xyz")])).is_empty());
    assert!(names(&regular(&[(b"//", b"a/\n")])).is_empty());
}

#[test]
fn empty_archives() {
    assert!(names(b"!<arch>\n").is_empty());
    assert!(names(b"!<thin>\n").is_empty());
}

#[test]
fn thin_members_are_files() {
    let table = b"sub/a.o/\n/abs/b.o/\n";
    let mut bytes = build(b"!<thin>\n", &[(b"/", b"tab"), (b"//", table)]);
    for field in [&b"/0"[..], b"/9", b"c.o/"] {
        bytes.extend(header(field, 9_999_999_999));
    }
    let members = read(&bytes).unwrap();
    let files: Vec<_> = members
        .iter()
        .map(|m| m.external.clone().unwrap())
        .collect();
    let paths = ["dir/sub/a.o", "/abs/b.o", "dir/c.o"].map(PathBuf::from);
    assert_eq!(files, paths);
    assert_eq!(members[1].header_offset, members[0].header_offset + 60);
    assert_eq!(members[0].size, 9_999_999_999);
}

#[test]
fn what_is_wrong_and_where() {
    let whole = regular(&[(b"a.o/", b"1234"), (b"b.o/", b"5678")]);
    assert_eq!(fault(&whole[..100]), (72, "member header cut off"));
    assert_eq!(
        fault(&whole[..133]),
        (72, "member that runs past the end of the file")
    );
    assert_eq!(fault(&whole[..20]), (8, "member header cut off"));
    assert_eq!(fault(b"!<arch>"), (0, "magic"));
    assert_eq!(fault(b"!<arch>!"), (0, "no archive magic"));
    // A last member without its padding byte: LLVM refuses it too.
    let odd = regular(&[(b"a.o/", b"123")]);
    assert_eq!(
        fault(&odd[..71]),
        (8, "member that runs past the end of the file")
    );
    let mut bytes = whole.clone();
    bytes[67] = b'x';
    assert_eq!(fault(&bytes), (8, "member header without its terminator"));
    let mut bytes = whole.clone();
    bytes[56..58].copy_from_slice(b"9x");
    assert_eq!(fault(&bytes).1, "member size that is no decimal number");
    bytes[56..66].copy_from_slice(b"9999999999");
    assert_eq!(fault(&bytes).1, "member that runs past the end of the file");
    let far = regular(&[(b"//", b"a/\n"), (b"/3", b"")]);
    assert_eq!(fault(&far).1, "long name offset beyond the name table");
    let open = regular(&[(b"//", b"a\nb"), (b"/0", b"")]);
    assert_eq!(
        fault(&open).1,
        "long name without its end in the name table"
    );
    let none = regular(&[(b"/0", b"")]);
    assert_eq!(fault(&none).1, "long name offset beyond the name table");
    let long = regular(&[(b"#1/9", b"short")]);
    assert_eq!(fault(&long).1, "long name length that is out of range");
    let error = read(&whole[..100]).unwrap_err().to_string();
    assert!(
        error.contains("dir/lib.a") && error.contains("offset 72"),
        "{error}"
    );
}

#[test]
fn names_have_a_limit() {
    let archive = |len: usize| {
        let table = [&b"x".repeat(len)[..], b"/\n"].concat();
        regular(&[(b"//", &table), (b"/0", b"y"), (b"/1", b"z")])
    };
    let max = MAX_NAME as usize;
    assert_eq!(names(&archive(max - 2))[1].len(), max - 3);
    assert_eq!(
        fault(&archive(max)).1,
        "long name without its end in the name table"
    );
}

/// Archives cut and overwritten at random: an end or an error, soon, whatever they say.
#[test]
fn hostile_archives() {
    let table = b"a long name.o/\ndir/b.o/\n";
    let seeds = [
        regular(&[
            (b"/", b"\0\0\0\0"),
            (b"//", table),
            (b"/0", b"x"),
            (b"c.o/", b"yz"),
        ]),
        regular(&[
            (b"#1/20", b"__.SYMDEF SORTED\0\0\0\0"),
            (b"#1/4", b"a.o\0BC\xc0\xde"),
        ]),
        build(
            b"!<thin>\n",
            &[(b"//", table), (b"/0", b""), (b"/15", b""), (b"d/", b"")],
        ),
    ];
    let mut random = fastrand::Rng::with_seed(1);
    let mut below = |n: usize| random.usize(..n);
    for _ in 0..6_000 {
        let mut bytes = seeds[below(seeds.len())].clone();
        for _ in 0..=below(4) {
            let at = below(bytes.len());
            match below(4) {
                0 => bytes[at] = b"0123456789/# `\n\0"[below(16)],
                1 => bytes.truncate(at.max(8)),
                2 => bytes[at] = below(256) as u8,
                _ => {
                    let size = bytes.get_mut(56..66).unwrap_or_default();
                    size.fill(b'0' + below(10) as u8);
                }
            }
        }
        let Ok(mut archive) = Archive::open(Path::new("x.a"), file_of(&bytes)) else {
            continue;
        };
        let mut count = 0;
        while let Ok(Some(header)) = archive.next_header() {
            count += 1;
            assert!(count * 60 <= bytes.len());
            let Ok(member) = archive.member(&header) else {
                break;
            };
            let mut head = [0; 64];
            if member.external.is_none() {
                let len = archive.read_head(&header, &mut head).unwrap();
                assert!(len as u64 <= member.size);
            }
        }
        for at in 0..bytes.len() as u64 + 2 {
            let _ = archive.member_at(at);
        }
    }
}
