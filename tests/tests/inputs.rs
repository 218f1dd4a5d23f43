//! Every form in which bitcode reaches a link: objects, archives, lazy files, scripts, odd names.

use ldwrap_tests::{LENIENT, Session, each_llvm, some_llvm};

/// `main` calls `one` and `two`, each in a module of its own; the numbers are not constants to the
/// optimizer before it has imported across modules.
fn sources(s: &Session) {
    s.write(
        "main.c",
        "int printf(const char *, ...);\n\
         extern int one(int), two(int);\n\
         int main(int argc, char **argv) { return printf(\"%d\\n\", one(argc) + two(argc)) < 0; }\n",
    );
    s.write(
        "one.c",
        "int used; int one(int n) { used++; return n + 40; }\n",
    );
    s.write(
        "two.c",
        "extern int used; int two(int n) { return n + used; }\n",
    );
    s.compile("clang-$N -c -O2 -flto=thin main.c one.c two.c");
}

const LINK: &str = "clang-$N -O2 -flto=thin -fuse-ld=lld -o $OUT";

#[test]
fn regular_archives() {
    each_llvm(|s| {
        sources(s);
        s.sh("llvm-ar-$N rcs libtwo.a one.o two.o");
        s.link_both(&format!("{LINK} main.o libtwo.a"))
            .splits()
            .modules(3)
            .prints("43\n");
        s.link_both(&format!("{LINK} main.o -L. -ltwo"))
            .splits()
            .prints("43\n");
        s.link_both(&format!("{LINK} main.o -L . -l:libtwo.a"))
            .splits()
            .prints("43\n");
    });
}

#[test]
fn thin_archives_of_nested_directories() {
    each_llvm(|s| {
        sources(s);
        s.sh("mkdir -p lib/sub other; mv one.o lib/sub; mv two.o other");
        s.sh("cd lib; llvm-ar-$N rcsT libtwo.a sub/one.o ../other/two.o");
        s.link_both(&format!("{LINK} main.o lib/libtwo.a"))
            .splits()
            .modules(3)
            .prints("43\n");
        s.link_both(&format!("{LINK} main.o \"$PWD/lib/libtwo.a\""))
            .splits()
            .prints("43\n");
        s.sh("mkdir run; mv main.o run");
        s.link_both(
            "cd run; clang-$N -flto=thin -fuse-ld=lld -o ../$OUT main.o ../lib/../lib/libtwo.a",
        )
        .splits()
        .prints("43\n");
    });
}

/// An archive keeps base names alone, so members of one name are common; only the offset in the
/// module's identifier tells them apart (docs/lld.md, "Identifiers").
#[test]
fn the_same_member_name_twice() {
    each_llvm(|s| {
        sources(s);
        s.sh("mkdir a b; mv one.o a/x.o; mv two.o b/x.o");
        s.sh("llvm-ar-$N qcs libx.a a/x.o b/x.o; test $(llvm-ar-$N t libx.a | sort | uniq -c | wc -l) = 1");
        s.link_both(&format!("{LINK} main.o libx.a"))
            .splits()
            .modules(3)
            .prints("43\n");
        s.sh("llvm-ar-$N qcsT libthin.a a/x.o b/x.o");
        s.link_both(&format!("{LINK} main.o libthin.a"))
            .splits()
            .modules(3)
            .prints("43\n");
    });
}

/// Names that a shell, a response file, a makefile or the identifier's own syntax could mistake.
#[test]
fn odd_names() {
    let names = [
        "with space.o",
        "x at 88).o",
        "a(b.o at 60)",
        "quo\"te's.o",
        "back\\slash;semi.o",
        "@file.o",
        "percent%41.o",
    ];
    each_llvm(|s| {
        sources(s);
        for name in names {
            let quoted = format!("'./{}'", name.replace('\'', "'\\''"));
            s.sh(&format!("cp one.o {quoted}; rm -f 'lib (1) at 8.a'; llvm-ar-$N rcs 'lib (1) at 8.a' {quoted}"));
            s.link_both(&format!("{LINK} main.o two.o {quoted}"))
                .splits()
                .modules(3);
            s.link_both(&format!("{LINK} main.o two.o 'lib (1) at 8.a'"))
                .splits()
                .modules(3);
        }
    });
}

/// Paths are bytes: no name has to be UTF-8, neither of a file nor of a member or a directory.
///
/// Not strict: LLVM 14 to 22 write a module path into a shard with each byte as a signed char, so
/// that a byte of 0x80 or more spoils the bits behind it, and the shard's name for the module is
/// not its path. A split may give up on these; the output must be right all the same.
#[test]
fn names_that_are_not_ascii() {
    each_llvm(|s| {
        sources(s);
        let link = |args: &str| {
            let command = format!("{LINK} main.o two.o {args}");
            s.link_both_with(&[LENIENT], &command)
                .same()
                .succeeds()
                .prints("43\n");
        };
        s.sh("cp one.o größe-目.o; llvm-ar-$N rcs größe.a größe-目.o");
        link("größe-目.o");
        link("größe.a");
        s.sh(r"mkdir $'d\xff'; cp one.o $'d\xff/one\xfe.o'; llvm-ar-$N rcs $'lib\xff.a' $'d\xff/one\xfe.o'");
        link(r"$'d\xff/one\xfe.o'");
        link(r"$'lib\xff.a'");
        s.sh(r"llvm-ar-$N rcsT $'thin\xff.a' $'d\xff/one\xfe.o'");
        link(r"$'thin\xff.a'");
        // A working directory of such a name, which the command line does not mention.
        s.sh(r"mkdir $'\xfe'; cp main.o one.o two.o $'\xfe'");
        s.link_both(
            r"cd $'\xfe'; clang-$N -O2 -flto=thin -fuse-ld=lld -o ../$OUT main.o one.o two.o",
        )
        .splits()
        .prints("43\n");
    });
}

#[test]
fn absolute_paths_and_parent_directories() {
    each_llvm(|s| {
        sources(s);
        s.sh("mkdir -p deep/er; llvm-ar-$N rcs libtwo.a two.o");
        s.link_both(&format!(
            "{LINK} \"$PWD/main.o\" \"$PWD//one.o\" \"$PWD/libtwo.a\""
        ))
        .splits()
        .prints("43\n");
        s.link_both(
            "cd deep/er; clang-$N -flto=thin -fuse-ld=lld -o ../../$OUT ../../main.o ./../../one.o ../../libtwo.a",
        )
        .splits()
        .prints("43\n");
    });
}

#[test]
fn start_lib() {
    each_llvm(|s| {
        sources(s);
        s.write(
            "unused.c",
            "int unused(void) { return missing(); } int missing(void);\n",
        );
        s.compile("clang-$N -c -O2 -flto=thin -Wno-implicit-function-declaration unused.c");
        s.link_both(&format!(
            "{LINK} main.o -Wl,--start-lib one.o unused.o two.o -Wl,--end-lib"
        ))
        .splits()
        .modules(3)
        .prints("43\n");
    });
}

/// The constructor of an archive member that nothing refers to runs only under `--whole-archive`.
#[test]
fn whole_archive() {
    each_llvm(|s| {
        sources(s);
        s.write(
            "ctor.c",
            "int puts(const char *);\n__attribute__((constructor)) static void up(void) { puts(\"up\"); }\n",
        );
        s.sh("clang-$N -c -O2 -flto=thin ctor.c; llvm-ar-$N rcs libtwo.a ctor.o one.o two.o");
        s.link_both(&format!("{LINK} main.o libtwo.a"))
            .splits()
            .modules(3)
            .prints("43\n");
        s.link_both(&format!(
            "{LINK} main.o -Wl,--whole-archive libtwo.a -Wl,--no-whole-archive"
        ))
        .splits()
        .modules(4)
        .prints("up\n43\n");
        s.link_both(&format!(
            "{LINK} main.o -Wl,--push-state,-whole-archive -L. -ltwo -Wl,-pop-state"
        ))
        .splits()
        .modules(4)
        .prints("up\n43\n");
    });
}

/// Archives that need each other.
#[test]
fn groups() {
    each_llvm(|s| {
        sources(s);
        s.write(
            "main2.c",
            "int two(int); int main(int argc, char **argv) { return two(argc) != 1; }\n",
        );
        s.sh("clang-$N -c -O2 -flto=thin main2.c; llvm-ar-$N rcs libone.a one.o; llvm-ar-$N rcs libtwo.a two.o");
        s.link_both(&format!(
            "{LINK} main2.o -Wl,--start-group libone.a libtwo.a -Wl,--end-group"
        ))
        .splits()
        .prints("");
        s.link_both(&format!(
            "{LINK} main2.o '-Wl,-(' libone.a libtwo.a '-Wl,-)' -Wl,--warn-backrefs"
        ))
        .splits()
        .prints("");
    });
}

#[test]
fn linker_scripts_that_name_inputs() {
    each_llvm(|s| {
        sources(s);
        s.write(
            "lib/libg.so",
            "/* GNU ld script */\nGROUP ( ./libone.a AS_NEEDED ( -ltwo ) )\n",
        );
        s.write("in.ld", "INPUT(main.o \"one.o\")\nINPUT(lib/libtwo.a)\n");
        s.sh("llvm-ar-$N rcs libone.a one.o; llvm-ar-$N rcs lib/libtwo.a two.o");
        s.link_both(&format!("{LINK} main.o -L. -Llib -lg"))
            .splits()
            .modules(3)
            .prints("43\n");
        s.link_both(&format!("{LINK} in.ld"))
            .splits()
            .modules(3)
            .prints("43\n");
        s.write(
            "lib/libs.a",
            "SEARCH_DIR(lib) GROUP(main.o one.o libtwo.a)\n",
        );
        s.link_both(&format!("{LINK} -Llib lib/libs.a"))
            .splits()
            .modules(3)
            .prints("43\n");
    });
}

/// Native objects, a native shared library and bitcode that refer to each other both ways.
#[test]
fn mixed_with_native_objects_and_shared_libraries() {
    each_llvm(|s| {
        sources(s);
        s.write(
            "native.c",
            "int used; int one(int); int native(int n) { return one(n) + used; }\n",
        );
        s.write(
            "shared.c",
            "int helper(int); int shared(int n) { return helper(n) + 1; }\n",
        );
        s.write(
            "mixed.c",
            "int printf(const char *, ...); int native(int), shared(int), two(int);\n\
             int helper(int n) { return n * 10; }\n\
             int main(int argc, char **argv) { return printf(\"%d\\n\", native(argc) + two(argc) + shared(argc)) < 0; }\n",
        );
        s.write(
            "one.c",
            "extern int used; int one(int n) { used++; return n + 40; }\n",
        );
        s.compile("clang-$N -c -O2 native.c; clang-$N -c -O2 -flto=thin mixed.c one.c");
        s.sh("clang-$N -O2 -fPIC -shared -fuse-ld=lld -o libshared.so shared.c; llvm-ar-$N rcs libn.a native.o one.o two.o");
        s.link_both(&format!("{LINK} native.o mixed.o one.o two.o -L. -lshared"))
            .splits()
            .modules(3)
            .prints("55\n");
        s.link_both(&format!(
            "{LINK} -Wl,--as-needed mixed.o ./libshared.so libn.a"
        ))
        .splits()
        .modules(3)
        .prints("55\n");
    });
}

/// A shared library that only bitcode needs stays in `DT_NEEDED`; one whose user is optimized away
/// is lld's to decide.
#[test]
fn as_needed_libraries() {
    each_llvm(|s| {
        sources(s);
        s.write("so.c", "int so(void) { return 0; }\n");
        s.write("zero.c", "int zero(void) { return 0; }\n");
        s.write(
            "m.c",
            "int zero(void), so(void); int main(void) { return zero() ? so() : 0; }\n",
        );
        s.sh("clang-$N -O2 -fPIC -shared -fuse-ld=lld -o libso.so so.c; clang-$N -c -O2 -flto=thin zero.c m.c");
        s.link_both(&format!("{LINK} m.o zero.o -Wl,--as-needed -L. -lso"))
            .splits()
            .prints("");
        s.sh("llvm-readelf-$N -d ../plain/a.out | grep -q libc.so");
    });
}

/// Bitcode in the wrapper that Apple's tools write starts `DE C0 17 0B` (docs/lld.md, "Recognising bitcode").
#[test]
fn bitcode_in_a_wrapper() {
    each_llvm(|s| {
        sources(s);
        s.script(
            "wrap",
            "#!/bin/bash\n# header: magic, version, offset, size, CPU; then the bitcode\nword() { printf \"\\\\x%02x\" $(($1 & 255)) $(($1 >> 8 & 255)) $(($1 >> 16 & 255)) $(($1 >> 24)); }\n\
             size=$(stat -c %s \"$1\")\nprintf \"$(word 0x0B17C0DE)$(word 0)$(word 20)$(word $size)$(word 7)\" >\"$2\"\ncat \"$1\" >>\"$2\"\n",
        );
        s.sh("./wrap one.o wrapped.o; mv wrapped.o one.o");
        s.link_both_with(&[LENIENT], &format!("{LINK} main.o one.o two.o"))
            .same()
            .succeeds()
            .prints("43\n");
    });
}

/// Fat objects hold bitcode in a section, which lld 17 and newer take only when told to.
#[test]
fn fat_objects() {
    some_llvm(
        |n| n >= 19,
        |s| {
            sources(s);
            s.sh("clang-$N -c -O2 -flto=thin -ffat-lto-objects main.c one.c two.c; llvm-ar-$N rcs libtwo.a one.o two.o");
            s.link_both("clang-$N -O2 -fuse-ld=lld -o $OUT main.o libtwo.a")
                .left_to_lld("no bitcode")
                .prints("43\n");
            s.link_both_with(
                &[LENIENT],
                &format!("{LINK} -ffat-lto-objects main.o libtwo.a"),
            )
            .same()
            .succeeds()
            .prints("43\n");
        },
    );
}

/// As those of 32 bits do.
#[test]
fn fat_objects_of_32_bits() {
    some_llvm(
        |n| n >= 19,
        |s| {
            s.write(
                "first.c",
                "int second(int); int first(int n) { return second(n) + 1; }\n",
            );
            s.write("second.c", "int second(int n) { return n * 3; }\n");
            s.sh("clang-$N -m32 -fPIC -c -O2 -flto=thin -ffat-lto-objects first.c second.c");
            s.link_both("$LD -m elf_i386 -shared --fat-lto-objects -o $OUT first.o second.o")
                .splits();
        },
    );
}
