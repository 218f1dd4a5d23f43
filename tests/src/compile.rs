//! Compiles that many tests have in common, done once: to start a compiler takes longer than what it does in most of them.

use crate::Session;
use crate::run::{FileState, Tree, snapshot};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Mutex;

/// What commands wrote, by LLVM version, command, and all that was in the working directory.
static WRITTEN: Mutex<BTreeMap<(u32, String, Tree), Tree>> = Mutex::new(BTreeMap::new());

impl Session {
    /// [`Session::sh`] for a command that compiles files of the working directory, and depends on nothing else: with the same
    /// files and LLVM version it is run once for all tests. Not with `-g`, which writes the name of the directory into objects.
    pub fn compile(&self, command: &str) {
        assert!(!command.contains(" -g"), "not for -g: {command}");
        let before = snapshot(&self.dir());
        let key = (self.llvm, command.to_owned(), before);
        let known = WRITTEN.lock().expect("the compiles").get(&key).cloned();
        if let Some(files) = known {
            self.restore(&files);
            return;
        }
        self.sh(command);
        let mut files = snapshot(&self.dir());
        files.retain(|path, entry| key.2.get(path) != Some(entry));
        WRITTEN.lock().expect("the compiles").insert(key, files);
    }

    fn restore(&self, files: &Tree) {
        for (path, entry) in files {
            let FileState::File { mode, bytes } = entry else {
                panic!("a compile writes files: {path:?}");
            };
            let at = self.dir().join(path);
            fs::write(&at, bytes).expect("an object");
            fs::set_permissions(&at, fs::Permissions::from_mode(*mode)).expect("its mode");
        }
    }
}
