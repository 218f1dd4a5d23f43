//! The local engine: objects come from a cache by lld's own keys, and a link that has them is lld's to
//! the byte, in what it writes and in what it prints. Faults and signals: `local_faults.rs`.

use ldwrap_tests::{LinkPair, Session, each_llvm, fixtures_only, some_llvm};
use serde_json::Value;

/// The modules of [`sources`].
const MODULES: u64 = 5;
const LINK: &str = "clang-$N -O2 -flto=thin -fuse-ld=lld -o $OUT *.o";

/// `main` takes in `f1`, which is small, and calls the others.
fn sources(s: &Session) {
    s.write(
        "main.c",
        "int f1(int), f2(int), f3(int), f4(int), printf(const char *, ...);\n\
         int main(int argc, char **argv) { return printf(\"%d\\n\", f1(argc) + f2(1) + f3(1) + f4(1)) < 0; }\n",
    );
    s.write("f1.c", "int f1(int x) { return x + 1; }\n");
    for n in 2..MODULES {
        s.write(
            &format!("f{n}.c"),
            format!(
                "__attribute__((noinline)) int f{n}(int x) {{ return x + {n}; }}\n\
                 int unused{n}(int x) {{ return x * {n}; }}\n"
            ),
        );
    }
    s.sh("clang-$N -c -O2 -flto=thin *.c");
}

/// Links both ways, with the session's own cache.
fn link<'s>(s: &'s Session, command: &str) -> LinkPair<'s> {
    link_with(s, &[], command)
}

fn link_with<'s>(s: &'s Session, more: &[(&str, &str)], command: &str) -> LinkPair<'s> {
    let cache = s.root().join("cache");
    let cache = cache.to_str().expect("a path of ours is UTF-8");
    let mut env = vec![
        ("LDWRAP_EXECUTOR", "local"),
        ("LDWRAP_CACHE_SIZE", "1G"),
        ("LDWRAP_CACHE_DIR", cache),
    ];
    env.extend(more);
    s.link_both_with(&env, command)
}

/// Asserts that the engine did the link, with so many hits and misses, and as lld does it.
fn had(both: &LinkPair<'_>, hits: u64, misses: u64) {
    both.splits();
    if fixtures_only() {
        return;
    }
    let report = both.report();
    assert_eq!(report["executor"], "local", "{report}");
    let cache = &report["cache"];
    let found = [&cache["hits"], &cache["misses"]].map(Value::as_u64);
    assert_eq!(found, [Some(hits), Some(misses)], "{report}");
}

/// Runs lld with a cache of its own and gives the number of objects that it adds.
fn new_in_own_cache(s: &Session, command: &str) -> u64 {
    let count = "ls ../own | grep -c llvmcache- || true";
    let number = |text: String| text.trim().parse::<u64>().expect("a number");
    let before = number(s.sh(&format!("mkdir -p ../own; {count}")));
    s.sh(&format!(
        "OUT=../other; {command} -Wl,--thinlto-cache-dir=../own >../said 2>&1"
    ));
    number(s.sh(count)) - before
}

#[test]
fn cold_and_warm_links_print_and_write_the_same() {
    each_llvm(|s| {
        sources(s);
        for option in [
            "-Map=map",
            "-Map=map,--cref",
            "-Map=-",
            "-M,--cref",
            "--cref",
            "-t",
            "--gc-sections,--print-gc-sections,-Map=map",
            "--icf=all,--print-icf-sections,--verbose",
            "--trace-symbol=f2,--why-extract=-",
            "--threads=1,-Map=-",
            "--emit-relocs,--build-id=sha1,-Map=map",
        ] {
            s.sh("rm -rf ../cache");
            let command = format!("{LINK} -Wl,{option}");
            had(link(s, &command).prints("14\n"), 0, MODULES);
            had(link(s, &command).prints("14\n"), MODULES, 0);
        }
    });
}

/// A map that goes to a stream or a pipe can be read by nobody but its reader.
#[test]
fn maps_that_are_no_files() {
    each_llvm(|s| {
        sources(s);
        for option in ["-Map=/dev/stdout", "-Map=/dev/stderr", "-Map=/dev/null"] {
            for _ in 0..2 {
                link(s, &format!("{LINK} -Wl,{option} | cat"))
                    .same()
                    .prints("14\n");
            }
        }
        for _ in 0..2 {
            link(
                s,
                &format!("mkfifo pipe; cat pipe >map & {LINK} -Wl,-Map=pipe; wait $!; rm pipe"),
            )
            .same()
            .wrote("map", "f3");
        }
    });
}

#[test]
fn an_edit_costs_what_it_costs_lld() {
    each_llvm(|s| {
        sources(s);
        assert_eq!(new_in_own_cache(s, LINK), MODULES);
        had(&link(s, LINK), 0, MODULES);
        for (edit, result) in [
            // For itself.
            ("int f3(int x) { return x * 100; }", "110\n"),
            // Also for main, which has it inlined.
            ("int f1(int x) { return x + 1000; }", "1109\n"),
            // Nothing but a name that no code has.
            (
                "static int quiet; int f2(int y) { return y + 2; }",
                "1109\n",
            ),
        ] {
            let name = edit.split("int f").nth(1).and_then(|f| f.get(..1));
            let name = name.expect("the number of a function");
            s.write(&format!("f{name}.c"), edit);
            s.sh(&format!("clang-$N -c -O2 -flto=thin f{name}.c"));
            let misses = new_in_own_cache(s, LINK);
            let both = link(s, LINK);
            had(both.prints(result), MODULES - misses, misses);
        }
    });
}

#[test]
fn another_directory_has_the_same_objects() {
    each_llvm(|s| {
        sources(s);
        had(&link(s, LINK), 0, MODULES);
        s.sh("mkdir -p ../elsewhere; cp *.c ../elsewhere; cd ../elsewhere; clang-$N -c -O2 -flto=thin *.c");
        let there = format!("cd ../elsewhere; {LINK}; mv $OUT ../w");
        had(link(s, &there).prints("14\n"), MODULES, 0);
        let absolute = LINK.replace("*.o", "$PWD/*.o");
        had(link(s, &absolute).prints("14\n"), MODULES, 0);
    });
}

#[test]
fn members_of_archives() {
    each_llvm(|s| {
        sources(s);
        s.sh("mkdir o; mv f?.o o; llvm-ar-$N rcs libf.a o/*.o; llvm-ar-$N rcsT libthin.a o/*.o");
        for (archive, misses) in [("libf.a", MODULES), ("libthin.a", 0)] {
            let command = format!("{LINK} {archive} -Wl,-Map=map");
            let both = link(s, &command);
            had(both.prints("14\n"), MODULES - misses, misses);
            had(&link(s, &command), MODULES, 0);
        }
    });
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
        had(&link(s, LIBRARY), 0, 3);
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
        had(&link(s, LIBRARY), 3, 0);
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
    had(&link(s, &command), 3, 0);
    // By another name it is the same.
    s.sh("cp file ../by-another-name");
    let command = format!("{LIBRARY} {option}=../by-another-name");
    had(&link(s, &command), 3, 0);
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

/// A profile of the linked program, made with the program.
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

/// Code generation data that another link has left: its content is in no key of lld's.
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
        s.sh("clang-$N -c -Oz -fPIC -flto=thin one.c two.c other.c");
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

/// A file that an assembler takes in is in no key, and in no job: a module with such assembly is lld's.
#[test]
fn incbin_is_read_each_time() {
    each_llvm(|s| {
        sources(s);
        let by_clang = [("LDWRAP_EXECUTOR", "clang")];
        let dir = s.dir();
        let dir = dir.display();
        for file in ["blob".to_owned(), format!("{dir}/blob")] {
            let asm = format!(
                "\".section .rodata.blob,\\\"a\\\"; .globl blob; blob: .incbin \\\"{file}\\\"; .byte 0; .previous\""
            );
            for text in [
                format!(
                    "__asm__({asm}); extern const char blob[]; __attribute__((noinline)) int f4(int n) {{ return blob[n]; }}"
                ),
                format!(
                    "extern const char blob[]; __attribute__((noinline)) int f4(int n) {{ __asm__ volatile({asm}); return blob[n]; }}"
                ),
            ] {
                s.write("f4.c", text);
                s.write("blob", "AA");
                s.sh("rm -rf ../cache; clang-$N -c -O2 -flto=thin f4.c");
                had(link(s, LINK).prints("74\n"), 0, MODULES);
                for (blob, result) in [("AB", "75\n"), ("AC", "76\n"), ("AC", "76\n")] {
                    s.write("blob", blob);
                    had(link(s, LINK).prints(result), MODULES - 1, 1);
                }
                s.sh("rm -rf ../cache");
                let none = [("LDWRAP_CACHE_SIZE", "0"), by_clang[0]];
                link_with(s, &none, LINK).splits_but(1).prints("76\n");
                for (blob, result) in [("AB", "75\n"), ("AC", "76\n"), ("AC", "76\n")] {
                    s.write("blob", blob);
                    link_with(s, &by_clang, LINK).same().prints(result);
                }
            }
        }
    });
}

/// What a backend has to say it says in each link.
#[test]
fn warnings_come_again() {
    each_llvm(|s| {
        sources(s);
        for (flags, text) in [
            (
                "",
                "__asm__(\".warning \\\"take care\\\"\"); __attribute__((noinline)) int f4(int n) { return n + 4; }",
            ),
            (
                "",
                "__attribute__((noinline)) int f4(int n) { __asm__ volatile(\".warning \\\"take care\\\"\"); return n + 4; }",
            ),
            (
                "-Wframe-larger-than=8",
                "__attribute__((noinline)) int f4(int n) { volatile int a[99]; a[n] = n; return a[n] + 4; }",
            ),
        ] {
            s.write("f4.c", text);
            s.sh(&format!(
                "rm -rf ../cache; clang-$N {flags} -c -O2 -flto=thin f4.c 2>../said"
            ));
            link(s, LINK).splits().said("warning: ").prints("14\n");
            for more in ["", "-Wl,--fatal-warnings", "-Wl,-w"] {
                let both = link(s, &format!("{LINK} {more}"));
                both.same();
                if more.is_empty() {
                    had(both.said("warning: "), MODULES - 1, 1);
                }
            }
        }
    });
}

#[test]
fn the_users_own_cache_is_llds() {
    each_llvm(|s| {
        sources(s);
        let own = format!("{LINK} -Wl,--thinlto-cache-dir=X");
        let both = link(s, &own);
        had(&both, 0, MODULES);
        both.prints("14\n");
        assert!(
            both.split
                .file_names()
                .iter()
                .any(|f| f.starts_with("X/llvmcache-"))
        );
        // Entries that are there are used, not made again.
        let filled = format!("{LINK} -Wl,--thinlto-cache-dir=Y");
        s.sh(&format!(
            "OUT=../other; {filled}; ls -i Y/llvmcache-* >before"
        ));
        let both = link(s, &filled);
        had(&both, MODULES, 0);
        both.prints("14\n");
        s.sh("ls -i Y/llvmcache-* | cmp - before");
        link(s, &format!("{own} -Wl,--thinlto-cache-dir=")).splits();
    });
}

/// What starting ldwrap costs is more than some links.
#[test]
fn small_links_are_left_to_lld() {
    each_llvm(|s| {
        let auto = [("LDWRAP_SPLIT", "")];
        s.write(
            "conftest.c",
            "char pthread_create(void); int main(void) { return 0; }",
        );
        s.sh("clang-$N -c -O2 -flto=thin conftest.c");
        link_with(s, &auto, LINK).left_to_lld("too little bitcode");
        sources(s);
        let functions =
            (0..2000).map(|n| format!("int fun{n}(int x) {{ return x * {n} + x / ({n} + 1); }}\n"));
        s.write(
            "f4.c",
            format!(
                "{}int f4(int x) {{ return x + 4; }}",
                functions.collect::<String>()
            ),
        );
        s.sh("rm conftest.*; clang-$N -c -O1 -flto=thin f4.c; [[ $(stat -c %s f4.o) -gt 102400 ]]");
        had(&link_with(s, &auto, LINK), 0, MODULES);
        // Without a cache it waits for others still: nothing is found, and nothing is kept.
        let none = [("LDWRAP_SPLIT", ""), ("LDWRAP_CACHE_SIZE", "0")];
        for _ in 0..2 {
            had(&link_with(s, &none, LINK), 0, MODULES);
        }
    });
}

/// What lld writes for the user's eyes comes from lld alone.
#[test]
fn side_outputs() {
    each_llvm(|s| {
        sources(s);
        had(&link(s, LINK), 0, MODULES);
        for (option, reason) in [
            ("--save-temps", "--save-temps"),
            ("-plugin-opt=save-temps", "--save-temps"),
            ("--lto-obj-path=obj", "--lto-obj-path"),
            ("-plugin-opt=obj-path=obj", "--lto-obj-path"),
            ("--opt-remarks-filename=remarks", "--opt-remarks-filename"),
            (
                "--opt-remarks-filename=remarks,--opt-remarks-passes=inline,--opt-remarks-format=yaml",
                "--opt-remarks",
            ),
            ("--thinlto-index-only", "--thinlto-index-only"),
            (
                "-plugin-opt=thinlto-index-only=list",
                "--thinlto-index-only",
            ),
            ("-plugin-opt=emit-asm", "--lto-emit-asm"),
            ("-plugin-opt=dwo_dir=dwo", "dwo_dir"),
            ("--threads=1,-mllvm,-print-after=globaldce", "-print-after"),
            (
                "--threads=1,-mllvm,-print-changed=quiet,-mllvm,-filter-print-funcs=f3",
                "-print-changed",
            ),
            (
                "--threads=1,--lto-debug-pass-manager",
                "--lto-debug-pass-manager",
            ),
            ("--reproduce=r.tar", "--reproduce"),
        ] {
            link(s, &format!("{LINK} -Wl,{option}")).left_to_lld(reason);
        }
        link(
            s,
            &format!("{LINK} -Wl,--time-trace; test -s $OUT.time-trace; rm $OUT.time-trace"),
        )
        .left_to_lld("--time-trace")
        .prints("14\n");
        had(&link(s, LINK), MODULES, 0);
    });
}
