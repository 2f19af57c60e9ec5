//! Resource limits and scheduling of this process. Called by `apply`.

use crate::process::Pid;
use crate::{Result, check_unit};

/// One resource limit in the kernel's numbers; `u64::MAX` is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// What the process is held to.
    pub soft: u64,
    /// What it may raise itself to.
    pub hard: u64,
}

/// Sets limit `resource` (`RLIMIT_*`) of this process (`prlimit(2)`).
pub fn set(resource: u32, limit: Limit) -> Result<()> {
    let new = [limit.soft, limit.hard];
    let none = std::ptr::null_mut::<u64>();
    // SAFETY: the kernel reads one rlimit64 (two u64) at the pointer; the old one is not wanted.
    check_unit(unsafe { libc::syscall(libc::SYS_prlimit64, 0 as Pid, resource, new.as_ptr(), none) })
}

/// The present limit `resource` of this process.
pub fn get(resource: u32) -> Result<Limit> {
    let mut now = [0_u64; 2];
    let none = std::ptr::null::<u64>();
    // SAFETY: the kernel writes one rlimit64 (two u64) into the live array.
    check_unit(unsafe { libc::syscall(libc::SYS_prlimit64, 0 as Pid, resource, none, now.as_mut_ptr()) })?;
    Ok(Limit { soft: now[0], hard: now[1] })
}

/// `ioprio_set(2)` of this process: `class << 13 | priority`.
pub fn set_io_priority(value: u32) -> Result<()> {
    const WHO_PROCESS: libc::c_int = 1;
    // SAFETY: takes numbers only.
    check_unit(unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0, value) })
}

/// The arguments of `sched_setattr(2)`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scheduler {
    /// Size of this struct; set by [`set_scheduler`].
    pub size: u32,
    /// `SCHED_*`.
    pub policy: u32,
    /// `SCHED_FLAG_*`.
    pub flags: u64,
    /// Nice value for the time-sharing policies.
    pub nice: i32,
    /// Priority for the real-time policies.
    pub priority: u32,
    /// Deadline policy: run time in nanoseconds.
    pub runtime_ns: u64,
    /// Deadline policy: relative deadline in nanoseconds.
    pub deadline_ns: u64,
    /// Deadline policy: period in nanoseconds.
    pub period_ns: u64,
}

/// `sched_setattr(2)` of this process.
pub fn set_scheduler(wanted: Scheduler) -> Result<()> {
    let args = Scheduler { size: u32::try_from(size_of::<Scheduler>()).unwrap_or(48), ..wanted };
    // SAFETY: the kernel reads one struct of the size named in it.
    check_unit(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const args, 0) })
}

/// `sched_setaffinity(2)` of this process; bit n of the words is CPU n.
pub fn set_affinity(mask: &[u64]) -> Result<()> {
    let bytes = size_of_val(mask);
    // SAFETY: the kernel reads `bytes` bytes at the pointer, both of one live slice.
    check_unit(unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, bytes, mask.as_ptr()) })
}

/// Lifts every restriction of this process to some CPUs but its cpuset's, which the kernel cuts the mask to.
pub fn use_all_cpus() -> Result<()> {
    set_affinity(&[u64::MAX; 128])
}
