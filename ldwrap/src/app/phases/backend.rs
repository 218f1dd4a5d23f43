//! `ldwrap backend DESCRIPTION`: the object of one module.

use crate::cache::digest::Digest;
use crate::cache::files::SeenFile;
use crate::executor::Outcome;
use crate::executor::clang;
use crate::jobs::description::{BackendDescription, DescribedInput, Description, ObjectKey};
use crate::jobs::index::ModuleIdentifier;
use crate::jobs::job::Job;
use crate::jobs::layout::ModuleFiles;
use crate::sys::scratch::Scratch;
use crate::sys::{process, write_output};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Makes the object that a description asks for, beside it or at `object`. It is written whole or not at all. Where lld
/// has to compile the module itself, the object is an empty file, which `ldwrap final` does not take.
pub(crate) fn run(description: &Path, object: Option<&Path>) -> Result<(), String> {
    let shown = description.display();
    let files = ModuleFiles::of_description(description)
        .ok_or_else(|| format!("{shown}: the name of a description ends in .json"))?;
    let text = fs::read_to_string(description).map_err(|e| format!("{shown}: {e}"))?;
    let described = Description::parse(&text).map_err(|e| format!("{shown}: {e}"))?;
    let made = object.map_or_else(|| files.clone(), ModuleFiles::of_object);
    let backend = match described {
        Description::Backend(backend) => backend,
        Description::NoBackend { module, reason } => {
            log::info!("{module}: {reason}");
            return write(&made, "", None);
        }
    };
    process::watch_signals().map_err(|e| format!("signals: {e}"))?;
    let compiled = process::with_scratch(|scratch| compile(&backend, &files, scratch));
    let compiled = compiled.map_err(|e| format!("no scratch directory: {e}"))?;
    let object = compiled.map_err(|e| format!("{}: {e}", backend.module))?;
    write(&made, &backend.key, object.as_deref())
}

/// Writes an object, or an empty file, and what it was made from.
fn write(files: &ModuleFiles, key: &str, object: Option<&[u8]>) -> Result<(), String> {
    let made = ObjectKey {
        key: key.to_owned(),
        object: object.map(Digest::of),
    };
    // The key first: with another object than its own it is none.
    for (path, content) in [
        (files.object_key(), made.to_text().as_bytes()),
        (files.object(), object.unwrap_or_default()),
    ] {
        write_output(&path, content).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    Ok(())
}

/// Compiles a module; `None` where clang has something to say, which is lld's to say in its own words.
fn compile(
    backend: &BackendDescription,
    files: &ModuleFiles,
    scratch: &Scratch,
) -> Result<Option<Vec<u8>>, String> {
    let stale = |file: &Path| {
        let file = file.display();
        format!("{file} is not what it was for ldwrap index: run that again")
    };
    let shard = fs::read(files.shard()).map_err(|e| format!("its shard: {e}"))?;
    if Digest::of(&shard) != backend.shard {
        return Err(stale(&files.shard()));
    }
    let (mut inputs, mut sources) = (Vec::new(), Vec::new());
    for DescribedInput { name, file, digest } in &backend.inputs {
        let named = |e: std::io::Error| format!("{file}: {e}");
        let path = std::path::absolute(file).map_err(named)?;
        sources.push(Arc::new(SeenFile::now(&path).map_err(named)?));
        if Digest::of_file(&path).map_err(named)? != *digest {
            return Err(stale(&path));
        }
        inputs.push((PathBuf::from(name), path));
    }
    let job = Job {
        number: 0,
        identifier: ModuleIdentifier::new(backend.module.as_bytes()),
        inputs,
        size: 0,
        shard,
        args: backend.args.iter().map(Into::into).collect(),
        expected: Default::default(),
        sources,
    };
    let outcome = clang::compile(&backend.clang, scratch, &job)?;
    if let Some(path) = job.changed_source() {
        return Err(stale(path));
    }
    match outcome {
        Outcome::Object(object) => {
            let path = &object.path;
            let read = fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
            Ok(Some(read))
        }
        Outcome::Diagnosed(said) | Outcome::Absent(said) => {
            log::info!("{}: left to lld: {said}", backend.module);
            Ok(None)
        }
    }
}
