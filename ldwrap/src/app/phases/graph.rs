//! The backends of a link as a graph for a build system: rules for make or ninja, or JSON for others.
//!
//! An object depends on its description and shard alone, which change when it may (`crate::jobs::description`): the
//! files that its backend reads have to be there before, but their times say nothing. What makes the graph itself
//! depends on every input of the link, so that a module that enters or leaves it changes the graph.

use crate::jobs::index::ModuleIdentifier;
use crate::jobs::layout::ModuleFiles;
use crate::sys::{keep, write_output};
use serde_json::{Value, json};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// A longer command (bytes) goes into a response file: one argument, as a shell is given a recipe, may have 128 KiB.
const LONG_COMMAND: usize = 100 << 10;

/// What a graph is written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// Rules for GNU make
    Make,
    /// Rules for ninja, and a depfile of the inputs beside them
    Ninja,
    /// JSON, for other build systems
    Json,
}

/// A link's backends, and its last step.
pub(crate) struct Graph<'a> {
    /// The directory of descriptions and objects.
    pub(crate) dir: &'a Path,
    /// The graph's own file.
    pub(crate) file: &'a Path,
    /// The link's command.
    pub(crate) link: &'a [OsString],
    /// What it makes.
    pub(crate) output: &'a OsStr,
    /// Every file that it reads.
    pub(crate) inputs: Vec<PathBuf>,
    pub(crate) backends: Vec<Backend>,
}

impl Graph<'_> {
    /// The files that have to be there before the link: its inputs, but for an output that is one of them.
    pub(super) fn prerequisites(&self) -> impl Iterator<Item = &Path> {
        let output = Path::new(self.output);
        let inputs = self.inputs.iter().map(PathBuf::as_path);
        inputs.filter(move |input| *input != output)
    }
}

/// One backend.
pub(crate) struct Backend {
    /// Its module's name.
    pub(crate) name: String,
    pub(crate) files: ModuleFiles,
    /// The modules that it imports from.
    pub(crate) imports: Vec<ModuleIdentifier>,
    /// The files in which its module lies, and those that it imports from.
    pub(crate) reads: Vec<PathBuf>,
}

pub(super) fn write_file(path: &Path, content: &[u8]) -> Result<(), String> {
    write_output(path, content).map_err(|e| format!("{}: {e}", path.display()))
}

pub(super) fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

/// The command of the last step.
pub(super) fn final_command(graph: &Graph<'_>, exe: &Path) -> Result<Vec<OsString>, String> {
    let mut words: Vec<OsString> = vec![exe.into(), "final".into(), "--dir".into()];
    words.extend([graph.dir.into(), OsString::from("--")]);
    let Some((program, args)) = graph.link.split_first() else {
        return Err("no link".into());
    };
    words.push(program.clone());
    if args.iter().map(|arg| arg.len() + 3).sum::<usize>() < LONG_COMMAND {
        words.extend(args.iter().cloned());
        return Ok(words);
    }
    let file = graph.dir.join("link.rsp");
    let text = shim::response::write_gnu(args.iter().map(OsString::as_os_str));
    write_file(&file, &text)?;
    let mut at = OsString::from("@");
    at.push(&file);
    words.push(at);
    Ok(words)
}

/// Words as a line of a POSIX shell.
pub(super) fn shell(words: &[impl AsRef<OsStr>]) -> Vec<u8> {
    let mut line = Vec::new();
    for (n, word) in words.iter().enumerate() {
        if n > 0 {
            line.push(b' ');
        }
        keep::quote(word.as_ref(), &mut line);
    }
    line
}

pub(super) fn json(graph: &Graph<'_>, last: &[OsString]) -> Result<String, String> {
    let text = |path: &OsStr| match path.to_str() {
        Some(text) => Ok(Value::from(text)),
        None => Err(format!("{}: JSON has only UTF-8", path.to_string_lossy())),
    };
    let paths = |paths: &[PathBuf]| -> Result<Vec<Value>, String> {
        paths.iter().map(|path| text(path.as_os_str())).collect()
    };
    let backend = |b: &Backend| -> Result<Value, String> {
        let imports = b.imports.iter().map(|module| text(module.as_os_str()));
        let imports: Result<Vec<_>, _> = imports.collect();
        Ok(json!({
            "module": b.name,
            "description": text(b.files.description().as_os_str())?,
            "shard": text(b.files.shard().as_os_str())?,
            "object": text(b.files.object().as_os_str())?,
            "object_key": text(b.files.object_key().as_os_str())?,
            "imports": imports?,
            "reads": paths(&b.reads)?,
        }))
    };
    let backends: Result<Vec<_>, _> = graph.backends.iter().map(backend).collect();
    let last: Result<Vec<_>, _> = last.iter().map(|word| text(word)).collect();
    let value = json!({
        "version": 1,
        "dir": text(graph.dir.as_os_str())?,
        "output": text(graph.output)?,
        "inputs": paths(&graph.inputs)?,
        "backends": backends?,
        "final": last?,
    });
    Ok(format!("{value:#}\n"))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A graph of one backend, of a module in a file of this name, which is also read by the link.
    pub(crate) fn of_file<'a>(file: &str, link: &'a [OsString], output: &'a OsStr) -> Graph<'a> {
        let backend = Backend {
            name: "a.o".into(),
            files: ModuleFiles::new(Path::new("lto"), "a.o"),
            imports: Vec::new(),
            reads: vec![file.into()],
        };
        Graph {
            dir: Path::new("lto"),
            file: Path::new("lto/graph"),
            link,
            output,
            inputs: vec![file.into()],
            backends: vec![backend],
        }
    }

    #[test]
    fn a_long_command_goes_into_a_response_file() {
        let dir = tempfile::tempdir().unwrap();
        let long = OsString::from(format!("a b{}", "x".repeat(LONG_COMMAND)));
        let link = ["clang".into(), long.clone()];
        let mut graph = of_file("a.o", &link, OsStr::new("app"));
        graph.dir = dir.path();
        let words = final_command(&graph, Path::new("/ldwrap")).unwrap();
        let last = words.last().unwrap().to_str().unwrap();
        let text = std::fs::read(last.strip_prefix('@').unwrap()).unwrap();
        assert_eq!(shim::response::tokenize_gnu(&text), [long]);
        assert_eq!(words.get(5).unwrap(), "clang");
    }
}
