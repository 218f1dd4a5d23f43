//! The phases of a link as commands (`ldwrap index`, `backend`, `final`), and as rules for make, ninja and CMake.

use ldwrap_tests::sources::seed;
use ldwrap_tests::{Session, each_llvm_with_shim, newest_llvm};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;

/// What a command through ldwrap did.
struct Done {
    code: Option<i32>,
    out: String,
    errors: String,
}

fn run(s: &Session, command: &str) -> Done {
    let mut c = s.bash(command);
    s.use_shim(&mut c);
    // As a user has it: make and ninja find the plain compiler, which finds the plain lld.
    c.env_remove("COMPILER_PATH").env_remove("LDWRAP_SPLIT");
    let _ = std::fs::remove_file(s.root().join("report.json"));
    let out = c.output().expect("bash");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Done {
        code: out.status.code(),
        out: text(&out.stdout),
        errors: text(&out.stderr),
    }
}

/// A command that succeeds; its standard output.
fn succeed(s: &Session, command: &str) -> String {
    let done = run(s, command);
    let Done { code, out, errors } = &done;
    assert_eq!(
        *code,
        Some(0),
        "LLVM {}: {command}\n{out}\n{errors}",
        s.llvm
    );
    s.assert_nothing_left(command);
    done.out
}

/// How many modules the last link left to lld.
fn compiled_by_lld(s: &Session) -> u64 {
    let text = std::fs::read_to_string(s.root().join("report.json")).expect("a report");
    let report: Value = serde_json::from_str(text.lines().last().expect("a line")).expect("JSON");
    assert_eq!(report["action"], "split", "LLVM {}: {report}", s.llvm);
    report["compiled_by_lld"].as_u64().expect("a number")
}

/// Asserts that `app` is the file that lld alone makes with this command; its time stays.
fn is_lld_s(s: &Session, link: &str) {
    s.sh(&format!("mv app ours; {link}; cmp app ours; mv ours app"));
}

/// The modules whose backends a build ran, by what make or ninja shows.
fn backends(shown: &str) -> BTreeSet<String> {
    let words: Vec<&str> = shown.split_whitespace().collect();
    let pairs = words.windows(2).filter(|pair| pair[0] == "backend");
    pairs
        .map(|pair| {
            let name = pair[1].trim_matches('\'').trim_end_matches(".json");
            name.split_once('/').expect("a directory").1.to_owned()
        })
        .collect()
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

/// How many modules lld's own cache makes a link compile, each time that it is asked.
fn lld_compiles(s: &Session, link: &str) -> usize {
    let count = || s.sh("ls lld-cache 2>/dev/null | grep -c llvmcache- || true");
    let before: usize = count().trim().parse().expect("a number");
    s.sh(&format!(
        "{} -Wl,--thinlto-cache-dir=lld-cache",
        link.replace("-o app", "-o other")
    ));
    count().trim().parse::<usize>().expect("a number") - before
}

/// The link of [`seed`].
const SEED: &str = "clang-$N -flto=thin -fuse-ld=lld -o app elf0.o a.o -Wl,--start-lib b.o c.o -Wl,--end-lib elf1.o";

#[test]
fn as_commands() {
    each_llvm_with_shim(|s| {
        seed(s);
        succeed(s, &format!("$LDWRAP index --dir lto -- {SEED}"));
        assert!(!s.exists("app"), "LLVM {}: index links nothing", s.llvm);
        for module in ["a", "b", "c"] {
            succeed(s, &format!("$LDWRAP backend lto/{module}.o.json"));
        }
        succeed(s, &format!("$LDWRAP final --dir lto -- {SEED}"));
        assert_eq!(compiled_by_lld(s), 0, "LLVM {}", s.llvm);
        is_lld_s(s, SEED);
        // A module that stays out has an empty object, and the lists of imports are lld's own.
        assert_eq!(s.read("lto/c.o"), "");
        s.sh(&format!(
            "mkdir plain; {SEED} -Wl,--thinlto-index-only,--thinlto-emit-imports-files,--thinlto-prefix-replace=';plain/'; \
             for m in a b; do cmp plain/$m.o.imports lto/$m.o.imports; done"
        ));
        // Nothing is written again.
        s.sh("find lto -type f -printf '%p %T@\\n' | sort >before");
        succeed(s, &format!("$LDWRAP index --dir lto -- {SEED}"));
        s.sh("find lto -type f -printf '%p %T@\\n' | sort | cmp - before");
    });
}

#[test]
fn gcc_and_lld_themselves() {
    each_llvm_with_shim(|s| {
        seed(s);
        let objects = "elf0.o a.o --start-lib b.o c.o --end-lib";
        s.write("args", format!("-o app -e main\n{objects}"));
        for link in [
            // gcc finds this lld by the first ld.lld of its search.
            "PATH=$PATH:/usr/lib/llvm-$N/bin; gcc -fuse-ld=lld -o app elf0.o a.o b.o",
            "ld.lld-$N @args",
            "/usr/lib/llvm-$N/bin/ld.lld @args",
        ] {
            let (before, link) = link.split_once("; ").unwrap_or(("true", link));
            s.sh("rm -rf lto app");
            for command in [
                format!("{before}; $LDWRAP index --dir lto -- {link}"),
                "for d in lto/*.json; do $LDWRAP backend $d; done".to_owned(),
                format!("{before}; $LDWRAP final --dir lto -- {link}"),
            ] {
                succeed(s, &command);
            }
            assert_eq!(compiled_by_lld(s), 0, "LLVM {}: {link}", s.llvm);
            is_lld_s(s, &format!("{before}; {link}"));
        }
    });
}

#[test]
fn objects_that_are_not_right_are_lld_s_to_make() {
    each_llvm_with_shim(|s| {
        seed(s);
        let last = format!("$LDWRAP final --dir lto -- {SEED}");
        let by_lld = |expected: u64, what: &str| {
            succeed(s, &last);
            assert_eq!(compiled_by_lld(s), expected, "LLVM {}: {what}", s.llvm);
            is_lld_s(s, SEED);
        };
        let make = format!(
            "$LDWRAP index --dir lto -- {SEED}; for d in lto/*.json; do $LDWRAP backend $d; done"
        );
        succeed(s, &make);
        by_lld(0, "all are there");
        s.sh("cp lto/b.o b.object; rm lto/b.o");
        by_lld(1, "one is missing");
        s.sh("cp lto/a.o lto/b.o");
        by_lld(1, "one is another module's");
        s.sh("cp b.object lto/b.o; printf x >>lto/a.o");
        by_lld(1, "one is damaged");
        succeed(s, &make);
        // b imports nothing, a imports from b: neither object is from what the link has now.
        s.sh("echo 'int elf0(); int bb() { return elf0() + 1; }' >b.c; clang-$N -c -O2 -flto=thin b.c");
        by_lld(2, "objects are stale");
        // A backend does not take what is not described.
        let done = run(s, "$LDWRAP backend lto/a.o.json");
        assert_eq!(done.code, Some(1));
        assert!(done.errors.contains("run that again"), "{}", done.errors);
        s.sh("rm -r lto");
        by_lld(2, "no directory");
    });
}

/// A module that is written to while its backend runs: its object is of neither.
#[test]
fn a_module_that_changes_meanwhile() {
    newest_llvm(|s| {
        if ldwrap_tests::fixtures_only() {
            return;
        }
        seed(s);
        let dir = s.dir();
        let text = format!(
            "#!/bin/bash\nclang-$N \"$@\" || exit\n\
             [[ ! -e {0}/armed || $* != *-fthinlto-index=* ]] || echo >>{0}/b.o\n",
            dir.display()
        );
        let clang = s.clang("../writing", &text);
        succeed(
            s,
            &format!(
                "export LDWRAP_CLANG={}; $LDWRAP index --dir lto -- {SEED}",
                clang.display()
            ),
        );
        s.sh("touch armed");
        let done = run(s, "$LDWRAP backend lto/b.o.json");
        assert_eq!(done.code, Some(1), "{}", done.errors);
        assert!(done.errors.contains("run that again"), "{}", done.errors);
        assert!(!s.exists("lto/b.o"));
    });
}

#[test]
fn links_without_backends_and_errors() {
    each_llvm_with_shim(|s| {
        seed(s);
        // What clang cannot be told is lld's alone, and a graph has the last step only.
        let link = format!("{SEED} -Wl,--lto-O1");
        let command = format!("$LDWRAP index --dir lto --emit make -o lto/mk -- {link}");
        let done = run(s, &command);
        assert_eq!(done.code, Some(0), "{}", done.errors);
        assert!(done.errors.contains("no backends"), "{}", done.errors);
        succeed(s, "make -f lto/mk");
        is_lld_s(s, &link);
        // lld's errors are lld's, and so is its status; which phase has them is too.
        let objects = "clang-$N -fuse-ld=lld -o app a.o";
        for (command, message) in [
            (
                format!("index --dir lto -- {objects} a.o"),
                "duplicate symbol: main",
            ),
            (
                format!("final --dir lto -- {objects}"),
                "undefined symbol: bb",
            ),
        ] {
            let done = run(s, &format!("$LDWRAP {command}"));
            assert_eq!(done.code, Some(1), "{command}: {}", done.errors);
            assert!(done.errors.contains(message), "{command}: {}", done.errors);
        }
        for (command, message) in [
            (
                "$LDWRAP index --dir lto -- clang-$N -o app a.o b.o elf0.o",
                "-fuse-ld=lld",
            ),
            (
                "$LDWRAP index --dir lto -- make",
                "neither a compiler nor a linker",
            ),
            (
                "$LDWRAP index --dir lto -- clang-$N -c a.c",
                "links nothing",
            ),
            ("$LDWRAP backend lto/none.json", "lto/none.json"),
            ("$LDWRAP backend a.o", "ends in .json"),
            ("cp a.o a.json; $LDWRAP backend a.json", "a.json"),
        ] {
            let done = run(s, command);
            assert_eq!(done.code, Some(1), "{command}: {}", done.errors);
            assert!(done.errors.contains(message), "{command}: {}", done.errors);
        }
    });
}

/// Copies an example project to the working directory.
fn example(s: &Session, name: &str) {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    s.sh(&format!("cp {}/* .", from.join(name).display()));
}

/// Builds an example with `build`, edits it, and builds again.
fn edits(s: &Session, build: &str, link: &str, names: [&str; 3]) {
    let [main, sum, twice] = names;
    let build = |what: &str, expected: &[&str]| {
        let shown = succeed(s, build);
        assert_eq!(
            backends(&shown),
            set(expected),
            "LLVM {}: {what}\n{shown}",
            s.llvm
        );
        let lld = lld_compiles(s, link);
        assert_eq!(lld, expected.len(), "LLVM {}: lld: {what}", s.llvm);
        is_lld_s(s, link);
        let again = succeed(s, build);
        assert!(
            !again.contains(" final ") && !again.contains(" index "),
            "{what}\n{again}"
        );
    };
    build("all", &[main, sum, twice]);
    assert_eq!(s.sh("./app"), "120\n");
    s.sh("sed -i 's/return n + 1/return n + 2/' native.c");
    build("a native object", &[]);
    assert_eq!(compiled_by_lld_of_cold_link(s), None);
    s.sh("sed -i 's/printf(\"%d/printf(\"=%d/' main.c");
    build("what nobody imports from", &[main]);
    s.sh("sed -i 's/n \\* n/n * n * n/' sum.c");
    build("what all import from", &[main, sum, twice]);
    s.sh("echo '/* a comment */' >>twice.c");
    build("a comment", &[]);
    // A lazy member enters, and leaves again.
    s.sh(
        "sed -i 's/native(sum(6))/unused(sum(6))/; s/^int native/int unused(int), native/' main.c",
    );
    let unused = sum.replace("sum", "unused");
    build("a lazy member enters", &[main, &unused]);
    // Not what it was: lld's cache would have that still.
    s.sh("sed -i 's/unused(sum(6))/native(sum(6))/; s/=%d/==%d/' main.c");
    build("a lazy member leaves", &[main]);
    assert_eq!(s.sh("./app"), "==515\n");
}

/// A build that has nothing to do writes no report.
fn compiled_by_lld_of_cold_link(s: &Session) -> Option<u64> {
    s.root()
        .join("report.json")
        .exists()
        .then(|| compiled_by_lld(s))
}

#[test]
fn with_make() {
    each_llvm_with_shim(|s| {
        example(s, "make");
        edits(
            s,
            "make CC=clang-$N AR=llvm-ar-$N LDWRAP=$LDWRAP",
            "clang-$N -O2 -flto=thin -fuse-ld=lld -o app main.o native.o -L. -lparts",
            ["main.o", "libparts.a/sum.o", "libparts.a/twice.o"],
        );
        s.sh("make clean; test ! -e lto");
    });
}

#[test]
fn with_ninja() {
    each_llvm_with_shim(|s| {
        example(s, "ninja");
        succeed(s, "CC=clang-$N AR=llvm-ar-$N ./configure");
        edits(
            s,
            "ninja -v",
            "clang-$N -O2 -flto=thin -fuse-ld=lld -o app main.o native.o -L. -lparts",
            ["main.o", "libparts.a/sum.o", "libparts.a/twice.o"],
        );
    });
}

#[test]
fn with_cmake() {
    each_llvm_with_shim(|s| {
        example(s, "cmake");
        succeed(
            s,
            "cmake -G Ninja -DCMAKE_C_COMPILER=clang-$N -DCMAKE_AR=/usr/bin/llvm-ar-$N -DLDWRAP=$LDWRAP .",
        );
        edits(
            s,
            "cmake --build .",
            "/usr/bin/clang-$N -fuse-ld=lld CMakeFiles/native.dir/native.c.o CMakeFiles/app.dir/main.c.o -o app libparts.a",
            [
                "CMakeFiles/app.dir/main.c.o",
                "libparts.a/sum.c.o",
                "libparts.a/twice.c.o",
            ],
        );
    });
}

/// Archives of all kinds, a script, names that are hard to say, and paths above the working directory; the link of them.
fn inputs_of_all_kinds(s: &Session) -> &'static str {
    let function = |n: u32| format!("int f{n}(int x) {{ return x * {n} + 1; }}\n");
    s.write(
        "main.c",
        "int f1(int), f2(int), f3(int), f4(int), f5(int), f6(int);\n\
         int main(int n, char **v) { return f1(n) + f2(n) + f3(n) + f4(n) + f5(n) + f6(n); }\n",
    );
    for (file, n) in [
        ("one/m.c", 1),
        ("two/m.c", 2),
        ("thin/t.c", 3),
        ("a $b:#.c", 4),
        ("../w2/up.c", 5),
        ("native.c", 6),
        ("one/out.c", 7),
    ] {
        s.write(file, function(n));
    }
    s.sh("for f in main.c one/*.c two/*.c thin/*.c a*.c ../w2/up.c; do clang-$N -c -O2 -flto=thin \"$f\" -o \"${f%.c}.o\"; done; \
          clang-$N -c native.c; \
          llvm-ar-$N qc same.a one/m.o two/m.o one/out.o; llvm-ar-$N s same.a; llvm-ar-$N rcsT thin.a thin/t.o; \
          echo 'INPUT(same.a \"thin.a\")' >script");
    "clang-$N -fuse-ld=lld -o app main.o native.o 'a $b:#.o' ../w2/up.o $PWD/script"
}

/// make and ninja run the backend of each module that takes part, whatever file it is in, and all of them.
#[test]
fn inputs_of_all_kinds_are_compiled() {
    each_llvm_with_shim(|s| {
        let link = inputs_of_all_kinds(s);
        for (emit, file, build) in [
            ("make", "lto/g.mk", "make -f lto/g.mk"),
            ("ninja", "lto/g.ninja", "ninja -v -f lto/g.ninja"),
        ] {
            s.sh("rm -rf lto app");
            succeed(
                s,
                &format!("$LDWRAP index --dir lto --emit {emit} -o {file} -- {link}"),
            );
            let shown = succeed(s, build);
            let all = [
                ",,/w2/up.o",
                "a,20,24b,3A,23.o",
                "main.o",
                "same.a/m.o",
                "same.a/m.o~2",
                "thin/t.o",
            ];
            // How lld names what a script names depends on the script's place.
            let shown: BTreeSet<String> = backends(&shown)
                .into_iter()
                .map(|name| match name.rfind("/w/") {
                    Some(at) => name[at + 3..].to_owned(),
                    None => name,
                })
                .collect();
            assert_eq!(shown, set(&all), "LLVM {}: {emit}", s.llvm);
            assert_eq!(compiled_by_lld(s), 0, "LLVM {}: {emit}", s.llvm);
            is_lld_s(s, link);
        }
        // A file's other members do not matter.
        s.sh("sed -i 's/x \\* 1/x * 100 - n/; s/int x/int x, int n/' one/m.c; clang-$N -c -O2 -flto=thin one/m.c -o one/m.o; \
              rm same.a; llvm-ar-$N qc same.a one/m.o two/m.o one/out.o; llvm-ar-$N s same.a");
        succeed(
            s,
            &format!("$LDWRAP index --dir lto --emit ninja -o lto/g.ninja -- {link}"),
        );
        let shown = backends(&succeed(s, "ninja -v -f lto/g.ninja"));
        assert!(
            !shown
                .iter()
                .any(|n| n.ends_with("m.o~2") || n.ends_with("t.o")),
            "{shown:?}"
        );
        assert!(shown.iter().any(|n| n.ends_with("m.o")), "{shown:?}");
        is_lld_s(s, link);
    });
}

/// JSON has every file as it is named; what make has no way to say is refused.
#[test]
fn inputs_of_all_kinds_are_named() {
    each_llvm_with_shim(|s| {
        let link = inputs_of_all_kinds(s)
            .replace("-o app", "-Wl,-o,app")
            .replace("native.o", "@outer");
        s.write("outer", "@inner");
        s.write("inner", "native.o");
        succeed(
            s,
            &format!("$LDWRAP index --dir lto --emit json -o lto/g.json -- {link}"),
        );
        let graph: Value = serde_json::from_str(&s.read("lto/g.json")).expect("JSON");
        let inputs: Vec<&str> = graph["inputs"]
            .as_array()
            .expect("inputs")
            .iter()
            .filter_map(Value::as_str)
            .collect();
        for input in [
            "a $b:#.o",
            "main.o",
            "native.o",
            "../w2/up.o",
            "outer",
            "inner",
        ] {
            assert!(inputs.contains(&input), "{inputs:?}");
        }
        assert_eq!(graph["output"], "app");
        for input in ["/script", "same.a", "thin.a", "thin/t.o"] {
            assert!(
                inputs.iter().any(|i| i.ends_with(input)),
                "{input}: {inputs:?}"
            );
        }
        s.sh("cp main.o 'm=n.o'");
        let link = link.replace("main.o", "m=n.o");
        let done = run(
            s,
            &format!("$LDWRAP index --dir lto --emit make -o lto/g.mk -- {link}"),
        );
        assert_eq!(done.code, Some(1));
        assert!(
            done.errors.contains("no way to say the name \"m=n.o\""),
            "{}",
            done.errors
        );
    });
}
