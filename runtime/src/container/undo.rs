//! The end of a container that did not come to be, and of one that is deleted: nothing is left, or the error says what.

use std::time::{Duration, Instant};

use super::{Runtime, hooks};
use crate::cgroup::Cgroup;
use crate::error::{Error, ErrorKind, Result};
use crate::state::{Locked, Record};

/// How long a killed process may take to be gone.
const PATIENCE: Duration = Duration::from_secs(4);

/// What has been begun of a container: [`Self::take_back`] is the one way back, from wherever it did not go on.
#[derive(Debug)]
pub(super) struct Undo {
    /// Its directory, locked.
    pub(super) state: Locked,
    /// What there is of it, or may be.
    pub(super) record: Record,
    /// Its cgroup, once made.
    pub(super) cgroup: Option<Cgroup>,
}

impl Undo {
    /// Takes back what has been begun, hooks included (`runtime.md#lifecycle`), because of `error`, which is answered
    /// with what is left, if anything: that keeps its record, and is found by its id. Init has been ended before.
    pub(super) fn take_back(self, runtime: &Runtime, error: Error) -> Error {
        let id = self.state.dir().id().clone();
        // With init went all of its PID namespace. Others may have made their own cgroups below ours meanwhile.
        let left = self.cgroup.and_then(|mut cgroup| {
            let killed = if self.record.shares_pids { cgroup.kill() } else { Ok(()) };
            killed.and_then(|()| cgroup.undo()).err()
        });
        (runtime.trace)(format_args!("rolled back: init and cgroup"));
        for warning in hooks::poststop(&id, &self.record) {
            (runtime.trace)(format_args!("{warning}"));
        }
        // The first error is the one to tell.
        let _removed = left.is_none() && self.state.remove().is_ok();
        match left {
            Some(left) => error.hint(format!("{left}; hull delete --force {id} retries the clean-up")),
            None => error,
        }
    }
}

/// Kills what is left of a container, removes its cgroup and then its record. In this order: while
/// anything is left, the record is.
///
/// # Errors
/// What is left, and why.
pub(super) fn destroy(state: Locked, record: &Record) -> Result<()> {
    if let Some(init) = record.init {
        // One that is gone already cannot be killed.
        let _killed = init.signal(libc::SIGKILL).is_ok();
    }
    let cgroup = Cgroup::open(&record.cgroup)?;
    cgroup.kill()?;
    await_end(record)?;
    cgroup.delete()?;
    state.remove()
}

/// Waits for the end of init: it may be outside of any cgroup.
fn await_end(record: &Record) -> Result<()> {
    let Some(init) = record.init else { return Ok(()) };
    let Ok(handle) = init.open() else { return Ok(()) };
    let deadline = Instant::now() + PATIENCE;
    while init.is_alive() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Error::new(
                ErrorKind::InitSurvives,
                format!("process {} does not exit after SIGKILL", init.pid),
            )
            .hint(format!("cat /proc/{}/stack shows what it is waiting for in the kernel", init.pid)));
        }
        let watched =
            [hull_sys::signal::Interest { fd: std::os::fd::AsFd::as_fd(&handle), events: libc::POLLIN }];
        let timeout_ms = i32::try_from(left.as_millis()).unwrap_or(i32::MAX);
        // However the wait ends, the loop looks again.
        let _waited = hull_sys::signal::poll(watched, timeout_ms).is_ok();
    }
    Ok(())
}
