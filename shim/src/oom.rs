//! Tells when the kernel's OOM killer has ended a process of a container. Watches from create on, by an
//! eventfd on v1 and by inotify on v2, and compares the counter of kills, so that none is missed and none
//! reported twice. `container` calls it.

use crate::error::Result;
use crate::stats::Cgroup;

/// A watch over one container, until it is dropped.
#[derive(Debug)]
pub struct Watch {}

impl Watch {
    /// Watches `cgroup` and calls `report` once for each time that the counter has grown.
    ///
    /// # Errors
    /// When the kernel gives no watch; a cgroup without a memory controller gives one that says nothing.
    pub fn start(_cgroup: &Cgroup, _report: impl Fn() + 'static) -> Result<Self> {
        todo!()
    }

    /// Looks once more: for when init has ended, before its exit is told.
    pub fn look(&self) {
        todo!()
    }
}
