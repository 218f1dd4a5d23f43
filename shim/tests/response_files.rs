//! The response-file reader against the real lld of each tested major: lld says in its errors which inputs it
//! has taken from a file.

mod common;

use common::{Scratch, for_each_major};
use fastrand::Rng;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use shim::response::{Quoting, expand, write_gnu};

/// What lld prints for inputs that do not exist.
fn cannot_open<'a>(major: u32, inputs: impl IntoIterator<Item = &'a OsString>) -> Vec<u8> {
    let mut text = Vec::new();
    // lld skips empty arguments.
    for input in inputs.into_iter().filter(|input| !input.is_empty()) {
        text.extend(format!("ld.lld-{major}: error: cannot open ").as_bytes());
        text.extend(input.as_bytes());
        text.extend(b": No such file or directory\n");
        // lld sets messages of several lines apart from the next one.
        if input.as_bytes().contains(&b'\n') {
            text.push(b'\n');
        }
    }
    text
}

/// Compares what lld and we make of `texts`, each the content of a response file. Those that we
/// refuse are left out.
fn compare_texts(major: u32, texts: &[Vec<u8>], quoting: Quoting) {
    let scratch = Scratch::new();
    let mut args = vec![OsString::from("--error-limit=0")];
    if quoting == Quoting::Windows {
        // With -m, lld does not also expand with GNU quoting to find out whether it links for PE.
        args.extend(["--rsp-quoting=windows", "-m", "elf_x86_64"].map(OsString::from));
    }
    let mut expected = Vec::new();
    let mut used = 0;
    for (i, text) in texts.iter().enumerate() {
        let path = scratch.0.join(format!("rsp{i}"));
        fs::write(&path, text).unwrap();
        let mut arg = OsString::from("@");
        arg.push(&path);
        if let Ok(expanded) = expand(std::slice::from_ref(&arg), quoting) {
            used += 1;
            args.extend([arg, format!("end{i}").into()]);
            expected.extend(expanded);
            expected.push(format!("end{i}").into());
        }
    }
    assert!(
        used * 2 > texts.len(),
        "only {used} of {} texts used",
        texts.len()
    );
    let actual = scratch.lld(major, &args).stderr;
    let expected = cannot_open(major, &expected);
    assert!(
        actual == expected,
        "lld {major}, {quoting:?}\nours:\n{}\nlld's:\n{}",
        expected.escape_ascii().to_string().replace("\\n", "\n"),
        actual.escape_ascii().to_string().replace("\\n", "\n"),
    );
}

/// Up to `max` bytes of an alphabet.
fn random_bytes(random: &mut Rng, alphabet: &[u8], max: usize) -> Vec<u8> {
    let len = random.usize(..=max);
    let byte = |_| alphabet[random.usize(..alphabet.len())];
    (0..len).map(byte).collect()
}

#[test]
fn response_files_read_as_in_lld() {
    let mut texts: Vec<Vec<u8>> = [
        &b""[..],
        b" \n\t\r\n",
        b"a 'b c' \"d e\" f\\ g",
        b"a'b'\"c\"d ''e e'' ''",
        b"\\a \\\\ \\\" \\' '\\'' \"\\\"\" \"\\\\\"",
        b"'a\nb' c\\\nd \"e\r\nf\"",
        b"unclosed 'x y",
        b"unclosed \"x y",
        b"last\\",
        b"'last\\",
        b"a\0b c\0 \0 d",
        b"'a\0' b",
        b"\xef\xbb\xbfbom b",
        b"\xff\xfel\0e\0 \0\xe9\0",
        b"\xfe\xff\0b\0e\0 \x26\x3a",
        b"\xff\xfe=\xd8\x00\xde",
        b"\xff\xfe",
        b"\xff bytes \xfe\xff",
        b"--rsp-quoting=windows a\\b 'c d'",
        b"c:\\dir\\file \\\\host\\x \\\\\" \\\\\\\" x\\\\\\\\\"y z\"",
        b"\"a\"\"b\" \"\" \"\"\"\" x\"\"y \"x\"\"\"",
        b"@no-such-file a@b @",
    ]
    .map(<[u8]>::to_vec)
    .into();
    // No dash and no slash: the words must be inputs that don't exist.
    let mut random = Rng::with_seed(1);
    for _ in 0..400 {
        texts.push(random_bytes(
            &mut random,
            b"ab\\\\\\\"\"\"''  \t\r\n\0\xef\xbf\xe9",
            16,
        ));
    }
    for_each_major(|major| {
        // An option is no input, so its file is compared in `quoting_in_a_file_is_too_late`.
        let texts: Vec<_> = texts
            .iter()
            .filter(|text| !text.starts_with(b"--"))
            .cloned()
            .collect();
        compare_texts(major, &texts, Quoting::Gnu);
        compare_texts(major, &texts, Quoting::Windows);
    });
}

#[test]
fn quoting_in_a_file_is_too_late() {
    for_each_major(|major| {
        let scratch = Scratch::new();
        fs::write(scratch.0.join("rsp"), "--rsp-quoting=windows a\\b 'c d'").unwrap();
        let stderr = scratch.lld(major, &["@rsp"]).stderr;
        assert_eq!(
            stderr,
            cannot_open(major, &["ab", "c d"].map(OsString::from))
        );
    });
}

#[test]
fn lld_reads_what_we_write() {
    let mut random = Rng::with_seed(2);
    let mut args: Vec<OsString> = (0..400)
        .map(|_| {
            OsString::from_vec(random_bytes(
                &mut random,
                b"a=@'\"\\ \t\r\n\xef\xbb\xbf\xff\xfe\x01",
                8,
            ))
        })
        .filter(|arg| !arg.as_bytes().starts_with(b"@"))
        .collect();
    args.push("end".into());
    // At the start of the file these bytes would be a byte order mark.
    args.insert(0, OsString::from_vec(b"\xef\xbb\xbfx".to_vec()));
    for_each_major(|major| {
        let scratch = Scratch::new();
        let text = write_gnu(args.iter().map(OsString::as_os_str));
        fs::write(scratch.0.join("rsp"), &text).unwrap();
        let stderr = scratch.lld(major, &["--error-limit=0", "@rsp"]).stderr;
        assert!(
            stderr == cannot_open(major, &args),
            "lld {major}: {}",
            stderr.escape_ascii()
        );
        // An empty argument is seen only where it is a value.
        let text = write_gnu(["-l", "", "x"].map(OsStr::new));
        fs::write(scratch.0.join("rsp"), &text).unwrap();
        let stderr = scratch.lld(major, &["@rsp"]).stderr;
        let mut expected =
            format!("ld.lld-{major}: error: unable to find library -l\n").into_bytes();
        expected.extend(cannot_open(major, &["x".into()]));
        assert_eq!(
            String::from_utf8_lossy(&stderr),
            String::from_utf8_lossy(&expected)
        );
    });
}

#[test]
fn nested_names_are_relative_to_the_working_directory() {
    for_each_major(|major| {
        let scratch = Scratch::new();
        fs::create_dir(scratch.0.join("sub")).unwrap();
        fs::write(
            scratch.0.join("sub/outer"),
            "a @inner @sub/inner b @missing",
        )
        .unwrap();
        fs::write(scratch.0.join("inner"), "top").unwrap();
        fs::write(scratch.0.join("sub/inner"), "below").unwrap();
        let stderr = scratch.lld(major, &["@sub/outer"]).stderr;
        let inputs = ["a", "top", "below", "b", "@missing"].map(OsString::from);
        let expected = cannot_open(major, &inputs);
        assert_eq!(
            String::from_utf8_lossy(&stderr),
            String::from_utf8_lossy(&expected)
        );
    });
}

#[test]
fn lld_fails_too_on_files_that_we_refuse() {
    for_each_major(|major| {
        let scratch = Scratch::new();
        let cycle = scratch.0.join("cycle");
        fs::write(&cycle, [b"x @", cycle.as_os_str().as_bytes()].concat()).unwrap();
        fs::write(scratch.0.join("odd"), b"\xff\xfea").unwrap();
        for path in [
            &cycle,
            &scratch.0,
            &scratch.0.join("odd"),
            &cycle.join("below"),
        ] {
            let mut arg = OsString::from("@");
            arg.push(path);
            assert!(
                expand(std::slice::from_ref(&arg), Quoting::Gnu).is_err(),
                "{arg:?}"
            );
            let output = scratch.lld(major, &[&arg]);
            assert!(!output.status.success(), "lld {major} {arg:?}");
            assert!(!output.stderr.is_empty(), "lld {major} {arg:?}");
        }
    });
}
