//! Who holds the lock of a container's directory, and the end of it: for `delete --force`, which does not wait for
//! a command that waits for something itself. Called by `state`.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use hull_sys::process::Pid;
use hull_sys::signal::{self, Interest};
use hull_sys::{fs, pidfd};

/// How long a killed process may take to be gone.
const PATIENCE: Duration = Duration::from_millis(500);

/// Kills the commands that hold `dir` locked and waits for their end; whether there was one.
pub(super) fn end(dir: BorrowedFd<'_>) -> bool {
    let own = hull_sys::process::own_pid();
    let found = holders(dir).into_iter().filter(|pid| *pid != own);
    found.filter(|pid| end_one(*pid, dir)).count() > 0
}

fn end_one(pid: Pid, dir: BorrowedFd<'_>) -> bool {
    let Ok(process) = pidfd::open(pid) else { return false };
    // Only now that the handle pins whoever it is: does it hold the lock?
    if !holders(dir).contains(&pid) || pidfd::signal(process.as_fd(), libc::SIGKILL).is_err() {
        return false;
    }
    let watched = [Interest { fd: process.as_fd(), events: libc::POLLIN }];
    let timeout_ms = i32::try_from(PATIENCE.as_millis()).unwrap_or(i32::MAX);
    // However the wait ends, the lock is tried next.
    let _waited = signal::poll(watched, timeout_ms).is_ok();
    true
}

/// The processes that have a `flock` on `dir` (`proc_locks(5)`), of those that we can see.
fn holders(dir: BorrowedFd<'_>) -> Vec<Pid> {
    let Ok(stat) = fs::stat(dir) else { return Vec::new() };
    let text = std::fs::read_to_string("/proc/locks").unwrap_or_default();
    let is_open_in = |pid: &Pid| {
        let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        // The inode alone may be another file system's, and the device of the list is not always stat's.
        let mut found = entries.filter_map(|entry| std::fs::metadata(entry.path()).ok());
        found.any(|m| {
            use std::os::unix::fs::MetadataExt;
            (m.dev(), m.ino()) == (stat.dev, stat.ino)
        })
    };
    text.lines().filter_map(|line| holder(line, stat.ino)).filter(is_open_in).collect()
}

/// `3: FLOCK  ADVISORY  WRITE 1234 00:1a:4711 0 EOF`; one that only waits has `->` for its second word.
fn holder(line: &str, inode: u64) -> Option<Pid> {
    let mut words = line.split_ascii_whitespace().skip(1);
    if words.next() != Some("FLOCK") {
        return None;
    }
    let pid = words.nth(2)?.parse().ok().filter(|pid| *pid > 0)?;
    let (_, found) = words.next()?.rsplit_once(':')?;
    (found.parse() == Ok(inode)).then_some(pid)
}

#[cfg(test)]
mod tests {
    use super::holder;

    #[test]
    fn only_a_holder_of_this_inode_counts() {
        assert_eq!(holder("3: FLOCK  ADVISORY  WRITE 1234 00:1a:4711 0 EOF", 4711), Some(1234));
        assert_eq!(holder("3: FLOCK  ADVISORY  WRITE 1234 00:1a:4712 0 EOF", 4711), None);
        assert_eq!(holder("3: -> FLOCK  ADVISORY  WRITE 1234 00:1a:4711 0 EOF", 4711), None);
        assert_eq!(holder("3: POSIX  ADVISORY  WRITE 1234 00:1a:4711 0 EOF", 4711), None);
    }
}
