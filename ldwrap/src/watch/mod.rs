//! Watches the system calls of a child, with its consent and no privileges: a seccomp filter that reports
//! some of them to us and lets the child wait for our answer (`SECCOMP_RET_USER_NOTIF`,
//! `seccomp_unotify(2)`).
//!
//! Why this and not LD_PRELOAD: it works for static and dynamic linkers alike, leaves the child's
//! environment as it is, and cannot be bypassed half-way. Every call that is not asked for runs at full
//! speed, and one that we have nothing to say about goes on in the kernel.

mod filter;
mod listener;
mod spawn;

pub use filter::ReportedOpens;
pub use listener::{Call, Listener, Notification, Unanswered, read_memory};
pub use spawn::{Watched, spawn};
