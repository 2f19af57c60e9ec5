//! The side of a launch that stays outside: opens what only the host side can, makes the child, serves it
//! until it is ready, and ends it when anything fails. It owns the child until [`Launched::release`]; it
//! may not touch the state directory or the cgroup's limits, which are the verb's. Called by `cli`.

#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "an errno or stage without words of its own gets the general sentence"
)]

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use hull_sys::mount::attr;
use hull_sys::open::{self, How};
use hull_sys::process::{self, Clone, Exit, Forked, Pid};
use hull_sys::signal::{self, Interest};
use hull_sys::{Errno, mount, namespace, pidfd, socket};
use oci_spec::runtime::LinuxNamespaceType;

use super::channel::{Channel, Message, Report, Stage};
use super::init::{self, Init};
use super::{hooks, idmap, report, stage};
use crate::cgroup::Cgroup;
use crate::error::{Error, ErrorKind, Field, Result, internal};
use crate::plan::Plan;
use crate::plan::hooks::HookPlan;
use crate::plan::namespaces::{self, IdMaps, Join};
use crate::plan::rootfs::{Bind, FsOp, Source};
use crate::spec::state::HookState;

/// What the verb hands over.
pub struct Launch<'a> {
    /// What is done.
    pub plan: &'a Plan,
    /// The container's cgroup, which exists.
    pub cgroup: &'a Cgroup,
    /// Where the pty master goes.
    pub console: Option<OwnedFd>,
    /// The listening start socket; without it the start comes over the channel.
    pub start: Option<OwnedFd>,
    /// What hooks are told; the number of init is filled in.
    pub state: HookState<'a>,
    /// Last capability of this kernel.
    pub last_cap: u8,
    /// Descriptors from 3 on that are passed to the program.
    pub passed_fds: u32,
    /// What the verb does with init's number beside init's own set-up, on the other CPU.
    pub meanwhile: &'a mut dyn FnMut(Pid) -> Result<()>,
}

/// A container's init that is set up and waits.
#[derive(Debug)]
pub struct Launched {
    /// Its number in our pid namespace.
    pub pid: Pid,
    /// Its handle.
    pub pidfd: OwnedFd,
    channel: Channel,
}

/// Makes init and serves it until it is ready. On failure nothing of it is left.
///
/// # Errors
/// The step that failed, as a sentence with its field.
pub fn launch(request: Launch<'_>) -> Result<Launched> {
    let plan = request.plan;
    let trees = open_trees(plan)?;
    map_trees(plan, &trees, None)?;
    let joined = open_namespaces(plan)?;
    let wants_output = !plan.hooks.prestart.is_empty()
        || !plan.hooks.create_runtime.is_empty()
        || !plan.hooks.create_container.is_empty()
        || !plan.hooks.start_container.is_empty();
    let new_output = || hooks::Output::new().map_err(|errno| internal("create a memfd", errno));
    let output = wants_output.then(new_output).transpose()?;
    let child_output = output.as_ref().map(hooks::Output::share).transpose();
    let (ours, theirs) = Channel::pair().map_err(|errno| internal("create a socket pair", errno))?;
    let child = Init {
        plan,
        channel: theirs,
        trees,
        cgroup: Some(request.cgroup),
        console: request.console,
        start: request.start,
        state: request.state.clone(),
        output: child_output.map_err(|errno| internal("duplicate a memfd", errno))?,
        last_cap: request.last_cap,
        passed_fds: request.passed_fds,
        shared_pids: plan.namespaces.shared_pids().and_then(|slot| joined.get(slot)).map(AsFd::as_fd),
    };
    if hull_sys::cred::euid() == 0 {
        // Before the clone, so that no process of the container ever finds us traceable.
        process::set_dumpable(false).map_err(|errno| internal("clear the dumpable flag", errno))?;
    }
    let (pid, handle, trees) = make(child, &joined, request.cgroup, &ours)?;
    let mut launched = Launched { pid, pidfd: handle, channel: ours };
    match launched.serve(plan, &request.state, &trees, output.as_ref(), request.meanwhile) {
        Ok(()) => Ok(launched),
        Err(Trouble::Told(error)) => {
            launched.end();
            Err(error)
        }
        Err(Trouble::Report(found)) => {
            let printed = output.as_ref().map(hooks::Output::text).unwrap_or_default();
            let error = report::sentence(found, plan, &printed, launched.pidfd.as_fd());
            launched.end();
            Err(error)
        }
        Err(Trouble::Silent) => Err(silent_end(launched.end(), request.cgroup)),
    }
}

/// Why serving a child ended.
enum Trouble {
    /// It reported a step.
    Report(Report),
    /// It is gone without a word.
    Silent,
    /// Something on our side failed.
    Told(Error),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Told(error)
    }
}

/// Clones the child, through a stage where the plan needs one. Answers its number, its handle, and the
/// trees, which both sides hold.
fn make(
    mut child: Init<'_>,
    joined: &[OwnedFd],
    cgroup: &Cgroup,
    ours: &Channel,
) -> Result<(Pid, OwnedFd, Vec<OwnedFd>)> {
    let spaces = &child.plan.namespaces;
    let staged = spaces.is_staged();
    let pair = if staged {
        Some(socket::pair().map_err(|errno| internal("create a socket pair", errno))?)
    } else {
        None
    };
    let wanted = Clone {
        namespaces: if staged { 0 } else { spaces.new },
        sibling: false,
        shared_files: staged,
        into_cgroup: cgroup.clone_into(),
    };
    let forked = process::clone(wanted).map_err(|errno| clone_failed(errno, spaces.new))?;
    match (forked, pair) {
        (Forked::Child, None) => init::run(child),
        (Forked::Child, Some((_, answer))) => {
            match stage::run(spaces, joined, cgroup, answer.as_fd()) {
                Ok(()) => {
                    child.cgroup = None;
                    init::run(child)
                }
                Err(found) => {
                    // The parent may be gone; then there is nobody to tell.
                    let _told = child.channel.send(Message::Report(found)).is_ok();
                    process::exit(1)
                }
            }
        }
        (Forked::Parent { pid, pidfd }, None) => Ok((pid, pidfd, child.trees)),
        (Forked::Parent { pidfd, .. }, Some((question, answer))) => {
            drop(answer);
            let init = hear(question.as_fd());
            process::wait(pidfd.as_fd(), true).map_err(|errno| internal("wait for the stage", errno))?;
            match init {
                Some((pid, handle)) => Ok((pid, handle, child.trees)),
                None => {
                    drop(child.channel);
                    let found = match ours.receive() {
                        Ok(Some(Message::Report(found))) => found,
                        _ => stage::silent(),
                    };
                    Err(report::sentence(found, child.plan, "", pidfd.as_fd()))
                }
            }
        }
    }
}

/// What the stage says; `None` when it ended without making init.
fn hear(question: BorrowedFd<'_>) -> Option<(Pid, OwnedFd)> {
    let mut text = [0; 8];
    let (length, _) = socket::receive(question, &mut text).ok()?;
    if length != text.len() {
        return None;
    }
    let (pid, number) = stage::heard(text);
    hull_sys::fs::adopt(number).ok().map(|handle| (pid, handle))
}

impl Launched {
    fn serve(
        &mut self,
        plan: &Plan,
        state: &HookState<'_>,
        trees: &[OwnedFd],
        output: Option<&hooks::Output>,
        meanwhile: &mut dyn FnMut(Pid) -> Result<()>,
    ) -> Result<(), Trouble> {
        if let Some(score) = plan.process.oom_score_adj {
            set_oom_score(self.pid, score)?;
        }
        if !plan.needs_maps() && plan.namespaces.shared_pids().is_none() {
            meanwhile(self.pid)?;
        }
        loop {
            match self.hear() {
                Ok(Some(Message::Made(pid))) => {
                    self.replace(pid)?;
                    self.answer(Message::Mapped)?;
                    meanwhile(self.pid)?;
                }
                Ok(Some(Message::NeedMaps)) => {
                    if let Some(ids) = &plan.namespaces.ids {
                        write_maps(self.pid, ids)?;
                    }
                    map_trees(plan, trees, Some(self.pid))?;
                    self.answer(Message::Mapped)?;
                    meanwhile(self.pid)?;
                }
                Ok(Some(Message::AtHooks)) => {
                    let told = HookState { pid: self.pid.unsigned_abs(), ..state.clone() };
                    if let Some(output) = output {
                        run_hooks("prestart", &plan.hooks.prestart, &told, output)?;
                        run_hooks("createRuntime", &plan.hooks.create_runtime, &told, output)?;
                    }
                    self.answer(Message::HooksDone)?;
                }
                Ok(Some(Message::Ready)) => return Ok(()),
                Ok(Some(Message::Report(found))) => return Err(Trouble::Report(found)),
                Ok(_) => return Err(Trouble::Silent),
                Err(errno) => {
                    return Err(internal("receive a message from the container's init", errno).into());
                }
            }
        }
    }

    /// What the child says; `None` when it has ended, whoever else has its end of the channel.
    fn hear(&self) -> hull_sys::Result<Option<Message>> {
        let watched = [self.pidfd.as_fd(), self.channel.as_fd()];
        let watched = watched.map(|fd| Interest { fd, events: libc::POLLIN });
        // In this order: one that has ended has spoken before.
        match signal::poll(watched, -1)? {
            [_, 0] => Ok(None),
            [_, _] => self.channel.receive(),
        }
    }

    /// The process that did the set-up ends, and the one it made is the container's init.
    fn replace(&mut self, pid: Pid) -> Result<()> {
        let failed = |errno| internal("watch the container's init", errno);
        // It is our child, and so keeps its number until we reap it.
        let init = pidfd::open(pid).map_err(failed)?;
        let former = std::mem::replace(&mut self.pidfd, init);
        self.pid = pid;
        process::wait(former.as_fd(), true).map_err(failed).map(drop)
    }

    fn answer(&self, message: Message) -> Result<(), Trouble> {
        // A child that is gone is found by the next receive, with what it said last.
        match self.channel.send(message) {
            Ok(()) | Err(Errno::EPIPE | Errno::ECONNRESET) => Ok(()),
            Err(errno) => Err(internal("send a message to the container's init", errno).into()),
        }
    }

    /// Lets init go on: [`Message::Saved`] leaves it waiting for `start`; [`Message::Start`] runs the
    /// program and answers once it runs.
    ///
    /// # Errors
    /// The step of the start that failed, as a sentence.
    pub fn release(&self, how: Message, plan: &Plan) -> Result<()> {
        self.channel.send(how).map_err(|errno| internal("send a message to the container's init", errno))?;
        if how == Message::Start {
            await_program(&self.channel, |found, printed| {
                report::sentence(found, plan, printed, self.pidfd.as_fd())
            })
        } else {
            Ok(())
        }
    }

    /// Kills init and waits for its end.
    pub fn end(&self) -> Option<Exit> {
        // One that is gone already cannot be killed, and that is all that can go wrong.
        let _killed = pidfd::signal(self.pidfd.as_fd(), libc::SIGKILL).is_ok();
        process::wait(self.pidfd.as_fd(), true).ok().flatten()
    }
}

/// Waits for the program to run: the end of the channel after `Executing`.
pub fn await_program(channel: &Channel, sentence: impl Fn(Report, &str) -> Error) -> Result<()> {
    let mut executing = false;
    loop {
        match channel.receive() {
            Ok(Some(Message::Executing)) => executing = true,
            Ok(Some(Message::Report(found))) => {
                let is_hook = found.stage == Stage::StartContainer;
                let printed = if is_hook { channel.receive_text() } else { String::new() };
                return Err(sentence(found, &printed));
            }
            Ok(None) if executing => return Ok(()),
            Ok(None) => {
                return Err(Error::new(
                    ErrorKind::InitGone,
                    "the container's init died before it ran the program",
                )
                .hint("it was killed from outside, or it ran out of memory"));
            }
            Ok(Some(_)) => {
                return Err(internal("parse the message from the container's init", Errno::EBADMSG));
            }
            Err(errno) => return Err(internal("receive a message from the container's init", errno)),
        }
    }
}

fn clone_failed(errno: Errno, namespaces: u64) -> Error {
    let error = Error::new(
        ErrorKind::CloneFailed,
        format!("create the container's init (clone3): {}", report::words(errno)),
    );
    match errno {
        Errno::EPERM => error
            .hint("creating namespaces needs CAP_SYS_ADMIN, or a user namespace")
            .field(Field::named("linux.namespaces")),
        Errno::EINVAL if namespaces != 0 => error
            .hint("the kernel may not support one of the namespace types")
            .field(Field::named("linux.namespaces")),
        Errno::ENOSPC => error
            .hint("a limit in /proc/sys/user/max_*_namespaces has been reached")
            .field(Field::named("linux.namespaces")),
        Errno::EAGAIN => {
            error.hint("the pids limit of the cgroup or another limit on processes has been reached")
        }
        _ => error,
    }
}

/// A child that ended without a word was killed, most often for want of memory.
fn silent_end(exit: Option<Exit>, cgroup: &Cgroup) -> Error {
    let how = match exit {
        Some(Exit::Signal(signal)) => format!("it was killed by signal {signal}"),
        Some(Exit::Code(code)) => format!("it exited with status {code}"),
        None => "it is gone".to_owned(),
    };
    if cgroup.oom_kill_count().unwrap_or(0) > 0 {
        return Error::new(ErrorKind::OutOfMemory, format!("the container's init ran out of memory: {how}"))
            .hint("the memory limit is too low to start a process, which takes about 256 KiB")
            .field(Field::named("linux.resources.memory.limit"));
    }
    Error::new(ErrorKind::InitGone, format!("the container's init exited during set-up: {how}"))
}

/// Opens the trees of the bind mounts that only the host side can open.
fn open_trees(plan: &Plan) -> Result<Vec<OwnedFd>> {
    let mut trees = Vec::with_capacity(plan.rootfs.opened);
    for step in &plan.rootfs.before {
        if let FsOp::Bind(bind) = &step.op
            && let Source::Opened(path, _) = &bind.source
        {
            let tree = mount::clone_tree(None, path.as_c_str(), bind.recursive, bind.source_nofollow)
                .and_then(|tree| {
                    // Before anything else can happen to it: else it is a peer of the host's mount.
                    let cut = mount::Change { propagation: plan.rootfs.cut, ..mount::Change::default() };
                    if !bind.stays_peer {
                        mount::set_attributes(tree.as_fd(), cut, true, None)?;
                    }
                    Ok(tree)
                });
            let tree = tree.map_err(|errno| report::source_error(path, &bind.at, errno, &step.field))?;
            if plan.namespaces.has(LinuxNamespaceType::User) && clears_locked(&tree, bind) {
                return Err(report::locked_error(path, &bind.at, &step.field));
            }
            trees.push(tree);
        }
    }
    Ok(trees)
}

/// Whether a bind mount lifts a restriction of its source's own mount. A mount that a user namespace inherits has
/// them locked; this one is opened outside, where the kernel would let us (`mount_namespaces(7)`).
fn clears_locked(tree: &OwnedFd, bind: &Bind) -> bool {
    const LOCKED: [(u64, u64); 4] = [
        (libc::ST_RDONLY, attr::RDONLY),
        (libc::ST_NOSUID, attr::NOSUID),
        (libc::ST_NODEV, attr::NODEV),
        (libc::ST_NOEXEC, attr::NOEXEC),
    ];
    let cleared = bind.change.clear | bind.recursive_change.clear;
    if LOCKED.iter().all(|(_, bit)| cleared & bit == 0) {
        return false;
    }
    // Without an answer nothing is lifted.
    let flags = hull_sys::fs::mount_flags(tree.as_fd()).unwrap_or(u64::MAX);
    LOCKED.iter().any(|(flag, bit)| flags & flag != 0 && cleared & bit != 0)
}

fn open_namespaces(plan: &Plan) -> Result<Vec<OwnedFd>> {
    plan.namespaces.join.iter().map(|join| open_namespace(join, plan)).collect()
}

fn open_namespace(join: &Join, plan: &Plan) -> Result<OwnedFd> {
    let failed = |errno: Errno| {
        let error =
            Error::new(ErrorKind::NamespacePath, format!("open {}: {}", join.path, report::words(errno)));
        let error = match errno {
            Errno::ENOENT | Errno::ESRCH => {
                error.hint("the process or file that keeps this namespace alive is gone")
            }
            Errno::EACCES | Errno::EPERM => error
                .hint("opening a file in /proc/PID/ns needs permission to trace that process (ptrace(2))"),
            _ => error,
        };
        error.field(join.field.clone())
    };
    let file = open::on_host(None, join.path.as_c_str(), How::READ).map_err(failed)?;
    // By the opened descriptor: a path may lead anywhere by now.
    match &join.not_ours {
        Some(refusal) if is_own(&file, join.kind).map_err(failed)? && !has_names(join, plan) => {
            Err(refusal.clone())
        }
        _ => Ok(file),
    }
}

/// Whether the host has the names already that the plan sets: CRI-O names its node's in pods of the node's network.
fn has_names(join: &Join, plan: &Plan) -> bool {
    let is = |name: &Option<String>, file: &str| {
        name.as_ref().is_none_or(|name| std::fs::read_to_string(file).is_ok_and(|text| text.trim() == name))
    };
    let has_sysctl = plan.sysctl.iter().any(|one| one.path.as_c_str() == c"sys/kernel/domainname");
    join.kind == namespaces::bit(LinuxNamespaceType::Uts)
        && !has_sysctl
        && is(&plan.hostname, "/proc/sys/kernel/hostname")
        && is(&plan.domainname, "/proc/sys/kernel/domainname")
}

/// Whether a namespace is the one this process is in.
fn is_own(file: &OwnedFd, kind: u64) -> hull_sys::Result<bool> {
    let Some(own) = namespaces::own_file(kind) else { return Ok(false) };
    let (one, other) = (hull_sys::fs::stat(file.as_fd())?, hull_sys::fs::stat_host(own)?);
    Ok((one.dev, one.ino) == (other.dev, other.ino))
}

/// Writes the score of a process; its own side may not, once it is untraceable.
pub fn set_oom_score(pid: Pid, score: i32) -> Result<()> {
    namespace::write_proc(pid, "oom_score_adj", &score.to_string()).map_err(|errno| {
        Error::new(ErrorKind::OomScore, format!("set oom_score_adj to {score}: {}", report::words(errno)))
            .field(Field::named("process.oomScoreAdj"))
    })
}

fn write_maps(pid: Pid, ids: &IdMaps) -> Result<()> {
    let refused = |name: &'static str, errno: Errno| {
        Error::new(ErrorKind::IdMap, format!("write the ID map of process {pid}: {}", report::words(errno)))
            .hint("an unprivileged user can map only their own ID and the IDs in /etc/subuid and /etc/subgid")
            .field(Field::named(name))
    };
    let privileged = hull_sys::cred::euid() == 0;
    if !privileged && !ids.own_ids_only {
        idmap::by_tool("newuidmap", pid, &ids.uid, "linux.uidMappings")?;
        return idmap::by_tool("newgidmap", pid, &ids.gid, "linux.gidMappings");
    }
    if !privileged {
        namespace::write_proc(pid, "setgroups", "deny")
            .map_err(|errno| refused("linux.gidMappings", errno))?;
    }
    namespace::write_proc(pid, "uid_map", &ids.uid).map_err(|errno| refused("linux.uidMappings", errno))?;
    namespace::write_proc(pid, "gid_map", &ids.gid).map_err(|errno| refused("linux.gidMappings", errno))
}

/// Maps the ids of idmapped trees: those that have maps of their own before the clone (`init` is none),
/// the others by the user namespace of the child, which only then has its maps.
fn map_trees(plan: &Plan, trees: &[OwnedFd], init: Option<Pid>) -> Result<()> {
    for step in &plan.rootfs.before {
        if let FsOp::Bind(bind) = &step.op
            && let (Some(idmap), Source::Opened(_, slot)) = (&bind.idmap, &bind.source)
            && let Some(tree) = trees.get(*slot)
        {
            let user = match (&idmap.maps, init) {
                (Some((uids, gids)), None) => namespace::user_with_maps(uids, gids),
                (None, Some(pid)) => namespace::user_of(pid),
                (Some(_), Some(_)) | (None, None) => continue,
            };
            user.and_then(|user| {
                let change = mount::Change::default();
                mount::set_attributes(tree.as_fd(), change, idmap.recursive, Some(user.as_fd()))
            })
            .map_err(|errno| {
                Error::new(
                    ErrorKind::MountIdmap,
                    format!("map ids of the mount on {}: {}", bind.at, report::words(errno)),
                )
                .hint("the file system of the source must support idmapped mounts")
                .field(step.field.clone())
            })?;
        }
    }
    Ok(())
}

/// Runs the hooks of one kind on our side, in the bundle.
///
/// # Errors
/// The first that fails: `error running <kind> hook #N: ...`.
pub fn run_hooks(kind: &str, list: &[HookPlan], state: &HookState<'_>, output: &hooks::Output) -> Result<()> {
    let told = state.to_json();
    let bundle = crate::plan::path::c_string(state.bundle)?;
    for (index, hook) in list.iter().enumerate() {
        hooks::run(hook, &told, output, hooks::Side::Runtime(&bundle))
            .map_err(|failure| report::hook_error(kind, index, hook, failure, &output.text()))?;
    }
    Ok(())
}
