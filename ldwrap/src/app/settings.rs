//! `ldwrap config`: what is set, where, and what that means.

use crate::app::advice;
use shim::config::{Config, Executor};
use shim::settings::SETTINGS;

/// Shows it on standard output; an error says that something of it is bad.
pub fn show(config: &Config, all: bool) -> Result<(), String> {
    for setting in &SETTINGS {
        let given = config.given.iter().rev().find(|g| g.name == setting.name);
        let (value, origin) = match given {
            Some(given) => (given.shown.as_str(), given.origin.to_string()),
            None if all => (setting.default, "not set".into()),
            None => continue,
        };
        println!("{} = {value}  ({origin})", setting.name);
        println!("    {}", setting.help);
    }
    if config.given.is_empty() && !all {
        println!("Nothing is set.");
    }
    println!();
    println!("Backends run {}.", place(config));
    match (&config.cache_dir, config.cache_size) {
        (Some(dir), 1..) => println!("Objects are kept in {}.", dir.display()),
        (_, 0) => println!("No objects are kept."),
        (None, _) => println!(
            "No objects are kept: there is no directory for them without HOME, XDG_CACHE_HOME or LDWRAP_CACHE_DIR."
        ),
    }
    for advice in [advice::on_server(config), advice::on_cache(config)]
        .into_iter()
        .flatten()
    {
        println!("Note: {}: {}.", advice.what, advice.fix);
    }
    if config.complaints.is_empty() {
        return Ok(());
    }
    println!();
    for complaint in &config.complaints {
        println!("{complaint}");
    }
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
