//! `ldwrap config`: what is set, where, and what that means.

use crate::app::advice;
use shim::config::{Config, Executor};
use shim::settings::SETTINGS;
use std::fmt::Write;

/// Shows it on standard output; an error says that something of it is bad.
pub fn show(config: &Config, all: bool) -> Result<(), String> {
    let mut text = String::new();
    for setting in &SETTINGS {
        let given = config.given.iter().rev().find(|g| g.name == setting.name);
        let (value, origin) = match given {
            Some(given) => (given.shown.as_str(), given.origin.to_string()),
            None if all => (setting.default, "not set".into()),
            None => continue,
        };
        let _ = writeln!(text, "{} = {value}  ({origin})", setting.name);
        let _ = writeln!(text, "    {}", setting.help);
    }
    if config.given.is_empty() && !all {
        let _ = writeln!(text, "Nothing is set.");
    }
    text.push('\n');
    let _ = writeln!(text, "Backends run {}.", place(config));
    let _ = match (&config.cache_dir, config.cache_size) {
        (Some(dir), 1..) => writeln!(text, "Objects are kept in {}.", dir.display()),
        (_, 0) => writeln!(text, "No objects are kept."),
        (None, _) => writeln!(
            text,
            "No objects are kept: there is no directory for them without HOME, XDG_CACHE_HOME or LDWRAP_CACHE_DIR."
        ),
    };
    for advice in [advice::on_server(config), advice::on_cache(config)]
        .into_iter()
        .flatten()
    {
        let _ = writeln!(text, "Note: {}: {}.", advice.what, advice.fix);
    }
    if config.complaints.is_empty() {
        return super::print(text);
    }
    text.push('\n');
    for complaint in &config.complaints {
        let _ = writeln!(text, "{complaint}");
    }
    super::print(text)?;
    Err("some settings are bad: see above".into())
}

/// Where backends run, as the settings say.
pub(crate) fn place(config: &Config) -> String {
    match config.executor() {
        Executor::Local => "in lld's own threads".into(),
        Executor::Clang => "in a clang process each, on this machine".into(),
        Executor::Remote => format!("on {}, and in lld's own threads", config.server.address()),
        Executor::Distributor => match config.distributor.first() {
            Some(program) => format!("by {}, and in lld's own threads", program.to_string_lossy()),
            None => "in lld's own threads: LDWRAP_DISTRIBUTOR names no program".into(),
        },
    }
}
