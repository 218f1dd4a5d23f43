//! `ldwrap doctor` on set-ups that are broken in one way each: it says what is wrong, the line that mends it, and what
//! that means for links; and it changes nothing.
//!
//! The tests are transcripts ([`transcript`]). What the doctor looks for does not depend on LLVM's version, so each runs
//! with one.

use ldwrap_tests::remote::buildbox::{SYSTEM, Server};
use ldwrap_tests::remote::free_port;
use ldwrap_tests::remote::proxy::{Fault, Proxy, Rule, Settings};
use ldwrap_tests::{Session, fixtures_only, newest_llvm};
use std::net::TcpListener;
use tonic::Code;

/// The newest LLVM of those that are tested; not at all when only fixtures are tested.
pub(crate) fn one_llvm(test: impl Fn(&Session)) {
    if fixtures_only() {
        return;
    }
    newest_llvm(|s| {
        s.sh("mkdir bin; ln -s /usr/lib/llvm-$N/bin/clang bin/clang");
        test(s);
    });
}

/// Runs the commands of a transcript, and asserts what it says. A blank line ends what is said of a command:
///
/// ```text
/// $ LDWRAP_SPLIT=never doctor
/// BAD  all links are lld's alone
/// -> unset LDWRAP_SPLIT
/// Links will not be split: 1 problem.
/// ```
///
/// Of a finding its mark and a part of its text is given; behind it, if any, a part of the line that mends it. The
/// verdict is given whole, and the exit status has to go with it.
///
/// `doctor` is `ldwrap doctor` with only `bin/` in `PATH`, which has clang; `$OTHER` is another LLVM's version.
pub(crate) fn transcript(s: &Session, variables: &[(&str, &str)], text: &str) {
    for block in text.split("\n\n") {
        let mut lines = block.lines().map(str::trim).filter(|line| !line.is_empty());
        let command = lines.next().and_then(|line| line.strip_prefix("$ "));
        let command = command.unwrap_or_else(|| panic!("no command: {block}"));
        let said = doctor(s, variables, command);
        let mut shown = said.lines();
        for line in lines {
            let (found, wanted) = if let Some(fix) = line.strip_prefix("-> ") {
                let next = shown.next().unwrap_or_default();
                (next.starts_with("     -> ") && next.contains(fix), fix)
            } else if line.starts_with("Links will ") {
                let well = line == "Links will be split.";
                let last = said.lines().last().unwrap_or_default();
                (
                    last == format!("{line} exit status {}", u8::from(!well)),
                    line,
                )
            } else {
                let (mark, part) = line.split_once(' ').expect("a mark and a text");
                shown = said.lines();
                let is_it = |shown: &str| {
                    shown.starts_with(mark)
                        && shown.contains(&part.trim().replace("$N", &s.llvm.to_string()))
                };
                (shown.any(is_it), line)
            };
            assert!(found, "no '{wanted}':\n$ {command}\n{said}");
        }
    }
}

/// What a command that calls `doctor` says, with the exit status at the end of the last line.
fn doctor(s: &Session, variables: &[(&str, &str)], command: &str) -> String {
    let mut c = s.bash(&format!(
        "doctor() {{ PATH=$PWD/bin \"${{DOCTOR:-$LDWRAP}}\" doctor \"$@\"; }}; {command}"
    ));
    s.use_shim_by_default(&mut c);
    c.env("LDWRAP_CACHE_DIR", s.root().join("home/cache"))
        .env("OTHER", if s.llvm == 19 { "16" } else { "19" })
        .envs(variables.iter().copied());
    let out = c.output().expect("bash");
    s.assert_nothing_left(command);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let status = out.status.code().unwrap_or(-1);
    let (errors, said) = (text(&out.stderr), text(&out.stdout));
    format!("{errors}{} exit status {status}", said.trim_end())
}

#[test]
fn all_is_well() {
    one_llvm(|s| {
        transcript(
            s,
            &[],
            "$ echo 'no object' >doctor; LDWRAP_CACHE_SIZE=100M doctor
             ok   shim: /
             ok   home/cache: 0 bytes of 100.0 MiB
             ok   : lld $N.
             ok   a small link was split: its object came from a cache the second time
             ok   bin/clang: ThinLTO links are split, by /usr/lib/llvm-$N/bin/ld.lld: objects come from the cache, and backends run in lld's own threads
             Links will be split.

             $ LDWRAP_EXECUTOR=clang doctor
             ok   a small link with backends outside lld equals lld's own
             ok   in a clang process each, on this machine
             Links will be split.

             $ ln -s /usr/bin/gcc bin/gcc; ln -s /usr/lib/llvm-$N/bin/ld.lld bin/ld.lld; doctor
             ok   bin/gcc: links of bitcode that clang or rustc has made are split
             Links will be split.",
        );
        let said = doctor(s, &[], "doctor");
        assert!(!said.contains('\x1b') && !said.contains("BAD"), "{said}");
        // That of clang and gcc is one file.
        assert_eq!(said.matches("a small link was split").count(), 1, "{said}");
    });
}

#[test]
fn the_shim_is_not_reached() {
    one_llvm(|s| {
        s.sh(
            "mkdir -p alone bare/bin; cp ../p/lib/ldwrap/ld.lld alone; cp ../p/bin/ldwrap bare/bin",
        );
        let text = "
            $ COMPILER_PATH= doctor
            BAD  bin/clang: does not reach the shim: its linker is /usr/lib/llvm-$N/bin/ld.lld
            -> export COMPILER_PATH=PREFIX/lib/ldwrap
            note ldwrap run: the links of one command come to the shim
            -> ldwrap run -- COMMAND
            Links will not be split: 1 problem.

            $ COMPILER_PATH=/usr/lib/llvm-$N/bin doctor
            BAD  does not reach the shim: its linker is /usr/lib/llvm-$N/bin/ld.lld
            -> export COMPILER_PATH=PREFIX/lib/ldwrap:\"$COMPILER_PATH\"
            Links will not be split: 1 problem.

            $ COMPILER_PATH= DOCTOR=bare/bin/ldwrap doctor
            BAD  bare/lib/ldwrap has no ld.lld
            -> /bare/lib/ldwrap/ld.lld
            Links will not be split: 2 problems.

            $ DOCTOR=bare/bin/ldwrap doctor
            BAD  bare/lib/ldwrap has no ld.lld
            -> /bare/lib/ldwrap/ld.lld
            Links will be split, but not all is well: 1 problem.

            $ COMPILER_PATH=$PWD/alone doctor
            BAD  reaches the shim, but ldwrap is not installed beside it
            -> scripts/install --prefix
            Links will not be split: 1 problem.

            $ rm bin/clang; doctor
            BAD  compilers: there is none in PATH
            -> apt-get install clang
            Links will not be split: 1 problem.";
        transcript(
            s,
            &[],
            &text.replace("PREFIX", &s.prefix().display().to_string()),
        );
    });
}

#[test]
fn lld_is_missing_or_no_lld() {
    one_llvm(|s| {
        // No lld beside this clang.
        s.sh("rm bin/clang; cp -L /usr/lib/llvm-$N/bin/clang bin/clang; cp ../p/lib/ldwrap/ld.lld ours; \
              touch text; printf '#!/bin/sh\\nexit 1\\n' >mute; chmod +x mute");
        let text = "
            $ doctor
            BAD  lld: cannot find the real ld.lld
            -> export LDWRAP_REAL_LLD=/usr/lib/llvm-
            Links will not be split: 1 problem.

            $ COMPILER_PATH= doctor
            BAD  does not reach the shim: clang: error: invalid linker name
            -> export COMPILER_PATH=
            Links will not be split: 1 problem.

            $ LDWRAP_REAL_LLD=/nonexistent/lld doctor
            BAD  /nonexistent/lld (LDWRAP_REAL_LLD), which does not exist
            -> unset LDWRAP_REAL_LLD
            Links will not be split: 1 problem.

            $ LDWRAP_REAL_LLD=$PWD/ours doctor
            BAD  which is ldwrap itself
            -> unset LDWRAP_REAL_LLD
            Links will not be split: 1 problem.

            $ LDWRAP_REAL_LLD=$PWD/text doctor
            BAD  which is not executable
            -> unset LDWRAP_REAL_LLD
            Links will not be split: 1 problem.

            $ LDWRAP_REAL_LLD=$PWD/mute doctor
            BAD  cannot tell the version of
            -> export LDWRAP_REAL_LLD=FILE
            Links will not be split: 1 problem.

            $ ln -s /usr/lib/llvm-$N/bin/ld.lld bin/ld.lld-$N; COMPILER_PATH= doctor
            BAD  invalid linker name
            -> export COMPILER_PATH=
            Links will not be split: 1 problem.

            $ doctor
            ok   bin/ld.lld-$N: a small link was split
            Links will be split.";
        transcript(s, &[], text);
        if s.llvm > 19 {
            let text = "
            $ LDWRAP_REAL_LLD=/usr/lib/llvm-19/bin/ld.lld doctor
            BAD  /usr/lib/llvm-19/bin/ld.lld does not read the bitcode of clang $N
            -> apt-get install lld-
            Links will not be split: 1 problem.";
            transcript(s, &[], text);
        }
    });
}

#[test]
fn clang_is_missing_or_another() {
    one_llvm(|s| {
        let text = "
            $ LDWRAP_CLANG=/usr/bin/clang-$OTHER doctor
            BAD  no backend can run outside lld: /usr/bin/clang-
            -> unset LDWRAP_CLANG
            Links will be split, but not all is well: 1 problem.

            $ LDWRAP_CLANG=/nonexistent/clang doctor
            BAD  no clang for /usr/lib/llvm-$N/bin/ld.lld
            -> unset LDWRAP_CLANG
            Links will be split, but not all is well: 1 problem.

            $ rm bin/clang; cp -L /usr/lib/llvm-$N/bin/ld.lld bin; ln -s /usr/bin/gcc bin; doctor
            BAD  no backend can run outside lld: no clang for
            -> apt-get install clang-
            Links will be split, but not all is well: 1 problem.

            $ LDWRAP_EXECUTOR=local doctor
            note backends can run in lld's own threads only: no clang for
            -> apt-get install clang-
            ok   a small link without bitcode can be watched
            Links will be split.";
        transcript(s, &[("LDWRAP_EXECUTOR", "clang")], text);
    });
}

#[test]
fn settings_that_are_wrong() {
    one_llvm(|s| {
        s.write("bad.toml", "# ours\njobs = \"many\"\n");
        s.write("never.toml", "split = \"never\"\n");
        let text = "
            $ LDWRAP_SPILT=always doctor
            BAD  LDWRAP_SPILT is no setting: is it LDWRAP_SPLIT?
            -> unset LDWRAP_SPILT; export LDWRAP_SPLIT=always
            Links will be split, but not all is well: 1 problem.

            $ LDWRAP_STRICT=1 LDWRAP_SPILT=always doctor
            BAD  is it LDWRAP_SPLIT?
            -> unset LDWRAP_SPILT
            Links will not be split: 1 problem.

            $ LDWRAP_CONFIG=bad.toml doctor
            BAD  bad.toml:2: LDWRAP_JOBS=many: expected NUMBER from 1 to 4096
            -> edit bad.toml, line 2
            Links will be split, but not all is well: 1 problem.

            $ mkdir -p ../home/config/ldwrap; cp bad.toml ../home/config/ldwrap/ldwrap.toml; doctor
            BAD  LDWRAP_JOBS=many
            -> home/config/ldwrap/ldwrap.toml, line 2
            Links will be split, but not all is well: 1 problem.

            $ rm -r ../home/config; LDWRAP_CONFIG=/nonexistent doctor
            BAD  cannot read the configuration
            -> unset LDWRAP_CONFIG
            Links will be split, but not all is well: 1 problem.

            $ LDWRAP_SPLIT=never doctor
            BAD  all links are lld's alone
            -> unset LDWRAP_SPLIT
            Links will not be split: 1 problem.

            $ LDWRAP_CONFIG=never.toml doctor
            BAD  LDWRAP_SPLIT=never
            -> remove split from never.toml, line 1
            note ThinLTO links can be split, by /usr/lib/llvm-$N/bin/ld.lld, when what is BAD above is mended
            Links will not be split: 1 problem.

            $ LDWRAP_EXECUTOR=distributor doctor
            BAD  LDWRAP_DISTRIBUTOR names no program
            -> export LDWRAP_DISTRIBUTOR=PROGRAM
            Links will be split, but not all is well: 1 problem.

            $ LDWRAP_EXECUTOR=remote doctor
            BAD  LDWRAP_REMOTE names no server
            -> export LDWRAP_REMOTE=grpcs://HOST:PORT
            Links will be split, but not all is well: 1 problem.

            $ LLD_REPRODUCE=x.tar doctor
            BAD  LLD_REPRODUCE is set
            -> unset LLD_REPRODUCE
            Links will not be split: 1 problem.

            $ LDWRAP_CACHE_SIZE=0 doctor
            BAD  each link compiles everything
            -> unset LDWRAP_CACHE_SIZE
            Links will not be split: 1 problem.

            $ LDWRAP_EXECUTOR=clang LDWRAP_CACHE_SIZE=0 doctor
            note no objects are kept
            -> unset LDWRAP_CACHE_SIZE
            Links will be split.";
        transcript(s, &[], text);
    });
}

#[test]
fn the_cache_and_the_scratch_directory() {
    one_llvm(|s| {
        s.sh("touch file; mkdir open full; chmod 777 open");
        let text = "
            $ LDWRAP_CACHE_DIR=/proc/nowhere doctor
            BAD  cache: /proc/nowhere: nothing can be written there
            -> export LDWRAP_CACHE_DIR=
            Links will not be split: 1 problem.

            $ LDWRAP_CACHE_DIR=$PWD/file doctor
            BAD  nothing can be written there
            -> export LDWRAP_CACHE_DIR=
            Links will not be split: 1 problem.

            $ LDWRAP_EXECUTOR=clang LDWRAP_CACHE_DIR=/proc/nowhere doctor
            BAD  nothing can be written there
            -> export LDWRAP_CACHE_DIR=
            Links will be split, but not all is well: 1 problem.

            $ export -f doctor; unshare $USERS -m bash -c 'mount -t tmpfs -o size=16k none full; LDWRAP_CACHE_DIR=$PWD/full doctor'
            BAD  No space left
            -> on another disk
            Links will not be split: 1 problem.

            $ unset HOME XDG_CACHE_HOME LDWRAP_CACHE_DIR; doctor
            BAD  neither HOME nor XDG_CACHE_HOME is set
            -> export LDWRAP_CACHE_DIR=
            Links will not be split: 1 problem.

            $ LDWRAP_CACHE_DIR=$PWD/open doctor
            note can be written by other users
            -> chmod go-w /
            Links will be split.

            $ LDWRAP_CACHE_SIZE=900000T doctor
            note but only
            -> export LDWRAP_CACHE_SIZE=
            Links will be split.

            $ TMPDIR= doctor
            ok   scratch directory: /tmp
            Links will be split.

            $ TMPDIR=/nonexistent/tmp doctor
            BAD  /nonexistent/tmp: no directory can be made there
            -> unset TMPDIR, or mkdir -p /nonexistent/tmp
            Links will be split, but not all is well: 1 problem.";
        let root = s.sh("id -u").trim() == "0";
        transcript(s, &[("USERS", if root { "" } else { "-Ur" })], text);
    });
}

/// A filter that is refused, and a limit that lld alone does not meet.
#[test]
fn lld_cannot_be_watched() {
    one_llvm(|s| {
        s.sh("clang-$N $FIXTURES/refuse.c -o refuse");
        let text = "
            $ ./refuse /usr/bin/env PATH=$PWD/bin $LDWRAP doctor
            BAD  a small link was not split: the kernel refuses a seccomp filter
            -> --security-opt seccomp=unconfined
            Links will not be split: 1 problem.

            $ ulimit -f 100000; doctor
            BAD  the size of files is limited
            -> ulimit -f unlimited
            Links will not be split: 1 problem.";
        transcript(s, &[], text);
    });
}

/// Servers that are not there, silent, of another kind, and credentials that cannot be had.
#[test]
fn servers_that_do_not_answer() {
    one_llvm(|s| {
        let dead = format!("grpc://127.0.0.1:{}", free_port());
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let silent = listener.local_addr().expect("its address").to_string();
        s.script(
            "bin/fails",
            "#!/bin/sh\necho 'error: not logged in' >&2; exit 1\n",
        );
        s.script("bin/hangs", "#!/bin/sh\nexec /bin/sleep 60\n");
        let text = "
            $ doctor
            BAD  Connection refused
            -> if it has TLS: export LDWRAP_REMOTE=grpcs://127.0.0.1:
            ok   backends run in lld's own threads
            Links will be split, but not all is well: 1 problem.

            $ LDWRAP_CACHE_SIZE=0 doctor
            BAD  Connection refused
            -> start the server
            Links will not be split: 1 problem.

            $ LDWRAP_REMOTE_TIMEOUT=1 LDWRAP_REMOTE=grpc://$SILENT doctor
            BAD  no answer within 1 s
            -> export LDWRAP_REMOTE_TIMEOUT=10
            Links will be split, but not all is well: 1 problem.

            $ LDWRAP_REMOTE_TIMEOUT=1 LDWRAP_REMOTE=grpcs://$SILENT doctor
            BAD  no answer within 1 s
            -> export LDWRAP_REMOTE=grpc://127.0.0.1:
            Links will be split, but not all is well: 1 problem.

            $ LDWRAP_REMOTE_TIMEOUT=1 LDWRAP_REMOTE=grpc://192.0.2.1:1 LDWRAP_REMOTE_HEADERS=h LDWRAP_CACHE_SIZE=0 doctor
            note server: LDWRAP_REMOTE begins with grpc://, so that what LDWRAP_REMOTE_HEADERS gives is sent unencrypted
            -> say grpcs://

            $ LDWRAP_REMOTE=http://farm:1 doctor
            BAD  expected grpc://
            -> export LDWRAP_REMOTE=grpc://farm:1
            Links will be split, but not all is well: 1 problem.

            $ LDWRAP_REMOTE=farm doctor
            BAD  expected grpc://
            -> export LDWRAP_REMOTE=grpc://farm
            Links will be split, but not all is well: 1 problem.

            $ LDWRAP_REMOTE=grpc://a:secret@farm doctor
            BAD  not shown
            -> LDWRAP_REMOTE_HEADERS
            Links will be split, but not all is well: 1 problem.

            $ LDWRAP_REMOTE_CREDENTIAL_HELPER=$PWD/bin/fails doctor
            BAD  not logged in
            -> bin/fails get
            Links will be split, but not all is well: 1 problem.

            $ LDWRAP_REMOTE_TIMEOUT=1 LDWRAP_REMOTE_CREDENTIAL_HELPER=$PWD/bin/hangs doctor
            BAD  no credentials within 1 s
            -> bin/hangs get
            Links will be split, but not all is well: 1 problem.

            $ LDWRAP_REMOTE_HEADERS=/nonexistent/headers doctor
            BAD  /nonexistent/headers
            -> write NAME: VALUE lines to /nonexistent/headers
            Links will be split, but not all is well: 1 problem.

            $ LDWRAP_REMOTE_CERT=x doctor
            BAD  go together
            -> LDWRAP_REMOTE_KEY=FILE
            Links will be split, but not all is well: 1 problem.";
        let variables = [
            ("LDWRAP_REMOTE", dead.as_str()),
            ("SILENT", silent.as_str()),
        ];
        transcript(s, &variables, text);
    });
}

/// A real server, alone and behind proxies that refuse something.
#[test]
fn servers_that_answer() {
    one_llvm(|s| {
        let server = Server::start(SYSTEM);
        let proxy = |method, code, tokens| {
            let rule = Rule {
                method,
                fault: Fault::Error(code),
                times: usize::MAX,
            };
            let settings = Settings {
                rules: vec![rule],
                tokens,
                tls: None,
            };
            Proxy::start(server.port(), settings)
        };
        let closed = proxy("None", Code::Ok, vec![("right", usize::MAX)]);
        let incapable = proxy("GetCapabilities", Code::Unimplemented, Vec::new());
        let forbids = proxy("Execute", Code::PermissionDenied, Vec::new());
        let urls = [&closed, &incapable, &forbids].map(Proxy::url);
        s.write("wrong", "authorization: Bearer wrong\n");
        s.write("right", "authorization: Bearer right\n");
        let text = "
            $ doctor
            ok   SHA256
            ok   it executed a small program after
            Links will be split.

            $ LDWRAP_REMOTE_CLANG=/usr/bin/clang-$N doctor
            ok   /usr/bin/clang-$N there is
            Links will be split.

            $ LDWRAP_REMOTE_CLANG=/usr/bin/clang-$OTHER doctor
            BAD  but ours is
            -> unset LDWRAP_REMOTE_CLANG
            Links will be split, but not all is well: 1 problem.

            $ LDWRAP_REMOTE_CLANG=/nonexistent/clang doctor
            BAD  it does not execute
            -> unset LDWRAP_REMOTE_CLANG
            Links will be split, but not all is well: 1 problem.

            $ LDWRAP_REMOTE=$CLOSED doctor
            BAD  Unauthenticated
            -> export LDWRAP_REMOTE_HEADERS=FILE
            Links will be split, but not all is well: 1 problem.

            $ LDWRAP_REMOTE=$CLOSED LDWRAP_REMOTE_HEADERS=wrong doctor
            BAD  no such token
            -> put a token that is good into wrong
            Links will be split, but not all is well: 1 problem.

            $ LDWRAP_REMOTE=$CLOSED LDWRAP_REMOTE_HEADERS=right doctor
            ok   it executed a small program after
            Links will be split.

            $ LDWRAP_REMOTE=$INCAPABLE doctor
            BAD  Unimplemented
            -> a server that has CAS and action cache, with SHA-256
            Links will be split, but not all is well: 1 problem.

            $ LDWRAP_REMOTE=$FORBIDS doctor
            BAD  it does not execute: PermissionDenied
            -> LDWRAP_REMOTE_HEADERS
            Links will be split, but not all is well: 1 problem.";
        let url = server.url();
        let variables = [
            ("LDWRAP_REMOTE", url.as_str()),
            ("CLOSED", urls[0].as_str()),
            ("INCAPABLE", urls[1].as_str()),
            ("FORBIDS", urls[2].as_str()),
        ];
        transcript(s, &variables, text);
    });
}
