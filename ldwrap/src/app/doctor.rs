//! `ldwrap doctor`: what would run, whether it works, and what is in the way.

use crate::app::linker::default_jobs;
use crate::app::{advice, shim_dir};
use crate::jobs::toolchain::Toolchain;
use crate::link::selftest;
use shim::config::Config;
use std::ffi::OsStr;

/// Looks at everything that a split needs, a line each; an error says how much is wrong.
pub fn run(config: &Config) -> Result<(), String> {
    let mut wrong = 0;
    let mut line = |what: &str, found: Result<String, String>| {
        let (mark, text) = match found {
            Ok(text) => ("ok  ", text),
            Err(text) => {
                wrong += 1;
                ("BAD ", text)
            }
        };
        println!("{mark} {what}: {text}");
    };
    for complaint in &config.complaints {
        line("settings", Err(complaint.clone()));
    }
    line("shim", shim_dir().map(|d| d.display().to_string()));
    let real = shim::lld::find(
        OsStr::new("ld.lld"),
        config,
        std::env::var_os("PATH").as_deref(),
    );
    let toolchain = match real {
        Ok(real) => {
            line("real lld", Ok(real.display().to_string()));
            Toolchain::find(&real, config).map_err(|e| e.to_string())
        }
        Err(e) => Err(e.to_string()),
    };
    match toolchain {
        Ok(mut toolchain) => {
            line(
                "clang",
                Ok(format!(
                    "{}, {}",
                    toolchain.clang.display(),
                    toolchain.version
                )),
            );
            let jobs = default_jobs(config, None);
            let tested = selftest::run(&toolchain, jobs).map_err(|f| f.to_string());
            if tested.is_ok() {
                toolchain.record_self_test();
            }
            line(
                "self-test",
                tested.map(|()| {
                    "a split link equals lld's own, with every object from a backend".into()
                }),
            );
            line("local backends at once", Ok(jobs.to_string()));
        }
        Err(why) => line("clang", Err(why)),
    }
    let scratch = crate::sys::scratch::Scratch::new();
    line(
        "scratch directory",
        scratch
            .map(|s| s.root().display().to_string())
            .map_err(|e| e.to_string()),
    );
    line("cache directory", cache_directory(config));
    for note in advice::notes(config) {
        println!("note  {note}");
    }
    if wrong == 0 {
        Ok(())
    } else {
        Err(format!(
            "{wrong} of these would keep links from being split"
        ))
    }
}

/// The cache directory, if files can be made in it.
fn cache_directory(config: &Config) -> Result<String, String> {
    let Some(dir) = &config.cache_dir else {
        return Err("none: set HOME, XDG_CACHE_HOME or LDWRAP_CACHE_DIR".into());
    };
    let tried = std::fs::create_dir_all(dir).and_then(|()| tempfile::tempfile_in(dir));
    match tried {
        Ok(_) if config.cache_size == 0 => Ok("LDWRAP_CACHE_SIZE=0: no objects are kept".into()),
        Ok(_) => Ok(dir.display().to_string()),
        Err(e) => Err(format!("{}: no file can be made there: {e}", dir.display())),
    }
}
