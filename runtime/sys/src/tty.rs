//! Terminals: the pty of a container, and the terminal the caller sits at.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use crate::{Result, check, check_unit};

/// Size of a terminal in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
}

/// Lets the slave of this pty master be opened.
pub fn unlock(master: BorrowedFd<'_>) -> Result<()> {
    let off: libc::c_int = 0;
    // SAFETY: the kernel reads one int at the pointer.
    check_unit(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK as _, &raw const off) })
}

/// Opens the slave of this pty master without a path (`TIOCGPTPEER`, Linux 4.13).
pub fn peer(master: BorrowedFd<'_>) -> Result<OwnedFd> {
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: takes a number.
    let fd: RawFd = check(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER as _, flags) })?;
    // SAFETY: the kernel has just made this descriptor for us; nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Number N of the slave /dev/pts/N.
pub fn number(master: BorrowedFd<'_>) -> Result<u32> {
    let mut number: libc::c_uint = 0;
    // SAFETY: the kernel writes one unsigned int at the pointer.
    check_unit(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTN as _, &raw mut number) })?;
    Ok(number)
}

/// Makes this terminal the controlling one of our session.
pub fn take_control(terminal: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: takes a number.
    check_unit(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSCTTY as _, 0) })
}

/// Sets the size.
pub fn set_size(terminal: BorrowedFd<'_>, size: Size) -> Result<()> {
    let size = libc::winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the kernel reads one winsize at the pointer.
    check_unit(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ as _, &raw const size) })
}

/// The size.
pub fn size(terminal: BorrowedFd<'_>) -> Result<Size> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the kernel writes one winsize at the pointer.
    check_unit(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCGWINSZ as _, &raw mut size) })?;
    Ok(Size { rows: size.ws_row, columns: size.ws_col })
}

/// The settings of a terminal, to be put back later.
pub struct Settings(libc::termios);

/// The settings of `terminal`; ENOTTY when it is none.
pub fn settings(terminal: BorrowedFd<'_>) -> Result<Settings> {
    // SAFETY: termios is plain data; all-zero is a valid value.
    let mut now: libc::termios = unsafe { std::mem::zeroed() };
    // SAFETY: libc writes one termios at the pointer.
    check_unit(unsafe { libc::tcgetattr(terminal.as_raw_fd(), &raw mut now) })?;
    Ok(Settings(now))
}

/// Passes every byte through unchanged, typed or printed.
pub fn set_raw(terminal: BorrowedFd<'_>) -> Result<()> {
    change(terminal, make_raw)
}

/// Hands every byte that is typed on unchanged, as a terminal in front of another one must. What is printed keeps its
/// treatment: it comes from [`keep_newlines`].
pub fn set_raw_input(terminal: BorrowedFd<'_>) -> Result<()> {
    change(terminal, |wanted| {
        let printing = wanted.c_oflag;
        make_raw(wanted);
        wanted.c_oflag = printing;
    })
}

/// A newline that is printed stays one, without a carriage return before it.
pub fn keep_newlines(terminal: BorrowedFd<'_>) -> Result<()> {
    change(terminal, |wanted| wanted.c_oflag &= !libc::ONLCR)
}

fn make_raw(wanted: &mut libc::termios) {
    // SAFETY: libc changes the live termios it is given.
    unsafe { libc::cfmakeraw(wanted) };
}

fn change(terminal: BorrowedFd<'_>, edit: impl FnOnce(&mut libc::termios)) -> Result<()> {
    let mut wanted = settings(terminal)?;
    edit(&mut wanted.0);
    restore(terminal, &wanted)
}

/// Puts back settings.
pub fn restore(terminal: BorrowedFd<'_>, settings: &Settings) -> Result<()> {
    // SAFETY: libc reads one live termios.
    check_unit(unsafe { libc::tcsetattr(terminal.as_raw_fd(), libc::TCSANOW, &raw const settings.0) })
}
