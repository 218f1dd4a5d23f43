//! What documents say of commands and settings, made from the one table of each: `ldwrap help settings`, those of
//! docs/settings.md, the manual page, completions for shells.

use clap::{Command, ValueEnum};
use clap_mangen::roff::{Roff, bold, italic, roman};
use shim::settings::{SETTINGS, Setting, Topic};
use std::fmt::Write;
use std::io;

/// A part of a document, or a whole one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// The table of settings in docs/settings.md
    Settings,
    /// The table of settings of a server in docs/settings.md
    Server,
    /// An example of ldwrap.toml
    Example,
    /// The manual page
    Man,
    /// Completions for bash
    Bash,
    /// Completions for zsh
    Zsh,
    /// Completions for fish
    Fish,
}

/// Prints a part on standard output; `command` is what clap knows of the command line.
pub fn print(part: Part, command: &Command) -> Result<(), String> {
    let mut out = Vec::new();
    match part {
        Part::Settings => out.extend(table(Topic::Links).into_bytes()),
        Part::Server => out.extend(table(Topic::Server).into_bytes()),
        Part::Example => out.extend(example().into_bytes()),
        Part::Man => man(command, &mut out).map_err(|e| e.to_string())?,
        Part::Bash => complete(clap_complete::Shell::Bash, command, &mut out),
        Part::Zsh => complete(clap_complete::Shell::Zsh, command, &mut out),
        Part::Fish => complete(clap_complete::Shell::Fish, command, &mut out),
    }
    super::print(out)
}

fn complete(shell: clap_complete::Shell, command: &Command, out: &mut Vec<u8>) {
    clap_complete::generate(shell, &mut command.clone(), "ldwrap", out);
}

/// All settings, for a terminal.
#[must_use]
pub fn settings() -> String {
    let mut text = String::from(
        "Settings are environment variables. Each is also a key of /etc/ldwrap.toml and of \
         ${XDG_CONFIG_HOME:-~/.config}/ldwrap/ldwrap.toml\n(or of the file that LDWRAP_CONFIG names instead), \
         without LDWRAP_ and in lower case. The environment wins.\n",
    );
    for setting in &SETTINGS {
        let _ = write!(text, "\n{}", self::setting(setting));
    }
    text
}

/// One setting, for a terminal.
#[must_use]
pub fn setting(setting: &Setting) -> String {
    let Setting {
        name,
        value,
        default,
        help,
        more,
        ..
    } = setting;
    let mut text = format!("{name}={value}\n    {}.", capital(help));
    if !more.is_empty() {
        let _ = write!(text, " {more}");
    }
    let _ = writeln!(text, "\n    Default: {default}");
    text
}

fn capital(text: &str) -> String {
    let mut rest = text.chars();
    let first = rest.next().map(|c| c.to_ascii_uppercase());
    first.into_iter().chain(rest).collect()
}

/// Settings as a table in Markdown.
fn table(topic: Topic) -> String {
    let mut text = String::from("| variable | meaning | default |\n|---|---|---|\n");
    for setting in SETTINGS.iter().filter(|setting| setting.topic == topic) {
        let cell = |text: &str| text.replace('|', "\\|");
        let default = match setting.default.strip_prefix('(') {
            Some(words) => words.trim_end_matches(')').to_owned(),
            None => format!("`{}`", setting.default),
        };
        let _ = writeln!(
            text,
            "| `{}` | `{}`: {} | {} |",
            setting.name,
            cell(setting.value),
            cell(setting.help),
            cell(&default)
        );
    }
    text
}

/// A configuration file that sets nothing: each setting is a comment. The default stands for its value where it is
/// one, else what may stand there.
fn example() -> String {
    let mut text = String::from(
        "# Settings of ldwrap, for /etc/ldwrap.toml or ~/.config/ldwrap/ldwrap.toml; LDWRAP_ variables win over both.\n",
    );
    for setting in &SETTINGS {
        let (help, value) = (capital(setting.help), setting.default);
        let value = if value.starts_with('(') {
            setting.value
        } else {
            value
        };
        let _ = write!(text, "\n# {help}.\n#{} = \"{value}\"\n", setting.key());
    }
    text
}

/// The manual page.
fn man(command: &Command, out: &mut Vec<u8>) -> io::Result<()> {
    let page = clap_mangen::Man::new(command.clone());
    page.render_title(out)?;
    page.render_name_section(out)?;
    let mut roff = Roff::new();
    roff.control("SH", ["SYNOPSIS"]);
    for name in ["ld.lld", "ldwrap"] {
        let (options, file) = (italic("lld's options"), italic("file"));
        let rest = [roman(" ["), options, roman("] "), file, roman(" ...")];
        roff.text([bold(name)].into_iter().chain(rest).collect::<Vec<_>>());
        roff.control("br", []);
    }
    roff.text([
        bold("ldwrap"),
        roman(" "),
        italic("command"),
        roman(" ["),
        italic("argument"),
        roman(" ...]"),
    ]);
    roff.control("SH", ["DESCRIPTION"]);
    for paragraph in DESCRIPTION {
        roff.control("PP", []);
        roff.text([roman(*paragraph)]);
    }
    commands(command, &mut roff);
    roff.control("SH", ["ENVIRONMENT"]);
    for setting in &SETTINGS {
        roff.control("TP", []);
        roff.text([bold(setting.name), roman("="), italic(setting.value)]);
        roff.text([roman(format!(
            "{}. {}",
            capital(setting.help),
            setting.more
        ))]);
        roff.text([roman(format!("Default: {}.", setting.default))]);
    }
    roff.control("SH", ["FILES"]);
    for (file, text) in FILES {
        roff.control("TP", []);
        roff.text([italic(*file)]);
        roff.text([roman(*text)]);
    }
    roff.control("SH", ["EXIT STATUS"]);
    roff.text([roman("As a linker, lld's. As a tool, 0 if all is well, 2 if the command line is wrong, otherwise 1; of ldwrap run, that of the command.")]);
    roff.control("SH", ["SEE ALSO"]);
    roff.text([bold("ld.lld"), roman("(1), "), bold("clang"), roman("(1)")]);
    roff.to_writer(out)
}

/// The section about subcommands.
fn commands(command: &Command, roff: &mut Roff) {
    roff.control("SH", ["COMMANDS"]);
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        roff.control("TP", []);
        roff.text([bold(sub.get_name())]);
        let about = sub
            .get_long_about()
            .or(sub.get_about())
            .map(ToString::to_string);
        roff.text([roman(about.unwrap_or_default())]);
        for subsub in sub.get_subcommands() {
            roff.control("TP", []);
            roff.text([bold(format!("{} {}", sub.get_name(), subsub.get_name()))]);
            roff.text([roman(
                subsub
                    .get_about()
                    .map(ToString::to_string)
                    .unwrap_or_default(),
            )]);
        }
    }
}

const DESCRIPTION: &[&str] = &[
    "ldwrap takes the place of ld.lld. The real lld runs the same command line, watched, and gets the objects of \
     ThinLTO modules that were compiled before from a cache; links that run at the same time share the processors and \
     the memory; with a Remote Execution server, modules are compiled on other machines too. The output equals, byte \
     for byte, what the real lld writes alone. A link without LLVM bitcode or with little of it, and one that \
     ldwrap does not understand, goes to the real lld unchanged.",
    "ldwrap run makes one command, such as make, link through it. Otherwise clang and gcc find it through the \
     environment variable COMPILER_PATH, which names the directory lib/ldwrap of the prefix that ldwrap is installed \
     in (see ldwrap env), or by that directory in PATH, where the shim also has the names of compilers: see ldwrap \
     compilers.",
    "ldwrap is the linker under the name ld.lld, and with a linker's arguments; otherwise it is the tool that is \
     described here.",
];

const FILES: &[(&str, &str)] = &[
    (
        "/etc/ldwrap.toml, ${XDG_CONFIG_HOME:-~/.config}/ldwrap/ldwrap.toml",
        "The configuration: a key for each variable above, without LDWRAP_ and in lower case. The second wins over the \
         first, and the environment over both. LDWRAP_CONFIG names another file instead of the second.",
    ),
    (
        "${XDG_CACHE_HOME:-~/.cache}/ldwrap",
        "The caches. They may be deleted at any time.",
    ),
];
