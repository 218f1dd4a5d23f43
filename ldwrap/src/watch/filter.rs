//! The filter: which of the child's system calls are reported.
//!
//! It decides by the arguments as far as they are numbers, since each call that is reported costs two
//! switches to another process. Paths are pointers, which a filter cannot follow.

use libc::{SYS_openat, SYS_renameat, SYS_renameat2, SYS_write, c_long, sock_filter};
use std::mem::offset_of;

/// `AUDIT_ARCH_*` of this machine: the number under which the kernel reports native system calls
/// (`linux/audit.h`: the ELF machine, with bits for 64-bit and little-endian).
#[cfg(target_arch = "x86_64")]
const NATIVE_ARCH: u32 = 62 | 0xc000_0000;
#[cfg(target_arch = "aarch64")]
const NATIVE_ARCH: u32 = 183 | 0xc000_0000;
/// Elsewhere nothing is watched.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const NATIVE_ARCH: u32 = 0;

/// `open` and where its flags are. glibc has only `openat`; musl still calls the older one.
#[cfg(target_arch = "x86_64")]
pub(super) const OPENS: &[(c_long, usize)] = &[(SYS_openat, 2), (libc::SYS_open, 1)];
#[cfg(not(target_arch = "x86_64"))]
pub(super) const OPENS: &[(c_long, usize)] = &[(SYS_openat, 2)];

/// Calls that rename, and which of their arguments are the two names.
#[cfg(target_arch = "x86_64")]
pub(super) const RENAMES: &[(c_long, [usize; 2])] = &[
    (libc::SYS_rename, [0, 1]),
    (SYS_renameat, [1, 3]),
    (SYS_renameat2, [1, 3]),
];
#[cfg(not(target_arch = "x86_64"))]
pub(super) const RENAMES: &[(c_long, [usize; 2])] =
    &[(SYS_renameat, [1, 3]), (SYS_renameat2, [1, 3])];

/// Which opens are reported, beside renames and writes to standard output and standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReportedOpens {
    /// All.
    All,
    /// Those for reading, and those that make a new file (`O_EXCL`).
    ForReading,
}

const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
const JUMP_EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const JUMP_SET: u32 = libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K;
const RETURN: u32 = libc::BPF_RET | libc::BPF_K;

const fn jump(code: u32, k: u32, then: u8, otherwise: u8) -> sock_filter {
    sock_filter {
        code: code as u16,
        jt: then,
        jf: otherwise,
        k,
    }
}

const fn statement(code: u32, k: u32) -> sock_filter {
    jump(code, k, 0, 0)
}

/// Loads the low half of an argument: no flag and no descriptor is larger.
const fn load_argument(n: usize) -> sock_filter {
    let low = if cfg!(target_endian = "little") { 0 } else { 4 };
    let at = offset_of!(libc::seccomp_data, args) + 8 * n + low;
    statement(LOAD, at as u32)
}

const NOTIFY: sock_filter = statement(RETURN, libc::SECCOMP_RET_USER_NOTIF);
const ALLOW: sock_filter = statement(RETURN, libc::SECCOMP_RET_ALLOW);

/// The program that reports calls; empty where there is none for this machine.
pub(super) fn program(opens: ReportedOpens) -> Vec<sock_filter> {
    if NATIVE_ARCH == 0 {
        return Vec::new();
    }
    let arch = offset_of!(libc::seccomp_data, arch) as u32;
    let number = offset_of!(libc::seccomp_data, nr) as u32;
    let mut program = vec![
        statement(LOAD, arch),
        jump(JUMP_EQUAL, NATIVE_ARCH, 1, 0),
        ALLOW,
        statement(LOAD, number),
    ];
    // Each call is a block that returns: what is loaded within it is of no concern to the next.
    let mut add = |number: c_long, block: &[sock_filter]| {
        program.push(jump(JUMP_EQUAL, number as u32, 0, block.len() as u8));
        program.extend_from_slice(block);
    };
    for &(number, flags) in OPENS {
        let writes = (libc::O_WRONLY | libc::O_RDWR) as u32;
        match opens {
            ReportedOpens::All => add(number, &[NOTIFY]),
            ReportedOpens::ForReading => add(
                number,
                &[
                    load_argument(flags),
                    jump(JUMP_SET, writes, 0, 1),
                    jump(JUMP_SET, libc::O_EXCL as u32, 0, 1),
                    NOTIFY,
                    ALLOW,
                ],
            ),
        }
    }
    for &(number, _) in RENAMES {
        add(number, &[NOTIFY]);
    }
    add(
        SYS_write,
        &[
            load_argument(0),
            jump(JUMP_EQUAL, libc::STDOUT_FILENO as u32, 1, 0),
            jump(JUMP_EQUAL, libc::STDERR_FILENO as u32, 0, 1),
            NOTIFY,
            ALLOW,
        ],
    );
    program.push(ALLOW);
    program
}
