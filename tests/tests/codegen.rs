//! Code generation: every option of the link, and every flag of the compiler that lives on in the
//! bitcode, either gives the same objects by backends or forwards with a reason.
//!
//! The tables are lld's LTO options (lld/ELF/Options.td), what clang's driver passes on to them
//! (`addLTOOptions`, clang/lib/Driver/ToolChains/CommonArgs.cpp) and LLVM's own that lld takes
//! (llvm/lib/CodeGen/CommandFlags.cpp, llvm/lib/MC/MCTargetOptionsCommandFlags.cpp). Each row links
//! three times: with lld, through ldwrap, and with lld's `--lto-obj-path` (docs/lld.md, "Objects of an in-process link"), whose objects
//! are what the backends' have to be.

use std::fs;
use std::ops::RangeInclusive;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use Outcome::{Changes, Forwards, NoEffect};
use ldwrap_tests::{Session, each_llvm, fixtures_only};

/// What a row of options comes to.
#[derive(Clone, Copy)]
enum Outcome {
    /// Split, and other objects than without the options: the row is known to test something.
    Changes,
    /// Split, and the same objects as without.
    NoEffect,
    /// Forwarded, for a reason that contains this.
    Forwards(&'static str),
}

/// Options, the LLVM versions that have them, and what they come to.
type Row = (&'static str, RangeInclusive<u32>, Outcome);

const ALL: RangeInclusive<u32> = 14..=22;
/// For what we decide before any LLVM has a say.
const NEWEST: RangeInclusive<u32> = 22..=22;

/// How the objects of the tables are linked. Without libraries: what is undefined stays so.
const LINK: &str = "$LD -o $OUT -pie -E -e main --unresolved-symbols=ignore-all";
const OBJECTS: &str = "main.o lib.o cls.o";

/// Loops, switches, thread-local and static data, floating point, calls across modules, cold code,
/// a constructor, virtual functions, exceptions.
fn write_sources(s: &Session) {
    s.write(
        "main.c",
        "int printf(const char *, ...); extern __thread int counter; extern int table[64];\n\
         int classify(int), hot(int), twice(int), guarded(int); double dot(const double *, const double *, int);\n\
         void fill(int *, int); void waves(float *, const float *);\n\
         static double xs[32], ys[32]; float in[64], out[64];\n\
         __attribute__((noinline)) int spread(int n) {\n\
           switch (n & 15) { case 0: return twice(n); case 1: return classify(n); case 2: return 77; case 3: return n * 3;\n\
             case 4: return hot(n + 1); case 5: return -n; case 6: return n ^ 0x55; case 9: return hot(n); default: return n; }\n\
         }\n\
         int main(int argc, char **argv) {\n\
           int sum = 0; fill(table, argc);\n\
           for (int i = 0; i < argc * 700; i++) { sum += spread(i) + table[i & 63];\n\
             if (sum < -100000000) printf(\"rare %d\\n\", sum); counter++; }\n\
           waves(out, in);\n\
           return printf(\"%d %f %d\\n\", sum + counter, dot(xs, ys, 32), guarded(argc)) < 0;\n\
         }\n",
    );
    s.write(
        "lib.c",
        "int printf(const char *, ...); float sinf(float); __thread int counter = 3; static __thread int hidden;\n\
         int table[64]; static int state; static const char *names[4] = {\"a\", \"b\", \"c\", \"d\"};\n\
         __attribute__((weak)) int hook(int n) { return n + 1; }\n\
         __attribute__((section(\"named\"))) int named_a = 1; __attribute__((section(\"named\"))) int named_b = 2;\n\
         static int apply(int (*f)(int), int n) { hidden += n; return f(n) + hidden; }\n\
         int twice(int n) { return apply(hook, n) * 2; }\n\
         int classify(int n) {\n\
           switch (n % 11) { case 0: return hook(1); case 1: return 20; case 2: state++; return 31; case 3: return state;\n\
             case 4: return 7; case 5: return 99; case 6: return 12; default: return names[n & 3][0]; }\n\
         }\n\
         int hot(int n) {\n\
           char buffer[40]; for (int i = 0; i < 40; i++) buffer[i] = (char)(n + i);\n\
           state += buffer[n & 31];\n\
           if (__builtin_expect(state == 12345, 0)) { printf(\"cold %d\\n\", state); printf(\"colder %d\\n\", n); }\n\
           return state;\n\
         }\n\
         double dot(const double *a, const double *b, int n) { double s = 0;\n\
           for (int i = 0; i < n; i++) s += a[i] * b[i] + a[i] / 3.0; return s; }\n\
         void fill(int *t, int n) { for (int i = 0; i < 64; i++) t[i] = i * n + 5; }\n\
         void waves(float *to, const float *from) { for (int i = 0; i < 64; i++) to[i] = sinf(from[i]); }\n\
         static void early(void) __attribute__((constructor)); static void early(void) { state = 1; }\n",
    );
    s.write(
        "cls.cc",
        "extern \"C\" int printf(const char *, ...); extern \"C\" int hot(int);\n\
         struct Shape { virtual int area(int) const; virtual ~Shape(); };\n\
         int Shape::area(int n) const { return n; } Shape::~Shape() { printf(\"gone\\n\"); }\n\
         namespace { struct Square final : Shape { int side = 3; int area(int n) const override { return n * side; } }; }\n\
         template <class T> __attribute__((noinline)) T largest(T a, T b) { return a < b ? b : a; }\n\
         static Square square; Shape *shape = &square;\n\
         int measure(int n) { if (n > 1000) throw n; return shape->area(largest(n, 4)) + (int)largest(1.5, n * 2.0); }\n\
         extern \"C\" int guarded(int n) { try { return measure(n) + hot(n); } catch (int e) { return e; } }\n",
    );
    // Some versions want definitions in what is not position-independent.
    s.write(
        "stubs.s",
        ".irp name, printf, sinf, __gxx_personality_v0, _ZTIi, __cxa_throw, __cxa_allocate_exception, \
         __cxa_begin_catch, __cxa_end_catch, _ZdlPv, _ZdlPvm, _Unwind_Resume, __stack_chk_fail, \
         _ZTVN10__cxxabiv117__class_type_infoE, _ZTVN10__cxxabiv120__si_class_type_infoE, _ZSt9terminatev\n\
         .globl \\name\n\\name: .quad 0\n.endr\n",
    );
    // A sample profile, for what needs counts.
    s.write(
        "samples",
        "main:90000:1\n 4: 700\n 5: 1\nspread:70000:700\n 1: 700\nhot:184019:700\n 1: 4534\n 2: 4534\n 3: 0\n",
    );
    s.write(
        "other-samples",
        "main:90000:1\n 4: 1\n 5: 700\nclassify:184019:700\n 1: 1\n 3: 4534\ntwice:90000:9000\n 0: 9000\n",
    );
    s.write("blocks", "!hot\n!!0 2\n!spread\n!!0\n");
}

fn compile(s: &Session, flags: &str) {
    s.sh(&format!(
        "clang-$N -c -O2 -fPIC -flto=thin {flags} main.c lib.c & \
         clang++-$N -c -O2 -fPIC -flto=thin {flags} cls.cc; wait $!"
    ));
}

/// The objects that lld makes in-process, by `--lto-obj-path`.
fn in_process(s: &Session, command: &str) -> Vec<Vec<u8>> {
    let dir = directory(s, "in-process");
    s.sh(&format!(
        "OUT={0}/out; {command} --lto-obj-path={0}/o",
        dir.display()
    ));
    read(&dir)
}

/// A directory beside the working directory, empty.
fn directory(s: &Session, name: &str) -> PathBuf {
    let dir = s.root().join(name);
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir(&dir).expect("a directory for objects");
    dir
}

/// `o1`, `o2`, ...: the objects of the ThinLTO modules.
fn read(dir: &Path) -> Vec<Vec<u8>> {
    (1..)
        .map_while(|n| fs::read(dir.join(format!("o{n}"))).ok())
        .collect()
}

/// Links in all ways and compares. `base` are the in-process objects without the options.
fn check(s: &Session, command: &str, base: &[Vec<u8>], outcome: Outcome) {
    let dir = directory(s, "backends");
    let prefix = dir.join("o");
    let save = (
        "LDWRAP_SAVE_OBJECTS",
        prefix.to_str().expect("a plain name"),
    );
    let both = s.link_both_with(&[save], command);
    if let Forwards(why) = outcome {
        both.left_to_lld(why);
        return;
    }
    both.splits();
    let expected = in_process(s, command);
    let changed = expected != base;
    assert_eq!(
        changed,
        matches!(outcome, Changes),
        "objects changed: {changed}"
    );
    if fixtures_only() {
        return;
    }
    for (n, object) in (1..).zip(&expected) {
        match fs::read(dir.join(format!("o{n}"))) {
            Ok(ours) => assert!(&ours == object, "object {n} differs"),
            // A module that lld has something to say about it compiles itself.
            Err(e) => assert!(!both.plain.stderr.is_empty(), "no object {n}: {e}"),
        }
    }
}

/// Runs all rows that a version has, and names those that failed.
fn rows(s: &Session, rows: &[Row], mut one: impl FnMut(&Row)) {
    let failed: Vec<&str> = rows
        .iter()
        .filter(|(_, llvm, _)| llvm.contains(&s.llvm))
        .filter(|row| catch_unwind(AssertUnwindSafe(|| one(row))).is_err())
        .map(|(options, ..)| *options)
        .collect();
    assert!(failed.is_empty(), "LLVM {}: {failed:#?}", s.llvm);
}

/// A table of link options.
fn options(table: &[Row]) {
    each_llvm(|s| {
        write_sources(s);
        compile(
            s,
            "-g -gdwarf-4 -fno-math-errno -fprofile-sample-use=samples",
        );
        let base = in_process(s, &format!("{LINK} {OBJECTS}"));
        assert_eq!(base.len(), 3);
        rows(s, table, |(options, _, outcome)| {
            check(s, &format!("{LINK} {options} {OBJECTS}"), &base, *outcome);
        });
    });
}

/// lld's own options.
#[test]
#[rustfmt::skip]
fn options_of_lld() {
    options(&[
        ("-plugin-opt=O3", ALL, Changes),
        ("--lto-O0", ALL, Forwards("level 0")),
        ("-plugin-opt=O1", ALL, Forwards("level 1")),
        ("--lto-CGO3", 19..=22, Forwards("--lto-CGO")),
        // Functions that clang compiled have their CPU and features with them.
        ("-plugin-opt=mcpu=haswell", ALL, NoEffect),
        ("-plugin-opt=mcpu=generic", ALL, Forwards("generic")),
        ("-plugin-opt=mcpu=native", ALL, Forwards("native")),
        (
            "--lto-O2 -plugin-opt=mcpu=x86-64 -plugin-opt=jobs=2 -plugin-opt=thinlto --disable-verify \
             --lto-whole-program-visibility --lto-basic-block-sections=none",
            ALL,
            NoEffect,
        ),
        (
            "--lto-O2 --lto-CGO2 --lto-validate-all-vtables-have-type-infos --lto-known-safe-vtables=_ZTV5Shape \
             --lto-basic-block-address-map --no-lto-basic-block-address-map",
            19..=22,
            NoEffect,
        ),
        ("-plugin-opt=new-pass-manager", 14..=16, NoEffect),
        ("-plugin-opt=legacy-pass-manager", 14..=14, Forwards("legacy")),
        ("-plugin-opt=sample-profile=$PWD/other-samples", ALL, Changes),
        ("--lto-sample-profile=samples --lto-cs-profile-generate", ALL, Forwards("beside")),
        ("--lto-cs-profile-generate", ALL, Changes),
        ("-plugin-opt=cs-profile-generate -plugin-opt=cs-profile-path=d/%m.profraw", ALL, Changes),
        ("--lto-cs-profile-file=samples", 14..=19, Forwards("not context-sensitive")),
        ("--lto-basic-block-sections=all --lto-unique-basic-block-section-names", ALL, Changes),
        ("--lto-basic-block-sections=labels", 14..=19, Changes),
        ("--lto-basic-block-sections=labels", 22..=22, Forwards("deprecated")),
        ("--lto-basic-block-sections=blocks", ALL, Changes),
        ("--lto-basic-block-address-map", 19..=22, Changes),
    ]);
}

/// LLVM's options, as clang's driver passes them or as users do.
#[test]
#[rustfmt::skip]
fn options_of_llvm() {
    options(&[
        // In lld, those of -plugin-opt= come first, wherever they are.
        ("-mllvm -inline-threshold=-500 -plugin-opt=-inline-threshold=1000", 16..=22, Changes),
        ("-mllvm -jump-table-density=90 --mllvm=-min-jump-table-entries=20", ALL, Changes),
        ("-plugin-opt=-x86-branches-within-32B-boundaries", ALL, Changes),
        ("-plugin-opt=-generate-arange-section", ALL, Changes),
        ("-plugin-opt=-enable-machine-outliner", ALL, Changes),
        (
            "-plugin-opt=-function-sections=0 -plugin-opt=-data-sections=0 -mllvm -addrsig=0 \
             -plugin-opt=-debugger-tune=gdb -mllvm -crash-diagnostics-dir=x",
            ALL,
            NoEffect,
        ),
        ("-plugin-opt=-debugger-tune=lldb", ALL, Changes),
        ("-plugin-opt=-debugger-tune=sce", ALL, Changes),
        ("-plugin-opt=-stack-size-section", ALL, Changes),
        ("-plugin-opt=-emulated-tls=1", ALL, Changes),
        ("-plugin-opt=-enable-tlsdesc", 19..=22, Changes),
        ("-mllvm -strict-dwarf=false -mllvm -strict-dwarf", 16..=22, Changes),
        ("-mllvm -dwarf64", ALL, Changes),
        ("-mllvm -force-dwarf-frame-section", ALL, Changes),
        ("-plugin-opt=-split-machine-functions", ALL, Changes),
        ("-plugin-opt=-partition-static-data-sections", 22..=22, Changes),
        ("-plugin-opt=-call-graph-section", 22..=22, Changes),
        ("-mllvm -separate-named-sections", 19..=22, Changes),
        ("-plugin-opt=-enable-jmc-instrument", 16..=22, Changes),
        ("-mllvm -use-ctors", ALL, Changes),
        ("-plugin-opt=-crel", 19..=22, Changes),
        ("-mllvm -x86-relax-relocations=0", 19..=22, Changes),
        ("-mllvm -unique-section-names=false", ALL, Changes),
        ("-mllvm -align-loops=32", ALL, Changes),
        ("-mllvm -code-model=large", ALL, Changes),
        ("-plugin-opt=-vector-library=SVML", ALL, Changes),
        ("-plugin-opt=-vector-library=LIBMVEC-X86", 14..=19, Changes),
        ("-plugin-opt=-vector-library=LIBMVEC", 22..=22, Changes),
    ]);
}

/// What clang cannot be told, or what is lld's own to say or to write.
#[test]
#[rustfmt::skip]
fn options_that_forward() {
    options(&[
        ("--lto-obj-path=objects", NEWEST, Forwards("--lto-obj-path")),
        ("--lto-emit-asm", NEWEST, Forwards("--lto-emit-asm")),
        ("-plugin-opt=emit-llvm --thinlto-jobs=1", NEWEST, Forwards("emit-llvm")),
        ("--save-temps", NEWEST, Forwards("--save-temps")),
        ("--lto-newpm-passes=instcombine", NEWEST, Forwards("--lto-newpm-passes")),
        ("--lto-newpm-passes=globalopt --lto-aa-pipeline=basic-aa", NEWEST, Forwards("--lto-")),
        ("--opt-remarks-filename=remarks", NEWEST, Forwards("opt-remarks")),
        ("-plugin-opt=stats-file=stats", 16..=22, Forwards("stats-file")),
        ("-plugin-opt=dwo_dir=dwo", NEWEST, Forwards("dwo_dir")),
        ("-plugin-opt=-pass-remarks=inline --thinlto-jobs=1", NEWEST, Forwards("pass-remarks")),
        ("-plugin-opt=no-opaque-pointers", 16..=16, Forwards("opaque-pointers")),
        ("-mllvm -lto-embed-bitcode=optimized", NEWEST, Forwards("names of local values")),
        ("-mllvm -enable-fs-discriminator", NEWEST, Forwards("names of local values")),
        ("-mllvm -codegen-data-generate", 22..=22, Forwards("across")),
        ("-mllvm -sample-profile-file=samples", NEWEST, Forwards("a file")),
        ("-mllvm -mattr=+avx", NEWEST, Forwards("mattr")),
        ("-mllvm -relocation-model=pic", NEWEST, Forwards("relocation-model")),
        ("-mllvm -basic-block-sections=all", NEWEST, Forwards("basic-block-sections")),
        ("-mllvm -tailcallopt -mllvm -stack-symbol-ordering=0", NEWEST, Forwards("tailcallopt")),
        ("-mllvm -dwarf-version=4", NEWEST, Forwards("dwarf-version")),
        ("-mllvm -mc-relax-all", NEWEST, Forwards("mc-relax-all")),
        ("-mllvm -emit-call-site-info", NEWEST, Forwards("emit-call-site-info")),
        ("-mllvm -target-abi=x", NEWEST, Forwards("target-abi")),
    ]);
}

/// A table of flags of the compiler, which live on in the bitcode; behind ` :: `, options of the link
/// that go with them.
fn flags(table: &[Row]) {
    each_llvm(|s| {
        write_sources(s);
        compile(s, "");
        let base = in_process(s, &format!("{LINK} {OBJECTS}"));
        rows(s, table, |(flags, _, outcome)| {
            let (flags, link) = flags.split_once(" :: ").unwrap_or((flags, ""));
            compile(s, flags);
            let mut command = format!("{LINK} {link} {OBJECTS}");
            if link.contains("-shared") {
                command = command.replace(" -pie", "");
            } else if link.contains("-no-pie") {
                s.compile("clang-$N -c stubs.s");
                command = command.replace(" -pie", "") + " stubs.o";
            }
            check(s, &command, &base, *outcome);
        });
    });
}

#[test]
#[rustfmt::skip]
fn flags_of_code() {
    flags(&[
        ("-O0", ALL, Changes),
        ("-O3 -ffast-math", ALL, Changes),
        ("-Os", ALL, Changes),
        ("-Oz -fno-jump-tables", ALL, Changes),
        ("-fno-plt -fno-builtin", ALL, Changes),
        ("-mcmodel=large", ALL, Changes),
        ("-mcmodel=medium -fno-pic :: -no-pie", ALL, Changes),
        ("-fpie", ALL, Changes),
        (" :: -no-pie", ALL, Changes),
        (" :: -shared", ALL, Changes),
        ("-fsemantic-interposition :: -shared", ALL, Changes),
        ("-fvisibility=hidden :: -shared", ALL, Changes),
        ("-ftls-model=initial-exec", ALL, Changes),
        ("-femulated-tls :: -plugin-opt=-emulated-tls", ALL, Changes),
        ("-ffreestanding -fwrapv -fcommon -mno-red-zone", ALL, Changes),
        ("-march=haswell :: -plugin-opt=mcpu=haswell", ALL, Changes),
        ("-mtune=znver3", ALL, Changes),
        ("-frounding-math -ffp-model=strict -Wno-everything", ALL, Changes),
        ("-fno-omit-frame-pointer -falign-functions=64 -fno-exceptions -Wno-everything -Dthrow=return -Dtry= -D'catch(x)=if(int e=n)'", ALL, Changes),
        ("-fno-asynchronous-unwind-tables", ALL, Changes),
        ("--target=i686-linux-gnu", ALL, Changes),
        ("--target=aarch64-linux-gnu :: -plugin-opt=mcpu=generic", ALL, Changes),
        ("--target=aarch64-linux-gnu -mcpu=neoverse-n1 -mbranch-protection=standard -moutline-atomics :: -plugin-opt=mcpu=neoverse-n1", ALL, Changes),
        ("--target=armv7-linux-gnueabihf", ALL, Forwards("target armv7")),
        ("--target=x86_64-linux-android", ALL, Forwards("android")),
        ("-fno-function-sections -fno-unique-section-names -fno-integrated-as", ALL, NoEffect),
        ("-Wa,-mrelax-relocations=no -gz", ALL, NoEffect),
    ]);
}

#[test]
#[rustfmt::skip]
fn flags_of_debug_information() {
    flags(&[
        ("-g -gdwarf-5 -gz", ALL, Changes),
        ("-g -gdwarf-4 -fdebug-types-section", ALL, Changes),
        ("-g -gsplit-dwarf", ALL, Changes),
        ("-g -gsplit-dwarf=single -ggnu-pubnames", ALL, Changes),
        ("-g -gstrict-dwarf -ggdb3 -gcolumn-info :: -plugin-opt=-debugger-tune=gdb", ALL, Changes),
        ("-gmlt -fdebug-info-for-profiling", ALL, Changes),
        // In LLVM 14 and 16 the order of probes is by address: no two links are the same.
        ("-gmlt -fpseudo-probe-for-profiling", 19..=22, Changes),
        ("-g -fstandalone-debug -fdebug-prefix-map=/=/x -fdebug-compilation-dir=/y", ALL, Changes),
        ("-g -gsplit-dwarf :: -plugin-opt=dwo_dir=dwo", ALL, Forwards("dwo_dir")),
    ]);
}

#[test]
#[rustfmt::skip]
fn flags_of_instrumentation_and_hardening() {
    flags(&[
        ("-fstack-protector-strong -fcf-protection=full -fstack-clash-protection", ALL, Changes),
        ("-mretpoline -ftrivial-auto-var-init=pattern", ALL, Changes),
        ("-mspeculative-load-hardening -fzero-call-used-regs=used", 16..=22, Changes),
        ("-mharden-sls=all -mfunction-return=thunk-extern", 16..=22, Changes),
        ("-pg -mfentry", ALL, Changes),
        ("-finstrument-functions -fpatchable-function-entry=3,1", ALL, Changes),
        ("-fxray-instrument -fxray-instruction-threshold=1", ALL, Changes),
        ("-fsanitize=address", ALL, Changes),
        ("-fsanitize=thread -fsanitize-coverage=trace-pc-guard", ALL, Changes),
        ("-fsanitize=undefined -fno-sanitize=vptr,function", ALL, Changes),
        ("-fsanitize=safe-stack", ALL, Changes),
        ("-fsanitize=cfi -fvisibility=hidden", ALL, Changes),
        ("-fsanitize=cfi-icall -fsanitize-cfi-cross-dso -fvisibility=hidden", ALL, Changes),
        ("-fsanitize=kcfi", 16..=22, Changes),
        ("-fprofile-generate", ALL, Changes),
        ("-fprofile-instr-generate -fcoverage-mapping", ALL, Changes),
        ("-g -fprofile-sample-use=samples -fsplit-machine-functions :: -plugin-opt=-split-machine-functions -plugin-opt=-function-sections", ALL, Changes),
        ("-fwhole-program-vtables -fvisibility=hidden", ALL, Changes),
        ("-fwhole-program-vtables -fno-split-lto-unit -fstrict-vtable-pointers :: --lto-whole-program-visibility", ALL, Changes),
        ("-fsplit-lto-unit", ALL, Changes),
        ("-fbasic-block-sections=all -fstack-size-section", ALL, NoEffect),
        ("-funified-lto :: --lto=thin", 19..=22, Changes),
        ("-fembed-bitcode=all -Wno-everything", ALL, NoEffect),
    ]);
}

/// What a source can say itself.
#[test]
fn oddities_of_sources() {
    each_llvm(|s| {
        write_sources(s);
        s.write(
            "odd.c",
            "int hot(int); extern int table[64];\n\
             __asm__(\".pushsection .text.asm,\\\"ax\\\"\\n.globl from_asm\\nfrom_asm: lea 4(%rdi),%eax\\nret\\n.popsection\");\n\
             int from_asm(int);\n\
             static int plain(int n) { return n + hot(n); } static int quick(int n) { return n * 2; }\n\
             static int (*choose(void))(int) { return table[0] ? plain : quick; }\n\
             int chosen(int) __attribute__((ifunc(\"choose\")));\n\
             int aliased(int) __attribute__((alias(\"odd\"))); int weakly(int) __attribute__((weak, alias(\"odd\")));\n\
             __attribute__((target(\"avx2\"))) void wide(int *to, const int *from) { for (int i = 0; i < 64; i++) to[i] += from[i] * 3; }\n\
             __attribute__((target_clones(\"avx\", \"default\"))) int cloned(int n) { return n + table[n & 63]; }\n\
             __attribute__((used, section(\".keep\"))) static int kept = 4; int common_one; const int fixed = 7;\n\
             __attribute__((aligned(256), no_stack_protector, cold)) int odd(int n) {\n\
               int r; __asm__ volatile(\"addl %1, %0\" : \"=r\"(r) : \"r\"(n), \"0\"(n)); void *l = &&there;\n\
               if (n > 3) goto *l; r += from_asm(n); there: return r + chosen(n) + cloned(n); }\n",
        );
        // Functions without attributes, and one with a CPU but without features, as rustc makes them.
        s.write(
            "bare.ll",
            "target triple = \"x86_64-pc-linux-gnu\"\n\
             declare i64 @llvm.ctpop.i64(i64)\n\
             define double @bare(double %a, float %b, i64 %c) {\n\
               %x = fpext float %b to double\n  %y = fmul double %a, %x\n  %z = sitofp i64 %c to double\n\
               %w = fadd double %y, %z\n  ret double %w\n}\n\
             define i64 @bits(i64 %v) {\n  %c = call i64 @llvm.ctpop.i64(i64 %v)\n  ret i64 %c\n}\n\
             define <8 x float> @sum(<8 x float> %a, <8 x float> %b) {\n  %s = fadd <8 x float> %a, %b\n  ret <8 x float> %s\n}\n",
        );
        s.write(
            "cpu.ll",
            "target triple = \"x86_64-pc-linux-gnu\"\n\
             define <8 x float> @product(<8 x float> %a, <8 x float> %b) #0 {\n\
               %s = fmul <8 x float> %a, %b\n  ret <8 x float> %s\n}\n\
             attributes #0 = { \"target-cpu\"=\"x86-64\" }\n",
        );
        compile(s, "");
        s.compile("clang-$N -c -O2 -fPIC -flto=thin odd.c; \
              clang-$N -c -O2 -flto=thin -x ir bare.ll -o bare.o; clang-$N -c -O2 -flto=thin -x ir cpu.ll -o cpu.o");
        let odd = format!("{LINK} {OBJECTS} odd.o bare.o");
        check(s, &format!("{odd} cpu.o"), &[], Changes);
        check(
            s,
            &format!("{odd} cpu.o -plugin-opt=mcpu=x86-64"),
            &[],
            Changes,
        );
        check(
            s,
            &format!("{odd} -plugin-opt=mcpu=skylake-avx512"),
            &[],
            Changes,
        );
        // clang would compile `product` for AVX.
        let features = Forwards("without target features");
        check(
            s,
            &format!("{odd} cpu.o -plugin-opt=mcpu=haswell"),
            &[],
            features,
        );
    });
}

/// Profiles of instrumented programs. lld takes any for its backends, clang only one with
/// context-sensitive records.
#[test]
fn instrumentation_profiles() {
    each_llvm(|s| {
        write_sources(s);
        let build = |flags: &str, lto: &str| {
            s.sh(&format!(
                "clang-$N -c -O2 {lto} {flags} main.c lib.c; clang++-$N -c -O2 {lto} {flags} cls.cc; \
                 clang++-$N -O2 {lto} {flags} -fuse-ld=lld -o prog {OBJECTS} -lm; ./prog >/dev/null"
            ));
        };
        build("-fprofile-generate=raw", "");
        s.sh("llvm-profdata-$N merge -o plain.prof raw");
        build(
            "-fprofile-use=plain.prof -fcs-profile-generate=cs",
            "-flto=thin",
        );
        s.sh("llvm-profdata-$N merge -o cs.prof plain.prof cs");
        compile(s, "-fprofile-use=cs.prof");
        // With one thread, lld's warnings come in one order.
        let link =
            |options: &str| format!("{LINK} --thinlto-jobs=1 -plugin-opt=O3 {options} {OBJECTS}");
        let base = in_process(s, &link(""));
        for (options, outcome) in [
            ("-plugin-opt=cs-profile-path=cs.prof", Changes),
            ("--lto-cs-profile-generate", Changes),
            (
                "--lto-cs-profile-file=cs.prof --no-lto-pgo-warn-mismatch",
                Forwards("--no-lto-pgo-warn-mismatch"),
            ),
            (
                "-plugin-opt=cs-profile-path=plain.prof",
                if s.llvm < 22 {
                    Forwards("not context-sensitive")
                } else {
                    // The passes run, in clang as in lld, and find nothing in this one.
                    NoEffect
                },
            ),
        ] {
            check(s, &link(options), &base, outcome);
        }
        if s.llvm >= 22 {
            // Orders sections in the final link.
            let order = "--irpgo-profile=plain.prof --bp-startup-sort=function";
            check(s, &link(order), &base, NoEffect);
        }
        // A function that has changed since: lld warns, so it compiles that module itself.
        s.sh("sed -i 's/return n . 3;/if (n \\& 1) return 5; &/' main.c");
        compile(s, "-fprofile-use=cs.prof -Wno-everything");
        s.link_both(&link("-plugin-opt=cs-profile-path=cs.prof"))
            .splits();
    });
}
