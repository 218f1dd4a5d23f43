//! The user's own ThinLTO cache (`--thinlto-cache-dir`): used, filled and pruned as by lld alone.

use ldwrap_tests::{LENIENT, LinkPair, Session, each_llvm};

/// Five modules, each a cache entry of its own.
fn sources(s: &Session) {
    s.write(
        "main.c",
        "int f1(int), f2(int), f3(int), f4(int), puts(const char *);\n\
         int main(void) { if (f1(1) + f2(1) + f3(1) + f4(1) == 14) puts(\"14\"); return 0; }\n",
    );
    for n in 1..=4 {
        source(s, n, "");
    }
    s.compile("clang-$N -c -O2 -flto=thin *.c");
}

fn source(s: &Session, n: usize, more: &str) {
    s.write(
        &format!("f{n}.c"),
        format!("__attribute__((noinline)) int f{n}(int x) {{ return x + {n}; }}\n{more}"),
    );
}

const LINK: &str = "clang-$N -O2 -flto=thin -fuse-ld=lld -o $OUT *.o -Wl,-Map=map";

/// Asserts what the user's cache had, and what was compiled.
fn counts(both: &LinkPair<'_>, hits: u64, misses: u64) {
    if ldwrap_tests::fixtures_only() {
        return;
    }
    let cache = &both.report()["cache"];
    assert_eq!(
        (&cache["hits"], &cache["misses"]),
        (&hits.into(), &misses.into())
    );
}

#[test]
fn cold_warm_and_after_an_edit() {
    each_llvm(|s| {
        sources(s);
        for dir in ["cache", "./cache//", "deep/er/cache/"] {
            // Nothing there: made, and filled with the same entries.
            let link = format!("{LINK} -Wl,--thinlto-cache-dir={dir}");
            let both = s.link_both(&link);
            both.splits().prints("14\n").wrote("map", "f3");
            counts(&both, 0, 5);
        }
        // All there already, from lld alone.
        let link = format!("{LINK} -Wl,--thinlto-cache-dir=cache");
        s.sh(&format!("OUT=other; {link}"));
        let both = s.link_both(&link);
        both.splits().prints("14\n");
        counts(&both, 5, 0);
        // One module edited: lld's own number of misses, ours too.
        source(s, 3, "int more;\n");
        s.sh("clang-$N -c -O2 -flto=thin f3.c; ls cache | sort >before");
        let both = s.link_both(&link);
        both.splits().prints("14\n");
        let new = both
            .split
            .file_names()
            .iter()
            .filter(|f| f.contains("llvmcache-"))
            .count();
        assert_eq!(new, 1);
        counts(&both, 4, 1);
        // With other numbers of threads.
        for more in ["--thinlto-jobs=1", "--thinlto-jobs=all", "--threads=3"] {
            s.link_both(&format!("{link},{more}"))
                .splits()
                .prints("14\n");
        }
    });
}

/// lld ignores an empty name, and the last one counts.
#[test]
fn which_directory() {
    each_llvm(|s| {
        sources(s);
        let both = s.link_both(&format!(
            "{LINK} -Wl,--thinlto-cache-dir=a,--thinlto-cache-dir="
        ));
        counts(both.splits(), 0, 5);
        let both = s.link_both(&format!(
            "{LINK} -Wl,--thinlto-cache-dir=a,--thinlto-cache-dir=b"
        ));
        counts(both.splits(), 0, 5);
        assert!(s.exists("b") && !s.exists("a"));
    });
}

/// The policy is lld's to carry out, and to warn about.
#[test]
fn a_policy() {
    each_llvm(|s| {
        sources(s);
        for policy in [
            "prune_interval=0s:cache_size_bytes=1",
            "prune_interval=0s:prune_after=1s",
            "cache_size_files=1000",
        ] {
            s.link_both(&format!(
                "{LINK} -Wl,--thinlto-cache-dir=cache,--thinlto-cache-policy={policy}"
            ))
            .splits()
            .prints("14\n");
        }
        // Which entries go is a matter of their age; how many is not.
        s.link_both(&format!(
            "{LINK} -Wl,--thinlto-cache-dir=few,--thinlto-cache-policy=prune_interval=0s:cache_size_files=2; \
             ls few | wc -l; rm -r few"
        ))
        .splits()
        .said("3")
        .prints("14\n");
    });
}

/// Entries of one link at a time, and of several at once, are whole.
#[test]
fn several_links_at_once() {
    each_llvm(|s| {
        sources(s);
        s.link_both(
            "for i in 1 2 3 4; do \
                 clang-$N -O2 -flto=thin -fuse-ld=lld -o out$i *.o -Wl,--thinlto-cache-dir=cache & \
                 pids+=($!); \
             done; for p in ${pids[@]}; do wait $p; done; cp out1 $OUT",
        )
        .same()
        .prints("14\n");
    });
}

/// What lld says about a cache that cannot be used, it says.
#[test]
fn a_cache_that_cannot_be() {
    each_llvm(|s| {
        sources(s);
        s.write("file", "no directory");
        s.link_both_with(
            &[LENIENT],
            &format!("{LINK} -Wl,--thinlto-cache-dir=file/cache,--thinlto-jobs=1"),
        )
        .fails("cache");
        s.link_both_with(
            &[LENIENT],
            &format!("{LINK} -Wl,--thinlto-cache-dir=cache,--thinlto-cache-policy=nonsense"),
        )
        .fails("cache");
    });
}

/// A cache on another file system than `TMPDIR`.
#[test]
fn another_file_system() {
    each_llvm(|s| {
        sources(s);
        // The harness has its TMPDIR on a disk; /dev/shm is memory.
        s.sh(
            "mkdir -p /dev/shm/ldwrap-$$ && ln -s /dev/shm/ldwrap-$$ memory && mkdir memory/cache",
        );
        let link = format!("{LINK} -Wl,--thinlto-cache-dir=memory/cache");
        let both = s.link_both(&link);
        both.same().prints("14\n");
        // The plain link filled the cache behind the symbolic link, out of the harness's sight.
        counts(&both, 5, 0);
        let theirs = s.sh("cd memory/cache; sha256sum llvmcache-*; rm llvmcache-*");
        let both = s.link_both_with(
            &[],
            &format!("[[ $LD != *wrap* ]] || rm -f memory/cache/llvmcache-*; {link}"),
        );
        let ours = s.sh(
            "cd memory/cache; sha256sum llvmcache-*; ls -A | grep -v ^llvmcache && exit 1; true",
        );
        s.sh("rm -r $(readlink memory)");
        both.same();
        assert_eq!(theirs, ours);
    });
}
