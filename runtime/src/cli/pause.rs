//! `hull pause` and `hull resume`: freeze a container's cgroup, and let it go.

use super::Global;
use super::flags::{Parsed, Verb};
use crate::error::Result;

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
    global.runtime.pause(&super::id(parsed)?).map(|()| 0)
}

pub(super) fn resume(global: &Global, parsed: &Parsed) -> Result<i32> {
    global.runtime.resume(&super::id(parsed)?).map(|()| 0)
}
