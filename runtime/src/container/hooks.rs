//! The hooks that run beside a container that is there, or was: poststart and poststop. One that fails is a warning
//! (`runtime.md#lifecycle`).

use oci_spec::runtime::Hook;

use crate::error::{Result, Warning};
use crate::launch::hooks::{Output, run_all};
use crate::plan;
use crate::spec::ContainerId;
use crate::spec::state::{HookState, Status};
use crate::state::Record;

/// Runs the poststart hooks; the container goes on.
pub(super) fn poststart(id: &ContainerId, record: &Record) -> Vec<Warning> {
    run("poststart", &record.poststart, id, record, Status::Running)
}

/// Runs the poststop hooks.
pub(super) fn poststop(id: &ContainerId, record: &Record) -> Vec<Warning> {
    run("poststop", &record.poststop, id, record, Status::Stopped)
}

fn run(kind: &str, list: &[Hook], id: &ContainerId, record: &Record, status: Status) -> Vec<Warning> {
    if list.is_empty() {
        return Vec::new();
    }
    let pid =
        if status == Status::Stopped { 0 } else { record.init.map_or(0, |init| init.pid.unsigned_abs()) };
    let told = HookState {
        oci_version: &record.oci_version,
        id: id.as_str(),
        status,
        pid,
        bundle: &record.bundle,
        annotations: &record.annotations,
    };
    let all = || -> Result<Vec<Warning>> {
        let output = Output::new().map_err(|errno| super::internal("make a file in memory", errno))?;
        let plans = plan::hooks::plan_list(kind, &Some(list.to_vec()))?;
        let run_one =
            |hook: &plan::hooks::HookPlan| run_all(kind, std::slice::from_ref(hook), &told, &output).err();
        Ok(plans.iter().filter_map(run_one).collect())
    };
    all().unwrap_or_else(|error| vec![error])
}
