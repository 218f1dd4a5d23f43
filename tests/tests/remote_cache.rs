//! Servers that have a cache and do not execute: buildbox-casd without its runner, proxies before it, and a
//! simulated one that nobody can write to.

use ldwrap_tests::remote::buildbox::Server;
use ldwrap_tests::remote::proxy::{Fault, Proxy, Rule, Settings};
use ldwrap_tests::remote::simulated::{self, Simulated};
use ldwrap_tests::remote::{Running, free_port};
use ldwrap_tests::sources::{checkout, link_of_checkout as link};
use ldwrap_tests::{LinkPair, Session, each_llvm_with_shim, fixtures_only, some_llvm};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tonic::Code;

/// Fills the server's cache at most so often: at the end of a link, uploads have 200 ms.
const FILLS: usize = 5;

/// Through a server; cores here wait for its answers.
fn link_with<'s>(s: &'s Session, url: &str, dir: &str) -> LinkPair<'s> {
    let env = [("LDWRAP_REMOTE", url), ("LDWRAP_REMOTE_LOCAL", "fallback")];
    let both = s.link_both_with(&env, &link(dir));
    both.splits().prints("8\n");
    assert_eq!(both.number("/remote/executed"), 0);
    both
}

/// How many objects the server had, and how many were made here.
fn counts(both: &LinkPair<'_>) -> (u64, u64) {
    (both.number("/remote/hits"), both.number("/remote/local"))
}

fn trouble<'l>(both: &'l LinkPair<'_>) -> &'l str {
    let trouble = both.report().pointer("/remote/trouble");
    trouble.and_then(Value::as_str).unwrap_or_default()
}

/// Has the tools of this LLVM tried, so that the links of a test have their time for what it is about.
fn try_tools(s: &Session) {
    let nobody = format!("grpc://127.0.0.1:{}", free_port());
    link_with(s, &nobody, "one");
}

/// Links until the server has all objects.
fn fill(s: &Session, url: &str) {
    for _ in 0..FILLS {
        if counts(&link_with(s, url, "one")) == (3, 0) {
            return;
        }
    }
    panic!("LLVM {}: the cache is not filled", s.llvm);
}

/// A cache that nobody can write to, with what a local cache of ldwrap has.
fn serve(cache: &Path) -> (Simulated, Running) {
    let server = Simulated::new(simulated::Settings {
        cache: cache.to_owned(),
        durations: [(0, Duration::ZERO)].into(),
        slots: 1,
        zstd: true,
        executes: false,
    });
    let serve = server.clone();
    (
        server,
        Running::start(move |listener| serve.serve(listener)),
    )
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).expect("a directory").flatten() {
        match entry.path() {
            path if path.is_dir() => found.extend(files(&path)),
            path => found.push(path),
        }
    }
    found
}

/// One link fills the cache, with objects and no inputs of backends, and the next, from another directory, gets
/// all objects from it.
#[test]
fn one_link_fills_it_and_the_next_compiles_nothing() {
    each_llvm_with_shim(|s| {
        let server = Server::start_cache();
        checkout(s, "one");
        checkout(s, "another/checkout");
        let first = link_with(s, &server.url(), "one");
        assert_eq!(counts(&first), (0, 3), "{}", first.report());
        assert_eq!(trouble(&first), "");
        assert_eq!(first.report()["cache"]["misses"], 3);
        if s.llvm >= 16 {
            assert_eq!(first.report()["compiled_by_lld"], 3);
        }
        assert!(first.number("/remote/bytes_up") > 0);
        assert_eq!(first.number("/remote/bytes_down"), 0);
        fill(s, &server.url());
        // Neither modules nor shards, and no compiler.
        let mut elf = 0;
        for file in files(server.dir()) {
            let content = std::fs::read(&file).expect("a blob");
            assert!(!content.starts_with(b"BC\xc0\xde"), "{file:?} is bitcode");
            assert!(content.len() < 1 << 20, "{file:?}");
            elf += usize::from(content.starts_with(b"\x7fELF"));
        }
        assert_eq!(elf, 3, "LLVM {}", s.llvm);
        let second = link_with(s, &server.url(), "another/checkout");
        assert_eq!(counts(&second), (3, 0), "{}", second.report());
        assert_eq!(second.report()["compiled_by_lld"], 0);
        assert_eq!(second.report()["cache"]["hits"], 3);
        assert_eq!(second.number("/remote/bytes_up"), 0);
        assert!(second.number("/remote/bytes_down") > 0);
        // One module edited: that one.
        s.write(
            "one/f1.c",
            "__attribute__((noinline)) int f1(int x) { return x + x / 4 - 1; }\n",
        );
        s.sh("cd one; clang-$N -c -O2 -flto=thin f1.c");
        let edited = link_with(s, &server.url(), "one");
        assert_eq!(counts(&edited), (2, 1), "{}", edited.report());
    });
}

/// Without waiting for it, and with the path of a clang that no worker has, since there is no worker.
#[test]
fn cores_here_do_not_wait_for_it() {
    let server = Server::start_cache();
    each_llvm_with_shim(|s| {
        checkout(s, "one");
        try_tools(s);
        let url = server.url();
        let env = [
            ("LDWRAP_REMOTE", url.as_str()),
            ("LDWRAP_REMOTE_CLANG", "/nonexistent/clang"),
        ];
        for _ in 0..2 {
            let both = s.link_both_with(&env, &link("one"));
            both.splits().prints("8\n");
            let (hits, local) = counts(&both);
            assert_eq!(hits + local, 3, "{}", both.report());
            assert_eq!(trouble(&both), "");
        }
    });
}

/// A cache that takes nothing gets nothing, and what it has is used.
#[test]
fn one_that_is_filled_by_others() {
    each_llvm_with_shim(|s| {
        checkout(s, "one");
        let cache = s.root().join("home/made");
        std::fs::create_dir_all(&cache).expect("a directory");
        let (empty, running) = serve(&cache);
        let both = link_with(s, &running.url(), "one");
        assert_eq!(counts(&both), (0, 3), "{}", both.report());
        assert_eq!(both.number("/remote/bytes_up"), 0);
        assert_eq!((empty.forget().up, trouble(&both)), (0, ""));
        // With nobody there, all is made here, under the keys that the server is asked for.
        let nobody = format!("grpc://127.0.0.1:{}", free_port());
        let cache_dir = cache.display().to_string();
        let env = [
            ("LDWRAP_REMOTE", nobody.as_str()),
            ("LDWRAP_REMOTE_LOCAL", "fallback"),
            ("LDWRAP_CACHE_DIR", &cache_dir),
            ("LDWRAP_CACHE_SIZE", "100M"),
        ];
        s.link_both_with(&env, &link("one")).splits();
        let (full, running) = serve(&cache);
        let both = link_with(s, &running.url(), "one");
        assert_eq!(counts(&both), (3, 0), "{}", both.report());
        assert_eq!(both.report()["compiled_by_lld"], 0);
        let seen = full.forget();
        assert_eq!((seen.up, seen.executed), (0, 0));
    });
}

/// One that says that it takes results, and then does not (bazel-remote with `--allow_unauthenticated_reads`).
#[test]
fn one_that_refuses_results() {
    each_llvm_with_shim(|s| {
        checkout(s, "one");
        for (method, code) in [
            ("UpdateActionResult", Code::PermissionDenied),
            ("BatchUpdateBlobs", Code::Unauthenticated),
        ] {
            let server = Server::start_cache();
            let rule = Rule {
                method,
                fault: Fault::Error(code),
                times: usize::MAX,
            };
            let proxy = Proxy::start(
                server.port(),
                Settings {
                    rules: vec![rule],
                    ..Settings::default()
                },
            );
            for _ in 0..2 {
                let both = link_with(s, &proxy.url(), "one");
                assert_eq!(counts(&both), (0, 3), "{}", both.report());
                assert_eq!(trouble(&both), "");
            }
            assert!(proxy.met() > 0, "{method} was not called");
        }
    });
}

/// Objects that the server has lost or damaged, and results that are wrong, are made here.
#[test]
fn results_that_are_of_no_use() {
    each_llvm_with_shim(|s| {
        let server = Server::start_cache();
        checkout(s, "one");
        fill(s, &server.url());
        // What may pass is tried again.
        for (method, fault, times) in [
            ("BatchReadBlobs", Fault::Error(Code::NotFound), 1),
            ("BatchReadBlobs", Fault::Corrupts, usize::MAX),
            ("GetActionResult", Fault::WrongDigest, 1),
            ("GetActionResult", Fault::NoObject, 1),
            ("GetActionResult", Fault::Fails, 1),
            ("GetActionResult", Fault::Error(Code::NotFound), 1),
            ("GetActionResult", Fault::Garbage, usize::MAX),
        ] {
            let rule = Rule {
                method,
                fault,
                times,
            };
            let settings = Settings {
                rules: vec![rule],
                ..Settings::default()
            };
            let proxy = Proxy::start(server.port(), settings);
            let both = link_with(s, &proxy.url(), "one");
            let local = times.min(3) as u64;
            let wanted = (3 - local, local);
            assert_eq!(
                counts(&both),
                wanted,
                "{method} {fault:?}: {}",
                both.report()
            );
            assert!(proxy.met() > 0, "{method} {fault:?}");
            assert_eq!(proxy.calls("Execute"), 0);
        }
    });
}

/// Lookups that fail or hang: the link takes no longer than with any other server.
#[test]
fn lookups_that_fail() {
    let server = Server::start_cache();
    each_llvm_with_shim(|s| {
        checkout(s, "one");
        try_tools(s);
        for (fault, why) in [
            (Fault::Error(Code::PermissionDenied), "PermissionDenied"),
            (Fault::Hang, ""),
        ] {
            let rule = Rule {
                method: "GetActionResult",
                fault,
                times: usize::MAX,
            };
            let settings = Settings {
                rules: vec![rule],
                ..Settings::default()
            };
            let proxy = Proxy::start(server.port(), settings);
            let env = [("LDWRAP_REMOTE", proxy.url())];
            let env = env.each_ref().map(|(name, value)| (*name, value.as_str()));
            let begin = Instant::now();
            let both = s.link_both_with(&env, &link("one"));
            // Two seconds for the server, and more than enough for all else.
            assert!(begin.elapsed() < Duration::from_secs(6), "{fault:?}");
            both.splits().prints("8\n");
            assert_eq!(both.number("/remote/local"), 3, "{}", both.report());
            assert!(trouble(&both).contains(why), "{}", both.report());
        }
    });
}

/// What `ldwrap doctor` says of one: no problem but where lookups are refused.
#[test]
fn the_doctor_says_what_it_is() {
    some_llvm(
        |n| n == 22,
        |s| {
            if fixtures_only() {
                return;
            }
            s.sh("mkdir bin; ln -s /usr/lib/llvm-$N/bin/clang bin/clang");
            let cache = Server::start_cache();
            let rule = Rule {
                method: "GetActionResult",
                fault: Fault::Error(Code::PermissionDenied),
                times: usize::MAX,
            };
            let settings = Settings {
                rules: vec![rule],
                ..Settings::default()
            };
            let secret = Proxy::start(cache.port(), settings);
            let (_, read_only) = serve(Path::new("/nonexistent"));
            for (url, clang, success, wanted) in [
                (
                    cache.url(),
                    "/nonexistent/clang",
                    true,
                    &[
                        "takes results that are made here",
                        "ok   server: a cache; it does not execute: backends run here; a lookup took ",
                        "note server: objects made here are written to it, if our credentials may; who else can",
                    ] as &[&str],
                ),
                (
                    read_only.url(),
                    "",
                    true,
                    &[
                        "takes no results that are made here",
                        "ok   server: a cache; it does not execute",
                        "note server: objects made here are not written to it; who can write to it",
                    ],
                ),
                (
                    secret.url(),
                    "",
                    false,
                    &[
                        "BAD  server: it does not look results up: PermissionDenied",
                        "     -> export LDWRAP_REMOTE_HEADERS=FILE",
                    ],
                ),
            ] {
                let mut c = s.bash("PATH=$PWD/bin \"$LDWRAP\" doctor");
                s.use_shim_by_default(&mut c);
                c.env("LDWRAP_CACHE_DIR", s.root().join("home/cache"))
                    .env("LDWRAP_REMOTE", &url);
                if !clang.is_empty() {
                    c.env("LDWRAP_REMOTE_CLANG", clang);
                }
                let out = c.output().expect("bash");
                let said = String::from_utf8_lossy(&out.stdout);
                assert_eq!(out.status.success(), success, "{said}");
                for text in wanted {
                    assert!(said.contains(text), "no '{text}':\n{said}");
                }
            }
        },
    );
}
