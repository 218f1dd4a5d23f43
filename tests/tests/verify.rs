//! `ldwrap verify`: each link of a command both ways, and in the user's terms how they differ.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;

use ldwrap_tests::{Session, each_llvm_with_shim, llvm_22_with_shim, wait};

fn sources(s: &Session) {
    s.write(
        "main.c",
        "int printf(const char *, ...); int sum(int);\n\
         int main(void) { return printf(\"%d\\n\", sum(6)) < 0; }\n",
    );
    s.write(
        "sum.c",
        "__attribute__((noinline)) int sum(int n) {\n  int s = 0;\n\
         for (volatile int i = 0; i < n; i++) s += i * n;\n  return s;\n}\n",
    );
    s.compile("clang-$N -c -O2 -fPIC -flto=thin main.c sum.c; clang-$N -c -O2 main.c -o native.o");
}

/// `$LDWRAP verify` with these arguments: whether it ended with 0 (or else 1), and what it printed.
fn verify(s: &Session, arguments: &str) -> (bool, String) {
    let mut c = s.bash(&format!("$LDWRAP verify {arguments}"));
    s.use_shim(&mut c);
    // As a user has it, and the plain compilers' search.
    for name in ["LDWRAP_SPLIT", "LDWRAP_STRICT", "COMPILER_PATH"] {
        c.env_remove(name);
    }
    let out = c.output().expect("bash");
    s.assert_nothing_left(arguments);
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    let code = out.status.code();
    assert!(
        matches!(code, Some(0 | 1)),
        "LLVM {}: {arguments}: {code:?}\n{said}\n{}",
        s.llvm,
        String::from_utf8_lossy(&out.stderr)
    );
    (code == Some(0), said)
}

fn says(s: &Session, arguments: &str, good: bool, texts: &[&str]) {
    let (ok, said) = verify(s, arguments);
    for text in texts {
        assert!(
            said.contains(text),
            "LLVM {}: {arguments}\ndid not say '{text}' but:\n{said}",
            s.llvm
        );
    }
    assert_eq!(ok, good, "LLVM {}: {arguments}\n{said}", s.llvm);
}

const EQUAL: &str = "equal     a.out: 2 of 2 modules from backends";

#[test]
fn links_that_are_equal() {
    each_llvm_with_shim(|s| {
        sources(s);
        // A compiler's command line, with sources and side files; the files are lld's own afterwards.
        let link = "clang-$N -O2 -flto=thin -fuse-ld=lld -o a.out main.c sum.o -Wl,-Map=map,--dependency-file=deps";
        says(
            s,
            &format!("-- {link}"),
            true,
            &[EQUAL, "; 3 files are equal"],
        );
        assert_eq!(s.sh("./a.out"), "90\n");
        assert!(s.exists("map") && s.exists("deps"));
        // Through a symbolic link, which lld keeps.
        s.sh("touch real; ln -s real link");
        let link = "ld.lld-$N -shared -o a.out main.o sum.o -Map=link";
        says(
            s,
            &format!("-- {link}"),
            true,
            &[EQUAL, "; 2 files are equal"],
        );
        s.sh("[ -L link ] && [ -s real ]");
        // Compilers that see nothing but PATH are found as by ldwrap run.
        s.sh("../p/bin/ldwrap compilers");
        says(
            s,
            "-- env -u COMPILER_PATH clang-$N -flto=thin -fuse-ld=lld -o a.out main.o sum.o",
            true,
            &[EQUAL],
        );
        // lld's own, by each of its names, and in a response file.
        s.write("args", "-shared -o a.out main.o sum.o");
        for linker in ["ld.lld-$N", "/usr/lib/llvm-$N/bin/ld.lld", "$LD", "$LDWRAP"] {
            if linker == "$LDWRAP" {
                // Which lld that is depends on who calls.
                continue;
            }
            says(
                s,
                &format!("-- {linker} @args"),
                true,
                &[EQUAL, "; the file is equal"],
            );
        }
        s.sh("ld.lld-$N -shared -o plain main.o sum.o; cmp plain a.out");
        // gcc, with the lld that is named.
        says(
            s,
            "-- env LDWRAP_REAL_LLD=/usr/bin/ld.lld-$N gcc -fuse-ld=lld -o a.out main.o sum.o",
            true,
            &[EQUAL],
        );
    });
}

#[test]
fn a_build_with_several_links() {
    each_llvm_with_shim(|s| {
        sources(s);
        s.write(
            "Makefile",
            "all: tool lib.so plain\n\
             tool: main.o sum.o\n\t$(CC) -O2 -flto=thin -fuse-ld=lld -o $@ $^\n\
             lib.so: sum.o\n\t$(CC) -O2 -flto=thin -fuse-ld=lld -shared -o $@ $^\n\
             plain: native.o\n\t$(CC) -fuse-ld=lld -shared -o $@ $^\n",
        );
        says(
            s,
            "make -j2 CC=clang-$N",
            true,
            &[
                "equal     tool: 2 of 2",
                "equal     lib.so: 1 of 1",
                "native    1 link without bitcode",
                "total     2 links compared (3 modules): 2 equal, 0 differ; 1 not compared\n",
            ],
        );
        assert_eq!(s.sh("./tool"), "90\n");
    });
}

#[test]
fn the_users_own_cache_proves_nothing() {
    each_llvm_with_shim(|s| {
        sources(s);
        let link =
            "clang-$N -flto=thin -fuse-ld=lld -o a.out main.o sum.o -Wl,--thinlto-cache-dir=cache";
        for _ in 0..2 {
            says(s, &format!("-- {link}"), true, &[EQUAL]);
        }
        s.sh(link);
        says(s, &format!("-- {link}"), true, &[EQUAL]);
    });
}

/// What is forwarded is equal by construction, and said to be so.
#[test]
fn links_that_are_forwarded_or_fail() {
    each_llvm_with_shim(|s| {
        sources(s);
        let link = "clang-$N -flto=thin -fuse-ld=lld -o a.out main.o";
        says(
            s,
            &format!("{link} sum.o -Wl,--save-temps"),
            false,
            &[
                "forwarded a.out: --save-temps",
                "total     0 links compared (0 modules): 0 equal, 0 differ; 1 not compared\n",
                "FAILED    nothing was compared",
            ],
        );
        says(
            s,
            link,
            false,
            &[
                "equal     a.out: fails, in the same words",
                "the command itself failed",
            ],
        );
        says(s, "true", false, &["no link came to ldwrap"]);
        let native = "clang-$N -fuse-ld=lld -shared -o a.out native.o";
        says(s, native, false, &["FAILED    nothing was compared"]);
        // One of two: enough, unless all are wanted.
        s.write(
            "two.sh",
            format!("{link} sum.o && {link} sum.o -Wl,--save-temps\n"),
        );
        let total = "total     1 link compared (2 modules): 1 equal, 0 differ; 1 not compared\n";
        says(s, "sh two.sh", true, &[total]);
        let why = "FAILED    --require-split: 1 link with bitcode went to lld alone";
        says(s, "--require-split sh two.sh", false, &[total, why]);
        let (ok, said) = verify(s, "--json -- sh -c 'echo noise; sh two.sh'");
        assert!(ok, "LLVM {}: {said}", s.llvm);
        let json: serde_json::Value = serde_json::from_str(&said).expect("one object of JSON");
        assert_eq!(json["success"], true);
        assert_eq!((&json["equal"], &json["forwarded"]), (&1.into(), &1.into()));
        assert_eq!(json["links"][0]["verdict"], "equal");
        assert_eq!(
            json["links"][1]["text"].as_str().map(|t| &t[..12]),
            Some("--save-temps")
        );
        says(s, "/nonexistent/make", false, &[]);
    });
}

/// A clang that does something else: the module, the section and the symbol are named.
#[test]
fn a_link_that_differs() {
    each_llvm_with_shim(|s| {
        sources(s);
        let dir = s.dir().display().to_string();
        let clang = s.clang(
            "../other",
            &format!(
                "#!/bin/bash\n[[ -e {dir}/armed && \"$*\" == *-fthinlto-index=* && -s m/00000000.o ]] && \
                 set -- \"${{@/#-O2/-O1}}\"\nexec /usr/bin/clang-{} \"$@\"\n",
                s.llvm
            ),
        );
        let link = format!(
            "-- env LDWRAP_CLANG={} clang-$N -O2 -flto=thin -fuse-ld=lld -o a.out main.o sum.o",
            clang.display()
        );
        // As long as it behaves, it passes the self-test.
        says(s, &link, true, &[EQUAL]);
        s.sh("touch armed");
        s.write("sum.c", "__attribute__((noinline)) int sum(int n) {\n  int s = 0;\n  for (int i = 0; i < n; i++) s += i * s + n;\n  return s;\n}\n");
        s.compile("clang-$N -c -O2 -fPIC -flto=thin sum.c");
        says(
            s,
            &format!("--keep kept {link}"),
            false,
            &[
                "DIFFERS   a.out: 2 of 2 modules from backends\n",
                "a.out: section .text",
                ", in sum\n",
                "object of sum.o: section .text.sum",
                "files that differ are in kept",
            ],
        );
        assert!(Path::new(&s.dir()).join("kept").is_dir());
        let kept = s.sh("ls kept/*/*; cmp kept/*/plain/0-a.out a.out");
        assert!(kept.contains("ours1") && kept.contains("theirs1"), "{kept}");
    });
}

/// An lld that ends otherwise when it is watched.
#[test]
fn a_status_that_differs() {
    each_llvm_with_shim(|s| {
        sources(s);
        let lld = s.script(
            "lld",
            "#!/bin/bash\n/usr/bin/ld.lld-$N \"$@\"; [[ $* != *-o\\ a.out* || $* == */proc* ]]\n",
        );
        let link = format!(
            "-- env LDWRAP_REAL_LLD={} $LD -shared -o a.out main.o sum.o",
            lld.display()
        );
        let why = "DIFFERS   a.out: by lld alone exit status: 1, through ldwrap exit status: 0\n";
        says(s, &link, false, &[why]);
    });
}

/// A link that fails, both ways, leaves what was there before.
#[test]
fn an_older_output_stays() {
    each_llvm_with_shim(|s| {
        sources(s);
        s.write("a.out", "old\n");
        // Not by clang, which removes it.
        let (ok, said) = verify(s, "-- ld.lld-$N -e main -o a.out main.o");
        assert!(!ok, "LLVM {}: {said}", s.llvm);
        assert_eq!(s.read("a.out"), "old\n", "LLVM {}: {said}", s.llvm);
    });
}

/// Such a link is done once, by lld, with what the command gives it to read.
#[test]
fn what_can_be_read_once() {
    each_llvm_with_shim(|s| {
        sources(s);
        s.write("v.map", "{ global: sum; local: *; };\n");
        s.write("in.ld", "INPUT(/dev/stdin)\n");
        let link = "ld.lld-$N -shared main.o";
        for inputs in [
            "sum.o --version-script=/dev/stdin <v.map",
            "sum.o --version-script=<(cat v.map)",
            "sum.o --version-script=/dev/stdin < <(cat v.map)",
            "in.ld <sum.o",
        ] {
            s.sh(&format!("{link} -o plain {inputs}"));
            let said = [
                "forwarded a.out: ",
                "can perhaps be read only once",
                "0 differ; 1 not compared",
                "FAILED    nothing was compared",
            ];
            says(s, &format!("-- {link} -o a.out {inputs}"), false, &said);
            s.sh("cmp plain a.out; rm a.out");
        }
        let link = "ld.lld-$N -shared main.o sum.o";
        s.sh(&format!("{link} -o plain --version-script=v.map"));
        s.write(
            "two.sh",
            format!("{link} -o b.out && {link} -o a.out --version-script=<(cat v.map)\n"),
        );
        let total = "total     1 link compared (2 modules): 1 equal, 0 differ; 1 not compared\n";
        says(s, "bash two.sh", true, &[total]);
        let why = "FAILED    --require-split: 1 link with bitcode went to lld alone";
        says(s, "--require-split bash two.sh", false, &[total, why]);
        s.sh("cmp plain a.out");
    });
}

/// Each signal that ends a process: the command ends, and so does verify, as by that signal.
#[test]
fn signals_end_it() {
    llvm_22_with_shim(|s| {
        let verify = "ulimit -c 0; exec env --default-signal $LDWRAP verify -- sh -c 'echo $$ >phase; exec sleep 300'";
        for (signal, number) in [
            ("INT", 2),
            ("QUIT", 3),
            ("USR1", 10),
            ("USR2", 12),
            ("ALRM", 14),
            ("XCPU", 24),
            ("RTMIN+3", 37),
        ] {
            s.sh("rm -f phase");
            let mut c = std::process::Command::new("bash");
            c.args(["-c", verify]);
            s.set_environment(&mut c);
            s.use_shim(&mut c);
            let mut child = c.spawn().expect("bash");
            s.wait_for("phase", &mut child);
            s.sh(&format!("kill -{signal} {}", child.id()));
            let status = wait(&mut child, 20);
            assert_eq!(status.signal(), Some(number), "SIG{signal}: {status}");
            s.assert_nothing_left(&format!("SIG{signal}"));
        }
    });
}
