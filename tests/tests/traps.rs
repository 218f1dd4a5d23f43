//! Links that differ when native objects simply take bitcode's place (docs/lld.md, "Resolution before and after LTO"), and code that
//! differs when a backend sees no more than its plain shard (docs/lld.md, "Locality of declarations").
//!
//! Each test first does the naive split by hand and asserts that it goes wrong with this lld, so
//! that the test keeps its teeth.

use ldwrap_tests::{Session, each_llvm};

const LINK: &str = "clang-$N -O2 -flto=thin -fuse-ld=lld -o $OUT";
const NAIVE: &str = ". $FIXTURES/naive.sh; naive_index clang-$N -O2 -flto=thin -fuse-ld=lld";

/// `X` is in bitcode and in a native archive, and a native object uses it. In-process, bitcode's
/// definition comes first; behind the archive, the archive's member is pulled in as well.
#[test]
fn a_definition_that_comes_late() {
    each_llvm(|s| {
        s.write(
            "native.c",
            "int x(void); int native(void) { return x(); }\n",
        );
        s.write(
            "main.c",
            "int native(void), y(void); int main(void) { return native() + y() - 42; }\n",
        );
        s.write("x.c", "int x(void) { return 42; }\n");
        s.write("member.c", "int x(void) { return 1; }\n");
        s.write("y.c", "int y(void) { return 0; }\n");
        s.sh("clang-$N -c -O2 -flto=thin main.c x.c; clang-$N -c -O2 native.c member.c y.c; llvm-ar-$N rcs libx.a member.o y.o");
        s.sh(&format!("{NAIVE} native.o main.o x.o libx.a"));
        let error = s.sh_fails("clang-$N -fuse-ld=lld -o naive native.o libx.a $(cat list)");
        assert!(
            error.contains("duplicate symbol: x"),
            "another error: {error}"
        );
        s.link_both(&format!("{LINK} native.o main.o x.o libx.a"))
            .splits()
            .prints("");
    });
}

/// LTO objects at the bitcode's place: sections, and so constructors, come in another order.
#[test]
fn section_order() {
    each_llvm(|s| {
        for name in ["bitcode", "native"] {
            s.write(
                &format!("{name}.c"),
                format!("int puts(const char *); __attribute__((constructor)) static void up(void) {{ puts(\"{name}\"); }}\n"),
            );
        }
        s.write("main.c", "int main(void) { return 0; }\n");
        s.compile("clang-$N -c -O2 -flto=thin bitcode.c main.c; clang-$N -c -O2 native.c");
        s.sh(&format!("{NAIVE} bitcode.o native.o main.o"));
        let naive =
            s.sh("clang-$N -fuse-ld=lld -o naive lto/bitcode.o native.o lto/main.o; ./naive");
        assert_eq!(naive, "bitcode\nnative\n");
        s.link_both(&format!("{LINK} bitcode.o native.o main.o"))
            .splits()
            .prints("native\nbitcode\n");
    });
}

/// A reference that LTO removes has pulled a native member in before; its constructor runs.
#[test]
fn references_that_lto_removes() {
    each_llvm(|s| {
        s.write(
            "main.c",
            "int zero(void), member(void); int main(void) { return zero() ? member() : 0; }\n",
        );
        s.write("zero.c", "int zero(void) { return 0; }\n");
        s.write(
            "member.c",
            "int puts(const char *); int member(void) { return 1; }\n\
             __attribute__((constructor)) static void up(void) { puts(\"member\"); }\n",
        );
        s.sh("clang-$N -c -O2 -flto=thin main.c zero.c; clang-$N -c -O2 member.c; llvm-ar-$N rcs libm1.a member.o");
        s.sh(&format!("{NAIVE} main.o zero.o libm1.a"));
        assert_eq!(
            s.sh("clang-$N -fuse-ld=lld -o naive lto/main.o lto/zero.o libm1.a; ./naive"),
            ""
        );
        s.link_both(&format!("{LINK} main.o zero.o libm1.a"))
            .splits()
            .prints("member\n");
    });
}

/// An archive of both kinds, left on the line for its native members, offers its bitcode again.
#[test]
fn mixed_archives() {
    each_llvm(|s| {
        s.write(
            "main.c",
            "int bit(void), nat(void); int main(void) { return bit() + nat() - 3; }\n",
        );
        s.write(
            "bit.c",
            "int bit(void) { return 1; } int also(void) { return 0; }\n",
        );
        s.write(
            "nat.c",
            "int also(void); int nat(void) { return 2 + also(); }\n",
        );
        s.write(
            "own.c",
            "int own(void) { return 0; } int also(void);  int user(void) { return also(); }\n",
        );
        s.sh("clang-$N -c -O2 -flto=thin main.c bit.c; clang-$N -c -O2 nat.c own.c; llvm-ar-$N rcs libmix.a bit.o nat.o");
        // By hand, the member has to be unpacked to be compiled.
        s.sh(&format!(
            "{NAIVE} own.o main.o -Wl,--start-lib bit.o nat.o -Wl,--end-lib"
        ));
        let error =
            s.sh_fails("clang-$N -flto=thin -fuse-ld=lld -o naive own.o libmix.a $(cat list)");
        assert!(error.contains("duplicate symbol"), "another error: {error}");
        s.link_both(&format!("{LINK} own.o main.o libmix.a"))
            .splits()
            .modules(2)
            .prints("");
    });
}

/// `--exclude-libs` and the map know symbols and sections by their archive.
#[test]
fn archive_names() {
    each_llvm(|s| {
        s.write(
            "api.c",
            "int hidden(void); int api(void) { return hidden(); }\n",
        );
        s.write(
            "hidden.c",
            "__attribute__((noinline)) int hidden(void) { static volatile int n; return n; }\n",
        );
        s.compile(
            "clang-$N -c -O2 -fPIC -flto=thin api.c hidden.c; llvm-ar-$N rcs libh.a hidden.o",
        );
        s.sh(". $FIXTURES/naive.sh; naive_index clang-$N -O2 -shared -flto=thin -fuse-ld=lld api.o hidden.o");
        s.sh("clang-$N -shared -fuse-ld=lld -Wl,--exclude-libs,libh.a -o naive.so $(cat list)");
        s.sh("llvm-nm-$N -D naive.so | grep -w hidden");
        s.link_both(&format!(
            "{LINK} -shared -Wl,--exclude-libs=libh.a,-Map=map api.o libh.a"
        ))
        .splits()
        .runs("llvm-nm-$N -D $OUT | grep -c hidden || true", "0\n");
        s.link_both(&format!(
            "{LINK} -shared -Wl,--exclude-libs,ALL,--cref api.o -L. -lh"
        ))
        .splits()
        .runs("llvm-nm-$N -D $OUT | grep -c hidden || true", "0\n");
    });
}

/// COMDAT groups of LTO objects are not deduplicated again: which copy prevails was decided before.
#[test]
fn comdats_shared_with_native_objects() {
    each_llvm(|s| {
        let inline =
            "inline __attribute__((noinline)) int shared() { static int n = SALT; return n; }\n";
        s.write(
            "native.cc",
            format!("{inline}int native() {{ return shared(); }}\n"),
        );
        s.write(
            "one.cc",
            format!("{inline}int one() {{ return shared(); }}\n"),
        );
        s.write(
            "main.cc",
            format!(
                "{inline}extern \"C\" int printf(const char *, ...); int native(), one();\n\
                 int main() {{ return printf(\"%d %d %d\\n\", native(), one(), shared()) < 0; }}\n"
            ),
        );
        // The copies differ, so that one sees which was taken.
        s.sh("clang++-$N -c -O2 -DSALT=1 native.cc; clang++-$N -c -O2 -DSALT=2 -flto=thin one.cc; clang++-$N -c -O2 -DSALT=3 -flto=thin main.cc");
        s.link_both(&format!("{LINK} native.o one.o main.o"))
            .splits();
        s.link_both(&format!("{LINK} main.o native.o one.o"))
            .splits();
        s.link_both(&format!("{LINK} one.o main.o native.o"))
            .splits();
    });
}

/// A declaration whose definition is local to the output is `dso_local` in-process; a plain shard
/// does not say so, and the code goes through the GOT (docs/lld.md, "Locality of declarations").
#[test]
fn declarations_that_are_local_to_the_output() {
    each_llvm(|s| {
        s.write(
            "main.c",
            "extern int table[], far(int); extern int (*volatile hook)(int);\n\
             int main(int argc, char **argv) { hook = far; return table[argc] + hook(argc) - 2; }\n",
        );
        s.write(
            "table.c",
            "int (*volatile hook)(int);\nint table[500] = {5, 1};\n\
             __attribute__((noinline)) int far(int n) { for (int i = 0; i < 500; i++) table[i] ^= n * i; table[1] ^= 1; return 1; }\n",
        );
        s.compile("clang-$N -c -O2 -fPIE -flto=thin main.c table.c");
        s.sh(&format!("{NAIVE} -pie main.o table.o"));
        // lld's own object for the same module, in task order behind the regular-LTO one.
        s.sh("clang-$N -O2 -flto=thin -fuse-ld=lld -pie -Wl,--lto-obj-path=ref -o naive main.o table.o");
        s.sh("llvm-readelf-$N -r lto/main.o | grep GOTPCREL; ! llvm-readelf-$N -r ref1 | grep GOTPCREL");
        s.link_both(&format!("{LINK} -pie main.o table.o"))
            .splits()
            .prints("");
        s.link_both(&format!("{LINK} -no-pie main.o table.o"))
            .splits()
            .prints("");
        s.compile("clang-$N -c -O2 -fPIC -flto=thin main.c table.c");
        s.link_both(&format!("{LINK} -pie main.o table.o"))
            .splits()
            .prints("");
        s.link_both(&format!("{LINK} -shared main.o table.o"))
            .splits();
        s.link_both(&format!("{LINK} -shared -Wl,-Bsymbolic main.o table.o"))
            .splits();
    });
}

/// Backends import in the lexical order of identifiers, which here is not the command line's
/// (docs/lld.md, "Imports").
#[test]
fn import_order() {
    each_llvm(|s| {
        let modules = ["z/a", "b", "a(1)", "a", "c-10", "c-9"];
        s.write("main.c", "int printf(const char *, ...);\nextern int f0(int), f1(int), f2(int), f3(int), f4(int), f5(int);\n\
            int main(int n, char **v) { return printf(\"%d\\n\", f0(n) + f1(n) + f2(n) + f3(n) + f4(n) + f5(n)) < 0; }\n");
        for (i, name) in modules.iter().enumerate() {
            s.write(
                &format!("{name}.c"),
                format!(
                    "static int local; int f{i}(int n) {{ local += n; return local * {i} + n; }}\n"
                ),
            );
            s.sh(&format!(
                "clang-$N -c -O2 -flto=thin '{name}.c' -o '{name}.o'"
            ));
        }
        s.compile("clang-$N -c -O2 -flto=thin main.c");
        s.link_both(&format!(
            "{LINK} c-9.o z/a.o main.o './a(1).o' b.o a.o $PWD/c-10.o"
        ))
        .splits()
        .modules(7)
        .prints("21\n");
    });
}

/// Nothing links: `main` of bitcode in an archive, which only the C runtime asks for.
#[test]
fn main_in_an_archive() {
    each_llvm(|s: &Session| {
        s.write("main.c", "int main(void) { return 0; }\n");
        s.sh("clang-$N -c -O2 -flto=thin main.c; llvm-ar-$N rcs libmain.a main.o");
        s.link_both(&format!("{LINK} libmain.a"))
            .splits()
            .modules(1)
            .prints("");
    });
}
