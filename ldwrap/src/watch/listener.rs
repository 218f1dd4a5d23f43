//! Our end of the filter: calls as they come, and answers.

use super::filter::{OPENS, RENAMES};
use libc::{c_int, c_long, c_void};
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;
use std::io::{self, IoSliceMut};
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use thiserror::Error;

/// Longer paths are not the kernel's.
const PATH_MAX: usize = 4096;
/// So often an answer is tried.
const TRIES: usize = 3;

/// `SECCOMP_IOCTL_NOTIF_SET_FLAGS` and its one flag (Linux 6.6): the child wakes us on its own
/// processor, which is idle from then on, instead of on another one that may be asleep.
const NOTIF_SET_FLAGS: libc::Ioctl = 0x4008_2104u32 as libc::Ioctl;
const SYNC_WAKE_UP: u64 = 1;

/// An answer that did not reach the child, which now waits for ever: it has to be ended.
#[derive(Debug, Error)]
#[error("a call of the watched program could not be answered: {0}")]
pub struct Unanswered(pub io::Error);

/// A call of the child, which waits until it is answered.
#[derive(Debug)]
pub struct Notification {
    /// The kernel's number for this call.
    pub id: u64,
    /// The thread that makes it.
    pub thread: u32,
    /// What it asks for.
    pub call: Call,
}

/// What a call asks for. Paths are as the child gave them, empty where they cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub enum Call {
    /// A file to be opened, with the flags of `open(2)`.
    Open {
        /// Its path.
        path: Vec<u8>,
        /// `O_RDONLY` and so on.
        flags: c_int,
    },
    /// A file to be renamed.
    Rename {
        /// Its name.
        from: Vec<u8>,
        /// Its new name.
        to: Vec<u8>,
    },
    /// Bytes for standard output (1) or standard error (2).
    Write {
        /// Which.
        stream: c_int,
        /// Where they are in the child's memory.
        address: u64,
        /// How many.
        length: u64,
    },
}

impl Call {
    /// Of a call that the filter reports, with `path` to read a path at an address.
    fn of(call: &libc::seccomp_notif, path: &mut dyn FnMut(u64) -> Vec<u8>) -> Self {
        let number = c_long::from(call.data.nr);
        let args = &call.data.args;
        if let Some(&(_, flags)) = OPENS.iter().find(|(nr, _)| *nr == number) {
            Self::Open {
                path: path(args[flags - 1]),
                flags: args[flags] as c_int,
            }
        } else if let Some(&(_, [from, to])) = RENAMES.iter().find(|(nr, _)| *nr == number) {
            Self::Rename {
                from: path(args[from]),
                to: path(args[to]),
            }
        } else {
            Self::Write {
                stream: args[0] as c_int,
                address: args[1],
                length: args[2],
            }
        }
    }
}

/// Our end of the filter.
#[derive(Debug)]
pub struct Listener {
    fd: OwnedFd,
}

impl AsFd for Listener {
    /// Readable when a call waits, hung up when no process has the filter any more.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Listener {
    /// Of the descriptor that the kernel gave for a filter. Fails where the kernel's notifications are
    /// not of the size that we know.
    pub(super) fn new(fd: OwnedFd) -> io::Result<Self> {
        // SAFETY: all-zero values of this plain struct are valid.
        let mut sizes: libc::seccomp_notif_sizes = unsafe { mem::zeroed() };
        // SAFETY: the call fills in the struct.
        let result = unsafe {
            libc::syscall(
                libc::SYS_seccomp,
                libc::SECCOMP_GET_NOTIF_SIZES,
                0,
                &raw mut sizes,
            )
        };
        check(result)?;
        if usize::from(sizes.seccomp_notif) > mem::size_of::<libc::seccomp_notif>()
            || usize::from(sizes.seccomp_notif_resp) > mem::size_of::<libc::seccomp_notif_resp>()
        {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let listener = Self { fd };
        // Older kernels don't have it.
        // SAFETY: the argument of this request is a number, passed as it is.
        let _ = unsafe { listener.ioctl(NOTIF_SET_FLAGS, SYNC_WAKE_UP as *mut c_void) };
        Ok(listener)
    }

    /// The next call; none when the one that was there is gone. Waits when there is none. Fails where the
    /// child's memory cannot be read: then no call can be told from another.
    pub fn receive(&self) -> io::Result<Option<Notification>> {
        // SAFETY: an all-zero seccomp_notif is what the kernel wants to be given.
        let mut call: libc::seccomp_notif = unsafe { mem::zeroed() };
        // SAFETY: the ioctl writes one seccomp_notif.
        match unsafe { self.ioctl(libc::SECCOMP_IOCTL_NOTIF_RECV, (&raw mut call).cast()) } {
            Ok(_) => {}
            // We were interrupted, or the call's thread is gone.
            Err(e) if matches!(e.raw_os_error(), Some(libc::EINTR | libc::ENOENT)) => {
                return Ok(None);
            }
            Err(e) => return Err(e),
        }
        let mut unreadable = None;
        let asked = Call::of(&call, &mut |address| {
            read_string(call.pid, address).unwrap_or_else(|e| {
                // An address that is none, or a path without an end, is the kernel's to refuse.
                if e.raw_os_error().is_some_and(|e| e != libc::EFAULT) {
                    unreadable = Some(e);
                }
                Vec::new()
            })
        });
        // What was read was the caller's only if it still waits, which the answer tells; a caller that is
        // gone has no memory either.
        match unreadable {
            Some(e) if self.waits(call.id) => Err(e),
            Some(_) => Ok(None),
            None => Ok(Some(Notification {
                id: call.id,
                thread: call.pid,
                call: asked,
            })),
        }
    }

    /// Lets a call go on in the kernel.
    pub fn proceed(&self, id: u64) -> Result<(), Unanswered> {
        self.respond(id, 0, 0, libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32)
    }

    /// Gives a call this result without making it.
    pub fn succeed(&self, id: u64, result: i64) -> Result<(), Unanswered> {
        self.respond(id, result, 0, 0)
    }

    /// Fails a call with this error number.
    pub fn fail(&self, id: u64, error: c_int) -> Result<(), Unanswered> {
        self.respond(id, 0, -error, 0)
    }

    /// Answers an `open` with a descriptor of ours, which the child gets a copy of. In two steps: when a signal interrupts
    /// `SECCOMP_ADDFD_FLAG_SEND`, the child goes on with descriptor 0 (docs/lld.md, "Kernels").
    pub fn hand_over(&self, id: u64, fd: BorrowedFd<'_>) -> Result<(), Unanswered> {
        match retry(|| add_descriptor(self.fd.as_raw_fd(), id, fd.as_raw_fd())) {
            Ok(fd) => self.succeed(id, i64::from(fd)),
            Err(e) => ignore_gone(e),
        }
    }

    fn respond(&self, id: u64, val: i64, error: c_int, flags: u32) -> Result<(), Unanswered> {
        let send = || {
            let mut response = libc::seccomp_notif_resp {
                id,
                val,
                error,
                flags,
            };
            // SAFETY: the ioctl reads one seccomp_notif_resp.
            unsafe { self.ioctl(libc::SECCOMP_IOCTL_NOTIF_SEND, (&raw mut response).cast()) }
        };
        retry(send).map(drop).or_else(ignore_gone)
    }

    /// Whether a call waits for its answer; where that cannot be told, it is taken to.
    fn waits(&self, mut id: u64) -> bool {
        let valid = retry(|| {
            // SAFETY: the ioctl reads one u64.
            unsafe { self.ioctl(libc::SECCOMP_IOCTL_NOTIF_ID_VALID, (&raw mut id).cast()) }
        });
        !valid.is_err_and(|e| e.raw_os_error() == Some(libc::ENOENT))
    }

    /// # Safety
    /// `argument` must be what `request` takes, or point to what it reads or writes.
    unsafe fn ioctl(&self, request: libc::Ioctl, argument: *mut c_void) -> io::Result<c_int> {
        // SAFETY: the caller's promise; the descriptor is ours.
        let result = unsafe { libc::ioctl(self.fd.as_raw_fd(), request, argument) };
        check(result.into()).map(|r| r as c_int)
    }
}

/// Whether calls that a filter reports can be answered with a descriptor, as they can since Linux 5.9 (docs/lld.md,
/// "Kernels"). Async-signal-safe.
pub(super) fn can_hand_over(listener: RawFd) -> bool {
    // Without a descriptor to hand over it is refused in any case: how tells whether it is known.
    let refused = add_descriptor(listener, 0, -1);
    refused.is_err_and(|e| e.raw_os_error() == Some(libc::EBADF))
}

/// Gives the caller of the call `id` a copy of `descriptor`; gives the copy's number there.
fn add_descriptor(listener: RawFd, id: u64, descriptor: RawFd) -> io::Result<c_int> {
    let mut add = libc::seccomp_notif_addfd {
        id,
        flags: 0,
        srcfd: descriptor as u32,
        newfd: 0,
        newfd_flags: libc::O_CLOEXEC as u32,
    };
    // SAFETY: the ioctl reads one seccomp_notif_addfd.
    let result = unsafe { libc::ioctl(listener, libc::SECCOMP_IOCTL_NOTIF_ADDFD, &raw mut add) };
    check(result.into()).map(|fd| fd as c_int)
}

/// An error of answering a call. One whose thread was interrupted or has ended needs no answer.
fn ignore_gone(e: io::Error) -> Result<(), Unanswered> {
    match e.raw_os_error() {
        Some(libc::ENOENT) => Ok(()),
        _ => Err(Unanswered(e)),
    }
}

/// Calls `f` again, a few times, where it fails without a reason; ENOENT is an answer, and an interrupt does
/// not count. The error is the first: what follows it may only say that the call has been tried before.
fn retry<T>(mut f: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let (mut tries, mut interrupts, mut first) = (0, 0, None);
    loop {
        match f() {
            Err(e) if e.raw_os_error() == Some(libc::EINTR) => interrupts += 1,
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => return Err(e),
            Err(e) => {
                let error = first.get_or_insert(e);
                tries += 1;
                if tries == TRIES {
                    log::info!("answering lld: {error}, after {interrupts} interrupts");
                    return Err(first.unwrap_or_else(|| io::ErrorKind::Other.into()));
                }
            }
            done => return done,
        }
    }
}

/// What a system call returned, as a result.
pub(super) fn check(result: i64) -> io::Result<i64> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// Reads bytes of another process, as many as can be read at once; gives how many.
pub fn read_memory(pid: u32, address: u64, buffer: &mut [u8]) -> io::Result<usize> {
    let remote = RemoteIoVec {
        base: address as usize,
        len: buffer.len(),
    };
    let pid = Pid::from_raw(pid as i32);
    let read = process_vm_readv(pid, &mut [IoSliceMut::new(buffer)], &[remote]);
    Ok(read?)
}

/// A NUL-terminated string of another process, read page by page, since the next page may not be
/// there.
pub fn read_string(pid: u32, address: u64) -> io::Result<Vec<u8>> {
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
        let n = read_memory(pid, at, room)?;
        let end = room.get(..n).and_then(|s| s.iter().position(|&b| b == 0));
        string.truncate(have + n);
        if let Some(end) = end {
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
