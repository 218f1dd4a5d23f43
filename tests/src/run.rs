//! What a command did: its streams, its status, and the files that it wrote.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

/// What a file tree holds, by relative path.
pub(crate) type Tree = BTreeMap<PathBuf, FileState>;

/// What is at one path of a file tree.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum FileState {
    Dir,
    Link(PathBuf),
    File { mode: u32, bytes: Vec<u8> },
    Other,
}

/// Everything below a directory. What cannot be read counts as empty.
pub(crate) fn snapshot(dir: &Path) -> Tree {
    let mut tree = Tree::new();
    let mut todo = vec![PathBuf::new()];
    while let Some(sub) = todo.pop() {
        for entry in fs::read_dir(dir.join(&sub)).into_iter().flatten().flatten() {
            let (name, path) = (sub.join(entry.file_name()), entry.path());
            let Ok(meta) = path.symlink_metadata() else {
                continue;
            };
            let kind = if meta.is_dir() {
                todo.push(name.clone());
                FileState::Dir
            } else if meta.is_symlink() {
                FileState::Link(fs::read_link(&path).unwrap_or_default())
            } else if meta.is_file() {
                let mode = meta.permissions().mode() & 0o7777;
                FileState::File {
                    mode,
                    bytes: fs::read(&path).unwrap_or_default(),
                }
            } else {
                FileState::Other
            };
            tree.insert(name, kind);
        }
    }
    tree
}

/// What one command did.
#[derive(Clone)]
pub struct Run {
    /// How it ended.
    pub status: ExitStatus,
    /// What it printed.
    pub stdout: Vec<u8>,
    /// What it complained about.
    pub stderr: Vec<u8>,
    /// The files that it wrote or changed, where that was looked at.
    pub(crate) files: Tree,
}

impl Run {
    /// stderr as text.
    pub fn errors(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// The names of the files and directories that it wrote.
    pub fn file_names(&self) -> Vec<String> {
        self.files.keys().map(|p| p.display().to_string()).collect()
    }
}

impl std::fmt::Display for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The head of what may be a map file.
        let text =
            |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(4000)]).into_owned();
        write!(
            f,
            "{}\nstdout:\n{}stderr:\n{}files: {:?}",
            self.status,
            text(&self.stdout),
            text(&self.stderr),
            self.file_names()
        )
    }
}
