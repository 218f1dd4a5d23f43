//! `ldwrap doctor -- COMMAND`: the very link of a command, and what is said of it. Whatever the command, nothing is written.

use crate::doctor::{one_llvm, transcript};
use ldwrap_tests::Session;

/// Runs a transcript where there are objects, and files that a link would write.
fn links(s: &Session, text: &str) {
    s.write("main.c", "int main(void) { return 0; }\n");
    s.sh("clang-$N -c -O2 -flto=thin main.c; clang-$N -c main.c -o native.o; echo mine >a.out; echo map >map; \
          ln -s /usr/bin/gcc bin; ln -s /usr/lib/llvm-$N/bin/ld.lld bin/ld.lld");
    s.script("build.sh", "#!/bin/sh\necho done >a.out\n");
    transcript(s, &[("LDWRAP_SPLIT", "always")], text);
    assert_eq!(
        (s.read("a.out"), s.read("map")),
        ("mine\n".into(), "map\n".into())
    );
    assert!(!s.exists("main.s") && s.exists("main.o"));
}

#[test]
fn links_that_are_split() {
    one_llvm(|s| {
        links(
            s,
            "
        $ doctor -- clang -O2 -flto=thin -fuse-ld=lld -Wl,-Map=map main.o native.o
        ok   clang: this link is split, by /usr/lib/llvm-$N/bin/ld.lld
        Links will be split.

        $ doctor -- gcc -fuse-ld=lld main.o
        ok   gcc: this link is split, by
        Links will be split.

        $ doctor -- $LDLLD -shared main.o
        ok   this link is split, by
        Links will be split.

        $ doctor -- clang -fuse-ld=lld main.o native.o $(printf ' -Wl,--defsym=%s=1' {10000..14000})
        ok   clang: this link is split, by
        Links will be split.

        $ printf ' -Wl,--defsym=%s=1' {1..9} >args; doctor -- gcc -fuse-ld=lld main.o @args
        ok   gcc: this link is split, by
        Links will be split.

        $ LDWRAP_EXECUTOR=clang doctor -- clang -fuse-ld=lld -Wl,--lto-O0 main.o
        note no backend of this link runs outside lld
        ok   backends run in lld's own threads
        Links will be split.",
        );
    });
}

#[test]
fn links_that_are_not_split() {
    one_llvm(|s| {
        links(
            s,
            "
        $ LDWRAP_SPLIT=auto doctor -- clang -flto=thin -fuse-ld=lld main.o
        BAD  this link is lld's alone: LDWRAP_SPLIT=auto: too little bitcode
        -> export LDWRAP_SPLIT=always
        Links will not be split: 1 problem.

        $ LDWRAP_SPLIT=never doctor -- clang -flto=thin -fuse-ld=lld main.o
        BAD  LDWRAP_SPLIT=never
        -> unset LDWRAP_SPLIT
        note this link is lld's alone: LDWRAP_SPLIT=never
        Links will not be split: 1 problem.

        $ doctor -- clang -fuse-ld=lld native.o
        BAD  no bitcode
        -> compile with clang -flto=thin
        Links will not be split: 1 problem.

        $ doctor -- clang -fuse-ld=lld -Wl,--save-temps main.o
        BAD  this link is lld's alone
        -> leave out what it names
        Links will not be split: 1 problem.

        $ doctor -- clang -flto=thin main.o
        BAD  does not reach the shim
        -> add -fuse-ld=lld
        Links will not be split: 1 problem.

        $ unset COMPILER_PATH; doctor -- clang -fuse-ld=lld main.o
        BAD  its linker is /usr/lib/llvm-$N/bin/ld.lld
        -> export COMPILER_PATH=
        Links will not be split: 1 problem.

        $ doctor -- ld.lld main.o
        BAD  does not reach the shim: its linker is ld.lld
        -> lib/ldwrap/ld.lld
        Links will not be split: 1 problem.

        $ doctor -- clang -flto=thin -fuse-ld=lld main.c
        BAD  the command compiles as well
        -> compile first (-c)
        Links will not be split: 1 problem.

        $ doctor -- clang -c main.c
        BAD  the command links nothing
        -> the command that links
        Links will not be split: 1 problem.

        $ doctor -- clang -fuse-ld=lld gone.o
        BAD  no such file
        -> it fails without ldwrap too
        Links will not be split: 1 problem.

        $ doctor -- ./build.sh all
        BAD  ./build.sh is neither a compiler nor a linker
        -> ldwrap verify -- ./build.sh
        Links will not be split: 1 problem.

        $ doctor -- clang-1 x.o
        BAD  cannot run clang-1
        -> a command that can be run
        Links will not be split: 1 problem.",
        );
    });
}
