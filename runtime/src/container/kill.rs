//! Signals to a container.

use hull_sys::Errno;

use super::{Runtime, status};
use crate::cgroup::Cgroup;
use crate::error::{Error, ErrorKind, Result};
use crate::spec::ContainerId;
use crate::spec::state::Status;
use crate::state::{Phase, Record, StateDir};

impl Runtime {
    /// Sends a signal to init. KILL ends all processes of a container that has no pid namespace of its own.
    ///
    /// # Errors
    /// `container not running`, or the signal cannot be sent.
    pub fn kill(&self, id: &ContainerId, signal: i32) -> Result<()> {
        let (dir, record) = self.find(id)?;
        if signal == libc::SIGKILL && record.shares_pids && record.phase == Phase::Created {
            (self.trace)(format_args!(
                "init shares its pid namespace: signal {signal} to all in {}",
                record.cgroup
            ));
            return kill_with_init(&record);
        }
        match dir.status(&record) {
            Status::Stopped | Status::Creating => return Err(not_running()),
            Status::Created | Status::Running | Status::Paused => {}
        }
        let init = record.init.ok_or_else(not_running)?;
        (self.trace)(format_args!("signal {signal} to process {}", init.pid));
        match init.signal(signal) {
            Ok(()) => {}
            Err(Errno::ESRCH) => return Err(not_running()),
            Err(errno) => return Err(super::internal(&format!("signal process {}", init.pid), errno)),
        }
        if signal == libc::SIGKILL && status::is_frozen(&record) { thaw(dir, &record) } else { Ok(()) }
    }

    /// Sends a signal to every process of a container; one that has ended is no error.
    ///
    /// # Errors
    /// When the processes cannot be listed, or one cannot be signalled.
    pub fn kill_all(&self, id: &ContainerId, signal: i32) -> Result<()> {
        let (_, record) = self.find(id)?;
        (self.trace)(format_args!("signal {signal} to all in {}", record.cgroup));
        // Also when init is gone: others may be left in its cgroup.
        let cgroup = Cgroup::open(&record.cgroup)?;
        if signal == libc::SIGKILL { cgroup.kill() } else { cgroup.signal_all(signal).map(drop) }
    }
}

fn not_running() -> Error {
    Error::new(ErrorKind::ContainerNotRunning, "container not running")
}

/// A frozen process dies only once it is thawed. Under the lock, or a pause at work would wait for what we undo.
fn thaw(dir: StateDir, record: &Record) -> Result<()> {
    let _locked = dir.lock()?;
    let cgroup = Cgroup::open(&record.cgroup)?;
    if cgroup.is_gone() { Ok(()) } else { cgroup.thaw() }
}

/// Where init's end is not the end of the others, they are killed with it, and after it.
fn kill_with_init(record: &Record) -> Result<()> {
    let cgroup = Cgroup::open(&record.cgroup)?;
    let is_alive = record.init.is_some_and(|init| init.is_alive());
    if !is_alive && cgroup.is_empty()? {
        return Err(not_running());
    }
    if let Some(init) = record.init {
        // It may be outside of any cgroup, or have ended just now.
        let _killed = init.signal(libc::SIGKILL).is_ok();
    }
    cgroup.kill()
}
