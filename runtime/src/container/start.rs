//! The start of a container that was created before, by this process or another.

use std::os::fd::AsFd;

use hull_sys::Errno;

use super::{Runtime, bundle, hooks, internal, status};
use crate::error::{Error, ErrorKind, Field, Result, Warning};
use crate::launch::channel::{Channel, Message, Report, Stage};
use crate::launch::end::await_program;
use crate::launch::notify::Notify;
use crate::launch::report;
use crate::spec::ContainerId;
use crate::spec::state::Status;
use crate::state::{Record, StateDir};

impl Runtime {
    /// Starts the program of a created container. `told` gets what poststart hooks have to say, before readiness is
    /// waited for when the caller wants to know.
    ///
    /// # Errors
    /// The container is not created, or its program cannot be run.
    pub fn start(&self, id: &ContainerId, told: impl Fn(&[Warning])) -> Result<()> {
        let state = self.root.open(id)?.lock()?;
        let record = state.dir().load()?;
        check(id, status::of(state.dir(), &record))?;
        let socket = state.connect_for_start().map_err(|errno| {
            if errno == Errno::ECONNREFUSED {
                return Error::new(ErrorKind::ContainerStopped, "cannot start a container that has stopped");
            }
            internal("connect to the container's init", errno)
        })?;
        let channel = Channel::from_socket(socket);
        let notify = Notify::new(&state.dir().path())?;
        channel
            .send(Message::Start)
            .map_err(|errno| internal("send a message to the container's init", errno))?;
        await_program(&channel, None, |found, printed| sentence(found, printed, &record, state.dir()))
            .map_err(|error| bundle::point_into(&record, error))?;
        let pid = record.init.map_or(0, |init| init.pid);
        (self.trace)(format_args!("process {pid} runs {:?}", record.program));
        told(&hooks::poststart(id, &record));
        if let (Some(notify), Some(init)) = (notify, record.init) {
            // Others may stop or delete it while it gets ready.
            drop(state);
            let ended = init.open().map_err(|errno| internal("watch the container's init", errno))?;
            // The program runs: what the caller cannot be told is no failure of the start.
            if let Err(untold) = notify.forward(init.pid, ended.as_fd(), None) {
                told(&[untold]);
            }
        }
        Ok(())
    }
}

fn check(id: &ContainerId, status: Status) -> Result<()> {
    match status {
        Status::Created => Ok(()),
        Status::Paused => {
            Err(Error::new(ErrorKind::ContainerPaused, "cannot start a container that is paused")
                .hint(format!("hull resume {id}")))
        }
        Status::Running => {
            Err(Error::new(ErrorKind::ContainerRunning, "cannot start an already running container"))
        }
        Status::Stopped | Status::Creating => {
            Err(Error::new(ErrorKind::ContainerStopped, "cannot start a container that has stopped")
                .hint(format!("hull delete {id}, then create it again")))
        }
    }
}

/// The sentence for what init reports after its creator has gone. The plan went with it: the record says
/// what the program was.
fn sentence(found: Report, printed: &str, record: &Record, dir: &StateDir) -> Error {
    if found.stage == Stage::StartContainer {
        let index = usize::from(found.step);
        let path = record.start_container.get(index).map_or("", String::as_str);
        return report::hook_words("startContainer", index, path, found.failure, printed)
            .field(Field::item("hooks.startContainer", index));
    }
    report::late_sentence(found, &record.program).unwrap_or_else(|| {
        let error = report::unexplained(found);
        Error { message: format!("start container {}: {}", dir.id(), error.message), ..error }
    })
}
