//! Starts a program under a filter.

use super::filter::{self, ReportedOpens};
use super::listener::{Listener, can_hand_over, check};
use crate::sys::keep;
use crate::sys::process;
use libc::{c_void, sock_filter};
use nix::cmsg_space;
use nix::sys::prctl::set_no_new_privs;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use std::io::{self, IoSliceMut};
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use thiserror::Error;

/// Why a program could not be watched.
#[derive(Debug, Error)]
pub enum WatchError {
    /// The kernel or a sandbox refuses the filter.
    #[error("the kernel refuses a seccomp filter: {0}")]
    Refused(io::Error),
    /// The program could not be started.
    #[error("cannot run {program}: {error}")]
    Spawn {
        /// The program.
        program: String,
        /// The system's reason.
        error: io::Error,
    },
}

/// A program under a filter.
#[derive(Debug)]
pub struct Watched {
    /// The program.
    pub child: Child,
    /// Its calls.
    pub listener: Listener,
}

/// What the child says of a kernel that cannot hand over descriptors: no call that it makes fails so.
const TOO_OLD: i32 = libc::EOPNOTSUPP;

/// Starts `command` under a filter that reports these opens, renames and writes. The program is killed when
/// the calling thread ends.
pub fn spawn(mut command: Command, opens: ReportedOpens) -> Result<Watched, WatchError> {
    let refused = WatchError::Refused;
    let mut program = filter::program(opens);
    if program.is_empty() {
        return Err(refused(io::ErrorKind::Unsupported.into()));
    }
    let (ours, theirs) = UnixDatagram::pair().map_err(refused)?;
    let socket = theirs.as_raw_fd();
    // SAFETY: the closure runs between fork and exec and makes only async-signal-safe calls
    // (prctl, sigprocmask, seccomp, sendmsg) on memory that is there already; it allocates nothing.
    unsafe {
        command.pre_exec(move || {
            process::prepare_child()?;
            let listener = install(&mut program)?;
            if !can_hand_over(listener) {
                // Before it becomes the program, which would fail in its own words.
                return Err(io::Error::from_raw_os_error(TOO_OLD));
            }
            send_fd(socket, listener)
        });
    }
    keep::command(&command);
    let child = command.spawn();
    drop(theirs);
    let fd = receive_fd(&ours);
    match (child, fd.and_then(Listener::new)) {
        (Ok(child), Ok(listener)) => Ok(Watched { child, listener }),
        (Ok(mut child), Err(e)) => {
            // Where we cannot receive, or notifications have another size: it was not to be expected, and the program
            // may have said that its calls fail.
            let _ = child.kill();
            let _ = child.wait();
            Err(refused(e))
        }
        (Err(error), Ok(_)) => Err(WatchError::Spawn {
            program: command.get_program().to_string_lossy().into_owned(),
            error,
        }),
        (Err(error), Err(_)) if error.raw_os_error() == Some(TOO_OLD) => {
            let why = "it cannot answer a call with a file, which Linux can since 5.9";
            Err(refused(io::Error::new(io::ErrorKind::Unsupported, why)))
        }
        (Err(error), Err(_)) => Err(refused(error)),
    }
}

/// Puts this process under a filter; gives the listener's descriptor.
fn install(program: &mut [sock_filter]) -> io::Result<RawFd> {
    let program = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_mut_ptr(),
    };
    set_no_new_privs()?;
    // SAFETY: `program` and the array that it points to outlive the call.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            // Kernels before 5.16 would otherwise slow the program's loads down, against what it is not.
            libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW,
            &raw const program,
        )
    };
    check(fd).map(|fd| fd as RawFd)
}

/// Room for one descriptor in a control message, aligned as `cmsghdr` wants.
#[repr(C)]
struct Control {
    header: libc::cmsghdr,
    fd: RawFd,
    pad: u32,
}

/// Sends a descriptor. By hand: nix's `sendmsg` allocates, which is not allowed between fork and exec.
fn send_fd(socket: RawFd, fd: RawFd) -> io::Result<()> {
    let mut byte = 0u8;
    let mut part = libc::iovec {
        iov_base: (&raw mut byte).cast::<c_void>(),
        iov_len: 1,
    };
    let mut control = Control {
        header: libc::cmsghdr {
            cmsg_len: mem::offset_of!(Control, pad),
            cmsg_level: libc::SOL_SOCKET,
            cmsg_type: libc::SCM_RIGHTS,
        },
        fd,
        pad: 0,
    };
    // SAFETY: an all-zero msghdr is valid.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut control).cast();
    message.msg_controllen = mem::size_of::<Control>();
    // SAFETY: all that `message` points to lives on this stack frame.
    check(unsafe { libc::sendmsg(socket, &raw const message, 0) } as i64).map(drop)
}

fn receive_fd(socket: &UnixDatagram) -> io::Result<OwnedFd> {
    let mut byte = [0];
    let mut parts = [IoSliceMut::new(&mut byte)];
    let mut space = cmsg_space!(RawFd);
    // It has been sent, or never will be.
    let flags = MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT;
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut space), flags)?;
    match message.cmsgs()?.next() {
        Some(ControlMessageOwned::ScmRights(fds)) => match fds.as_slice() {
            // SAFETY: the kernel just installed this descriptor for us, and nobody else owns it.
            &[fd] => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
            _ => Err(io::ErrorKind::InvalidData.into()),
        },
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}
