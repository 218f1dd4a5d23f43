//! Sources that more than one test links.

use crate::Session;

/// The example that every build must pass: `a.c` calls `b.c` calls a native object; `c.c` is lazy and stays out.
pub fn seed(s: &Session) {
    s.write("a.c", "int bb(); int main() { return bb(); }\n");
    s.write("b.c", "int elf0(); int bb() { return elf0(); }\n");
    s.write("c.c", "int cc() { return 0; }\n");
    s.write("elf0.c", "int elf0() { return 0; }\n");
    s.write("elf1.c", "\n");
    s.compile("clang-$N -c elf0.c elf1.c");
    s.compile("clang-$N -c -O2 -flto=thin a.c b.c c.c");
}

/// A program of three modules in a directory of its own, as a checkout has; it prints 8.
pub fn checkout(s: &Session, dir: &str) {
    s.write(
        &format!("{dir}/main.c"),
        "int f1(int), f2(int), printf(const char *, ...);\n\
         int main(void) { return printf(\"%d\\n\", f1(4) + f2(2)) < 0; }\n",
    );
    for n in 1..=2 {
        s.write(
            &format!("{dir}/f{n}.c"),
            format!("__attribute__((noinline)) int f{n}(int x) {{ return x * {n}; }}\n"),
        );
    }
    s.sh(&format!("cd {dir}; clang-$N -c -O2 -flto=thin *.c"));
}

/// The link of a [`checkout`], done there; the output is in the session's working directory.
#[must_use]
pub fn link_of_checkout(dir: &str) -> String {
    let up = "../".repeat(dir.split('/').count());
    format!("cd {dir}; clang-$N -O2 -flto=thin -fuse-ld=lld -o {up}$OUT *.o")
}
