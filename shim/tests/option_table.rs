//! The option table and the parser against the real lld of each tested
//! major.
//!
//! How lld has read an argument is seen in `response.txt`, which `--reproduce=X.tar` writes right
//! after parsing: a line for each argument, options under their canonical name, values as lld has
//! taken them. Reading that line again with our parser must give what we read in the original.

mod common;

use common::{Scratch, for_each_major};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use shim::cmdline::{Arg, CommandLine, ParseError, Step};
use shim::options::{Id, Match, Spelling, TABLE, ValueKind, lookup};

/// The arguments as lld has read them, in our terms.
fn read_by_lld(scratch: &Scratch, major: u32, args: &[String]) -> Vec<Arg> {
    let tar = scratch.0.join("r.tar");
    let _ = fs::remove_file(&tar);
    let mut all = vec!["--reproduce=r.tar".to_owned()];
    all.extend_from_slice(args);
    let output = scratch.lld(major, &all);
    let stderr = String::from_utf8_lossy(&output.stderr);
    let text = response_txt(&tar)
        .unwrap_or_else(|| panic!("lld {major} wrote no response.txt: {args:?}\n{stderr}"));
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("--chroot ."));
    lines.map(|line| read_line(major, line)).collect()
}

/// The file `response.txt` out of an archive that lld wrote.
fn response_txt(tar: &Path) -> Option<String> {
    let bytes = fs::read(tar).ok()?;
    let mut rest = bytes.as_slice();
    loop {
        let (header, after) = rest.split_at_checked(512)?;
        let name = header[..100].split(|&byte| byte == 0).next()?;
        let size = std::str::from_utf8(&header[124..135]).ok()?;
        let size = usize::from_str_radix(size, 8).ok()?;
        if name.ends_with(b"/response.txt") {
            return String::from_utf8(after.get(..size)?.to_vec()).ok();
        }
        rest = after.get(size.next_multiple_of(512)..)?;
    }
}

/// One line of `response.txt`. lld writes an unknown argument twice.
fn read_line(major: u32, line: &str) -> Arg {
    let mut words: Vec<OsString> = line.splitn(2, ' ').map(OsString::from).collect();
    if let [first, second] = words.as_slice() {
        let known = option(first.as_bytes(), major).is_some();
        if first == second && line.starts_with('-') && !known {
            return Arg::Unknown(first.clone());
        }
        // lld writes a blank behind the `=` of this option, and could not read it back either.
        if first == "--remap-inputs-file=" {
            words = vec![OsString::from(line.replacen(' ', "", 1))];
        }
    }
    let mut args = read_by_us(major, &words);
    assert_eq!(args.len(), 1, "lld {major} wrote {line:?}");
    let arg = args.remove(0);
    assert!(
        !matches!(arg, Arg::Unknown(_)),
        "lld {major} knows {line:?}"
    );
    arg
}

/// The arguments as we read them.
fn read_by_us(major: u32, args: &[OsString]) -> Vec<Arg> {
    CommandLine::parse_for(args, Some(major))
        .unwrap_or_else(|error| panic!("{major}: {args:?}: {error}"))
        .args
}

/// The option that we take an argument for.
fn option(argument: &[u8], major: u32) -> Option<Id> {
    match lookup(argument, major) {
        Match::Option { spelling, .. } => Some(spelling.id),
        Match::Input | Match::Unknown => None,
    }
}

/// Compares both readings of `groups`, each a few arguments and an input behind them that shows how
/// many were taken, in as few runs as lld's limit of twenty errors allows.
fn compare(major: u32, groups: &[Vec<String>]) {
    const UNKNOWN_PER_RUN: usize = 18;
    let scratch = Scratch::new();
    let mut args = Vec::new();
    let mut expected = Vec::new();
    let mut unknown = 0;
    for (i, group) in groups.iter().enumerate() {
        let mut group = group.clone();
        group.push(format!("in{i}"));
        let words: Vec<OsString> = group.iter().map(OsString::from).collect();
        let read = read_by_us(major, &words);
        unknown += read
            .iter()
            .filter(|arg| matches!(arg, Arg::Unknown(_)))
            .count();
        args.extend(group);
        expected.extend(read);
        if unknown >= UNKNOWN_PER_RUN || i + 1 == groups.len() {
            let actual = read_by_lld(&scratch, major, &args);
            for (ours, lld) in expected.iter().zip(&actual) {
                assert_eq!(ours, lld, "lld {major}, ours left, lld's right");
            }
            assert_eq!(expected.len(), actual.len());
            args.clear();
            expected.clear();
            unknown = 0;
        }
    }
}

/// The spellings, dashes included, that the table has for a major.
fn spellings(major: u32) -> impl Iterator<Item = (&'static Spelling, String)> {
    TABLE
        .iter()
        .filter(move |entry| entry.known_to(major))
        .flat_map(|entry| {
            let dashes = (1..=2).filter(|&dashes| entry.allows(dashes));
            dashes.map(move |dashes| (entry, format!("{}{}", &"--"[..dashes], entry.name)))
        })
}

/// `--help` ends lld before the archive is written, and `--reproduce` is not in it.
fn hides_reading(id: Id) -> bool {
    matches!(id, Id::Help | Id::Reproduce)
}

#[test]
fn every_spelling_reads_as_in_lld() {
    for_each_major(|major| {
        let mut groups = Vec::new();
        for (entry, spelling) in spellings(major).filter(|(entry, _)| !hides_reading(entry.id)) {
            let joined = format!("{spelling}v");
            groups.extend(match entry.value_kind {
                ValueKind::Flag => vec![vec![spelling]],
                ValueKind::Joined => vec![vec![joined], vec![spelling]],
                ValueKind::Separate => vec![vec![spelling, "v".into()]],
                ValueKind::JoinedOrSeparate => vec![vec![joined], vec![spelling, "v".into()]],
            });
        }
        assert!(groups.len() > 500, "{major}: {}", groups.len());
        compare(major, &groups);
    });
}

#[test]
fn near_misses_read_as_in_lld() {
    for_each_major(|major| {
        let mut near = BTreeSet::new();
        for entry in TABLE {
            let name = entry.name;
            let shorter = &name[..name.len() - 1];
            for name in [name, shorter, &format!("{name}x")] {
                near.insert(format!("-{name}"));
                near.insert(format!("--{name}"));
            }
        }
        for odd in [
            "-",
            "--",
            "---",
            "--no-such-thing",
            "-no-such-thing",
            "-=",
            "--=x",
            "-\u{e9}",
        ] {
            near.insert(odd.to_owned());
        }
        let groups: Vec<Vec<String>> = near
            .into_iter()
            .filter(|arg| option(arg.as_bytes(), major).is_none_or(|id| !hides_reading(id)))
            .map(|arg| vec![arg])
            .collect();
        compare(major, &groups);
    });
}

/// `--help` leaves hidden and ignored options out. lld's program file has them: since 17 the names
/// in it include their dashes. Options of lld's other drivers are among them too and must be
/// unknown to us.
#[test]
fn names_in_the_program_file_read_as_in_lld() {
    for_each_major(|major| {
        if major < 17 {
            return;
        }
        let name = format!("ld.lld-{major}");
        let path = std::env::var_os("PATH").unwrap();
        let program = std::env::split_paths(&path)
            .map(|dir| dir.join(&name))
            .find(|file| file.exists())
            .unwrap_or_else(|| panic!("{name} must be installed"));
        let bytes = fs::read(program).unwrap();
        let names: BTreeSet<String> = bytes
            .split(|&byte| byte == 0)
            .filter(|name| name.starts_with(b"-") && (2..64).contains(&name.len()))
            .filter(|name| name.iter().all(u8::is_ascii_graphic))
            // Means something only as the first argument, where our reading has it.
            .filter(|name| name != b"-flavor")
            .map(|name| String::from_utf8(name.to_vec()).unwrap())
            .collect();
        let (ours, others): (Vec<_>, Vec<_>) = names
            .into_iter()
            .partition(|name| option(name.as_bytes(), major).is_some());
        // The two halves show that these are option names, ELF's and other drivers'.
        assert!(ours.len() > 400, "{major}: {} names", ours.len());
        assert!(others.len() > 100, "{major}: {} names", others.len());
        let groups: Vec<_> = others.into_iter().map(|name| vec![name]).collect();
        compare(major, &groups);
    });
}

#[test]
fn values_that_look_like_something_else() {
    let groups = [
        &["-o", "-shared"][..],
        &["-plugin-opt", "mcpu=x"],
        &["--plugin-opt", "-foo"],
        &["-soname", "-plugin-opt", "O1"],
        &["--plugin-opt", "O2", "O3"],
        &["-z", "-z"],
        &["-L", "--"],
        &["-u-u"],
        &["-lfoo", "-l:foo.a", "-l", "foo"],
        &["-m", "elf_x86_64", "-melf_x86_64"],
        &[
            "-Tbss",
            "1",
            "-Tbss=1",
            "-Ttext-segment",
            "1",
            "-Tx",
            "-T",
            "x",
        ],
        &[
            "-omagic",
            "-oformat",
            "binary",
            "--oformat",
            "binary",
            "--omagic",
        ],
        &[
            "-export-dynamic",
            "-e",
            "xport",
            "-export",
            "-entry",
            "x",
            "-entry=x",
        ],
        &["-rpath", "x", "-Rx", "-R", "x", "-rpath=x", "-rpathx"],
        &["-static", "-staticx", "-s", "-S", "-non_shared"],
        &["-dT", "x", "-dTx", "-dy", "-dn", "-d"],
    ];
    for_each_major(|major| {
        let owned = |group: &&[&str]| group.iter().map(|arg| (*arg).to_owned()).collect();
        let groups: Vec<Vec<String>> = groups.iter().map(owned).collect();
        compare(major, &groups);
    });
}

#[test]
fn options_at_the_end_lack_their_value() {
    for_each_major(|major| {
        let scratch = Scratch::new();
        let mut last = "";
        for (entry, spelling) in spellings(major) {
            // Once for each name; that both dashes read alike is seen elsewhere.
            let again = std::mem::replace(&mut last, entry.name) == entry.name;
            if again || matches!(entry.value_kind, ValueKind::Flag | ValueKind::Joined) {
                continue;
            }
            let ours = CommandLine::parse_for(&[OsString::from(&spelling)], Some(major));
            assert!(
                matches!(ours, Err(ParseError::MissingValue(_))),
                "{major}: {spelling}"
            );
            let stderr = scratch.lld(major, &[&spelling]).stderr;
            let stderr = String::from_utf8_lossy(&stderr);
            let message = format!("error: {spelling}: missing argument");
            assert!(stderr.contains(&message), "{major}: {spelling}: {stderr}");
        }
    });
}

#[test]
fn help_lists_nothing_that_the_table_lacks() {
    for_each_major(|major| {
        let output = Scratch::new().lld(major, &["--help"]);
        let help = String::from_utf8(output.stdout).unwrap();
        let mut listed = 0;
        for line in help.lines() {
            let Some(option) = line.strip_prefix("  ").filter(|line| line.starts_with('-')) else {
                continue;
            };
            listed += 1;
            let (word, after) = option.split_once(' ').unwrap_or((option, ""));
            let name = word.trim_start_matches('-');
            let dashes = word.len() - name.len();
            let known: Vec<&Spelling> = TABLE
                .iter()
                .filter(|entry| entry.known_to(major) && entry.allows(dashes))
                .collect();
            let exact = known.iter().find(|entry| entry.name == name);
            let fits = match exact.map(|entry| entry.value_kind) {
                // `-l <libname>`, `--chroot <value>`
                Some(ValueKind::Separate | ValueKind::JoinedOrSeparate) => after.starts_with('<'),
                Some(ValueKind::Flag) => !after.starts_with('<'),
                // `--lto-O<opt-level>`, `--build-id=[fast,md5]`, `--export-dynamic-symbol=glob`
                None | Some(ValueKind::Joined) => known.iter().any(|entry| {
                    entry.value_kind == ValueKind::Joined
                        && entry.name != "plugin-opt="
                        && name.strip_prefix(entry.name).is_some_and(|meta| {
                            meta.starts_with(['<', '[']) || meta == "glob" || meta == "file"
                        })
                }),
            };
            assert!(
                fits,
                "lld {major} lists {option:?}, the table has {exact:?}"
            );
        }
        assert!(listed > 250, "{major}: {listed} options listed");
    });
}

#[test]
fn state_decides_which_library_is_found() {
    let cases: [&[&str]; 14] = [
        &[],
        &["-Bstatic"],
        &["-static", "-dy"],
        &["-dn", "--call_shared"],
        &["--push-state", "-non_shared", "--pop-state"],
        &["-dn", "--push-state", "-Bdynamic", "--pop-state"],
        &["--push-state", "-n"],
        &["-N"],
        &["--omagic", "--no-omagic"],
        &["-r"],
        &["-r", "-Bdynamic"],
        &["-Bdynamic", "--relocatable"],
        &["-r", "--push-state", "-Bdynamic", "--pop-state"],
        &["-shared", "-pie", "--nmagic", "-Bdynamic"],
    ];
    for_each_major(|major| {
        let scratch = Scratch::new();
        // Two linker scripts, told apart by what they fail to find.
        fs::write(scratch.0.join("libx.so"), "INPUT(shared-library)").unwrap();
        fs::write(scratch.0.join("libx.a"), "INPUT(archive)").unwrap();
        for case in cases {
            let mut args = vec!["-L."];
            args.extend(case);
            args.push("-lx");
            let words: Vec<OsString> = args.iter().map(OsString::from).collect();
            let line = CommandLine::parse_for(&words, Some(major)).unwrap();
            let Some(Step::Library { name, state }) = line.steps().last() else {
                panic!("{case:?}");
            };
            assert_eq!(name, "x");
            let found = if state.is_static {
                "archive"
            } else {
                "shared-library"
            };
            let stderr = scratch.lld(major, &args).stderr;
            let stderr = String::from_utf8_lossy(&stderr);
            assert!(stderr.contains(found), "lld {major} {case:?}: {stderr}");
        }
    });
}

#[test]
fn other_drivers_are_recognized() {
    for_each_major(|major| {
        let scratch = Scratch::new();
        fs::write(scratch.0.join("rsp"), "-o -m i386pep").unwrap();
        let elf = "cannot open x: No such file";
        for (args, ours) in [
            (&["-flavor", "gnu", "x"][..], true),
            (&["-flavor", "LD.lld", "x"], true),
            (&["-flavor", "darwin", "x"], false),
            (&["-mi386pe", "x"], true),
            (&["-m", "i386pe", "x"], false),
            (&["-o", "-m", "i386pe", "x"], false),
            (&["-m", "elf_x86_64", "-m", "i386pe", "x"], true),
            (&["@rsp", "x"], false),
            (&["-m", "elf_x86_64", "@rsp", "x"], true),
        ] {
            let path = format!("@{}", scratch.0.join("rsp").display());
            let words = args
                .iter()
                .map(|&arg| if arg == "@rsp" { &path } else { arg });
            let words: Vec<OsString> = words.map(OsString::from).collect();
            let stderr = scratch.lld(major, &words).stderr;
            let stderr = String::from_utf8_lossy(&stderr);
            assert_eq!(stderr.contains(elf), ours, "lld {major} {args:?}: {stderr}");
            let parsed = CommandLine::parse_for(&words, Some(major));
            assert_eq!(parsed.is_ok(), ours, "{major} {args:?}");
            assert!(ours || matches!(parsed, Err(ParseError::OtherDriver(_))));
        }
    });
}
