//! Our reader against `object`'s on random well-formed archives.

use object::read::archive::ArchiveFile;

use super::{header, read};
use fastrand::Rng;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Form {
    Gnu,
    GnuThin,
    Bsd,
}

/// An archive with or without a symbol table, whose members have short and long names, some twice, and
/// sizes of both parities.
fn archive(form: Form, random: &mut Rng) -> Vec<u8> {
    let count = random.usize(..12);
    let mut names: Vec<Vec<u8>> = Vec::new();
    for _ in 0..count {
        let name = match random.usize(..4) {
            0 if !names.is_empty() => names[random.usize(..names.len())].clone(),
            1 => b"long name of a member, number "
                .iter()
                .chain(random.usize(..1000).to_string().as_bytes())
                .copied()
                .collect(),
            2 if form == Form::GnuThin => b"dir/sub/m.o".to_vec(),
            _ => format!("m{}.o", random.usize(..1000)).into_bytes(),
        };
        names.push(name);
    }
    let magic = match form {
        Form::GnuThin => b"!<thin>\n",
        Form::Gnu | Form::Bsd => b"!<arch>\n",
    };
    let mut bytes = magic.to_vec();
    if random.usize(..2) == 0 {
        let field: &[u8] = match (form, random.usize(..2)) {
            (Form::Bsd, _) => b"__.SYMDEF",
            (_, 0) => b"/",
            (_, _) => b"/SYM64/",
        };
        append(
            &mut bytes,
            field,
            [&b""[..], b"\0\0\0\0", b"odd"][random.usize(..3)],
        );
    }
    let mut table = Vec::new();
    let mut fields = Vec::new();
    for name in &names {
        let long = name.len() > 15 || name.contains(&b'/') || random.usize(..3) == 0;
        fields.push(match (form, long) {
            (Form::Bsd, true) => format!("#1/{}", name.len().next_multiple_of(4)).into_bytes(),
            (Form::Bsd, false) => name.clone(),
            (_, true) => {
                let field = format!("/{}", table.len()).into_bytes();
                table.extend_from_slice(name);
                table.extend_from_slice(b"/\n");
                field
            }
            (_, false) => [name, &b"/"[..]].concat(),
        });
    }
    if !table.is_empty() {
        append(&mut bytes, b"//", &table);
    }
    for (field, name) in fields.iter().zip(&names) {
        let mut content = Vec::new();
        if field.starts_with(b"#1/") {
            content.extend_from_slice(name);
            content.resize(name.len().next_multiple_of(4), 0);
        }
        // Around the sizes of reads, too.
        let size = [
            random.usize(..40),
            190 + random.usize(..80),
            random.usize(..40_000),
        ];
        content.resize(content.len() + size[random.usize(..3)], b'x');
        match form {
            Form::GnuThin => bytes.extend(header(field, content.len())),
            Form::Gnu | Form::Bsd => append(&mut bytes, field, &content),
        }
    }
    bytes
}

fn append(archive: &mut Vec<u8>, field: &[u8], content: &[u8]) {
    archive.extend(header(field, content.len()));
    archive.extend_from_slice(content);
    if content.len() % 2 == 1 {
        archive.push(b'\n');
    }
}

#[test]
fn members_are_those_that_object_reads() {
    let mut random = Rng::with_seed(1);
    let mut members = 0;
    for form in [Form::Gnu, Form::GnuThin, Form::Bsd] {
        for _ in 0..400 {
            let bytes = archive(form, &mut random);
            let oracle = ArchiveFile::parse(&*bytes).unwrap();
            assert_eq!(oracle.is_thin(), form == Form::GnuThin);
            let theirs: Vec<_> = oracle
                .members()
                .map(|member| {
                    let member = member.unwrap();
                    let (data_offset, size) = member.file_range();
                    let header = member.header().unwrap();
                    let header_offset = std::ptr::from_ref(header).addr() - bytes.as_ptr().addr();
                    (
                        member.name().to_vec(),
                        header_offset as u64,
                        data_offset,
                        size,
                    )
                })
                .collect();
            let ours: Vec<_> = read(&bytes)
                .unwrap()
                .into_iter()
                .map(|member| {
                    assert_eq!(member.external.is_some(), form == Form::GnuThin);
                    let name = member.name.into_encoded_bytes();
                    (name, member.header_offset, member.data_offset, member.size)
                })
                .collect();
            assert_eq!(ours, theirs, "{form:?}");
            members += ours.len();
        }
    }
    assert!(members > 4_000, "{members}");
}
