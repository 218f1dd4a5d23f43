//! Backends on a Remote Execution server, and on this machine beside it.
//!
//! A few threads make each job's Action and look for its object in the local cache; what is not there goes
//! on the board ([`super::board`]). From the board, one thread with many calls in flight looks tasks up in
//! the server's action cache, uploads what the server lacks, has it executed and downloads the object; and
//! lld's own threads take tasks from it, to compile them here. Whatever goes wrong on the server is done
//! here: a server never fails a link, and no core here waits for it for long.
//!
//! Each file uses only those above it: `calls` with `auth`, `connections`, `blobs`, `execution`, `client`, then
//! `server`, `results`, `check` and `counts`, `remote_side`, `executor`.

mod auth;
mod blobs;
mod calls;
pub(crate) mod check;
mod client;
mod connections;
mod counts;
mod execution;
mod executor;
mod remote_side;
mod results;
mod server;

pub(crate) use executor::RemoteExecutor;
pub(crate) use server::Server;
