//! Real shards, rewritten: all that was in them is still there, bit for bit as LLVM reads it, with
//! the new names and the added summaries. The oracle is `llvm-bcanalyzer`.

use ldwrap::jobs::bitcode::module::{self, LtoKind};
use ldwrap::jobs::bitcode::shard::Shard;
use std::path::Path;
use std::process::Command;

/// The LLVM versions to test: those that `LDWRAP_LLVM` names, or those of Debian's packages that are installed.
fn llvms() -> Vec<u32> {
    let versions: Vec<u32> = match std::env::var("LDWRAP_LLVM") {
        Ok(list) => list
            .split_whitespace()
            .map(|n| n.parse().expect("LDWRAP_LLVM has versions of LLVM"))
            .collect(),
        Err(_) => shim::lld::MAJORS
            .filter(|n| Path::new(&format!("/usr/lib/llvm-{n}/bin/llvm-bcanalyzer")).exists())
            .collect(),
    };
    assert!(!versions.is_empty(), "no LLVM to test with");
    versions
}

fn run(command: &mut Command) -> String {
    let out = command
        .output()
        .unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(
        out.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&out.stderr)
    );
    String::from_utf8(out.stdout).unwrap()
}

/// Shards of a small link: three modules that import from each other.
fn shards(llvm: u32, dir: &Path) -> Vec<(String, Vec<u8>)> {
    let sources = [
        (
            "a",
            "int b(int); extern int far; int main(int n, char **v) { return b(n) + far; }",
        ),
        (
            "b",
            "int c(int); int far = 3; static int s(int x) { return c(x) + far; }\nint b(int x) { return s(x) + s(x + 1); }",
        ),
        (
            "c",
            "__attribute__((weak)) int c(int x) { return x * 3; } int (*table[])(int) = {c};",
        ),
    ];
    let clang = format!("clang-{llvm}");
    for (name, text) in sources {
        std::fs::write(dir.join(format!("{name}.c")), text).unwrap();
        run(Command::new(&clang).current_dir(dir).args([
            "-c",
            "-O2",
            "-flto=thin",
            &format!("{name}.c"),
        ]));
    }
    run(Command::new(format!("ld.lld-{llvm}"))
        .current_dir(dir)
        .args(["-e", "main", "--thinlto-index-only", "a.o", "b.o", "c.o"]));
    sources
        .iter()
        .map(|(name, _)| {
            let file = dir.join(format!("{name}.o.thinlto.bc"));
            (format!("{name}.o"), std::fs::read(file).unwrap())
        })
        .collect()
}

/// A bitcode file as `llvm-bcanalyzer` dumps it, without what a change of length changes.
fn dump(llvm: u32, dir: &Path, bytes: &[u8]) -> Vec<String> {
    let file = dir.join("dump.bc");
    std::fs::write(&file, bytes).unwrap();
    run(Command::new(format!("llvm-bcanalyzer-{llvm}"))
        .arg("-dump")
        .arg(&file))
    .lines()
    .take_while(|line| !line.starts_with("Summary of"))
    .map(|line| match line.split_once(" NumWords=") {
        Some((block, _)) => block.to_owned(),
        None => line.to_owned(),
    })
    .collect()
}

/// Lines outside MODULE_STRTAB_BLOCK, without abbreviation numbers.
fn outside_paths(lines: &[String]) -> Vec<&str> {
    let mut inside = false;
    lines
        .iter()
        .map(|line| line.trim())
        .filter(|line| {
            inside |= line.starts_with("<MODULE_STRTAB_BLOCK");
            let keep = !inside;
            inside &= !line.starts_with("</MODULE_STRTAB_BLOCK");
            keep
        })
        .collect()
}

#[test]
fn a_rewritten_shard_keeps_every_record_and_gains_the_new_ones() {
    for llvm in llvms() {
        let dir = tempfile::tempdir().unwrap();
        for (name, bytes) in shards(llvm, dir.path()) {
            let shard = Shard::parse(&bytes).unwrap();
            let own = shard
                .modules
                .iter()
                .find(|m| m.path == name.as_bytes())
                .unwrap()
                .id;
            assert!(
                shard.modules.iter().all(|m| m.hashed),
                "LLVM {llvm}: {:?}",
                shard.modules
            );
            let new = [0x1234_5678_9abc_def0, u64::MAX, 1];
            let rename = |path: &[u8]| [b"m/", path].concat();
            let rewritten = shard.rewrite(own, &new, rename).unwrap();

            let (before, after) = (
                dump(llvm, dir.path(), &bytes),
                dump(llvm, dir.path(), &rewritten),
            );
            let (before, after) = (outside_paths(&before), outside_paths(&after));
            let added: Vec<&&str> = after.iter().filter(|line| !before.contains(line)).collect();
            assert_eq!(added.len(), 6, "LLVM {llvm}: {added:#?}");
            let kept: Vec<_> = after.iter().filter(|line| !added.contains(line)).collect();
            assert_eq!(
                kept,
                before.iter().collect::<Vec<_>>(),
                "LLVM {llvm}, {name}"
            );

            // And as we read it ourselves.
            let again = Shard::parse(&rewritten).unwrap();
            let paths = |s: &Shard| s.modules.iter().map(|m| m.path.clone()).collect::<Vec<_>>();
            assert_eq!(
                paths(&again),
                paths(&shard).iter().map(|p| rename(p)).collect::<Vec<_>>()
            );
            let (old, added) = again.summaries.split_at(shard.summaries.len());
            assert_eq!(old, shard.summaries);
            assert!(added.iter().all(|s| s.module == own && s.dso_local));
            assert_eq!(added.iter().map(|s| s.guid).collect::<Vec<_>>(), new);
            // LLVM's own reader takes it.
            std::fs::write(dir.path().join("new.bc"), &rewritten).unwrap();
            run(Command::new(format!("llvm-dis-{llvm}"))
                .arg(dir.path().join("new.bc"))
                .args(["-o", "-"]));
        }
    }
}

#[test]
fn modules_are_read_as_llvm_nm_reads_them() {
    for llvm in llvms() {
        let dir = tempfile::tempdir().unwrap();
        shards(llvm, dir.path());
        for name in ["a.o", "b.o", "c.o"] {
            let file = dir.path().join(name);
            let bytes = std::fs::read(&file).unwrap();
            let modules = module::scan(&bytes).unwrap();
            assert_eq!(modules.len(), 1);
            assert_eq!(modules[0].kind, LtoKind::Thin);
            assert!(module::has_thin(&bytes).unwrap());
            assert!(
                modules[0].triple.starts_with(b"x86_64-")
                    || modules[0].triple.starts_with(b"aarch64-")
            );
            let nm = run(Command::new(format!("llvm-nm-{llvm}"))
                .args(["-p", "--format=posix"])
                .arg(&file));
            let mut expected: Vec<&str> = nm
                .lines()
                .filter_map(|line| line.split_whitespace().next())
                .collect();
            expected.sort_unstable();
            let mut named: Vec<String> = modules[0]
                .globals
                .iter()
                .map(|g| String::from_utf8(g.name.to_vec()).unwrap())
                .filter(|n| !n.starts_with("llvm."))
                .collect();
            named.sort_unstable();
            assert_eq!(named, expected, "LLVM {llvm}, {name}");
        }
    }
}

#[test]
fn regular_lto_is_told_from_thin() {
    for llvm in llvms() {
        let dir = tempfile::tempdir().unwrap();
        let source = "struct A { virtual int f(); int g(); }; int A::f() { return 1; }\n\
                      int A::g() { return f(); }";
        std::fs::write(dir.path().join("v.cc"), source).unwrap();
        let compile = |flags: &[&str]| {
            run(Command::new(format!("clang-{llvm}"))
                .current_dir(dir.path())
                .args(["-c", "-O2", "-fvisibility=hidden", "v.cc", "-o", "v.o"])
                .args(flags));
            std::fs::read(dir.path().join("v.o")).unwrap()
        };
        let full = compile(&["-flto"]);
        assert!(!module::has_thin(&full).unwrap(), "LLVM {llvm}");
        assert!(
            module::scan(&full)
                .unwrap()
                .iter()
                .all(|m| m.kind != LtoKind::Thin)
        );

        let split = compile(&["-flto=thin", "-fwhole-program-vtables"]);
        assert!(module::has_thin(&split).unwrap());
        let kinds: Vec<_> = module::scan(&split)
            .unwrap()
            .iter()
            .map(|m| m.kind)
            .collect();
        assert_eq!(
            kinds,
            [LtoKind::Thin, LtoKind::Regular { summary: true }],
            "LLVM {llvm}"
        );
    }
}

/// Mutated shards and modules: an error or a result, never a panic or a hang.
#[test]
fn damaged_bitcode_is_refused_or_read() {
    let dir = tempfile::tempdir().unwrap();
    let newest = llvms().into_iter().max().expect("some LLVM");
    let mut seeds: Vec<Vec<u8>> = shards(newest, dir.path())
        .into_iter()
        .map(|(_, b)| b)
        .collect();
    seeds.push(std::fs::read(dir.path().join("b.o")).unwrap());
    let mut random = fastrand::Rng::with_seed(1);
    let mut accepted = 0;
    for round in 0..20_000 {
        let mut bytes = seeds[round % seeds.len()].clone();
        for _ in 0..=random.u8(..6) {
            let at = random.usize(..bytes.len());
            match random.u8(..3) {
                0 => bytes[at] ^= 1 << random.u8(..8),
                1 => bytes[at] = random.u8(..),
                _ => bytes.truncate(at.max(1)),
            }
        }
        let _ = module::scan(&bytes);
        let _ = module::has_thin(&bytes);
        if let Ok(shard) = Shard::parse(&bytes) {
            accepted += 1;
            if let Ok(new) = shard.rewrite(0, &[1, 2, 3], |p| p.to_vec()) {
                let again = Shard::parse(&new).expect("what we wrote can be read");
                assert_eq!(again.summaries.len(), shard.summaries.len() + 3);
            }
        }
    }
    assert!(
        accepted > 100,
        "the mutations are too wild to test anything: {accepted}"
    );
}
