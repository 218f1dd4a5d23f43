//! The shim: `ld.lld` as build systems call it.
//!
//! Small on purpose: a link that is not to be split costs one more exec and a look at the first
//! bytes of its inputs. Starts no thread and links no network stack; `ldwrap` does the split.

use shim::config::Config;
use shim::decide::{Decision, decide};
use shim::report::Report;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Instant;

fn main() -> ExitCode {
    let start = Instant::now();
    let mut argv = std::env::args_os();
    let argv0 = argv.next().unwrap_or_else(|| OsString::from("ld.lld"));
    let args: Vec<OsString> = argv.collect();
    let config = Config::read();

    // Logging is ldwrap's, which decides the same and says why.
    let talk = config.log.is_some() || !config.complaints.is_empty();
    let (reason, output) = match decide(&args, &config) {
        Decision::Forward { reason, output } if !talk => (reason, output),
        _ => match ldwrap() {
            Some(ldwrap) => {
                let error = Command::new(&ldwrap).arg0(&argv0).args(&args).exec();
                (
                    format!("cannot run {}: {error}", ldwrap.display()),
                    String::new(),
                )
            }
            None => (
                "ldwrap is not installed beside the shim".into(),
                String::new(),
            ),
        },
    };
    let real = match shim::lld::find(&argv0, &config, std::env::var_os("PATH").as_deref()) {
        Ok(real) => real,
        Err(e) => {
            eprintln!("ldwrap: {e}");
            return ExitCode::FAILURE;
        }
    };
    if let Some(file) = &config.report {
        let total_ms = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
        // A report that cannot be written is no reason to fail a link.
        let _ = Report {
            output,
            reason,
            total_ms,
            ..Report::default()
        }
        .append(file);
    }
    let error = shim::lld::exec(&real, &argv0, args);
    eprintln!("ldwrap: {error}");
    ExitCode::FAILURE
}

/// `bin/ldwrap` of the prefix that we are installed in (`lib/ldwrap/ld.lld`), or beside us.
fn ldwrap() -> Option<PathBuf> {
    let exe = std::env::current_exe().ok()?;
    let dir = exe.parent()?;
    [dir.join("../../bin/ldwrap"), dir.join("ldwrap")]
        .into_iter()
        .find(|p| p.is_file())
}
