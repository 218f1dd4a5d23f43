//! Inputs of every kind, made with the tools of each tested release.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::OnceLock;

/// The releases that are tested.
pub const RELEASES: [u32; 4] = shim::options::TESTED;

/// Runs a program of a release, `clang-19`, and wants it to succeed.
pub fn run(program: &str, release: u32, args: &str) {
    let out = tool(program, release, &words(args));
    let err = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{program}-{release} {args}\n{err}");
}

/// Runs a program of a release, whatever comes of it.
pub fn tool(program: &str, release: u32, args: &[OsString]) -> Output {
    let program = format!("{program}-{release}");
    let out = Command::new(&program).args(args).output();
    out.unwrap_or_else(|e| panic!("cannot run {program}: {e}"))
}

/// Splits at blanks; `%` stands for one within a word.
pub fn words(args: &str) -> Vec<OsString> {
    args.split_whitespace()
        .map(|word| OsString::from(word.replace('%', " ")))
        .collect()
}

/// The directory of the fixtures of a release, relative to the working directory of this process,
/// with all fixtures built.
pub fn fixtures(release: u32) -> String {
    static READY: OnceLock<()> = OnceLock::new();
    READY.get_or_init(|| {
        let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("inputs");
        let _ = fs::remove_dir_all(&root);
        fs::create_dir_all(&root).unwrap();
        std::env::set_current_dir(&root).unwrap();
        RELEASES.into_iter().for_each(build);
    });
    format!("v{release}")
}

fn build(release: u32) {
    let v = format!("v{release}");
    for dir in [
        "one",
        "two",
        "thin/sub",
        "in%a dir(1)",
        "sys/lib",
        "scripts",
    ] {
        fs::create_dir_all(format!("{v}/{}", dir.replace('%', " "))).unwrap();
    }
    let compile = |name: &str, flags: &str| {
        let symbol = name.replace(['/', ' ', '(', ')', '.'], "_");
        let source = format!("{v}/source.c");
        fs::write(&source, format!("int f_{symbol}(void) {{ return 1; }}\n")).unwrap();
        let target = name.replace(' ', "%");
        run(
            "clang",
            release,
            &format!("-O1 -fPIC {flags} -c {source} -o {v}/{target}"),
        );
    };
    for name in [
        "a.o",
        "b.o",
        "c.o",
        "d.o",
        "thin/sub/m.o",
        "thin/sub/n.o",
        "in a dir(1)/x (2).o",
    ] {
        compile(name, "");
    }
    for name in [
        "bc.o",
        "thin/sub/bc.o",
        "a_long_name_of_bitcode.o",
        "odd (1) at 8).o",
    ] {
        compile(name, "-flto=thin");
    }
    let ar = |args: &str| run("llvm-ar", release, &args.replace('@', &v));
    let lld = |args: &str| run("ld.lld", release, &args.replace('@', &v));
    ar("rcs @/one/libx.a @/a.o @/b.o");
    ar("rcs @/two/libx.a @/c.o");
    ar("rcs @/two/liby.a @/d.o");
    ar("rcs @/sys/lib/libz.a @/d.o");
    ar("rcs @/in%a%dir(1)/lib%(2).a @/in%a%dir(1)/x%(2).o @/a.o");
    ar("rcs @/empty.a");
    ar("rcs @/nosyms.a @/a.o");
    ar("rcS @/mixed.a @/a.o @/a_long_name_of_bitcode.o @/bc.o");
    ar("rcs @/twice.a @/bc.o");
    ar("qcs @/twice.a @/bc.o @/odd%(1)%at%8).o");
    ar("--format=bsd rcs @/bsd.a @/bc.o @/a_long_name_of_bitcode.o @/a.o");
    ar("rcsT @/thin/libt.a @/thin/sub/m.o @/thin/sub/n.o");
    ar("rcsT @/thinbc.a @/thin/sub/n.o @/thin/sub/bc.o @/bc.o");
    lld("-shared -o @/one/libx.so @/a.o");
    lld("-shared -o @/two/libs.so @/b.o");
    let script = |name: &str, text: &str| {
        fs::write(format!("{v}/{name}"), text.replace('@', &v)).unwrap();
    };
    script("text", "INPUT(@/a.o)");
    script("empty", "");
    script(
        "one/libscript.so",
        "/* x */ OUTPUT_FORMAT(elf64-x86-64)\nGROUP(libx.a AS_NEEDED(-ly libs.so))",
    );
    script("scripts/rel.t", "INPUT(near.o @/b.o libs.so)");
    fs::copy(format!("{v}/c.o"), format!("{v}/scripts/near.o")).unwrap();
    script(
        "scripts/dir.t",
        "SEARCH_DIR(@/two) INPUT(-ly \"libs.so\" -l:libx.a)",
    );
    script(
        "scripts/inc.t",
        "INPUT(near.o)\nINCLUDE @/scripts/inner.t\nINPUT(@/b.o)",
    );
    script("scripts/inner.t", "INPUT(@/a.o); INCLUDE deeper.t");
    script("two/deeper.t", "INPUT(@/d.o)");
    script("scripts/quoted.t", "INPUT(\"@/in a dir(1)/x (2).o\")");
    script(
        "scripts/full.t",
        "ENTRY(f) SECTIONS { .text : { *(.text .text.*) KEEP(*(.x)) } /* } */ }\nINPUT(@/d.o)",
    );
    script("scripts/nested.t", "GROUP(@/text @/one/libscript.so)");
    script("sys/lib/libabs.so", "GROUP(/lib/libz.a =lib/libz.a libz.a)");
    script("scripts/equal.t", "INPUT(=@/a.o)");
    script("bad.t", "STARTUP(@/a.o)");
    script("missing.t", "INPUT(@/nothing.o)");
    script("cycle.t", "INPUT(@/cycle.t)");
    script("response", "@/a.o -L@/two -ly");
    fs::write(format!("{v}/garbage"), b"\x01\x02\x03 INPUT(").unwrap();
    let archive = fs::read(format!("{v}/one/libx.a")).unwrap();
    fs::write(format!("{v}/cut.a"), &archive[..archive.len() - 10]).unwrap();
}
