//! lld's options, translated to clang's.
//!
//! In-process, lld configures LLVM in `createConfig` (lld/ELF/LTO.cpp); a backend is clang's
//! `runThinLTOBackend` (clang/lib/CodeGen/BackendUtil.cpp). This is the one translation between the
//! two. A link with an option that clang cannot be told exactly gets no jobs: lld compiles all of it
//! (docs/lld.md, "Code generation flags").
//!
//! Backends are `clang -cc1`, not the driver: the driver adds flags of its own (default
//! configuration files, hardening defaults of a distribution), cc1 does what it is told. Its flags
//! are not promised to be stable, which is why each toolchain passes a self-test before it is used.

mod files;
mod llvm_options;
#[cfg(test)]
mod tests;

pub use llvm_options::check_cacheable;

use crate::jobs::bitcode::attributes::FunctionAttributes;
use crate::jobs::quirks;
use shim::cmdline::{CommandLine, OutputKind};
use shim::effects::left_to_lld;
use shim::options::Id;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// A file that a backend reads: its name in the job's directory, and where the bytes are.
pub type InputFile = (PathBuf, PathBuf);

/// Code generation of one link, as clang is told it; the same for all its modules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Codegen {
    args: Vec<OsString>,
    /// `-plugin-opt=mcpu=`.
    cpu: Option<OsString>,
    /// Files that every backend reads besides its modules and its shard.
    inputs: Vec<InputFile>,
}

/// Targets for which clang's backends are known to equal lld's. Elsewhere clang's own defaults come in
/// between: ABI and features on ARM and MIPS (seen), thread-local storage on Android.
const TESTED_ARCHITECTURES: &[&str] = &["x86_64-", "aarch64-", "i386-", "i586-", "i686-"];

/// Options that clang cannot be told, beside those by which lld is to do any link alone
/// ([`shim::effects`]).
const UNTRANSLATABLE: &[(Id, &str)] = &[
    (
        Id::LtoNewpmPasses,
        "--lto-newpm-passes: clang cannot be told the pipeline of a backend",
    ),
    (
        Id::LtoAaPipeline,
        "--lto-aa-pipeline: clang cannot be told the alias analyses of a backend",
    ),
    (Id::LtoLegacyPassManager, "--lto-legacy-pass-manager"),
    (Id::PluginOptOpaquePointers, "-plugin-opt=opaque-pointers"),
    (
        Id::PluginOptNoOpaquePointers,
        "-plugin-opt=no-opaque-pointers",
    ),
];

impl Codegen {
    /// Translates a link's options; `Err` is the reason to forward.
    pub fn of(cmd: &CommandLine, major: u32) -> Result<Self, String> {
        if let Some((_, why)) = UNTRANSLATABLE.iter().find(|(id, _)| cmd.has(*id)) {
            return Err((*why).to_owned());
        }
        if let Some(why) = left_to_lld(cmd) {
            return Err(why.to_owned());
        }
        if cmd.last(Id::Lto) == Some(OsStr::new("full")) {
            return Err("--lto=full".into());
        }
        let (relocation, level) = (relocation_model(cmd)?, optimization_level(cmd)?);
        let mut args: Vec<OsString> = [
            "-mrelocation-model",
            relocation,
            // Always on with LTO (createConfig).
            "-ffunction-sections",
            "-fdata-sections",
            "-faddrsig",
            // The module's triple is given, but LLVM may have written it in another form.
            "-Wno-override-module",
            // PTO.LoopVectorization and PTO.SLPVectorization are on above level 1.
            "-vectorize-loops",
            "-vectorize-slp",
            "-disable-free",
            // For remarks that lld shows unasked (`OptimizationRemarkAnalysis::AlwaysPrint`): cc1 does only if some pass's
            // are wanted.
            "-Rpass-analysis=no-such-pass",
        ]
        .map(OsString::from)
        .to_vec();
        args.push(format!("-O{level}").into());
        if major < quirks::RELAXED_RELOCATIONS {
            // createConfig sets RelaxELFRelocations; from 15 on that is everybody's default.
            args.push("--mrelax-relocations".into());
        }
        if major < quirks::XRAY_INDEX {
            // The flag is upside down and its default wrong (XRayOmitFunctionIndex, Options.td).
            args.push("-fno-xray-function-index".into());
        }
        let cpu = cmd.last(Id::PluginOptMcpu).filter(|cpu| !cpu.is_empty());
        if cpu.is_some_and(|cpu| cpu == "native") {
            return Err("-plugin-opt=mcpu=native: a backend may run on another machine".into());
        }
        if let Some(cpu) = cpu {
            args.extend([OsString::from("-target-cpu"), cpu.to_owned()]);
        }
        let mut inputs = Vec::new();
        files::profile(cmd, major, &mut args, &mut inputs)?;
        files::basic_blocks(cmd, major, &mut args, &mut inputs)?;
        let options = llvm_options::all(cmd);
        for (n, option) in options.iter().enumerate() {
            let later = options.get(n + 1..).unwrap_or_default();
            llvm_options::translate(option, later, major, &mut args)?;
        }
        Ok(Self {
            args,
            cpu: cpu.map(OsStr::to_owned),
            inputs,
        })
    }

    /// Files that each backend reads besides its modules and its shard.
    #[must_use]
    pub fn inputs(&self) -> &[InputFile] {
        &self.inputs
    }

    /// Whether a module whose functions have these attributes can be compiled as in-process.
    ///
    /// cc1 derives features from the CPU, and without one from the architecture, and makes them the target machine's own;
    /// lld leaves those empty. A function with a CPU of its own but no features (rustc's) takes the machine's: with cc1,
    /// those of the link's CPU on top of its own. Those of the baseline change nothing; but what i386 without a CPU has
    /// is more than an i486.
    pub fn check_module(
        &self,
        triple: &OsStr,
        functions: FunctionAttributes,
    ) -> Result<(), String> {
        let target = triple.to_string_lossy();
        let known = TESTED_ARCHITECTURES
            .iter()
            .any(|arch| target.starts_with(arch))
            && target.contains("-linux")
            && !["android", "ohos"].iter().any(|env| target.contains(env));
        if !known {
            return Err(format!(
                "target {target}: clang is not known to compile it as lld does"
            ));
        }
        let cpu = self.cpu.as_deref();
        if cpu.is_some_and(|cpu| cpu == "generic") && !target.starts_with("aarch64") {
            return Err("-plugin-opt=mcpu=generic: clang knows no such x86".into());
        }
        let is_baseline = cpu.is_none_or(|cpu| cpu == "x86-64" || cpu == "generic");
        let has_baseline = ["x86_64-", "aarch64-"]
            .iter()
            .any(|arch| target.starts_with(arch));
        if functions.cpu_without_features && !(is_baseline && has_baseline) {
            let named = cpu.map(|cpu| format!("-plugin-opt=mcpu={} and ", cpu.to_string_lossy()));
            return Err(format!(
                "{}functions without target features: clang would give them those of {}",
                named.unwrap_or_default(),
                cpu.map_or(target, |_| "that CPU".into())
            ));
        }
        Ok(())
    }

    /// The whole argument list of one backend: `clang` and these, in the job's directory.
    #[must_use]
    pub fn backend_args(&self, triple: &OsStr, files: &BackendFiles<'_>) -> Vec<OsString> {
        let mut args: Vec<OsString> = vec!["-cc1".into(), "-triple".into(), triple.to_owned()];
        args.extend(self.args.iter().cloned());
        args.extend(["-emit-obj", "-x", "ir"].map(OsString::from));
        args.push(files.module.into());
        let mut index = OsString::from("-fthinlto-index=");
        index.push(files.shard);
        args.extend([index, "-o".into(), files.object.into()]);
        args
    }
}

/// Names of a backend's files, relative to its directory.
#[derive(Debug, Clone, Copy)]
pub struct BackendFiles<'a> {
    /// The bitcode.
    pub module: &'a Path,
    /// Its shard.
    pub shard: &'a Path,
    /// The object to write.
    pub object: &'a Path,
}

fn relocation_model(cmd: &CommandLine) -> Result<&'static str, String> {
    match cmd.kind() {
        OutputKind::Relocatable => {
            Err("-r: clang cannot be told to leave the relocation model to the module".into())
        }
        OutputKind::Shared | OutputKind::Pie => Ok("pic"),
        OutputKind::Executable => Ok("static"),
    }
}

fn optimization_level(cmd: &CommandLine) -> Result<&'static str, String> {
    let level = match cmd.last(Id::LtoO).map(OsStr::as_bytes) {
        None | Some(b"2") => "2",
        Some(b"3") => "3",
        Some(other) => {
            let other = String::from_utf8_lossy(other);
            return Err(format!(
                "LTO at level {other}: clang ties the code generator's level to it, lld does not"
            ));
        }
    };
    if cmd.last(Id::LtoCgo).is_some_and(|cgo| cgo != level) {
        return Err("--lto-CGO: clang ties the code generator's level to -O".into());
    }
    Ok(level)
}
