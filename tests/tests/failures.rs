//! A part of the split that fails: the link is lld's then, unless `LDWRAP_STRICT` makes it an error
//! that names the cause.

use std::path::Path;

use ldwrap_tests::{
    LENIENT, Session, each_llvm, each_llvm_with_shim, fixtures_only, newest_llvm,
    oldest_and_newest_with_shim, wait,
};

const LINK: &str = "clang-$N -O2 -flto=thin -fuse-ld=lld -o $OUT main.o one.o";

fn sources(s: &Session) {
    s.write("main.c", "int printf(const char *, ...); int one(void); int main(void) { return printf(\"%d\\n\", one()) < 0; }\n");
    s.write("one.c", "int one(void) { return 42; }\n");
    s.compile("clang-$N -c -O2 -fPIC -flto=thin main.c one.c");
}

/// A clang that is clang, but for backends does something else.
fn odd_clang(s: &Session, name: &str, instead: &str) -> String {
    let text = format!(
        "#!/bin/bash\nif [[ \"$*\" == *-fthinlto-index=* ]]; then\n{instead}\nfi\nexec /usr/bin/clang-{} \"$@\"\n",
        s.llvm
    );
    path(&s.clang(&format!("../{name}"), &text))
}

fn path(path: &Path) -> String {
    path.to_str().expect("a path of ours is UTF-8").to_owned()
}

/// Without strictness the link succeeds, is forwarded, and has lld's bytes; with it, the link fails
/// with an error that contains `cause`.
fn falls_back(s: &Session, env: &[(&str, &str)], cause: &str) {
    let mut lenient = env.to_vec();
    lenient.push(LENIENT);
    s.link_both_with(&lenient, LINK)
        .succeeds()
        .left_to_lld("")
        .prints("42\n");
    if fixtures_only() {
        return;
    }
    let strict = s.link_both_with(env, LINK);
    assert!(
        !strict.split.status.success(),
        "LLVM {}: strict, and the link succeeds: {}",
        s.llvm,
        strict.split
    );
    let errors = strict.split.errors();
    assert!(
        errors.contains(cause),
        "LLVM {}: the error does not say '{cause}': {errors}",
        s.llvm
    );
    assert!(
        !s.exists("a.out"),
        "LLVM {}: a failed link left its output",
        s.llvm
    );
}

#[test]
fn a_clang_that_fails() {
    oldest_and_newest_with_shim(|s| {
        sources(s);
        let clang = odd_clang(s, "failing", "echo no thanks >&2; exit 1");
        falls_back(s, &[("LDWRAP_CLANG", &clang)], "no thanks");
        let clang = odd_clang(
            s,
            "failing-late",
            "[[ \"$*\" == *-o* ]] && /usr/bin/true; sleep 0.1; exit 3",
        );
        falls_back(s, &[("LDWRAP_CLANG", &clang)], "3");
    });
}

#[test]
fn a_clang_that_crashes() {
    oldest_and_newest_with_shim(|s| {
        sources(s);
        let clang = odd_clang(s, "crashing", "kill -SEGV $$");
        falls_back(s, &[("LDWRAP_CLANG", &clang)], "signal");
        let clang = odd_clang(s, "killed", "kill -KILL $$");
        falls_back(s, &[("LDWRAP_CLANG", &clang)], "signal");
    });
}

/// Success is claimed, but there is no object, an empty one, or something else.
#[test]
fn a_clang_that_writes_garbage() {
    oldest_and_newest_with_shim(|s| {
        sources(s);
        let output = "while [[ $1 != -o && $# -gt 0 ]]; do shift; done; out=$2;";
        for (name, what) in [
            ("nothing", "exit 0".to_owned()),
            ("empty", format!("{output} : >\"$out\"; exit 0")),
            (
                "garbage",
                format!("{output} echo garbage >\"$out\"; exit 0"),
            ),
            (
                "half",
                format!("{output} head -c 300 /usr/lib/x86_64-linux-gnu/crt1.o >\"$out\"; exit 0"),
            ),
        ] {
            let clang = odd_clang(s, name, &what);
            falls_back(s, &[("LDWRAP_CLANG", &clang)], "");
        }
    });
}

#[test]
fn a_clang_that_is_missing_or_no_clang() {
    oldest_and_newest_with_shim(|s| {
        sources(s);
        falls_back(
            s,
            &[("LDWRAP_CLANG", "/nonexistent/clang")],
            "/nonexistent/clang",
        );
        falls_back(s, &[("LDWRAP_CLANG", "/usr/bin/true")], "/usr/bin/true");
        falls_back(s, &[("LDWRAP_CLANG", "/")], "LDWRAP_CLANG");
    });
}

#[test]
fn a_clang_of_another_version() {
    each_llvm(|s| {
        sources(s);
        let other = if s.llvm == 19 { 16 } else { 19 };
        falls_back(
            s,
            &[("LDWRAP_CLANG", &format!("/usr/bin/clang-{other}"))],
            &format!("{other}."),
        );
    });
}

/// A backend that hangs until someone kills it: its module is left to lld, the others are not.
#[test]
fn a_backend_that_is_killed() {
    each_llvm_with_shim(|s| {
        sources(s);
        let dir = path(&s.dir());
        let clang = odd_clang(
            s,
            "hanging",
            &format!(
                "[[ -e {dir}/armed ]] && (set -o noclobber; echo $$ >{dir}/pid) 2>/dev/null && exec sleep 300"
            ),
        );
        s.sh("$LD -shared -o plain.so main.o one.o");
        let args = ["-shared", "-o", "a.out", "main.o", "one.o"];
        let env = [("LDWRAP_CLANG", clang.as_str()), ("LDWRAP_STRICT", "0")];
        // The first link may try the tools out.
        assert!(
            wait(&mut s.spawn_shim(&env, &args), 30).success(),
            "LLVM {}: the first link fails",
            s.llvm
        );
        s.sh("rm a.out ../report.json; touch armed");
        let mut child = s.spawn_shim(&env, &args);
        s.wait_for("pid", &mut child);
        s.sh("kill -KILL $(cat pid)");
        assert!(wait(&mut child, 30).success(), "LLVM {}", s.llvm);
        s.sh("cmp plain.so a.out");
        s.assert_nothing_left("a backend was killed");
        let reports = s.reports();
        assert_eq!(reports.len(), 1, "{reports:?}");
        assert_eq!(reports[0]["action"], "split", "{reports:?}");
        assert_eq!(reports[0]["modules"], 2, "{reports:?}");
        assert_eq!(reports[0]["compiled_by_lld"], 1, "{reports:?}");
    });
}

/// lld fails in the index run, by its own fault.
#[test]
fn an_lld_that_fails_in_the_index_run() {
    oldest_and_newest_with_shim(|s| {
        sources(s);
        for (name, what) in [("fails", "exit 1"), ("crashes", "kill -SEGV $$")] {
            let text = format!(
                "#!/bin/bash\nfor a; do [[ $a == @* ]] && a=$(<\"${{a#@}}\"); [[ $a == *--thinlto-index-only* ]] && {what}; done\n\
                 exec /usr/lib/llvm-{}/bin/ld.lld \"$@\"\n",
                s.llvm
            );
            let lld = path(&s.script(&format!("../ld-{name}"), &text));
            falls_back(s, &[("LDWRAP_REAL_LLD", &lld)], "");
        }
    });
}

#[test]
fn no_lld_at_all() {
    each_llvm_with_shim(|s| {
        sources(s);
        s.compile("clang-$N -c main.c -o native.o");
        for inputs in ["main.o one.o", "native.o one.o", "--version"] {
            let both = s.link_both_with(
                &[("LDWRAP_REAL_LLD", "/nonexistent/ld.lld"), LENIENT],
                &format!("$LD -shared -o $OUT {inputs}"),
            );
            let errors = both.split.errors();
            assert!(
                !both.split.status.success(),
                "LLVM {}: {}",
                s.llvm,
                both.split
            );
            assert!(
                errors.contains("/nonexistent/ld.lld"),
                "LLVM {}: {errors}",
                s.llvm
            );
            assert!(
                errors.lines().count() <= 3 && !errors.contains("panicked"),
                "LLVM {}: {errors}",
                s.llvm
            );
        }
    });
}

/// A scratch disk that is full: a tmpfs of some pages as `TMPDIR`. Needs root or user namespaces;
/// without either the test fails.
#[test]
fn a_full_scratch_disk() {
    each_llvm(|s| {
        sources(s);
        s.write(
            "big.c",
            format!(
                "const char big[] = \"{}\";\n",
                "big and not to be compressed ".repeat(3000)
            ),
        );
        s.compile("clang-$N -c -O2 -fPIC -flto=thin big.c");
        let user = "$([ $(id -u) = 0 ] || echo -Ur)";
        let link = |size: &str| {
            format!(
                "unshare {user} -m bash -c 'mount -t tmpfs -o size={size} none $TMPDIR && \
                 $LD -shared -o $OUT main.o one.o big.o --export-dynamic && ls -RA $TMPDIR >&2 && [ -z \"$(ls -A $TMPDIR)\" ]'"
            )
        };
        for size in ["4k", "16k", "48k"] {
            s.link_both_with(&[LENIENT], &link(size)).same().succeeds();
            assert!(s.exists("a.out"), "LLVM {}: no output", s.llvm);
        }
        if !fixtures_only() {
            let strict = s.link_both(&link("4k"));
            let errors = strict.split.errors();
            assert!(
                !strict.split.status.success(),
                "LLVM {}: {}",
                s.llvm,
                strict.split
            );
            assert!(
                errors.contains("No space left"),
                "LLVM {}: {errors}",
                s.llvm
            );
        }
    });
}

/// No scratch directory at all, or one that may not be written.
#[test]
fn no_scratch_directory() {
    each_llvm(|s| {
        sources(s);
        s.link_both_with(
            &[LENIENT],
            "TMPDIR=/nonexistent $LD -shared -o $OUT main.o one.o",
        )
        .same()
        .succeeds();
        s.link_both_with(&[LENIENT], "TMPDIR=/proc $LD -shared -o $OUT main.o one.o")
            .same()
            .succeeds();
        s.link_both_with(&[LENIENT], "TMPDIR=main.o $LD -shared -o $OUT main.o one.o")
            .same()
            .succeeds();
    });
}

/// An empty `TMPDIR` is none; it is not the working directory.
#[test]
fn an_empty_name_of_the_scratch_directory() {
    newest_llvm(|s| {
        sources(s);
        let (dir, seen) = (s.dir(), s.root().join("seen"));
        let look = format!("ls {} >>{}", dir.display(), seen.display());
        let clang = odd_clang(s, "looking", &look);
        let env = [("LDWRAP_CLANG", clang.as_str())];
        s.link_both_with(&env, "TMPDIR= $LD -shared -o $OUT main.o one.o")
            .splits();
        if !fixtures_only() {
            let seen = s.read("../seen");
            assert!(
                seen.contains("main.o") && !seen.contains("ldwrap"),
                "{seen}"
            );
        }
    });
}

/// Settings that make no sense never stop a link.
#[test]
fn settings_that_make_no_sense() {
    oldest_and_newest_with_shim(|s| {
        sources(s);
        for (key, value) in [
            ("LDWRAP_JOBS", "many"),
            ("LDWRAP_EXECUTOR", "abacus"),
            ("LDWRAP_CONFIG", "/nonexistent/ldwrap.toml"),
            ("LDWRAP_REPORT", "/nonexistent/report"),
            ("LDWRAP_CACHE_DIR", "/proc/nowhere"),
        ] {
            let both = s.link_both_with(&[(key, value), LENIENT], LINK);
            assert!(
                both.split.status.success(),
                "LLVM {}: {key}={value}: {}",
                s.llvm,
                both.split
            );
            s.sh("cmp ../plain/a.out a.out");
        }
    });
}

/// Few file descriptors, a small stack, and no core: what `ulimit` takes away.
#[test]
fn limits() {
    each_llvm(|s| {
        sources(s);
        s.link_both_with(&[LENIENT], &format!("ulimit -n 40; {LINK}"))
            .same()
            .succeeds()
            .prints("42\n");
        s.link_both_with(&[LENIENT], &format!("ulimit -s 512; {LINK}"))
            .same()
            .succeeds()
            .prints("42\n");
    });
}

/// The report and the statistics become longer than a file may be, of the shim and of ldwrap.
#[test]
fn limits_of_our_own_files() {
    newest_llvm(|s| {
        for log in ["", "export LDWRAP_LOG=off; "] {
            let links = "for link in {1..12}; do $LD --version || exit; done";
            s.link_both_with(&[LENIENT], &format!("ulimit -f 1; {log}{links}"))
                .same()
                .succeeds();
        }
    });
}

/// A kernel or sandbox that refuses the filter: the link is forwarded and the report says so.
#[test]
fn a_filter_that_is_refused() {
    each_llvm(|s| {
        sources(s);
        s.sh("clang-$N $FIXTURES/refuse.c -o refuse");
        let link = "./refuse $LD -shared -o $OUT main.o one.o";
        s.link_both_with(&[LENIENT], link)
            .same()
            .succeeds()
            .left_to_lld("refuses a seccomp filter");
        let strict = s.link_both(link);
        assert!(
            !strict.split.status.success()
                && strict.split.errors().contains("refuses a seccomp filter"),
            "LLVM {}: {}",
            s.llvm,
            strict.split
        );
    });
}
