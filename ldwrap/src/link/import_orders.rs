//! In which order backends import from other modules: what lld's own keys lack.
//!
//! A backend imports from modules in the order of their names (docs/lld.md, "Imports"), which shows in its object: in
//! debug information, in constants that it got from others. lld's keys have the same modules in the order of their
//! hashes, since LLVM 17: the same modules by other names, or in another archive, have the same key and another object.
//! So a key of ours has the order too.
//!
//! Only a shard says from which modules one imports. lld writes them if it is asked to (`--thinlto-emit-index-files`),
//! which takes time: 0.15 ms for each of redis-server's modules, a sixth of a link all of whose objects are cached. So the
//! orders of an output's last link are remembered, with the files that it read: where none of these has changed, the
//! orders are the same.

use crate::admit::Fingerprint;
use crate::cache::files::Identity;
use crate::jobs::bitcode::shard::imports_in_order;
use crate::jobs::quirks;
use crate::link::attribution::Module;
use crate::link::inputs_read::InputsRead;
use crate::sys;
use md5::{Digest as _, Md5};
use memmap2::Mmap;
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The beginning of a record, with the number of its format.
const MAGIC: &[u8] = b"ldwrap import orders 1\n";
/// A larger record (bytes) is not read: a million modules.
const MAX_SIZE: u64 = 256 << 20;

/// An order, by a hash.
pub type Order = [u8; 16];

/// The orders of a link's modules, by lld's keys.
#[derive(Debug)]
pub struct ImportOrders {
    source: Source,
    known: HashMap<Vec<u8>, Order>,
    /// The record is not of this link, after all.
    is_stale: bool,
}

#[derive(Debug)]
enum Source {
    /// lld's keys have them.
    Keys,
    /// A record, which holds if lld reads these files.
    Record(HashMap<Vec<u8>, Identity>),
    /// Shards that threads write.
    Shards(HashMap<u32, File>),
}

impl ImportOrders {
    /// Of a link by lld of this version, whose keys are looked up if `has_cache`. `record` has those of the last one.
    #[must_use]
    pub fn new(major: u32, has_cache: bool, writes_shards: bool, record: Option<Record>) -> Self {
        let (source, known) = match record {
            _ if major < quirks::KEYS_LACK_IMPORT_ORDER || !has_cache => {
                (Source::Keys, HashMap::new())
            }
            Some(record) if !writes_shards => (Source::Record(record.inputs), record.orders),
            _ => (Source::Shards(HashMap::new()), HashMap::new()),
        };
        Self {
            source,
            known,
            is_stale: false,
        }
    }

    /// Whether lld has to write shards.
    #[must_use]
    pub fn are_from_shards(&self) -> bool {
        matches!(self.source, Source::Shards(_))
    }

    /// A file for the shard that a thread is about to write; none if it is for nobody.
    pub fn begin_shard(&mut self, thread: u32) -> io::Result<Option<File>> {
        let Source::Shards(shards) = &mut self.source else {
            return Ok(None);
        };
        let file = File::from(memfd_create(c"ldwrap shard", MFdFlags::MFD_CLOEXEC)?);
        shards.insert(thread, file.try_clone()?);
        Ok(Some(file))
    }

    /// A thread makes a lookup with this key, for this module.
    pub fn looked_up(&mut self, thread: u32, key: &[u8], module: Option<&Module>) {
        let Source::Shards(shards) = &mut self.source else {
            self.is_stale |=
                matches!(self.source, Source::Record(_)) && !self.known.contains_key(key);
            return;
        };
        if let (Some(shard), Some(Module::Named(own))) = (shards.remove(&thread), module) {
            match order(&shard, own) {
                Ok(order) => drop(self.known.insert(key.to_vec(), order)),
                Err(e) => log::info!("{}: {e}", String::from_utf8_lossy(own)),
            }
        }
    }

    /// What a key of ours has beside lld's; none if that is not known, and nothing may be looked up or kept by it.
    #[must_use]
    pub fn of(&self, key: &[u8]) -> Option<&[u8]> {
        match self.source {
            Source::Keys => Some(&[]),
            Source::Record(_) | Source::Shards(_) => self.known.get(key).map(Order::as_slice),
        }
    }

    /// lld has read these files. Fails if the orders are those of others.
    pub fn check(&mut self, inputs: &InputsRead) -> io::Result<()> {
        match &self.source {
            Source::Record(recorded) if recorded != inputs.files() => {
                self.is_stale = true;
                Err(io::Error::other("lld reads other files than the last time"))
            }
            _ => Ok(()),
        }
    }

    /// Whether the record that was used is to go, so that the next link finds the orders out.
    #[must_use]
    pub fn are_stale(&self) -> bool {
        self.is_stale
    }
}

fn order(shard: &File, own: &[u8]) -> io::Result<Order> {
    // SAFETY: the file is in memory, ours and lld's alone, and lld has written it.
    let bytes = unsafe { Mmap::map(shard)? };
    let imports = imports_in_order(&bytes, own).map_err(io::Error::other)?;
    let mut hash = Md5::new();
    imports.iter().for_each(|import| hash.update(import));
    Ok(hash.finalize().into())
}

/// What a link of an output leaves for the next one.
#[derive(Debug)]
pub struct Record {
    inputs: HashMap<Vec<u8>, Identity>,
    orders: HashMap<Vec<u8>, Order>,
}

impl Record {
    /// The record in this file, if it is of a link with this fingerprint, and no file that it read has changed.
    #[must_use]
    pub fn read(file: &Path, fingerprint: Fingerprint) -> Option<Self> {
        let bytes = sys::read_regular(file, MAX_SIZE).ok()?;
        let record = Self::parse(&bytes, fingerprint)?;
        let unchanged = |(path, identity): (&Vec<u8>, &Identity)| {
            identity.is_still(Path::new(OsStr::from_bytes(path)))
        };
        record.inputs.iter().all(unchanged).then_some(record)
    }

    fn parse(bytes: &[u8], fingerprint: Fingerprint) -> Option<Self> {
        let (rest, sum) = bytes.split_last_chunk::<16>()?;
        if Order::from(Md5::digest(rest)) != *sum {
            return None;
        }
        let mut rest = rest.strip_prefix(MAGIC)?;
        if take(&mut rest)? != fingerprint.to_bytes() {
            return None;
        }
        let mut record = Self {
            inputs: HashMap::new(),
            orders: HashMap::new(),
        };
        let inputs = u64::from_le_bytes(take(&mut rest)?);
        for _ in 0..inputs {
            let identity = Identity::from_bytes(take(&mut rest)?);
            record.inputs.insert(take_name(&mut rest)?, identity);
        }
        while !rest.is_empty() {
            let order = take(&mut rest)?;
            record.orders.insert(take_name(&mut rest)?, order);
        }
        Some(record)
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(*taken)
}

fn take_name(rest: &mut &[u8]) -> Option<Vec<u8>> {
    let length = usize::try_from(u32::from_le_bytes(take(rest)?)).ok()?;
    let (name, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(name.to_vec())
}

/// A record that is being made.
#[derive(Debug)]
pub struct NewRecord {
    file: PathBuf,
    bytes: Vec<u8>,
}

impl NewRecord {
    /// For this file; the link has this fingerprint and has read these files.
    #[must_use]
    pub fn new(file: PathBuf, fingerprint: Fingerprint, inputs: &InputsRead) -> Self {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(fingerprint.to_bytes());
        bytes.extend((inputs.count() as u64).to_le_bytes());
        for (path, identity) in inputs.files() {
            bytes.extend(identity.to_bytes());
            add_name(&mut bytes, path);
        }
        Self { file, bytes }
    }

    /// Writes it, with the orders that the link has shown.
    pub fn write(mut self, orders: &ImportOrders) -> io::Result<()> {
        for (key, order) in &orders.known {
            self.bytes.extend(order);
            add_name(&mut self.bytes, key);
        }
        let sum = Md5::digest(&self.bytes);
        self.bytes.extend(sum);
        sys::write_private(&self.file, &self.bytes)
    }
}

fn add_name(bytes: &mut Vec<u8>, name: &[u8]) {
    bytes.extend((name.len() as u32).to_le_bytes());
    bytes.extend(name);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsString;

    /// The record of a link that read this file, and the fingerprint of that.
    fn recorded(dir: &Path, input: &Path) -> (PathBuf, Fingerprint) {
        let mut inputs = InputsRead::default();
        let identity = Identity::of_path(input).expect("the file");
        inputs.add(input.as_os_str().as_bytes(), identity);
        let fingerprint = Fingerprint::new(&[OsString::from("-shared")], std::iter::empty());
        let mut orders = ImportOrders::new(22, true, true, None);
        orders.known.insert(b"llvmcache-A".to_vec(), [7; 16]);
        orders.known.insert(b"llvmcache-B".to_vec(), [9; 16]);
        let file = dir.join("record");
        let record = NewRecord::new(file.clone(), fingerprint, &inputs);
        record.write(&orders).expect("a record");
        (file, fingerprint)
    }

    #[test]
    fn a_record_holds_until_a_file_changes() {
        let dir = tempfile::tempdir().expect("a directory");
        let input = dir.path().join("a.o");
        std::fs::write(&input, "old").expect("a file");
        let (file, fingerprint) = recorded(dir.path(), &input);
        let record = Record::read(&file, fingerprint).expect("the record");
        let other = Fingerprint::new(&[], std::iter::empty());
        assert!(Record::read(&file, other).is_none());

        let mut orders = ImportOrders::new(22, true, false, Some(record));
        assert!(!orders.are_from_shards());
        assert_eq!(orders.of(b"llvmcache-A"), Some(&[7; 16][..]));
        assert_eq!(orders.of(b"llvmcache-C"), None);
        // lld has to read what the record says, and nothing else.
        let mut inputs = InputsRead::default();
        assert!(orders.check(&inputs).is_err());
        let identity = Identity::of_path(&input).expect("the file");
        inputs.add(input.as_os_str().as_bytes(), identity);
        orders.is_stale = false;
        orders.check(&inputs).expect("the same files");
        orders.looked_up(1, b"llvmcache-A", None);
        assert!(!orders.are_stale());
        orders.looked_up(1, b"llvmcache-C", None);
        assert!(orders.are_stale());
        inputs.add(b"/another", identity);
        assert!(orders.check(&inputs).is_err());

        std::fs::write(&input, "another").expect("a file");
        assert!(Record::read(&file, fingerprint).is_none());
        let without = ImportOrders::new(22, true, false, None);
        assert!(without.are_from_shards());
        assert_eq!(without.of(b"llvmcache-A"), None);
    }

    #[test]
    fn a_damaged_record_is_none() {
        let dir = tempfile::tempdir().expect("a directory");
        let input = dir.path().join("a.o");
        std::fs::write(&input, "old").expect("a file");
        let (file, fingerprint) = recorded(dir.path(), &input);
        let good = std::fs::read(&file).expect("the record");
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(Record::parse(&bad, fingerprint).is_none(), "{at}");
            assert!(Record::parse(&good[..at], fingerprint).is_none(), "{at}");
        }
        // With a checksum that is right, too.
        for end in 0..good.len() - 16 {
            let mut bad = good[..end].to_vec();
            bad.extend(Md5::digest(&good[..end]));
            let _ = Record::parse(&bad, fingerprint);
        }
    }

    #[test]
    fn keys_of_older_versions_have_the_order() {
        let orders = ImportOrders::new(16, true, true, None);
        assert!(!orders.are_from_shards());
        assert_eq!(orders.of(b"llvmcache-A"), Some(&[][..]));
        // Where there is no cache nothing is asked for.
        assert!(!ImportOrders::new(22, false, true, None).are_from_shards());
    }
}
