//! The example that every build must pass: bitcode, lazy bitcode and native objects on one line.

use ldwrap_tests::each_llvm;
use ldwrap_tests::sources::seed;

#[test]
fn example() {
    each_llvm(|s| {
        seed(s);
        s.link_both(
            "clang-$N -O2 -flto=thin -fuse-ld=lld -o $OUT elf0.o a.o \
             -Wl,--start-lib b.o c.o -Wl,--end-lib elf1.o",
        )
        .splits()
        .modules(2)
        .prints("");
    });
}

/// The link line need not say that it is an LTO link (docs/lld.md, "Recognising bitcode").
#[test]
fn no_flto_on_the_link_line() {
    each_llvm(|s| {
        seed(s);
        s.link_both("clang-$N -fuse-ld=lld -o $OUT a.o b.o c.o elf0.o elf1.o")
            .splits()
            .modules(3)
            .prints("");
    });
}

#[test]
fn through_ldwrap_as_the_linker() {
    each_llvm(|s| {
        seed(s);
        s.link_both("clang-$N -O2 -flto=thin -fuse-ld=$LDWRAP -o $OUT a.o b.o elf0.o")
            .splits()
            .prints("");
        s.link_both("clang-$N -O2 -flto=thin --ld-path=$LDWRAP -o $OUT a.o b.o elf0.o")
            .splits()
            .prints("");
    });
}

#[test]
fn through_ld_path() {
    each_llvm(|s| {
        seed(s);
        s.link_both("clang-$N -O2 -flto=thin --ld-path=$LDLLD -o $OUT a.o b.o elf0.o")
            .splits()
            .prints("");
    });
}

#[test]
fn gcc_as_the_driver() {
    each_llvm(|s| {
        seed(s);
        s.link_both("PATH=$PATH:/usr/lib/llvm-$N/bin; gcc -fuse-ld=lld -o $OUT a.o b.o elf0.o")
            .splits()
            .prints("");
    });
}

#[test]
fn lld_called_directly() {
    each_llvm(|s| {
        seed(s);
        s.compile("clang-$N -c -O2 -fPIC -flto=thin a.c b.c");
        s.link_both("$LD -shared --build-id=sha1 -o $OUT a.o b.o")
            .splits()
            .modules(2);
    });
}
