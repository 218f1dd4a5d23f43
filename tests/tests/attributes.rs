//! Attributes of functions by which clang, told what it can be told, does not do what lld does: such modules are lld's.

use ldwrap_tests::each_llvm;

/// Functions of an i486 that name no features: clang's i386 has more.
#[test]
fn functions_without_features() {
    each_llvm(|s| {
        s.write(
            "count.c",
            "unsigned long long at; void count(void) { __sync_fetch_and_add(&at, 1); }\n",
        );
        s.write("other.c", "int other(int n) { return n + 1; }\n");
        s.sh(
            "for f in count other; do \
               clang-$N --target=i586-linux-gnu -march=i486 -O2 -fPIC -flto=thin -Wno-everything -S -emit-llvm $f.c -o $f.ll; \
               sed -Ei 's/\"(target-features|tune-cpu)\"=\"[^\"]*\"//g' $f.ll; \
               clang-$N --target=i586-linux-gnu -c -O2 -flto=thin -x ir $f.ll -o $f.o; done",
        );
        for (cpu, why) in [
            ("", "without target features"),
            ("-plugin-opt=mcpu=x86-64", "without target features"),
        ] {
            s.link_both(&format!("$LD -o $OUT -shared {cpu} count.o other.o"))
                .left_to_lld(why);
        }
    });
}

/// Memory tagging: a backend of lld's asks the index of the whole link what functions do with their arguments.
#[test]
fn memory_tagging() {
    each_llvm(|s| {
        s.write(
            "tag.c",
            "void fill(char *); int tag(void) { char b[16]; fill(b); return b[3]; }\n",
        );
        s.write(
            "fill.c",
            "__attribute__((noinline)) void fill(char *p) { p[0] = 1; p[3] = 2; }\n",
        );
        s.write("plain.c", "int plain(int n) { return n * 3; }\n");
        let kind = if s.llvm < 16 {
            "memtag"
        } else {
            "memtag-stack"
        };
        s.sh(&format!(
            "T='--target=aarch64-linux-gnu -O2 -c -flto=thin'; clang-$N $T plain.c; \
             clang-$N $T -march=armv8.5-a+memtag -fsanitize={kind} tag.c fill.c"
        ));
        let link = "$LD -o $OUT -m aarch64linux -e tag -u plain tag.o fill.o plain.o";
        s.link_both(link).splits_but(2);
        // Nor has the cache any of it: what a callee does with its arguments is in no key.
        s.sh("sed 's/^/extern int n; int n; /; s/p.0./p[n]/' fill.c >other.c; clang-$N --target=aarch64-linux-gnu -O2 -c -flto=thin other.c");
        let cache = s.root().join("cache").display().to_string();
        for fill in ["fill.o", "other.o"] {
            let link = link.replace("fill.o", fill);
            s.link_both_cached(&[("LDWRAP_CACHE_DIR", &*cache)], &link)
                .same()
                .succeeds();
        }
    });
}
