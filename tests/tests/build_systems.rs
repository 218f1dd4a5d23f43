//! Small projects, built by each build system: their links come to ldwrap, and give what lld alone gives.
//!
//! The projects are in `tests/fixtures/projects`: a shared library of two modules, and a program of two that uses it.
//! `scripts/try-ways` builds the same with the installed package.

use ldwrap_tests::{Session, llvm_22_with_shim, rust_tools};

/// Before a command, makes its links go through ldwrap: nothing for the plain build.
const RUN: (&str, &str) = ("RUN", "$LDWRAP run --");

/// The shim's directory first in `PATH`, with compilers' names, and nothing else.
const PATH: (&str, &str) = ("PATH", "$SHIMS:$PATH");

/// Builds the project `name` twice in the directory `build`, plainly and with a variable set that leads to ldwrap, whose
/// value a shell expands. `outputs` have to be equal, each linked from so many modules, or more, through ldwrap; the first
/// prints "linked" when it is run.
fn builds(s: &Session, name: &str, way: (&str, &str), command: &str, outputs: &[(&str, u64)]) {
    eprintln!("-- {name}, {}: {command}", way.0);
    let unpack = format!(
        "cp -r $FIXTURES/projects/sources build; cp -r $FIXTURES/projects/{name}/. build; cd build"
    );
    // Real lld for gcc, where nothing else names one.
    let path = "PATH=$PATH:/usr/lib/llvm-$N/bin";
    // The plain build is the same for each way to ldwrap.
    let this = format!("{name}: {command}\n");
    if !s.exists("plain/command") || s.read("plain/command") != this {
        s.sh(&format!(
            "rm -rf build plain; mkdir plain; {path}; unset COMPILER_PATH; {unpack}; {command} >../log 2>&1 || {{ cat ../log; exit 1; }}"
        ));
        for (output, _) in outputs {
            s.sh(&format!("cp build/{output} plain"));
        }
        s.write("plain/command", this);
    }
    s.sh("rm -rf build ../report.json");
    let (variable, value) = way;
    let mut c = s.bash(&format!(
        "{path}; export {variable}=\"{value}\"; {unpack}; {command} >../log 2>&1"
    ));
    s.use_shim(&mut c);
    c.env("LDWRAP_EXECUTOR", "local")
        .env("SHIMS", s.prefix().join("lib/ldwrap"))
        .env_remove("COMPILER_PATH");
    let status = c.status().expect("bash");
    assert!(status.success(), "{status}\n{}", s.read("log"));
    s.assert_nothing_left(command);
    let reports = s.reports();
    for (output, modules) in outputs {
        let file = output.rsplit('/').next().unwrap_or(output);
        s.sh(&format!("cmp plain/{file} build/{output}"));
        let of_output = |output: &&serde_json::Value| {
            let linked = output["output"].as_str().unwrap_or_default();
            linked
                .rsplit('/')
                .next()
                .is_some_and(|linked| linked.starts_with(file))
        };
        let report = reports.iter().find(of_output);
        let report = report.unwrap_or_else(|| panic!("no report of {output}: {reports:?}"));
        let linked = report["modules"].as_u64().unwrap_or(0);
        assert_eq!(report["action"], "split", "{report}");
        assert!(linked >= *modules, "{report}");
    }
    let run = format!("LD_LIBRARY_PATH=build/.libs build/{}", outputs[0].0);
    assert_eq!(s.sh(&run), "linked\n");
}

/// What most build systems make.
const TOOL: [(&str, u64); 2] = [("tool", 2), ("libpart.so", 2)];

/// The shim by the names of the compilers that are here.
fn with_names(s: &Session) {
    s.sh("../p/bin/ldwrap compilers >/dev/null");
}

#[test]
fn make() {
    llvm_22_with_shim(|s| {
        with_names(s);
        for command in ["make -j2 CC=clang-$N", "make CC=clang-$N LINK=gcc"] {
            for way in [RUN, PATH] {
                builds(s, "make", way, &format!("${{RUN:-}} {command}"), &TOOL);
            }
        }
        // Nothing but PATH is kept, and what the test itself needs.
        let cleared = "env -i PATH=$PATH TMPDIR=$TMPDIR $(env | grep ^LDWRAP_) make CC=clang-$N";
        builds(s, "make", PATH, cleared, &TOOL);
        builds(s, "make", PATH, &format!("{cleared} LINK=gcc"), &TOOL);
    });
}

#[test]
fn ninja() {
    llvm_22_with_shim(|s| {
        with_names(s);
        for (way, link) in [
            (RUN, "clang-$N"),
            (PATH, "clang-$N"),
            (RUN, "gcc"),
            (PATH, "gcc"),
        ] {
            let command = format!(
                "sed \"s/@CC@/clang-$N/; s/@LINK@/{link}/\" build.ninja.in >build.ninja; ${{RUN:-}} ninja"
            );
            builds(s, "ninja", way, &command, &TOOL);
        }
    });
}

/// CMake keeps the path of the compiler: a build goes on with it, also without ldwrap.
#[test]
fn cmake() {
    llvm_22_with_shim(|s| {
        let outputs = [("b/tool", 2), ("b/libpart.so", 2)];
        for names in [false, true] {
            if names {
                with_names(s);
            }
            for generator in ["Ninja", "Unix Makefiles"] {
                let configure = format!("CC=clang-$N ${{RUN:-}} cmake -G '{generator}' -B b");
                let build = "${RUN:-} cmake --build b";
                let command = format!("{{ {configure}; {build}; }}");
                builds(s, "cmake", RUN, &command, &outputs);
            }
            s.sh("rm build/b/tool; cmake --build build/b; cmp plain/tool build/b/tool");
        }
        let command = "{ CC=clang-$N cmake -B b; cmake --build b; }";
        builds(s, "cmake", PATH, command, &outputs);
    });
}

#[test]
fn meson() {
    llvm_22_with_shim(|s| {
        with_names(s);
        let outputs = [("b/tool", 2), ("b/libpart.so", 2)];
        let command = "{ CC=clang-$N CC_LD=lld ${RUN:-} meson setup b; ${RUN:-} ninja -C b; }";
        for way in [RUN, PATH] {
            builds(s, "meson", way, command, &outputs);
        }
    });
}

#[test]
fn autotools_and_libtool() {
    llvm_22_with_shim(|s| {
        with_names(s);
        let outputs = [(".libs/tool", 2), (".libs/libpart.so.0.0.0", 2)];
        let configure = "${RUN:-} ./configure CC=clang-$N AR=llvm-ar-$N NM=llvm-nm-$N RANLIB=llvm-ranlib-$N \
                         CFLAGS='-O2 -flto=thin' LDFLAGS='-flto=thin -fuse-ld=lld'";
        s.sh("cp -r $FIXTURES/projects/autotools generated; cd generated; autoreconf -i");
        for (way, make) in [(RUN, "make"), (PATH, "make CCLD=gcc")] {
            let command = format!("{{ cp -a ../generated/. .; {configure}; ${{RUN:-}} {make}; }}");
            builds(s, "autotools", way, &command, &outputs);
        }
    });
}

/// By clang, and by rustc's own `cc`, which is told to leave out rustc's own lld (docs/lld.md, "Finding the linker").
#[test]
fn cargo() {
    llvm_22_with_shim(|s| {
        with_names(s);
        let (others, rustup) = rust_tools();
        for flags in [
            "-Clinker=clang-$N -Clink-arg=-fuse-ld=lld",
            "-Clink-self-contained=-linker",
        ] {
            for way in [RUN, PATH] {
                let command = format!(
                    "PATH=$PATH:{others} RUSTUP_HOME={rustup} RUSTFLAGS=\"-Clinker-plugin-lto {flags}\" \
                     ${{RUN:-}} cargo build --release --offline"
                );
                builds(s, "cargo", way, &command, &[("target/release/tool", 1)]);
            }
        }
    });
}

/// Caches of compiles, before the compiler's name and by it.
#[test]
fn ccache_and_sccache() {
    llvm_22_with_shim(|s| {
        with_names(s);
        s.sh("mkdir names; ln -s /usr/bin/ccache names/clang-$N");
        for way in [RUN, PATH] {
            builds(s, "make", way, "${RUN:-} make CC='ccache clang-22'", &TOOL);
            let by_name = "PATH=$PWD/../names:$PATH ${RUN:-} make CC=clang-$N";
            builds(s, "make", way, by_name, &TOOL);
            // Its server runs as long as the build, if it starts: that of Debian 12 sometimes does not,
            // and then leaves the socket that it made for the start.
            let sccache = "{ export SCCACHE_SERVER_PORT=$((20000 + $$ % 10000)) SCCACHE_DIR=$HOME/sccache; \
                           trap 'sccache --stop-server' EXIT; \
                           for try in {1..5}; do ! TMPDIR=$HOME timeout 3 sccache --start-server || break; done; \
                           ${RUN:-} make CC='sccache clang-22'; }";
            builds(s, "make", way, sccache, &TOOL);
        }
        let launchers = "-DCMAKE_C_COMPILER_LAUNCHER=ccache -DCMAKE_C_LINKER_LAUNCHER=ccache";
        let cmake = format!(
            "{{ CC=clang-$N ${{RUN:-}} cmake {launchers} -B b; ${{RUN:-}} cmake --build b; }}"
        );
        let outputs = [("b/tool", 2), ("b/libpart.so", 2)];
        builds(s, "cmake", RUN, &cmake, &outputs);
    });
}

/// A script in the compiler's place, as Nix has it: with a `PATH` and a `-B` of its own.
#[test]
fn a_wrapper_script() {
    llvm_22_with_shim(|s| {
        s.sh("mkdir bintools; ln -s /usr/bin/as bintools/as");
        let dir = s.dir().display().to_string();
        s.script(
            "cc",
            &format!("#!/bin/sh\nPATH=/usr/bin:/bin exec clang-22 \"$@\" -B{dir}/bintools\n"),
        );
        builds(s, "make", RUN, "${RUN:-} make CC=../cc", &TOOL);
        // One that has an lld there: that comes before COMPILER_PATH, and an option before that.
        s.sh("ln -s /usr/lib/llvm-$N/bin/ld.lld bintools/ld.lld");
        let command = "make CC=../cc FLAG=${SHIM:-}";
        builds(s, "make", ("SHIM", "-B$SHIMS"), command, &TOOL);
        builds(
            s,
            "make",
            ("SHIM", "--ld-path=$SHIMS/ld.lld"),
            command,
            &TOOL,
        );
    });
}
