//! lld's command line: what was typed, and what it means for the inputs.
//!
//! [`CommandLine::parse`] reads arguments as lld's ELF driver does, over the table in
//! [`options`](crate::options). [`CommandLine::steps`] gives the inputs in the order in which lld loads
//! them. Everything else asks what the options say.
//!
//! Nothing here says whether a value is good. lld checks values itself when the link runs, and
//! its own messages are the ones that the user is to see.

mod parse;
mod steps;

pub use parse::{Arg, Occurrence, ParseError};
pub use steps::{PositionalState, Step};

use std::ffi::{OsStr, OsString};

use crate::options::{self, Id};

/// A parsed command line.
#[derive(Clone, Debug, Default)]
pub struct CommandLine {
    /// Inputs and options in order.
    pub args: Vec<Arg>,
    /// The release that the arguments were read for.
    major: Option<u32>,
}

/// What kind of file a link makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputKind {
    /// An executable at a fixed address.
    Executable,
    /// A position-independent executable, static or not.
    Pie,
    /// A shared library.
    Shared,
    /// A relocatable object (`-r`).
    Relocatable,
}

impl CommandLine {
    /// Expands response files in `argv` (without `argv[0]`) and parses it, for any lld: what the
    /// newest tested release does, and where that knows no such option, what an older one does.
    ///
    /// # Errors
    /// See [`ParseError`]. An unknown option is none; see [`CommandLine::first_unknown`].
    pub fn parse(argv: &[OsString]) -> Result<CommandLine, ParseError> {
        Self::parse_for(argv, None)
    }

    /// [`CommandLine::parse`] for lld `major`, or for any with `None`; see [`options::dialects`].
    ///
    /// # Errors
    /// As for [`CommandLine::parse`].
    pub fn parse_for(argv: &[OsString], major: Option<u32>) -> Result<CommandLine, ParseError> {
        let args = parse::parse(argv, &options::dialects(major))?;
        Ok(CommandLine { args, major })
    }

    /// All options, in order.
    pub fn options(&self) -> impl DoubleEndedIterator<Item = &Occurrence> {
        parse::options_in(&self.args)
    }

    /// Whether the option is there at all.
    #[must_use]
    pub fn has(&self, id: Id) -> bool {
        self.last(id).is_some()
    }

    /// The value of the last occurrence.
    #[must_use]
    pub fn last(&self, id: Id) -> Option<&OsStr> {
        parse::last_in(&self.args, id)
    }

    /// The values of all occurrences, in order.
    pub fn all(&self, id: Id) -> impl Iterator<Item = &OsStr> {
        self.options()
            .filter(move |option| option.id == id)
            .map(|option| option.value.as_os_str())
    }

    /// Whether a switch is on: the last of `on` and `off` decides, `default` if there is neither.
    #[must_use]
    pub fn flag(&self, on: Id, off: Id, default: bool) -> bool {
        let mut switches = self.options().filter(|o| o.id == on || o.id == off);
        switches
            .next_back()
            .map_or(default, |option| option.id == on)
    }

    /// The first argument that looks like an option and is none.
    #[must_use]
    pub fn first_unknown(&self) -> Option<&OsStr> {
        self.args.iter().find_map(|arg| match arg {
            Arg::Unknown(text) => Some(text.as_os_str()),
            _ => None,
        })
    }

    /// The files named as inputs, in order, without `-l`, scripts and the like.
    pub fn inputs(&self) -> impl Iterator<Item = &OsStr> {
        self.args.iter().filter_map(|arg| match arg {
            Arg::Input(path) => Some(path.as_os_str()),
            _ => None,
        })
    }

    /// The `-L` directories, in order, a leading `=` or `$SYSROOT` still in.
    pub fn library_paths(&self) -> impl Iterator<Item = &OsStr> {
        self.all(Id::LibraryPath)
    }

    /// `--sysroot`, empty if not given.
    #[must_use]
    pub fn sysroot(&self) -> &OsStr {
        self.last(Id::Sysroot).unwrap_or_default()
    }

    /// The output file. lld takes an empty name for none.
    #[must_use]
    pub fn output(&self) -> &OsStr {
        self.last(Id::Output)
            .filter(|path| !path.is_empty())
            .unwrap_or(OsStr::new("a.out"))
    }

    /// The program by which lld distributes the link itself. lld takes an empty name for none
    /// (`ctx.arg.dtltoDistributor`, lld/ELF/LTO.cpp).
    #[must_use]
    pub fn distributor(&self) -> Option<&OsStr> {
        self.last(Id::ThinltoDistributor)
            .filter(|program| !program.is_empty())
    }

    /// How many backend threads are asked for, as it is written; none where that is left to lld.
    /// `--threads` is also the default of `--thinlto-jobs` (lld/ELF/Driver.cpp).
    #[must_use]
    pub fn thinlto_jobs(&self) -> Option<&OsStr> {
        self.last(Id::ThinltoJobs)
            .or_else(|| self.last(Id::Threads))
    }

    /// [`Self::thinlto_jobs`] as a number, 0 for "all" or as many as lld likes; none also where lld refuses what is written
    /// (`get_threadpool_strategy`, llvm/lib/Support/Threading.cpp: digits, 32 bits).
    #[must_use]
    pub fn thinlto_job_count(&self) -> Option<u32> {
        match self.thinlto_jobs()?.to_str()? {
            "all" => Some(0),
            // Rust takes a sign too.
            digits if digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse().ok(),
            _ => None,
        }
    }

    /// The files that lld may write, by name: the output, and those of options.
    #[must_use]
    pub fn outputs(&self) -> Vec<OsString> {
        let mut outputs = vec![self.output().to_owned()];
        for option in self.options().filter(|o| o.id != Id::Output) {
            let names_output = options::TABLE
                .iter()
                .any(|spelling| spelling.id == option.id && spelling.names_output);
            if names_output && !option.value.is_empty() {
                outputs.push(option.value.clone());
            } else if option.id == Id::TimeTrace {
                // lld/ELF/Driver.cpp: by default beside the output.
                let mut beside = self.output().to_owned();
                beside.push(".time-trace");
                outputs.push(beside);
            }
        }
        outputs
    }

    /// What the link makes. `-r` and `-shared` count wherever they are; of `-pie` and `-no-pie` the
    /// last one does. lld refuses combinations of the three; here the first in the order `-r`,
    /// `-shared`, `-pie` wins then.
    #[must_use]
    pub fn kind(&self) -> OutputKind {
        if self.has(Id::Relocatable) {
            OutputKind::Relocatable
        } else if self.has(Id::Shared) {
            OutputKind::Shared
        } else if self.flag(Id::Pie, Id::NoPie, false) {
            OutputKind::Pie
        } else {
            OutputKind::Executable
        }
    }

    /// What lld loads, in its order. Nesting that lld refuses gives some state or other; such a link
    /// fails anyway.
    pub fn steps(&self) -> impl Iterator<Item = Step<'_>> {
        steps::steps(&self.args, &options::dialects(self.major)).into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::response::tokenize_gnu;

    fn parse(text: &str) -> CommandLine {
        CommandLine::parse(&tokenize_gnu(text.as_bytes())).unwrap()
    }

    #[test]
    fn an_empty_distributor_undoes_those_before_it() {
        let has = |line| parse(line).distributor().is_some();
        assert!(has("--thinlto-distributor=d a.o"));
        assert!(!has("--thinlto-distributor=d a.o --thinlto-distributor="));
        assert!(has("--thinlto-distributor= --thinlto-distributor=d"));
    }

    #[test]
    fn output_kinds() {
        for (text, kind) in [
            ("a.o", OutputKind::Executable),
            ("-pie", OutputKind::Pie),
            ("-pic-executable", OutputKind::Pie),
            ("-pie -no-pie", OutputKind::Executable),
            ("--no-pie -static --pie", OutputKind::Pie),
            ("-Bshareable", OutputKind::Shared),
            ("-shared -Bsymbolic", OutputKind::Shared),
            ("-r", OutputKind::Relocatable),
        ] {
            assert_eq!(parse(text).kind(), kind, "{text}");
        }
    }

    #[test]
    fn switches() {
        let line = parse("--gc-sections --no-gc-sections --as-needed");
        assert!(!line.flag(Id::GcSections, Id::NoGcSections, true));
        assert!(parse("--no-gc-sections --gc-sections").flag(
            Id::GcSections,
            Id::NoGcSections,
            false
        ));
        assert!(line.flag(Id::Demangle, Id::NoDemangle, true));
    }
}
