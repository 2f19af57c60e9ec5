//! Delete: removes a container and all that was made for it. Its success means that nothing is left.

use super::{Runtime, hooks, undo};
use crate::error::{Error, ErrorKind, Result, Warning};
use crate::spec::ContainerId;
use crate::spec::state::Status;
use crate::state::{Locked, Record, StateDir};

impl Runtime {
    /// Deletes a container that is created, has stopped, or was never finished; with `force` also one that runs, and
    /// one that does not exist is no error. Answers what the poststop hooks have to say.
    ///
    /// # Errors
    /// The container runs, or something of it cannot be removed.
    pub fn delete(&self, id: &ContainerId, force: bool) -> Result<Vec<Warning>> {
        let lock = if force { StateDir::lock_by_force } else { StateDir::lock };
        let state = match self.root.open(id).and_then(lock) {
            Err(error) if force && error.kind == ErrorKind::ContainerMissing => return Ok(Vec::new()),
            other => other?,
        };
        let record = match state.dir().load() {
            Ok(record) => record,
            Err(error) if force && error.kind == ErrorKind::ContainerMissing => return Ok(Vec::new()),
            // Its create was killed before it had made anything.
            Err(error) if force && error.kind == ErrorKind::StateMissing => {
                return state.remove().map(|()| Vec::new());
            }
            Err(error) if force && error.kind == ErrorKind::StateCorrupt => {
                return sweep(state, error).map(|()| Vec::new());
            }
            Err(error) => return Err(error),
        };
        match state.dir().status(&record) {
            Status::Stopped | Status::Creating | Status::Created => {}
            Status::Running | Status::Paused if force => {}
            other @ (Status::Running | Status::Paused) => return Err(still_runs(id, other)),
        }
        self.remove(state, &record)
    }

    /// Deletes the container of `record`, which has ended, unless somebody did so already.
    ///
    /// # Errors
    /// Something of it cannot be removed.
    pub(super) fn delete_ended(&self, id: &ContainerId, record: &Record) -> Result<Vec<Warning>> {
        let Ok(state) = self.root.open(id).and_then(StateDir::lock) else { return Ok(Vec::new()) };
        match state.dir().load() {
            // The same id may be another container by now.
            Ok(now) if now.init == record.init => self.remove(state, record),
            _ => Ok(Vec::new()),
        }
    }

    fn remove(&self, state: Locked, record: &Record) -> Result<Vec<Warning>> {
        let id = state.dir().id().clone();
        undo::destroy(state, record)?;
        (self.trace)(format_args!("removed: {} and the state", record.cgroup));
        Ok(hooks::poststop(&id, record))
    }
}

fn still_runs(id: &ContainerId, status: Status) -> Error {
    let text = format!("cannot delete container {id} that is not stopped: {status}");
    Error::new(ErrorKind::ContainerRunning, text)
        .hint(format!("hull kill {id} KILL, or hull delete --force {id}"))
}

/// Ends a container whose record cannot be read, by what its create wrote down first. Without that nobody can tell
/// what is left, and it is not said to be gone.
fn sweep(state: Locked, corrupt: Error) -> Result<()> {
    let Some(intent) = state.dir().load_intent() else {
        let path = state.dir().path();
        return Err(corrupt.hint(format!(
            "stop its processes and remove its cgroup by hand, then remove {}",
            path.display()
        )));
    };
    undo::destroy(state, &intent)
}
