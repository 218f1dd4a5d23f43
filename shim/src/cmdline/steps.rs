//! What lld loads, in its order: `LinkerDriver::createFiles` (lld/ELF/Driver.cpp).
//!
//! Only what decides which file is found, and whether it can be bitcode, is kept of the positional options:
//! `--as-needed`, `--whole-archive`, groups and `--start-lib` decide what lld takes from a file, which
//! nobody here asks.

use std::ffi::OsStr;

use super::parse::Arg;
use crate::options::Id;

/// What the options before an input say about how it is found and read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PositionalState {
    /// `-l` finds no shared library, and a shared library is an error (`-Bstatic`, `-n`, `-N`).
    pub is_static: bool,
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
        state: PositionalState,
    },
    /// `-l`.
    Library {
        /// What follows `-l`; with a leading `:` a file name.
        name: &'a OsStr,
        /// How to take it.
        state: PositionalState,
    },
    /// `-T`: searched in the working directory and then in the library paths. The last
    /// `--default-script` comes after all else, and only if there is no `-T`.
    Script {
        /// Its path.
        path: &'a OsStr,
        /// The state for the inputs that it names.
        state: PositionalState,
    },
    /// `--just-symbols`, an object that gives addresses only, or `--in-implib`, an ARM CMSE import library:
    /// an ELF file that never goes through LTO.
    Symbols(&'a OsStr),
}

/// The steps of a command line that was read for `dialects` (tested releases, the preferred one first).
pub(super) fn steps<'a>(args: &'a [Arg], dialects: &[u32]) -> Vec<Step<'a>> {
    // Read in the sources of 16 (no) and 19 (yes); -Bdynamic has no effect then.
    let newer = dialects.first() >= Some(&19);
    let relocatable = |arg: &Arg| matches!(arg, Arg::Option(o) if o.id == Id::Relocatable);
    let always_static = newer && args.iter().any(relocatable);
    let mut state = PositionalState {
        is_static: always_static,
        ..PositionalState::default()
    };
    // The format is not part of what --push-state saves.
    let mut saved = Vec::new();
    let mut default_script = None;
    let mut has_script = false;
    let mut steps = Vec::new();
    for arg in args {
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
            Id::JustSymbols | Id::InImplib => steps.push(Step::Symbols(value)),
            Id::Bstatic | Id::Omagic | Id::Nmagic => state.is_static = true,
            Id::Bdynamic => state.is_static = always_static,
            Id::Format => state.format_binary = value == "binary",
            Id::PushState => saved.push(state.is_static),
            Id::PopState => state.is_static = saved.pop().unwrap_or(state.is_static),
            _ => {}
        }
    }
    let last = default_script.filter(|_| !has_script);
    steps.extend(last.map(|path| Step::Script { path, state }));
    steps
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cmdline::CommandLine;
    use crate::response::tokenize_gnu;

    fn parse(text: &str, major: Option<u32>) -> CommandLine {
        CommandLine::parse_for(&tokenize_gnu(text.as_bytes()), major).unwrap()
    }

    #[test]
    fn steps_carry_state() {
        let line = parse(
            "a.o --push-state --as-needed --whole-archive -Bstatic -lb --pop-state -lc \
             --start-lib d.o --end-lib -( e.a -) -b binary f --format=elf -T s -N g.o \
             --default-script t -dy --just-symbols=h --defsym x=1 -lz",
            None,
        );
        let none = PositionalState::default();
        let is_static = PositionalState {
            is_static: true,
            ..none
        };
        let format_binary = PositionalState {
            format_binary: true,
            ..none
        };
        let file = |path, state| Step::File {
            path: OsStr::new(path),
            state,
        };
        let library = |name, state| Step::Library {
            name: OsStr::new(name),
            state,
        };
        let expected = [
            file("a.o", none),
            library("b", is_static),
            library("c", none),
            file("d.o", none),
            file("e.a", none),
            file("f", format_binary),
            Step::Script {
                path: OsStr::new("s"),
                state: none,
            },
            file("g.o", is_static),
            Step::Symbols(OsStr::new("h")),
            library("z", none),
        ];
        assert_eq!(line.steps().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn default_script_comes_last_and_yields_to_t() {
        let paths = |text| -> Vec<String> {
            parse(text, None)
                .steps()
                .map(|step| match step {
                    Step::File { path, .. } | Step::Script { path, .. } => {
                        path.to_string_lossy().into_owned()
                    }
                    step => panic!("{step:?}"),
                })
                .collect()
        };
        assert_eq!(paths("-dT one -dT two a.o"), ["a.o", "two"]);
        assert_eq!(paths("-dT one a.o -T two b.o"), ["a.o", "two", "b.o"]);
    }

    #[test]
    fn relocatable_links_are_static_in_newer_releases() {
        for (major, is_static) in [(14, false), (16, false), (19, true), (22, true)] {
            let line = parse("-r -Bdynamic a", Some(major));
            let state = PositionalState {
                is_static,
                ..PositionalState::default()
            };
            let path = OsStr::new("a");
            assert_eq!(
                line.steps().next(),
                Some(Step::File { path, state }),
                "{major}"
            );
        }
    }
}
