//! A link done twice, by lld alone and through ldwrap, and what can be asserted of the two.

use crate::run::{FileState, Run, Tree, snapshot};
use crate::{Session, fixtures_only};
use serde_json::Value;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;

/// Undoes the default `LDWRAP_STRICT=1` of a link, for [`Session::link_both_with`].
pub const LENIENT: (&str, &str) = ("LDWRAP_STRICT", "");

impl Session {
    /// Links once plainly and once through ldwrap, see the crate's documentation. What an earlier
    /// `link_both` wrote is removed first.
    pub fn link_both(&self, command: &str) -> LinkPair<'_> {
        self.link_both_with(&[], command)
    }

    /// [`Session::link_both`] with further variables for the link through ldwrap; an empty value
    /// unsets one.
    pub fn link_both_with(&self, env: &[(&str, &str)], command: &str) -> LinkPair<'_> {
        for path in self.written.take().into_iter().rev() {
            let path = self.dir().join(path);
            let _ = if path.is_dir() {
                fs::remove_dir(&path)
            } else {
                fs::remove_file(&path)
            };
        }
        let before = snapshot(&self.dir());
        let plain = self.plain_link(command, &before);

        let mut through = self.bash(command);
        self.use_shim(&mut through);
        if env.iter().any(|(key, _)| *key == "LDWRAP_REMOTE") {
            through.env_remove("LDWRAP_EXECUTOR");
        }
        for (key, value) in env {
            if value.is_empty() {
                through.env_remove(key);
            } else {
                through.env(key, value);
            }
        }
        let _ = fs::remove_file(self.report_path());
        let split = self.capture_files(through, &before);
        self.written.replace(split.files.keys().cloned().collect());
        self.assert_nothing_left(command);
        LinkPair {
            s: self,
            command: command.to_owned(),
            plain,
            split,
            reports: self.reports(),
        }
    }

    /// [`Session::link_both_with`], by lld's own threads and with a cache of the session's own.
    pub fn link_both_cached(&self, more: &[(&str, &str)], command: &str) -> LinkPair<'_> {
        let cache = self.root().join("cache").display().to_string();
        let mut env = vec![
            ("LDWRAP_EXECUTOR", "local"),
            ("LDWRAP_CACHE_SIZE", "1G"),
            ("LDWRAP_CACHE_DIR", cache.as_str()),
        ];
        env.extend(more);
        self.link_both_with(&env, command)
    }

    /// The link by lld alone, whose files are in `plain/` then. The same again, cold and warm for ldwrap, is not done again.
    fn plain_link(&self, command: &str, before: &Tree) -> Run {
        let plain_dir = self.root().join("plain");
        if let Some(last) = self.last_plain.borrow().as_ref() {
            let same = last.command == command && last.before == *before;
            if same && snapshot(&plain_dir) == last.moved {
                return last.run.clone();
            }
        }
        let run = self.capture_files(self.bash(command), before);
        self.move_away(&run.files, before);
        self.last_plain.replace(Some(PlainLink {
            command: command.to_owned(),
            before: before.clone(),
            run: run.clone(),
            moved: snapshot(&plain_dir),
        }));
        run
    }

    /// Moves what the plain link wrote to `plain/` and puts back what it changed.
    fn move_away(&self, written: &Tree, before: &Tree) {
        let plain = self.root().join("plain");
        fs::remove_dir_all(&plain).expect("an empty plain/");
        for (path, entry) in written {
            let (from, to) = (self.dir().join(path), plain.join(path));
            match entry {
                FileState::Dir => fs::create_dir_all(&to).expect("a directory in plain/"),
                _ => {
                    fs::create_dir_all(to.parent().expect("plain/ itself"))
                        .expect("a directory in plain/");
                    fs::rename(&from, &to).expect("a file moved to plain/");
                }
            }
        }
        fs::create_dir_all(&plain).expect("plain/");
        for (path, entry) in written.iter().rev() {
            let at = self.dir().join(path);
            match (entry, before.get(path)) {
                (FileState::Dir, None) => fs::remove_dir(&at).expect("an empty directory"),
                (_, Some(FileState::File { mode, bytes })) => {
                    fs::write(&at, bytes).expect("a file as it was");
                    fs::set_permissions(&at, fs::Permissions::from_mode(*mode)).expect("its mode");
                }
                (_, Some(FileState::Link(to))) => {
                    std::os::unix::fs::symlink(to, &at).expect("a link as it was")
                }
                _ => {}
            }
        }
    }

    /// Runs a command, and collects the files of the working directory that it wrote or changed.
    fn capture_files(&self, command: Command, before: &Tree) -> Run {
        let mut run = self.capture(command);
        run.files = snapshot(&self.dir());
        run.files
            .retain(|path, entry| before.get(path) != Some(entry));
        run
    }
}

/// A link by lld alone, all that was in the working directory before, and what is in `plain/` after it.
pub(crate) struct PlainLink {
    command: String,
    before: Tree,
    run: Run,
    moved: Tree,
}

/// The two links of [`Session::link_both`]: `plain` with lld, `split` through ldwrap.
pub struct LinkPair<'s> {
    s: &'s Session,
    command: String,
    /// The link with the real lld.
    pub plain: Run,
    /// The link through ldwrap, whether it was split or not.
    pub split: Run,
    /// What ldwrap reported (`LDWRAP_REPORT`), one object a link.
    pub reports: Vec<Value>,
}

impl LinkPair<'_> {
    fn context(&self) -> String {
        format!(
            "LLVM {}: {}\n== plain: {}\n== through ldwrap: {}\n== reports: {:?}\n",
            self.s.llvm, self.command, self.plain, self.split, self.reports
        )
    }

    /// Asserts that both links did the same: exit status, stdout, stderr, and each file written,
    /// whole, with its mode.
    pub fn same(&self) -> &Self {
        let (plain, split) = (&self.plain, &self.split);
        assert_eq!(
            plain.status.into_raw(),
            split.status.into_raw(),
            "exit status differs\n{}",
            self.context()
        );
        assert!(
            plain.stdout == split.stdout,
            "stdout differs\n{}",
            self.context()
        );
        assert!(
            plain.stderr == split.stderr,
            "stderr differs\n{}",
            self.context()
        );
        assert_eq!(
            plain.file_names(),
            split.file_names(),
            "other files were written\n{}",
            self.context()
        );
        for (path, entry) in &plain.files {
            if split.files.get(path) != Some(entry) {
                panic!(
                    "{path:?} differs: {}\n{}",
                    self.difference(path),
                    self.context()
                );
            }
        }
        self
    }

    /// How two files differ: sections, dynamic table and symbols, for the person who reads a failure.
    fn difference(&self, path: &Path) -> String {
        let mut c = self.s.bash(
            "cmp \"$PLAIN\" \"$SPLIT\" | head -3 || true; \
             elf() { llvm-readelf-$N -SdWs --dyn-syms \"$1\" 2>&1; llvm-objdump-$N -d \"$1\" 2>&1; }; \
             diff <(elf \"$PLAIN\") <(elf \"$SPLIT\") | head -60 || true",
        );
        c.env("PLAIN", self.s.root().join("plain").join(path))
            .env("SPLIT", self.s.dir().join(path));
        self.s.capture(c).to_string()
    }

    /// The one report of this link.
    pub fn report(&self) -> &Value {
        match self.reports.as_slice() {
            [one] => one,
            _ => panic!("one report expected\n{}", self.context()),
        }
    }

    /// A number in the report, by its JSON pointer.
    pub fn number(&self, pointer: &str) -> u64 {
        let found = self.report().pointer(pointer).and_then(Value::as_u64);
        found.unwrap_or_else(|| panic!("no {pointer} in {}", self.report()))
    }

    fn field(&self, name: &str) -> &str {
        self.report()
            .get(name)
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    /// Asserts that the link succeeds, was split, and did the same as lld. Where clang was to compile all
    /// modules, it did.
    pub fn splits(&self) -> &Self {
        self.splits_but(0)
    }

    /// The same where so many modules were left to lld.
    pub fn splits_but(&self, by_lld: u64) -> &Self {
        assert!(self.plain.status.success(), "lld fails\n{}", self.context());
        if !fixtures_only() {
            assert!(
                self.split.status.success(),
                "the split fails\n{}",
                self.context()
            );
            assert_eq!(
                self.field("action"),
                "split",
                "not split\n{}",
                self.context()
            );
            let number = |key| self.report().get(key).and_then(Value::as_u64);
            // What lld has a warning for it has to compile.
            if self.field("executor") == "clang" && self.plain.stderr.is_empty() {
                assert_eq!(
                    (self.field("reason"), number("compiled_by_lld")),
                    ("", Some(by_lld)),
                    "not by clang\n{}",
                    self.context()
                );
            }
            assert_eq!(number("version"), Some(1), "{}", self.context());
            assert_eq!(number("exit_status"), Some(0), "{}", self.context());
            assert!(
                number("modules").is_some_and(|n| n > 0),
                "no modules\n{}",
                self.context()
            );
        }
        self.same()
    }

    /// [`LinkPair::splits`], by lld's own threads, with so many objects found in the cache and not.
    pub fn splits_cached(&self, hits: u64, misses: u64) -> &Self {
        self.splits();
        if !fixtures_only() {
            let report = self.report();
            assert_eq!(report["executor"], "local", "{report}");
            let cache = &report["cache"];
            let found = [&cache["hits"], &cache["misses"]].map(Value::as_u64);
            assert_eq!(found, [Some(hits), Some(misses)], "{report}");
        }
        self
    }

    /// Asserts the number of modules that the backends compiled.
    pub fn modules(&self, expected: u64) -> &Self {
        if !fixtures_only() {
            let modules = self.report().get("modules").and_then(Value::as_u64);
            assert_eq!(modules, Some(expected), "{}", self.context());
        }
        self
    }

    /// Asserts that no jobs were made of the link, for a reason that contains `reason` (in any case): it was
    /// done by lld's own threads, or forwarded. It did the same as lld, whether lld succeeds or not.
    pub fn left_to_lld(&self, reason: &str) -> &Self {
        if !fixtures_only() {
            let made = self.report().get("cache").and_then(|c| c.get("misses"));
            assert!(
                self.field("action") == "forward" || self.report().get("compiled_by_lld") == made,
                "not by lld\n{}",
                self.context()
            );
            let given = self.field("reason");
            assert!(!given.is_empty(), "no reason\n{}", self.context());
            let found = given.to_lowercase().contains(&reason.to_lowercase());
            assert!(
                found,
                "the reason does not say '{reason}'\n{}",
                self.context()
            );
        }
        self.same()
    }

    /// Asserts that lld succeeds; that ldwrap does too follows from [`LinkPair::same`].
    pub fn succeeds(&self) -> &Self {
        assert!(self.plain.status.success(), "lld fails\n{}", self.context());
        self
    }

    /// Asserts that lld fails, with `message` in its stderr, and that ldwrap did the same.
    pub fn fails(&self, message: &str) -> &Self {
        assert!(
            !self.plain.status.success(),
            "lld succeeds\n{}",
            self.context()
        );
        assert!(
            self.plain.errors().contains(message),
            "another error than '{message}'\n{}",
            self.context()
        );
        self.same()
    }

    /// Asserts that a file written by both links contains `text`: that a side file is not empty.
    pub fn wrote(&self, name: &str, text: &str) -> &Self {
        let found = self.s.root().join("plain").join(name);
        let bytes = fs::read(&found)
            .unwrap_or_else(|e| panic!("lld wrote no {name}: {e}\n{}", self.context()));
        let has = String::from_utf8_lossy(&bytes).contains(text);
        assert!(has, "no '{text}' in {name}\n{}", self.context());
        self
    }

    /// Asserts that stdout of both links contains `text`.
    pub fn said(&self, text: &str) -> &Self {
        let all = [self.plain.stdout.as_slice(), self.plain.stderr.as_slice()].concat();
        assert!(
            String::from_utf8_lossy(&all).contains(text),
            "lld did not say '{text}'\n{}",
            self.context()
        );
        self
    }

    /// Runs `$OUT` of both links, and asserts that both exit with 0 and print `expected`.
    pub fn prints(&self, expected: &str) -> &Self {
        self.runs("$OUT", expected)
    }

    /// Runs a command on both outputs, with `$OUT` the path of each in turn and its directory in
    /// `LD_LIBRARY_PATH`; asserts that both succeed and print `expected`.
    pub fn runs(&self, command: &str, expected: &str) -> &Self {
        for dir in [self.s.root().join("plain"), self.s.dir()] {
            let mut path = OsString::from(&dir);
            path.push(":");
            path.push(self.s.dir());
            let mut c = self.s.bash(command);
            c.env("OUT", dir.join("a.out")).env("LD_LIBRARY_PATH", path);
            let run = self.s.capture(c);
            let stdout = String::from_utf8_lossy(&run.stdout);
            assert!(
                run.status.success() && stdout == expected,
                "'{command}' in {dir:?}: expected '{expected}', got: {run}\n{}",
                self.context()
            );
        }
        self
    }
}
