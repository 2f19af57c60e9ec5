//! `hull start`: lets a created container run its program.

use hull_sys::Errno;

use super::flags::{Flag, Parsed, Verb};
use super::{Global, bundle};
use crate::error::{Error, ErrorKind, Field, Result, Warning};
use crate::launch::channel::{Channel, Message, Report, Stage};
use crate::launch::notify::Notify;
use crate::launch::parent::{await_program, internal, run_hooks};
use crate::launch::{hooks, report};
use crate::plan;
use crate::spec::state::{HookState, Status};
use crate::state::{Locked, Record, StateDir};

pub(super) const VERB: Verb = Verb {
    name: "start",
    arguments: "ID",
    count: (1, 1),
    about: "start the program of a created container",
    flags: &[] as &[Flag],
    trailing: false,
};

pub(super) fn run(global: &Global, parsed: &Parsed) -> Result<i32> {
    let id = super::id(parsed)?;
    let state = global.root.open(&id)?.lock()?;
    let record = state.dir().load()?;
    match super::state::status(state.dir(), &record) {
        Status::Created => {}
        Status::Paused => {
            return Err(Error::new(ErrorKind::ContainerPaused, "cannot start a container that is paused")
                .hint(format!("hull resume {id}")));
        }
        Status::Running => {
            return Err(Error::new(ErrorKind::ContainerRunning, "cannot start an already running container"));
        }
        Status::Stopped | Status::Creating => {
            return Err(Error::new(ErrorKind::ContainerStopped, "cannot start a container that has stopped")
                .hint(format!("hull delete {id}, then create it again")));
        }
    }
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
    await_program(&channel, |found, printed| sentence(found, printed, &record, state.dir()))
        .map_err(|error| bundle::point_into(&record, error))?;
    global.log.debug(format_args!(
        "process {} runs {:?}",
        record.init.map_or(0, |init| init.pid),
        record.program
    ));
    let warnings = poststart(&state, &record);
    global.log.warnings(&warnings);
    if let (Some(notify), Some(init)) = (notify, record.init) {
        // Others may stop or delete it while it gets ready.
        drop(state);
        let ended = init.open().map_err(|errno| internal("watch the container's init", errno))?;
        notify.forward(init.pid, ended)?;
    }
    Ok(0)
}

/// Runs the poststart hooks; one that fails is a warning, and the container goes on (`runtime.md`).
pub(super) fn poststart(state: &Locked, record: &Record) -> Vec<Warning> {
    run_late_hooks("poststart", &record.poststart, state.dir().id().as_str(), record, Status::Running)
}

/// Runs the hooks of a kind whose failures are warnings.
pub(super) fn run_late_hooks(
    kind: &str,
    list: &[oci_spec::runtime::Hook],
    id: &str,
    record: &Record,
    status: Status,
) -> Vec<Warning> {
    if list.is_empty() {
        return Vec::new();
    }
    let pid =
        if status == Status::Stopped { 0 } else { record.init.map_or(0, |init| init.pid.unsigned_abs()) };
    let told = HookState {
        oci_version: &record.oci_version,
        id,
        status,
        pid,
        bundle: &record.bundle,
        annotations: &record.annotations,
    };
    let run = || -> Result<Vec<Warning>> {
        let output = hooks::Output::new().map_err(|errno| internal("create a memfd", errno))?;
        let plans = plan::hooks::plan_list(kind, &Some(list.to_vec()))?;
        let run_one =
            |hook: &plan::hooks::HookPlan| run_hooks(kind, std::slice::from_ref(hook), &told, &output).err();
        Ok(plans.iter().filter_map(run_one).collect())
    };
    run().unwrap_or_else(|error| vec![error])
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
