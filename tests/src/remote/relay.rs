//! A TCP relay before a server, on a line that is slow, breaks, or leads nowhere.

use super::{Running, local};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What is wrong with the line.
#[derive(Debug, Clone, Copy)]
pub enum Line {
    /// Connections are accepted, and nothing is passed on.
    Silent,
    /// So many bytes a second in each direction, over all connections.
    Slow(u64),
    /// Each connection is reset after so many bytes from the server.
    Resets(u64),
    /// The first connections are reset after so many bytes from the server; then all is well.
    ResetsAtFirst(u64, usize),
}

/// A relay, gone with this.
#[derive(Debug)]
pub struct Relay {
    running: Running,
    connections: Arc<AtomicUsize>,
}

impl Relay {
    /// Starts one before the server at a port.
    #[must_use]
    pub fn start(server: u16, line: Line) -> Self {
        let connections = Arc::new(AtomicUsize::new(0));
        let count = connections.clone();
        let running = Running::start(move |listener| async move {
            let listener = TcpListener::from_std(listener).expect("a listener");
            // When the line is free again, in microseconds of the runtime's clock, per direction.
            let free = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
            while let Ok((client, _)) = listener.accept().await {
                let number = count.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(pass(client, server, line, number, free.clone()));
            }
        });
        Self {
            running,
            connections,
        }
    }

    /// For `LDWRAP_REMOTE`.
    #[must_use]
    pub fn url(&self) -> String {
        self.running.url()
    }

    /// How many connections there were.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

async fn pass(
    mut client: TcpStream,
    server: u16,
    line: Line,
    number: usize,
    free: Arc<[AtomicU64; 2]>,
) {
    if let Line::Silent = line {
        // Until the client gives up.
        let mut sink = [0; 4096];
        while client.read(&mut sink).await.is_ok_and(|n| n > 0) {}
        return;
    }
    let Ok(mut server) = TcpStream::connect(local(server)).await else {
        return;
    };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let limit = match line {
        Line::Resets(bytes) => Some(bytes),
        Line::ResetsAtFirst(bytes, connections) if number < connections => Some(bytes),
        _ => None,
    };
    let rate = match line {
        Line::Slow(rate) => Some(rate),
        _ => None,
    };
    {
        let (mut from_client, mut to_client) = client.split();
        let (mut from_server, mut to_server) = server.split();
        let up = copy(&mut from_client, &mut to_server, None, rate, &free[0]);
        let down = copy(&mut from_server, &mut to_client, limit, rate, &free[1]);
        tokio::select! {
            () = up => {}
            () = down => {}
        }
    }
    if limit.is_some() {
        // RST instead of FIN.
        let _ = client.set_zero_linger();
    }
}

async fn copy(
    from: &mut (impl AsyncReadExt + Unpin),
    to: &mut (impl AsyncWriteExt + Unpin),
    limit: Option<u64>,
    rate: Option<u64>,
    free: &AtomicU64,
) {
    // A small buffer: what is not read makes the sender wait, as on a slow line.
    let mut buffer = [0; 4096];
    let mut passed = 0;
    while let Ok(n @ 1..) = from.read(&mut buffer).await {
        if let Some(rate) = rate {
            let takes = n as u64 * 1_000_000 / rate;
            let now = micros();
            let end = free
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |free| {
                    Some(free.max(now) + takes)
                })
                .unwrap_or(now)
                .max(now)
                + takes;
            tokio::time::sleep(Duration::from_micros(end - now)).await;
        }
        let n = limit.map_or(n, |limit| {
            n.min(usize::try_from(limit - passed).unwrap_or(n))
        });
        if to.write_all(&buffer[..n]).await.is_err() {
            return;
        }
        passed += n as u64;
        if limit.is_some_and(|limit| passed >= limit) {
            return;
        }
    }
}

fn micros() -> u64 {
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed();
    since.map_or(0, |t| u64::try_from(t.as_micros()).unwrap_or(0))
}
