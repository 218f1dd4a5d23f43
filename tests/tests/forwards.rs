//! Links that go to the real lld: those without bitcode, and those that a split would not serve.

use ldwrap_tests::{LENIENT, Session, each_llvm};

fn native(s: &Session) {
    s.write("main.c", "int f(void); int main(void) { return f(); }\n");
    s.write("f.c", "int f(void) { return 0; }\n");
    s.compile("clang-$N -c -O2 main.c f.c; llvm-ar-$N rcs libf.a f.o");
}

fn bitcode(s: &Session) {
    s.write("main.c", "int f(void); int main(void) { return f(); }\n");
    s.write("f.c", "int f(void) { return 0; }\n");
    s.compile("clang-$N -c -O2 -flto=thin main.c f.c");
}

const LINK: &str = "clang-$N -O2 -flto=thin -fuse-ld=lld -o $OUT";

#[test]
fn no_bitcode() {
    each_llvm(|s| {
        native(s);
        s.link_both("clang-$N -fuse-ld=lld -o $OUT main.o f.o")
            .left_to_lld("no bitcode")
            .prints("");
        s.link_both("clang-$N -fuse-ld=lld -o $OUT main.o -L. -lf")
            .left_to_lld("no bitcode")
            .prints("");
        s.link_both(&format!("{LINK} main.o libf.a"))
            .left_to_lld("no bitcode")
            .prints("");
        s.link_both("$LD -r -o $OUT main.o f.o")
            .left_to_lld("no bitcode");
    });
}

/// Bitcode in an archive that the link does not pull in makes no difference to the output,
/// whatever the shim decides.
#[test]
fn bitcode_that_no_one_needs() {
    each_llvm(|s| {
        native(s);
        s.write("lazy.c", "int lazy(void) { return 1; }\n");
        s.sh("clang-$N -c -O2 -flto=thin lazy.c; llvm-ar-$N rcs liblazy.a lazy.o");
        s.link_both_with(
            &[LENIENT],
            "clang-$N -fuse-ld=lld -o $OUT main.o f.o liblazy.a",
        )
        .same()
        .succeeds()
        .prints("");
    });
}

#[test]
fn questions_to_lld() {
    each_llvm(|s| {
        s.link_both("$LD --version").same().succeeds().said("LLD");
        s.link_both("$LD -version").same().succeeds().said("LLD");
        s.link_both("$LD -v").same().succeeds().said("LLD");
        s.link_both("$LD -V").same().succeeds().said("LLD");
        // The text names argv[0].
        s.link_both("exec -a ld.lld-$N $LD --help")
            .same()
            .succeeds()
            .said("--thinlto-index-only");
        s.link_both("$LD").fails("no input files");
        s.link_both("clang-$N -fuse-ld=lld -Wl,--version")
            .same()
            .said("LLD");
    });
}

/// `-v` with inputs prints the version and links.
#[test]
fn verbose_link() {
    each_llvm(|s| {
        bitcode(s);
        s.link_both(&format!("{LINK} -Wl,-v main.o f.o"))
            .splits()
            .said("LLD")
            .prints("");
    });
}

/// GCC's LTO objects are ELF files with sections of its own. Those that also hold code link; the
/// others are lld's to refuse.
#[test]
fn lto_objects_of_gcc() {
    each_llvm(|s| {
        native(s);
        s.sh("gcc -c -O2 -flto -ffat-lto-objects main.c f.c");
        s.link_both(
            "PATH=$PATH:/usr/lib/llvm-$N/bin; gcc -fno-lto -fuse-ld=lld -o $OUT main.o f.o",
        )
        .left_to_lld("no bitcode")
        .prints("");
        s.sh("gcc -c -O2 -flto main.c f.c");
        s.link_both("$LD -o $OUT main.o f.o")
            .left_to_lld("no bitcode");
    });
}

#[test]
fn only_regular_lto() {
    each_llvm(|s| {
        bitcode(s);
        s.compile("clang-$N -c -O2 -flto main.c f.c");
        s.link_both_with(
            &[LENIENT],
            "clang-$N -O2 -flto -fuse-ld=lld -o $OUT main.o f.o",
        )
        .left_to_lld("no module of ThinLTO took part")
        .prints("");
    });
}

/// By these options the user already distributes, or asks for other files than a linked program.
#[test]
fn options_of_another_distribution() {
    each_llvm(|s| {
        bitcode(s);
        for option in [
            "--thinlto-index-only",
            "--thinlto-index-only=list",
            "-plugin-opt=thinlto-index-only",
            "--plugin-opt=thinlto-index-only=list",
        ] {
            s.link_both_with(&[LENIENT], &format!("{LINK} -Wl,{option} main.o f.o"))
                .succeeds()
                .left_to_lld("thinlto-index-only");
        }
        s.link_both_with(
            &[LENIENT],
            &format!("{LINK} -Wl,--thinlto-index-only,--thinlto-emit-imports-files main.o f.o"),
        )
        .succeeds()
        .left_to_lld("thinlto")
        .wrote("main.o.imports", "f.o");
        s.link_both_with(
            &[LENIENT],
            &format!("{LINK} -Wl,--lto-obj-path=obj main.o f.o"),
        )
        .succeeds()
        .left_to_lld("lto-obj-path");
    });
}

#[test]
fn options_that_ask_for_other_outputs() {
    each_llvm(|s| {
        bitcode(s);
        s.link_both_with(&[LENIENT], &format!("{LINK} -Wl,--lto-emit-asm main.o f.o"))
            .succeeds()
            .left_to_lld("emit-asm");
        s.link_both_with(
            &[LENIENT],
            &format!("{LINK} -Wl,--plugin-opt=emit-asm main.o f.o"),
        )
        .left_to_lld("emit-asm");
        s.link_both_with(
            &[LENIENT],
            &format!("{LINK} -Wl,-plugin-opt=emit-llvm,--thinlto-jobs=1 main.o f.o"),
        )
        .left_to_lld("emit-llvm");
        s.link_both_with(&[LENIENT], &format!("{LINK} -Wl,--save-temps main.o f.o"))
            .succeeds()
            .left_to_lld("save-temps");
        s.link_both_with(
            &[LENIENT],
            &format!("{LINK} -Wl,--reproduce=repro.tar main.o f.o"),
        )
        .succeeds()
        .left_to_lld("reproduce")
        .wrote("repro.tar", "main.o");
        s.link_both_with(
            &[("LLD_REPRODUCE", "env.tar"), LENIENT],
            &format!("LLD_REPRODUCE=env.tar {LINK} main.o f.o"),
        )
        .same()
        .succeeds();
    });
}

/// What clang cannot be told (docs/lld.md, "Code generation flags").
#[test]
fn code_generation_that_clang_cannot_express() {
    each_llvm(|s| {
        bitcode(s);
        for option in ["--lto-O0", "--lto-O1", "-plugin-opt=O0", "--plugin-opt=O1"] {
            s.link_both_with(
                &[LENIENT],
                &format!("clang-$N -fuse-ld=lld -Wl,{option} -o $OUT main.o f.o"),
            )
            .succeeds()
            .left_to_lld("O")
            .prints("");
        }
        s.sh("clang-$N -c -g -gsplit-dwarf -O2 -flto=thin main.c f.c");
        s.link_both_with(&[LENIENT], &format!("{LINK} -g -gsplit-dwarf main.o f.o"))
            .succeeds()
            .left_to_lld("dwo")
            .prints("");
    });
}

#[test]
fn asked_not_to_split() {
    each_llvm(|s| {
        bitcode(s);
        s.link_both_with(
            &[("LDWRAP_SPLIT", "never"), LENIENT],
            &format!("{LINK} main.o f.o"),
        )
        .left_to_lld("LDWRAP_SPLIT")
        .prints("");
    });
}
