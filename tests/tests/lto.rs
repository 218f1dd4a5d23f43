//! Kinds of LTO that mix with ThinLTO: regular LTO, control-flow integrity, whole-program vtables.

use crate::dtlto::{self, distributor, test_the_toolchain};
use ldwrap_tests::{Session, each_llvm};

/// A class hierarchy over two modules.
fn classes(s: &Session, flags: &str) {
    s.write(
        "shape.h",
        "struct Shape { virtual int area(int) const; virtual ~Shape(); };\n\
         struct Square : Shape { int area(int) const override; };\n\
         Shape *make(int);\nextern \"C\" int printf(const char *, ...);\n",
    );
    s.write(
        "main.cc",
        "#include \"shape.h\"\nstruct Wide : Shape { int area(int n) const override { return n * 7; } };\n\
         int main(int argc, char **) {\n  Wide wide; Shape *s = argc > 3 ? &wide : make(argc);\n\
         return printf(\"%d\\n\", s->area(argc + 2)) < 0; }\n",
    );
    s.write(
        "shape.cc",
        "#include \"shape.h\"\nint Shape::area(int) const { return 0; }\nShape::~Shape() {}\n\
         int Square::area(int n) const { return n * n; }\nShape *make(int n) { static Square q; static Shape s; return n > 9 ? &s : &q; }\n",
    );
    s.sh(&format!(
        "clang++-$N -c -O2 -flto=thin {flags} main.cc shape.cc"
    ));
}

#[test]
fn control_flow_integrity() {
    each_llvm(|s| {
        let flags = "-fsanitize=cfi -fvisibility=hidden";
        classes(s, flags);
        s.link_both(&format!(
            "clang++-$N -O2 -flto=thin {flags} -fuse-ld=lld -o $OUT main.o shape.o"
        ))
        .splits()
        .prints("9\n");
        // Address-taken functions across modules: jump tables are made in the regular-LTO part.
        s.write("icall.c", "int twice(int n) { return n * 2; } int (*pick(int n))(int) { return n > 4 ? 0 : twice; }\n");
        s.write(
            "m.c",
            "int printf(const char *, ...); int (*pick(int))(int);\n\
             int main(int argc, char **argv) { return printf(\"%d\\n\", pick(argc)(argc + 3)) < 0; }\n",
        );
        s.compile(&format!("clang-$N -c -O2 -flto=thin {flags} icall.c m.c"));
        s.link_both(&format!(
            "clang-$N -O2 -flto=thin {flags} -fuse-ld=lld -o $OUT m.o icall.o"
        ))
        .splits()
        .prints("8\n");
    });
}

/// Functions that have another name in their objects.
#[test]
fn control_flow_integrity_by_a_distributor() {
    each_llvm(|s| {
        dtlto::sources(s, "");
        test_the_toolchain(s, &[]);
        let flags = "-fsanitize=cfi-icall -fvisibility=hidden";
        s.sh(&format!(
            "mkdir -p cfi; cd cfi; for n in 1 2 3 4 5 6; do echo \"int h$n(int x) {{ return x * $n; }}\" >h$n.c; done; \
             printf 'int h%d(int);' 1 2 3 4 5 6 >m.c; \
             echo 'int (*volatile all[])(int) = {{h1, h2, h3, h4, h5, h6}}; int main(int argc, char **argv) {{ return all[argc](7) != 14; }}' >>m.c; \
             clang-$N -c -O2 -flto=thin {flags} *.c"
        ));
        let program = distributor("");
        let env = [
            ("LDWRAP_EXECUTOR", "distributor"),
            ("LDWRAP_DISTRIBUTOR", &*program),
        ];
        let link = format!(
            "{} {flags} cfi/*.o",
            dtlto::LINK.replace("$DISTRIBUTE ", "")
        );
        // Strictly: nothing may be left to lld.
        s.link_both_with(&env, &link).same().succeeds();
    });
}

#[test]
fn whole_program_vtables() {
    each_llvm(|s| {
        let flags = "-fwhole-program-vtables -fvisibility=hidden";
        classes(s, flags);
        s.link_both(&format!(
            "clang++-$N -O2 -flto=thin {flags} -fuse-ld=lld -o $OUT main.o shape.o"
        ))
        .splits()
        .prints("9\n");
        s.link_both(&format!(
            "clang++-$N -O2 -flto=thin {flags} -fuse-ld=lld -Wl,--lto-whole-program-visibility -shared -o $OUT shape.o"
        ))
        .splits();
    });
}

#[test]
fn split_lto_units() {
    each_llvm(|s| {
        classes(s, "-fsplit-lto-unit -g");
        s.link_both(
            "clang++-$N -O2 -g -flto=thin -fsplit-lto-unit -fuse-ld=lld -o $OUT main.o shape.o",
        )
        .splits()
        .prints("9\n");
        s.sh("llvm-ar-$N rcs libshape.a shape.o");
        s.link_both("clang++-$N -O2 -flto=thin -fuse-ld=lld -o $OUT main.o libshape.a")
            .splits()
            .prints("9\n");
    });
}

/// One full-LTO object beside thin ones: lld compiles it in a part of its own (docs/lld.md, "Regular LTO beside ThinLTO").
#[test]
fn regular_lto_beside_thin_lto() {
    each_llvm(|s| {
        s.write("a.c", "int printf(const char *, ...); int b(int), c(int);\n\
             int main(int argc, char **argv) { return printf(\"%d\\n\", b(argc) + c(argc)) < 0; }\n");
        s.write(
            "b.c",
            "int shared = 1; int c(int); int b(int n) { return n + shared + c(n); }\n",
        );
        s.write(
            "c.c",
            "extern int shared; int c(int n) { return n * 10 + shared; }\n",
        );
        s.compile("clang-$N -c -O2 -flto=thin a.c c.c; clang-$N -c -O2 -flto b.c");
        s.link_both("clang-$N -O2 -flto=thin -fuse-ld=lld -o $OUT a.o b.o c.o")
            .splits()
            .prints("24\n");
        s.link_both("clang-$N -O2 -flto=full -fuse-ld=lld -o $OUT b.o a.o c.o")
            .splits()
            .prints("24\n");
    });
}

/// The unified format of LLVM 17 and newer: one kind of bitcode for both.
#[test]
fn unified_lto() {
    ldwrap_tests::some_llvm(
        |n| n >= 19,
        |s| {
            classes(s, "-funified-lto");
            s.link_both(
                "clang++-$N -O2 -flto=thin -funified-lto -fuse-ld=lld -o $OUT main.o shape.o",
            )
            .same()
            .succeeds()
            .prints("9\n");
            s.link_both_with(
                &[ldwrap_tests::LENIENT],
                "clang++-$N -O2 -flto=full -funified-lto -fuse-ld=lld -o $OUT main.o shape.o",
            )
            .same()
            .succeeds()
            .prints("9\n");
        },
    );
}
