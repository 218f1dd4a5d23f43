//! A backend as an Action of the Remote Execution API: what it reads, under relative names, and what
//! it runs.
//!
//! The digest of the Action is the one key: of the local cache, of a server's action cache and of
//! remote execution. It covers the command's arguments, the platform asked for, version and build of the
//! compiler, and the content of every file that the compiler may read: the module, the modules it
//! imports from, and its shard, which says all that the rest of the link decides for it (docs/lld.md,
//! "Shards as bitstreams").
//! It covers no name of the machine or checkout, no time, no user.

pub use crate::cache::digest::Digest;
use crate::cache::digest::unhex;
use crate::cache::files::FileDigests;
use crate::jobs::job::{Job, OBJECT, SHARD};
use bazel_remote_apis::build::bazel::remote::execution::v2 as api;
use prost::Message;
use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

impl Digest {
    /// As the API has it.
    #[must_use]
    pub fn as_api(&self) -> api::Digest {
        api::Digest {
            hash: self.hex(),
            size_bytes: i64::try_from(self.size).unwrap_or(i64::MAX),
        }
    }

    /// From the API; `None` for what is no SHA-256 digest.
    #[must_use]
    pub fn from_api(digest: &api::Digest) -> Option<Self> {
        Some(Self {
            hash: unhex(&digest.hash)?,
            size: u64::try_from(digest.size_bytes).ok()?,
        })
    }
}

/// A blob's bytes, or where they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// In memory.
    Bytes(Vec<u8>),
    /// In a file.
    File(PathBuf),
}

/// The compiler as an Action names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tool {
    /// The first arguments: the compiler's path, or what starts it.
    pub command: Vec<String>,
    /// What its `--version` says first: another compiler is another key.
    pub banner: String,
    /// Which build it is; for a compiler that does not come with the action.
    pub build: Option<Digest>,
    /// Files that come with it, by relative path: the shipped toolchain.
    pub files: BTreeMap<PathBuf, ToolFile>,
    /// Platform properties.
    pub platform: Vec<(String, String)>,
}

/// A file of a shipped compiler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolFile {
    /// Of its content.
    pub digest: Digest,
    /// Where its bytes are.
    pub source: PathBuf,
    /// Whether it can be run.
    pub executable: bool,
}

/// A backend's Action.
#[derive(Debug)]
pub struct Action {
    /// The key.
    pub digest: Digest,
    /// Of its Command.
    pub command: Digest,
    /// All that a server needs to have to run it, itself included.
    pub blobs: HashMap<Digest, Content>,
}

impl Action {
    /// Makes a job's Action. Errors are those of reading its inputs, and names that are not UTF-8.
    pub fn of(job: &Job, tool: &Tool, files: &FileDigests) -> io::Result<Self> {
        let mut blobs = HashMap::new();
        let mut root = Tree::default();
        let shard = Digest::of(&job.shard);
        blobs.insert(shard, Content::Bytes(job.shard.clone()));
        root.file(Path::new(SHARD), shard, false)?;
        for (name, file) in &job.inputs {
            let digest = files.digest(file)?;
            root.file(name, digest, false)?;
            blobs.insert(digest, Content::File(file.clone()));
        }
        for (name, file) in &tool.files {
            root.file(name, file.digest, file.executable)?;
            blobs.insert(file.digest, Content::File(file.source.clone()));
        }
        let mut put = |message: Vec<u8>| {
            let digest = Digest::of(&message);
            blobs.insert(digest, Content::Bytes(message));
            digest
        };
        let input_root = root.digest(&mut put);
        let platform = tool.platform();
        let text = |arg: &OsStr| {
            let text = arg.to_str().map(str::to_owned);
            text.ok_or_else(|| io::Error::other(format!("{arg:?} is not UTF-8")))
        };
        let mut arguments = tool.command.clone();
        for arg in &job.args {
            arguments.push(text(arg)?);
        }
        #[expect(deprecated, reason = "servers of API 2.0 know only these fields")]
        let command = api::Command {
            arguments,
            output_files: vec![OBJECT.into()],
            output_paths: vec![OBJECT.into()],
            platform: Some(platform.clone()),
            ..api::Command::default()
        };
        let command = put(command.encode_to_vec());
        let action = api::Action {
            command_digest: Some(command.as_api()),
            input_root_digest: Some(input_root.as_api()),
            salt: tool.salt(),
            platform: Some(platform),
            ..api::Action::default()
        };
        Ok(Self {
            digest: put(action.encode_to_vec()),
            command,
            blobs,
        })
    }

    /// The same without what its command reads: the Action and its Command, all that a server is to have of
    /// an Action whose result it is given (remote_execution.proto, "UpdateActionResult").
    #[must_use]
    pub fn without_inputs(&self) -> Self {
        let messages = [self.digest, self.command];
        let blobs = messages.into_iter().filter_map(|digest| {
            let content = self.blobs.get(&digest)?.clone();
            Some((digest, content))
        });
        Self {
            digest: self.digest,
            command: self.command,
            blobs: blobs.collect(),
        }
    }
}

impl Action {
    /// Makes the Action that asks a program on the workers, or one that comes along, for its version. Not to be
    /// answered from a cache: at that path there may be another one now. Fails for names that are not UTF-8.
    pub fn asking_version(tool: &Tool) -> io::Result<Self> {
        let mut blobs = HashMap::new();
        let mut root = Tree::default();
        for (name, file) in &tool.files {
            root.file(name, file.digest, file.executable)?;
            blobs.insert(file.digest, Content::File(file.source.clone()));
        }
        let mut put = |message: Vec<u8>| {
            let digest = Digest::of(&message);
            blobs.insert(digest, Content::Bytes(message));
            digest
        };
        let platform = tool.platform();
        let mut arguments = tool.command.clone();
        arguments.push("--version".into());
        #[expect(deprecated, reason = "servers of API 2.0 know only this field")]
        let command = api::Command {
            arguments,
            platform: Some(platform.clone()),
            ..api::Command::default()
        };
        let command = put(command.encode_to_vec());
        let action = api::Action {
            command_digest: Some(command.as_api()),
            input_root_digest: Some(root.digest(&mut put).as_api()),
            do_not_cache: true,
            platform: Some(platform),
            ..api::Action::default()
        };
        Ok(Self {
            digest: put(action.encode_to_vec()),
            command,
            blobs,
        })
    }
}

impl Tool {
    /// What tells Actions with different compilers apart.
    fn salt(&self) -> Vec<u8> {
        let build = self.build.map(|digest| digest.to_string());
        format!("{}\n{}", self.banner, build.unwrap_or_default()).into_bytes()
    }

    /// A digest of all its files.
    #[must_use]
    pub fn content(&self) -> Digest {
        let line =
            |(name, file): (&PathBuf, &ToolFile)| format!("{} {}\n", name.display(), file.digest);
        Digest::of(self.files.iter().map(line).collect::<String>().as_bytes())
    }

    fn platform(&self) -> api::Platform {
        // "sorted by name, then by value"
        let mut sorted = self.platform.clone();
        sorted.sort();
        let property = |(name, value)| api::platform::Property { name, value };
        api::Platform {
            properties: sorted.into_iter().map(property).collect(),
        }
    }
}

/// An input root that is not encoded yet.
#[derive(Debug, Default)]
struct Tree {
    files: BTreeMap<String, (Digest, bool)>,
    dirs: BTreeMap<String, Tree>,
}

impl Tree {
    fn file(&mut self, path: &Path, digest: Digest, executable: bool) -> io::Result<()> {
        let unusable = || io::Error::other(format!("{} cannot be an input's name", path.display()));
        let mut parts = path.iter().map(|p| p.to_str().ok_or_else(unusable));
        let mut at = self;
        let mut name = parts.next().ok_or_else(unusable)??;
        for part in parts {
            at = at.dirs.entry(name.to_owned()).or_default();
            name = part?;
        }
        at.files.insert(name.to_owned(), (digest, executable));
        Ok(())
    }

    /// Encodes this directory and those in it; children first.
    fn digest(&self, put: &mut impl FnMut(Vec<u8>) -> Digest) -> Digest {
        // Both maps are sorted by name, as canonical form wants.
        let directories = self
            .dirs
            .iter()
            .map(|(name, dir)| api::DirectoryNode {
                name: name.clone(),
                digest: Some(dir.digest(put).as_api()),
            })
            .collect();
        let files = self
            .files
            .iter()
            .map(|(name, (digest, is_executable))| api::FileNode {
                name: name.clone(),
                digest: Some(digest.as_api()),
                is_executable: *is_executable,
                ..api::FileNode::default()
            })
            .collect();
        let directory = api::Directory {
            directories,
            files,
            ..api::Directory::default()
        };
        put(directory.encode_to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs::index::ModuleIdentifier;

    fn tool() -> Tool {
        Tool {
            command: vec!["/usr/bin/clang-19".into()],
            banner: "clang version 19.1.7".into(),
            build: Some(Digest::of(b"clang")),
            files: BTreeMap::new(),
            platform: vec![("OSFamily".into(), "Linux".into())],
        }
    }

    struct Case {
        dir: tempfile::TempDir,
        job: Job,
    }

    impl Case {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let mut inputs = Vec::new();
            for n in 0..2 {
                let file = dir.path().join(format!("module{n}"));
                std::fs::write(&file, format!("bitcode {n}")).unwrap();
                inputs.push((PathBuf::from(format!("m/000{n}.o")), file));
            }
            let job = Job {
                number: 0,
                size: 1,
                identifier: ModuleIdentifier::new(b"a.o"),
                inputs,
                shard: b"shard".to_vec(),
                args: vec!["-cc1".into(), "-O2".into()],
                expected: Default::default(),
                sources: Vec::new(),
            };
            Self { dir, job }
        }
        fn key(&self, tool: &Tool) -> Digest {
            Action::of(&self.job, tool, &FileDigests::default())
                .unwrap()
                .digest
        }
    }

    #[test]
    fn whatever_changes_the_object_changes_the_key() {
        let base = Case::new().key(&tool());
        let mut keys = vec![base];
        let mut with = |change: &dyn Fn(&mut Case, &mut Tool)| {
            let (mut case, mut tool) = (Case::new(), tool());
            change(&mut case, &mut tool);
            keys.push(case.key(&tool));
        };
        with(&|c, _| c.job.shard.push(b'x'));
        with(&|c, _| c.job.args[1] = "-O3".into());
        with(&|c, _| c.job.args.push("-v".into()));
        with(&|c, _| std::fs::write(c.dir.path().join("module1"), "other").unwrap());
        with(&|c, _| drop(c.job.inputs.pop()));
        with(&|c, _| c.job.inputs[1].0 = "m/0002.o".into());
        with(&|_, t| t.banner.push('1'));
        with(&|_, t| t.build = Some(Digest::of(b"rebuilt")));
        with(&|_, t| t.command[0].push('x'));
        with(&|_, t| t.platform.push(("a".into(), "b".into())));
        let n = keys.len();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), n);
    }

    #[test]
    fn what_does_not_matter_is_not_in_the_key() {
        let (a, mut b) = (Case::new(), Case::new());
        assert_ne!(a.dir.path(), b.dir.path());
        b.job.identifier = ModuleIdentifier::new(b"/elsewhere/a.o");
        b.job.number = 7;
        assert_eq!(a.key(&tool()), b.key(&tool()));
        let mut reordered = tool();
        reordered.platform.insert(0, ("z".into(), "1".into()));
        let mut other = tool();
        other.platform.push(("z".into(), "1".into()));
        assert_eq!(a.key(&reordered), a.key(&other));
    }

    #[test]
    fn all_that_is_mentioned_is_among_the_blobs() {
        let case = Case::new();
        let action = Action::of(&case.job, &tool(), &FileDigests::default()).unwrap();
        let get = |digest: &Option<api::Digest>| {
            let digest = Digest::from_api(digest.as_ref().unwrap()).unwrap();
            match &action.blobs[&digest] {
                Content::Bytes(bytes) => bytes.clone(),
                Content::File(file) => std::fs::read(file).unwrap(),
            }
        };
        let message = api::Action::decode(&*get(&Some(action.digest.as_api()))).unwrap();
        let command = api::Command::decode(&*get(&message.command_digest)).unwrap();
        assert_eq!(command.arguments, ["/usr/bin/clang-19", "-cc1", "-O2"]);
        let root = api::Directory::decode(&*get(&message.input_root_digest)).unwrap();
        assert_eq!(root.files[0].name, "shard");
        let m = api::Directory::decode(&*get(&root.directories[0].digest)).unwrap();
        assert_eq!(get(&m.files[1].digest), b"bitcode 1");
        // Without inputs: the two messages.
        let light = action.without_inputs();
        assert_eq!(
            (light.digest, light.command),
            (action.digest, action.command)
        );
        assert_eq!(light.blobs.len(), 2);
        assert_eq!(light.blobs[&action.command], action.blobs[&action.command]);
        assert_eq!(light.blobs[&action.digest], action.blobs[&action.digest]);
    }

    #[test]
    fn a_digest_goes_to_the_api_and_back() {
        let digest = Digest::of(b"abc");
        assert!(digest.hex().starts_with("ba7816bf"));
        let api = digest.as_api();
        assert_eq!(Digest::from_api(&api), Some(digest));
        let with = |hash: String, size_bytes| Digest::from_api(&api::Digest { hash, size_bytes });
        assert_eq!(with(digest.hex(), -1), None);
        for hash in ["", "00", &format!("X{}", &digest.hex()[1..])] {
            assert_eq!(with(hash.to_owned(), 3), None, "{hash}");
        }
    }
}
