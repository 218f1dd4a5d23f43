//! What the kernel tells of processes and threads (proc(5)).

use std::fs;
use std::time::Duration;

/// The state of a process or thread: `R` runs, `S` sleeps, `T` is stopped; none if it is gone.
#[must_use]
pub fn state(id: u32) -> Option<u8> {
    behind_name(id)?.first().copied()
}

/// How much processor time all threads of a process have used together, in the kernel's clock ticks; none if it is gone.
#[must_use]
pub fn ticks(pid: u32) -> Option<u64> {
    let fields = String::from_utf8(behind_name(pid)?).ok()?;
    // The state is field 3, utime and stime are 14 and 15.
    let mut times = fields.split_ascii_whitespace().skip(11);
    let mut time = || times.next()?.parse::<u64>().ok();
    Some(time()? + time()?)
}

/// The fields of `/proc/ID/stat` from the state on.
fn behind_name(id: u32) -> Option<Vec<u8>> {
    let mut stat = fs::read(format!("/proc/{id}/stat")).ok()?;
    // The name is in parentheses and may have any byte in it.
    let name_ends = stat.iter().rposition(|&b| b == b')')?;
    (name_ends + 2 <= stat.len()).then(|| stat.split_off(name_ends + 2))
}

/// The process that a process is a child of; none if it is gone.
#[must_use]
pub fn parent(pid: u32) -> Option<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    u32::try_from(field(&text, "PPid:")?).ok()
}

/// Whether a thread sleeps until another one wakes it, rather than for input; where the kernel does not
/// tell for what it sleeps, whether it sleeps.
#[must_use]
pub fn waits_for_another(thread: u32) -> bool {
    let call = fs::read_to_string(format!("/proc/{thread}/syscall")).ok();
    let number = call.and_then(|text| text.split_ascii_whitespace().next()?.parse().ok());
    state(thread) == Some(b'S') && number.is_none_or(|n: libc::c_long| n == libc::SYS_futex)
}

/// How long a thread has been on a processor since it began; none where the kernel does not tell.
#[must_use]
pub fn processor_time(thread: u32) -> Option<Duration> {
    let text = fs::read_to_string(format!("/proc/{thread}/schedstat")).ok()?;
    let nanos = text.split_ascii_whitespace().next()?.parse().ok()?;
    Some(Duration::from_nanos(nanos))
}

/// The resident memory of a process, in bytes; 0 if it is gone.
#[must_use]
pub fn resident(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    field(&text, "VmRSS:").unwrap_or(0) << 10
}

/// The number behind a name at the beginning of a line.
#[must_use]
pub fn field(text: &str, name: &str) -> Option<u64> {
    let line = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        (words.next() == Some(name)).then(|| words.next()?.parse().ok())?
    };
    text.lines().find_map(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_known_and_none_that_is_not() {
        let own = std::process::id();
        assert!(resident(own) > 1 << 20);
        assert!(matches!(state(own), Some(b'R' | b'S')));
        assert!(processor_time(own) > Some(Duration::ZERO));
        let begin = ticks(own).unwrap();
        while ticks(own).unwrap() == begin {}
        assert_eq!((resident(u32::MAX), state(u32::MAX)), (0, None));
        assert_eq!(ticks(u32::MAX), None);
    }

    #[test]
    fn fields_are_found() {
        let text = "A: 1\nAB: 2 kB\n\nC:\n";
        let found = ["A:", "AB:", "C:", "D:"].map(|name| field(text, name));
        assert_eq!(found, [Some(1), Some(2), None, None]);
    }
}
