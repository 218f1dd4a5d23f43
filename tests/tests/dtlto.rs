//! Integrated distribution, DTLTO: ldwrap as the distributor of lld 21 and later (`ldwrap distribute`), and somebody's distributor as
//! the executor of ldwrap (`LDWRAP_EXECUTOR=distributor`).

use ldwrap_tests::remote::buildbox::{SYSTEM, Server};
use ldwrap_tests::remote::free_port;
use ldwrap_tests::{LENIENT, LinkPair, Session, each_llvm, fixtures_only, some_llvm};
use serde_json::Value;

/// The distributor of `$FIXTURES`, in one of its modes.
pub(crate) fn distributor(mode: &str) -> String {
    let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures");
    format!("/usr/bin/python3 {fixtures}/distributor.py {mode}")
}

/// Options of clang that make ldwrap the distributor.
fn ours(s: &Session) -> String {
    if fixtures_only() {
        return String::new();
    }
    let program = s.prefix().join("bin/ldwrap");
    format!(
        "-fthinlto-distributor={} -Xthinlto-distributor=distribute",
        program.display()
    )
}

/// Options of clang that make LLVM's way of a local distributor the one.
const LOCAL: &str =
    "-fthinlto-distributor=/usr/bin/python3 -Xthinlto-distributor=$FIXTURES/distributor.py";

/// lld with integrated distribution.
fn distributes(llvm: u32) -> bool {
    llvm >= 22
}

/// A command that has `$DISTRIBUTE` in it is a link in-process by lld alone, and one that lld distributes to ldwrap.
fn by_ours<'s>(s: &'s Session, env: &[(&str, &str)], command: &str) -> LinkPair<'s> {
    let ours = ours(s);
    let mut all = vec![("DISTRIBUTE", ours.as_str())];
    all.extend(env);
    let command = format!(": ${{DISTRIBUTE:=}}; {command}");
    s.link_both_with(&all, &command)
}

/// What `ldwrap distribute` has reported; the shim has reported that it left the link to lld.
fn report(both: &LinkPair<'_>) -> Value {
    if fixtures_only() {
        return Value::Null;
    }
    let split = both.reports.iter().filter(|r| r["action"] == "split");
    match split.collect::<Vec<_>>().as_slice() {
        [one] => (*one).clone(),
        _ => panic!("one link for objects expected: {:?}", both.reports),
    }
}

/// Asserts how many objects were found and made, and by whom.
fn told(both: &LinkPair<'_>, executor: &str, hits: u64, misses: u64) {
    let report = report(both);
    if !report.is_null() {
        let found = (
            &report["executor"],
            &report["cache"]["hits"],
            &report["cache"]["misses"],
        );
        assert_eq!(
            found,
            (&executor.into(), &hits.into(), &misses.into()),
            "{report}"
        );
    }
}

/// The first links with an lld and a clang test these, and read them: once for each cache directory.
pub(crate) fn test_the_toolchain(s: &Session, env: &[(&str, &str)]) {
    let link = format!("{} {OBJECTS}", LINK.replace("$DISTRIBUTE ", ""));
    let program = distributor("");
    for executor in ["clang", "distributor"] {
        let place = [
            ("LDWRAP_EXECUTOR", executor),
            ("LDWRAP_DISTRIBUTOR", &program),
            ("LDWRAP_CACHE_SIZE", "0"),
            ("DISTRIBUTOR_SEEN", ""),
        ];
        s.link_both_with(&[env, &place].concat(), &link).same();
    }
}

/// Modules that declare what others define: a link in which distributed backends of LLVM's generate other code.
pub(crate) fn sources(s: &Session, flags: &str) {
    s.write(
        "main.c",
        "int printf(const char *, ...); extern int total, table[64], *slot; int add(int), far(int), scale(int); void turn(void);\n\
         int main(int argc, char **argv) { for (int i = 0; i < argc * 5; i++) total += (turn(), add(i)) + table[i];\n\
           return printf(\"%d\\n\", total + *slot + far(argc) + scale(argc)) < 0; }\n",
    );
    s.write(
        "add.c",
        "extern int total; int far(int); int table[64] = {1, 2, 3};\n\
         __attribute__((noinline)) int add(int n) { return n + far(n) + (total & 1); }\n",
    );
    s.write(
        "far.c",
        "int total; extern int table[64]; int scale(int);\n\
         __attribute__((noinline)) int far(int n) { table[n & 63] ^= n; return scale(table[n & 63] + n); }\n\
         static int one, two; int *slot = &one; void turn(void) { slot = slot == &one ? &two : &one; }\n",
    );
    s.write(
        "scale.c",
        "extern int total, table[64]; __attribute__((noinline)) int scale(int n) { return total ? n * 3 + table[5] : n; }\n",
    );
    s.sh(&format!(
        "mkdir -p sub; clang-$N -c -O2 -flto=thin {flags} main.c add.c far.c scale.c"
    ));
}

pub(crate) const LINK: &str = "clang-$N -O2 -flto=thin -fuse-ld=lld $DISTRIBUTE -o $OUT";
const OBJECTS: &str = "main.o add.o far.o scale.o";

/// Each way in which objects come, cold and warm: they are those of the link in-process. LLVM's own local distributor makes others.
#[test]
fn ours_is_equal_to_the_link_in_process() {
    some_llvm(distributes, |s| {
        sources(s, "");
        let link = format!("{LINK} {OBJECTS}");
        let dir = s.root().join("cache").display().to_string();
        let cache = [("LDWRAP_CACHE_SIZE", "1G"), ("LDWRAP_CACHE_DIR", &*dir)];
        for executor in ["local", "clang", "distributor"] {
            let program = distributor("");
            let place = [
                ("LDWRAP_EXECUTOR", executor),
                ("LDWRAP_DISTRIBUTOR", &*program),
            ];
            let both = by_ours(s, &place, &link);
            both.same().succeeds();
            told(&both, executor, 0, 4);
            s.sh("rm -rf ../cache");
            for hits in [0, 4] {
                let both = by_ours(s, &[&cache[..], &place].concat(), &link);
                both.same().succeeds();
                let executor = if hits == 4 { "local" } else { executor };
                let report = report(&both);
                assert!(
                    report.is_null() || report["cache"]["hits"] == hits,
                    "{executor}: {report}"
                );
            }
        }
        // LLVM's own: its backends do not know what is local to the output.
        if !fixtures_only() {
            let output = |distribute: &str| {
                s.sh(&link.replace("$DISTRIBUTE", distribute));
                std::fs::read(s.dir().join("a.out")).expect("an output")
            };
            assert!(
                output("") != output(LOCAL),
                "LLVM's own distributors do the same now"
            );
        }
    });
}

/// Members of archives are called otherwise by an lld that distributes, and so are fat objects; some names are in two archives.
#[test]
fn archives_and_fat_objects() {
    some_llvm(distributes, |s| {
        sources(s, "");
        s.sh(
            "mkdir one two; llvm-ar-$N rc libad.a add.o far.o; llvm-ar-$N rcT libthin.a add.o far.o; \
             llvm-ar-$N rc one/lib.a add.o; llvm-ar-$N rc two/lib.a far.o; cp scale.o one/twice.o; \
             printf 'int other(int n) { return n; } int scale(int n) { return other(n) * 5; }' >two/twice.c; \
             for n in main add far scale; do clang-$N -c -O2 -flto=thin -ffat-lto-objects $n.c -o fat-$n.o; done",
        );
        for inputs in [
            "main.o libad.a scale.o",
            "main.o $PWD/libad.a scale.o",
            "main.o libthin.a scale.o",
            "main.o one/lib.a two/lib.a scale.o",
            "main.o --start-lib add.o far.o --end-lib scale.o",
            "-ffat-lto-objects fat-main.o fat-add.o fat-far.o fat-scale.o",
        ] {
            let inputs = inputs
                .replace("--start-lib", "-Wl,--start-lib")
                .replace("--end-lib", "-Wl,--end-lib");
            for out in ["$OUT", "sub/out"] {
                let link = LINK.replace("$OUT", out);
                let both = by_ours(
                    s,
                    &[("LDWRAP_EXECUTOR", "local")],
                    &format!("{link} {inputs}"),
                );
                both.same().succeeds();
                told(&both, "local", 0, 4);
            }
        }
    });
}

/// Options that lld does not hand to a distributor reach the backends nevertheless.
#[test]
fn options_reach_the_backends() {
    some_llvm(distributes, |s| {
        sources(s, "");
        for (options, by_clang) in [
            ("-mllvm -align-all-functions=6", true),
            ("--lto-O0", false),
            ("--lto-O1 --lto-CGO3", false),
            ("--lto-O3 -mllvm -stack-size-section", true),
            ("--lto-newpm-passes=default<O1>", false),
            ("--lto-basic-block-sections=all", true),
            ("--lto-partitions=3", true),
            (
                "--lto-whole-program-visibility -plugin-opt=mcpu=x86-64-v3",
                true,
            ),
            ("--lto-cs-profile-generate", true),
            ("-Map=map --dependency-file=deps", true),
        ] {
            let link = format!(
                "{LINK} {OBJECTS} -Wl,'{}'",
                options.replace(' ', "','-Wl,").replace("','-Wl,", ",")
            );
            for executor in ["local", "clang"] {
                let both = by_ours(s, &[LENIENT, ("LDWRAP_EXECUTOR", executor)], &link);
                both.same().succeeds();
                let given = if by_clang { executor } else { "local" };
                told(&both, given, 0, 4);
            }
        }
    });
}

/// With a cache of its own, lld lists only what that lacks; the objects are still those of the whole link.
#[test]
fn with_a_cache_of_lld_s_own() {
    some_llvm(distributes, |s| {
        sources(s, "");
        let link = format!("{LINK} {OBJECTS} -Wl,--thinlto-cache-dir=$CACHE");
        let mine = s.root().join("mine").display().to_string();
        let local = [("LDWRAP_EXECUTOR", "local"), ("CACHE", &*mine)];
        let command = format!(": ${{CACHE:=../theirs}}; {link}");
        let both = by_ours(s, &local, &command);
        both.same().succeeds();
        told(&both, "local", 0, 4);
        s.sh("sed -i 's/n . 3/n * 7/' scale.c; clang-$N -c -O2 -flto=thin scale.c");
        let both = by_ours(s, &local, &command);
        both.same().succeeds();
        told(&both, "local", 0, 1);
        // Nothing is missed, and no distributor runs.
        let both = by_ours(s, &local, &command);
        both.same().succeeds();
        assert!(
            fixtures_only() || both.reports.len() == 1,
            "{:?}",
            both.reports
        );
    });
}

/// lld's own distribution, on a real Remote Execution server; and on one that is not there, which costs time only.
#[test]
fn on_a_server() {
    let server = Server::start(SYSTEM);
    some_llvm(distributes, |s| {
        sources(s, "");
        let link = format!("{LINK} {OBJECTS}");
        let (url, clang) = (server.url(), format!("/usr/bin/clang-{}", s.llvm));
        let env = [
            ("LDWRAP_REMOTE", url.as_str()),
            ("LDWRAP_REMOTE_CLANG", &clang),
            ("LDWRAP_REMOTE_LOCAL", "fallback"),
        ];
        for (executed, hits) in [(4, 0), (0, 4)] {
            let both = by_ours(s, &env, &link);
            both.same().succeeds();
            let report = report(&both);
            let remote = &report["remote"];
            let there = remote["executed"] == executed && remote["hits"] == hits;
            assert!(report.is_null() || there, "{report}");
        }
        let nobody = format!("grpc://127.0.0.1:{}", free_port());
        let env = [("LDWRAP_REMOTE", nobody.as_str()), LENIENT];
        by_ours(s, &env, &link).same().succeeds();
    });
}

/// What only lld's own commands can do is done by them, and what they lack is told.
#[test]
fn what_clang_does_by_lld_s_commands() {
    some_llvm(distributes, |s| {
        if fixtures_only() {
            return;
        }
        sources(s, "");
        let (program, ours) = (distributor("").replace("/usr/bin/python3 ", ""), ours(s));
        let local = format!(
            "-fthinlto-distributor=/usr/bin/python3 -Xthinlto-distributor={}",
            program.trim()
        );
        let line = |more: &str| format!("clang-$N -O2 -flto=thin -fuse-ld=lld {OBJECTS} {more}");
        let link = |distribute: &str, more: &str, lenient: bool| {
            let mut command = s.bash(&format!("{} {distribute} -o out", line(more)));
            s.use_shim(&mut command);
            command.env("LDWRAP_EXECUTOR", "local");
            if lenient {
                command.env_remove("LDWRAP_STRICT");
            }
            command.output().expect("a link")
        };
        for (more, said) in [
            ("-Wl,--thinlto-remote-compiler-arg=-fno-inline", ""),
            (
                "-Wl,--thinlto-remote-compiler-arg=-O3,--lto-CGO3",
                "without --lto-CGO3",
            ),
            (
                "-Wl,--opt-remarks-filename,remarks",
                "without --opt-remarks-filename remarks",
            ),
        ] {
            let expected = {
                let out = link(&local, more, true);
                assert!(out.status.success(), "{out:?}");
                std::fs::read(s.dir().join("out")).expect("an output")
            };
            let out = link(&ours, more, true);
            let stderr = String::from_utf8_lossy(&out.stderr).into_owned();
            assert!(out.status.success(), "{stderr}");
            assert!(
                stderr.contains(said) && stderr.is_empty() == said.is_empty(),
                "{more}: {stderr}"
            );
            assert_eq!(
                expected,
                std::fs::read(s.dir().join("out")).expect("an output"),
                "{more}"
            );
            // Strictly, that is an error.
            let out = link(&ours, more, false);
            assert!(
                !out.status.success()
                    && String::from_utf8_lossy(&out.stderr).contains("LDWRAP_STRICT")
            );
        }
        s.assert_nothing_left("distribute");
    });
}

/// An error of a backend is one of the link; a warning is shown each time.
#[test]
fn what_backends_say() {
    some_llvm(distributes, |s| {
        sources(s, "");
        s.write(
            "scale.c",
            "__asm__(\".warning \\\"take care\\\"\"); int scale(int n) { return n; }",
        );
        s.compile("clang-$N -c -O2 -flto=thin scale.c");
        let link = format!("{LINK} {OBJECTS}");
        let program = distributor("");
        let program = ("LDWRAP_DISTRIBUTOR", &*program);
        // What has been said has to be said again, by a backend that lld's own command runs.
        for executor in ["local", "local", "clang", "distributor"] {
            let both = by_ours(s, &[LENIENT, ("LDWRAP_EXECUTOR", executor), program], &link);
            both.succeeds().said("take care");
            // Of several threads, in any order.
            let lines = |text: &[u8]| {
                let text = String::from_utf8_lossy(text).into_owned();
                let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
                lines.sort();
                lines
            };
            assert_eq!(lines(&both.plain.stderr), lines(&both.split.stderr));
        }
        s.write(
            "scale.c",
            "int scale(int n) { __asm__ volatile(\"nonsense\"); return n; }",
        );
        s.compile("clang-$N -c -O2 -flto=thin scale.c");
        for executor in ["local", "clang", "distributor"] {
            let both = by_ours(s, &[LENIENT, ("LDWRAP_EXECUTOR", executor), program], &link);
            assert!(!both.plain.status.success() && !both.split.status.success());
            let said = String::from_utf8_lossy(&both.split.stderr).into_owned();
            assert!(said.contains("nonsense"), "{executor}: {said}");
        }
    });
}

/// A distributor that knows nothing of ldwrap, with each lld: cold, warm, after an edit; and with the user's own cache.
#[test]
fn a_distributor_of_somebody_s() {
    each_llvm(|s| {
        sources(s, "");
        let program = distributor("");
        let dir = s.root().join("cache").display().to_string();
        let seen = s.root().join("seen").display().to_string();
        let env = [
            ("LDWRAP_EXECUTOR", "distributor"),
            ("LDWRAP_DISTRIBUTOR", &*program),
            ("LDWRAP_CACHE_SIZE", "1G"),
            ("LDWRAP_CACHE_DIR", &*dir),
            ("DISTRIBUTOR_SEEN", &*seen),
        ];
        test_the_toolchain(s, &env);
        let link = LINK.replace("$DISTRIBUTE ", "");
        s.sh("llvm-ar-$N rc libad.a add.o far.o");
        let both = s.link_both_with(&env, &format!("{link} main.o libad.a scale.o"));
        both.splits().modules(4);
        if !fixtures_only() {
            assert_eq!(both.report()["executor"], "distributor");
            assert_eq!(both.report()["compiled_by_lld"], 0, "{}", both.report());
            assert_eq!(s.read("../seen"), "4 jobs for a.out\n");
        }
        let both = s.link_both_with(&env, &format!("{link} main.o libad.a scale.o"));
        both.splits();
        if !fixtures_only() {
            assert_eq!(both.report()["cache"]["hits"], 4, "{}", both.report());
        }
        s.sh("sed -i 's/n . 3/n * 7/' scale.c; clang-$N -c -O2 -flto=thin scale.c");
        s.link_both_with(&env, &format!("{link} main.o libad.a scale.o"))
            .splits();
        let users = format!("{link} {OBJECTS} -Wl,--thinlto-cache-dir=users");
        s.link_both_with(&env, &users).same().succeeds();
        // Other kinds of output and code.
        for more in [
            "-no-pie",
            "-static",
            "-Wl,-mllvm,-align-all-functions=6",
            "-Wl,--lto-O3",
        ] {
            s.link_both_with(&env[..2], &format!("{link} {more} {OBJECTS}"))
                .succeeds()
                .same();
        }
    });
}

/// What the backend of one module has to say is said by lld, each time, whoever compiled the others.
#[test]
fn warnings_by_a_distributor() {
    each_llvm(|s| {
        sources(s, "");
        test_the_toolchain(s, &[]);
        s.write(
            "scale.c",
            "__attribute__((noinline)) int scale(int n) { int r; __asm__ volatile(\".warning \\\"take care\\\"\\n mov %1, %0\" : \"=r\"(r) : \"r\"(n)); return r; }\n",
        );
        s.sh("clang-$N -c -O2 -flto=thin scale.c");
        let (program, cache) = (
            distributor(""),
            s.root().join("cache").display().to_string(),
        );
        let env = [
            ("LDWRAP_EXECUTOR", "distributor"),
            ("LDWRAP_DISTRIBUTOR", &*program),
            ("LDWRAP_CACHE_SIZE", "1G"),
            ("LDWRAP_CACHE_DIR", &*cache),
            LENIENT,
        ];
        let link = format!("{} {OBJECTS}", LINK.replace("$DISTRIBUTE ", ""));
        for misses in [4, 1] {
            let both = s.link_both_with(&env, &link);
            both.succeeds().same().said("take care");
            if !fixtures_only() {
                let report = both.report();
                assert_eq!(report["cache"]["misses"], misses, "{report}");
                // On a slow machine lld's threads help.
                assert!(both.number("/compiled_by_lld") >= 1, "{report}");
            }
        }
    });
}

/// Distributors that go wrong: lld makes what does not come, and nothing is left of them.
#[test]
fn distributors_that_go_wrong() {
    each_llvm(|s| {
        sources(s, "");
        test_the_toolchain(s, &[]);
        let link = format!("{} {OBJECTS}", LINK.replace("$DISTRIBUTE ", ""));
        for (program, why) in [
            (distributor("fail"), "burnt down"),
            (distributor("partly"), "ended with exit status: 1"),
            (distributor("lie"), "wrote no object"),
            (distributor("half"), "is not the object"),
            (distributor("other"), "is not the object"),
            (distributor("empty"), "is not the object"),
            (distributor("machine"), "is not the object"),
            (distributor("special"), "no regular file"),
            (distributor("hang"), ""),
            (
                "/nowhere/distributor".into(),
                "cannot run /nowhere/distributor",
            ),
        ] {
            let env = [
                ("LDWRAP_EXECUTOR", "distributor"),
                ("LDWRAP_DISTRIBUTOR", &*program),
            ];
            let both = s.link_both_with(&[&env[..], &[LENIENT]].concat(), &link);
            both.succeeds().same();
            if !fixtures_only() {
                let report = both.report();
                assert_eq!(report["compiled_by_lld"], 4, "{program}: {report}");
                let reason = report["reason"].as_str().unwrap_or_default();
                // On a slow machine lld's threads may have compiled all before the program ended.
                let late = both.number("/phases_ms/backends") > 2000;
                assert!(late || reason.contains(why), "{program}: {report}");
            }
        }
        let none = [("LDWRAP_EXECUTOR", "distributor"), LENIENT];
        s.link_both_with(&none, &link)
            .left_to_lld("LDWRAP_DISTRIBUTOR names no program");
    });
}

/// Kinds of bitcode and of profiles, in all ways in which backends run.
#[test]
fn kinds_of_links_in_all_ways() {
    each_llvm(|s| {
        let unified = s.llvm >= 19;
        let mut kinds: Vec<(&str, &str, &str)> = vec![
            (
                "-fsplit-lto-unit",
                "-fsplit-lto-unit",
                "main.o add.o far.o scale.o",
            ),
            ("", "-Wl,--lto-partitions=4", OBJECTS),
            ("-fprofile-generate", "-fprofile-generate", OBJECTS),
            ("-fprofile-use=plain.profdata", "", OBJECTS),
            (
                "-fprofile-use=plain.profdata -fcs-profile-generate",
                "-fcs-profile-generate",
                OBJECTS,
            ),
            (
                "-fprofile-use=cs.profdata",
                "-Wl,--lto-cs-profile-file=cs.profdata",
                OBJECTS,
            ),
        ];
        if unified {
            kinds.push(("-ffat-lto-objects", "-ffat-lto-objects", OBJECTS));
            kinds.push(("-funified-lto", "-funified-lto -Wl,--lto=thin", OBJECTS));
            kinds.push((
                "-funified-lto -ffat-lto-objects",
                "-funified-lto -ffat-lto-objects",
                OBJECTS,
            ));
        }
        sources(s, "");
        // Profiles of the program itself.
        s.sh(
            "clang-$N -O2 -fprofile-generate main.c add.c far.c scale.c -o first; LLVM_PROFILE_FILE=raw ./first >/dev/null; \
             llvm-profdata-$N merge -o plain.profdata raw; \
             clang-$N -c -O2 -flto=thin -fprofile-use=plain.profdata -fcs-profile-generate main.c add.c far.c scale.c; \
             clang-$N -O2 -flto=thin -fuse-ld=lld -fcs-profile-generate *.o -o second; LLVM_PROFILE_FILE=raw2 ./second >/dev/null; \
             llvm-profdata-$N merge -o cs.profdata plain.profdata raw2",
        );
        let program = distributor("");
        let dir = s.root().join("cache").display().to_string();
        for (compile, options, inputs) in kinds {
            sources(s, compile);
            let link = format!("{LINK} {options} {inputs}");
            let plain = link.replace("$DISTRIBUTE ", "");
            s.sh("rm -rf ../cache");
            for _ in 0..2 {
                s.link_both_cached(&[], &plain).same().succeeds();
            }
            for executor in ["clang", "distributor"] {
                let env = [
                    ("LDWRAP_EXECUTOR", executor),
                    ("LDWRAP_DISTRIBUTOR", &*program),
                    LENIENT,
                ];
                s.link_both_with(&env, &plain).same().succeeds();
                if distributes(s.llvm) {
                    by_ours(s, &env, &link).same().succeeds();
                }
            }
            let env = [
                ("LDWRAP_EXECUTOR", "local"),
                ("LDWRAP_CACHE_SIZE", "1G"),
                ("LDWRAP_CACHE_DIR", &*dir),
            ];
            if distributes(s.llvm) {
                for _ in 0..2 {
                    by_ours(s, &env, &link).same().succeeds();
                }
            }
        }
    });
}
