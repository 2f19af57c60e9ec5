//! Making processes and waiting for them: `clone3`, `waitid`, `_exit`, the `prctl` settings of a process.
//! Owns no policy: which namespaces and which cgroup come from the caller. Called by `launch`.

use std::convert::Infallible;
use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use crate::{Result, check, check_unit};

/// A process number as this process sees it.
pub type Pid = libc::pid_t;

/// `CLONE_INTO_CGROUP`, Linux 5.7; not in every libc.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// What `clone3` makes.
#[derive(Clone, Copy, Default)]
pub struct Clone<'a> {
    /// `CLONE_NEW*` bits.
    pub namespaces: u64,
    /// The new process is a child of our parent, not of us.
    pub sibling: bool,
    /// The new process shares our descriptor table, and we sleep until it ends or execs.
    pub shared_files: bool,
    /// The cgroup (v2 directory) to be born in.
    pub into_cgroup: Option<BorrowedFd<'a>>,
}

/// The two sides of a clone.
#[derive(Debug)]
pub enum Forked {
    /// In the caller: the child's number and a handle that cannot be reused.
    Parent {
        /// Number of the child in our pid namespace (0 when it is a sibling outside of it).
        pid: Pid,
        /// Handle of the child.
        pidfd: OwnedFd,
    },
    /// In the new process.
    Child,
}

#[repr(C, align(8))]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// `clone3(2)` without shared memory, always with a pidfd.
pub fn clone(want: Clone<'_>) -> Result<Forked> {
    let mut pidfd: RawFd = -1;
    let flag = |on: bool, bits: libc::c_int| if on { u64::from(bits.cast_unsigned()) } else { 0 };
    let mut args = CloneArgs {
        flags: want.namespaces
            | flag(true, libc::CLONE_PIDFD)
            | flag(want.sibling, libc::CLONE_PARENT)
            | flag(want.shared_files, libc::CLONE_FILES | libc::CLONE_VFORK),
        pidfd: (&raw mut pidfd) as u64,
        // With CLONE_PARENT the kernel takes our own exit signal and refuses another.
        exit_signal: if want.sibling { 0 } else { u64::from(libc::SIGCHLD.cast_unsigned()) },
        ..CloneArgs::default()
    };
    if let Some(cgroup) = want.into_cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = u64::from(cgroup.as_raw_fd().cast_unsigned());
    }
    // SAFETY: `args` is a live clone_args of the size passed; the kernel writes only `pidfd`, which
    // outlives the call. Without CLONE_VM the child has a copy of this memory, stack included, and the
    // process is single-threaded, so no lock can be held by a thread that does not exist in the child.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<CloneArgs>()) };
    match check(pid)? {
        0 => Ok(Forked::Child),
        pid => {
            // SAFETY: the kernel has put a new descriptor here, which nothing else owns.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Forked::Parent { pid: Pid::try_from(pid).unwrap_or(0), pidfd })
        }
    }
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It exited with this code.
    Code(i32),
    /// It died by this signal.
    Signal(i32),
}

impl Exit {
    /// The code a shell would show: 128 + n for a signal.
    pub fn code(self) -> i32 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128 + signal,
        }
    }
}

/// Waits for the child behind `pidfd` and reaps it; `None` when `block` is false and it still runs.
pub fn wait(pidfd: BorrowedFd<'_>, block: bool) -> Result<Option<Exit>> {
    let flags = libc::WEXITED | libc::__WALL | if block { 0 } else { libc::WNOHANG };
    loop {
        // SAFETY: siginfo_t is plain data; all-zero is a valid value.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        let id = pidfd.as_raw_fd().cast_unsigned();
        // SAFETY: `info` is a live siginfo_t, the only thing the kernel writes.
        let answer = unsafe { libc::waitid(libc::P_PIDFD, id, &raw mut info, flags) };
        match check(answer) {
            Err(crate::Errno::EINTR) => {}
            Err(other) => return Err(other),
            Ok(_) => return Ok(exit_of(&info)),
        }
    }
}

/// Whether the process behind `pidfd` is a child of this one; it is not reaped.
pub fn is_child(pidfd: BorrowedFd<'_>) -> bool {
    // SAFETY: siginfo_t is plain data; all-zero is a valid value.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let flags = libc::WEXITED | libc::__WALL | libc::WNOHANG | libc::WNOWAIT;
    let id = pidfd.as_raw_fd().cast_unsigned();
    // SAFETY: `info` is a live siginfo_t, the only thing the kernel writes.
    let answer = unsafe { libc::waitid(libc::P_PIDFD, id, &raw mut info, flags) };
    check(answer).is_ok()
}

fn exit_of(info: &libc::siginfo_t) -> Option<Exit> {
    // SAFETY: waitid has filled the child fields of this siginfo_t, or left it all zero.
    if unsafe { info.si_pid() } == 0 {
        return None;
    }
    // SAFETY: as above.
    let status = unsafe { info.si_status() };
    Some(if info.si_code == libc::CLD_EXITED { Exit::Code(status) } else { Exit::Signal(status) })
}

/// Ends this process at once: no destructors, no buffers. For children of `clone`. Where a filter denies every
/// way to exit it dies by a trap, instead of trying for ever as libc does.
pub fn exit(code: i32) -> ! {
    for call in [libc::SYS_exit_group, libc::SYS_exit] {
        // SAFETY: takes a number; comes back only when a filter denies it.
        unsafe { libc::syscall(call, code) };
    }
    loop {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the instruction is invalid on purpose: the kernel ends the process, whatever it filters.
        unsafe {
            std::arch::asm!("ud2")
        };
        #[cfg(target_arch = "aarch64")]
        // SAFETY: as above.
        unsafe {
            std::arch::asm!("udf #0")
        };
    }
}

/// Number of this process in its own pid namespace.
pub fn own_pid() -> Pid {
    // SAFETY: takes nothing; asked of the kernel, since libc may have cached the parent's.
    let pid = unsafe { libc::syscall(libc::SYS_getpid) };
    Pid::try_from(pid).unwrap_or(0)
}

/// Number of our parent in our pid namespace; 0 when it is outside of it.
pub fn parent_pid() -> Pid {
    // SAFETY: takes nothing.
    let pid = unsafe { libc::syscall(libc::SYS_getppid) };
    Pid::try_from(pid).unwrap_or(0)
}

fn prctl(option: libc::c_int, argument: libc::c_ulong) -> Result<libc::c_int> {
    let none: libc::c_ulong = 0;
    // SAFETY: the options passed by this file take one number (or a string that outlives the call, see
    // `set_name`) and write nothing to our memory.
    check(unsafe { libc::prctl(option, argument, none, none, none) })
}

/// `PR_SET_DUMPABLE`: while off, processes of our user cannot trace us or look into /proc/PID.
pub fn set_dumpable(on: bool) -> Result<()> {
    prctl(libc::PR_SET_DUMPABLE, libc::c_ulong::from(on)).map(drop)
}

/// Overwrites the environment this process was given with zeros: what may look into `/proc/PID/environ` or at
/// our memory finds nothing of the caller's. To be called in a child of `clone` that reads no variable any more.
pub fn wipe_environment() {
    unsafe extern "C" {
        static environ: *const *mut libc::c_char;
    }
    // SAFETY: libc set this pointer before main and nobody in this single-threaded program changes it.
    let mut entry = unsafe { environ };
    if entry.is_null() {
        return;
    }
    loop {
        // SAFETY: the list is null-terminated, and `entry` has not passed its end.
        let text = unsafe { *entry };
        if text.is_null() {
            return;
        }
        // SAFETY: each entry is a C string; strlen stops at its end.
        let length = unsafe { libc::strlen(text) };
        // SAFETY: these bytes are the string's, on the writable stack the kernel made; nobody reads them again.
        unsafe { std::ptr::write_bytes(text, 0, length) };
        // SAFETY: the entry before this one was not the last.
        entry = unsafe { entry.add(1) };
    }
}

/// `PR_SET_CHILD_SUBREAPER`: orphans below us become our children.
pub fn become_subreaper() -> Result<()> {
    prctl(libc::PR_SET_CHILD_SUBREAPER, 1).map(drop)
}

/// Puts the processes of our process group, and those they will make, into a group of their own whose members alone
/// share a core's threads (`PR_SCHED_CORE_CREATE`).
pub fn new_core_scheduling_group() -> Result<()> {
    const CREATE: libc::c_ulong = 1;
    const PROCESS_GROUP: libc::c_ulong = 2;
    // SAFETY: this operation takes numbers only; the last argument, a pointer for others, is null.
    check_unit(unsafe { libc::prctl(libc::PR_SCHED_CORE, CREATE, 0, PROCESS_GROUP, 0) })
}

/// `PR_SET_PDEATHSIG`: the signal we get when our parent ends; 0 for none.
pub fn set_parent_death_signal(signal: u8) -> Result<()> {
    prctl(libc::PR_SET_PDEATHSIG, libc::c_ulong::from(signal)).map(drop)
}

/// `PR_SET_NO_NEW_PRIVS`.
pub fn set_no_new_privs() -> Result<()> {
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1).map(drop)
}

/// `setsid(2)`.
pub fn new_session() -> Result<()> {
    // SAFETY: takes and touches nothing.
    check_unit(unsafe { libc::setsid() })
}

/// `umask(2)`; answers the former one.
pub fn set_umask(mask: u32) -> u32 {
    // SAFETY: takes a number, cannot fail.
    unsafe { libc::umask(mask) }
}

/// `personality(2)`.
pub fn set_personality(persona: u64) -> Result<()> {
    // SAFETY: takes a number.
    check_unit(unsafe { libc::syscall(libc::SYS_personality, persona) })
}

/// Joins a new session keyring of this name (`KEYCTL_JOIN_SESSION_KEYRING`) and lets the possessor search
/// it, so that the container does not hold the caller's keys.
pub fn new_session_keyring(name: &CStr) -> Result<()> {
    const JOIN: libc::c_long = 1;
    // SAFETY: `name` is a C string that outlives the call; the kernel only reads it.
    check_unit(unsafe { libc::syscall(libc::SYS_keyctl, JOIN, name.as_ptr()) })
}

/// Replaces nothing and returns never: the type of `execve` that went well.
pub type Never = Infallible;

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_child_is_told_from_others_and_not_reaped() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let own = crate::pidfd::open(child.id().cast_signed()).unwrap();
        assert!(is_child(own.as_fd()));
        assert!(child.wait().unwrap().success());
        assert!(!is_child(own.as_fd()));
        assert!(!is_child(crate::pidfd::open(parent_pid()).unwrap().as_fd()));
    }
}
