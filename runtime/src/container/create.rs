//! The making of a container, in stages that follow one another: its id is reserved; it is created, and its program
//! waits; it runs; it has ended. What fails on the way takes back everything before it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::SystemTime;

use hull_sys::process::{Exit, Pid};

use super::announce::{Announce, console_socket};
use super::undo::Undo;
use super::{Planned, Runtime, hooks};
use crate::cgroup::{Cgroup, SavedCgroup};
use crate::error::{Result, Warning};
use crate::launch::channel::Message;
use crate::launch::foreground::{self, Terminal};
use crate::launch::notify::{self, Notify};
use crate::launch::parent::{self, Launch, Launched};
use crate::plan::cgroup::{CgroupDir, CgroupPlan, When};
use crate::spec::state::{HookState, Status};
use crate::spec::{ContainerId, Timestamp};
use crate::state::{Identity, Locked, Phase, Record};

/// Who starts the container's program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Starter {
    /// A later `start`.
    Later,
    /// This process.
    Us,
}

/// An id that is ours, and nothing else yet.
#[derive(Debug)]
pub struct Reserved<'a> {
    runtime: &'a Runtime,
    state: Locked,
}

/// A container that is set up; its program waits.
#[derive(Debug)]
pub struct Created<'a> {
    runtime: &'a Runtime,
    planned: &'a Planned,
    begun: Undo,
    init: Launched,
    /// Our end of the console, when the terminal is to be in front of ours.
    console: Option<OwnedFd>,
}

/// A container whose program runs.
pub struct Running<'a> {
    runtime: &'a Runtime,
    id: ContainerId,
    record: Record,
    init: Launched,
    signals: OwnedFd,
    terminal: Option<Terminal>,
    notify: Option<Notify>,
    /// What was done only in part, poststart hooks included.
    pub warnings: Vec<Warning>,
}

impl Runtime {
    /// Creates a container that waits for [`Runtime::start`], by this process or another. Answers what was done only
    /// in part.
    ///
    /// # Errors
    /// The step that failed; nothing of the container is left.
    pub fn create(
        &self,
        id: &ContainerId,
        planned: &Planned,
        console: Option<&str>,
        announce: &Announce<'_>,
    ) -> Result<Vec<Warning>> {
        let socket = console_socket(console, planned.has_terminal(), true)
            .map_err(|error| planned.source.point(error))?;
        let created = self.reserve(id)?.create(planned, socket, Starter::Later)?;
        created.announce(announce).map(|created| created.planned.warnings.clone())
    }

    /// Creates and starts a container; with `detach` its terminal goes to the console socket, else to ours.
    ///
    /// # Errors
    /// The step that failed; nothing of the container is left.
    pub fn run<'a>(
        &'a self,
        id: &ContainerId,
        planned: &'a Planned,
        console: Option<&str>,
        announce: &Announce<'_>,
        detach: bool,
    ) -> Result<Running<'a>> {
        let point = |error| planned.source.point(error);
        let terminal = planned.has_terminal();
        let socket = console_socket(console, terminal, detach).map_err(point)?;
        let (ours, theirs) = if terminal && !detach {
            foreground::console().map(|(ours, theirs)| (Some(ours), Some(theirs))).map_err(point)?
        } else {
            (None, socket)
        };
        let created = self.reserve(id)?.create(planned, theirs, Starter::Us)?;
        Created { console: ours, ..created }.announce(announce)?.start()
    }

    /// Takes an id.
    ///
    /// # Errors
    /// It is in use, or the state root cannot be written.
    fn reserve(&self, id: &ContainerId) -> Result<Reserved<'_>> {
        Ok(Reserved { runtime: self, state: self.root.reserve(id)? })
    }
}

impl<'a> Reserved<'a> {
    /// Sets the container up. Whatever fails undoes what was done before it.
    fn create(self, planned: &'a Planned, console: Option<OwnedFd>, starter: Starter) -> Result<Created<'a>> {
        let Self { runtime, state } = self;
        (runtime.trace)(format_args!(
            "nsexec: {} bind mounts opened here, {} file system steps in the child",
            planned.plan.rootfs.opened,
            planned.plan.rootfs.before.len() + planned.plan.rootfs.after.len()
        ));
        let mut begun = Undo { state, record: intent(planned), cgroup: None };
        match begun.make(planned, console, starter) {
            Ok(init) => {
                (runtime.trace)(format_args!("init is process {}, in {}", init.pid, begun.record.cgroup));
                Ok(Created { runtime, planned, begun, init, console: None })
            }
            Err(error) => Err(planned.source.point(begun.take_back(runtime, error))),
        }
    }
}

impl Undo {
    /// The intent, the cgroup, init, the limits, the record: in this order, so that whenever this process is killed
    /// `delete` knows what there may be.
    fn make(&mut self, planned: &Planned, console: Option<OwnedFd>, starter: Starter) -> Result<Launched> {
        self.state.save_intent(&self.record)?;
        let start = match starter {
            Starter::Later => Some(self.state.listen_for_start()?),
            Starter::Us => None,
        };
        if planned.request.notify_dir.is_some() {
            notify::prepare(&self.state.dir().path())?;
        }
        let cgroup = self.cgroup.insert(Cgroup::create(&planned.plan.cgroup)?);
        self.record.cgroup = cgroup.saved();
        cgroup.apply(&planned.plan.cgroup, When::BeforeStart)?;
        let mut created = None;
        let init = launch(planned, &self.state, console, start, cgroup, &self.record, &mut |pid| {
            let identified = Record { init: Identity::of(pid), phase: Phase::Created, ..self.record.clone() };
            prepare(planned, &self.state, created.insert(identified))
        })?;
        if let Some(created) = created {
            self.record = created;
        }
        match settle(planned, &self.state, cgroup, &init, starter) {
            Ok(()) => Ok(init),
            Err(error) => {
                init.end();
                Err(error)
            }
        }
    }
}

/// The limits that would have bitten the set-up, then the record takes effect: the container is real.
fn settle(
    planned: &Planned,
    state: &Locked,
    cgroup: &Cgroup,
    init: &Launched,
    starter: Starter,
) -> Result<()> {
    cgroup.apply(&planned.plan.cgroup, When::AfterSetup)?;
    state.commit()?;
    match starter {
        Starter::Later => init.release(Message::Saved, &planned.plan, None),
        Starter::Us => Ok(()),
    }
}

impl<'a> Created<'a> {
    /// Tells the caller which process the container's init is. A caller that cannot be told cannot use the container
    /// either: it is taken back.
    fn announce(self, announce: &Announce<'_>) -> Result<Self> {
        match announce.tell(self.init.pid, self.init.pidfd.as_fd()) {
            Ok(()) => Ok(self),
            Err(error) => {
                self.init.end();
                Err(self.begun.take_back(self.runtime, error))
            }
        }
    }

    /// Starts the program.
    fn start(self) -> Result<Running<'a>> {
        let Self { runtime, planned, begun, init, console } = self;
        match begin(planned, &begun.state, &init, console) {
            Ok((notify, signals, terminal)) => {
                let Undo { state, record, .. } = begun;
                let id = state.dir().id().clone();
                let mut warnings = planned.warnings.clone();
                warnings.extend(hooks::poststart(&id, &record));
                // Others may stop or delete it from now on.
                drop(state);
                Ok(Running { runtime, id, record, init, signals, terminal, notify, warnings })
            }
            Err(error) => {
                init.end();
                Err(planned.source.point(begun.take_back(runtime, error)))
            }
        }
    }
}

type Begun = (Option<Notify>, OwnedFd, Option<Terminal>);

fn begin(planned: &Planned, state: &Locked, init: &Launched, console: Option<OwnedFd>) -> Result<Begun> {
    let notify = Notify::new(&state.dir().path())?;
    let signals = foreground::watch()?;
    let terminal = console.map(|console| Terminal::receive(console.as_fd())).transpose()?;
    init.release(Message::Start, &planned.plan, Some(signals.as_fd()))?;
    Ok((notify, signals, terminal))
}

impl Running<'_> {
    /// Its init, as this process sees it.
    pub const fn pid(&self) -> Pid {
        self.init.pid
    }

    /// A pidfd of its init.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.init.pidfd.as_fd()
    }

    /// Waits until it says that it is ready, and passes that on, when the caller wants to know; signals are passed on
    /// meanwhile. Answers why the caller could not be told: the program runs all the same.
    pub fn pass_readiness_on(&self) -> Option<Warning> {
        let notify = self.notify.as_ref()?;
        notify.forward(self.init.pid, self.init.pidfd.as_fd(), Some(self.signals.as_fd())).err()
    }

    /// Waits for its end; meanwhile signals and the terminal's input are passed on. Unless it is to be kept it is
    /// deleted then. Answers what poststop hooks have to say, too.
    ///
    /// # Errors
    /// When it cannot be waited for, or something of it cannot be removed.
    pub fn wait(self, keep: bool) -> Result<(Exit, Vec<Warning>)> {
        let exit = foreground::wait(self.init.pidfd.as_fd(), self.signals.as_fd(), self.terminal)?;
        let warnings = if keep { Vec::new() } else { self.runtime.delete_ended(&self.id, &self.record)? };
        Ok((exit, warnings))
    }
}

impl std::fmt::Debug for Running<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running").field("id", &self.id).field("init", &self.init).finish_non_exhaustive()
    }
}

fn launch(
    planned: &Planned,
    state: &Locked,
    console: Option<OwnedFd>,
    start: Option<OwnedFd>,
    cgroup: &Cgroup,
    record: &Record,
    meanwhile: &mut dyn FnMut(i32) -> Result<()>,
) -> Result<Launched> {
    parent::launch(Launch {
        plan: &planned.plan,
        cgroup,
        console,
        start,
        state: HookState {
            oci_version: &record.oci_version,
            id: state.dir().id().as_str(),
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
/// the commit on.
fn prepare(planned: &Planned, state: &Locked, record: &Record) -> Result<()> {
    if let Some(process) = planned.spec.process() {
        state.save_process(&serde_json::to_vec(process).unwrap_or_default())?;
    }
    if let Some(filter) = planned.plan.seccomp.as_ref().map(|plan| &plan.filter) {
        state.save_seccomp(&hull_seccomp::to_bytes(&filter.program), filter.flags)?;
    }
    state.prepare(record)
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
