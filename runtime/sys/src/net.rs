//! The one thing a new network namespace needs: its loopback device up.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use crate::{Result, check, check_unit};

#[allow(clippy::cast_possible_truncation, reason = "the type of an ioctl number differs between libcs")]
/// Sets `lo` up in the network namespace of this process.
pub fn loopback_up() -> Result<()> {
    // SAFETY: takes numbers only.
    let fd = check(unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY: the kernel has just made this descriptor for us; nothing else owns it.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: ifreq is plain data; all-zero is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (slot, byte) in request.ifr_name.iter_mut().zip(b"lo") {
        *slot = libc::c_char::from_ne_bytes([*byte]);
    }
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(libc::IFF_UP | libc::IFF_RUNNING).unwrap_or(0);
    // SAFETY: the kernel reads one ifreq at the pointer.
    check_unit(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request) })
}
