//! What languages ask of a linker, in bitcode and across the border to native objects.

use ldwrap_tests::{Session, each_llvm};

/// Compiles the program of `tests/fixtures/features*`; `native.o` is native, the rest bitcode.
///
/// ThinLTO of LLVM 14 loses an ifunc (plain lld: undefined symbol), so there it is native.
fn features(s: &Session, flags: &str) {
    let ifunc = if s.llvm == 14 {
        "-DIFUNC_IS_NATIVE"
    } else {
        ""
    };
    let flags = format!("{flags} {ifunc}");
    s.sh(&format!(
        "for f in main other third; do clang++-$N -c -O2 {flags} -flto=thin $FIXTURES/features_$f.cc -o $f.o; done; \
         clang-$N -c -O2 {flags} -fcommon -flto=thin $FIXTURES/features_common.c -o common.o; \
         clang++-$N -c -O2 {flags} $FIXTURES/features_native.cc -o native.o"
    ));
}

/// In-process, constructors of native objects come first, since lld appends the LTO objects
/// (docs/lld.md, "Resolution before and after LTO").
const FEATURES: &str = "constructor native 0\nconstructor main 0\nconstructor other 0\nconstructor third 0\n\
     catch 11\nthread_local 14\nweak 2\nifunc 30\nalias 21\ncommon 2\ncomdat 6\nvirtual 3\ndestructor main 0\n";

/// Its lines with numbers: from an archive, constructors come in another order.
const NUMBERS: &str =
    "catch 11\nthread_local 14\nweak 2\nifunc 30\nalias 21\ncommon 2\ncomdat 6\nvirtual 3\n";

#[test]
fn a_program_of_all_features() {
    each_llvm(|s| {
        features(s, "-fPIE");
        s.link_both("clang++-$N -O2 -flto=thin -fuse-ld=lld -pie -o $OUT main.o native.o other.o third.o common.o")
            .splits()
            .modules(4)
            .prints(FEATURES);
    });
}

#[test]
fn static_and_with_debug_information() {
    each_llvm(|s| {
        features(s, "-g -fno-pic");
        s.link_both("clang++-$N -O2 -g -flto=thin -fuse-ld=lld -static -o $OUT main.o native.o other.o third.o common.o")
            .splits()
            .prints(FEATURES);
    });
}

#[test]
fn from_an_archive_with_gc_sections() {
    each_llvm(|s| {
        features(s, "-fPIE -ffunction-sections -fdata-sections");
        s.sh("llvm-ar-$N rcs liball.a other.o third.o common.o native.o");
        s.link_both(
            "clang++-$N -O3 -flto=thin -fuse-ld=lld -pie -Wl,--gc-sections,--icf=all -o $OUT main.o liball.a",
        )
        .splits()
        .runs("$OUT | grep ' [1-9]'", NUMBERS);
    });
}

/// TLS in every model: a program's own, a shared library's, and a descriptor-free dynamic one.
#[test]
fn thread_local_variables_in_shared_libraries() {
    each_llvm(|s| {
        s.write(
            "tls.c",
            "__thread int t = 3; static __thread int l = 4; int get(void) { return ++t + ++l; }\n",
        );
        s.write(
            "use.c",
            "extern __thread int t; int get(void); int both(void) { return t + get(); }\n",
        );
        s.write(
            "main.c",
            "int both(void); int main(void) { return both() != 12; }\n",
        );
        s.compile("clang-$N -c -O2 -fPIC -flto=thin tls.c use.c");
        s.link_both("clang-$N -O2 -flto=thin -shared -fuse-ld=lld -o $OUT tls.o use.o")
            .splits()
            .modules(2);
        s.sh("clang-$N -O2 -fuse-ld=lld -o main main.c ./a.out && LD_LIBRARY_PATH=. ./main");
    });
}

/// Constructors of equal and of given priorities, in bitcode and native objects: their order is
/// the order of the objects, which a split could change.
#[test]
fn constructor_order() {
    each_llvm(|s| {
        for name in ["a", "b", "n", "o"] {
            s.write(
                &format!("{name}.c"),
                format!(
                    "int puts(const char *);\n\
                     __attribute__((constructor)) static void up(void) {{ puts(\"{name}\"); }}\n\
                     __attribute__((constructor(101))) static void early(void) {{ puts(\"early {name}\"); }}\n"
                ),
            );
        }
        s.write("main.c", "int main(void) { return 0; }\n");
        s.compile("clang-$N -c -O2 -flto=thin a.c b.c main.c; clang-$N -c -O2 n.c o.c");
        s.link_both("clang-$N -O2 -flto=thin -fuse-ld=lld -o $OUT a.o n.o main.o b.o o.o")
            .splits()
            .prints("early n\nearly o\nearly a\nearly b\nn\no\na\nb\n");
    });
}

/// Symbols with versions, from inline assembly, which bitcode's symbol table lists.
#[test]
fn inline_assembly() {
    each_llvm(|s| {
        s.write(
            "asm.c",
            "__asm__(\".globl from_asm\\nfrom_asm:\\n movl $42, %eax\\n ret\\n\");\n\
             static int used = 1;\nint touch(void) { __asm__ volatile(\"\" : \"+r\"(used)); return used; }\n",
        );
        s.write(
            "main.c",
            "int printf(const char *, ...); int from_asm(void), touch(void);\n\
             int main(void) { return printf(\"%d\\n\", from_asm() + touch()) < 0; }\n",
        );
        s.compile("clang-$N -c -O2 -flto=thin asm.c main.c");
        s.link_both("clang-$N -O2 -flto=thin -fuse-ld=lld -o $OUT main.o asm.o")
            .splits()
            .prints("43\n");
    });
}

/// Common symbols of several modules and a native object become one, of the largest size.
#[test]
fn common_symbols() {
    each_llvm(|s| {
        s.write(
            "a.c",
            "int c[2]; int printf(const char *, ...); int f(void), g(void);\n\
             int main(void) { c[0] = 1; return printf(\"%d\\n\", f() + g()) < 0; }\n",
        );
        s.write("b.c", "int c[8]; int f(void) { return c[0] + sizeof c; }\n");
        s.write("n.c", "int c[4]; int g(void) { return c[0]; }\n");
        s.compile("clang-$N -c -O2 -fcommon -flto=thin a.c b.c; clang-$N -c -O2 -fcommon n.c");
        s.link_both("clang-$N -O2 -flto=thin -fuse-ld=lld -o $OUT a.o b.o n.o")
            .splits()
            .prints("34\n");
        s.link_both("clang-$N -O2 -flto=thin -fuse-ld=lld -o $OUT n.o b.o a.o")
            .splits()
            .prints("34\n");
    });
}

/// Rust modules and C modules inlined into each other. rustc writes LLVM 22 bitcode (docs/lld.md, "Recognising bitcode"), so
/// only LLVM 22 can read it.
#[test]
fn cross_language_with_rust() {
    ldwrap_tests::some_llvm(
        |n| n == 22,
        |s| {
            s.write("add.c", "int add_in_c(int a, int b) { return a + b; }\n");
            s.compile("clang-$N -c -O2 -flto=thin add.c");
            let (path, rustup) = ldwrap_tests::rust_tools();
            let rustc = format!(
                "export PATH='{path}' RUSTUP_HOME='{rustup}'; \
                 rustc --edition 2024 -O -Clinker-plugin-lto -Clinker=clang-$N -Clink-arg=-fuse-ld=lld"
            );
            s.link_both(&format!(
                "{rustc} -Clink-arg=$PWD/add.o -o $OUT $FIXTURES/cross.rs"
            ))
            // Of two vendors: a warning, which lld has to say.
            .splits_but(1)
            .prints("3\n[1, 2, 3]\n");
            s.link_both(&format!("{rustc} -Cpanic=abort -Ccodegen-units=4 -Clink-arg=add.o -o $OUT $FIXTURES/cross.rs"))
                .splits_but(1)
                .prints("3\n[1, 2, 3]\n");
        },
    );
}
