//! Where a container stands: its record, its init, and its cgroup together.

use super::Runtime;
use crate::error::{ErrorKind, Result, Warning};
use crate::spec::state::{State, Status};
use crate::spec::{ContainerId, Timestamp};
use crate::state::{Record, StateDir};

/// A container as it was found, to be described.
#[derive(Debug)]
pub struct Found {
    dir: StateDir,
    record: Record,
}

impl Found {
    /// The document that `state` and `list` print.
    pub fn state(&self) -> State<'_> {
        let status = of(&self.dir, &self.record);
        let is_alive = !matches!(status, Status::Stopped | Status::Creating);
        State {
            oci_version: &self.record.oci_version,
            id: self.dir.id().as_str(),
            pid: self.record.init.filter(|_| is_alive).map_or(0, |init| init.pid.unsigned_abs()),
            status,
            bundle: &self.record.bundle,
            rootfs: &self.record.rootfs,
            created: Timestamp { secs: self.record.created.0, nanos: self.record.created.1 },
            annotations: &self.record.annotations,
            owner: "",
        }
    }

    /// Its processes, by their PIDs on the host.
    ///
    /// # Errors
    /// When the cgroup cannot be read.
    pub fn pids(&self) -> Result<Vec<i32>> {
        crate::cgroup::Cgroup::open(&self.record.cgroup)?.procs()
    }
}

impl Runtime {
    /// A container, to be described.
    ///
    /// # Errors
    /// `container does not exist`, or its record cannot be read.
    pub fn look(&self, id: &ContainerId) -> Result<Found> {
        self.find(id).map(|(dir, record)| Found { dir, record })
    }

    /// All containers that can be described, and what is wrong with the others; `None` when there is no root.
    ///
    /// # Errors
    /// When the root cannot be read.
    pub fn list(&self) -> Result<Option<(Vec<Found>, Vec<Warning>)>> {
        let Some(ids) = self.root.ids()? else { return Ok(None) };
        let (mut found, mut unreadable) = (Vec::new(), Vec::new());
        for id in &ids {
            match self.look(id) {
                Ok(one) => found.push(one),
                // Gone since, or not there yet.
                Err(error) if matches!(error.kind, ErrorKind::ContainerMissing | ErrorKind::StateMissing) => {
                }
                Err(error) => unreadable.push(error),
            }
        }
        Ok(Some((found, unreadable)))
    }
}

/// The status with `paused`, which is the cgroup's to know.
pub(super) fn of(dir: &StateDir, record: &Record) -> Status {
    let derived = dir.status(record);
    let is_alive = matches!(derived, Status::Created | Status::Running);
    if is_alive && is_frozen(record) { Status::Paused } else { derived }
}

/// A cgroup that cannot be read is not known to be frozen.
pub(super) fn is_frozen(record: &Record) -> bool {
    crate::cgroup::is_frozen(&record.cgroup)
}
