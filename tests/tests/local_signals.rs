//! The local engine and signals, at a moment when a backend stands still: it ends as lld ends, and nothing is
//! left.

use ldwrap_tests::{Session, each_llvm_with_shim, wait};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const LIBRARY: &str = "$LD -shared -o a.out f1.o f2.o f3.o f4.o";

/// A backend that reads a pipe which nobody fills: it stands still until the signal comes.
fn standing_still(s: &Session) {
    for n in 1..4 {
        s.write(
            &format!("f{n}.c"),
            format!("int f{n}(int x) {{ return x + {n}; }}\n"),
        );
    }
    s.write("f4.c", "__attribute__((noinline)) int f4(int n) { __asm__ volatile(\".pushsection .note.x; .incbin \\\"fifo\\\"; .popsection\"); return n; }\n");
    s.sh("clang-$N -c -O2 -fPIC -flto=thin f?.c; mkfifo fifo");
}

/// Starts a linker and gives it back when its backend stands still, with the other end of the pipe.
fn start(s: &Session, shim: bool) -> (Child, std::fs::File) {
    let mut c = Command::new("env");
    c.args([
        "--default-signal",
        "LLVM_DISABLE_SYMBOLIZATION=1",
        "bash",
        "-c",
    ]);
    c.arg(format!("ulimit -c 0; exec {LIBRARY}"));
    s.set_environment(&mut c);
    if shim {
        s.use_shim(&mut c);
        c.env("LDWRAP_EXECUTOR", "local")
            .env("LDWRAP_CACHE_DIR", s.root().join("cache"));
        c.env("LDWRAP_CACHE_SIZE", "1G");
    }
    let c = c.stdout(Stdio::null()).stderr(Stdio::null());
    (c.spawn().expect("env"), other_end(s))
}

/// The end of the pipe to write to, once there is a reader.
fn other_end(s: &Session) -> std::fs::File {
    let mut options = std::fs::OpenOptions::new();
    options
        .write(true)
        .custom_flags(nix::fcntl::OFlag::O_NONBLOCK.bits());
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        // Without a reader this is ENXIO.
        if let Ok(end) = options.open(s.dir().join("fifo")) {
            std::thread::sleep(Duration::from_millis(30));
            return end;
        }
        assert!(Instant::now() < until, "LLVM {}: no backend reads", s.llvm);
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// How a linker ends by a signal, and what it leaves. One that goes on reads on after a while.
fn ended_by(s: &Session, signal: &str, shim: bool) -> (Option<i32>, Option<i32>, String) {
    let (mut child, end) = start(s, shim);
    s.sh(&format!("kill -{signal} {}", child.id()));
    let until = Instant::now() + Duration::from_millis(500);
    while Instant::now() < until && matches!(child.try_wait(), Ok(None)) {
        std::thread::sleep(Duration::from_millis(5));
    }
    drop(end);
    let status = wait(&mut child, 10);
    s.assert_nothing_left(&format!("SIG{signal}"));
    (status.signal(), status.code(), s.sh("ls -A; rm -f a.out*"))
}

#[test]
fn signals_end_it_as_they_end_lld() {
    each_llvm_with_shim(|s| {
        standing_still(s);
        for signal in [
            "INT", "TERM", "HUP", "QUIT", "USR1", "USR2", "ALRM", "XCPU", "PIPE",
        ] {
            let [alone, watched] = [false, true].map(|shim| ended_by(s, signal, shim));
            assert_eq!(alone, watched, "LLVM {}: SIG{signal}", s.llvm);
        }
    });
}

#[test]
fn killed_outright() {
    each_llvm_with_shim(|s| {
        standing_still(s);
        let (mut child, _end) = start(s, true);
        child.kill().expect("a child to kill");
        let begin = Instant::now();
        assert_eq!(wait(&mut child, 5).signal(), Some(9));
        s.assert_nothing_left("SIGKILL");
        assert!(begin.elapsed() < Duration::from_secs(2), "LLVM {}", s.llvm);
    });
}

/// lld itself dies: so does the link, by the same signal.
#[test]
fn an_lld_that_is_killed() {
    each_llvm_with_shim(|s| {
        standing_still(s);
        for (signal, number) in [("KILL", 9), ("TERM", 15)] {
            let (mut child, end) = start(s, true);
            s.sh(&format!(
                "kill -{signal} $(ps -o pid= --ppid {})",
                child.id()
            ));
            assert_eq!(
                wait(&mut child, 10).signal(),
                Some(number),
                "LLVM {}: SIG{signal}",
                s.llvm
            );
            drop(end);
            s.assert_nothing_left(&format!("SIG{signal} to lld"));
            s.sh("rm -f a.out*");
        }
        // The next link is as if nothing had been.
        s.sh("rm fifo; echo x >fifo");
        let cache = s.root().join("cache").display().to_string();
        let link = LIBRARY.replace("a.out", "$OUT");
        s.link_both_cached(&[("LDWRAP_CACHE_DIR", &cache)], &link)
            .splits();
    });
}

/// What a stopped link was at, it goes on with.
#[test]
fn stopped_and_continued() {
    each_llvm_with_shim(|s| {
        standing_still(s);
        let (mut child, end) = start(s, true);
        s.sh(&format!(
            "kill -STOP {0}; sleep 0.2; kill -CONT {0}",
            child.id()
        ));
        drop(end);
        assert!(wait(&mut child, 10).success(), "LLVM {}", s.llvm);
        s.assert_nothing_left("SIGSTOP and SIGCONT");
    });
}
