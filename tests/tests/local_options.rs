//! Options, and files that they name, in the keys of cached objects: what shapes code tells objects apart.

use ldwrap_tests::{LinkPair, Session, each_llvm, some_llvm};

fn link<'s>(s: &'s Session, command: &str) -> LinkPair<'s> {
    s.link_both_cached(&[], command)
}

/// An option that shapes code: the first release of LLVM that has it, and two values.
type Shaping = (u32, &'static str, &'static str);

/// Each makes another output of [`shaped`].
const SHAPING: [Shaping; 17] = [
    (
        0,
        "-mllvm -align-all-functions=5",
        "-mllvm -align-all-functions=6",
    ),
    (
        0,
        "-mllvm -align-all-blocks=4",
        "-mllvm -align-all-blocks=3",
    ),
    (0, "-mllvm -unroll-count=3", "-mllvm -inline-threshold=0"),
    (
        0,
        "-mllvm -disable-block-placement",
        "-plugin-opt=-disable-block-placement --lto-O1",
    ),
    (
        0,
        "-plugin-opt=-stack-size-section",
        "-plugin-opt=-stack-size-section --lto-O3",
    ),
    (
        0,
        "-plugin-opt=-emulated-tls",
        "-plugin-opt=-emulated-tls --lto-O3",
    ),
    (
        0,
        "-plugin-opt=-code-model=large",
        "-plugin-opt=-code-model=large --lto-O3",
    ),
    (
        0,
        "-plugin-opt=mcpu=skylake-avx512",
        "-plugin-opt=mcpu=atom",
    ),
    (0, "-mllvm -mattr=+avx2", "-mllvm -mattr=+bmi2,+avx512f"),
    (
        0,
        "--lto-basic-block-sections=all",
        "--lto-basic-block-sections=none --lto-O0",
    ),
    (0, "--lto-O0", "--lto-O1"),
    (0, "-plugin-opt=O1", "--lto-O1 --lto-O3"),
    (17, "--lto-CGO0", "--lto-CGO3"),
    (
        0,
        "--lto-newpm-passes=default<O0>",
        "--lto-newpm-passes=default<O1>",
    ),
    (
        0,
        "--lto-newpm-passes=default<O3> --lto-aa-pipeline=basic-aa",
        "--lto-newpm-passes=default<O1> --lto-aa-pipeline=basic-aa",
    ),
    (
        19,
        "--lto-basic-block-address-map",
        "--lto-basic-block-address-map --lto-O0",
    ),
    (
        0,
        "--lto-cs-profile-generate",
        "--lto-cs-profile-generate --lto-O0",
    ),
];

/// These do not, or not on each version.
const OTHER: [Shaping; 12] = [
    (
        0,
        "-plugin-opt=-frame-pointer=all",
        "-mllvm -frame-pointer=non-leaf",
    ),
    (
        0,
        "-mllvm -function-sections=0",
        "-plugin-opt=-data-sections=0",
    ),
    (0, "--lto-O3", "--lto-O2"),
    (
        0,
        "--lto-unique-basic-block-section-names --lto-basic-block-sections=all",
        "--lto-basic-block-sections=all",
    ),
    (
        0,
        "--lto-cs-profile-generate --lto-cs-profile-file=x",
        "--lto-cs-profile-generate --lto-cs-profile-file=y",
    ),
    (
        0,
        "--lto-whole-program-visibility",
        "--no-lto-whole-program-visibility",
    ),
    (0, "--disable-verify", "-plugin-opt=disable-verify"),
    (0, "--no-lto-pgo-warn-mismatch", "--lto-pgo-warn-mismatch"),
    (0, "--lto-partitions=2", "-plugin-opt=lto-partitions=4"),
    (
        19,
        "--lto-validate-all-vtables-have-type-infos",
        "--lto-known-safe-vtables=x",
    ),
    (16, "--no-warnings", "--fatal-warnings"),
    (0, "--error-limit=1", "--no-fatal-warnings"),
];

/// Loops, branches, thread-local data; one module says nothing about its processor.
fn shaped(s: &Session) {
    s.write(
        "main.c",
        "int one(int *, int), two(int); extern __thread int t;\n\
         __attribute__((noinline)) int entry(int n) { int a[64]; for (int i = 0; i < 64; i++) a[i] = i * n;\n\
         t += n; return one(a, 64) + two(n); }\n",
    );
    s.write(
        "one.c",
        "__thread int t; int x, y;\n\
         __attribute__((noinline)) int one(int *a, int n) { int sum = 0; for (int i = 0; i < n; i++) sum += a[i] > 40 ? a[i] * 3 : a[i] ^ i;\n\
         return sum > 9 ? sum + t + x : sum - t - y; }\n",
    );
    s.write("two.c", "int two(int n) { return n + 2; }\n");
    s.sh("clang-$N -c -O2 -fPIC -flto=thin main.c two.c; clang-$N -S -emit-llvm -O2 -fPIC -flto=thin one.c -o one.ll; \
          sed -i -E 's/\"(target-cpu|target-features|tune-cpu|frame-pointer)\"=\"[^\"]*\"//g' one.ll; \
          clang-$N -c -O2 -fPIC -flto=thin one.ll");
}

/// A shared library, which needs no runtime for profiles.
const LIBRARY: &str = "$LD -shared -o $OUT main.o one.o two.o -Map=map";

/// One cache for links without an option, with it, and with another value.
fn never_mixed_up(options: &[Shaping], shape: bool) {
    each_llvm(|s| {
        shaped(s);
        let output = || std::fs::read(s.dir().join("a.out")).expect("an output");
        link(s, LIBRARY).splits_cached(0, 3);
        let plain = output();
        for &(from, one, other) in options.iter().filter(|o| o.0 <= s.llvm) {
            let [one_output, other_output] = [one, other].map(|option| {
                link(s, &format!("{LIBRARY} {}", quoted(option))).splits();
                output()
            });
            let different = plain != one_output && one_output != other_output;
            assert!(
                different || !shape,
                "LLVM {} ({from}): {one}, {other}: no other code",
                s.llvm
            );
        }
        link(s, LIBRARY).splits_cached(3, 0);
    });
}

/// Words for a shell.
fn quoted(options: &str) -> String {
    let words = options.split_whitespace().map(|w| format!("'{w}'"));
    words.collect::<Vec<_>>().join(" ")
}

#[test]
fn options_that_shape_code() {
    never_mixed_up(&SHAPING, true);
}

#[test]
fn options_that_shape_other_code() {
    never_mixed_up(&OTHER, false);
}

/// What a file says that an option names counts, not how it is called; `one` and `other` are its texts.
fn content_counts(s: &Session, option: &str, one: &str, other: &str) {
    let command = format!("{LIBRARY} {option}=file");
    let output = || std::fs::read(s.dir().join("a.out")).expect("an output");
    let [one_output, other_output, _] = [one, other, one].map(|text| {
        s.sh(text);
        link(s, &command).splits();
        output()
    });
    assert!(
        one_output != other_output,
        "LLVM {}: {option}: no other code",
        s.llvm
    );
    link(s, &command).splits_cached(3, 0);
    // By another name it is the same.
    s.sh("cp file ../by-another-name");
    let command = format!("{LIBRARY} {option}=../by-another-name");
    link(s, &command).splits_cached(3, 0);
}

#[test]
fn files_that_options_name() {
    each_llvm(|s| {
        shaped(s);
        link(s, LIBRARY).splits();
        content_counts(
            s,
            "--lto-basic-block-sections",
            "printf '!one\\n!!0 1\\n!!2\\n' >file",
            "printf '!one\\n!!0 2\\n!!1\\n' >file",
        );
        // Lines of debug information are what such a profile is about.
        s.sh("printf 'one:9:9\\n 1: 9\\n' >file; clang-$N -c -O2 -g -fPIC -flto=thin -fprofile-sample-use=file main.c one.c two.c");
        link(s, LIBRARY).splits();
        content_counts(
            s,
            "--lto-sample-profile",
            "printf 'one:90000:9000\\n 1: 9000\\nentry:10:1\\n 1: 1\\n' >file",
            "printf 'one:0:0\\n 1: 0\\nentry:90000:9000\\n 1: 9000\\n' >file",
        );
    });
}

/// A profile of the linked program, made with the program. Its content is in no key of lld's (llvm-project 214162).
#[test]
fn context_sensitive_profiles() {
    each_llvm(|s| {
        shaped(s);
        s.write("run.c", "int entry(int); int main(int argc, char **argv) { int n = 0; while (argc --> 1) n += entry(argc); return n == 3; }\n");
        s.sh(
            "clang-$N -O2 -fprofile-generate -fPIC main.c one.c two.c run.c -o first; LLVM_PROFILE_FILE=raw ./first 1; \
             llvm-profdata-$N merge -o first.profdata raw; \
             clang-$N -c -O2 -fPIC -flto=thin -fprofile-use=first.profdata -fcs-profile-generate main.c one.c two.c run.c; \
             clang-$N -O2 -flto=thin -fuse-ld=lld -fcs-profile-generate *.o -o second; \
             for n in 1 2; do LLVM_PROFILE_FILE=raw$n ./second $(seq $((9 * n - 9)));  llvm-profdata-$N merge -o $n.profdata first.profdata raw$n; done; \
             clang-$N -c -O2 -fPIC -flto=thin -fprofile-use=1.profdata main.c one.c two.c"
        );
        link(s, LIBRARY).splits();
        content_counts(
            s,
            "--lto-cs-profile-file",
            "cp 1.profdata file",
            "cp 2.profdata file",
        );
    });
}

/// Whether code is instrumented is in no key of lld's (llvm-project 214162), nor are LLVM's options in those of its legacy interface (211474):
/// a cache that was filled without them, or with them, is of no use to the other link.
#[test]
fn stale_hits_of_lld_s_own_keys() {
    each_llvm(|s| {
        shaped(s);
        for option in ["--lto-cs-profile-generate", "-mllvm -align-all-functions=6"] {
            s.sh("rm -rf ../cache");
            let with = format!("{LIBRARY} {option}");
            for (command, warm) in [
                (LIBRARY, false),
                (&*with, false),
                (LIBRARY, true),
                (&*with, true),
            ] {
                let hits = if warm { 3 } else { 0 };
                link(s, command).splits_cached(hits, 3 - hits);
            }
        }
    });
}

/// Code generation data that another link has left: its content is in no key of lld's (llvm-project 214161).
#[test]
fn code_generation_data() {
    // The tool that collects it comes with LLVM 20.
    let has_tool = |llvm| llvm >= 20;
    some_llvm(has_tool, |s| {
        let pair = |name: &str, body: &str| {
            let one = |n| {
                format!(
                    "__attribute__((noinline)) int {name}{n}(int a, int b) {{ {} }}\n",
                    body.replace('N', n)
                )
            };
            format!(
                "int use(int, int, int); extern int x[];\n{}{}",
                one("1"),
                one("2")
            )
        };
        let merged = "int r = use(a, b, N) + x[3]; r ^= use(r, b * 3, 4); x[2] = r - b; return use(x[1], r, b) * r;";
        s.write("one.c", pair("f", merged));
        s.write("two.c", pair("g", merged));
        s.write(
            "other.c",
            pair(
                "h",
                "int r = use(b, a, N) - x[5]; x[6] = r; return use(r, r, a) ^ x[1];",
            ),
        );
        s.compile("clang-$N -c -Oz -fPIC -flto=thin one.c two.c other.c");
        // What two different links leave.
        for (data, modules) in [("1", "one.o two.o"), ("2", "other.o")] {
            s.sh(&format!(
                "$LD -shared {modules} -o made -mllvm -enable-global-merge-func -mllvm -codegen-data-generate --lto-obj-path=made.o; \
                 llvm-cgdata-$N --merge -o {data}.cgdata made.o?; rm made*"
            ));
        }
        let uses = "$LD -shared one.o two.o -o $OUT -mllvm -enable-global-merge-func -mllvm -codegen-data-use-path=data";
        let output = |data: &str| {
            s.sh(&format!("cp {data}.cgdata data"));
            link(s, uses).same().succeeds();
            std::fs::read(s.dir().join("a.out")).expect("an output")
        };
        let (first, second) = (output("1"), output("2"));
        assert!(first != second, "LLVM {}: no other code", s.llvm);
        assert!(output("1") == first && output("2") == second);
    });
}
