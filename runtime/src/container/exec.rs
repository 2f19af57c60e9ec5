//! One more process in a container that is created or runs.

use std::cell::Cell;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use hull_seccomp::Filter;
use hull_sys::open::{self, How};
use hull_sys::process::{Exit, Pid};
use oci_spec::runtime::{Capabilities, Capability, Process};
use serde_json::json;

use super::announce::{Announce, console_socket};
use super::bundle::listen_fds;
use super::{Runtime, status};
use crate::cgroup::Cgroup;
use crate::error::{Error, ErrorKind, Field, Result, Warning, words};
use crate::host;
use crate::launch::foreground::{self, Terminal};
use crate::launch::join::{self, Join, Joined};
use crate::launch::report::check_passed_fds;
use crate::plan;
use crate::plan::process::ProcessPlan;
use crate::spec::state::Status;
use crate::spec::{self, ContainerId, Loaded, Source};
use crate::state::{Identity, Record, StateDir};

pub use crate::cgroup::SubCgroup;

/// What is to run, and how.
#[derive(Clone, Debug)]
pub struct Exec<'a> {
    /// The process.
    pub what: What<'a>,
    /// Nobody waits for it: its terminal goes to the console socket, else to ours.
    pub detach: bool,
    /// Where the terminal goes.
    pub console: Option<&'a str>,
    /// Who is told of it.
    pub announce: Announce<'a>,
    /// Descriptors that are passed on, after those of socket activation.
    pub preserve_fds: u32,
    /// The cgroups below the container's that it runs in; empty for the container's.
    pub cgroups: Vec<SubCgroup>,
    /// Also in a paused container, where it waits to be resumed.
    pub ignore_paused: bool,
}

/// Which process.
#[derive(Clone, Debug)]
pub enum What<'a> {
    /// The one in this file, as in config.json.
    File(&'a str),
    /// The container's own, with changes.
    Own(Box<Changes>),
}

/// Changes of the container's own process.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// Program and arguments.
    pub args: Vec<String>,
    /// Whether it has a terminal.
    pub terminal: bool,
    /// Another working directory.
    pub cwd: Option<String>,
    /// More variables.
    pub env: Vec<String>,
    /// Another user, and group.
    pub user: Option<(u32, Option<u32>)>,
    /// More groups.
    pub groups: Vec<u32>,
    /// More capabilities.
    pub caps: Vec<Capability>,
    /// Another SELinux label.
    pub label: Option<String>,
    /// Another AppArmor profile.
    pub apparmor: Option<String>,
    /// No new privileges.
    pub no_new_privs: bool,
}

/// A process that runs in a container.
pub struct Executed {
    joined: Joined,
    signals: OwnedFd,
    terminal: Option<Terminal>,
    /// What was done only in part.
    pub warnings: Vec<Warning>,
}

impl Executed {
    /// Its PID, as this process sees it.
    pub const fn pid(&self) -> Pid {
        self.joined.pid
    }

    /// Waits for its end; meanwhile signals and the terminal's input are passed on.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub fn wait(self) -> Result<Exit> {
        foreground::wait(self.joined.pidfd.as_fd(), self.signals.as_fd(), self.terminal)
    }
}

impl std::fmt::Debug for Executed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Executed").field("joined", &self.joined).finish_non_exhaustive()
    }
}

impl Runtime {
    /// Runs one more process in a container.
    ///
    /// # Errors
    /// The container is not there for it, or a step failed; no process is left.
    pub fn exec(&self, id: &ContainerId, exec: &Exec<'_>) -> Result<Executed> {
        let listen_fds = listen_fds();
        check_passed_fds(listen_fds, exec.preserve_fds)?;
        let (dir, record) = self.find(id)?;
        check_status(&dir, &record, exec.ignore_paused)?;
        let (process, source, mut warnings) = process(&dir, &exec.what)?;
        let point = |error: Error| source.as_ref().map_or(error.clone(), |source| source.point(error));
        let planned = self.plan_process(&process, &record, &mut warnings).map_err(point)?;
        let (mut plan, last_cap) = planned;
        pass_listen_fds(&mut plan, listen_fds);
        let (ours, theirs) = consoles(exec, plan.terminal.is_some())?;
        let target = Target::open(&dir, &record, &exec.cgroups)?;
        let signals = foreground::watch()?;
        // Before the program runs: callers kill by this number (buildkit polls for the file).
        let announced = Cell::new(false);
        let announce = |pid, process: BorrowedFd<'_>| {
            announced.set(true);
            exec.announce.tell(pid, process)
        };
        let unsaid = |error: Error| {
            if announced.get() {
                exec.announce.take_back();
            }
            point(error)
        };
        let joined = join::join(Join {
            plan: &plan,
            seccomp: target.seccomp.as_ref(),
            init: target.handle.as_fd(),
            init_pid: target.init.pid,
            namespaces: record.namespaces,
            cgroup: &target.cgroup,
            waits_when_paused: exec.ignore_paused,
            console: theirs,
            last_cap,
            passed_fds: listen_fds + exec.preserve_fds,
            affinity: affinity(&process)?,
            personality: record.personality,
            announce: &announce,
            goes_on: ours.is_none(),
        })
        .map_err(unsaid)?;
        (self.trace)(format_args!(
            "process {} is in the namespaces of process {}",
            joined.pid, target.init.pid
        ));
        let terminal = ours.map(|ours| Terminal::receive(ours.as_fd())).transpose();
        let started = terminal.and_then(|terminal| joined.release(&plan).map(|()| terminal));
        match started {
            Ok(terminal) => Ok(Executed { joined, signals, terminal, warnings }),
            Err(error) => {
                joined.end();
                Err(unsaid(error))
            }
        }
    }

    fn plan_process(
        &self,
        process: &Process,
        record: &Record,
        warnings: &mut Vec<Warning>,
    ) -> Result<(ProcessPlan, u8)> {
        let facts = host::probe_process(Some(process))?;
        let user_namespace = record.namespaces & hull_sys::namespace::CLONE_NEWUSER != 0;
        let keep_groups =
            record.annotations.get("run.oci.keep_original_groups").is_some_and(|value| value == "1");
        let plan = plan::process::plan(process, &facts, user_namespace, keep_groups, warnings)?;
        self.accept(warnings)?;
        Ok((plan, facts.last_cap))
    }
}

/// Where the process goes.
struct Target {
    init: Identity,
    handle: OwnedFd,
    cgroup: Cgroup,
    seccomp: Option<Filter>,
}

impl Target {
    fn open(dir: &StateDir, record: &Record, cgroups: &[SubCgroup]) -> Result<Self> {
        let gone = || Error::new(ErrorKind::ContainerNotRunning, "cannot exec a container that has stopped");
        let init = record.init.ok_or_else(gone)?;
        let handle = init.open().map_err(|_stopped| gone())?;
        let cgroup = Cgroup::open(&record.cgroup)?;
        let cgroup = if cgroups.is_empty() { cgroup } else { cgroup.sub(cgroups)? };
        Ok(Self { init, handle, cgroup, seccomp: filter(dir)? })
    }
}

/// The ends of the console: ours, in front of our terminal, and the one that the container's side sends to.
fn consoles(exec: &Exec<'_>, terminal: bool) -> Result<(Option<OwnedFd>, Option<OwnedFd>)> {
    match console_socket(exec.console, terminal, exec.detach)? {
        None if terminal => foreground::console().map(|(ours, theirs)| (Some(ours), Some(theirs))),
        socket => Ok((None, socket)),
    }
}

fn check_status(dir: &StateDir, record: &Record, ignore_paused: bool) -> Result<()> {
    match status::of(dir, record) {
        Status::Created | Status::Running => Ok(()),
        Status::Paused if ignore_paused => Ok(()),
        Status::Paused => Err(Error::new(ErrorKind::ContainerPaused, "cannot exec in a paused container")
            .hint(format!("hull resume {}", dir.id()))),
        Status::Stopped | Status::Creating => Err(Error::new(
            ErrorKind::ContainerNotRunning,
            "cannot exec in a stopped container: container not running",
        )),
    }
}

/// The process to run: from a file, or the container's own with changes.
fn process(dir: &StateDir, what: &What<'_>) -> Result<(Process, Option<Source>, Vec<Warning>)> {
    let (process, source, mut warnings) = match what {
        What::File(path) => {
            let failed = |why: &str| {
                Error::new(ErrorKind::ProcessMissing, format!("open {path}: {}", why.to_lowercase()))
            };
            let name = std::ffi::CString::new(*path).map_err(|_nul| failed("NUL byte"))?;
            let file = open::on_host(None, &name, How::READ_NOW).map_err(|errno| failed(&words(errno)))?;
            let Loaded { spec, warnings, source } = spec::load_process(file.into(), path)?;
            (spec, Some(source), warnings)
        }
        What::Own(changes) => (changed(dir, changes)?, None, Vec::new()),
    };
    let checked = spec::check_process(&process);
    warnings.extend(
        checked.map_err(|error| source.as_ref().map_or(error.clone(), |source| source.point(error)))?,
    );
    Ok((process, source, warnings))
}

fn changed(dir: &StateDir, changes: &Changes) -> Result<Process> {
    let corrupt = |error: serde_json::Error| {
        let text = format!("container {}: its saved process is unreadable: {error}", dir.id());
        Error::new(ErrorKind::StateCorrupt, text)
    };
    let mut process: Process = serde_json::from_slice(&dir.process()?).map_err(corrupt)?;
    process.set_args(Some(changes.args.clone())).set_terminal(Some(changes.terminal)).set_console_size(None);
    if let Some(cwd) = &changes.cwd {
        process.set_cwd(cwd.into());
    }
    let mut env = process.env().clone().unwrap_or_default();
    env.extend(changes.env.iter().cloned());
    if let Some((uid, gid)) = changes.user {
        let user = process.user_mut();
        user.set_uid(uid);
        if let Some(gid) = gid {
            user.set_gid(gid);
        }
        // HOME is that of the user it belongs to.
        env.retain(|one| !one.starts_with("HOME="));
    }
    process.set_env(Some(env));
    let mut groups = process.user().additional_gids().clone().unwrap_or_default();
    groups.extend(&changes.groups);
    process.user_mut().set_additional_gids(Some(groups));
    if let Some(label) = &changes.label {
        process.set_selinux_label(Some(label.clone()));
    }
    if let Some(profile) = &changes.apparmor {
        process.set_apparmor_profile(Some(profile.clone()));
    }
    if changes.no_new_privs {
        process.set_no_new_privileges(Some(true));
    }
    add_caps(&mut process, &changes.caps)?;
    Ok(process)
}

/// Adds capabilities to the sets a process has at once; never to the inheritable one (CVE-2022-29162), which
/// stays as the container has it, like the ambient one.
fn add_caps(process: &mut Process, added: &[Capability]) -> Result<()> {
    if added.is_empty() {
        return Ok(());
    }
    let mut caps = present_sets(process);
    for set in [&mut caps.0, &mut caps.1, &mut caps.2] {
        set.extend(added);
    }
    let (inheritable, ambient) = process.capabilities().as_ref().map_or_else(Default::default, |caps| {
        (caps.inheritable().clone().unwrap_or_default(), caps.ambient().clone().unwrap_or_default())
    });
    let value = json!({
        "bounding": caps.0, "effective": caps.1, "permitted": caps.2, "inheritable": inheritable, "ambient": ambient
    });
    let sets =
        serde_json::from_value(value).map_err(|error| Error::new(ErrorKind::Internal, error.to_string()))?;
    process.set_capabilities(Some(sets));
    Ok(())
}

/// Bounding, effective and permitted set.
type Sets = (Capabilities, Capabilities, Capabilities);

/// The sets that the process has so far.
fn present_sets(process: &Process) -> Sets {
    let Some(caps) = process.capabilities() else { return Sets::default() };
    let set = |set: &Option<Capabilities>| set.clone().unwrap_or_default();
    (set(caps.bounding()), set(caps.effective()), set(caps.permitted()))
}

fn pass_listen_fds(plan: &mut ProcessPlan, count: u32) {
    if count > 0 {
        plan.env.extend(std::ffi::CString::new(format!("LISTEN_FDS={count}")));
    }
}

/// The container's filter, as it was compiled for its init.
fn filter(dir: &StateDir) -> Result<Option<Filter>> {
    let Some((flags, program)) = dir.seccomp()? else { return Ok(None) };
    plan::seccomp::restore(&program, flags).map(Some)
}

/// The CPU masks of `execCPUAffinity`, before and after the cgroup.
fn affinity(process: &Process) -> Result<[Option<Vec<u64>>; 2]> {
    let Some(wanted) = process.exec_cpu_affinity() else { return Ok([None, None]) };
    let mask = |text: &Option<String>, name: &str| {
        text.as_deref()
            .map(|text| {
                cpu_mask(text).ok_or_else(|| {
                    Error::new(ErrorKind::CpuAffinity, format!("{text:?} is not a list of CPUs"))
                        .hint("a list looks like 0-3,7")
                        .field(Field::named("process.execCPUAffinity").member(name))
                })
            })
            .transpose()
    };
    Ok([mask(wanted.initial(), "initial")?, mask(wanted.cpu_affinity_final(), "final")?])
}

/// `0-3,7` as bits.
fn cpu_mask(text: &str) -> Option<Vec<u64>> {
    const MOST: usize = 8192;
    let mut mask = vec![0_u64; MOST / 64];
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if first > last || last >= MOST {
            return None;
        }
        for cpu in first..=last {
            *mask.get_mut(cpu / 64)? |= 1 << (cpu % 64);
        }
    }
    Some(mask)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_cpus_is_a_mask() {
        assert_eq!(cpu_mask("0-2,5").unwrap()[0], 0b10_0111);
        assert_eq!(cpu_mask("64").unwrap()[..2], [0, 1]);
        assert!(cpu_mask("3-1").is_none() && cpu_mask("x").is_none());
    }
}
