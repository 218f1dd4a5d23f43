//! Archives, regular and thin, read by their headers alone.
//!
//! Why not the `object` crate's reader: it wants the whole file as a slice, so that the cost of a
//! link would grow with the bytes of its archives; a thousand native members need a thousand small
//! reads. And what counts here is what lld takes for an archive (llvm/lib/Object/Archive.cpp).
//!
//! # Offsets in module identifiers
//!
//! lld calls a bitcode member `ARCHIVE(MEMBER at OFFSET)` (docs/lld.md, "Identifiers"; lld/ELF/InputFiles.cpp, the
//! constructor of `BitcodeFile`):
//!
//! * `ARCHIVE` is the path by which lld added the archive, before `--chroot` and `--remap-inputs`.
//! * `MEMBER` is the last component of the member's name, for regular and thin archives alike: the
//!   thin member `d/b.o` is called `b.o`.
//! * `OFFSET` is `Archive::Child::getChildOffset`: where the member's 60-byte header begins in the
//!   archive file, in decimal, counted from the magic, and not where its bytes begin. For BSD names
//!   the name lies between header and bytes, which changes nothing. In a thin archive it is the
//!   offset of the header in the thin archive itself.
//!
//! Seen alike for GNU, BSD and thin archives on LLVM 14, 16, 19 and 22 (shim/tests/inputs.rs).

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::kind::{self, Kind};

const MAGIC_LEN: u64 = 8;
const HEADER_LEN: u64 = 60;
/// One read per member of this size gets the header and the first bytes of what follows.
const SMALL_READ: usize = 256;
/// Where headers lie close together, one read gets many.
const LARGE_READ: usize = 32 << 10;
/// Headers that are closer than this lie close together.
const CLOSE: u64 = 4 << 10;
/// A name table larger than this is not believed. LLVM itself has some 100 kB.
const MAX_NAME_TABLE: u64 = 256 << 20;
/// A member's name longer than this is not believed. Members may share one name in the name table, so
/// that without a limit the time to read all names would grow with the square of the archive.
const MAX_NAME: u64 = 64 << 10;
/// No file has a longer name.
const PATH_MAX: usize = libc::PATH_MAX as usize;

/// What is wrong with an archive, and where.
#[derive(Debug)]
pub struct ArchiveError {
    /// The archive.
    pub path: PathBuf,
    /// Where in it, in bytes from its start.
    pub offset: u64,
    /// What is wrong.
    pub fault: Fault,
}

/// The ways in which reading an archive fails.
#[derive(Debug)]
pub enum Fault {
    /// The file, or that of a thin member, can't be read.
    Io(io::Error),
    /// The bytes are no archive that LLVM reads.
    Malformed(&'static str),
    /// A module identifier names nothing, or more than one thing.
    Identifier(&'static str),
}

impl fmt::Display for ArchiveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match &self.fault {
            Fault::Io(e) => write!(f, "cannot read {path} at offset {}: {e}", self.offset),
            Fault::Malformed(what) => write!(
                f,
                "{path} is no valid archive: {what} at offset {}; build it again",
                self.offset
            ),
            Fault::Identifier(what) => write!(f, "cannot find the module {path}: {what}"),
        }
    }
}

impl std::error::Error for ArchiveError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.fault {
            Fault::Io(e) => Some(e),
            _ => None,
        }
    }
}

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

/// A member before anyone asked for its name: nothing in it needs the heap.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    header_offset: u64,
    data_offset: u64,
    size: u64,
    /// Bytes of a BSD name, which lie before `data_offset`.
    name_len: Option<u64>,
    field: [u8; 16],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Gnu,
    Bsd,
    Coff,
}

/// An open archive, and how far its members were read.
///
/// It reads at positions and keeps a small window, so that neither small members nor large ones
/// cost more than one read each.
#[derive(Debug)]
pub struct Archive {
    path: PathBuf,
    file: File,
    len: u64,
    thin: bool,
    format: Format,
    /// The name table `//`: where it lies, and its bytes once a name was asked for.
    table: Option<(u64, u64)>,
    names: Option<Vec<u8>>,
    next: u64,
    window: Vec<u8>,
    window_at: u64,
    window_len: usize,
}

impl Archive {
    /// Opens `file`, which is at `path` as lld would name it, and reads its symbol and name tables'
    /// headers (Archive.cpp, the constructor of `Archive`).
    ///
    /// Fails when it is no archive, or truncated within those headers.
    pub fn open(path: &Path, file: File) -> Result<Archive, ArchiveError> {
        let mut archive = Archive {
            path: path.to_path_buf(),
            file,
            len: 0,
            thin: false,
            format: Format::Gnu,
            table: None,
            names: None,
            next: MAGIC_LEN,
            window: Vec::new(),
            window_at: 0,
            window_len: 0,
        };
        archive.len = archive.file.metadata().map_err(|e| archive.io(0, e))?.len();
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

    /// Where the archive is, as given to [`Archive::open`].
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The next member; `None` after the last. Symbol and name tables are no members.
    ///
    /// Fails when the archive is truncated or its header malformed, and then again: nothing behind
    /// such a place can be found.
    pub fn next_member(&mut self) -> Result<Option<Member>, ArchiveError> {
        match self.next_entry()? {
            Some(entry) => self.member(&entry).map(Some),
            None => Ok(None),
        }
    }

    /// The member whose header begins at `header_offset` (the offset in module identifiers).
    ///
    /// Does not disturb [`Archive::next_member`]. Fails when there is no header.
    pub fn member_at(&mut self, header_offset: u64) -> Result<Member, ArchiveError> {
        if header_offset < MAGIC_LEN {
            return Err(self.malformed(header_offset, "no member header"));
        }
        let (entry, _) = self.entry_at(header_offset)?;
        self.member(&entry)
    }

    /// Reads the first bytes of a member into `buf`, and says how many there are.
    ///
    /// Never more than the member has. Opens the file of a thin member, and fails when that can't be
    /// read.
    pub fn read_head(&self, m: &Member, buf: &mut [u8]) -> io::Result<usize> {
        match &m.external {
            Some(path) => read_full(&open_readable(path)?, buf, 0),
            None => self.read_at_most(m.data_offset, m.size, buf),
        }
    }

    /// [`Archive::next_member`] without the name, so that it costs one read and no allocation.
    pub(crate) fn next_entry(&mut self) -> Result<Option<Entry>, ArchiveError> {
        if self.next >= self.len {
            return Ok(None);
        }
        let (entry, next) = self.entry_at(self.next)?;
        self.next = next;
        Ok(Some(entry))
    }

    /// [`Archive::read_head`] of a member of a regular archive.
    pub(crate) fn entry_head(&self, entry: &Entry, buf: &mut [u8]) -> io::Result<usize> {
        self.read_at_most(entry.data_offset, entry.size, buf)
    }

    /// Where the bytes of a member of a regular archive are: file, offset, size.
    pub(crate) fn entry_bytes(&self, entry: &Entry) -> (&File, u64, u64) {
        (&self.file, entry.data_offset, entry.size)
    }

    /// Gives an entry its name.
    pub(crate) fn member(&mut self, entry: &Entry) -> Result<Member, ArchiveError> {
        let name = self.name(entry)?;
        let external = self.thin.then(|| self.external(&name));
        Ok(Member {
            name: OsString::from_vec(name),
            header_offset: entry.header_offset,
            data_offset: if self.thin { 0 } else { entry.data_offset },
            size: entry.size,
            external,
        })
    }

    fn external(&self, name: &[u8]) -> PathBuf {
        if name.starts_with(b"/") {
            return PathBuf::from(OsStr::from_bytes(name));
        }
        let mut path = parent_path(self.path.as_os_str().as_bytes()).to_vec();
        append_path(&mut path, name);
        PathBuf::from(OsString::from_vec(path))
    }

    /// Steps over the symbol table and the name table, and finds out which format this is.
    fn skip_tables(&mut self) -> Result<(), ArchiveError> {
        if self.next >= self.len {
            return Ok(());
        }
        let (mut entry, mut next) = self.entry_at(self.next)?;
        if entry.name_len.is_some() {
            self.format = Format::Bsd;
            if self.name(&entry)?.starts_with(b"__.SYMDEF") {
                self.next = next;
            }
            return Ok(());
        }
        if entry.field.starts_with(b"__.SYMDEF") {
            self.format = Format::Bsd;
            self.next = next;
            return Ok(());
        }
        if matches!(entry.special(), b"/" | b"/SYM64/") {
            self.next = next;
            if next >= self.len {
                return Ok(());
            }
            (entry, next) = self.entry_at(next)?;
            // A second linker member, sorted, is COFF's.
            if entry.special() == b"/" {
                self.format = Format::Coff;
                self.next = next;
                if next >= self.len {
                    return Ok(());
                }
                (entry, next) = self.entry_at(next)?;
            }
        }
        if entry.special() == b"//" {
            self.table = Some((entry.data_offset, entry.size));
            self.next = next;
            if next >= self.len || self.format != Format::Coff {
                return Ok(());
            }
            (entry, next) = self.entry_at(next)?;
        }
        if self.format == Format::Coff && entry.special() == b"/<ECSYMBOLS>/" {
            self.next = next;
        }
        Ok(())
    }

    /// The member at `at` and the place of the one behind it (Archive.cpp, the constructor of
    /// `Child`, and `getNextChildLoc`).
    fn entry_at(&mut self, at: u64) -> Result<(Entry, u64), ArchiveError> {
        let header: [u8; HEADER_LEN as usize] = self.array(at, "member header cut off")?;
        let (field, rest) = header.split_at(16);
        let mut entry = Entry {
            header_offset: at,
            data_offset: at.saturating_add(HEADER_LEN),
            size: 0,
            name_len: None,
            field: [0; 16],
        };
        entry.field.copy_from_slice(field);
        if rest.get(42..44) != Some(b"`\n") {
            return Err(self.malformed(at, "member header without its terminator"));
        }
        let size = rest.get(32..42).and_then(decimal);
        let Some(size) = size else {
            return Err(self.malformed(at, "member size that is no decimal number"));
        };
        entry.size = size;
        // The tables of a thin archive are in it; its members are not.
        let inside = !self.thin || matches!(entry.special(), b"/" | b"//" | b"/SYM64/");
        if let Some(digits) = entry.field.strip_prefix(b"#1/") {
            let len = decimal(digits).filter(|&len| inside && len <= size && len <= MAX_NAME);
            let Some(len) = len else {
                return Err(self.malformed(at, "long name length that is out of range"));
            };
            entry.name_len = Some(len);
            entry.data_offset = entry.data_offset.saturating_add(len);
            entry.size = size.saturating_sub(len);
        }
        let stored = if inside { size } else { 0 };
        let next = at
            .checked_add(HEADER_LEN)
            .and_then(|n| n.checked_add(stored))
            .and_then(|n| n.checked_next_multiple_of(2))
            .filter(|&n| n <= self.len);
        match next {
            Some(next) => Ok((entry, next)),
            None => Err(self.malformed(at, "member that runs past the end of the file")),
        }
    }

    /// A member's name (Archive.cpp, `ArchiveMemberHeader::getName`).
    fn name(&mut self, entry: &Entry) -> Result<Vec<u8>, ArchiveError> {
        let at = entry.header_offset;
        if let Some(len) = entry.name_len {
            // Bounded by MAX_NAME in entry_at.
            let mut name = vec![0; usize::try_from(len).unwrap_or(0)];
            let start = entry.data_offset.saturating_sub(len);
            let got = self
                .read_at_most(start, len, &mut name)
                .map_err(|e| self.io(start, e))?;
            if got != name.len() {
                return Err(self.malformed(at, "long name cut off"));
            }
            name.truncate(trim_end(&name, 0).len());
            return Ok(name);
        }
        if entry.field.starts_with(b"/") {
            let special = entry.special();
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
        let end = if self.format == Format::Bsd || entry.field.starts_with(b"#") {
            b' '
        } else {
            b'/'
        };
        let field = &entry.field;
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
        let name = if self.format == Format::Coff {
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
        let Some((at, size)) = self.table else {
            return Ok(Vec::new());
        };
        let len = usize::try_from(size)
            .ok()
            .filter(|_| size <= MAX_NAME_TABLE);
        let Some(len) = len else {
            return Err(self.malformed(at, "name table of unbelievable size"));
        };
        let mut table = vec![0; len];
        let got = read_full(&self.file, &mut table, at).map_err(|e| self.io(at, e))?;
        table.truncate(got);
        Ok(table)
    }

    /// `N` bytes at `at`, through the window.
    fn array<const N: usize>(
        &mut self,
        at: u64,
        cut_off: &'static str,
    ) -> Result<[u8; N], ArchiveError> {
        if self.windowed(at, N).is_none() {
            let close = at
                .checked_sub(self.window_at)
                .is_some_and(|step| step < CLOSE && self.window_len > 0);
            let want = if close { LARGE_READ } else { SMALL_READ };
            if self.window.len() < want {
                self.window.resize(want, 0);
            }
            self.window_len = 0;
            let into = self.window.get_mut(..want).unwrap_or_default();
            let got = read_full(&self.file, into, at).map_err(|e| ArchiveError {
                path: self.path.clone(),
                offset: at,
                fault: Fault::Io(e),
            })?;
            self.window_at = at;
            self.window_len = got;
        }
        match self.windowed(at, N).and_then(|bytes| bytes.try_into().ok()) {
            Some(bytes) => Ok(bytes),
            None => Err(self.malformed(at, cut_off)),
        }
    }

    /// What the window holds of the `len` bytes at `at`, if all.
    fn windowed(&self, at: u64, len: usize) -> Option<&[u8]> {
        let start = usize::try_from(at.checked_sub(self.window_at)?).ok()?;
        let end = start.checked_add(len)?;
        self.window.get(..self.window_len)?.get(start..end)
    }

    fn read_at_most(&self, at: u64, size: u64, buf: &mut [u8]) -> io::Result<usize> {
        let len = usize::try_from(size).map_or(buf.len(), |size| size.min(buf.len()));
        let buf = buf.get_mut(..len).unwrap_or_default();
        match self.windowed(at, len) {
            Some(bytes) => {
                buf.copy_from_slice(bytes);
                Ok(len)
            }
            None => read_full(&self.file, buf, at),
        }
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

impl Entry {
    /// The name field up to its first blank: how tables are told from members.
    fn special(&self) -> &[u8] {
        self.field.split(|&b| b == b' ').next().unwrap_or_default()
    }
}

/// A header field: digits, then blanks, as `StringRef::getAsInteger` takes it.
fn decimal(field: &[u8]) -> Option<u64> {
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

/// Reads until `buf` is full or the file ends.
pub(crate) fn read_full(file: &File, buf: &mut [u8], at: u64) -> io::Result<usize> {
    let mut got = 0;
    while let Some(rest) = buf.get_mut(got..).filter(|rest| !rest.is_empty()) {
        let offset = at.saturating_add(got as u64);
        match file.read_at(rest, offset) {
            Ok(0) => break,
            // A read that ends early has met the end of a regular file; asking again would cost
            // each file that is shorter than the buffer a system call.
            Ok(n) if n < rest.len() => return Ok(got + n),
            Ok(n) => got += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(got)
}

/// Opens a file to look at it, without ever waiting for the other end of a FIFO.
pub(crate) fn open_readable(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
}

/// Where the bytes of a module are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModuleBytes {
    /// The file.
    pub path: PathBuf,
    /// Where in it they begin.
    pub offset: u64,
    /// How many there are.
    pub size: u64,
    /// Whether the module is the whole file: an input of its own, or a member of a thin archive.
    /// A fat object is a whole file, or member, too; its bitcode is in the section `.llvm.lto`.
    pub whole_file: bool,
}

/// Takes `ARCHIVE(MEMBER at OFFSET)` apart by its form alone.
///
/// `None` when it has not that form. Where more than one `(` could be the one, the first whose left
/// side ends like an archive's name (`.a`, `.rlib`, `.lib`) is taken, or else the first. Whether
/// such an archive exists only [`locate`] can tell.
pub fn split_identifier(id: &OsStr) -> Option<(&OsStr, &OsStr, u64)> {
    let mut first = None;
    for (archive, member, offset) in splits(id.as_bytes()) {
        let split = (
            OsStr::from_bytes(archive),
            OsStr::from_bytes(member),
            offset,
        );
        let named = [&b".a"[..], b".rlib", b".lib"];
        if named.iter().any(|ext| archive.ends_with(ext)) {
            return Some(split);
        }
        first = first.or(Some(split));
    }
    first
}

/// Every way to read `id` as `ARCHIVE(MEMBER at OFFSET)`.
///
/// Only the `(` is in doubt. OFFSET has digits only, so the last ` at ` is the one. MEMBER is the
/// last component of a path, so its `(` is behind the last slash.
fn splits(id: &[u8]) -> impl Iterator<Item = (&[u8], &[u8], u64)> {
    const AT: &[u8] = b" at ";
    let front = id.strip_suffix(b")").and_then(|body| {
        let at = body.windows(AT.len()).rposition(|w| w == AT)?;
        let (front, digits) = body.split_at_checked(at)?;
        let digits = digits.strip_prefix(AT)?;
        // No form that lld would not print: leading zeros, blanks.
        let canonical = digits == b"0" || !digits.starts_with(b"0");
        let offset = decimal(digits).filter(|_| canonical && !digits.ends_with(b" "))?;
        Some((front, offset))
    });
    front.into_iter().flat_map(|(front, offset)| {
        let from = front.iter().rposition(|&b| b == b'/').map_or(0, |i| i + 1);
        front
            .iter()
            .enumerate()
            .skip(from)
            .filter(|&(i, &b)| b == b'(' && (1..PATH_MAX).contains(&i))
            .filter_map(move |(i, _)| {
                let (archive, member) = front.split_at_checked(i)?;
                Some((archive, member.get(1..)?, offset))
            })
    })
}

/// Finds the bytes of the module that lld calls `id`; relative paths are relative to `cwd`, the
/// directory in which lld runs.
///
/// A file of that very name, an archive with a member of that name at that offset, or the file of
/// such a member of a thin archive. Each candidate is checked on disk. Fails when there is none, and
/// when there is more than one: a module taken for another would make a wrong program, and such
/// names are no accident.
pub fn locate(id: &OsStr, cwd: &Path) -> Result<ModuleBytes, ArchiveError> {
    let at = |path: &Path, offset, fault| ArchiveError {
        path: path.to_path_buf(),
        offset,
        fault,
    };
    let mut found = None;
    let mut failed = None;
    let mut ambiguous = false;

    match whole_file(cwd.join(id)) {
        Ok(file) => found = Some(file),
        Err(e) => failed = Some(e),
    }

    for (archive, member, offset) in splits(id.as_bytes()) {
        let path = cwd.join(OsStr::from_bytes(archive));
        let file = match open_readable(&path) {
            Ok(file) => file,
            Err(e) => {
                failed = Some(at(&path, 0, Fault::Io(e)));
                continue;
            }
        };
        let candidate = Archive::open(&path, file)
            .and_then(|mut archive| archive.member_at(offset))
            .and_then(|m| {
                if file_name(m.name.as_bytes()) != member {
                    let what = Fault::Identifier("the archive has another member at that offset");
                    return Err(at(Path::new(id), offset, what));
                }
                match m.external {
                    Some(file) => whole_file(file),
                    None => Ok(ModuleBytes {
                        path: path.clone(),
                        offset: m.data_offset,
                        size: m.size,
                        whole_file: false,
                    }),
                }
            });
        match candidate {
            Ok(bytes) => ambiguous |= found.replace(bytes).is_some(),
            Err(e) => failed = Some(e),
        }
    }

    if ambiguous {
        let what = "more than one file answers to that name; rename one of them";
        return Err(at(Path::new(id), 0, Fault::Identifier(what)));
    }
    match (found, failed) {
        (Some(bytes), _) => Ok(bytes),
        (None, Some(e)) => Err(e),
        (None, None) => Err(at(Path::new(id), 0, Fault::Identifier("no such file"))),
    }
}

fn whole_file(path: PathBuf) -> Result<ModuleBytes, ArchiveError> {
    let e = match std::fs::metadata(&path) {
        Ok(meta) if meta.is_file() => {
            return Ok(ModuleBytes {
                path,
                offset: 0,
                size: meta.len(),
                whole_file: true,
            });
        }
        Ok(_) => io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"),
        Err(e) => e,
    };
    Err(ArchiveError {
        path,
        offset: 0,
        fault: Fault::Io(e),
    })
}

// Paths as llvm/lib/Support/Path.cpp composes them (POSIX style). std's own functions normalize
// where LLVM does not, and what lld prints and looks up is what LLVM composed.

/// `sys::path::append`: joins with one slash, and drops the component's own if the path has one.
pub(crate) fn append_path(path: &mut Vec<u8>, component: &[u8]) {
    if path.ends_with(b"/") {
        let skip = component.iter().take_while(|&&b| b == b'/').count();
        path.extend_from_slice(component.get(skip..).unwrap_or_default());
        return;
    }
    if !path.is_empty() && !component.starts_with(b"/") {
        path.push(b'/');
    }
    path.extend_from_slice(component);
}

/// `sys::path::parent_path`: empty for a bare name and for the root.
pub(crate) fn parent_path(path: &[u8]) -> &[u8] {
    let is_slash = |i: usize| path.get(i) == Some(&b'/');
    let mut end = file_name_at(path);
    let was_slash = is_slash(end);
    let root = root_at(path);
    while end > 0 && root.is_none_or(|root| end > root) && is_slash(end - 1) {
        end -= 1;
    }
    if root == Some(end) && !was_slash {
        end += 1;
    }
    path.get(..end).unwrap_or(path)
}

/// `sys::path::filename`: the last component; `.` for a path that ends in a slash.
pub(crate) fn file_name(path: &[u8]) -> &[u8] {
    let is_slash = |i: usize| path.get(i) == Some(&b'/');
    let root = root_at(path);
    let mut end = path.len();
    while end > 0 && root != Some(end - 1) && is_slash(end - 1) {
        end -= 1;
    }
    if path.ends_with(b"/") && root.is_none_or(|root| end > root + 1) {
        return b".";
    }
    let front = path.get(..end).unwrap_or(path);
    front.get(file_name_at(front)..).unwrap_or_default()
}

fn file_name_at(path: &[u8]) -> usize {
    if path.ends_with(b"/") {
        return path.len() - 1;
    }
    match path.iter().rposition(|&b| b == b'/') {
        None => 0,
        Some(1) if path.starts_with(b"//") => 0,
        Some(slash) => slash + 1,
    }
}

fn root_at(path: &[u8]) -> Option<usize> {
    if let [b'/', b'/', third, _, ..] = path
        && *third != b'/'
    {
        return Some(path.iter().skip(2).position(|&b| b == b'/')? + 2);
    }
    path.starts_with(b"/").then_some(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

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
    fn build(magic: &[u8], members: &[(&[u8], &[u8])]) -> Vec<u8> {
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
        while let Some(member) = archive.next_member()? {
            let mut head = [0; 8];
            if member.external.is_none() {
                let len = archive.read_head(&member, &mut head).unwrap();
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

    #[test]
    fn identifiers_of_nothing() {
        let brackets = [&b"l.a".to_vec()[..], &b"(".repeat(60_000), b" at 8)"].concat();
        assert_eq!(splits(&brackets).count(), PATH_MAX - 3);
        let dir = std::env::temp_dir().join(format!("locate-test-{}", std::process::id()));
        std::fs::create_dir_all(dir.join("m.o")).unwrap();
        std::fs::write(dir.join("t.a"), build(b"!<thin>\n", &[(b"m.o/", b"")])).unwrap();
        let not_a_file = locate(OsStr::new("t.a(m.o at 8)"), &dir).unwrap_err();
        std::fs::remove_dir(dir.join("m.o")).unwrap();
        std::fs::write(dir.join("m.o"), b"BC").unwrap();
        let found = locate(OsStr::new("t.a(m.o at 8)"), &dir);
        std::fs::remove_dir_all(&dir).unwrap();
        assert!(matches!(not_a_file.fault, Fault::Io(_)), "{not_a_file}");
        assert_eq!(found.unwrap().size, 2);
    }

    #[test]
    fn identifiers_by_form() {
        let split = |id: &'static str| {
            split_identifier(OsStr::new(id))
                .map(|(a, m, o)| (a.to_str().unwrap(), m.to_str().unwrap(), o))
        };
        assert_eq!(split("l.a(m.o at 8)"), Some(("l.a", "m.o", 8)));
        assert_eq!(
            split("/d/l.a(m (1) at 3).o at 88)"),
            Some(("/d/l.a", "m (1) at 3).o", 88))
        );
        assert_eq!(
            split("d(1)/l(2).a(m.o at 88)"),
            Some(("d(1)/l(2).a", "m.o", 88))
        );
        assert_eq!(split("l(2).x(m.o at 88)"), Some(("l", "2).x(m.o", 88)));
        assert_eq!(
            split("l.rlib(m at 2.o at 8)"),
            Some(("l.rlib", "m at 2.o", 8))
        );
        for id in [
            "",
            ")",
            " at 8)",
            "(m at 8)",
            "m.o",
            "l.a(m.o at )",
            "l.a(m.o at 08)",
        ] {
            assert_eq!(split(id), None, "{id}");
        }
        for id in [
            "l.a(m.o at 8",
            "l.a(m.o at -8)",
            "l.a(m.o at 99999999999999999999)",
        ] {
            assert_eq!(split(id), None, "{id}");
        }
    }

    #[test]
    fn paths_as_llvm_composes_them() {
        let parents = [
            ("a", ""),
            ("a/b", "a"),
            ("/a", "/"),
            ("/", ""),
            ("a/", "a"),
            ("a//b", "a"),
            ("//net/x", "//net/"),
            ("", ""),
            ("/a/b", "/a"),
        ];
        for (path, parent) in parents {
            assert_eq!(parent_path(path.as_bytes()), parent.as_bytes(), "{path}");
        }
        let files = [
            ("a", "a"),
            ("a/b", "b"),
            ("/a", "a"),
            ("/", "/"),
            ("a/", "."),
            ("a/b//", "."),
            ("", ""),
            ("a//b", "b"),
        ];
        for (path, file) in files {
            assert_eq!(file_name(path.as_bytes()), file.as_bytes(), "{path}");
        }
        for (dir, name, path) in [
            ("", "x", "x"),
            ("a", "x", "a/x"),
            ("a/", "x", "a/x"),
            ("a/", "//x", "a/x"),
            ("a", "/x", "a/x"),
            ("", "/x", "/x"),
            ("a", "", "a/"),
        ] {
            let mut bytes = dir.as_bytes().to_vec();
            append_path(&mut bytes, name.as_bytes());
            assert_eq!(bytes, path.as_bytes(), "{dir} {name}");
        }
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
        let mut random = 0x9e37_79b9_7f4a_7c15u64;
        let mut below = |n: usize| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            (random % n as u64) as usize
        };
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
            while let Ok(Some(member)) = archive.next_member() {
                count += 1;
                assert!(count * 60 <= bytes.len());
                let mut head = [0; 64];
                if member.external.is_none() {
                    let len = archive.read_head(&member, &mut head).unwrap();
                    assert!(len as u64 <= member.size);
                }
            }
            for at in 0..bytes.len() as u64 + 2 {
                let _ = archive.member_at(at);
            }
        }
    }
}
