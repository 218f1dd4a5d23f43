//! The decision: does a link go through ldwrap, or to the real lld as it came?
//!
//! Reads as little as it can. A link is forwarded with `LDWRAP_SPLIT=never`, with an option that links
//! nothing, or without bitcode among its inputs. What is not understood is forwarded too: the real
//! lld then says its own error (DESIGN.md, "What must always hold").

use crate::cmdline::CommandLine;
use crate::config::{Config, Split};
use crate::inputs::{self, Bitcode};
use crate::options::Id;
use std::ffi::{OsStr, OsString};

/// What is to happen with a link.
#[derive(Debug)]
pub enum Decision {
    /// Hand it to the real lld as it came.
    Forward {
        /// Why, for the report and the log.
        reason: String,
        /// The output, as far as the command line could be read.
        output: String,
    },
    /// It has bitcode: hand it to ldwrap.
    Split {
        /// The output.
        output: String,
        /// How much bitcode it has, in bytes, as far as that was counted.
        bitcode: u64,
        /// How many modules there are at most, if that was counted.
        modules: Option<usize>,
    },
}

/// The reason of a link without bitcode.
pub const NO_BITCODE: &str = "no bitcode";

/// Options with which lld links nothing, and their names in the reason.
const WITHOUT_LINK: &[(Id, &str)] = &[(Id::Help, "--help"), (Id::Version, "--version")];

/// How the reason of a command with one of these ends.
pub const LINKS_NOTHING: &str = "links nothing";

/// Bitcode is counted up to this (bytes) where it matters how large a link is: more is large too.
pub const COUNTED: u64 = 64 << 20;

/// A link of less bitcode than this (bytes) goes to lld alone: what starting ldwrap and watching lld costs
/// would be a noticeable part of it (docs/watched-links.md, "What a link costs"). configure's links are among these.
const WORTH_CACHING: u64 = 100 << 10;

/// The reason of a link that is too small for a cache to pay.
pub const TOO_SMALL: &str = "LDWRAP_SPLIT=auto: too little bitcode for a cache to pay";

/// Decides about the link with these arguments (argv without its first). Counts bitcode up to `count_to`
/// bytes, or as far as the decision needs it if that is more.
#[must_use]
pub fn decide<'a>(
    args: impl ExactSizeIterator<Item = &'a OsStr>,
    config: &Config,
    count_to: u64,
) -> Decision {
    let output = |cmd: &CommandLine| cmd.output().to_string_lossy().into_owned();
    let forward = |reason: String, cmd: Option<&CommandLine>| Decision::Forward {
        reason,
        output: cmd.map(output).unwrap_or_default(),
    };
    if config.split == Split::Never && config.report.is_none() {
        return forward("LDWRAP_SPLIT=never".into(), None);
    }
    let sample = config.split != Split::Always;
    let count = args.len();
    let args: Vec<OsString> = if sample {
        inputs::sample_args(args)
    } else {
        args.map(OsStr::to_os_string).collect()
    };
    let cmd = match CommandLine::parse(&args) {
        Ok(cmd) => cmd,
        Err(e) => return forward(e.to_string(), None),
    };
    if config.split == Split::Never {
        return forward("LDWRAP_SPLIT=never".into(), Some(&cmd));
    }
    if let Some(unknown) = cmd.first_unknown() {
        return forward(
            format!("unknown option {}", unknown.to_string_lossy()),
            Some(&cmd),
        );
    }
    if let Some((_, name)) = WITHOUT_LINK.iter().find(|(id, _)| cmd.has(*id)) {
        return forward(format!("{name} {LINKS_NOTHING}"), Some(&cmd));
    }
    if std::env::var_os("LLD_REPRODUCE").is_some() {
        // lld's own variable, the same as --reproduce.
        return forward("LLD_REPRODUCE: lld packs what it reads".into(), Some(&cmd));
    }
    // One object of a sample stands for so many.
    let scale = (count / args.len().max(1)).max(1) as u64;
    let enough = if config.split == Split::Auto {
        WORTH_CACHING / scale
    } else {
        1
    };
    match inputs::bitcode(&cmd, sample, enough.max(count_to / scale)) {
        Ok(Bitcode { bytes: 0, .. }) => forward(NO_BITCODE.into(), Some(&cmd)),
        Ok(found) if found.bytes < enough => forward(TOO_SMALL.into(), Some(&cmd)),
        Ok(Bitcode { bytes, modules }) => Decision::Split {
            output: output(&cmd),
            bitcode: bytes.saturating_mul(scale),
            modules: modules.filter(|_| scale == 1),
        },
        Err(e) => forward(e.to_string(), Some(&cmd)),
    }
}
