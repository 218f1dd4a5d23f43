//! The local engine and signals, at a moment when a backend stands still: it ends as lld ends, and nothing is
//! left.

use ldwrap_tests::{
    Session, each_llvm_with_shim, fixtures_only, oldest_and_newest_with_shim, some_llvm, wait,
};
use nix::fcntl::OFlag;
use std::fs::File;
use std::io::{ErrorKind, Read};
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

/// Signals that come while lld is handed its objects: none of these is lost. The kernel's matter, so that one lld is enough.
#[test]
fn stopped_and_continued_all_the_time() {
    if fixtures_only() {
        return;
    }
    some_llvm(
        |llvm| llvm == 22,
        |s| {
            s.sh("for n in {1..40}; do echo \"int f$n(int x) { return x + $n; }\" >g$n.c; done; clang-$N -c -O2 -fPIC -flto=thin g*.c");
            let link = "$LD -shared -o a.out g*.o";
            let cache = s.root().join("cache").display().to_string();
            let cached = [("LDWRAP_CACHE_DIR", cache.as_str())];
            s.link_both_cached(&cached, link).splits();
            for _ in 0..4 {
                s.sh("rm ../report.json");
                let mut c = s.bash(&format!(
                    "exec {link} & while kill -STOP $! && kill -CONT $!; do :; done 2>&-; wait $!"
                ));
                s.use_shim(&mut c);
                c.env("LDWRAP_EXECUTOR", "local")
                    .env("LDWRAP_CACHE_SIZE", "1G");
                c.env("LDWRAP_CACHE_DIR", &cache);
                let out = c.output().expect("bash");
                assert!(out.status.success(), "LLVM {}: {out:?}", s.llvm);
                let reports = s.reports();
                assert_eq!(reports.len(), 1, "{reports:?}");
                assert_eq!(reports[0]["cache"]["hits"], 40, "{reports:?}");
            }
            s.assert_nothing_left("SIGSTOP and SIGCONT");
        },
    );
}

/// Starts a link that prints a map which is larger than a pipe, and gives it back with the pipe's other end.
fn print_map(s: &Session, shim: bool, flags: OFlag) -> (Child, File) {
    let mut c = Command::new("env");
    c.args(["--default-signal", "bash", "-c"]);
    c.arg("exec $LD -shared -o a.out many.o --print-map");
    s.set_environment(&mut c);
    if shim {
        s.use_shim(&mut c);
        c.env("LDWRAP_EXECUTOR", "local");
    }
    let (from, to) = nix::unistd::pipe2(flags | OFlag::O_CLOEXEC).expect("a pipe");
    let child = c.stdout(to).stderr(Stdio::null()).spawn().expect("env");
    (child, File::from(from))
}

fn many_functions(s: &Session) {
    let function = |n| format!("int a_function_with_a_long_name_{n}(void) {{ return {n}; }}\n");
    s.write("many.c", (0..3000).map(function).collect::<String>());
    s.compile("clang-$N -c -O1 -fPIC -flto=thin many.c");
}

/// Readers that are slow get what lld writes once, also through a pipe that does not block (lld before 18 writes by us).
#[test]
fn slow_readers() {
    oldest_and_newest_with_shim(|s| {
        many_functions(s);
        let maps = [false, true].map(|shim| {
            let (mut child, mut from) = print_map(s, shim, OFlag::O_NONBLOCK);
            let mut map = Vec::new();
            let mut buffer = [0; 10_000];
            loop {
                match from.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(n) => map.extend_from_slice(&buffer[..n]),
                    Err(e) => assert_eq!(e.kind(), ErrorKind::WouldBlock),
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            assert!(wait(&mut child, 10).success(), "LLVM {}", s.llvm);
            map
        });
        assert!(maps[0].len() > 200_000, "LLVM {}", s.llvm);
        assert!(maps[0] == maps[1], "LLVM {}: other maps", s.llvm);
    });
}

/// A link whose reader does not read dies of a signal at once.
#[test]
fn readers_that_do_not_read() {
    oldest_and_newest_with_shim(|s| {
        many_functions(s);
        let (mut child, mut from) = print_map(s, true, OFlag::empty());
        from.read_exact(&mut [0; 100]).expect("a map");
        std::thread::sleep(Duration::from_millis(200));
        s.sh(&format!("kill -TERM {}", child.id()));
        let status = wait(&mut child, 5);
        assert_eq!(status.signal(), Some(15), "LLVM {}: {status}", s.llvm);
    });
}
