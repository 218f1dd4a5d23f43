//! The decision: is this link to be split?
//!
//! Reads as little as it can. `never`, an option that ends the question, or no bitcode among the
//! inputs, and the link is forwarded as it came. What is not understood is forwarded too: the real
//! lld then says its own error (DESIGN.md, invariant 2).

use crate::cmdline::CommandLine;
use crate::config::{Config, Executor, Split};
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
    /// It has bitcode: try to split it.
    Split {
        /// The output.
        output: String,
    },
}

/// The reason of a link that has nothing to split.
pub const NO_BITCODE: &str = "no bitcode";

/// Options that end the question before any input is read, and how the reason names them.
const NEVER_SPLIT: &[(Id, &str)] = &[(Id::Help, "--help"), (Id::Version, "--version")];

/// A backend costs the start of one process, 40 ms on a quiet core (fact 5), which lld's own threads
/// do not have: redis-server took 1.19 times as long with backends on the same two cores.
const NOT_LOCALLY: &str =
    "LDWRAP_SPLIT=auto: backends on this machine alone are no faster than lld's own threads";

/// Decides about the link with these arguments (argv without its first).
#[must_use]
pub fn decide<'a>(args: impl ExactSizeIterator<Item = &'a OsStr>, config: &Config) -> Decision {
    let output = |cmd: &CommandLine| cmd.output().to_string_lossy().into_owned();
    let forward = |reason: String, cmd: Option<&CommandLine>| Decision::Forward {
        reason,
        output: cmd.map(output).unwrap_or_default(),
    };
    if config.split == Split::Never && config.report.is_none() {
        return forward("LDWRAP_SPLIT=never".into(), None);
    }
    let sample = config.split != Split::Always;
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
    if let Some((_, name)) = NEVER_SPLIT.iter().find(|(id, _)| cmd.has(*id)) {
        return forward(format!("{name} links nothing"), Some(&cmd));
    }
    if std::env::var_os("LLD_REPRODUCE").is_some() {
        // lld's own variable, the same as --reproduce.
        return forward("LLD_REPRODUCE: lld packs what it reads".into(), Some(&cmd));
    }
    match inputs::first_bitcode(&cmd, sample) {
        Ok(Bitcode::None) => forward(NO_BITCODE.into(), Some(&cmd)),
        Ok(Bitcode::At { .. })
            if config.split == Split::Auto && config.executor() == Executor::Local =>
        {
            forward(NOT_LOCALLY.into(), Some(&cmd))
        }
        Ok(Bitcode::At { .. }) => Decision::Split {
            output: output(&cmd),
        },
        Err(e) => forward(e.to_string(), Some(&cmd)),
    }
}
