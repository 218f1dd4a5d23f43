//! `ldwrap report`: reports and traces of links as one HTML page, to be opened in a browser.
//!
//! A page and not a server or a terminal view: it can be kept beside a build's log, attached to a bug report, and opened
//! where nothing is installed. It holds its data, its style and its script, and asks nothing of the network. Names in
//! reports and traces come from whoever named the modules: the page shows them as text only ([`page`]).

mod link;
mod page;
mod read;
mod trace;

use read::Collected;
use shim::config::Config;
use shim::message::say;
use std::fs;
use std::io::{self, IsTerminal};
use std::path::PathBuf;

/// What a page is made of, and where it goes.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Reports (LDWRAP_REPORT), traces (LDWRAP_TRACE) or directories of traces; without any, those that the settings name
    #[arg(value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Where to write the page; otherwise to standard output, if that is no terminal
    #[arg(short, long, value_name = "PAGE")]
    pub output: Option<PathBuf>,
}

/// Writes the page of the files that `options` names, or the settings if it names none; notes on what was left out go to
/// standard error. An error says which file cannot be read or written, or what to type.
pub fn run(options: &Options, config: &Config) -> Result<(), String> {
    if options.output.is_none() && io::stdout().is_terminal() {
        return Err(
            "the page is HTML, for a browser; name a file for it: ldwrap report -o page.html"
                .into(),
        );
    }
    let files = match options.files.as_slice() {
        [] => files_of_settings(config)?,
        named => named.to_vec(),
    };
    let mut collected = Collected::default();
    for file in &files {
        collected
            .add(file)
            .map_err(|e| format!("{}: {e}", file.display()))?;
    }
    for note in collected.notes() {
        say(note);
    }
    let page = page::page(&collected.into_json());
    match &options.output {
        Some(file) => fs::write(file, &page).map_err(|e| format!("{}: {e}", file.display())),
        None => super::print(page),
    }
}

/// The files that links were told to write.
fn files_of_settings(config: &Config) -> Result<Vec<PathBuf>, String> {
    let files: Vec<_> = (config.report.iter().chain(&config.trace))
        .cloned()
        .collect();
    let there: Vec<_> = files.iter().filter(|file| file.exists()).cloned().collect();
    match (files.first(), there.is_empty()) {
        (None, _) => Err("there is no report yet: set LDWRAP_REPORT=FILE, or LDWRAP_TRACE=DIRECTORY for what each \
             module took, and link; or name a file: ldwrap report FILE"
            .into()),
        (Some(file), true) => Err(format!(
            "{} is not there yet: the first link through ldwrap makes it",
            file.display()
        )),
        _ => Ok(there),
    }
}
