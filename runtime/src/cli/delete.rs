//! `hull delete`: removes a container and all that hull made for it. Its answer 0 means that nothing is
//! left.

use std::time::{Duration, Instant};

use super::flags::{Flag, Parsed, Verb};
use super::{Global, start};
use crate::cgroup::Cgroup;
use crate::error::{Error, ErrorKind, Result, Warning};
use crate::spec::ContainerId;
use crate::spec::state::Status;
use crate::state::{Locked, Record, StateDir};

pub(super) const VERB: Verb = Verb {
    name: "delete",
    arguments: "ID",
    count: (1, 1),
    about: "delete a container and everything that was created for it",
    flags: FLAGS,
    trailing: false,
};

const FLAGS: &[Flag] = &[
    Flag::switch("force", "kill the container if it is running; no error if it does not exist").short('f'),
    super::REGEX,
];

/// How long a killed process may take to be gone.
const PATIENCE: Duration = Duration::from_secs(4);

pub(super) fn run(global: &Global, parsed: &Parsed) -> Result<i32> {
    super::ids(global, parsed)?.iter().try_for_each(|id| delete(global, id, parsed.has("force"))).map(|()| 0)
}

fn delete(global: &Global, id: &ContainerId, force: bool) -> Result<()> {
    let lock = if force { StateDir::lock_by_force } else { StateDir::lock };
    let state = match global.root.open(id).and_then(lock) {
        Err(error) if force && error.kind == ErrorKind::ContainerMissing => return Ok(()),
        other => other?,
    };
    let record = match state.dir().load() {
        Ok(record) => record,
        Err(error) if force && error.kind == ErrorKind::ContainerMissing => return Ok(()),
        // Its create was killed before it had made anything.
        Err(error) if force && error.kind == ErrorKind::StateMissing => return state.remove(),
        Err(error) if force && error.kind == ErrorKind::StateCorrupt => {
            return sweep(state, error);
        }
        Err(error) => return Err(error),
    };
    let status = state.dir().status(&record);
    match status {
        Status::Stopped | Status::Creating | Status::Created => {}
        Status::Running | Status::Paused if force => {}
        other @ (Status::Running | Status::Paused) => {
            return Err(Error::new(
                ErrorKind::ContainerRunning,
                format!("cannot delete container {id} that is not stopped: {other}"),
            )
            .hint(format!("hull kill {id} KILL, or hull delete --force {id}")));
        }
    }
    destroy(state, &record)?;
    global.log.debug(format_args!("removed: {} and the state", record.cgroup));
    global.log.warnings(&poststop(id.as_str(), &record));
    Ok(())
}

/// Kills what is left of a container, removes its cgroup and then its record. In this order: while
/// anything is left, the record is.
///
/// # Errors
/// What is left, and why.
pub(super) fn destroy(state: Locked, record: &Record) -> Result<()> {
    if let Some(init) = record.init {
        // One that is gone already cannot be killed.
        let _killed = init.signal(libc::SIGKILL).is_ok();
    }
    let cgroup = Cgroup::open(&record.cgroup)?;
    cgroup.kill()?;
    await_end(record)?;
    cgroup.delete()?;
    state.remove()
}

/// Waits for the end of init: it may be outside of any cgroup.
fn await_end(record: &Record) -> Result<()> {
    let Some(init) = record.init else { return Ok(()) };
    let Ok(handle) = init.open() else { return Ok(()) };
    let deadline = Instant::now() + PATIENCE;
    while init.is_alive() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Error::new(
                ErrorKind::InitSurvives,
                format!("process {} does not exit after SIGKILL", init.pid),
            )
            .hint(format!("cat /proc/{}/stack shows what it is waiting for in the kernel", init.pid)));
        }
        let watched =
            [hull_sys::signal::Interest { fd: std::os::fd::AsFd::as_fd(&handle), events: libc::POLLIN }];
        let timeout_ms = i32::try_from(left.as_millis()).unwrap_or(i32::MAX);
        // However the wait ends, the loop looks again.
        let _waited = hull_sys::signal::poll(watched, timeout_ms).is_ok();
    }
    Ok(())
}

/// Runs the poststop hooks; one that fails is a warning (`runtime.md`).
pub(super) fn poststop(id: &str, record: &Record) -> Vec<Warning> {
    start::run_late_hooks("poststop", &record.poststop, id, record, Status::Stopped)
}

/// Ends a container whose record cannot be read, by what its create wrote down first. Without that nobody
/// can tell what is left, and it is not said to be gone.
fn sweep(state: Locked, corrupt: Error) -> Result<()> {
    let Some(intent) = state.dir().load_intent() else {
        let path = state.dir().path();
        return Err(corrupt.hint(format!(
            "kill its processes and remove its cgroup by hand, then remove {}",
            path.display()
        )));
    };
    destroy(state, &intent)
}
