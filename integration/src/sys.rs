//! The few calls `std` and `nix` do not have. All `unsafe` of this package is here.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// A handle on one process; its number cannot be reused while this is held.
#[derive(Debug)]
pub struct Pidfd(OwnedFd);

impl Pidfd {
    /// `pidfd_open(2)`; ESRCH when the process is gone.
    pub fn open(pid: i32) -> io::Result<Self> {
        // SAFETY: two integers by value; the kernel touches no memory of ours.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(Self(adopt(fd as RawFd))) }
    }

    /// `pidfd_send_signal(2)`.
    pub fn signal(&self, signal: i32) -> io::Result<()> {
        let none = std::ptr::null::<libc::siginfo_t>();
        // SAFETY: a null siginfo is allowed and means "as kill(2) does"; the fd is open while `self` lives.
        let rc = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, self.0.as_raw_fd(), signal, none, 0) };
        if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

/// Takes ownership of a descriptor the kernel has just made for us (SCM_RIGHTS, `pidfd_open`).
pub fn adopt(fd: RawFd) -> OwnedFd {
    // SAFETY: every caller passes a descriptor it received in this call and gives to nobody else.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// `renameat2(2)` with RENAME_EXCHANGE: both names exist at every moment.
pub fn exchange(one: &Path, other: &Path) -> io::Result<()> {
    let (one, other) =
        (CString::new(one.as_os_str().as_bytes())?, CString::new(other.as_os_str().as_bytes())?);
    let (at, flag) = (libc::AT_FDCWD, libc::RENAME_EXCHANGE);
    // SAFETY: both strings are ours, end in NUL and live until the call returns; the kernel only reads them.
    let rc = unsafe { libc::syscall(libc::SYS_renameat2, at, one.as_ptr(), at, other.as_ptr(), flag) };
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The size of a terminal (`TIOCSWINSZ`).
pub fn set_size(terminal: BorrowedFd<'_>, rows: u16, columns: u16) -> io::Result<()> {
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the descriptor is borrowed, so open; the kernel reads one winsize, which is ours.
    let rc = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A raw system call with integer arguments: what a seccomp filter answers to it.
pub fn raw(number: i64, args: [u64; 6]) -> Result<i64, i32> {
    let [a, b, c, d, e, f] = args;
    // SAFETY: used by the probe only, in a process of its own, with the integers the test wrote down: null
    // pointers or plain numbers, which the kernel answers with an error number rather than a memory write.
    let rc = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    if rc == -1 { Err(io::Error::last_os_error().raw_os_error().unwrap_or(0)) } else { Ok(rc) }
}
