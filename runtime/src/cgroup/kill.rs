//! Owns the processes of a container as a whole: listing them, signalling them, killing them until none is left.
//! It may not signal by bare pid: a pid is turned into a pidfd and looked up again in the list it came from.
//! `cli` calls it for kill, delete and ps, and the shim.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use hull_sys::signal::{self, Interest};
use hull_sys::{Errno, pidfd};

use super::Cgroup;
use super::dir::{self, Dir, left_ms};
use super::walk;
use crate::error::{Error, ErrorKind, Result};
use crate::plan::cgroup::Version;

/// How long killed processes may take to be gone: one in uninterruptible sleep ends when that ends.
const KILL_LIMIT: Duration = Duration::from_secs(2);
/// Freezing only helps; a process that cannot be frozen must not use up the time for killing.
const FREEZE_LIMIT: Duration = Duration::from_millis(300);
/// A process that forks faster than it is listed is frozen first; this bounds kernels without a freezer.
const ROUNDS: usize = 100;

impl Cgroup {
    /// The pids of all processes of the container, sub-cgroups included, in ascending order.
    ///
    /// # Errors
    /// What the kernel answers.
    pub fn procs(&self) -> Result<Vec<i32>> {
        let Some(dir) = self.primary() else { return Ok(Vec::new()) };
        let mut pids = dir.all_procs().map_err(|errno| dir.failed("list the processes of", errno))?;
        pids.sort_unstable();
        pids.dedup();
        Ok(pids)
    }

    /// Whether no process is left, sub-cgroups included.
    ///
    /// # Errors
    /// What the kernel answers.
    pub fn is_empty(&self) -> Result<bool> {
        match self.primary() {
            None => Ok(true),
            Some(dir) if dir.version == Version::V2 => match dir.read("cgroup.events") {
                Ok(events) => Ok(dir::value_of(&events, "populated") != Some("1")),
                Err(Errno::ENOENT | Errno::ENODEV) => Ok(true),
                Err(errno) => Err(dir.failed("read the events of", errno)),
            },
            Some(_) => Ok(self.procs()?.is_empty()),
        }
    }

    /// Sends `signal` to every process of the container; how many got it.
    ///
    /// # Errors
    /// What the kernel answers, a process that has just ended excepted.
    pub fn signal_all(&self, signal: i32) -> Result<usize> {
        self.signalled(signal).map(|pidfds| pidfds.len())
    }

    /// Kills every process of the container and waits until none is left. Without any cgroup there is nobody
    /// to be found this way.
    ///
    /// # Errors
    /// After 2 s; the text names a process that is left and what it waits for in the kernel.
    pub fn kill(&self) -> Result<()> {
        // Nobody is left who could make another.
        let tracked = self.v2().and_then(|dir| dir.read("cgroup.events").ok());
        if self.is_empty()? && tracked.is_none_or(|events| dir::value_of(&events, "populated") != Some("1")) {
            return Ok(());
        }
        let deadline = Instant::now() + KILL_LIMIT;
        if self.kill_by_kernel(deadline)? || self.kill_each(deadline)? {
            return Ok(());
        }
        let text = format!("processes of the container survive SIGKILL{}", self.blocker_text());
        Err(Error::new(ErrorKind::CgroupKill, text))
    }

    /// `cgroup.kill`, since Linux 5.14: one write, and no process can fork its way out. False when there is
    /// none, or when it was not enough.
    fn kill_by_kernel(&self, deadline: Instant) -> Result<bool> {
        let Some(dir) = self.v2() else { return Ok(false) };
        match dir.write("cgroup.kill", "1") {
            Ok(()) => {}
            Err(Errno::ENOENT | Errno::ENODEV | Errno::EOPNOTSUPP) => return Ok(false),
            Err(errno) => return Err(dir.failed("kill", errno)),
        }
        // A process frozen by v1's freezer does not even die.
        if let Some(freezer) = self.v1("freezer") {
            freezer.set_frozen(false).or_else(gone).map_err(|errno| freezer.failed("thaw", errno))?;
        }
        // A process that left the v2 side of a hybrid host is still in the others.
        let emptied = dir.wait_event("populated", "0", deadline).or_else(|errno| gone(errno).map(|()| true));
        Ok(emptied.map_err(|errno| dir.failed("wait for", errno))? && self.is_empty()?)
    }

    /// One by one: frozen, so that the list stays true while it is read.
    fn kill_each(&self, deadline: Instant) -> Result<bool> {
        for _ in 0..ROUNDS {
            // Where nothing can be frozen, the list is read until it is empty.
            let frozen = self.freeze_within(FREEZE_LIMIT).is_ok();
            let pidfds = self.signalled(libc::SIGKILL);
            if frozen {
                self.thaw()?;
            }
            let pidfds = pidfds?;
            if pidfds.is_empty() && self.is_empty()? {
                return Ok(true);
            }
            for pidfd in &pidfds {
                let Some(left_ms) = left_ms(deadline) else { return Ok(false) };
                signal::poll([Interest { fd: pidfd.as_fd(), events: libc::POLLIN }], left_ms).map_err(
                    |errno| Error::new(ErrorKind::CgroupKill, format!("poll: {}", dir::reason(errno))),
                )?;
            }
            if left_ms(deadline).is_none() {
                return self.is_empty();
            }
        }
        Ok(false)
    }

    fn signalled(&self, signal: i32) -> Result<Vec<OwnedFd>> {
        let listed = self.procs()?;
        let opened = listed.into_iter().filter_map(|pid| match pidfd::open(pid) {
            Err(Errno::ESRCH | Errno::EINVAL) => None,
            opened => Some(opened.map(|fd| (pid, fd))),
        });
        let failed = |errno| {
            Error::new(ErrorKind::CgroupSignal, format!("signal the container: {}", dir::reason(errno)))
        };
        let opened = opened.collect::<std::result::Result<Vec<_>, _>>().map_err(failed)?;
        // The pids that are still listed are ours, and so are the pidfds opened in between.
        let still = self.procs()?;
        let ours = opened.into_iter().filter(|(pid, _)| still.binary_search(pid).is_ok());
        ours.map(|(_, fd)| match pidfd::signal(fd.as_fd(), signal) {
            Ok(()) | Err(Errno::ESRCH) => Ok(fd),
            Err(errno) => Err(failed(errno)),
        })
        .collect()
    }

    /// ` (pid 7 "cat" waits in D state in pipe_read)`, for whatever is still there.
    pub(super) fn blocker_text(&self) -> String {
        let Some(pid) = self.procs().ok().and_then(|pids| pids.first().copied()) else {
            return String::new();
        };
        let read = |file| std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
        let (comm, wchan) = (read("comm"), read("wchan"));
        let state = read("stat").rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
        let mut text = format!(" (pid {pid} {:?}", comm.trim_end());
        text.extend(state.map(|state| format!(" is in state {state}")));
        // The kernel shows 0 for a running process, or when we may not know.
        if !matches!(wchan.trim(), "" | "0") {
            text.push_str(&format!(", waiting in {}", wchan.trim()));
        }
        text + ")"
    }
}

/// A cgroup that is not there any more has nobody in it.
fn gone(errno: Errno) -> std::result::Result<(), Errno> {
    if matches!(errno, Errno::ENOENT | Errno::ENODEV) { Ok(()) } else { Err(errno) }
}

impl Dir {
    /// The pids here and in every directory below.
    pub(super) fn all_procs(&self) -> std::result::Result<Vec<i32>, Errno> {
        let mut pids = Vec::new();
        let listed = walk::each(self.fd.as_fd(), |dir| {
            pids.extend(dir::procs(dir)?);
            Ok(())
        });
        // A top that is removed while we look has nobody in it.
        listed.or_else(gone).map(|()| pids)
    }
}
