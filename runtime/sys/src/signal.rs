//! Signals: masks, dispositions, `signalfd`, and `poll` over descriptors. Called by `launch`.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::{Errno, Result, check, check_unit};

/// Number of the last signal.
const LAST: i32 = 64;

fn set_of(signals: &[i32]) -> libc::sigset_t {
    // SAFETY: sigset_t is plain data; all-zero is a valid (empty) value.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    for signal in signals {
        // SAFETY: writes one bit into the live set; an unknown number is refused by libc.
        unsafe { libc::sigaddset(&raw mut set, *signal) };
    }
    set
}

/// `struct sigaction` as the kernel lays it out on x86-64 and aarch64.
#[repr(C)]
#[derive(Default)]
struct KernelAction {
    handler: usize,
    flags: libc::c_ulong,
    restorer: usize,
    mask: u64,
}

/// Sets every signal to its default action and unblocks all: what a new program expects. By the bare system
/// call, since a libc keeps some signals to itself, which a caller may have ignored all the same.
pub fn reset() {
    let default = KernelAction::default();
    let none = std::ptr::null_mut::<KernelAction>();
    for signal in 1..=LAST {
        // SAFETY: the kernel reads one action of the size it knows (its mask has 8 bytes); numbers that
        // cannot be changed are refused.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, &raw const default, none, size_of::<u64>()) };
    }
    let nothing = set_of(&[]);
    // SAFETY: reads one live set; the former mask is not wanted.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const nothing, std::ptr::null_mut()) };
}

/// Gives `signal` its default action.
pub fn restore_default(signal: i32) {
    // SAFETY: SIG_DFL is a valid action.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
}

/// Ignores `signal` in this process.
pub fn ignore(signal: i32) {
    // SAFETY: SIG_IGN is a valid action.
    unsafe { libc::signal(signal, libc::SIG_IGN) };
}

/// Blocks `signals` and answers a descriptor they can be read from (`signalfd(2)`).
pub fn watch(signals: &[i32]) -> Result<OwnedFd> {
    let set = set_of(signals);
    // SAFETY: reads one live set; the former mask is not wanted.
    check_unit(unsafe { libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) })?;
    // SAFETY: reads one live set.
    let fd = check(unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) })?;
    // SAFETY: the kernel has just made this descriptor for us; nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The next waiting signal of a [`watch`] descriptor.
pub fn next(watch: BorrowedFd<'_>) -> Result<Option<i32>> {
    // SAFETY: signalfd_siginfo is plain data; all-zero is a valid value.
    let mut info: libc::signalfd_siginfo = unsafe { std::mem::zeroed() };
    let size = size_of::<libc::signalfd_siginfo>();
    // SAFETY: the kernel writes at most `size` bytes into the live struct of that size.
    match check(unsafe { libc::read(watch.as_raw_fd(), (&raw mut info).cast(), size) }) {
        Ok(_) => Ok(i32::try_from(info.ssi_signo).ok()),
        Err(Errno::EAGAIN) => Ok(None),
        Err(other) => Err(other),
    }
}

/// What [`poll`] watches for on one descriptor.
#[derive(Clone, Copy, Debug)]
pub struct Interest<'a> {
    /// The descriptor.
    pub fd: BorrowedFd<'a>,
    /// `POLL*` bits.
    pub events: i16,
}

/// `poll(2)`; answers the `POLL*` bits that came up for each, all zero after `timeout_ms` (-1: no limit).
pub fn poll<const N: usize>(watched: [Interest<'_>; N], timeout_ms: i32) -> Result<[i16; N]> {
    let mut fds = watched.map(|one| libc::pollfd { fd: one.fd.as_raw_fd(), events: one.events, revents: 0 });
    loop {
        let count = N as libc::nfds_t;
        // SAFETY: the kernel reads and writes `N` live pollfd structs.
        match check(unsafe { libc::poll(fds.as_mut_ptr(), count, timeout_ms) }) {
            Err(Errno::EINTR) if timeout_ms < 0 => {}
            Err(Errno::EINTR) => return Ok([0; N]),
            Err(other) => return Err(other),
            Ok(_) => return Ok(fds.map(|one| one.revents)),
        }
    }
}

/// Sleeps until it is killed, also when the parent is.
pub fn wait_to_be_killed() -> ! {
    if crate::process::set_parent_death_signal(9).is_err() {
        // The parent notices.
        crate::process::exit(1);
    }
    loop {
        // SAFETY: takes and touches nothing.
        unsafe { libc::pause() };
    }
}

/// Sends `signal` to this process itself.
pub fn raise(signal: i32) {
    let own = crate::process::own_pid();
    // SAFETY: takes numbers only.
    unsafe { libc::kill(own, signal) };
}
