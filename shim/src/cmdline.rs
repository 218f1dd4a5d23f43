//! lld's command line: what was typed, and what it means for the inputs.
//!
//! [`CommandLine::parse`] reads arguments as lld's ELF driver does (lld/ELF/DriverUtils.cpp,
//! llvm/lib/Option/OptTable.cpp) over the table in [`options`](crate::options).
//! [`CommandLine::steps`] then plays `LinkerDriver::createFiles` (lld/ELF/Driver.cpp): the inputs
//! in lld's order, each with the state that the positional options before it have set.
//!
//! Nothing here says whether a value is good. lld checks values itself when the link runs, and
//! its own messages are the ones that the user is to see.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use crate::options::{self, Id, Kind, Match, PathRole};
use crate::response::{self, Quoting, ResponseError};

/// A parsed command line.
#[derive(Clone, Debug, Default)]
pub struct CommandLine {
    /// Inputs and options in order.
    pub args: Vec<Arg>,
    /// Each response file that was read, as it was named after `@`.
    pub response_files: Vec<PathBuf>,
    /// The release that the arguments were read for.
    major: Option<u32>,
}

/// One argument, with its value if that was the next one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arg {
    /// A file to link.
    Input(OsString),
    /// An option of lld's.
    Option(Occurrence),
    /// Begins with a dash and is no option; lld fails on it.
    Unknown(OsString),
}

/// An option as it occurs on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Occurrence {
    /// Which option, whatever its spelling.
    pub id: Id,
    /// Its value. Empty for a flag, but for one that stands for a value (`--build-id`: `sha1`).
    pub value: OsString,
    /// Dashes and name as typed, without the value: `-l`, `--output=`.
    pub spelled: OsString,
}

/// Why a command line can't be parsed. In each case the real lld fails or is not ours to
/// second-guess: run it on the original arguments.
#[derive(Debug)]
pub enum ParseError {
    /// The last argument is an option that needs a value.
    MissingValue(OsString),
    /// A response file can't be used.
    Response(ResponseError),
    /// `-flavor X` or `-m i386pe` and the like: another of lld's drivers is meant.
    OtherDriver(OsString),
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ParseError::MissingValue(option) => {
                write!(
                    f,
                    "{}: no value follows this option",
                    option.to_string_lossy()
                )
            }
            ParseError::Response(error) => error.fmt(f),
            ParseError::OtherDriver(what) => {
                write!(
                    f,
                    "'{}' asks for a driver of lld's that is not ELF's",
                    what.to_string_lossy()
                )
            }
        }
    }
}

impl std::error::Error for ParseError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ParseError::Response(error) => Some(error),
            _ => None,
        }
    }
}

impl From<ResponseError> for ParseError {
    fn from(error: ResponseError) -> Self {
        ParseError::Response(error)
    }
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

/// The positional state in which lld loads an input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// `-l` finds no shared library, and a shared library is an error (`-Bstatic`, `-n`, `-N`).
    pub is_static: bool,
    /// A shared library counts only if used.
    pub as_needed: bool,
    /// Every member of an archive is linked.
    pub whole_archive: bool,
    /// Within `--start-group` or `--start-lib`.
    pub in_group: bool,
    /// Within `--start-lib`: objects are lazy like archive members.
    pub in_lib: bool,
    /// `--format=binary`: whatever the file is, it is data.
    pub format_binary: bool,
}

/// One thing that lld loads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// A file named on the command line.
    File {
        /// Its path.
        path: &'a OsStr,
        /// How to take it.
        state: State,
    },
    /// `-l`.
    Library {
        /// What follows `-l`; with a leading `:` a file name.
        name: &'a OsStr,
        /// How to take it.
        state: State,
    },
    /// `-T`: searched in the working directory and then in the library paths.
    Script {
        /// Its path.
        path: &'a OsStr,
        /// The state for the inputs that it names.
        state: State,
    },
    /// The last `--default-script`, read after all else, and only if there is no `-T`.
    DefaultScript {
        /// Its path.
        path: &'a OsStr,
        /// The state for the inputs that it names.
        state: State,
    },
    /// `--just-symbols`: an object that gives addresses only.
    JustSymbols(&'a OsStr),
    /// `--in-implib`: an ARM CMSE import library.
    InImplib(&'a OsStr),
    /// `--defsym`: `SYMBOL=EXPRESSION`, a piece of linker script.
    Defsym(&'a OsStr),
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
        let dialects = options::dialects(major);
        let argv = strip_flavor(argv)?;
        // lld parses once to learn the quoting and again after expansion.
        // Parsing costs an allocation an argument, and hardly anyone says it.
        let says_quoting = |arg: &OsString| arg.as_bytes().windows(11).any(|w| w == b"rsp-quoting");
        let quoting = if argv.iter().any(says_quoting) {
            match Parsed::new(argv.to_vec(), &dialects).last(Id::RspQuoting) {
                Some(style) if style == "windows" => Quoting::Windows,
                _ => Quoting::Gnu,
            }
        } else {
            Quoting::Gnu
        };
        let expanded = response::expand(argv, quoting)?;
        let emulation = match first_emulation(argv) {
            Some(emulation) => Some(emulation.to_os_string()),
            // lld looks into response files for this, always with GNU quoting.
            None if quoting == Quoting::Gnu => {
                first_emulation(&expanded.args).map(OsStr::to_os_string)
            }
            None => first_emulation(&response::expand(argv, Quoting::Gnu)?.args)
                .map(OsStr::to_os_string),
        };
        if let Some(emulation) = emulation.filter(|name| is_pe(name)) {
            return Err(ParseError::OtherDriver(emulation));
        }
        let parsed = Parsed::new(join_plugin_opts(expanded.args), &dialects);
        match parsed.missing {
            Some(option) => Err(ParseError::MissingValue(option)),
            None => Ok(CommandLine {
                args: parsed.args,
                response_files: expanded.files,
                major,
            }),
        }
    }

    /// All options, in order.
    pub fn options(&self) -> impl DoubleEndedIterator<Item = &Occurrence> {
        options_in(&self.args)
    }

    /// Whether the option is there at all.
    #[must_use]
    pub fn has(&self, id: Id) -> bool {
        self.last(id).is_some()
    }

    /// The value of the last occurrence.
    #[must_use]
    pub fn last(&self, id: Id) -> Option<&OsStr> {
        last_in(&self.args, id)
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
        self.last_of(&[on, off])
            .map_or(default, |option| option.id == on)
    }

    /// The last occurrence of any of `ids`.
    #[must_use]
    pub fn last_of(&self, ids: &[Id]) -> Option<&Occurrence> {
        self.options().rev().find(|option| ids.contains(&option.id))
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

    /// How many backend threads are asked for, as it is written; none where that is left to lld.
    /// `--threads` is also the default of `--thinlto-jobs` (lld/ELF/Driver.cpp).
    #[must_use]
    pub fn thinlto_jobs(&self) -> Option<&OsStr> {
        self.last(Id::ThinltoJobs)
            .or_else(|| self.last(Id::Threads))
    }

    /// The files that lld may write, by name: the output, and those of options.
    #[must_use]
    pub fn outputs(&self) -> Vec<OsString> {
        let mut outputs = vec![self.output().to_owned()];
        for option in self.options().filter(|o| o.id != Id::Output) {
            let writes = |e: &&options::Entry| e.takes_path == Some(PathRole::Output);
            let named = options::TABLE
                .iter()
                .filter(writes)
                .any(|e| e.id == option.id);
            if named && !option.value.is_empty() {
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

    /// `-m`. Without it lld takes the machine of the first input that has one.
    #[must_use]
    pub fn emulation(&self) -> Option<&OsStr> {
        self.last(Id::Emulation)
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

    /// What lld loads, in its order (`LinkerDriver::createFiles`). Nesting that lld refuses gives
    /// some state or other; such a link fails anyway.
    pub fn steps(&self) -> impl Iterator<Item = Step<'_>> {
        // Read in the sources of 16 (no) and 19 (yes); -Bdynamic has no effect then.
        let newer = options::dialects(self.major).first() >= Some(&19);
        let always_static = newer && self.has(Id::Relocatable);
        let mut state = State {
            is_static: always_static,
            ..State::default()
        };
        let mut saved = Vec::new();
        let mut default_script = None;
        let mut has_script = false;
        let mut steps = Vec::new();
        for arg in &self.args {
            let option = match arg {
                Arg::Input(path) => {
                    steps.push(Step::File { path, state });
                    continue;
                }
                Arg::Unknown(_) => continue,
                Arg::Option(option) => option,
            };
            let value = option.value.as_os_str();
            match option.id {
                Id::Library => steps.push(Step::Library { name: value, state }),
                Id::Script => {
                    has_script = true;
                    steps.push(Step::Script { path: value, state });
                }
                Id::DefaultScript => default_script = Some(value),
                Id::JustSymbols => steps.push(Step::JustSymbols(value)),
                Id::InImplib => steps.push(Step::InImplib(value)),
                Id::Defsym => steps.push(Step::Defsym(value)),
                Id::AsNeeded => state.as_needed = true,
                Id::NoAsNeeded => state.as_needed = false,
                Id::Bstatic | Id::Omagic | Id::Nmagic => state.is_static = true,
                Id::Bdynamic => state.is_static = always_static,
                Id::WholeArchive => state.whole_archive = true,
                Id::NoWholeArchive => state.whole_archive = false,
                Id::Format => state.format_binary = value == "binary",
                Id::StartGroup => state.in_group = true,
                Id::EndGroup => state.in_group = false,
                Id::StartLib => (state.in_lib, state.in_group) = (true, true),
                Id::EndLib => (state.in_lib, state.in_group) = (false, false),
                Id::PushState => saved.push(state),
                Id::PopState => {
                    // Groups and the format are not part of what is saved.
                    if let Some(old) = saved.pop() {
                        state.as_needed = old.as_needed;
                        state.is_static = old.is_static;
                        state.whole_archive = old.whole_archive;
                    }
                }
                _ => {}
            }
        }
        let last = default_script.filter(|_| !has_script);
        steps.extend(last.map(|path| Step::DefaultScript { path, state }));
        steps.into_iter()
    }
}

/// What one pass of lld's parser gives.
struct Parsed {
    args: Vec<Arg>,
    /// The option that wanted a value after the last argument.
    missing: Option<OsString>,
}

impl Parsed {
    fn new(argv: Vec<OsString>, dialects: &[u32]) -> Parsed {
        let mut args = Vec::with_capacity(argv.len());
        let mut rest = argv.into_iter();
        while let Some(arg) = rest.next() {
            let bytes = arg.as_bytes();
            // lld skips empty arguments, but takes them as values.
            if bytes.is_empty() {
                continue;
            }
            let found = dialects
                .iter()
                .map(|&major| options::lookup(bytes, major))
                .find(|&found| found != Match::Unknown)
                .unwrap_or(Match::Unknown);
            args.push(match (found, found.entry()) {
                (Match::Input, _) => Arg::Input(arg),
                (Match::Option { len, .. }, Some(entry)) => {
                    let (spelled, joined) = bytes.split_at_checked(len).unwrap_or((bytes, b""));
                    let joined = OsStr::from_bytes(joined);
                    let value = match entry.kind {
                        Kind::Flag => Some(OsString::from(entry.value.unwrap_or_default())),
                        Kind::Joined => Some(joined.to_os_string()),
                        Kind::JoinedOrSeparate if !joined.is_empty() => Some(joined.to_os_string()),
                        Kind::JoinedOrSeparate | Kind::Separate => rest.next(),
                    };
                    let Some(value) = value else {
                        return Parsed {
                            args,
                            missing: Some(arg),
                        };
                    };
                    Arg::Option(Occurrence {
                        id: entry.id,
                        value,
                        spelled: OsStr::from_bytes(spelled).to_os_string(),
                    })
                }
                _ => Arg::Unknown(arg),
            });
        }
        Parsed {
            args,
            missing: None,
        }
    }

    fn last(&self, id: Id) -> Option<&OsStr> {
        last_in(&self.args, id)
    }
}

fn options_in(args: &[Arg]) -> impl DoubleEndedIterator<Item = &Occurrence> {
    args.iter().filter_map(|arg| match arg {
        Arg::Option(option) => Some(option),
        _ => None,
    })
}

fn last_in(args: &[Arg], id: Id) -> Option<&OsStr> {
    options_in(args)
        .rev()
        .find(|option| option.id == id)
        .map(|option| option.value.as_os_str())
}

/// Drops a leading `-flavor gnu` (lld/Common/DriverDispatcher.cpp).
fn strip_flavor(argv: &[OsString]) -> Result<&[OsString], ParseError> {
    match argv {
        [first, rest @ ..] if first == "-flavor" => match rest {
            [] => Err(ParseError::MissingValue(first.clone())),
            [flavor, rest @ ..] => {
                let gnu = ["gnu", "ld", "ld.lld"];
                if gnu.iter().any(|name| flavor.eq_ignore_ascii_case(name)) {
                    Ok(rest)
                } else {
                    Err(ParseError::OtherDriver(flavor.clone()))
                }
            }
        },
        _ => Ok(argv),
    }
}

/// What follows the first `-m` that is an argument of its own, be it itself another's value: where
/// lld looks to tell a MinGW link.
fn first_emulation(argv: &[OsString]) -> Option<&OsStr> {
    argv.windows(2).find_map(|pair| match pair {
        [option, name] if option == "-m" => Some(name.as_os_str()),
        _ => None,
    })
}

/// The emulations that any lld hands to its MinGW driver.
fn is_pe(emulation: &OsStr) -> bool {
    let names = [
        "i386pe",
        "i386pep",
        "thumb2pe",
        "arm64pe",
        "arm64ecpe",
        "arm64xpe",
        "mipspe",
    ];
    names.iter().any(|name| emulation == *name)
}

/// lld joins `-plugin-opt X` to `-plugin-opt=X` before it parses, wherever the words stand.
fn join_plugin_opts(argv: Vec<OsString>) -> Vec<OsString> {
    let mut joined = Vec::with_capacity(argv.len());
    let mut rest = argv.into_iter();
    while let Some(mut arg) = rest.next() {
        let form = arg == "-plugin-opt" || arg == "--plugin-opt";
        if let Some(value) = if form { rest.next() } else { None } {
            arg.push("=");
            arg.push(value);
        }
        joined.push(arg);
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    fn argv(text: &str) -> Vec<OsString> {
        response::tokenize_gnu(text.as_bytes())
    }

    fn parse(text: &str) -> CommandLine {
        CommandLine::parse(&argv(text)).unwrap()
    }

    #[test]
    fn values_in_every_position() {
        let line = parse("-o a -ob --output=c --output d -lm -l c -l:x.a -O2 --lto-O3 x.o -z now");
        assert_eq!(
            line.all(Id::Output).collect::<Vec<_>>(),
            ["a", "b", "c", "d"]
        );
        assert_eq!(
            line.all(Id::Library).collect::<Vec<_>>(),
            ["m", "c", ":x.a"]
        );
        assert_eq!(line.last(Id::Optimize), Some(OsStr::new("2")));
        assert_eq!(line.last(Id::LtoO), Some(OsStr::new("3")));
        assert_eq!(line.last(Id::Z), Some(OsStr::new("now")));
        assert_eq!(line.inputs().collect::<Vec<_>>(), ["x.o"]);
        assert_eq!(line.output(), "d");
        assert_eq!(line.first_unknown(), None);
    }

    #[test]
    fn values_may_look_like_options_and_be_empty() {
        let args = ["-o", "", "--soname", "-shared", "", "-h", "--", "-"];
        let line = CommandLine::parse(&args.map(OsString::from)).unwrap();
        assert_eq!(line.last(Id::Output), Some(OsStr::new("")));
        assert_eq!(line.output(), "a.out");
        assert_eq!(line.all(Id::Soname).collect::<Vec<_>>(), ["-shared", "--"]);
        assert_eq!(line.kind(), OutputKind::Executable);
        assert_eq!(line.inputs().collect::<Vec<_>>(), ["-"]);
    }

    #[test]
    fn missing_values() {
        for text in ["-o", "a.o --soname", "-z", "-u x -u", "-flavor"] {
            let error = CommandLine::parse(&argv(text)).unwrap_err();
            assert!(
                matches!(error, ParseError::MissingValue(_)),
                "{text}: {error}"
            );
        }
    }

    #[test]
    fn aliases_carry_their_value() {
        let line = parse("--build-id --no-color-diagnostics --power10-stubs");
        assert_eq!(line.last(Id::BuildId), Some(OsStr::new("sha1")));
        assert_eq!(line.last(Id::ColorDiagnostics), Some(OsStr::new("never")));
        assert_eq!(line.last(Id::Power10Stubs), Some(OsStr::new("yes")));
        let old = CommandLine::parse_for(&argv("--build-id -V"), Some(14)).unwrap();
        assert_eq!(old.last(Id::BuildId), Some(OsStr::new("fast")));
        assert!(old.has(Id::Version));
    }

    #[test]
    fn plugin_options() {
        let line = parse(
            "-plugin /x/LLVMgold.so -plugin-opt mcpu=x86-64 --plugin-opt=O3 \
             -plugin-opt=-function-sections -plugin-opt=thinlto-index-only=list \
             -plugin-opt jobs=2 -mllvm -x -plugin-opt=thinlto -plugin-opt=cs-profile-generate",
        );
        assert_eq!(line.last(Id::Plugin), Some(OsStr::new("/x/LLVMgold.so")));
        assert_eq!(line.last(Id::PluginOptMcpu), Some(OsStr::new("x86-64")));
        assert_eq!(line.last(Id::LtoO), Some(OsStr::new("3")));
        assert_eq!(
            line.last(Id::PluginOptMinus),
            Some(OsStr::new("function-sections"))
        );
        assert_eq!(line.last(Id::ThinltoIndexOnlyEq), Some(OsStr::new("list")));
        assert_eq!(line.last(Id::ThinltoJobs), Some(OsStr::new("2")));
        assert_eq!(line.last(Id::Mllvm), Some(OsStr::new("-x")));
        assert!(line.has(Id::Ignored) && line.has(Id::LtoCsProfileGenerate));
        assert_eq!(
            parse("-plugin-opt").first_unknown(),
            Some(OsStr::new("-plugin-opt"))
        );
    }

    #[test]
    fn any_release_is_newest_first() {
        // Removed after 14; the newest meaning of a spelling wins.
        assert!(parse("--time-trace-file=x").has(Id::TimeTraceFile));
        assert!(parse("-V").has(Id::V));
        let only_14 = CommandLine::parse_for(&argv("--why-live=x"), Some(14)).unwrap();
        assert_eq!(only_14.first_unknown(), Some(OsStr::new("--why-live=x")));
        assert!(
            CommandLine::parse_for(&argv("--remap-inputs=a=b"), Some(18))
                .unwrap()
                .has(Id::RemapInputs)
        );
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
        assert!(line.flag(Id::Demangle, Id::NoDemangle, true));
        let last = line.last_of(&[Id::GcSections, Id::NoGcSections]).unwrap();
        assert_eq!(last.spelled, "--no-gc-sections");
    }

    #[test]
    fn steps_carry_state() {
        let line = parse(
            "a.o --push-state --as-needed --whole-archive -Bstatic -lb --pop-state -lc \
             --start-lib d.o --end-lib -( e.a -) -b binary f --format=elf -T s -N g.o \
             --default-script t -dy --just-symbols=h --defsym x=1 -lz",
        );
        let none = State::default();
        let is_static = State {
            is_static: true,
            ..none
        };
        let path = OsStr::new;
        let expected = [
            Step::File {
                path: path("a.o"),
                state: none,
            },
            Step::Library {
                name: path("b"),
                state: State {
                    as_needed: true,
                    whole_archive: true,
                    ..is_static
                },
            },
            Step::Library {
                name: path("c"),
                state: none,
            },
            Step::File {
                path: path("d.o"),
                state: State {
                    in_lib: true,
                    in_group: true,
                    ..none
                },
            },
            Step::File {
                path: path("e.a"),
                state: State {
                    in_group: true,
                    ..none
                },
            },
            Step::File {
                path: path("f"),
                state: State {
                    format_binary: true,
                    ..none
                },
            },
            Step::Script {
                path: path("s"),
                state: none,
            },
            Step::File {
                path: path("g.o"),
                state: is_static,
            },
            Step::JustSymbols(path("h")),
            Step::Defsym(path("x=1")),
            Step::Library {
                name: path("z"),
                state: none,
            },
        ];
        assert_eq!(line.steps().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn default_script_comes_last_and_yields_to_t() {
        let line = parse("-dT one -dT two a.o");
        let last = line.steps().last();
        assert!(matches!(last, Some(Step::DefaultScript { path, .. }) if path == "two"));
    }

    #[test]
    fn relocatable_links_are_static_in_newer_releases() {
        for (major, is_static) in [(14, false), (16, false), (19, true), (22, true)] {
            let line = CommandLine::parse_for(&argv("-r -Bdynamic a"), Some(major)).unwrap();
            let state = State {
                is_static,
                ..State::default()
            };
            let path = OsStr::new("a");
            assert_eq!(
                line.steps().next(),
                Some(Step::File { path, state }),
                "{major}"
            );
        }
    }

    #[test]
    fn other_drivers() {
        assert_eq!(parse("-flavor GNU a.o").inputs().count(), 1);
        assert!(parse("-mi386pep").has(Id::Emulation));
        for text in [
            "-flavor darwin",
            "-m i386pep",
            "-o -m i386pe",
            "-flavor ld -m arm64pe",
        ] {
            let error = CommandLine::parse(&argv(text)).unwrap_err();
            assert!(
                matches!(error, ParseError::OtherDriver(_)),
                "{text}: {error}"
            );
        }
        assert!(CommandLine::parse(&argv("-m elf_x86_64 -o -m i386pe")).is_ok());
    }
}
