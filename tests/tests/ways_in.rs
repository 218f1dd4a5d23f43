//! Every way in which a build comes to ldwrap instead of lld, by clang and by gcc; `ldwrap run`, `ldwrap compilers`,
//! and the shim by compilers' names.

use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};

use ldwrap_tests::{Session, each_llvm_with_shim, llvm_22_with_shim, rust_tools, wait};

const CLANG: &str = "clang-$N -O2 -flto=thin -o $OUT a.o b.o native.o";
/// gcc, and the real lld for it where nothing else names one.
const GCC: &str = "PATH=$PATH:/usr/lib/llvm-$N/bin; gcc -o $OUT a.o b.o native.o";

fn sources(s: &Session) {
    s.write(
        "a.c",
        "int puts(const char *); int b(void); int main(void) { puts(\"linked\"); return b(); }\n",
    );
    s.write(
        "b.c",
        "int native(void); int b(void) { return native(); }\n",
    );
    s.write("native.c", "int native(void) { return 0; }\n");
    s.compile("clang-$N -c -O2 -fPIC -flto=thin a.c b.c; clang-$N -c -O2 native.c");
}

/// The session's `PATH` with the shim's directory first, where compilers' names are made by `ldwrap compilers`.
fn path(s: &Session) -> String {
    s.sh("../p/bin/ldwrap compilers >/dev/null");
    let shims = s.prefix().join("lib/ldwrap");
    format!("{}:/usr/local/bin:/usr/bin:/bin", shims.display())
}

/// The link by one way is split, and equals lld's own. What ldwrap itself says is not compared.
fn splits(s: &Session, env: &[(&str, &str)], command: &str) {
    eprintln!("-- {command}");
    let pair = s.link_both_with(env, command);
    pair.splits().modules(2).prints("linked\n");
}

/// Nothing but `PATH`, as [`path`] gives it.
fn only_path(path: &str) -> [(&str, &str); 2] {
    [("PATH", path), ("COMPILER_PATH", "")]
}

/// Runs a command with the shim's environment, but for `COMPILER_PATH`; gives its standard output and standard error,
/// and its exit status.
fn shell(s: &Session, env: &[(&str, &str)], command: &str) -> (String, String, Option<i32>) {
    let mut c = s.bash(command);
    s.use_shim(&mut c);
    c.env_remove("COMPILER_PATH").envs(env.iter().copied());
    let out = c.output().expect("bash");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    s.assert_nothing_left(command);
    (text(&out.stdout), text(&out.stderr), out.status.code())
}

#[test]
fn by_path_first() {
    llvm_22_with_shim(|s| {
        sources(s);
        let path = path(s);
        let env = only_path(&path);
        for command in [
            &format!("{CLANG} -fuse-ld=lld"),
            &format!("{GCC} -fuse-ld=lld"),
            &format!("{GCC} -fuse-ld=lld").replace("gcc", "cc"),
            &format!("{GCC} -fuse-ld=lld").replace("gcc", "x86_64-linux-gnu-gcc"),
            // Named with its version, also by a compiler that is called by its path.
            &format!("{CLANG} -fuse-ld=lld-$N"),
            &format!("/usr/bin/{CLANG} -fuse-ld=lld-$N"),
        ] {
            splits(s, &env, command);
        }
        s.link_both_with(&env, "ld.lld-$N -shared -o $OUT a.o b.o native.o")
            .splits()
            .modules(2);
    });
}

#[test]
fn by_compiler_path() {
    llvm_22_with_shim(|s| {
        sources(s);
        splits(s, &[], &format!("{CLANG} -fuse-ld=lld"));
        splits(s, &[], &format!("/usr/bin/{CLANG} -fuse-ld=lld"));
        splits(s, &[], &format!("{GCC} -fuse-ld=lld"));
    });
}

#[test]
fn by_an_option() {
    llvm_22_with_shim(|s| {
        sources(s);
        let env = [("COMPILER_PATH", "")];
        splits(s, &env, &format!("{CLANG} -fuse-ld=lld -B${{LDLLD%/*}}"));
        splits(s, &env, &format!("{GCC} -fuse-ld=lld -B${{LDLLD%/*}}"));
        splits(s, &env, &format!("{CLANG} -fuse-ld=$LDWRAP"));
        splits(s, &env, &format!("{CLANG} -fuse-ld=$LDLLD"));
        splits(s, &env, &format!("{CLANG} --ld-path=$LDLLD"));
    });
}

#[test]
fn by_ldwrap_run() {
    llvm_22_with_shim(|s| {
        sources(s);
        let run = format!("{}/bin/ldwrap run --", s.prefix().display());
        let env = [("RUN", run.as_str()), ("COMPILER_PATH", "")];
        for command in [CLANG, &format!("/usr/bin/{CLANG}"), GCC] {
            let command = command.replace("; gcc", "; ${RUN:-} gcc");
            let command = match command.contains("${RUN") {
                true => command,
                false => format!("${{RUN:-}} {command}"),
            };
            splits(s, &env, &format!("{command} -fuse-ld=lld 2>/dev/null"));
        }
    });
}

/// A linker is a command as others are; one that is named by its path is the lld that links.
#[test]
fn by_ldwrap_run_of_a_linker() {
    each_llvm_with_shim(|s| {
        sources(s);
        let run = format!("{}/bin/ldwrap run --", s.prefix().display());
        let env = [("RUN", run.as_str()), ("COMPILER_PATH", "")];
        for linker in ["ld.lld-$N", "/usr/lib/llvm-$N/bin/ld.lld"] {
            let link = format!("${{RUN:-}} {linker} -shared -o $OUT a.o b.o native.o 2>/dev/null");
            s.link_both_with(&env, &link).splits().modules(2);
        }
    });
}

/// As `cargo install` leaves it: ldwrap in the shim's place.
#[test]
fn without_the_shim() {
    llvm_22_with_shim(|s| {
        sources(s);
        s.sh("cd ../p/lib/ldwrap; rm ld.lld*; ln -s ../../bin/ldwrap ld.lld");
        let run = format!("{}/bin/ldwrap run --", s.prefix().display());
        let env = [("RUN", run.as_str()), ("COMPILER_PATH", "")];
        let run_link = format!("${{RUN:-}} {CLANG} -fuse-ld=lld 2>/dev/null");
        splits(s, &env, &run_link);
        splits(s, &[], &format!("{CLANG} -fuse-ld=lld"));
        let path = path(s);
        splits(s, &env, &run_link);
        for command in [CLANG, GCC] {
            splits(s, &only_path(&path), &format!("{command} -fuse-ld=lld"));
        }
    });
}

#[test]
fn through_scripts_and_cleared_environments() {
    llvm_22_with_shim(|s| {
        sources(s);
        s.sh("mkdir bin");
        s.script(
            "bin/wrapped",
            "#!/bin/sh\nexec clang-$N -fuse-ld=lld \"$@\"\n",
        );
        let link = CLANG.replace("clang-$N", "bin/wrapped");
        let path = path(s);
        splits(s, &only_path(&path), &link);
        splits(s, &[], &link);
        // Only PATH is kept, and what the test itself needs.
        let cleared = "env -i PATH=$PATH TMPDIR=$TMPDIR $(env | grep ^LDWRAP_)";
        splits(
            s,
            &only_path(&path),
            &format!("{cleared} {CLANG} -fuse-ld=lld"),
        );
    });
}

/// rustc by its own `cc`, told not to hand that its own lld (docs/lld.md, "Finding the linker").
#[test]
fn rustc_and_its_cc() {
    llvm_22_with_shim(|s| {
        let (others, rustup) = rust_tools();
        s.write("main.rs", "fn main() { println!(\"linked\"); }\n");
        let link = format!(
            "PATH=$PATH:{others}:/usr/lib/llvm-$N/bin RUSTUP_HOME={rustup} \
             rustc -O -Clinker-plugin-lto -Clink-self-contained=-linker -o $OUT main.rs"
        );
        let path = path(s);
        for env in [&only_path(&path)[..], &[]] {
            let env = [env, &[("LDWRAP_EXECUTOR", "local")]].concat();
            s.link_both_with(&env, &link).splits().prints("linked\n");
        }
    });
}

/// A script that looks for the next program of its own name, as ccache does, before us in `PATH` and behind us.
#[test]
fn no_loop_with_what_looks_for_its_own_name() {
    llvm_22_with_shim(|s| {
        sources(s);
        s.sh("mkdir own");
        s.script(
            "own/clang-22",
            "#!/bin/bash\necho \"$PATH\" >>\"$LOG\"\nwhile read -r next; do [[ $next -ef $0 ]] || exec \"$next\" \"$@\"; done < <(type -aP clang-22)\nexit 9\n",
        );
        let shims = path(s);
        let own = s.dir().join("own").display().to_string();
        for (path, times) in [
            (format!("{own}:{shims}"), 2),
            (shims.replacen(':', &format!(":{own}:"), 1), 1),
        ] {
            s.sh("rm -f log");
            let mut env = only_path(&path).to_vec();
            env.push(("LOG", "log"));
            let command = format!("{CLANG} -fuse-ld=lld");
            let (_, stderr, status) = shell(s, &env, &command);
            assert_eq!((stderr.as_str(), status), ("", Some(0)));
            let report = s.reports().pop().expect("a report");
            assert_eq!(report["action"], "split", "{report}");
            let log = s.read("log");
            assert_eq!(log.lines().count(), times, "{log}");
            let seen = log.lines().last().unwrap_or_default();
            assert!(
                !seen.contains("lib/ldwrap") && seen.contains("/own"),
                "{log}"
            );
            s.sh("rm ../report.json a.out");
        }
        // One that calls us by our path would go on for ever.
        let shim = s.prefix().join("lib/ldwrap/clang-22");
        s.script(
            "own/clang-22",
            &format!("#!/bin/sh\nexec {} \"$@\"\n", shim.display()),
        );
        let (_, stderr, status) = shell(s, &only_path(&format!("{own}:{shims}")), "clang-22 -v");
        assert_eq!(status, Some(126), "{stderr}");
        assert!(stderr.contains("leads back to ldwrap"), "{stderr}");
    });
}

/// By a compiler's name the shim hands on what it was given, whatever it is.
#[test]
fn a_compiler_gets_its_arguments() {
    llvm_22_with_shim(|s| {
        s.sh("mkdir bin");
        s.script(
            "bin/gcc-99.1",
            "#!/bin/bash\nprintf '%s|' \"$0\" \"$@\"; echo; echo \"$COMPILER_PATH\"; exit 5\n",
        );
        let bin = s.dir().join("bin").display().to_string();
        let with_own = format!("{bin}:/usr/bin:/bin");
        shell(s, &[("PATH", &with_own)], "$LDWRAP compilers");
        let path = format!("{}:{bin}", path(s).replace(":/usr/local/bin", ""));
        // `ldwrap compilers` above did not see it, and has removed its name.
        s.sh("ln -s ld.lld ../p/lib/ldwrap/gcc-99.1");
        let command = "gcc-99.1 -flto --version -o '' @none $'a\\nb' --thinlto-index-only a.o";
        let (stdout, stderr, status) =
            shell(s, &[("PATH", &path), ("COMPILER_PATH", "/x")], command);
        let shims = s.prefix().join("lib/ldwrap").display().to_string();
        let expected = format!(
            "{bin}/gcc-99.1|-flto|--version|-o||@none|a\nb|--thinlto-index-only|a.o|\n{shims}:/x\n"
        );
        assert_eq!((stdout, stderr, status), (expected, String::new(), Some(5)));
        // The directory is in COMPILER_PATH once.
        let there = format!("/x:{shims}");
        let env = [("PATH", path.as_str()), ("COMPILER_PATH", &there)];
        let (stdout, ..) = shell(s, &env, "gcc-99.1");
        assert_eq!(stdout.lines().last(), Some(there.as_str()));
        // One that is gone.
        s.sh("rm bin/gcc-99.1");
        let (stdout, stderr, status) = shell(s, &env, "gcc-99.1 -o x a.o || exit $?");
        assert_eq!((stdout.as_str(), status), ("", Some(127)), "{stderr}");
        assert!(
            stderr.contains("gcc-99.1: not found") && stderr.contains(&path),
            "{stderr}"
        );
    });
}

/// A configure script finds the compilers that are there, and no others.
#[test]
fn compilers_that_are_not_there_are_not_found() {
    llvm_22_with_shim(|s| {
        s.sh("mkdir bin; ln -s /usr/bin/gcc bin/clang-98");
        let bin = s.dir().join("bin").display().to_string();
        let with_bin = format!("{bin}:/usr/bin:/bin");
        let env = [("PATH", with_bin.as_str())];
        let detect = "for c in clang-98 clang-99 clang-$N; do command -v $c || true; done";
        let shims = s.prefix().join("lib/ldwrap").display().to_string();
        let made = |dir: &str, names: &[&str]| -> String {
            names.iter().map(|name| format!("{dir}/{name}\n")).collect()
        };

        let (stdout, stderr, status) = shell(s, &env, "$LDWRAP compilers");
        assert_eq!((stderr.as_str(), status), ("", Some(0)));
        assert!(
            stdout.contains("made: ") && stdout.contains("clang-98"),
            "{stdout}"
        );
        let first = format!("{shims}:{with_bin}");
        let (found, ..) = shell(s, &[("PATH", &first)], detect);
        assert_eq!(found, made(&shims, &["clang-98", "clang-22"]));
        assert_eq!(s.sh("readlink ../p/lib/ldwrap/clang-98"), "ld.lld\n");

        // Once more nothing is to do, with us in PATH too; then one compiler goes.
        let (stdout, ..) = shell(s, &[("PATH", &first)], "$LDWRAP compilers");
        assert!(
            stdout.contains("unchanged: ") && !stdout.contains("made"),
            "{stdout}"
        );
        s.sh("rm bin/clang-98");
        let (stdout, ..) = shell(s, &[("PATH", &first)], "$LDWRAP compilers");
        assert!(stdout.contains("removed: clang-98\n"), "{stdout}");
        let (found, ..) = shell(s, &[("PATH", &first)], detect);
        assert_eq!(found, made(&shims, &["clang-22"]));

        // In a directory of one's own, beside a file that is not ours.
        let (stdout, ..) = shell(
            s,
            &env,
            "mkdir mine; echo >mine/gcc; $LDWRAP compilers --dir mine; ls mine",
        );
        assert!(stdout.contains("not a link of ours: gcc\n"), "{stdout}");
        assert!(stdout.contains("\nclang-22\n"), "{stdout}");
        assert_eq!(s.sh("readlink mine/clang-22"), format!("{shims}/ld.lld\n"));

        // So it is in ldwrap run, wherever the directory was before.
        for path in [with_bin.clone(), format!("{with_bin}:{shims}")] {
            let env = [("PATH", path.as_str())];
            let (found, ..) = shell(s, &env, &format!("$LDWRAP run -- sh -c '{detect}'"));
            assert_eq!(found, made(&shims, &["clang-22"]));
        }
    });
}

/// A build with make, and once more with all objects from the cache.
#[test]
fn a_build_and_its_second_run() {
    llvm_22_with_shim(|s| {
        sources(s);
        s.write(
            "Makefile",
            "all: a.out plain.so\n\
             a.out: a.o b.o native.o\n\t$(CC) -O2 -flto=thin -fuse-ld=lld -o $@ $^\n\
             plain.so: native.o\n\t$(CC) -fuse-ld=lld -shared -o $@ $^\n",
        );
        let cache = s.root().join("cache").display().to_string();
        let env = [
            ("LDWRAP_EXECUTOR", "local"),
            ("LDWRAP_CACHE_SIZE", "1G"),
            ("LDWRAP_CACHE_DIR", cache.as_str()),
        ];
        for (hits, compiled) in [(0, 2), (2, 0)] {
            s.sh("rm -f a.out plain.so ../report.json");
            let (stdout, stderr, status) = shell(s, &env, "$LDWRAP run -- make -j2 CC=clang-$N");
            assert_eq!(status, Some(0), "{stdout}{stderr}");
            let said: Vec<&str> = stderr.lines().collect();
            let [links, modules] = said.as_slice() else {
                panic!("not two lines: {stderr}");
            };
            assert_eq!(
                *links,
                "ldwrap: 2 links: 1 through ldwrap, 1 left to lld (no bitcode)"
            );
            let start = format!("ldwrap: 2 modules: {hits} from the cache, {compiled} compiled; ");
            assert!(
                modules.starts_with(&start) && modules.ends_with(" s in links"),
                "{stderr}"
            );
            // The user's own report has the lines too.
            assert_eq!(s.reports().len(), 2, "{:?}", s.reports());
            assert_eq!(s.sh("./a.out"), "linked\n");
        }
        let (_, stderr, status) = shell(s, &env, "$LDWRAP run -- true");
        assert_eq!(status, Some(0));
        assert!(
            stderr.starts_with("ldwrap: no link reached ldwrap")
                && stderr.contains("ldwrap doctor"),
            "{stderr}"
        );
    });
}

/// `ldwrap run` ends as its command does.
#[test]
fn the_exit_status_is_the_commands() {
    llvm_22_with_shim(|s| {
        sources(s);
        for (command, expected) in [
            ("sh -c 'exit 3'", 3),
            ("/nonexistent/make", 127),
            ("nosuchcommand", 127),
            ("./a.c", 126),
            ("/nonexistent/ld.lld", 127),
            ("clang-$N -fuse-ld=lld a.o -o $OUT", 1),
            ("sh -c 'kill -KILL $$'", 128 + 9),
        ] {
            let command = format!("$LDWRAP run -- {command} || exit $?");
            let (stdout, stderr, status) = shell(s, &[], &command);
            assert_eq!(status, Some(expected), "{command}: {stdout}{stderr}");
        }
        // Standard streams are the command's own; nobody has to listen to what is said at the end.
        let (stdout, ..) = shell(s, &[], "echo in | $LDWRAP run -- sed s/in/out/ 2>&-");
        assert_eq!(stdout, "out\n");
    });
}

/// Starts `ldwrap run` with a script that says in the file `phase` when a signal may come, and waits for that.
fn start(s: &Session, script: &str) -> Child {
    s.sh("rm -f phase");
    let mut c = Command::new("setsid");
    c.args(["env", "--default-signal"])
        .arg(s.prefix().join("bin/ldwrap"))
        .args(["run", "--", "bash", "-c", script]);
    s.set_environment(&mut c);
    c.stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = c.spawn().expect("setsid");
    s.wait_for("phase", &mut child);
    child
}

#[test]
fn signals_reach_the_command() {
    llvm_22_with_shim(|s| {
        for (signal, number) in [("INT", 2), ("TERM", 15), ("HUP", 1), ("QUIT", 3)] {
            // To us alone, or to the whole group.
            for group in ["", "-- -"] {
                let kill = |child: &Child| s.sh(&format!("kill -{signal} {group}{}", child.id()));
                // bash itself ignores SIGQUIT.
                let mut child = start(s, "exec sh -c 'echo $$ >phase; exec sleep 300'");
                kill(&child);
                let status = wait(&mut child, 20);
                assert_eq!(status.signal(), Some(number), "SIG{signal}: {status}");
                s.assert_nothing_left(signal);
                // One that takes its time to end, and has its own word.
                let mut child = start(
                    s,
                    &format!(
                        "trap 'sleep 0.3; exit 7' {signal}; echo $$ >phase; while :; do sleep 0.05; done"
                    ),
                );
                kill(&child);
                let status = wait(&mut child, 20);
                assert_eq!(status.code(), Some(7), "SIG{signal}: {status}");
                s.assert_nothing_left(signal);
            }
        }
    });
}
