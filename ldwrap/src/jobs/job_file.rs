//! The JSON file in which lld 21 and later describe the backends of a link to a distributor (DTLTO; llvm/docs/DTLTO.rst,
//! "JSON Schema").
//!
//! It is read where ldwrap is the distributor, and written where a distributor does the jobs of ldwrap.

use serde_json::{Map, Value, json};
use std::fmt;

/// The backends of a link.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JobFile {
    /// The link's output.
    pub linker_output: String,
    /// What each job's command begins with: the compiler first.
    pub args: Vec<String>,
    /// Files that each job reads.
    pub inputs: Vec<String>,
    /// The jobs.
    pub jobs: Vec<JobEntry>,
}

/// One backend. File names are absolute, or relative to the distributor's working directory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JobEntry {
    /// The rest of its command.
    pub args: Vec<String>,
    /// Files that it reads: the module, its shard, and the modules it imports from.
    pub inputs: Vec<String>,
    /// Files that it writes: the object first.
    pub outputs: Vec<String>,
}

/// Why a file describes no jobs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadJobFile {
    /// It is not JSON.
    #[error("not JSON: {0}")]
    Syntax(String),
    /// Something is missing, or is not what it should be.
    #[error("{0} is missing or of the wrong kind")]
    Field(String),
}

impl JobFile {
    /// Reads it. What it has beyond what we know is passed over, as later versions may have more.
    pub fn parse(text: &[u8]) -> Result<Self, BadJobFile> {
        let file: Value =
            serde_json::from_slice(text).map_err(|e| BadJobFile::Syntax(e.to_string()))?;
        let common = &file["common"];
        let output = common["linker_output"].as_str();
        let args = strings(&common["args"], || "common.args".into())?;
        let jobs = file["jobs"].as_array().ok_or_else(|| missing("jobs"))?;
        if args.is_empty() {
            return Err(missing("the compiler in common.args"));
        }
        Ok(Self {
            linker_output: output.unwrap_or_default().to_owned(),
            args,
            inputs: strings(&common["inputs"], || "common.inputs".into())?,
            jobs: (jobs.iter().enumerate())
                .map(|(n, job)| JobEntry::parse(n, job))
                .collect::<Result<_, _>>()?,
        })
    }
}

impl JobEntry {
    fn parse(n: usize, job: &Value) -> Result<Self, BadJobFile> {
        let field = |name: &str| strings(&job[name], || format!("jobs[{n}].{name}"));
        let (args, inputs, outputs) = (field("args")?, field("inputs")?, field("outputs")?);
        if inputs.len() < 2 || outputs.is_empty() {
            return Err(missing(&format!(
                "the module, shard or object in jobs[{n}]"
            )));
        }
        Ok(Self {
            args,
            inputs,
            outputs,
        })
    }

    /// Its module.
    #[must_use]
    pub fn module(&self) -> &str {
        self.inputs.first().map_or("", String::as_str)
    }

    /// Its object.
    #[must_use]
    pub fn object(&self) -> &str {
        self.outputs.first().map_or("", String::as_str)
    }
}

impl fmt::Display for JobFile {
    /// As lld writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut common = Map::new();
        common.insert("linker_output".into(), json!(self.linker_output));
        common.insert("args".into(), json!(self.args));
        common.insert("inputs".into(), json!(self.inputs));
        let job = |j: &JobEntry| json!({"args": j.args, "inputs": j.inputs, "outputs": j.outputs});
        let jobs: Vec<Value> = self.jobs.iter().map(job).collect();
        write!(f, "{:#}", json!({"common": common, "jobs": jobs}))
    }
}

fn missing(what: &str) -> BadJobFile {
    BadJobFile::Field(what.to_owned())
}

fn strings(value: &Value, name: impl Fn() -> String) -> Result<Vec<String>, BadJobFile> {
    let all = value.as_array().map(|all| all.iter().map(Value::as_str));
    let all = all.and_then(|all| all.map(|s| s.map(str::to_owned)).collect());
    all.ok_or_else(|| BadJobFile::Field(name()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of LLVM's document, shortened.
    const EXAMPLE: &str = r#"{
        "common": {"linker_output": "dtlto.elf", "inputs": ["my.prof"],
            "args": ["/usr/bin/clang", "-O2", "-c", "-fprofile-sample-use=my.prof"]},
        "jobs": [{"args": ["t1.o", "-fthinlto-index=t1.o.thinlto.bc", "-o", "t1.native.o"],
            "inputs": ["t1.o", "t1.o.thinlto.bc"], "outputs": ["t1.native.o"], "later": 1}]}"#;

    #[test]
    fn a_file_is_read_and_written() {
        let file = JobFile::parse(EXAMPLE.as_bytes()).unwrap();
        assert_eq!(file.args[0], "/usr/bin/clang");
        let job = &file.jobs[0];
        assert_eq!((job.module(), job.object()), ("t1.o", "t1.native.o"));
        assert_eq!(JobFile::parse(file.to_string().as_bytes()), Ok(file));
    }

    #[test]
    fn what_is_no_such_file_is_told() {
        for (from, to, why) in [
            (
                "\"/usr/bin/clang\", \"-O2\", \"-c\", \"-fprofile-sample-use=my.prof\"",
                "",
                "the compiler",
            ),
            ("\"args\": [\"t1.o\"", "\"args\": [7", "jobs[0].args"),
            (
                "\"outputs\": [\"t1.native.o\"]",
                "\"outputs\": []",
                "jobs[0]",
            ),
            ("\"t1.o\", \"t1.o.thinlto.bc\"]", "\"t1.o\"]", "jobs[0]"),
            ("\"jobs\"", "\"job\"", "jobs"),
            ("{", "", "not JSON"),
        ] {
            let text = EXAMPLE.replacen(from, to, 1);
            assert_ne!(text, EXAMPLE, "{from}");
            let e = JobFile::parse(text.as_bytes()).unwrap_err().to_string();
            assert!(e.contains(why), "{e}");
        }
    }
}
