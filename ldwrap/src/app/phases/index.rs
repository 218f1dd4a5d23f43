//! `ldwrap index --dir DIR -- LINK`: the thin link, and what each backend needs.

use super::emit;
use super::graph::{Backend, Format, Graph};
use crate::app::doctor::driver::{self, NotProbed, Reached};
use crate::app::linker::{default_jobs, store_of_commands, tested_toolchain};
use crate::app::probe::Answer;
use crate::app::reach;
use crate::jobs::description::{BackendDescription, DescribedInput, Description};
use crate::jobs::failure::Failure;
use crate::jobs::index::{Index, ModuleIdentifier};
use crate::jobs::job::{Job, Names};
use crate::jobs::layout::{ModuleFiles, module_names};
use crate::jobs::store::Store;
use crate::jobs::toolchain::Toolchain;
use crate::link::eligibility;
use crate::link::jobs_thread::{self, JobsPlace, JobsRequest, PlannedJobs};
use crate::sys::scratch::Scratch;
use crate::sys::{parallel, process, update_output};
use shim::cmdline::{CommandLine, Occurrence};
use shim::config::{Config, Split};
use shim::effects::{Effect, effect};
use shim::message::say;
use shim::options::Id;
use shim::response::Quoting;
use std::ffi::{OsStr, OsString};
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

/// What is to be done.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    /// Where descriptions go.
    pub(crate) dir: &'a Path,
    /// A graph of the backends, and its file.
    pub(crate) emit: Option<(Format, &'a Path)>,
    /// The link's own command.
    pub(crate) link: &'a [OsString],
}

/// Why there is no index.
pub(crate) enum NoIndex {
    /// lld has failed, and has said why.
    Lld(ExitStatus),
    /// Anything else.
    Failed(String),
}

impl From<String> for NoIndex {
    fn from(why: String) -> Self {
        Self::Failed(why)
    }
}

/// A link, as lld is told it.
struct Link {
    answer: Answer,
    real: PathBuf,
    cmd: CommandLine,
    output: OsString,
}

/// Makes the index of a link, and writes what its backends need. A link of which no jobs can be made has none.
pub(crate) fn run(request: &Request<'_>, config: &Config) -> Result<(), NoIndex> {
    process::watch_signals().map_err(|e| format!("signals: {e}"))?;
    let config = &Config {
        split: Split::Always,
        ..config.clone()
    };
    let done = process::with_scratch(|scratch| {
        let link = Link::of(request.link, scratch, config)?;
        let planned = describe_backends(request, &link, scratch, config);
        let (backends, clang) = match planned {
            Ok((backends, clang)) => (backends, Some(clang)),
            Err(Failure::Declined(why)) => {
                let output = link.output.to_string_lossy();
                say(format_args!(
                    "{output}: no backends, all is left to lld: {why}"
                ));
                (Vec::new(), None)
            }
            Err(Failure::Lld {
                status, messages, ..
            }) => {
                let _ = std::io::stderr().write_all(messages.as_bytes());
                return Err(NoIndex::Lld(status));
            }
            Err(failure) => return Err(NoIndex::Failed(failure.to_string())),
        };
        let Some((format, file)) = request.emit else {
            return Ok(());
        };
        let mut inputs = inputs_of(&link, request.link, &backends)?;
        inputs.extend(clang);
        let graph = Graph {
            dir: request.dir,
            file,
            link: request.link,
            output: &link.output,
            inputs,
            backends,
        };
        Ok(emit::write(&graph, format)?)
    });
    done.map_err(|e| NoIndex::Failed(format!("no scratch directory: {e}")))?
}

impl Link {
    /// Finds out what lld a command runs, and with which arguments.
    fn of(command: &[OsString], scratch: &Scratch, config: &Config) -> Result<Self, String> {
        let dir = scratch.file("probe");
        std::fs::create_dir(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
        let make = |program: &OsStr| {
            let mut run = reach::through_ldwrap(program, config)?;
            run.env("LDWRAP_SPLIT", "always");
            Ok(run)
        };
        let reached = driver::probe_with(command, &dir, &make);
        let mut answer = match reached
            .map_err(|NotProbed { text, fix }| format!("{text}: {fix}"))?
        {
            Reached::Ldwrap(answer) => answer,
            Reached::ShimAlone => return Err("the shim does not find ldwrap".into()),
            Reached::Other { linker, error } => {
                return Err(match error {
                    Some(error) => format!("the linker is {linker}: {error}"),
                    None => format!(
                        "the linker is {linker}: give -fuse-ld=lld, and no -B or --ld-path that leads past ldwrap"
                    ),
                });
            }
        };
        let real = std::mem::replace(&mut answer.real, Err(String::new()))?;
        let cmd = CommandLine::parse(&answer.args).map_err(|e| e.to_string())?;
        let probed = dir.join(driver::OUTPUT);
        let of_lld = cmd.all(Id::Output).filter(|&output| output != probed);
        let output = output_of(command, of_lld.last())?;
        Ok(Self {
            answer,
            real,
            cmd,
            output,
        })
    }
}

/// The output of a linker's or compiler's command; `of_lld` is the one that lld was told in spite of the probe's: a linker's
/// own, or one that a compiler passes on (`-Wl,-o,FILE`).
fn output_of(command: &[OsString], of_lld: Option<&OsStr>) -> Result<OsString, String> {
    let words = shim::response::expand(command, Quoting::Gnu).map_err(|e| e.to_string())?;
    let mut output = None;
    let mut words = words.into_iter().skip(1);
    while let Some(word) = words.next() {
        match word.as_bytes() {
            b"-o" | b"--output" => output = Some(words.next().ok_or("-o names no file")?),
            // The value of another option.
            b"-Xlinker" | b"-z" | b"-T" | b"-L" | b"-l" | b"-u" | b"-e" | b"-B" => {
                words.next();
            }
            word => {
                let joined = word.strip_prefix(b"--output=").or(word.strip_prefix(b"-o"));
                // Other options of compilers.
                let is_other = [&b"-objc"[..], b"-object", b"-output-"]
                    .iter()
                    .any(|other| word.starts_with(other));
                if let Some(file) = joined.filter(|_| !is_other) {
                    output = Some(OsStr::from_bytes(file).to_owned());
                }
            }
        }
    }
    match (output, of_lld) {
        (Some(output), Some(of_lld)) if output != of_lld => Err(format!(
            "is the output {} or {}?",
            output.to_string_lossy(),
            of_lld.to_string_lossy()
        )),
        (Some(output), _) => Ok(output),
        (None, of_lld) => Ok(of_lld.unwrap_or(OsStr::new("a.out")).to_owned()),
    }
}

/// Writes what the backends of a link need, and gives them and their compiler; a failure says why there are none.
fn describe_backends(
    request: &Request<'_>,
    link: &Link,
    scratch: &Scratch,
    config: &Config,
) -> Result<(Vec<Backend>, PathBuf), Failure> {
    let Link { answer, real, .. } = link;
    if let Err(why) = &answer.bitcode {
        return Err(Failure::Declined(why.clone()));
    }
    let threads = default_jobs(config, None);
    let toolchain = tested_toolchain(real, config, threads)?;
    let cmd = CommandLine::parse_for(&answer.args, Some(toolchain.major))
        .map_err(|e| Failure::Declined(e.to_string()))?;
    eligibility::jobs(&answer.args, &cmd, toolchain.major, config, u64::MAX)
        .map_err(Failure::Declined)?;
    eligibility::release(&cmd)?;
    let store = store_of_commands(&toolchain, config)?;
    let jobs = JobsRequest {
        argv0: shim::lld::arg0(&answer.argv0, real),
        args: &answer.args,
        cmd: &cmd,
        toolchain: &toolchain,
        threads,
        place: JobsPlace::Clang,
        save_objects: None,
        max_failures: jobs_thread::MAX_FAILURES,
    };
    let indexed = |index: &Index| {
        let left_out = index.left_out(scratch);
        let left_out = left_out.map_err(|e| Failure::Failed(e.to_string()))?;
        module_names(&index.modules, &left_out).map_err(Failure::Declined)
    };
    let backends = jobs.with_jobs(scratch, indexed, &|| false, |names, planned| {
        let writer = Writer {
            dir: request.dir,
            names: &names,
            planned: &planned,
            store: &store,
            toolchain: &toolchain,
            members: scratch.members(),
            here: std::env::current_dir().map_err(|e| Failure::Failed(e.to_string()))?,
        };
        writer.write_all(threads).map_err(Failure::Failed)
    });
    store.finish_link();
    Ok((backends?, toolchain.clang))
}

/// Writes the files of backends.
struct Writer<'a> {
    dir: &'a Path,
    names: &'a [String],
    planned: &'a PlannedJobs<'a>,
    store: &'a Store,
    toolchain: &'a Toolchain,
    /// Where copies of modules are that are no files of their own, each by its number.
    members: PathBuf,
    /// The working directory, to which descriptions are relative.
    here: PathBuf,
}

impl Writer<'_> {
    /// Writes all; those that lld has to compile itself, or leaves out, get a description that says so.
    fn write_all(&self, threads: usize) -> Result<Vec<Backend>, String> {
        let PlannedJobs {
            index,
            jobs,
            numbers,
            ..
        } = self.planned;
        // Once for each module, not for each import of it: to find a member, its archive is opened.
        let module_files = parallel::map(threads, &index.modules, |_, module| {
            let at = shim::archive::locate(module.identifier.as_os_str());
            at.map(|at| at.path).map_err(|e| e.to_string())
        });
        let all: Vec<usize> = (0..self.names.len()).collect();
        let backends = parallel::map(threads, &all, |_, &number| {
            self.copy_member(number)?;
            let reason = if number >= index.modules.len() {
                "it is lazy and stays out of the link"
            } else if let Some(why) = jobs.left_to_lld(number) {
                why
            } else if numbers.binary_search(&number).is_err() {
                "it has no hash, so that lld makes no lookup for it"
            } else {
                let job = jobs.make(number, Names::Own).map_err(|e| e.to_string())?;
                return self.backend(&job, &module_files).map(Some);
            };
            let description = Description::NoBackend {
                module: self.name(number)?.to_owned(),
                reason: reason.into(),
            };
            self.update(&self.files(number)?.description(), description.to_text())?;
            Ok(None)
        });
        let backends: Result<Vec<_>, String> = backends.into_iter().collect();
        Ok(backends?.into_iter().flatten().collect())
    }

    fn name(&self, number: usize) -> Result<&str, String> {
        let name = self.names.get(number);
        name.map(String::as_str)
            .ok_or_else(|| "a module has no name".into())
    }

    fn files(&self, number: usize) -> Result<ModuleFiles, String> {
        Ok(ModuleFiles::new(self.dir, self.name(number)?))
    }

    fn update(&self, path: &Path, content: impl AsRef<[u8]>) -> Result<(), String> {
        update_output(path, content.as_ref()).map_err(|e| format!("{}: {e}", path.display()))
    }

    /// Keeps the bitcode of a module that is part of another file: a change of that file's other parts does not change
    /// the copy.
    fn copy_member(&self, number: usize) -> Result<(), String> {
        let Some(module) = self.planned.modules.get(number) else {
            return Ok(());
        };
        if !module.file.starts_with(&self.members) {
            return Ok(());
        }
        let content =
            std::fs::read(&module.file).map_err(|e| format!("{}: {e}", module.file.display()))?;
        self.update(&self.files(number)?.bitcode(), content)
    }

    /// Writes the files of a job; `module_files` are the files in which the modules lie.
    fn backend(
        &self,
        job: &Job,
        module_files: &[Result<PathBuf, String>],
    ) -> Result<Backend, String> {
        let name = self.name(job.number)?.to_owned();
        let files = self.files(job.number)?;
        let action = self.store.action(job).map_err(|e| e.to_string())?;
        let input = |(name, file): &(PathBuf, PathBuf)| {
            Ok(DescribedInput {
                name: text(name)?,
                file: text(&self.place(file)?)?,
                digest: self.store.digest(file).map_err(|e| e.to_string())?,
            })
        };
        let inputs: Result<Vec<_>, String> = job.inputs.iter().map(input).collect();
        let args: Result<Vec<_>, String> = job.args.iter().map(|a| text(Path::new(a))).collect();
        let description = Description::Backend(BackendDescription {
            module: name.clone(),
            key: action.digest.hex(),
            clang: text(&self.toolchain.clang)?.into(),
            args: args?,
            inputs: inputs?,
            shard: crate::cache::digest::Digest::of(&job.shard),
        });
        let needs = self.planned.jobs.needs(job.number);
        let modules = &self.planned.index.modules;
        let mut imports: Vec<ModuleIdentifier> = needs
            .iter()
            .filter(|&&n| n != job.number)
            .filter_map(|&n| Some(modules.get(n)?.identifier.clone()))
            .collect();
        imports.sort();
        let mut list = Vec::new();
        for module in &imports {
            list.extend_from_slice(module.as_bytes());
            list.push(b'\n');
        }
        self.update(&files.imports(), list)?;
        self.update(&files.shard(), &job.shard)?;
        self.update(&files.description(), description.to_text())?;
        let mut reads: Vec<PathBuf> = needs
            .iter()
            .chain([&job.number])
            .filter_map(|&n| module_files.get(n).cloned())
            .collect::<Result<_, _>>()?;
        reads.sort();
        reads.dedup();
        Ok(Backend {
            name,
            files,
            imports,
            reads,
        })
    }

    /// Where a backend that runs later finds a file of a job: the copy of a member, or the file itself, relative to the
    /// working directory where it is below that.
    fn place(&self, file: &Path) -> Result<PathBuf, String> {
        if let Ok(number) = file.strip_prefix(&self.members) {
            let number = number.to_str().and_then(|n| n.parse().ok());
            return Ok(self
                .files(number.ok_or("a member has no number")?)?
                .bitcode());
        }
        Ok(file.strip_prefix(&self.here).unwrap_or(file).to_owned())
    }
}

fn text(path: &Path) -> Result<String, String> {
    let text = path.to_str().map(str::to_owned);
    text.ok_or_else(|| format!("{}: a name that is not UTF-8", path.display()))
}

/// Every file by which the link would come out otherwise, each once: inputs, also those in scripts and thin archives,
/// files that options name, response files, lld and the compiler.
fn inputs_of(
    link: &Link,
    command: &[OsString],
    backends: &[Backend],
) -> Result<Vec<PathBuf>, String> {
    let mut found = vec![link.real.clone()];
    let visited = shim::inputs::visit(&link.cmd, &mut |input| {
        found.push(input.path.to_owned());
        found.extend(input.member.and_then(|m| m.external.clone()));
        Ok(shim::inputs::Visit::Continue)
    });
    visited.map_err(|e| e.to_string())?;
    let options = link.cmd.options().filter(|option| names_input(option));
    let named = options.map(|option| PathBuf::from(&option.value));
    found.extend(named.filter(|name| name.is_file()));
    for words in [command, &link.answer.args] {
        eligibility::find_response_file(words, |name| {
            let name = Path::new(name);
            found.extend(name.is_file().then(|| name.to_owned()));
            false
        });
    }
    found.extend(backends.iter().flat_map(|b| b.reads.iter().cloned()));
    found.sort();
    found.dedup();
    Ok(found)
}

/// Whether an option names a file that lld reads, beside those that are inputs themselves.
fn names_input(option: &Occurrence) -> bool {
    matches!(
        option.id,
        Id::CallGraphOrderingFile
            | Id::DynamicList
            | Id::ExportDynamicSymbolList
            | Id::IrpgoProfile
            | Id::RemapInputsFile
            | Id::RetainSymbolsFile
            | Id::SymbolOrderingFile
            | Id::VersionScript
    ) || effect(option.id) == Effect::CodeFile
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_output_of_a_command() {
        for (line, of_lld, output) in [
            ("clang a.o", None, "a.out"),
            ("clang -o app a.o", None, "app"),
            ("clang -oobj/app a.o -object", None, "obj/app"),
            ("clang a.o -Wl,-o,app", Some("app"), "app"),
            ("ld.lld -o x -o y", Some("y"), "y"),
            ("ld.lld -ox", Some("x"), "x"),
            ("clang -o x -Xlinker -o -Xlinker x", Some("x"), "x"),
            ("ld.lld --output=x -z origin", Some("x"), "x"),
        ] {
            let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            let found = output_of(&words, of_lld.map(OsStr::new));
            assert_eq!(found.unwrap(), output, "{line}");
        }
        assert!(output_of(&["clang".into(), "-o".into()], None).is_err());
        let two = ["clang", "-o", "x", "-Wl,-o,y"].map(OsString::from);
        assert!(output_of(&two, Some(OsStr::new("y"))).is_err());
    }
}
