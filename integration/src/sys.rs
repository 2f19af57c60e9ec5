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

/// A system call that a program and its children are denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Denial {
    call: u32,
    /// What it answers; 0 kills the process.
    errno: u32,
    /// Only where this argument (its low half) is not 0.
    argument: Option<u32>,
}

impl Denial {
    /// `CALL:ERRNO` or `CALL:ERRNO:ARGUMENT`, all numbers.
    pub fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split(':').map(|word| word.parse::<u32>().ok());
        let (call, errno) = (numbers.next()??, numbers.next()??);
        let argument = match numbers.next() {
            Some(number) => Some(number?),
            None => None,
        };
        Some(Self { call, errno, argument })
    }

    fn program(self) -> Vec<libc::sock_filter> {
        let answer = if self.errno == 0 {
            libc::SECCOMP_RET_KILL_PROCESS
        } else {
            libc::SECCOMP_RET_ERRNO | self.errno
        };
        let mut code = vec![instruction(RETURN, answer)];
        if let Some(argument) = self.argument {
            // `struct seccomp_data`: the arguments follow 16 bytes of other things.
            let zero = libc::sock_filter { jt: 1, ..instruction(EQUAL, 0) };
            code.splice(0..0, [instruction(LOAD, 16 + 8 * argument), zero]);
        }
        let other = libc::sock_filter { jf: code.len() as u8, ..instruction(EQUAL, self.call) };
        code.splice(0..0, [instruction(LOAD, 0), other]);
        code
    }
}

// BPF: load a word of the data, compare it, return.
const LOAD: u16 = 0x20;
const EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;

const fn instruction(code: u16, k: u32) -> libc::sock_filter {
    libc::sock_filter { code, jt: 0, jf: 0, k }
}

/// Denies system calls to this process and to all that comes of it (seccomp(2)).
pub fn deny(rules: &[Denial]) -> io::Result<()> {
    let mut program: Vec<libc::sock_filter> = rules.iter().flat_map(|rule| rule.program()).collect();
    program.push(instruction(RETURN, libc::SECCOMP_RET_ALLOW));
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: the kernel reads the filter, which is ours and lives until the call returns.
    let rc = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter) };
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Takes a capability out of the bounding set of this process.
pub fn drop_capability(number: u32) -> io::Result<()> {
    // SAFETY: integers by value; the kernel touches no memory of ours.
    let rc = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(number), 0, 0, 0) };
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Traces a process without stopping it (`PTRACE_SEIZE`), but for its end: killed, it stands still before it is gone.
pub fn hold_at_end(pid: i32) -> io::Result<()> {
    trace(i64::from(libc::PTRACE_SEIZE), pid, i64::from(libc::PTRACE_O_TRACEEXIT))
}

/// Lets such a process go, once it has been killed.
pub fn let_end(pid: i32) -> io::Result<()> {
    trace(i64::from(libc::PTRACE_DETACH), pid, 0)
}

fn trace(request: i64, pid: i32, data: i64) -> io::Result<()> {
    // SAFETY: integers by value; no address is given.
    let rc = unsafe { libc::syscall(libc::SYS_ptrace, request, pid, 0, data) };
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
