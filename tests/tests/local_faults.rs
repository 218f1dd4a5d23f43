//! The local engine when something is wrong: links that fail, a cache that is damaged or cannot be
//! written, limits, calls that fail. The link is lld's all the same, and nothing is left.

use ldwrap_tests::{LinkPair, Session, each_llvm, each_llvm_with_shim, fixtures_only, newest_llvm};
use shim::user_dir::user_dir;

const MODULES: u64 = 5;
const LINK: &str = "clang-$N -O2 -flto=thin -fuse-ld=lld -o $OUT *.o";
/// Without a driver: the limits and faults are for the linker.
pub(crate) const LIBRARY: &str = "$LD -shared -o $OUT *.o -Map=map";

pub(crate) fn sources(s: &Session) {
    s.write(
        "main.c",
        "int f1(int), f2(int), f3(int), f4(int), printf(const char *, ...);\n\
         int main(int argc, char **argv) { return printf(\"%d\\n\", f1(argc) + f2(1) + f3(1) + f4(1)) < 0; }\n",
    );
    for n in 1..MODULES {
        let text = format!("__attribute__((noinline)) int f{n}(int x) {{ return x + {n}; }}\n");
        s.write(&format!("f{n}.c"), text);
    }
    s.compile("clang-$N -c -O2 -fPIC -flto=thin *.c");
}

fn cache(s: &Session) -> String {
    s.root().join("cache").display().to_string()
}

pub(crate) fn link<'s>(s: &'s Session, command: &str) -> LinkPair<'s> {
    link_in(s, &cache(s), command)
}

/// Links both ways, with a cache in `dir`.
pub(crate) fn link_in<'s>(s: &'s Session, dir: &str, command: &str) -> LinkPair<'s> {
    s.link_both_cached(&[("LDWRAP_CACHE_DIR", dir)], command)
}

/// How many modules were hits.
fn hits(both: &LinkPair<'_>) -> u64 {
    if fixtures_only() {
        return MODULES;
    }
    let hits = &both.report()["cache"]["hits"];
    hits.as_u64()
        .unwrap_or_else(|| panic!("no hits in {}", both.report()))
}

#[test]
fn links_that_fail() {
    each_llvm(|s| {
        sources(s);
        s.sh("mkdir o; cp f3.o o/twice.o; mv f4.o o");
        s.write("script.ld", "SECTIONS { nonsense nonsense }");
        for (more, message) in [
            ("", "undefined symbol: f4"),
            ("o/f4.o o/twice.o", "duplicate symbol: f3"),
            ("o/f4.o missing.o", "missing.o"),
            ("-lmissing", "missing"),
            ("o/f4.o script.ld", "script.ld"),
            ("o/f4.o -Wl,--no-such-option", "--no-such-option"),
            ("o/f4.o -Wl,-Map=/nowhere/map", "/nowhere/map"),
            ("o/f4.o -Wl,-u,f5,--require-defined=f5", "f5"),
            ("o/f4.o -Wl,--lto-O9", "9"),
            ("o/f4.o -Wl,--defsym=x=unknown_symbol", "unknown_symbol"),
        ] {
            for _ in 0..2 {
                link(s, &format!("{LINK} {more}")).fails(message);
            }
        }
        link(s, &format!("OUT=/nowhere/out; {LINK} o/f4.o")).fails("/nowhere/out");
        // An error that may be ignored is shown, with the names of objects that lld has made.
        for option in [
            "--warn-unresolved-symbols",
            "--noinhibit-exec",
            "--unresolved-symbols=report-all",
        ] {
            for _ in 0..2 {
                link(s, &format!("{LINK} -Wl,{option}")).said("f4").same();
            }
        }
    });
}

#[test]
fn a_damaged_cache_is_no_harm() {
    newest_llvm(|s| {
        sources(s);
        link(s, LINK).splits();
        for damage in [
            "truncate -s 100 o/*",
            "truncate -s +100 o/*",
            "for f in o/*; do printf x | dd of=$f bs=1 seek=200 conv=notrunc status=none; done",
            "for f in o/*; do : >$f; done",
            "rm o/*",
            "rm -r o",
            "for f in o/*; do rm $f; mkdir $f; done",
            "for f in o/*; do rm $f; ln -s /dev/zero $f; done",
            "for k in k/*; do ln -sfn nonsense $k; done",
            "for k in k/*; do ln -sfn /dev/zero $k; done",
            "for k in k/*; do rm $k; echo >$k; done",
            "for k in k/*; do rm $k; mkdir $k; done",
            "rm -r k; : >k",
        ] {
            s.sh(&format!(
                "cd ../cache/objects; chmod -R u+w .; find . -type f -exec chmod u+w {{}} +; {damage}"
            ));
            let both = link(s, LINK);
            both.splits().prints("14\n");
            assert_eq!(hits(&both), 0, "LLVM {}: {damage}", s.llvm);
            let again = link(s, LINK);
            again.splits();
            let replaced = hits(&again) == MODULES;
            // What is in the way of an entry may stay there.
            let in_the_way = ["mkdir", "zero", "echo", ">k"];
            let in_the_way = in_the_way.iter().any(|word| damage.contains(word));
            assert!(
                replaced || in_the_way,
                "LLVM {}: not replaced after {damage}",
                s.llvm
            );
            if !replaced {
                s.sh("rm -rf ../cache/objects");
                link(s, LINK).splits();
            }
        }
    });
}

/// Nobody writes to it: a link that reads it stands still, and keeps signals for lld.
#[test]
fn a_pipe_in_the_cache() {
    newest_llvm(|s| {
        sources(s);
        link(s, LINK).splits();
        s.sh("cd ../cache/objects; for f in o/*; do rm -f $f; mkfifo $f; done");
        link(s, &format!("timeout -s KILL 10 {LINK}"))
            .same()
            .prints("14\n");
    });
}

#[test]
fn a_cache_that_cannot_be_written() {
    each_llvm(|s| {
        sources(s);
        s.write("file", "no directory");
        let below_a_file = s.dir().join("file/cache").display().to_string();
        for dir in [
            &below_a_file,
            "/dev/null",
            "/proc/self/nothing",
            "/sys/nothing",
            "relative/cache",
        ] {
            for _ in 0..2 {
                link_in(s, dir, &format!("{LINK}; rm -rf relative"))
                    .same()
                    .prints("14\n");
            }
        }
    });
}

/// Without a directory of the user's, too, a clang is tried out once.
#[test]
fn no_cache_directory() {
    newest_llvm(|s| {
        if fixtures_only() {
            return;
        }
        sources(s);
        let log = s.root().join("log");
        let text = format!(
            "#!/bin/bash\necho \"$@\" >>{}\nexec /usr/bin/clang-$N \"$@\"\n",
            log.display()
        );
        let clang = s.clang("../logging", &text);
        let clang = clang.display().to_string();
        let env = [("LDWRAP_CLANG", clang.as_str())];
        let command = format!("unset HOME XDG_CACHE_HOME LDWRAP_CACHE_DIR; {LIBRARY}");
        let backends = [(), ()].map(|()| {
            s.link_both_with(&env, &command).splits();
            let count = s.sh("grep -c -e -fthinlto-index= ../log; rm ../log");
            count.trim().parse::<u64>().expect("a number")
        });
        let records = user_dir().expect("a directory").join("toolchains");
        s.sh(&format!(
            "grep -l $(printf %s \"${{PWD%/*}}\" | od -An -v -tx1 | tr -d ' \\n') {}/* | xargs rm",
            records.display()
        ));
        assert!(backends[0] > MODULES, "{backends:?}: nothing is tried out");
        assert_eq!(backends[1], MODULES);
    });
}

/// A file system that is full: needs a mount, which not every machine allows.
#[test]
fn a_cache_that_is_full() {
    each_llvm(|s| {
        sources(s);
        let may = s.sh("mkdir ../full; mount -t tmpfs -o size=16k none ../full 2>/dev/null && echo yes || true");
        if may.is_empty() {
            eprintln!("no mount here");
            return;
        }
        let full = s.root().join("full").display().to_string();
        let both = [(), ()].map(|()| link_in(s, &full, LINK));
        s.sh("umount ../full");
        for both in both {
            both.same();
        }
    });
}

/// A user who may read a cache of another has its objects.
#[test]
fn a_cache_of_another_user() {
    each_llvm_with_shim(|s| {
        if !is_root(s) {
            return;
        }
        sources(s);
        s.sh("chmod 755 ..; chmod 777 . ../tmp");
        let command = as_nobody(LIBRARY);
        link(s, LIBRARY).splits();
        s.sh("chmod -R a+rX ../cache; touch ../report.json; chmod 666 ../report.json");
        link(s, &command).same();
        s.sh("find ../cache -type d -exec chmod 700 {} +");
        link(s, &command).same();
    });
}

/// Whether another user can be taken on.
pub(crate) fn is_root(s: &Session) -> bool {
    s.sh("id -u") == "0\n"
}

/// Pipes and standard input, which have nothing for a second reader.
#[test]
fn what_can_be_read_once() {
    each_llvm(|s| {
        sources(s);
        s.write("order", "f4\nf3\nmain\n");
        s.sh("mkdir o; cp f2.o f4.o o");
        for inputs in [
            "main.o f?.o --version-script=<(echo '{ global: f2; f3; local: *; };')",
            "main.o f?.o --dynamic-list=<(echo '{ f2; };')",
            "main.o f?.o --symbol-ordering-file=<(cat order)",
            "main.o f?.o --symbol-ordering-file=/dev/stdin <order",
            "main.o f?.o --symbol-ordering-file=/proc/self/fd/0 <order",
            "main.o f?.o -T <(echo 'SECTIONS { .text : { *(.text*) } }')",
            "main.o f1.o f3.o <(cat o/f2.o) o/f4.o",
            "main.o f1.o f3.o o/f2.o /dev/stdin <o/f4.o",
            "main.o @<(echo f1.o f2.o f3.o f4.o)",
        ] {
            for _ in 0..2 {
                let command = format!("timeout 20 $LD -shared -o $OUT {inputs}");
                link(s, &command).succeeds().same();
            }
        }
        for _ in 0..2 {
            let fifo = "mkfifo fifo; cat o/f4.o >fifo & timeout 20 $LD -shared -o $OUT main.o f1.o f2.o f3.o fifo; rm fifo";
            link(s, fifo).succeeds().same();
        }
        link(s, LINK).splits().prints("14\n");
    });
}

/// Objects of a link with a pipe among its inputs could be of anything.
#[test]
fn standard_input_is_not_taken_for_another() {
    each_llvm(|s| {
        sources(s);
        s.write("profile", "f2:9:9\n 1: 9\n");
        for order in ["main f2", "f3 main", "f4 f1"] {
            let command =
                format!("{LINK} -Wl,--lto-basic-block-sections=<(printf '!%s\\n!!0\\n' {order})");
            link(s, &command).same().prints("14\n");
        }
    });
}

/// A module that is written to while lld compiles is what it was, or what it has become: an object of the
/// one under the key of the other would be for ever.
#[test]
fn inputs_that_change_meanwhile() {
    each_llvm(|s| {
        sources(s);
        // It comes first and takes a while, and there is one thread.
        let mut slow = String::from("int puts(const char *);\n");
        for n in 0..700 {
            slow += &format!(
                "int slow{n}(int *a, int b) {{ for (int i = 0; i < b; i++) if (a[i] == {n}) a[i] += a[b - i]; else a[i] ^= {n}; return a[b]; }}\n"
            );
        }
        s.write("a.c", slow);
        s.sh("clang-$N -c -O1 -flto=thin a.c; cp f3.c f3.old; cp f3.o old; sed -i 's/+ 3/+ 9/' f3.c; clang-$N -c -O2 -flto=thin f3.c; mv f3.o new; cp old f3.o");
        let change = "dd if=new of=f3.o conv=notrunc status=none";
        let restore = "dd if=old of=f3.o conv=notrunc status=none; touch -r old f3.o";
        for (change, restore) in [
            (change, "true"),
            (change, restore),
            ("cp new n; mv n f3.o", "true"),
            ("cp new n; cp -p f3.o o; mv n f3.o", "mv o f3.o"),
        ] {
            for wait in ["0.05", "0.2"] {
                let mut c = s.bash(&format!(
                    "touch -d 2020-01-01 old f3.o; {{ sleep {wait}; {change}; sleep 0.1; {restore}; }} & {LINK} -Wl,--threads=1 || true; wait"
                ));
                s.use_shim(&mut c);
                c.env("LDWRAP_EXECUTOR", "local")
                    .env("LDWRAP_CACHE_SIZE", "1G");
                let c = c.env("LDWRAP_CACHE_DIR", s.root().join("cache")).output();
                assert!(
                    c.is_ok_and(|o| o.status.success()),
                    "LLVM {}: {change}",
                    s.llvm
                );
                for module in ["old", "new", "old"] {
                    s.sh(&format!("rm -f f3.o; cp {module} f3.o"));
                    link(s, LINK).splits();
                }
                s.sh("rm -rf ../cache/objects");
            }
        }
    });
}

/// In a PID namespace without a `/proc` of its own, that tells of other processes.
#[test]
fn another_pid_namespace() {
    each_llvm(|s| {
        sources(s);
        let unshare = "unshare $([ $(id -u) = 0 ] || echo -Ur) -pf";
        let both = link(s, &format!("{unshare} {LIBRARY}"));
        both.left_to_lld("/proc is that of another PID namespace");
        both.succeeds().same();
        let both = link(s, &format!("{unshare} --mount-proc {LIBRARY}"));
        both.succeeds().same();
        both.splits_cached(0, MODULES);
    });
}

/// What may be run but not read cannot be looked into either.
#[test]
fn an_lld_that_may_not_be_read() {
    each_llvm_with_shim(|s| {
        if !is_root(s) {
            return;
        }
        sources(s);
        s.sh("chmod 755 ..; chmod 777 . ../tmp; cp $LDLLD ../ld.lld; chmod 711 ../ld.lld");
        let real = s.root().join("ld.lld").display().to_string();
        let command = format!(
            "[[ $LD != *wrap/* ]] || export LDWRAP_REAL_LLD={real}; {NO_STACK_DUMP} {LIBRARY}"
        );
        let cache = s.root().join("tmp/cache").display().to_string();
        let command = format!(
            "{} && r=$? || r=$?; rm -rf $TMPDIR/cache; exit $r",
            as_nobody(&command)
        );
        link_in(s, &cache, &command).succeeds().same();
    });
}

pub(crate) fn as_nobody(command: &str) -> String {
    format!("setpriv --reuid=65534 --regid=65534 --clear-groups bash -c '{command}'")
}

/// A crash of lld's is to leave nothing of its symbolizer's.
pub(crate) const NO_STACK_DUMP: &str = "LLVM_DISABLE_SYMBOLIZATION=1";

/// lld alone writes objects to no file: one may be larger than a file may be.
#[test]
fn a_large_object_of_a_small_output() {
    each_llvm(|s| {
        sources(s);
        s.write("f4.c", "__attribute__((used)) static char big[300000] = {1}; int f4(int n) { return n + 4; }\n");
        s.compile("clang-$N -c -O2 -fPIC -flto=thin f4.c");
        for _ in 0..2 {
            let command =
                format!("ulimit -c 0 -f 40; {NO_STACK_DUMP} exec {LIBRARY} --gc-sections");
            link(s, &command).succeeds().same();
        }
    });
}

/// The calls by which lld is watched fail, once or from then on.
#[test]
fn calls_that_fail() {
    newest_llvm(|s| {
        sources(s);
        for error in ["EINVAL", "ENOMEM"] {
            for from in (1..40).step_by(3) {
                for when in [from.to_string(), format!("{from}+")] {
                    // strace follows nobody: it is ldwrap's own calls that fail.
                    let faults = format!(
                        "strace -o /dev/null -e trace=ioctl -e inject=ioctl:error={error}:when={when}"
                    );
                    let command = format!(
                        "run=; [[ $LD != *wrap/* ]] || run='timeout 5 {faults}'; {NO_STACK_DUMP} $run {LIBRARY} --cref --trace"
                    );
                    link(s, &command).succeeds().same();
                }
            }
        }
    });
}

#[test]
fn other_calls_that_fail() {
    newest_llvm(|s| {
        sources(s);
        for call in [
            "poll",
            "memfd_create",
            "pidfd_open",
            "process_vm_readv",
            "symlink",
            "linkat,link,rename",
            "signalfd4",
            "socketpair",
            "recvmsg",
            "statfs",
            "readlink",
            "fcntl",
            "mkdir",
            "openat",
        ] {
            for when in ["1", "1+", "5+", "30+"] {
                if call == "openat" && !when.contains("30") {
                    // The loader's own.
                    continue;
                }
                let faults = format!(
                    "strace -o /dev/null -e trace={call} -e inject={call}:error=EPERM:when={when}"
                );
                let command = format!(
                    "run=; [[ $LD != *wrap/* ]] || run='timeout 5 {faults}'; {NO_STACK_DUMP} $run {LIBRARY} --cref"
                );
                link(s, &command).succeeds().same();
            }
        }
    });
}

/// Kernels without filters that report calls (before 5.0), and those whose filters cannot be answered with
/// a file (before 5.9): lld alone, from the start.
#[test]
fn old_kernels() {
    newest_llvm(|s| {
        sources(s);
        let reason = |call: &str, error: &str| {
            // The filter is set by lld's process before it becomes lld.
            let old =
                format!("strace -f -o /dev/null -e trace={call} -e inject={call}:error={error}");
            let command =
                format!("run=; [[ $LD != *wrap/* ]] || run='{old}'; $run {LIBRARY} --trace");
            let both = link(s, &command);
            both.left_to_lld("the kernel refuses a seccomp filter");
            both.report()["reason"].to_string()
        };
        reason("seccomp", "EINVAL");
        reason("seccomp", "ENOSYS");
        let reason = reason("ioctl", "EINVAL");
        assert!(reason.contains("5.9"), "{reason}");
    });
}

/// No jobs are made of a link with such an input, by whatever name: the index run would read it before lld, or read
/// something else.
#[test]
fn no_jobs_of_what_can_be_read_once() {
    each_llvm(|s| {
        sources(s);
        s.write("order", "f4\nf3\nmain\n");
        s.write("map", "{ global: f2; f3; local: *; };\n");
        s.write("in.ld", "INPUT(/dev/stdin)\n");
        s.write("args", "main.o f1.o @more");
        s.write("more", "f2.o @/dev/stdin");
        s.write("rest", "f3.o f4.o");
        s.sh("mkdir o; cp f2.o f4.o o; ln -s /proc/self/fd/0 vs; ln -s /proc/self/fd o/fds; ln -s ../vs o/link");
        for inputs in [
            "main.o f?.o --version-script=<(cat map)",
            "main.o f?.o --symbol-ordering-file=<(cat order)",
            "main.o f?.o --symbol-ordering-file=/dev/stdin <order",
            "main.o f1.o f3.o o/f2.o /dev/stdin <o/f4.o",
            "main.o f?.o --version-script=vs <map",
            "main.o f?.o --version-script=o/link <map",
            "main.o f?.o --version-script=o/fds/0 <map",
            "main.o f1.o f2.o f3.o $PWD/o/../o/fds/5 5<o/f4.o",
            "main.o f1.o f2.o f3.o in.ld <o/f4.o",
            "@args <rest",
        ] {
            let command = format!("timeout 20 $LD -shared -o $OUT {inputs}");
            let both = s.link_both(&command);
            both.succeeds().left_to_lld("read only once");
        }
        s.sh("ln -s map plain; ln -s o dir");
        let link = "$LD -shared -o $OUT main.o f1.o f2.o f3.o dir/f4.o --version-script=plain";
        s.link_both(link).splits();
    });
}

/// lld runs the script that is to handle its errors once, and with each link that it fails.
#[test]
fn an_error_handling_script() {
    each_llvm(|s| {
        sources(s);
        s.script("../handler", "#!/bin/sh\necho \"$@\" >>log\necho handled\n");
        let command = "$LD -o $OUT main.o -L. -lmissing --error-handling-script=$PWD/../handler";
        for executor in ["local", "clang"] {
            for missing in ["", "f1.o f2.o f3.o f4.o"] {
                let command = format!("{command} {missing}");
                let both = s.link_both_with(&[("LDWRAP_EXECUTOR", executor)], &command);
                both.fails("unable to find library -lmissing")
                    .said("handled")
                    .wrote("log", "missing-lib missing");
            }
            let command = "$LD -e main -o $OUT main.o --error-handling-script=$PWD/../handler";
            let both = s.link_both_with(&[("LDWRAP_EXECUTOR", executor)], command);
            both.fails("undefined symbol")
                .said("handled")
                .wrote("log", "undefined-symbol");
        }
    });
}
