//! What is set, and whether ldwrap is installed.

use super::finding::Finding;
use crate::app::settings::place;
use crate::app::{quoted, shim_dir};
use shim::config::{Config, Executor, Origin, Split};
use shim::settings::Setting;
use std::path::Path;

const SUBJECT: &str = "settings";

/// What is wrong with the settings and the installation.
pub(super) fn findings(config: &Config) -> Vec<Finding> {
    let mut found: Vec<Finding> = config
        .complaints
        .iter()
        .map(|complaint| {
            let fix = mend(complaint, |name| std::env::var(name).ok());
            // LDWRAP_STRICT makes it an error of each link.
            Finding::bad(SUBJECT, complaint, fix).prevents(config.strict)
        })
        .collect();
    found.extend(disabled(config));
    if found.is_empty() {
        found.push(Finding::ok(
            SUBJECT,
            format!("backends run {}", place(config)),
        ));
    }
    found.push(match shim_dir() {
        Ok(dir) => Finding::ok("shim", dir.display()),
        // One of another installation may be reached nevertheless.
        Err(missing) => Finding::bad("shim", missing.why, missing.fix),
    });
    found
}

/// The line that installs ldwrap.
pub(super) const INSTALL: &str = "scripts/install --prefix \"$HOME/.local\"";

/// Settings with which ldwrap does nothing, or not what they say.
fn disabled(config: &Config) -> Vec<Finding> {
    let mut found = Vec::new();
    if config.split == Split::Never {
        let text = "LDWRAP_SPLIT=never: all links are lld's alone";
        found.push(Finding::bad(SUBJECT, text, undo(config, "LDWRAP_SPLIT")).prevents(true));
    }
    if let (Executor::Distributor, Err(why)) = (config.executor(), config.distributor()) {
        let text = format!("{why}: backends run in lld's own threads");
        let fix = "export LDWRAP_DISTRIBUTOR=PROGRAM";
        found.push(Finding::bad(SUBJECT, text, fix).prevents(config.strict));
    }
    if config.cache_size == 0 {
        let fix = undo(config, "LDWRAP_CACHE_SIZE");
        found.push(match compiles_elsewhere(config) {
            false => {
                let text = "LDWRAP_CACHE_SIZE=0, and backends run in lld's own threads: each link compiles \
                            everything, as lld alone does";
                Finding::bad(SUBJECT, text, fix).prevents(true)
            }
            true => {
                let text = "LDWRAP_CACHE_SIZE=0: no objects are kept on this machine";
                Finding::note(SUBJECT, text, Some(fix))
            }
        });
    }
    if std::env::var_os("LLD_REPRODUCE").is_some() {
        let text = "LLD_REPRODUCE is set: lld packs what it reads, and all links are its alone";
        found.push(Finding::bad(SUBJECT, text, "unset LLD_REPRODUCE").prevents(true));
    }
    found
}

/// Whether the settings have backends run outside lld.
pub(super) fn compiles_elsewhere(config: &Config) -> bool {
    matches!(config.executor(), Executor::Clang | Executor::Remote)
}

/// How to undo a setting, where it was made.
pub(super) fn undo(config: &Config, name: &str) -> String {
    let given = config.given.iter().rev().find(|given| given.name == name);
    let key = Setting::named(name).map(Setting::key).unwrap_or_default();
    match given.map(|given| &given.origin) {
        Some(Origin::File(file, line)) => {
            format!("remove {key} from {}, line {line}", file.display())
        }
        Some(Origin::Environment) | None => format!("unset {name}"),
    }
}

/// What to do about a complaint (`shim::read_settings`), with the values of variables.
fn mend(complaint: &str, value: impl Fn(&str) -> Option<String>) -> String {
    if complaint.starts_with("LDWRAP_EXECUTOR=remote") {
        return "export LDWRAP_REMOTE=grpcs://HOST:PORT, or unset LDWRAP_EXECUTOR".into();
    }
    if complaint.starts_with("LDWRAP_REMOTE_CERT and ") {
        return "export LDWRAP_REMOTE_CERT=FILE LDWRAP_REMOTE_KEY=FILE".into();
    }
    if let Some((file, _)) = complaint.split_once(": cannot read the configuration") {
        return match value("LDWRAP_CONFIG") {
            Some(_) => "unset LDWRAP_CONFIG, or let it name a file that can be read".into(),
            None => format!("chmod u+r {}", quoted(Path::new(file))),
        };
    }
    let Some(rest) = complaint.strip_prefix("environment: ") else {
        // FILE:LINE: ...
        let mut parts = complaint.splitn(3, ':');
        return match (parts.next(), parts.next()) {
            (Some(file), Some(line)) => format!("edit {file}, line {line}"),
            _ => "ldwrap config".into(),
        };
    };
    let end = rest.find([' ', '=']).unwrap_or(rest.len());
    let name = rest.get(..end).unwrap_or(rest);
    let value = value(name).unwrap_or_default();
    match Setting::named(name) {
        Some(setting) if setting.name == "LDWRAP_REMOTE" => endpoint(&value),
        Some(setting) => format!(
            "unset {name}; ldwrap help {} says what it takes",
            setting.key()
        ),
        // "... is no setting: is it NAME?"
        None => match rest
            .rsplit_once("is it ")
            .map(|(_, near)| near.trim_end_matches('?'))
        {
            Some(near) if near != "LDWRAP_REMOTE" => {
                format!("unset {name}; export {near}={}", quoted(Path::new(&value)))
            }
            _ => format!("unset {name}"),
        },
    }
}

/// How a server's URL is to be written, from what was written.
fn endpoint(written: &str) -> String {
    if written.contains('@') {
        return "leave out user and password: LDWRAP_REMOTE_HEADERS names a file of headers".into();
    }
    let (scheme, rest) = written.split_once("://").unwrap_or(("grpc", written));
    let scheme = match scheme {
        "https" | "grpcs" => "grpcs",
        _ => "grpc",
    };
    match rest.starts_with('/') || rest.is_empty() {
        true => format!("export LDWRAP_REMOTE={scheme}://HOST:PORT"),
        false => {
            let url = format!("{scheme}://{rest}");
            format!("export LDWRAP_REMOTE={}", quoted(Path::new(&url)))
        }
    }
}

/// What to do about the reason for which a link is lld's alone (`shim::decide`, `crate::link::eligibility`).
pub(super) fn mend_reason(reason: &str, config: &Config) -> String {
    let fixes = [
        (
            "LDWRAP_SPLIT=auto",
            "export LDWRAP_SPLIT=always, if it is to be split nevertheless",
        ),
        (
            "no bitcode",
            "compile with clang -flto=thin (rustc: -Clinker-plugin-lto)",
        ),
        ("LLD_REPRODUCE", "unset LLD_REPRODUCE"),
        ("--lto=full", "link with -flto=thin"),
        ("ulimit -f", "ulimit -f unlimited"),
        ("/proc", "mount -t proc proc /proc"),
        (
            "seccomp filter",
            "allow seccomp user notification: Linux 5.9 or newer; in a container, --security-opt seccomp=unconfined",
        ),
        (
            "watching lld",
            "allow process_vm_readv: in a container, --cap-add=SYS_PTRACE",
        ),
        ("cannot read the input", "make the objects first"),
        ("cannot find the", "make the libraries first, or give -L"),
        ("unknown option", "leave the option out, or update ldwrap"),
    ];
    if reason == "LDWRAP_SPLIT=never" {
        return undo(config, "LDWRAP_SPLIT");
    }
    let fix = fixes.iter().find(|(part, _)| reason.contains(part));
    let fix = fix.map_or(
        "leave out what it names, if the link can do without",
        |(_, fix)| fix,
    );
    fix.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use shim::read_settings::read_from;

    fn config(vars: &[(&str, &str)]) -> Config {
        let vars = vars.iter().map(|(n, v)| ((*n).into(), (*v).into()));
        read_from(vars, Path::new("/nonexistent/ldwrap.toml"))
    }

    #[test]
    fn each_complaint_has_a_line_that_mends_it() {
        for (vars, fix) in [
            (
                ("LDWRAP_SPILT", "always"),
                "unset LDWRAP_SPILT; export LDWRAP_SPLIT=always",
            ),
            (
                ("LDWRAP_JOBS", "none"),
                "unset LDWRAP_JOBS; ldwrap help jobs says what it takes",
            ),
            (
                ("LDWRAP_REMOTE", "http://h:1/x"),
                "export LDWRAP_REMOTE=grpc://h:1/x",
            ),
            (
                ("LDWRAP_REMOTE", "https://h:1"),
                "export LDWRAP_REMOTE=grpcs://h:1",
            ),
            (("LDWRAP_REMOTE", "h:1"), "export LDWRAP_REMOTE=grpc://h:1"),
            (
                ("LDWRAP_REMOTE", "grpc:///"),
                "export LDWRAP_REMOTE=grpc://HOST:PORT",
            ),
            (
                ("LDWRAP_REMOTE", "grpc://me:secret@h:1"),
                "leave out user and password: LDWRAP_REMOTE_HEADERS names a file of headers",
            ),
            (
                ("LDWRAP_EXECUTOR", "remote"),
                "export LDWRAP_REMOTE=grpcs://HOST:PORT, or unset LDWRAP_EXECUTOR",
            ),
            (
                ("LDWRAP_CONFIG", "/nonexistent"),
                "unset LDWRAP_CONFIG, or let it name a file that can be read",
            ),
        ] {
            let config = config(&[vars]);
            let value = |name: &str| (name == vars.0).then(|| vars.1.to_owned());
            let mended: Vec<_> = config.complaints.iter().map(|c| mend(c, value)).collect();
            assert_eq!(mended, [fix], "{vars:?}");
        }
        let unlike = "environment: LDWRAP_XYZZY is no setting: see ldwrap help settings";
        assert_eq!(mend(unlike, |_| None), "unset LDWRAP_XYZZY");
        let in_file = mend(
            "/etc/ldwrap.toml:2: jbos is no setting: is it jobs?",
            |_| None,
        );
        assert_eq!(in_file, "edit /etc/ldwrap.toml, line 2");
    }

    #[test]
    fn settings_that_disable_everything() {
        let prevents = |vars: &[(&str, &str)]| {
            let found = disabled(&config(vars));
            (found.len(), found.iter().any(|f| f.prevents))
        };
        assert_eq!(prevents(&[]), (0, false));
        assert_eq!(prevents(&[("LDWRAP_SPLIT", "never")]), (1, true));
        assert_eq!(prevents(&[("LDWRAP_CACHE_SIZE", "0")]), (1, true));
        let clang = ("LDWRAP_EXECUTOR", "clang");
        assert_eq!(prevents(&[("LDWRAP_CACHE_SIZE", "0"), clang]), (1, false));
        assert_eq!(prevents(&[("LDWRAP_EXECUTOR", "distributor")]), (1, false));
    }
}
