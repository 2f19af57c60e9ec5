//! The launch of one more process in a container (`exec`): the same parent's and child's halves as a
//! container's own, without file systems and hooks. The clone is a stage, outside of the container's pid
//! namespace, that joins and makes the process: what a process of the container can see is never one whose
//! root or descriptors are the host's. With a user namespace of its own nobody in the container may look into
//! it; there the stage is for an ordinary user, who has rights in that namespace only. Called by `cli::exec`.

#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "an errno or stage without words of its own gets the general sentence"
)]

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use hull_sys::exec::Strings;
use hull_sys::namespace::{CLONE_NEWPID, CLONE_NEWUSER};
use hull_sys::open::{self, How};
use hull_sys::process::{self as sys, Clone, Exit, Forked, Never, Pid};
use hull_sys::signal::Interest;
use hull_sys::{Errno, cred, fs, limits, namespace, pidfd, signal};

use super::channel::{Channel, In, Message, Report, Stage};
use super::init::{enter_cgroup, finish, identify, take_terminal};
use super::report;
use crate::apply::process;
use crate::apply::pty::Pty;
use crate::cgroup::Cgroup;
use crate::error::{Error, ErrorKind, Result, internal};
use crate::plan::caps::SYS_ADMIN;
use crate::plan::process::ProcessPlan;
use hull_seccomp::Filter;

/// What the verb hands over.
pub struct Join<'a> {
    /// The process.
    pub plan: &'a ProcessPlan,
    /// The filter of the container.
    pub seccomp: Option<&'a Filter>,
    /// Handle of the container's init, whose namespaces are joined.
    pub init: BorrowedFd<'a>,
    /// Its number.
    pub init_pid: Pid,
    /// Which of them, as `CLONE_NEW*` bits.
    pub namespaces: u64,
    /// The cgroup to enter.
    pub cgroup: &'a Cgroup,
    /// Wait with a paused container instead of failing.
    pub waits_when_paused: bool,
    /// Where the pty master goes.
    pub console: Option<OwnedFd>,
    /// Last capability of this kernel.
    pub last_cap: u8,
    /// Descriptors from 3 on that are passed to the program.
    pub passed_fds: u32,
    /// `personality(2)` of the container.
    pub personality: Option<u64>,
    /// CPUs of the process before and after it enters the cgroup.
    pub affinity: [Option<Vec<u64>>; 2],
    /// Tells the caller which process it is, before its program runs.
    pub announce: &'a dyn Fn(Pid, BorrowedFd<'_>) -> Result<()>,
    /// Whether the program may run as soon as the process is ready, without [`Joined::release`] being waited
    /// for: that saves two changes of process.
    pub goes_on: bool,
}

/// The process, which waits for [`Joined::release`].
#[derive(Debug)]
pub struct Joined {
    /// Its number in our pid namespace.
    pub pid: Pid,
    /// Its handle.
    pub pidfd: OwnedFd,
    channel: Channel,
    /// [`Message::Start`] has been sent.
    started: bool,
}

/// Steps of [`Stage::Join`]: the stage's namespaces, and those of the process itself.
const OF_STAGE: usize = 1;
const OF_PROCESS: usize = 0;

impl Join<'_> {
    /// Whether the clone is a stage. With a user namespace it is when we may not join the others from here.
    /// Without one, when the container has processes of its own to look at: untraceable or not, who has
    /// CAP_SYS_PTRACE there may look into the process.
    fn is_staged(&self) -> bool {
        // Without an answer the attempt tells.
        let may = || cred::caps().map_or(true, |caps| caps.effective >> SYS_ADMIN & 1 == 1);
        if self.has_user_namespace() { !may() } else { self.namespaces & CLONE_NEWPID != 0 }
    }

    fn has_user_namespace(&self) -> bool {
        self.namespaces & CLONE_NEWUSER != 0
    }

    /// What the stage joins, so that the process is born with it. The others are left to the process: an
    /// ordinary user's rights begin with the user namespace.
    fn of_stage(&self) -> u64 {
        if self.has_user_namespace() {
            self.namespaces & (CLONE_NEWUSER | CLONE_NEWPID)
        } else {
            self.namespaces
        }
    }
}

/// Makes the process and sets it up, up to its last steps.
///
/// # Errors
/// The step that failed.
pub fn join(request: Join<'_>) -> Result<Joined> {
    let (ours, theirs) = Channel::pair().map_err(|errno| internal("create a socket pair", errno))?;
    if hull_sys::cred::euid() == 0 {
        // What is in the container must not find us traceable (CVE-2016-9962).
        sys::set_dumpable(false).map_err(|errno| internal("clear the dumpable flag", errno))?;
    }
    let staged = request.is_staged();
    if request.namespaces & CLONE_NEWPID != 0 && !staged {
        // Of our pid namespaces only that of our children can change, and it is this one child's.
        namespace::enter(request.init, CLONE_NEWPID).map_err(|errno| no_entry(errno, "pid"))?;
    }
    let (child, attach) = match clone_into(request.cgroup) {
        Ok(forked) => (forked, false),
        // A cgroup with controllers for its children takes no process of its own: beside init, then.
        Err(Errno::EBUSY) => {
            let beside = request.cgroup.of_init(request.init_pid)?;
            (clone_into(&beside).map_err(|errno| internal("create a process", errno))?, false)
        }
        // Not ours to be born into, but perhaps to be moved into.
        Err(Errno::EACCES | Errno::EPERM) => {
            let plain = sys::clone(Clone::default()).map_err(|errno| internal("create a process", errno))?;
            (plain, true)
        }
        Err(errno) => return Err(internal("create a process", errno)),
    };
    match child {
        Forked::Child => run(&request, staged, &theirs),
        Forked::Parent { pid, pidfd } => {
            drop(theirs);
            let mut joined = Joined { pid, pidfd, channel: ours, started: false };
            match joined.serve(&request, attach, staged) {
                Ok(()) => Ok(joined),
                Err(error) => {
                    joined.end();
                    Err(error)
                }
            }
        }
    }
}

fn clone_into(cgroup: &Cgroup) -> hull_sys::Result<Forked> {
    sys::clone(Clone { into_cgroup: cgroup.clone_into(), ..Clone::default() })
}

fn gone() -> Error {
    Error::new(ErrorKind::ExecGone, "the process died before it ran the program")
        .hint("the container was killed in the meantime, or its cgroup has reached a limit")
}

fn no_entry(errno: Errno, what: &str) -> Error {
    let why = report::words(errno);
    Error::new(ErrorKind::NamespaceJoin, format!("join the container's {what} namespace: {why}"))
        .hint("its init may have just exited, or hull lacks CAP_SYS_ADMIN in its user namespace")
}

impl Joined {
    fn serve(&mut self, request: &Join<'_>, attach: bool, staged: bool) -> Result<()> {
        if attach {
            request.cgroup.attach(self.pid)?;
        }
        if let Some(score) = request.plan.oom_score_adj {
            super::parent::set_oom_score(self.pid, score)?;
        }
        // Now it may go on into the container's namespaces.
        let _gone = self.channel.send(Message::Mapped).is_ok();
        if !staged {
            self.announce(request)?;
        }
        let mut made_is_due = staged;
        loop {
            self.await_word(request)?;
            match self.channel.receive() {
                Ok(Some(Message::Made(pid))) if std::mem::take(&mut made_is_due) => {
                    self.replace_stage(pid, request)?;
                }
                Ok(Some(Message::Ready)) if !made_is_due => return Ok(()),
                Ok(Some(Message::Report(found))) => return Err(sentence(found, request)),
                Ok(_) => return Err(gone()),
                Err(errno) => return Err(internal("receive a message from the process", errno)),
            }
        }
    }

    /// The stage ends, and the process it made is the one to serve.
    fn replace_stage(&mut self, pid: Pid, request: &Join<'_>) -> Result<()> {
        let failed = |errno| internal("watch the process", errno);
        let process = super::parent::child_of_ours(pid).map_err(failed)?;
        let stage = std::mem::replace(&mut self.pidfd, process);
        self.pid = pid;
        sys::wait(stage.as_fd(), true).map_err(failed)?;
        // A process that is gone is found by receiving.
        let _gone = self.channel.send(Message::Mapped).is_ok();
        self.announce(request)
    }

    /// Tells the caller which process it is, and lets it go on where nothing else must come first.
    fn announce(&mut self, request: &Join<'_>) -> Result<()> {
        (request.announce)(self.pid, self.pidfd.as_fd())?;
        self.started = request.goes_on;
        if self.started {
            // As above.
            let _gone = self.channel.send(Message::Start).is_ok();
        }
        Ok(())
    }

    /// Waits for the process to say something. One in a frozen cgroup says nothing.
    fn await_word(&self, request: &Join<'_>) -> Result<()> {
        const MOMENT_MS: i32 = 200;
        loop {
            // In this order: a stage that has ended has spoken before.
            let watched = [self.pidfd.as_fd(), self.channel.as_fd()];
            let watched = watched.map(|fd| Interest { fd, events: libc::POLLIN });
            // Whatever else there is will be found by receiving.
            match signal::poll(watched, MOMENT_MS).unwrap_or([0, 1]) {
                [0, 0] if request.cgroup.is_frozen()? && !request.waits_when_paused => {
                    return Err(Error::new(
                        ErrorKind::ContainerPaused,
                        "cannot exec in a paused container: it was paused just now",
                    ));
                }
                [0, 0] => {}
                // A stage that was killed: what it made has the channel open.
                [_, 0] => return Err(gone()),
                [_, _] => return Ok(()),
            }
        }
    }

    /// Lets it run the program, and waits until it does.
    ///
    /// # Errors
    /// The step that failed.
    pub fn release(&self, plan: &ProcessPlan) -> Result<()> {
        if !self.started {
            self.channel
                .send(Message::Start)
                .map_err(|errno| internal("send a message to the process", errno))?;
        }
        super::end::await_program(&self.channel, None, |found, _printed| {
            report::process_sentence(found, plan)
        })
    }

    /// Kills it and waits for its end.
    pub fn end(&self) -> Option<Exit> {
        // One that is gone already cannot be killed, and that is all that can go wrong.
        let _killed = pidfd::signal(self.pidfd.as_fd(), libc::SIGKILL).is_ok();
        sys::wait(self.pidfd.as_fd(), true).ok().flatten()
    }
}

fn sentence(found: Report, request: &Join<'_>) -> Error {
    match found.stage {
        Stage::Join => {
            let errno = Errno::from_raw(found.failure.errno);
            if usize::from(found.step) == OF_STAGE {
                return no_entry(errno, "user")
                    .hint("an unprivileged user can exec only in containers they created, and only once these have been started");
            }
            no_entry(errno, "other")
        }
        Stage::Cgroup => {
            let why = report::words(Errno::from_raw(found.failure.errno));
            Error::new(
                ErrorKind::CgroupAttach,
                format!("error adding pid of the new process to cgroups: {why}"),
            )
        }
        _ => report::process_sentence(found, request.plan),
    }
}

/// The child's life. Does not return.
fn run(request: &Join<'_>, staged: bool, channel: &Channel) -> ! {
    match set_up(request, staged, channel) {
        Ok(never) => match never {},
        Err(found) => {
            // The parent may be gone; then there is nobody to tell.
            let _told = channel.send(Message::Report(found)).is_ok();
            sys::exit(255)
        }
    }
}

fn set_up(request: &Join<'_>, staged: bool, channel: &Channel) -> Result<Never, Report> {
    // First of all: nothing of the host is open in a process that the container can see (CVE-2016-9962).
    let needed = || request.console.iter().map(AsFd::as_fd).chain([channel.as_fd(), request.init]);
    let first = 3 + request.passed_fds;
    fs::close_all_but(first, needed().chain(request.cgroup.v1_fds())).during(Stage::Descriptors, 1)?;
    signal::reset();
    signal::ignore(libc::SIGPIPE);
    if let [Some(mask), _] = &request.affinity {
        limits::set_affinity(mask).during(Stage::Scheduling, 0)?;
    }
    enter_cgroup(request.cgroup)?;
    fs::close_all_but(first, needed()).during(Stage::Descriptors, 1)?;
    if let [None, None] = &request.affinity {
        limits::use_all_cpus().during(Stage::Scheduling, 0)?;
    }
    channel.expect(Message::Mapped).during(Stage::Channel, 0)?;
    let mut kinds = request.namespaces & !CLONE_NEWPID;
    if staged {
        pass_stage(request, channel)?;
        kinds &= !request.of_stage();
    }
    if kinds != 0 {
        namespace::enter(request.init, kinds).during(Stage::Join, OF_PROCESS)?;
    }
    if request.has_user_namespace() {
        cred::set_gid(0).during(Stage::IdMap, 1)?;
        cred::set_uid(0).during(Stage::IdMap, 2)?;
        sys::set_dumpable(false).during(Stage::IdMap, 3)?;
    }
    sys::new_session().during(Stage::Session, 0)?;
    let root = open::on_host(None, c"/", How::DIRECTORY).during(Stage::Root, 0)?;
    let pty =
        request.plan.terminal.map(|_| Pty::open(root.as_fd())).transpose().during(Stage::Terminal, 0)?;
    take_terminal(request.plan, pty.as_ref(), request.console.as_ref().map(AsFd::as_fd))?;
    let (args, env): (Strings, Strings) =
        identify(request.plan, None, root.as_fd(), request.seccomp.is_some(), request.last_cap)?;
    if let Some(persona) = request.personality {
        sys::set_personality(persona).during(Stage::Personality, 0)?;
    }
    let program = process::look_up(&request.plan.candidates).during(Stage::LookUp, 0)?;
    if let [_, Some(mask)] = &request.affinity {
        limits::set_affinity(mask).during(Stage::Scheduling, 0)?;
    }
    drop((root, pty));
    fs::close_all_but(3 + request.passed_fds, [channel.as_fd()].into_iter()).during(Stage::Descriptors, 1)?;
    channel.ask(Message::Ready, Message::Start).during(Stage::Wait, 0)?;
    finish(request.plan, request.seccomp, channel, (program, &args, &env))
}

/// Joins what the process is to be born with, and closes what leads to the host. Answers in the process, which
/// is our parent's child; we end here.
fn pass_stage(request: &Join<'_>, channel: &Channel) -> Result<(), Report> {
    // What is in the container may have rights over us from the next step on (CVE-2016-9962).
    sys::set_dumpable(false).during(Stage::IdMap, 3)?;
    namespace::enter(request.init, request.of_stage()).during(Stage::Join, OF_STAGE)?;
    sys::wipe_environment();
    let console = request.console.as_ref().map(AsFd::as_fd);
    let init = request.has_user_namespace().then_some(request.init);
    let keep = [Some(channel.as_fd()), console, init];
    fs::close_all_but(3 + request.passed_fds, keep.into_iter().flatten()).during(Stage::Descriptors, 1)?;
    match sys::clone(Clone { sibling: true, ..Clone::default() }).during(Stage::Clone, 0)? {
        // The parent must know of us before we say anything.
        Forked::Child => channel.expect(Message::Mapped).during(Stage::Channel, 0),
        Forked::Parent { pid, .. } => {
            let said = channel.send(Message::Made(pid));
            sys::exit(i32::from(said.is_err()))
        }
    }
}
