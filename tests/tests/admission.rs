//! How many backends run at once, over all links: as many as the machine and the jobserver allow.
//!
//! Each module has a FIFO in its inline assembly, so that its backend stands still until the test feeds
//! it: how many FIFOs have a reader is how many backends run.

use ldwrap_tests::{Session, each_llvm, each_llvm_with_shim, fixtures_only, wait};
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const MODULES: usize = 3;
/// Whatever is to happen happens within this time, also while other tests have the machine's slots.
const LONG: Duration = Duration::from_secs(60);
/// When nothing has happened for this time, nothing more will.
const QUIET: Duration = Duration::from_millis(400);

/// Directories for so many links, each with its own FIFOs.
fn links(s: &Session, count: usize) {
    for n in 0..MODULES {
        let text = format!(
            "int f{n}(int x) {{ __asm__ volatile(\".pushsection .note.x; .incbin \\\"fifo{n}\\\"; .popsection\"); return x; }}\n"
        );
        s.write(&format!("f{n}.c"), text);
    }
    s.compile("clang-$N -c -O2 -fPIC -flto=thin f*.c");
    for link in 0..count {
        s.sh(&format!(
            "mkdir l{link}; cp f*.o l{link}; cd l{link}; mkfifo fifo0 fifo1 fifo2"
        ));
    }
}

/// Starts a link in the directory of its number; through the shim with these settings, if there are any.
fn start(s: &Session, link: usize, settings: Option<&[(&str, &str)]>) -> Child {
    let mut c = Command::new("env");
    let command = "exec $LD -shared -o a.out f0.o f1.o f2.o --threads=3";
    c.args(["--default-signal", "bash", "-c", command]);
    s.set_environment(&mut c);
    if let Some(settings) = settings {
        s.use_shim(&mut c);
        c.env("LDWRAP_EXECUTOR", "local");
        c.env("LDWRAP_CACHE_DIR", s.root().join("cache"));
        c.env("LDWRAP_CACHE_SIZE", "1G");
        c.envs(settings.iter().copied());
    }
    c.current_dir(s.dir().join(format!("l{link}")));
    c.stdout(Stdio::null()).stderr(Stdio::null());
    c.spawn().expect("env")
}

/// The backends of so many links, as the other ends of their FIFOs.
#[derive(Default)]
struct Running {
    ends: Vec<File>,
    fed: Vec<(usize, usize)>,
}

impl Running {
    /// Finds backends that have begun; says whether there were any.
    fn find(&mut self, s: &Session, links: usize) -> bool {
        let before = self.ends.len();
        for link in 0..links {
            for module in 0..MODULES {
                if self.fed.contains(&(link, module)) {
                    continue;
                }
                let fifo = s.dir().join(format!("l{link}/fifo{module}"));
                let mut options = File::options();
                options
                    .write(true)
                    .custom_flags(nix::fcntl::OFlag::O_NONBLOCK.bits());
                // Without a reader this is ENXIO.
                if let Ok(end) = options.open(fifo) {
                    self.fed.push((link, module));
                    self.ends.push(end);
                }
            }
        }
        self.ends.len() > before
    }

    /// Waits until no more backends begin.
    fn settle(&mut self, s: &Session, links: usize) {
        let mut last = Instant::now();
        while last.elapsed() < QUIET {
            if self.find(s, links) {
                last = Instant::now();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until so many run.
    fn reach(&mut self, s: &Session, links: usize, count: usize) {
        let until = Instant::now() + LONG;
        while self.ends.len() < count {
            self.find(s, links);
            assert!(
                Instant::now() < until,
                "LLVM {}: {} backends run",
                s.llvm,
                self.ends.len()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Lets all of them end, and those that come after them, never more than `most` at a time.
    fn finish(&mut self, s: &Session, children: &mut [Child], most: usize) {
        let until = Instant::now() + LONG;
        while children
            .iter_mut()
            .any(|c| matches!(c.try_wait(), Ok(None)))
        {
            assert!(Instant::now() < until, "LLVM {}: no end", s.llvm);
            if !self.find(s, children.len()) && !self.ends.is_empty() {
                let mut end = self.ends.remove(0);
                let _ = end.write_all(b"x");
            }
            assert!(self.ends.len() <= most, "LLVM {}", s.llvm);
            std::thread::sleep(Duration::from_millis(20));
        }
        for child in children {
            assert!(wait(child, 1).success(), "LLVM {}", s.llvm);
        }
    }
}

/// Three links of three modules and three threads each: by lld alone, nine backends run.
#[test]
fn slots_are_shared_by_all_links() {
    each_llvm(|s| {
        links(s, 3);
        let mut running = Running::default();
        let mut plain: Vec<Child> = (0..3).map(|n| start(s, n, None)).collect();
        running.reach(s, 3, 9);
        running.finish(s, &mut plain, 9);
        if fixtures_only() {
            return;
        }
        let settings: Option<&[(&str, &str)]> = Some(&[("LDWRAP_JOBS", "2")]);
        s.sh("for l in l?; do mv $l/a.out $l/plain; done");
        let mut running = Running::default();
        let mut split: Vec<Child> = (0..3).map(|n| start(s, n, settings)).collect();
        running.reach(s, 3, 2);
        running.settle(s, 3);
        assert_eq!(running.ends.len(), 2, "LLVM {}", s.llvm);
        running.finish(s, &mut split, 2);
        s.sh("for l in l?; do cmp $l/a.out $l/plain; done");
        let split = s.reports().iter().all(|r| r["action"] == "split");
        assert!(split, "LLVM {}: {:?}", s.llvm, s.reports());
    });
}

/// Two links with one token each, and one in the jobserver.
#[test]
fn tokens_of_a_jobserver() {
    each_llvm_with_shim(|s| {
        links(s, 2);
        let fifo = s.root().join("jobserver");
        s.sh("mkfifo ../jobserver");
        let mut options = File::options();
        options
            .read(true)
            .write(true)
            .custom_flags(nix::fcntl::OFlag::O_NONBLOCK.bits());
        let mut jobserver = options.open(&fifo).expect("the FIFO");
        let flags = format!(" -j3 --jobserver-auth=fifo:{}", fifo.display());
        let settings: &[(&str, &str)] = &[("LDWRAP_JOBS", "8"), ("MAKEFLAGS", &flags)];
        for signal in ["", "INT", "TERM"] {
            jobserver.write_all(b"t").expect("a token");
            let mut running = Running::default();
            let mut children: Vec<Child> = (0..2).map(|n| start(s, n, Some(settings))).collect();
            running.reach(s, 2, 3);
            running.settle(s, 2);
            assert_eq!(running.ends.len(), 3, "LLVM {}", s.llvm);
            if signal.is_empty() {
                running.finish(s, &mut children, 3);
            } else {
                for child in &mut children {
                    s.sh(&format!("kill -{signal} {}", child.id()));
                    wait(child, 5);
                }
            }
            let mut tokens = [0; 8];
            let left = jobserver.read(&mut tokens).unwrap_or(0);
            assert_eq!(&tokens[..left], b"t", "LLVM {}: {signal}", s.llvm);
            s.assert_nothing_left(signal);
        }
    });
}

/// A link that is killed takes no slot along, wherever it was.
#[test]
fn killed_links() {
    each_llvm_with_shim(|s| {
        links(s, 1);
        let settings: Option<&[(&str, &str)]> = Some(&[("LDWRAP_JOBS", "1")]);
        for n in 0..20 {
            let mut child = start(s, 0, settings);
            std::thread::sleep(Duration::from_millis(7 * n));
            child.kill().expect("a child");
            wait(&mut child, 5);
        }
        let mut running = Running::default();
        let mut children = [start(s, 0, settings)];
        running.finish(s, &mut children, 1);
        s.assert_nothing_left("SIGKILL");
    });
}

/// One that is stopped, or whose lld is, does not keep others from their work.
#[test]
fn a_stopped_link() {
    each_llvm_with_shim(|s| {
        links(s, 2);
        let settings: Option<&[(&str, &str)]> = Some(&[("LDWRAP_JOBS", "1")]);
        for lld_alone in [false, true] {
            let mut running = Running::default();
            let stopped = start(s, 0, settings);
            running.reach(s, 1, 1);
            let pid = match lld_alone {
                false => stopped.id().to_string(),
                true => format!("$(pgrep -P {})", stopped.id()),
            };
            s.sh(&format!("kill -STOP {pid}"));
            let mut other = [start(s, 1, settings)];
            let until = Instant::now() + LONG;
            while matches!(other[0].try_wait(), Ok(None)) {
                assert!(Instant::now() < until, "LLVM {}: no end", s.llvm);
                running.find(s, 2);
                // The first one's stays as it is.
                for mut end in running.ends.drain(1..) {
                    let _ = end.write_all(b"x");
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            assert!(wait(&mut other[0], 1).success(), "LLVM {}", s.llvm);
            s.sh(&format!("kill -CONT {pid}"));
            running.finish(s, &mut [stopped], 1);
        }
    });
}
