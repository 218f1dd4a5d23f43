//! A Remote Execution server whose answers are well-formed, but too large, too slow or without end.

use crate::faults::{ALWAYS, Expected, MODULES, cases, link, rule, sources};
use ldwrap_tests::newest_llvm;
use ldwrap_tests::remote::buildbox::{SYSTEM, Server};
use ldwrap_tests::remote::proxy::{Fault, Proxy, Settings};

/// Blobs as streams: good ones, and those that bring nothing, or too little to wait for.
#[test]
fn streamed_blobs() {
    let streams = rule("GetCapabilities", Fault::SmallBatches, ALWAYS);
    let with = |fault| [streams.clone(), rule("Read", fault, ALWAYS)];
    cases(
        1100,
        &[
            (std::slice::from_ref(&streams), Expected::AsIfNothing),
            (
                &with(Fault::Floods),
                Expected::Here(1, "a download of empty messages"),
            ),
            (
                &with(Fault::Drips),
                Expected::Here(1, "a download does not move"),
            ),
            (
                &[rule("Execute", Fault::Floods, ALWAYS)],
                Expected::Here(MODULES, "DeadlineExceeded"),
            ),
        ],
    );
}

/// Answers that are too large are asked for again without what need not be in them.
#[test]
fn large_results() {
    newest_llvm(|s| {
        let server = Server::start(SYSTEM);
        sources(s, 1200);
        // The question for the version is no cached result.
        let executed = [
            rule("Execute", Fault::Passes, 1),
            rule("Execute", Fault::Bloats, ALWAYS),
        ];
        let cached = [rule("GetActionResult", Fault::Bloats, 1)];
        for (rules, executions) in [(&executed[..], 1 + MODULES), (&cached, 1)] {
            let settings = Settings {
                rules: rules.to_vec(),
                ..Settings::default()
            };
            let proxy = Proxy::start(server.port(), settings);
            let name = format!("{rules:?}");
            link(s, &name, &proxy.url(), &[], 20, &Expected::AsIfNothing);
            assert_eq!(proxy.calls("Execute") as u64, executions, "{name}");
        }
    });
}
