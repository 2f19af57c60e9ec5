//! Namespaces: `unshare`, `setns`, `sethostname`. Called by `launch` and `apply`.

use std::os::fd::{AsRawFd, BorrowedFd};

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
