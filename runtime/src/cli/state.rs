//! `hull state`: where a container stands, as JSON.

use super::Global;
use super::flags::{Parsed, Verb};
use crate::error::Result;
use crate::spec::Timestamp;
use crate::spec::state::{State, Status};
use crate::state::{Record, StateDir};

pub(super) const VERB: Verb = Verb {
    name: "state",
    arguments: "ID",
    count: (1, 1),
    about: "print the state of a container as JSON",
    flags: &[],
    trailing: false,
};

pub(super) fn run(global: &Global, parsed: &Parsed) -> Result<i32> {
    let id = super::id(parsed)?;
    let dir = global.root.open(&id)?;
    let record = dir.load()?;
    super::print(&describe(&dir, &record, status(&dir, &record)).to_json())
}

/// The status with `paused`, which is the cgroup's to know.
pub(super) fn status(dir: &StateDir, record: &Record) -> Status {
    let derived = dir.status(record);
    let alive = matches!(derived, Status::Created | Status::Running);
    if alive && is_frozen(record) { Status::Paused } else { derived }
}

/// A cgroup that cannot be read is not known to be frozen.
pub(super) fn is_frozen(record: &Record) -> bool {
    crate::cgroup::is_frozen(&record.cgroup)
}

/// The document of one container.
pub(super) fn describe<'a>(dir: &'a StateDir, record: &'a Record, status: Status) -> State<'a> {
    let alive = !matches!(status, Status::Stopped | Status::Creating);
    State {
        oci_version: &record.oci_version,
        id: dir.id().as_str(),
        pid: record.init.filter(|_| alive).map_or(0, |init| init.pid.unsigned_abs()),
        status,
        bundle: &record.bundle,
        rootfs: &record.rootfs,
        created: Timestamp { secs: record.created.0, nanos: record.created.1 },
        annotations: &record.annotations,
        owner: "",
    }
}
