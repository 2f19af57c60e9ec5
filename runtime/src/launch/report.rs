//! From the numbers a child reports to a sentence with the config field, by the plan that parent and child
//! share. It looks at the host only to explain a failure, never before one. Called by `parent`, `join` and
//! `cli::start`.

#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "a stage, call or errno without words of its own gets the general sentence"
)]

use std::os::fd::BorrowedFd;

use hull_sys::Errno;

use super::channel::{Report, Stage};
use crate::apply::{Call, Failure};
use crate::error::{Error, ErrorKind, Field, Result};
use crate::plan::Plan;
use crate::plan::hooks::HookPlan;
use crate::plan::path::{HostPath, InRoot};
use crate::plan::process::ProcessPlan;
use crate::plan::rootfs::{Bind, FsOp, NewMount, Step};

pub use crate::error::words;

fn number_words(errno: i32) -> String {
    words(Errno::from_raw(errno))
}

/// The sentence for a failed launch, with what a hook has printed. `_child` keeps the child there to be looked at
/// while this explains.
pub fn sentence(found: Report, plan: &Plan, printed: &str, _child: BorrowedFd<'_>) -> Error {
    let step = usize::from(found.step);
    let why = number_words(found.failure.errno);
    let list = |steps: &[Step]| match steps.get(step) {
        Some(step) => fs_error(step, found.failure),
        None => unexplained(found),
    };
    match found.stage {
        Stage::Before => list(&plan.rootfs.before),
        Stage::After => list(&plan.rootfs.after),
        Stage::CreateContainer => hook("createContainer", &plan.hooks.create_container, found, printed),
        Stage::StartContainer => hook("startContainer", &plan.hooks.start_container, found, printed),
        Stage::Join => match plan.namespaces.join.get(step) {
            Some(join) => Error::new(ErrorKind::NamespaceJoin, format!("join {}: {why}", join.path))
                .field(join.field.clone()),
            None => unexplained(found),
        },
        Stage::TimeOffsets => Error::new(ErrorKind::TimeOffsets, format!("set the clock offsets: {why}"))
            .field(Field::named("linux.timeOffsets")),
        Stage::Root => root_error(plan, found.failure),
        Stage::ChangeRoot => {
            let path = &plan.rootfs.path;
            Error::new(ErrorKind::Rootfs, format!("change the root to {path} (pivot_root): {why}"))
                .hint("pivot_root does not work on an initramfs: use --no-pivot there")
                .field(Field::named("root.path"))
        }
        Stage::Names => {
            let name = if step == 0 { "hostname" } else { "domainname" };
            Error::new(ErrorKind::Hostname, format!("set {name}: {why}")).field(Field::named(name))
        }
        Stage::Sysctl => match plan.sysctl.get(step) {
            Some(sysctl) => {
                let path = sysctl.path.to_string_lossy();
                let value = &sysctl.value;
                Error::new(ErrorKind::Sysctl, format!("write {value:?} to /proc/{path}: {why}"))
                    .field(sysctl.field.clone())
            }
            None => unexplained(found),
        },
        _ => process_sentence(found, &plan.process),
    }
}

/// The sentence for the stages that are about the process alone: also those of an exec.
pub fn process_sentence(found: Report, process: &ProcessPlan) -> Error {
    let why = number_words(found.failure.errno);
    let field = |name: &'static str| Field::named(name);
    match found.stage {
        Stage::LookUp => look_up_error(process, found.failure),
        Stage::WorkingDirectory => {
            let cwd = &process.cwd;
            Error::new(
                ErrorKind::Cwd,
                format!("chdir to cwd ({:?}) set in config.json failed: {why}", cwd.as_str()),
            )
            .field(field("process.cwd"))
        }
        Stage::Groups => Error::new(ErrorKind::Groups, format!("set the supplementary groups: {why}"))
            .hint("every group must be mapped into the container's user namespace")
            .field(field("process.user.additionalGids")),
        Stage::User => Error::new(
            ErrorKind::User,
            format!("switch to uid {} and gid {}: {why}", process.uid, process.gid),
        )
        .hint("both must be mapped into the container's user namespace")
        .field(field("process.user")),
        Stage::Scheduling => {
            Error::new(ErrorKind::Scheduling, format!("set the scheduling policy or I/O priority: {why}"))
                .field(field("process.scheduler"))
        }
        Stage::Label if process.apparmor.is_some() => {
            Error::new(ErrorKind::Apparmor, format!("unable to apply apparmor profile: {why}"))
                .hint("is the profile loaded? see aa-status(8)")
                .field(field("process.apparmorProfile"))
        }
        Stage::Label => Error::new(ErrorKind::Selinux, format!("set the label: {why}"))
            .field(field("process.selinuxLabel")),
        Stage::Terminal => terminal_error(found.failure),
        _ => late_sentence(found, &program(process)).unwrap_or_else(|| unexplained(found)),
    }
}

/// The sentence for the steps around the start of the program, which need no plan: `start` has none.
pub fn late_sentence(found: Report, program: &str) -> Option<Error> {
    let why = number_words(found.failure.errno);
    let error = match found.stage {
        Stage::Descriptors if found.step == 2 => {
            let what = place("use the container's /dev/null for stdio", found.failure);
            Error::new(ErrorKind::Descriptors, what)
                .hint("/dev/null in the container must be the null device")
        }
        Stage::Descriptors => Error::new(ErrorKind::Descriptors, format!("pass on a file descriptor: {why}"))
            .hint("--preserve-fds counts from descriptor 3, and these descriptors must be open"),
        Stage::Rlimit => Error::new(ErrorKind::Rlimit, format!("set the resource limit: {why}"))
            .field(Field::item("process.rlimits", usize::from(found.step))),
        Stage::Capabilities => Error::new(ErrorKind::Capabilities, format!("unable to apply caps: {why}"))
            .field(Field::named("process.capabilities")),
        Stage::Seccomp => Error::new(ErrorKind::Seccomp, format!("load the seccomp filter: {why}"))
            .hint("the kernel may lack seccomp, or a filter that hull itself runs under may forbid it")
            .field(Field::named("linux.seccomp")),
        Stage::Execute => execute_error(program, found.failure.errno),
        _ => return None,
    };
    Some(error)
}

/// The sentence for a step that has none of its own: what was being done, and the field that has to do with it.
pub fn unexplained(found: Report) -> Error {
    let (what, field) = task(found);
    let error = Error::new(ErrorKind::SetUp, format!("{what}: {}", number_words(found.failure.errno)));
    let error = if field.is_empty() { error } else { error.field(Field::named(field)) };
    match found.stage {
        Stage::IdMap => {
            error.hint("ID 0 of the container must be mapped, and stay mapped until the container runs")
        }
        Stage::Session if found.step > 0 => error.hint("--no-new-keyring keeps the caller's keyring"),
        Stage::Channel => error.hint("the command that created the container may have been killed"),
        _ => error,
    }
}

/// What a step does in words, and its field of config.json. No name of the code's own is shown to anybody.
fn task(found: Report) -> (&'static str, &'static str) {
    match found.stage {
        Stage::Channel => ("communicate with the command that creates the container", ""),
        Stage::Cgroup => ("unable to apply cgroup configuration: enter the cgroup", "linux.cgroupsPath"),
        Stage::Join => ("join a namespace", "linux.namespaces"),
        Stage::TimeOffsets => ("set the clock offsets", "linux.timeOffsets"),
        Stage::Clone => ("create the container's init (clone3)", "linux.namespaces"),
        Stage::IdMap if found.step == 1 => ("switch to gid 0 in the user namespace", "linux.gidMappings"),
        Stage::IdMap => ("switch to uid 0 in the user namespace", "linux.uidMappings"),
        Stage::Session if found.step == 0 => ("start a session", ""),
        Stage::Session => ("create a session keyring", ""),
        Stage::CgroupNamespace => ("create a cgroup namespace", "linux.namespaces"),
        Stage::Loopback => ("bring the loopback device up", "linux.namespaces"),
        Stage::Root | Stage::ChangeRoot => ("set up the root file system", "root.path"),
        Stage::Before | Stage::After => ("set up the file systems", "mounts"),
        Stage::CreateContainer => ("run a createContainer hook", "hooks.createContainer"),
        Stage::StartContainer => ("run a startContainer hook", "hooks.startContainer"),
        Stage::Names => ("set the host name", "hostname"),
        Stage::Sysctl => ("set a kernel parameter", "linux.sysctl"),
        Stage::Terminal => ("set up the terminal", "process.terminal"),
        Stage::Scheduling => ("set the scheduling policy or I/O priority", "process.scheduler"),
        Stage::Label => ("set the label", "process"),
        Stage::WorkingDirectory => ("enter the working directory", "process.cwd"),
        Stage::Groups => ("set the supplementary groups", "process.user.additionalGids"),
        Stage::User => ("switch to the user", "process.user"),
        Stage::Capabilities => ("unable to apply caps", "process.capabilities"),
        Stage::LookUp | Stage::Execute => ("execute the program", "process.args"),
        Stage::Wait => ("wait for hull start", ""),
        Stage::Descriptors => ("pass on a file descriptor", ""),
        Stage::Rlimit => ("set a resource limit", "process.rlimits"),
        Stage::Seccomp => ("load the seccomp filter", "linux.seccomp"),
        Stage::Personality => ("set the execution domain", "linux.personality"),
    }
}

fn root_error(plan: &Plan, failure: Failure) -> Error {
    let path = &plan.rootfs.path;
    let why = number_words(failure.errno);
    match failure.call {
        Call::OpenSource | Call::OpenTarget => {
            Error::new(ErrorKind::Rootfs, format!("invalid rootfs: open {path}: {why}"))
                .hint("root.path is relative to the bundle")
                .field(Field::named("root.path"))
        }
        _ => Error::new(ErrorKind::Rootfs, format!("mount {path} as the container's root: {why}"))
            .field(Field::named("root.path")),
    }
}

fn fs_error(step: &Step, failure: Failure) -> Error {
    let error = match &step.op {
        FsOp::Mount(new) => mount_error(new, failure, &step.field),
        FsOp::Bind(bind) => bind_error(bind, failure, &step.field),
        FsOp::Node(node) => {
            let error =
                Error::new(ErrorKind::Device, place(&format!("create the device node {}", node.at), failure));
            match failure.call {
                Call::TargetDiffers => error.hint("remove the file from the image, or mount a tmpfs on /dev"),
                _ => error,
            }
        }
        FsOp::Symlink { at, .. } => {
            Error::new(ErrorKind::Link, place(&format!("create the symbolic link {at}"), failure))
        }
        FsOp::Directory { at } => {
            Error::new(ErrorKind::Directory, place(&format!("create the directory {at}"), failure))
        }
        FsOp::Attributes { at, .. } => {
            Error::new(ErrorKind::ReadOnly, place(&format!("make {at} read-only"), failure))
        }
        FsOp::Console => terminal_error(failure),
        FsOp::Mask(at) => Error::new(ErrorKind::Mask, place(&format!("mask {at}"), failure)),
        FsOp::ReadOnly(at) => {
            Error::new(ErrorKind::ReadOnly, place(&format!("make {at} read-only"), failure))
        }
    };
    if error.field.is_some() { error } else { error.field(step.field.clone()) }
}

fn place(what: &str, failure: Failure) -> String {
    let why = number_words(failure.errno);
    match failure.call {
        Call::TargetIsLink => format!("{what}: must be mounted on ordinary directory, and this is a symlink"),
        Call::TargetDiffers => format!("{what}: something else exists there"),
        Call::OpenSource => format!("{what}: open the source: {why}"),
        Call::OpenTarget => format!("{what}: open the destination in the container: {why}"),
        Call::MakeTarget => format!("{what}: create the destination in the container: {why}"),
        Call::InsideProc => format!("{what}: cannot be mounted because it is inside /proc, by a symlink"),
        Call::NotProc => format!("{what}: cannot be mounted because it is not of type proc"),
        _ => format!("{what}: {why}"),
    }
}

/// runc's words around a failed mount, which scripts match.
fn mounting(what: &str, at: &InRoot, why: &str) -> String {
    format!("error mounting {what:?} to rootfs at {:?}: {why}", at.as_str())
}

fn mount_error(new: &NewMount, failure: Failure, field: &Field) -> Error {
    let kind = new.kind.to_string_lossy();
    let why = number_words(failure.errno);
    let source = new.source.to_string_lossy();
    match failure.call {
        Call::OpenFs => Error::new(
            ErrorKind::MountType,
            mounting(&source, &new.at, &format!("file system type {kind:?}: {why}")),
        )
        .hint("the kernel does not know this file system; is a module missing?")
        .field(field.member("type")),
        Call::Option => {
            let option = new.options.get(usize::from(failure.detail)).map(|(key, value)| match value {
                Some(value) => format!("{}={}", key.to_string_lossy(), value.to_string_lossy()),
                None => key.to_string_lossy().into_owned(),
            });
            let option = option.unwrap_or_default();
            Error::new(ErrorKind::MountOption, mounting(&source, &new.at, &format!("{kind} option {option:?}: {why}")))
                .hint("IDs in uid= and gid= must be mapped into the container's user namespace; see also the file system's manual")
                .field(field.member("options"))
        }
        Call::Attach if failure.errno == libc::ENOTDIR => {
            kind_error(&source, &new.at, field).hint("the destination must be a directory")
        }
        _ => Error::new(
            ErrorKind::Mount,
            mounting(&source, &new.at, &place(&format!("mount {kind}"), failure)),
        )
        .field(field.clone()),
    }
}

/// The error of a bind mount whose source cannot be opened.
pub fn source_error(source: &HostPath, at: &InRoot, errno: Errno, field: &Field) -> Error {
    let source_text = source.to_string();
    let error = match errno {
        Errno::ENOENT => Error::new(
            ErrorKind::MountSourceMissing,
            mounting(&source_text, at, &format!("{source} does not exist: no such file or directory")),
        )
        .hint(format!("create {source}, or correct the source of this bind mount")),
        errno => Error::new(
            ErrorKind::MountSource,
            mounting(&source_text, at, &format!("open {source}: {}", words(errno))),
        ),
    };
    error.field(field.member("source"))
}

fn bind_error(bind: &Bind, failure: Failure, field: &Field) -> Error {
    let source = bind.source.path();
    let source_text = source.to_string();
    match failure.call {
        Call::OpenSource => source_error(source, &bind.at, Errno::from_raw(failure.errno), field),
        Call::Attach if failure.errno == libc::ENOTDIR => kind_error(&source_text, &bind.at, field)
            .hint("mount a file on a file, or a directory on a directory"),
        Call::Attributes if failure.errno == libc::EPERM => locked_error(source, &bind.at, field),
        _ => Error::new(ErrorKind::Mount, mounting(&source_text, &bind.at, &place("bind mount", failure)))
            .field(field.clone()),
    }
}

/// The words that engines match for a directory on a file, and the reverse.
fn kind_error(source: &str, at: &InRoot, field: &Field) -> Error {
    let why = "not a directory: one of source and destination is a file, the other a directory";
    Error::new(ErrorKind::MountKind, mounting(source, at, why)).field(field.member("destination"))
}

/// The error of a bind mount that would lift what is locked outside of the user namespace
/// (`mount_namespaces(7)`).
pub fn locked_error(source: &HostPath, at: &InRoot, field: &Field) -> Error {
    let why = "cannot clear locked flags: the source is mounted with them outside the user namespace";
    Error::new(ErrorKind::MountLocked, mounting(&source.to_string(), at, why))
        .hint("remove rw, suid, dev or exec from the options if the source is mounted ro, nosuid, nodev or noexec")
        .field(field.member("options"))
}

fn terminal_error(failure: Failure) -> Error {
    let why = number_words(failure.errno);
    Error::new(ErrorKind::Terminal, format!("set up the terminal: {why}"))
        .hint("a terminal needs a devpts mount on /dev/pts with the option newinstance")
        .field(Field::named("process.terminal"))
}

/// A failed hook, in the words that scripts match.
pub fn hook_error(kind: &str, index: usize, hook: &HookPlan, failure: Failure, printed: &str) -> Error {
    hook_words(kind, index, &hook.path.to_string(), failure, printed).field(hook.field.clone())
}

/// The same for a hook known by its number alone.
pub fn hook_words(kind: &str, index: usize, path: &str, failure: Failure, printed: &str) -> Error {
    let how = match failure.call {
        Call::Exited => format!("exit status {}", failure.errno),
        Call::Signalled => format!("signal: {}", signal_words(failure.errno)),
        Call::TimedOut => format!("took longer than its timeout of {} s and was killed", failure.errno),
        _ => format!("exec {path}: {}", number_words(failure.errno)),
    };
    let output = if printed.is_empty() { String::new() } else { format!(", output: {printed}") };
    Error::new(ErrorKind::Hook, format!("error running {kind} hook #{index}: {how}{output}"))
}

/// A signal in the words of Go's runtime, which log readers know.
fn signal_words(number: i32) -> String {
    let word = match number {
        libc::SIGHUP => "hangup",
        libc::SIGINT => "interrupt",
        libc::SIGQUIT => "quit",
        libc::SIGABRT => "aborted",
        libc::SIGKILL => "killed",
        libc::SIGSEGV => "segmentation fault",
        libc::SIGPIPE => "broken pipe",
        libc::SIGALRM => "alarm clock",
        libc::SIGTERM => "terminated",
        libc::SIGXFSZ => "file size limit exceeded",
        libc::SIGSYS => "bad system call",
        other => return other.to_string(),
    };
    word.to_owned()
}

fn hook(kind: &str, list: &[HookPlan], found: Report, printed: &str) -> Error {
    let index = usize::from(found.step);
    match list.get(index) {
        Some(hook) => hook_error(kind, index, hook, found.failure, printed),
        None => unexplained(found),
    }
}

fn program(process: &ProcessPlan) -> String {
    process.args.first().map(|arg| arg.to_string_lossy().into_owned()).unwrap_or_default()
}

/// A program that is not there or may not be run, in the words engines make exit codes of.
fn look_up_error(process: &ProcessPlan, failure: Failure) -> Error {
    let name = program(process);
    let why = number_words(failure.errno);
    let field = Field::item("process.args", 0);
    let searched = !name.contains('/');
    match (failure.call, Errno::from_raw(failure.errno)) {
        (Call::OpenSource, Errno::ENOENT) if searched => Error::new(
            ErrorKind::ProgramNotFound,
            format!("exec: {name:?}: executable file not found in $PATH"),
        )
        .hint("PATH is taken from process.env; is the program in the image?"),
        (Call::OpenSource, _) => {
            Error::new(ErrorKind::ProgramNotFound, format!("exec: {name:?}: stat {name}: {why}"))
                .hint("the path is looked up in the container's root")
        }
        // Both phrases: docker makes 126 of the second up to 20.10, of the first since.
        (_, Errno::EISDIR) => Error::new(
            ErrorKind::ProgramIsDirectory,
            format!("exec: {name:?}: is a directory: permission denied"),
        )
        .hint("args[0] must be an executable file"),
        (_, Errno::EACCES) => {
            Error::new(ErrorKind::ProgramNotExecutable, format!("exec: {name:?}: permission denied"))
                .hint("the file must be executable for the container's user, and not on a noexec mount")
        }
        _ => Error::new(ErrorKind::Program, format!("exec: {name:?}: {why}")),
    }
    .field(field)
}

/// A program that the kernel refuses to execute.
fn execute_error(name: &str, errno: i32) -> Error {
    let why = number_words(errno);
    let error =
        Error::new(ErrorKind::Exec, format!("exec {name}: {why}")).field(Field::item("process.args", 0));
    match errno {
        libc::ENOEXEC => error.hint("it is built for another architecture, or is a script without a #! line"),
        libc::ENOENT => {
            error.hint("the file exists but its interpreter does not: check its #! line or its ELF interpreter (PT_INTERP)")
        }
        _ => error,
    }
}

/// Refuses descriptors that are not open: those of `LISTEN_FDS`, which have no gaps, and the last of those that
/// `--preserve-fds` adds. A number between that is free stays so in the container.
///
/// # Errors
/// The first that is missing.
pub fn check_passed_fds(listen: u32, preserved: u32) -> Result<()> {
    let number = |n: u32| i32::try_from(3 + n).unwrap_or(i32::MAX);
    let last = (preserved > 0).then(|| listen.saturating_add(preserved) - 1);
    let closed = (0..listen).chain(last).map(number).find(|fd| !hull_sys::fs::is_inherited(*fd));
    match closed {
        None => Ok(()),
        Some(fd) => Err(Error::new(ErrorKind::Descriptors, format!("file descriptor {fd} is not open"))
            .hint("--preserve-fds N passes on descriptors 3 to N+2 (after those of LISTEN_FDS)")),
    }
}
