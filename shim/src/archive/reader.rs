//! The members of an archive, one header after another.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::error::{ArchiveError, Fault};
use super::window::Window;
use crate::files::read_full;
use crate::kind::{self, Kind};
use crate::llvm_path;

const MAGIC_LEN: u64 = 8;
const HEADER_LEN: u64 = 60;
/// A larger name table (bytes) is an error. LLVM's own archives have some 100 kB.
const MAX_NAME_TABLE: u64 = 256 << 20;
/// A longer name (bytes) is an error. Members may share one name in the name table, so that without a
/// limit the time to read all names would grow with the square of the archive's size.
pub(super) const MAX_NAME: u64 = 64 << 10;

/// A member of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its name: whole, directories included, bytes as they are.
    pub name: OsString,
    /// Where its header begins in the archive: the offset in module identifiers.
    pub header_offset: u64,
    /// Where its bytes begin: in the archive, or 0 in the file `external`.
    pub data_offset: u64,
    /// How many bytes it has, by its header. lld does not look at it for members of thin archives:
    /// those are as long as their file.
    pub size: u64,
    /// For a member of a thin archive, the file with its bytes, as lld opens it: the name if that is
    /// absolute, otherwise relative to the archive's directory.
    pub external: Option<PathBuf>,
}

/// What a member's header says, before anyone asks for the name: nothing in it needs the heap.
#[derive(Clone, Copy, Debug)]
pub struct MemberHeader {
    header_offset: u64,
    data_offset: u64,
    size: u64,
    /// Length of a BSD name, which lies before `data_offset`.
    name_len: Option<u64>,
    name_field: [u8; 16],
}

/// Whose form of names an archive has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NameFormat {
    Gnu,
    Bsd,
    Coff,
}

/// An open archive, and how far its members were read.
#[derive(Debug)]
pub struct Archive {
    path: PathBuf,
    window: Window,
    len: u64,
    thin: bool,
    format: NameFormat,
    /// Offset and size of the name table `//`.
    name_table: Option<(u64, u64)>,
    /// The name table's bytes, once a name was asked for.
    names: Option<Vec<u8>>,
    /// Where the next member's header is.
    next: u64,
}

impl Archive {
    /// Opens `file`, which is at `path` as lld would name it, and reads its symbol and name tables'
    /// headers (Archive.cpp, the constructor of `Archive`).
    ///
    /// Fails when it is no archive, or truncated within those headers.
    pub fn open(path: &Path, file: File) -> Result<Archive, ArchiveError> {
        let mut archive = Archive {
            path: path.to_path_buf(),
            window: Window::new(file),
            len: 0,
            thin: false,
            format: NameFormat::Gnu,
            name_table: None,
            names: None,
            next: MAGIC_LEN,
        };
        let metadata = archive.window.file().metadata();
        archive.len = metadata.map_err(|e| archive.io(0, e))?.len();
        let magic: [u8; 8] = archive.array(0, "magic")?;
        archive.thin = match kind::kind_of(&magic) {
            Kind::Archive => false,
            Kind::ThinArchive => true,
            _ => return Err(archive.malformed(0, "no archive magic")),
        };
        archive.skip_tables()?;
        Ok(archive)
    }

    /// Whether its members are files of their own.
    pub fn is_thin(&self) -> bool {
        self.thin
    }

    /// The member whose header begins at `header_offset` (the offset in module identifiers).
    ///
    /// Does not disturb [`Archive::next_header`]. Fails when there is no header.
    pub fn member_at(&mut self, header_offset: u64) -> Result<Member, ArchiveError> {
        if header_offset < MAGIC_LEN {
            return Err(self.malformed(header_offset, "no member header"));
        }
        let (header, _) = self.header_at(header_offset)?;
        self.member(&header)
    }

    /// The next member's header; `None` after the last. Symbol and name tables are no members.
    ///
    /// Fails when the archive is truncated or the header malformed, and then again: nothing behind
    /// such a place can be found.
    pub fn next_header(&mut self) -> Result<Option<MemberHeader>, ArchiveError> {
        if self.next >= self.len {
            return Ok(None);
        }
        let (header, next) = self.header_at(self.next)?;
        self.next = next;
        Ok(Some(header))
    }

    /// Reads the first bytes of a regular archive's member into `buf`, and says how many: never more
    /// than the member has.
    pub fn read_head(&self, header: &MemberHeader, buf: &mut [u8]) -> io::Result<usize> {
        self.window.read(header.data_offset, header.size, buf)
    }

    /// Where the bytes of a regular archive's member are: file, offset, size.
    pub(crate) fn bytes_of(&self, header: &MemberHeader) -> (&File, u64, u64) {
        (self.window.file(), header.data_offset, header.size)
    }

    /// The member with that header, its name read.
    ///
    /// Fails when the name can't be read or is malformed.
    pub fn member(&mut self, header: &MemberHeader) -> Result<Member, ArchiveError> {
        let name = self.name(header)?;
        let external = self.thin.then(|| self.external(&name));
        Ok(Member {
            name: OsString::from_vec(name),
            header_offset: header.header_offset,
            data_offset: if self.thin { 0 } else { header.data_offset },
            size: header.size,
            external,
        })
    }

    /// The file of a thin archive's member of that name (Archive.cpp, `Child::getFullName`).
    fn external(&self, name: &[u8]) -> PathBuf {
        if name.starts_with(b"/") {
            return PathBuf::from(OsStr::from_bytes(name));
        }
        let mut path = llvm_path::parent_path(self.path.as_os_str().as_bytes()).to_vec();
        llvm_path::append(&mut path, name);
        PathBuf::from(OsString::from_vec(path))
    }

    /// Steps over the symbol table and the name table, and finds out which format this is.
    fn skip_tables(&mut self) -> Result<(), ArchiveError> {
        if self.next >= self.len {
            return Ok(());
        }
        let (mut header, mut next) = self.header_at(self.next)?;
        if header.name_len.is_some() {
            self.format = NameFormat::Bsd;
            if self.name(&header)?.starts_with(b"__.SYMDEF") {
                self.next = next;
            }
            return Ok(());
        }
        if header.name_field.starts_with(b"__.SYMDEF") {
            self.format = NameFormat::Bsd;
            self.next = next;
            return Ok(());
        }
        if matches!(header.special(), b"/" | b"/SYM64/") {
            self.next = next;
            if next >= self.len {
                return Ok(());
            }
            (header, next) = self.header_at(next)?;
            // A second linker member, sorted, is COFF's.
            if header.special() == b"/" {
                self.format = NameFormat::Coff;
                self.next = next;
                if next >= self.len {
                    return Ok(());
                }
                (header, next) = self.header_at(next)?;
            }
        }
        if header.special() == b"//" {
            self.name_table = Some((header.data_offset, header.size));
            self.next = next;
            if next >= self.len || self.format != NameFormat::Coff {
                return Ok(());
            }
            (header, next) = self.header_at(next)?;
        }
        if self.format == NameFormat::Coff && header.special() == b"/<ECSYMBOLS>/" {
            self.next = next;
        }
        Ok(())
    }

    /// The header at `at` and the place of the one behind it (Archive.cpp, the constructor of
    /// `Child`, and `getNextChildLoc`).
    fn header_at(&mut self, at: u64) -> Result<(MemberHeader, u64), ArchiveError> {
        let bytes: [u8; HEADER_LEN as usize] = self.array(at, "member header cut off")?;
        let (name_field, rest) = bytes.split_at(16);
        let mut header = MemberHeader {
            header_offset: at,
            data_offset: at.saturating_add(HEADER_LEN),
            size: 0,
            name_len: None,
            name_field: [0; 16],
        };
        header.name_field.copy_from_slice(name_field);
        if rest.get(42..44) != Some(b"`\n") {
            return Err(self.malformed(at, "member header without its terminator"));
        }
        let size = rest.get(32..42).and_then(decimal);
        let Some(size) = size else {
            return Err(self.malformed(at, "member size that is no decimal number"));
        };
        header.size = size;
        // The tables of a thin archive are in it; its members are not.
        let inside = !self.thin || matches!(header.special(), b"/" | b"//" | b"/SYM64/");
        if let Some(digits) = header.name_field.strip_prefix(b"#1/") {
            let len = decimal(digits).filter(|&len| inside && len <= size && len <= MAX_NAME);
            let Some(len) = len else {
                return Err(self.malformed(at, "long name length that is out of range"));
            };
            header.name_len = Some(len);
            header.data_offset = header.data_offset.saturating_add(len);
            header.size = size.saturating_sub(len);
        }
        let stored = if inside { size } else { 0 };
        let next = at
            .checked_add(HEADER_LEN)
            .and_then(|n| n.checked_add(stored))
            .and_then(|n| n.checked_next_multiple_of(2))
            .filter(|&n| n <= self.len);
        match next {
            Some(next) => Ok((header, next)),
            None => Err(self.malformed(at, "member that runs past the end of the file")),
        }
    }

    /// A member's name (Archive.cpp, `ArchiveMemberHeader::getName`).
    fn name(&mut self, header: &MemberHeader) -> Result<Vec<u8>, ArchiveError> {
        let at = header.header_offset;
        if let Some(len) = header.name_len {
            // Bounded by MAX_NAME in header_at.
            let mut name = vec![0; usize::try_from(len).unwrap_or(0)];
            let start = header.data_offset.saturating_sub(len);
            let got = self.window.read(start, len, &mut name);
            let got = got.map_err(|e| self.io(start, e))?;
            if got != name.len() {
                return Err(self.malformed(at, "long name cut off"));
            }
            name.truncate(trim_end(&name, 0).len());
            return Ok(name);
        }
        if header.name_field.starts_with(b"/") {
            let special = header.special();
            let Some(digits) = special.get(1..).filter(|s| s.first() != Some(&b'/')) else {
                return Ok(special.to_vec());
            };
            if digits.is_empty() || digits.starts_with(b"<") {
                return Ok(special.to_vec());
            }
            let Some(offset) = decimal(digits) else {
                return Err(self.malformed(at, "long name offset that is no decimal number"));
            };
            return self.long_name(at, offset);
        }
        let end = if self.format == NameFormat::Bsd || header.name_field.starts_with(b"#") {
            b' '
        } else {
            b'/'
        };
        let field = &header.name_field;
        let name = match field.iter().position(|&b| b == end) {
            Some(i) => field.get(..i).unwrap_or_default(),
            None => field,
        };
        let name = match name.strip_suffix(b"/") {
            Some(name) => name,
            None => trim_end(name, b' '),
        };
        Ok(name.to_vec())
    }

    /// The name at `offset` in the name table of the archive whose member header is at `at`.
    fn long_name(&mut self, at: u64, offset: u64) -> Result<Vec<u8>, ArchiveError> {
        if self.names.is_none() {
            self.names = Some(self.load_names()?);
        }
        let rest = usize::try_from(offset)
            .ok()
            .and_then(|offset| self.names.as_deref()?.get(offset..))
            .filter(|rest| !rest.is_empty());
        let Some(rest) = rest else {
            return Err(self.malformed(at, "long name offset beyond the name table"));
        };
        let rest = rest.get(..MAX_NAME as usize).unwrap_or(rest);
        let name = if self.format == NameFormat::Coff {
            let end = rest.iter().position(|&b| b == 0);
            end.and_then(|end| rest.get(..end))
        } else {
            rest.iter()
                .position(|&b| b == b'\n')
                .and_then(|end| rest.get(..end)?.strip_suffix(b"/"))
        };
        match name {
            Some(name) => Ok(name.to_vec()),
            None => Err(self.malformed(at, "long name without its end in the name table")),
        }
    }

    fn load_names(&self) -> Result<Vec<u8>, ArchiveError> {
        let Some((at, size)) = self.name_table else {
            return Ok(Vec::new());
        };
        let len = usize::try_from(size)
            .ok()
            .filter(|_| size <= MAX_NAME_TABLE);
        let Some(len) = len else {
            return Err(self.malformed(at, "name table of unbelievable size"));
        };
        let mut table = vec![0; len];
        let got = read_full(self.window.file(), &mut table, at).map_err(|e| self.io(at, e))?;
        table.truncate(got);
        Ok(table)
    }

    /// The `N` bytes at `at`; `cut_off` is what is wrong where the file ends before.
    fn array<const N: usize>(
        &mut self,
        at: u64,
        cut_off: &'static str,
    ) -> Result<[u8; N], ArchiveError> {
        let bytes = self.window.array(at).map_err(|e| self.io(at, e))?;
        bytes.ok_or_else(|| self.malformed(at, cut_off))
    }

    fn malformed(&self, offset: u64, what: &'static str) -> ArchiveError {
        ArchiveError {
            path: self.path.clone(),
            offset,
            fault: Fault::Malformed(what),
        }
    }

    fn io(&self, offset: u64, e: io::Error) -> ArchiveError {
        ArchiveError {
            path: self.path.clone(),
            offset,
            fault: Fault::Io(e),
        }
    }
}

impl MemberHeader {
    /// The name field up to its first blank: how tables are told from members.
    fn special(&self) -> &[u8] {
        self.name_field
            .split(|&b| b == b' ')
            .next()
            .unwrap_or_default()
    }
}

/// A header field: digits, then blanks, as `StringRef::getAsInteger` takes it.
pub(super) fn decimal(field: &[u8]) -> Option<u64> {
    let digits = trim_end(field, b' ');
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |n, &b| {
        let digit = b.is_ascii_digit().then(|| u64::from(b - b'0'))?;
        n.checked_mul(10)?.checked_add(digit)
    })
}

fn trim_end(mut bytes: &[u8], blank: u8) -> &[u8] {
    while let Some(rest) = bytes.strip_suffix(&[blank]) {
        bytes = rest;
    }
    bytes
}
