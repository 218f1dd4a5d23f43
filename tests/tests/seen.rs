//! What can be seen of links: the line of progress on a terminal, statistics, traces.

use ldwrap_tests::remote::buildbox::{SYSTEM, Server};
use ldwrap_tests::{LENIENT, Session, each_llvm_with_shim, some_llvm};
use nix::pty::{OpenptyResult, Winsize, openpty};
use serde_json::Value;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::PathBuf;
use std::process::Command;

/// Three modules, one of which wants a symbol that is not there if it is compiled with `-DBAD`.
fn sources(s: &Session) {
    s.write(
        "main.c",
        "int printf(const char *, ...); int one(int), two(int);\n\
         #ifdef BAD\nint lost(int);\n#define one(n) lost(n)\n#endif\n\
         int main(void) { return printf(\"%d\\n\", one(6) + two(2)) < 0; }\n",
    );
    for (name, n) in [("one", 1), ("two", 2)] {
        s.write(
            &format!("{name}.c"),
            format!("__attribute__((noinline)) int {name}(int n) {{ return n * {n}; }}\n"),
        );
    }
    s.sh(
        "clang-$N -c -O2 -flto=thin *.c; clang-$N -c -O2 -flto=thin -DBAD main.c -o bad.o; \
          clang-$N -c -O2 one.c -o native.o",
    );
}

const LINK: &str = "clang-$N -flto=thin -fuse-ld=lld -o a.out main.o one.o two.o";
const BAD: &str = "clang-$N -flto=thin -fuse-ld=lld -o a.out bad.o one.o two.o -Wl,-z,nonsense";

/// A command through ldwrap: with lld's own threads, and a cache of the session's own.
fn through_ldwrap(s: &Session, env: &[(&str, &str)], command: &str) -> Command {
    let mut c = s.bash(command);
    s.use_shim(&mut c);
    c.env("LDWRAP_EXECUTOR", "local")
        .env("LDWRAP_CACHE_SIZE", "1G")
        .env("LDWRAP_CACHE_DIR", s.root().join("cache"))
        .envs(env.iter().copied());
    c
}

/// Runs a command whose standard output and error are a terminal: all bytes that came there.
fn on_terminal(mut command: Command) -> Vec<u8> {
    let size = Winsize {
        ws_row: 24,
        ws_col: 80,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    let OpenptyResult { master, slave } = openpty(&size, None).expect("a terminal");
    command.env("TERM", "xterm");
    command.stdout(slave.try_clone().expect("a descriptor"));
    command.stderr(slave);
    let mut child = command.spawn().expect("bash");
    drop(command);
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    let mut master = File::from(master);
    // It fails when nobody has the other end any more.
    while let Ok(n @ 1..) = master.read(&mut buffer) {
        bytes.extend_from_slice(&buffer[..n]);
    }
    child.wait().expect("a child");
    bytes
}

/// What is left on a terminal's screen, without colours.
fn screen(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut lines = vec![Vec::new()];
    let mut column = 0;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        let line = lines.last_mut().expect("a line");
        match c {
            '\r' => column = 0,
            '\n' => lines.push(Vec::new()),
            '\x1b' => {
                let sequence: String = chars
                    .by_ref()
                    .take_while(|c| !c.is_ascii_alphabetic())
                    .collect();
                // Of these, "[K" clears the line; all others that come are colours.
                let rest = text.len() - chars.as_str().len();
                if sequence == "[" && text[..rest].ends_with('K') {
                    line.truncate(column);
                }
            }
            c => {
                line.resize(line.len().max(column + 1), ' ');
                line[column] = c;
                column += 1;
            }
        }
    }
    let lines = lines
        .into_iter()
        .map(|line| line.into_iter().collect::<String>());
    lines
        .map(|line| line.trim_end().to_owned() + "\n")
        .collect()
}

/// lld's messages are whole, and nothing of the line remains, whatever the link says on both streams.
#[test]
fn progress_gives_way_to_lld() {
    each_llvm_with_shim(|s| {
        sources(s);
        let map = format!("{LINK} -Wl,-Map=-,--trace");
        let mixed = format!("echo before; {LINK}; echo after; {BAD} || {LINK}");
        for command in [LINK, &map, &mixed, BAD] {
            let plain = screen(&on_terminal(s.bash(command)));
            for (progress, is_drawn) in [("always", true), ("never", false), ("auto", false)] {
                let env = [("LDWRAP_PROGRESS", progress)];
                let bytes = on_terminal(through_ldwrap(s, &env, command));
                let text = String::from_utf8_lossy(&bytes);
                assert_eq!(
                    screen(&bytes),
                    plain,
                    "LLVM {}: {command}: {text:?}",
                    s.llvm
                );
                // These links are too short for auto.
                let drawn = text.contains("\x1b[K");
                assert_eq!(drawn, is_drawn, "LLVM {}: {progress}: {text:?}", s.llvm);
                assert_eq!(
                    text.contains("a.out lld reads its inputs"),
                    is_drawn,
                    "{text:?}"
                );
            }
        }
        s.assert_nothing_left("links on a terminal");
    });
}

/// After a second, on a terminal that is fit for it, and of links at once only in one line.
#[test]
fn progress_of_links_that_take_long() {
    // It is of no concern which lld it is.
    some_llvm(
        |llvm| llvm == 22,
        |s| {
            sources(s);
            let slow = format!(
                "#!/bin/sh\nsleep 2\nexec /usr/lib/llvm-{}/bin/ld.lld \"$@\"\n",
                s.llvm
            );
            let slow = s.script("slow-lld", &slow).display().to_string();
            let env = [("LDWRAP_REAL_LLD", slow.as_str())];
            let bytes = on_terminal(through_ldwrap(s, &env, LINK));
            let text = String::from_utf8_lossy(&bytes);
            assert!(text.contains("\ra.out lld reads its inputs"), "{text:?}");
            assert_eq!(screen(&bytes), "\n", "{text:?}");
            // It takes its two seconds to say its version, too.
            let plan = s.reports()[0]["phases_ms"]["plan"].as_u64();
            assert!(plan.is_some_and(|plan| plan >= 2000), "{plan:?}");

            for (name, value) in [("TERM", "dumb"), ("LDWRAP_LOG", "error")] {
                let command = format!("export {name}={value}; {LINK}");
                let bytes = on_terminal(through_ldwrap(s, &env, &command));
                assert_eq!(bytes, b"", "{name}");
            }
            // Who sits there is told of settings that are wrong, once.
            let wrong = [("LDWRAP_REMOTE", "localhost:1"), LENIENT];
            let bytes = on_terminal(through_ldwrap(s, &wrong, LINK));
            let text = String::from_utf8_lossy(&bytes);
            assert_eq!(text.matches("expected grpc://").count(), 1, "{text:?}");
            let piped = through_ldwrap(s, &env, LINK).output().expect("bash");
            assert_eq!((piped.stdout, piped.stderr), (vec![], vec![]));

            let several = "for n in 1 2 3; do clang-$N -flto=thin -fuse-ld=lld -o out$n main.o one.o two.o & done; wait";
            let bytes = on_terminal(through_ldwrap(s, &env, several));
            let text = String::from_utf8_lossy(&bytes);
            assert!(
                text.contains(" (+2 links) lld reads its inputs"),
                "{text:?}"
            );
            assert!(!text.contains('\n'), "{text:?}");
            assert_eq!(screen(&bytes), "\n", "{text:?}");
        },
    );
}

fn stats(s: &Session, arguments: &str) -> String {
    let out = through_ldwrap(s, &[], &format!("$LDWRAP stats {arguments}")).output();
    let out = out.expect("bash");
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    String::from_utf8_lossy(&out.stdout).into_owned()
}

fn numbers(s: &Session) -> Value {
    serde_json::from_str(&stats(s, "--json")).expect("one object of JSON")
}

#[test]
fn statistics_are_those_of_all_links() {
    each_llvm_with_shim(|s| {
        sources(s);
        let run = |env: &[(&str, &str)], command: &str| {
            let out = through_ldwrap(s, env, command).output().expect("bash");
            assert!(
                out.status.success(),
                "{}",
                String::from_utf8_lossy(&out.stderr)
            );
        };
        for command in [LINK, LINK, "$LD --version", "$LD -shared -o b.so native.o"] {
            run(&[], command);
        }
        let all = numbers(s);
        let is = |all: &Value, name: &str, number: u64| {
            assert_eq!(all[name], number, "LLVM {}: {name} in {all}", s.llvm);
        };
        is(&all, "through_ldwrap", 2);
        is(&all, "left_to_lld", 1);
        assert_eq!(all["reasons"], serde_json::json!({"no bitcode": 1}));
        is(&all, "modules", 6);
        is(&all, "cache_hits", 3);
        is(&all, "cache_misses", 3);
        is(&all, "compiled_by_lld", 3);
        is(&all, "saved_unknown", 0);
        let near = |a: &Value, b: &Value| a.as_u64().unwrap().abs_diff(b.as_u64().unwrap()) <= 3;
        assert!(near(&all["compile_ms"], &all["saved_ms"]), "{all}");
        let bytes = all["cache_bytes"].as_u64().unwrap();
        assert!(bytes > 1000, "{all}");
        let text = stats(s, "");
        assert!(text.contains("1 no bitcode\n"), "{text}");
        assert!(
            text.contains("  from a cache                   3    50 %\n"),
            "{text}"
        );

        // Without a cache nothing is missed. clang's objects are counted as clang's.
        run(
            &[("LDWRAP_CACHE_SIZE", "0"), ("LDWRAP_EXECUTOR", "clang")],
            LINK,
        );
        let all = numbers(s);
        is(&all, "cache_misses", 3);
        is(&all, "uncached", 3);
        is(&all, "compiled_by_clang", 3);
        // Many at once, and none is lost.
        run(
            &[],
            "for n in {1..12}; do $LD -shared -o b$n.so one.o two.o & $LD -shared -o c$n.so native.o & done; wait",
        );
        let all = numbers(s);
        is(&all, "through_ldwrap", 15);
        is(&all, "left_to_lld", 13);
        stats(s, "--zero");
        is(&numbers(s), "modules", 0);
        run(&[], LINK);
        is(&numbers(s), "cache_hits", 3);
    });
}

/// The traces of a directory: each as it was parsed, which is removed.
fn traces(s: &Session, dir: &str) -> Vec<Value> {
    let files: Vec<PathBuf> = fs::read_dir(s.root().join(dir))
        .expect("a directory of traces")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    let read = |file: &PathBuf| {
        let name = file.file_name().unwrap().to_string_lossy();
        assert!(
            name.starts_with("a.out-") && name.ends_with(".json"),
            "{name}"
        );
        let text = fs::read_to_string(file).expect("a trace");
        fs::remove_file(file).expect("a trace");
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
    };
    files.iter().map(read).collect()
}

fn micros(event: &Value, name: &str) -> u64 {
    event[name]
        .as_u64()
        .unwrap_or_else(|| panic!("{name} of {event}"))
}

/// Asserts what holds for every trace, and gives its backends: module and where its object came from.
fn check(trace: &Value) -> Vec<(String, String)> {
    let total = micros(&trace["otherData"], "total_us");
    assert_eq!(trace["otherData"]["output"], "a.out");
    let events = trace["traceEvents"].as_array().expect("events");
    let named = |what: &str| -> HashMap<u64, String> {
        let of = events
            .iter()
            .filter(|e| e["ph"] == "M" && e["name"] == what);
        of.map(|e| {
            (
                micros(e, "tid"),
                e["args"]["name"].as_str().unwrap().to_owned(),
            )
        })
        .collect()
    };
    assert_eq!(
        named("process_name").into_values().next().as_deref(),
        Some("a.out")
    );
    let threads = named("thread_name");
    let slices: Vec<&Value> = events.iter().filter(|e| e["ph"] == "X").collect();
    let category = |name: &str| {
        slices
            .iter()
            .filter(|e| e["cat"] == name)
            .collect::<Vec<_>>()
    };
    // Phases follow each other, without a gap.
    let mut end = 0;
    let phases = category("phase");
    for phase in &phases {
        assert_eq!(micros(phase, "ts"), end, "{phase}");
        end += micros(phase, "dur");
    }
    assert_eq!(end, total);
    let names: Vec<&Value> = phases.iter().map(|phase| &phase["name"]).collect();
    assert_eq!(names, ["plan", "turn", "backends", "final", "end"]);
    // In a row, what began later begins after the end of what came before.
    let mut ends: HashMap<u64, u64> = HashMap::new();
    for slice in slices.iter().filter(|e| e["cat"] != "phase") {
        let (tid, from) = (micros(slice, "tid"), micros(slice, "ts"));
        let until = from + micros(slice, "dur");
        assert!(threads.contains_key(&tid) && until <= total, "{slice}");
        assert!(
            ends.insert(tid, until).is_none_or(|before| before <= from),
            "{slice}"
        );
    }
    let backends = category("backend");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    for backend in &backends {
        assert!(micros(&backend["args"], "bytes") > 100, "{backend}");
        assert_eq!(backend["name"], backend["args"]["module"]);
        let row = &threads[&micros(backend, "tid")];
        let expected = match backend["args"]["source"].as_str() {
            Some("clang") => "clang ",
            Some("remote") => "server ",
            _ => "lld thread ",
        };
        assert!(row.starts_with(expected), "{backend} in {row}");
    }
    let mut backends: Vec<_> = backends
        .iter()
        .map(|e| (text(&e["name"]), text(&e["args"]["source"])))
        .collect();
    backends.sort();
    backends
}

#[test]
fn traces_are_whole_and_say_where_objects_came_from() {
    let server = Server::start(SYSTEM);
    each_llvm_with_shim(|s| {
        sources(s);
        let dir = s.root().join("traces/of/links").display().to_string();
        let trace = ("LDWRAP_TRACE", dir.as_str());
        let all_from = |source: &str, names: [&str; 3]| {
            let mut all = traces(s, "traces/of/links");
            assert_eq!(all.len(), 1);
            let trace = all.remove(0);
            let expected = names.map(|name| (name.to_owned(), source.to_owned()));
            assert_eq!(check(&trace), expected, "LLVM {}: {trace}", s.llvm);
            trace
        };
        let modules = ["main.o", "one.o", "two.o"];
        // Before lld 16, its threads do not say which module they compile.
        let of_threads = if s.llvm < 16 {
            ["module 0", "module 1", "module 2"]
        } else {
            modules
        };
        s.link_both_cached(&[trace], LINK).splits_cached(0, 3);
        all_from("lld", of_threads);
        s.link_both_cached(&[trace], LINK).splits_cached(3, 0);
        all_from("cache", of_threads);
        s.link_both_with(&[trace], LINK).splits();
        all_from("clang", modules);
        let clang = format!("/usr/bin/clang-{}", s.llvm);
        let url = server.url();
        let env = [
            trace,
            ("LDWRAP_REMOTE", url.as_str()),
            ("LDWRAP_REMOTE_CLANG", &clang),
            ("LDWRAP_REMOTE_LOCAL", "fallback"),
        ];
        s.link_both_with(&env, LINK).splits();
        let traced = all_from("remote", modules);
        let waits = traced["traceEvents"].as_array().unwrap().iter();
        let waits = waits.filter(|e| e["cat"] == "wait" && e["args"]["for"] == "server");
        assert!(waits.count() > 0, "{traced}");
        s.link_both_with(&env, LINK).splits();
        all_from("cache", modules);
        // One backend at a time: the others wait for a slot. What fails is traced too.
        let one = [trace, ("LDWRAP_JOBS", "1"), ("LDWRAP_CACHE_SIZE", "0")];
        s.link_both_cached(&one, &format!("{LINK} -Wl,--threads=3"))
            .splits();
        all_from("lld", of_threads);
        s.link_both_cached(&[trace], BAD);
        for trace in traces(s, "traces/of/links") {
            check(&trace);
        }
        // A directory that cannot be made is no concern of the link's.
        s.link_both_cached(&[("LDWRAP_TRACE", "/dev/null/x")], LINK)
            .splits();
    });
}
