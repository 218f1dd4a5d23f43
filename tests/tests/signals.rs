//! Signals at any time: the link dies by them, as lld would, with its children, and leaves nothing.

use std::os::unix::process::ExitStatusExt;

use ldwrap_tests::{Session, newest_llvm, oldest_and_newest_with_shim, wait};

/// Programs that mark a phase in the file `phase` and then hang, instead of doing their part.
const PHASES: [&str; 3] = ["index", "backends", "final"];
/// The signals that end lld. Not USR1, at which it says what it is doing.
fn signals(s: &Session) -> Vec<(&'static str, i32)> {
    let mut signals = vec![("INT", 2), ("TERM", 15), ("HUP", 1), ("ALRM", 14)];
    // An older lld shows its stack at these and goes on.
    if s.llvm >= 19 {
        signals.extend([("QUIT", 3), ("XCPU", 24)]);
    }
    signals
}
/// lld shows a stack at QUIT and XCPU, and asks another program about it.
const NO_STACK: (&str, &str) = ("LLVM_DISABLE_SYMBOLIZATION", "1");
const LINK: [&str; 5] = ["-shared", "-o", "a.out", "main.o", "one.o"];

fn sources(s: &Session) {
    s.write("main.c", "int one(void); int two(void) { return one(); }\n");
    s.write("one.c", "int one(void) { return 42; }\n");
    s.compile("clang-$N -c -O2 -fPIC -flto=thin main.c one.c");
}

/// The variable and the program that make the link hang in a phase. The program hangs in the
/// process that it is, so that whoever kills it has killed all of it. It does so once the file
/// `armed` is there.
fn hang_in(s: &Session, phase: &str) -> (&'static str, String) {
    let dir = s.dir();
    let dir = dir.display();
    let hang = format!(
        "[[ -e {dir}/armed ]] && {{ tee -a {dir}/phase <<<$$ >/dev/null; exec sleep 300; }}"
    );
    let llvm = s.llvm;
    let (variable, text) = match phase {
        "backends" => (
            "LDWRAP_CLANG",
            format!(
                "[[ \"$*\" == *-fthinlto-index=* ]] && {hang}\nexec /usr/bin/clang-{llvm} \"$@\"\n"
            ),
        ),
        _ => {
            let option = if phase == "index" {
                "--thinlto-index-only"
            } else {
                "--thinlto-cache-dir"
            };
            (
                "LDWRAP_REAL_LLD",
                format!(
                    "for a; do [[ $a == @* ]] && a=$(<\"${{a#@}}\"); [[ $a == *{option}* ]] && {hang}; done\n\
                     exec /usr/lib/llvm-{llvm}/bin/ld.lld \"$@\"\n"
                ),
            )
        }
    };
    let (name, text) = (format!("../hang-{phase}"), format!("#!/bin/bash\n{text}"));
    let program = match variable {
        "LDWRAP_CLANG" => s.clang(&name, &text),
        _ => s.script(&name, &text),
    };
    (
        variable,
        program
            .to_str()
            .expect("a path of ours is UTF-8")
            .to_owned(),
    )
}

/// Asserts that the processes which marked a phase are gone; children may need a moment to die.
fn assert_phase_ended(s: &Session) {
    s.sh("for p in $(cat phase); do for i in $(seq 100); do [ -e /proc/$p ] || continue 2; sleep 0.05; done; exit 1; done");
}

/// Each signal in a phase. One program for all of them, so that the toolchain is tried out once.
fn dies_in_each(s: &Session, phase: &str) {
    s.sh("rm -f armed");
    let (variable, program) = hang_in(s, phase);
    // A first link of these tools may try them out; its own phases are for
    // `an_interrupt_of_the_whole_group`.
    let mut first = s.spawn_shim(&[(variable, &program)], &LINK);
    assert!(
        wait(&mut first, 30).success(),
        "LLVM {}: the first link fails",
        s.llvm
    );
    s.sh("rm a.out; touch armed");
    for signal in signals(s) {
        dies_in(s, phase, (variable, &program), signal);
    }
}

fn dies_in(s: &Session, phase: &str, hang: (&str, &str), (signal, number): (&str, i32)) {
    s.sh("rm -f phase");
    let mut child = s.spawn_shim(&[hang, NO_STACK], &LINK);
    s.wait_for("phase", &mut child);
    s.sh(&format!("kill -{signal} {}", child.id()));
    let status = wait(&mut child, 20);
    assert_eq!(
        status.signal(),
        Some(number),
        "LLVM {}: {phase}, SIG{signal}: {status}",
        s.llvm
    );
    assert_phase_ended(s);
    s.assert_nothing_left(&format!("SIG{signal} in {phase}"));
    assert!(
        !s.exists("a.out"),
        "LLVM {}: an output after SIG{signal} in {phase}",
        s.llvm
    );
    let files = s.sh("ls -A");
    assert_eq!(
        files, "armed\nmain.c\nmain.o\none.c\none.o\nphase\n",
        "LLVM {}: SIG{signal} in {phase}",
        s.llvm
    );
}

#[test]
fn in_the_index_phase() {
    oldest_and_newest_with_shim(|s| {
        sources(s);
        dies_in_each(s, PHASES[0]);
    });
}

#[test]
fn in_the_backends() {
    oldest_and_newest_with_shim(|s| {
        sources(s);
        dies_in_each(s, PHASES[1]);
    });
}

#[test]
fn in_the_final_link() {
    oldest_and_newest_with_shim(|s| {
        sources(s);
        dies_in_each(s, PHASES[2]);
    });
}

/// A terminal sends its interrupt to the whole group, children first or last.
#[test]
fn an_interrupt_of_the_whole_group() {
    oldest_and_newest_with_shim(|s| {
        sources(s);
        for phase in PHASES {
            s.sh("rm -f phase; touch armed");
            let (variable, program) = hang_in(s, phase);
            let mut c = std::process::Command::new("setsid");
            c.args(["env", "--default-signal"])
                .arg(s.shim_n())
                .args(LINK);
            s.set_environment(&mut c);
            s.use_shim(&mut c);
            let mut child = c.env(variable, &program).spawn().expect("setsid");
            s.wait_for("phase", &mut child);
            s.sh(&format!("kill -INT -- -{}", child.id()));
            let status = wait(&mut child, 20);
            assert_eq!(
                status.signal(),
                Some(2),
                "LLVM {}: {phase}: {status}",
                s.llvm
            );
            assert_phase_ended(s);
            s.assert_nothing_left(&format!("an interrupt in {phase}"));
            assert!(
                !s.exists("a.out"),
                "LLVM {}: an output after an interrupt in {phase}",
                s.llvm
            );
        }
    });
}

/// SIGKILL leaves no time to tidy up, but children die with us all the same.
#[test]
fn killed_outright() {
    oldest_and_newest_with_shim(|s| {
        sources(s);
        for phase in PHASES {
            s.sh("rm -f phase; touch armed");
            let (variable, program) = hang_in(s, phase);
            let mut child = s.spawn_shim(&[(variable, &program)], &LINK);
            s.wait_for("phase", &mut child);
            child.kill().expect("a child to kill");
            assert_eq!(wait(&mut child, 20).signal(), Some(9));
            assert_phase_ended(s);
            s.sh("rm -rf \"$TMPDIR\"/*");
            s.assert_nothing_left(&format!("SIGKILL in {phase}"));
            assert!(
                !s.exists("a.out"),
                "LLVM {}: an output after SIGKILL in {phase}",
                s.llvm
            );
        }
    });
}

/// Under nohup SIGHUP is ignored, by lld as well: the link goes on.
#[test]
fn a_hangup_that_is_ignored() {
    oldest_and_newest_with_shim(|s| {
        sources(s);
        s.sh("$LD -shared -o plain.so main.o one.o");
        let dir = s.dir();
        let text = format!(
            "#!/bin/bash\n[[ \"$*\" == *-fthinlto-index=* ]] && {{ echo $$ >>{}/phase; sleep 1; }}\nexec /usr/bin/clang-{} \"$@\"\n",
            dir.display(),
            s.llvm
        );
        let clang = s.clang("../slow", &text);
        let mut c = std::process::Command::new("env");
        c.arg("--ignore-signal=HUP").arg(s.shim_n()).args(LINK);
        s.set_environment(&mut c);
        s.use_shim(&mut c);
        let mut child = c.env("LDWRAP_CLANG", clang).spawn().expect("env");
        s.wait_for("phase", &mut child);
        s.sh(&format!("kill -HUP {}", child.id()));
        assert!(wait(&mut child, 30).success(), "LLVM {}", s.llvm);
        s.sh("cmp plain.so a.out");
    });
}

/// lld is started with the signals blocked and ignored that were so for us.
#[test]
fn blocked_and_ignored_signals() {
    newest_llvm(|s| {
        sources(s);
        s.script(
            "lld",
            "#!/bin/bash\ncase \"$*\" in *--version*) ;; *) grep -E 'Sig(Blk|Ign)' /proc/self/status >>signals;; esac\n\
             exec /usr/lib/llvm-$N/bin/ld.lld \"$@\"\n",
        );
        let link = "export LDWRAP_REAL_LLD=$PWD/lld; [[ $LD == *wrap/* ]] || LD=$LDWRAP_REAL_LLD; \
                    env --default-signal --ignore-signal=PIPE --block-signal=USR1 $LD -shared -o $OUT main.o one.o; sort -u -o signals signals";
        for executor in ["local", "clang"] {
            s.link_both_with(&[("LDWRAP_EXECUTOR", executor)], link)
                .splits()
                .wrote("signals", "1000\n")
                .wrote("signals", "0200\n");
        }
    });
}

/// Signals at moments spread over the whole link, not only where a phase stands still.
#[test]
fn at_any_moment() {
    oldest_and_newest_with_shim(|s| {
        sources(s);
        let (variable, program) = hang_in(s, "backends");
        let hang = (variable, program.as_str());
        // The toolchain is tried out by a first link.
        let mut first = s.spawn_shim(&[hang], &LINK);
        assert!(wait(&mut first, 30).success(), "LLVM {}", s.llvm);
        s.sh("rm a.out; touch armed");
        let signals = signals(s);
        for moment in 0..30u64 {
            let (signal, number) = signals[moment as usize % signals.len()];
            s.sh("rm -f phase");
            let mut child = s.spawn_shim(&[hang, NO_STACK], &LINK);
            std::thread::sleep(std::time::Duration::from_millis(moment * 4));
            s.sh(&format!("kill -{signal} {}", child.id()));
            let status = wait(&mut child, 20);
            let at = format!("SIG{signal} after {} ms", moment * 4);
            assert_eq!(
                status.signal(),
                Some(number),
                "LLVM {}: {at}: {status}",
                s.llvm
            );
            s.assert_nothing_left(&at);
            let files = s.sh("rm -f phase; ls -A");
            assert_eq!(
                files, "armed\nmain.c\nmain.o\none.c\none.o\n",
                "LLVM {}: {at}",
                s.llvm
            );
        }
    });
}
