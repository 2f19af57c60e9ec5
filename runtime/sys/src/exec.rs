//! `execve` and the look-up before it. The lists of pointers are built before the clone, so that the last
//! step of a container's life as hull is one system call.

use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::process::Never;
use crate::{Errno, Result, check_unit};

/// A null-terminated list of C strings, as `execve` takes it.
#[derive(Debug)]
pub struct Strings {
    /// Owns what `pointers` points to; never changed after `new`.
    _strings: Vec<CString>,
    pointers: Vec<*const libc::c_char>,
}

impl Strings {
    /// Lays out the list.
    pub fn new(strings: Vec<CString>) -> Self {
        let pointers = strings.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect();
        Self { _strings: strings, pointers }
    }
}

/// `execve(2)`: answers only on failure.
pub fn exec(path: &CStr, args: &Strings, env: &Strings) -> Result<Never> {
    // SAFETY: `path` is a C string; both lists end in null and point to C strings that `Strings` owns and
    // never changes, all of which outlive the call.
    unsafe { libc::execve(path.as_ptr(), args.pointers.as_ptr(), env.pointers.as_ptr()) };
    Err(Errno::last())
}

/// `execveat(2)` of the file `fd` is open on.
pub fn exec_fd(fd: BorrowedFd<'_>, args: &Strings, env: &Strings) -> Result<Never> {
    let (argv, envp) = (args.pointers.as_ptr(), env.pointers.as_ptr());
    // SAFETY: as for `exec`; the path is a static empty C string.
    unsafe {
        libc::syscall(libc::SYS_execveat, fd.as_raw_fd(), c"".as_ptr(), argv, envp, libc::AT_EMPTY_PATH)
    };
    Err(Errno::last())
}

/// Whether the effective user may execute the file at `path` (`faccessat2(2)`, `X_OK`).
pub fn may_execute(path: &CStr) -> Result<()> {
    const EFFECTIVE: libc::c_int = libc::AT_EACCESS;
    // SAFETY: `path` is a C string that outlives the call.
    check_unit(unsafe {
        libc::syscall(libc::SYS_faccessat2, libc::AT_FDCWD, path.as_ptr(), libc::X_OK, EFFECTIVE)
    })
}
