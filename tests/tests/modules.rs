//! Odd modules: identical ones, those without a hash, empty ones, many, with debug information.

use ldwrap_tests::each_llvm;

const LINK: &str = "clang-$N -O2 -flto=thin -fuse-ld=lld -o $OUT";

/// The same content under two names: their cache keys differ in the module's name alone.
#[test]
fn identical_modules() {
    each_llvm(|s| {
        s.write(
            "main.c",
            "int puts(const char *); int main(void) { return 0; }\n",
        );
        s.write(
            "ctor.c",
            "int puts(const char *); static int n;\n\
             __attribute__((constructor)) static void up(void) { if (!n++) puts(\"up\"); }\n",
        );
        s.sh("clang-$N -c -O2 -flto=thin main.c ctor.c; cp ctor.o copy.o; mkdir a b; cp ctor.o a; cp ctor.o b");
        s.sh("llvm-ar-$N rcs a/libsame.a a/ctor.o; llvm-ar-$N rcs b/libsame.a b/ctor.o");
        // Lookups with one key, one after the other, are not told apart by their order.
        let lost = u64::from(s.llvm < 16);
        s.link_both(&format!("{LINK} main.o ctor.o copy.o"))
            .splits_but(lost)
            .modules(3)
            .prints("up\nup\n");
        s.link_both(&format!("{LINK} main.o a/ctor.o b/ctor.o copy.o"))
            .splits_but(2 * lost)
            .modules(4)
            .prints("up\nup\nup\n");
        s.link_both(&format!(
            "{LINK} main.o -Wl,--whole-archive a/libsame.a b/libsame.a -Wl,--no-whole-archive"
        ))
        .splits_but(lost)
        .modules(3)
        .prints("up\nup\n");
        s.sh("llvm-ar-$N qcs twice.a ctor.o ctor.o");
        s.link_both(&format!(
            "{LINK} main.o -Wl,--whole-archive twice.a -Wl,--no-whole-archive"
        ))
        .splits_but(lost)
        .modules(3)
        .prints("up\nup\n");
    });
}

/// One file by two spellings of its path: two modules, whose files in a directory of identifiers
/// would be one.
#[test]
fn one_file_by_two_paths() {
    each_llvm(|s| {
        s.write("main.c", "int main(void) { return 0; }\n");
        s.write(
            "ctor.c",
            "int puts(const char *);\n__attribute__((constructor)) static void up(void) { puts(\"up\"); }\n",
        );
        s.sh("clang-$N -c -O2 -flto=thin main.c ctor.c; mkdir a");
        let lenient = [ldwrap_tests::LENIENT];
        s.link_both_with(
            &lenient,
            &format!("{LINK} main.o ctor.o ./ctor.o a/../ctor.o"),
        )
        .same()
        .succeeds()
        .prints("up\nup\nup\n");
    });
}

/// One path given twice: lld has one name for two modules.
#[test]
fn one_module_twice() {
    each_llvm(|s| {
        s.write("main.c", "int main(void) { return 0; }\n");
        s.write(
            "weak.c",
            "__attribute__((weak)) int weak(void) { return 1; }\n",
        );
        s.compile("clang-$N -c -O2 -flto=thin main.c weak.c");
        s.link_both_with(
            &[ldwrap_tests::LENIENT],
            &format!("{LINK} main.o weak.o weak.o"),
        )
        .same();
        s.link_both_with(&[ldwrap_tests::LENIENT], &format!("{LINK} main.o main.o"))
            .same();
    });
}

/// A summary without a hash gets no cache lookup (docs/lld.md, "Lookups"): an object given in the order of lookups
/// alone would go to the wrong module.
#[test]
fn modules_without_a_hash() {
    each_llvm(|s| {
        s.write(
            "main.c",
            "int printf(const char *, ...); int one(int), two(int), three(int);\n\
             int main(int n, char **v) { return printf(\"%d %d %d\\n\", one(n), two(n), three(n)) < 0; }\n",
        );
        for (i, name) in ["one", "two", "three"].iter().enumerate() {
            s.write(
                &format!("{name}.c"),
                format!("__attribute__((noinline)) int {name}(int n) {{ return n * 10 + {i}; }}\n"),
            );
        }
        s.sh("clang-$N -c -O2 -flto=thin main.c one.c two.c three.c; cp two.o hashed.o");
        s.sh("opt-$N -module-summary hashed.o -o two.o; llvm-bcanalyzer-$N -dump hashed.o | grep '<HASH'");
        s.sh("llvm-bcanalyzer-$N -dump two.o >dump; grep GLOBALVAL_SUMMARY dump; ! grep '<HASH' dump");
        for order in ["main.o one.o two.o three.o", "two.o three.o main.o one.o"] {
            let both = s.link_both(&format!("{LINK} {order}"));
            // lld compiles two.o itself; before 18 it orders such objects otherwise.
            if s.llvm >= 18 {
                both.splits().modules(3).prints("10 11 12\n");
            } else {
                both.left_to_lld("modules have no hash")
                    .prints("10 11 12\n");
            }
        }
        s.sh("for f in main one three; do opt-$N -module-summary $f.o -o x.o; mv x.o $f.o; done");
        s.link_both(&format!("{LINK} main.o one.o two.o three.o"))
            .left_to_lld("lld looked for no object")
            .prints("10 11 12\n");
    });
}

#[test]
fn empty_modules() {
    each_llvm(|s| {
        s.write("main.c", "int main(void) { return 0; }\n");
        s.write("empty.c", "");
        s.write("decl.c", "extern int nothing; int used(void);\n");
        s.compile("clang-$N -c -O2 -flto=thin main.c empty.c decl.c");
        s.link_both(&format!("{LINK} empty.o main.o decl.o"))
            .splits()
            .prints("");
        s.link_both("$LD -shared -o $OUT empty.o").splits();
        s.link_both("$LD -shared -o $OUT empty.o decl.o").splits();
    });
}

/// 200 modules: ten copies each of twenty, whose constructors count.
#[test]
fn two_hundred_modules() {
    each_llvm(|s| {
        s.write(
            "main.c",
            "int printf(const char *, ...); int total; int main(void) { return printf(\"%d\\n\", total) < 0; }\n",
        );
        for i in 0..20 {
            s.write(
                &format!("f{i}.c"),
                format!("extern int total;\n__attribute__((constructor)) static void up(void) {{ total = total * 3 % 1009 + {i}; }}\n"),
            );
        }
        s.sh("clang-$N -c -O1 -flto=thin main.c f*.c; mkdir m; for i in {0..9}; do mkdir m/$i; ln f*.o m/$i; done");
        s.sh("for i in {0..4}; do llvm-ar-$N qcs half.a m/$i/*.o; done");
        let all = "main.o m/[5-9]/*.o -Wl,--whole-archive half.a -Wl,--no-whole-archive";
        let expected = s.sh(&format!("{LINK} {all}; ./$OUT; rm $OUT"));
        s.link_both(&format!("{LINK} {all}"))
            .splits()
            .modules(201)
            .prints(&expected);
    });
}

/// Debug information has names of compile directories, and of split units.
#[test]
fn debug_information_and_optimization_levels() {
    each_llvm(|s| {
        s.write("main.c", "int printf(const char *, ...); int one(int); int main(int n, char **v) { return printf(\"%d\\n\", one(n)) < 0; }\n");
        s.write("one.c", "struct point { int x, y; } p; int one(int n) { for (int i = 0; i < n; i++) p.x += i + 5; return p.x; }\n");
        for flags in [
            "-g -O3",
            "-g1 -Os",
            "-gdwarf-4 -O1",
            "-O3 -fno-omit-frame-pointer -ffunction-sections",
            "-g -gz -O2 -flto-unit",
        ] {
            let compile = flags.replace("-flto-unit", "-fsplit-lto-unit");
            s.sh(&format!("clang-$N -c {compile} -flto=thin main.c one.c"));
            let link = flags.replace("-flto-unit", "").replace("-O1", "-O2");
            s.link_both(&format!(
                "clang-$N {link} -flto=thin -fuse-ld=lld -o $OUT main.o one.o"
            ))
            .splits()
            .prints("5\n");
        }
        // -O0 at compile time alone: the functions are marked, the link is at -O2.
        s.compile("clang-$N -c -O0 -flto=thin main.c one.c");
        s.link_both(&format!("{LINK} main.o one.o"))
            .splits()
            .prints("5\n");
    });
}

/// What instrumentation adds: profile counters, coverage of sanitizers, stack protectors.
#[test]
fn instrumented_modules() {
    each_llvm(|s| {
        s.write("main.c", "int printf(const char *, ...); int one(int); int main(int n, char **v) { return printf(\"%d\\n\", one(n)) < 0; }\n");
        s.write("one.c", "int one(int n) { char b[64]; for (int i = 0; i < 64; i++) b[i] = n; return b[n] + 41; }\n");
        for flags in [
            "-fstack-protector-all",
            "-fsanitize=address",
            "-fprofile-instr-generate",
            "-fcf-protection=full",
        ] {
            s.compile(&format!("clang-$N -c -O2 {flags} -flto=thin main.c one.c"));
            s.link_both(&format!("{LINK} {flags} main.o one.o"))
                .splits()
                .runs("LLVM_PROFILE_FILE=/dev/null $OUT", "42\n");
        }
    });
}
