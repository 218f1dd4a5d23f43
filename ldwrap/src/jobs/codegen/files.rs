//! Options of a link that name files which backends read, translated to clang's flags: profiles, and the list of
//! `--lto-basic-block-sections=FILE`.

use super::InputFile;
use crate::jobs::quirks;
use shim::cmdline::CommandLine;
use shim::options::Id;
use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// A backend's name for the profile that guides it.
pub(super) const PROFILE: &str = "profile";
/// A backend's name for the list of `--lto-basic-block-sections=FILE`.
pub(super) const BASIC_BLOCKS: &str = "blocks";

/// Profiles that guide a backend (`Config::SampleProfile`, `RunCSIRInstr` and `CSIRProfile`).
pub(super) fn profile(
    cmd: &CommandLine,
    major: u32,
    args: &mut Vec<OsString>,
    inputs: &mut Vec<InputFile>,
) -> Result<(), String> {
    let given = |id| cmd.last(id).filter(|path| !path.is_empty());
    let (sample, contexts) = (given(Id::LtoSampleProfile), given(Id::LtoCsProfileFile));
    let generate = cmd.has(Id::LtoCsProfileGenerate);
    if let Some(file) = sample {
        // Where lld is given both, it takes this one only (`runNewPMPasses`, LTOBackend.cpp).
        if generate || contexts.is_some() {
            return Err("--lto-sample-profile beside a context-sensitive one".into());
        }
        args.push(format!("-fprofile-sample-use={PROFILE}").into());
        inputs.push((PROFILE.into(), absolute(file)?));
    } else if generate {
        args.push("-fprofile-instrument=csllvm".into());
        if let Some(file) = contexts {
            // The name that the program will write to; it is in the object.
            let mut arg = OsString::from("-fprofile-instrument-path=");
            arg.push(file);
            args.push(arg);
        }
    } else if let Some(file) = contexts {
        if !cmd.flag(Id::LtoPgoWarnMismatch, Id::NoLtoPgoWarnMismatch, true) {
            return Err("--no-lto-pgo-warn-mismatch: clang would warn".into());
        }
        // Later on, cc1 is told what kind of profile it is.
        if major >= quirks::PROFILE_KIND {
            args.push("-fprofile-instrument-use=csllvm".into());
        } else if !has_contexts(Path::new(file)) {
            return Err(
                "--lto-cs-profile-file: the profile is not context-sensitive, so clang would not \
                 use it; lld does"
                    .into(),
            );
        }
        args.push(format!("-fprofile-instrument-use-path={PROFILE}").into());
        inputs.push((PROFILE.into(), absolute(file)?));
    }
    Ok(())
}

/// Whether a file is an indexed profile of LLVM's instrumentation with context-sensitive records, as
/// clang asks (`setPGOUseInstrumentor`, clang/lib/Frontend/CompilerInvocation.cpp). Its header is a
/// magic number and a version with flags (llvm/ProfileData/InstrProf.h).
pub(super) fn has_contexts(file: &Path) -> bool {
    const MAGIC: [u8; 8] = *b"\xfflprofi\x81";
    const IR_AND_CONTEXTS: u64 = 3 << 56;
    let mut header = [0; 16];
    let read = std::fs::File::open(file).and_then(|mut f| f.read_exact(&mut header));
    let Some((magic, version)) = header.split_first_chunk::<8>() else {
        return false;
    };
    let mut word = [0; 8];
    word.copy_from_slice(version);
    read.is_ok() && *magic == MAGIC && u64::from_le_bytes(word) & IR_AND_CONTEXTS == IR_AND_CONTEXTS
}

/// Sections of basic blocks (`Options.BBSections` and its neighbours in createConfig).
pub(super) fn basic_blocks(
    cmd: &CommandLine,
    major: u32,
    args: &mut Vec<OsString>,
    inputs: &mut Vec<InputFile>,
) -> Result<(), String> {
    match cmd.last(Id::LtoBasicBlockSections).map(OsStr::as_bytes) {
        None | Some(b"" | b"none") => {}
        Some(b"all") => args.push("-fbasic-block-sections=all".into()),
        Some(b"labels") if major < quirks::NO_LABELS => {
            args.push("-fbasic-block-sections=labels".into())
        }
        Some(b"labels") => {
            return Err("--lto-basic-block-sections=labels: deprecated".into());
        }
        Some(file) => {
            args.push(format!("-fbasic-block-sections=list={BASIC_BLOCKS}").into());
            inputs.push((BASIC_BLOCKS.into(), absolute(OsStr::from_bytes(file))?));
        }
    }
    if cmd.flag(
        Id::LtoUniqueBasicBlockSectionNames,
        Id::NoLtoUniqueBasicBlockSectionNames,
        false,
    ) {
        args.push("-funique-basic-block-section-names".into());
    }
    if cmd.flag(
        Id::LtoBasicBlockAddressMap,
        Id::NoLtoBasicBlockAddressMap,
        false,
    ) {
        args.push("-fbasic-block-address-map".into());
    }
    Ok(())
}

fn absolute(file: &OsStr) -> Result<PathBuf, String> {
    let file = Path::new(file);
    if !file.exists() {
        return Err(format!("no such file: {}", file.display()));
    }
    std::path::absolute(file).map_err(|e| format!("{}: {e}", file.display()))
}
