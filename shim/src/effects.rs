//! What each of lld's options does to the objects of ThinLTO backends.
//!
//! One answer for each option, so that cache keys and the decision to leave a link to lld cannot
//! disagree. The match has no default arm: an option that is added to the table without an answer does
//! not compile.
//!
//! The options that shape code are those that `createConfig` (lld/ELF/LTO.cpp) reads. lld's own
//! cache key (`computeLTOCacheKey`, llvm/lib/LTO/LTO.cpp) has only part of that; what else a link's
//! options change (resolution, visibility, the kind of output) it has in full.

use crate::cmdline::CommandLine;
use crate::options::Id;

/// What an option does to the objects of backends, and to what a link leaves behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// None on objects: it is about the output, or lld's cache key has what it changes.
    None,
    /// Its value shapes objects, or decides whether a message about one is shown.
    Code,
    /// Its value names a file whose content shapes objects (or is one of the words that
    /// [`names_file`] knows).
    CodeFile,
    /// lld writes something that a cached object would lose, or the link is not one to be cached: it
    /// goes to lld as it came, for this reason.
    Alone(&'static str),
}

/// Whether the value of an option with [`Effect::CodeFile`] names a file.
#[must_use]
pub fn names_file(id: Id, value: &[u8]) -> bool {
    !value.is_empty()
        && (id != Id::LtoBasicBlockSections || !matches!(value, b"all" | b"none" | b"labels"))
}

/// Why a link goes to lld as it came, if one of its options asks for that: the reason of the first one.
#[must_use]
pub fn left_to_lld(cmd: &CommandLine) -> Option<&'static str> {
    cmd.options().find_map(|option| match effect(option.id) {
        Effect::Alone(_) if option.id == Id::ThinltoDistributor && cmd.distributor().is_none() => {
            None
        }
        Effect::Alone(reason) => Some(reason),
        _ => None,
    })
}

/// What an option does.
#[must_use]
pub const fn effect(id: Id) -> Effect {
    use Effect::{Alone, Code, CodeFile, None};
    match id {
        Id::LtoAaPipeline
        | Id::LtoBasicBlockAddressMap
        | Id::LtoCgo
        | Id::LtoCsProfileGenerate
        | Id::LtoKnownSafeVtables
        | Id::LtoLegacyPassManager
        | Id::LtoNewpmPasses
        | Id::LtoO
        | Id::LtoPartitions
        | Id::LtoPgoWarnMismatch
        | Id::LtoUniqueBasicBlockSectionNames
        | Id::LtoValidateAllVtablesHaveTypeInfos
        | Id::LtoWholeProgramVisibility
        | Id::NoLtoBasicBlockAddressMap
        | Id::NoLtoLegacyPassManager
        | Id::NoLtoPgoWarnMismatch
        | Id::NoLtoUniqueBasicBlockSectionNames
        | Id::NoLtoValidateAllVtablesHaveTypeInfos
        | Id::NoLtoWholeProgramVisibility
        | Id::Lto
        | Id::CallGraphProfileSort
        | Id::DisableVerify
        | Id::PluginOpt
        | Id::PluginOptMcpu
        | Id::PluginOptMinus
        | Id::PluginOptNoOpaquePointers
        | Id::PluginOptOpaquePointers
        | Id::Mllvm
        // Whether a backend's warning is shown.
        | Id::ErrorLimit
        | Id::FatalWarnings
        | Id::NoFatalWarnings
        | Id::NoWarnings => Code,

        Id::LtoBasicBlockSections | Id::LtoCsProfileFile | Id::LtoSampleProfile => CodeFile,

        Id::ThinltoIndexOnly => Alone("--thinlto-index-only: the user distributes this link"),
        Id::ThinltoIndexOnlyEq => Alone("--thinlto-index-only=: the user distributes this link"),
        Id::ThinltoEmitIndexFiles => {
            Alone("--thinlto-emit-index-files: the user distributes this link")
        }
        Id::ThinltoEmitImportsFiles => {
            Alone("--thinlto-emit-imports-files: the user distributes this link")
        }
        Id::ThinltoPrefixReplace => {
            Alone("--thinlto-prefix-replace: the user distributes this link")
        }
        Id::ThinltoObjectSuffixReplace => {
            Alone("--thinlto-object-suffix-replace: the user distributes this link")
        }
        Id::ThinltoSingleModule => Alone("--thinlto-single-module: one module is wanted, not a link"),
        Id::ThinltoDistributor => Alone("--thinlto-distributor: lld distributes this link itself"),
        Id::LtoEmitAsm => Alone("--lto-emit-asm: no objects are wanted"),
        Id::LtoEmitLlvm => Alone("--lto-emit-llvm: no objects are wanted"),
        Id::LtoObjPath => Alone("--lto-obj-path: lld's own LTO objects are wanted"),
        Id::SaveTemps => Alone("--save-temps: lld's intermediate files are wanted"),
        Id::SaveTempsEq => Alone("--save-temps=: lld's intermediate files are wanted"),
        Id::Reproduce => Alone("--reproduce: lld packs what it reads"),
        Id::Chroot => Alone("--chroot: paths mean something else in there"),
        Id::LtoDebugPassManager => Alone("--lto-debug-pass-manager: lld's own output is wanted"),
        Id::LoadPassPlugin => Alone("--load-pass-plugin: the plugin is loaded into lld"),
        Id::OptRemarksFilename => Alone("--opt-remarks-filename: remarks are written by lld"),
        Id::OptRemarksPasses => Alone("--opt-remarks-passes: remarks are written by lld"),
        Id::OptRemarksFormat => Alone("--opt-remarks-format: remarks are written by lld"),
        Id::OptRemarksWithHotness => Alone("--opt-remarks-with-hotness: remarks are written by lld"),
        Id::OptRemarksHotnessThreshold => {
            Alone("--opt-remarks-hotness-threshold: remarks are written by lld")
        }
        Id::PluginOptStatsFile => Alone("-plugin-opt=stats-file=: statistics are written by lld"),
        Id::TimeTrace | Id::TimeTraceFile | Id::TimeTraceGranularity => {
            Alone("--time-trace: the times of lld's own work are wanted")
        }
        Id::PluginOptDwoDir => Alone("-plugin-opt=dwo_dir=: split DWARF is written by lld"),

        Id::AllowMultipleDefinition
        | Id::AllowShlibUndefined
        | Id::AndroidMemtagHeap
        | Id::AndroidMemtagMode
        | Id::AndroidMemtagStack
        | Id::ApplyDynamicRelocs
        | Id::AsNeeded
        | Id::Auxiliary
        | Id::Bdynamic
        | Id::Be8
        | Id::BnoSymbolic
        | Id::BpCompressionSort
        | Id::BpCompressionSortStartupFunctions
        | Id::BpStartupSort
        | Id::BranchToBranch
        | Id::Bstatic
        | Id::Bsymbolic
        | Id::BsymbolicFunctions
        | Id::BsymbolicNonWeak
        | Id::BsymbolicNonWeakFunctions
        | Id::BuildId
        | Id::CallGraphOrderingFile
        | Id::CheckDynamicRelocations
        | Id::CheckSections
        | Id::CmseImplib
        | Id::ColorDiagnostics
        | Id::CompressDebugSections
        | Id::CompressSections
        | Id::Cref
        | Id::DebugNames
        | Id::DefaultScript
        | Id::DefineCommon
        | Id::Defsym
        | Id::Demangle
        | Id::DependencyFile
        | Id::DependentLibraries
        | Id::DisableNewDtags
        | Id::DiscardAll
        | Id::DiscardLocals
        | Id::DiscardNone
        | Id::DynamicLinker
        | Id::DynamicList
        | Id::Eb
        | Id::EhFrameHdr
        | Id::El
        | Id::EmitRelocs
        | Id::Emulation
        | Id::EnableNewDtags
        | Id::EnableNonContiguousRegions
        | Id::EndGroup
        | Id::EndLib
        | Id::Entry
        | Id::ErrorHandlingScript
        | Id::ErrorUnresolvedSymbols
        | Id::ExcludeLibs
        | Id::ExecuteOnly
        | Id::ExportDynamic
        | Id::ExportDynamicSymbol
        | Id::ExportDynamicSymbolList
        | Id::FatLtoObjects
        | Id::Filter
        | Id::Fini
        | Id::FixCortexA53843419
        | Id::FixCortexA8
        | Id::ForceGroupAllocation
        | Id::Format
        | Id::FortranCommon
        | Id::GcSections
        | Id::GdbIndex
        | Id::GnuUnique
        | Id::HashStyle
        | Id::Help
        | Id::IcfAll
        | Id::IcfNone
        | Id::IcfSafe
        | Id::IgnoreDataAddressEquality
        | Id::IgnoreFunctionAddressEquality
        | Id::Ignored
        | Id::ImageBase
        | Id::InImplib
        | Id::Init
        | Id::IrpgoProfile
        | Id::JustSymbols
        | Id::KeepUnique
        | Id::Library
        | Id::LibraryPath
        | Id::Map
        | Id::MergeExidxEntries
        | Id::MipsGotSize
        | Id::MmapOutputFile
        | Id::Nmagic
        | Id::NoAllowMultipleDefinition
        | Id::NoAllowShlibUndefined
        | Id::NoAndroidMemtagHeap
        | Id::NoAndroidMemtagStack
        | Id::NoApplyDynamicRelocs
        | Id::NoAsNeeded
        | Id::NoBpCompressionSortStartupFunctions
        | Id::NoBranchToBranch
        | Id::NoCheckDynamicRelocations
        | Id::NoCheckSections
        | Id::NoDebugNames
        | Id::NoDefineCommon
        | Id::NoDemangle
        | Id::NoDependentLibraries
        | Id::NoDynamicLinker
        | Id::NoEhFrameHdr
        | Id::NoExecuteOnly
        | Id::NoExportDynamic
        | Id::NoFatLtoObjects
        | Id::NoFortranCommon
        | Id::NoGcSections
        | Id::NoGdbIndex
        | Id::NoGnuUnique
        | Id::NoMergeExidxEntries
        | Id::NoMmapOutputFile
        | Id::NoNmagic
        | Id::NoOmagic
        | Id::NoOptimizeBbJumps
        | Id::NoPcrelOptimize
        | Id::NoPie
        | Id::NoPrintGcSections
        | Id::NoPrintIcfSections
        | Id::NoRelax
        | Id::NoRelaxGp
        | Id::NoRosegment
        | Id::NoTocOptimize
        | Id::NoUndefined
        | Id::NoUndefinedVersion
        | Id::NoUseAndroidRelrTags
        | Id::NoWarnBackrefs
        | Id::NoWarnCommon
        | Id::NoWarnIfuncTextrel
        | Id::NoWarnMismatch
        | Id::NoWarnSymbolOrdering
        | Id::NoWholeArchive
        | Id::NoXosegment
        | Id::NoinhibitExec
        | Id::Nostdlib
        | Id::Oformat
        | Id::Omagic
        | Id::Optimize
        | Id::OptimizeBbJumps
        | Id::OrphanHandling
        | Id::OutImplib
        | Id::Output
        | Id::PackDynRelocs
        | Id::PackageMetadata
        | Id::PcrelOptimize
        | Id::PicVeneer
        | Id::Pie
        | Id::Plugin
        | Id::PopState
        | Id::Power10Stubs
        | Id::PrintArchiveStats
        | Id::PrintGcSections
        | Id::PrintGcSectionsEq
        | Id::PrintIcfSections
        | Id::PrintMap
        | Id::PrintMemoryUsage
        | Id::PrintSymbolOrder
        | Id::PushState
        | Id::RandomizeSectionPadding
        | Id::Relax
        | Id::RelaxGp
        | Id::Relocatable
        | Id::RemapInputs
        | Id::RemapInputsFile
        | Id::RetainSymbolsFile
        | Id::Rosegment
        | Id::Rpath
        | Id::RspQuoting
        | Id::Script
        | Id::SectionStart
        | Id::Shared
        | Id::ShuffleSections
        | Id::Soname
        | Id::SortSection
        | Id::SplitStackAdjustSize
        | Id::StartGroup
        | Id::StartLib
        | Id::StripAll
        | Id::StripDebug
        | Id::SymbolOrderingFile
        | Id::Sysroot
        | Id::Target1Abs
        | Id::Target1Rel
        | Id::Target2
        | Id::Tbss
        | Id::Tdata
        | Id::ThinltoCacheDir
        | Id::ThinltoCachePolicy
        | Id::ThinltoDistributorArg
        | Id::ThinltoJobs
        | Id::ThinltoRemoteCompiler
        | Id::ThinltoRemoteCompilerArg
        | Id::ThinltoRemoteCompilerPrependArg
        | Id::Threads
        | Id::TocOptimize
        | Id::Trace
        | Id::TraceSymbol
        | Id::Ttext
        | Id::TtextSegment
        | Id::Undefined
        | Id::UndefinedGlob
        | Id::UndefinedVersion
        | Id::Unique
        | Id::UnresolvedSymbols
        | Id::UseAndroidRelrTags
        | Id::V
        | Id::Verbose
        | Id::VerboseBpSectionOrderer
        | Id::Version
        | Id::VersionScript
        | Id::VsDiagnostics
        | Id::WarnBackrefs
        | Id::WarnBackrefsExclude
        | Id::WarnCommon
        | Id::WarnIfuncTextrel
        | Id::WarnSymbolOrdering
        | Id::WarnUnresolvedSymbols
        | Id::WholeArchive
        | Id::WhyExtract
        | Id::WhyLive
        | Id::Wrap
        | Id::Xosegment
        | Id::Z => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::response::tokenize_gnu;

    #[test]
    fn a_distributor_that_is_undone_is_none() {
        let left = |line: &str| {
            let cmd = CommandLine::parse(&tokenize_gnu(line.as_bytes())).unwrap();
            left_to_lld(&cmd)
        };
        let reason = left("--thinlto-distributor=d a.o");
        assert!(reason.is_some_and(|reason| reason.starts_with("--thinlto-distributor:")));
        assert_eq!(
            left("--thinlto-distributor=d a.o --thinlto-distributor="),
            None
        );
        assert_eq!(
            left("--thinlto-distributor= --thinlto-distributor=d"),
            reason
        );
        let other = left("--thinlto-distributor= --save-temps a.o");
        assert!(other.is_some_and(|reason| reason.starts_with("--save-temps:")));
        assert_eq!(left("-o a a.o"), None);
    }

    #[test]
    fn words_are_no_files() {
        assert!(names_file(Id::LtoSampleProfile, b"all"));
        assert!(names_file(Id::LtoBasicBlockSections, b"list"));
        assert!(!names_file(Id::LtoBasicBlockSections, b"all"));
        assert!(!names_file(Id::LtoCsProfileFile, b""));
    }
}
