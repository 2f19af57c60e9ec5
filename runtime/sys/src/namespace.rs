//! Namespaces: `unshare`, `setns`, `sethostname`. Called by `launch` and `apply`.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::open::{self, How};
use crate::process::{self, Clone, Forked, Pid};
use crate::{Errno, Result, check_unit, fs, pidfd, signal};

/// `CLONE_NEWTIME`, Linux 5.6.
pub const CLONE_NEWTIME: u64 = 0x80;
/// `CLONE_NEWUSER`, as flags of namespaces are written here.
pub const CLONE_NEWUSER: u64 = libc::CLONE_NEWUSER as u64;
/// `CLONE_NEWPID`.
pub const CLONE_NEWPID: u64 = libc::CLONE_NEWPID as u64;

fn bits(kinds: u64) -> libc::c_int {
    libc::c_int::try_from(kinds).unwrap_or(0)
}

/// `unshare(2)` of the namespaces in `kinds` (`CLONE_NEW*` bits).
pub fn unshare(kinds: u64) -> Result<()> {
    // SAFETY: takes a number; the process is single-threaded.
    check_unit(unsafe { libc::unshare(bits(kinds)) })
}

/// `setns(2)`: `fd` is a namespace file, or a pidfd and `kinds` says which of its namespaces.
pub fn enter(fd: BorrowedFd<'_>, kinds: u64) -> Result<()> {
    // SAFETY: takes two numbers; `fd` is borrowed for the call.
    check_unit(unsafe { libc::setns(fd.as_raw_fd(), bits(kinds)) })
}

/// Writes a file of process `pid` in procfs.
pub fn write_proc(pid: Pid, file: &str, text: &str) -> Result<()> {
    let path = CString::new(format!("/proc/{pid}/{file}")).map_err(|_nul| Errno::EINVAL)?;
    let file = open::on_host(None, &path, How::WRITE)?;
    fs::write_once(file.as_fd(), text.as_bytes())
}

/// The user namespace of process `pid`.
pub fn user_of(pid: Pid) -> Result<OwnedFd> {
    let path = CString::new(format!("/proc/{pid}/ns/user")).map_err(|_nul| Errno::EINVAL)?;
    open::on_host(None, &path, How::READ)
}

/// A user namespace with these maps, as lines of `uid_map` and `gid_map`: for an idmapped mount. It needs a process to
/// begin with, which is gone again on return.
pub fn user_with_maps(uids: &str, gids: &str) -> Result<OwnedFd> {
    let (pid, handle) = match process::clone(Clone { namespaces: CLONE_NEWUSER, ..Clone::default() })? {
        Forked::Parent { pid, pidfd } => (pid, pidfd),
        Forked::Child => signal::wait_to_be_killed(),
    };
    let made = write_proc(pid, "uid_map", uids)
        .and_then(|()| write_proc(pid, "gid_map", gids))
        .and_then(|()| user_of(pid));
    pidfd::signal(handle.as_fd(), libc::SIGKILL)?;
    process::wait(handle.as_fd(), true)?;
    made
}

/// Has `command` run in these namespaces, each with its kind, while the caller never leaves its own: others may
/// look at those through `/proc` at any moment.
pub fn enter_before_exec(command: &mut Command, namespaces: Vec<(OwnedFd, u64)>) {
    let enter_all = move || {
        let mut all = namespaces.iter();
        all.try_for_each(|(fd, kind)| enter(fd.as_fd(), *kind)).map_err(std::io::Error::from)
    };
    // SAFETY: between fork and exec it calls setns(2) alone: no heap, no lock, nothing of another thread's.
    unsafe { command.pre_exec(enter_all) };
}

/// `sethostname(2)`.
pub fn set_hostname(name: &[u8]) -> Result<()> {
    // SAFETY: the kernel reads `len` bytes at the pointer, both of one live slice.
    check_unit(unsafe { libc::sethostname(name.as_ptr().cast(), name.len()) })
}

/// `setdomainname(2)`.
pub fn set_domainname(name: &[u8]) -> Result<()> {
    // SAFETY: the kernel reads `len` bytes at the pointer, both of one live slice.
    check_unit(unsafe { libc::setdomainname(name.as_ptr().cast(), name.len()) })
}

/// Whether a kernel parameter, as a dotted name, belongs to the IPC namespace.
pub fn is_ipc_sysctl(name: &str) -> bool {
    const IPC: [&str; 8] = [
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    ];
    IPC.contains(&name) || name.starts_with("fs.mqueue.")
}

/// Whether a kernel parameter, as a dotted name, belongs to the network namespace.
pub fn is_network_sysctl(name: &str) -> bool {
    name.starts_with("net.")
}
