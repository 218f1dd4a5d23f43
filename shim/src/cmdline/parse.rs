//! Arguments as lld's ELF driver reads them (lld/ELF/DriverUtils.cpp, `ELFOptTable::parse`;
//! llvm/lib/Option/OptTable.cpp): response files expanded, options told from inputs, values taken.
//!
//! Two things happen before that in lld: its first arguments may ask for another driver than ELF's
//! (lld/Common/DriverDispatcher.cpp), and `-plugin-opt X` becomes `-plugin-opt=X`.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt;

use crate::options::{self, Id, Match, ValueKind};
use crate::response::{self, Quoting, ResponseError};

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
}

/// Why a command line can't be parsed. In each case the real lld fails or is another driver than ELF's:
/// run it on the original arguments.
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

/// Expands response files in `argv` (without `argv[0]`) and reads it as the first of `dialects` (tested
/// releases) does that knows the option.
pub(super) fn parse(argv: &[OsString], dialects: &[u32]) -> Result<Vec<Arg>, ParseError> {
    let argv = strip_flavor(argv)?;
    // lld parses once to learn the quoting and again after expansion. Parsing costs an allocation for
    // each argument, and hardly anyone asks for another quoting, so we look for the word first.
    let says_quoting = |arg: &OsString| arg.as_bytes().windows(11).any(|w| w == b"rsp-quoting");
    let quoting = if argv.iter().any(says_quoting) {
        match last_in(&Parsed::new(argv.to_vec(), dialects).args, Id::RspQuoting) {
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
        None if quoting == Quoting::Gnu => first_emulation(&expanded).map(OsStr::to_os_string),
        None => first_emulation(&response::expand(argv, Quoting::Gnu)?).map(OsStr::to_os_string),
    };
    if let Some(emulation) = emulation.filter(|name| is_pe(name)) {
        return Err(ParseError::OtherDriver(emulation));
    }
    let parsed = Parsed::new(join_plugin_opts(expanded), dialects);
    match parsed.without_value {
        Some(option) => Err(ParseError::MissingValue(option)),
        None => Ok(parsed.args),
    }
}

/// What one pass of lld's parser gives.
struct Parsed {
    args: Vec<Arg>,
    /// The last argument, if it is an option that lacks its value.
    without_value: Option<OsString>,
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
                .find(|&found| found != Match::Unknown);
            args.push(match found {
                None | Some(Match::Unknown) => Arg::Unknown(arg),
                Some(Match::Input) => Arg::Input(arg),
                Some(Match::Option { spelling, len }) => {
                    let joined = OsStr::from_bytes(bytes.get(len..).unwrap_or_default());
                    let value = match spelling.value_kind {
                        ValueKind::Flag => Some(OsString::from(spelling.value.unwrap_or_default())),
                        ValueKind::Joined => Some(joined.to_os_string()),
                        ValueKind::JoinedOrSeparate if !joined.is_empty() => {
                            Some(joined.to_os_string())
                        }
                        ValueKind::JoinedOrSeparate | ValueKind::Separate => rest.next(),
                    };
                    let Some(value) = value else {
                        return Parsed {
                            args,
                            without_value: Some(arg),
                        };
                    };
                    Arg::Option(Occurrence {
                        id: spelling.id,
                        value,
                    })
                }
            });
        }
        Parsed {
            args,
            without_value: None,
        }
    }
}

/// The options among `args`, in order.
pub(super) fn options_in(args: &[Arg]) -> impl DoubleEndedIterator<Item = &Occurrence> {
    args.iter().filter_map(|arg| match arg {
        Arg::Option(option) => Some(option),
        _ => None,
    })
}

/// The value of the last occurrence of `id` among `args`.
pub(super) fn last_in(args: &[Arg], id: Id) -> Option<&OsStr> {
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

/// What follows the first argument `-m`, even if that is another option's value: by this lld recognizes a
/// MinGW link.
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
    use crate::cmdline::{CommandLine, OutputKind};

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
