//! The local engine: objects come from a cache by lld's own keys, and a link that has them is lld's to
//! the byte, in what it writes and in what it prints. Options in keys:
//! `local_options.rs`; faults and signals: `local_faults.rs`.

use ldwrap_tests::{LinkPair, Session, each_llvm, newest_llvm};

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
    s.compile("clang-$N -c -O2 -flto=thin *.c");
}

fn link<'s>(s: &'s Session, command: &str) -> LinkPair<'s> {
    s.link_both_cached(&[], command)
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
            link(s, &command).prints("14\n").splits_cached(0, MODULES);
            link(s, &command).prints("14\n").splits_cached(MODULES, 0);
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

/// An output that is a stream of lld's own goes there, whatever it is named.
#[test]
fn outputs_that_are_standard_output() {
    newest_llvm(|s| {
        sources(s);
        for executor in ["local", "clang"] {
            for link in [
                "ln -sf /proc/self/fd/1 so; $LD -shared -o so *.o | sha256sum; readlink so",
                "$LD -shared -o - *.o | sha256sum",
            ] {
                s.link_both_cached(&[("LDWRAP_EXECUTOR", executor)], link)
                    .splits();
            }
        }
    });
}

#[test]
fn an_edit_costs_what_it_costs_lld() {
    each_llvm(|s| {
        sources(s);
        assert_eq!(new_in_own_cache(s, LINK), MODULES);
        link(s, LINK).splits_cached(0, MODULES);
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
            s.compile(&format!("clang-$N -c -O2 -flto=thin f{name}.c"));
            let misses = new_in_own_cache(s, LINK);
            let both = link(s, LINK);
            both.prints(result).splits_cached(MODULES - misses, misses);
        }
    });
}

#[test]
fn another_directory_has_the_same_objects() {
    each_llvm(|s| {
        sources(s);
        link(s, LINK).splits_cached(0, MODULES);
        s.sh("mkdir -p ../elsewhere; cp *.c ../elsewhere; cd ../elsewhere; clang-$N -c -O2 -flto=thin *.c");
        let there = format!("cd ../elsewhere; {LINK}; mv $OUT ../w");
        link(s, &there).prints("14\n").splits_cached(MODULES, 0);
        let absolute = LINK.replace("*.o", "$PWD/*.o");
        link(s, &absolute).prints("14\n").splits_cached(MODULES, 0);
    });
}

/// What a backend prints is in a buffer until lld ends, unless standard output is a terminal.
#[test]
fn what_backends_print_comes_again() {
    each_llvm(|s| {
        s.write(
            "main.c",
            "int f(int); int main(int c, char **v) { return f(c) > 9; }\n",
        );
        s.write(
            "f.c",
            "__attribute__((noinline)) int f(int c) { __asm__(\".print \\\"hello from assembly\\\"\"); return c; }\n",
        );
        s.sh("clang-$N -c -O2 -flto=thin main.c f.c");
        let command = "clang-$N -O2 -flto=thin -fuse-ld=lld -o $OUT main.o f.o";
        for _ in 0..2 {
            let both = link(s, command);
            both.splits();
            let said = String::from_utf8_lossy(&both.split.stdout).into_owned();
            assert!(said.contains("hello from assembly"), "{said}");
        }
    });
}

/// Modules are imported from in the order of their names, which shows in debug information, and which lld's keys lack: a hit
/// by another name is none where the order is another.
#[test]
fn the_order_of_imports() {
    each_llvm(|s| {
        s.write(
            "main.cpp",
            "int fa(int), fb(int); extern \"C\" int printf(const char *, ...); int main(int c, char **v) { return printf(\"%d\\n\", fa(c) + fb(c)) < 0; }",
        );
        for name in ["a", "b"] {
            let text = format!(
                "template <int N> struct T {{ static int v[8]; static int get(int i) {{ return v[i & 7] += i; }} }};\n\
                 template <int N> int T<N>::v[8] = {{N, 2, 3}};\n\
                 int f{name}(int i) {{ return T<1>::get(i) + 1; }}\n"
            );
            s.write(&format!("{name}.cpp"), text);
        }
        s.sh("clang++-$N -c -g -O2 -flto=thin main.cpp a.cpp b.cpp");
        let of = |objects: &str| {
            let command =
                format!("clang-$N -g -O2 -flto=thin -fuse-ld=lld -o $OUT main.o {objects}");
            let both = link(s, &command);
            both.prints("9\n").splits();
            both
        };
        of("a.o b.o").splits_cached(0, 3);
        // Nothing has changed: the orders of the link before hold.
        of("a.o b.o").splits_cached(3, 0);
        s.sh("cp a.o z.o");
        of("z.o b.o");
        of("z.o b.o").splits_cached(3, 0);
        // The order of the first link again, and by other names.
        of("a.o b.o").splits_cached(3, 0);
        s.sh("mkdir ../x; cp a.o ../x/p.o; cp b.o ../x/q.o");
        s.sh("llvm-ar-$N rc libone.a a.o; llvm-ar-$N rc libtwo.a a.o; llvm-ar-$N rc libp.a b.o");
        for same in ["../x/p.o ../x/q.o", "libone.a libp.a"] {
            let both = of(same);
            // The keys of older versions have the order of all modules of the link.
            if s.llvm >= 19 {
                both.splits_cached(3, 0);
            }
        }
        of("libtwo.a libp.a");
        // The same names of the other's content.
        s.sh("cp a.o c.o; cp b.o a.o; cp c.o b.o");
        of("a.o b.o");
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
            both.prints("14\n").splits_cached(MODULES - misses, misses);
            link(s, &command).splits_cached(MODULES, 0);
        }
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
        // The second directive is put together by the assembler.
        for reads in [
            ".incbin \\\"blob\\\"".to_owned(),
            format!(".irp end, bin\\n .inc\\\\end \\\"{dir}/blob\\\"\\n .endr"),
        ] {
            let asm = format!(
                "\".section .rodata.blob,\\\"a\\\"; .globl blob; blob: {reads}; .byte 0; .previous\""
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
                link(s, LINK).prints("74\n").splits_cached(0, MODULES);
                for (blob, result) in [("AB", "75\n"), ("AC", "76\n"), ("AC", "76\n")] {
                    s.write("blob", blob);
                    link(s, LINK).prints(result).splits_cached(MODULES - 1, 1);
                }
                s.sh("rm -rf ../cache");
                let none = [("LDWRAP_CACHE_SIZE", "0"), by_clang[0]];
                s.link_both_cached(&none, LINK).splits_but(1).prints("76\n");
                for (blob, result) in [("AB", "75\n"), ("AC", "76\n"), ("AC", "76\n")] {
                    s.write("blob", blob);
                    s.link_both_cached(&by_clang, LINK).same().prints(result);
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
                    both.said("warning: ").splits_cached(MODULES - 1, 1);
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
        both.splits_cached(0, MODULES);
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
        both.splits_cached(MODULES, 0);
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
        s.compile("clang-$N -c -O2 -flto=thin conftest.c");
        s.link_both_cached(&auto, LINK)
            .left_to_lld("too little bitcode");
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
        s.link_both_cached(&auto, LINK).splits_cached(0, MODULES);
        // Without a cache it waits for others still: nothing is found, and nothing is kept.
        let none = [("LDWRAP_SPLIT", ""), ("LDWRAP_CACHE_SIZE", "0")];
        for _ in 0..2 {
            s.link_both_cached(&none, LINK).splits_cached(0, MODULES);
        }
    });
}

/// What lld writes for the user's eyes comes from lld alone.
#[test]
fn side_outputs() {
    each_llvm(|s| {
        sources(s);
        link(s, LINK).splits_cached(0, MODULES);
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
        link(s, LINK).splits_cached(MODULES, 0);
    });
}
