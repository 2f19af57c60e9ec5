//! Pause and resume: a container's cgroup frozen and thawed.

use super::{Runtime, status};
use crate::cgroup::Cgroup;
use crate::error::{Error, ErrorKind, Result};
use crate::spec::ContainerId;
use crate::spec::state::Status;

impl Runtime {
    /// Freezes all processes of a container that is created or runs.
    ///
    /// # Errors
    /// When it is in another state, or does not freeze in time.
    pub fn pause(&self, id: &ContainerId) -> Result<()> {
        let state = self.root.open(id)?.lock()?;
        let record = state.dir().load()?;
        match status::of(state.dir(), &record) {
            Status::Running | Status::Created => {
                (self.trace)(format_args!("freeze {}", record.cgroup));
                Cgroup::open(&record.cgroup)?.freeze()
            }
            Status::Paused | Status::Stopped | Status::Creating => {
                Err(Error::new(ErrorKind::ContainerNotRunning, "container not running"))
            }
        }
    }

    /// Thaws a container that is paused.
    ///
    /// # Errors
    /// When it is not, or its cgroup cannot be thawed.
    pub fn resume(&self, id: &ContainerId) -> Result<()> {
        let state = self.root.open(id)?.lock()?;
        let record = state.dir().load()?;
        let is_alive = matches!(state.dir().status(&record), Status::Running | Status::Created);
        if !is_alive || !status::is_frozen(&record) {
            return Err(Error::new(ErrorKind::ContainerNotPaused, "container not paused"));
        }
        (self.trace)(format_args!("thaw {}", record.cgroup));
        Cgroup::open(&record.cgroup)?.thaw()
    }
}
