//! The lld that called its distributor, and its command line.

use crate::jobs::job_file::JobFile;
use crate::sys::procfs;
use shim::cmdline::CommandLine;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// How many programs may stand between lld and us: scripts that a user has put there.
const MOST_BETWEEN: usize = 4;

/// An lld that waits for its distributor.
#[derive(Debug)]
pub(super) struct Caller {
    /// Its program.
    pub(super) lld: PathBuf,
    /// Its `argv[0]`.
    pub(super) argv0: OsString,
    /// The rest.
    pub(super) args: Vec<OsString>,
}

impl Caller {
    /// Finds it among our ancestors: the process whose number is in the file's name (`OUTPUT.PID.dist-file.json`), which runs where we
    /// do, distributes its link, and makes this output. An error says what is otherwise.
    pub(super) fn find(path: &Path, file: &JobFile) -> Result<Self, String> {
        let name = path.file_name().unwrap_or_default().as_bytes();
        let mut pid = nix::unistd::getppid().as_raw() as u32;
        for _ in 0..=MOST_BETWEEN {
            if name.ends_with(format!(".{pid}.dist-file.json").as_bytes()) {
                return Self::of(pid, file);
            }
            pid = match procfs::parent(pid) {
                Some(parent) if parent > 1 => parent,
                _ => break,
            };
        }
        Err("the lld that wrote the file is not the caller".into())
    }

    fn of(pid: u32, file: &JobFile) -> Result<Self, String> {
        let fail = |e: std::io::Error| format!("lld (process {pid}) cannot be looked at: {e}");
        let at = |name: &str| PathBuf::from(format!("/proc/{pid}/{name}"));
        let line = std::fs::read(at("cmdline")).map_err(fail)?;
        let lld = std::fs::read_link(at("exe")).map_err(fail)?;
        let here = std::env::current_dir().map_err(fail)?;
        if std::fs::read_link(at("cwd")).map_err(fail)? != here {
            return Err("lld runs in another directory".into());
        }
        let mut words = line.strip_suffix(b"\0").unwrap_or(&line).split(|&b| b == 0);
        let argv0 = OsString::from_vec(words.next().unwrap_or_default().to_vec());
        let args: Vec<_> = words
            .map(|word| OsStr::from_bytes(word).to_owned())
            .collect();
        let cmd = CommandLine::parse(&args).map_err(|e| e.to_string())?;
        let same_output = cmd.output().to_string_lossy() == file.linker_output;
        if cmd.distributor().is_none() || !same_output || shim::lld::is_ours(&lld) {
            return Err(format!(
                "{} is not an lld that makes {}",
                lld.display(),
                file.linker_output
            ));
        }
        Ok(Self { lld, argv0, args })
    }
}
