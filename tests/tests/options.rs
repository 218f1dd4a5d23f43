//! Options of the link, in every spelling; what the user asks lld to print or to write besides the
//! output is equal too.

use std::fs;

use ldwrap_tests::{Session, each_llvm};

/// `main`, two modules, an unused function and a native object; `-fPIC`, to go into any output.
fn sources(s: &Session) {
    s.write(
        "main.c",
        "int printf(const char *, ...); int one(int), two(int), native(int);\n\
         int main(int argc, char **argv) { return printf(\"%d\\n\", one(argc) + two(argc) + native(argc)) < 0; }\n",
    );
    s.write(
        "one.c",
        "int state = 3; int one(int n) { state += n; return state; }\nint same_a(int n) { return n * 3 + 1; }\n",
    );
    s.write(
        "two.c",
        "extern int state; int two(int n) { return n + state; }\nint same_b(int n) { return n * 3 + 1; }\nint unused(void) { return 9; }\n",
    );
    s.write(
        "native.c",
        "extern int state; int native(int n) { return n * 100 + state; }\n",
    );
    s.compile("clang-$N -c -O2 -fPIC -flto=thin main.c one.c two.c; clang-$N -c -O2 -fPIC native.c; llvm-ar-$N rcs libtwo.a two.o");
}

const LINK: &str = "clang-$N -O2 -flto=thin -fuse-ld=lld -o $OUT";
const ALL: &str = "main.o one.o libtwo.a native.o";

#[test]
fn kinds_of_output() {
    each_llvm(|s| {
        sources(s);
        for kind in [
            "-pie",
            "-no-pie",
            "-static",
            "-static-pie",
            "-static-libgcc -Wl,-z,now,-z,relro -s",
        ] {
            s.link_both(&format!("{LINK} {kind} {ALL}"))
                .splits()
                .modules(3)
                .prints("113\n");
        }
        for kind in [
            "-shared",
            "-shared -Wl,-Bsymbolic",
            "-shared -Wl,-soname,x.so -Wl,-z,defs",
        ] {
            s.link_both(&format!("{LINK} {kind} {ALL}"))
                .splits()
                .modules(3);
        }
    });
}

/// A relocatable link of bitcode compiles it, with LTO.
#[test]
fn relocatable() {
    each_llvm(|s| {
        sources(s);
        s.link_both_with(
            &[ldwrap_tests::LENIENT],
            "$LD -r -o $OUT one.o two.o native.o",
        )
        .same()
        .succeeds();
    });
}

#[test]
fn sections_and_symbols() {
    each_llvm(|s| {
        sources(s);
        for options in [
            "-gc-sections,--print-gc-sections,--icf=safe",
            "--icf=all,--print-icf-sections",
            "--defsym=unused2=one,-defsym,answer=42,--emit-relocs",
            "--undefined=unused,-u,same_b,--export-dynamic-symbol=same_a",
            "--exclude-libs=ALL,-E",
            "--exclude-libs,libtwo.a,--export-dynamic,-z,nostart-stop-gc,--no-gc-sections,-O2",
            "--build-id=sha1,--hash-style=both,--no-rosegment",
            "--sort-section=name,--symbol-ordering-file=order",
        ] {
            s.write("order", "native\ntwo\nmain\n");
            s.link_both(&format!("{LINK} -Wl,{options} {ALL}"))
                .splits()
                .prints("113\n");
        }
    });
}

/// `--wrap` is known to LTO: what is wrapped must not be inlined.
#[test]
fn wrap() {
    each_llvm(|s| {
        sources(s);
        s.write(
            "wrap.c",
            "int __real_one(int); int __wrap_one(int n) { return __real_one(n) + 1000; }\n",
        );
        s.compile("clang-$N -c -O2 -fPIC -flto=thin wrap.c");
        s.link_both(&format!("{LINK} -Wl,--wrap=one wrap.o {ALL}"))
            .splits()
            .prints("1113\n");
        s.link_both(&format!("{LINK} -Wl,-wrap,one wrap.o {ALL}"))
            .splits()
            .prints("1113\n");
        s.compile("clang-$N -c -O2 -fPIC wrap.c");
        s.link_both(&format!("{LINK} -Wl,--wrap,one wrap.o {ALL}"))
            .splits()
            .prints("1113\n");
    });
}

#[test]
fn version_scripts_and_dynamic_lists() {
    each_llvm(|s| {
        sources(s);
        s.write(
            "v.map",
            "V1 { global: one; two; };\nV2 { global: nat*; local: *; } V1;\n",
        );
        s.write("dyn.list", "{ one; };\n");
        s.link_both(&format!("{LINK} -shared -Wl,--version-script=v.map {ALL}"))
            .splits();
        s.link_both(&format!(
            "{LINK} -shared -Wl,--version-script,v.map,-Map=map {ALL}"
        ))
        .splits()
        .wrote("map", "two");
        s.link_both(&format!("{LINK} -Wl,--dynamic-list=dyn.list {ALL}"))
            .splits()
            .prints("113\n");
        s.write("keep", "one\nnative\n");
        s.link_both(&format!(
            "{LINK} -shared -Wl,--retain-symbols-file=keep {ALL}"
        ))
        .splits();
    });
}

/// A script of sections; its patterns name input sections, files and archive members (docs/lld.md, "Resolution before and after LTO").
#[test]
fn section_scripts() {
    each_llvm(|s| {
        sources(s);
        s.write(
            "all.ld",
            "SECTIONS {\n  . = 0x400000 + SIZEOF_HEADERS;\n\
             .first : { *(.text.two) *libtwo.a:two.o(.text*) native.o(.text*) }\n\
             .text : { *(.text*) }\n .rodata : { *(.rodata*) }\n . = ALIGN(0x1000);\n\
             .tail : { *main.o(.data*) *(.data*) tail_end = .; }\n .bss : { *(.bss*) } }\n",
        );
        s.link_both(&format!("{LINK} -no-pie -Wl,-T,all.ld,-Map=map {ALL}"))
            .splits()
            .wrote("map", ".first");
        s.write(
            "insert.ld",
            "SECTIONS { .mine : { *(.text.one) } } INSERT AFTER .text;\n",
        );
        s.link_both(&format!("{LINK} -Wl,-Tinsert.ld {ALL}"))
            .splits()
            .prints("113\n");
        s.link_both(&format!(
            "{LINK} insert.ld -Wl,-Ttext=0x600000 -no-pie {ALL}"
        ))
        .splits();
    });
}

/// What lld prints, and what it writes beside the output.
#[test]
fn side_files_and_messages() {
    each_llvm(|s| {
        sources(s);
        let l = format!("{LINK} {ALL}");
        s.link_both(&format!("{l} -Wl,-Map=out.map,--cref"))
            .splits()
            .wrote("out.map", "native")
            .wrote("out.map", "Cross");
        s.link_both(&format!("{l} -Wl,-M")).splits().said("VMA");
        s.link_both(&format!("{l} -Wl,-t"))
            .splits()
            .said("libtwo.a(two.o)");
        s.link_both(&format!("{l} -Wl,--trace,--trace-symbol=two,-y,state"))
            .splits()
            .said("definition of two");
        s.link_both(&format!("{l} -Wl,--why-extract=why"))
            .splits()
            .wrote("why", "two.o");
        s.link_both(&format!("{l} -Wl,--dependency-file=deps.d"))
            .splits()
            .wrote("deps.d", "main.o");
        s.link_both(&format!(
            "{l} -Wl,--gc-sections,--print-gc-sections,--print-map,--verbose"
        ))
        .splits()
        .said("removing unused");
        s.link_both(&format!(
            "{l} -Wl,--print-archive-stats=stats,--print-symbol-order=sym"
        ))
        .splits()
        .wrote("stats", "libtwo.a");
        s.link_both(&format!("{l} -Wl,--warn-backrefs,--warn-common,--cref"))
            .splits()
            .said("Cross Reference");
    });
}

/// `--time-trace` has times in it, so its file cannot be equal; the output is.
#[test]
fn time_trace() {
    each_llvm(|s| {
        sources(s);
        s.link_both_with(
            &[ldwrap_tests::LENIENT],
            &format!("{LINK} {ALL} -Wl,--time-trace"),
        )
        .succeeds()
        .wrote("a.out.time-trace", "traceEvents")
        .prints("113\n");
        s.sh("cmp ../plain/a.out a.out; test -s a.out.time-trace");
    });
}

/// LTO's own options shape code generation, so backends need them too.
#[test]
fn code_generation() {
    each_llvm(|s| {
        sources(s);
        for options in [
            "-Os -Wl,--lto-O2,-O1",
            "-Wl,-plugin-opt=O3,-plugin-opt=mcpu=haswell",
            "-Wl,--lto-partitions=2,-plugin-opt=-inline-threshold=1",
            "-Wl,-mllvm,-inline-threshold=0,--mllvm=-unroll-count=2",
            "-Wl,--lto-debug-pass-manager,--thinlto-jobs=1",
            "-Wl,-plugin-opt=-debugger-tune=lldb -fsplit-machine-functions",
            "-Wl,--thinlto-jobs=all,--threads=2",
            "-fno-function-sections -g -mcmodel=small",
        ] {
            // An option that forwards is as good here; equality is what counts.
            s.link_both_with(&[ldwrap_tests::LENIENT], &format!("{LINK} {options} {ALL}"))
                .same()
                .succeeds();
        }
        // These must split.
        for options in [
            "-Wl,--lto-O3",
            "-O3 -march=haswell",
            "-Wl,--thinlto-jobs=1,--threads=1",
            "-Wl,-plugin-opt=O3",
        ] {
            s.link_both(&format!("{LINK} {options} {ALL}"))
                .splits()
                .prints("113\n");
        }
    });
}

/// Response files: nested, with quotes and escapes, and longer than one argument may be.
#[test]
fn response_files() {
    each_llvm(|s| {
        sources(s);
        s.write("outer.rsp", "main.o @inner.rsp\n -Map='map file'\n");
        s.write(
            "inner.rsp",
            "one.o \"lib two.a\"\n\tnati\\ve.o  --build-id=md5\n\n",
        );
        s.sh("mv libtwo.a 'lib two.a'");
        s.link_both("clang-$N -flto=thin -fuse-ld=lld -o $OUT -Wl,@outer.rsp")
            .splits()
            .wrote("map file", "one")
            .prints("113\n");
        s.sh("mkdir sub; mv inner.rsp sub; echo 'main.o @sub/inner.rsp' > outer.rsp");
        s.link_both("clang-$N -flto=thin -fuse-ld=lld -o $OUT -Wl,@outer.rsp")
            .splits()
            .prints("113\n");
        // clang itself writes a response file when a command is long (in TMPDIR).
        s.write("unused.c", "");
        s.sh("clang-$N -c unused.c; mkdir pad");
        let mut long = String::from("main.o one.o native.o");
        for i in 0..2000 {
            let name = format!("pad/{i}-{}.o", "x".repeat(60));
            fs::hard_link(s.dir().join("unused.o"), s.dir().join(&name)).expect("a hard link");
            long = format!("{long}\n{name}");
        }
        assert!(long.len() > 128 << 10);
        s.write("long.rsp", long);
        s.link_both("clang-$N -flto=thin -fuse-ld=lld -o $OUT @long.rsp 'lib two.a'")
            .splits()
            .prints("113\n");
        s.link_both("$LD -shared -o $OUT @long.rsp 'lib two.a'")
            .splits();
        s.link_both("$LD -shared -o $OUT $(cat long.rsp) 'lib two.a'")
            .splits();
        s.link_both("$LD --rsp-quoting=windows -shared -o $OUT main.o one.o native.o 'lib two.a'")
            .splits();
    });
}

/// One dash or two, joined or separate, for options whose meaning the shim has to see.
#[test]
fn spellings() {
    each_llvm(|s| {
        sources(s);
        for args in [
            "-shared -o $OUT -L. main.o one.o native.o -ltwo",
            "--shared --output=$OUT --library-path=. main.o one.o native.o --library=two",
            "-Bshareable --output $OUT --library-path . main.o one.o native.o --library two",
            "-shared -o$OUT -L . main.o one.o native.o -l two -m elf_x86_64 -z now -znorelro",
            "-shared -output=$OUT -library-path=. main.o one.o native.o -library=two -melf_x86_64",
            "-shared -o $OUT --whole-archive libtwo.a -no-whole-archive main.o one.o native.o -plugin x -plugin-opt=O2",
            "-shared -o $OUT --push-state --as-needed main.o one.o --pop-state native.o -Bstatic -L. -ltwo -call_shared",
            "-shared -o $OUT --format=elf main.o one.o native.o -b default libtwo.a",
            "--sysroot=$PWD -shared -o $OUT -L=. main.o one.o native.o -ltwo",
            "-nostdlib -shared -o $OUT -L. main.o one.o native.o -ltwo --fatal-warnings -e 0x0 --eh-frame-hdr",
        ] {
            s.link_both(&format!("$LD {args}")).same().succeeds();
        }
    });
}

/// `-r`-like and binary inputs beside bitcode.
#[test]
fn binary_inputs() {
    each_llvm(|s| {
        sources(s);
        s.write("blob", b"BC\xc0\xde is not always bitcode");
        s.link_both(
            "$LD -shared -o $OUT main.o one.o two.o native.o --format=binary blob --format=default",
        )
        .splits();
        s.link_both("$LD -shared -o $OUT native.o -b binary one.o -b elf")
            .same()
            .succeeds();
    });
}
