//! Namespaces: `unshare`, `setns`, `sethostname`. Called by `launch` and `apply`.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::{Result, check_unit};

/// `CLONE_NEWTIME`, Linux 5.6.
pub const CLONE_NEWTIME: u64 = 0x80;

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
