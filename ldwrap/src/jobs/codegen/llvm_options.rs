//! LLVM options of a link (`-mllvm X`, `-plugin-opt=-X`), translated to clang's flags.
//!
//! Most go on as they came: lld and cc1 register the same options of LLVM's libraries. Some are lld's
//! alone. lld registers llvm/lib/CodeGen/CommandFlags.cpp, so that `initTargetOptionsFromCodeGenFlags`
//! sees them; clang does not, or (LLVM 14, and MC's on every version) takes them without effect, since
//! `initTargetOptions` of BackendUtil.cpp sets the same fields from cc1's flags.

use crate::jobs::quirks;
use shim::cmdline::CommandLine;
use shim::options::Id;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// How clang is told an LLVM option that only lld has.
enum Translation {
    /// Not at all: it changes nothing in a backend.
    Ignored,
    /// By a flag of cc1's, if it is on.
    IfOn(&'static str),
    /// By a flag of cc1's, if it is off.
    IfOff(&'static str),
    /// By a flag of cc1's that ends with the option's value.
    WithValue(&'static str),
}
use Translation::{IfOff, IfOn, Ignored, WithValue};

/// What cc1 calls options that only lld has. Names without their dashes; options that are neither
/// here nor in [`UNTRANSLATABLE`] go on as `-mllvm X`.
#[rustfmt::skip]
const TRANSLATED: &[(&str, Translation)] = &[
    // createConfig sets these, whatever was said.
    ("function-sections", Ignored),
    ("data-sections", Ignored),
    ("addrsig", Ignored),
    ("unique-basic-block-section-names", Ignored),
    ("basic-block-address-map", Ignored),
    // For bug reports only.
    ("crash-diagnostics-dir", Ignored),
    ("debugger-tune", WithValue("-debugger-tuning=")),
    ("stack-size-section", IfOn("-fstack-size-section")),
    ("emulated-tls", IfOn("-femulated-tls")),
    ("enable-tlsdesc", IfOn("-enable-tlsdesc")),
    ("strict-dwarf", IfOn("-gstrict-dwarf")),
    ("dwarf64", IfOn("-gdwarf64")),
    ("force-dwarf-frame-section", IfOn("-fforce-dwarf-frame")),
    ("split-machine-functions", IfOn("-fsplit-machine-functions")),
    ("partition-static-data-sections", IfOn("-fpartition-static-data-sections")),
    ("call-graph-section", IfOn("-fexperimental-call-graph-section")),
    ("separate-named-sections", IfOn("-fseparate-named-sections")),
    ("enable-jmc-instrument", IfOn("-fjmc")),
    ("use-ctors", IfOn("-fno-use-init-array")),
    ("crel", IfOn("--crel")),
    ("x86-relax-relocations", IfOff("-mrelax-relocations=no")),
    ("unique-section-names", IfOff("-fno-unique-section-names")),
    ("xray-function-index", IfOff("-fno-xray-function-index")),
    ("align-loops", WithValue("-falign-loops=")),
    ("code-model", WithValue("-mcmodel=")),
];

/// Options that only lld has and cc1 cannot be told.
#[rustfmt::skip]
const UNTRANSLATABLE: &[&str] = &[
    "march", "mcpu", "mattr", "relocation-model", "thread-model", "large-data-threshold",
    "exception-model", "filetype", "frame-pointer", "enable-unsafe-fp-math",
    "enable-no-infs-fp-math", "enable-no-nans-fp-math", "enable-no-signed-zeros-fp-math",
    "enable-approx-func-fp-math", "enable-no-trapping-fp-math", "denormal-fp-math",
    "denormal-fp-math-f32", "enable-sign-dependent-rounding-fp-math", "float-abi", "fp-contract",
    "swift-async-fp", "nozero-initialized-in-bss", "vec-extabi", "tailcallopt",
    "disable-tail-calls", "stack-symbol-ordering", "stackrealign", "trap-func",
    "ignore-xcoff-visibility", "xcoff-traceback-table", "basic-block-sections", "tls-size", "meabi",
    "emit-call-site-info", "debug-entry-values", "no-xray-index",
    "lower-global-dtors-via-cxa-atexit", "relax-elf-relocations", "mxcoff-roptr",
    "no-integrated-as",
    // llvm/lib/MC/MCTargetOptionsCommandFlags.cpp, in the same case.
    "mc-relax-all", "incremental-linker-compatible", "dwarf-version", "emit-dwarf-unwind",
    "emit-compact-unwind-non-canonical", "asm-show-inst", "fatal-warnings", "no-warn",
    "no-deprecated-warn", "no-type-check", "save-temp-labels", "implicit-mapsyms", "x86-sse2avx",
    "target-abi", "as-secure-log-file-name", "as-secure-log-file", "fdpic", "gsframe", "W",
    "reloc-section-sym", "large-eh-encoding",
    // A plugin for lld's process.
    "load",
];

/// LLVM options that work across the modules of one process, by the beginning of their names; or by which a backend
/// goes by what the index says of other modules and lld's own keys lack (attributes of functions; which of them other
/// modules clone: `computeLTOCacheKey`, llvm/lib/LTO/LTO.cpp).
const ACROSS_MODULES: &[&str] = &[
    "opt-bisect",
    "codegen-data",
    "debug-counter",
    "disable-thinlto-funcattrs",
    "enable-memprof-context-disambiguation",
    "supports-hot-cold-new",
];

/// LLVM options by which names of local values show in the object. LTO drops those names
/// (`LTOLLVMContext`); clang keeps them when it reads bitcode, `-discard-value-names` or not. The
/// first hashes names of blocks (MIRFSDiscriminator.cpp), the second puts them into names of
/// functions (CodeExtractor.cpp).
const SHOWING_VALUE_NAMES: &[&str] = &[
    "enable-fs-discriminator",
    "enable-partial-inlining",
    "lto-embed-bitcode",
];

/// How names of LLVM options end whose value is a file to be read or written.
const FILE_NAME_ENDINGS: &[&str] = &[
    "dir", "file", "filename", "list", "log", "output", "path", "prefix", "replay",
];

/// LLVM options that make the process print or write something, by the beginning of their names.
const PRINTING: &[&str] = &[
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
const PRINTING_WORDS: &[&str] = &["dot", "dump", "log", "print", "stats", "view"];

/// All LLVM options of a link, each with its dash, in the order in which lld parses them: those of
/// `-plugin-opt=` before those of `-mllvm` (`readConfigs`, lld/ELF/Driver.cpp).
pub(super) fn all(cmd: &CommandLine) -> Vec<Vec<u8>> {
    let plugin = cmd
        .all(Id::PluginOptMinus)
        .map(|value| [b"-", value.as_bytes()].concat());
    let plain = cmd.all(Id::Mllvm).map(|value| value.as_bytes().to_vec());
    plugin.chain(plain).collect()
}

/// Name, without dashes, and value of an LLVM option. An option without a dash is an error.
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

/// Refuses options whose effect goes beyond the objects of single modules. `Err` is the reason.
fn check_effect_is_local(name: &str, text: &str) -> Result<(), String> {
    if ACROSS_MODULES.iter().any(|t| name.starts_with(t)) {
        return Err(format!("LLVM option {text}: it works across modules"));
    }
    if PRINTING.iter().any(|t| name.starts_with(t))
        || name.split('-').any(|word| PRINTING_WORDS.contains(&word))
    {
        return Err(format!("LLVM option {text}: its output is lld's own"));
    }
    Ok(())
}

/// Checks that objects that lld itself makes under an option can be cached: what `-mllvm` and
/// `-plugin-opt=-` hand to LLVM must neither work across modules, nor print, nor name a file, whose
/// content is in no key. `Err` is the reason. Other options pass.
pub fn check_cacheable(id: Id, value: &[u8]) -> Result<(), String> {
    let option = match id {
        Id::Mllvm => value.to_vec(),
        Id::PluginOptMinus => [b"-", value].concat(),
        _ => return Ok(()),
    };
    let text = String::from_utf8_lossy(&option).into_owned();
    let (name, value) = name_and_value(&option)?;
    check_effect_is_local(&name, &text)?;
    if matches!(translation(&name), Some(Ignored)) {
        return Ok(());
    }
    if name == "load" || names_a_file(&name, value.as_deref().unwrap_or_default()) {
        return Err(format!("LLVM option {text}: it names a file"));
    }
    Ok(())
}

fn translation(name: &str) -> Option<&'static Translation> {
    let entry = TRANSLATED.iter().find(|(n, _)| *n == name);
    entry.map(|(_, how)| how)
}

/// Adds to `args` what tells clang of LLVM `major` an option, unless the same option is among
/// `later`, those behind it. `Err` is the reason to forward.
pub(super) fn translate(
    option: &[u8],
    later: &[Vec<u8>],
    major: u32,
    args: &mut Vec<OsString>,
) -> Result<(), String> {
    let (name, value) = name_and_value(option)?;
    let text = String::from_utf8_lossy(option);
    check_effect_is_local(&name, &text)?;
    if SHOWING_VALUE_NAMES.contains(&name.as_str()) {
        return Err(format!(
            "LLVM option {text}: it shows names of local values, which clang keeps"
        ));
    }
    let forward = || Err(format!("LLVM option {text}: clang has no equal for it"));
    // A switch of TargetLibraryInfo until a field of TargetOptions took its place.
    if name == "vector-library" && major >= quirks::VECTOR_LIBRARY {
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
    let translated = translation(&name);
    if translated.is_none() && !UNTRANSLATABLE.contains(&name.as_str()) {
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
    }
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
    match (translated, on, value) {
        (Some(Ignored), ..) => {}
        (Some(IfOn(flag)), Some(on), _) => args.extend(on.then(|| OsString::from(flag))),
        (Some(IfOff(flag)), Some(on), _) => args.extend((!on).then(|| OsString::from(flag))),
        (Some(WithValue(flag)), _, Some(v)) => args.push(format!("{flag}{v}").into()),
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
        || FILE_NAME_ENDINGS.iter().any(|end| name.ends_with(end))
        || Path::new(value).exists()
}
