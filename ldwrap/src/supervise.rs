//! Watches the files that a child opens, with the child's consent and no privileges: a seccomp
//! filter that reports `openat` to us (`SECCOMP_RET_USER_NOTIF`, `seccomp_unotify(2)`).
//!
//! Why this and not LD_PRELOAD: it works for static and dynamic linkers alike, leaves the child's
//! environment as it is, and cannot be bypassed half-way (fact 22). The filter looks only at the
//! syscall's number, every other call runs at full speed, and `openat` goes on in the kernel when we
//! have nothing to say.

use libc::{c_int, c_ulong, c_void};
use std::fs::File;
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use thiserror::Error;

/// `AUDIT_ARCH_*` of this machine: the number under which the kernel reports native system calls
/// (`linux/audit.h`: the ELF machine, with bits for 64-bit and little-endian).
#[cfg(target_arch = "x86_64")]
const NATIVE_ARCH: u32 = 62 | 0xc000_0000;
#[cfg(target_arch = "aarch64")]
const NATIVE_ARCH: u32 = 183 | 0xc000_0000;
/// Elsewhere no link is split.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const NATIVE_ARCH: u32 = 0;

/// Longer paths are not the kernel's.
const PATH_MAX: usize = 4096;

/// Why a child could not be watched.
#[derive(Debug, Error)]
pub enum SuperviseError {
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

/// A file being opened; the child waits until it is answered.
#[derive(Debug)]
pub struct Opening {
    /// The kernel's number for this call.
    pub id: u64,
    /// The thread that makes it.
    pub thread: u32,
    /// The path as the child gave it.
    pub path: Vec<u8>,
    /// `open(2)` flags.
    pub flags: c_int,
}

impl Opening {
    /// Opened for reading only.
    #[must_use]
    pub fn is_read(&self) -> bool {
        self.flags & libc::O_ACCMODE == libc::O_RDONLY
    }
}

/// What is to happen with an opening.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// The kernel opens the file as asked.
    Continue,
    /// What the child writes goes nowhere; no file is made.
    Discard,
    /// Nothing yet: [`Listener::resume`] will be called.
    Hold,
}

/// Our end of the filter.
#[derive(Debug)]
pub struct Listener {
    fd: OwnedFd,
    null: File,
}

/// Starts `command` under the filter. The child dies when the calling thread does.
pub fn spawn(mut command: Command) -> Result<(Child, Listener), SuperviseError> {
    let refused = SuperviseError::Refused;
    if NATIVE_ARCH == 0 {
        return Err(refused(io::Error::from(io::ErrorKind::Unsupported)));
    }
    let null = File::options()
        .write(true)
        .open("/dev/null")
        .map_err(refused)?;
    let (ours, theirs) = std::os::unix::net::UnixDatagram::pair().map_err(refused)?;
    ours.set_nonblocking(true).map_err(refused)?;
    let socket = theirs.as_raw_fd();
    // SAFETY: the closure runs between fork and exec and makes only async-signal-safe calls
    // (prctl, sigprocmask, seccomp, sendmsg) on memory of its own; it allocates nothing.
    unsafe {
        command.pre_exec(move || {
            prepare_child()?;
            let listener = install_filter()?;
            send_fd(socket, listener)
        });
    }
    let child = command.spawn();
    drop(theirs);
    let fd = receive_fd(ours.as_fd().as_raw_fd());
    match (child, fd) {
        (Ok(child), Ok(fd)) => Ok((child, Listener { fd, null })),
        (Ok(mut child), Err(e)) => {
            // Without a listener each of its openat calls fails; nothing was written yet.
            let _ = child.kill();
            let _ = child.wait();
            Err(refused(e))
        }
        (Err(error), Ok(_)) => Err(SuperviseError::Spawn {
            program: command.get_program().to_string_lossy().into_owned(),
            error,
        }),
        (Err(error), Err(_)) => Err(refused(error)),
    }
}

/// What every child does between fork and exec: it asks the kernel to kill it when the thread that
/// forked it ends, and unblocks the signals that we watch for, since a mask is inherited.
/// Async-signal-safe.
pub fn prepare_child() -> io::Result<()> {
    // SAFETY: prctl with these arguments touches no memory of ours.
    let result = unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as c_ulong, 0, 0, 0) };
    check(result.into())?;
    // SAFETY: the set is initialised by sigemptyset; the signal numbers are valid.
    let result = unsafe {
        let mut set: libc::sigset_t = mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
            libc::sigaddset(&raw mut set, signal);
        }
        libc::sigprocmask(libc::SIG_UNBLOCK, &raw const set, std::ptr::null_mut())
    };
    check(result.into()).map(drop)
}

fn check(result: i64) -> io::Result<i64> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

const fn statement(code: u32, k: u32) -> libc::sock_filter {
    libc::sock_filter {
        code: code as u16,
        jt: 0,
        jf: 0,
        k,
    }
}

const fn unless_equal(k: u32, skip: u8) -> libc::sock_filter {
    libc::sock_filter {
        code: (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16,
        jt: 0,
        jf: skip,
        k,
    }
}

fn install_filter() -> io::Result<RawFd> {
    const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    const RETURN: u32 = libc::BPF_RET | libc::BPF_K;
    let arch = mem::offset_of!(libc::seccomp_data, arch) as u32;
    let nr = mem::offset_of!(libc::seccomp_data, nr) as u32;
    let mut program = [
        statement(LOAD, arch),
        unless_equal(NATIVE_ARCH, 3),
        statement(LOAD, nr),
        unless_equal(libc::SYS_openat as u32, 1),
        statement(RETURN, libc::SECCOMP_RET_USER_NOTIF),
        statement(RETURN, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: plain flag arguments.
    check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }.into())?;
    // SAFETY: `program` and the array that it points to outlive the call.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
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

fn receive_fd(socket: RawFd) -> io::Result<OwnedFd> {
    let mut byte = 0u8;
    let mut part = libc::iovec {
        iov_base: (&raw mut byte).cast::<c_void>(),
        iov_len: 1,
    };
    // SAFETY: all-zero values of these plain structs are valid.
    let (mut control, mut message): (Control, libc::msghdr) = unsafe { mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut control).cast();
    message.msg_controllen = mem::size_of::<Control>();
    // SAFETY: as in `send_fd`.
    check(unsafe { libc::recvmsg(socket, &raw mut message, libc::MSG_CMSG_CLOEXEC) } as i64)?;
    if message.msg_controllen == 0
        || control.header.cmsg_type != libc::SCM_RIGHTS
        || control.header.cmsg_len != mem::offset_of!(Control, pad)
    {
        return Err(io::ErrorKind::InvalidData.into());
    }
    // SAFETY: the kernel just installed this descriptor for us, and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(control.fd) })
}

impl Listener {
    /// Calls `decide` for each `openat` of the child, in turn, until the child is gone. A call
    /// whose path cannot be read goes on as it is.
    pub fn serve(&self, mut decide: impl FnMut(&Opening) -> Answer) -> io::Result<()> {
        loop {
            let mut poll = libc::pollfd {
                fd: self.fd.as_raw_fd(),
                events: libc::POLLIN,
                revents: 0,
            };
            // SAFETY: one valid pollfd.
            let n = unsafe { libc::poll(&raw mut poll, 1, -1) };
            if n < 0 {
                let e = io::Error::last_os_error();
                if e.kind() == io::ErrorKind::Interrupted {
                    continue;
                }
                return Err(e);
            }
            if poll.revents & libc::POLLIN == 0 {
                return Ok(());
            }
            // SAFETY: an all-zero seccomp_notif is what the kernel wants to be given.
            let mut call: libc::seccomp_notif = unsafe { mem::zeroed() };
            // SAFETY: the ioctl writes one seccomp_notif.
            match unsafe { self.ioctl(libc::SECCOMP_IOCTL_NOTIF_RECV, (&raw mut call).cast()) } {
                Ok(_) => {}
                // We were interrupted, or the call's thread is gone.
                Err(e) if matches!(e.raw_os_error(), Some(libc::EINTR | libc::ENOENT)) => continue,
                Err(e) => return Err(e),
            }
            let path = read_string(call.pid, call.data.args[1]);
            let opening = Opening {
                id: call.id,
                thread: call.pid,
                path: path.unwrap_or_default(),
                flags: call.data.args[2] as c_int,
            };
            // The memory was the caller's only if it still waits.
            let answer = if opening.path.is_empty() || !self.waits(call.id) {
                Answer::Continue
            } else {
                decide(&opening)
            };
            match answer {
                Answer::Continue => drop(self.resume(call.id)),
                Answer::Discard => drop(self.hand_over(call.id, self.null.as_raw_fd())),
                Answer::Hold => {}
            }
        }
    }

    /// Lets a held call go on in the kernel; an error when the call is gone.
    pub fn resume(&self, id: u64) -> io::Result<()> {
        self.respond(id, 0, libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32)
    }

    fn hand_over(&self, id: u64, fd: RawFd) -> io::Result<()> {
        let mut add = libc::seccomp_notif_addfd {
            id,
            flags: 0,
            srcfd: fd as u32,
            newfd: 0,
            newfd_flags: libc::O_CLOEXEC as u32,
        };
        // SAFETY: the ioctl reads one seccomp_notif_addfd.
        let new = unsafe { self.ioctl(libc::SECCOMP_IOCTL_NOTIF_ADDFD, (&raw mut add).cast()) }?;
        self.respond(id, i64::from(new), 0)
    }

    fn respond(&self, id: u64, val: i64, flags: u32) -> io::Result<()> {
        let mut response = libc::seccomp_notif_resp {
            id,
            val,
            error: 0,
            flags,
        };
        // SAFETY: the ioctl reads one seccomp_notif_resp.
        unsafe { self.ioctl(libc::SECCOMP_IOCTL_NOTIF_SEND, (&raw mut response).cast()) }.map(drop)
    }

    fn waits(&self, mut id: u64) -> bool {
        // SAFETY: the ioctl reads one u64.
        unsafe { self.ioctl(libc::SECCOMP_IOCTL_NOTIF_ID_VALID, (&raw mut id).cast()) }.is_ok()
    }

    /// # Safety
    /// `argument` must point to what `request` reads or writes.
    unsafe fn ioctl(&self, request: libc::Ioctl, argument: *mut c_void) -> io::Result<c_int> {
        // SAFETY: the caller's promise; the descriptor is ours.
        let result = unsafe { libc::ioctl(self.fd.as_raw_fd(), request, argument) };
        check(result.into()).map(|r| r as c_int)
    }
}

/// A NUL-terminated string of another process, read page by page, since the next page may not be
/// there.
fn read_string(pid: u32, address: u64) -> io::Result<Vec<u8>> {
    const PAGE: u64 = 4096;
    let mut string = Vec::new();
    let mut at = address;
    while string.len() < PATH_MAX {
        let want = (PAGE - at % PAGE) as usize;
        let have = string.len();
        string.resize(have + want, 0);
        let Some(room) = string.get_mut(have..) else {
            break;
        };
        let local = libc::iovec {
            iov_base: room.as_mut_ptr().cast(),
            iov_len: want,
        };
        let remote = libc::iovec {
            iov_base: at as *mut c_void,
            iov_len: want,
        };
        // SAFETY: `local` is the room just made; the remote address is checked by the kernel.
        let n = check(unsafe {
            libc::process_vm_readv(
                pid as libc::pid_t,
                &raw const local,
                1,
                &raw const remote,
                1,
                0,
            )
        } as i64)? as usize;
        string.truncate(have + n);
        if let Some(end) = string
            .get(have..)
            .and_then(|s| s.iter().position(|&b| b == 0))
        {
            string.truncate(have + end);
            return Ok(string);
        }
        if n < want {
            break;
        }
        at += want as u64;
    }
    Err(io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_is_watched_and_writes_go_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        let (yes, no) = (dir.path().join("yes"), dir.path().join("no"));
        let mut sh = Command::new("/bin/sh");
        sh.arg("-c")
            .arg("echo 1 >\"$0\" && echo 2 >\"$1\"")
            .arg(&yes)
            .arg(&no);
        let (mut child, listener) = spawn(sh).unwrap();
        let mut seen = Vec::new();
        listener
            .serve(|o| {
                seen.push(String::from_utf8_lossy(&o.path).into_owned());
                if o.path.ends_with(b"/no") && !o.is_read() {
                    Answer::Discard
                } else {
                    Answer::Continue
                }
            })
            .unwrap();
        assert!(child.wait().unwrap().success());
        assert_eq!(std::fs::read(&yes).unwrap(), b"1\n");
        assert!(!no.exists());
        assert!(seen.iter().any(|p| p.ends_with("/yes")), "{seen:?}");
    }

    #[test]
    fn a_program_that_is_not_there_is_told_from_a_refused_filter() {
        let e = spawn(Command::new("/nonexistent/lld")).unwrap_err();
        assert!(matches!(e, SuperviseError::Spawn { .. }), "{e}");
    }
}
