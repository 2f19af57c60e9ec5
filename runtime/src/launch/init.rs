//! The body of a container's init: from the clone to the program, as a flat list of steps in the order they
//! must have. It owns the order and nothing else: what is done comes from the plan, how from `apply`. It
//! runs in the child, talks to the parent in numbers only, and never returns.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use hull_sys::exec::{Strings, exec};
use hull_sys::open::{self, How};
use hull_sys::process::{self as sys, Never};
use hull_sys::signal::{self, Interest};
use hull_sys::{Errno, cred, fs, limits, namespace, net, socket, tty};
use oci_spec::runtime::LinuxNamespaceType as Ns;

use super::channel::{Channel, In, Message, Report, Stage};
use super::hooks::{self, Side};
use super::procfs;
use crate::apply::fs::{Fs, OpenFs};
use crate::apply::process::{self, Proc};
use crate::apply::pty::Pty;
use crate::apply::{Call, Failure, home, root};
use crate::cgroup::Cgroup;
use crate::plan::Plan;
use crate::plan::hooks::HookPlan;
use crate::plan::process::ProcessPlan;
use crate::spec::state::HookState;

/// What the child finds ready: made by the parent before the clone.
pub struct Init<'a> {
    /// What is done.
    pub plan: &'a Plan,
    /// The way to the parent.
    pub channel: Channel,
    /// The trees of bind mounts that the host side opened.
    pub trees: Vec<OwnedFd>,
    /// The cgroup to enter; none when a stage has.
    pub cgroup: Option<&'a Cgroup>,
    /// Where the pty master goes.
    pub console: Option<OwnedFd>,
    /// Where the start comes from; without it, from the parent.
    pub start: Option<OwnedFd>,
    /// What hooks are told.
    pub state: HookState<'a>,
    /// What hooks print, for the parent's error.
    pub output: Option<hooks::Output>,
    /// Last capability of this kernel.
    pub last_cap: u8,
    /// Descriptors from 3 on that are passed to the program.
    pub passed_fds: u32,
    /// The pid namespace of others that the process joins last.
    pub shared_pids: Option<BorrowedFd<'a>>,
}

/// The child's life. Does not return.
pub fn run(init: Init<'_>) -> ! {
    let mut channel = None;
    match set_up(&init, &mut channel) {
        Ok(never) => match never {},
        Err(report) => {
            // The parent may be gone; then there is nobody to tell.
            let _told = tell(&init, channel.as_ref().unwrap_or(&init.channel), report).is_ok();
            sys::exit(1)
        }
    }
}

fn tell(init: &Init<'_>, channel: &Channel, report: Report) -> hull_sys::Result<()> {
    channel.send(Message::Report(report))?;
    match init.output.as_ref().filter(|_| report.stage == Stage::StartContainer) {
        Some(output) => channel.send_text(&output.text()),
        None => Ok(()),
    }
}

/// `from_start` takes the channel of the `start` that set us going, which then gets a report.
fn set_up(init: &Init<'_>, from_start: &mut Option<Channel>) -> Result<Never, Report> {
    let plan = init.plan;
    let spaces = &plan.namespaces;
    close_the_parents(init, init.cgroup)?;
    signal::reset();
    signal::ignore(libc::SIGPIPE);
    sys::set_umask(0);
    if let Some(cgroup) = init.cgroup {
        enter_cgroup(cgroup)?;
        close_the_parents(init, None)?;
    }
    // A caller that is pinned pins no container.
    limits::use_all_cpus().during(Stage::Scheduling, 0)?;
    if spaces.has(Ns::User) {
        become_root(init)?;
    }
    if !spaces.time_offsets.is_empty() {
        set_clocks(&spaces.time_offsets)?;
    }
    // Until it is ready: a creator that is killed takes us along, whatever we wait for. After the change of
    // ids, which takes it back.
    sys::set_parent_death_signal(DIES_WITH_PARENT).during(Stage::Channel, 0)?;
    sys::new_session().during(Stage::Session, 0)?;
    new_keyring(plan)?;
    // After the cgroup: what it is in now becomes the root of what it sees.
    if spaces.new_cgroup {
        namespace::unshare(libc::CLONE_NEWCGROUP.cast_unsigned().into()).during(Stage::CgroupNamespace, 0)?;
    }
    if spaces.makes(Ns::Network) {
        net::loopback_up().during(Stage::Loopback, 0)?;
    }
    // The host's, while it can be reached: for what is written by name after the root has changed.
    let proc = Proc::open().during(Stage::Root, 0)?;
    let root = root::prepare(&plan.rootfs).during(Stage::Root, 0)?;
    let procfs = init.shared_pids.map(|pids| move || procfs::of(pids));
    let mut fs = Fs::new(root, &init.trees, &proc, procfs.as_ref().map(|open| open as OpenFs<'_>));
    for (index, step) in plan.rootfs.before.iter().enumerate() {
        fs.apply(step).during(Stage::Before, index)?;
    }
    if !plan.hooks.prestart.is_empty() || !plan.hooks.create_runtime.is_empty() {
        init.channel.ask(Message::AtHooks, Message::HooksDone).during(Stage::Channel, 0)?;
    }
    run_hooks(init, &plan.hooks.create_container, Stage::CreateContainer)?;
    for (index, step) in plan.rootfs.after.iter().enumerate() {
        fs.apply(step).during(Stage::After, index)?;
    }
    let (root, pty) = fs.finish();
    root::change(root.as_fd(), &plan.rootfs, &proc).during(Stage::ChangeRoot, 0)?;
    set_names(plan)?;
    for (index, sysctl) in plan.sysctl.iter().enumerate() {
        proc.write(&sysctl.path, sysctl.value.as_bytes()).during(Stage::Sysctl, index)?;
    }
    let proc = match init.shared_pids {
        None => Some(proc),
        Some(pids) => {
            // It is closed by number.
            std::mem::forget(proc);
            move_in(init, pids, &root, pty.as_ref())?;
            None
        }
    };
    take_terminal(&plan.process, pty.as_ref(), init.console.as_ref().map(AsFd::as_fd))?;
    let (args, env) =
        identify(&plan.process, proc.as_ref(), root.as_fd(), plan.seccomp.is_some(), init.last_cap)?;
    if let Some(persona) = plan.personality {
        sys::set_personality(persona).during(Stage::Personality, 0)?;
    }
    let program = process::look_up(&plan.process.candidates).during(Stage::LookUp, 0)?;
    // From here on the parent may come and go. Nothing of the host stays open in what others in this
    // container might look into.
    drop((proc, root, pty));
    close_what_is_not_needed(init)?;
    wait_for_start(init, from_start)?;
    run_hooks(init, &plan.hooks.start_container, Stage::StartContainer)?;
    let channel = from_start.as_ref().unwrap_or(&init.channel);
    finish(&plan.process, plan.seccomp.as_ref().map(|plan| &plan.filter), channel, (program, &args, &env))
}

/// Becomes a process in the pid namespace of others, once nothing of the host can be reached through this one.
/// Answers in that process, which is our parent's child; we end here.
fn move_in(init: &Init<'_>, pids: BorrowedFd<'_>, root: &OwnedFd, pty: Option<&Pty>) -> Result<(), Report> {
    namespace::enter(pids, libc::CLONE_NEWPID.cast_unsigned().into()).during(Stage::Join, 0)?;
    sys::wipe_environment();
    let keep = [
        Some(root.as_fd()),
        Some(init.channel.as_fd()),
        init.output.as_ref().map(AsFd::as_fd),
        init.start.as_ref().map(AsFd::as_fd),
        init.console.as_ref().map(AsFd::as_fd),
        pty.map(|pty| pty.master.as_fd()),
        pty.map(|pty| pty.slave.as_fd()),
    ];
    fs::close_all_but(3 + init.passed_fds, keep.into_iter().flatten()).during(Stage::Descriptors, 1)?;
    match sys::clone(sys::Clone { sibling: true, ..sys::Clone::default() }).during(Stage::Clone, 0)? {
        sys::Forked::Child => {
            // The parent must know of us before we say anything.
            init.channel.expect(Message::Mapped).during(Stage::Channel, 0)?;
            sys::set_parent_death_signal(DIES_WITH_PARENT).during(Stage::Channel, 0)?;
            sys::new_session().during(Stage::Session, 0)
        }
        sys::Forked::Parent { pid, .. } => {
            let said = init.channel.send(Message::Made(pid));
            sys::exit(i32::from(said.is_err()))
        }
    }
}

/// SIGKILL.
const DIES_WITH_PARENT: u8 = 9;

/// Closes what is the parent's alone: its end of the channel, whose end we could not see else, and the lock of
/// the state directory, which must go with it; and the cgroup's directories, once it has been entered.
fn close_the_parents(init: &Init<'_>, to_enter: Option<&Cgroup>) -> Result<(), Report> {
    let single = [
        Some(init.channel.as_fd()),
        init.output.as_ref().map(AsFd::as_fd),
        init.start.as_ref().map(AsFd::as_fd),
        init.console.as_ref().map(AsFd::as_fd),
        init.shared_pids,
    ];
    let lists = init.trees.iter().map(AsFd::as_fd).chain(to_enter.into_iter().flat_map(Cgroup::v1_fds));
    let keep = single.into_iter().flatten().chain(lists);
    fs::close_all_but(3 + init.passed_fds, keep).during(Stage::Descriptors, 1)
}

/// Closes every descriptor but those of the last steps: the host's directories, and the parent's lock.
fn close_what_is_not_needed(init: &Init<'_>) -> Result<(), Report> {
    let first = 3 + init.passed_fds;
    let output = init.output.as_ref().map(AsFd::as_fd);
    let start = init.start.as_ref().map(AsFd::as_fd);
    let keep = [Some(init.channel.as_fd()), output, start];
    fs::close_all_but(first, keep.into_iter().flatten()).during(Stage::Descriptors, 1)
}

/// Enters the hierarchies of v1.
pub(super) fn enter_cgroup(cgroup: &Cgroup) -> Result<(), Report> {
    let failed = |(index, errno)| Report::new(Stage::Cgroup, index, Failure::new(Call::Only, errno));
    cgroup.enter().map_err(failed)
}

/// Waits for the id maps of a new user namespace, then is uid and gid 0 in it.
fn become_root(init: &Init<'_>) -> Result<(), Report> {
    if init.plan.needs_maps() {
        init.channel.ask(Message::NeedMaps, Message::Mapped).during(Stage::IdMap, 0)?;
    }
    cred::set_gid(0).during(Stage::IdMap, 1)?;
    cred::set_uid(0).during(Stage::IdMap, 2)?;
    // Changing ids made us traceable again by our own user; entering the namespace too.
    sys::set_dumpable(false).during(Stage::IdMap, 3)
}

/// A time namespace of our own, made as root of the user namespace it is to belong to, with other clocks. The
/// offsets are set while nobody is in it; a process alone may then go in itself.
fn set_clocks(offsets: &str) -> Result<(), Report> {
    namespace::unshare(namespace::CLONE_NEWTIME).during(Stage::TimeOffsets, 0)?;
    let open = || open::on_host(None, c"/proc/self/timens_offsets", How::WRITE);
    let file = match open() {
        // Untraceable, our files are root's: for the moment of the opening they are ours again.
        Err(Errno::EACCES) => {
            sys::set_dumpable(true).during(Stage::TimeOffsets, 1)?;
            let file = open();
            sys::set_dumpable(false).during(Stage::TimeOffsets, 1)?;
            file
        }
        file => file,
    }
    .during(Stage::TimeOffsets, 1)?;
    fs::write_once(file.as_fd(), offsets.as_bytes()).during(Stage::TimeOffsets, 2)?;
    let made = open::on_host(None, c"/proc/self/ns/time_for_children", How::READ);
    let made = made.during(Stage::TimeOffsets, 3)?;
    namespace::enter(made.as_fd(), namespace::CLONE_NEWTIME).during(Stage::TimeOffsets, 4)
}

/// A keyring of our own, unless this kernel or a filter around us has none to give.
fn new_keyring(plan: &Plan) -> Result<(), Report> {
    match plan.keyring.as_deref().map(sys::new_session_keyring) {
        None | Some(Ok(()) | Err(Errno::ENOSYS | Errno::EDQUOT | Errno::EACCES | Errno::EPERM)) => Ok(()),
        Some(Err(errno)) => Err(errno).during(Stage::Session, 1),
    }
}

/// Hooks on this side are told our number as the container sees it (`runtime.md#state`).
fn run_hooks(init: &Init<'_>, list: &[HookPlan], stage: Stage) -> Result<(), Report> {
    let Some(output) = init.output.as_ref().filter(|_| !list.is_empty()) else { return Ok(()) };
    let state = HookState { pid: sys::own_pid().unsigned_abs(), ..init.state.clone() };
    let (told, bundle) = (state.to_json(), crate::plan::path::c_string(state.bundle));
    let (process, filter) = (&init.plan.process, init.plan.seccomp.as_ref().map(|plan| &plan.filter));
    let confine = || {
        process.rlimits.iter().try_for_each(|rlimit| limits::set(rlimit.resource, rlimit.limit))?;
        confine(process, filter).map_err(|report| Errno::from_raw(report.failure.errno))
    };
    let side = match bundle.as_deref() {
        Ok(bundle) if stage == Stage::CreateContainer => Side::Runtime(bundle),
        _ => Side::Container(&confine),
    };
    for (index, hook) in list.iter().enumerate() {
        hooks::run(hook, &told, output, side).during(stage, index)?;
    }
    Ok(())
}

fn set_names(plan: &Plan) -> Result<(), Report> {
    if let Some(name) = &plan.hostname {
        namespace::set_hostname(name.as_bytes()).during(Stage::Names, 0)?;
    }
    if let Some(name) = &plan.domainname {
        namespace::set_domainname(name.as_bytes()).during(Stage::Names, 1)?;
    }
    Ok(())
}

/// Makes the pty our terminal and sends its other end away. Also the second half of an exec's terminal.
pub(super) fn take_terminal(
    process: &ProcessPlan,
    pty: Option<&Pty>,
    console: Option<BorrowedFd<'_>>,
) -> Result<(), Report> {
    let (Some(pty), Some(terminal)) = (pty, process.terminal) else { return Ok(()) };
    if let Some(size) = terminal.size {
        tty::set_size(pty.slave.as_fd(), size).during(Stage::Terminal, 0)?;
    }
    if let Some(console) = console {
        socket::send(console, b"/dev/ptmx", Some(pty.master.as_fd())).during(Stage::Terminal, 1)?;
    }
    tty::take_control(pty.slave.as_fd()).during(Stage::Terminal, 2)?;
    for number in 0..3 {
        fs::replace_stdio(pty.slave.as_fd(), number).during(Stage::Terminal, 3)?;
    }
    Ok(())
}

/// Becomes the user of the plan, but for what the last steps need. Answers the program's arguments and
/// environment. Labels are set by the host's procfs, or where none must be open by the container's. Also the
/// middle of an exec.
pub(super) fn identify(
    process: &ProcessPlan,
    proc: Option<&Proc>,
    root: BorrowedFd<'_>,
    has_filter: bool,
    last_cap: u8,
) -> Result<(Strings, Strings), Report> {
    process::set_scheduling(process).during(Stage::Scheduling, 0)?;
    if process.has_labels() {
        let own = proc.is_none().then(|| Proc::of(root)).transpose().during(Stage::Label, 0)?;
        let proc = proc.or(own.as_ref());
        proc.map_or(Ok(()), |proc| process::set_labels(process, proc)).during(Stage::Label, 0)?;
    }
    // Once as root, who may enter what the user may not; once more as the user where root may not.
    let entered = process::enter(root, process.cwd.as_c_str());
    process::own_null(root).during(Stage::Descriptors, 2)?;
    process::own_stdio(process).during(Stage::User, 1)?;
    let mut env = process.env.clone();
    if process.find_home {
        let home = format!("HOME={}", home::find(root, process.uid));
        env.extend(std::ffi::CString::new(home));
    }
    process::drop_bounding(&process.caps, last_cap).during(Stage::Capabilities, 0)?;
    process::set_groups(process).during(Stage::Groups, 0)?;
    process::set_user(process).during(Stage::User, 0)?;
    process::set_caps_but_last(process, has_filter).during(Stage::Capabilities, 1)?;
    match entered {
        Err(Failure { errno: libc::EACCES | libc::EPERM, .. }) => {
            process::enter(root, process.cwd.as_c_str())
        }
        other => other,
    }
    .during(Stage::WorkingDirectory, 0)?;
    sys::set_umask(process.umask);
    if process.no_new_privs {
        sys::set_no_new_privs().during(Stage::Capabilities, 2)?;
    }
    Ok((Strings::new(process.args.clone()), Strings::new(env)))
}

/// Signals whose default is to end a process, and that come from outside.
const ENDING: [i32; 8] = [
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGABRT,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGALRM,
    libc::SIGTERM,
];

/// Says that all is ready and waits until somebody wants the program to run.
fn wait_for_start(init: &Init<'_>, from_start: &mut Option<Channel>) -> Result<(), Report> {
    // From the answer on the creator may end; before it we see its end on the channel.
    sys::set_parent_death_signal(0).during(Stage::Wait, 0)?;
    let Some(listener) = &init.start else {
        return init.channel.ask(Message::Ready, Message::Start).during(Stage::Wait, 0);
    };
    // Of a namespace's init the kernel keeps away what it has no handler for, and `kill` is to end it here too.
    let signals = signal::watch(&ENDING).during(Stage::Wait, 1)?;
    init.channel.ask(Message::Ready, Message::Saved).during(Stage::Wait, 0)?;
    let watched = [listener.as_fd(), signals.as_fd()].map(|fd| Interest { fd, events: libc::POLLIN });
    if let [0, _] = signal::poll(watched, -1).during(Stage::Wait, 1)? {
        let number = signal::next(signals.as_fd()).during(Stage::Wait, 1)?.unwrap_or(libc::SIGKILL);
        sys::exit(128 + number);
    }
    let caller = socket::accept(listener.as_fd()).during(Stage::Wait, 1)?;
    drop(signals);
    signal::reset();
    signal::ignore(libc::SIGPIPE);
    let channel = from_start.insert(Channel::from_socket(caller));
    channel.expect(Message::Start).during(Stage::Wait, 2)
}

/// The last steps, after which the program runs: nothing here needs memory or opens anything. Also the end
/// of an exec.
pub(super) fn finish(
    process: &ProcessPlan,
    seccomp: Option<&hull_seccomp::Filter>,
    channel: &Channel,
    (program, args, env): (&CStr, &Strings, &Strings),
) -> Result<Never, Report> {
    for (index, rlimit) in process.rlimits.iter().enumerate() {
        limits::set(rlimit.resource, rlimit.limit).during(Stage::Rlimit, index)?;
    }
    channel.send(Message::Executing).during(Stage::Channel, 0)?;
    signal::restore_default(libc::SIGPIPE);
    confine(process, seccomp)?;
    exec(program, args, env)
        .map_err(|errno| Report::new(Stage::Execute, 0, Failure::new(Call::Execute, errno)))
}

/// Takes the last capabilities and loads the filter. Who has CAP_SYS_ADMIN or has given up new privileges may load
/// one; what comes after it must be allowed by it, so that is kept to capset and execve (prctl(2), seccomp(2)).
fn confine(process: &ProcessPlan, seccomp: Option<&hull_seccomp::Filter>) -> Result<(), Report> {
    let load = || match seccomp {
        Some(filter) => cred::load_seccomp(&filter.program, filter.flags).during(Stage::Seccomp, 0),
        None => Ok(()),
    };
    let last_caps = || cred::set_caps(process.caps.sets).during(Stage::Capabilities, 3);
    if process.no_new_privs {
        last_caps()?;
        load()
    } else {
        load()?;
        last_caps()
    }
}
