//! lld's (ELF) options as one table.
//!
//! The parser, the tests and every question asked of a command line share this table, so they
//! cannot disagree. It holds each spelling that any tested lld from 14 to 22 accepts, hidden and
//! ignored ones too, since an option that is not understood makes the link go to the real lld.
//!
//! clap is of no use here: lld's rules are those of LLVM's `OptTable` (the longest name that
//! matches wins, a value may follow its option without any separator, one or two dashes mean
//! different things), and a difference would change what is linked.
//!
//! [`Spelling::since`] and [`Spelling::until`] name only releases that `tests/option_table.rs` runs
//! ([`TESTED`]), and that test fails when one of them is wrong. What a release between two tested
//! ones knows is taken to be what either neighbour knows ([`dialects`]).

/// The lld majors that the table is checked against, oldest first.
pub const TESTED: [u32; 4] = [14, 16, 19, 22];

/// Majors, in order of preference, whose option sets stand for `major`'s.
///
/// A tested release stands for itself. Between two of them the newer is asked first, then the
/// older. The newest stands for all later ones, the oldest for all earlier ones. Without a version (`None`) all are asked, newest first: the reading for a caller that
/// does not know yet which lld will run, since the real lld still rejects what it doesn't know.
#[must_use]
pub fn dialects(major: Option<u32>) -> Vec<u32> {
    let Some(major) = major else {
        return TESTED.iter().rev().copied().collect();
    };
    let above = TESTED.iter().find(|&&tested| tested >= major);
    let below = TESTED.iter().rev().find(|&&tested| tested <= major);
    let mut majors: Vec<u32> = above.into_iter().chain(below).copied().collect();
    majors.dedup();
    majors
}

/// How many dashes may stand before a name. Options that begin with `o` and lld's own newer ones
/// take two only, so that they do not clash with `-o FILE` and other one-letter options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dashes {
    /// `-name` and `--name`.
    Both,
    /// `-name`.
    OneOnly,
    /// `--name`.
    TwoOnly,
}

/// Where an option's value is (LLVM's `Option::Kind`, the four that lld uses).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueKind {
    /// No value; the argument is exactly the name.
    Flag,
    /// The rest of the same argument, possibly nothing. The name ends in `=` where one is needed.
    Joined,
    /// The next argument, whatever it looks like; the argument itself is exactly the name.
    Separate,
    /// The rest of the same argument, or the next argument when nothing is left.
    JoinedOrSeparate,
}

/// One spelling of an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spelling {
    /// The name after the dashes, with its `=` if it needs one.
    pub name: &'static str,
    /// Which dashes may precede it.
    pub dashes: Dashes,
    /// Where its value is.
    pub value_kind: ValueKind,
    /// The option that it means.
    pub id: Id,
    /// The value that a flag stands for (`--build-id` is `--build-id=sha1`).
    pub value: Option<&'static str>,
    /// First tested major that has it.
    pub since: u32,
    /// Last tested major that has it.
    pub until: u32,
    /// Whether its value is the path of a file that lld writes.
    pub names_output: bool,
}

impl Spelling {
    /// Whether the tested release `major` has this spelling.
    #[must_use]
    pub fn known_to(&self, major: u32) -> bool {
        self.since <= major && major <= self.until
    }

    /// Whether `dashes` (1 or 2) may precede the name.
    #[must_use]
    pub fn allows(&self, dashes: usize) -> bool {
        match self.dashes {
            Dashes::Both => dashes == 1 || dashes == 2,
            Dashes::OneOnly => dashes == 1,
            Dashes::TwoOnly => dashes == 2,
        }
    }

    const fn value(mut self, value: &'static str) -> Self {
        self.value = Some(value);
        self
    }

    const fn since(mut self, major: u32) -> Self {
        self.since = major;
        self
    }

    const fn until(mut self, major: u32) -> Self {
        self.until = major;
        self
    }

    const fn output(mut self) -> Self {
        self.names_output = true;
        self
    }
}

const fn spelling(name: &'static str, dashes: Dashes, value_kind: ValueKind, id: Id) -> Spelling {
    let [since, .., until] = TESTED;
    Spelling {
        name,
        dashes,
        value_kind,
        id,
        value: None,
        since,
        until,
        names_output: false,
    }
}

const fn flag(name: &'static str, dashes: Dashes, id: Id) -> Spelling {
    spelling(name, dashes, ValueKind::Flag, id)
}

const fn joined(name: &'static str, dashes: Dashes, id: Id) -> Spelling {
    spelling(name, dashes, ValueKind::Joined, id)
}

const fn separate(name: &'static str, dashes: Dashes, id: Id) -> Spelling {
    spelling(name, dashes, ValueKind::Separate, id)
}

const fn joined_or_separate(name: &'static str, dashes: Dashes, id: Id) -> Spelling {
    spelling(name, dashes, ValueKind::JoinedOrSeparate, id)
}

/// What one argument is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Match {
    /// Not an option: no leading dash, or `-` alone.
    Input,
    /// Begins with a dash and no spelling accepts it: an error in lld.
    Unknown,
    /// An option.
    Option {
        /// The spelling that accepts it.
        spelling: &'static Spelling,
        /// Length of dashes and name; what follows in the argument is the value.
        len: usize,
    },
}

/// Reads one argument as the tested release `major` does (`OptTable::ParseOneArg`): of the spellings
/// that the argument begins with, the longest that accepts it. Flags and separate options accept only an
/// argument that is exactly their name, so `-librarian` is `-l ibrarian`.
#[must_use]
pub fn lookup(argument: &[u8], major: u32) -> Match {
    let (dashes, rest) = match argument {
        [] | [b'-'] => return Match::Input,
        [b'-', b'-', rest @ ..] => (2, rest),
        [b'-', rest @ ..] => (1, rest),
        _ => return Match::Input,
    };
    let Some(&first) = rest.first() else {
        return Match::Unknown;
    };
    // The table is sorted, so the names with one first byte are next to each other.
    let start = TABLE.partition_point(|spelling| spelling.name.as_bytes().first() < Some(&first));
    let mut longest: Option<&'static Spelling> = None;
    for spelling in TABLE.iter().skip(start) {
        let name = spelling.name.as_bytes();
        if name.first() != Some(&first) {
            break;
        }
        let accepts = match spelling.value_kind {
            ValueKind::Flag | ValueKind::Separate => rest == name,
            ValueKind::Joined | ValueKind::JoinedOrSeparate => rest.starts_with(name),
        };
        if accepts
            && spelling.allows(dashes)
            && spelling.known_to(major)
            && longest.is_none_or(|longest| name.len() > longest.name.len())
        {
            longest = Some(spelling);
        }
    }
    longest.map_or(Match::Unknown, |spelling| Match::Option {
        spelling,
        len: dashes + spelling.name.len(),
    })
}

/// An option, whatever it was spelled like: lld's own name for it in CamelCase.
///
/// Where lld has one option under a short and a long name, the long one names it here
/// ([`Id::Output`] is `-o`, [`Id::Emulation`] is `-m`, [`Id::Optimize`] is `-O`, [`Id::Filter`] is
/// `-F`). A negative form is an option of its own (`NoGcSections`); see
/// [`CommandLine::flag`](crate::cmdline::CommandLine::flag). `…Eq` is the form with a value where
/// the form without one is another option.
///
/// [`Id::Ignored`] stands for all that lld accepts and drops. [`Id::PluginOpt`] is a `-plugin-opt=`
/// that is no known form: an error in lld unless it is GCC's own plugin. [`Id::PluginOptMinus`] is
/// `-plugin-opt=-X`, an option `-X` for LLVM (its value comes without that dash), as is
/// [`Id::Mllvm`] (with it).
#[allow(missing_docs, reason = "each variant is the option of that name")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Id {
    AllowMultipleDefinition,
    AllowShlibUndefined,
    AndroidMemtagHeap,
    AndroidMemtagMode,
    AndroidMemtagStack,
    ApplyDynamicRelocs,
    AsNeeded,
    Auxiliary,
    Bdynamic,
    Be8,
    BnoSymbolic,
    BpCompressionSort,
    BpCompressionSortStartupFunctions,
    BpStartupSort,
    BranchToBranch,
    Bstatic,
    Bsymbolic,
    BsymbolicFunctions,
    BsymbolicNonWeak,
    BsymbolicNonWeakFunctions,
    BuildId,
    CallGraphOrderingFile,
    CallGraphProfileSort,
    CheckDynamicRelocations,
    CheckSections,
    Chroot,
    CmseImplib,
    ColorDiagnostics,
    CompressDebugSections,
    CompressSections,
    Cref,
    DebugNames,
    DefaultScript,
    DefineCommon,
    Defsym,
    Demangle,
    DependencyFile,
    DependentLibraries,
    DisableNewDtags,
    DisableVerify,
    DiscardAll,
    DiscardLocals,
    DiscardNone,
    DynamicLinker,
    DynamicList,
    Eb,
    EhFrameHdr,
    El,
    EmitRelocs,
    Emulation,
    EnableNewDtags,
    EnableNonContiguousRegions,
    EndGroup,
    EndLib,
    Entry,
    ErrorHandlingScript,
    ErrorLimit,
    ErrorUnresolvedSymbols,
    ExcludeLibs,
    ExecuteOnly,
    ExportDynamic,
    ExportDynamicSymbol,
    ExportDynamicSymbolList,
    FatLtoObjects,
    FatalWarnings,
    Filter,
    Fini,
    FixCortexA53843419,
    FixCortexA8,
    ForceGroupAllocation,
    Format,
    FortranCommon,
    GcSections,
    GdbIndex,
    GnuUnique,
    HashStyle,
    Help,
    IcfAll,
    IcfNone,
    IcfSafe,
    IgnoreDataAddressEquality,
    IgnoreFunctionAddressEquality,
    Ignored,
    ImageBase,
    InImplib,
    Init,
    IrpgoProfile,
    JustSymbols,
    KeepUnique,
    Library,
    LibraryPath,
    LoadPassPlugin,
    Lto,
    LtoAaPipeline,
    LtoBasicBlockAddressMap,
    LtoBasicBlockSections,
    LtoCgo,
    LtoCsProfileFile,
    LtoCsProfileGenerate,
    LtoDebugPassManager,
    LtoEmitAsm,
    LtoEmitLlvm,
    LtoKnownSafeVtables,
    LtoLegacyPassManager,
    LtoNewpmPasses,
    LtoO,
    LtoObjPath,
    LtoPartitions,
    LtoPgoWarnMismatch,
    LtoSampleProfile,
    LtoUniqueBasicBlockSectionNames,
    LtoValidateAllVtablesHaveTypeInfos,
    LtoWholeProgramVisibility,
    Map,
    MergeExidxEntries,
    MipsGotSize,
    Mllvm,
    MmapOutputFile,
    Nmagic,
    NoAllowMultipleDefinition,
    NoAllowShlibUndefined,
    NoAndroidMemtagHeap,
    NoAndroidMemtagStack,
    NoApplyDynamicRelocs,
    NoAsNeeded,
    NoBpCompressionSortStartupFunctions,
    NoBranchToBranch,
    NoCheckDynamicRelocations,
    NoCheckSections,
    NoDebugNames,
    NoDefineCommon,
    NoDemangle,
    NoDependentLibraries,
    NoDynamicLinker,
    NoEhFrameHdr,
    NoExecuteOnly,
    NoExportDynamic,
    NoFatLtoObjects,
    NoFatalWarnings,
    NoFortranCommon,
    NoGcSections,
    NoGdbIndex,
    NoGnuUnique,
    NoLtoBasicBlockAddressMap,
    NoLtoLegacyPassManager,
    NoLtoPgoWarnMismatch,
    NoLtoUniqueBasicBlockSectionNames,
    NoLtoValidateAllVtablesHaveTypeInfos,
    NoLtoWholeProgramVisibility,
    NoMergeExidxEntries,
    NoMmapOutputFile,
    NoNmagic,
    NoOmagic,
    NoOptimizeBbJumps,
    NoPcrelOptimize,
    NoPie,
    NoPrintGcSections,
    NoPrintIcfSections,
    NoRelax,
    NoRelaxGp,
    NoRosegment,
    NoTocOptimize,
    NoUndefined,
    NoUndefinedVersion,
    NoUseAndroidRelrTags,
    NoWarnBackrefs,
    NoWarnCommon,
    NoWarnIfuncTextrel,
    NoWarnMismatch,
    NoWarnSymbolOrdering,
    NoWarnings,
    NoWholeArchive,
    NoXosegment,
    NoinhibitExec,
    Nostdlib,
    Oformat,
    Omagic,
    OptRemarksFilename,
    OptRemarksFormat,
    OptRemarksHotnessThreshold,
    OptRemarksPasses,
    OptRemarksWithHotness,
    Optimize,
    OptimizeBbJumps,
    OrphanHandling,
    OutImplib,
    Output,
    PackDynRelocs,
    PackageMetadata,
    PcrelOptimize,
    PicVeneer,
    Pie,
    Plugin,
    PluginOpt,
    PluginOptDwoDir,
    PluginOptMcpu,
    PluginOptMinus,
    PluginOptNoOpaquePointers,
    PluginOptOpaquePointers,
    PluginOptStatsFile,
    PopState,
    Power10Stubs,
    PrintArchiveStats,
    PrintGcSections,
    PrintGcSectionsEq,
    PrintIcfSections,
    PrintMap,
    PrintMemoryUsage,
    PrintSymbolOrder,
    PushState,
    RandomizeSectionPadding,
    Relax,
    RelaxGp,
    Relocatable,
    RemapInputs,
    RemapInputsFile,
    Reproduce,
    RetainSymbolsFile,
    Rosegment,
    Rpath,
    RspQuoting,
    SaveTemps,
    SaveTempsEq,
    Script,
    SectionStart,
    Shared,
    ShuffleSections,
    Soname,
    SortSection,
    SplitStackAdjustSize,
    StartGroup,
    StartLib,
    StripAll,
    StripDebug,
    SymbolOrderingFile,
    Sysroot,
    Target1Abs,
    Target1Rel,
    Target2,
    Tbss,
    Tdata,
    ThinltoCacheDir,
    ThinltoCachePolicy,
    ThinltoDistributor,
    ThinltoDistributorArg,
    ThinltoEmitImportsFiles,
    ThinltoEmitIndexFiles,
    ThinltoIndexOnly,
    ThinltoIndexOnlyEq,
    ThinltoJobs,
    ThinltoObjectSuffixReplace,
    ThinltoPrefixReplace,
    ThinltoRemoteCompiler,
    ThinltoRemoteCompilerArg,
    ThinltoRemoteCompilerPrependArg,
    ThinltoSingleModule,
    Threads,
    TimeTrace,
    TimeTraceFile,
    TimeTraceGranularity,
    TocOptimize,
    Trace,
    TraceSymbol,
    Ttext,
    TtextSegment,
    Undefined,
    UndefinedGlob,
    UndefinedVersion,
    Unique,
    UnresolvedSymbols,
    UseAndroidRelrTags,
    V,
    Verbose,
    VerboseBpSectionOrderer,
    Version,
    VersionScript,
    VsDiagnostics,
    WarnBackrefs,
    WarnBackrefsExclude,
    WarnCommon,
    WarnIfuncTextrel,
    WarnSymbolOrdering,
    WarnUnresolvedSymbols,
    WholeArchive,
    WhyExtract,
    WhyLive,
    Wrap,
    Xosegment,
    Z,
}

use Dashes::{Both, OneOnly, TwoOnly};

/// Every spelling, sorted by name, a line each.
#[rustfmt::skip]
pub static TABLE: &[Spelling] = &[
    flag("(", OneOnly, Id::StartGroup),
    flag(")", OneOnly, Id::EndGroup),
    flag("Bdynamic", Both, Id::Bdynamic),
    flag("Bno-symbolic", Both, Id::BnoSymbolic),
    flag("Bshareable", Both, Id::Shared),
    flag("Bstatic", Both, Id::Bstatic),
    flag("Bsymbolic", Both, Id::Bsymbolic),
    flag("Bsymbolic-functions", Both, Id::BsymbolicFunctions),
    flag("Bsymbolic-non-weak", Both, Id::BsymbolicNonWeak).since(19),
    flag("Bsymbolic-non-weak-functions", Both, Id::BsymbolicNonWeakFunctions),
    flag("E", OneOnly, Id::ExportDynamic),
    flag("EB", Both, Id::Eb),
    flag("EL", Both, Id::El),
    separate("F", OneOnly, Id::Filter),
    joined_or_separate("G", OneOnly, Id::Ignored),
    joined_or_separate("L", OneOnly, Id::LibraryPath),
    flag("M", OneOnly, Id::PrintMap),
    separate("Map", Both, Id::Map).output(),
    joined("Map=", Both, Id::Map).output(),
    flag("N", OneOnly, Id::Omagic),
    joined_or_separate("O", OneOnly, Id::Optimize),
    joined_or_separate("R", OneOnly, Id::Rpath),
    flag("S", OneOnly, Id::StripDebug),
    joined_or_separate("T", OneOnly, Id::Script),
    separate("Tbss", Both, Id::Tbss),
    joined("Tbss=", Both, Id::Tbss),
    separate("Tdata", Both, Id::Tdata),
    joined("Tdata=", Both, Id::Tdata),
    separate("Ttext", Both, Id::Ttext),
    separate("Ttext-segment", Both, Id::TtextSegment),
    joined("Ttext-segment=", Both, Id::TtextSegment),
    joined("Ttext=", Both, Id::Ttext),
    flag("V", OneOnly, Id::Version).until(14),
    flag("V", OneOnly, Id::V).since(16),
    flag("X", OneOnly, Id::DiscardLocals),
    flag("allow-multiple-definition", Both, Id::AllowMultipleDefinition),
    flag("allow-shlib-undefined", Both, Id::AllowShlibUndefined),
    flag("android-memtag-heap", TwoOnly, Id::AndroidMemtagHeap).since(16),
    separate("android-memtag-mode", TwoOnly, Id::AndroidMemtagMode).since(16),
    joined("android-memtag-mode=", TwoOnly, Id::AndroidMemtagMode).since(16),
    flag("android-memtag-stack", TwoOnly, Id::AndroidMemtagStack).since(16),
    flag("apply-dynamic-relocs", TwoOnly, Id::ApplyDynamicRelocs),
    flag("as-needed", Both, Id::AsNeeded),
    separate("auxiliary", Both, Id::Auxiliary),
    joined("auxiliary=", Both, Id::Auxiliary),
    separate("b", OneOnly, Id::Format),
    flag("be8", Both, Id::Be8).since(19),
    flag("bp-compression-sort-startup-functions", TwoOnly, Id::BpCompressionSortStartupFunctions).since(22),
    joined("bp-compression-sort=", TwoOnly, Id::BpCompressionSort).since(22),
    joined("bp-startup-sort=", TwoOnly, Id::BpStartupSort).since(22),
    flag("branch-to-branch", TwoOnly, Id::BranchToBranch).since(22),
    flag("build-id", Both, Id::BuildId).value("fast").until(16),
    flag("build-id", Both, Id::BuildId).value("sha1").since(19),
    joined("build-id=", Both, Id::BuildId),
    separate("call-graph-ordering-file", Both, Id::CallGraphOrderingFile),
    joined("call-graph-ordering-file=", Both, Id::CallGraphOrderingFile),
    flag("call-graph-profile-sort", TwoOnly, Id::CallGraphProfileSort).value("hfsort").until(16),
    joined("call-graph-profile-sort=", TwoOnly, Id::CallGraphProfileSort).since(19),
    flag("call_shared", Both, Id::Bdynamic),
    flag("check-dynamic-relocations", TwoOnly, Id::CheckDynamicRelocations),
    flag("check-sections", Both, Id::CheckSections),
    separate("chroot", TwoOnly, Id::Chroot),
    flag("cmse-implib", TwoOnly, Id::CmseImplib).since(19),
    flag("color-diagnostics", TwoOnly, Id::ColorDiagnostics).value("always"),
    joined("color-diagnostics=", TwoOnly, Id::ColorDiagnostics),
    separate("compress-debug-sections", Both, Id::CompressDebugSections),
    joined("compress-debug-sections=", Both, Id::CompressDebugSections),
    separate("compress-sections", TwoOnly, Id::CompressSections).since(19),
    joined("compress-sections=", TwoOnly, Id::CompressSections).since(19),
    flag("cref", TwoOnly, Id::Cref),
    flag("d", OneOnly, Id::DefineCommon).until(14),
    flag("d", OneOnly, Id::Ignored).since(16),
    separate("dT", OneOnly, Id::DefaultScript).since(19),
    flag("dc", Both, Id::DefineCommon).until(14),
    flag("debug-names", TwoOnly, Id::DebugNames).since(19),
    separate("default-script", TwoOnly, Id::DefaultScript).since(19),
    joined("default-script=", TwoOnly, Id::DefaultScript).since(19),
    flag("define-common", Both, Id::DefineCommon).until(14),
    separate("defsym", Both, Id::Defsym),
    joined("defsym=", Both, Id::Defsym),
    flag("demangle", Both, Id::Demangle),
    separate("dependency-file", TwoOnly, Id::DependencyFile).output(),
    joined("dependency-file=", TwoOnly, Id::DependencyFile).output(),
    flag("dependent-libraries", TwoOnly, Id::DependentLibraries),
    flag("detect-odr-violations", Both, Id::Ignored).until(14),
    flag("disable-new-dtags", Both, Id::DisableNewDtags),
    flag("disable-verify", Both, Id::DisableVerify),
    flag("discard-all", Both, Id::DiscardAll),
    flag("discard-locals", Both, Id::DiscardLocals),
    flag("discard-none", Both, Id::DiscardNone),
    flag("dn", Both, Id::Bstatic),
    flag("dp", Both, Id::DefineCommon).until(14),
    flag("dy", Both, Id::Bdynamic),
    separate("dynamic-linker", Both, Id::DynamicLinker),
    joined("dynamic-linker=", Both, Id::DynamicLinker),
    separate("dynamic-list", Both, Id::DynamicList),
    joined("dynamic-list=", Both, Id::DynamicList),
    joined_or_separate("e", OneOnly, Id::Entry),
    flag("eh-frame-hdr", Both, Id::EhFrameHdr),
    flag("emit-relocs", Both, Id::EmitRelocs),
    flag("enable-new-dtags", Both, Id::EnableNewDtags),
    flag("enable-non-contiguous-regions", TwoOnly, Id::EnableNonContiguousRegions).since(19),
    flag("end-group", Both, Id::EndGroup),
    flag("end-lib", Both, Id::EndLib),
    separate("entry", Both, Id::Entry),
    joined("entry=", Both, Id::Entry),
    separate("error-handling-script", TwoOnly, Id::ErrorHandlingScript),
    joined("error-handling-script=", TwoOnly, Id::ErrorHandlingScript),
    separate("error-limit", Both, Id::ErrorLimit).until(14),
    separate("error-limit", TwoOnly, Id::ErrorLimit).since(16),
    joined("error-limit=", Both, Id::ErrorLimit).until(14),
    joined("error-limit=", TwoOnly, Id::ErrorLimit).since(16),
    flag("error-unresolved-symbols", Both, Id::ErrorUnresolvedSymbols),
    separate("exclude-libs", Both, Id::ExcludeLibs),
    joined("exclude-libs=", Both, Id::ExcludeLibs),
    flag("execute-only", TwoOnly, Id::ExecuteOnly),
    flag("export-dynamic", Both, Id::ExportDynamic),
    separate("export-dynamic-symbol", TwoOnly, Id::ExportDynamicSymbol),
    separate("export-dynamic-symbol-list", TwoOnly, Id::ExportDynamicSymbolList),
    joined("export-dynamic-symbol-list=", TwoOnly, Id::ExportDynamicSymbolList),
    joined("export-dynamic-symbol=", TwoOnly, Id::ExportDynamicSymbol),
    separate("f", OneOnly, Id::Auxiliary),
    flag("fat-lto-objects", TwoOnly, Id::FatLtoObjects).since(19),
    flag("fatal-warnings", Both, Id::FatalWarnings),
    separate("filter", Both, Id::Filter),
    joined("filter=", Both, Id::Filter),
    separate("fini", Both, Id::Fini),
    joined("fini=", Both, Id::Fini),
    flag("fix-cortex-a53-843419", Both, Id::FixCortexA53843419),
    flag("fix-cortex-a8", Both, Id::FixCortexA8),
    flag("force-group-allocation", TwoOnly, Id::ForceGroupAllocation).since(19),
    separate("format", Both, Id::Format),
    joined("format=", Both, Id::Format),
    flag("fortran-common", TwoOnly, Id::FortranCommon),
    flag("g", OneOnly, Id::Ignored),
    flag("gc-sections", Both, Id::GcSections),
    flag("gdb-index", TwoOnly, Id::GdbIndex),
    flag("gnu-unique", TwoOnly, Id::GnuUnique),
    joined_or_separate("h", OneOnly, Id::Soname),
    separate("hash-style", Both, Id::HashStyle),
    joined("hash-style=", Both, Id::HashStyle),
    flag("help", Both, Id::Help),
    flag("icf=all", Both, Id::IcfAll),
    flag("icf=none", Both, Id::IcfNone),
    flag("icf=safe", Both, Id::IcfSafe),
    flag("ignore-data-address-equality", TwoOnly, Id::IgnoreDataAddressEquality),
    flag("ignore-function-address-equality", TwoOnly, Id::IgnoreFunctionAddressEquality),
    separate("image-base", TwoOnly, Id::ImageBase),
    joined("image-base=", TwoOnly, Id::ImageBase),
    separate("in-implib", TwoOnly, Id::InImplib).since(19),
    joined("in-implib=", TwoOnly, Id::InImplib).since(19),
    separate("init", Both, Id::Init),
    joined("init=", Both, Id::Init),
    separate("irpgo-profile", TwoOnly, Id::IrpgoProfile).since(22),
    joined("irpgo-profile=", TwoOnly, Id::IrpgoProfile).since(22),
    separate("just-symbols", Both, Id::JustSymbols),
    joined("just-symbols=", Both, Id::JustSymbols),
    separate("keep-unique", Both, Id::KeepUnique),
    joined("keep-unique=", Both, Id::KeepUnique),
    joined_or_separate("l", OneOnly, Id::Library),
    separate("library", Both, Id::Library),
    separate("library-path", Both, Id::LibraryPath),
    joined("library-path=", Both, Id::LibraryPath),
    joined("library=", Both, Id::Library),
    separate("load-pass-plugin", TwoOnly, Id::LoadPassPlugin).since(16),
    joined("load-pass-plugin=", TwoOnly, Id::LoadPassPlugin).since(16),
    flag("long-plt", Both, Id::Ignored),
    joined("lto-CGO", TwoOnly, Id::LtoCgo).since(19),
    joined("lto-O", TwoOnly, Id::LtoO),
    joined("lto-aa-pipeline=", TwoOnly, Id::LtoAaPipeline),
    flag("lto-basic-block-address-map", TwoOnly, Id::LtoBasicBlockAddressMap).since(19),
    joined("lto-basic-block-sections=", TwoOnly, Id::LtoBasicBlockSections),
    joined("lto-cs-profile-file=", TwoOnly, Id::LtoCsProfileFile),
    flag("lto-cs-profile-generate", TwoOnly, Id::LtoCsProfileGenerate),
    flag("lto-debug-pass-manager", TwoOnly, Id::LtoDebugPassManager),
    flag("lto-emit-asm", TwoOnly, Id::LtoEmitAsm),
    flag("lto-emit-llvm", TwoOnly, Id::LtoEmitLlvm).since(19),
    separate("lto-known-safe-vtables", TwoOnly, Id::LtoKnownSafeVtables).since(19),
    joined("lto-known-safe-vtables=", TwoOnly, Id::LtoKnownSafeVtables).since(19),
    flag("lto-legacy-pass-manager", TwoOnly, Id::LtoLegacyPassManager).until(14),
    joined("lto-newpm-passes=", TwoOnly, Id::LtoNewpmPasses),
    joined("lto-obj-path=", TwoOnly, Id::LtoObjPath).output(),
    joined("lto-partitions=", TwoOnly, Id::LtoPartitions),
    flag("lto-pgo-warn-mismatch", TwoOnly, Id::LtoPgoWarnMismatch),
    joined("lto-sample-profile=", TwoOnly, Id::LtoSampleProfile),
    flag("lto-unique-basic-block-section-names", TwoOnly, Id::LtoUniqueBasicBlockSectionNames),
    flag("lto-validate-all-vtables-have-type-infos", TwoOnly, Id::LtoValidateAllVtablesHaveTypeInfos).since(19),
    flag("lto-whole-program-visibility", TwoOnly, Id::LtoWholeProgramVisibility),
    joined("lto=", TwoOnly, Id::Lto).since(19),
    joined_or_separate("m", OneOnly, Id::Emulation),
    flag("merge-exidx-entries", Both, Id::MergeExidxEntries),
    separate("mips-got-size", Both, Id::MipsGotSize),
    joined("mips-got-size=", Both, Id::MipsGotSize),
    separate("mllvm", Both, Id::Mllvm),
    joined("mllvm=", Both, Id::Mllvm),
    flag("mmap-output-file", TwoOnly, Id::MmapOutputFile),
    flag("n", OneOnly, Id::Nmagic),
    flag("nmagic", Both, Id::Nmagic),
    flag("no-add-needed", TwoOnly, Id::Ignored),
    flag("no-allow-multiple-definition", Both, Id::NoAllowMultipleDefinition),
    flag("no-allow-shlib-undefined", Both, Id::NoAllowShlibUndefined),
    flag("no-android-memtag-heap", TwoOnly, Id::NoAndroidMemtagHeap).since(16),
    flag("no-android-memtag-stack", TwoOnly, Id::NoAndroidMemtagStack).since(16),
    flag("no-apply-dynamic-relocs", TwoOnly, Id::NoApplyDynamicRelocs),
    flag("no-as-needed", Both, Id::NoAsNeeded),
    flag("no-bp-compression-sort-startup-functions", TwoOnly, Id::NoBpCompressionSortStartupFunctions).since(22),
    flag("no-branch-to-branch", TwoOnly, Id::NoBranchToBranch).since(22),
    flag("no-call-graph-profile-sort", TwoOnly, Id::CallGraphProfileSort).value("none"),
    flag("no-check-dynamic-relocations", TwoOnly, Id::NoCheckDynamicRelocations),
    flag("no-check-sections", Both, Id::NoCheckSections),
    flag("no-color-diagnostics", TwoOnly, Id::ColorDiagnostics).value("never"),
    flag("no-copy-dt-needed-entries", Both, Id::Ignored),
    flag("no-ctors-in-init-array", Both, Id::Ignored),
    flag("no-debug-names", TwoOnly, Id::NoDebugNames).since(19),
    flag("no-define-common", Both, Id::NoDefineCommon).until(14),
    flag("no-demangle", Both, Id::NoDemangle),
    flag("no-dependent-libraries", TwoOnly, Id::NoDependentLibraries),
    flag("no-dynamic-linker", Both, Id::NoDynamicLinker),
    flag("no-eh-frame-hdr", Both, Id::NoEhFrameHdr),
    flag("no-execute-only", TwoOnly, Id::NoExecuteOnly),
    flag("no-export-dynamic", Both, Id::NoExportDynamic),
    flag("no-fat-lto-objects", TwoOnly, Id::NoFatLtoObjects).since(19),
    flag("no-fatal-warnings", Both, Id::NoFatalWarnings),
    flag("no-fortran-common", TwoOnly, Id::NoFortranCommon),
    flag("no-gc-sections", Both, Id::NoGcSections),
    flag("no-gdb-index", TwoOnly, Id::NoGdbIndex),
    flag("no-gnu-unique", TwoOnly, Id::NoGnuUnique),
    flag("no-keep-memory", Both, Id::Ignored),
    flag("no-lto-basic-block-address-map", TwoOnly, Id::NoLtoBasicBlockAddressMap).since(19),
    flag("no-lto-legacy-pass-manager", TwoOnly, Id::NoLtoLegacyPassManager).until(16),
    flag("no-lto-pgo-warn-mismatch", TwoOnly, Id::NoLtoPgoWarnMismatch),
    flag("no-lto-unique-basic-block-section-names", TwoOnly, Id::NoLtoUniqueBasicBlockSectionNames),
    flag("no-lto-validate-all-vtables-have-type-infos", TwoOnly, Id::NoLtoValidateAllVtablesHaveTypeInfos).since(19),
    flag("no-lto-whole-program-visibility", TwoOnly, Id::NoLtoWholeProgramVisibility),
    flag("no-merge-exidx-entries", Both, Id::NoMergeExidxEntries),
    flag("no-mmap-output-file", TwoOnly, Id::NoMmapOutputFile),
    flag("no-nmagic", Both, Id::NoNmagic),
    flag("no-omagic", Both, Id::NoOmagic),
    flag("no-optimize-bb-jumps", TwoOnly, Id::NoOptimizeBbJumps),
    flag("no-pcrel-optimize", TwoOnly, Id::NoPcrelOptimize),
    flag("no-pie", Both, Id::NoPie),
    flag("no-power10-stubs", TwoOnly, Id::Power10Stubs).value("no"),
    flag("no-print-gc-sections", Both, Id::NoPrintGcSections),
    flag("no-print-icf-sections", Both, Id::NoPrintIcfSections),
    flag("no-relax", TwoOnly, Id::NoRelax),
    flag("no-relax-gp", TwoOnly, Id::NoRelaxGp).since(19),
    flag("no-rosegment", TwoOnly, Id::NoRosegment),
    flag("no-toc-optimize", TwoOnly, Id::NoTocOptimize),
    flag("no-undefined", Both, Id::NoUndefined),
    flag("no-undefined-version", Both, Id::NoUndefinedVersion),
    flag("no-use-android-relr-tags", TwoOnly, Id::NoUseAndroidRelrTags),
    flag("no-warn-backrefs", TwoOnly, Id::NoWarnBackrefs),
    flag("no-warn-common", Both, Id::NoWarnCommon),
    flag("no-warn-ifunc-textrel", TwoOnly, Id::NoWarnIfuncTextrel),
    flag("no-warn-mismatch", Both, Id::NoWarnMismatch),
    flag("no-warn-symbol-ordering", TwoOnly, Id::NoWarnSymbolOrdering),
    flag("no-warnings", TwoOnly, Id::NoWarnings).since(16),
    flag("no-whole-archive", Both, Id::NoWholeArchive),
    flag("no-xosegment", TwoOnly, Id::NoXosegment).since(22),
    flag("noinhibit-exec", Both, Id::NoinhibitExec),
    flag("non_shared", Both, Id::Bstatic),
    flag("nostdlib", Both, Id::Nostdlib),
    joined_or_separate("o", OneOnly, Id::Output).output(),
    separate("oformat", TwoOnly, Id::Oformat),
    joined("oformat=", TwoOnly, Id::Oformat),
    flag("omagic", TwoOnly, Id::Omagic),
    separate("opt-remarks-filename", TwoOnly, Id::OptRemarksFilename).output(),
    separate("opt-remarks-format", TwoOnly, Id::OptRemarksFormat),
    separate("opt-remarks-hotness-threshold", TwoOnly, Id::OptRemarksHotnessThreshold),
    joined("opt-remarks-hotness-threshold=", TwoOnly, Id::OptRemarksHotnessThreshold),
    separate("opt-remarks-passes", TwoOnly, Id::OptRemarksPasses),
    flag("opt-remarks-with-hotness", TwoOnly, Id::OptRemarksWithHotness),
    flag("optimize-bb-jumps", TwoOnly, Id::OptimizeBbJumps),
    separate("orphan-handling", Both, Id::OrphanHandling),
    joined("orphan-handling=", Both, Id::OrphanHandling),
    separate("out-implib", TwoOnly, Id::OutImplib).since(19).output(),
    joined("out-implib=", TwoOnly, Id::OutImplib).since(19).output(),
    separate("output", TwoOnly, Id::Output).output(),
    joined("output=", TwoOnly, Id::Output).output(),
    separate("pack-dyn-relocs", TwoOnly, Id::PackDynRelocs),
    joined("pack-dyn-relocs=", TwoOnly, Id::PackDynRelocs),
    joined("package-metadata=", TwoOnly, Id::PackageMetadata).since(16),
    flag("pcrel-optimize", TwoOnly, Id::PcrelOptimize),
    flag("pic-executable", Both, Id::Pie),
    flag("pic-veneer", Both, Id::PicVeneer),
    flag("pie", Both, Id::Pie),
    separate("plugin", Both, Id::Plugin),
    joined("plugin-opt=", Both, Id::PluginOpt),
    joined("plugin-opt=-", Both, Id::PluginOptMinus),
    joined("plugin-opt=-fresolution=", Both, Id::Ignored),
    joined("plugin-opt=-pass-through=", Both, Id::Ignored),
    joined("plugin-opt=O", Both, Id::LtoO),
    flag("plugin-opt=cs-profile-generate", Both, Id::LtoCsProfileGenerate),
    joined("plugin-opt=cs-profile-path=", Both, Id::LtoCsProfileFile),
    flag("plugin-opt=debug-pass-manager", Both, Id::LtoDebugPassManager),
    flag("plugin-opt=disable-verify", Both, Id::DisableVerify),
    joined("plugin-opt=dwo_dir=", Both, Id::PluginOptDwoDir),
    flag("plugin-opt=emit-asm", Both, Id::LtoEmitAsm),
    flag("plugin-opt=emit-llvm", Both, Id::LtoEmitLlvm),
    joined("plugin-opt=jobs=", Both, Id::ThinltoJobs),
    flag("plugin-opt=legacy-pass-manager", Both, Id::LtoLegacyPassManager).until(14),
    joined("plugin-opt=lto-partitions=", Both, Id::LtoPartitions),
    joined("plugin-opt=mcpu=", Both, Id::PluginOptMcpu),
    flag("plugin-opt=new-pass-manager", Both, Id::NoLtoLegacyPassManager).until(16),
    flag("plugin-opt=no-opaque-pointers", Both, Id::PluginOptNoOpaquePointers).since(16).until(16),
    joined("plugin-opt=obj-path=", Both, Id::LtoObjPath).output(),
    flag("plugin-opt=opaque-pointers", Both, Id::PluginOptOpaquePointers).since(16).until(16),
    joined("plugin-opt=opt-remarks-filename=", Both, Id::OptRemarksFilename).output(),
    joined("plugin-opt=opt-remarks-format=", Both, Id::OptRemarksFormat),
    joined("plugin-opt=opt-remarks-hotness-threshold=", Both, Id::OptRemarksHotnessThreshold),
    joined("plugin-opt=opt-remarks-passes=", Both, Id::OptRemarksPasses),
    flag("plugin-opt=opt-remarks-with-hotness", Both, Id::OptRemarksWithHotness),
    joined("plugin-opt=sample-profile=", Both, Id::LtoSampleProfile),
    flag("plugin-opt=save-temps", Both, Id::SaveTemps),
    joined("plugin-opt=stats-file=", Both, Id::PluginOptStatsFile).since(16).output(),
    joined("plugin-opt=thinlto", Both, Id::Ignored),
    flag("plugin-opt=thinlto-emit-imports-files", Both, Id::ThinltoEmitImportsFiles),
    flag("plugin-opt=thinlto-index-only", Both, Id::ThinltoIndexOnly),
    joined("plugin-opt=thinlto-index-only=", Both, Id::ThinltoIndexOnlyEq).output(),
    joined("plugin-opt=thinlto-object-suffix-replace=", Both, Id::ThinltoObjectSuffixReplace),
    joined("plugin-opt=thinlto-prefix-replace=", Both, Id::ThinltoPrefixReplace),
    joined("plugin-opt=time-trace=", Both, Id::TimeTrace).since(22).output(),
    joined("plugin=", Both, Id::Plugin),
    flag("pop-state", Both, Id::PopState),
    flag("power10-stubs", TwoOnly, Id::Power10Stubs).value("yes"),
    joined("power10-stubs=", TwoOnly, Id::Power10Stubs),
    joined("print-archive-stats=", Both, Id::PrintArchiveStats).output(),
    flag("print-gc-sections", Both, Id::PrintGcSections),
    joined("print-gc-sections=", TwoOnly, Id::PrintGcSectionsEq).since(22).output(),
    flag("print-icf-sections", Both, Id::PrintIcfSections),
    flag("print-map", Both, Id::PrintMap),
    flag("print-memory-usage", Both, Id::PrintMemoryUsage).since(19),
    separate("print-symbol-order", Both, Id::PrintSymbolOrder).output(),
    joined("print-symbol-order=", Both, Id::PrintSymbolOrder).output(),
    flag("push-state", Both, Id::PushState),
    flag("q", OneOnly, Id::EmitRelocs),
    flag("r", OneOnly, Id::Relocatable),
    joined("randomize-section-padding=", TwoOnly, Id::RandomizeSectionPadding).since(22),
    flag("relax", TwoOnly, Id::Relax),
    flag("relax-gp", TwoOnly, Id::RelaxGp).since(19),
    flag("relocatable", Both, Id::Relocatable),
    separate("remap-inputs", TwoOnly, Id::RemapInputs).since(19),
    joined("remap-inputs-file=", TwoOnly, Id::RemapInputsFile).since(19),
    joined("remap-inputs=", TwoOnly, Id::RemapInputs).since(19),
    separate("reproduce", TwoOnly, Id::Reproduce).output(),
    joined("reproduce=", TwoOnly, Id::Reproduce).output(),
    separate("retain-symbols-file", Both, Id::RetainSymbolsFile),
    joined("retain-symbols-file=", Both, Id::RetainSymbolsFile),
    flag("rosegment", TwoOnly, Id::Rosegment),
    separate("rpath", Both, Id::Rpath),
    separate("rpath-link", Both, Id::Ignored),
    joined("rpath-link=", Both, Id::Ignored),
    joined("rpath=", Both, Id::Rpath),
    separate("rsp-quoting", TwoOnly, Id::RspQuoting),
    joined("rsp-quoting=", TwoOnly, Id::RspQuoting),
    flag("s", OneOnly, Id::StripAll),
    flag("save-temps", Both, Id::SaveTemps),
    joined("save-temps=", TwoOnly, Id::SaveTempsEq).since(16),
    separate("script", Both, Id::Script),
    joined("script=", Both, Id::Script),
    separate("section-start", Both, Id::SectionStart),
    joined("section-start=", Both, Id::SectionStart),
    flag("secure-plt", Both, Id::Ignored),
    flag("shared", Both, Id::Shared),
    separate("shuffle-sections", TwoOnly, Id::ShuffleSections),
    joined("shuffle-sections=", TwoOnly, Id::ShuffleSections),
    separate("soname", Both, Id::Soname),
    joined("soname=", Both, Id::Soname),
    flag("sort-common", Both, Id::Ignored),
    separate("sort-section", Both, Id::SortSection),
    joined("sort-section=", Both, Id::SortSection),
    separate("split-stack-adjust-size", Both, Id::SplitStackAdjustSize),
    joined("split-stack-adjust-size=", Both, Id::SplitStackAdjustSize),
    flag("start-group", Both, Id::StartGroup),
    flag("start-lib", Both, Id::StartLib),
    flag("static", Both, Id::Bstatic),
    flag("stats", Both, Id::Ignored),
    flag("strip-all", Both, Id::StripAll),
    flag("strip-debug", Both, Id::StripDebug),
    separate("symbol-ordering-file", TwoOnly, Id::SymbolOrderingFile),
    joined("symbol-ordering-file=", TwoOnly, Id::SymbolOrderingFile),
    separate("sysroot", Both, Id::Sysroot),
    joined("sysroot=", Both, Id::Sysroot),
    flag("t", OneOnly, Id::Trace),
    flag("target1-abs", Both, Id::Target1Abs),
    flag("target1-rel", Both, Id::Target1Rel),
    separate("target2", Both, Id::Target2),
    joined("target2=", Both, Id::Target2),
    joined("thinlto-cache-dir=", TwoOnly, Id::ThinltoCacheDir),
    separate("thinlto-cache-policy", TwoOnly, Id::ThinltoCachePolicy),
    joined("thinlto-cache-policy=", TwoOnly, Id::ThinltoCachePolicy),
    separate("thinlto-distributor-arg", TwoOnly, Id::ThinltoDistributorArg).since(22),
    joined("thinlto-distributor-arg=", TwoOnly, Id::ThinltoDistributorArg).since(22),
    joined("thinlto-distributor=", TwoOnly, Id::ThinltoDistributor).since(22),
    flag("thinlto-emit-imports-files", TwoOnly, Id::ThinltoEmitImportsFiles),
    flag("thinlto-emit-index-files", TwoOnly, Id::ThinltoEmitIndexFiles).since(16),
    flag("thinlto-index-only", TwoOnly, Id::ThinltoIndexOnly),
    joined("thinlto-index-only=", TwoOnly, Id::ThinltoIndexOnlyEq).output(),
    joined("thinlto-jobs=", TwoOnly, Id::ThinltoJobs),
    joined("thinlto-object-suffix-replace=", TwoOnly, Id::ThinltoObjectSuffixReplace),
    joined("thinlto-prefix-replace=", TwoOnly, Id::ThinltoPrefixReplace),
    separate("thinlto-remote-compiler-arg", TwoOnly, Id::ThinltoRemoteCompilerArg).since(22),
    joined("thinlto-remote-compiler-arg=", TwoOnly, Id::ThinltoRemoteCompilerArg).since(22),
    separate("thinlto-remote-compiler-prepend-arg", TwoOnly, Id::ThinltoRemoteCompilerPrependArg).since(22),
    joined("thinlto-remote-compiler-prepend-arg=", TwoOnly, Id::ThinltoRemoteCompilerPrependArg).since(22),
    joined("thinlto-remote-compiler=", TwoOnly, Id::ThinltoRemoteCompiler).since(22),
    joined("thinlto-single-module=", TwoOnly, Id::ThinltoSingleModule),
    separate("threads", TwoOnly, Id::Threads),
    joined("threads=", TwoOnly, Id::Threads),
    flag("time-trace", TwoOnly, Id::TimeTrace),
    joined("time-trace-file=", TwoOnly, Id::TimeTraceFile).until(14).output(),
    separate("time-trace-granularity", TwoOnly, Id::TimeTraceGranularity),
    joined("time-trace-granularity=", TwoOnly, Id::TimeTraceGranularity),
    joined("time-trace=", TwoOnly, Id::TimeTrace).since(16).output(),
    flag("toc-optimize", TwoOnly, Id::TocOptimize),
    flag("trace", Both, Id::Trace),
    separate("trace-symbol", Both, Id::TraceSymbol),
    joined("trace-symbol=", Both, Id::TraceSymbol),
    joined_or_separate("u", OneOnly, Id::Undefined),
    separate("undefined", Both, Id::Undefined),
    separate("undefined-glob", TwoOnly, Id::UndefinedGlob),
    joined("undefined-glob=", TwoOnly, Id::UndefinedGlob),
    flag("undefined-version", Both, Id::UndefinedVersion),
    joined("undefined=", Both, Id::Undefined),
    flag("unique", Both, Id::Unique),
    separate("unresolved-symbols", Both, Id::UnresolvedSymbols),
    joined("unresolved-symbols=", Both, Id::UnresolvedSymbols),
    flag("use-android-relr-tags", TwoOnly, Id::UseAndroidRelrTags),
    flag("v", OneOnly, Id::V),
    flag("verbose", Both, Id::Verbose),
    flag("verbose-bp-section-orderer", TwoOnly, Id::VerboseBpSectionOrderer).since(22),
    flag("version", Both, Id::Version),
    separate("version-script", Both, Id::VersionScript),
    joined("version-script=", Both, Id::VersionScript),
    flag("vs-diagnostics", TwoOnly, Id::VsDiagnostics),
    flag("w", OneOnly, Id::NoWarnings).since(16),
    flag("warn-backrefs", TwoOnly, Id::WarnBackrefs),
    separate("warn-backrefs-exclude", TwoOnly, Id::WarnBackrefsExclude),
    joined("warn-backrefs-exclude=", TwoOnly, Id::WarnBackrefsExclude),
    flag("warn-common", Both, Id::WarnCommon),
    flag("warn-execstack", Both, Id::Ignored),
    flag("warn-ifunc-textrel", TwoOnly, Id::WarnIfuncTextrel),
    flag("warn-once", Both, Id::Ignored),
    flag("warn-shared-textrel", Both, Id::Ignored),
    flag("warn-symbol-ordering", TwoOnly, Id::WarnSymbolOrdering),
    flag("warn-unresolved-symbols", Both, Id::WarnUnresolvedSymbols),
    flag("whole-archive", Both, Id::WholeArchive),
    joined("why-extract=", TwoOnly, Id::WhyExtract).output(),
    separate("why-live", TwoOnly, Id::WhyLive).since(22),
    joined("why-live=", TwoOnly, Id::WhyLive).since(22),
    separate("wrap", Both, Id::Wrap),
    joined("wrap=", Both, Id::Wrap),
    flag("x", OneOnly, Id::DiscardAll),
    flag("xosegment", TwoOnly, Id::Xosegment).since(22),
    joined_or_separate("y", OneOnly, Id::TraceSymbol),
    joined_or_separate("z", OneOnly, Id::Z),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn id(argument: &str, major: u32) -> Option<Id> {
        match lookup(argument.as_bytes(), major) {
            Match::Option { spelling, .. } => Some(spelling.id),
            Match::Input | Match::Unknown => None,
        }
    }

    #[test]
    fn table_is_sorted_and_unambiguous() {
        for pair in TABLE.windows(2) {
            let [a, b] = pair else { unreachable!() };
            assert!(
                a.name.as_bytes() <= b.name.as_bytes(),
                "{} before {}",
                a.name,
                b.name
            );
        }
        for (i, a) in TABLE.iter().enumerate() {
            assert!(!a.name.is_empty() && !a.name.starts_with('-'), "{a:?}");
            assert!(
                a.value.is_none() || a.value_kind == ValueKind::Flag,
                "{a:?}"
            );
            assert!(
                TESTED.contains(&a.since) && TESTED.contains(&a.until),
                "{a:?}"
            );
            for b in TABLE.iter().skip(i + 1).filter(|b| b.name == a.name) {
                let both = (1..=2).any(|dashes| a.allows(dashes) && b.allows(dashes));
                let when = TESTED
                    .iter()
                    .any(|&major| a.known_to(major) && b.known_to(major));
                assert!(!(both && when), "{a:?} and {b:?}");
            }
        }
    }

    #[test]
    fn longest_name_that_accepts_wins() {
        assert_eq!(id("-l", 22), Some(Id::Library));
        assert_eq!(id("-library", 22), Some(Id::Library));
        assert_eq!(lookup(b"-librarian", 22), lookup(b"-lx", 22));
        assert_eq!(id("-plugin-opt=-fresolution=x", 22), Some(Id::Ignored));
        assert_eq!(id("-plugin-opt=-foo", 22), Some(Id::PluginOptMinus));
        assert_eq!(id("-plugin-opt=Ox", 22), Some(Id::LtoO));
        assert_eq!(id("-plugin-opt=obj", 22), Some(Id::PluginOpt));
        assert_eq!(id("-omagic", 22), Some(Id::Output));
        assert_eq!(id("--omagic", 22), Some(Id::Omagic));
        assert_eq!(id("-error-limit=1", 14), Some(Id::ErrorLimit));
        assert_eq!(id("-error-limit=1", 16), Some(Id::Entry));
    }

    #[test]
    fn dashes_decide_between_input_and_unknown() {
        for input in ["", "-", "a", "@x", "/b", "=-"] {
            assert_eq!(lookup(input.as_bytes(), 22), Match::Input, "{input}");
        }
        for unknown in [
            "--",
            "---",
            "--)",
            "--l",
            "--O2",
            "---static",
            "-gc-section",
            "--nope",
        ] {
            assert_eq!(lookup(unknown.as_bytes(), 22), Match::Unknown, "{unknown}");
        }
    }

    #[test]
    fn releases_between_tested_ones_ask_both_neighbours() {
        assert_eq!(dialects(Some(16)), [16]);
        assert_eq!(dialects(Some(17)), [19, 16]);
        assert_eq!(dialects(Some(13)), [14]);
        assert_eq!(dialects(Some(30)), [22]);
        assert_eq!(dialects(None), [22, 19, 16, 14]);
    }
}
