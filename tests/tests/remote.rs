//! Backends on a real Remote Execution server (buildbox-casd, which `scripts/setup --tests` fetches), and
//! the local cache.

use std::net::TcpListener;
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use ldwrap_tests::remote::buildbox::{SYSTEM, Server};
use ldwrap_tests::remote::proxy::{Fault, Proxy, Rule, Settings};
use ldwrap_tests::remote::simulated::{self, Simulated};
use ldwrap_tests::remote::{Running, free_port};
use ldwrap_tests::sources::{checkout, link_of_checkout as link};
use ldwrap_tests::{
    LENIENT, Session, each_llvm_with_shim, newest_llvm, oldest_and_newest_with_shim, some_llvm,
};
use serde_json::Value;

/// A server's URL, and the path of its workers' own clang.
fn places(server: &Server, s: &Session) -> (String, String) {
    (server.url(), format!("/usr/bin/clang-{}", s.llvm))
}

/// What runs there is hit from another checkout, with an empty local cache, and nothing is sent.
#[test]
fn a_server_compiles_and_remembers() {
    let server = Server::start(SYSTEM);
    each_llvm_with_shim(|s| {
        checkout(s, "one");
        checkout(s, "another/checkout");
        let (url, clang) = places(&server, s);
        let env = [
            ("LDWRAP_REMOTE", url.as_str()),
            ("LDWRAP_REMOTE_CLANG", &clang),
            ("LDWRAP_REMOTE_LOCAL", "fallback"),
        ];
        let first = s.link_both_with(&env, &link("one"));
        first.splits().prints("8\n");
        assert_eq!(first.report()["executor"], "remote");
        assert_eq!(first.number("/remote/executed"), 3);
        assert_eq!(first.number("/cache/misses"), 3);
        let again = s.link_both_with(&env, &link("another/checkout"));
        again.splits().prints("8\n");
        assert_eq!(again.number("/remote/hits"), 3);
        assert_eq!(again.number("/cache/hits"), 3);
        assert_eq!(again.number("/remote/bytes_up"), 0);
        // One module edited: that one.
        s.write(
            "one/f1.c",
            "__attribute__((noinline)) int f1(int x) { return x * 3; }\n",
        );
        s.sh("cd one; clang-$N -c -O2 -flto=thin f1.c");
        let edited = s.link_both_with(&env, &link("one"));
        edited.splits().prints("16\n");
        assert_eq!(edited.number("/remote/executed"), 1);
    });
}

/// LLVM 19 and 22, for tests that send the compiler along.
fn where_clang_is_sent(test: impl Fn(&Session)) {
    some_llvm(
        |n| n == 19 || n == 22,
        |s| {
            if !ldwrap_tests::fixtures_only() {
                test(s);
            }
        },
    );
}

/// The compiler goes along, to a worker that has none: its sandbox is empty.
#[test]
fn an_empty_worker_suffices() {
    let server = Server::start(&[]);
    where_clang_is_sent(|s| {
        checkout(s, "one");
        let env = [
            ("LDWRAP_REMOTE", server.url()),
            ("LDWRAP_REMOTE_LOCAL", "fallback".into()),
        ];
        let env = env.each_ref().map(|(name, value)| (*name, value.as_str()));
        let both = s.link_both_with(&env, &link("one"));
        both.splits().prints("8\n");
        assert_eq!(both.number("/remote/executed"), 3);
    });
}

/// This machine's cores take part, and what they make is a hit for the next.
#[test]
fn both_at_once() {
    let server = Server::start(SYSTEM);
    each_llvm_with_shim(|s| {
        checkout(s, "one");
        let (url, clang) = places(&server, s);
        let env = [
            ("LDWRAP_REMOTE", url.as_str()),
            ("LDWRAP_REMOTE_CLANG", &clang),
        ];
        let both = s.link_both_with(&env, &link("one"));
        both.splits().prints("8\n");
        let made = both.number("/remote/executed") + both.number("/remote/local");
        assert_eq!(made, 3);
        let again = s.link_both_with(&env, &link("one"));
        again.splits();
        assert_eq!(again.number("/remote/hits"), 3);
    });
}

/// Blobs go and come compressed where the server says that it takes them so: small ones in batches, large
/// ones, such as the compiler, in streams. This server only pretends to compile.
#[test]
fn compressed_blobs() {
    where_clang_is_sent(|s| {
        checkout(s, "one");
        // A module and an object that are more than goes in a batch.
        s.write(
            "one/large.c",
            "const char large[] = {\n#embed \"data\"\n};\n",
        );
        s.sh("cd one; seq 300000 >data; clang-$N -std=c23 -c -O2 -flto=thin large.c");
        let command = link("one").replace("-O2", "-O2 -Wl,--export-dynamic");
        let cache = s.root().join("home/made").display().to_string();
        // With nobody there, all is made here, under the keys that the server is asked for.
        let nobody = format!("grpc://127.0.0.1:{}", free_port());
        let env = [
            ("LDWRAP_REMOTE", nobody.as_str()),
            ("LDWRAP_REMOTE_LOCAL", "fallback"),
            ("LDWRAP_CACHE_DIR", &cache),
            ("LDWRAP_CACHE_SIZE", "100M"),
        ];
        s.link_both_with(&env, &command);
        let server = Simulated::new(simulated::Settings {
            cache: cache.into(),
            durations: [(0, Duration::ZERO)].into(),
            slots: 4,
            zstd: true,
            executes: true,
        });
        let serve = server.clone();
        let running = Running::start(move |listener| serve.serve(listener));
        let url = running.url();
        let env = [
            ("LDWRAP_REMOTE", url.as_str()),
            ("LDWRAP_REMOTE_LOCAL", "fallback"),
        ];
        let both = s.link_both_with(&env, &command);
        both.splits().prints("8\n");
        assert_eq!(both.number("/remote/executed"), 4);
        let seen = server.forget();
        // The compiler, which is much; modules and shards; objects.
        assert!(seen.packed > 8, "{seen:?}");
        assert_eq!(both.number("/remote/bytes_up"), seen.up);
        assert_eq!(both.number("/remote/bytes_down"), seen.down);
        // The large object is of 2 MB.
        assert!((1..1 << 20).contains(&seen.down), "{seen:?}");
    });
}

/// A link that is lld's, and whose report says what was wrong with the server.
fn in_spite_of(s: &Session, env: &[(&str, &str)], why: &str) {
    for local in ["fallback", "always"] {
        in_spite_of_it(s, env, local, why);
    }
}

fn in_spite_of_it(s: &Session, env: &[(&str, &str)], local: &str, why: &str) {
    let mut env = env.to_vec();
    // More slots than the links of other tests can have taken: nothing is waited for but the server.
    env.extend([("LDWRAP_REMOTE_LOCAL", local), ("LDWRAP_JOBS", "20")]);
    let begin = Instant::now();
    let both = s.link_both_with(&env, &link("one"));
    if local == "always" {
        // Two seconds for the server, and more than enough for all else.
        assert!(
            begin.elapsed() < Duration::from_secs(6),
            "LLVM {}: {env:?}: {:?}",
            s.llvm,
            begin.elapsed()
        );
    }
    both.splits().prints("8\n");
    let trouble = both.report().pointer("/remote/trouble");
    let trouble = trouble.and_then(Value::as_str).unwrap_or_default();
    assert!(trouble.contains(why), "LLVM {}: {}", s.llvm, both.report());
    assert_eq!(both.number("/remote/local"), 3, "LLVM {}", s.llvm);
}

/// No server, one that hangs, one that speaks something else: the link takes longer, no more.
#[test]
fn a_server_that_is_none() {
    oldest_and_newest_with_shim(|s| {
        checkout(s, "one");
        let nobody = format!("grpc://127.0.0.1:{}", free_port());
        in_spite_of(s, &[("LDWRAP_REMOTE", &nobody)], "Connection refused");
        // Accepts, and says nothing.
        let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("grpc://{}", silent.local_addr().expect("its address"));
        // No TLS there.
        for url in [url.replace("grpc:", "grpcs:"), url] {
            let env = [
                ("LDWRAP_REMOTE", url.as_str()),
                ("LDWRAP_REMOTE_TIMEOUT", "1"),
            ];
            in_spite_of_it(s, &env, "fallback", "");
            // The limit of a call is far above what a link waits that can go on here.
            in_spite_of_it(s, &env[..1], "always", "no answer in time");
        }
    });
}

/// A program for credentials that hangs, and workers that do: what is tried at most two seconds is done here.
#[test]
fn what_never_ends() {
    let server = Server::start(SYSTEM);
    newest_llvm(|s| {
        if ldwrap_tests::fixtures_only() {
            return;
        }
        checkout(s, "one");
        let (url, clang) = places(&server, s);
        let helper = s.script("helper", "#!/bin/sh\nexec sleep 60\n");
        let helper = helper.display().to_string();
        let env = [
            ("LDWRAP_REMOTE", url.as_str()),
            ("LDWRAP_REMOTE_CREDENTIAL_HELPER", &helper),
        ];
        in_spite_of_it(s, &env, "always", "");
        let settings = Settings {
            rules: vec![Rule {
                method: "Execute",
                fault: Fault::Hang,
                times: usize::MAX,
            }],
            ..Settings::default()
        };
        let proxy = Proxy::start(server.port(), settings);
        let url = proxy.url();
        let env = [
            ("LDWRAP_REMOTE", url.as_str()),
            ("LDWRAP_REMOTE_CLANG", &clang),
        ];
        in_spite_of_it(s, &env, "always", "");
        assert!(proxy.met() > 0);
    });
}

/// Small links are not sent, nor is a server asked about them.
#[test]
fn small_links_stay_here() {
    let server = Server::start(SYSTEM);
    let proxy = Proxy::start(server.port(), Settings::default());
    newest_llvm(|s| {
        let url = proxy.url();
        let env = [("LDWRAP_REMOTE", url.as_str()), ("LDWRAP_SPLIT", "auto")];
        s.write("one/main.c", "int main(void) { return 0; }\n");
        s.compile("cd one; clang-$N -c -O2 -flto=thin main.c");
        s.link_both_with(&env, &link("one"))
            .left_to_lld("too little bitcode for a cache");
        checkout(s, "one");
        let functions: String = (0..2000)
            .map(|n| format!("int fun{n}(int x) {{ return x * {n} + x / ({n} + 1); }}\n"))
            .collect();
        s.write("one/f3.c", functions);
        s.sh("cd one; clang-$N -c -O1 -flto=thin f3.c; size=$(cat *.o | wc -c); (( size > 100 << 10 && size < 512 << 10 ))");
        s.link_both_with(&env, &link("one"))
            .left_to_lld("too little bitcode for a server")
            .prints("8\n");
        assert_eq!(proxy.calls("GetCapabilities"), 0);
    });
}

/// A compiler of another version on the workers is not used.
#[test]
fn another_compiler_there() {
    let server = Server::start(SYSTEM);
    each_llvm_with_shim(|s| {
        checkout(s, "one");
        let url = server.url();
        let other = if s.llvm == 19 { 16 } else { 19 };
        for (clang, why) in [
            (
                format!("/usr/bin/clang-{other}"),
                format!("clang version {other}."),
            ),
            ("/nonexistent/clang".into(), "/nonexistent/clang".into()),
        ] {
            let env = [
                ("LDWRAP_REMOTE", url.as_str()),
                ("LDWRAP_REMOTE_CLANG", &clang),
            ];
            in_spite_of(s, &env, &why);
        }
    });
}

#[test]
fn settings_that_are_wrong() {
    each_llvm_with_shim(|s| {
        checkout(s, "one");
        for (env, why) in [
            (("LDWRAP_REMOTE", "127.0.0.1:1"), "expected grpc://"),
            (("LDWRAP_EXECUTOR", "remote"), "names no server"),
        ] {
            s.link_both_with(&[env, LENIENT], &link("one"))
                .left_to_lld(why)
                .prints("8\n");
        }
    });
}

/// Options that clang cannot be told: with a server set, too, lld's own threads compile, and the cache serves
/// the next link.
#[test]
fn what_clang_cannot_be_told_is_cached_here() {
    let server = Server::start(SYSTEM);
    each_llvm_with_shim(|s| {
        checkout(s, "one");
        let (url, clang) = places(&server, s);
        let dir = s.root().join("home/objects").display().to_string();
        let env = [
            ("LDWRAP_REMOTE", url.as_str()),
            ("LDWRAP_REMOTE_CLANG", &clang),
            ("LDWRAP_CACHE_DIR", &dir),
            ("LDWRAP_CACHE_SIZE", "100M"),
        ];
        for options in [
            "-Wl,--lto-O1",
            "-r -nostdlib",
            "-Wl,-plugin-opt=mcpu=native",
        ] {
            let command = link("one").replace(" -o ", &format!(" {options} -o "));
            for (hits, misses) in [(0, 3), (3, 0)] {
                let both = s.link_both_with(&env, &command);
                both.splits();
                let counted = ["/cache/hits", "/cache/misses"].map(|name| both.number(name));
                assert_eq!(counted, [hits, misses], "LLVM {}: {options}", s.llvm);
                assert_eq!(both.number("/compiled_by_lld"), misses);
                assert!(both.report().get("remote").is_none(), "{}", both.report());
            }
        }
    });
}

/// With a server no clang runs on this machine, but for the self-test; lld's own threads are its cores. (Before
/// LLVM 16 lld has one thread, and clang takes part.)
#[test]
fn no_clang_here() {
    let server = Server::start(SYSTEM);
    some_llvm(
        |n| n >= 16,
        |s| {
            if ldwrap_tests::fixtures_only() {
                return;
            }
            checkout(s, "one");
            let real = format!("/usr/bin/clang-{}", s.llvm);
            let log = s.root().join("clang.log").display().to_string();
            let here = s.clang(
                "bin",
                &format!("#!/bin/bash\necho \"$@\" >>{log}\nexec {real} \"$@\"\n"),
            );
            let (url, here) = (server.url(), here.display().to_string());
            let env = [
                ("LDWRAP_REMOTE", url.as_str()),
                ("LDWRAP_REMOTE_CLANG", &real),
                ("LDWRAP_CLANG", &here),
            ];
            // One that waits for the server has the time for the self-test.
            let patient = [&env[..], &[("LDWRAP_REMOTE_LOCAL", "fallback")]].concat();
            s.link_both_with(&patient, &link("one")).splits();
            assert!(!s.sh("cat ../clang.log").is_empty(), "no self-test");
            s.sh("rm ../clang.log; sed -i 's/x [*]/x +/' one/f?.c; cd one; clang-$N -c -O2 -flto=thin *.c");
            let both = s.link_both_with(&env, &link("one"));
            both.splits();
            assert_eq!(both.report()["executor"], "remote");
            let called = s.sh("cat ../clang.log 2>/dev/null || true");
            assert_eq!(called, "", "LLVM {}", s.llvm);
        },
    );
}

/// The local cache: across checkouts, and a damaged object is compiled again.
#[test]
fn the_local_cache() {
    each_llvm_with_shim(|s| {
        checkout(s, "one");
        checkout(s, "another/checkout");
        let dir = s.root().join("home/objects").display().to_string();
        let env = [
            ("LDWRAP_CACHE_DIR", dir.as_str()),
            ("LDWRAP_CACHE_SIZE", "100M"),
        ];
        let counts = |dir: &str, hits: u64, misses: u64| {
            let both = s.link_both_with(&env, &link(dir));
            both.splits().prints("8\n");
            assert_eq!(
                (both.number("/cache/hits"), both.number("/cache/misses")),
                (hits, misses),
                "LLVM {}",
                s.llvm
            );
        };
        counts("one", 0, 3);
        counts("one", 3, 0);
        counts("another/checkout", 3, 0);
        // By other names.
        let absolute = link("one").replace("*.o", "$PWD/*.o");
        let both = s.link_both_with(&env, &absolute);
        both.splits().prints("8\n");
        assert_eq!(both.number("/cache/hits"), 3, "LLVM {}", s.llvm);
        // One damaged, one cut short, one gone.
        s.sh(&format!(
            "set -- {dir}/objects/o/*; printf X | dd of=$1 bs=1 seek=80 conv=notrunc status=none; \
             truncate -s 100 $2; rm $3"
        ));
        counts("one", 0, 3);
        counts("one", 3, 0);
        let tool = |command: &str| {
            let mut c = s.bash(&format!("$LDWRAP cache {command}"));
            s.use_shim(&mut c);
            c.envs(env);
            let out = c.output().expect("bash");
            assert!(
                out.status.success(),
                "{}",
                String::from_utf8_lossy(&out.stderr)
            );
            String::from_utf8_lossy(&out.stdout).into_owned()
        };
        assert!(tool("stats").contains("objects    3"), "{}", tool("stats"));
        assert!(tool("prune --keep 1").contains("removed 3 objects"));
        counts("one", 0, 3);
        assert!(tool("clear").contains("0 objects, 0 bytes are left"));
    });
}

/// Starts twenty shared libraries' links at once, of these programs' inputs in turn, and kills some while they run; three times.
fn kill_some_of_twenty(s: &Session, env: &[(&str, &str)], programs: &[Vec<String>]) {
    let mut random = fastrand::Rng::with_seed(2026);
    let mut killed = 0;
    for _ in 0..3 {
        let link = |(n, inputs): (usize, &Vec<String>)| {
            let out = format!("out{n}");
            let mut args = vec!["-shared", "-o", &out];
            args.extend(inputs.iter().map(String::as_str));
            s.spawn_shim(env, &args)
        };
        let mut links: Vec<_> = programs
            .iter()
            .cycle()
            .take(20)
            .enumerate()
            .map(link)
            .collect();
        for _ in 0..8 {
            std::thread::sleep(Duration::from_millis(random.u64(..400)));
            let mut running = Vec::new();
            for link in &mut links {
                if link.try_wait().expect("a child").is_none() {
                    running.push(link);
                }
            }
            if !running.is_empty() {
                let _ = running.swap_remove(random.usize(..running.len())).kill();
                killed += 1;
            }
        }
        for link in &mut links {
            let status = link.wait().expect("a child");
            assert!(status.success() || status.signal() == Some(9), "{status}");
        }
    }
    assert!(killed > 5, "only {killed} were killed while they ran");
}

/// Twenty links at once on one cache, which is too small for them, some killed at any moment: what is in
/// the cache is whole, and later links are right.
#[test]
fn twenty_links_share_a_cache_and_some_are_killed() {
    const PROGRAMS: usize = 5;
    const MODULES: usize = 6;
    some_llvm(
        |n| n == 22,
        |s| {
            if ldwrap_tests::fixtures_only() {
                return;
            }
            for program in 0..PROGRAMS {
                for module in 0..MODULES {
                    s.write(
                        &format!("p{program}/m{module}.c"),
                        format!(
                            "int g{module}(int x) {{ return x * {program}; }}\n\
                             int f{module}(int *a, int n) {{ for (int i = 0; i < n; i++) a[i] ^= g{module}(a[i]) + i / 3; return *a; }}\n"
                        ),
                    );
                }
            }
            s.sh("for p in p*; do (cd $p; clang-$N -c -O2 -flto=thin -fPIC *.c); done");
            let inputs = |program: usize| -> Vec<String> {
                (0..MODULES).map(|m| format!("p{program}/m{m}.o")).collect()
            };
            let dir = s.root().join("home/objects").display().to_string();
            // An object is about 1 KiB: half of them have room.
            let env = [
                ("LDWRAP_CACHE_DIR", dir.as_str()),
                ("LDWRAP_CACHE_SIZE", "16K"),
            ];
            // The tools are tried once, so that the others have their time for what is tested here.
            let first = inputs(0).join(" ");
            s.link_both_with(&env, &format!("$LD -shared -o $OUT {first}"))
                .splits();
            let all: Vec<Vec<String>> = (0..PROGRAMS).map(inputs).collect();
            kill_some_of_twenty(s, &env, &all);
            // What SIGKILL has left of theirs in TMPDIR, nobody else clears away.
            let _ = s.sh("rm -rf \"$TMPDIR\"/*");
            let wrong = s.sh(&format!(
                "cd {dir}/objects/o; for f in *; do n=$f; \
                 [[ $n == $(sha256sum <$f | cut -c1-48 | tr a-f A-F | basenc --base16 -di | basenc --base64url) ]] || \
                 [[ $n == .new-* ]] || echo $f; done"
            ));
            assert_eq!(wrong, "", "damaged entries");
            for program in 0..PROGRAMS {
                let inputs = inputs(program).join(" ");
                let link = format!("$LD -shared -o $OUT {inputs}");
                for _ in 0..2 {
                    s.link_both_with(&env, &link).splits();
                }
            }
            let size = s.sh(&format!("cat {dir}/objects/o/* | wc -c"));
            let size: u64 = size.trim().parse().expect("a number");
            assert!((1..=16 << 10).contains(&size), "{size} bytes");
        },
    );
}
