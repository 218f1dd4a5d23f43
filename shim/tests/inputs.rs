//! The inputs that we find against those that the real lld opens, for each tested release.
//!
//! `--dependency-file` lists every file that lld reads as an input, scripts and archives included,
//! in its order and each once; `-t` lists every object that it links, members included. Paths are
//! relative, so all links run in one directory: that of this test process.

mod input_files;

use input_files::{RELEASES, fixtures, run, tool, words};
use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use shim::archive::{self, Archive};
use shim::cmdline::CommandLine;
use shim::inputs::{self, Visit};
use shim::kind::Kind;

/// A dependency file's prerequisites, unescaped.
fn dependencies(file: &[u8]) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let rule = file.split(|&b| b == b'\n').skip(1);
    for line in rule.take_while(|line| !line.is_empty()) {
        let line = line.strip_suffix(b" \\").unwrap_or(line);
        let line = line.trim_ascii_start();
        let mut name = Vec::new();
        let mut bytes = line.iter().peekable();
        while let Some(&b) = bytes.next() {
            match (b, bytes.peek()) {
                (b'\\', Some(b' ' | b'#')) | (b'$', Some(b'$')) => name.extend(bytes.next()),
                _ => name.push(b),
            }
        }
        files.push(PathBuf::from(OsString::from_vec(name)));
    }
    files
}

/// What lld opens, and what it links.
fn opened_by_lld(release: u32, args: &[OsString]) -> Result<(Vec<PathBuf>, Vec<OsString>), String> {
    let id = std::thread::current()
        .name()
        .unwrap_or("x")
        .replace(':', "_");
    let (deps, out) = (format!("{id}-{release}.d"), format!("{id}-{release}.out"));
    let mut all = words(&format!(
        "-m elf_x86_64 -t -o {out} --dependency-file={deps} --allow-multiple-definition --allow-shlib-undefined"
    ));
    all.extend_from_slice(args);
    let done = tool("ld.lld", release, &all);
    if !done.status.success() {
        return Err(String::from_utf8_lossy(&done.stderr).into_owned());
    }
    let trace = done
        .stdout
        .split(|&b| b == b'\n')
        .filter(|line| !line.is_empty());
    let trace = trace
        .map(|line| OsStr::from_bytes(line).to_os_string())
        .collect();
    Ok((dependencies(&fs::read(deps).unwrap()), trace))
}

/// A path as a dependency file has it (`sys::path::remove_dots`).
fn without_dots(path: &OsStr) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in Path::new(path).components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                plain.pop();
            }
            _ => plain.push(part),
        }
    }
    plain
}

/// What we find: files, and objects as `-t` names them.
fn found_by_us(args: &[OsString]) -> Result<(Vec<OsString>, Vec<OsString>), String> {
    let cmd = CommandLine::parse(args).unwrap();
    let (mut files, mut objects) = (Vec::new(), Vec::new());
    inputs::visit(&cmd, &mut |found| {
        let name = match found.member {
            Some(member) => {
                let mut name = found.path.as_os_str().to_os_string();
                name.push("(");
                name.push(&member.name);
                name.push(")");
                name
            }
            None => {
                // A dependency file has each file once.
                let path = found.path.as_os_str();
                if !files.contains(&path.to_os_string()) {
                    files.push(path.to_os_string());
                }
                found.path.as_os_str().to_os_string()
            }
        };
        // -t shows no scripts and no archives.
        let kind = found.kind;
        if !matches!(kind, Kind::Text | Kind::Empty | Kind::Other) && !kind.is_archive() {
            objects.push(name);
        }
        Ok(Visit::Continue)
    })
    .map_err(|e| e.to_string())?;
    Ok((files, objects))
}

/// Links that succeed. `@` is the release's directory, `%` a blank.
const LINKS: &[&str] = &[
    "@/a.o @/b.o",
    "@/a.o @/a.o",
    "-L@/one -L@/two -lx -ly",
    "-L@/two -L@/one -lx",
    "-L@/one -Bstatic -lx",
    "@/a.o -lx -L @/one",
    "-L@/one -L@/two -Bstatic -lx -Bdynamic -lx --push-state -Bstatic -lx --pop-state -lx",
    "-L@/one -L@/two -l:libx.a -l:libs.so -l:deeper.t @/a.o",
    "-L@/two/ -L. -l:@/a.o -ly",
    "-L@/nowhere -L@/two -L@/one --start-group -ly -lx --end-group @/c.o",
    "-L@/one -L@/two -lscript",
    "-L@/one -L@/two -lscript --as-needed -ly -lscript",
    "-L@/two @/scripts/rel.t",
    "@/scripts/dir.t",
    "@/scripts/dir.t -lx -ly",
    "-L@/one @/scripts/dir.t -lx -ly",
    "-L@/two @/scripts/inc.t",
    "-L@/two -L@/one @/scripts/nested.t @/b.o",
    "@/scripts/quoted.t",
    "-T @/scripts/full.t @/a.o",
    "@/a.o -L@/scripts -T full.t @/b.o",
    "@/text @/empty @/a.o",
    "@/one/libx.so @/two/libs.so",
    "@/thin/libt.a @/a.o",
    "--whole-archive @/thin/libt.a --no-whole-archive @/a.o",
    "--whole-archive @/one/libx.a @/two/libx.a @/in%a%dir(1)/lib%(2).a",
    "-L@/in%a%dir(1) --whole-archive -l:lib%(2).a @/in%a%dir(1)/x%(2).o",
    "@/empty.a @/a.o",
    "--whole-archive @/empty.a @/nosyms.a",
    "--start-lib @/a.o @/b.o --end-lib @/c.o",
    "@/a.o --format=binary @/text @/one/libx.a --format=elf @/text",
    "@/a.o -b binary @/bc.o -b elf @/b.o",
    "--sysroot=@/sys -L=/lib -L@/one -lz -lx",
    "--sysroot=@/sys -L=lib @/a.o -lz",
    "--sysroot @/sys -L=/lib -labs @/a.o",
    "-L@/sys/lib --sysroot=@/sys -labs @/a.o",
    "--sysroot=./@/../@/sys/ -L=/lib -labs @/a.o",
    "-L= -L=/ -L=@/two @/a.o -ly",
    "-L@/two -ly @/scripts/equal.t",
    "--just-symbols=@/b.o @/a.o",
    "-nostdlib -L@/one -L@/two -lx -ly",
    "-r @/a.o @/b.o -L@/two -ly",
    "@@/response @/b.o",
    "-L@/one -lx -( -lx -) @/one/../a.o ./@/a.o",
];

/// Links in which lld fails to find or read an input, and so must we.
const FAILURES: &[&str] = &[
    "@/nothing.o",
    "@/a.o -lnothing",
    "-L@/two -l:nothing @/a.o",
    "@/a.o -lx",
    "@/bad.t",
    "@/missing.t",
    "@/garbage",
    "--whole-archive @/cut.a",
    "@/a.o @/one",
    "-T nothing.t @/a.o",
    "-L@/one -nostdlib @/scripts/dir.t",
    "--sysroot=@/sys -L=/lib -labs -L@/one @/a.o -lnothing",
    "-L$SYSROOT/lib --sysroot=@/sys @/a.o -lz",
];

fn args_of(line: &str, v: &str) -> Vec<OsString> {
    let line = match line.strip_prefix("@@/") {
        Some(rest) => format!("@{v}/{}", rest.replace('@', v)),
        None => line.replace('@', v),
    };
    words(&line)
}

#[test]
fn we_open_what_lld_opens() {
    for release in RELEASES {
        let v = fixtures(release);
        for line in LINKS {
            let mut args = args_of(line, &v);
            if !line.contains("-r ") {
                args.push("-shared".into());
            }
            let lld = opened_by_lld(release, &args);
            let (opened, linked) = lld.unwrap_or_else(|e| panic!("ld.lld-{release} {line}: {e}"));
            let (files, objects) = found_by_us(&args).unwrap_or_else(|e| panic!("{line}: {e}"));
            // The response file is none of the inputs.
            let opened: Vec<_> = opened
                .into_iter()
                .filter(|f| !f.ends_with("response"))
                .collect();
            let files: Vec<_> = files.iter().map(|file| without_dots(file)).collect();
            assert_eq!(files, opened, "ld.lld-{release} {line}");
            // Whether -t shows raw data depends on the release.
            if line.contains("binary") {
                continue;
            }
            // Lazy objects are linked only if used, everything else is.
            let linked: Vec<_> = linked
                .into_iter()
                .filter(|l| !l.as_bytes().starts_with(b"<"))
                .collect();
            let set: BTreeSet<_> = objects.iter().collect();
            for name in &linked {
                assert!(
                    set.contains(name),
                    "ld.lld-{release} {line}: {name:?} not in {objects:?}"
                );
            }
            if !line.contains("-lib") && !objects.iter().any(|o| o.as_bytes().ends_with(b")")) {
                assert_eq!(objects, linked, "ld.lld-{release} {line}");
            }
            if line.starts_with("--whole-archive") && !line.contains("--no-whole") {
                assert_eq!(objects, linked, "ld.lld-{release} {line}");
            }
        }
    }
}

#[test]
fn we_fail_where_lld_fails() {
    for release in RELEASES {
        let v = fixtures(release);
        for line in FAILURES {
            let mut args = args_of(line, &v);
            args.push("-shared".into());
            assert!(
                opened_by_lld(release, &args).is_err(),
                "ld.lld-{release} {line}"
            );
            let error = found_by_us(&args).expect_err(line);
            assert!(error.len() > 10, "{line}: {error}");
        }
        // lld runs until its stack ends; we don't.
        let error = found_by_us(&args_of("@/cycle.t", &v)).unwrap_err();
        assert!(error.contains("cycle.t"), "{error}");
    }
}

#[test]
fn bitcode_is_found_wherever_it_is() {
    let release = 19;
    let v = fixtures(release);
    let bytes = |line: &str, enough: u64| {
        let cmd = CommandLine::parse(&args_of(line, &v)).unwrap();
        let found = inputs::bitcode(&cmd, false, enough);
        found.unwrap_or_else(|e| panic!("{line}: {e}")).bytes
    };
    for line in [
        "@/a.o @/one/libx.a",
        "@/a.o -b binary @/bc.o",
        "@/text",
        "--just-symbols=@/bc.o",
    ] {
        assert_eq!(bytes(line, u64::MAX), 0, "{line}");
    }
    let size = |name: &str| fs::metadata(format!("{v}/{name}")).unwrap().len();
    let (one, long, below) = (
        size("bc.o"),
        size("a_long_name_of_bitcode.o"),
        size("thin/sub/bc.o"),
    );
    for (line, sum) in [
        ("@/a.o @/bc.o", one),
        ("@/bc.o @/a.o @/bc.o", 2 * one),
        ("@/a.o @/mixed.a", one + long),
        ("@/bsd.a", one + long),
        ("@/one/libx.a @/thinbc.a", one + below),
    ] {
        assert_eq!(bytes(line, u64::MAX), sum, "{line}");
    }
    // What comes behind enough of it is not even opened.
    assert_eq!(bytes("@/bc.o @/nothing.o", one), one);
    assert_eq!(
        bytes("@/bc.o @/bc.o @/bc.o @/nothing.o", 2 * one + 1),
        3 * one
    );
}

#[test]
fn fat_objects_count_only_when_asked_for() {
    for release in [19, 22] {
        let v = fixtures(release);
        fs::write(format!("{v}/fat.c"), "int fat(void) { return 1; }\n").unwrap();
        run(
            "clang",
            release,
            &format!("-c -flto=thin -ffat-lto-objects {v}/fat.c -o {v}/fat.o"),
        );
        run(
            "llvm-ar",
            release,
            &format!("rcs {v}/fat.a {v}/a.o {v}/fat.o"),
        );
        run(
            "llvm-ar",
            release,
            &format!("rcsT {v}/fatthin.a {v}/a.o {v}/fat.o"),
        );
        for (line, fat) in [
            ("@/fat.o", false),
            ("--fat-lto-objects @/fat.o", true),
            ("--fat-lto-objects @/fat.a", true),
            ("--fat-lto-objects @/fatthin.a", true),
            ("--fat-lto-objects @/a.o @/one/libx.a", false),
            ("--fat-lto-objects --no-fat-lto-objects @/fat.o", false),
        ] {
            let cmd = CommandLine::parse(&args_of(line, &v)).unwrap();
            let found = inputs::bitcode(&cmd, false, 1).unwrap();
            assert_eq!(found.bytes > 0, fat, "{line}");
        }
    }
}

/// Fact 7, and where `OFFSET` points: each identifier that lld makes leads to the module's bytes.
#[test]
fn identifiers_lead_to_their_modules() {
    for release in RELEASES {
        let v = fixtures(release);
        let list = format!("{v}/index.txt");
        for archive in ["mixed.a", "twice.a", "bsd.a", "thinbc.a"] {
            let line = format!(
                "-shared -o {v}/index --thinlto-index-only={list} --allow-multiple-definition \
                 --whole-archive {v}/{archive} {v}/bc.o --thinlto-prefix-replace=;{v}/out/"
            );
            run("ld.lld", release, &line);
            let list = fs::read_to_string(&list).unwrap();
            let bitcode = [&b"BC\xc0\xde"[..]];
            let mut count = 0;
            for id in list.lines() {
                // The list has the names of the native objects: prefix and identifier.
                let id = id.strip_prefix(&format!("{v}/out/")).unwrap_or(id);
                let module = archive::locate(OsStr::new(id)).unwrap();
                let bytes = fs::read(&module.path).unwrap();
                let bytes = &bytes[module.offset as usize..][..module.size as usize];
                let path = format!("{v}/{archive}");
                let name = match id.strip_prefix(&format!("{path}(")) {
                    Some(rest) => {
                        let (member, offset) = rest.rsplit_once(" at ").unwrap();
                        let offset = offset.strip_suffix(')').unwrap().parse().unwrap();
                        let file = fs::File::open(&path).unwrap();
                        let mut archive = Archive::open(Path::new(&path), file).unwrap();
                        let found = archive.member_at(offset).unwrap();
                        assert_eq!(found.header_offset, offset);
                        assert_eq!(module.whole_file, archive.is_thin());
                        if archive.is_thin() {
                            PathBuf::from(&found.name)
                        } else {
                            PathBuf::from(member)
                        }
                    }
                    None => PathBuf::from("bc.o"),
                };
                let original = fs::read(Path::new(&v).join(&name)).unwrap();
                assert!(bytes == original, "{id}: not the bytes of {name:?}");
                assert!(bitcode.iter().any(|magic| bytes.starts_with(magic)), "{id}");
                count += 1;
            }
            let expected = if archive == "twice.a" { 4 } else { 3 };
            assert_eq!(count, expected, "ld.lld-{release} {archive}: {list}");
        }
    }
}

/// Every archive's members as llvm-ar lists them, with the same offsets.
#[test]
fn members_as_llvm_ar_lists_them() {
    for release in RELEASES {
        let v = fixtures(release);
        let archives = [
            "one/libx.a",
            "mixed.a",
            "twice.a",
            "bsd.a",
            "thinbc.a",
            "thin/libt.a",
            "empty.a",
            "in a dir(1)/lib (2).a",
        ];
        for path in archives {
            let path = format!("{v}/{path}");
            let out = tool("llvm-ar", release, &["tO".into(), OsString::from(&path)]);
            assert!(out.status.success(), "llvm-ar-{release} tO {path}");
            let mut archive =
                Archive::open(Path::new(&path), fs::File::open(&path).unwrap()).unwrap();
            let mut lines = String::new();
            while let Some(header) = archive.next_header().unwrap() {
                let member = archive.member(&header).unwrap();
                // llvm-ar shows where the bytes begin. A thin archive's members are listed as
                // their files.
                lines += &match &member.external {
                    Some(file) => format!("{}\n", file.display()),
                    None => {
                        let name = member.name.to_string_lossy();
                        format!("{name} {:#x}\n", member.data_offset)
                    }
                };
            }
            assert_eq!(lines, String::from_utf8_lossy(&out.stdout), "{path}");
        }
    }
}

#[test]
fn names_that_mean_two_things_are_refused() {
    let v = fixtures(19);
    let path = format!("{v}/twice.a");
    let mut archive = Archive::open(Path::new(&path), fs::File::open(&path).unwrap()).unwrap();
    let first = archive.next_header().unwrap().unwrap();
    let offset = archive.member(&first).unwrap().header_offset;
    let id = format!("{v}/twice.a(bc.o at {offset})");
    assert!(!archive::locate(OsStr::new(&id)).unwrap().whole_file);
    for wrong in [
        format!("{v}/twice.a(other.o at {offset})"),
        format!("{v}/twice.a(bc.o at {})", offset + 2),
        format!("{v}/nothing.a(bc.o at {offset})"),
        format!("{v}/nothing.o"),
        v.clone(),
    ] {
        assert!(archive::locate(OsStr::new(&wrong)).is_err(), "{wrong}");
    }
    // The same with a file of that very name.
    fs::create_dir_all(format!("{v}/copy")).unwrap();
    fs::copy(&path, format!("{v}/copy/twice.a")).unwrap();
    let id = format!("{v}/copy/twice.a(bc.o at {offset})");
    fs::write(&id, "x").unwrap();
    let error = archive::locate(OsStr::new(&id)).unwrap_err().to_string();
    assert!(error.contains("more than one"), "{error}");
}

/// Opening a FIFO must neither wait for its writer nor take anything from it.
#[test]
fn fifos_and_directories_are_refused_at_once() {
    let v = fixtures(19);
    let status = Command::new("mkfifo").arg(format!("{v}/fifo")).status();
    assert!(status.unwrap().success());
    for line in [
        "@/fifo",
        "-L@ -l:fifo",
        "-T @/fifo",
        "@/one",
        "@/a.o/x",
        "-T @/one",
    ] {
        let cmd = CommandLine::parse(&args_of(line, &v)).unwrap();
        assert!(inputs::bitcode(&cmd, false, 1).is_err(), "{line}");
    }
}

/// Objects with headers overwritten at random: fat or not, but an answer.
#[test]
fn hostile_fat_objects() {
    let v = fixtures(22);
    fs::write(
        format!("{v}/hostile.c"),
        "int hostile(void) { return 1; }\n",
    )
    .unwrap();
    let flags = format!("-c -flto=thin -ffat-lto-objects {v}/hostile.c -o {v}/hostile.o");
    run("clang", 22, &flags);
    let seed = fs::read(format!("{v}/hostile.o")).unwrap();
    let table = u64::from_le_bytes(seed[40..48].try_into().unwrap()) as usize;
    let cmd = CommandLine::parse(&args_of("--fat-lto-objects @/mutant.o", &v)).unwrap();
    let path = format!("{v}/mutant.o");
    let mut random = fastrand::Rng::with_seed(1);
    let mut below = |n: usize| random.usize(..n);
    let (mut fat, mut thin) = (0, 0);
    for _ in 0..3_000 {
        let mut bytes = seed.clone();
        for _ in 0..=below(3) {
            let at = match below(3) {
                0 => 4 + below(60),
                1 => table + below(seed.len() - table),
                _ => below(seed.len()),
            };
            bytes[at] = [0, 1, 0x7f, 0xff, below(256) as u8][below(5)];
        }
        bytes.truncate(seed.len() - [0, 0, 0, below(200)][below(4)]);
        fs::write(&path, &bytes).unwrap();
        match inputs::bitcode(&cmd, false, 1).map(|found| found.bytes) {
            Ok(0) => thin += 1,
            Ok(_) => fat += 1,
            // An object without e_type is a script to lld.
            Err(_) => {}
        }
    }
    assert!(fat > 100 && thin > 100, "{fat} {thin}");
}
