//! lld's options, said to clang.
//!
//! In-process, lld configures LLVM in `createConfig` (lld/ELF/LTO.cpp); a backend is clang's
//! `runThinLTOBackend` (clang/lib/CodeGen/BackendUtil.cpp). This is the one table between the two.
//! An option that clang cannot be told exactly makes the link go to lld whole: no code is better
//! than other code (facts 17 and 18).
//!
//! Backends are `clang -cc1`, not the driver: the driver adds flags of its own (default
//! configuration files, hardening defaults of a distribution), cc1 does what it is told. Its flags
//! are not promised to be stable, which is why each toolchain passes a self-test before it is used.

use shim::cmdline::{CommandLine, OutputKind};
use shim::options::Id;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Code generation of one link, as clang is told it; the same for all its modules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Codegen {
    args: Vec<OsString>,
}

/// Options by which a link is not ours to split, with the reason that the report gives.
const FORWARDED: &[(Id, &str)] = &[
    // The user distributes already, or wants what an in-process link leaves behind.
    (
        Id::ThinltoIndexOnly,
        "--thinlto-index-only: the user distributes this link",
    ),
    (
        Id::ThinltoIndexOnlyEq,
        "--thinlto-index-only=: the user distributes this link",
    ),
    (
        Id::ThinltoEmitIndexFiles,
        "--thinlto-emit-index-files: the user distributes this link",
    ),
    (
        Id::ThinltoEmitImportsFiles,
        "--thinlto-emit-imports-files: the user distributes this link",
    ),
    (
        Id::ThinltoPrefixReplace,
        "--thinlto-prefix-replace: the user distributes this link",
    ),
    (
        Id::ThinltoObjectSuffixReplace,
        "--thinlto-object-suffix-replace: the user distributes this link",
    ),
    (
        Id::ThinltoSingleModule,
        "--thinlto-single-module: one module is wanted, not a link",
    ),
    (
        Id::ThinltoDistributor,
        "--thinlto-distributor: lld distributes this link itself",
    ),
    (Id::LtoEmitAsm, "--lto-emit-asm: no objects are wanted"),
    (Id::LtoEmitLlvm, "--lto-emit-llvm: no objects are wanted"),
    (
        Id::LtoObjPath,
        "--lto-obj-path: lld's own LTO objects are wanted",
    ),
    (
        Id::SaveTemps,
        "--save-temps: lld's intermediate files are wanted",
    ),
    (
        Id::SaveTempsEq,
        "--save-temps=: lld's intermediate files are wanted",
    ),
    (Id::Reproduce, "--reproduce: lld packs what it reads"),
    // Paths mean something else in there.
    (Id::Chroot, "--chroot"),
    // What lld's configuration takes and clang cannot be told.
    (
        Id::LtoNewpmPasses,
        "--lto-newpm-passes: clang cannot be told the pipeline of a backend",
    ),
    (
        Id::LtoAaPipeline,
        "--lto-aa-pipeline: clang cannot be told the alias analyses of a backend",
    ),
    (
        Id::LtoDebugPassManager,
        "--lto-debug-pass-manager: lld's own output is wanted",
    ),
    (Id::LtoLegacyPassManager, "--lto-legacy-pass-manager"),
    (
        Id::LoadPassPlugin,
        "--load-pass-plugin: the plugin is loaded into lld",
    ),
    (
        Id::OptRemarksFilename,
        "--opt-remarks-filename: remarks are written by lld",
    ),
    (
        Id::OptRemarksPasses,
        "--opt-remarks-passes: remarks are written by lld",
    ),
    (
        Id::OptRemarksFormat,
        "--opt-remarks-format: remarks are written by lld",
    ),
    (
        Id::OptRemarksWithHotness,
        "--opt-remarks-with-hotness: remarks are written by lld",
    ),
    (
        Id::OptRemarksHotnessThreshold,
        "--opt-remarks-hotness-threshold: remarks are written by lld",
    ),
    (
        Id::PluginOptStatsFile,
        "-plugin-opt=stats-file=: statistics are written by lld",
    ),
    (
        Id::PluginOptDwoDir,
        "-plugin-opt=dwo_dir=: split DWARF is written by lld",
    ),
    (Id::PluginOptOpaquePointers, "-plugin-opt=opaque-pointers"),
    (
        Id::PluginOptNoOpaquePointers,
        "-plugin-opt=no-opaque-pointers",
    ),
    (Id::LtoSampleProfile, "--lto-sample-profile"),
    (Id::LtoCsProfileGenerate, "--lto-cs-profile-generate"),
    (Id::LtoCsProfileFile, "--lto-cs-profile-file"),
    (Id::IrpgoProfile, "--irpgo-profile"),
    (Id::LtoBasicBlockSections, "--lto-basic-block-sections"),
    (Id::LtoBasicBlockAddressMap, "--lto-basic-block-address-map"),
    (
        Id::LtoUniqueBasicBlockSectionNames,
        "--lto-unique-basic-block-section-names",
    ),
];

/// How an LLVM option (`-mllvm X`, `-plugin-opt=-X`) reaches a backend.
enum LlvmOption {
    /// It changes nothing there.
    Nothing,
    /// By a flag of cc1's own.
    As(&'static str),
    /// By a flag of cc1's own that ends with the option's value.
    AsValue(&'static str),
    /// Not at all.
    Forward,
}

/// LLVM options that clang does not register (llvm/lib/CodeGen/CommandFlags.cpp: lld does, so that
/// `initTargetOptionsFromCodeGenFlags` sees them) and what cc1 calls them instead. Names without
/// their dashes; options that are not here go on as `-mllvm X`.
const LLVM_OPTIONS: &[(&str, LlvmOption)] = &[
    // createConfig sets both to true, whatever was said.
    ("function-sections", LlvmOption::Nothing),
    ("data-sections", LlvmOption::Nothing),
    // For bug reports only.
    ("crash-diagnostics-dir", LlvmOption::Nothing),
    ("debugger-tune", LlvmOption::AsValue("-debugger-tuning=")),
    ("stack-size-section", LlvmOption::As("-fstack-size-section")),
    ("emulated-tls", LlvmOption::As("-femulated-tls")),
    ("strict-dwarf", LlvmOption::As("-gstrict-dwarf")),
    (
        "split-machine-functions",
        LlvmOption::As("-fsplit-machine-functions"),
    ),
    ("march", LlvmOption::Forward),
    ("mcpu", LlvmOption::Forward),
    ("mattr", LlvmOption::Forward),
    ("relocation-model", LlvmOption::Forward),
    ("thread-model", LlvmOption::Forward),
    ("code-model", LlvmOption::Forward),
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
    ("basic-block-address-map", LlvmOption::Forward),
    ("basic-block-sections", LlvmOption::Forward),
    ("tls-size", LlvmOption::Forward),
    ("enable-tlsdesc", LlvmOption::Forward),
    ("unique-section-names", LlvmOption::Forward),
    ("unique-basic-block-section-names", LlvmOption::Forward),
    ("separate-named-sections", LlvmOption::Forward),
    ("meabi", LlvmOption::Forward),
    ("addrsig", LlvmOption::Forward),
    ("emit-call-site-info", LlvmOption::Forward),
    ("debug-entry-values", LlvmOption::Forward),
    ("force-dwarf-frame-section", LlvmOption::Forward),
    ("enable-jmc-instrument", LlvmOption::Forward),
    ("mxcoff-roptr", LlvmOption::Forward),
    ("no-integrated-as", LlvmOption::Forward),
    // llvm/lib/MC/MCTargetOptionsCommandFlags.cpp, in the same case.
    ("mc-relax-all", LlvmOption::Forward),
    ("incremental-linker-compatible", LlvmOption::Forward),
    ("dwarf-version", LlvmOption::Forward),
    ("dwarf64", LlvmOption::Forward),
    ("emit-dwarf-unwind", LlvmOption::Forward),
    ("emit-compact-unwind-non-canonical", LlvmOption::Forward),
    ("asm-show-inst", LlvmOption::Forward),
    ("fatal-warnings", LlvmOption::Forward),
    ("no-warn", LlvmOption::Forward),
    ("no-deprecated-warn", LlvmOption::Forward),
    ("no-type-check", LlvmOption::Forward),
    ("save-temp-labels", LlvmOption::Forward),
    ("crel", LlvmOption::Forward),
    ("implicit-mapsyms", LlvmOption::Forward),
    ("x86-relax-relocations", LlvmOption::Forward),
    ("x86-sse2avx", LlvmOption::Forward),
    ("target-abi", LlvmOption::Forward),
    ("as-secure-log-file-name", LlvmOption::Forward),
    // Counts across the modules of one process.
    ("opt-bisect-limit", LlvmOption::Forward),
];

/// Beginnings of LLVM options whose effect is output of the process that they are given to.
const TALKATIVE: &[&str] = &[
    "print",
    "debug-only",
    "debug-pass",
    "debug-counter",
    "stats",
    "time-passes",
    "pass-remarks",
    "dump",
    "view",
    "info-output-file",
    "track-memory",
    "rng-seed",
    "opt-bisect",
    "dot-",
    "write-",
];

impl Codegen {
    /// Translates a link's options; `Err` is the reason to forward.
    pub fn of(cmd: &CommandLine, major: u32) -> Result<Self, String> {
        if let Some((_, why)) = FORWARDED.iter().find(|(id, _)| cmd.has(*id)) {
            return Err((*why).to_owned());
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
        match cmd.last(Id::PluginOptMcpu) {
            Some(cpu) if cpu == "native" => {
                return Err("-plugin-opt=mcpu=native: a backend may run on another machine".into());
            }
            Some(cpu) => args.extend([OsString::from("-target-cpu"), cpu.to_owned()]),
            None => {}
        }
        for option in llvm_options(cmd) {
            llvm_option(&option, &mut args)?;
        }
        Ok(Self { args })
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

/// All LLVM options of a link, in order, with one dash.
fn llvm_options(cmd: &CommandLine) -> Vec<Vec<u8>> {
    cmd.options()
        .filter_map(|o| match o.id {
            Id::Mllvm => Some(o.value.as_bytes().to_vec()),
            Id::PluginOptMinus => Some([b"-", o.value.as_bytes()].concat()),
            _ => None,
        })
        .collect()
}

fn llvm_option(option: &[u8], args: &mut Vec<OsString>) -> Result<(), String> {
    let text = String::from_utf8_lossy(option).into_owned();
    let bare = text.trim_start_matches('-');
    let (name, value) = bare
        .split_once('=')
        .map_or((bare, None), |(n, v)| (n, Some(v)));
    if bare.len() == text.len() || name.is_empty() {
        return Err(format!("LLVM option {text:?} has no dash"));
    }
    if TALKATIVE.iter().any(|t| name.starts_with(t)) {
        return Err(format!("LLVM option {text}: its output is lld's own"));
    }
    let Some((_, how)) = LLVM_OPTIONS.iter().find(|(n, _)| *n == name) else {
        args.extend([
            OsString::from("-mllvm"),
            OsStr::from_bytes(option).to_owned(),
        ]);
        return Ok(());
    };
    let forward = || Err(format!("LLVM option {text}: clang has no equal for it"));
    match how {
        LlvmOption::Nothing => Ok(()),
        LlvmOption::As(flag) => match value {
            None | Some("1" | "true" | "TRUE" | "True") => {
                args.push((*flag).into());
                Ok(())
            }
            Some(_) => forward(),
        },
        LlvmOption::AsValue(flag) => match value {
            Some(v) => {
                args.push(format!("{flag}{v}").into());
                Ok(())
            }
            None => forward(),
        },
        LlvmOption::Forward => forward(),
    }
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
            (&["-plugin-opt=dwo_dir=x"], "dwo_dir"),
            (&["--thinlto-index-only"], "index-only"),
            (&["--save-temps"], "save-temps"),
        ] {
            let e = of(args).unwrap_err();
            assert!(e.contains(reason), "{args:?}: {e}");
        }
    }
}
