//! `hull pause` and `hull resume`: freeze a container's cgroup, and let it go.

use super::Global;
use super::flags::{Parsed, Verb};
use crate::cgroup::Cgroup;
use crate::error::{Error, ErrorKind, Result};
use crate::spec::state::Status;

pub(super) const PAUSE: Verb = Verb {
    name: "pause",
    arguments: "ID",
    count: (1, 1),
    about: "suspend all processes in a container",
    flags: &[],
    trailing: false,
};

pub(super) const RESUME: Verb = Verb {
    name: "resume",
    arguments: "ID",
    count: (1, 1),
    about: "resume all processes in a paused container",
    flags: &[],
    trailing: false,
};

pub(super) fn pause(global: &Global, parsed: &Parsed) -> Result<i32> {
    let state = global.root.open(&super::id(parsed)?)?.lock()?;
    let record = state.dir().load()?;
    match super::state::status(state.dir(), &record) {
        Status::Running | Status::Created => {
            global.log.debug(format_args!("freeze {}", record.cgroup));
            Cgroup::open(&record.cgroup)?.freeze().map(|()| 0)
        }
        Status::Paused | Status::Stopped | Status::Creating => {
            Err(Error::new(ErrorKind::ContainerNotRunning, "container not running"))
        }
    }
}

pub(super) fn resume(global: &Global, parsed: &Parsed) -> Result<i32> {
    let state = global.root.open(&super::id(parsed)?)?.lock()?;
    let record = state.dir().load()?;
    let runs = matches!(state.dir().status(&record), Status::Running | Status::Created);
    if !runs || !super::state::is_frozen(&record) {
        return Err(Error::new(ErrorKind::ContainerNotPaused, "container not paused"));
    }
    global.log.debug(format_args!("thaw {}", record.cgroup));
    Cgroup::open(&record.cgroup)?.thaw().map(|()| 0)
}
