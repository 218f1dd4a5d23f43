//! lld's options, said to clang.
//!
//! In-process, lld configures LLVM in `createConfig` (lld/ELF/LTO.cpp); a backend is clang's
//! `runThinLTOBackend` (clang/lib/CodeGen/BackendUtil.cpp). This is the one table between the two.
//! An option that clang cannot be told exactly makes the link go to lld whole: no code is better
//! than other code (docs/lld.md, "Code generation flags").
//!
//! Backends are `clang -cc1`, not the driver: the driver adds flags of its own (default
//! configuration files, hardening defaults of a distribution), cc1 does what it is told. Its flags
//! are not promised to be stable, which is why each toolchain passes a self-test before it is used.

use crate::jobs::bitcode::reader::{Entry, Reader};
use crate::jobs::bitcode::{self, Malformed, block};
use shim::cmdline::{CommandLine, OutputKind};
use shim::effects::{Effect, effect};
use shim::options::Id;
use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Code generation of one link, as clang is told it; the same for all its modules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Codegen {
    args: Vec<OsString>,
    /// `-plugin-opt=mcpu=`.
    cpu: Option<OsString>,
    /// Files that every backend reads: name in the job's directory, and where the bytes are.
    inputs: Vec<(PathBuf, PathBuf)>,
}

/// Where backends are known to be equal. Elsewhere clang's own defaults for a target come in between:
/// ABI and features on ARM and MIPS (seen), thread-local storage on Android.
const ARCHITECTURES: &[&str] = &["x86_64-", "aarch64-", "i386-", "i586-", "i686-"];

/// A backend's name for the profile that guides it.
const PROFILE: &str = "profile";
/// A backend's name for the list of `--lto-basic-block-sections=FILE`.
const BLOCKS: &str = "blocks";

/// Options that clang cannot be told, beside those by which lld is to do any link alone
/// ([`shim::effects`]).
const FORWARDED: &[(Id, &str)] = &[
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

/// How an LLVM option (`-mllvm X`, `-plugin-opt=-X`) reaches a backend.
enum LlvmOption {
    /// It changes nothing there.
    Nothing,
    /// By a flag of cc1's own, if it is on.
    As(&'static str),
    /// By a flag of cc1's own, if it is off.
    Unless(&'static str),
    /// By a flag of cc1's own that ends with the option's value.
    AsValue(&'static str),
    /// Not at all.
    Forward,
}

/// LLVM options that reach lld's configuration alone and what cc1 calls them instead. lld registers
/// llvm/lib/CodeGen/CommandFlags.cpp, so that `initTargetOptionsFromCodeGenFlags` sees them; clang
/// does not, or (LLVM 14, and MC's on every version) takes them without effect, since
/// `initTargetOptions` of BackendUtil.cpp sets the same fields from cc1's flags. Names without their
/// dashes; options that are not here go on as `-mllvm X`.
const LLVM_OPTIONS: &[(&str, LlvmOption)] = &[
    // createConfig sets these, whatever was said.
    ("function-sections", LlvmOption::Nothing),
    ("data-sections", LlvmOption::Nothing),
    ("addrsig", LlvmOption::Nothing),
    ("unique-basic-block-section-names", LlvmOption::Nothing),
    ("basic-block-address-map", LlvmOption::Nothing),
    // For bug reports only.
    ("crash-diagnostics-dir", LlvmOption::Nothing),
    ("debugger-tune", LlvmOption::AsValue("-debugger-tuning=")),
    ("stack-size-section", LlvmOption::As("-fstack-size-section")),
    ("emulated-tls", LlvmOption::As("-femulated-tls")),
    ("enable-tlsdesc", LlvmOption::As("-enable-tlsdesc")),
    ("strict-dwarf", LlvmOption::As("-gstrict-dwarf")),
    ("dwarf64", LlvmOption::As("-gdwarf64")),
    (
        "force-dwarf-frame-section",
        LlvmOption::As("-fforce-dwarf-frame"),
    ),
    (
        "split-machine-functions",
        LlvmOption::As("-fsplit-machine-functions"),
    ),
    (
        "partition-static-data-sections",
        LlvmOption::As("-fpartition-static-data-sections"),
    ),
    (
        "call-graph-section",
        LlvmOption::As("-fexperimental-call-graph-section"),
    ),
    (
        "separate-named-sections",
        LlvmOption::As("-fseparate-named-sections"),
    ),
    ("enable-jmc-instrument", LlvmOption::As("-fjmc")),
    ("use-ctors", LlvmOption::As("-fno-use-init-array")),
    ("crel", LlvmOption::As("--crel")),
    (
        "x86-relax-relocations",
        LlvmOption::Unless("-mrelax-relocations=no"),
    ),
    (
        "unique-section-names",
        LlvmOption::Unless("-fno-unique-section-names"),
    ),
    (
        "xray-function-index",
        LlvmOption::Unless("-fno-xray-function-index"),
    ),
    ("align-loops", LlvmOption::AsValue("-falign-loops=")),
    ("code-model", LlvmOption::AsValue("-mcmodel=")),
    ("march", LlvmOption::Forward),
    ("mcpu", LlvmOption::Forward),
    ("mattr", LlvmOption::Forward),
    ("relocation-model", LlvmOption::Forward),
    ("thread-model", LlvmOption::Forward),
    ("large-data-threshold", LlvmOption::Forward),
    ("exception-model", LlvmOption::Forward),
    ("filetype", LlvmOption::Forward),
    ("frame-pointer", LlvmOption::Forward),
    ("enable-unsafe-fp-math", LlvmOption::Forward),
    ("enable-no-infs-fp-math", LlvmOption::Forward),
    ("enable-no-nans-fp-math", LlvmOption::Forward),
    ("enable-no-signed-zeros-fp-math", LlvmOption::Forward),
    ("enable-approx-func-fp-math", LlvmOption::Forward),
    ("enable-no-trapping-fp-math", LlvmOption::Forward),
    ("denormal-fp-math", LlvmOption::Forward),
    ("denormal-fp-math-f32", LlvmOption::Forward),
    (
        "enable-sign-dependent-rounding-fp-math",
        LlvmOption::Forward,
    ),
    ("float-abi", LlvmOption::Forward),
    ("fp-contract", LlvmOption::Forward),
    ("swift-async-fp", LlvmOption::Forward),
    ("nozero-initialized-in-bss", LlvmOption::Forward),
    ("vec-extabi", LlvmOption::Forward),
    ("tailcallopt", LlvmOption::Forward),
    ("disable-tail-calls", LlvmOption::Forward),
    ("stack-symbol-ordering", LlvmOption::Forward),
    ("stackrealign", LlvmOption::Forward),
    ("trap-func", LlvmOption::Forward),
    ("ignore-xcoff-visibility", LlvmOption::Forward),
    ("xcoff-traceback-table", LlvmOption::Forward),
    ("basic-block-sections", LlvmOption::Forward),
    ("tls-size", LlvmOption::Forward),
    ("meabi", LlvmOption::Forward),
    ("emit-call-site-info", LlvmOption::Forward),
    ("debug-entry-values", LlvmOption::Forward),
    ("no-xray-index", LlvmOption::Forward),
    ("lower-global-dtors-via-cxa-atexit", LlvmOption::Forward),
    ("relax-elf-relocations", LlvmOption::Forward),
    ("mxcoff-roptr", LlvmOption::Forward),
    ("no-integrated-as", LlvmOption::Forward),
    // llvm/lib/MC/MCTargetOptionsCommandFlags.cpp, in the same case.
    ("mc-relax-all", LlvmOption::Forward),
    ("incremental-linker-compatible", LlvmOption::Forward),
    ("dwarf-version", LlvmOption::Forward),
    ("emit-dwarf-unwind", LlvmOption::Forward),
    ("emit-compact-unwind-non-canonical", LlvmOption::Forward),
    ("asm-show-inst", LlvmOption::Forward),
    ("fatal-warnings", LlvmOption::Forward),
    ("no-warn", LlvmOption::Forward),
    ("no-deprecated-warn", LlvmOption::Forward),
    ("no-type-check", LlvmOption::Forward),
    ("save-temp-labels", LlvmOption::Forward),
    ("implicit-mapsyms", LlvmOption::Forward),
    ("x86-sse2avx", LlvmOption::Forward),
    ("target-abi", LlvmOption::Forward),
    ("as-secure-log-file-name", LlvmOption::Forward),
    ("as-secure-log-file", LlvmOption::Forward),
    ("fdpic", LlvmOption::Forward),
    ("gsframe", LlvmOption::Forward),
    ("W", LlvmOption::Forward),
    ("reloc-section-sym", LlvmOption::Forward),
    ("large-eh-encoding", LlvmOption::Forward),
    // A plugin for lld's process.
    ("load", LlvmOption::Forward),
];

/// LLVM options that work across the modules of one process, by how they begin.
const ACROSS_MODULES: &[&str] = &["opt-bisect", "codegen-data", "debug-counter"];

/// LLVM options that let names of local values be seen in the object. LTO drops those names
/// (`LTOLLVMContext`); clang keeps them when it reads bitcode, `-discard-value-names` or not. The
/// first hashes names of blocks (MIRFSDiscriminator.cpp), the second puts them into names of
/// functions (CodeExtractor.cpp).
const NAMES_OF_VALUES: &[&str] = &[
    "enable-fs-discriminator",
    "enable-partial-inlining",
    "lto-embed-bitcode",
];

/// Ends of names of LLVM options whose value is a file, to be read or written.
const FILES: &[&str] = &[
    "dir", "file", "filename", "list", "log", "output", "path", "prefix", "replay",
];

/// Beginnings of LLVM options whose effect is output of the process that they are given to.
const TALKATIVE: &[&str] = &[
    "debug-only",
    "debug-pass",
    "time-passes",
    "pass-remarks",
    "info-output-file",
    "track-memory",
    "rng-seed",
    "write-",
];

/// Words in names of such options (`print-after`, `polly-dot`, `stats`).
const TALKATIVE_WORDS: &[&str] = &["dot", "dump", "log", "print", "stats", "view"];

impl Codegen {
    /// Translates a link's options; `Err` is the reason to forward.
    pub fn of(cmd: &CommandLine, major: u32) -> Result<Self, String> {
        if let Some((_, why)) = FORWARDED.iter().find(|(id, _)| cmd.has(*id)) {
            return Err((*why).to_owned());
        }
        for option in cmd.options() {
            if let Effect::Alone(why) = effect(option.id) {
                return Err(why.to_owned());
            }
        }
        if cmd.last(Id::Lto) == Some(OsStr::new("full")) {
            return Err("--lto=full".into());
        }
        let relocation = match cmd.kind() {
            OutputKind::Relocatable => {
                return Err(
                    "-r: clang cannot be told to leave the relocation model to the module".into(),
                );
            }
            OutputKind::Shared | OutputKind::Pie => "pic",
            OutputKind::Executable => "static",
        };
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
        ]
        .map(OsString::from)
        .to_vec();
        args.push(format!("-O{level}").into());
        if major == 14 {
            // createConfig sets RelaxELFRelocations; from 15 on that is everybody's default.
            args.push("--mrelax-relocations".into());
        }
        if major < FIRST_WITH_XRAY_INDEX {
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
        profile(cmd, major, &mut args, &mut inputs)?;
        basic_blocks(cmd, major, &mut args, &mut inputs)?;
        let options = llvm_options(cmd);
        for (n, option) in options.iter().enumerate() {
            let later = options.get(n + 1..).unwrap_or_default();
            llvm_option(option, later, major, &mut args)?;
        }
        Ok(Self {
            args,
            cpu: cpu.map(OsStr::to_owned),
            inputs,
        })
    }

    /// Files that each backend reads besides its modules and its shard: names in its directory, and
    /// where the bytes are.
    #[must_use]
    pub fn inputs(&self) -> &[(PathBuf, PathBuf)] {
        &self.inputs
    }

    /// Whether a module, its bitcode in `file`, can be compiled as in-process.
    ///
    /// cc1 derives features from `-target-cpu` and makes them the target machine's own; lld leaves
    /// those empty. A function with a CPU of its own but no features (rustc's) takes the machine's:
    /// with cc1, those of the link's CPU on top of its own. Those of the baseline change nothing.
    pub fn check_module(&self, file: &Path, triple: &OsStr) -> Result<(), String> {
        let target = triple.to_string_lossy();
        let proven = ARCHITECTURES.iter().any(|arch| target.starts_with(arch))
            && target.contains("-linux")
            && !["android", "ohos"].iter().any(|env| target.contains(env));
        if !proven {
            return Err(format!(
                "target {target}: clang is not known to compile it as lld does"
            ));
        }
        let Some(cpu) = &self.cpu else {
            return Ok(());
        };
        if cpu == "generic" && !target.starts_with("aarch64") {
            return Err("-plugin-opt=mcpu=generic: clang knows no such x86".into());
        }
        if cpu == "x86-64" || cpu == "generic" {
            return Ok(());
        }
        let bitcode = std::fs::read(file).map_err(|e| e.to_string())?;
        if leaves_features_open(&bitcode).map_err(|e| e.to_string())? {
            return Err(format!(
                "-plugin-opt=mcpu={} and functions without target features: clang would give them \
                 those of that CPU",
                cpu.display()
            ));
        }
        Ok(())
    }

    /// The whole argument list of one backend: `clang` and these, in the job's directory.
    #[must_use]
    pub fn backend_args(&self, triple: &OsStr, job: &Job<'_>) -> Vec<OsString> {
        let mut args: Vec<OsString> = vec!["-cc1".into(), "-triple".into(), triple.to_owned()];
        args.extend(self.args.iter().cloned());
        args.extend(["-emit-obj", "-x", "ir"].map(OsString::from));
        args.push(job.module.into());
        let mut index = OsString::from("-fthinlto-index=");
        index.push(job.shard);
        args.extend([index, "-o".into(), job.object.into()]);
        args
    }
}

/// Names of a backend's files, relative to its directory.
#[derive(Debug, Clone, Copy)]
pub struct Job<'a> {
    /// The bitcode.
    pub module: &'a Path,
    /// Its shard.
    pub shard: &'a Path,
    /// The object to write.
    pub object: &'a Path,
}

/// First version whose cc1 writes XRay's index by default, as lld does.
const FIRST_WITH_XRAY_INDEX: u32 = 17;

/// First version whose cc1 takes `-fprofile-instrument-use=KIND` instead of looking into the profile.
const FIRST_TO_BE_TOLD_THE_KIND: u32 = 22;

/// Profiles that guide a backend (`Config::SampleProfile`, `RunCSIRInstr` and `CSIRProfile`).
fn profile(
    cmd: &CommandLine,
    major: u32,
    args: &mut Vec<OsString>,
    inputs: &mut Vec<(PathBuf, PathBuf)>,
) -> Result<(), String> {
    let given = |id| cmd.last(id).filter(|path| !path.is_empty());
    let (sample, contexts) = (given(Id::LtoSampleProfile), given(Id::LtoCsProfileFile));
    let generate = cmd.has(Id::LtoCsProfileGenerate);
    if let Some(file) = sample {
        // Where lld is given both, it takes this one only (`runNewPMPasses`, LTOBackend.cpp).
        if generate || contexts.is_some() {
            return Err("--lto-sample-profile beside a context-sensitive one".into());
        }
        args.push(format!("-fprofile-sample-use={PROFILE}").into());
        inputs.push((PROFILE.into(), absolute(file)?));
    } else if generate {
        args.push("-fprofile-instrument=csllvm".into());
        if let Some(file) = contexts {
            // The name that the program will write to; it is in the object.
            let mut arg = OsString::from("-fprofile-instrument-path=");
            arg.push(file);
            args.push(arg);
        }
    } else if let Some(file) = contexts {
        if !cmd.flag(Id::LtoPgoWarnMismatch, Id::NoLtoPgoWarnMismatch, true) {
            return Err("--no-lto-pgo-warn-mismatch: clang would warn".into());
        }
        // Later on, cc1 is told what kind of profile it is.
        if major >= FIRST_TO_BE_TOLD_THE_KIND {
            args.push("-fprofile-instrument-use=csllvm".into());
        } else if !has_contexts(Path::new(file)) {
            return Err(
                "--lto-cs-profile-file: the profile is not context-sensitive, so clang would not \
                 use it; lld does"
                    .into(),
            );
        }
        args.push(format!("-fprofile-instrument-use-path={PROFILE}").into());
        inputs.push((PROFILE.into(), absolute(file)?));
    }
    Ok(())
}

/// Whether a file is an indexed profile of LLVM's instrumentation with context-sensitive records, as
/// clang asks (`setPGOUseInstrumentor`, clang/lib/Frontend/CompilerInvocation.cpp). Its header is a
/// magic number and a version with flags (llvm/ProfileData/InstrProf.h).
fn has_contexts(file: &Path) -> bool {
    const MAGIC: [u8; 8] = *b"\xfflprofi\x81";
    const IR_AND_CONTEXTS: u64 = 3 << 56;
    let mut header = [0; 16];
    let read = std::fs::File::open(file).and_then(|mut f| f.read_exact(&mut header));
    let Some((magic, version)) = header.split_first_chunk::<8>() else {
        return false;
    };
    let mut word = [0; 8];
    word.copy_from_slice(version);
    read.is_ok() && *magic == MAGIC && u64::from_le_bytes(word) & IR_AND_CONTEXTS == IR_AND_CONTEXTS
}

/// Sections of basic blocks (`Options.BBSections` and its neighbours in createConfig).
fn basic_blocks(
    cmd: &CommandLine,
    major: u32,
    args: &mut Vec<OsString>,
    inputs: &mut Vec<(PathBuf, PathBuf)>,
) -> Result<(), String> {
    match cmd.last(Id::LtoBasicBlockSections).map(OsStr::as_bytes) {
        None | Some(b"" | b"none") => {}
        Some(b"all") => args.push("-fbasic-block-sections=all".into()),
        Some(b"labels") if major < 20 => args.push("-fbasic-block-sections=labels".into()),
        Some(b"labels") => {
            return Err("--lto-basic-block-sections=labels: deprecated".into());
        }
        Some(file) => {
            args.push(format!("-fbasic-block-sections=list={BLOCKS}").into());
            inputs.push((BLOCKS.into(), absolute(OsStr::from_bytes(file))?));
        }
    }
    if cmd.flag(
        Id::LtoUniqueBasicBlockSectionNames,
        Id::NoLtoUniqueBasicBlockSectionNames,
        false,
    ) {
        args.push("-funique-basic-block-section-names".into());
    }
    if cmd.flag(
        Id::LtoBasicBlockAddressMap,
        Id::NoLtoBasicBlockAddressMap,
        false,
    ) {
        args.push("-fbasic-block-address-map".into());
    }
    Ok(())
}

fn absolute(file: &OsStr) -> Result<PathBuf, String> {
    if !Path::new(file).exists() {
        return Err(format!("no such file: {}", file.display()));
    }
    std::path::absolute(file).map_err(|e| format!("{}: {e}", file.display()))
}

/// All LLVM options of a link with one dash, in the order in which lld parses them: those of
/// `-plugin-opt=` before those of `-mllvm` (`readConfigs`, lld/ELF/Driver.cpp).
fn llvm_options(cmd: &CommandLine) -> Vec<Vec<u8>> {
    let plugin = cmd
        .all(Id::PluginOptMinus)
        .map(|value| [b"-", value.as_bytes()].concat());
    let plain = cmd.all(Id::Mllvm).map(|value| value.as_bytes().to_vec());
    plugin.chain(plain).collect()
}

/// Name and value of an LLVM option; it needs a dash.
fn name_and_value(option: &[u8]) -> Result<(String, Option<String>), String> {
    let text = String::from_utf8_lossy(option);
    let bare = text.trim_start_matches('-');
    let (name, value) = bare
        .split_once('=')
        .map_or((bare, None), |(n, v)| (n, Some(v.to_owned())));
    if bare.len() == text.len() || name.is_empty() {
        return Err(format!("LLVM option {text:?} has no dash"));
    }
    Ok((name.to_owned(), value))
}

/// LLVM options whose effect goes beyond the objects of single modules.
fn not_for_any_cache(name: &str, text: &str) -> Result<(), String> {
    if ACROSS_MODULES.iter().any(|t| name.starts_with(t)) {
        return Err(format!("LLVM option {text}: it works across modules"));
    }
    if TALKATIVE.iter().any(|t| name.starts_with(t))
        || name.split('-').any(|word| TALKATIVE_WORDS.contains(&word))
    {
        return Err(format!("LLVM option {text}: its output is lld's own"));
    }
    Ok(())
}

/// Whether lld's own objects under an option can be cached: what `-mllvm` and `-plugin-opt=-` hand to
/// LLVM must neither work across modules, nor print, nor name a file, whose content no key has. `Err` is
/// the reason. Other options pass.
pub fn check_llvm_option(id: Id, value: &[u8]) -> Result<(), String> {
    let option = match id {
        Id::Mllvm => value.to_vec(),
        Id::PluginOptMinus => [b"-", value].concat(),
        _ => return Ok(()),
    };
    let text = String::from_utf8_lossy(&option).into_owned();
    let (name, value) = name_and_value(&option)?;
    not_for_any_cache(&name, &text)?;
    let nothing =
        |(n, option): &(&str, LlvmOption)| *n == name && matches!(option, LlvmOption::Nothing);
    if LLVM_OPTIONS.iter().any(nothing) {
        return Ok(());
    }
    if name == "load" || names_a_file(&name, value.as_deref().unwrap_or_default()) {
        return Err(format!("LLVM option {text}: it names a file"));
    }
    Ok(())
}

fn llvm_option(
    option: &[u8],
    later: &[Vec<u8>],
    major: u32,
    args: &mut Vec<OsString>,
) -> Result<(), String> {
    let (name, value) = name_and_value(option)?;
    let text = String::from_utf8_lossy(option);
    not_for_any_cache(&name, &text)?;
    if NAMES_OF_VALUES.contains(&name.as_str()) {
        return Err(format!(
            "LLVM option {text}: it shows names of local values, which clang keeps"
        ));
    }
    let forward = || Err(format!("LLVM option {text}: clang has no equal for it"));
    // A switch of TargetLibraryInfo until a field of TargetOptions took its place.
    if name == "vector-library" && major >= 22 {
        let Some(library) = value else {
            return forward();
        };
        let library = match library.as_str() {
            "LIBMVEC" => "libmvec",
            "sleefgnuabi" => "SLEEF",
            other => other,
        };
        args.push(format!("-fveclib={library}").into());
        return Ok(());
    }
    let Some((_, how)) = LLVM_OPTIONS.iter().find(|(n, _)| *n == name) else {
        if names_a_file(&name, value.as_deref().unwrap_or_default()) {
            return Err(format!(
                "LLVM option {text}: a file that backends do not have"
            ));
        }
        args.extend([
            OsString::from("-mllvm"),
            OsStr::from_bytes(option).to_owned(),
        ]);
        return Ok(());
    };
    // The last one holds, as for LLVM; lld before 15 refuses a second.
    if later
        .iter()
        .any(|other| name_and_value(other).is_ok_and(|(n, _)| n == name))
    {
        return Ok(());
    }
    let on = match value.as_deref() {
        None | Some("" | "1" | "true" | "TRUE" | "True") => Some(true),
        Some("0" | "false" | "FALSE" | "False") => Some(false),
        Some(_) => None,
    };
    match (how, on, value) {
        (LlvmOption::Nothing, ..) => {}
        (LlvmOption::As(flag), Some(on), _) => args.extend(on.then(|| OsString::from(flag))),
        (LlvmOption::Unless(flag), Some(on), _) => args.extend((!on).then(|| OsString::from(flag))),
        (LlvmOption::AsValue(flag), _, Some(v)) => args.push(format!("{flag}{v}").into()),
        _ => return forward(),
    }
    Ok(())
}

/// Whether the value of an LLVM option that we do not know could be a file.
fn names_a_file(name: &str, value: &str) -> bool {
    if value.is_empty() || value.parse::<f64>().is_ok() {
        return false;
    }
    value.contains(['/', '.'])
        || FILES.iter().any(|end| name.ends_with(end))
        || Path::new(value).exists()
}

/// Whether a module has functions with a CPU of their own but no target features: a group of function
/// attributes with the one and without the other (PARAMATTR_GROUP_BLOCK of
/// llvm/Bitcode/LLVMBitCodes.h: group, what it is for, then each attribute; strings end in zero).
fn leaves_features_open(bitcode: &[u8]) -> Result<bool, Malformed> {
    const PARAMATTR_GROUP_BLOCK: u64 = 10;
    const GROUP_ENTRY: u64 = 3;
    const FUNCTION: u64 = 0xffff_ffff;
    let mut reader = Reader::new(bitcode::unwrap(bitcode)?)?;
    let mut open = false;
    // In MODULE_BLOCK, and in its PARAMATTR_GROUP_BLOCK.
    let mut depth = 0;
    loop {
        match reader.next()? {
            Entry::Block(b)
                if (depth == 0 && b.id == block::MODULE)
                    || (depth == 1 && b.id == PARAMATTR_GROUP_BLOCK) =>
            {
                reader.enter()?;
                depth += 1;
            }
            Entry::Record(GROUP_ENTRY) if depth == 2 => {
                if let [_, FUNCTION, attributes @ ..] = reader.ops() {
                    open |= has_key(attributes, b"target-cpu")
                        && !has_key(attributes, b"target-features");
                }
            }
            Entry::End(_) => depth -= 1,
            Entry::Eof => return Ok(open),
            _ => {}
        }
    }
}

/// Whether a string attribute with a value is among the operands of a group.
fn has_key(attributes: &[u64], key: &[u8]) -> bool {
    const KEY_AND_VALUE: u64 = 4;
    attributes.windows(key.len() + 2).any(|w| {
        w.split_first().is_some_and(|(&kind, text)| {
            kind == KEY_AND_VALUE
                && text
                    .iter()
                    .copied()
                    .eq(key.iter().map(|&c| u64::from(c)).chain([0]))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(args: &[&str]) -> Result<String, String> {
        let args: Vec<OsString> = args.iter().map(OsString::from).collect();
        let cmd = CommandLine::parse(&args).unwrap();
        Codegen::of(&cmd, 19).map(|c| {
            c.args
                .iter()
                .map(|a| a.to_string_lossy().into_owned())
                .collect::<Vec<_>>()
                .join(" ")
        })
    }

    #[test]
    fn what_clang_drivers_pass_is_translated() {
        let a = of(&[
            "-pie",
            "-plugin-opt=mcpu=x86-64-v3",
            "-plugin-opt=O3",
            "-plugin-opt=-debugger-tune=gdb",
            "-plugin-opt=-function-sections=1",
            "-mllvm",
            "-import-instr-limit=5",
        ])
        .unwrap();
        for part in [
            "-mrelocation-model pic",
            "-O3",
            "-target-cpu x86-64-v3",
            "-debugger-tuning=gdb",
            "-mllvm -import-instr-limit=5",
        ] {
            assert!(a.contains(part), "{part} is not in {a}");
        }
        assert!(!a.contains("function-sections=1"), "{a}");
        assert!(of(&[]).unwrap().contains("-mrelocation-model static"));
    }

    #[test]
    fn what_cannot_be_said_is_forwarded_with_its_reason() {
        for (args, reason) in [
            (&["--lto-O0"][..], "level 0"),
            (&["-plugin-opt=O1"], "level 1"),
            (&["--lto-O2", "--lto-CGO3"], "--lto-CGO"),
            (&["-r"], "-r:"),
            (&["-mllvm", "-tailcallopt"], "tailcallopt"),
            (&["-mllvm", "-stats"], "output"),
            (&["-mllvm", "-print-after=x"], "output"),
            (&["-mllvm", "-polly-dot"], "output"),
            (&["-mllvm", "-opt-bisect-limit=1"], "across modules"),
            (&["-mllvm", "-sample-profile-file=x"], "a file"),
            (&["-mllvm", "-any=some/where"], "a file"),
            (&["-mllvm", "-enable-fs-discriminator"], "names of local"),
            (&["-mllvm", "-debugger-tune"], "no equal"),
            (&["-mllvm", "x"], "no dash"),
            (&["--lto-debug-pass-manager"], "debug-pass-manager"),
            (&["--load-pass-plugin=x.so"], "load-pass-plugin"),
            (&["-plugin-opt=dwo_dir=x"], "dwo_dir"),
            (&["--thinlto-index-only"], "index-only"),
            (&["--save-temps"], "save-temps"),
        ] {
            let e = of(args).unwrap_err();
            assert!(e.contains(reason), "{args:?}: {e}");
        }
    }

    #[test]
    fn llvm_options_come_in_the_order_of_lld() {
        let a = of(&["-mllvm", "-x=1", "-plugin-opt=-x=2", "--mllvm=-x=3"]).unwrap();
        assert!(a.ends_with("-mllvm -x=2 -mllvm -x=1 -mllvm -x=3"), "{a}");
        let a = of(&["-mllvm", "-crel=0", "-plugin-opt=-crel"]).unwrap();
        assert!(!a.contains("crel"), "{a}");
        let a = of(&["-mllvm", "-crel", "-plugin-opt=-crel=0"]).unwrap();
        assert!(a.contains("--crel"), "{a}");
        let a = of(&["-mllvm", "-x=0.5", "-mllvm", "--y=all"]).unwrap();
        assert!(a.ends_with("-mllvm -x=0.5 -mllvm --y=all"), "{a}");
    }

    #[test]
    fn files_get_names_of_the_job() {
        let args = [
            "--lto-sample-profile=Cargo.toml",
            "--lto-basic-block-sections=/dev/null",
        ]
        .map(OsString::from);
        let codegen = Codegen::of(&CommandLine::parse(&args).unwrap(), 19).unwrap();
        let args: Vec<_> = codegen.args.iter().map(|a| a.to_string_lossy()).collect();
        for arg in [
            "-fprofile-sample-use=profile",
            "-fbasic-block-sections=list=blocks",
        ] {
            assert!(args.iter().any(|a| a == arg), "{arg}: {args:?}");
        }
        let [(profile, p), (blocks, b)] = codegen.inputs() else {
            panic!("{:?}", codegen.inputs());
        };
        assert_eq!(
            (profile.as_path(), p.is_absolute()),
            (Path::new(PROFILE), true)
        );
        assert_eq!(
            (blocks.as_path(), b.as_path()),
            (Path::new(BLOCKS), Path::new("/dev/null"))
        );
    }

    #[test]
    fn what_is_no_profile_or_bitcode_is_told() {
        assert!(!has_contexts(Path::new("/dev/null")));
        assert!(!has_contexts(Path::new("/nowhere")));
        assert!(leaves_features_open(b"").is_err());
        assert!(leaves_features_open(b"BC\xc0\xde").is_ok_and(|open| !open));
        let group = |text: &[u8]| -> Vec<u64> { text.iter().map(|&c| c.into()).collect() };
        assert!(has_key(
            &group(b"\x00\x01\x04target-cpu\x00x\x00"),
            b"target-cpu"
        ));
        assert!(!has_key(&group(b"\x04target-cpus\x00x\x00"), b"target-cpu"));
    }

    #[test]
    fn only_proven_targets() {
        let codegen = Codegen::of(&CommandLine::parse(&[]).unwrap(), 19).unwrap();
        let check = |triple: &str| codegen.check_module(Path::new(""), OsStr::new(triple));
        for triple in [
            "x86_64-pc-linux-gnu",
            "aarch64-unknown-linux-musl",
            "i686-linux",
        ] {
            assert_eq!(check(triple), Ok(()), "{triple}");
        }
        for triple in [
            "armv7-linux-gnueabihf",
            "x86_64-linux-android24",
            "x86_64-apple-macos",
            "",
        ] {
            assert!(check(triple).is_err(), "{triple}");
        }
    }
}
