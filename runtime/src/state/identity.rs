//! Which process a record means: a number and the moment it started, so that another process that got the
//! same number later is never taken for it.

use std::os::fd::{AsFd, OwnedFd};

use hull_sys::process::Pid;
use hull_sys::{Errno, pidfd};
use serde::{Deserialize, Serialize};

/// A process, for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Its number in the pid namespace of whoever wrote it down.
    pub pid: Pid,
    /// When it started, in clock ticks since boot (`proc_pid_stat(5)`, field 22).
    pub start_ticks: u64,
}

impl Identity {
    /// The identity of the process that has number `pid` now; `None` when there is none.
    pub fn of(pid: Pid) -> Option<Self> {
        look(pid).map(|(_, start_ticks)| Self { pid, start_ticks })
    }

    /// Whether it still runs. One that has ended and waits to be reaped does not.
    pub fn is_alive(&self) -> bool {
        look(self.pid).is_some_and(|(state, start)| start == self.start_ticks && !matches!(state, 'Z' | 'X'))
    }

    /// A handle of it; ESRCH when it is gone.
    pub fn open(&self) -> hull_sys::Result<OwnedFd> {
        let handle = pidfd::open(self.pid)
            .map_err(|errno| if errno == Errno::EINVAL { Errno::ESRCH } else { errno })?;
        // Only now that the handle pins whoever it is: is it the one we mean?
        if self.is_alive() { Ok(handle) } else { Err(Errno::ESRCH) }
    }

    /// Sends it a signal; ESRCH when it is gone.
    pub fn signal(&self, signal: i32) -> hull_sys::Result<()> {
        pidfd::signal(self.open()?.as_fd(), signal)
    }
}

/// State letter and start of process `pid`.
fn look(pid: Pid) -> Option<(char, u64)> {
    let text = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    parse(&String::from_utf8_lossy(&text))
}

/// The name stands in brackets and may hold anything, brackets and spaces included: count from its end.
fn parse(stat: &str) -> Option<(char, u64)> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_does_not_shift_the_fields() {
        let stat = "7 (a) b) c) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4711 999 1";
        assert_eq!(parse(stat), Some(('S', 4711)));
    }

    #[test]
    fn this_process_is_itself_and_not_another() {
        let own = Identity::of(hull_sys::process::own_pid()).unwrap();
        assert!(own.is_alive());
        assert!(!Identity { start_ticks: own.start_ticks + 1, ..own }.is_alive());
    }
}
