//! A backend as a file that `ldwrap index` writes and `ldwrap backend` reads, and what is kept of its object
//! (docs/phases.md has the format).
//!
//! A description changes when, and only when, the object may: it has the digest of all that the backend reads, and no
//! time, offset or name of a machine. So it is the one file on which a build system has an object depend.

use crate::cache::digest::Digest;
use serde_json::{Value, json};
use std::path::PathBuf;

/// The version of the format.
const VERSION: u64 = 1;

/// What `ldwrap backend` is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Description {
    /// Compile.
    Backend(BackendDescription),
    /// Nothing: lld compiles the module itself, or leaves it out.
    NoBackend {
        /// The module's name.
        module: String,
        /// Why.
        reason: String,
    },
}

/// A module to be compiled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BackendDescription {
    /// The module's name.
    pub(crate) module: String,
    /// The digest of the job's Action in hexadecimal, by which `ldwrap final` knows its object.
    pub(crate) key: String,
    /// The compiler.
    pub(crate) clang: PathBuf,
    /// Its arguments.
    pub(crate) args: Vec<String>,
    /// Files that it reads besides the shard.
    pub(crate) inputs: Vec<DescribedInput>,
    /// The shard.
    pub(crate) shard: Digest,
}

/// A file that a backend reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DescribedInput {
    /// Its name in the job's directory.
    pub(crate) name: String,
    /// Where it is, from the directory in which the commands run.
    pub(crate) file: String,
    /// Of its content.
    pub(crate) digest: Digest,
}

impl Description {
    /// As text.
    pub(crate) fn to_text(&self) -> String {
        let value = match self {
            Self::NoBackend { module, reason } => {
                json!({"version": VERSION, "module": module, "no_backend": reason})
            }
            Self::Backend(b) => {
                let input = |i: &DescribedInput| json!({"name": i.name, "file": i.file, "digest": i.digest.to_string()});
                json!({
                    "version": VERSION,
                    "module": b.module,
                    "key": b.key,
                    "clang": b.clang.to_string_lossy(),
                    "arguments": b.args,
                    "inputs": b.inputs.iter().map(input).collect::<Vec<_>>(),
                    "shard": b.shard.to_string(),
                })
            }
        };
        format!("{value:#}\n")
    }

    /// From text; an error says what is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let value: Value = serde_json::from_str(text).map_err(|e| e.to_string())?;
        if value.get("version").and_then(Value::as_u64) != Some(VERSION) {
            return Err("it is of another version of ldwrap: run ldwrap index again".into());
        }
        let module = text_of(&value, "module")?;
        if let Ok(reason) = text_of(&value, "no_backend") {
            return Ok(Self::NoBackend { module, reason });
        }
        let input = |value: &Value| {
            Ok(DescribedInput {
                name: text_of(value, "name")?,
                file: text_of(value, "file")?,
                digest: digest_of(value, "digest")?,
            })
        };
        let arg = |value: &Value| value.as_str().map(str::to_owned);
        let args: Option<Vec<String>> = list_of(&value, "arguments")?.iter().map(arg).collect();
        let inputs: Result<Vec<_>, String> = list_of(&value, "inputs")?.iter().map(input).collect();
        Ok(Self::Backend(BackendDescription {
            module,
            key: text_of(&value, "key")?,
            clang: text_of(&value, "clang")?.into(),
            args: args.ok_or("an argument is no string")?,
            inputs: inputs?,
            shard: digest_of(&value, "shard")?,
        }))
    }
}

/// What an object in the directory was made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ObjectKey {
    /// That of the description.
    pub(crate) key: String,
    /// Of the object; none where there is none, and the module is lld's.
    pub(crate) object: Option<Digest>,
}

impl ObjectKey {
    /// As text.
    pub(crate) fn to_text(&self) -> String {
        let object = self.object.map(|digest| digest.to_string());
        format!("{}\n", json!({"key": self.key, "object": object}))
    }

    /// From text; `None` for anything else.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let value: Value = serde_json::from_str(text).ok()?;
        let object = match value.get("object")? {
            Value::Null => None,
            _ => Some(digest_of(&value, "object").ok()?),
        };
        let key = text_of(&value, "key").ok()?;
        Some(Self { key, object })
    }
}

fn text_of(value: &Value, name: &str) -> Result<String, String> {
    let text = value.get(name).and_then(Value::as_str);
    text.map(str::to_owned)
        .ok_or_else(|| format!("it has no {name}"))
}

fn list_of<'v>(value: &'v Value, name: &str) -> Result<&'v Vec<Value>, String> {
    let list = value.get(name).and_then(Value::as_array);
    list.ok_or_else(|| format!("it has no {name}"))
}

fn digest_of(value: &Value, name: &str) -> Result<Digest, String> {
    Digest::parse(&text_of(value, name)?).ok_or_else(|| format!("its {name} is no digest"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let backend = Description::Backend(BackendDescription {
            module: "l.a/a.o".into(),
            key: "0a".into(),
            clang: "/usr/bin/clang".into(),
            args: vec!["-cc1".into(), "a \"b\"".into()],
            inputs: vec![DescribedInput {
                name: "m/0000.o".into(),
                file: "lto/l.a/a.o.bc".into(),
                digest: Digest::of(b"BC"),
            }],
            shard: Digest::of(b"shard"),
        });
        let none = Description::NoBackend {
            module: "c.o".into(),
            reason: "lazy".into(),
        };
        for description in [backend, none] {
            let text = description.to_text();
            assert_eq!(Description::parse(&text), Ok(description));
            let other = text.replace("\"version\": 1", "\"version\": 2");
            assert!(Description::parse(&other).is_err());
        }
        for object in [None, Some(Digest::of(b"object"))] {
            let key = "0a".into();
            let made = ObjectKey { key, object };
            assert_eq!(ObjectKey::parse(&made.to_text()), Some(made));
        }
    }

    #[test]
    fn what_is_not_a_description() {
        for text in [
            "",
            "[]",
            "{\"version\": 1}",
            "{\"version\": 1, \"module\": \"a.o\", \"key\": \"\"}",
            "{\"version\": 1, \"module\": \"a.o\", \"arguments\": [1], \"inputs\": [{}]}",
        ] {
            assert!(Description::parse(text).is_err(), "{text}");
        }
        assert_eq!(ObjectKey::parse("{\"key\": \"a\"}"), None);
        let size = "{\"key\": \"a\", \"object\": \"00/1\"}";
        assert_eq!(ObjectKey::parse(size), None);
    }
}
