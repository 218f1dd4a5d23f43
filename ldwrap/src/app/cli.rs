//! `ldwrap` as our tool: which arguments are ours, and the subcommands.

use crate::app::cache::CacheCommand;
use crate::app::phases::graph::Format;
use crate::app::phases::index::{self, NoIndex};
use crate::app::phases::{backend, final_link};
use crate::app::{
    cache, compilers, distribute, doctor, manual, report, run, settings, stats, verify,
};
use crate::sys::signals;
use clap::{CommandFactory, Parser, Subcommand};
use shim::config::Config;
use shim::kind::{HEAD_LEN, Kind, kind_of};
use shim::message::say;
use shim::settings::{SETTINGS, Setting, nearest};
use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// A drop-in ld.lld whose ThinLTO links come from a cache, share the machine, or run on a cluster.
///
/// Under the name ld.lld, and with a linker's arguments, ldwrap is the linker.
#[derive(Debug, Parser)]
#[command(
    name = "ldwrap",
    version,
    disable_help_subcommand = true,
    arg_required_else_help = true,
    after_help = "Settings are environment variables and keys of ldwrap.toml: see 'ldwrap help settings'."
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a command with all its links through ldwrap; nothing has to be set for it
    ///
    /// COMMAND finds the shim by the names of the compilers and linkers that are in PATH now, and by COMPILER_PATH, or
    /// is ld.lld or ld.lld-N itself. It has to link with lld (-fuse-ld=lld). Two lines at the end, on standard error,
    /// say what became of its links. The exit status is COMMAND's.
    Run {
        /// A link (clang -fuse-ld=lld -o app *.o), or what ends in links (make, cargo build)
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<OsString>,
    },
    /// Print the exports that make clang, gcc and rustc link through ldwrap
    Env,
    /// Put the shim beside itself by the names of the compilers in PATH, for builds that find it by PATH alone
    ///
    /// DIR, first in PATH, makes these compilers link through ldwrap: such a link runs the compiler of its name that comes
    /// next in PATH. Run it again after compilers were installed or removed. DIR should hold nothing else: compilers
    /// do not see it in PATH.
    Compilers {
        /// Where to make the links instead of in the shim's own directory
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
    /// Say whether links will be split, and if not, why and what to do
    ///
    /// Looks at the settings, the cache, the server if there is one, and each compiler in PATH: does it reach the shim, by
    /// which lld and clang, and can a small link be split? With a command, at the link that it makes; that is not
    /// done, and nothing is written. The exit status is 0 if links will be split and nothing is wrong, otherwise 1.
    Doctor {
        /// The command of a link, such as clang -flto=thin -fuse-ld=lld a.o, or ld.lld a.o
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<OsString>,
    },
    /// Show what is set, by which variable or file, and what that means
    Config {
        /// Show what is not set too
        #[arg(long)]
        all: bool,
    },
    /// Look at the local cache of objects, or make it smaller
    Cache {
        #[command(subcommand)]
        what: CacheCommand,
    },
    /// Show links on an HTML page: where the time went, what came from a cache, which modules were slow, what waited
    ///
    /// The page holds all that it shows and asks nothing of the network. A line or event that cannot be read is left out,
    /// and the page and standard error say so.
    Report(report::Options),
    /// Say what became of all links: how many came through ldwrap, from where, and what that saved
    ///
    /// All links of this user with the same cache directory are counted, also those that were left to lld, since the
    /// numbers were set to zero. What caches saved is what compiling their objects took when they were made.
    Stats {
        /// One object of JSON (docs/report.md)
        #[arg(long)]
        json: bool,
        /// Set all numbers to zero
        #[arg(long, conflicts_with = "json")]
        zero: bool,
    },
    /// Run a command, and do each of its links twice, by lld alone and split: are they equal?
    ///
    /// The command gets the files that lld alone writes. Output, side files, messages and exit status of both links are
    /// compared, and a difference is explained: the module, the section, the symbol. The exit status is 0 if links were
    /// compared, all of them are equal, and the command succeeds; otherwise 1.
    Verify {
        /// Fail if a link that has bitcode was left to lld alone, and so not compared
        #[arg(long)]
        require_split: bool,
        /// Print one object of JSON (docs/report.md); what the command prints goes to standard error
        #[arg(long)]
        json: bool,
        /// Keep the files of links that differ in this directory
        #[arg(long, value_name = "DIR")]
        keep: Option<PathBuf>,
        /// A link (clang -o app *.o, ld.lld @args), or what ends in links (make, cargo build)
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<OsString>,
    },
    /// Compile the backends of a link that lld 21 or later distributes: ldwrap as its distributor
    ///
    /// lld runs it: clang -flto=thin -fuse-ld=lld -fthinlto-distributor=/path/to/ldwrap -Xthinlto-distributor=distribute; or, with lld's own
    /// options, --thinlto-distributor=/path/to/ldwrap --thinlto-distributor-arg=distribute. Objects come from the cache or are made as the
    /// settings say, equal to those of a link without a distributor.
    Distribute {
        /// The file in which lld describes the backends
        file: PathBuf,
    },
    /// The first phase of a ThinLTO link by commands: make the thin link, and describe each backend
    ///
    /// For build systems that run backends themselves. LINK is a link's own command, a compiler's or a linker's; nothing is
    /// linked. DIR gets, for each module, MODULE.json (which 'ldwrap backend' takes), its part of the index, and the list of
    /// modules that it imports from; a file whose content stays is not touched. All three commands run in one directory.
    Index {
        /// Where to put what backends need
        #[arg(long, short, value_name = "DIR")]
        dir: PathBuf,
        /// Write the backends and the last step as rules, or as a graph
        #[arg(long, value_enum, value_name = "FORMAT", requires = "output")]
        emit: Option<Format>,
        /// The file for that
        #[arg(long, short, value_name = "FILE", requires = "emit")]
        output: Option<PathBuf>,
        /// The link (clang -o app *.o, ld.lld @args)
        #[arg(required = true, last = true, allow_hyphen_values = true)]
        link: Vec<OsString>,
    },
    /// The second phase: compile one module, as 'ldwrap index' has described it
    ///
    /// The object is written whole or not at all. It is an empty file where lld has to compile the module itself.
    Backend {
        /// A file MODULE.json of 'ldwrap index'
        description: PathBuf,
        /// The object, instead of MODULE beside the description; what it was made from is in FILE.object-key
        #[arg(long, short, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// The third phase: link, with the objects of 'ldwrap backend'
    ///
    /// Runs LINK through ldwrap. The file is the one that lld alone would write: an object that is missing, or was made from
    /// something else than the link has now, lld makes itself. The exit status is the link's.
    Final {
        /// Where the objects are
        #[arg(long, short, value_name = "DIR")]
        dir: PathBuf,
        /// The link that 'ldwrap index' was given
        #[arg(required = true, last = true, allow_hyphen_values = true)]
        link: Vec<OsString>,
    },
    /// Explain a command, a setting (such as jobs), or all settings
    Help {
        /// The command or setting; 'settings' for all of them
        topic: Vec<String>,
    },
    /// Print what documents say of commands and settings
    #[command(hide = true)]
    Document {
        /// Which part
        #[arg(value_enum)]
        part: manual::Part,
    },
}

/// Runs what `args` ask of our tool, and returns its exit status; `None` when they are a linker's.
#[must_use]
pub fn run(args: &[OsString], config: &Config) -> Option<u8> {
    if !are_ours(args) {
        return None;
    }
    let all = std::iter::once(OsString::from("ldwrap")).chain(args.iter().cloned());
    let cli = match Cli::try_parse_from(all) {
        Ok(cli) => cli,
        Err(e) => {
            let printed = e.print();
            return Some(match (e.use_stderr(), printed) {
                (true, _) => 2,
                (false, Ok(())) => 0,
                (false, Err(e)) => {
                    say(format_args!("standard output: {e}"));
                    1
                }
            });
        }
    };
    Some(match perform(cli.command, config) {
        Ok(status) => status,
        Err(why) => {
            say(why);
            1
        }
    })
}

/// Does what a command asks for; gives the exit status, or what went wrong.
fn perform(command: Command, config: &Config) -> Result<u8, String> {
    let done = match command {
        Command::Env => env(),
        Command::Run { command } => match run::command(&command, config) {
            Ok(status) => signals::end_as(status),
            Err(failure) => {
                say(failure.message);
                return Ok(failure.status);
            }
        },
        Command::Compilers { dir } => compilers::run(dir.as_deref()),
        Command::Doctor { command } => return Ok(u8::from(!doctor::run(&command, config))),
        Command::Config { all } => settings::show(config, all),
        Command::Cache { what } => cache::run(&what, config),
        Command::Report(options) => report::run(&options, config),
        Command::Distribute { file } => return Ok(distribute::run(&file, config)),
        Command::Stats { json, zero } => stats::run(json, zero, config),
        Command::Index {
            dir,
            emit,
            output,
            link,
        } => {
            let request = index::Request {
                dir: &dir,
                emit: emit.zip(output.as_deref()),
                link: &link,
            };
            match index::run(&request, config) {
                Ok(()) => Ok(()),
                Err(NoIndex::Lld(status)) => signals::end_as(status),
                Err(NoIndex::Failed(why)) => Err(why),
            }
        }
        Command::Backend {
            description,
            output,
        } => backend::run(&description, output.as_deref()),
        Command::Final { dir, link } => {
            signals::end_as(final_link::run(&dir, &link, config)?);
        }
        Command::Help { topic } => help(&topic),
        Command::Document { part } => manual::print(part, &Cli::command()),
        Command::Verify {
            keep,
            require_split,
            json,
            command,
        } => {
            let options = verify::Options {
                keep: keep.as_deref(),
                require_split,
                json,
            };
            return verify::command(&command, &options, config).map(|equal| u8::from(!equal));
        }
    };
    done.map(|()| 0)
}

/// Whether arguments are for our tool: none at all, one of our options, or a command, which may be misspelt.
/// A bare word is a linker's only if it is the name of a file to be linked.
fn are_ours(args: &[OsString]) -> bool {
    let Some(first) = args.first() else {
        return true;
    };
    let Some(first) = first.to_str() else {
        return false;
    };
    if first.starts_with('-') {
        // ld.lld's -h takes a value.
        return matches!(first, "--help" | "--version") || (first == "-h" && args.len() == 1);
    }
    let bare = |b: u8| b.is_ascii_lowercase() || b == b'-';
    if first.is_empty() || !first.bytes().all(bare) {
        return false;
    }
    let file = Path::new(first);
    match Cli::command().find_subcommand(first) {
        Some(_) => !is_object(file),
        None => !file.is_file(),
    }
}

/// Whether a file is one that is linked: an object, a library or an archive.
fn is_object(path: &Path) -> bool {
    let mut head = Vec::new();
    let read = File::open(path).and_then(|file| file.take(HEAD_LEN as u64).read_to_end(&mut head));
    let kind = kind_of(&head);
    read.is_ok()
        && (kind.is_bitcode()
            || kind.is_archive()
            || matches!(kind, Kind::ElfRelocatable | Kind::ElfShared))
}

/// Explains a command or a setting.
fn help(topic: &[String]) -> Result<(), String> {
    let text = match topic {
        [one] if one == "settings" => manual::settings(),
        // A name may be both.
        [one] => match (Setting::named(one), help_of_command(topic)) {
            (Some(setting), Ok(command)) => format!("{command}\n{}", manual::setting(setting)),
            (Some(setting), Err(_)) => manual::setting(setting),
            (None, command) => command?,
        },
        _ => help_of_command(topic)?,
    };
    super::print(text)
}

/// What clap says of a command, given by the words that lead to it; of all commands, if there are none.
fn help_of_command(words: &[String]) -> Result<String, String> {
    let mut command = Cli::command();
    // Usage is to begin with the whole of what is typed.
    command.build();
    let mut found = &mut command;
    for word in words {
        let commands = found.get_subcommands().map(clap::Command::get_name);
        let settings: Vec<String> = SETTINGS.iter().map(Setting::key).collect();
        let known = commands.chain(settings.iter().map(String::as_str));
        let hint = nearest(word, known.chain(["settings"])).map(|near| format!("; is it {near}?"));
        found = found.find_subcommand_mut(word).ok_or_else(|| {
            let hint = hint.unwrap_or_default();
            format!("{word} is no command and no setting{hint}")
        })?;
    }
    Ok(found.render_long_help().to_string())
}

fn env() -> Result<(), String> {
    let dir = super::quoted(&super::shim_dir().map_err(|e| e.to_string())?);
    super::print(format!(
        "# clang and gcc look here for ld.lld first, when they link with -fuse-ld=lld.\n\
         export COMPILER_PATH={dir}\"${{COMPILER_PATH:+:$COMPILER_PATH}}\"\n\
         # rustc: ThinLTO by the linker, and clang's search for it rather than rustc's own.\n\
         # export RUSTFLAGS='-Clinker-plugin-lto -Clinker=clang -Clink-arg=-fuse-ld=lld'\n"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whose_arguments() {
        Cli::command().debug_assert();
        for (args, ours) in [
            (&[][..], true),
            (&["--help"], true),
            (&["--version"], true),
            (&["-h"], true),
            (&["-h", "libx.so", "a.o"], false),
            (&["env"], true),
            (&["vrify", "--", "make"], true),
            (&["-o", "env"], false),
            (&["-v"], false),
            (&["a.o"], false),
            (&["./env"], false),
            (&["@env"], false),
            (&[""], false),
        ] {
            let args: Vec<OsString> = args.iter().map(OsString::from).collect();
            assert_eq!(are_ours(&args), ours, "{args:?}");
        }
    }
}
