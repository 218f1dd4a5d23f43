//! An archive: its members lie in it, and each is found by the name that lld has for it.

#![no_main]

use ldwrap_fuzz::{dir, file};
use libfuzzer_sys::fuzz_target;
use shim::archive::{self, Archive, ArchiveError, Member};
use shim::cmdline::CommandLine;
use shim::inputs::{self, InputError, Visit};
use shim::kind::{self, Kind};
use std::ffi::OsString;
use std::fs::File;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

fuzz_target!(|data: &[u8]| {
    let path = file("lib.a", data);
    let Ok(mut archive) = Archive::open(&path, File::open(&path).unwrap()) else {
        return;
    };
    let mut members = Vec::new();
    let read = read(&mut archive, data, &mut members);
    let names = members.iter().take(16).chain(members.last());
    names.for_each(|m| locate(&path, data, m));

    if !archive.is_thin() {
        let seen = visit(&path);
        assert_eq!(seen.is_ok(), read.is_ok());
        for ((at, kind), m) in seen.unwrap_or_default().iter().zip(&members) {
            assert_eq!(*at, m.header_offset);
            match kind::kind_of(head(data, m)) {
                Kind::ElfRelocatable => {
                    assert!(matches!(kind, Kind::ElfRelocatable | Kind::FatElf))
                }
                expected => assert_eq!(*kind, expected),
            }
        }
    }
});

/// Reads all members, as far as that goes.
fn read(archive: &mut Archive, data: &[u8], members: &mut Vec<Member>) -> Result<(), ArchiveError> {
    let mut last = 0;
    while let Some(header) = archive.next_header()? {
        let m = archive.member(&header)?;
        assert!(m.header_offset >= last + if last == 0 { 8 } else { 60 });
        last = m.header_offset;
        assert!(last + 60 <= data.len() as u64);
        assert_eq!(archive.member_at(last)?, m);
        assert_eq!(m.external.is_some(), archive.is_thin());
        if m.external.is_none() {
            assert!(m.data_offset >= last + 60);
            assert!(m.data_offset + m.size <= data.len() as u64);
            let mut buf = [0; kind::HEAD_LEN];
            let len = archive.read_head(&header, &mut buf).unwrap();
            assert_eq!(&buf[..len], head(data, &m));
        }
        members.push(m);
    }
    assert!(archive.next_header()?.is_none());
    Ok(())
}

fn head<'a>(data: &'a [u8], m: &Member) -> &'a [u8] {
    let bytes = &data[m.data_offset as usize..][..m.size as usize];
    &bytes[..bytes.len().min(kind::HEAD_LEN)]
}

fn locate(path: &Path, data: &[u8], m: &Member) {
    let name = m.name.as_bytes();
    let base = name.rsplit(|&b| b == b'/').next().unwrap_or_default();
    let mut id = path.as_os_str().as_bytes().to_vec();
    id.extend([b"(", base, format!(" at {})", m.header_offset).as_bytes()].concat());
    let plain = |&b: &u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    match archive::locate(&OsString::from_vec(id)) {
        Ok(found) => match &m.external {
            Some(file) => {
                assert_eq!(
                    (&found.path, found.offset, found.whole_file),
                    (file, 0, true)
                );
                assert!(file.starts_with("/"));
            }
            None => {
                assert_eq!((found.offset, found.size), (m.data_offset, m.size));
                assert_eq!((found.path.as_path(), found.whole_file), (path, false));
                assert!(found.offset + found.size <= data.len() as u64);
            }
        },
        // Odd names may be ambiguous, and the files of a thin archive need not be there.
        Err(e) => {
            let odd = base.is_empty() || !base.iter().all(plain) || name.starts_with(b"//");
            let gone = m.external.as_ref().is_some_and(|f| !f.is_file());
            assert!(odd || gone, "{e} {m:?}");
        }
    }
}

fn visit(path: &Path) -> Result<Vec<(u64, Kind)>, InputError> {
    let args = [OsString::from("--fat-lto-objects"), path.into()];
    let mut seen = Vec::new();
    let cmd = CommandLine::parse(&args).unwrap();
    assert!(path.starts_with(dir()));
    inputs::visit(&cmd, &mut |found| {
        seen.extend(found.member.map(|m| (m.header_offset, found.kind)));
        Ok(Visit::Continue)
    })?;
    Ok(seen)
}
