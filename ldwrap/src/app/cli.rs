//! `ldwrap` as our tool: the subcommands.
//!
//! A first argument that is no subcommand is a linker's; then this is not asked.

use crate::app::linker::default_jobs;
use crate::cache::objects::Cache;
use crate::jobs::toolchain::Toolchain;
use crate::link::selftest;
use clap::{Parser, Subcommand};
use shim::config::Config;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// A drop-in ld.lld that splits ThinLTO links. With linker arguments, ldwrap is the linker.
#[derive(Debug, Parser)]
#[command(
    name = "ldwrap",
    disable_version_flag = true,
    disable_help_subcommand = true
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print the exports that make clang, gcc and rustc link through ldwrap
    Env,
    /// Check lld, clang, the kernel and the directories that a split needs
    Doctor,
    /// Look at the local cache of objects, or make it smaller
    Cache {
        #[command(subcommand)]
        what: CacheCommand,
    },
    /// Run a command, and do each of its links twice, by lld alone and split: are they equal?
    Verify {
        /// Keep the files of links that differ in this directory
        #[arg(long, value_name = "DIR")]
        keep: Option<PathBuf>,
        /// A link (clang -o app *.o, ld.lld @args), or what ends in links (make, cargo build)
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<OsString>,
    },
}

#[derive(Debug, Subcommand)]
enum CacheCommand {
    /// Say what is in it
    Stats,
    /// Remove what was not used for longest
    Prune {
        /// How much to leave, such as 2G; LDWRAP_CACHE_SIZE if not given
        #[arg(long, value_name = "SIZE")]
        keep: Option<String>,
    },
    /// Remove all objects
    Clear,
}

/// First arguments that are ours. `--help` and `--version` stay lld's.
const OURS: &[&str] = &[
    "env",
    "doctor",
    "verify",
    "cache",
    "--ldwrap-version",
    "--ldwrap-help",
];

/// Runs the subcommand that `args` begin with; `None` when they are a linker's.
#[must_use]
pub fn run(args: &[OsString], config: &Config) -> Option<u8> {
    let first = args
        .first()?
        .to_str()
        .filter(|first| OURS.contains(first))?;
    let args: Vec<OsString> = match first {
        "--ldwrap-version" => {
            println!("ldwrap {}", env!("CARGO_PKG_VERSION"));
            return Some(0);
        }
        "--ldwrap-help" => vec!["--help".into()],
        _ => args.to_vec(),
    };
    let cli = match Cli::try_parse_from(std::iter::once(OsString::from("ldwrap")).chain(args)) {
        Ok(cli) => cli,
        Err(e) => {
            let _ = e.print();
            return Some(if e.use_stderr() { 2 } else { 0 });
        }
    };
    let result = match cli.command {
        Command::Env => env(),
        Command::Doctor => doctor(config),
        Command::Cache { what } => cache(&what, config),
        Command::Verify { keep, command } => {
            match crate::app::verify::command(&command, keep.as_deref(), config) {
                Ok(true) => Ok(()),
                Ok(false) => return Some(1),
                Err(why) => Err(why),
            }
        }
    };
    Some(match result {
        Ok(()) => 0,
        Err(why) => {
            eprintln!("ldwrap: {why}");
            1
        }
    })
}

/// Quotes a path for a POSIX shell.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.to_string_lossy().replace('\'', r"'\''"))
}

/// `lib/ldwrap` of the prefix that we are installed in.
fn shim_dir() -> Result<PathBuf, String> {
    let exe = std::env::current_exe().map_err(|e| format!("cannot tell where ldwrap is: {e}"))?;
    let dir = exe
        .parent()
        .and_then(Path::parent)
        .map(|p| p.join("lib/ldwrap"));
    dir.filter(|d| d.join("ld.lld").is_file()).ok_or_else(|| {
        format!(
            "{} is not installed: there is no ../lib/ldwrap/ld.lld",
            exe.display()
        )
    })
}

fn env() -> Result<(), String> {
    let dir = quoted(&shim_dir()?);
    println!("# clang and gcc look here for ld.lld first, when they link with -fuse-ld=lld.");
    println!("export COMPILER_PATH={dir}\"${{COMPILER_PATH:+:$COMPILER_PATH}}\"");
    println!("# rustc: ThinLTO by the linker, and clang's search for it rather than rustc's own.");
    println!("# export RUSTFLAGS='-Clinker-plugin-lto -Clinker=clang -Clink-arg=-fuse-ld=lld'");
    Ok(())
}

fn cache(what: &CacheCommand, config: &Config) -> Result<(), String> {
    let dir = config
        .cache_dir
        .as_ref()
        .ok_or("there is no cache directory: set HOME, XDG_CACHE_HOME or LDWRAP_CACHE_DIR")?;
    let limit = config
        .cache_size
        .unwrap_or(crate::cache::objects::DEFAULT_SIZE);
    let cache = Cache::new(dir, limit);
    let fail = |e: std::io::Error| format!("the cache in {}: {e}", dir.display());
    let removed = match what {
        CacheCommand::Stats => {
            let stats = cache.stats().map_err(fail)?;
            println!("directory  {}", dir.display());
            println!("objects    {}", stats.objects);
            println!("keys       {}", stats.keys);
            println!("size       {} of {}", size(stats.bytes), size(limit));
            return Ok(());
        }
        CacheCommand::Prune { keep } => {
            let keep = match keep {
                None => limit,
                Some(text) => shim::config::bytes(text)
                    .ok_or_else(|| format!("--keep {text}: expected a size such as 2G"))?,
            };
            cache.prune(keep)
        }
        CacheCommand::Clear => cache.prune(0),
    };
    let (left, removed) = removed.map_err(fail)?;
    println!(
        "removed {} objects, {}; {} objects, {} are left",
        removed.objects,
        size(removed.bytes),
        left.objects,
        size(left.bytes)
    );
    Ok(())
}

/// A number of bytes for people.
fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["bytes", "KiB", "MiB"] {
        if value < 1024.0 {
            return match unit {
                "bytes" => format!("{bytes} {unit}"),
                _ => format!("{value:.1} {unit}"),
            };
        }
        value /= 1024.0;
    }
    format!("{value:.1} GiB")
}

fn doctor(config: &Config) -> Result<(), String> {
    let mut wrong = 0;
    let mut line = |what: &str, found: Result<String, String>| {
        let (mark, text) = match found {
            Ok(text) => ("ok  ", text),
            Err(text) => {
                wrong += 1;
                ("BAD ", text)
            }
        };
        println!("{mark} {what}: {text}");
    };
    for complaint in &config.complaints {
        line("settings", Err(complaint.clone()));
    }
    line("shim", shim_dir().map(|d| d.display().to_string()));
    let real = shim::lld::find(
        OsStr::new("ld.lld"),
        config,
        std::env::var_os("PATH").as_deref(),
    );
    let toolchain = match real {
        Ok(real) => {
            line("real lld", Ok(real.display().to_string()));
            Toolchain::find(&real, config).map_err(|e| e.to_string())
        }
        Err(e) => Err(e.to_string()),
    };
    match toolchain {
        Ok(mut toolchain) => {
            line(
                "clang",
                Ok(format!(
                    "{}, {}",
                    toolchain.clang.display(),
                    toolchain.version
                )),
            );
            let jobs = default_jobs(config, None);
            let tested = selftest::run(&toolchain, jobs).map_err(|f| f.reason);
            if tested.is_ok() {
                toolchain.prove();
            }
            line(
                "self-test",
                tested.map(|()| {
                    "a split link equals lld's own, with every object from a backend".into()
                }),
            );
            line("local backends at once", Ok(jobs.to_string()));
        }
        Err(why) => line("clang", Err(why)),
    }
    let scratch = crate::sys::scratch::Scratch::new();
    line(
        "scratch directory",
        scratch
            .map(|s| s.root().display().to_string())
            .map_err(|e| e.to_string()),
    );
    line(
        "cache directory",
        config.cache_dir.as_ref().map_or_else(
            || Err("none: set HOME, XDG_CACHE_HOME or LDWRAP_CACHE_DIR".into()),
            |d| Ok(d.display().to_string()),
        ),
    );
    if wrong == 0 {
        Ok(())
    } else {
        Err(format!(
            "{wrong} of these would keep links from being split"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn linkers_arguments_are_not_ours() {
        let config = Config::default();
        for args in [
            &["--version"][..],
            &["-o", "env"],
            &["a.o"],
            &["--help"],
            &[],
        ] {
            let args: Vec<OsString> = args.iter().map(OsString::from).collect();
            assert!(run(&args, &config).is_none(), "{args:?}");
        }
    }

    #[test]
    fn sizes_are_for_people() {
        for (bytes, text) in [
            (0, "0 bytes"),
            (1536, "1.5 KiB"),
            (10 << 30, "10.0 GiB"),
            (1 << 20, "1.0 MiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn paths_are_quoted_for_a_shell() {
        assert_eq!(quoted(Path::new("/a b/it's")), r"'/a b/it'\''s'");
    }
}
