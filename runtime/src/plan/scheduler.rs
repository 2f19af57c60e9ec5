//! Scheduling and I/O priority of a process in the kernel's numbers. Pure; called by `plan::process`.

use hull_sys::limits::Scheduler;
use oci_spec::runtime::{IOPriorityClass, LinuxSchedulerFlag, LinuxSchedulerPolicy, Process};

use crate::error::{Error, ErrorKind, Field, Result};

/// `process.scheduler` as the argument of `sched_setattr(2)`.
pub fn plan(process: &Process) -> Result<Option<Scheduler>> {
    let Some(wanted) = process.scheduler() else { return Ok(None) };
    use LinuxSchedulerPolicy as P;
    let policy = match wanted.policy() {
        P::SchedOther => 0,
        P::SchedFifo => 1,
        P::SchedRr => 2,
        P::SchedBatch => 3,
        P::SchedIso => 4,
        P::SchedIdle => 5,
        P::SchedDeadline => 6,
    };
    let mut flags = 0;
    for (index, flag) in wanted.flags().iter().flatten().enumerate() {
        use LinuxSchedulerFlag as F;
        flags |= match flag {
            F::SchedResetOnFork => 0x01,
            F::SchedFlagReclaim => 0x02,
            F::SchedFlagDLOverrun => 0x04,
            F::SchedFlagKeepPolicy => 0x08,
            F::SchedFlagKeepParams => 0x10,
            F::SchedFlagUtilClampMin | F::SchedFlagUtilClampMax => {
                return Err(Error::new(
                    ErrorKind::SchedulerFlag,
                    "utilisation clamps are not supported: the spec has no values for them",
                )
                .field(Field::item("process.scheduler.flags", index)));
            }
        };
    }
    let priority = u32::try_from(wanted.priority().unwrap_or(0)).map_err(|_negative| {
        Error::new(ErrorKind::Scheduler, "is negative").field(Field::named("process.scheduler.priority"))
    })?;
    Ok(Some(Scheduler {
        size: 0,
        policy,
        flags,
        nice: wanted.nice().unwrap_or(0),
        priority,
        runtime_ns: wanted.runtime().unwrap_or(0),
        deadline_ns: wanted.deadline().unwrap_or(0),
        period_ns: wanted.period().unwrap_or(0),
    }))
}

/// `process.ioPriority` as the argument of `ioprio_set(2)`.
pub fn plan_io_priority(process: &Process) -> Result<Option<u32>> {
    let Some(wanted) = process.io_priority() else { return Ok(None) };
    let class = match wanted.class() {
        IOPriorityClass::IoprioClassRt => 1,
        IOPriorityClass::IoprioClassBe => 2,
        IOPriorityClass::IoprioClassIdle => 3,
    };
    match u32::try_from(wanted.priority()) {
        Ok(priority @ 0..=7) => Ok(Some(class << 13 | priority)),
        _ => Err(Error::new(
            ErrorKind::IoPriority,
            format!("{} is not a priority from 0 to 7", wanted.priority()),
        )
        .field(Field::named("process.ioPriority.priority"))),
    }
}
