//! Keeps this program's own file out of reach: what enters a container runs from a read-only mount of it, or
//! from a sealed copy, so that no `/proc/PID/exe` in there can be opened for writing (CVE-2019-5736). Called
//! first by the verbs that put a process into a container.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::exec::{Strings, exec_fd};
use crate::mount::{self, Change, attr};
use crate::open::{self, How};
use crate::{Errno, Result, check, check_unit, cred, fs};

/// `ST_RDONLY`: the mount or the file system is read-only.
const READ_ONLY: u64 = 1;

/// This program's file.
const OWN: &std::ffi::CStr = c"/proc/self/exe";

/// Nothing about the file can be changed, this included.
const SEALS: libc::c_int = libc::F_SEAL_SEAL | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_WRITE;

/// Executes this program once more from a detached read-only copy of the mount it lies on, unless it runs
/// from a read-only one already, or where mounts cannot be had from a sealed copy in memory. Returns only
/// when nothing is to be done.
///
/// # Errors
/// When neither can be had: nothing then enters a container.
pub fn run_from_sealed_file(args: Strings, env: Strings) -> Result<()> {
    let own = open::on_host(None, OWN, How::PLACE)?;
    if fs::mount_flags(own.as_fd())? & READ_ONLY != 0 || is_sealed()? {
        return Ok(());
    }
    let copy = match read_only_copy() {
        Err(Errno::EPERM | Errno::ENOSYS | Errno::EINVAL) if is_out_of_reach(own.as_fd())? => return Ok(()),
        // No right to mount, no such call, a mount that cannot be bound.
        Err(Errno::EPERM | Errno::ENOSYS | Errno::EINVAL) => sealed_copy()?,
        other => other?,
    };
    match exec_fd(copy.as_fd(), &args, &env) {
        Ok(never) => match never {},
        Err(errno) => Err(errno),
    }
}

fn read_only_copy() -> Result<OwnedFd> {
    let copy = mount::clone_tree(None, OWN, false, false)?;
    let change = Change { set: attr::RDONLY | attr::NOSUID, ..Change::default() };
    mount::set_attributes(copy.as_fd(), change, false, None)?;
    Ok(copy)
}

/// Whether this program already runs from [`sealed_copy`].
fn is_sealed() -> Result<bool> {
    let own = match open::on_host(None, OWN, How::READ) {
        // May be executed and not read: that is no copy of ours.
        Err(Errno::EACCES) => return Ok(false),
        other => other?,
    };
    // SAFETY: takes numbers only; what is no file in memory is refused.
    let seals = unsafe { libc::fcntl(own.as_raw_fd(), libc::F_GET_SEALS) };
    Ok(seals >= 0 && seals & SEALS == SEALS)
}

/// Whether the file is root's, and we, who are not, may not write to it. A container of ours has nobody in it
/// who could: its users are us and our subordinate ids.
fn is_out_of_reach(own: BorrowedFd<'_>) -> Result<bool> {
    let stat = fs::stat(own)?;
    Ok(cred::euid() != 0 && stat.uid == 0 && stat.mode & 0o022 == 0)
}

/// A copy in memory that nobody can change (`memfd_create(2)`).
fn sealed_copy() -> Result<OwnedFd> {
    /// `MFD_EXEC`, Linux 6.3; older ones refuse it and need it not.
    const EXEC: libc::c_uint = 0x10;
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    let make = |flags| {
        // SAFETY: the name is a static C string.
        let number = check(unsafe { libc::memfd_create(c"hull".as_ptr(), flags) })?;
        // SAFETY: the kernel has just made this descriptor for us; nothing else owns it.
        Ok(unsafe { OwnedFd::from_raw_fd(number) })
    };
    let copy = match make(flags | EXEC) {
        Err(Errno::EINVAL) => make(flags)?,
        other => other?,
    };
    let mut own = File::from(open::on_host(None, OWN, How::READ)?);
    let mut copy = File::from(copy);
    std::io::copy(&mut own, &mut copy)
        .map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))?;
    // SAFETY: takes numbers only.
    check_unit(unsafe { libc::fcntl(copy.as_raw_fd(), libc::F_ADD_SEALS, SEALS) })?;
    Ok(copy.into())
}
