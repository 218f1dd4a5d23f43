use super::files::{BASIC_BLOCKS, PROFILE, has_contexts};
use super::*;

fn of(args: &[&str]) -> Result<String, String> {
    let args: Vec<OsString> = args.iter().map(OsString::from).collect();
    let cmd = CommandLine::parse(&args).unwrap();
    Codegen::of(&cmd, 19).map(|c| {
        c.args
            .iter()
            .map(|a| a.to_string_lossy().into_owned())
            .collect::<Vec<_>>()
            .join(" ")
    })
}

#[test]
fn what_clang_drivers_pass_is_translated() {
    let a = of(&[
        "-pie",
        "-plugin-opt=mcpu=x86-64-v3",
        "-plugin-opt=O3",
        "-plugin-opt=-debugger-tune=gdb",
        "-plugin-opt=-function-sections=1",
        "-mllvm",
        "-import-instr-limit=5",
    ])
    .unwrap();
    for part in [
        "-mrelocation-model pic",
        "-O3",
        "-target-cpu x86-64-v3",
        "-debugger-tuning=gdb",
        "-mllvm -import-instr-limit=5",
    ] {
        assert!(a.contains(part), "{part} is not in {a}");
    }
    assert!(!a.contains("function-sections=1"), "{a}");
    assert!(of(&[]).unwrap().contains("-mrelocation-model static"));
}

#[test]
fn what_cannot_be_said_is_forwarded_with_its_reason() {
    for (args, reason) in [
        (&["--lto-O0"][..], "level 0"),
        (&["-plugin-opt=O1"], "level 1"),
        (&["--lto-O2", "--lto-CGO3"], "--lto-CGO"),
        (&["-r"], "-r:"),
        (&["-mllvm", "-tailcallopt"], "tailcallopt"),
        (&["-mllvm", "-stats"], "output"),
        (&["-mllvm", "-print-after=x"], "output"),
        (&["-mllvm", "-polly-dot"], "output"),
        (&["-mllvm", "-opt-bisect-limit=1"], "across modules"),
        (&["-mllvm", "-sample-profile-file=x"], "a file"),
        (&["-mllvm", "-any=some/where"], "a file"),
        (&["-mllvm", "-enable-fs-discriminator"], "names of local"),
        (&["-mllvm", "-debugger-tune"], "no equal"),
        (&["-mllvm", "x"], "no dash"),
        (&["--lto-debug-pass-manager"], "debug-pass-manager"),
        (&["--load-pass-plugin=x.so"], "load-pass-plugin"),
        (&["-plugin-opt=dwo_dir=x"], "dwo_dir"),
        (&["--thinlto-index-only"], "index-only"),
        (&["--save-temps"], "save-temps"),
    ] {
        let e = of(args).unwrap_err();
        assert!(e.contains(reason), "{args:?}: {e}");
    }
}

#[test]
fn llvm_options_come_in_the_order_of_lld() {
    let a = of(&["-mllvm", "-x=1", "-plugin-opt=-x=2", "--mllvm=-x=3"]).unwrap();
    assert!(a.ends_with("-mllvm -x=2 -mllvm -x=1 -mllvm -x=3"), "{a}");
    let a = of(&["-mllvm", "-crel=0", "-plugin-opt=-crel"]).unwrap();
    assert!(!a.contains("crel"), "{a}");
    let a = of(&["-mllvm", "-crel", "-plugin-opt=-crel=0"]).unwrap();
    assert!(a.contains("--crel"), "{a}");
    let a = of(&["-mllvm", "-x=0.5", "-mllvm", "--y=all"]).unwrap();
    assert!(a.ends_with("-mllvm -x=0.5 -mllvm --y=all"), "{a}");
}

#[test]
fn files_get_names_of_the_job() {
    let args = [
        "--lto-sample-profile=Cargo.toml",
        "--lto-basic-block-sections=/dev/null",
    ]
    .map(OsString::from);
    let codegen = Codegen::of(&CommandLine::parse(&args).unwrap(), 19).unwrap();
    let args: Vec<_> = codegen.args.iter().map(|a| a.to_string_lossy()).collect();
    for arg in [
        "-fprofile-sample-use=profile",
        "-fbasic-block-sections=list=blocks",
    ] {
        assert!(args.iter().any(|a| a == arg), "{arg}: {args:?}");
    }
    let [(profile, p), (blocks, b)] = codegen.inputs() else {
        panic!("{:?}", codegen.inputs());
    };
    assert_eq!(
        (profile.as_path(), p.is_absolute()),
        (Path::new(PROFILE), true)
    );
    assert_eq!(
        (blocks.as_path(), b.as_path()),
        (Path::new(BASIC_BLOCKS), Path::new("/dev/null"))
    );
}

#[test]
fn what_is_no_profile_has_no_contexts() {
    assert!(!has_contexts(Path::new("/dev/null")));
    assert!(!has_contexts(Path::new("/nowhere")));
}

#[test]
fn only_tested_targets() {
    let codegen = Codegen::of(&CommandLine::parse(&[]).unwrap(), 19).unwrap();
    let check =
        |triple: &str| codegen.check_module(OsStr::new(triple), FunctionAttributes::default());
    for triple in [
        "x86_64-pc-linux-gnu",
        "aarch64-unknown-linux-musl",
        "i686-linux",
    ] {
        assert_eq!(check(triple), Ok(()), "{triple}");
    }
    for triple in [
        "armv7-linux-gnueabihf",
        "x86_64-linux-android24",
        "x86_64-apple-macos",
        "",
    ] {
        assert!(check(triple).is_err(), "{triple}");
    }
}

#[test]
fn functions_without_features_take_those_of_the_machine() {
    let functions = FunctionAttributes {
        cpu_without_features: true,
        ..FunctionAttributes::default()
    };
    for (triple, cpu, is_compiled_alike) in [
        ("x86_64-linux", "", true),
        ("x86_64-linux", "x86-64", true),
        ("x86_64-linux", "haswell", false),
        ("aarch64-linux", "", true),
        ("aarch64-linux", "generic", true),
        ("i586-linux", "", false),
        ("i686-linux", "x86-64", false),
        ("i386-linux", "i686", false),
    ] {
        let args = [format!("-plugin-opt=mcpu={cpu}").into()];
        let codegen = Codegen::of(&CommandLine::parse(&args).unwrap(), 19).unwrap();
        let checked = codegen.check_module(OsStr::new(triple), functions);
        assert_eq!(checked.is_ok(), is_compiled_alike, "{triple} {cpu}");
    }
}
