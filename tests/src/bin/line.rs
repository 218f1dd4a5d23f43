//! A line between two hosts, for `scripts/bench-remote`: carries packets between two TUN devices.
//!
//!     line RTT_MS MBIT <>DEVICE_A 1<>DEVICE_B
//!
//! The devices are stdin and stdout. In each direction packets wait for their turn on a line of that rate, then
//! for half the round trip; when a queue is as long as 100 ms of the line, what comes is dropped, as routers do.
//! Not netem, which not every kernel has.

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;
use nix::unistd::{read, write};
use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

/// The longest that a packet waits for its turn.
const QUEUE: Duration = Duration::from_millis(100);

fn main() {
    let args: Vec<f64> = std::env::args()
        .skip(1)
        .filter_map(|arg| arg.parse().ok())
        .collect();
    let [rtt, mbit] = args.as_slice() else {
        eprintln!("usage: line RTT_MS MBIT <>DEVICE_A 1<>DEVICE_B");
        std::process::exit(2);
    };
    let (stdin, stdout) = (std::io::stdin(), std::io::stdout());
    let devices = [stdin.as_fd(), stdout.as_fd()];
    for device in devices {
        fcntl(device, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).expect("a device");
    }
    carry(
        devices,
        Duration::from_secs_f64(rtt / 2000.0),
        mbit * 1e6 / 8.0,
    );
}

/// So exact is the time that packets take.
const STEP: Duration = Duration::from_micros(500);

/// Carries packets for ever; `rate` is in bytes per second.
fn carry(devices: [BorrowedFd<'_>; 2], delay: Duration, rate: f64) -> ! {
    let mut lines: [VecDeque<(Instant, Vec<u8>)>; 2] = Default::default();
    let mut free = [Instant::now(); 2];
    let mut buffer = vec![0; 65536];
    loop {
        let due = lines
            .iter()
            .filter_map(|line| line.front())
            .map(|(at, _)| *at)
            .min();
        // In steps, so that packets share system calls.
        let left = |at: Instant| at.saturating_duration_since(Instant::now()).max(STEP);
        let wait = due.map(|at| TimeSpec::from(left(at)));
        let mut polled = devices.map(|device| PollFd::new(device, PollFlags::POLLIN));
        if wait.is_some() {
            std::thread::sleep(STEP);
        }
        match ppoll(&mut polled, wait, None) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(e) => panic!("ppoll: {e}"),
        }
        for (n, device) in devices.iter().enumerate() {
            loop {
                let size = match read(device, &mut buffer) {
                    Ok(size) => size,
                    Err(Errno::EAGAIN) => break,
                    Err(e) => panic!("a device: {e}"),
                };
                let now = Instant::now();
                let begin = free[n].max(now);
                if begin - now < QUEUE {
                    free[n] = begin + Duration::from_secs_f64(size as f64 / rate);
                    lines[n].push_back((free[n] + delay, buffer[..size].to_vec()));
                }
            }
        }
        let now = Instant::now();
        for (n, line) in lines.iter_mut().enumerate() {
            while line.front().is_some_and(|(at, _)| *at <= now) {
                if let Some((_, packet)) = line.pop_front() {
                    // A device that is down takes none; that is a packet lost.
                    let _ = write(devices[1 - n], &packet);
                }
            }
        }
    }
}
