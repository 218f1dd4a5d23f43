//! Finding the real lld, never ourselves; what is forwarded arrives as it was given.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::process::Command;

use ldwrap_tests::{LENIENT, Session, each_llvm_with_shim, wait};

fn sources(s: &Session) {
    s.write("native.c", "int native(void) { return 0; }\n");
    s.write("main.c", "int main(void) { return 0; }\n");
    s.compile("clang-$N -c -O2 native.c; clang-$N -c -O2 -fPIC -flto=thin main.c");
}

/// Runs a command with the shim's environment; gives its stdout, stderr and whether it succeeded.
fn shim(s: &Session, command: &str) -> (String, String, bool) {
    let mut c = s.bash(command);
    s.use_shim(&mut c);
    let out = c.output().expect("bash");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    s.assert_nothing_left(command);
    (text(&out.stdout), text(&out.stderr), out.status.success())
}

fn says_version(s: &Session, command: &str) {
    let (stdout, stderr, ok) = shim(s, command);
    let version = format!("LLD {}.", s.llvm);
    assert!(
        ok && stdout.contains(&version),
        "LLVM {}: {command}: {stdout}{stderr}",
        s.llvm
    );
}

/// By its own name, whatever the path to it is.
#[test]
fn by_version_in_the_name() {
    each_llvm_with_shim(|s| {
        says_version(s, "$LD --version");
        says_version(s, "PATH=${LD%/*}:$PATH ld.lld-$N --version");
        s.sh("mkdir copies; cd copies; cp $PWD/../../p/lib/ldwrap/ld.lld ld.lld-$N; mkdir d; ln -s ../ld.lld-$N d/ld.lld-$N");
        says_version(s, "copies/ld.lld-$N --version");
        says_version(s, "copies/d/ld.lld-$N --version");
        says_version(
            s,
            "PATH=$PWD/copies:${LD%/*}:$PWD/copies/d:$PATH ld.lld-$N --version",
        );
    });
}

/// `ld.lld` beside the compiler that called us; LLVM's directory is not on `PATH`.
#[test]
fn beside_the_calling_compiler() {
    each_llvm_with_shim(|s| {
        sources(s);
        s.write("start.c", "int main(void) { return 0; }\n");
        s.compile("clang-$N -c start.c");
        let (_, stderr, ok) = shim(
            s,
            "(! command -v ld.lld); clang-$N -fuse-ld=lld -o $OUT start.o; llvm-readelf-$N -p .comment $OUT | grep \"LLD $N\\.\"",
        );
        assert!(ok, "LLVM {}: {stderr}", s.llvm);
        let (_, stderr, ok) = shim(
            s,
            "clang-$N -B${LDLLD%/*} -fuse-ld=lld -o $OUT start.o; llvm-readelf-$N -p .comment $OUT | grep \"LLD $N\\.\"",
        );
        assert!(ok, "LLVM {}: {stderr}", s.llvm);
    });
}

/// On `PATH`, past any number of shims: copied, symlinked, hard-linked, in several prefixes.
#[test]
fn on_path_but_never_ourselves() {
    each_llvm_with_shim(|s| {
        s.sh("mkdir copy sym hard chain; cp ../p/lib/ldwrap/ld.lld copy; ln -s ../../p/lib/ldwrap/ld.lld sym; ln ../p/lib/ldwrap/ld.lld hard");
        s.sh("ln -s ../sym/ld.lld chain/ld.lld");
        let real = "/usr/lib/llvm-$N/bin";
        for first in ["copy", "sym", "hard", "chain"] {
            says_version(
                s,
                &format!("PATH=$PWD/{first}:$PATH:{real} ld.lld --version"),
            );
            says_version(
                s,
                &format!("PATH=$PWD/{first}:$PATH:{real} bash -c 'exec ld.lld --version'"),
            );
        }
        says_version(
            s,
            &format!(
                "PATH=$PWD/copy:$PWD/sym:${{LDLLD%/*}}:$PWD/hard:$PWD/chain:$PATH:{real} ld.lld --version"
            ),
        );
        // A wrapper script on PATH that calls the next one: no endless loop.
        s.script("chain/wrapped", "#!/bin/sh\nexec \"$REAL\" \"$@\"\n");
        says_version(
            s,
            &format!("REAL=$LDLLD PATH=$PATH:{real} chain/wrapped --version"),
        );
    });
}

/// Nothing but ourselves to be found: an error that says what to do, at once.
#[test]
fn nothing_to_be_found() {
    each_llvm_with_shim(|s| {
        sources(s);
        s.sh("mkdir copy; cp ../p/lib/ldwrap/ld.lld copy/ld.lld");
        for command in [
            "PATH=$PWD/copy:${LDLLD%/*} ld.lld native.o",
            "LDWRAP_REAL_LLD=$LDLLD $LD -shared native.o",
            "LDWRAP_REAL_LLD=$PWD/copy/ld.lld $LD -shared native.o",
            "LDWRAP_REAL_LLD=$PWD/copy/ld.lld $LD -shared main.o",
            "LDWRAP_REAL_LLD=$LDWRAP $LD -shared main.o",
        ] {
            let (stdout, stderr, ok) = shim(s, command);
            assert!(!ok, "LLVM {}: {command}: {stdout}{stderr}", s.llvm);
            assert!(
                stderr.contains("LDWRAP_REAL_LLD"),
                "LLVM {}: {command}: {stderr}",
                s.llvm
            );
            assert!(
                stderr.lines().count() <= 3,
                "LLVM {}: {command}: {stderr}",
                s.llvm
            );
        }
    });
}

/// argv and environment arrive byte by byte.
#[test]
fn argv_and_environment_are_forwarded() {
    each_llvm_with_shim(|s| {
        sources(s);
        let dump = s.script(
            "dump",
            "#!/bin/sh\ncat /proc/$$/cmdline >argv; cat /proc/$$/environ >env\n",
        );
        let odd: &[&[u8]] = &[
            b"-o",
            b"out put",
            b"",
            b"native.o",
            b"--defsym=a=\xff\xfe",
            b"@",
            b"-\n",
            b"'\"\\ $x *",
            b"-z",
            b"",
        ];
        let args: Vec<_> = odd
            .iter()
            .map(|bytes| std::ffi::OsStr::from_bytes(bytes))
            .collect();
        let run = |program: &std::path::Path| {
            let mut c = Command::new(program);
            c.args(&args);
            s.set_environment(&mut c);
            s.use_shim(&mut c);
            c.env("LDWRAP_REAL_LLD", &dump)
                .env("ODD", std::ffi::OsStr::from_bytes(b"\xff=\n"))
                .env("EMPTY", "")
                .env("LDWRAP_STRICT", "0");
            let mut child = c.spawn().expect("the shim");
            assert!(
                wait(&mut child, 20).success(),
                "LLVM {}: {program:?}",
                s.llvm
            );
            let file = |name| fs::read(s.dir().join(name)).expect("the dump");
            let argv = file("argv")
                .split(|&b| b == 0)
                .skip(2)
                .map(<[u8]>::to_vec)
                .collect::<Vec<_>>();
            // The real lld would not see this one, a script does.
            let env = file("env");
            let env = env
                .split(|&b| b == 0)
                .filter(|v| !v.starts_with(b"LDWRAP_DEPTH="));
            (argv, env.collect::<Vec<_>>().join(&0))
        };
        let direct = run(&dump);
        assert_eq!(direct.0.len(), odd.len() + 1);
        for program in [s.shim_n(), s.shim(), s.prefix().join("bin/ldwrap")] {
            let forwarded = run(&program);
            assert!(
                direct.0 == forwarded.0,
                "LLVM {}: {program:?}: argv differs",
                s.llvm
            );
            assert!(
                direct.1 == forwarded.1,
                "LLVM {}: {program:?}: the environment differs:\n{}\n{}",
                s.llvm,
                String::from_utf8_lossy(&direct.1).replace('\0', "\n"),
                String::from_utf8_lossy(&forwarded.1).replace('\0', "\n")
            );
        }
    });
}

/// lld derives its name in messages from argv[0], so that is forwarded too; and its flavour.
#[test]
fn argv_zero_is_forwarded() {
    each_llvm_with_shim(|s| {
        for (command, expected) in [
            ("$LD missing.o", format!("ld.lld-{}: error:", s.llvm)),
            ("$LDLLD missing.o", "ld.lld: error:".to_owned()),
            (
                "exec -a x86_64-linux-gnu-ld.lld $LDLLD missing.o",
                "x86_64-linux-gnu-ld.lld: error:".to_owned(),
            ),
        ] {
            let (_, stderr, ok) = shim(
                s,
                &format!("export LDWRAP_REAL_LLD=/usr/lib/llvm-$N/bin/ld.lld; {command}"),
            );
            assert!(
                !ok && stderr.starts_with(&expected),
                "LLVM {}: {command}: {stderr}",
                s.llvm
            );
        }
    });
}

/// Our own questions never clash with lld's, by either entrance.
#[test]
fn our_own_version() {
    each_llvm_with_shim(|s| {
        let (stdout, stderr, ok) = shim(s, "$LDWRAP --version");
        assert!(
            ok && stdout.starts_with("ldwrap "),
            "LLVM {}: {stdout}{stderr}",
            s.llvm
        );
        says_version(
            s,
            "LDWRAP_REAL_LLD=/usr/lib/llvm-$N/bin/ld.lld $LDLLD --version",
        );
    });
}

/// `ldwrap env` prints exports that put the shim first, for clang and gcc.
#[test]
fn env_puts_the_shim_first() {
    each_llvm_with_shim(|s| {
        sources(s);
        s.write("start.c", "int main(void) { return 0; }\n");
        s.compile("clang-$N -c -O2 -flto=thin start.c");
        for driver in [
            "clang-$N -flto=thin",
            "PATH=$PATH:/usr/lib/llvm-$N/bin; gcc",
        ] {
            let (_, stderr, ok) = shim(
                s,
                &format!(
                    "unset COMPILER_PATH; rm -f $LDWRAP_REPORT; eval \"$($LDWRAP env)\"; {driver} -fuse-ld=lld -o $OUT start.o"
                ),
            );
            assert!(ok, "LLVM {}: {driver}: {stderr}", s.llvm);
            let reports = s.reports();
            assert!(
                reports.len() == 1 && reports[0]["action"] == "split",
                "LLVM {}: {driver}: {reports:?}",
                s.llvm
            );
        }
    });
}

/// Only a compiler's own directory is looked at: a shell may lie beside any `ld.lld`.
#[test]
fn not_beside_any_caller() {
    each_llvm_with_shim(|s| {
        s.sh("mkdir beside; cp /bin/bash beside/; printf '#!/bin/sh\\necho wrong\\n' >beside/ld.lld; chmod +x beside/ld.lld");
        says_version(
            s,
            "PATH=/usr/lib/llvm-$N/bin:$PATH beside/bash -c '$LDLLD --version; true'",
        );
    });
}

/// As the shell finds programs: in directories that are relative, too.
#[test]
fn in_relative_directories_of_path() {
    each_llvm_with_shim(|s| {
        s.sh("mkdir bin; ln -s /usr/lib/llvm-$N/bin/ld.lld bin/ld.lld");
        says_version(s, "PATH=bin:$PATH $LDLLD --version");
    });
}

/// Where no `ld.lld` is without a version, the newest.
#[test]
fn the_newest_version_in_path() {
    each_llvm_with_shim(|s| {
        s.sh("mkdir bin; ln -s /usr/lib/llvm-$N/bin/ld.lld bin/ld.lld-$N; printf '#!/bin/sh\\necho wrong\\n' >bin/ld.lld-9; chmod +x bin/ld.lld-9; ln -s /bin/bash bin");
        says_version(s, "PATH=bin $LDLLD --version");
    });
}

/// A package puts the shim where lld was, and lld beside it.
#[test]
fn a_diverted_original() {
    each_llvm_with_shim(|s| {
        sources(s);
        for suffix in ["distrib", "real"] {
            s.sh(&format!(
                "rm -rf llvm bin; mkdir llvm bin; cp -L /usr/lib/llvm-$N/bin/ld.lld llvm/ld.lld.{suffix}; \
                 ln -s $PWD/../p/lib/ldwrap/ld.lld llvm/ld.lld; ln -s ../llvm/ld.lld bin/ld.lld; ln -s /bin/bash bin"
            ));
            for called in [
                "llvm/ld.lld",
                "$PWD/llvm/ld.lld",
                "bin/ld.lld",
                "PATH=bin ld.lld",
            ] {
                says_version(s, &format!("{called} --version"));
                // A link too, by the lld that was diverted.
                let (stdout, stderr, ok) = shim(
                    s,
                    &format!(
                        "export LDWRAP_EXECUTOR=local; {called} -shared -o $OUT main.o; rm $OUT"
                    ),
                );
                assert!(ok, "LLVM {}: {called}: {stdout}{stderr}", s.llvm);
                let report = s.reports().pop().expect("a report");
                assert_eq!(
                    report["action"], "split",
                    "LLVM {}: {called}: {report}",
                    s.llvm
                );
            }
        }
    });
}

/// It is found too where the shim is called by another path, and finds itself in lld's place.
#[test]
fn a_diverted_original_elsewhere() {
    each_llvm_with_shim(|s| {
        s.sh("mkdir llvm bin; cp -L /usr/lib/llvm-$N/bin/ld.lld llvm/ld.lld.distrib; ln -s $PWD/../p/lib/ldwrap/ld.lld llvm/ld.lld; \
              ln -s ../llvm/ld.lld bin/ld.lld-$N; ln -s /bin/bash bin");
        // the newest version in PATH; the version in the name
        says_version(s, "PATH=bin $LDLLD --version");
        says_version(s, "PATH=bin $LD --version");
        s.sh("mv bin/ld.lld-$N bin/ld.lld");
        says_version(s, "PATH=bin $LDLLD --version");
        // It says its version, since it is asked by a name that it knows; what is no clang does not.
        sources(s);
        s.sh("cp /bin/true llvm/clang");
        let command = "export LDWRAP_STRICT=0 LDWRAP_REAL_LLD=$PWD/llvm/ld.lld.distrib LDWRAP_CLANG=$PWD/llvm/clang; $LDLLD -shared -o $OUT main.o";
        let (_, stderr, ok) = shim(s, command);
        assert!(ok, "LLVM {}: {stderr}", s.llvm);
        let reason = s.reports().pop().expect("a report")["reason"].to_string();
        assert!(
            reason.contains("cannot tell the version of") && reason.contains("llvm/clang:"),
            "LLVM {}: {reason}",
            s.llvm
        );
    });
}

/// What `cargo install` gives is ldwrap alone: a symbolic link makes it the linker.
#[test]
fn ldwrap_without_the_shim() {
    each_llvm_with_shim(|s| {
        sources(s);
        s.write("other.c", "int other(void) { return 1; }\n");
        s.sh("clang-$N -c -O2 -fPIC -flto=thin other.c; mkdir -p cargo/bin; cp ../p/bin/ldwrap cargo/bin");
        let (_, stderr, ok) = shim(s, "cargo/bin/ldwrap env");
        assert!(!ok && stderr.contains("mkdir -p"), "{stderr}");
        // as the message says
        let command = "eval \"$(cargo/bin/ldwrap env 2>&1 | sed 's/.*: mkdir/mkdir/')\"; cargo/bin/ldwrap env";
        let (stdout, stderr, ok) = shim(s, command);
        assert!(ok && stdout.contains("lib/ldwrap"), "{stdout}{stderr}");
        let link = "LDWRAP_EXECUTOR=local COMPILER_PATH=$PWD/cargo/lib/ldwrap \
                    clang-$N -shared -fuse-ld=lld -flto=thin -o $OUT main.o other.o";
        for name in ["native.o", ""] {
            let (_, stderr, ok) = shim(s, &format!("{link} {name}"));
            assert!(ok && stderr.is_empty(), "LLVM {}: {stderr}", s.llvm);
            let report = s.reports().pop().expect("a report");
            assert_eq!(report["action"], "split", "LLVM {}: {report}", s.llvm);
        }
        says_version(
            s,
            "PATH=$PATH:/usr/lib/llvm-$N/bin cargo/lib/ldwrap/ld.lld --version",
        );
    });
}

/// A script may stand for lld, but not one that leads back to us.
#[test]
fn scripts_in_the_place_of_lld() {
    each_llvm_with_shim(|s| {
        sources(s);
        let script = |to: &str| {
            s.sh(&format!(
                "mkdir -p bin; printf '#!/bin/bash\\nexec {to} \"$@\"\\n' >bin/ld.lld; chmod +x bin/ld.lld; ln -sf /bin/bash bin"
            ));
        };
        script("/usr/lib/llvm-$N/bin/ld.lld");
        says_version(s, "PATH=$PWD/bin $LDLLD --version");
        let (_, stderr, ok) = shim(
            s,
            "LDWRAP_EXECUTOR=local PATH=$PWD/bin $LDLLD -shared -o $OUT main.o",
        );
        assert!(ok, "LLVM {}: {stderr}", s.llvm);
        script(&s.shim().display().to_string());
        for arguments in [
            "--version",
            "-shared -o $OUT main.o",
            "-shared -o $OUT main.o -v",
        ] {
            for split in ["always", "never"] {
                let command = format!(
                    "LDWRAP_STRICT=0 LDWRAP_SPLIT={split} PATH=$PWD/bin $LDLLD {arguments}"
                );
                let (_, stderr, ok) = shim(s, &command);
                assert!(
                    !ok && stderr.contains("leads back to ldwrap"),
                    "LLVM {}: {command}: {stderr}",
                    s.llvm
                );
            }
        }
    });
}

/// Our binaries are known by a note that other tools can read.
#[test]
fn the_note_is_one() {
    each_llvm_with_shim(|s| {
        let (stdout, stderr, ok) = shim(s, "readelf -n $LDLLD $LDWRAP; llvm-readelf-$N -n $LDLLD");
        assert!(
            ok && stderr.is_empty() && stdout.contains("ldwrap"),
            "LLVM {}: {stdout}{stderr}",
            s.llvm
        );
    });
}

/// A report that nobody reads, or that cannot be written, is no link's concern.
#[test]
fn reports_that_cannot_be_written() {
    each_llvm_with_shim(|s| {
        sources(s);
        s.sh("mkfifo fifo");
        for report in ["fifo", "/dev/full", "/nonexistent/report", "/"] {
            for object in ["native.o", "main.o"] {
                let command = format!("LDWRAP_REPORT={report} $LDLLD -shared -o $OUT {object}");
                let (_, stderr, ok) = shim(
                    s,
                    &format!("export LDWRAP_REAL_LLD=/usr/lib/llvm-$N/bin/ld.lld; {command}"),
                );
                assert!(
                    ok && stderr.is_empty(),
                    "LLVM {}: {command}: {stderr}",
                    s.llvm
                );
            }
        }
    });
}

/// A clang that is a script, or stands for another by the name of a cache of compiles, is the one that it runs.
#[test]
fn scripts_in_the_place_of_clang() {
    each_llvm_with_shim(|s| {
        sources(s);
        s.write("other.c", "int other(int n) { return n + 1; }\n");
        s.sh("clang-$N -c -O2 -fPIC -flto=thin other.c; mkdir bin; printf '#!/bin/sh\\nexec /usr/bin/clang-%s \"$@\"\\n' $N >bin/clang; \
              printf '#!/bin/sh\\nexit 0\\n' >bin/mute; chmod +x bin/*; ln -s clang bin/by-name");
        let link = "$LD -shared -o $OUT main.o other.o";
        let by_name = s.dir().join("bin/by-name").display().to_string();
        s.link_both_with(&[("LDWRAP_CLANG", &by_name)], link)
            .splits();
        // A program that goes by the compiler's name, as ccache does. What runs is the compiler itself.
        s.clang("c", "#!/bin/bash\nexec /usr/bin/clang-$N \"$@\"\n");
        s.sh("cd c; mv clang cache; mv clang.sh cache.sh; ln -s cache clang-$N");
        for clang in [
            s.dir().join("bin/clang"),
            s.dir().join(format!("c/clang-{}", s.llvm)),
        ] {
            let clang = clang.display().to_string();
            let command = format!(
                "LDWRAP_KEEP=kept LDWRAP_CLANG={clang} {link}; grep -e -fthinlto-index= kept/*/commands; rm -r kept"
            );
            let (backends, stderr, ok) = shim(s, &command);
            assert!(ok && !backends.is_empty(), "LLVM {}: {stderr}", s.llvm);
            assert!(!backends.contains(&clang), "LLVM {}: {backends}", s.llvm);
        }
        let mute = s.dir().join("bin/mute").display().to_string();
        s.link_both_with(&[("LDWRAP_CLANG", &mute), LENIENT], link)
            .left_to_lld("which compiler it runs");
    });
}

/// What a script in lld's place leaves running holds the pipes that we gave it, which nobody waits for.
#[test]
fn what_lld_leaves_behind() {
    each_llvm_with_shim(|s| {
        sources(s);
        s.write("other.c", "int other(int n) { return n + 1; }\n");
        s.sh("clang-$N -c -O2 -fPIC -flto=thin other.c; $LD -shared -o plain main.o other.o");
        let text = format!(
            "#!/bin/bash\ncase \"$*\" in $(cat leave)) sleep 40 & echo $! >>left ;; esac\n\
             exec -a ld.lld /usr/lib/llvm-{}/bin/ld.lld \"$@\"\n",
            s.llvm
        );
        let lld = s.script("lld", &text).display().to_string();
        for (executor, leave) in [
            ("local", "*--version*"),
            ("clang", "nothing"),
            ("clang", "*--thinlto-index-only*"),
        ] {
            s.write("leave", leave);
            // It is asked for its version once for each cache.
            let command = format!(
                "export LDWRAP_REAL_LLD={lld} LDWRAP_EXECUTOR={executor} LDWRAP_CACHE_DIR=$PWD/{executor}; \
                 rm -f left; mkdir -p {executor}; timeout 30 $LD -shared -o $OUT main.o other.o; \
                 [ {leave:?} = nothing ] || kill $(cat left); cmp plain $OUT"
            );
            let (stdout, stderr, ok) = shim(s, &command);
            assert!(ok, "LLVM {}: {executor}, {leave}: {stdout}{stderr}", s.llvm);
            let report = s.reports().pop().expect("a report");
            let how = (&report["action"], &report["executor"]);
            assert_eq!(how, (&"split".into(), &executor.into()), "{report}");
        }
    });
}
