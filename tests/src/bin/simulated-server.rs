//! Serves a simulated cluster ([`ldwrap_tests::remote::simulated`]) for `scripts/bench-remote`.
//!
//!     simulated-server ADDRESS CACHE_DIR SLOTS DURATIONS [zstd]
//!
//! DURATIONS is a file of lines: the size of a module in bytes, and the seconds that it takes. For each line on its stdin it says in a line of JSON
//! what it saw, and forgets all but large blobs, such as the compiler. It ends when its stdin does.

use ldwrap_tests::remote::simulated::{Settings, Simulated};
use std::net::TcpListener;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let [_, address, cache, slots, durations, rest @ ..] = args.as_slice() else {
        eprintln!("usage: simulated-server ADDRESS CACHE_DIR SLOTS DURATIONS [zstd]");
        std::process::exit(2);
    };
    let durations = std::fs::read_to_string(durations).expect("the file of durations");
    let pair = |line: &str| {
        let (size, seconds) = line.split_once(' ').expect("a size and seconds");
        let seconds = seconds.parse().expect("seconds");
        (
            size.parse().expect("a size"),
            Duration::from_secs_f64(seconds),
        )
    };
    let server = Simulated::new(Settings {
        cache: cache.into(),
        durations: durations.lines().map(pair).collect(),
        slots: slots.parse().expect("a number of slots"),
        zstd: rest == ["zstd"],
        executes: true,
    });
    let listener = TcpListener::bind(address).expect("the address");
    listener.set_nonblocking(true).expect("a listener");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.spawn(server.clone().serve(listener));
    for line in std::io::stdin().lines() {
        line.expect("stdin");
        let seen = server.forget();
        println!(
            "{}",
            serde_json::json!({
                "executed": seen.executed,
                "most": seen.most,
                "work_s": seen.work.as_secs_f64(),
                "longest_s": seen.longest.as_secs_f64(),
                "first_call": since_epoch(seen.first),
                "first_execution": since_epoch(seen.first_execution),
                "bytes_up": seen.up,
                "bytes_down": seen.down,
                "blobs_up": seen.blobs_up,
                "blobs_down": seen.blobs_down,
            })
        );
    }
}

/// In seconds.
fn since_epoch(time: Option<SystemTime>) -> Option<f64> {
    let since = time?.duration_since(UNIX_EPOCH).ok()?;
    Some(since.as_secs_f64())
}
