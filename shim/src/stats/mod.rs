//! What a container uses, read from its cgroup, in the messages that daemons decode. Reads files only.
//! `container` calls it.

use protobuf::well_known_types::any::Any;

use crate::error::Result;

/// The cgroup directories of a container: one on v2, several on v1 and hybrid hosts.
#[derive(Clone, Debug)]
pub struct Cgroup {}

impl Cgroup {
    /// Those that process `pid` is in now.
    ///
    /// # Errors
    /// When the process is gone or its cgroups cannot be told.
    pub fn of(_pid: i32) -> Result<Self> {
        todo!()
    }

    /// The processes in it.
    pub fn pids(&self) -> Result<Vec<i32>> {
        todo!()
    }

    /// `io.containerd.cgroups.v1.Metrics` or `io.containerd.cgroups.v2.Metrics`.
    ///
    /// # Errors
    /// Not found, when the cgroup is gone.
    pub fn metrics(&self) -> Result<Any> {
        todo!()
    }
}
