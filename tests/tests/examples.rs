//! The examples of README.md and docs/: what they show is what happens.
//!
//! Each block that is indented by four spaces has a mark before it: `<!-- run: NAME -->`, and it is run as it is written, in a
//! directory that [`EXAMPLES`] prepares; or `<!-- not run: REASON -->`. In a block with a prompt (`$ `), the other lines are what
//! the commands print: numbers may be others, and `...` stands for any lines.

use std::fs;
use std::path::Path;

use ldwrap_tests::{Session, llvm_22_with_shim, rust_tools};

/// What an example needs, and what has to be there afterwards.
struct Example {
    name: &'static str,
    /// Makes the files that the block takes for granted, and sets what a user has set.
    prepare: &'static str,
    /// Run after the block, in the same shell.
    then: &'static str,
    /// How many links have to have gone through ldwrap, at least; not those of `ldwrap verify`, which fails if it compares none.
    through_ldwrap: usize,
}

/// A Makefile, sources, and a shell in which the shim is found.
const PROJECT: &str = "cp $FIXTURES/projects/sources/* $FIXTURES/projects/make/* .
    export CC=clang-22 COMPILER_PATH=$HOME/.local/lib/ldwrap";

const EXAMPLES: [Example; 12] = [
    Example {
        name: "make",
        // Two programs with enough bitcode for a cache to pay, and one without.
        prepare: r#"unset LDWRAP_SPLIT
            for i in {1..1500}; do
                echo "int f$i(int *p, int n) { while (n-- > $i) p[n] ^= p[n + $i] * n + g(p + $i, n); return *p; }"
            done | { echo 'int g(int *, int);'; cat; } >part.c
            echo 'int f7(int *, int); int g(int *p, int n) { return *p + n; }
                  int main(int n, char **p) { return f7((int *)p, n) == 7; }' | tee server.c >client.c
            echo 'int main(void) { return 0; }' >tiny.c
            printf 'all: server client tiny\nserver client: part.o\nserver: server.o\nclient: client.o\ntiny: tiny.o\n' >Makefile"#,
        then: ":",
        through_ldwrap: 2,
    },
    Example {
        name: "environment",
        prepare: "cp $FIXTURES/projects/sources/* $FIXTURES/projects/make/* .",
        then: "make CC=clang-22; ./tool",
        through_ldwrap: 2,
    },
    Example {
        name: "cmake",
        prepare: r"cp $FIXTURES/projects/sources/* .
            printf '%s\n' 'cmake_minimum_required(VERSION 3.20)' 'project(tool C)' 'add_library(part SHARED part.c more.c)' \
                'add_executable(tool main.c extra.c)' 'target_link_libraries(tool part)' >CMakeLists.txt",
        then: "build/tool",
        through_ldwrap: 2,
    },
    Example {
        name: "meson",
        prepare: "cp $FIXTURES/projects/sources/* $FIXTURES/projects/meson/* .
            sed -i 's/, default_options.*/)/' meson.build",
        then: "build/tool",
        through_ldwrap: 2,
    },
    Example {
        name: "autotools",
        prepare: "cp $FIXTURES/projects/sources/* $FIXTURES/projects/autotools/* .; autoreconf -i",
        then: "./tool",
        through_ldwrap: 2,
    },
    Example {
        name: "cargo",
        prepare: "cp -r $FIXTURES/projects/cargo/* .; export CARGO_NET_OFFLINE=true",
        then: "target/release/tool",
        through_ldwrap: 1,
    },
    Example {
        name: "working",
        prepare: PROJECT,
        then: "./tool",
        through_ldwrap: 0,
    },
    Example {
        name: "page",
        prepare: PROJECT,
        then: "grep -q '<html' page.html",
        // The last command has a report of its own.
        through_ldwrap: 2,
    },
    Example {
        name: "keep",
        prepare: PROJECT,
        then: "rm tool; kept/tool-1/lld; ./tool",
        through_ldwrap: 2,
    },
    Example {
        name: "verify",
        prepare: PROJECT,
        then: r#"grep -q '"success":true' verify.json"#,
        through_ldwrap: 0,
    },
    Example {
        name: "report",
        prepare: "cp $FIXTURES/projects/sources/* $FIXTURES/projects/make/* .
            LDWRAP_REPORT=report.json LDWRAP_TRACE=traces ldwrap run -- make CC=clang-22",
        then: "grep -q '<html' page.html",
        through_ldwrap: 0,
    },
    Example {
        name: "phases",
        prepare: "echo 'int a(void); int main(void) { return a(); }' >elf0.c
            echo 'int b(void); int a(void) { return b() - 3; }' >a.c
            echo 'int c(void); int b(void) { return c() + 1; }' >b.c
            echo 'int last(void); int c(void) { return last() + 1; }' >c.c
            echo 'int last(void) { return 1; }' >elf1.c
            clang-22 -O2 -c elf0.c elf1.c; clang-22 -O2 -flto=thin -c a.c b.c c.c",
        then: "./app; mv app by-phases; $LINK; cmp app by-phases",
        through_ldwrap: 1,
    },
];

/// A block of a document: where it is, its mark, its lines without the indentation.
#[derive(Debug)]
struct Block {
    at: String,
    mark: String,
    lines: Vec<String>,
}

/// All blocks of a document.
fn blocks(document: &str, text: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let (mut mark, mut inside) = ("", false);
    for (number, line) in text.lines().enumerate() {
        let at = format!("{document}:{}", number + 1);
        assert!(
            !line.starts_with("```"),
            "{at}: indent blocks by four spaces"
        );
        match line.strip_prefix("    ") {
            Some(line) if inside => {
                let block = blocks.last_mut().expect("the block that began before");
                block.lines.push(line.to_owned());
            }
            Some(line) => {
                inside = true;
                blocks.push(Block {
                    at,
                    mark: std::mem::take(&mut mark).to_owned(),
                    lines: vec![line.to_owned()],
                });
            }
            // An empty line can be before a block, or in it.
            None if line.is_empty() => {}
            None => {
                inside = false;
                let comment = line
                    .strip_prefix("<!-- ")
                    .and_then(|l| l.strip_suffix(" -->"));
                mark = comment.unwrap_or_default();
            }
        }
    }
    blocks
}

/// The blocks of README.md and docs/.
fn all_blocks() -> Vec<Block> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let docs = fs::read_dir(top.join("docs")).expect("docs/");
    let mut files: Vec<_> = docs
        .map(|entry| entry.expect("a file of docs/").path())
        .collect();
    files.retain(|file| file.extension().is_some_and(|e| e == "md"));
    files.push(top.join("README.md"));
    files.sort();
    let read = |file: &std::path::PathBuf| {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        blocks(&name, &fs::read_to_string(file).expect("a document"))
    };
    files.iter().flat_map(read).collect()
}

/// A line without what differs from run to run: numbers, and how far columns are apart.
fn without_numbers(line: &str) -> String {
    let mut text = String::new();
    for c in line
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .chars()
    {
        let c = if c.is_ascii_digit() { '0' } else { c };
        if c != '0' || !text.ends_with('0') {
            text.push(c);
        }
    }
    text
}

/// Whether lines are those expected; `...` stands for any.
fn as_expected(expected: &[String], lines: &[String]) -> bool {
    match expected.split_first() {
        None => lines.is_empty(),
        Some((line, rest)) if line == "..." => {
            (0..=lines.len()).any(|n| as_expected(rest, &lines[n..]))
        }
        Some((line, rest)) => lines.first() == Some(line) && as_expected(rest, &lines[1..]),
    }
}

/// Runs a block as it is written.
fn run(s: &Session, block: &Block, example: &Example) {
    eprintln!("-- {}: {}", block.at, example.name);
    let prompts = block.lines.iter().any(|line| line.starts_with("$ "));
    let (commands, expected): (Vec<_>, Vec<_>) = block
        .lines
        .iter()
        .partition(|line| !prompts || line.starts_with("$ "));
    let commands: Vec<_> = commands
        .iter()
        .map(|line| line.strip_prefix("$ ").unwrap_or(line))
        .collect();
    // The installed ldwrap, where README's "Install" puts it.
    s.sh("ln -s ../p ../home/.local");
    let Example { prepare, then, .. } = example;
    let script = format!(
        "PATH=$HOME/.local/bin:$PATH\n{{ {prepare}\n}} >../prepared 2>&1\n\
         {{ {}\n}} >../printed 2>&1\n{{ {then}\n}} >../then 2>&1",
        commands.join("\n")
    );
    let mut c = s.bash(&script);
    s.use_shim_by_default(&mut c);
    let (path, rustup) = rust_tools();
    c.env_remove("COMPILER_PATH")
        // Cargo may be anywhere.
        .env("PATH", format!("/usr/local/bin:/usr/bin:/bin:{path}"))
        .env("RUSTUP_HOME", rustup)
        .env("LDWRAP_CACHE_DIR", s.root().join("cache"))
        .env("LDWRAP_REPORT", s.root().join("report.json"))
        // The projects are small.
        .env("LDWRAP_SPLIT", "always");
    let status = c.status().expect("bash");
    let read = |name| match s.exists(name) {
        true => s.read(name),
        false => String::new(),
    };
    let printed = read("../printed");
    assert!(
        status.success(),
        "{}: {status}\n{}{printed}{}",
        block.at,
        read("../prepared"),
        read("../then")
    );
    if prompts {
        let lines: Vec<_> = printed.lines().map(without_numbers).collect();
        let expected: Vec<_> = expected.iter().map(|line| without_numbers(line)).collect();
        assert!(as_expected(&expected, &lines), "{}:\n{printed}", block.at);
    }
    let reports = s.reports();
    let through = reports.iter().filter(|link| link["action"] == "split");
    assert!(
        through.count() >= example.through_ldwrap,
        "{}: {reports:#?}",
        block.at
    );
}

/// Runs the examples of README.md, or those of docs/, with one version: the documents name it.
fn run_all(of_readme: bool) {
    let blocks = all_blocks();
    let mut failed = Vec::new();
    for example in &EXAMPLES {
        let mark = format!("run: {}", example.name);
        let shown: Vec<_> = blocks.iter().filter(|block| block.mark == mark).collect();
        assert_eq!(shown.len(), 1, "{mark}: {shown:?}");
        if shown[0].at.starts_with("README.md") != of_readme {
            continue;
        }
        let ran = std::panic::catch_unwind(|| {
            llvm_22_with_shim(|s| run(s, shown[0], example));
        });
        if ran.is_err() {
            failed.push(&shown[0].at);
        }
    }
    assert!(failed.is_empty(), "{failed:?}");
}

#[test]
fn examples_of_readme() {
    run_all(true);
}

#[test]
fn examples_of_docs() {
    run_all(false);
}

#[test]
fn every_block_is_run_or_says_why_not() {
    let blocks = all_blocks();
    assert!(blocks.len() > 20, "{}", blocks.len());
    for block in &blocks {
        let known = match block.mark.split_once(": ") {
            Some(("run", name)) => EXAMPLES.iter().any(|example| example.name == name),
            Some(("not run", reason)) => reason.len() > 3,
            _ => false,
        };
        assert!(
            known,
            "{}: {:?} before {:?}",
            block.at, block.mark, block.lines
        );
    }
}

#[test]
fn printed_lines_are_compared() {
    let lines = |text: &str| text.lines().map(without_numbers).collect::<Vec<_>>();
    let expected = lines("...\n3 links:   2 through\nend");
    assert!(as_expected(
        &expected,
        &lines("cc -c a.c\n14 links: 12 through\nend")
    ));
    assert!(!as_expected(
        &expected,
        &lines("3 links: 2 through\nend\nmore")
    ));
    assert!(!as_expected(&expected, &lines("3 links: two through\nend")));
}
