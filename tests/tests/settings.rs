//! Settings and the tool's own commands: what is wrong is said where the user looks, and never in a link.

use ldwrap_tests::{LENIENT, Session, each_llvm_with_shim, some_llvm};

fn sources(s: &Session) {
    s.write(
        "main.c",
        "int two(int); int main(void) { return two(2) - 4; }\n",
    );
    s.write("two.c", "int two(int n) { return n * 2; }\n");
    s.compile("clang-$N -c -O2 -flto=thin main.c two.c");
}

const LINK: &str = "clang-$N -flto=thin -fuse-ld=lld main.o two.o -o $OUT";

/// Runs a command of our tool; gives its standard output and standard error, and whether it succeeded.
fn tool(s: &Session, command: &str) -> (String, String, bool) {
    let mut c = s.bash(command);
    s.use_shim_by_default(&mut c);
    let out = c.output().expect("bash");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&out.stdout), text(&out.stderr), out.status.success())
}

/// One version is enough for what no lld takes part in.
fn once(test: impl Fn(&Session)) {
    some_llvm(|llvm| llvm == 22, test);
}

#[test]
fn help_is_ours_and_misspelt_names_get_the_nearest() {
    once(|s| {
        for (command, ok, expected) in [
            ("$LDWRAP --help", true, "Usage: ldwrap"),
            ("$LDWRAP --version", true, "ldwrap 0."),
            ("$LDWRAP help", true, "Usage: ldwrap"),
            ("$LDWRAP help verify", true, "alone"),
            ("$LDWRAP help cache prune", true, "--keep"),
            (
                "$LDWRAP help LDWRAP_JOBS",
                true,
                "Default: (the number of processors)",
            ),
            (
                "$LDWRAP help settings",
                true,
                "LDWRAP_REMOTE_EXECUTION_TIMEOUT=",
            ),
            ("$LDWRAP", false, "Usage: ldwrap"),
            ("$LDWRAP vrify -- make", false, "'verify'"),
            ("$LDWRAP help jbos", false, "is it jobs?"),
            // A linker's: what cannot be a command.
            (
                "$LDWRAP no-such-file.o",
                false,
                "cannot open no-such-file.o",
            ),
            ("$LDWRAP -o x", false, "no input files"),
        ] {
            let (stdout, stderr, done) = tool(
                s,
                &format!(
                    "LDWRAP_REAL_LLD=/usr/lib/llvm-$N/bin/ld.lld; export LDWRAP_REAL_LLD; {command}"
                ),
            );
            assert_eq!(done, ok, "{command}: {stdout}{stderr}");
            let said = if ok { &stdout } else { &stderr };
            assert!(said.contains(expected), "{command}: {stdout}{stderr}");
        }
        // A file of that name, if it is one to be linked.
        sources(s);
        s.sh("cp main.o env");
        let (_, stderr, ok) = tool(
            s,
            "LDWRAP_REAL_LLD=/usr/lib/llvm-$N/bin/ld.lld $LDWRAP env -e main -o x",
        );
        assert!(!ok && stderr.contains("undefined symbol"), "{stderr}");
    });
}

/// What is set shows with its place, and what is wrong with it.
#[test]
fn config_names_the_place() {
    once(|s| {
        s.write(
            "../home/config/ldwrap/ldwrap.toml",
            "# ours\njobs = 3\nsplti = \"auto\"\n",
        );
        let (stdout, stderr, ok) = tool(
            s,
            "LDWRAP_MEMORY=4G LDWRAP_REMOTE=grpc://me:secret@h:1 $LDWRAP config",
        );
        for part in [
            "LDWRAP_JOBS = 3  (",
            "ldwrap.toml:2)",
            "ldwrap.toml:3: splti is no setting: is it split?",
            "LDWRAP_MEMORY = 4G  (environment)",
            "LDWRAP_REMOTE=(not shown",
            "expected grpc://HOST:PORT",
        ] {
            assert!(stdout.contains(part), "{part}: {stdout}");
        }
        assert!(
            !ok && !format!("{stdout}{stderr}").contains("secret"),
            "{stdout}{stderr}"
        );
        let (stdout, _, ok) = tool(
            s,
            "rm ../home/config/ldwrap/ldwrap.toml; $LDWRAP config --all",
        );
        assert!(
            ok && stdout.contains("LDWRAP_SPLIT = auto  (not set)"),
            "{stdout}"
        );
    });
}

/// Output that cannot be written is an error.
#[test]
fn output_that_cannot_be_written() {
    once(|s| {
        for command in [
            "--help",
            "help jobs",
            "config --all",
            "cache stats",
            "cache clear",
            "compilers --dir names",
            "env",
            "stats",
            "document settings",
            "verify -- true",
        ] {
            let (_, stderr, _) = tool(
                s,
                &format!("$LDWRAP {command} >/dev/full; [ $? = 1 ] || echo status $? >&2"),
            );
            assert_eq!(
                stderr, "ldwrap: standard output: No space left on device (os error 28)\n",
                "{command}"
            );
        }
        s.sh("rm -r names");
    });
}

/// A message that cannot be written ends nothing otherwise than one that can.
#[test]
fn messages_that_cannot_be_written() {
    once(|s| {
        let shim = s.shim().display().to_string();
        for (command, status) in [
            (format!("LDWRAP_REAL_LLD=/none {shim} a.o"), "1\n"),
            ("$LDWRAP report nothing".to_owned(), "1\n"),
        ] {
            for stderr in ["said", "/dev/full"] {
                let (stdout, _, _) = tool(s, &format!("{command} 2>{stderr} || echo $?"));
                assert_eq!(stdout, status, "{command} 2>{stderr}");
            }
            assert!(s.read("said").starts_with("ldwrap: "), "{command}");
        }
    });
}

/// A link goes on as without a bad setting and says nothing; the report does, and LDWRAP_STRICT makes it an error.
#[test]
fn bad_settings_in_a_link() {
    each_llvm_with_shim(|s| {
        sources(s);
        for (bad, complaint) in [
            (("LDWRAP_JOBS", "none"), "expected NUMBER from 1 to 4096"),
            (("LDWRAP_JOBS", "4294967295"), "expected NUMBER from"),
            (("LDWRAP_SPLTI", "always"), "is it LDWRAP_SPLIT?"),
            (("LDWRAP_REMOTE", "localhost:1"), "expected grpc://"),
            (
                ("LDWRAP_CONFIG", "/nonexistent"),
                "cannot read the configuration",
            ),
        ] {
            let local = ("LDWRAP_EXECUTOR", "local");
            let both = s.link_both_with(&[bad, local, LENIENT], LINK);
            both.same().succeeds();
            let told = both.report()["complaints"].to_string();
            assert!(told.contains(complaint), "LLVM {}: {told}", s.llvm);
            let run = |c: &str| {
                tool(
                    s,
                    &format!(
                        "export {}={} LDWRAP_STRICT=1 LDWRAP_SPLIT=always; {c}",
                        bad.0, bad.1
                    ),
                )
            };
            let (_, stderr, ok) = run(LINK);
            assert!(
                !ok && stderr.contains(complaint),
                "LLVM {}: {stderr}",
                s.llvm
            );
        }
    });
}

/// All that a link was made from is kept, and its scripts repeat it.
#[test]
fn a_link_is_kept() {
    each_llvm_with_shim(|s| {
        sources(s);
        for executor in ["local", "clang"] {
            let env = [
                ("LDWRAP_KEEP", "kept in here"),
                ("LDWRAP_EXECUTOR", executor),
            ];
            let link = LINK.replace("$OUT", "\"it's an app\"");
            let mut c = s.bash(&format!(
                "{link}; mv \"it's an app\" first; cd 'kept in here'/*-1; \
                 for script in lld ldwrap; do ./$script; cmp ../../first \"../../it's an app\"; rm \"../../it's an app\"; done; \
                 ./lld -o other; cd ../..; rm other"
            ));
            s.use_shim(&mut c);
            c.envs(env);
            let out = c.output().expect("bash");
            assert!(
                out.status.success(),
                "LLVM {}: {}",
                s.llvm,
                String::from_utf8_lossy(&out.stderr)
            );
            let commands = s.read("kept in here/it's an app-1/commands");
            let backends = commands
                .lines()
                .filter(|line| line.contains("-fthinlto-index="))
                .count();
            assert_eq!(
                backends >= 2,
                executor == "clang",
                "LLVM {}: {commands}",
                s.llvm
            );
            assert!(
                s.read("kept in here/it's an app-1/report")
                    .contains("\"action\":\"split\"")
            );
            s.sh("rm -r 'kept in here' first");
        }
        // What cannot be kept does not fail a link.
        s.link_both_with(&[("LDWRAP_KEEP", "/proc/x")], LINK)
            .splits();
    });
}
