//! Limits of the user's, of control groups and of the machine: a link goes on as far as lld alone would.

use crate::local_faults::{LIBRARY, NO_STACK_DUMP, as_nobody, is_root, link, link_in, sources};
use ldwrap_tests::{LENIENT, each_llvm, each_llvm_with_shim, llvm_22_with_shim, newest_llvm};

#[test]
fn few_descriptors() {
    each_llvm(|s| {
        for n in 0..30 {
            s.write(
                &format!("m{n}.c"),
                format!("int m{n}(int x) {{ return x + {n}; }}\n"),
            );
        }
        s.compile("clang-$N -c -O1 -fPIC -flto=thin m*.c");
        for limit in [6, 10, 12, 16, 20, 32] {
            s.sh("rm -rf ../cache");
            for _ in 0..2 {
                link(s, &format!("ulimit -n {limit}; exec {LIBRARY}")).same();
            }
        }
        // A limit that may be raised is: what waits for a server that never comes is some of what lld has made.
        let server = [("LDWRAP_REMOTE", "grpc://127.0.0.1:9"), LENIENT];
        let both = s.link_both_with(&server, &format!("ulimit -Sn 24; exec {LIBRARY}"));
        both.same().splits_but(30);
    });
}

/// Where a watched lld cannot be started, lld is alone. What it says when it crashes has addresses in it.
/// (Of two processes lld needs both: there it fails, which nobody can foresee.)
#[test]
fn few_processes() {
    each_llvm_with_shim(|s| {
        if !is_root(s) {
            return;
        }
        sources(s);
        s.sh("chmod 755 ..; chmod 777 . ../tmp; touch ../report.json; chmod 666 ../report.json");
        let cache = s.root().join("tmp/cache").display().to_string();
        // clang's engine has threads and processes of its own.
        for (limit, engine) in [1, 3, 4, 8]
            .map(|n| (n, "local"))
            .into_iter()
            .chain([1, 3, 4, 5, 8, 12, 20].map(|n| (n, "clang")))
        {
            let command = format!(
                "ulimit -c 0 -u {limit}; export LDWRAP_EXECUTOR={engine} LDWRAP_STRICT=0; {NO_STACK_DUMP} exec {LIBRARY} --threads=1"
            );
            let command = format!(
                "set +e; {{ {}; }} 2>/dev/null; r=$?; rm -rf $TMPDIR/cache; exit $r",
                as_nobody(&command)
            );
            link_in(s, &cache, &command).same();
        }
    });
}

/// A control group that allows few threads: no more of them are made than lld alone would make.
#[test]
fn a_group_of_few_threads() {
    llvm_22_with_shim(|s| {
        // Version 1, or 2 where its root hands the controller down.
        let groups = ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"];
        let probe = |g: &&&str| {
            s.sh(&format!("g={g}/ldwrap-test-$$; r=no; mkdir $g 2>/dev/null && {{ [ -w $g/pids.max ] && r=yes; rmdir $g; }}; echo $r")) == "yes\n"
        };
        let Some(group) = groups.iter().find(probe) else {
            return;
        };
        for n in 0..61 {
            let text = format!("int m{n}(int x) {{ return x + {n}; }}\n");
            s.write(&format!("m{n}.c"), text);
        }
        s.compile("clang-$N -c -O1 -fPIC -flto=thin m*.c");
        let distributor = s.script("../sleeping", "#!/bin/sh\nsleep 2\nexit 1\n");
        let distributor = distributor.display().to_string();
        let command = format!(
            "ulimit -c 0; g={group}/ldwrap-test-$$; mkdir $g; echo 40 >$g/pids.max; \
             (echo $BASHPID >$g/cgroup.procs; exec {LIBRARY}) && r=$? || r=$?; \
             until rmdir $g; do sleep 0.1; done 2>/dev/null; exit $r"
        );
        let place = [
            ("LDWRAP_EXECUTOR", "distributor"),
            ("LDWRAP_DISTRIBUTOR", &*distributor),
            LENIENT,
        ];
        let both = s.link_both_with(&place, &command);
        both.left_to_lld("more processes and threads are allowed");
        both.succeeds().same();
    });
}

#[test]
fn little_memory_and_little_room() {
    newest_llvm(|s| {
        sources(s);
        for limit in ["-f 0", "-v 200000", "-v 400000", "-s 64", "-l 0"] {
            for _ in 0..2 {
                link(
                    s,
                    &format!("ulimit -c 0 {limit}; {NO_STACK_DUMP} exec {LIBRARY} --threads=1 2>/dev/null"),
                )
                .same();
            }
        }
    });
}
