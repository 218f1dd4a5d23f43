//! Somebody's distributor of DTLTO, which knows nothing of ldwrap, as the executor of ldwrap (`LDWRAP_EXECUTOR=distributor`).

use crate::dtlto::{LINK, OBJECTS, distributor, sources, test_the_toolchain};
use ldwrap_tests::{LENIENT, each_llvm, fixtures_only};

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

/// What the backend of one module has to say is said by lld, each time, whoever compiled the others.
#[test]
fn words_of_backends() {
    each_llvm(|s| {
        sources(s, "");
        test_the_toolchain(s, &[]);
        let program = distributor("");
        let cache = s.root().join("cache").display().to_string();
        let link = format!("{} {OBJECTS}", LINK.replace("$DISTRIBUTE ", ""));
        for (source, words, misses) in [
            (
                "__attribute__((noinline)) int scale(int n) { int r; __asm__ volatile(\".warning \\\"take care\\\"\\n mov %1, %0\" : \"=r\"(r) : \"r\"(n)); return r; }\n",
                "take care",
                [4, 1],
            ),
            // A remark that lld shows unasked.
            (
                "__attribute__((used)) int numbers[64];\n\
                 __attribute__((noinline)) int scale(int n) { int r = n;\n\
                 #pragma clang loop vectorize(enable)\n\
                 for (int i = 0; i < (n & 7); i++) r = numbers[r & 63] + i; return r; }\n",
                "loop not vectorized",
                [1, 1],
            ),
        ] {
            s.write("scale.c", source);
            s.sh("clang-$N -march=haswell -Wno-everything -c -O2 -flto=thin scale.c");
            for misses in misses {
                let env = [
                    ("LDWRAP_EXECUTOR", "distributor"),
                    ("LDWRAP_DISTRIBUTOR", &*program),
                    ("LDWRAP_CACHE_SIZE", "1G"),
                    ("LDWRAP_CACHE_DIR", &*cache),
                    LENIENT,
                ];
                let both = s.link_both_with(&env, &link);
                both.succeeds().same();
                let said = [&both.plain.stdout[..], &both.plain.stderr[..]].concat();
                let said = String::from_utf8_lossy(&said);
                assert!(said.contains(words), "LLVM {}: {said}", s.llvm);
                if !fixtures_only() {
                    let report = both.report();
                    assert_eq!(report["cache"]["misses"], misses, "{report}");
                    // On a slow machine lld's threads help.
                    assert!(both.number("/compiled_by_lld") >= 1, "{report}");
                }
            }
            let env = [
                ("LDWRAP_EXECUTOR", "clang"),
                ("LDWRAP_CACHE_SIZE", "0"),
                LENIENT,
            ];
            let both = s.link_both_with(&env, &link);
            both.succeeds().same();
            if !fixtures_only() {
                assert_eq!(both.number("/compiled_by_lld"), 1, "{}", both.report());
            }
        }
    });
}
