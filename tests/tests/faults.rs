//! A Remote Execution server that is down, slow, full, lying, forgetful or gone: the bytes are lld's, the
//! time limits hold, nothing is left behind, nothing is said, and the report tells what happened.
//!
//! A real server (buildbox-casd) behind a proxy or a relay of ours that does the harm. What is wrong with
//! a server does not depend on the version of LLVM, so each case runs with one of them.

use ldwrap_tests::remote::buildbox::{SYSTEM, Server};
use ldwrap_tests::remote::proxy::{Fault, Proxy, Rule, Settings, Tls};
use ldwrap_tests::remote::relay::{Line, Relay};
use ldwrap_tests::{Session, newest_llvm};
use serde_json::Value;
use std::time::{Duration, Instant};
use tonic::Code;

/// Modules of the program.
pub(crate) const MODULES: u64 = 4;
/// For ever.
pub(crate) const ALWAYS: usize = usize::MAX;

/// A program that no server has seen: each case is another one.
pub(crate) fn sources(s: &Session, case: usize) {
    s.write(
        "main.c",
        "int f1(int), f2(int), f3(int), printf(const char *, ...);\n\
         int main(void) { return printf(\"%d\\n\", f1(1) + f2(1) + f3(1) - 3 * CASE) < 0; }\n",
    );
    for n in 1..MODULES {
        s.write(
            &format!("f{n}.c"),
            format!(
                "extern int printf(const char *, ...);\n\
                 __attribute__((noinline)) int f{n}(int x) {{ if (x > 9) printf(\"f{n}\"); return x * {n} + CASE; }}\n"
            ),
        );
    }
    s.sh(&format!("clang-$N -c -O2 -flto=thin -DCASE={case} *.c"));
}

const LINK: &str = "clang-$N -O2 -flto=thin -fuse-ld=lld -o $OUT *.o";

/// What becomes of a link.
pub(crate) enum Expected {
    /// All backends ran on the server, and nothing is said.
    AsIfNothing,
    /// At least so many ran here, and the report says why.
    Here(u64, &'static str),
    /// Any number of them.
    Equal,
}

/// Links through `url` and checks that it ends well, within so many seconds. Gives what was said on
/// stderr and in the report.
pub(crate) fn link(
    s: &Session,
    name: &str,
    url: &str,
    env: &[(&str, &str)],
    seconds: u64,
    expected: &Expected,
) -> (String, String) {
    let clang = format!("/usr/bin/clang-{}", s.llvm);
    let mut all = vec![
        ("LDWRAP_REMOTE", url),
        ("LDWRAP_REMOTE_CLANG", clang.as_str()),
        ("LDWRAP_REMOTE_LOCAL", "fallback"),
        ("LDWRAP_REMOTE_TIMEOUT", "1"),
        ("LDWRAP_REMOTE_EXECUTION_TIMEOUT", "8"),
    ];
    all.extend(env);
    let begin = Instant::now();
    let both = s.link_both_with(&all, LINK);
    let took = begin.elapsed();
    let errors = both.split.errors();
    assert!(both.split.status.success(), "{name}: {}", both.split);
    both.prints("6\n");
    s.sh("cmp a.out ../plain/a.out");
    assert_eq!(
        both.report()["action"],
        "split",
        "{name}: {}",
        both.report()
    );
    let made = ["executed", "hits", "local"].map(|n| both.number(&format!("/remote/{n}")));
    assert_eq!(
        made.iter().sum::<u64>(),
        MODULES,
        "{name}: {}",
        both.report()
    );
    match expected {
        Expected::AsIfNothing => {
            assert_eq!(made[2], 0, "{name}: {}", both.report());
        }
        Expected::Here(least, why) => {
            let trouble = both.report().pointer("/remote/trouble");
            let trouble = trouble.and_then(Value::as_str).unwrap_or_default();
            assert!(trouble.contains(why), "{name}: {}", both.report());
            assert!(made[2] >= *least, "{name}: {}", both.report());
        }
        Expected::Equal => {}
    }
    assert_eq!(errors, "", "{name}");
    assert!(
        took < Duration::from_secs(seconds),
        "{name}: {} s",
        took.as_secs_f32()
    );
    (errors.to_owned(), both.report().to_string())
}

pub(crate) fn rule(method: &'static str, fault: Fault, times: usize) -> Rule {
    Rule {
        method,
        fault,
        times,
    }
}

/// Runs cases of rules behind one server.
pub(crate) fn cases(first: usize, all: &[(&[Rule], Expected)]) {
    newest_llvm(|s| {
        let server = Server::start(SYSTEM);
        for (n, (rules, expected)) in all.iter().enumerate() {
            let name = format!("{rules:?}");
            sources(s, first + n);
            let settings = Settings {
                rules: rules.to_vec(),
                ..Settings::default()
            };
            let proxy = Proxy::start(server.port(), settings);
            link(s, &name, &proxy.url(), &[], 20, expected);
            assert!(proxy.met() > 0, "{name}: no such call was made");
        }
    });
}

/// What may pass is tried again, and nobody notices.
#[test]
fn errors_that_pass() {
    let once = |method, code| vec![rule(method, Fault::Error(code), 1)];
    let rules: Vec<Vec<Rule>> = [
        "GetCapabilities",
        "GetActionResult",
        "FindMissingBlobs",
        "BatchUpdateBlobs",
        "Execute",
    ]
    .into_iter()
    .flat_map(|method| [Code::Unavailable, Code::ResourceExhausted].map(|code| once(method, code)))
    .collect();
    let all: Vec<_> = rules
        .iter()
        .map(|rules| (rules.as_slice(), Expected::AsIfNothing))
        .collect();
    cases(100, &all);
}

/// What does not pass is done here.
#[test]
fn errors_that_stay() {
    let error = |method, code| [rule(method, Fault::Error(code), ALWAYS)];
    let all = [
        (error("GetCapabilities", Code::Unavailable), "Unavailable"),
        (error("GetActionResult", Code::Unavailable), "Unavailable"),
        (error("FindMissingBlobs", Code::Unavailable), "Unavailable"),
        (
            error("BatchUpdateBlobs", Code::ResourceExhausted),
            "ResourceExhausted",
        ),
        (
            error("Execute", Code::ResourceExhausted),
            "ResourceExhausted",
        ),
        (error("Execute", Code::PermissionDenied), "PermissionDenied"),
        (
            error("GetActionResult", Code::PermissionDenied),
            "PermissionDenied",
        ),
        (error("Execute", Code::Unauthenticated), "Unauthenticated"),
        (error("Execute", Code::Unimplemented), "Unimplemented"),
        (error("Execute", Code::InvalidArgument), "InvalidArgument"),
        // "Inputs are missing", however often they are sent.
        (error("Execute", Code::FailedPrecondition), "loses inputs"),
        (error("", Code::PermissionDenied), "PermissionDenied"),
    ];
    let all: Vec<_> = all
        .iter()
        .map(|(rules, why)| (rules.as_slice(), Expected::Here(MODULES, why)))
        .collect();
    cases(200, &all);
}

/// Inputs that the server had and has no more are sent again.
#[test]
fn inputs_that_are_lost() {
    // The first question is for the compiler's version. A question may be for all jobs or for one, which
    // gives up when it is lied to three times.
    let forgets = [
        rule("FindMissingBlobs", Fault::HasAll, 1),
        rule("FindMissingBlobs", Fault::Passes, 1),
        rule("FindMissingBlobs", Fault::HasAll, 2),
    ];
    let missing = [rule("Execute", Fault::Error(Code::FailedPrecondition), 2)];
    cases(
        300,
        &[
            (&forgets, Expected::AsIfNothing),
            (&missing, Expected::AsIfNothing),
            (
                &[rule("FindMissingBlobs", Fault::HasAll, ALWAYS)],
                Expected::Here(MODULES, "inputs"),
            ),
        ],
    );
}

/// Calls that hang, streams that break, end early or make no sense.
#[test]
fn streams_that_break() {
    let here = |why| Expected::Here(1, why);
    cases(
        400,
        &[
            (
                &[rule("Execute", Fault::Hang, ALWAYS)],
                here("DeadlineExceeded"),
            ),
            (
                &[rule("GetCapabilities", Fault::Hang, ALWAYS)],
                here("DeadlineExceeded"),
            ),
            (
                &[rule("FindMissingBlobs", Fault::Hang, ALWAYS)],
                here("DeadlineExceeded"),
            ),
            (&[rule("GetActionResult", Fault::Hang, 1)], Expected::Equal),
            (&[rule("Execute", Fault::Breaks, 2)], Expected::AsIfNothing),
            (&[rule("Execute", Fault::Ends, 2)], Expected::AsIfNothing),
            (
                &[
                    rule("Execute", Fault::Breaks, ALWAYS),
                    rule("WaitExecution", Fault::Error(Code::NotFound), ALWAYS),
                ],
                Expected::Equal,
            ),
            (&[rule("Execute", Fault::Garbage, ALWAYS)], here("")),
            (&[rule("GetCapabilities", Fault::Garbage, ALWAYS)], here("")),
            (&[rule("", Fault::Garbage, ALWAYS)], here("")),
        ],
    );
}

/// Results that are not what they should be are never used.
#[test]
fn a_server_that_lies() {
    cases(
        500,
        &[
            (
                &[rule("", Fault::Corrupts, ALWAYS)],
                Expected::Here(MODULES, "digest"),
            ),
            (&[rule("", Fault::Corrupts, 6)], Expected::Equal),
            (
                &[rule("", Fault::Truncates, ALWAYS)],
                Expected::Here(MODULES, "digest"),
            ),
            // After the question for the version; the first result is right for one module.
            (
                &[
                    rule("Execute", Fault::Passes, 1),
                    rule("Execute", Fault::Foreign, ALWAYS),
                ],
                Expected::Here(MODULES - 1, "not this module's object"),
            ),
            (
                &[rule("Execute", Fault::WrongDigest, ALWAYS)],
                Expected::Here(MODULES, ""),
            ),
            (
                &[rule("Execute", Fault::HugeObject, ALWAYS)],
                Expected::Here(MODULES, "an object of 2147483648 bytes"),
            ),
            (
                &[rule("Execute", Fault::NoObject, ALWAYS)],
                Expected::Here(MODULES, "without an object"),
            ),
            (
                &[rule("Execute", Fault::Fails, ALWAYS)],
                Expected::Here(MODULES, "clang ended with 1"),
            ),
        ],
    );
}

/// A cache that answers with nonsense: what it says is compiled anew.
#[test]
fn a_cache_that_lies() {
    newest_llvm(|s| {
        let server = Server::start(SYSTEM);
        for (n, fault) in [
            Fault::Foreign,
            Fault::WrongDigest,
            Fault::NoObject,
            Fault::Fails,
            Fault::Garbage,
        ]
        .into_iter()
        .enumerate()
        {
            sources(s, 600 + n);
            link(s, "filling", &server.url(), &[], 20, &Expected::AsIfNothing);
            let settings = Settings {
                rules: vec![rule("GetActionResult", fault, ALWAYS)],
                ..Settings::default()
            };
            let proxy = Proxy::start(server.port(), settings);
            let name = format!("{fault:?}");
            link(s, &name, &proxy.url(), &[], 20, &Expected::Equal);
        }
    });
}

/// A line that is silent, slow, or breaks.
#[test]
fn bad_lines() {
    newest_llvm(|s| {
        let server = Server::start(SYSTEM);
        let here = |why| Expected::Here(1, why);
        for (n, (line, expected)) in [
            (Line::Silent, here("")),
            (Line::Slow(50_000), Expected::AsIfNothing),
            (Line::Slow(500), here("")),
            (Line::Resets(20), here("")),
            (Line::Resets(400), Expected::Equal),
            (Line::Resets(2000), Expected::Equal),
            (Line::ResetsAtFirst(600, 3), Expected::Equal),
        ]
        .into_iter()
        .enumerate()
        {
            sources(s, 700 + n);
            let relay = Relay::start(server.port(), line);
            link(s, &format!("{line:?}"), &relay.url(), &[], 25, &expected);
            assert!(relay.connections() > 0);
        }
        // The compiler itself, 100 MB, on a slow line: the cores here don't wait for it.
        sources(s, 799);
        let relay = Relay::start(server.port(), Line::Slow(50_000));
        let env = [
            ("LDWRAP_REMOTE_CLANG", ""),
            ("LDWRAP_REMOTE_LOCAL", ""),
            ("LDWRAP_REMOTE_TIMEOUT", ""),
        ];
        link(s, "shipping", &relay.url(), &env, 10, &Expected::Equal);
    });
}

/// Two authorities, of which nobody trusts the second, and certificates of each for the server and for
/// the client.
const MAKE_CERTIFICATES: &str = r#"
    key() { openssl ecparam -name prime256v1 -genkey -noout -out $1.key; }
    for ca in ca other; do
        key $ca
        openssl req -x509 -key $ca.key -out $ca.pem -days 2 -subj "/CN=$ca" 2>/dev/null
    done
    sign() {
        key $1
        openssl req -new -key $1.key -subj /CN=$1 2>/dev/null |
            openssl x509 -req -CA $2.pem -CAkey $2.key -CAcreateserial -days $3 -out $1.pem \
                -extfile <(printf "subjectAltName=$4") 2>/dev/null
    }
    sign server ca 2 DNS:localhost
    sign elsewhere ca 2 DNS:elsewhere.example
    sign us ca 2 DNS:us
    sign them other 2 DNS:them
    key expired
    openssl req -new -key expired.key -subj /CN=expired 2>/dev/null |
        openssl x509 -req -CA ca.pem -CAkey ca.key -CAcreateserial -days -1 -out expired.pem \
            -extfile <(printf subjectAltName=DNS:localhost) 2>/dev/null
"#;

/// Encrypted, with certificates that are right, wrong, expired or missing.
#[test]
fn certificates() {
    newest_llvm(|s| {
        let server = Server::start(SYSTEM);
        s.sh(MAKE_CERTIFICATES);
        let pem = |name: &str| s.dir().join(name);
        let text = |name: &str| pem(name).display().to_string();
        let (us, us_key, them, them_key) = (
            text("us.pem"),
            text("us.key"),
            text("them.pem"),
            text("them.key"),
        );
        let (ca, other) = (text("ca.pem"), text("other.pem"));
        let ours = [
            ("LDWRAP_REMOTE_CERT", us.as_str()),
            ("LDWRAP_REMOTE_KEY", us_key.as_str()),
        ];
        let theirs = [
            ("LDWRAP_REMOTE_CERT", them.as_str()),
            ("LDWRAP_REMOTE_KEY", them_key.as_str()),
        ];
        let mixed = [
            ("LDWRAP_REMOTE_CERT", us.as_str()),
            ("LDWRAP_REMOTE_KEY", them_key.as_str()),
        ];
        let absent = [
            ("LDWRAP_REMOTE_CERT", "/nonexistent.pem"),
            ("LDWRAP_REMOTE_KEY", us_key.as_str()),
        ];
        let none: [(&str, &str); 0] = [];
        let here = |why| Expected::Here(MODULES, why);
        for (n, (cert, client_ca, trusted, identity, expected)) in [
            ("server", false, &ca, &none[..], Expected::AsIfNothing),
            ("server", true, &ca, &ours[..], Expected::AsIfNothing),
            ("server", false, &other, &none[..], here("certificate")),
            (
                "elsewhere",
                false,
                &ca,
                &none[..],
                here("elsewhere.example"),
            ),
            ("expired", false, &ca, &none[..], here("Expired")),
            ("server", true, &ca, &none[..], here("ertificate")),
            ("server", true, &ca, &theirs[..], here("ertificate")),
            ("server", true, &ca, &mixed[..], here("LDWRAP_REMOTE_CERT")),
            (
                "server",
                true,
                &ca,
                &absent[..],
                here("LDWRAP_REMOTE_CERT: /nonexistent.pem"),
            ),
        ]
        .into_iter()
        .enumerate()
        {
            sources(s, 900 + n);
            let tls = Tls {
                cert: pem(&format!("{cert}.pem")),
                key: pem(&format!("{cert}.key")),
                client_ca: client_ca.then(|| pem("ca.pem")),
            };
            let settings = Settings {
                tls: Some(tls),
                ..Settings::default()
            };
            let proxy = Proxy::start(server.port(), settings);
            let mut env = vec![("LDWRAP_REMOTE_CA", trusted.as_str())];
            env.extend(identity);
            let name = format!("{cert}, client's: {client_ca}, {env:?}");
            link(s, &name, &proxy.url(), &env, 20, &expected);
        }
    });
}

/// Tokens: good, wrong, expired meanwhile, renewed. None is ever said.
#[test]
fn tokens() {
    newest_llvm(|s| {
        let server = Server::start(SYSTEM);
        let helper = s.script(
            "helper",
            "#!/bin/sh\ncat >/dev/null\necho >>\"$0.asked\"\nn=$(wc -l <\"$0.asked\")\n\
             echo \"{\\\"headers\\\":{\\\"Authorization\\\":[\\\"Bearer secret$n\\\"]}}\"\n",
        );
        s.write("headers", "Authorization: Bearer secret1\n");
        let file = s.dir().join("headers").display().to_string();
        let helper = helper.display().to_string();
        let of_file = ("LDWRAP_REMOTE_HEADERS", file.as_str());
        let of_helper = ("LDWRAP_REMOTE_CREDENTIAL_HELPER", helper.as_str());
        for (n, (tokens, source, expected)) in [
            (&[("secret1", ALWAYS)][..], of_file, Expected::AsIfNothing),
            (
                &[("secret0", ALWAYS)],
                of_file,
                Expected::Here(MODULES, "no such token"),
            ),
            (
                &[("secret1", 12)],
                of_file,
                Expected::Here(1, "the token has expired"),
            ),
            (&[("secret1", ALWAYS)], of_helper, Expected::AsIfNothing),
            // The helper is asked again, and gives another.
            (
                &[("secret1", 12), ("secret2", ALWAYS)],
                of_helper,
                Expected::AsIfNothing,
            ),
            (
                &[("secret1", 12)],
                of_helper,
                Expected::Here(1, "no such token"),
            ),
        ]
        .into_iter()
        .enumerate()
        {
            sources(s, 1000 + n);
            s.sh("rm -f helper.asked");
            let settings = Settings {
                tokens: tokens.to_vec(),
                ..Settings::default()
            };
            let proxy = Proxy::start(server.port(), settings);
            let name = format!("{tokens:?} {source:?}");
            let (stderr, report) = link(s, &name, &proxy.url(), &[source], 20, &expected);
            for text in [stderr, report] {
                assert!(!text.contains("secret"), "{name}: {text}");
            }
        }
    });
}

/// The server dies while backends run, and comes again: with all it had, or empty.
#[test]
fn a_server_that_dies() {
    newest_llvm(|s| {
        let slow = s.script(
            "slow-clang",
            "#!/bin/sh\ncase $1 in -cc1) sleep 1;; esac\nexec \"${0%/*}/real-clang\" \"$@\"\n",
        );
        s.sh("ln -s $(command -v clang-$N) real-clang");
        let dir = s.dir().display().to_string();
        let mounts = [SYSTEM, &[dir.as_str()]].concat();
        let clang = slow.display().to_string();
        for (n, (after, empty, again)) in [
            (1, false, true),
            (1, true, true),
            (3, false, true),
            (3, true, true),
            (1, false, false),
        ]
        .into_iter()
        .enumerate()
        {
            sources(s, 800 + n);
            let mut server = Server::start(&mounts);
            let proxy = Proxy::start(server.port(), Settings::default());
            let url = proxy.url();
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    let end = Instant::now() + Duration::from_secs(30);
                    // One was to ask for the version.
                    while proxy.calls("Execute") <= after && Instant::now() < end {
                        std::thread::sleep(Duration::from_millis(10));
                    }
                    std::thread::sleep(Duration::from_millis(300));
                    if again {
                        server.restart(empty);
                    } else {
                        server.kill();
                    }
                });
                let env = [
                    ("LDWRAP_REMOTE_CLANG", clang.as_str()),
                    ("LDWRAP_REMOTE_TIMEOUT", "3"),
                ];
                let name = format!("dies after {after}, empty: {empty}, again: {again}");
                link(s, &name, &url, &env, 40, &Expected::Equal);
            });
        }
    });
}
