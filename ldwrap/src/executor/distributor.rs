//! Backends by a program of the user's: a distributor of DTLTO, as lld 21 and later run them (docs/distributors.md).
//!
//! The program gets all jobs of a link in one file ([`crate::jobs::job_file`]), and says by its exit status alone how they went: 0 when all
//! objects are there. Until then nothing that it has written is looked at, and the cores of this machine take part: after
//! [`SERVER_PATIENCE`], lld's threads compile what they wait for, the last first. So a program that hangs costs what lld alone would have
//! taken. Objects that are there by then but are none are lld's to make, as is everything if the program fails.
//!
//! A backend that has something to say is lld's too, whose words these are. What clang says comes to us only if the program passes on
//! its standard error; it is asked for a form that names the module (`-diagnostic-log-file`: `LogDiagnosticPrinter::EndSourceFile`,
//! clang/lib/Frontend/LogDiagnosticPrinter.cpp).

use super::tuning::{MAX_OBJECT, SERVER_PATIENCE};
use super::{
    BackendError, Executor, FinishedObject, JobQueue, ObjectSource, Outcome, ReportOutcome,
    WaitingLookup,
};
use crate::jobs::action::Digest;
use crate::jobs::job::{Job, Names};
use crate::jobs::job_file::{JobEntry, JobFile};
use crate::jobs::store::Store;
use crate::sys::process::{self, Role, Running, first_error_line};
use crate::sys::scratch::Scratch;
use crate::sys::sync::lock;
use crate::sys::{self, keep, parallel};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Seek};
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How often the program is looked at.
const LOOK: Duration = Duration::from_millis(10);
/// How long what it has started may take to be gone after being killed.
const GRACE: Duration = Duration::from_millis(100);
/// How much of what it says is looked at when it fails (bytes).
const MOST_SAID: u64 = 1 << 20;
/// The longest line that is looked at as one; the names of modules are short.
const LONGEST_LINE: u64 = 1 << 12;
/// The directory where it runs, in the scratch directory.
const DIR: &str = "distribute";

/// A program, and what is to be done by it.
#[derive(Debug)]
pub(crate) struct Distributor {
    command: Vec<OsString>,
    clang: PathBuf,
    output: OsString,
    store: Arc<Store>,
    scratch: Arc<Scratch>,
    threads: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Jobs that lld's own threads compile or have compiled, or whose objects lld has.
    locals: HashSet<usize>,
    /// Jobs that are the program's.
    sent: HashSet<usize>,
    /// Jobs that are over.
    done: HashSet<usize>,
    /// Since when the program runs.
    since: Option<Instant>,
    stopped: bool,
}

/// A job that the program is to do.
struct Sent {
    /// Without its shard, which is a file.
    job: Job,
    key: Digest,
}

impl Distributor {
    /// For a link with this output. `command` is the program with its first arguments, `clang` the compiler that its jobs name. Jobs are
    /// prepared by as many threads as `threads`.
    pub(crate) fn new(
        command: Vec<OsString>,
        clang: PathBuf,
        output: OsString,
        store: Arc<Store>,
        scratch: Arc<Scratch>,
        threads: usize,
    ) -> Self {
        Self {
            command,
            clang,
            output,
            store,
            scratch,
            threads,
            state: Mutex::default(),
        }
    }

    fn dir(&self) -> PathBuf {
        self.scratch.file(DIR)
    }

    /// Reports the jobs whose objects the cache has, and writes the files of the others.
    fn prepare(&self, jobs: &JobQueue<'_>, report: ReportOutcome<'_>) -> Vec<Sent> {
        let sent = Mutex::new(Vec::new());
        let prepare = || {
            while let Some(job) = jobs.next(report) {
                if self.is_over() {
                    break;
                }
                match self.prepare_one(&job, jobs) {
                    Ok(Prepared::Cached(object)) => {
                        let outcome = Outcome::Object(object);
                        self.finish(job.number, Ok(outcome), report);
                    }
                    Ok(Prepared::Sent(job)) => lock(&sent).push(job),
                    Err(why) => {
                        let e = BackendError::of(&job.identifier, why);
                        self.finish(job.number, Err(e), report);
                    }
                }
            }
        };
        parallel::run(self.threads.min(jobs.max_jobs()), prepare);
        let mut sent = std::mem::take(&mut *lock(&sent));
        // The largest first, as they came.
        sent.sort_by_key(|sent: &Sent| (std::cmp::Reverse(sent.job.size), sent.job.number));
        sent
    }

    fn prepare_one(&self, job: &Job, jobs: &JobQueue<'_>) -> Result<Prepared, String> {
        let action = self.store.action(job).map_err(|e| e.to_string())?;
        let to = self.scratch.received(job.number);
        if let Some(object) = self.store.find(&action.digest, &to) {
            return Ok(Prepared::Cached(object));
        }
        let mut job = jobs.in_shared_directory(job.number).map_err(|e| e.why)?;
        let dir = self.dir();
        for (name, file) in &job.inputs {
            match symlink(file, dir.join(name)) {
                // Of a module that another job reads too.
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                made => made.map_err(|e| format!("{}: {e}", name.display()))?,
            }
        }
        let shard = std::mem::take(&mut job.shard);
        fs::write(dir.join(Names::Shared.shard(job.number)), shard).map_err(|e| e.to_string())?;
        let key = action.digest;
        Ok(Prepared::Sent(Sent { job, key }))
    }

    /// Runs the program for these jobs until it ends, or nothing of it is wanted any more. Gives the names of modules of
    /// which clang has said something; an error is how the program failed.
    fn run_program(&self, sent: &[Sent]) -> Result<HashSet<String>, String> {
        let dir = self.dir();
        let file = job_file(&self.clang, &self.output, sent)?;
        let base = Path::new(&self.output)
            .file_name()
            .unwrap_or(OsStr::new("out"));
        let mut name = base.to_owned();
        name.push(format!(".{}.dist-file.json", std::process::id()));
        let said = dir.join("said");
        let write = || -> io::Result<(File, File)> {
            fs::write(dir.join(&name), file.to_string())?;
            let mut options = File::options();
            // Read again by this descriptor: whose name it is by then is the program's.
            let said = options
                .read(true)
                .append(true)
                .create_new(true)
                .open(&said)?;
            Ok((said.try_clone()?, said))
        };
        let (stderr, mut messages) = write().map_err(|e| e.to_string())?;
        let (program, args) = self.command.split_first().ok_or("no program")?;
        let mut command = Command::new(program);
        command.args(args).arg(&name).current_dir(&dir);
        // What it says is not lld's.
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr);
        command.process_group(0);
        self.scratch.confine(&mut command);
        process::prepare(&mut command);
        keep::command(&command);
        let child = command
            .spawn()
            .map_err(|e| format!("cannot run {}: {e}", program.to_string_lossy()))?;
        let group = Pid::from_raw(child.id() as i32);
        let mut running = Running::new(child, Role::Tool);
        while running.runs() && !self.is_over() {
            std::thread::sleep(LOOK);
        }
        let unwanted = running.runs();
        let _ = killpg(group, Signal::SIGKILL);
        let status = running.wait().map_err(|e| e.to_string())?;
        let until = Instant::now() + GRACE;
        while killpg(group, None).is_ok() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
        if unwanted {
            return Ok(HashSet::new());
        }
        let _ = messages.rewind();
        if status.success() {
            let named = |e: io::Error| format!("{}: {e}", said.display());
            return diagnosed_modules(BufReader::new(messages)).map_err(named);
        }
        let mut said = Vec::new();
        let _ = messages.take(MOST_SAID).read_to_end(&mut said);
        let said = String::from_utf8_lossy(&said);
        let program = program.to_string_lossy();
        Err(format!(
            "{program} ended with {status}: {}",
            first_error_line(&said)
        ))
    }

    /// The object that the program has made, unless its module is one of those that were diagnosed.
    fn object(&self, sent: &Sent, diagnosed: &HashSet<String>) -> Result<Outcome, String> {
        if !diagnosed.is_empty() && diagnosed.contains(&own_module(&sent.job)?) {
            return Ok(Outcome::Diagnosed("a warning".into()));
        }
        let path = self.dir().join(Names::Shared.object(sent.job.number));
        let bytes = sys::read_regular(&path, MAX_OBJECT)
            .map_err(|e| format!("the distributor wrote no object: {e}"))?;
        if !sent.job.expected.matches(&bytes) {
            return Err("the distributor wrote what is not the object of this module".into());
        }
        let object = FinishedObject {
            path,
            source: ObjectSource::Elsewhere,
            took: None,
        };
        if sent.job.changed_source().is_none() {
            self.store.keep_finished(&sent.key, &object);
        }
        Ok(Outcome::Object(object))
    }

    fn finish(
        &self,
        number: usize,
        result: Result<Outcome, BackendError>,
        report: ReportOutcome<'_>,
    ) {
        lock(&self.state).done.insert(number);
        if !report(number, result) {
            self.stop();
        }
    }

    /// Whether nothing more is wanted.
    fn is_over(&self) -> bool {
        let state = lock(&self.state);
        let rest = state.sent.iter().any(|n| !state.locals.contains(n));
        state.stopped || (state.since.is_some() && !rest)
    }
}

enum Prepared {
    Cached(FinishedObject),
    Sent(Sent),
}

impl Executor for Distributor {
    fn run(&self, jobs: &JobQueue<'_>, report: ReportOutcome<'_>) {
        let dir = self.dir();
        for name in ["m", "i", "o"] {
            if let Err(e) = fs::create_dir_all(dir.join(name)) {
                log::warn!("{}: {e}", dir.display());
            }
        }
        let sent = self.prepare(jobs, report);
        let mut wanted: Vec<Sent> = Vec::new();
        {
            let mut state = lock(&self.state);
            wanted.extend(
                sent.into_iter()
                    .filter(|s| !state.locals.contains(&s.job.number)),
            );
            state.sent = wanted.iter().map(|sent| sent.job.number).collect();
            state.since = Some(Instant::now());
        }
        if self.is_over() {
            return;
        }
        log::debug!("{} jobs for the distributor", wanted.len());
        let ended = self.run_program(&wanted);
        for sent in &wanted {
            if self.is_over() {
                return;
            }
            let (number, identifier) = (sent.job.number, &sent.job.identifier);
            if lock(&self.state).locals.contains(&number) {
                lock(&self.state).done.insert(number);
                continue;
            }
            let object = match &ended {
                Ok(diagnosed) => self.object(sent, diagnosed),
                Err(why) => Err(why.clone()),
            };
            let object = object.map_err(|why| BackendError::of(identifier, why));
            self.finish(number, object, report);
        }
    }

    fn stop(&self) {
        lock(&self.state).stopped = true;
    }

    fn choose_lookup(&self, lookups: &[WaitingLookup]) -> Option<usize> {
        let state = lock(&self.state);
        let late = state
            .since
            .is_some_and(|since| since.elapsed() > SERVER_PATIENCE);
        let dir = self.dir();
        let ranked = lookups.iter().enumerate().filter_map(|(at, lookup)| {
            let WaitingLookup { job, waited } = *lookup;
            let number = job.filter(|_| !state.stopped);
            let Some(number) = number else {
                return (state.stopped || waited > SERVER_PATIENCE).then_some((0, at));
            };
            if state.done.contains(&number) || state.locals.contains(&number) {
                return None;
            }
            if state.since.is_some() && !state.sent.contains(&number) {
                return Some((2, at));
            }
            // An object that has been begun is probably there soon.
            let begun = || fs::metadata(dir.join(Names::Shared.object(number))).is_ok();
            (late || waited > SERVER_PATIENCE).then(|| (i32::from(!begun()), at))
        });
        ranked.max().map(|(_, at)| at)
    }

    fn local_started(&self, number: usize) {
        lock(&self.state).locals.insert(number);
    }

    fn local_finished(&self, number: usize, _: Option<(&File, Duration)>) {
        lock(&self.state).locals.insert(number);
    }

    fn wants(&self, number: usize) -> bool {
        let state = lock(&self.state);
        !state.stopped && !state.done.contains(&number) && !state.locals.contains(&number)
    }
}

/// The file for the program: what all jobs have in common is there once.
fn job_file(clang: &Path, output: &OsStr, sent: &[Sent]) -> Result<JobFile, String> {
    let text = |word: &OsStr| match word.to_str() {
        Some(word) => Ok(word.to_owned()),
        None => Err(format!("{word:?} is not UTF-8")),
    };
    let first = sent.first().map_or(&[][..], |sent| &sent.job.args);
    let common = sent.iter().fold(first.len(), |most, sent| {
        let equal = first.iter().zip(&sent.job.args).take_while(|(a, b)| a == b);
        most.min(equal.count())
    });
    let mut args = vec![text(clang.as_os_str())?];
    for arg in first.get(..common).unwrap_or_default() {
        args.push(text(arg)?);
        if args.len() == 2 {
            // After `-cc1`. No part of the key: the object is the same.
            args.extend(["-diagnostic-log-file", "-"].map(String::from));
        }
    }
    let is_module = |name: &Path| name.starts_with("m");
    let names = |job: &Job, modules| -> Result<Vec<String>, String> {
        let names = job.inputs.iter().map(|(name, _)| name);
        let names = names.filter(|name| is_module(name) == modules);
        names.map(|name| text(name.as_os_str())).collect()
    };
    let mut jobs = Vec::new();
    for Sent { job, .. } in sent {
        let args = job.args.get(common..).unwrap_or_default();
        let own = own_module(job)?;
        let mut inputs = vec![
            own.clone(),
            text(Names::Shared.shard(job.number).as_os_str())?,
        ];
        inputs.extend(names(job, true)?.into_iter().filter(|name| *name != own));
        jobs.push(JobEntry {
            args: args.iter().map(|arg| text(arg)).collect::<Result<_, _>>()?,
            inputs,
            outputs: vec![text(Names::Shared.object(job.number).as_os_str())?],
        });
    }
    Ok(JobFile {
        linker_output: text(output)?,
        args,
        inputs: sent
            .first()
            .map_or(Ok(Vec::new()), |sent| names(&sent.job, false))?,
        jobs,
    })
}

/// The modules that clang's messages name: those on which it had something to say.
fn diagnosed_modules(messages: impl BufRead) -> io::Result<HashSet<String>> {
    let mut modules = HashSet::new();
    let mut is_next = false;
    let mut line = Vec::new();
    let mut messages = messages;
    // A line is as long as whoever wrote it likes.
    while messages
        .by_ref()
        .take(LONGEST_LINE)
        .read_until(b'\n', &mut line)?
        > 0
    {
        let text = line.trim_ascii();
        if is_next {
            let name = text.strip_prefix(b"<string>");
            let name = name.and_then(|name| name.strip_suffix(b"</string>"));
            modules.extend(name.and_then(|name| String::from_utf8(name.to_vec()).ok()));
        }
        is_next = text == b"<key>main-file</key>";
        line.clear();
    }
    Ok(modules)
}

/// The name of the module that a job compiles: the one among its arguments.
fn own_module(job: &Job) -> Result<String, String> {
    let is_input = |arg: &&OsString| job.inputs.iter().any(|(name, _)| name.as_os_str() == **arg);
    let own = job
        .args
        .iter()
        .rev()
        .find(is_input)
        .and_then(|own| own.to_str());
    own.map(str::to_owned)
        .ok_or_else(|| "its arguments name no module".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_that_clang_names() {
        let named = |text: &[u8]| {
            let modules = diagnosed_modules(text).expect("a text");
            let mut modules: Vec<String> = modules.into_iter().collect();
            modules.sort();
            modules
        };
        let said = "warning: take care\n<dict>\n  <key>main-file</key>\n  <string>m/00000003.o</string>\n</dict>\n";
        assert_eq!(named(said.as_bytes()), ["m/00000003.o"]);
        assert_eq!(named(said.repeat(3).as_bytes()), ["m/00000003.o"]);
        let long = "x".repeat(3 * LONGEST_LINE as usize);
        assert_eq!(
            named(format!("{long}\n{said}").as_bytes()),
            ["m/00000003.o"]
        );
        for none in [
            &b""[..],
            b"<key>main-file</key>",
            b"<key>main-file</key>\n<string>m/1.o",
            b"<key>main-file</key>\n\n<string>m/1.o</string>",
            b"<key>main-file</key>\n<string>\xff</string>\n",
        ] {
            assert!(named(none).is_empty(), "{none:?}");
        }
    }
}
