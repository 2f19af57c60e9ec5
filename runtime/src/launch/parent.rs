//! The side of a launch that stays outside: has opened what only the host side can, makes the child, serves it
//! until it is ready, and ends it when anything fails. It owns the child until [`Launched::release`]; it
//! may not touch the state directory or the cgroup's limits, which are the verb's. Called by `cli`.

#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "an errno or stage without words of its own gets the general sentence"
)]

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use hull_sys::process::{self, Clone, Exit, Forked, Pid};
use hull_sys::signal::{self, Interest};
use hull_sys::{Errno, namespace, pidfd, socket};

use super::channel::{Channel, Message, Report};
use super::end::{await_program, clone_failed, silent_end};
use super::init::{self, Init};
use super::open::{map_trees, open_namespaces, open_trees};
use super::{hooks, report, stage};
use crate::cgroup::Cgroup;
use crate::error::{Error, ErrorKind, Field, Result, internal};
use crate::plan::Plan;
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

/// A process that a child says it has made for us. The number is not believed: who shares the container's PID
/// namespace and may trace could have said it. A child of ours keeps its number until we reap it.
pub(super) fn child_of_ours(pid: Pid) -> hull_sys::Result<OwnedFd> {
    let process = pidfd::open(pid)?;
    if process::is_child(process.as_fd()) { Ok(process) } else { Err(Errno::ECHILD) }
}

/// What the child may still ask for, each once: it may not be the child that asks.
struct Due {
    made: bool,
    maps: bool,
    hooks: bool,
}

impl Due {
    fn of(plan: &Plan) -> Self {
        Self {
            made: plan.namespaces.shared_pids().is_some(),
            maps: plan.needs_maps(),
            hooks: !plan.hooks.prestart.is_empty() || !plan.hooks.create_runtime.is_empty(),
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
        let mut due = Due::of(plan);
        loop {
            match self.hear() {
                Ok(Some(Message::Made(pid))) if std::mem::take(&mut due.made) => {
                    self.replace(pid)?;
                    self.answer(Message::Mapped)?;
                    meanwhile(self.pid)?;
                }
                Ok(Some(Message::NeedMaps)) if std::mem::take(&mut due.maps) => {
                    if let Some(ids) = &plan.namespaces.ids {
                        super::idmap::write_maps(self.pid, ids)?;
                    }
                    map_trees(plan, trees, Some(self.pid))?;
                    self.answer(Message::Mapped)?;
                    meanwhile(self.pid)?;
                }
                Ok(Some(Message::AtHooks)) if std::mem::take(&mut due.hooks) => {
                    let told = HookState { pid: self.pid.unsigned_abs(), ..state.clone() };
                    if let Some(output) = output {
                        hooks::run_all("prestart", &plan.hooks.prestart, &told, output)?;
                        hooks::run_all("createRuntime", &plan.hooks.create_runtime, &told, output)?;
                    }
                    self.answer(Message::HooksDone)?;
                }
                Ok(Some(Message::Ready)) => return Ok(()),
                Ok(Some(Message::Report(found))) => return Err(Trouble::Report(found)),
                Ok(None) => return Err(Trouble::Silent),
                Ok(Some(_)) => {
                    let what = "parse the message from the container's init";
                    return Err(internal(what, Errno::EBADMSG).into());
                }
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
        let init = child_of_ours(pid).map_err(failed)?;
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
    pub fn release(&self, how: Message, plan: &Plan, signals: Option<BorrowedFd<'_>>) -> Result<()> {
        self.channel.send(how).map_err(|errno| internal("send a message to the container's init", errno))?;
        if how == Message::Start {
            await_program(&self.channel, signals, |found, printed| {
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

/// Writes the score of a process; its own side may not, once it is untraceable.
pub fn set_oom_score(pid: Pid, score: i32) -> Result<()> {
    namespace::write_proc(pid, "oom_score_adj", &score.to_string()).map_err(|errno| {
        Error::new(ErrorKind::OomScore, format!("set oom_score_adj to {score}: {}", report::words(errno)))
            .field(Field::named("process.oomScoreAdj"))
    })
}
