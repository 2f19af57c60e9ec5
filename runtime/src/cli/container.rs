//! The making of a container, shared by `create` and `run`: reserve the id, write the intent down, make the
//! cgroup, launch, limit, save. Whatever fails undoes what was done before it.

use std::os::fd::{AsFd, OwnedFd};
use std::time::SystemTime;

use hull_sys::socket;

use super::Global;
use super::bundle::Planned;
use super::flags::Parsed;
use crate::cgroup::{Cgroup, SavedCgroup};
use crate::error::{Error, ErrorKind, Field, Result};
use crate::launch::channel::Message;
use crate::launch::notify;
use crate::launch::parent::{self, Launch, Launched};
use crate::plan::cgroup::{CgroupDir, CgroupPlan, When};
use crate::spec::state::{HookState, Status};
use crate::spec::{ContainerId, Timestamp};
use crate::state::{Identity, Locked, Phase, Record};

/// Who starts the container's program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Starter {
    /// A later `start`.
    Later,
    /// This process.
    Us,
}

/// A container that is made and waits.
pub(super) struct Made {
    /// Its directory, locked.
    pub(super) state: Locked,
    /// Its record, saved.
    pub(super) record: Record,
    /// Its init.
    pub(super) init: Launched,
}

/// Makes a container from a plan.
///
/// # Errors
/// The step that failed; nothing of the container is left.
pub(super) fn make(
    global: &Global,
    planned: &Planned,
    id: &ContainerId,
    console: Option<OwnedFd>,
    starter: Starter,
    state: Locked,
) -> Result<Made> {
    let intent = intent(planned);
    global.log.debug(format_args!(
        "nsexec: {} bind mounts opened here, {} file system steps in the child",
        planned.plan.rootfs.opened,
        planned.plan.rootfs.before.len() + planned.plan.rootfs.after.len()
    ));
    match attempt(global, planned, id, console, starter, &state, intent.clone()) {
        Ok((record, init)) => {
            global.log.debug(format_args!("init is process {}, in {}", init.pid, record.cgroup));
            Ok(Made { state, record, init })
        }
        Err(error) => {
            // What was begun is deleted, hooks included (`runtime.md#lifecycle`).
            let warnings = super::delete::poststop(id.as_str(), &intent);
            let is_gone = Cgroup::open(&intent.cgroup).is_ok_and(|cgroup| cgroup.is_gone());
            // The first error is the one to tell; what is left behind, if anything, is found by its id.
            let _removed = is_gone && state.remove().is_ok();
            if global.log.is_debug() {
                global.log.warnings(&warnings);
            }
            Err(planned.source.point(error))
        }
    }
}

fn attempt(
    global: &Global,
    planned: &Planned,
    id: &ContainerId,
    console: Option<OwnedFd>,
    starter: Starter,
    state: &Locked,
    mut record: Record,
) -> Result<(Record, Launched)> {
    // Before the first side effect, so that delete knows what there may be.
    state.save_intent(&record)?;
    let start = match starter {
        Starter::Later => Some(state.listen_for_start()?),
        Starter::Us => None,
    };
    if planned.request.notify_dir.is_some() {
        notify::prepare(&state.dir().path())?;
    }
    let mut cgroup = Cgroup::create(&planned.plan.cgroup)?;
    record.cgroup = cgroup.saved();
    let mut created = None;
    let launched = limit_and_launch(planned, id, console, start, &cgroup, &record, &mut |pid| {
        let identified = Record { init: Identity::of(pid), phase: Phase::Created, ..record.clone() };
        prepare(planned, state, created.insert(identified))
    });
    let saved = launched.and_then(|init| {
        let done = save(planned, state, &cgroup, &init, starter);
        if done.is_err() {
            init.end();
        }
        done.map(|()| (created.unwrap_or(record), init))
    });
    match saved {
        Ok(made) => Ok(made),
        Err(error) => {
            // Nobody else is in it: it was empty when we took it. What cannot be removed keeps its record.
            let removed = cgroup.kill().and_then(|()| cgroup.delete());
            cgroup.undo();
            global.log.debug(format_args!("rolled back: init and cgroup"));
            removed.map_err(|left| {
                error.clone().hint(format!("{left}; hull delete --force {id} retries the clean-up"))
            })?;
            Err(error)
        }
    }
}

fn limit_and_launch(
    planned: &Planned,
    id: &ContainerId,
    console: Option<OwnedFd>,
    start: Option<OwnedFd>,
    cgroup: &Cgroup,
    record: &Record,
    meanwhile: &mut dyn FnMut(i32) -> Result<()>,
) -> Result<Launched> {
    cgroup.apply(&planned.plan.cgroup, When::BeforeStart)?;
    parent::launch(Launch {
        plan: &planned.plan,
        cgroup,
        console,
        start,
        state: HookState {
            oci_version: &record.oci_version,
            id: id.as_str(),
            status: Status::Created,
            pid: 0,
            bundle: &record.bundle,
            annotations: &record.annotations,
        },
        last_cap: planned.facts.last_cap,
        passed_fds: planned.request.listen_fds + planned.request.preserve_fds,
        meanwhile,
    })
}

/// All that can be written before init is ready: what `exec` will need, and the record, which counts from
/// [`save`] on.
fn prepare(planned: &Planned, state: &Locked, record: &Record) -> Result<()> {
    if let Some(process) = planned.spec.process() {
        state.save_process(&serde_json::to_vec(process).unwrap_or_default())?;
    }
    if let Some(filter) = planned.plan.seccomp.as_ref().map(|plan| &plan.filter) {
        state.save_seccomp(&hull_seccomp::to_bytes(&filter.program), filter.flags)?;
    }
    state.prepare(record)
}

/// The limits that would have bitten the set-up, then the record takes effect: the container is real.
fn save(planned: &Planned, state: &Locked, cgroup: &Cgroup, init: &Launched, starter: Starter) -> Result<()> {
    cgroup.apply(&planned.plan.cgroup, When::AfterSetup)?;
    state.commit()?;
    match starter {
        Starter::Later => init.release(Message::Saved, &planned.plan),
        Starter::Us => Ok(()),
    }
}

/// The directories that are not there yet. One that is may be another container's: were this create killed
/// before it has looked, delete must not touch it.
fn fresh_dirs(plan: &CgroupPlan) -> Vec<CgroupDir> {
    let is_there = |dir: &CgroupDir, path: &std::path::Path| dir.mount.join(path).exists();
    let fresh = plan.dirs.iter().filter(|dir| !is_there(dir, &dir.path));
    let with_parents = |dir: &CgroupDir| {
        let missing = dir.path.ancestors().skip(1).take_while(|parent| !is_there(dir, parent));
        CgroupDir { parents_made: if dir.required { 0 } else { missing.count() }, ..dir.clone() }
    };
    fresh.map(with_parents).collect()
}

/// The record of a container that is about to be made.
fn intent(planned: &Planned) -> Record {
    let spec = &planned.spec;
    let created = Timestamp::from(SystemTime::now());
    let hooks = spec.hooks().as_ref();
    let program = spec.process().as_ref().and_then(|process| process.args().as_ref()?.first().cloned());
    Record {
        version: Record::VERSION,
        phase: Phase::Creating,
        oci_version: spec.version().clone(),
        bundle: planned.request.bundle.clone(),
        config: std::path::absolute(planned.source.file())
            .map(|path| path.to_string_lossy().into_owned())
            .unwrap_or_default(),
        rootfs: planned.plan.rootfs.path.to_string(),
        created: (created.secs, created.nanos),
        annotations: spec
            .annotations()
            .iter()
            .flatten()
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect(),
        init: None,
        cgroup: SavedCgroup { driver: planned.plan.cgroup.driver, dirs: fresh_dirs(&planned.plan.cgroup) },
        namespaces: planned.plan.namespaces.all(),
        shares_pids: !planned.plan.namespaces.makes(oci_spec::runtime::LinuxNamespaceType::Pid),
        personality: planned.plan.personality,
        program: program.unwrap_or_default(),
        start_container: hooks
            .and_then(|hooks| hooks.start_container().as_ref())
            .into_iter()
            .flatten()
            .map(|hook| hook.path().to_string_lossy().into_owned())
            .collect(),
        poststart: hooks.and_then(|hooks| hooks.poststart().clone()).unwrap_or_default(),
        poststop: hooks.and_then(|hooks| hooks.poststop().clone()).unwrap_or_default(),
    }
}

/// Tells the caller which process a container's init is. A caller that cannot be told cannot use the
/// container either: it is taken back.
///
/// # Errors
/// When the pid file or the socket cannot be written.
pub(super) fn announce(parsed: &Parsed, made: Made) -> Result<Made> {
    let told = write_pid_file(parsed.value("pid-file"), made.init.pid)
        .and_then(|()| send_pidfd(parsed.value("pidfd-socket"), made.init.pidfd.as_fd()));
    match told {
        Ok(()) => Ok(made),
        Err(error) => {
            made.init.end();
            // The first error is the one to tell.
            let _removed = super::delete::destroy(made.state, &made.record).is_ok();
            Err(error)
        }
    }
}

/// Connects to the caller's console socket, whose use must fit the process (both wrong combinations are
/// refused in the words that scripts match).
///
/// # Errors
/// A missing or superfluous socket, or one that cannot be reached.
pub(super) fn console_socket(path: Option<&str>, terminal: bool, detached: bool) -> Result<Option<OwnedFd>> {
    let field = Field::named("process.terminal");
    match (path, terminal, detached) {
        (None, true, true) => Err(Error::new(
            ErrorKind::ConsoleSocket,
            "cannot allocate tty if runc will detach without setting console socket",
        )
        .hint("use --console-socket, or set process.terminal to false")
        .field(field)),
        (Some(_), _, false) => Err(Error::new(
            ErrorKind::ConsoleSocket,
            "cannot use console socket if runc will not detach or allocate tty",
        )
        .hint("remove --console-socket, or use create or --detach")),
        (Some(_), false, true) => Err(Error::new(
            ErrorKind::ConsoleSocket,
            "cannot use console socket if runc will not detach or allocate tty",
        )
        .hint("remove --console-socket, or set process.terminal to true")
        .field(field)),
        (Some(path), true, true) => {
            socket::connect(path.as_bytes(), socket::Kind::Stream).map(Some).map_err(|errno| {
                Error::new(
                    ErrorKind::ConsoleSocket,
                    format!("connect to {path}: {}", crate::launch::report::words(errno)),
                )
                .hint("the caller must listen on this socket before it calls hull")
            })
        }
        (None, _, _) => Ok(None),
    }
}

/// Sends the handle of a new process to the caller (`--pidfd-socket`).
///
/// # Errors
/// When the socket cannot be reached.
pub(super) fn send_pidfd(path: Option<&str>, process: std::os::fd::BorrowedFd<'_>) -> Result<()> {
    let Some(path) = path else { return Ok(()) };
    socket::connect(path.as_bytes(), socket::Kind::Stream)
        .and_then(|socket| socket::send(socket.as_fd(), b"pidfd", Some(process)))
        .map_err(|errno| {
            Error::new(
                ErrorKind::PidfdSocket,
                format!("send to {path}: {}", crate::launch::report::words(errno)),
            )
        })
}

/// Writes the number of a process: complete or not at all, without a newline, as callers parse it.
///
/// # Errors
/// When the file cannot be written.
pub(super) fn write_pid_file(path: Option<&str>, pid: i32) -> Result<()> {
    let Some(path) = path else { return Ok(()) };
    let failed = |error: std::io::Error| {
        let why = crate::error::io_words(&error);
        Error::new(ErrorKind::PidFile, format!("write the pid file {path}: {why}"))
    };
    let target = std::path::Path::new(path);
    let name = target.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let new = target.with_file_name(format!(".{name}"));
    let _former = std::fs::remove_file(&new).is_ok();
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).open(&new).map_err(failed)?;
    let written = std::io::Write::write_all(&mut file, pid.to_string().as_bytes());
    written.and_then(|()| std::fs::rename(&new, target)).map_err(|error| {
        let _removed = std::fs::remove_file(&new).is_ok();
        failed(error)
    })
}
