//! Links that lld refuses: the same message, the same exit status, and no more files than lld
//! leaves. Not strict, since a split that fails is to become lld's own error.

use ldwrap_tests::{LENIENT, LinkPair, Session, each_llvm};

fn sources(s: &Session) {
    s.write(
        "main.c",
        "int one(void); int main(void) { return one(); }\n",
    );
    s.write("one.c", "int one(void) { return 0; }\n");
    s.compile("clang-$N -c -O2 -flto=thin main.c one.c");
}

fn link<'s>(s: &'s Session, args: &str) -> LinkPair<'s> {
    s.link_both_with(
        &[LENIENT],
        &format!("clang-$N -O2 -flto=thin -fuse-ld=lld -o $OUT {args}"),
    )
}

#[test]
fn undefined_symbols() {
    each_llvm(|s| {
        sources(s);
        link(s, "main.o").fails("undefined symbol: one");
        s.write(
            "two.c",
            "int gone(void); int one(void) { return gone(); }\n",
        );
        s.sh("clang-$N -c -O2 -g -flto=thin two.c; llvm-ar-$N rcs 'lib two.a' two.o");
        // One thread, or LLVM 22 reports the references in any order.
        link(s, "main.o 'lib two.a' -Wl,--threads=1").fails("undefined symbol: gone");
        link(
            s,
            "main.o 'lib two.a' -Wl,--warn-unresolved-symbols,--threads=1",
        )
        .same()
        .succeeds()
        .said("undefined symbol: gone");
        link(
            s,
            "main.o two.o -Wl,--threads=1,--error-limit=1,--unresolved-symbols=report-all",
        )
        .fails("gone");
        link(
            s,
            "-shared main.o -Wl,--no-undefined,--color-diagnostics=always",
        )
        .fails("undefined");
    });
}

#[test]
fn duplicate_symbols() {
    each_llvm(|s| {
        sources(s);
        s.write("dup.c", "int one(void) { return 1; }\n");
        s.compile("clang-$N -c -O2 -flto=thin dup.c; clang-$N -c -O2 dup.c -o native.o");
        // Before there is anything to compile.
        link(s, "main.o one.o dup.o")
            .left_to_lld("lld ended with an error")
            .fails("duplicate symbol: one");
        link(s, "main.o one.o native.o").fails("duplicate symbol: one");
        link(s, "native.o main.o one.o").fails("duplicate symbol: one");
        link(s, "main.o one.o dup.o -Wl,--allow-multiple-definition")
            .same()
            .succeeds();
    });
}

#[test]
fn inputs_that_cannot_be_read() {
    each_llvm(|s| {
        sources(s);
        s.sh("mkdir directory.o; ln -s nowhere broken.o; touch empty.o; mkfifo never; llvm-ar-$N rcs empty.a");
        s.sh("llvm-ar-$N rcs one.a one.o; head -c 200 one.a >short.a; printf '!<arch>\\nrubbish' >odd.a; head -c 20 one.o >tiny.o");
        s.sh("rm -f gone.o; cp one.o gone.o; llvm-ar-$N rcsT thin.a gone.o; rm gone.o");
        link(s, "$PWD/missing.o main.o").fails("");
        s.link_both_with(&[LENIENT], "$LD -o $OUT main.o missing.o")
            .fails("missing.o");
        s.link_both_with(&[LENIENT], "$LD -o $OUT main.o one.o -lmissing")
            .fails("-lmissing");
        s.link_both_with(&[LENIENT], "$LD -o $OUT main.o -l:missing.a one.o")
            .fails("missing.a");
        for input in [
            "directory.o",
            "broken.o",
            "short.a",
            "odd.a",
            "thin.a",
            "tiny.o",
        ] {
            s.link_both_with(&[LENIENT], &format!("$LD -o $OUT main.o {input}"))
                .fails("");
        }
        s.link_both_with(&[LENIENT], "$LD -shared -o $OUT main.o empty.o")
            .same();
        s.link_both_with(&[LENIENT], "$LD -shared -o $OUT main.o empty.a")
            .same()
            .succeeds();
        s.link_both_with(&[LENIENT], "$LD -o $OUT main.o @missing.rsp")
            .fails("missing.rsp");
        s.write("bad.ld", "INPUT(missing.o)\n");
        s.link_both_with(&[LENIENT], "$LD -o $OUT main.o bad.ld")
            .fails("missing.o");
        s.write("worse.ld", "SECTIONS { {{ \n");
        s.link_both_with(&[LENIENT], "$LD -o $OUT main.o one.o worse.ld")
            .fails("worse.ld");
        s.write("loop.rsp", "@loop.rsp\n");
        s.link_both_with(&[LENIENT], "$LD -shared -o $OUT main.o one.o @loop.rsp")
            .same();
    });
}

/// A file that its owner may not read; root may read all, so lld runs as `nobody` where the tests
/// run as root.
#[test]
fn inputs_without_permission() {
    each_llvm(|s| {
        sources(s);
        s.sh("chmod 000 one.o; chmod -R a+rX .. 2>/dev/null; chmod 000 one.o; chmod 1777 . ../tmp ../home; chmod 755 ..");
        s.sh("touch ../report.json; chmod 666 ../report.json");
        let nobody =
            "$([ $(id -u) = 0 ] && echo setpriv --reuid 65534 --regid 65534 --clear-groups)";
        s.link_both_with(&[LENIENT], &format!("{nobody} $LD -o $OUT main.o one.o"))
            .fails("one.o");
    });
}

/// Bitcode that ends early, with a good magic number.
#[test]
fn truncated_bitcode() {
    each_llvm(|s| {
        sources(s);
        for bytes in [4, 100, 400, 1000] {
            s.sh(&format!(
                "head -c {bytes} one.o >cut.o; rm -f cut.a; ar qcS cut.a cut.o 2>/dev/null"
            ));
            s.link_both_with(&[LENIENT], "$LD -shared -o $OUT main.o cut.o")
                .fails("cut.o");
            s.link_both_with(
                &[LENIENT],
                "$LD -shared -o $OUT main.o --whole-archive cut.a",
            )
            .fails("cut.o");
        }
        // Rubbish behind the magic number, and within a module.
        s.sh("(head -c 400 one.o; head -c 2000 /dev/zero; tail -c +2401 one.o) >zero.o");
        s.link_both_with(&[LENIENT], "$LD -shared -o $OUT main.o zero.o")
            .fails("error:");
    });
}

#[test]
fn outputs_that_cannot_be_written() {
    each_llvm(|s| {
        sources(s);
        s.sh("mkdir dir");
        s.link_both_with(&[LENIENT], "$LD -shared -o dir main.o one.o")
            .fails("dir");
        s.link_both_with(&[LENIENT], "$LD -shared -o missing/a.out main.o one.o")
            .fails("missing/a.out");
        s.link_both_with(&[LENIENT], "$LD -shared -o one.o/a.out main.o one.o")
            .fails("one.o/a.out");
        s.link_both_with(
            &[LENIENT],
            "$LD -shared -o $OUT -Map=missing/map main.o one.o",
        )
        .fails("missing/map");
        s.link_both_with(&[LENIENT], "$LD -shared -o /dev/null main.o one.o")
            .same()
            .succeeds();
        // Over a file that is there, with a mode of its own; and not over it when the link fails.
        s.write("a.out", "old");
        s.sh("chmod 600 a.out");
        s.link_both("$LD -shared -o $OUT main.o one.o").splits();
        s.write("a.out", "old");
        s.link_both_with(&[LENIENT], "$LD -z defs -shared -o $OUT main.o")
            .fails("undefined");
    });
}

#[test]
fn options_that_lld_refuses() {
    each_llvm(|s| {
        sources(s);
        for option in [
            "--no-such-option",
            "-znonsense --fatal-warnings",
            "--icf=maybe",
            "-m elf_moon",
            "--lto-O9",
            "--thinlto-jobs=many",
            "--thinlto-jobs=99999999999",
            "--threads=4294967296",
            "--thinlto-cache-policy=prune_after=5:cache_size=1%",
            "-o",
            "--threads=0",
            "-plugin-opt=no-such-llvm-option",
            "-plugin-opt=-no-such-llvm-option",
            "-mllvm -no-such-llvm-option",
            "--end-lib",
            "--pop-state",
            "--shared --pie",
            "-L",
        ] {
            // Some are refused by some versions only; lld decides. Some messages have argv[0].
            s.link_both_with(
                &[LENIENT],
                &format!("exec -a ld.lld-$N $LD -shared -o $OUT main.o one.o {option}"),
            )
            .same();
        }
        s.link_both_with(&[LENIENT], "$LD --no-such-option -o $OUT main.o one.o")
            .fails("no-such-option");
    });
}

/// An error of the code generator: lld compiles it in-process and says so in its own words.
#[test]
fn errors_of_code_generation() {
    each_llvm(|s| {
        sources(s);
        s.write(
            "bad.c",
            "void bad(void) { __asm__ volatile(\"no_such_instruction %eax\"); }\n",
        );
        s.sh("clang-$N -c -O2 -g -flto=thin bad.c");
        link(s, "-shared main.o one.o bad.o").fails("invalid instruction");
    });
}

/// Bitcode for another target, or of a newer LLVM.
#[test]
fn foreign_bitcode() {
    each_llvm(|s| {
        sources(s);
        s.write("far.c", "int far(void) { return 1; }\n");
        s.sh("clang-$N --target=aarch64-linux-gnu -c -O2 -flto=thin far.c");
        s.link_both_with(&[LENIENT], "$LD -shared -o $OUT main.o one.o far.o")
            .fails("far.o");
        s.sh("clang-$N --target=i386-linux-gnu -c -O2 -flto=thin far.c");
        s.link_both_with(&[LENIENT], "$LD -m elf_i386 -shared -o $OUT far.o")
            .same()
            .succeeds();
        s.link_both_with(&[LENIENT], "$LD -shared -o $OUT far.o one.o")
            .fails("one.o");
        // Whether an older lld understands it is lld's to say.
        s.sh("/usr/bin/clang-22 -c -O2 -flto=thin far.c");
        s.link_both_with(&[LENIENT], "$LD -shared -o $OUT main.o one.o far.o")
            .same();
    });
}
