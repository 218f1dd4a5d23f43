//! A file that is replaced while jobs are made of the link, and put back: lld has read the one, who makes the index or compiles
//! reads the other. lld gets none of their objects, and no cache has one under a key that is not its own.

use ldwrap_tests::{LENIENT, LinkPair, Session, oldest_and_newest_with_shim};

const LINK: &str = "clang-$N -O2 -flto=thin -fuse-ld=lld -o $OUT main.o f.o";

/// Two versions of a module, and the first of them in place.
fn sources(s: &Session) {
    s.write(
        "main.c",
        "int f(int), printf(const char *, ...); int main(int argc, char **argv) { return printf(\"%d\\n\", f(argc)) < 0; }\n",
    );
    for (version, n) in [("old", 3), ("new", 9)] {
        let text = format!("__attribute__((noinline)) int f(int x) {{ return x * {n}; }}\n");
        s.write(&format!("{version}.c"), text);
    }
    s.sh("clang-$N -c -O2 -flto=thin main.c old.c new.c; cp old.o f.o; mkdir ../versions; mv old.o new.o ../versions");
}

/// A bash script that does `run` with the new version in the place of the old one, if it is run for a job of the link's. It
/// waits until lld has opened its inputs, which takes a few milliseconds.
fn swapping(s: &Session, run: &str) -> String {
    let (dir, versions) = (s.dir(), s.root().join("versions"));
    let (dir, versions) = (dir.display(), versions.display());
    format!(
        "mine=; for m in m/*.o; do [[ $(readlink $m) != {dir}/f.o ]] || mine=1; done\n\
         [[ $mine ]] && sleep 0.5 && mv {dir}/f.o {versions}/aside && cp {versions}/new.o {dir}/f.o\n\
         {run}; status=$?\n\
         [[ $mine ]] && mv {versions}/aside {dir}/f.o\n\
         exit $status\n"
    )
}

/// The link while the module is swapped, and then in peace with each version: whatever caches have, the bytes are lld's.
fn link_while_swapping(s: &Session, place: &[(&str, &str)], link: &str) {
    let cache = s.root().join("cache").display().to_string();
    let common = [
        ("LDWRAP_STRICT", ""),
        ("LDWRAP_JOBS", "1"),
        ("LDWRAP_CACHE_SIZE", "1G"),
        ("LDWRAP_CACHE_DIR", &cache),
    ];
    let through = |more: &[(&str, &str)]| -> LinkPair<'_> {
        s.link_both_with(&[&common[..], more].concat(), link)
    };
    let swapped = through(place);
    swapped.same().succeeds();
    if !ldwrap_tests::fixtures_only() {
        let reason = swapped.report()["reason"].as_str().unwrap_or_default();
        // On a slow machine lld's threads may have compiled all before a distributor ended.
        let late = place.contains(&("LDWRAP_EXECUTOR", "distributor"))
            && swapped.number("/phases_ms/backends") > 2000;
        assert!(
            late || reason.contains("has changed during the link"),
            "{}",
            swapped.report()
        );
        assert_ne!(
            swapped.number("/compiled_by_lld"),
            0,
            "{}",
            swapped.report()
        );
    }
    for version in ["old", "new", "old"] {
        s.sh(&format!("cp ../versions/{version}.o f.o"));
        for executor in ["clang", "local"] {
            through(&[("LDWRAP_EXECUTOR", executor)]).same().splits();
        }
    }
}

#[test]
fn by_clang() {
    oldest_and_newest_with_shim(|s| {
        sources(s);
        let run = format!("clang-{} \"$@\"", s.llvm);
        let clang = s
            .clang("../swaps", &swapping(s, &run))
            .display()
            .to_string();
        let place = [("LDWRAP_EXECUTOR", "clang"), ("LDWRAP_CLANG", &*clang)];
        link_while_swapping(s, &place, LINK);
        // With a directory of the user's, in which lld finds objects by the names of its own keys.
        s.sh("cp ../versions/old.o f.o");
        let link = format!("{LINK} -Wl,--thinlto-cache-dir=${{DIR:-../alone}}");
        link_while_swapping(s, &[&place[..], &[("DIR", "../ours")]].concat(), &link);
        let lld = "clang-$N -O2 -flto=thin -fuse-ld=lld main.o f.o -o";
        s.sh(&format!(
            "cp ../versions/old.o f.o; {lld} a; {lld} b -Wl,--thinlto-cache-dir=../ours; cmp a b"
        ));
    });
}

#[test]
fn by_a_distributor() {
    oldest_and_newest_with_shim(|s| {
        sources(s);
        let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures");
        let plain = format!("/usr/bin/python3 {fixtures}/distributor.py");
        let cache = s.root().join("cache").display().to_string();
        let by_plain = |size| {
            let env = [
                ("LDWRAP_EXECUTOR", "distributor"),
                ("LDWRAP_DISTRIBUTOR", &*plain),
                ("LDWRAP_CACHE_SIZE", size),
                ("LDWRAP_CACHE_DIR", &cache),
            ];
            s.link_both_with(&env, LINK).same().splits();
        };
        // The tools are tried once, so that the distributor has its two seconds for the link.
        by_plain("0");
        let text = swapping(s, &format!("{plain} \"$@\""));
        let program = s.script("../swaps.sh", &format!("#!/bin/bash\n{text}"));
        let program = program.display().to_string();
        let place = [
            ("LDWRAP_EXECUTOR", "distributor"),
            ("LDWRAP_DISTRIBUTOR", &*program),
        ];
        link_while_swapping(s, &place, LINK);
        // What the other one has left in the cache is found by its keys.
        s.sh("cp ../versions/old.o f.o");
        by_plain("1G");
    });
}

/// A version script is no module, but decides what the index says of each symbol.
#[test]
fn a_version_script_before_the_index_run() {
    oldest_and_newest_with_shim(|s| {
        for (name, text) in [
            ("a", "int g(int); int f(int x) { return g(x) + 1; }\n"),
            (
                "b",
                "int h(int); __attribute__((noinline)) int g(int x) { return h(x) * 3; }\n",
            ),
            ("c", "int h(int x) { return x - 7; }\n"),
        ] {
            s.write(&format!("{name}.c"), text);
        }
        s.write("exports.map", "{ global: f; g; h; local: *; };\n");
        s.write("../few.map", "{ global: f; local: *; };\n");
        s.compile("clang-$N -c -O2 -fPIC -flto=thin a.c b.c c.c");
        let (dir, aside) = (s.dir(), s.root());
        let (dir, aside) = (dir.display(), aside.display());
        let text = format!(
            "#!/bin/bash\n\
             all=\"$*\"; for a; do [[ $a == @* ]] && all+=$(<\"${{a#@}}\"); done\n\
             lld=/usr/lib/llvm-{}/bin/ld.lld\n\
             [[ $all == *--thinlto-index-only* && $all == *exports.map* ]] || exec $lld \"$@\"\n\
             mv {dir}/exports.map {aside}/aside.map; cp {aside}/few.map {dir}/exports.map\n\
             $lld \"$@\"; status=$?\n\
             mv {aside}/aside.map {dir}/exports.map; exit $status\n",
            s.llvm
        );
        let lld = s.script("../swaps-lld", &text).display().to_string();
        let link = "$LD -shared -o $OUT a.o b.o c.o --version-script=exports.map";
        for more in ["", " --thinlto-cache-dir=${DIR:-../alone}"] {
            let env = [
                ("LDWRAP_EXECUTOR", "clang"),
                ("LDWRAP_REAL_LLD", &*lld),
                ("DIR", "../ours"),
                LENIENT,
            ];
            let both = s.link_both_with(&env, &format!("{link}{more}"));
            both.same().succeeds();
            if !ldwrap_tests::fixtures_only() {
                let reason = both.report()["reason"].as_str().unwrap_or_default();
                assert!(reason.contains("exports.map"), "{}", both.report());
                assert_eq!(both.number("/compiled_by_lld"), 3, "{}", both.report());
            }
        }
        // Nor has lld's own cache an object that is not its own.
        s.sh(&format!(
            "LD=/usr/lib/llvm-$N/bin/ld.lld; {}; {} --thinlto-cache-dir=../ours; cmp x y",
            link.replace("$OUT", "x"),
            link.replace("$OUT", "y")
        ));
    });
}

/// A time in the future that somebody has set says nothing of changes.
#[test]
fn times_in_the_future() {
    oldest_and_newest_with_shim(|s| {
        sources(s);
        s.sh("touch -d '+1 hour' main.o f.o");
        let cache = s.root().join("cache").display().to_string();
        let env = [("LDWRAP_CACHE_SIZE", "1G"), ("LDWRAP_CACHE_DIR", &*cache)];
        let by = |executor| {
            let place = [("LDWRAP_EXECUTOR", executor)];
            s.link_both_with(&[&env[..], &place].concat(), LINK)
        };
        by("clang").same().splits();
        s.sh("rm -r ../cache");
        by("local").same().splits_cached(0, 2);
        by("local").same().splits_cached(2, 0);
    });
}
