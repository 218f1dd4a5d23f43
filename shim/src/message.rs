//! What ldwrap has to say on standard error.
//!
//! `eprintln!` panics where that cannot be written (a full disk, a pipe whose reader is gone), and no link may end by
//! that.

use std::fmt::Display;
use std::io::{self, Write};

/// Writes one line, with our name before it. If it cannot be written nobody can be told.
pub fn say(message: impl Display) {
    // In one call: other programs write there too.
    let line = format!("ldwrap: {message}\n");
    let _ = io::stderr().write_all(line.as_bytes());
}
