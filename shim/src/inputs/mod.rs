//! Every input of a link, found as lld finds it, and what it is.
//!
//! The shim does this for each plain link before it becomes lld, so it costs one `open`, one small
//! `pread` and one `close` for each object, and nothing else.
//!
//! The rules are lld's: `LinkerDriver::createFiles` and `addFile` (lld/ELF/Driver.cpp),
//! `searchLibrary` and `findFromSearchPaths` (lld/ELF/DriverUtils.cpp), `ScriptParser::addFile`
//! (lld/ELF/ScriptParser.cpp). Where we would have to guess there is an [`InputError`], and the link
//! is forwarded; lld then says what is wrong, if anything is.
//!
//! # What is not followed
//!
//! Dependent libraries. An object can name libraries itself (`#pragma comment(lib, "x")`: a section
//! of type `SHT_LLVM_DEPENDENT_LIBRARIES` in ELF, a field of the symbol table in bitcode), and lld
//! adds them while it parses the object (`addDependentLibrary` in lld/ELF/InputFiles.cpp; found as
//! `-lx`, then as a file in the search paths, then as a path; off with `--no-dependent-libraries`).
//! To find them each native object's section headers would have to be read, in every plain link,
//! for the sake of a link whose only bitcode is in such a library. So bitcode that comes in only that
//! way does not count, and the link is forwarded: the output is right, but nothing comes from a cache. In a
//! link with other bitcode nothing is lost, as lld itself finds the libraries and names their modules by
//! identifiers that [`crate::archive::locate`] finds.
//!
//! `--just-symbols` and `--in-implib` name ELF files that never go through LTO.

mod error;
mod fat_object;
mod open;
mod sample;
mod walk;

pub use error::{InputError, InputFault};
pub use sample::sample_args;
pub use walk::Visit;

use std::path::Path;

use crate::archive::Member;
use crate::cmdline::CommandLine;
use crate::kind::Kind;
use walk::{Walked, WalkedMember, Walker};

/// An input, or a member of one.
#[derive(Debug)]
pub struct Input<'a> {
    /// The file, by the path that lld opens; for a member, the archive.
    pub path: &'a Path,
    /// The member, if this is one.
    pub member: Option<&'a Member>,
    /// What the file or member is.
    pub kind: Kind,
}

/// Calls `f` with each input of the link in lld's order, archives and scripts before what they
/// contain.
///
/// Fails with `f`'s error, or when an input can't be found, read or understood.
pub fn visit(
    cmd: &CommandLine,
    f: &mut dyn FnMut(&Input<'_>) -> Result<Visit, InputError>,
) -> Result<(), InputError> {
    let mut sink = |walked: Walked<'_>| {
        let named;
        let member = match walked.member {
            None => None,
            Some(WalkedMember::Regular(archive, header)) => {
                named = archive.member(header)?;
                Some(&named)
            }
            Some(WalkedMember::Thin(member)) => Some(member),
        };
        f(&Input {
            path: walked.path,
            member,
            kind: walked.kind,
        })
    };
    Walker::new(cmd, false, &mut sink)?.walk(cmd)
}

/// The bitcode among a link's inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bitcode {
    /// How much there is, as far as it was looked at.
    pub bytes: u64,
    /// How many objects and members have it, if all were looked at.
    pub modules: Option<usize>,
}

/// How much bitcode the link has among its inputs, or at least `enough` bytes: it stops as soon as
/// it has seen so many. What lies in archives counts whether or not the link takes it.
///
/// Archives wait until all files have been looked at, since one look at a file is cheaper than one at
/// each member. With `sample`, of very many objects (of names in `.o`, or members of thin archives) only
/// some are looked at and counted.
///
/// Fails when an input that it came by can't be found, read or understood.
pub fn bitcode(cmd: &CommandLine, sample: bool, enough: u64) -> Result<Bitcode, InputError> {
    let (mut bytes, mut modules) = (0u64, 0);
    let mut sink = |walked: Walked<'_>| {
        if walked.kind.is_bitcode() {
            bytes = bytes.saturating_add(walked.bitcode_size.max(1));
            modules += 1;
        }
        Ok(if bytes >= enough {
            Visit::Stop
        } else {
            Visit::Continue
        })
    };
    let mut walker = Walker::new(cmd, true, &mut sink)?;
    let all = !sample || walker.sample(cmd);
    walker.walk(cmd)?;
    let modules = (all && bytes < enough).then_some(modules);
    Ok(Bitcode { bytes, modules })
}
