//! Whether the server answers, takes our credentials and executes or has a cache, and how long that takes.

use super::finding::Finding;
use crate::app::advice;
use crate::cache::files::FileDigests;
use crate::executor::remote::check::{self, ReachedServer, ServerTrouble, TroubleKind};
use crate::executor::tuning::SERVER_PATIENCE;
use crate::jobs::action::Tool;
use crate::jobs::shipped;
use crate::jobs::toolchain::Toolchain;
use shim::config::{Config, ServerSettings};
use shim::settings::MOST_SECONDS;
use std::collections::BTreeMap;
use std::time::Duration;

const SUBJECT: &str = "server";

/// What works, and may yet not be wanted.
pub(super) fn advice(config: &Config) -> Option<Finding> {
    let advice = advice::on_server(config)?;
    Some(Finding::note(SUBJECT, advice.what, Some(advice.fix)))
}

/// Connects to the server: what was found, and the server if it answers.
pub(super) fn reach(settings: &ServerSettings) -> (Vec<Finding>, Option<ReachedServer>) {
    let url = url(settings);
    let reached = match check::reach(settings) {
        Ok(reached) => reached,
        Err(trouble) => {
            let fix = mend(&trouble, settings);
            let text = format!("{url}: {}", trouble.text);
            return (vec![Finding::bad(SUBJECT, text, fix)], None);
        }
    };
    let text = format!(
        "{url}: it answers after {}: {}",
        milliseconds(reached.time),
        reached.capabilities
    );
    let mut found = vec![Finding::ok(SUBJECT, text)];
    if reached.time > SERVER_PATIENCE && !settings.fallback_only {
        let text = format!(
            "no core of this machine waits longer than {} s for an answer: most backends will run here",
            SERVER_PATIENCE.as_secs()
        );
        let fix = "export LDWRAP_REMOTE_LOCAL=fallback".into();
        found.push(Finding::note(SUBJECT, text, Some(fix)));
    }
    (found, Some(reached))
}

/// Tries what the server is for: execution, or, if it does not execute, its cache.
pub(super) fn service(server: &ReachedServer, toolchain: Option<&Toolchain>) -> Vec<Finding> {
    match server.executes {
        true => vec![execution(server, toolchain)],
        false => cache(server),
    }
}

/// Looks something up in the cache of a server that does not execute.
fn cache(server: &ReachedServer) -> Vec<Finding> {
    let time = match server.look_up() {
        Ok(time) => milliseconds(time),
        Err(trouble) => {
            let text = format!("it does not look results up: {}", trouble.text);
            let fix = mend(&trouble, &server.settings);
            return vec![Finding::bad(SUBJECT, text, fix)];
        }
    };
    let text = format!("a cache; it does not execute: backends run here; a lookup took {time}");
    let written = match server.accepts_results {
        true => {
            "objects made here are written to it, if our credentials may; who else can write to it decides what links contain"
        }
        false => {
            "objects made here are not written to it; who can write to it decides what links contain"
        }
    };
    vec![
        Finding::ok(SUBJECT, text),
        Finding::note(SUBJECT, written, None),
    ]
}

/// Has a program executed: the workers' own clang, which is to be that of `toolchain`, or the smallest part of that.
fn execution(server: &ReachedServer, toolchain: Option<&Toolchain>) -> Finding {
    let settings = &server.settings;
    let Some(toolchain) = toolchain else {
        let text = "execution is not tried: there is no clang to be run there";
        return Finding::note(SUBJECT, text, None);
    };
    let tool = match &settings.clang {
        Some(clang) => Ok(Some(Tool {
            command: vec![clang.clone()],
            banner: toolchain.banner.clone(),
            build: None,
            files: BTreeMap::new(),
            platform: Vec::new(),
        })),
        None => shipped_loader(toolchain),
    };
    let tool = match tool {
        Ok(Some(tool)) => tool,
        Ok(None) => {
            let text = "execution is not tried: clang is one program, and large";
            return Finding::note(SUBJECT, text, None);
        }
        Err(why) => {
            let fix = "export LDWRAP_REMOTE_CLANG=FILE, the clang of the workers";
            return Finding::bad(SUBJECT, why, fix);
        }
    };
    let platform = settings.platform.clone();
    match (server.execute(&Tool { platform, ..tool }), &settings.clang) {
        (Err(trouble), _) => not_executed(&trouble, settings),
        (Ok((_, time)), None) => {
            let text = format!("it executed a small program after {}", milliseconds(time));
            Finding::ok(SUBJECT, text)
        }
        (Ok((said, time)), Some(clang)) if said == toolchain.banner => {
            let text = format!("{clang} there is {said}, after {}", milliseconds(time));
            Finding::ok(SUBJECT, text)
        }
        (Ok((said, _)), Some(clang)) => {
            let ours = &toolchain.banner;
            let text = format!("{clang} there is {said:?}, but ours is {ours:?}");
            let fix = "unset LDWRAP_REMOTE_CLANG, so that ours is sent";
            Finding::bad(SUBJECT, text, fix)
        }
    }
}

fn not_executed(trouble: &ServerTrouble, settings: &ServerSettings) -> Finding {
    let fix = match (trouble.kind, &settings.clang) {
        (TroubleKind::Silent, _) => {
            "export LDWRAP_REMOTE_PLATFORM=NAME=VALUE,... as a worker has them: none may match"
                .into()
        }
        (TroubleKind::Other, Some(_)) => "unset LDWRAP_REMOTE_CLANG, so that ours is sent".into(),
        _ => mend(trouble, settings),
    };
    let text = format!("it does not execute: {}", trouble.text);
    Finding::bad(SUBJECT, text, fix)
}

/// The loader of the clang that is sent along, as a program by itself; none for a static clang.
fn shipped_loader(toolchain: &Toolchain) -> Result<Option<Tool>, String> {
    let tool = shipped::collect(toolchain, &FileDigests::default()).map_err(|e| e.to_string())?;
    let Some([loader, ..]) = tool.command.get(..2) else {
        return Ok(None);
    };
    let loader = loader.clone();
    let files = tool.files.into_iter();
    let files = files.filter(|(name, _)| name.as_os_str() == loader.as_str());
    Ok(Some(Tool {
        files: files.collect(),
        command: vec![loader],
        banner: tool.banner,
        build: None,
        platform: Vec::new(),
    }))
}

/// What to do about a server that is of no use.
fn mend(trouble: &ServerTrouble, settings: &ServerSettings) -> String {
    let other_scheme = match settings.tls {
        true => url(settings).replacen("grpcs", "grpc", 1),
        false => url(settings).replacen("grpc", "grpcs", 1),
    };
    match trouble.kind {
        TroubleKind::Unreachable => format!(
            "start the server, or export LDWRAP_REMOTE as it is; if it {} TLS: export LDWRAP_REMOTE={other_scheme}",
            if settings.tls { "has no" } else { "has" }
        ),
        TroubleKind::Silent => format!(
            "export LDWRAP_REMOTE={other_scheme} if the scheme is wrong, or export LDWRAP_REMOTE_TIMEOUT={} if it is slow",
            (settings.timeout.as_secs() * 4).clamp(10, MOST_SECONDS)
        ),
        TroubleKind::NoCredentials => match (&settings.credential_helper, &settings.headers) {
            (Some(helper), headers)
                if headers.is_none() || trouble.text.contains(&*helper.to_string_lossy()) => format!(
                "echo '{{\"uri\":\"{}\"}}' | {} get",
                settings.endpoint,
                crate::app::quoted(helper)
            ),
            (_, Some(headers)) => {
                format!("write NAME: VALUE lines to {}", crate::app::quoted(headers))
            }
            _ => "export LDWRAP_REMOTE_CREDENTIAL_HELPER=FILE".into(),
        },
        TroubleKind::Refused => match (&settings.credential_helper, &settings.headers) {
            (Some(_), _) => "log in anew with LDWRAP_REMOTE_CREDENTIAL_HELPER's program: what it gives is refused".into(),
            (None, Some(headers)) => format!("put a token that is good into {}", headers.display()),
            (None, None) => {
                "export LDWRAP_REMOTE_HEADERS=FILE, a file with the line authorization: Bearer TOKEN".into()
            }
        },
        TroubleKind::Incapable => {
            "export LDWRAP_REMOTE with a server that has CAS and action cache, with SHA-256, or unset it".into()
        }
        TroubleKind::Other if trouble.text.contains("LDWRAP_REMOTE_C") => {
            "export LDWRAP_REMOTE_CA, LDWRAP_REMOTE_CERT and LDWRAP_REMOTE_KEY with PEM files that belong together".into()
        }
        TroubleKind::Other => "export LDWRAP_REMOTE_INSTANCE=NAME, if the server has instances".into(),
    }
}

/// The server as `LDWRAP_REMOTE` has it.
fn url(settings: &ServerSettings) -> String {
    match settings.path.as_str() {
        "" => settings.address(),
        path => format!("{}/{path}", settings.address()),
    }
}

fn milliseconds(time: Duration) -> String {
    format!("{} ms", time.as_millis())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_mends_a_server() {
        let settings = ServerSettings {
            endpoint: "http://farm:1".into(),
            path: "main".into(),
            ..ServerSettings::default()
        };
        let with = |kind, text: &str, settings: &ServerSettings| {
            let text = text.into();
            mend(&ServerTrouble { kind, text }, settings)
        };
        let fix = with(TroubleKind::Unreachable, "", &settings);
        assert!(fix.contains("LDWRAP_REMOTE=grpcs://farm:1/main"), "{fix}");
        let fix = with(TroubleKind::Silent, "", &settings);
        assert!(fix.contains("LDWRAP_REMOTE_TIMEOUT=120"), "{fix}");
        let fix = with(TroubleKind::Refused, "", &settings);
        assert!(fix.contains("LDWRAP_REMOTE_HEADERS"), "{fix}");
        let helped = ServerSettings {
            credential_helper: Some("/bin/help me".into()),
            ..settings
        };
        let fix = with(TroubleKind::NoCredentials, "/bin/help me failed", &helped);
        assert_eq!(
            fix,
            "echo '{\"uri\":\"http://farm:1\"}' | '/bin/help me' get"
        );
    }
}
